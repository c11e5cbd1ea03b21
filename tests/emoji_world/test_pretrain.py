"""Pretraining's parts: what is measured, which rows and processors a training leaves behind, and that it goes on where it was."""

import csv
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from diffusers.models.attention_processor import AttnProcessor
from safetensors.torch import load_file
from torch._dynamo.testing import CompileCounter

from disendiff_lite.attention import CapturingProcessor, average_maps, capture_attention
from disendiff_lite.emoji_world.draw.dataset import Scenes
from disendiff_lite.emoji_world.train import pretrain
from disendiff_lite.emoji_world.train import unet as pretrain_unet
from disendiff_lite.emoji_world.train.architecture import new_vae, widened
from disendiff_lite.emoji_world.train.rare_words import RARE_WORD, UsedRows, insert_before
from disendiff_lite.emoji_world.train.training_data import TrainingSet, class_positions, latent_scale, training_set
from disendiff_lite.emoji_world.train.unet import UnetTraining, grounded_predictor, train_unet
from disendiff_lite.emoji_world.train.vae import reconstruction_psnr, train_vae
from disendiff_lite.support.errors import UserError, run_main

CAPTIONS = ["photo of a cat and a dog", "a red dog on the beach", "photo of a cat", "a dog and a small cat"]
CLASSES = [["cat", "dog"], ["dog"], ["cat"], ["dog", "cat"]]


def token_ids(pipe):
    return pipe.tokenizer(CAPTIONS, padding="max_length", return_tensors="pt").input_ids  # (4, 77)


def small_set(pipe) -> TrainingSet:
    random = torch.Generator().manual_seed(0)
    ids, latents = token_ids(pipe), torch.randn(4, 4, 16, 16, generator=random).half()
    masks = torch.randint(0, 256, (4, 3, 16, 16), generator=random, dtype=torch.uint8)
    return TrainingSet(latents, ids, masks, class_positions(pipe.tokenizer, ids, CLASSES))


def processors(unet) -> list:
    return list(unet.attn_processors.values())


def test_reconstructions_are_measured_one_by_one_in_batches():
    found = SimpleNamespace(latent_dist=SimpleNamespace())
    batches = []

    def encode(x):
        batches.append(len(x))
        found.latent_dist.mode = lambda: x
        return found

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


def test_class_words_are_found_in_their_captions(tiny_pipe):
    positions = class_positions(tiny_pipe.tokenizer, token_ids(tiny_pipe), CLASSES)
    assert positions.tolist() == [[4, 7, 0], [3, 0, 0], [4, 0, 0], [2, 6, 0]]


def test_scenes_are_encoded_once_for_each_autoencoder(tiny_pipe, tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function: function)
    pictures = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
    scenes = Scenes(pictures, np.zeros((4, 3, 16, 16), np.uint8), CAPTIONS, CLASSES)
    tiny_pipe.vae.register_to_config(scaling_factor=latent_scale(tiny_pipe, scenes, "cpu"))
    made = training_set(tiny_pipe, scenes, "cpu", tmp_path)
    assert made.latents.shape == (4, 4, 16, 16) and made.latents.float().std() == pytest.approx(1, abs=1e-2)
    (kept,) = tmp_path.iterdir()
    written = kept.stat().st_mtime_ns
    assert torch.equal(training_set(tiny_pipe, scenes, "cpu", tmp_path).latents, made.latents)
    assert kept.stat().st_mtime_ns == written
    with torch.no_grad():
        next(tiny_pipe.vae.parameters()).add_(0.1)
    assert not torch.equal(training_set(tiny_pipe, scenes, "cpu", tmp_path).latents, made.latents)
    assert len(list(tmp_path.iterdir())) == 2


def test_only_the_rows_in_use_are_trained(tiny_pipe):
    ids, encoder = token_ids(tiny_pipe), tiny_pipe.text_encoder
    full = encoder.get_input_embeddings()
    before, expected = full.weight.detach().clone(), encoder(ids)[0]
    rare = tiny_pipe.tokenizer.convert_tokens_to_ids(RARE_WORD)
    rows = UsedRows(encoder, ids, rare)
    assert torch.equal(encoder(rows.compact[ids])[0], expected)
    assert len(encoder.get_input_embeddings().weight) == len(rows.rows) < 20
    rows.new_rare_word(torch.Generator().manual_seed(0))
    with torch.no_grad():
        rows.small.weight[int(rows.compact[ids[0, 4]])] += 1  # "cat"
    rows.restore()
    assert encoder.get_input_embeddings() is full
    moved = (full.weight != before).any(dim=1).nonzero().flatten().tolist()
    assert moved == [int(ids[0, 4])]  # the rare word's random embedding is not kept


