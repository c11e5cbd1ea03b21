"""The names that the package offers: each is what it says, however it is imported."""

import subprocess
import sys
from importlib.util import find_spec
from types import ModuleType

import pytest

import disendiff_lite


@pytest.mark.parametrize("name", disendiff_lite.__all__)
def test_a_name_is_its_object_and_not_a_module(name):
    found = {}
    exec(f"from disendiff_lite import {name}", found)
    assert not isinstance(found[name], ModuleType)
    assert getattr(disendiff_lite, name) is found[name]
    assert find_spec(f"disendiff_lite.{name}") is None  # else an import would give the module, once it is loaded


def test_importing_the_package_does_not_wait_for_torch():
    program = "import sys, disendiff_lite, disendiff_lite.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


def test_a_name_that_is_not_there():
    with pytest.raises(ImportError, match="cannot import name 'nothing'"):
        exec("from disendiff_lite import nothing", {})
