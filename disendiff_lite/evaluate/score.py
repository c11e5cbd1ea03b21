import math
from collections.abc import Sequence
from dataclasses import dataclass

from disendiff_lite.support.errors import UserError


@dataclass(frozen=True)
class Score:
    """One number for each picture (or map), with their mean and spread.

    spread: standard deviation over the values, n - 1 below the line; nan for a single one, which
        says nothing about spread.
    """

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return sum(self.values) / len(self.values)

    @property
    def spread(self) -> float:
        if len(self.values) < 2:
            return math.nan
        return math.sqrt(sum((value - self.mean) ** 2 for value in self.values) / (len(self.values) - 1))

    def __str__(self) -> str:
        return f"{self.mean:.3f} ± {self.spread:.3f} (n = {len(self.values)})"


def pool(scores: Sequence[Score]) -> Score:
    """All values of several scores as one, for a mean over prompts in which each picture counts the same."""
    return Score(tuple(value for score in scores for value in score.values))


def paired_difference(score: Score, base: Score) -> Score:
    """score - base, value by value.

    Both must have their values in the same order: picture i from the same seed and prompt.

    Raises UserError if their numbers differ.
    """
    if len(score.values) != len(base.values):
        raise UserError(
            f"{len(score.values)} values cannot be paired with {len(base.values)}: measure both runs with the same"
            " pictures."
        )
    return Score(tuple(a - b for a, b in zip(score.values, base.values)))


def standard_error(score: Score) -> float:
    """Of the mean: spread / sqrt(n), as if the values were independent; nan for a single value."""
    return score.spread / math.sqrt(len(score.values))
