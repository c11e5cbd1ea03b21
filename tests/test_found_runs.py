"""Finding runs: only finished ones of the same model and picture are found."""

import dataclasses
import json

import pytest

from disendiff_lite.base_model import remember_model
from disendiff_lite.found_runs import find_runs
from disendiff_lite.references import load_reference
from disendiff_lite.runs import RunRecord, picture_hash

REFERENCE = load_reference("cat_dog")
RECORD = RunRecord(("cat", "dog"), ("<new1>", "<new2>"), "", picture_hash(REFERENCE.picture), None, {}, finished=True)


@pytest.fixture
def folder(tmp_path):
    variants = {"full": {}, "without_bind": {"finished": False}, "other": {"picture": "0"}, "custom_diffusion": {}}
    for name, changes in variants.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(json.dumps(dataclasses.asdict(dataclasses.replace(RECORD, **changes))))
        remember_model(tmp_path / name, "emoji")
    return tmp_path


def test_what_fits_is_found_in_the_order_of_the_names(folder):
    names = ["Custom Diffusion", "full", "without bind", "other", "nowhere"]
    assert list(find_runs(folder, names, "emoji", REFERENCE)) == ["Custom Diffusion", "full"]
    assert find_runs(folder, names, "emoji", load_reference("dog_pig")) == {}


def test_a_model_is_known_by_each_of_its_names(folder):
    remember_model(folder / "full", "sd15")
    hub = "stable-diffusion-v1-5/stable-diffusion-v1-5"
    assert list(find_runs(folder, ["full"], hub, REFERENCE)) == list(find_runs(folder, ["full"], "sd15", REFERENCE)) == ["full"]
    assert find_runs(folder, ["full"], "emoji", REFERENCE) == {}
