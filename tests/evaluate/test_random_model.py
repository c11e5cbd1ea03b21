"""The random model has the shape of Stable Diffusion 1.5."""

import torch

from disendiff_lite.evaluate.random_model import random_sd15


def test_it_has_the_published_numbers_of_weights():
    pipe = random_sd15(torch.device("meta"), torch.float16)  # shapes without numbers, so nothing is computed
    counts = {
        name: sum(w.numel() for w in getattr(pipe, name).parameters()) for name in ("unet", "vae", "text_encoder")
    }
    assert counts == {"unet": 859_520_964, "vae": 83_653_863, "text_encoder": 123_060_480}
    assert pipe.vae_scale_factor == 8 and pipe.unet.dtype == pipe.vae.dtype == pipe.text_encoder.dtype == torch.float16
