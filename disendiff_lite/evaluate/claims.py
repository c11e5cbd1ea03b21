"""The paper's claims as hypotheses: each is a few comparisons of methods, tested on the table that a sweep has written.

    python -m disendiff_lite.evaluate.claims results/measures.csv

prints a table of the methods, and for each claim what the paper says, what was measured, and a verdict. A claim holds
if all of its comparisons hold, fails if one fails, and cannot be told else. Intervals are bootstrapped over pairs and
seeds (intervals.py); each is meant for itself, so of many comparisons a few are wrong: their number is printed.
"""

import argparse
import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from disendiff_lite.evaluate.intervals import (
    Interval,
    Values,
    bootstrap,
    paired_differences,
    verdict,
    verdict_of_equality,
)
from disendiff_lite.support.errors import UserError, run_main
from disendiff_lite.support.text import text_table

LEVEL_MARGIN = 0.02  # cosines that differ by no more are called level
IMAGE, TEXT = "image-alignment, {}", "text-alignment, {}"
FULL, CUSTOM, DREAMBOOTH, INVERSION = "disendiff", "custom_diffusion", "dreambooth", "textual_inversion"

Measures = Mapping[str, Mapping[str, Values]]  # method -> measure -> pair -> seed -> mean


@dataclass(frozen=True)
class Comparison:
    """`larger` has more of a measure than `smaller`, or, if `level`, about as much."""

    measure: str
    larger: str
    smaller: str
    level: bool = False


@dataclass(frozen=True)
class Claim:
    """name: such as "C3". says: the claim in a sentence."""

    name: str
    says: str
    comparisons: tuple[Comparison, ...]


@dataclass(frozen=True)
class Outcome:
    """A claim with the interval of each comparison, larger minus smaller, and "holds", "fails" or "cannot be told"."""

    claim: Claim
    intervals: tuple[Interval, ...]
    verdict: str


def _falls(arm: str, measures: Iterable[str]) -> tuple[Comparison, ...]:
    return tuple(Comparison(measure, FULL, arm) for measure in measures)


_CONCEPTS = ("concept 1", "concept 2")
CLAIMS = (
    Claim(
        "C1",
        "Textual Inversion has the highest text-alignment and the lowest image-alignment.",
        tuple(Comparison(TEXT.format("mean"), INVERSION, other) for other in (DREAMBOOTH, CUSTOM, FULL))
        + tuple(Comparison(IMAGE.format("mean"), other, INVERSION) for other in (DREAMBOOTH, CUSTOM, FULL)),
    ),
    Claim(
        "C2",
        "DreamBooth is above Textual Inversion in image-alignment, and below DisenDiff in both scores.",
        (
            Comparison(IMAGE.format("mean"), DREAMBOOTH, INVERSION),
            Comparison(IMAGE.format("mean"), FULL, DREAMBOOTH),
            Comparison(TEXT.format("mean"), FULL, DREAMBOOTH),
        ),
    ),
    Claim(
        "C3",
        "Custom Diffusion is level with DisenDiff on both concepts together and on concept 1, and behind on concept 2.",
        (
            Comparison(IMAGE.format("combined"), FULL, CUSTOM, level=True),
            Comparison(IMAGE.format("concept 1"), FULL, CUSTOM, level=True),
            Comparison(IMAGE.format("concept 2"), FULL, CUSTOM),
        ),
    ),
    Claim(
        "C4",
        "DisenDiff has the highest image-alignment, at a text-alignment like the others'.",
        tuple(Comparison(IMAGE.format("mean"), FULL, other) for other in (INVERSION, DREAMBOOTH, CUSTOM))
        + tuple(Comparison(TEXT.format("mean"), FULL, other, level=True) for other in (DREAMBOOTH, CUSTOM)),
    ),
    Claim(
        "F1",
        "Custom Diffusion draws the other thing unasked, more than DisenDiff.",
        (Comparison("co-occurrence", CUSTOM, FULL),),
    ),
    Claim(
        "F2",
        "Custom Diffusion gives a thing the other's attributes, more than DisenDiff.",
        (Comparison("mix-up", CUSTOM, FULL), Comparison("own looks", FULL, CUSTOM)),
    ),
    Claim(
        "F3",
        "Custom Diffusion's words look at the other thing, more than DisenDiff's.",
        (Comparison("class on other", CUSTOM, FULL), Comparison("modifier on other", CUSTOM, FULL)),
    ),
    Claim(
        "A1",
        "Without L_s&s the image-alignment of both single concepts falls.",
        _falls("without_separate", map(IMAGE.format, _CONCEPTS)),
    ),
    Claim(
        "A2",
        "Without L_bind the image-alignment of both single concepts falls.",
        _falls("without_bind", map(IMAGE.format, _CONCEPTS)),
    ),
    Claim(
        "A3",
        "Without suppression the image-alignment of concept 2 falls, and the text-alignment of both.",
        _falls("without_suppression", (IMAGE.format("concept 2"), *map(TEXT.format, _CONCEPTS))),
    ),
    Claim(
        "A4",
        "Without the Gaussian the image-alignment of both concepts together falls.",
        _falls("without_gaussian", [IMAGE.format("combined")]),
    ),
    Claim(
        "A5",
        "Suppressed twice, the image-alignment falls.",
        _falls("suppressed_twice", [IMAGE.format("mean")]),
    ),
    Claim(
        "A6",
        "With the maps of all scales, the image-alignment of concept 2 falls.",
        _falls("all_scales", [IMAGE.format("concept 2")]),
    ),
    Claim(
        "A7",
        "With the queries trained, too, the image-alignment rises and the text-alignment falls.",
        (
            Comparison(IMAGE.format("mean"), "queries_too", FULL),
            Comparison(TEXT.format("mean"), FULL, "queries_too"),
        ),
    ),
)
_PARTS = ("combined", *_CONCEPTS, "mean")
TABLES = {  # title -> the measures that stand in one table
    "Likeness to the reference": tuple(IMAGE.format(part) for part in _PARTS),
    "Likeness to the prompt": tuple(TEXT.format(part) for part in _PARTS),
    "What is in the pictures": ("co-occurrence", "omission", "mix-up", "own looks", "recognised", "language drift"),
    "Where the words look": ("class on other", "modifier on other", "class IoU", "modifier IoU"),
}