def test_a_word_before_each_class_word_moves_the_positions():
    ids, positions = torch.tensor([[9, 1, 2, 3, 4, 8, 8]]), torch.tensor([[2, 4, 0]])
    new_ids, new_positions = insert_before(ids, positions, 7)
    assert new_ids.tolist() == [[9, 1, 7, 2, 3, 7, 4]] and new_positions.tolist() == [[3, 6, 0]]
    assert new_ids[0, new_positions[0, :2]].tolist() == [2, 4]


def test_the_predictor_gives_what_the_unet_and_the_capture_give(tiny_unet):
    unet, random = tiny_unet(), torch.Generator().manual_seed(0)
    noisy, text = torch.randn(2, 4, 16, 16, generator=random), torch.randn(2, 77, 32, generator=random)
    t, originals = torch.tensor([5, 500]), processors(unet)
    own = unet.attn_processors
    unet.set_attn_processor(AttnProcessor())  # as the predictor does: the fused kernel rounds otherwise
    with torch.no_grad(), capture_attention(unet, 16) as store:
        expected = unet(noisy, t, text).sample
    unet.set_attn_processor(own)
    predict, capture = grounded_predictor(unet)
    assert processors(unet) != originals
    with torch.no_grad():
        noise, maps = predict(noisy, t, text)
    assert torch.equal(noise, expected) and torch.allclose(maps, average_maps(store), atol=1e-6)
    seen = next(
        processor for processor in processors(unet) if isinstance(processor, CapturingProcessor)
    ).record.__self__
    assert len(seen) == 3
    capture(False)
    assert processors(unet) == originals and seen == []
    with torch.no_grad():
        unet(noisy, t, text)
    assert seen == []  # nothing is kept of pictures drawn meanwhile


def test_putting_the_processors_back_costs_no_new_compilation(tiny_unet):
    unet, counter = tiny_unet(), CompileCounter()
    predict, capture = grounded_predictor(unet)
    fast = torch.compile(predict, backend=counter)
    arguments = torch.zeros(2, 4, 16, 16), torch.tensor([5, 500]), torch.zeros(2, 77, 32)
    first = [fast(*arguments) for _ in range(3)][0]
    compiled = counter.frame_count
    capture(False)
    unet(*arguments)
    capture(True)
    again = [fast(*arguments) for _ in range(3)][0]
    assert compiled > 0 and counter.frame_count == compiled
    assert all(torch.equal(a, b) for a, b in zip(first, again))


def test_a_training_goes_on_where_it_was_and_leaves_the_model_as_stock(new_tiny_pipe, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch, "compile", lambda function: function)
    monkeypatch.setattr(pretrain_unet, "CHECKPOINT_EVERY", 1)
    pipe, shown = new_tiny_pipe(), []
    data, originals, table = small_set(pipe), processors(pipe.unet), pipe.text_encoder.get_input_embeddings()
    before = pipe.unet.conv_in.weight.detach().clone()

    def on_progress(current, step):
        assert current is pipe and processors(current.unet) == originals and not current.unet.training
        assert current.text_encoder.get_input_embeddings() is table
        shown.append(step)

    def train(images):
        settings = UnetTraining(images=images, batch=2, warmup=1, rare_word=0.5)
        train_unet(pipe, data, data, tmp_path, settings, device="cpu", every=2, on_progress=on_progress)

    train(images=6)
    assert shown == [2, 3] and (tmp_path / "unet.safetensors").exists()
    assert processors(pipe.unet) == originals and pipe.text_encoder.get_input_embeddings() is table
    assert not torch.equal(pipe.unet.conv_in.weight, before)
    train(images=8)
    assert shown == [2, 3, 4] and "unet step 4/4" in capsys.readouterr().out
    assert len((tmp_path / "training.csv").read_text().splitlines()) == 4  # the names and three rows


