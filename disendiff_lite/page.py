"""One HTML page out of executed notebooks that needs nothing else: no network, no scripts from elsewhere, no files beside it.

nbconvert's own pages fetch MathJax, require.js and widgets' code from the network. Here it converts the cells alone; formulas
become MathML, pictures are embedded, code is folded away, and what could only be fetched is replaced by its description.
"""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import nbformat
from bs4 import BeautifulSoup
from jinja2 import pass_context
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from pygments.formatters import HtmlFormatter

from disendiff_lite.files import read_text
from disendiff_lite.formulas import to_mathml

WIDGET = "application/vnd.jupyter.widget-view+json"
ERROR_MARKER = "papermill-error-cell-tag"  # papermill's own cells about a failure, which the page has in its header
LOADS = {"script": "src", "link": "href", "img": "src", "iframe": "src", "video": "src", "audio": "src", "source": "src"}

CELLS = """{%- extends 'classic/base.html.j2' -%}
{% block input_group %}<details class="code"><summary>code</summary>{{ super() }}</details>{% endblock %}
{% block error %}<details class="code"><summary>the whole traceback</summary>{{ super() }}</details>{% endblock %}
"""

# The frame of an explorer is a page of its own, apart from this one: it tells how high it is, and nothing else passes.
FIT_FRAME = """addEventListener("message", (event) => {
  const frame = document.querySelector("iframe.explorer");
  if (event.source === frame.contentWindow && event.data.explorerHeight > 0) frame.style.height = `${event.data.explorerHeight}px`;
});"""

STYLE = """
body { font: 16px/1.55 system-ui, sans-serif; color: #1b1b1b; max-width: 60rem; margin: 0 auto; padding: 1rem; }
h1 { border-bottom: 1px solid #ccc; padding-bottom: .3rem; }
section > .cell:first-child h1 { margin-top: 3rem; }
pre, code { font: 13px/1.45 ui-monospace, monospace; }
pre { overflow-x: auto; margin: .4rem 0; }
@media print, (min-width: 60rem) { .output_area pre { white-space: pre-wrap; overflow-wrap: anywhere; } }
@media print { .output_area pre { font-size: 9.5px; } }
img { max-width: 100%; height: auto; }
table { border-collapse: collapse; margin: .8rem 0; font-size: .93em; }
th, td { border: 1px solid #ddd; padding: .25rem .6rem; text-align: left; }
math[display="block"] { margin: .8rem 0; }
nav { background: #f5f6f8; border-radius: 6px; padding: .6rem 1rem; }
nav ul { margin: .2rem 0; padding-left: 1.3rem; }
details.code > summary { color: #888; font-size: .8rem; cursor: pointer; }
.highlight { background: #f8f8f8; padding: .1rem .6rem; border-radius: 4px; }
.prompt { display: none; }
iframe.explorer { width: 100%; height: 40rem; border: 0; }
@media print { #explorer { display: none; } }
.failure { background: #fdecea; border-left: 5px solid #c0392b; padding: .6rem 1rem; }
footer { margin-top: 3rem; border-top: 1px solid #ccc; color: #555; font-size: .85rem; }
"""


@dataclass(frozen=True)
class Section:
    """An executed notebook as part of a page: its title, its id, (level, text, id) of its headings, and its HTML."""

    title: str
    anchor: str
    headings: tuple[tuple[int, str, str], ...]
    html: str


def notebook_section(node: nbformat.NotebookNode, name: str, folder: Path) -> Section:
    """Turn an executed notebook into a part of the page.

    name: of the notebook, unique on the page. folder: that relative paths of pictures in the text start from.
    """
    exporter = _CellExporter(name)
    html, _ = exporter.from_notebook_node(_showable(node), resources={"metadata": {"path": str(folder)}})
    headings = exporter.headings
    title = next((text for level, text, _ in headings if level == 1), name)
    return Section(title, name, tuple(headings), _offline(html))


def explorer_section(path: Path) -> Section:
    """A page of AttentionRecord.to_html as a part of the page, working and self-contained. Raises UserError if it cannot be read."""
    title = "Attention maps to explore"
    frame = f'<iframe class="explorer" title="{title}" sandbox="allow-scripts allow-downloads" srcdoc="{escape(read_text(path))}"></iframe>'
    return Section(title, "explorer", (), f"<h1>{title}</h1>\n{frame}\n<script>{FIT_FRAME}</script>")


def render_page(title: str, sections: Sequence[Section], footer: Sequence[tuple[str, str]], failures: Sequence[str]) -> str:
    """The whole page.

    footer: names and values of a table at the end. failures: sentences for a box at the top; with none the page is marked finished.
    """
    state = "failed" if failures else "finished"
    box = "".join(f'<p class="failure"><strong>This report is not complete.</strong> {escape(text)}</p>' for text in failures)
    rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in footer)
    parts = "\n".join(f'<section id="{section.anchor}">{section.html}</section>' for section in sections)
    return html_document(
        title,
        f"""<header><h1>{escape(title)}</h1>{box}{_contents(sections)}</header>
<main>
{parts}
</main>
<footer><table>{rows}</table></footer>""",
        state=state,
        style=HtmlFormatter().get_style_defs(".highlight"),
    )


