"""Do the measures see what they claim to see? Each is applied to the probes of the ten pairs, whose truth is known.

    python -m disendiff_lite.evaluate.check_measures

prints, for every measure of contents.measure_contents and every kind of probe for which it has one right answer, what
it should say, what it says, its error (the share of wrong values, with Wilson's 95 % interval), and what chance would
say. The probes are mirrored: of the unmirrored ones the scale of "own looks" is made, so it cannot be wrong on them.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageOps

from disendiff_lite.evaluate.clip import Scorer, load_scorer
from disendiff_lite.evaluate.contents import measure_contents
from disendiff_lite.evaluate.intervals import wilson
from disendiff_lite.evaluate.judge import Judge, load_judge
from disendiff_lite.evaluate.probes import OTHERS_COLOUR, RIGHT, RIVALS, probes_alone, probes_together
from disendiff_lite.evaluate.score import Score, pool
from disendiff_lite.runs.generate import PictureSet, Request
from disendiff_lite.runs.references import Reference, load_reference, pair_names
from disendiff_lite.support.errors import run_main
from disendiff_lite.support.text import text_table

ONE_ALONE = "only one of the two"
# Measure -> kind of probe -> what it should say; kinds that are missing have no one right answer.
TRUTHS = {
    "own thing": {RIGHT: 1, OTHERS_COLOUR: 1, "stranger": 1, "blended": 1, "the other": 0},
    "co-occurrence": {RIGHT: 0, OTHERS_COLOUR: 0, "stranger": 0, "blended": 1, "the other": 1},
    "own looks": {RIGHT: 1, OTHERS_COLOUR: 0, "stranger": 0, "blended": 0, "the other": 0},
    "recognised": {RIGHT: 1, OTHERS_COLOUR: 0, "stranger": 0, "blended": 0, "the other": 0},
    "omission": {RIGHT: 0, "copy": 0, "colours swapped": 0, "strangers": 0, ONE_ALONE: 1, "other classes": 1},
    "success": {RIGHT: 1, "copy": 1, "colours swapped": 0, "strangers": 0, "blended": 0, "other classes": 0},
    "mix-up": {RIGHT: 0, "copy": 0, "colours swapped": 1, "blended": 1, "other classes": 0},
}
# By guessing among what a thing is compared with: two ends of a scale; the individual and its rivals; the individual,
# the other one, and the individual in the other's colour.
CHANCES = {"own looks": 1 / 2, "recognised": 1 / (1 + RIVALS), "success": 1 / 3, "mix-up": 2 / 3}


@dataclass(frozen=True)
class Check:
    """What a measure says of one kind of probe. truth: what each value should be, 0 or 1. chance: None for none."""

    measure: str
    kind: str
    truth: int
    score: Score
    chance: float | None

    @property
    def error(self) -> float:
        """The share of values, all 0 or 1, that are wrong."""
        return abs(self.score.mean - self.truth)


def check_measures(judge: Judge, scorer: Scorer, names: Sequence[str] | None = None) -> list[Check]:
    """Apply the measures to the probes of shipped pairs; None takes all. Raises UserError for a name that is no pair.

    Returns a Check for each entry of TRUTHS, in its order, with one value a thing (of "omission" one a picture).
    """
    said = {}
    for name in pair_names() if names is None else names:
        for kind, scores in _measured(judge, scorer, load_reference(name)):
            for measure, score in scores.items():
                said.setdefault((measure, kind), []).append(score)
    return [
        Check(measure, kind, truth, pool(said[measure, kind]), CHANCES.get(measure))
        for measure, truths in TRUTHS.items()
        for kind, truth in truths.items()
    ]


def checks_table(checks: Sequence[Check]) -> list[list[str]]:
    """Rows of text, a line a check."""
    rows = [["measure", "probes", "should say", "says", "error", "values", "by chance"]]
    for check in checks:
        count = len(check.score.values)
        low, high = wilson(round(check.error * count), count)
        error = f"{check.error:.2f} ({low:.2f} to {high:.2f})"
        chance = "-" if check.chance is None else f"{check.chance:.2f}"
        rows.append([check.measure, check.kind, str(check.truth), f"{check.score.mean:.2f}", error, str(count), chance])
    return rows


def _measured(judge: Judge, scorer: Scorer, reference: Reference) -> list[tuple[str, dict[str, Score]]]:
    # For each kind of probe what is measured of a pair: of the two things alone, pooled, or of both together.
    def alone(pictures: Sequence[Image.Image]) -> dict[str, Score]:
        sets = {str(i): PictureSet(Request("independent", "", (i,)), [one]) for i, one in enumerate(pictures)}
        return measure_contents(judge, scorer, sets, reference)

    def together(pictures: Sequence[Image.Image]) -> dict[str, Score]:
        return measure_contents(judge, scorer, {"": PictureSet(Request("combined", "", (0, 1)), pictures)}, reference)

    one, other = (_mirrored(probes_alone(reference.name, index).pictures) for index in range(2))
    both = _mirrored(probes_together(reference.name).pictures)
    found = [(kind, alone([one[kind], other[kind]])) for kind in one]
    found += [(kind, together([picture])) for kind, picture in both.items()]
    return [*found, (ONE_ALONE, together([one[RIGHT], other[RIGHT]]))]


def _mirrored(pictures: dict[str, Image.Image]) -> dict[str, Image.Image]:
    return {kind: ImageOps.mirror(picture) for kind, picture in pictures.items()}


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    print(text_table(checks_table(check_measures(load_judge(), load_scorer("emoji", "cpu")))))


if __name__ == "__main__":
    run_main(main)
