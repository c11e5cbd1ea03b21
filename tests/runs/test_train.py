"""Training: only the intended tensors move, the losses go where they should, and a killed run ends as if it had not
been.
"""

import dataclasses
import errno
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from PIL import Image

from disendiff_lite import training as training_module
from disendiff_lite.config import emoji
from disendiff_lite.data import Batch
from disendiff_lite.losses import smooth, suppress
from disendiff_lite.presets import METHODS
from disendiff_lite.runs import folder as runs
from disendiff_lite.runs import train as train_module
from disendiff_lite.runs.folder import read_losses, read_run
from disendiff_lite.runs.prior import make_prior
from disendiff_lite.runs.train import train
from disendiff_lite.sampling import make_noiser, sample
from disendiff_lite.support import files
from disendiff_lite.support.errors import UserError
from disendiff_lite.tokens import add_modifiers, find_positions
from disendiff_lite.trainable import training
from disendiff_lite.training import reconstruction_loss, training_losses

CLASSES = ["cat", "dog"]
PROMPT = "photo of a <new1> cat and <new2> dog"
RUN_FILES = ("config.json", "run.json", "new1.safetensors", "new2.safetensors", "pytorch_lora_weights.safetensors")


@pytest.fixture(scope="session")
def image():
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 80, 3), dtype=np.uint8))


@pytest.fixture(scope="session")
def prior(new_tiny_pipe):
    return make_prior(new_tiny_pipe(), CLASSES, quick())


def quick(method="disendiff", **changes):
    small = dict(steps=4, batch_size=2, prior_images=2, inference_steps=1, checkpoint_every=2, weight_decay=0.5)
    return emoji(method=method, **{**small, **changes})


def state(pipe):
    parts = {"unet": pipe.unet, "vae": pipe.vae, "text": pipe.text_encoder}
    return {
        f"{part}.{name}": value.clone() for part, module in parts.items() for name, value in module.state_dict().items()
    }


def losses_of(records):
    return [repr(dataclasses.replace(record, seconds=0.0)) for record in records]  # repr, for nan


def contents(folder):
    files = {name: (folder / name).read_bytes() for name in RUN_FILES if name != "run.json"}
    return files | {"run.json": dataclasses.replace(read_run(folder), base="")}  # the same model can have several names


def concept_batch(pipe, flags):
    generator = torch.Generator().manual_seed(3)
    latents = torch.randn(len(flags), 4, 16, 16, generator=generator)
    return Batch(
        latents,
        torch.ones(len(flags), 1, 16, 16),
        [PROMPT if flag else "a cat and a dog" for flag in flags],
        flags,
        [None] * len(flags),
    )


def losses_on(pipe, batch, config):
    generator = torch.Generator().manual_seed(4)
    captions = [caption for caption, concept in zip(batch.captions, batch.is_concept) if concept]
    positions = {
        caption: find_positions(pipe.tokenizer, caption, config.modifiers[:2], CLASSES) for caption in captions
    }
    return training_losses(pipe, make_noiser(pipe), batch, positions, config, generator)


# What moves


@pytest.mark.parametrize("method", METHODS)
def test_only_the_intended_tensors_move(method, new_tiny_pipe, image, prior):
    pipe, untouched = new_tiny_pipe(), new_tiny_pipe()
    add_modifiers(untouched, ["<new1>", "<new2>"], ["ktn", "pll"])
    list(train(pipe, image, CLASSES, quick(method), prior=prior))
    before, after = state(untouched), state(pipe)
    table = next(name for name in after if name.endswith("token_embedding.weight"))
    old, new = before.pop(table), after.pop(table)
    assert torch.equal(new[:-2], old[:-2])  # bit for bit, also under weight decay
    assert torch.equal(new[-2:], old[-2:]) == (method == "dreambooth")
    moved = {name for name in after if not torch.equal(after[name], before[name])}
    keys_and_values = {name for name in after if ".attn2.to_k." in name or ".attn2.to_v." in name}
    unet = {name for name in after if name.startswith("unet.")}
    expected = {"textual_inversion": set(), "dreambooth": unet}.get(method, keys_and_values)
    assert moved == expected


