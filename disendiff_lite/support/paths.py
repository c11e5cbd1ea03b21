"""Where the project's own files lie: a checkout holds the embedded model, the reference pictures and the notebooks."""

import os
from pathlib import Path

from disendiff_lite.support.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "data"
NOTEBOOKS = ROOT / "notebooks"
EMBEDDED_MODEL = DATA / "emoji-diffusion"
EMBEDDED_SCORER = DATA / "emoji-clip"
REFERENCES = DATA / "references"
PAPER = DATA / "paper"  # the paper's photographs, once they are fetched
PAPER_FILES = DATA / "paper_files.json"  # which they are
ABLATION = DATA / "ablation"  # the shipped runs of the ablation
WORLD = DATA / "emoji-world"  # the atlas of designs
JUDGE = DATA / "emoji-judge" / "judge.safetensors"


def cache_folder() -> Path:
    """Where things lie that are made once for many runs: $DISENDIFF_LITE_CACHE, else in the user's own cache folder."""
    chosen = os.environ.get("DISENDIFF_LITE_CACHE")
    return Path(chosen or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "disendiff_lite"))


def check_shipped(path: Path) -> None:
    """Raise UserError if a folder or file that only a checkout of the project has is not there."""
    if not path.exists():
        raise UserError(
            f"{path} is not there: the embedded model, the reference pictures and the notebooks come with a checkout"
            " of the"
            " project, not with the installed package; clone the repository and run this in it (pip install -e .)."
        )
