"""Settings: the published numbers, files and back, and refusals that name the mend."""

import dataclasses
import re
from pathlib import Path

import pytest

import disendiff_lite
from disendiff_lite.config import PRESETS, Config, emoji, paper
from disendiff_lite.presets import METHODS
from disendiff_lite.support.errors import UserError


def test_paper_has_the_published_numbers():
    config = paper()
    published = dict(
        method="disendiff",
        resolution=512,
        steps=250,
        batch_size=2,
        gradient_accumulation=4,
        learning_rate=8e-5,
        lr_scheduler="constant",
        calibration_weight=0.01,
        bind_weight=1.0,
        separate_weight=1.0,
        suppress=True,
        smooth=True,
        map_resolution=16,
        initial_tokens=("ktn", "pll", "ucd"),
        prior_probability=0.5,
        prior_images=200,
        flip_probability=0.5,
        inference_steps=50,
        guidance_scale=6.0,
        eta=1.0,
    )
    assert {name: getattr(config, name) for name in published} == published


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("method", METHODS)
def test_a_method_brings_its_own_numbers(preset, method):
    config = PRESETS[preset](method=method)
    assert config.method == method
    assert config.calibrates == (method == "disendiff")
    assert PRESETS[preset]().for_method(method) == config
    assert config.for_method("disendiff") == PRESETS[preset]()


def test_for_method_keeps_what_is_not_the_methods():
    assert emoji(steps=7).for_method("dreambooth").steps == 7


def test_file_and_back(tmp_path):
    config = emoji(steps=3, modifiers=("<a>", "<b>"), seed=5)
    config.save(tmp_path / "config.json")
    assert Config.load(tmp_path / "config.json") == config
    assert Config.from_dict(config.to_dict()) == config


def test_a_byte_order_mark_is_read_over(tmp_path):
    path = tmp_path / "config.json"
    emoji(steps=3).save(path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert Config.load(path) == emoji(steps=3)


@pytest.mark.parametrize("make", [paper, emoji, lambda **changes: Config.from_dict(changes)])
def test_an_unknown_setting_names_the_nearest(make):
    with pytest.raises(UserError, match="no setting 'learning_rte': did you mean 'learning_rate'"):
        make(learning_rte=1e-4)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"steps": -1}, "steps is -1"),
        ({"steps": 0}, "at least 1"),
        ({"seed": -2}, "seed is -2"),
        ({"seed": 2**32}, "must be less than 2**32"),
        ({"learning_rate": -1e-4}, "not negative"),
        ({"learning_rate": float("nan")}, "finite"),
        ({"prior_probability": 1.5}, "between 0 and 1"),
        ({"prior_probability": 1}, "never be seen"),
        ({"prior_images": 0}, "prior_probability to 0"),
        ({"steps": 2.5}, "type int, not 2.5"),
        ({"steps": True}, "type int, not True"),
        ({"suppress": 1}, "type bool"),
        ({"learning_rate": "fast"}, "type float"),
        ({"lr_scheduler": "linear"}, "use one of constant, cosine"),
        ({"modifiers": "<new1>"}, "list of words"),
        ({"modifiers": ("<a>", "<a>")}, "all different"),
        ({"initial_tokens": ("ktn",)}, "fewer initial_tokens"),
        ({"template": "photo"}, "hold {} once"),
        ({"method": "lora"}, "no method 'lora': use one of disendiff"),
        ({"precision": "float8"}, "no precision 'float8'"),
        ({"trained": "keys"}, "no trained 'keys': use one of kv, qkv, v, lora, unet, none"),
        ({"lora_rank": 0}, "lora_rank is 0"),
        ({"lora_alpha": 0}, "lora_alpha is 0, so the adapters would change nothing"),
        ({"trained": "lora", "saved_rank": 4}, "set lora_rank instead"),
        ({"class_maps": "truth"}, "no class_maps 'truth'"),
        ({"suppress_twice": True, "suppress": False}, "leave suppress and smooth on"),
        ({"method": "custom_diffusion", "calibration_weight": 0.1}, "has no calibration"),
    ],
)
def test_wrong_values_are_refused(change, words):
    with pytest.raises(UserError, match=re.escape(words)):
        paper(**change)


@pytest.mark.parametrize("text, words", [("{", "is not JSON"), ("[1]", "settings by name"), ('{"step": 1}', "'steps'")])
def test_a_damaged_file_is_refused(tmp_path, text, words):
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(UserError, match=words):
        Config.load(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(UserError, match="Cannot read"):
        Config.load(tmp_path / "config.json")


def test_every_setting_is_read_somewhere():
    package = Path(disendiff_lite.__file__).parent
    source = "\n".join(path.read_text() for path in package.rglob("*.py"))
    unread = [f.name for f in dataclasses.fields(Config) if not re.search(rf"(config|self)\.{f.name}\b", source)]
    assert unread == []


def test_settings_of_older_runs_train_what_they_trained():
    for method, trained in {"disendiff": "kv", "dreambooth": "unet", "textual_inversion": "none"}.items():
        settings = emoji(method=method).to_dict()
        assert settings.pop("trained") == trained
        assert Config.from_dict(settings) == emoji(method=method)


def test_a_lora_has_a_rate_of_its_own_unless_one_is_given():
    for preset in (emoji, paper):
        assert preset(trained="lora").learning_rate > preset().learning_rate
        assert preset(trained="lora", learning_rate=1e-5).learning_rate == 1e-5
        assert preset(method="dreambooth", trained="lora").learning_rate == preset(trained="lora").learning_rate
        assert preset(trained="v").learning_rate == preset().learning_rate