def test_bfloat16_is_for_the_arithmetic_alone(new_tiny_pipe, tmp_path, monkeypatch):
    seen = []

    def watched(function):  # stands in for the compiler
        def predict(*arguments):
            noise, maps = function(*arguments)
            seen.append((noise.dtype, maps.dtype))
            return noise, maps

        return predict

    monkeypatch.setattr(torch, "compile", watched)
    errors = {}
    for precision, number in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        torch.manual_seed(0)
        pipe = new_tiny_pipe()
        data, settings = small_set(pipe), UnetTraining(images=2, batch=2, warmup=1, precision=precision)
        train_unet(pipe, data, data, tmp_path / precision, settings, device="cpu", every=1, on_progress=lambda *_: None)
        assert seen.pop()[0] == number and not seen
        assert {parameter.dtype for parameter in pipe.unet.parameters()} == {torch.float32}
        (row,) = csv.DictReader((tmp_path / precision / "training.csv").open())
        errors[precision] = float(row["error"])
    assert errors["bfloat16"] == pytest.approx(errors["float32"], rel=0.01)
    with pytest.raises(UserError, match="precision 'bf16'"):
        UnetTraining(precision="bf16")


def test_the_command_has_a_folder_of_its_own_and_says_bad_input_in_one_sentence(monkeypatch, capsys):
    folders = []

    def refuse(folder, *_, **__):
        folders.append(folder)
        raise UserError("There are no scenes: draw some.")

    monkeypatch.setattr(pretrain, "load_scenes", refuse)
    monkeypatch.setattr(sys, "argv", ["pretrain"])
    with pytest.raises(SystemExit) as end:
        run_main(pretrain.main)
    assert end.value.code == 2 and capsys.readouterr().err == "There are no scenes: draw some.\n"
    assert folders == [Path("runs/pretrain/scenes")]
    monkeypatch.setattr(sys, "argv", ["pretrain", "--images", "100", "--batch", "128"])
    with pytest.raises(SystemExit) as end:
        run_main(pretrain.main)
    assert end.value.code == 2 and "choose from 1 to 100" in capsys.readouterr().err and len(folders) == 1
    assert UnetTraining(images=0).images == 0  # only the decoder is trained


def test_an_exported_model_is_stock_and_does_not_say_where_it_came_from(new_tiny_pipe, tmp_path):
    new_tiny_pipe().save_pretrained(tmp_path / "whence")
    started = StableDiffusionPipeline.from_pretrained(tmp_path / "whence", safety_checker=None)
    (tmp_path / "model" / "unet").mkdir(parents=True)
    (tmp_path / "model" / "unet" / "old.txt").touch()
    (tmp_path / "model" / "card.md").touch()
    pretrain.export(started, tmp_path / "model")
    assert not any("whence" in path.read_text() for path in (tmp_path / "model").rglob("*.json"))
    assert not (tmp_path / "model" / "unet" / "old.txt").exists() and (tmp_path / "model" / "card.md").exists()
    exported = StableDiffusionPipeline.from_pretrained(tmp_path / "model", safety_checker=None)
    assert exported.unet.dtype == exported.text_encoder.dtype == torch.float32
    assert (
        load_file(tmp_path / "model" / "unet" / "diffusion_pytorch_model.safetensors")["conv_in.bias"].dtype
        == torch.float16
    )


def test_level_weights_are_min_snr_without_balance_and_favour_noise_with_it():
    signal = pretrain_unet.new_scheduler().alphas_cumprod
    ratio = signal / (1 - signal)
    plain = pretrain_unet.level_weights(signal, 5.0, 0.0)
    assert plain.mean() == pytest.approx(1) and torch.allclose(plain / plain[-1], (5 / ratio).clamp_max(1))
    balanced = pretrain_unet.level_weights(signal, 5.0, 0.5)
    middle = int((ratio - 1).abs().argmin())  # SNR 1
    assert balanced.mean() == pytest.approx(1) and (balanced.diff() >= 0).all()
    quarter = int((ratio - 0.25).abs().argmin())
    assert (balanced[quarter] / balanced[middle]).item() == pytest.approx(2, rel=0.02)
