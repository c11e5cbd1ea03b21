"""Colab: every notebook's badge and setup cell agree with the one address, and the cell works on a machine that has
only part.
"""

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import nbformat
import packaging
import pytest

from disendiff_lite.report import colab
from disendiff_lite.report.colab import ADDRESS, BADGE, badge, setup_cell, tag
from disendiff_lite.report.refresh import SETUP, stamp
from disendiff_lite.support.errors import UserError
from disendiff_lite.support.paths import ROOT

pytestmark = pytest.mark.slow  # they start commands, kernels and environments of their own

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_each_notebook_has_the_badge_and_the_setup_cell(path):
    cells = nbformat.read(path, as_version=4).cells
    assert cells[0].source.splitlines()[2] == badge(path.stem)
    assert (cells[1].cell_type, cells[1].id, cells[1].source) == ("code", SETUP, setup_cell())
    assert not any(BADGE in cell.source or "install_missing" in cell.source for cell in cells[2:])


def test_the_address_stands_in_one_place():
    files = [path for folder in ("disendiff_lite", "tests") for path in (ROOT / folder).rglob("*.py")]
    address = "/".join(ADDRESS.split("/")[-2:])
    assert not [path for path in files if address in path.read_text()]
    assert len(setup_cell().splitlines()) <= 15 and "!" not in setup_cell()


def test_stamping_replaces_what_an_older_version_wrote(tmp_path):
    path, old = tmp_path / "05_more.ipynb", f"{BADGE}(https://example.org/older)"
    cells = [
        nbformat.v4.new_markdown_cell(f"# More\n\n{old}\n\nAbout it."),
        nbformat.v4.new_markdown_cell("in between"),
        nbformat.v4.new_code_cell("older()", id=SETUP, execution_count=1),
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    for _ in range(2):
        stamp(path)
        title, setup, between = nbformat.read(path, as_version=4).cells
        assert title.source == f"# More\n\n{badge('05_more')}\n\nAbout it."
        assert setup.source == setup_cell() and between.source == "in between"
    nbformat.write(nbformat.v4.new_notebook(cells=cells[1:]), path)
    with pytest.raises(UserError, match="05_more.ipynb does not begin with a title"):
        stamp(path)


def test_what_is_missing_or_too_old(monkeypatch):
    have = {"torch": "2.8.0+cu126", "numpy": "2.0.2", "diffusers": "0.30.0"}
    monkeypatch.setattr(colab, "_installed", have.get)
    lines = ["# a comment", "torch>=2.6  # why", "", "numpy", "diffusers>=0.36", "papermill", "pytest"]
    assert colab.missing_requirements(lines) == ["diffusers>=0.36", "papermill"]


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    """A Python with pip and numpy 1.0 alone, and an index folder with a newer numpy and `extra`, which would like that
    one.
    """
    folder = tmp_path_factory.mktemp("machine")
    venv.create(folder / "venv", with_pip=True, symlinks=True)
    _wheel(folder, "numpy", "1.0")
    python = folder / "venv" / "bin" / "python"
    pip = [python, "-m", "pip", "install", "--quiet", "--no-index", "--find-links", folder]
    subprocess.run([*pip, "numpy==1.0"], check=True)
    (site,) = (folder / "venv" / "lib").glob("python3*/site-packages")
    (site / "packaging").symlink_to(Path(packaging.__file__).parent)
    _wheel(folder, "numpy", "2.0")
    _wheel(folder, "extra", "1.0", "numpy")
    _wheel(folder, "greedy", "1.0", "numpy>=2")
    return python, folder


def _wheel(folder, name, number, *needs):
    info = f"{name}-{number}.dist-info"
    needed = "".join(f"Requires-Dist: {need}\n" for need in needs)
    with zipfile.ZipFile(folder / f"{name}-{number}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}.py", f"VERSION = {number!r}\n")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {number}\n{needed}")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")


@pytest.fixture
def published(tmp_path):
    """A repository with this version's tag, as published; returns it and an environment in which git finds it."""
    folder = tmp_path / "published"
    (folder / "notebooks").mkdir(parents=True)
    (folder / "notebooks" / ".keep").touch()
    modules = (
        "__init__",
        "report/__init__",
        "report/colab",
        "support/__init__",
        "support/errors",
        "support/lazy",
        "support/paths",
    )
    for name in ("pyproject.toml", *(f"disendiff_lite/{module}.py" for module in modules)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((ROOT / name).read_bytes())
    (folder / "requirements.txt").write_text("numpy>=1.0  # kept\nextra\npytest\n")
    git = ["git", "-C", folder, "-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "All"], ["tag", tag()]):
        subprocess.run([*git, *command], check=True)
    redirect = {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.file://{folder}.insteadOf",
        "GIT_CONFIG_VALUE_0": ADDRESS,
    }
    return folder, os.environ | redirect


def run_cell(python, environment, content):
    """Run the setup cell twice, as a person does who starts again, in a Python of its own with `content` as Colab's
    /content.
    """
    cell = setup_cell().replace("/content", str(content))
    shown = "\nimport numpy\nprint(numpy.VERSION, os.getcwd())\nimport extra"
    return subprocess.run([python, "-c", cell + "\n" + cell + shown], env=environment, capture_output=True, text=True)


def test_the_cell_sets_up_a_machine_that_has_only_part(machine, published, tmp_path):
    python, index = machine
    colab_environment = published[1] | {"COLAB_RELEASE_TAG": "x", "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(index)}
    done = run_cell(python, colab_environment, tmp_path)
    assert done.returncode == 0, done.stderr
    home = (tmp_path / "disendiff_lite").resolve()
    assert done.stdout.splitlines() == ["Installing extra", f"1.0 {home}/notebooks"]
    assert (home / "disendiff_lite" / "report" / "colab.py").exists()
    # A package that would replace numpy is refused, whatever else it brings.
    (home / "requirements.txt").write_text("greedy\n")
    refused = run_cell(python, colab_environment, tmp_path)
    assert "UserError: pip could not install greedy" in refused.stderr
    asked = subprocess.run([python, "-c", "import numpy; print(numpy.VERSION)"], capture_output=True, text=True)
    assert asked.stdout == "1.0\n"


def test_the_cell_does_nothing_elsewhere(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "COLAB_RELEASE_TAG"}
    cell = setup_cell().replace("/content", str(tmp_path)) + "\nprint('disendiff_lite' in sys.modules, os.getcwd())"
    done = subprocess.run([sys.executable, "-c", cell], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.split() == ["False", str(tmp_path.resolve())] and not list(tmp_path.iterdir())
