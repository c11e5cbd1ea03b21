"""Intervals: they cover what they should, pairs are the samples, and verdicts never say too much."""

import numpy as np
import pytest

from disendiff_lite.evaluate.intervals import (
    Interval,
    bootstrap,
    paired_differences,
    verdict,
    verdict_of_equality,
    wilson,
)
from disendiff_lite.support.errors import UserError


def random_values(rng, pairs=10, seeds=3, between=1.0, within=0.2, mean=0.0):
    centres = rng.normal(mean, between, pairs)
    return {f"pair{p}": {s: rng.normal(centre, within) for s in range(seeds)} for p, centre in enumerate(centres)}


def test_an_interval_covers_the_true_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    intervals = [bootstrap(random_values(rng, mean=2.0), repeats=400, seed=trial) for trial in range(300)]
    covered = np.mean([found.low <= 2.0 <= found.high for found in intervals])
    # With ten pairs a percentile interval is a little too narrow; treating 30 runs as independent would cover 75 %.
    assert 0.85 < covered < 0.97


def test_many_seeds_do_not_make_up_for_few_pairs():
    rng = np.random.default_rng(1)
    few = bootstrap(random_values(rng, seeds=2))
    many = bootstrap(random_values(np.random.default_rng(1), seeds=50))
    assert many.high - many.low > 0.7 * (few.high - few.low)
    more_pairs = bootstrap(random_values(rng, pairs=160, seeds=2))
    assert more_pairs.high - more_pairs.low < 0.5 * (few.high - few.low)


def test_the_mean_counts_each_pair_once():
    found = bootstrap({"a": {0: 1.0, 1: 3.0}, "b": {0: 6.0}})
    assert found.mean == 4.0 and (found.pairs, found.runs) == (2, 3)
    assert found.low >= 1.0 and found.high <= 6.0
    alone = bootstrap({"a": {0: 1.0}})
    assert (alone.mean, alone.low, alone.high) == (1.0, 1.0, 1.0)


def test_the_same_seed_gives_the_same_interval():
    values = random_values(np.random.default_rng(2))
    assert bootstrap(values, seed=3) == bootstrap(values, seed=3) != bootstrap(values, seed=4)


def test_differences_are_of_what_both_have():
    values, base = {"a": {0: 1.0, 1: 2.0}, "b": {0: 5.0}}, {"a": {1: 0.5, 2: 9.0}, "c": {0: 1.0}}
    assert paired_differences(values, base) == {"a": {1: 1.5}}
    with pytest.raises(UserError, match="share no pair and seed"):
        paired_differences({"a": {0: 1.0}}, {"a": {1: 1.0}})


@pytest.mark.parametrize("values", [{}, {"a": {}}, {"a": {0: float("nan")}}])
def test_what_was_not_measured_has_no_interval(values):
    with pytest.raises(UserError, match="at least one value"):
        bootstrap(values)


@pytest.mark.parametrize(
    ("low", "high", "margin", "larger", "equal"),
    [
        (0.1, 0.3, 0.0, "holds", "fails"),
        (-0.1, 0.3, 0.0, "cannot be told", "cannot be told"),
        (-0.3, -0.1, 0.0, "fails", "fails"),
        (0.01, 0.03, 0.05, "cannot be told", "holds"),
        (0.01, 0.3, 0.05, "cannot be told", "cannot be told"),
    ],
)
def test_verdicts(low, high, margin, larger, equal):
    interval = Interval((low + high) / 2, low, high, 10, 30)
    assert verdict(interval, margin) == larger
    assert verdict_of_equality(interval, margin) == equal


def test_wilson_interval_has_its_known_values():
    assert wilson(0, 0) == (0, 1)
    assert wilson(9, 10) == pytest.approx((0.5958, 0.9821), abs=1e-3)
    low, high = wilson(10, 10)
    assert low == pytest.approx(0.7225, abs=1e-3) and high == 1
