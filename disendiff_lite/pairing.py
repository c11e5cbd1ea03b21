"""Runs compared picture by picture: all of them draw from the same noises, so what differs is the run, not the luck of a seed."""

import math

from disendiff_lite.errors import UserError
from disendiff_lite.scores import Score


def paired_difference(score: Score, base: Score) -> Score:
    """score - base, value by value.

    Both must have their values in the same order: picture i from the same seed and prompt.

    Raises UserError if their numbers differ.
    """
    if len(score.values) != len(base.values):
        raise UserError(
            f"{len(score.values)} values cannot be paired with {len(base.values)}: measure both runs with the same pictures."
        )
    return Score(tuple(a - b for a, b in zip(score.values, base.values)))


def standard_error(score: Score) -> float:
    """Of the mean: spread / sqrt(n), as if the values were independent; nan for a single value."""
    return score.spread / math.sqrt(len(score.values))
