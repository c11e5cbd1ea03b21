"""One style: ruff finds nothing to mend, and nothing to format."""

import subprocess
import sys

import pytest

from disendiff_lite.support.paths import ROOT


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]], ids=lambda command: command[0])
def test_ruff(command):
    ruff = [sys.executable, "-m", "ruff", *command, "--no-cache", "disendiff_lite", "tests"]
    checked = subprocess.run(ruff, cwd=ROOT, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


def test_nothing_is_kept_from_the_formatter():
    files = [path for folder in ("disendiff_lite", "tests") for path in (ROOT / folder).rglob("*.py")]
    mark = "# fmt" + ":"
    assert not [path for path in files if mark in path.read_text(encoding="utf-8")]
