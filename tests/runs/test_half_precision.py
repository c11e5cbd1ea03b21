"""Training in half precision: what is frozen is held in it, what trains is not, and a run goes on as it was."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from disendiff_lite.config import emoji
from disendiff_lite.models import model_fingerprint
from disendiff_lite.runs import train as train_module
from disendiff_lite.runs.folder import read_losses
from disendiff_lite.runs.learned import load_learned
from disendiff_lite.runs.prior import make_prior
from disendiff_lite.runs.train import train
from disendiff_lite.sampling import sample
from disendiff_lite.support.errors import UserError
from disendiff_lite.tokens import add_modifiers
from disendiff_lite.trainable import trained_bytes
from tests.runs.test_train import CLASSES, PROMPT, contents, losses_of, quick, state

HALVES = ("bfloat16", "float16")


@pytest.fixture(scope="module")
def image():
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 80, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def prior(new_tiny_pipe):
    return make_prior(new_tiny_pipe(), CLASSES, quick())


@pytest.mark.parametrize("precision", HALVES)
def test_only_what_trains_changes_and_it_stays_float32(precision, new_tiny_pipe, image, prior, tmp_path):
    pipe, untouched = new_tiny_pipe(), new_tiny_pipe()
    add_modifiers(untouched, ["<new1>", "<new2>"], ["ktn", "pll"])
    config, seen = quick(precision=precision, steps=3), []
    for record in train(pipe, image, CLASSES, config, prior=prior, run_dir=tmp_path):
        assert not record.skipped
        parts = (pipe.unet, pipe.vae, pipe.text_encoder)
        types = {n: w.dtype for part in parts for n, w in part.named_parameters()}
        seen.append({n for n, dtype in types.items() if dtype == torch.float32})
        assert set(types.values()) == {torch.float32, getattr(torch, precision)}
        sample(pipe, [PROMPT], [0], config)  # one may look on
    assert len(seen) == 3
    assert all(".attn2.to_" in n or n.endswith("token_embedding.weight") for names in seen for n in names)
    before, after = state(untouched), state(pipe)
    assert all(value.dtype == torch.float32 for value in after.values() if value.is_floating_point())
    moved = {name for name in after if not torch.equal(after[name], before[name])}
    assert moved == {n for n in after if ".attn2.to_k." in n or ".attn2.to_v." in n or "token_embedding" in n}
    fresh = new_tiny_pipe()
    load_learned(fresh, tmp_path)  # it knows its model, loaded in float32
    table = fresh.text_encoder.get_input_embeddings().weight
    assert torch.equal(table[-2:], pipe.text_encoder.get_input_embeddings().weight[-2:])  # not rounded
    assert not torch.equal(table[-2:], table[-2:].to(getattr(torch, precision)).float())


@pytest.mark.parametrize("precision", HALVES)
def test_half_precision_trains_alike(precision, new_tiny_pipe, image, prior):
    def run(**changes):
        return [record.total for record in train(new_tiny_pipe(), image, CLASSES, quick(**changes), prior=prior)]

    plain, half = run(), run(precision=precision)
    assert half == pytest.approx(plain, rel=0.03) and half != plain
    assert run(precision=precision, gradient_checkpointing=True) == pytest.approx(half, rel=0.01)


@pytest.mark.parametrize("precision", HALVES)
def test_a_model_in_half_precision_is_trained_in_float32(precision, new_tiny_pipe, image, prior, tmp_path):
    pipe, dtype = new_tiny_pipe(), getattr(torch, precision)
    for part in (pipe.unet, pipe.vae, pipe.text_encoder):
        nn.Module.to(part, dtype=dtype)
    fingerprint = model_fingerprint(pipe.unet)
    config = quick(learning_rate=1e-6, steps=2)  # too small to be seen in half precision
    list(train(pipe, image, CLASSES, config, prior=prior, run_dir=tmp_path))
    assert {w.dtype for part in (pipe.unet, pipe.vae, pipe.text_encoder) for w in part.parameters()} == {dtype}
    fresh = new_tiny_pipe()
    changed = {name: weight.clone() for name, weight in fresh.unet.state_dict().items()}
    load_learned(fresh, tmp_path)  # the same model, loaded in float32
    assert model_fingerprint(new_tiny_pipe().unet)[precision] == fingerprint[precision]
    moved = [name for name, weight in fresh.unet.state_dict().items() if not torch.equal(weight, changed[name])]
    assert moved and all(".attn2.to_" in name for name in moved)


@pytest.mark.slow
def test_a_run_in_float16_goes_on_as_it_was(new_tiny_pipe, image, prior, tmp_path, monkeypatch):
    """With a scale that overflows at first and grows soon, so that it is not the one that a run begins with."""

    def scaler(precision, device):
        return torch.amp.GradScaler(device.type, init_scale=2.0**22, growth_interval=2)

    monkeypatch.setattr(train_module, "make_scaler", scaler)
    config = quick(precision="float16", steps=24, checkpoint_every=2)
    whole = list(train(new_tiny_pipe(), image, CLASSES, config, prior=prior, run_dir=tmp_path / "whole"))
    skipped = [record.skipped for record in whole]
    assert skipped[0] == 1 and 2 < sum(skipped) < 22
    assert losses_of(read_losses(tmp_path / "whole")) == losses_of(whole)
    for stop in (5, 19):
        records = train(new_tiny_pipe(), image, CLASSES, config, prior=prior, run_dir=tmp_path / "run")
        for record in records:
            if record.step == stop:
                break
        records.close()
    list(train(new_tiny_pipe(), image, CLASSES, config, prior=prior, run_dir=tmp_path / "run"))
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")
    assert losses_of(read_losses(tmp_path / "run")) == losses_of(whole)


def test_a_skipped_step_changes_nothing_and_skipping_for_ever_ends(new_tiny_pipe, image, prior, monkeypatch):
    monkeypatch.setattr(train_module, "make_scaler", lambda *_: torch.amp.GradScaler("cpu", init_scale=2.0**40))
    pipe, untouched = new_tiny_pipe(), new_tiny_pipe()
    add_modifiers(untouched, ["<new1>", "<new2>"], ["ktn", "pll"])
    records = train(pipe, image, CLASSES, quick(precision="float16"), prior=prior)
    assert next(records).skipped == 1
    records.close()
    before, after = state(untouched), state(pipe)
    assert all(torch.equal(after[name], before[name]) for name in after)
    monkeypatch.setattr(train_module, "make_scaler", lambda *_: torch.amp.GradScaler("cpu", init_scale=1.5))
    broken = new_tiny_pipe()
    broken.unet.conv_out.register_full_backward_hook(lambda _, inner, outer: tuple(one * torch.inf for one in inner))
    with pytest.raises(UserError, match="overflows in float16 by step 1: set precision to bfloat16 or float32"):
        list(train(broken, image, CLASSES, quick(), prior=prior))


@pytest.mark.parametrize(
    ("changes", "mend"),
    [
        ({}, "precision to float16 or bfloat16 or gradient_checkpointing to true or batch_size to 1 with more"),
        ({"precision": "bfloat16", "batch_size": 1}, "set gradient_checkpointing to true"),
        ({"precision": "bfloat16", "batch_size": 1, "gradient_checkpointing": True}, "set a smaller resolution"),
    ],
)
def test_a_memory_that_is_too_small(changes, mend, tiny_pipe, image, prior):
    def too_large(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    tiny_pipe.unet.register_forward_pre_hook(too_large)
    with pytest.raises(UserError, match=f"too little memory .*{mend}"):
        next(train(tiny_pipe, image, CLASSES, quick(**changes), prior=prior))


def test_the_disk_is_checked_for_what_trains_in_float32(new_tiny_pipe):
    for config in (emoji(), emoji(method="dreambooth")):
        sizes = {trained_bytes(new_tiny_pipe().to(dtype), config) for dtype in (torch.float32, torch.bfloat16)}
        assert len(sizes) == 1 and sizes.pop() > 0
