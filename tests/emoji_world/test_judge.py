"""The judge: the truth that it learns, and that it finds what is in renderings."""

import numpy as np
import pytest

from disendiff_lite.emoji_world.check import evaluate, judge, questions
from disendiff_lite.emoji_world.draw.world import designs
from disendiff_lite.evaluate.judge import judge_pictures, load_judge
from disendiff_lite.support.errors import UserError


def test_ground_truth_is_that_of_each_cell(some_views):
    rows, view = np.arange(40), np.zeros(40, int)
    truth = judge.ground_truth(some_views, rows, view, np.zeros(40, bool))
    flipped = judge.ground_truth(some_views, rows, view, np.ones(40, bool))
    owners = judge.coarse_owners(some_views.owners[rows, view])
    for row in rows:
        for thing in range(3):
            assert (truth["design"][row].numpy()[owners[row] == thing + 1] == some_views.designs[row, thing]).all()
        nobody = owners[row] == 0
        assert (truth["design"][row].numpy()[nobody] == len(designs())).all()
        assert (truth["worn"][row].numpy()[nobody] == -1).all() and truth["size"][row][nobody].isnan().all()
    assert (flipped["design"] == truth["design"].flip(2)).all()


def test_coarse_owners_need_two_of_four_cells():
    owners = np.zeros((1, 16, 16), np.uint8)
    owners[0, 0, :2] = 2  # two of the first four cells
    owners[0, 0, 2] = 1  # one of the next four
    coarse = judge.coarse_owners(owners)
    assert coarse.shape == (1, 8, 8) and coarse[0, 0, 0] == 2 and coarse.sum() == 2


def test_the_judge_finds_what_is_drawn():
    scenes = evaluate.unseen_scenes(150, seed=99)
    findings = judge_pictures(load_judge(), np.stack([scene.picture for scene in scenes]))
    outcomes = questions.outcomes([questions.true_expectation(scene) for scene in scenes], findings)
    # What the shipped judge reaches, with room for nothing worse; `evaluate` prints its accuracy in full.
    floors = {
        "one object": 0.97,
        "both objects": 0.95,
        "colour of a found object": 0.98,
        "place": 0.98,
        "style": 0.98,
        "size": 0.85,
    }
    for question, floor in floors.items():
        assert outcomes[question].mean() > floor, question
    assert questions.false_alarms(scenes, findings).mean() < 0.03


def test_a_missing_judge_is_said_in_one_sentence(tmp_path):
    with pytest.raises(UserError, match="There is no judge"):
        load_judge(tmp_path / "judge.safetensors")


def test_the_shipped_judge_knows_the_names_of_this_world():
    assert load_judge().labels == judge.world_labels()