def test_everything_else_is_put_back(tiny_pipe, image, prior):
    tiny_pipe.unet.train()
    tiny_pipe.vae.requires_grad_(False)
    parts = (tiny_pipe.unet, tiny_pipe.vae, tiny_pipe.text_encoder)

    def settings():
        return (
            [module.training for part in parts for module in part.modules()],
            [parameter.requires_grad for part in parts for parameter in part.parameters()],
            [processor for processor in tiny_pipe.unet.attn_processors.values()],
            [len(module._forward_hooks) for part in parts for module in part.modules()],
            tiny_pipe.unet.is_gradient_checkpointing,
        )

    before, random_state = settings(), torch.get_rng_state()
    records = train(tiny_pipe, image, CLASSES, quick(gradient_checkpointing=True), prior=prior)
    next(records)
    assert settings() != before
    records.close()  # as when the caller stops early
    assert settings() == before
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(parameter.grad is None for part in parts for parameter in part.parameters())


def test_weight_decay_reaches_what_trains(new_tiny_pipe, image, prior):
    ends = []
    for decay in (0.0, 0.5):
        pipe = new_tiny_pipe()
        list(train(pipe, image, CLASSES, quick(weight_decay=decay), prior=prior))
        ends.append(state(pipe))
    differs = {name for name in ends[0] if not torch.equal(ends[0][name], ends[1][name])}
    assert any("attn2.to_k" in name for name in differs) and any("token_embedding" in name for name in differs)


def test_the_first_token_gives_no_gradient(tiny_pipe):
    config = quick("custom_diffusion")
    ids = add_modifiers(tiny_pipe, ["<new1>", "<new2>"], config.initial_tokens)
    layer = tiny_pipe.unet.down_blocks[0].attentions[0].transformer_blocks[0].attn2.to_k
    text = torch.randn(1, 5, 32)
    with training(tiny_pipe, config, ids):
        keys = layer(text)
        grad = torch.autograd.grad(keys[:, 0].sum(), layer.weight, allow_unused=True, retain_graph=True)[0]
        assert grad is None or not grad.any()
        assert torch.autograd.grad(keys[:, 1].sum(), layer.weight)[0].any()
        assert torch.equal(keys, torch.nn.functional.linear(text, layer.weight))


# The losses


def test_masked_reconstruction():
    target = torch.zeros(2, 4, 2, 2)
    predicted = torch.zeros(2, 4, 2, 2)
    predicted[0, :, 0, 0] = 1.0  # inside the mask: 4 channels of 1, one cell of two
    predicted[0, :, 1, 1] = 9.0  # outside
    predicted[1, 0] = 2.0  # one channel, every cell
    mask = torch.ones(2, 1, 2, 2)
    mask[0, 0, 1] = 0.0
    assert reconstruction_loss(predicted, target, mask).item() == pytest.approx((4 / 2 + 4.0) / 2)


def test_the_calibration_is_that_of_the_concept_entries(tiny_pipe):
    config = quick()
    add_modifiers(tiny_pipe, ["<new1>", "<new2>"], config.initial_tokens)
    mixed = losses_on(tiny_pipe, concept_batch(tiny_pipe, [False, True]), config)
    batch = concept_batch(tiny_pipe, [True, True])
    both = losses_on(tiny_pipe, batch, config)
    first = losses_on(tiny_pipe, dataclasses.replace(batch, is_concept=[True, False]), config)
    for name in ("bind", "separate"):
        assert both[name].item() == pytest.approx((first[name].item() + mixed[name].item()) / 2, rel=1e-4)
    expected = mixed["reconstruction"] + 0.01 * (mixed["bind"] + mixed["separate"])
    assert mixed["total"].item() == pytest.approx(expected.item())
    plain = losses_on(tiny_pipe, concept_batch(tiny_pipe, [False, False]), config)
    assert set(plain) == {"reconstruction", "total"} and plain["total"] == plain["reconstruction"]


