"""The report: notebooks run with checked parameters, and the page needs nothing but itself, also when a cell fails."""

import json
import os
import re
import sys

import nbformat
import pytest
from jupyter_client.manager import AsyncKernelManager

from disendiff_lite.report import report as report_module
from disendiff_lite.report.execute import check_parameters, find_notebooks, notebook_parameters
from disendiff_lite.report.metrics import read_metrics, record_metrics
from disendiff_lite.report.page import LOADS, is_finished, notebook_section
from disendiff_lite.report.report import make_report
from disendiff_lite.support.errors import UserError
from disendiff_lite.support.files import explaining

pytestmark = pytest.mark.slow  # they start commands, kernels and environments of their own

PARAMETERS = (
    'pair = "cat_dog"\nimage = ""\nclasses = ""\nmethod = "disendiff"\n'
    'steps = 0  # 0: preset\nrate = 0.5\nfast = False\nseed = 0\nrun_dir = ""'
)
TITLE = (
    "# A small stand-in\n\n"
    "[![badge](https://example.org/badge.svg)](https://example.org/colab) and [a link](https://example.org/paper)\n\n"
    r"The loss is $L_\text{bind} = \sum_n 1 - \frac{a}{b}$, and"
    "\n\n$$\\mathcal{L} = L_r + \\lambda L_c$$\n\n`price = $5 and $6`"
)
FIGURE = "import matplotlib.pyplot as plt\nplt.plot([0, steps])\nplt.show()"
KEEP = (
    "import sys\n"
    "from disendiff_lite.report.metrics import record_metrics\n"
    "from disendiff_lite.support.progress import progress\n"
    "for _ in progress(range(3), 3): pass\n"
    "print('steps', steps, sys.executable, flush=True)\n"
    "record_metrics(run_dir, 'stand-in', {'steps': steps})"
)


def write_notebook(path, *cells):
    node = nbformat.v4.new_notebook()
    node.metadata.kernelspec = {"name": "no-such-kernel", "display_name": "None", "language": "python"}
    parameters = nbformat.v4.new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]})
    node.cells = [nbformat.v4.new_markdown_cell(TITLE), parameters]
    for cell in cells:
        kind = nbformat.v4.new_markdown_cell if cell.startswith("#") else nbformat.v4.new_code_cell
        node.cells.append(kind(cell))
    nbformat.write(node, path)
    return path


@pytest.fixture
def stand_in(tmp_path):
    return write_notebook(tmp_path / "small.ipynb", "## A figure", FIGURE, "## Numbers", KEEP)


def fetched(html):
    """Everything that a browser would load to show the page."""
    attributes = [
        value
        for tag, attribute in LOADS.items()
        for value in re.findall(rf'<{tag}\b[^>]*\s{attribute}\s*=\s*"([^"]*)"', html)
    ]
    return [value for value in attributes if not value.startswith("data:")] + re.findall(
        r"@import|url\(\s*['\"]?http", html
    )


def test_a_report_from_two_notebooks(tmp_path, stand_in, capfd):
    failing = write_notebook(
        tmp_path / "failing.ipynb", "## Before", "print('done before')", "## Here", "1 / 0", "print('never')"
    )
    run_dir = tmp_path / "runs {x}" / "cat_dog"
    report = make_report({"steps": 7, "pair": "dog_pig"}, run_dir, [str(failing), str(stand_in)])

    assert report.path == run_dir / "report.html"
    assert report.failures == (
        "The notebook failing failed in cell In [4] under 'Here' with ZeroDivisionError: division by zero",
    )
    html = report.path.read_text()
    assert not is_finished(report.path) and "This report is not complete" in html
    assert "done before" in html and "never" not in re.sub(r"<details.*?</details>", "", html, flags=re.S)
    assert html.count("data:image/png;base64,") == 1  # what came after the failure, in the other notebook, is there
    assert fetched(html) == []
    assert '<a href="https://example.org/paper">' in html  # links to follow stay
    assert html.count("<math") == 4 and "\\frac" not in html and "price = $5 and $6" in html
    assert (
        '<a href="#small">A small stand-in</a>' in html
        and '<a href="#small-2">A figure</a>' in html
        and 'id="small-2"' in html
    )
    for fact in ("torch 2", "nbconvert", "seed", "commit", "duration", "steps=7"):
        assert fact in html
    assert 'alt="Figure: A figure"' in html
    code = html.index("record_metrics")
    assert html.rfind("<details", 0, code) > html.rfind("</details>", 0, code)  # code is folded away

    executed = nbformat.read(run_dir / "small.ipynb", as_version=4)
    assert (run_dir / "failing.partial.ipynb").exists() and not (run_dir / "failing.ipynb").exists()
    assert len(list((run_dir / "pictures").glob("small-*.png"))) == 1
    metrics = json.loads((run_dir / "metrics.json").read_text())
    assert metrics["stand-in"] == {"steps": 7} and metrics["report"]["settings"]["pair"] == "dog_pig"
    assert metrics["report"]["notebooks"] == ["failing", "small"] and metrics["report"]["seconds"] > 0

    printed = capfd.readouterr()
    assert f"steps 7 {sys.executable}" in printed.out  # live, and in this very Python
    assert "small [0:0" in printed.err and "A figure" in printed.err
    assert "training 3/3" in printed.err
    # The copy runs again where it lies, and says nothing of this machine's folders.
    (injected,) = [cell.source for cell in executed.cells if "injected-parameters" in cell.metadata.get("tags", [])]
    assert 'run_dir = "."' in injected and 'pair = "dog_pig"' in injected and "papermill" not in executed.metadata
    assert str(tmp_path) not in (run_dir / "small.ipynb").read_text().replace(sys.executable, "")
    assert "training" not in "".join(
        output.get("text", "") for cell in executed.cells for output in cell.get("outputs", [])
    )


