"""The house: imports run one way, without a circle, and no file is too long to be read at once."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import disendiff_lite

PACKAGE = Path(disendiff_lite.__file__).parent
FLOORS = (
    ("support",),
    (
        "attention",
        "attention_record",
        "config",
        "hub",
        "losses",
        "model_source",
        "models",
        "precision",
        "presets",
        "scales",
        "single_file",
        "tokens",
    ),
    ("adapters", "data", "optimizers", "sampling", "trainable"),
    ("inpainting", "recording", "training"),
    ("runs",),
    ("evaluate",),
    ("report", "show"),  # side by side: neither may import the other
    ("cli",),
    ("emoji_world",),
)
FORBIDDEN = {("report", "show"), ("show", "report"), ("cli", "show"), ("emoji_world", "cli"), ("emoji_world", "report")}
WORLD = ("draw", "train", "check")  # the floors within emoji_world
LONGEST = 250  # lines of a file
MODULES = {
    path.relative_to(PACKAGE).with_suffix("").as_posix().removesuffix("/__init__"): path
    for path in PACKAGE.rglob("*.py")
}
DOORS = ("__init__", "evaluate", "show", "__main__")  # they open what lies behind them


def imports_of(module: str) -> set[tuple[str, str]]:
    """(module of the package, imported name), from imports at any depth of the file."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "disendiff_lite":
            place = "/".join(node.module.split(".")[1:])
            for alias in node.names:
                inner = f"{place}/{alias.name}".strip("/")
                found.add((inner if inner in MODULES else place, alias.name))
    return found


ARROWS = {module: imports_of(module) for module in MODULES if module not in DOORS}


def floor(module: str) -> int:
    (number,) = [number for number, rooms in enumerate(FLOORS) if module.split("/")[0] in rooms]
    return number


@pytest.mark.parametrize("module", ARROWS)
def test_no_import_runs_up(module):
    room = module.split("/")[0]
    for target, _ in ARROWS[module]:
        other = target.split("/")[0]
        assert floor(target) <= floor(module) and (room, other) not in FORBIDDEN, f"{module} imports {target}"
        assert other != "emoji_world" or room == "emoji_world"
        if room == other == "emoji_world":
            assert WORLD.index(target.split("/")[1]) <= WORLD.index(module.split("/")[1]), f"{module} imports {target}"


def test_no_circle():
    TopologicalSorter({module: {target for target, _ in arrows} for module, arrows in ARROWS.items()}).prepare()


@pytest.mark.parametrize("module", ARROWS)
def test_no_private_name_of_another_module_is_imported(module):
    assert not [name for _, name in ARROWS[module] if name.startswith("_")]


@pytest.mark.parametrize("module", MODULES)
def test_a_file_can_be_read_at_once(module):
    assert len(MODULES[module].read_text().splitlines()) <= LONGEST