def test_ablations_are_settings(tiny_pipe):
    add_modifiers(tiny_pipe, ["<new1>", "<new2>"], ["ktn", "pll"])
    batch = concept_batch(tiny_pipe, [True])
    full = losses_on(tiny_pipe, batch, quick())
    without_bind = losses_on(tiny_pipe, batch, quick(bind_weight=0.0))
    assert without_bind["total"].item() == pytest.approx((full["reconstruction"] + 0.01 * full["separate"]).item())
    without_separate = losses_on(tiny_pipe, batch, quick(separate_weight=0.0))
    assert without_separate["total"].item() == pytest.approx((full["reconstruction"] + 0.01 * full["bind"]).item())
    without_suppression = losses_on(tiny_pipe, batch, quick(suppress=False))
    assert without_suppression["bind"] != full["bind"]
    assert without_suppression["reconstruction"] == full["reconstruction"]
    twice, all_scales = losses_on(tiny_pipe, batch, quick(suppress_twice=True)), quick(all_scales=True)
    assert twice["separate"] < full["separate"]  # a^4 < a^2: smaller maps overlap less
    assert losses_on(tiny_pipe, batch, all_scales)["bind"] != full["bind"]


def test_only_the_maps_of_the_concepts_words_are_kept(tiny_pipe, monkeypatch):
    add_modifiers(tiny_pipe, ["<new1>", "<new2>"], ["ktn", "pll"])
    stores, capture = [], training_module.capture_attention

    @contextmanager
    def watched(unet, resolution, tokens=None):
        with capture(unet, resolution, tokens if keeps else None) as store:
            stores.append(store)
            yield store

    monkeypatch.setattr(training_module, "capture_attention", watched)
    batch = concept_batch(tiny_pipe, [True, False, True])
    batch = dataclasses.replace(batch, captions=["very small " + PROMPT, *batch.captions[1:]])  # two places a word
    keeps = True
    losses = losses_on(tiny_pipe, batch, quick())
    places = {
        place
        for text in ("", "very small ")
        for c in find_positions(tiny_pipe.tokenizer, text + PROMPT, ["<new1>", "<new2>"], CLASSES)
        for place in (c.modifier, *c.class_)
    }
    assert stores[0].tokens == tuple(sorted(places))
    keeps = False  # and with the maps of all tokens the losses are the same
    monkeypatch.setattr(training_module, "_tracked", lambda _, positions: (None, positions))
    for name, value in losses_on(tiny_pipe, batch, quick()).items():
        assert value.item() == pytest.approx(losses[name].item(), rel=1e-6)


def test_an_oracle_binds_to_the_true_masks(tiny_pipe):
    add_modifiers(tiny_pipe, ["<new1>", "<new2>"], ["ktn", "pll"])
    masks = torch.zeros(2, 16, 16)
    masks[0, :, :5], masks[1, :, 9:] = 1.0, 1.0
    batch = dataclasses.replace(concept_batch(tiny_pipe, [True]), objects=[masks])
    losses = losses_on(tiny_pipe, batch, quick(class_maps="masks"))
    expected = 1 / (suppress(smooth(masks)).sum() + 1)  # IoU of masks that touch nowhere
    assert losses["separate"].item() == pytest.approx(expected.item(), rel=1e-4)
    assert not losses["separate"].requires_grad and losses["bind"].requires_grad


def test_an_oracle_needs_masks(tiny_pipe, image, prior):
    masks = np.zeros((2, image.height, image.width), dtype=bool)
    masks[0, :, :20], masks[1, :, 40:] = True, True
    for wrong in (None, masks[:1], masks[:, :10]):
        with pytest.raises(UserError, match="needs masks of the shape"):
            list(train(tiny_pipe, image, CLASSES, quick(class_maps="masks"), prior=prior, masks=wrong))
    records = list(train(tiny_pipe, image, CLASSES, quick(class_maps="masks", steps=2), prior=prior, masks=masks))
    assert math.isfinite(records[-1].total)


@pytest.mark.parametrize("change", [{"method": "custom_diffusion"}, {"bind_weight": 0.0, "separate_weight": 0.0}])
def test_without_calibration_nothing_is_captured(tiny_pipe, image, prior, monkeypatch, change):
    monkeypatch.setattr(training_module, "capture_attention", None)  # calling it would raise
    records = list(train(tiny_pipe, image, CLASSES, quick(**change), prior=prior))
    assert all(np.isnan(record.bind) and record.total == record.reconstruction for record in records)


