"""References: the shipped ones are what the world draws, and one's own get prompts that suit any classes."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from disendiff_lite.config import emoji
from disendiff_lite.emoji_world.draw.draw_references import SHIPPED, TUNING_PAIRS, draw, prompts_for
from disendiff_lite.emoji_world.draw.scenes import ACCESSORY_PHRASES
from disendiff_lite.evaluate import pictures as run_scores
from disendiff_lite.evaluate.clip import Scorer
from disendiff_lite.evaluate.pictures import score_pictures, score_run
from disendiff_lite.runs.folder import RunRecord
from disendiff_lite.runs.generate import CONTEXTS, PictureSet, reference_requests
from disendiff_lite.runs.references import (
    ALONE,
    TOGETHER,
    load_reference,
    number_concepts,
    own_reference,
    pair_names,
    reference_names,
    subject_name,
)
from disendiff_lite.support.errors import UserError, run_main
from disendiff_lite.support.paths import REFERENCES

MODIFIERS = ("<new1>", "<new2>", "<new3>")


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "mine.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(path)
    return path


def requests(reference):
    record = RunRecord(reference.classes, MODIFIERS[: len(reference.classes)], "", "", None, {})
    return reference_requests(reference, record)


def test_the_shipped_references_are_the_papers_pairs_the_trio_and_two_of_one_class():
    assert reference_names() == sorted(SHIPPED)
    assert set(SHIPPED) - set(pair_names()) == {"cat_dog_bird", "dog_dog"} and len(pair_names()) == 10
    with pytest.raises(UserError, match="'rabbit_fish': choose one of baby_toy, cat_dog"):
        load_reference("rabbit_fish")  # a pair for tuning, drawn but not shipped
    assert len(draw("rabbit_fish").things) == 2 and not set(TUNING_PAIRS) & set(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_reference_is_what_the_world_draws(name):
    reference, scene = load_reference(name), draw(name)
    assert np.array_equal(np.asarray(reference.picture), scene.picture)
    assert np.array_equal(reference.masks, scene.masks)
    assert reference.classes == tuple(thing.design.class_ for thing in scene.things)
    wears = [thing.design.eyes is not None for thing in scene.things]
    assert reference.prompts == prompts_for(wears, scene.place)
    assert [len(prompts) for prompts in (reference.prompts.combined, *reference.prompts.independent)] == [10] * (
        1 + len(wears)
    )
    worn = [any("wearing" in prompt for prompt in prompts) for prompts in reference.prompts.independent]
    assert worn == wears


def test_two_of_one_class_have_files_of_their_own():
    reference = load_reference("dog_dog")
    assert reference.classes == ("dog", "dog") and {
        path.stem for path in (REFERENCES / "dog_dog").glob("*_[12].png")
    } == {f"{kind}_dog_{number}" for kind in ("crop", "mask", "line_up", "probes_alone") for number in (1, 2)}
    assert not (reference.masks[0] & reference.masks[1]).any() and reference.masks.any(axis=(1, 2)).all()
    first, second = (np.asarray(crop.resize((8, 8)), dtype=float) for crop in reference.crops)
    assert np.abs(first - second).mean() > 20


def test_subjects_are_named_by_their_concepts():
    trio = ("cat", "dog", "bird")
    assert [subject_name(trio, some) for some in ((0, 1, 2), (0, 2), (1,))] == ["combined", "cat and bird", "dog"]
    assert [subject_name(("dog", "dog"), some) for some in ((0, 1), (1,))] == ["combined", "dog 2"]
    assert subject_name(("cat",), (0,)) == "cat"


def test_the_trio_is_asked_for_in_all_seven_ways():
    found = requests(load_reference("cat_dog_bird"))
    numbers = [request.concepts for request in found[::10]]
    assert len(found) == 70 and numbers == [(0, 1, 2), (0, 1), (0, 2), (1, 2), (0,), (1,), (2,)]
    assert found[21].prompt == "photo of a <new1> cat and <new3> bird on the grass" and found[21].kind == "combined"


def test_the_prompts_are_lists_by_concept_in_the_file():
    prompts = json.loads((REFERENCES / "cat_dog_bird" / "reference.json").read_text())["prompts"]
    assert prompts["combined"][0] == "photo of a {0}, {1} and {2}"
    assert [texts[0] for texts in prompts["independent"]] == ["photo of a {0}", "photo of a {1}", "photo of a {2}"]


def test_templates_become_prompts_for_numbered_concepts():
    prompts = number_concepts(["a {}", "an old {}"], [["a {}"], ["a {} at sea", "a big {}"]])
    assert prompts.combined == ("a {0} and {1}", "an old {0} and {1}")
    assert prompts.independent == (("a {0}",), ("a {1} at sea", "a big {1}"))
    assert number_concepts(["a {}"], [["a {}"]] * 3).combined == ("a {0}, {1} and {2}",)
    assert number_concepts(["a {}"], [["a {}"]]).combined == ()


def test_one_class_is_not_asked_for_together(picture):
    reference = own_reference(picture, ["cat"])
    found = requests(reference)
    assert {(request.kind, request.concepts) for request in found} == {("independent", (0,))} and len(found) == len(
        ALONE
    ) == 10
    assert [request.prompt for request in found[:2]] == ["photo of a <new1> cat", "photo of a <new1> cat on the beach"]
    assert (reference.name, reference.crops, reference.masks) == ("mine", None, None)


def test_equal_classes_are_told_apart_and_names_are_stripped(picture):
    reference = own_reference(str(picture), [" dog", "dog "])
    found = requests(reference)
    assert reference.classes == ("dog", "dog") and len(found) == 30
    assert found[0].prompt == "photo of a <new1> dog and <new2> dog" and found[0].concepts == (0, 1)
    assert [found[at].prompt for at in (10, 20)] == ["photo of a <new1> dog", "photo of a <new2> dog"]
    assert [found[at].concepts for at in (10, 20)] == [(0,), (1,)]


def test_equal_classes_have_scores_of_their_own(picture, monkeypatch):
    def mean(shown):
        return torch.from_numpy(np.asarray(shown, dtype=np.float32)).mean(dim=(0, 1))  # (3,)

    model = torch.nn.Module()
    model.encode_image = model.encode_text = torch.nn.Identity()
    scorer = Scorer("means", model, mean, lambda texts: torch.ones(len(texts), 3), torch.device("cpu"))
    reference = own_reference(picture, ["dog", "dog"])
    run = RunRecord(reference.classes, MODIFIERS[:2], "", "", None, {})
    monkeypatch.setattr(
        run_scores, "draw_pictures", lambda pipe, prompts, *_, **__: iter([reference.picture] * len(prompts))
    )
    scores = score_run(None, scorer, reference, run, emoji(), count=1)
    assert [found.subject for found in scores] == ["combined", "dog 1", "dog 2"]
    drawn = (PictureSet(request, [reference.picture]) for request in requests(reference))
    assert score_pictures(scorer, drawn, reference, MODIFIERS) == scores


def test_what_is_asked_of_a_picture_of_ones_own_suits_any_class():
    for template in (*TOGETHER, *ALONE, *CONTEXTS.values()):
        assert template.count("{}") == 1 and not any(phrase in template for phrase in ACCESSORY_PHRASES.values())


def test_a_commands_user_error_is_one_sentence_and_status_2(capsys):
    def main():
        load_reference("nothing")

    with pytest.raises(SystemExit) as end:
        run_main(main)
    printed = capsys.readouterr()
    assert end.value.code == 2 and printed.out == "" and len(printed.err.splitlines()) == 1
    assert printed.err.startswith("There is no reference picture 'nothing': choose one of ")
