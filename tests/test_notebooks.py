"""The notebooks: all of them, found by glob, keep the house rules and run from a fresh kernel."""

import ast
import os
import statistics
from pathlib import Path

import nbformat
import pytest

from disendiff_lite.notebooks import execute

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
MOST_LINES, MOST_BYTES = 20, 300_000


def code_cells(path: Path) -> list:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def test_there_are_notebooks():
    assert [path.stem for path in NOTEBOOKS][:1] == ["00_quickstart"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
class TestHouseRules:
    def test_starts_with_a_title_and_ends_with_an_exercise(self, path):
        cells = nbformat.read(path, as_version=4).cells
        assert cells[0].cell_type == "markdown" and cells[0].source.startswith("# ")
        assert cells[-1].cell_type == "markdown" and "xercise" in cells[-1].source

    def test_a_sentence_stands_between_two_code_cells(self, path):
        kinds = [cell.cell_type for cell in nbformat.read(path, as_version=4).cells]
        assert ("code", "code") not in list(zip(kinds, kinds[1:]))

    def test_code_cells_are_short(self, path):
        lengths = [len(cell.source.splitlines()) for cell in code_cells(path)]
        assert max(lengths) <= MOST_LINES and statistics.median(lengths) <= 6

    def test_code_lives_in_the_package(self, path):
        nodes = [node for cell in code_cells(path) for node in ast.walk(ast.parse(cell.source))]
        assert not [node for node in nodes if isinstance(node, ast.ClassDef)]
        assert len([node for node in nodes if isinstance(node, ast.FunctionDef)]) <= 1

    def test_one_parameters_cell_of_plain_literals(self, path):
        (cell,) = [cell for cell in code_cells(path) if "parameters" in cell.metadata.get("tags", [])]
        for statement in ast.parse(cell.source).body:
            assert isinstance(statement, ast.Assign) and isinstance(ast.literal_eval(statement.value), (str, int, float))

    def test_outputs_come_from_one_clean_run(self, path):
        cells = code_cells(path)
        assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
        assert not [output for cell in cells for output in cell.outputs if output.output_type == "error"]

    def test_small_without_widget_state_or_progress_debris(self, path):
        assert path.stat().st_size <= MOST_BYTES
        assert "widgets" not in nbformat.read(path, as_version=4).metadata
        printed = [output.get("text", "") for cell in code_cells(path) for output in cell.outputs if output.output_type == "stream"]
        assert not [text for text in printed if "%|" in text or "\r" in text]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_from_a_fresh_kernel_and_draws(path, tmp_path):
    executed = tmp_path / path.name
    execution = execute(path, {"run_dir": str(tmp_path / "run")}, executed, tmp_path / "progress")
    assert execution.failure is None
    figures = [o for cell in code_cells(executed) for o in cell.outputs if "image/png" in o.get("data", {})]
    assert figures and all(len(figure.data["image/png"]) > 2000 for figure in figures)
    assert (tmp_path / "run" / "metrics.json").is_file()
    if keep := os.environ.get("EXECUTED_NOTEBOOKS"):  # where CI keeps what it ran
        Path(keep).mkdir(parents=True, exist_ok=True)
        (Path(keep) / path.name).write_bytes(executed.read_bytes())