def test_the_target_of_v_prediction(tiny_pipe):
    config = quick("custom_diffusion")
    batch = concept_batch(tiny_pipe, [False])
    noise = losses_on(tiny_pipe, batch, config)["reconstruction"]
    tiny_pipe.scheduler.register_to_config(prediction_type="v_prediction")
    velocity = losses_on(tiny_pipe, batch, config)["reconstruction"]
    assert velocity != noise
    tiny_pipe.scheduler.register_to_config(prediction_type="sample")
    with pytest.raises(UserError, match="Cannot train a model that predicts sample"):
        next(train(tiny_pipe, Image.new("RGB", (64, 64)), CLASSES, config))


def test_accumulation_makes_micro_batches(tiny_pipe, image, prior):
    sizes = []
    tiny_pipe.unet.register_forward_hook(lambda _, args, out: sizes.append(len(args[0])))
    list(train(tiny_pipe, image, CLASSES, quick(steps=2, batch_size=3, gradient_accumulation=4), prior=prior))
    assert sizes == [3] * 8


def test_memory_and_precision_settings_train_alike(new_tiny_pipe, image, prior):
    def run(**changes):
        return list(train(new_tiny_pipe(), image, CLASSES, quick(**changes), prior=prior))

    plain, checkpointed, half = run(), run(gradient_checkpointing=True), run(precision="bfloat16")
    assert [r.total for r in checkpointed] == pytest.approx([r.total for r in plain], rel=1e-4)
    assert [r.total for r in half] == pytest.approx([r.total for r in plain], rel=0.03)
    assert losses_of(half) != losses_of(plain)


@pytest.mark.parametrize(("method", "times"), [("dreambooth", 2), ("disendiff", 8)])
def test_captions_are_encoded_once_where_no_embedding_trains(method, times, tiny_pipe, image, prior):
    encoded = []
    tiny_pipe.text_encoder.register_forward_hook(lambda *_: encoded.append(1))
    list(train(tiny_pipe, image, CLASSES, quick(method, steps=8, prior_probability=0.5), prior=prior))
    assert len(encoded) == times  # without a folder there is no check at the end


def test_channels_last_train_alike_and_only_meanwhile(new_tiny_pipe, image, prior):
    plain, pipe = list(train(new_tiny_pipe(), image, CLASSES, quick(), prior=prior)), new_tiny_pipe()
    layouts = []

    def note(*_):
        layouts.append(pipe.unet.conv_in.weight.is_contiguous(memory_format=torch.channels_last))

    pipe.unet.conv_in.register_forward_hook(note)
    records = list(train(pipe, image, CLASSES, quick(channels_last=True), prior=prior))
    assert layouts == [True] * 4
    assert all(weight.is_contiguous() for part in (pipe.unet, pipe.vae) for weight in part.parameters())
    assert [r.total for r in records] == pytest.approx([r.total for r in plain], rel=1e-4)


def test_three_concepts_and_classes_of_several_tokens(tiny_pipe, image):
    config = quick(steps=2, prior_probability=0.0)
    records = list(train(tiny_pipe, image, ["teddy bear", "hummingbirdie", "dog"], config))
    assert all(0 < record.bind < 3 and 0 < record.separate <= 1 for record in records)


def test_a_prompt_of_ones_own(tiny_pipe, image, prior):
    records = train(tiny_pipe, image, CLASSES, quick(), prior=prior, prompt="a <new2> big dog beside a <new1> cat")
    assert len(list(records)) == 4


# Repeating and resuming


@pytest.fixture(scope="module")
def uninterrupted(new_tiny_pipe, image, tmp_path_factory):
    """A run of 5 steps from start to end: its folder, records, and the pipeline's state."""
    folder, pipe = tmp_path_factory.mktemp("runs") / "whole", new_tiny_pipe()
    records = list(train(pipe, image, CLASSES, quick(steps=5), run_dir=folder))
    return folder, records, state(pipe)


def check_same_end(folder, pipe, uninterrupted):
    whole, records, end = uninterrupted
    assert contents(folder) == contents(whole)
    assert losses_of(read_losses(folder)) == losses_of(records)
    reached = state(pipe)
    assert all(torch.equal(reached[name], end[name]) for name in end)
    assert not (folder / "checkpoint.safetensors").exists()