def read_measures(path: str | Path) -> dict[str, dict[str, dict[str, dict[int, float]]]]:
    """A sweep's measures.csv as method -> measure -> pair -> seed -> mean. Raises UserError if it cannot be read."""
    table = {}
    try:
        with open(path, newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                pairs = table.setdefault(row["method"], {}).setdefault(row["measure"], {})
                pairs.setdefault(row["pair"], {})[int(row["seed"])] = float(row["mean"])
    except (OSError, KeyError, TypeError, ValueError):
        raise UserError(
            f"Cannot read the measures in {path}: give the measures.csv that a sweep has written."
        ) from None
    if not table:
        raise UserError(f"There are no measures in {path}: let the sweep finish at least one cell.")
    return table


def examine(claim: Claim, table: Measures) -> Outcome | None:
    """What a table says of a claim; None if it lacks a method or measure of it, or no pair and seed is shared."""
    intervals, verdicts = [], []
    for one in claim.comparisons:
        larger, smaller = (table.get(method, {}).get(one.measure) for method in (one.larger, one.smaller))
        if not larger or not smaller:
            return None
        interval = bootstrap(paired_differences(larger, smaller))
        intervals.append(interval)
        verdicts.append(verdict_of_equality(interval, LEVEL_MARGIN) if one.level else verdict(interval))
    whole = "fails" if "fails" in verdicts else "holds" if set(verdicts) == {"holds"} else "cannot be told"
    return Outcome(claim, tuple(intervals), whole)


def method_table(table: Measures, measures: Sequence[str]) -> list[list[str]]:
    """Rows of text: a method, its runs, and of each measure the mean with its interval; "-" for what it lacks."""
    rows = [["method", "runs", *measures]]
    for method, values in table.items():
        found = {name: bootstrap(values[name]) for name in measures if name in values}
        runs = max((interval.runs for interval in found.values()), default=0)
        cells = [f"{i.mean:.3f} ({i.low:.3f} to {i.high:.3f})" for i in found.values()]
        cells = dict(zip(found, cells))
        rows.append([method, str(runs), *(cells.get(name, "-") for name in measures)])
    return rows


def claims_table(outcomes: Sequence[Outcome]) -> list[list[str]]:
    """Rows of text: each claim with its verdict, then a line for each of its comparisons."""
    rows = [["claim", "verdict", "measured: first minus second, 95 % interval"]]
    for outcome in outcomes:
        rows.append([outcome.claim.name, outcome.verdict, outcome.claim.says])
        for one, interval in zip(outcome.claim.comparisons, outcome.intervals):
            relation = "about" if one.level else "minus"
            rows.append(["", "", f"  {one.measure}: {one.larger} {relation} {one.smaller} {interval}"])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measures", type=Path, help="the measures.csv of a sweep")
    table = read_measures(parser.parse_args().measures)
    for title, measures in TABLES.items():
        print(title, text_table(method_table(table, measures)), sep="\n", end="\n\n")
    outcomes = [outcome for claim in CLAIMS if (outcome := examine(claim, table)) is not None]
    print(text_table(claims_table(outcomes)))
    print(f"\nComparisons: {sum(len(outcome.intervals) for outcome in outcomes)}, each with an interval of its own.")


if __name__ == "__main__":
    run_main(main)
