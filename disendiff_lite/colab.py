"""Google Colab: install what this project needs and Colab does not have, and leave alone what it has.

Colab's torch and numpy belong to its drivers and are loaded already: another version of them would break the session.
"""

import importlib
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.requirements import Requirement

from disendiff_lite.errors import UserError
from disendiff_lite.provenance import ROOT

KEPT = ("torch", "torchvision", "torchaudio", "numpy")  # never replaced, whatever a package would like
NOT_FOR_NOTEBOOKS = ("jupyterlab", "resvg-py", "pytest")  # Colab is its own Jupyter; the others build data and test


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
        constraints.write_text("".join(f"{name}=={found}\n" for name in KEPT if (found := _installed(name))))
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", str(constraints)]
        pip = subprocess.run([*command, *missing], capture_output=True, text=True)
    if pip.returncode:
        said = pip.stderr.strip().splitlines() or ["it did not say why"]
        raise UserError(f"pip could not install {', '.join(missing)} ({said[-1]}): check the network and run this cell again.")
    importlib.invalidate_caches()  # else this Python may not see what was installed beside it


def missing_requirements(lines: Sequence[str]) -> list[str]:
    """Those lines of a requirements file, without their comments, that this Python does not meet."""
    wanted = [Requirement(text) for line in lines if (text := line.partition("#")[0].strip())]
    return [str(need) for need in wanted if need.name not in NOT_FOR_NOTEBOOKS and not _met(need)]


def _met(need: Requirement) -> bool:
    found = _installed(need.name)
    return found is not None and need.specifier.contains(found, prereleases=True)


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
