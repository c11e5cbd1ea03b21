"""The results of a sweep as a page: tables with intervals, figures, and a verdict on each of the paper's claims.

    python -m disendiff_lite.show.results results [--readme README.md]

reads results/measures.csv and writes results/README.md with its figures beside it. With --readme, the two main tables
also go into another page, between the lines `<!-- results -->` and `<!-- end of results -->`.
"""

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from disendiff_lite.evaluate.claims import (
    CLAIMS,
    FULL,
    LEVEL_MARGIN,
    TABLES,
    Measures,
    Outcome,
    examine,
    method_table,
    read_measures,
)
from disendiff_lite.evaluate.intervals import Interval, bootstrap, paired_differences
from disendiff_lite.show.intervals import plot_intervals
from disendiff_lite.support.errors import UserError, run_main
from disendiff_lite.support.files import put_into_page, replacing, write_text
from disendiff_lite.support.text import markdown_table

SECTION = "results"  # of a page that gets the main tables
IN_README = ("Likeness to the reference", "What is in the pictures")
MEANS = "means.png"
DIFFERENCES = "differences.png"
SHOWN = (
    "image-alignment, combined",
    "image-alignment, concept 1",
    "image-alignment, concept 2",
    "recognised",
    "mix-up",
)


def mean_intervals(table: Measures, measures: Sequence[str]) -> dict[str, dict[str, Interval]]:
    """Measure -> method -> the mean over pairs with its interval, for plot_intervals."""
    return {
        measure: {method: bootstrap(values[measure]) for method, values in table.items() if measure in values}
        for measure in measures
    }


def difference_intervals(table: Measures, measures: Sequence[str], base: str = FULL) -> dict[str, dict[str, Interval]]:
    """Measure -> method -> the paired difference to `base` with its interval; none for those that share no run."""
    found = {}
    for measure in measures:
        found[measure] = {}
        for method, values in table.items():
            if method != base and measure in values and measure in table.get(base, {}):
                try:
                    differences = paired_differences(values[measure], table[base][measure])
                except UserError:
                    continue
                found[measure][method] = bootstrap(differences)
    return found


def tables(table: Measures, titles: Sequence[str]) -> str:
    """These of claims.TABLES as Markdown, each under its title."""
    return "\n\n".join(f"**{title}**\n\n{markdown_table(method_table(table, TABLES[title]))}" for title in titles)


def verdicts(outcomes: Sequence[Outcome]) -> str:
    """Each claim of the paper with what was measured and its verdict, as Markdown."""
    rows = [["", "the paper says", "measured, first minus second", "verdict"]]
    for outcome in outcomes:
        measured = [
            f"{one.measure}: {one.larger} {'level with' if one.level else '-'} {one.smaller} {interval}"
            for one, interval in zip(outcome.claim.comparisons, outcome.intervals)
        ]
        rows.append([outcome.claim.name, outcome.claim.says, "<br>".join(measured), outcome.verdict])
    return markdown_table(rows)


def extent(table: Measures) -> str:
    """How many pairs were measured: "10 pairs, seeds 0, 1", or with each seed, and those methods that have others."""
    cells = {
        method: {(pair, seed) for pairs in measures.values() for pair, seeds in pairs.items() for seed in seeds}
        for method, measures in table.items()
    }
    pairs = {pair for some in cells.values() for pair, _ in some}
    seeds = sorted({seed for some in cells.values() for _, seed in some})
    counts = {method: Counter(seed for _, seed in some) for method, some in cells.items()}
    if all(count[seed] == len(pairs) for count in counts.values() for seed in seeds):
        return f"{len(pairs)} pairs, seeds {', '.join(map(str, seeds))}"

    def said(method: str, unit: str) -> str:
        return ", ".join(f"{counts[method][seed]}{unit if seed == seeds[0] else ''} with seed {seed}" for seed in seeds)

    usual = Counter(said(method, " pairs") for method in counts).most_common(1)[0][0]
    others = [f"{method} {said(method, '')}" for method in counts if said(method, " pairs") != usual]
    return f"{usual} ({'; '.join(others)})" if others else usual


def page(table: Measures, figures: Mapping[str, str]) -> str:
    """The whole page. figures: file -> its caption."""
    outcomes = [outcome for claim in CLAIMS if (outcome := examine(claim, table)) is not None]
    missing = [claim.name for claim in CLAIMS if claim.name not in {outcome.claim.name for outcome in outcomes}]
    comparisons = sum(len(outcome.intervals) for outcome in outcomes)
    parts = [
        "# Results",
        f"{extent(table)}, {len(table)} methods. Each number is a mean over the"
        " pairs, in brackets its 95 % interval, bootstrapped over pairs and then seeds. The runs of one pair and seed"
        " share their noises. All of them are in [measures.csv](measures.csv), a row a run and measure; this page is"
        " made from it by `python -m disendiff_lite.show.results`.",
        tables(table, list(TABLES)),
        *(f"![{caption}]({file})\n\n*{caption}*" for file, caption in figures.items()),
        "## The paper's claims",
        f"{comparisons} comparisons, each with an interval of its own: about one in twenty would miss its true value by"
        " chance. A claim holds if all of its comparisons hold, and fails if one fails."
        f" Level means a difference of {LEVEL_MARGIN} or less, either way.",
        verdicts(outcomes),
    ]
    if missing:
        parts.append(f"Not measured: {', '.join(missing)}.")
    return "\n\n".join(parts) + "\n"


def _save(figure: Figure, path: Path) -> None:
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150, bbox_inches="tight")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="the folder of a sweep")
    parser.add_argument("--readme", type=Path, help="a page that gets the two main tables, too")
    options = parser.parse_args()
    table = read_measures(options.results / "measures.csv")
    measured = {measure for measures in table.values() for measure in measures}
    shown = [measure for measure in SHOWN if measure in measured]
    figures = {}
    if shown:
        _save(plot_intervals(mean_intervals(table, shown)), options.results / MEANS)
        figures[MEANS] = "Means over the pairs."
        differences = {name: rows for name, rows in difference_intervals(table, shown).items() if rows}
        if differences:
            _save(plot_intervals(differences, zero=True), options.results / DIFFERENCES)
            figures[DIFFERENCES] = f"Paired differences to {FULL}. A hollow dot cannot be told from none."
    write_text(options.results / "README.md", page(table, figures))
    if options.readme:
        put_into_page(options.readme, SECTION, tables(table, IN_README))
    print(options.results / "README.md")


if __name__ == "__main__":
    run_main(main)
