"""The doors: each name is what it says, however it is imported, and editors know the same names."""

import ast
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from zipfile import ZipFile

import pytest

import disendiff_lite as dd
from disendiff_lite import evaluate, show
from disendiff_lite.support.paths import ROOT

DOORS = [dd, evaluate, show]


@pytest.mark.parametrize(("door", "name"), [(door, name) for door in DOORS for name in door.__all__])
def test_a_name_is_its_object(door, name):
    found = {}
    exec(f"from {door.__name__} import {name}", found)
    assert getattr(door, name) is found[name]
    is_room = isinstance(found[name], ModuleType)
    assert is_room == (door is dd and name in ("evaluate", "losses", "show"))
    # Else an import of the name would give the module, once that is loaded.
    assert is_room or find_spec(f"{door.__name__}.{name}") is None


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
def test_dir_lists_the_names_that_editors_know(door):
    tree = ast.parse(Path(door.__file__).read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    known = [alias.name for node in block.body for alias in node.names]
    assert sorted(known) == sorted(door.__all__) == dir(door)


def test_importing_the_package_does_not_wait_for_torch():
    program = "import sys, disendiff_lite, disendiff_lite.cli.options; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
def test_a_name_that_is_not_there(door):
    with pytest.raises(ImportError, match="cannot import name 'nothing'"):
        exec(f"from {door.__name__} import nothing", {})


def test_a_wheel_holds_every_module_and_template(tmp_path):
    pytest.importorskip("setuptools", minversion="77")
    source = tmp_path / "source"
    shutil.copytree(ROOT / "disendiff_lite", source / "disendiff_lite", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "requirements.txt", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", tmp_path, source]
    subprocess.run(pip, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    files = {path.relative_to(source).as_posix() for path in (source / "disendiff_lite").rglob("*") if path.is_file()}
    with ZipFile(wheel) as archive:
        packed = set(archive.namelist())
        (metadata,) = [name for name in packed if name.endswith("METADATA")]
        assert "Requires-Dist: diffusers" in archive.read(metadata).decode()
    # A text that describes a folder is for readers of the repository.
    assert {name for name in files if not name.endswith(".md")} <= packed
