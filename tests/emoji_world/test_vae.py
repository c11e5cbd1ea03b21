"""The autoencoder: what is measured of it, and that it can be widened and trained further."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL

from disendiff_lite.emoji_world.train.architecture import new_vae, widened
from disendiff_lite.emoji_world.train.vae import reconstruction_psnr, train_vae


def test_reconstructions_are_measured_one_by_one_in_batches():
    code = SimpleNamespace(latent_dist=SimpleNamespace())
    batches = []

    def encode(x):
        batches.append(len(x))
        code.latent_dist.mode = lambda: x
        return code

    # An error of 0.2 in [-1, 1] is a tenth of the range, which is 20 dB; of 0.02 it is 40 dB.
    error = torch.tensor([0.2, 0.02]).repeat(50)[:, None, None, None]
    vae = SimpleNamespace(device=torch.device("cpu"), dtype=torch.float32, encode=encode)
    vae.decode = lambda x: SimpleNamespace(sample=x + error[: len(x)])
    grey = np.full((100, 64, 64, 3), 127, np.uint8)
    assert reconstruction_psnr(vae, grey) == pytest.approx([20, 40] * 50, abs=1e-3)
    assert sum(batches) == 100 and max(batches) < 100


def test_a_half_precision_autoencoder_can_be_measured(tiny_pipe):
    pictures = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    exact = reconstruction_psnr(tiny_pipe.vae, pictures)
    assert exact.shape == (3,) and np.isfinite(exact).all()
    assert reconstruction_psnr(tiny_pipe.vae.to(torch.bfloat16), pictures) == pytest.approx(exact, abs=0.2)


def narrow_vae(channels=(16, 32, 64)) -> AutoencoderKL:
    vae = AutoencoderKL.from_config(new_vae().config, block_out_channels=channels, norm_num_groups=channels[0] // 2)
    vae.register_to_config(scaling_factor=0.5)
    return vae.half().float()  # as one that was shipped


@torch.no_grad()
def test_a_widened_autoencoder_computes_the_same():
    narrow, x = narrow_vae(), torch.rand(2, 3, 32, 32) * 2 - 1
    wide, latents = widened(narrow), narrow.encode(x).latent_dist.mode()
    assert wide.config.block_out_channels == (32, 64, 128) and wide.config.scaling_factor == 0.5
    assert torch.allclose(wide.encode(x).latent_dist.mode(), latents, atol=1e-5)
    assert torch.allclose(wide.decode(latents).sample, narrow.decode(latents).sample, atol=1e-4)
    assert torch.allclose(wide.half().float().encode(x).latent_dist.mode(), latents, atol=1e-5)
    assert torch.equal(widened(wide).decode(latents).sample, wide.decode(latents).sample)
    with pytest.raises(RuntimeError, match="size mismatch"):
        widened(narrow_vae((8, 16, 32)))


def test_the_twins_of_a_widened_decoder_are_taught_different_things():
    wide = widened(narrow_vae())
    wide.decode(torch.randn(2, 4, 8, 8)).sample.square().mean().backward()
    one, other = wide.decoder.conv_norm_out.weight.grad.chunk(2)
    assert torch.isclose(one, other, rtol=0.05).float().mean() < 0.25


def test_a_decoder_is_trained_further_without_touching_the_latents(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function: function)
    narrow, pictures = narrow_vae(), np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
    trained = train_vae(pictures, pictures, tmp_path, crops=64, seed=0, device="cpu", start=narrow)
    x = torch.from_numpy(pictures).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        latents = narrow.encode(x).latent_dist.mode()
        assert torch.allclose(trained.encode(x).latent_dist.mode(), latents, atol=1e-5)
        assert not torch.allclose(trained.decode(latents).sample, narrow.decode(latents).sample, atol=1e-2)
    assert all(p.requires_grad for p in narrow.parameters())
