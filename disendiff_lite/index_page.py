"""The index page of many pairs: one table with each pair's pictures, scores, maps and time, a link to its report, and their mean.

The pictures are small and embedded; the reports that the page links to lie beside it.
"""

import base64
import io
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment
from PIL import Image

from disendiff_lite.files import write_text
from disendiff_lite.metrics import read_metrics
from disendiff_lite.notebooks import read_notebook
from disendiff_lite.page import html_document
from disendiff_lite.progress import clock

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
    ("each alone", "own − other"): "how much more they resemble their own crop than the other's; above zero, the two were kept apart",
    ("maps", "IoU before"): "how well the words' maps cover their things before training, as intersection over union with the true masks",
    ("maps", "IoU after"): "the same after training",
    ("maps", "peak after"): "the part of the maps whose peak lies on their thing, after training",
}
STYLE = """
body { max-width: 96rem; }
.wide { overflow-x: auto; }
.wide table { width: 100%; }
.wide th { text-align: center; }
.wide tbody th, .wide tfoot th { text-align: left; white-space: nowrap; }
.wide th a { font-weight: normal; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.wide img.reference { height: 96px; }
.wide img { display: block; max-width: none; margin: 0 auto; }
tfoot { background: #f5f6f8; border-top: 2px solid #888; }
td.failed { background: #fdecea; border-left: 5px solid #c0392b; overflow-wrap: anywhere; }
.note { color: #666; font-size: .85rem; font-weight: normal; white-space: normal; }
"""
BODY = """<header><h1>{{ title }}</h1><p>{{ summary }}</p></header>
<main>
<div class="wide"><table>
<thead>
<tr><th rowspan="2">pair</th><th rowspan="2">reference</th>
{%- for group, count in groups %}<th colspan="{{ count }}">{{ group }}</th>{% endfor %}
<th rowspan="2">time</th>{% for name in figures %}<th rowspan="2">{{ FIGURES[name] }}</th>{% endfor %}</tr>
<tr>{% for group, name in columns %}<th>{{ name }}</th>{% endfor %}</tr>
</thead>
<tbody>
{% for row in rows %}<tr><th>{{ row.pair }}{% for text, target in row.links.items() %}<br><a href="{{ target }}">{{ text }}</a>
{%- endfor %}{% if row.state in STATES %}<br><span class="note">{{ STATES[row.state] }}</span>{% endif %}</th>
<td><img class="reference" src="{{ row.reference }}" alt="reference picture of {{ row.pair }}"></td>
{% if row.seconds is none %}<td class="{{ row.state }}" colspan="{{ columns | length + 1 + figures | length }}">
<strong>{{ row.state }}</strong>{{ ": " + row.reason if row.reason }}</td>
{% else %}{% for column in columns %}<td class="number">{{ shown(row.numbers.get(column)) }}</td>{% endfor %}
<td class="number">{{ clock(row.seconds) }}</td>
{% for name in figures %}<td>{% if name in row.figures %}<a href="{{ row.pair }}/report.html"><img src="{{ row.figures[name] }}"
 alt="{{ FIGURES[name] }} ({{ row.pair }})"></a>{% endif %}</td>{% endfor %}{% endif %}</tr>
{% endfor %}</tbody>
{% if complete | length > 1 %}<tfoot>
{% for name, measure in {"mean": mean, "standard deviation": stdev}.items() %}<tr><th colspan="2">{{ name }}
<span class="note">over {{ complete | length }} pairs</span></th>
{%- for column in columns %}<td class="number">{{ shown(over(measure, column)) }}</td>{% endfor %}
<td class="number">{{ clock(measure(seconds)) }}</td>{% for name in figures %}<td></td>{% endfor %}</tr>
{% endfor %}</tfoot>{% endif %}
</table></div>
<ul class="note">{% for column in columns %}<li><b>{{ column | join(", ") }}</b>: {{ COLUMNS[column] }}</li>{% endfor %}</ul>
</main>
<footer><table>{% for name, value in facts.items() %}<tr><th>{{ name }}</th><td>{{ value }}</td></tr>{% endfor %}</table></footer>"""


@dataclass(frozen=True)
class Row:
    """A pair on the page.

    state, reason: as of an Outcome of all_pairs. reference: its picture, as a data URI. links: texts and the files they lead to.
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
    cells = [cell for path in sorted(folder.glob("*.ipynb")) for cell in read_notebook(path).cells if cell.get("id") in FIGURES]
    found = {cell.id: output.data["image/png"] for cell in cells for output in cell.outputs if "image/png" in output.get("data", {})}
    figures = {name: _picture(Image.open(io.BytesIO(base64.b64decode(png)))) for name, png in found.items()}
    return Row(pair, state, reason, _picture(reference), links, numbers(metrics), metrics["report"]["seconds"], figures)


def numbers(metrics: Mapping) -> dict[tuple[str, str], float]:
    """The values of COLUMNS in a run's metrics, those that are there."""
    found = metrics.get("quickstart", {})
    scores = dict(found.get("scores", {}))
    together = [scores.pop("combined")] if "combined" in scores else []
    alone, maps = list(scores.values()), found.get("maps", {})
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

    body = Environment(autoescape=True).from_string(BODY).render(
        title=title, rows=rows, complete=complete, columns=columns, facts=facts, over=over, clock=clock, shown=_shown,
        FIGURES=FIGURES, STATES=STATES, COLUMNS=COLUMNS, mean=statistics.mean, stdev=statistics.stdev,
        groups=[(group, sum(other == group for other, _ in columns)) for group in groups],
        figures=[name for name in FIGURES if any(name in row.figures for row in rows)],
        seconds=[row.seconds for row in complete],
        summary=f"{len(rows)} pairs: " + ", ".join(f"{count} {STATES.get(state, state)}" for state, count in states.items()) + ".",
    )
    state = "finished" if len(complete) == len(rows) else "failed"
    write_text(path, html_document(title, body, state=state, style=STYLE))


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}".replace("-", "−")


def _picture(picture: Image.Image) -> str:
    """A picture as a data URI, no higher than HEIGHT."""
    small = picture.convert("RGB")
    small.thumbnail((10 * HEIGHT, HEIGHT))
    file = io.BytesIO()
    small.quantize(128, dither=Image.Dither.NONE).save(file, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
