"""Paired differences, with numbers that can be checked by hand."""

import math

import pytest

from disendiff_lite.evaluate.score import Score, paired_difference, standard_error
from disendiff_lite.support.errors import UserError

BASE = Score((0.1, 0.5, 0.9))  # its spread is far larger than the differences
BETTER = Score((0.2, 0.7, 1.2))


def test_what_both_runs_share_drops_out():
    difference = paired_difference(BETTER, BASE)
    assert difference.values == pytest.approx((0.1, 0.2, 0.3))
    assert standard_error(difference) == pytest.approx(0.1 / math.sqrt(3))


def test_other_numbers_of_pictures_are_refused():
    with pytest.raises(UserError, match="same pictures"):
        paired_difference(BASE, Score((0.1,)))
