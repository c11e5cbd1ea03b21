"""The index page of many pairs: one table with each pair's pictures, scores, maps and time, a link to
its report, and their mean.

The pictures are small and embedded; the reports that the page links to lie beside it.
"""

import base64
import io
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from disendiff_lite.report.execute import read_notebook
from disendiff_lite.report.metrics import read_metrics
from disendiff_lite.report.page import TEMPLATES, render
from disendiff_lite.support.files import read_text, write_text

# The figures that the page shows: the first of each cell with such an id, whatever notebook it is in.
FIGURES = {"drawn": "drawn: both, then each alone", "maps-after": "maps before and after training"}
STATES = {"kept": "finished before"}  # states of which the page says more than their word
HEIGHT = 150  # px of a picture on the page
# What each column of numbers means.
COLUMNS = {
    ("both together", "image"): "image-alignment of pictures of both concepts with the whole reference",
    ("both together", "text"): "text-alignment of the same pictures with their prompts",
    ("each alone", "image"): "image-alignment of pictures of one concept with its crop, the mean of the concepts",
    ("each alone", "text"): "text-alignment of the same pictures with their prompts",
    (
        "each alone",
        "own − other",
    ): "how much more they resemble their own crop than the other's; notebook 04 shows what its values are worth",
    (
        "maps",
        "IoU before",
    ): "how well the words' maps cover their things before training, as intersection over union with the true masks",
    ("maps", "IoU after"): "the same after training",
    ("maps", "peak after"): "the part of the maps whose peak lies on their thing, after training",
}


@dataclass(frozen=True)
class Row:
    """A pair on the page.

    state, reason: as of an Outcome of all_pairs. reference: its picture, as a data URI. links: texts
        and the files they lead to.
    numbers: the values of COLUMNS that are known. seconds: that making the report took, None if it is not complete.
    figures: data URIs by FIGURES' ids.
    """

    pair: str
    state: str
    reason: str
    reference: str
    links: Mapping[str, str]
    numbers: Mapping[tuple[str, str], float]
    seconds: float | None
    figures: Mapping[str, str]


def read_row(pair: str, state: str, reason: str, reference: Image.Image, folder: Path) -> Row:
    """The row of a pair whose report was to be made in `folder`; links start from the folder above it.

    Of a report that is not complete there are no numbers and figures: those that are there may be of an earlier one.
    """
    pages = {"report": "report.html", "what was done": "report-failed.html", "log": "report.log"}
    links = {text: f"{folder.name}/{file}" for text, file in pages.items() if (folder / file).is_file()}
    if state not in ("finished", "kept"):
        return Row(pair, state, reason, _picture(reference), links, {}, None, {})
    metrics = read_metrics(folder)
    cells = [
        cell
        for path in sorted(folder.glob("*.ipynb"))
        for cell in read_notebook(path).cells
        if cell.get("id") in FIGURES
    ]
    images = {
        cell.id: output.data["image/png"]
        for cell in cells
        for output in cell.outputs
        if "image/png" in output.get("data", {})
    }
    figures = {name: _picture(Image.open(io.BytesIO(base64.b64decode(png)))) for name, png in images.items()}
    return Row(pair, state, reason, _picture(reference), links, numbers(metrics), metrics["report"]["seconds"], figures)


def numbers(metrics: Mapping) -> dict[tuple[str, str], float]:
    """The values of COLUMNS in a run's metrics, those that are there."""
    section = metrics.get("quickstart", {})
    scores = dict(section.get("scores", {}))
    together = [scores.pop("combined")] if "combined" in scores else []
    alone, maps = list(scores.values()), section.get("maps", {})
    values = {
        ("both together", "image"): [subject["image_alignment"]["mean"] for subject in together],
        ("both together", "text"): [subject["text_alignment"]["mean"] for subject in together],
        ("each alone", "image"): [subject["image_alignment"]["mean"] for subject in alone],
        ("each alone", "text"): [subject["text_alignment"]["mean"] for subject in alone],
        ("each alone", "own − other"): [subject["margin"]["mean"] for subject in alone if "margin" in subject],
        ("maps", "IoU before"): [maps["before"]["IoU"]] if "before" in maps else [],
        ("maps", "IoU after"): [maps["after"]["IoU"]] if "after" in maps else [],
        ("maps", "peak after"): [maps["after"]["peak on the thing"]] if "after" in maps else [],
    }
    return {column: statistics.mean(several) for column, several in values.items() if several}


def write_index(path: Path, title: str, rows: Sequence[Row], facts: Mapping[str, str]) -> None:
    """Write the page. facts: names and values of a table at its end."""
    complete = [row for row in rows if row.seconds is not None]
    columns = [column for column in COLUMNS if any(column in row.numbers for row in rows)]
    groups = list(dict.fromkeys(group for group, _ in columns))
    states = {state: sum(row.state == state for row in rows) for state in dict.fromkeys(row.state for row in rows)}

    def over(measure, column):
        values = [row.numbers[column] for row in complete if column in row.numbers]
        return measure(values) if len(values) > 1 else None

    state = "finished" if len(complete) == len(rows) else "failed"
    page = render(
        "index.html.j2",
        title,
        state,
        read_text(TEMPLATES / "index.css"),
        rows=rows,
        complete=complete,
        columns=columns,
        facts=facts,
        over=over,
        shown=_shown,
        FIGURES=FIGURES,
        STATES=STATES,
        COLUMNS=COLUMNS,
        mean=statistics.mean,
        stdev=statistics.stdev,
        groups=[(group, sum(other == group for other, _ in columns)) for group in groups],
        figures=[name for name in FIGURES if any(name in row.figures for row in rows)],
        seconds=[row.seconds for row in complete],
        summary=f"{len(rows)} pairs: "
        + ", ".join(f"{count} {STATES.get(state, state)}" for state, count in states.items())
        + ".",
    )
    write_text(path, page)


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}".replace("-", "−")


def _picture(picture: Image.Image) -> str:
    """A picture as a data URI, no higher than HEIGHT."""
    small = picture.convert("RGB")
    small.thumbnail((10 * HEIGHT, HEIGHT))
    file = io.BytesIO()
    small.quantize(128, dither=Image.Dither.NONE).save(file, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
