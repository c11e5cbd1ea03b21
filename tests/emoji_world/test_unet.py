"""The UNet's training: its data, which rows and processors it leaves behind, and that it goes on where it was."""

import csv

import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor
from torch._dynamo.testing import CompileCounter

from disendiff_lite.attention import CapturingProcessor, average_maps, capture_attention
from disendiff_lite.emoji_world.draw.dataset import Scenes
from disendiff_lite.emoji_world.train import unet as unet_training
from disendiff_lite.emoji_world.train.grounding import grounded_predictor
from disendiff_lite.emoji_world.train.rare_words import RARE_WORD, UsedRows, insert_before
from disendiff_lite.emoji_world.train.training_data import TrainingSet, class_positions, latent_scale, training_set
from disendiff_lite.emoji_world.train.unet import UnetTraining, train_unet
from disendiff_lite.support.errors import UserError

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


def test_class_words_are_found_in_their_captions(tiny_pipe):
    positions = class_positions(tiny_pipe.tokenizer, token_ids(tiny_pipe), CLASSES)
    assert positions.tolist() == [[4, 7, 0], [3, 0, 0], [4, 0, 0], [2, 6, 0]]


def test_scenes_are_encoded_once_for_each_autoencoder(tiny_pipe, tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function: function)
    pictures = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
    scenes = Scenes(pictures, np.zeros((4, 3, 16, 16), np.uint8), CAPTIONS, CLASSES)
    tiny_pipe.vae.register_to_config(scaling_factor=latent_scale(tiny_pipe, scenes, "cpu"))
    data = training_set(tiny_pipe, scenes, "cpu", tmp_path)
    assert data.latents.shape == (4, 4, 16, 16) and data.latents.float().std() == pytest.approx(1, abs=1e-2)
    (kept,) = tmp_path.iterdir()
    written = kept.stat().st_mtime_ns
    assert torch.equal(training_set(tiny_pipe, scenes, "cpu", tmp_path).latents, data.latents)
    assert kept.stat().st_mtime_ns == written
    with torch.no_grad():
        next(tiny_pipe.vae.parameters()).add_(0.1)
    assert not torch.equal(training_set(tiny_pipe, scenes, "cpu", tmp_path).latents, data.latents)
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


@pytest.mark.slow
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
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_a_training_goes_on_where_it_was_and_leaves_the_model_as_stock(new_tiny_pipe, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch, "compile", lambda function: function)
    monkeypatch.setattr(unet_training, "CHECKPOINT_EVERY", 1)
    pipe, steps = new_tiny_pipe(), []
    data, originals, table = small_set(pipe), processors(pipe.unet), pipe.text_encoder.get_input_embeddings()
    before = pipe.unet.conv_in.weight.detach().clone()

    def on_progress(current, step):
        assert current is pipe and processors(current.unet) == originals and not current.unet.training
        assert current.text_encoder.get_input_embeddings() is table
        steps.append(step)

    def train(images):
        settings = UnetTraining(images=images, batch=2, warmup=1, rare_word=0.5)
        train_unet(pipe, data, data, tmp_path, settings, device="cpu", every=2, on_progress=on_progress)

    train(images=6)
    assert steps == [2, 3] and (tmp_path / "unet.safetensors").exists()
    assert processors(pipe.unet) == originals and pipe.text_encoder.get_input_embeddings() is table
    assert not torch.equal(pipe.unet.conv_in.weight, before)
    train(images=8)
    assert steps == [2, 3, 4] and "unet step 4/4" in capsys.readouterr().out
    assert len((tmp_path / "training.csv").read_text().splitlines()) == 4  # the names and three rows


def test_a_frozen_text_encoder_stays_as_it_is(new_tiny_pipe, tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function: function)
    for frozen in (True, False):
        torch.manual_seed(0)
        pipe = new_tiny_pipe()
        before = {name: value.clone() for name, value in pipe.text_encoder.state_dict().items()}
        first = pipe.unet.conv_in.weight.detach().clone()
        settings = UnetTraining(images=2, batch=2, warmup=1, rare_word=0.0, frozen_text=frozen)
        train_unet(
            pipe,
            small_set(pipe),
            small_set(pipe),
            tmp_path / str(frozen),
            settings,
            device="cpu",
            on_progress=lambda *_: None,
        )
        same = all(torch.equal(value, before[name]) for name, value in pipe.text_encoder.state_dict().items())
        assert same == frozen and not torch.equal(pipe.unet.conv_in.weight, first)


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


def test_level_weights_are_min_snr_without_balance_and_favour_noise_with_it():
    signal = unet_training.stable_diffusion_scheduler().alphas_cumprod
    ratio = signal / (1 - signal)
    plain = unet_training.level_weights(signal, 5.0, 0.0)
    assert plain.mean() == pytest.approx(1) and torch.allclose(plain / plain[-1], (5 / ratio).clamp_max(1))
    balanced = unet_training.level_weights(signal, 5.0, 0.5)
    middle = int((ratio - 1).abs().argmin())  # SNR 1
    assert balanced.mean() == pytest.approx(1) and (balanced.diff() >= 0).all()
    quarter = int((ratio - 0.25).abs().argmin())
    assert (balanced[quarter] / balanced[middle]).item() == pytest.approx(2, rel=0.02)
