"""The measures' own errors, on pictures whose truth is known: what may be said with them, and what may not."""

import pytest

from disendiff_lite.evaluate.check_measures import TRUTHS, Check, check_measures, checks_table
from disendiff_lite.evaluate.clip import load_scorer
from disendiff_lite.evaluate.contents import measure_contents
from disendiff_lite.evaluate.judge import load_judge
from disendiff_lite.evaluate.probes import RIGHT, probes_alone, probes_together
from disendiff_lite.evaluate.score import Score
from disendiff_lite.runs.generate import PictureSet, Request
from disendiff_lite.runs.references import load_reference
from disendiff_lite.support.errors import UserError

# What the measures are known to be bad at: of a double exposure the judge sees one thing a cell, and what is compared
# with its own, the other and the other's colour cannot be told from a stranger.
BLIND = {
    ("own thing", "blended"): 0.6,
    ("co-occurrence", "blended"): 0.4,
    ("success", "strangers"): 0.5,
    ("success", "blended"): 0.35,
    ("mix-up", "blended"): 0.65,
}


@pytest.fixture(scope="module")
def instruments():
    return load_judge(), load_scorer("emoji", "cpu")


@pytest.mark.slow
def test_the_errors_are_small_but_where_they_are_known_not_to_be(instruments):
    checks = {(check.measure, check.kind): check for check in check_measures(*instruments)}
    assert list(checks) == [(measure, kind) for measure, truths in TRUTHS.items() for kind in truths]
    for key, check in checks.items():
        measure, kind = key
        assert len(check.score.values) == (10 if measure == "omission" and "only" not in kind else 20)
        assert check.error <= BLIND.get(key, 0.1 if kind == RIGHT else 0.15) + 1e-9, key
        assert key not in BLIND or check.error > 0.2, f"{key} is no longer blind"
    assert checks["recognised", RIGHT].score.mean > 10 * checks["recognised", RIGHT].chance
    assert checks["recognised", "stranger"].error < 0.06


def test_one_pair_is_checked_against_its_truth(instruments):
    checks = {(check.measure, check.kind): check for check in check_measures(*instruments, ["cat_dog"])}
    assert all(check.truth == TRUTHS[measure][kind] for (measure, kind), check in checks.items())
    assert checks["own thing", RIGHT].score.values == (1, 1) and checks["own thing", "the other"].score.values == (0, 0)
    assert checks["omission", "only one of the two"].score.values == (1, 1)
    assert checks["recognised", RIGHT].chance == pytest.approx(1 / 21)


def test_every_measure_is_checked(instruments):
    sets = {
        "combined": PictureSet(Request("combined", "", (0, 1)), [probes_together("cat_dog").pictures[RIGHT]]),
        "cat": PictureSet(Request("independent", "", (0,)), [probes_alone("cat_dog", 0).pictures[RIGHT]]),
    }
    measured = measure_contents(*instruments, sets, load_reference("cat_dog"))
    assert {name for name in measured if "concept" not in name} == set(TRUTHS)


def test_the_table_says_how_wrong_a_measure_is():
    checks = [
        Check("recognised", RIGHT, 1, Score((1, 1, 1, 0)), 1 / 21),
        Check("omission", RIGHT, 0, Score((0,)), None),
    ]
    assert checks[0].error == 0.25
    rows = checks_table(checks)
    assert rows[1] == ["recognised", RIGHT, "1", "0.75", "0.25 (0.05 to 0.70)", "4", "0.05"]
    assert rows[2][-1] == "-" and {len(row) for row in rows} == {7}


def test_what_is_no_pair_cannot_be_checked(instruments):
    with pytest.raises(UserError, match="no reference picture 'zebra_lion'"):
        check_measures(*instruments, ["zebra_lion"])
