"""Execute the notebooks and put what they show into the committed copies: one clean run each, small
figures, nothing of the machine.

python -m disendiff_lite.report.refresh [NAME ...]          (all of them without a name)
python -m disendiff_lite.report.refresh --stamp [NAME ...]  (only the Colab badge and setup cell; nothing is executed)
"""

import argparse
import base64
import io
import tempfile
from pathlib import Path

import nbformat
from PIL import Image

from disendiff_lite.report.colab import BADGE, badge, setup_cell
from disendiff_lite.report.execute import execute, find_notebooks, read_notebook
from disendiff_lite.report.page import WIDGET
from disendiff_lite.support.errors import UserError, run_main
from disendiff_lite.support.files import write_text

SETUP = "setup"  # the id of the setup cell, by which it is found again
FIGURE_COLOURS = 256  # of a committed figure's palette, a third of the size; with 128 soft pictures turn blotchy


def shrink_figure(png: str) -> str:
    """A base64 PNG with a palette of FIGURE_COLOURS."""
    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    small = io.BytesIO()
    # The palette spans the colours there are: the default one spends itself on large areas and flattens pictures and
    # maps.
    palette = {"method": Image.Quantize.MAXCOVERAGE, "kmeans": 3, "dither": Image.Dither.NONE}
    picture.quantize(FIGURE_COLOURS, **palette).save(small, format="PNG", optimize=True)
    return base64.b64encode(small.getvalue()).decode()


def clean_copy(executed: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """An executed notebook as it is committed: without papermill's cell and marks, cells
    numbered from 1, figures shrunk.

    Widgets go, for without a kernel they show an error; the static figure beside each stays.
    """
    cells = [cell for cell in executed.cells if "injected-parameters" not in cell.metadata.get("tags", [])]
    number = 0
    for cell in cells:
        tags = [tag for tag in cell.metadata.get("tags", []) if tag == "parameters"]
        cell.metadata = nbformat.from_dict({"tags": tags} if tags else {})
        if cell.cell_type != "code":
            continue
        number += 1
        cell.execution_count = number
        cell.outputs = [output for output in cell.outputs if WIDGET not in output.get("data", {})]
        for output in cell.outputs:
            output.pop("execution_count", None)
            if output.output_type == "execute_result":
                output.execution_count = number
            if "image/png" in output.get("data", {}):
                output.data["image/png"] = shrink_figure(output.data["image/png"])
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return nbformat.v4.new_notebook(cells=cells, metadata=metadata, nbformat_minor=executed.nbformat_minor)


def stamp(notebook: Path) -> None:
    """Write this version's badge under the notebook's title and its setup cell after it, in place of older ones.

    Raises UserError if the notebook does not begin with a title.
    """
    node = read_notebook(notebook)
    first, *others = node.cells
    title, *text = first.source.splitlines()
    if first.cell_type != "markdown" or not title.startswith("# "):
        raise UserError(
            f"{notebook.name} does not begin with a title: make its first cell Markdown that starts with '# '."
        )
    text = "\n".join(line for line in text if not line.startswith(BADGE)).strip("\n")
    first.source = "\n\n".join([title, badge(notebook.stem), text]).rstrip("\n")
    cell = next((cell for cell in others if cell.get("id") == SETUP), nbformat.v4.new_code_cell(id=SETUP))
    cell.source = setup_cell()
    node.cells = [first, cell, *(other for other in others if other.get("id") != SETUP)]
    _write(notebook, node)


def refresh(notebook: Path) -> None:
    """Stamp one notebook and execute it with its defaults in a run folder of its own.

    Raises UserError naming the cell if one fails.
    """
    stamp(notebook)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, notebook.name)
        execution = execute(notebook, {"run_dir": str(Path(folder, "run"))}, copy, Path(folder, "progress"))
        if execution.failure is not None:
            raise UserError(
                f"{notebook.stem} failed in cell {execution.failure.cell} ({execution.failure.error}): mend it first."
            )
        _write(notebook, clean_copy(read_notebook(copy)))


def _write(notebook: Path, node: nbformat.NotebookNode) -> None:
    write_text(notebook, nbformat.writes(node).rstrip("\n") + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=["all"])
    parser.add_argument("--stamp", action="store_true", help="write the badge and the setup cell, and execute nothing")
    args = parser.parse_args()
    for path in find_notebooks(args.names):
        stamp(path) if args.stamp else refresh(path)
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    run_main(main)
