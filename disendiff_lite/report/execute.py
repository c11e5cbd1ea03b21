"""Execute a notebook with parameters through papermill, in this very Python, and say what failed.

papermill only warns about a parameter that a notebook does not have, so names and types are checked
here before anything runs.
"""

import ast
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import nbformat
import papermill
from ipykernel.kernelspec import get_kernel_dict
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from papermill.exceptions import PapermillExecutionError
from papermill.translators import translate_parameters
from tqdm import tqdm

from disendiff_lite.support.errors import UserError, check_name, first_line
from disendiff_lite.support.files import explaining, write_text
from disendiff_lite.support.paths import NOTEBOOKS, ROOT, check_shipped
from disendiff_lite.support.progress import CHANNEL, clock
from disendiff_lite.support.typed import check_kind


@dataclass(frozen=True)
class Failure:
    """Which cell of an executed notebook failed, as its "In [5]", the heading it stands under,
    and the error in one line.
    """

    cell: str
    heading: str
    error: str


@dataclass(frozen=True)
class Execution:
    """An executed notebook: its name, the executed copy, the time taken in seconds, and the
    failure, None if all went well.
    """

    name: str
    path: Path
    seconds: float
    failure: Failure | None


def find_notebooks(names: Sequence[str]) -> list[Path]:
    """Paths of notebooks given by name ("00_quickstart") or path, or of all of them given as "all" alone.

    Raises UserError naming the nearest if there is no such one.
    """
    if not names:
        raise UserError("No notebook is chosen: name at least one, for example 00_quickstart.")
    check_shipped(NOTEBOOKS)
    known = {path.stem: path for path in sorted(NOTEBOOKS.glob("*.ipynb"))}
    if list(names) == ["all"]:
        return list(known.values())
    paths = []
    for name in names:
        path = Path(name)
        if path.suffix == ".ipynb" and path.is_file():
            paths.append(path.resolve())
        else:
            check_name(path.stem if path.suffix == ".ipynb" else str(name), known, "notebook")
            paths.append(known[path.stem])
    if len({path.stem for path in paths}) < len(paths):
        raise UserError(f"A notebook is named twice in {', '.join(map(str, names))}: name each once.")
    return paths


def notebook_parameters(notebook: Path) -> dict:
    """The parameters of a notebook and their defaults, from its cell tagged "parameters"; none without such a cell.

    Raises UserError if the notebook cannot be read, or a default is not a plain value.
    """
    node, parameters = read_notebook(notebook), {}
    # papermill asks for one; it decides nothing, for the kernel is this Python.
    node.metadata.kernelspec = {"name": "python3", "language": "python", "display_name": "Python 3"}
    for name, parameter in papermill.inspect_notebook(node).items():
        try:
            parameters[name] = ast.literal_eval(parameter["default"])
        except (ValueError, SyntaxError):
            raise UserError(
                f"{notebook} gives the parameter {name} the default {parameter['default']}: use a plain number, text or"
                " list."
            ) from None
    return parameters


def check_parameters(parameters: Mapping[str, object], defaults: Sequence[Mapping[str, object]]) -> None:
    """Raise UserError if a parameter is in none of the notebooks, or of another type than the
    default of one that has it.

    defaults: what notebook_parameters gives, for each notebook.
    """
    everything = {name: value for known in defaults for name, value in known.items()}
    for name, value in parameters.items():
        check_name(name, everything, "parameter")
        for known in defaults:
            if name in known:
                check_kind(name, value, type(known[name]))


def execute(notebook: Path, parameters: Mapping[str, object], executed: Path, channel: Path) -> Execution:
    """Run a notebook from top to bottom in a fresh kernel of this Python, in the notebook's own folder, as Jupyter
    does.

    What cells print is shown at once, on stdout; where the run is, on stderr. The copy is written after each cell.

    parameters: those that the notebook has. executed: where the copy goes. channel: the file for
        the kernel's progress lines.

    Raises UserError if the copy cannot be written.
    """
    node = read_notebook(notebook)
    began = time.monotonic()
    with explaining(executed):  # the troubles of cells and kernels are failures: what is refused is the copy
        failure = _run(node, notebook, parameters, executed, channel, began)
    _make_portable(executed, parameters)
    return Execution(notebook.stem, executed, time.monotonic() - began, failure)


