"""Google Colab: install what this project needs and Colab does not have, and leave alone what it has.

Colab's torch and numpy belong to its drivers and are loaded already: another version of them would break the session.
"""

import importlib
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.requirements import Requirement

from disendiff_lite.support.errors import UserError
from disendiff_lite.support.paths import ROOT

OWNER, NAME = "disendiff-lite", "disendiff_lite"
ADDRESS = f"https://github.com/{OWNER}/{NAME}"
BADGE = "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
KEPT = ("torch", "torchvision", "torchaudio", "numpy")  # never replaced, whatever a package would like
NOT_FOR_NOTEBOOKS = (
    "jupyterlab",
    "resvg-py",
    "pytest",
    "pytest-xdist",
    "distributed",
    "ruff",
    "selenium",
)  # Colab is its own Jupyter; the others build data and test


def tag() -> str:
    """The tag of this version, such as "v0.1.0": what Colab clones is what the notebook was written for."""
    return f"v{tomllib.loads((ROOT / 'pyproject.toml').read_text(encoding='utf-8'))['project']['version']}"


def badge(name: str) -> str:
    """The Markdown line that opens a notebook of this version in Colab. name: such as "00_quickstart"."""
    return f"{BADGE}(https://colab.research.google.com/github/{OWNER}/{NAME}/blob/{tag()}/notebooks/{name}.ipynb)"


def setup_cell() -> str:
    """The first code cell, the same in every notebook: plain Python, to be read and tested like any other."""
    return f"""\
# On Google Colab: fetch this project, and install what Colab lacks. Anywhere else: nothing.
import os
import subprocess
import sys

if "COLAB_RELEASE_TAG" in os.environ:
    home = "/content/{NAME}"
    if not os.path.exists(home):
        clone = ["git", "-c", "advice.detachedHead=false", "clone", "--quiet", "--depth", "1", "--branch", "{tag()}"]
        subprocess.run([*clone, "{ADDRESS}", home], check=True)
    os.chdir(f"{{home}}/notebooks")
    sys.path.insert(0, home)
    from disendiff_lite.report.colab import install_missing
    install_missing()"""


def install_missing(requirements: Path = ROOT / "requirements.txt") -> None:
    """Install the requirements that are missing or too old, with the versions of KEPT held; without any, do nothing.

    Raises UserError if pip cannot.
    """
    missing = missing_requirements(requirements.read_text(encoding="utf-8").splitlines())
    if not missing:
        return
    print("Installing", ", ".join(missing), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder, "constraints.txt")
        constraints.write_text("".join(f"{name}=={kept}\n" for name in KEPT if (kept := _installed(name))))
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "-c",
            str(constraints),
        ]
        pip = subprocess.run([*command, *missing], capture_output=True, text=True)
    if pip.returncode:
        said = pip.stderr.strip().splitlines() or ["it did not say why"]
        raise UserError(
            f"pip could not install {', '.join(missing)} ({said[-1]}): check the network and run this cell again."
        )
    importlib.invalidate_caches()  # else this Python may not see what was installed beside it


def missing_requirements(lines: Sequence[str]) -> list[str]:
    """Those lines of a requirements file, without their comments, that this Python does not meet."""
    needs = [Requirement(text) for line in lines if (text := line.partition("#")[0].strip())]
    return [str(need) for need in needs if need.name not in NOT_FOR_NOTEBOOKS and not _met(need)]


def _met(need: Requirement) -> bool:
    installed = _installed(need.name)
    return installed is not None and need.specifier.contains(installed, prereleases=True)


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
