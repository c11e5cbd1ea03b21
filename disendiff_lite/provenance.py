"""Where a result comes from: versions of the libraries, the commit of this code, and whether it was changed since."""

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIBRARIES = ("torch", "numpy", "diffusers", "transformers", "peft", "open_clip_torch", "papermill", "nbconvert")


def library_versions() -> dict[str, str]:
    """The versions of Python and of the libraries that decide results, by name; "missing" if one is not installed."""
    versions = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "missing"
    return versions


def git_state(root=ROOT) -> str:
    """The commit of a working tree, "1a2b3c4d5e6f" or "1a2b3c4d5e6f with uncommitted changes"; "unknown" without git."""
    try:
        commit = _git(root, "rev-parse", "--short=12", "HEAD")
        changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{commit} with uncommitted changes" if changed else commit


def _git(root, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