def read_notebook(path: Path) -> nbformat.NotebookNode:
    """A notebook from its file. Raises UserError if it cannot be read."""
    try:
        return nbformat.read(path, as_version=4)
    except (OSError, ValueError, nbformat.reader.NotJSONError, nbformat.ValidationError) as error:
        raise UserError(
            f"Cannot read the notebook {path} ({first_line(error)}): check the path, or restore the file."
        ) from None


def heading_of(source: str, node: nbformat.NotebookNode) -> str:
    """The last heading before the code cell with this source, "" if there is none."""
    heading = ""
    for cell in node.cells:
        if cell.cell_type == "code" and cell.source == source:
            return heading
        heading = _last_title(cell) or heading
    return ""


def _run(
    node, notebook: Path, parameters: Mapping[str, object], executed: Path, channel: Path, began: float
) -> Failure | None:
    try:
        papermill.execute_notebook(
            node,
            str(executed).replace("{", "{{").replace("}", "}}"),  # papermill fills in braces in the path
            dict(parameters),
            kernel_name="python3",  # only names the language here
            language="python",
            progress_bar=False,
            cwd=str(notebook.parent),
            start_timeout=180,
            stdout_file=_Shown(),
            kernel_manager_class=_this_python(channel),
            on_cell_start=_announcer(notebook.stem, began),
        )
    except PapermillExecutionError as error:
        text = f"{error.ename}: {error.evalue}".strip(": ")
        return Failure(f"In [{error.exec_count}]", heading_of(error.source, node), text)
    except DeadKernelError:
        return Failure("In [*]", "", "the kernel died, most likely because the memory was full")
    except CellTimeoutError:
        return Failure("In [*]", "", "the kernel no longer answered")
    except RuntimeError as error:
        return Failure("In [*]", "", f"the kernel did not run ({first_line(error)})")
    return None


def _make_portable(executed: Path, parameters: Mapping[str, object]) -> None:
    """Make paths among a copy's parameters relative to its folder, where Jupyter would run it, and
    drop papermill's note of them.
    """
    node = read_notebook(executed)
    node.metadata.pop("papermill", None)
    relative = {
        name: os.path.relpath(value, executed.parent) if isinstance(value, str) and os.path.isabs(value) else value
        for name, value in parameters.items()
    }
    for cell in node.cells:
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell.source = translate_parameters("python3", "python", relative, "Parameters")
    write_text(executed, nbformat.writes(node))


class _Shown:
    """A file for papermill that shows on stdout what cells print, above a progress bar if there is one."""

    def write(self, text: str) -> None:
        tqdm.write(text, file=sys.stdout, end="")

    def flush(self) -> None:
        sys.stdout.flush()


def _announcer(name: str, began: float):
    """A hook for nbclient: one line on stderr whenever the run comes to a new heading."""

    def announce(cell, cell_index) -> None:
        if title := _last_title(cell):
            tqdm.write(f"{name} [{clock(time.monotonic() - began)}] {title}", file=sys.stderr)

    return announce


def _last_title(cell) -> str:
    lines = cell.source.splitlines() if cell.cell_type == "markdown" else []
    return ([line.lstrip("#").strip() for line in lines if line.startswith("#")] or [""])[-1]


def _this_python(channel: Path) -> type[AsyncKernelManager]:
    """A kernel manager whose kernel is this interpreter, whatever kernels are installed under
    the notebook's kernel name.
    """
    spec = KernelSpec(
        argv=[*get_kernel_dict()["argv"], "--log-level=CRITICAL"],  # else it adds a traceback to Ctrl-C
        display_name="Python 3",
        language="python",
        env={
            CHANNEL: str(channel),
            "TQDM_DISABLE": "1",  # bars of other libraries would leave their debris in the notebook
            "MPLBACKEND": "module://matplotlib_inline.backend_inline",  # also where the environment says Agg
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
        },
    )

    class ThisPython(AsyncKernelManager):
        kernel_spec = spec

        async def start_kernel(self, **options) -> None:
            try:
                await super().start_kernel(**options)
            except OSError as error:  # no memory for a process, or no room for its connection file
                raise RuntimeError(first_line(error)) from error

    return ThisPython