def test_a_failed_report_leaves_a_finished_one_alone(tmp_path):
    run_dir = tmp_path / "run"
    notebook = write_notebook(tmp_path / "small.ipynb", "print(1 // (steps - 1))")
    assert make_report({}, run_dir, [notebook]).failures == ()
    good = (run_dir / "report.html").read_bytes()
    failed = make_report({"steps": 1}, run_dir, [notebook])
    assert failed.path == run_dir / "report-failed.html" and failed.failures
    assert (run_dir / "report.html").read_bytes() == good and (run_dir / "small.ipynb").exists()
    assert make_report({}, run_dir, [notebook]).path == run_dir / "report.html"
    assert not (run_dir / "report-failed.html").exists() and not (run_dir / "small.partial.ipynb").exists()


def test_an_explorer_that_a_notebook_writes_is_part_of_the_page(tmp_path, stand_in):
    write = "from pathlib import Path\nPath(run_dir, 'attention-quickstart.html').write_text('<p>\"within\"</p>')"
    report = make_report({}, tmp_path / "run", [write_notebook(tmp_path / "exploring.ipynb", write), stand_in])
    html = report.path.read_text()
    assert (
        'srcdoc="&lt;p&gt;&quot;within&quot;&lt;/p&gt;"' in html
        and '<a href="#attention-quickstart">' in html
        and fetched(html) == []
    )
    os.utime(tmp_path / "run" / "attention-quickstart.html", (1, 1))  # of an earlier run
    assert "srcdoc" not in make_report({}, tmp_path / "run", [stand_in]).path.read_text()


@pytest.mark.parametrize(
    "parameters, sentence",
    [
        ({"stpes": 3}, "There is no parameter 'stpes': did you mean 'steps'?"),
        ({"steps": "three"}, "steps must be a whole number, not 'three'."),
        ({"steps": True}, "steps must be a whole number, not True."),
        ({"fast": 1}, "fast must be true or false, not 1."),
        ({"pair": 3}, "pair must be text, not 3."),
        ({"run_dir": "x"}, "The parameter run_dir is set by the report itself: choose the folder with --run-dir."),
    ],
)
def test_a_wrong_parameter_is_refused_before_anything_runs(parameters, sentence, tmp_path, stand_in):
    with pytest.raises(UserError) as error:
        make_report(parameters, tmp_path / "run", [stand_in])
    assert str(error.value) == sentence
    assert not (tmp_path / "run").exists()


def test_parameters_are_read_from_the_notebook(stand_in):
    defaults = notebook_parameters(stand_in)
    texts = {"pair": "cat_dog", "image": "", "classes": "", "method": "disendiff", "run_dir": ""}
    assert defaults == texts | {"steps": 0, "rate": 0.5, "fast": False, "seed": 0}
    check_parameters({"rate": 1, "steps": 2}, [{"rate": 0.5}, {"steps": 0}])  # each is in one of the two


def test_an_unknown_notebook_names_the_nearest(tmp_path, stand_in, monkeypatch):
    monkeypatch.setattr("disendiff_lite.report.execute.NOTEBOOKS", tmp_path)
    assert find_notebooks(["small"]) == [stand_in]
    other = write_notebook(tmp_path / "a.ipynb")
    assert find_notebooks(["all"]) == [other, stand_in]
    with pytest.raises(UserError, match="no notebook 'smal': did you mean 'small'"):
        find_notebooks(["smal"])
    with pytest.raises(UserError, match="named twice"):
        find_notebooks(["small", str(stand_in)])
    with pytest.raises(UserError, match="No notebook is chosen"):
        find_notebooks([])
    (tmp_path / "torn.ipynb").write_text("{")
    with pytest.raises(UserError, match="Cannot read the notebook"):
        notebook_parameters(tmp_path / "torn.ipynb")