def html_document(title: str, body: str, *, state: str, style: str) -> str:
    """A whole HTML document in the style of the reports.

    body: HTML. state: "finished" or "failed", as is_finished reads it. style: CSS that is added to that of all pages.
    """
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="report-state" content="{state}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{STYLE}{style}</style>
</head>
<body>
{body}
</body>
</html>
"""


def is_finished(path: Path) -> bool:
    """Whether a file is a page of render_page without failures."""
    if not path.is_file():
        return False
    with open(path, encoding="utf-8", errors="replace") as file:
        return '<meta name="report-state" content="finished">' in file.read(500)


class _CellExporter(HTMLExporter):
    """Cells as HTML without a page around them; headings are collected, their ids begin with the notebook's name."""

    def __init__(self, name: str):
        logger = logging.getLogger(__name__)
        logger.setLevel(logging.ERROR)  # nbconvert warns of each figure that has no description
        super().__init__(log=logger, embed_images=True, exclude_input_prompt=True, exclude_output_prompt=True)
        self.raw_template = CELLS
        self.name = name
        self.headings: list[tuple[int, str, str]] = []

    def default_filters(self):
        yield from super().default_filters()
        yield "markdown2html", self._markdown

    @pass_context
    def _markdown(self, context, source: str) -> str:
        path = context["resources"]["metadata"]["path"]
        renderer = _Renderer(self, attachments=context.get("cell", {}).get("attachments", {}), path=path)
        return MarkdownWithMath(renderer=renderer).render(source)


class _Renderer(IPythonRenderer):
    """nbconvert's Markdown with formulas as MathML and with headings that the table of contents can point to."""

    def __init__(self, exporter: _CellExporter, **options):
        super().__init__(escape=False, embed_images=True, exclude_anchor_links=True, **options)
        self.exporter = exporter

    def heading(self, text: str, level: int, **attrs) -> str:
        found = self.exporter.headings
        plain = BeautifulSoup(text, "html.parser").get_text()
        anchor = f"{self.exporter.name}-{len(found) + 1}"
        found.append((level, plain, anchor))
        return f'<h{level} id="{anchor}">{text}</h{level}>\n'

    def inline_math(self, body: str) -> str:
        return to_mathml(body)

    def block_math(self, body: str) -> str:
        return to_mathml(body, display=True)

    def latex_environment(self, name: str, body: str) -> str:
        return to_mathml(f"\\begin{{{name}}}{body}\\end{{{name}}}", display=True)


def _showable(node: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """A copy without what a page cannot show: widgets (a static figure stands beside each) and papermill's markers."""
    node = nbformat.from_dict(node)
    node.metadata.pop("widgets", None)
    node.cells = [cell for cell in node.cells if ERROR_MARKER not in cell.metadata.get("tags", [])]
    for cell in node.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if WIDGET not in output.get("data", {})]
            for output in cell.outputs:
                if "text/latex" in output.get("data", {}):
                    tex = output.data.pop("text/latex").strip()
                    output.data["text/html"] = to_mathml(tex.strip("$"), display=tex.startswith("$$"))
    return node


def _offline(html: str) -> str:
    """The HTML with everything that would be fetched replaced by its description; links to follow stay.

    Figures without a description get that of their heading.
    """
    soup = BeautifulSoup(html, "html.parser")
    for tag, attribute in LOADS.items():
        for element in soup.find_all(tag):
            source = element.get(attribute)
            if source and not source.startswith("data:"):
                described = element.get("alt") or f"[not shown here: {source}]"
                element.replace_with(described)
    for figure in soup.find_all("img", alt=re.compile("^No description has been provided")):
        heading = figure.find_previous(re.compile("^h[1-6]$"))
        figure["alt"] = f"Figure: {heading.get_text()}" if heading else "Figure"
    for style in soup.find_all("style"):
        style.string = re.sub(r"@import[^;]+;|url\(\s*['\"]?https?:[^)]*\)", "", style.get_text())
    return str(soup)


def _contents(sections: Sequence[Section]) -> str:
    items = []
    for section in sections:
        below = "".join(f'<li><a href="#{anchor}">{escape(text)}</a></li>' for level, text, anchor in section.headings if level == 2)
        items.append(f'<li><a href="#{section.anchor}">{escape(section.title)}</a>{f"<ul>{below}</ul>" if below else ""}</li>')
    return f"<nav><ul>{''.join(items)}</ul></nav>"
