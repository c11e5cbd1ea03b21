"""The ablation: variants that differ in one thing alone, trained on the same, each in a folder of its own."""

import dataclasses
import json

import pytest

from disendiff_lite.config import emoji
from disendiff_lite.evaluate import ablation
from disendiff_lite.evaluate.ablation import VARIANTS, ablation_configs, find_runs, train_variants, variant_folder
from disendiff_lite.runs.folder import RunRecord, picture_hash, read_losses, read_run
from disendiff_lite.runs.prior import make_prior
from disendiff_lite.runs.references import load_reference
from disendiff_lite.support.errors import UserError

QUICK = emoji(steps=2, prior_images=2, prior_batch=2, inference_steps=2, augment=False, prior_probability=0.25, seed=3)
REFERENCE = load_reference("cat_dog")
RECORD = RunRecord(("cat", "dog"), ("<new1>", "<new2>"), "", picture_hash(REFERENCE.picture), None, {}, finished=True)


@pytest.fixture
def tiny(monkeypatch, new_tiny_pipe):
    monkeypatch.setattr(ablation, "load_pipeline", lambda model: new_tiny_pipe())
    return new_tiny_pipe


def test_each_variant_takes_one_thing_away():
    configs = ablation_configs(QUICK)
    assert list(configs) == list(VARIANTS) and configs["full"] == QUICK
    changed = {
        name: {key for key, value in vars(config).items() if value != getattr(QUICK, key)}
        for name, config in configs.items()
    }
    assert changed["without bind"] == {"bind_weight"} and changed["without separate"] == {"separate_weight"}
    assert changed["without suppression"] == {"suppress"}
    assert (
        changed["Custom Diffusion"] == {"method", "calibration_weight"} and not configs["Custom Diffusion"].calibrates
    )


@pytest.mark.parametrize("change", [{"bind_weight": 0.0}, {"suppress": False}, {"smooth": False}])
def test_there_must_be_something_to_take_away(change):
    with pytest.raises(UserError, match="whole calibration"):
        ablation_configs(dataclasses.replace(QUICK, **change))


def test_variants_see_the_same_and_are_loaded_when_finished(tiny, tmp_path):
    prior = make_prior(tiny(), REFERENCE.classes, QUICK)
    configs = {name: config for name, config in ablation_configs(QUICK).items() if name in ("full", "Custom Diffusion")}
    rows = []
    for name, pipe in train_variants("emoji", REFERENCE, configs, tmp_path, prior):
        assert read_run(variant_folder(tmp_path, name)).finished and "<new1>" in pipe.tokenizer.get_vocab()
        rows.append(pipe.text_encoder.get_input_embeddings().weight.detach().clone())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["custom_diffusion", "full"]
    assert not any(tmp_path.rglob("prior")) and not any(tmp_path.rglob("checkpoint*"))
    first = [read_losses(variant_folder(tmp_path, name))[0].reconstruction for name in configs]
    assert first[0] == pytest.approx(first[1], rel=1e-5)  # the same pictures, noises and noise levels
    loaded = train_variants("emoji", REFERENCE, configs, tmp_path, prior)
    again = [pipe.text_encoder.get_input_embeddings().weight for _, pipe in loaded]
    assert all(old.equal(new) for old, new in zip(rows, again))


def test_the_command_keeps_what_was_learned_and_little_else(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["ablation", "--out", str(tmp_path / "kept"), "--seed", "1"])
    monkeypatch.setattr(ablation, "preset_for", lambda model: lambda **changes: dataclasses.replace(QUICK, **changes))
    ablation.main()
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines() if "kB" in line] == list(VARIANTS)
    kept = {path.name for path in (tmp_path / "kept" / "without_bind").iterdir()}
    assert kept == {
        "config.json",
        "losses.csv",
        "new1.safetensors",
        "new2.safetensors",
        "pytorch_lora_weights.safetensors",
        "reference.png",
        "run.json",
    }


@pytest.fixture
def folder(tmp_path):
    variants = {"full": {}, "without_bind": {"finished": False}, "other": {"picture": "0"}, "custom_diffusion": {}}
    for name, changes in variants.items():
        (tmp_path / name).mkdir()
        _write_run(tmp_path / name, **changes)
    return tmp_path


def test_what_fits_is_found_in_the_order_of_the_names(folder):
    names = ["Custom Diffusion", "full", "without bind", "other", "nowhere"]
    assert list(find_runs(folder, names, "emoji", REFERENCE)) == ["Custom Diffusion", "full"]
    assert find_runs(folder, names, "emoji", load_reference("dog_pig")) == {}


def test_a_model_is_known_by_each_of_its_names(folder):
    _write_run(folder / "full", base="sd15")
    hub = "stable-diffusion-v1-5/stable-diffusion-v1-5"
    assert (
        list(find_runs(folder, ["full"], hub, REFERENCE))
        == list(find_runs(folder, ["full"], "sd15", REFERENCE))
        == ["full"]
    )
    assert find_runs(folder, ["full"], "emoji", REFERENCE) == {}


def test_a_run_from_before_names_its_model_in_a_file_of_its_own(folder):
    record = dataclasses.asdict(RECORD)
    del record["base"]
    (folder / "full" / "run.json").write_text(json.dumps(record))
    assert list(find_runs(folder, ["full"], "emoji", REFERENCE)) == ["full"]
    (folder / "full" / "model.json").write_text('{"model": "sd15"}')
    assert find_runs(folder, ["full"], "emoji", REFERENCE) == {}


def _write_run(folder, **changes):
    (folder / "run.json").write_text(json.dumps(dataclasses.asdict(dataclasses.replace(RECORD, **changes))))
