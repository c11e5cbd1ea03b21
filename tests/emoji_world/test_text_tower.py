"""The text encoder's own training: which rows it leaves behind, and a folder that loads."""

import numpy as np
import torch

from disendiff_lite.emoji_world.draw.dataset import Scenes
from disendiff_lite.emoji_world.draw.scenes import random_scene
from disendiff_lite.emoji_world.train import text_tower
from disendiff_lite.emoji_world.train.pretrain import export
from disendiff_lite.emoji_world.train.text_tower import train_text_tower
from disendiff_lite.models import load_pipeline
from disendiff_lite.single_file import assemble


def test_two_steps_train_the_words_in_use_and_the_folder_loads(tiny_pipe, tmp_path, monkeypatch):
    monkeypatch.setattr(text_tower, "HELD_BACK", 8)
    rng = np.random.default_rng(0)
    drawn = [random_scene(rng) for _ in range(16)]
    captions = [scene.caption for scene in drawn]
    scenes = Scenes(np.stack([scene.picture for scene in drawn]), np.zeros((16, 3, 16, 16), np.uint8), captions, [])
    options = dict(steps=2, batch=4, learning_rate=1e-2, device="cpu")
    encoder, found = train_text_tower(scenes, tiny_pipe.tokenizer, 2, **options)
    assert encoder.config.num_hidden_layers == 2 and 0 <= found <= 1 and not encoder.training

    table = encoder.get_input_embeddings().weight  # untrained rows are random signs
    ids = tiny_pipe.tokenizer(captions + [""], padding="max_length", return_tensors="pt").input_ids
    used = torch.zeros(len(tiny_pipe.tokenizer), dtype=torch.bool)
    used[ids.flatten()] = True
    untouched = (table.abs() == 0.5).all(dim=1)
    assert len(table) == len(used) and untouched[~used].all()
    assert not untouched[tiny_pipe.tokenizer.bos_token_id]  # it begins every caption

    export(assemble(tiny_pipe.vae, encoder, tiny_pipe.unet), tmp_path / "tower")
    loaded = load_pipeline(str(tmp_path / "tower"), device="cpu").text_encoder
    with torch.no_grad():
        torch.testing.assert_close(loaded(ids[:2])[0], encoder(ids[:2])[0], atol=0.02, rtol=0.02)
