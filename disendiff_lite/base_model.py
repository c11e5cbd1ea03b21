"""The base model of a run: its name is kept beside the run, and its size says which recipe and which scorer suit it."""

import hashlib
import json
from pathlib import Path

from disendiff_lite.errors import UserError
from disendiff_lite.files import read_text, write_text
from disendiff_lite.models import SHORT_NAMES

FILE = "model.json"
SMALL = 16  # latents of the embedded model are 16x16; Stable Diffusion's are 64x64 and larger
SCORERS = {"emoji": "emoji", "paper": "clip"}


def remember_model(run_dir, name: str) -> None:
    """Note in a run's folder which model it was trained on, so that one need not say it again."""
    write_text(Path(run_dir) / FILE, json.dumps({"model": absolute_model(name)}) + "\n")


def recall_model(run_dir) -> str:
    """The model that was noted in a run's folder, "emoji" if there is no note. Raises UserError if the note is damaged."""
    path = Path(run_dir) / FILE
    if not path.exists():
        return "emoji"
    try:
        return str(json.loads(read_text(path))["model"])
    except (json.JSONDecodeError, TypeError, KeyError):
        raise UserError(f"{path} is damaged: delete it and name the model with --model.") from None


def absolute_model(name: str) -> str:
    """A folder's path that holds everywhere; short names and hub ids as they are."""
    return str(Path(name).resolve()) if name not in SHORT_NAMES and Path(name).is_dir() else name


def weights_hash(name: str) -> str | None:
    """16 hex digits that name the weights of a model's UNet, as they lie on this disk; None for a model of the hub."""
    digest = hashlib.sha256()
    files = sorted(Path(SHORT_NAMES.get(name, name), "unet").glob("*.safetensors"))
    for path in files:
        with open(path, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16] if files else None


def suited_preset(name: str) -> str:
    """The preset for a model: "emoji" for the embedded one and others of its size, else "paper"."""
    if name == "emoji":
        return "emoji"
    settings = Path(name, "unet", "config.json")
    try:
        side = json.loads(read_text(settings)).get("sample_size") if settings.is_file() else None
    except json.JSONDecodeError:
        side = None  # loading the model will say what is wrong with it
    return "emoji" if isinstance(side, int) and side <= SMALL else "paper"
