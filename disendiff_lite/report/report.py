"""The report: notebooks executed with parameters, and one self-contained HTML page of what they show.

    runs/<name>/report.html            the page; report-failed.html if a cell failed and a finished page is there
    already
    runs/<name>/<notebook>.ipynb       the executed notebooks; <notebook>.partial.ipynb while running, or if a cell
    failed
    runs/<name>/pictures/              their figures
    runs/<name>/metrics.json           what the notebooks recorded, and a section "report"
    runs/<name>/attention-*.html       explorers that notebooks wrote with show.write_explorer: the page's last parts

A notebook takes part by a cell tagged "parameters"; its `run_dir` is set to the run's folder,
where it trains and writes.
"""

import base64
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from disendiff_lite.models import weights_hash
from disendiff_lite.report.execute import (
    Execution,
    check_parameters,
    execute,
    find_notebooks,
    notebook_parameters,
    read_notebook,
)
from disendiff_lite.report.metrics import read_metrics, record_metrics
from disendiff_lite.report.page import explorer_section, is_finished, notebook_section, render_page
from disendiff_lite.support.errors import UserError
from disendiff_lite.support.files import explaining, replacing, write_text
from disendiff_lite.support.paths import ROOT
from disendiff_lite.support.progress import clock, followed

LIBRARIES = ("torch", "numpy", "diffusers", "transformers", "peft", "open_clip_torch", "papermill", "nbconvert")
NOTEBOOKS = ("00_quickstart",)
EXPLORERS = "attention-*.html"


@dataclass(frozen=True)
class Order:
    """A report to be made, the arguments of make_report."""

    parameters: Mapping[str, object]
    run_dir: Path
    notebooks: tuple[str, ...]
    title: str


@dataclass(frozen=True)
class Report:
    """Where the page lies, and a sentence for each notebook that failed."""

    path: Path
    failures: tuple[str, ...]


def make_report(
    parameters: Mapping[str, object],
    run_dir,
    notebooks: Sequence[str] = NOTEBOOKS,
    title: str | None = None,
) -> Report:
    """Execute notebooks one after another and write the report; one that fails does not keep the others from running.

    parameters: for the notebooks, by name; each goes to those notebooks that have it. Paths must be absolute.
    run_dir: the run's folder. notebooks: names in notebooks/, or paths. title: of the page; None takes the folder's
        name.

    Raises UserError, before anything runs, if a notebook or parameter does not exist (the nearest is named) or is of
    the wrong type, or if the folder cannot be written.
    """
    began, run_dir = time.monotonic(), Path(run_dir).resolve()
    paths = find_notebooks(notebooks)
    defaults = [notebook_parameters(path) for path in paths]
    if "run_dir" in parameters:
        raise UserError("The parameter run_dir is set by the report itself: choose the folder with --run-dir.")
    check_parameters(parameters, defaults)
    with explaining(run_dir):
        run_dir.mkdir(parents=True, exist_ok=True)
        (run_dir / "pictures").mkdir(exist_ok=True)
    executions = []
    with tempfile.TemporaryDirectory() as temporary:
        for path, known in zip(paths, defaults):
            channel = Path(temporary, path.stem)
            own = {name: value for name, value in {**parameters, "run_dir": str(run_dir)}.items() if name in known}
            with followed(channel):
                executions.append(_execute(path, own, run_dir, channel))
    return _write(executions, paths, defaults, parameters, run_dir, title or run_dir.name, time.monotonic() - began)


def is_complete(run_dir) -> bool:
    """Whether a folder holds a report that was made without a failure, and none was tried since."""
    report = read_metrics(run_dir).get("report", {})
    return is_finished(Path(run_dir, "report.html")) and report.get("failures") == []


def report_differences(order: Order) -> list[str]:
    """In what the report that a folder holds differs from an order, such as "seed 0 instead of 7";
    empty if it would be the same.
    """
    paths = find_notebooks(order.notebooks)
    now = _request(order.parameters, paths, [notebook_parameters(path) for path in paths])
    report = read_metrics(order.run_dir).get("report", {})
    before = {name: report.get(name) for name in ("notebooks", "weights")} | report.get("settings", {})
    now = {name: now[name] for name in ("notebooks", "weights")} | now["settings"]
    return [
        "another model" if name == "weights" else f"{name} {before.get(name)!r} instead of {now.get(name)!r}"
        for name in {**now, **before}
        if before.get(name) != now.get(name)
    ]


def library_versions() -> dict[str, str]:
    """The versions of Python and of the libraries that decide results, by name; "missing" if one is not installed."""
    versions = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "missing"
    return versions


