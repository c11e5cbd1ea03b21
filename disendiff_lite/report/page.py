"""One HTML page out of executed notebooks that needs nothing else: no network, no scripts from
elsewhere, no files beside it.

nbconvert's own pages fetch MathJax, require.js and widgets' code from the network. Here it converts the cells
alone; formulas become MathML, pictures are embedded, code is folded away, and what could only be fetched is
replaced by its description.
"""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import nbformat
from bs4 import BeautifulSoup
from jinja2 import Environment, FileSystemLoader, pass_context
from latex2mathml.converter import convert
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from pygments.formatters import HtmlFormatter

from disendiff_lite.support.files import read_text
from disendiff_lite.support.progress import clock

TEMPLATES = Path(__file__).parent / "templates"
WIDGET = "application/vnd.jupyter.widget-view+json"
ERROR_MARKER = "papermill-error-cell-tag"  # papermill's own cells about a failure, which the page has in its header
LOADS = {
    "script": "src",
    "link": "href",
    "img": "src",
    "iframe": "src",
    "video": "src",
    "audio": "src",
    "source": "src",
}


@dataclass(frozen=True)
class Section:
    """An executed notebook as part of a page: its title, its id, (level, text, id) of its headings, and its HTML."""

    title: str
    anchor: str
    headings: tuple[tuple[int, str, str], ...]
    html: str

    @property
    def chapters(self) -> list[tuple[str, str]]:
        """The second-level headings, (text, id), for the table of contents."""
        return [(text, anchor) for level, text, anchor in self.headings if level == 2]


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
    """A page of show.write_explorer as a part of the page, working and self-contained. Raises
    UserError if it cannot be read.
    """
    title = f"Attention maps to explore ({path.stem.removeprefix('attention-')})"
    page, script = escape(read_text(path)), read_text(TEMPLATES / "fit_frame.js")
    frame = (
        f'<iframe class="explorer" title="{title}" sandbox="allow-scripts allow-downloads" srcdoc="{page}"></iframe>'
    )
    html = f'<div class="explorer"><h1>{title}</h1>\n{frame}\n<script>{script}</script></div>'
    return Section(title, path.stem, (), html)


def render_page(
    title: str, sections: Sequence[Section], footer: Sequence[tuple[str, str]], failures: Sequence[str]
) -> str:
    """The whole page.

    footer: names and values of a table at the end. failures: sentences for a box at the top; with none
        the page is marked finished.
    """
    state, style = "failed" if failures else "finished", HtmlFormatter().get_style_defs(".highlight")
    return render("report.html.j2", title, state, style, sections=sections, footer=footer, failures=failures)


def render(template: str, title: str, state: str, style: str, **values) -> str:
    """A whole HTML document in the style of the reports.

    template: of report/templates, which extends document.html.j2. state: "finished" or "failed", as is_finished reads
        it.
    style: CSS that is added to that of all pages. values: what the template shows, escaped there.
    """
    pages = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, keep_trailing_newline=True)
    pages.globals["clock"] = clock
    return pages.get_template(template).render(
        title=title, state=state, style=read_text(TEMPLATES / "report.css") + style, **values
    )


def is_finished(path: Path) -> bool:
    """Whether a file is a page of render_page without failures."""
    if not path.is_file():
        return False
    with open(path, encoding="utf-8", errors="replace") as file:
        return '<meta name="report-state" content="finished">' in file.read(500)


def to_mathml(tex: str, display: bool = False) -> str:
    """A TeX formula, without its dollar signs, as MathML; one that cannot be converted stays as its TeX source.

    display: on a line of its own.
    """
    try:
        return convert(tex.strip(), display="block" if display else "inline")
    except Exception:  # the converter has no family of errors of its own, and half a formula is worse than its source
        return f"<code>{escape(tex.strip())}</code>"


class _CellExporter(HTMLExporter):
    """Cells as HTML without a page around them; headings are collected, their ids begin with the notebook's name."""

    def __init__(self, name: str):
        logger = logging.getLogger(__name__)
        logger.setLevel(logging.ERROR)  # nbconvert warns of each figure that has no description
        super().__init__(log=logger, embed_images=True, exclude_input_prompt=True, exclude_output_prompt=True)
        self.raw_template = read_text(TEMPLATES / "cells.html.j2")
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
        headings = self.exporter.headings
        plain = BeautifulSoup(text, "html.parser").get_text()
        anchor = f"{self.exporter.name}-{len(headings) + 1}"
        headings.append((level, plain, anchor))
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