def test_a_run_folder(uninterrupted):
    folder, records, _ = uninterrupted
    names = sorted(path.name for path in folder.iterdir())
    assert names == sorted([*RUN_FILES, "losses.csv", "reference.png", "prior"])
    assert [record.step for record in records] == [1, 2, 3, 4, 5]
    assert losses_of(read_losses(folder)) == losses_of(records)
    record = read_run(folder)
    assert record.classes == ("cat", "dog") and record.modifiers == ("<new1>", "<new2>")
    assert record.prompt == PROMPT and record.finished


def test_the_same_seed_trains_the_same(new_tiny_pipe, image, uninterrupted, tmp_path):
    pipe, made = new_tiny_pipe(), []
    records = train(
        pipe, image, CLASSES, quick(steps=5), run_dir=tmp_path / "again", prior_progress=lambda *n: made.append(n)
    )
    for record in records:
        if record.step == 3:  # looking on does not disturb
            sample(pipe, [PROMPT], [0], quick())
    assert made == [(2, 2)]
    check_same_end(tmp_path / "again", pipe, uninterrupted)
    other = list(train(new_tiny_pipe(), image, CLASSES, quick(steps=5, seed=1)))
    assert losses_of(other) != losses_of(uninterrupted[1])


def test_rates_are_constant_or_fall_along_half_a_cosine(new_tiny_pipe, image):
    def rates(**changes):
        return [
            record.learning_rate
            for record in train(new_tiny_pipe(), image, CLASSES, quick(learning_rate=1e-3, **changes))
        ]

    assert rates(lr_scheduler="constant") == [1e-3] * 4
    share = math.cos(math.pi / 4) / 2
    assert rates(lr_scheduler="cosine") == pytest.approx([1e-3, (0.5 + share) * 1e-3, 0.5e-3, (0.5 - share) * 1e-3])
    embeddings = rates(method="textual_inversion", lr_scheduler="cosine", embedding_learning_rate=2e-3)
    assert embeddings == pytest.approx([2e-3, (0.5 + share) * 2e-3, 1e-3, (0.5 - share) * 2e-3])


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_stopping_anywhere_ends_the_same(new_tiny_pipe, image, uninterrupted, tmp_path, stop):
    config = quick(steps=5)
    records = train(new_tiny_pipe(), image, CLASSES, config, run_dir=tmp_path / "run")
    for _ in range(stop):
        next(records)
    records.close()
    pipe = new_tiny_pipe()
    resumed = list(train(pipe, image, CLASSES, config, run_dir=tmp_path / "run"))
    assert resumed[0].step == stop // 2 * 2 + 1
    check_same_end(tmp_path / "run", pipe, uninterrupted)