def git_state(root=ROOT) -> str:
    """The commit of a working tree, "1a2b3c4d5e6f", perhaps "... with uncommitted changes"; "unknown" without git."""
    try:
        commit = _git(root, "rev-parse", "--short=12", "HEAD")
        changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{commit} with uncommitted changes" if changed else commit


def _request(parameters: Mapping[str, object], paths: Sequence[Path], defaults: Sequence[Mapping[str, object]]) -> dict:
    """What decides a report's result, as metrics.json keeps it: the notebooks, every parameter's
    value, the model's weights.

    A parameter whose value is not the same in all notebooks that have it is listed for each, as "00_quickstart.count".
    """
    values = [
        {name: parameters.get(name, value) for name, value in known.items() if name != "run_dir"} for known in defaults
    ]
    settings = {}
    for path, known in zip(paths, values):
        for name, value in known.items():
            same = all(other.get(name, value) == value for other in values)
            settings[name if same else f"{path.stem}.{name}"] = _shown(value)
    models = {str(known["model"]) for known in values if "model" in known}
    weights = [weights_hash(model) for model in sorted(models)]
    return {"notebooks": [path.stem for path in paths], "settings": settings, "weights": weights}


def _execute(notebook: Path, parameters: Mapping[str, object], run_dir: Path, channel: Path) -> Execution:
    partial = run_dir / f"{notebook.stem}.partial.ipynb"
    execution = execute(notebook, parameters, partial, channel)
    if execution.failure is not None:
        return execution
    finished = run_dir / f"{notebook.stem}.ipynb"
    with explaining(finished):
        os.replace(partial, finished)
    return Execution(execution.name, finished, execution.seconds, None)


def _write(
    executions: Sequence[Execution],
    paths: Sequence[Path],
    defaults: Sequence[Mapping[str, object]],
    parameters: Mapping[str, object],
    run_dir: Path,
    title: str,
    seconds: float,
) -> Report:
    nodes = [read_notebook(execution.path) for execution in executions]
    sections = [
        notebook_section(node, execution.name, path.parent) for node, execution, path in zip(nodes, executions, paths)
    ]
    began = time.time() - seconds - 1  # a page that an earlier run left is not of this report
    sections += [explorer_section(page) for page in sorted(run_dir.glob(EXPLORERS)) if page.stat().st_mtime >= began]
    for node, execution in zip(nodes, executions):
        _save_pictures(node, execution.name, run_dir / "pictures")
    failures = tuple(_sentence(execution) for execution in executions if execution.failure is not None)
    request = _request(parameters, paths, defaults)
    facts = _facts(request["settings"], executions, seconds)
    record_metrics(run_dir, "report", {**facts, **request, "seconds": round(seconds, 1), "failures": list(failures)})
    path = run_dir / "report.html"
    failed = run_dir / "report-failed.html"
    if failures and is_finished(path):
        path = failed
    elif not failures:
        failed.unlink(missing_ok=True)
    write_text(path, render_page(f"DisenDiff: {title}", sections, list(facts.items()), failures))
    return Report(path, failures)


def _facts(parameters: Mapping[str, object], executions: Sequence[Execution], seconds: float) -> dict[str, str]:
    """The footer: what one needs to know to make the report again."""
    return {
        "date": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        "duration": clock(seconds) + " (" + ", ".join(f"{e.name} {clock(e.seconds)}" for e in executions) + ")",
        "seed": str(parameters.get("seed", "as the notebooks say")),
        "settings": ", ".join(f"{name}={value!r}" for name, value in parameters.items()),
        "commit": git_state(),
        "versions": ", ".join(f"{name} {version}" for name, version in library_versions().items()),
    }


def _shown(value):
    """A parameter as a report may show it to others: of a path its name alone."""
    return Path(value).name if isinstance(value, str) and os.path.isabs(value) else value


def _sentence(execution: Execution) -> str:
    failure = execution.failure
    place = f" under {failure.heading!r}" if failure.heading else ""
    return f"The notebook {execution.name} failed in cell {failure.cell}{place} with {failure.error}"


def _save_pictures(node, name: str, folder: Path) -> None:
    """Write the figures of a notebook as PNG files, in place of those of an earlier run."""
    for old in folder.glob(f"{name}-*.png"):
        old.unlink()
    figures = [
        output.data["image/png"]
        for cell in node.cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    for number, figure in enumerate(figures, start=1):
        with replacing(folder / f"{name}-{number:02}.png") as temporary:
            temporary.write_bytes(base64.b64decode(figure))


def _git(root, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
