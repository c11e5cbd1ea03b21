"""The grid of edits: a row a concept, a column an edit, and the command refuses what it cannot judge."""

import sys

import numpy as np
import pytest
from PIL import Image

from disendiff_lite.config import emoji, paper
from disendiff_lite.evaluate.editing import EditedPictures, edits_of
from disendiff_lite.runs.folder import RunRecord, picture_hash
from disendiff_lite.runs.references import load_reference
from disendiff_lite.show import editing
from disendiff_lite.show.editing import plot_edits
from disendiff_lite.support.errors import UserError


def test_an_edit_that_does_not_suit_a_concept_stays_empty():
    reference = load_reference("chair_lamp")  # neither can wear sunglasses
    edits = {index: edits_of(reference, index) for index in (0, 1)}
    edits[1] = edits[1][:-1]
    grey = [Image.new("RGB", (64, 64), (90 + shade, 90, 90)) for shade in (0, 1)]
    drawn = [EditedPictures(edit, i, f"{edit.name} {i}", grey) for i, several in edits.items() for edit in several]
    figure = plot_edits(drawn, reference, number=1)
    panels, columns = figure.axes, 1 + len(edits[0])
    assert len(panels) == 2 * columns
    assert [panel.get_title() for panel in panels[:3]] == ["learned from", "none 0", "scene 0"]
    shown = [panel.images[0].get_array() for panel in panels]
    assert np.array_equal(shown[0], np.asarray(reference.crops[0])) and shown[1][0, 0].tolist() == [91, 90, 90]
    assert panels[-1].get_title() == "" and (shown[-1] == 255).all() and (shown[-2] != 255).any()


def test_a_run_on_another_picture_is_refused(tmp_path, monkeypatch):
    record = RunRecord(("cat", "dog"), ("<new1>", "<new2>"), "", "0" * 16, None, {})
    monkeypatch.setattr(editing, "read_run", lambda folder: record)
    monkeypatch.setattr(sys, "argv", ["editing", str(tmp_path)])
    with pytest.raises(
        UserError, match="is on no shipped picture, and edits are judged on those: train with --pair cat_dog"
    ):
        editing.main()
    monkeypatch.setattr(sys, "argv", ["editing", str(tmp_path), "--count", "0"])
    with pytest.raises(UserError, match="at least 1 picture"):
        editing.main()


def test_a_run_that_cannot_be_judged_is_refused_before_a_model_is_loaded(tmp_path, monkeypatch):
    picture = picture_hash(load_reference("cat_dog").picture)
    record = RunRecord(("cat", "dog"), ("<new1>", "<new2>"), "", picture, None, {}, base="")
    monkeypatch.setattr(editing, "read_run", lambda folder: record)
    monkeypatch.setattr(sys, "argv", ["editing", str(tmp_path)])
    paper().save(tmp_path / "config.json")
    with pytest.raises(UserError, match="draws pictures of 512 px, and edits are judged at 64 px"):
        editing.main()
    emoji().save(tmp_path / "config.json")
    with pytest.raises(UserError, match="does not say which model it was trained on: name it with --model"):
        editing.main()