def test_a_killed_process_ends_the_same(new_tiny_pipe, image, uninterrupted, tmp_path):
    """A process of its own is killed while it trains, without a chance to tidy up."""
    model, folder = tmp_path / "model", tmp_path / "run"
    new_tiny_pipe().save_pretrained(model)
    image.save(tmp_path / "image.png")
    config = quick(steps=5)
    config.save(tmp_path / "config.json")
    program = (
        "import sys, time\n"
        "from disendiff_lite.config import Config\n"
        "from disendiff_lite.models import load_pipeline\n"
        "from disendiff_lite.runs.train import train\n"
        "model, image, config, folder = sys.argv[1:]\n"
        "for record in train(load_pipeline(model, 'cpu'), image, ['cat', 'dog'], Config.load(config),"
        " run_dir=folder):\n"
        "    time.sleep(0.2)\n"
    )
    paths = [model, tmp_path / "image.png", tmp_path / "config.json", folder]
    process = subprocess.Popen([sys.executable, "-c", program, *map(str, paths)], stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        if (folder / "losses.csv").exists() and len((folder / "losses.csv").read_text().splitlines()) >= 4:
            break
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL, process.stderr.read().decode()
    process.stderr.close()
    pipe = new_tiny_pipe()
    resumed = list(train(pipe, image, CLASSES, config, run_dir=folder))
    assert resumed[0].step in (3, 5)
    check_same_end(folder, pipe, uninterrupted)


@pytest.mark.parametrize("where", ["save_learned", "_record"])
def test_ctrl_c_anywhere_ends_the_same(new_tiny_pipe, image, uninterrupted, tmp_path, monkeypatch, where):
    config = quick(steps=5)

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(train_module if where == "save_learned" else training_module, where, interrupt)
        with pytest.raises(KeyboardInterrupt):
            list(train(new_tiny_pipe(), image, CLASSES, config, run_dir=tmp_path))
    assert not read_run(tmp_path).finished
    pipe = new_tiny_pipe()
    list(train(pipe, image, CLASSES, config, run_dir=tmp_path))
    check_same_end(tmp_path, pipe, uninterrupted)


def test_a_finished_run_is_loaded_and_never_overwritten(new_tiny_pipe, image, uninterrupted):
    folder, _, end = uninterrupted
    before = contents(folder)
    config = quick(steps=5, checkpoint_every=4)
    pipe = new_tiny_pipe()
    assert list(train(pipe, image, CLASSES, config, run_dir=folder)) == []
    assert all(torch.allclose(value, end[name], atol=1e-5) for name, value in state(pipe).items())
    pipe = new_tiny_pipe()  # refusals leave it as it is
    with pytest.raises(UserError, match="holds a run already: choose another folder"):
        next(train(pipe, image, CLASSES, config, run_dir=folder, resume=False))
    with pytest.raises(UserError, match="another run, with steps 5 instead of 7"):
        next(train(pipe, image, CLASSES, dataclasses.replace(config, steps=7), run_dir=folder))
    with pytest.raises(UserError, match="another run, with classes"):
        next(train(pipe, image, ["cat", "cow"], config, run_dir=folder))
    with pytest.raises(UserError, match="another run, with another picture: choose"):
        next(train(pipe, image.rotate(90), CLASSES, config, run_dir=folder))
    with torch.no_grad():
        next(p for name, p in pipe.unet.named_parameters() if ".attn2.to_k" in name).add_(1)
    with pytest.raises(UserError, match="another run, with another model: choose"):
        next(train(pipe, image, CLASSES, config, run_dir=folder))
    assert contents(folder) == before


def test_a_run_without_a_checkpoint_is_begun_anew(new_tiny_pipe, image, tmp_path):
    records = train(new_tiny_pipe(), image, CLASSES, quick(), run_dir=tmp_path)
    next(records)
    records.close()
    assert len(list(train(new_tiny_pipe(), image, ["cat", "dog"], quick(steps=3), run_dir=tmp_path))) == 3


def test_a_damaged_checkpoint_is_refused(new_tiny_pipe, image, tmp_path):
    records = train(new_tiny_pipe(), image, CLASSES, quick(), run_dir=tmp_path)
    next(records), next(records)
    records.close()
    checkpoint = tmp_path / "checkpoint.safetensors"
    whole = checkpoint.read_bytes()
    checkpoint.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="checkpoint.safetensors is truncated or not a safetensors file"):
        next(train(new_tiny_pipe(), image, CLASSES, quick(), run_dir=tmp_path))
    files.write_tensors(checkpoint, {"weights/a": torch.zeros(2)}, {"step": 2})
    with pytest.raises(UserError, match="does not fit this run"):
        next(train(new_tiny_pipe(), image, CLASSES, quick(), run_dir=tmp_path))
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(UserError, match="run.json is damaged"):
        next(train(new_tiny_pipe(), image, CLASSES, quick(), run_dir=tmp_path))


# Bad input


@pytest.fixture(scope="module")
def untouched(new_tiny_pipe):
    """One pipeline for all requests that are refused: none of them may change it."""
    return new_tiny_pipe()


