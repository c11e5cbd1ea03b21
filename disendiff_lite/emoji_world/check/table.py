"""Measured values as rows of one table, each with its 95 % interval."""

import math
from dataclasses import dataclass

import numpy as np

from disendiff_lite.evaluate.intervals import wilson
from disendiff_lite.support.text import text_table


@dataclass(frozen=True)
class Row:
    """One line of the table; None where a column has nothing to say."""

    name: str
    value: float
    low: float  # of the 95 % interval
    high: float
    count: int
    target: float | None = None
    chance: float | None = None
    judge: float | None = None
    judge_decoded: float | None = None
    unit: str = "%"


def share_row(name: str, hits: np.ndarray, **columns) -> Row:
    """A row for a share, from one bool for each case."""
    share = float(np.mean(hits)) if len(hits) else math.nan
    return Row(name, share, *wilson(int(np.sum(hits)), len(hits)), len(hits), **columns)


def mean_row(name: str, values: np.ndarray, **columns) -> Row:
    """A row for a mean, from one number for each case."""
    mean = float(np.mean(values))
    half = 1.96 * float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return Row(name, mean, mean - half, mean + half, len(values), **columns)


def table(rows: list[Row]) -> str:
    """The rows as aligned plain text."""

    def number(value: float | None, unit: str) -> str:
        if value is None:
            return ""
        return f"{value:.1%}" if unit == "%" else f"{value:.2f} {unit}".strip()

    lines = [("", "target", "reached", "95 % interval", "count", "by chance", "judge (decoded)")]
    for row in rows:
        judge = number(row.judge, "%") + (f" ({row.judge_decoded:.1%})" if row.judge_decoded is not None else "")
        interval = f"{number(row.low, row.unit)} to {number(row.high, row.unit)}"
        target, value, chance = number(row.target, row.unit), number(row.value, row.unit), number(row.chance, "%")
        lines.append((row.name, target, value, interval, str(row.count), chance, judge))
    return text_table(lines)
