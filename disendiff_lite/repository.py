"""Where this project is published: the one place to change when the repository moves.

Each notebook begins with a badge that opens it in Google Colab and a cell that sets Colab up. Both texts are made here and written
into the notebooks by `python -m disendiff_lite.refresh_notebooks --stamp`; a test checks that they agree.
"""

import tomllib

from disendiff_lite.provenance import ROOT

OWNER, NAME = "disendiff-lite", "disendiff_lite"
ADDRESS = f"https://github.com/{OWNER}/{NAME}"
BADGE = "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"


def tag() -> str:
    """The tag of this version, such as "v0.1.0": what Colab clones is what the notebook was written for."""
    return f"v{tomllib.loads((ROOT / 'pyproject.toml').read_text(encoding='utf-8'))['project']['version']}"


def badge(name: str) -> str:
    """The Markdown line that opens a notebook of this version in Colab. name: such as "00_quickstart"."""
    return f"{BADGE}(https://colab.research.google.com/github/{OWNER}/{NAME}/blob/{tag()}/notebooks/{name}.ipynb)"


def setup_cell() -> str:
    """The first code cell, the same in every notebook: plain Python, so that it can be read and tested like any other."""
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
    from disendiff_lite.colab import install_missing
    install_missing()"""