@pytest.mark.parametrize(
    "classes, changes, prompt, words",
    [
        (["cat", "dog"], {}, "photo of a <new1> cat and <new2> cow", "class 'dog' does not come after <new2>"),
        (["cat", "dog"], {}, "photo of a cat and <new2> dog", "modifier <new1> is not in the prompt"),
        (["cat", "dog"], {}, PROMPT + " on the grass" * 30, "tokens but the text encoder reads 77"),
        (["cat", "dog", "cow", "pig"], {}, None, "4 classes .* but 3 modifiers"),
        (["cat", "dog"], {"modifiers": ("cat", "<b>")}, None, "already a word"),
        (["cat", "dog"], {"initial_tokens": ("nosuchtoken", "pll", "ucd")}, None, "not one entry"),
        (["cat"], {}, None, "for one use custom_diffusion"),
        ([], {}, None, "class name is missing"),
        ("cat,dog", {}, None, "must be a list"),
        (["dog", "dog"], {}, "a <new1> and <new2> dog", "share a word .* as in 'a <new1> dog and <new2> dog'"),
        (["cat", "dog"], {"modifiers": ("<v1.0>", "<v10>")}, None, "<v10> would share the file v10.safetensors"),
        (["cat", "dog"], {"map_resolution": 12}, None, "no grid of map_resolution 12: choose one of 16, 8"),
        (["cat", "dog"], {"resolution": 60}, None, "resolution 60 is not a multiple of 8"),
        (["cat", "dog"], {"inference_steps": 1000}, None, "inference_steps is 1000: choose at most 999"),
    ],
)
def test_requests_that_cannot_work(untouched, image, tmp_path, classes, changes, prompt, words):
    words_before = len(untouched.tokenizer)
    with pytest.raises(UserError, match=words):
        next(train(untouched, image, classes, quick(**changes), prompt=prompt, run_dir=tmp_path))
    assert len(untouched.tokenizer) == words_before
    assert not list(tmp_path.iterdir())


def test_a_pipeline_is_not_trained_twice(new_tiny_pipe, image, prior):
    pipe = new_tiny_pipe()
    list(train(pipe, image, CLASSES, quick(steps=1), prior=prior))
    with pytest.raises(UserError, match="already a word"):
        next(train(pipe, image, CLASSES, quick(steps=1), prior=prior))


def test_pictures_that_will_not_do(untouched, image, prior, tmp_path):
    with pytest.raises(UserError, match="There is no picture"):
        next(train(untouched, tmp_path / "none.png", CLASSES, quick()))
    with pytest.raises(UserError, match="1x1 px"):
        next(train(untouched, Image.new("RGB", (1, 1)), CLASSES, quick()))
    with pytest.raises(UserError, match="class pictures are not all 32 px"):
        next(train(untouched, image, CLASSES, quick(resolution=32, map_resolution=8), prior=prior))
    with pytest.raises(UserError, match="no folder .* of class pictures"):
        next(train(untouched, image, CLASSES, quick(), prior=tmp_path / "none"))


def test_a_loss_that_is_no_number_stops_the_run(tiny_pipe, image, prior):
    with pytest.raises(UserError, match="no longer a number at step .*: choose a smaller learning_rate"):
        list(train(tiny_pipe, image, CLASSES, quick(learning_rate=1e30), prior=prior))


@pytest.mark.parametrize("method", METHODS)
def test_a_run_that_breaks_in_its_last_update_is_not_finished(method, new_tiny_pipe, image, prior, tmp_path):
    """The weights are still numbers, but so large that nothing can be drawn with them."""
    rates = dict(steps=1, learning_rate=1e30, embedding_learning_rate=1e30)
    with pytest.raises(UserError, match="no longer a number at step 1: choose a smaller learning_rate"):
        list(train(new_tiny_pipe(), image, CLASSES, quick(method, **rates), prior=prior, run_dir=tmp_path))
    assert not read_run(tmp_path).finished
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "config.json",
        "losses.csv",
        "reference.png",
        "run.json",
    ]


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("kept", [True, False])
def test_a_broken_state_is_neither_kept_nor_gone_on_with(
    new_tiny_pipe, image, uninterrupted, tmp_path, monkeypatch, value, kept
):
    """In the last of five steps one number of one word's embedding breaks, which no loss shows."""

    def broken(pipe, data, positions, optimizer, trainable, *others):
        for record in training_module.training_steps(pipe, data, positions, optimizer, trainable, *others):
            if record.step == 5:
                trainable.rows.data[1, 3] = value
                trainable.write_back()
            yield record

    with monkeypatch.context() as patch:
        patch.setattr(train_module, "training_steps", broken)
        with pytest.raises(UserError, match="no longer a number at step 5: choose a smaller learning_rate"):
            list(train(new_tiny_pipe(), image, CLASSES, quick(steps=5), run_dir=tmp_path if kept else None))
    if kept:
        assert not read_run(tmp_path).finished and files.read_tensors(tmp_path / runs.CHECKPOINT)[1]["step"] == 4
        pipe = new_tiny_pipe()
        assert [record.step for record in train(pipe, image, CLASSES, quick(steps=5), run_dir=tmp_path)] == [5]
        check_same_end(tmp_path, pipe, uninterrupted)


