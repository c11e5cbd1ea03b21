"""How sure are we? Intervals of mean differences over pairs and seeds, and what they say about a claim.

A measurement is one number for each pair and seed. Seeds of one pair are alike, so they are not independent samples:
the bootstrap draws pairs first, then seeds within each pair (Davison and Hinkley 1997, section 3.8).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from disendiff_lite.support.errors import UserError

REPEATS = 10_000  # bootstrap samples
LEVEL = 0.95

Values = Mapping[str, Mapping[int, float]]  # pair -> seed -> value


@dataclass(frozen=True)
class Interval:
    """A mean over pairs, each pair's seeds averaged first, with its bootstrap interval, from so many pairs and runs."""

    mean: float
    low: float
    high: float
    pairs: int
    runs: int

    def __str__(self) -> str:
        return f"{self.mean:+.3f} ({self.low:+.3f} to {self.high:+.3f})"


def paired_differences(values: Values, base: Values) -> dict[str, dict[int, float]]:
    """values - base for each pair and seed that both have. Raises UserError if they share none."""
    shared = {pair: [seed for seed in seeds if seed in base.get(pair, {})] for pair, seeds in values.items()}
    differences = {
        pair: {seed: values[pair][seed] - base[pair][seed] for seed in seeds} for pair, seeds in shared.items()
    }
    differences = {pair: seeds for pair, seeds in differences.items() if seeds}
    if not differences:
        raise UserError("The two share no pair and seed: run both methods on the same ones.")
    return differences


def bootstrap(values: Values, *, repeats: int = REPEATS, level: float = LEVEL, seed: int = 0) -> Interval:
    """The mean over pairs with its percentile interval, pairs drawn first and then seeds within each.

    values: at least one pair with one seed. repeats: bootstrap samples. level: in (0, 1). seed: of the drawing.

    With one pair only its seeds vary, with one of each the interval has no width: neither says anything of other pairs.
    Raises UserError if there is no value, or one is not a number.
    """
    rows = [np.array(list(seeds.values()), dtype=float) for seeds in values.values() if seeds]
    if not rows or not all(np.isfinite(row).all() for row in rows):
        raise UserError("An interval needs at least one value, and only finite ones: leave out what was not measured.")
    rng = np.random.default_rng(seed)
    # For each pair, the means of `repeats` samples of its seeds: (pairs, repeats).
    within = np.stack([row[rng.integers(len(row), size=(repeats, len(row)))].mean(axis=1) for row in rows])
    chosen = rng.integers(len(rows), size=(len(rows), repeats))  # which pairs each sample has
    means = np.take_along_axis(within, chosen, axis=0).mean(axis=0)  # (repeats,)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    mean = float(np.mean([row.mean() for row in rows]))
    return Interval(mean, float(low), float(high), len(rows), sum(map(len, rows)))


def wilson(hits: int, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of `hits` in `count`; (0, 1) when nothing was counted."""
    if count == 0:
        return 0.0, 1.0
    z, share = 1.96, hits / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, middle - half), min(1.0, middle + half)


def verdict(interval: Interval, margin: float = 0.0) -> str:
    """What an interval of (claimed larger - claimed smaller) says: "holds", "fails" or "cannot be told".

    margin: differences up to it count as none; the claim holds only above it, and fails only below minus it.
    """
    if interval.low > margin:
        return "holds"
    return "fails" if interval.high < -margin else "cannot be told"


def verdict_of_equality(interval: Interval, margin: float) -> str:
    """What an interval of a difference says of the claim that there is none of more than `margin` either way."""
    if -margin <= interval.low and interval.high <= margin:
        return "holds"
    return "fails" if interval.low > margin or interval.high < -margin else "cannot be told"