def test_a_parameter_goes_to_those_notebooks_that_have_it(tmp_path):
    """One that only some of them have is no error; one that none has is."""
    paths = [tmp_path / f"{name}.ipynb" for name in ("first", "second")]
    for path, own in zip(paths, ("shared = 1\nlayers = 2\nseed = 1", "shared = 1\ncount = 3\nseed = 2")):
        cell = nbformat.v4.new_code_cell(own, metadata={"tags": ["parameters"]})
        nbformat.write(
            nbformat.v4.new_notebook(cells=[cell, nbformat.v4.new_code_cell("print(vars().get('layers'), shared)")]),
            path,
        )
    report = make_report({"layers": 5, "shared": 7}, tmp_path / "run", list(map(str, paths)))
    assert report.failures == ()
    printed = [nbformat.read(tmp_path / "run" / path.name, as_version=4).cells[-1].outputs[0].text for path in paths]
    assert printed == ["5 7\n", "None 7\n"]
    shown = read_metrics(tmp_path / "run")["report"]["settings"]
    assert shown == {"shared": 7, "layers": 5, "first.seed": 1, "second.seed": 2, "count": 3}
    with pytest.raises(UserError, match="There is no parameter 'layer': did you mean 'layers'"):
        make_report({"layer": 5}, tmp_path / "run", list(map(str, paths)))


def test_a_dead_kernel_is_a_failure_too(tmp_path):
    notebook = write_notebook(tmp_path / "dead.ipynb", "print('before')", "import os\nos._exit(9)")
    report = make_report({}, tmp_path / "run", [notebook])
    assert "the kernel died" in report.failures[0]
    assert "before" in report.path.read_text()


def test_no_permission_for_the_folder(tmp_path, stand_in):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Cannot write .* choose a run folder"):
        make_report({}, tmp_path / "file" / "run", [stand_in])


def test_a_kernel_that_does_not_start_is_a_failure_and_no_refusal_to_write(tmp_path, stand_in, monkeypatch):
    async def no_memory(*_, **__):
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(AsyncKernelManager, "start_kernel", no_memory)
    report = make_report({}, tmp_path / "run", [stand_in])
    said = "The notebook small failed in cell In [*] with the kernel did not run ([Errno 12] Cannot allocate memory)"
    assert report.failures == (said,) and not is_finished(report.path)


def test_a_copy_that_cannot_be_written(tmp_path, stand_in):
    (tmp_path / "run" / "small.partial.ipynb").mkdir(parents=True)
    with pytest.raises(UserError, match=r"Cannot write .*small.partial.ipynb \(Is a directory\)"):
        make_report({}, tmp_path / "run", [stand_in])


def test_a_reader_who_went_away_is_no_refusal_to_write():
    with pytest.raises(BrokenPipeError), explaining("small.ipynb"):
        raise BrokenPipeError


def test_what_would_be_fetched_is_described(tmp_path):
    """Outputs and text that load from the network or from files beside the notebook; small pictures beside it are
    embedded.
    """
    (tmp_path / "beside.svg").write_text("<svg/>")
    outputs = [
        '<script src="https://cdn.example.org/plot.js"></script><script>inline()</script>',
        '<style>@import "https://example.org/a.css"; b'
        " {background: url(https://example.org/b.png); color: red}</style>",
        '<iframe src="elsewhere.html"></iframe><iframe srcdoc="&lt;b&gt;within&lt;/b&gt;"></iframe>',
    ]
    widget = {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/plain": "Slider(value=3)"}
    cell = nbformat.v4.new_code_cell(
        "show()",
        outputs=[
            nbformat.v4.new_output("display_data", data=data)
            for data in [{"text/html": html} for html in outputs] + [widget]
        ],
    )
    text = nbformat.v4.new_markdown_cell(
        "![near](beside.svg) ![far](https://example.org/far.png)\n\n$\\unknown{$ and $x_1$"
    )
    marker = nbformat.v4.new_markdown_cell("marker", metadata={"tags": ["papermill-error-cell-tag"]})
    node = nbformat.v4.new_notebook(cells=[text, cell, marker])
    node.metadata.widgets = {"application/vnd.jupyter.widget-state+json": {"state": {}}}
    section = notebook_section(node, "odd", tmp_path)
    html = section.html
    assert fetched(html) == [] and section.title == "odd" and section.headings == ()
    assert 'alt="near" src="data:image/svg+xml;base64,' in html and "far" in html and "marker" not in html
    assert "[not shown here: https://cdn.example.org/plot.js]" in html and "[not shown here: elsewhere.html]" in html
    assert "inline()" in html and "color: red" in html and "srcdoc" in html and "Slider" not in html
    assert "<code>\\unknown{</code>" in html and html.count("<math") == 1


def test_metrics_keep_the_other_sections(tmp_path):
    record_metrics(tmp_path, "one", {"a": 1})
    record_metrics(tmp_path, "two", {"b": [2.5, "x"]})
    record_metrics(tmp_path, "one", {"c": 3})
    assert read_metrics(tmp_path) == {"one": {"c": 3}, "two": {"b": [2.5, "x"]}}
    with pytest.raises(UserError, match="metrics of three are not all plain"):
        record_metrics(tmp_path, "three", {"d": object()})
    (tmp_path / "metrics.json").write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        read_metrics(tmp_path)


def test_the_facts_of_the_footer(monkeypatch):
    monkeypatch.setattr(report_module, "git_state", lambda: "abc with uncommitted changes")
    facts = report_module._facts({"seed": 3, "steps": 0}, [], 61.0)
    assert (
        facts["seed"] == "3"
        and facts["commit"] == "abc with uncommitted changes"
        and facts["duration"].startswith("1:01")
    )
    assert "python 3" in facts["versions"] and "diffusers" in facts["versions"]