def test_a_broken_checkpoint_of_the_last_step_gives_no_results(new_tiny_pipe, image, tmp_path, monkeypatch):
    """As earlier versions wrote them."""

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(train_module, "save_learned", interrupt)
        with pytest.raises(KeyboardInterrupt):
            list(train(new_tiny_pipe(), image, CLASSES, quick(), run_dir=tmp_path))
    tensors, header = files.read_tensors(tmp_path / runs.CHECKPOINT)
    tensors["weights/embeddings"][0, 0] = math.nan
    files.write_tensors(tmp_path / runs.CHECKPOINT, tensors, header)
    with pytest.raises(UserError, match="no longer a number at step 4"):
        list(train(new_tiny_pipe(), image, CLASSES, quick(), run_dir=tmp_path))
    assert not read_run(tmp_path).finished and not list(tmp_path.glob("new*"))


def test_a_byte_order_mark_does_not_harm_a_run(new_tiny_pipe, image, uninterrupted, tmp_path):
    folder = shutil.copytree(uninterrupted[0], tmp_path / "run")
    for name in ("config.json", "run.json", "losses.csv"):
        (folder / name).write_bytes(b"\xef\xbb\xbf" + (folder / name).read_bytes())
    assert read_run(folder) == read_run(uninterrupted[0]) and len(read_losses(folder)) == 5
    assert list(train(new_tiny_pipe(), image, CLASSES, quick(steps=5), run_dir=folder)) == []


def test_a_folder_that_cannot_be_made(untouched, image, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="Cannot write .*: free some space or choose a run folder"):
        next(train(untouched, image, CLASSES, quick(), run_dir=tmp_path / "file" / "run"))


def test_too_little_space_is_seen_before_the_work(untouched, image, tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(UserError, match="MB left and this run needs"):
        next(train(untouched, image, CLASSES, quick(), run_dir=tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_disk_that_fills_up_keeps_the_last_checkpoint(new_tiny_pipe, image, tmp_path, monkeypatch):
    config = quick(steps=6)
    records = train(new_tiny_pipe(), image, CLASSES, config, run_dir=tmp_path)
    next(records), next(records)
    saved = (tmp_path / "checkpoint.safetensors").read_bytes()

    def full(tensors, path, metadata):
        path.write_bytes(b"half of it")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(files, "save_file", full)
        with pytest.raises(UserError, match="checkpoint.safetensors .No space left on device.: free some space"):
            list(records)
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == saved
    assert not list(tmp_path.glob(".*.tmp"))
    assert [record.step for record in train(new_tiny_pipe(), image, CLASSES, config, run_dir=tmp_path)] == [3, 4, 5, 6]


def test_records_that_are_not_there(tmp_path):
    with pytest.raises(UserError, match="There is no run in"):
        read_run(tmp_path)
    with pytest.raises(UserError, match="Cannot read"):
        read_losses(tmp_path)
    (tmp_path / "losses.csv").write_text("step\n1,2\n")
    with pytest.raises(UserError, match="losses.csv is damaged"):
        read_losses(tmp_path)
    assert runs.picture_hash(Image.new("RGB", (2, 2))) != runs.picture_hash(Image.new("RGB", (4, 1)))


def test_losses_of_before_steps_could_be_skipped(uninterrupted, tmp_path):
    lines = (uninterrupted[0] / "losses.csv").read_text().splitlines()
    older = [line.rpartition(",")[0] for line in lines[:3]] + lines[3:]  # a run that was gone on with
    (tmp_path / "losses.csv").write_text("\n".join(older) + "\n")
    assert read_losses(tmp_path) == read_losses(uninterrupted[0])
    (tmp_path / "losses.csv").write_text("\n".join([*lines[:3], lines[3].rsplit(",", 2)[0]]) + "\n")
    with pytest.raises(UserError, match="losses.csv is damaged"):
        read_losses(tmp_path)
