"""Pictures and scores as files: each says what it is of, and none takes the place of another that is finished."""

import contextlib
import hashlib
import itertools
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from disendiff_lite.config import Config
from disendiff_lite.sampling import SAMPLING
from disendiff_lite.support.errors import UserError
from disendiff_lite.support.files import check_writable, explaining, file_key, read_json, replacing, write_text

LONGEST_STEM, LONGEST_NAME = 120, 200  # bytes; disks take 255, and a temporary name and a digest come on top
SHORTEST_STEM = 20  # what a prompt keeps, whatever else the name says


class PictureFolder:
    """Where the pictures of a finished run go.

    path: of the folder, made if it is missing. run: the run's folder. config: the settings that are drawn with. model:
    its name. negative_prompt: "" for none. scene: what names call the picture that is drawn into, "" for none. beside:
    what they call the runs and LoRAs that are used with it. more: what decides a picture besides, by name.

    Raises UserError if the folder cannot be written.
    """

    def __init__(
        self,
        path: Path,
        run,
        config: Config,
        model: str,
        negative_prompt: str,
        *,
        scene: str = "",
        beside: Sequence[str] = (),
        more: Mapping[str, str] | None = None,
    ):
        self.path, self.config, self.model, self.negative_prompt = path, config, model, negative_prompt
        self.scene, self.beside, self.more = scene, beside, dict(more or {})
        check_writable(path, "free some space or choose another folder with --out")
        self.usual = Config.load(Path(run, "config.json"))
        self.learned = learned_hash(run)

    def save(self, picture: Image.Image, prompt: str, number: int) -> bool:
        """Write a picture, with a note of all that decides it; under a longer name, if its own is another picture's.

        The same picture is written anew. Returns whether it got its own name. Raises UserError if even the longer one
        is taken, or if the file cannot be written.
        """
        note = self._note(prompt, number)
        name = self._name(prompt, number)
        digest = hashlib.sha256(json.dumps(note).encode()).hexdigest()[:12]
        there = {file_key(path.name): path for path in self.path.iterdir()}
        for candidate in (name, f"{name}-{digest}"):
            path = there.get(file_key(f"{candidate}.png"))
            if path is None or _read_note(path) == note:
                _write_picture(picture, path or self.path / f"{candidate}.png", note)
                return candidate == name
        raise UserError(f"{path} is another picture than its name says: move it away, or choose another --out.")

    def _name(self, prompt: str, number: int) -> str:
        """What a person tells it by; seldom, as of prompts that differ in a comma, two pictures' names are the same."""
        other = {name: getattr(self.config, name) for name in SAMPLING}
        other = {name: value for name, value in other.items() if value != getattr(self.usual, name)}
        tail = f"-in-{self.scene}" if self.scene else ""
        tail += f"-without-{file_stem(self.negative_prompt, 40)}" if self.negative_prompt else ""
        tail += f"-with-{file_stem('-with-'.join(self.beside), 60)}" if self.beside else ""
        tail += f"-seed{self.config.seed}" + "".join(f"-{name}{value:g}" for name, value in other.items())
        return f"{file_stem(prompt, max(SHORTEST_STEM, LONGEST_NAME - len(tail.encode())))}{tail}-{number:02}"

    def _note(self, prompt: str, number: int) -> dict[str, str]:
        sampling = {name: str(getattr(self.config, name)) for name in ("seed", *SAMPLING)}
        asked = {"prompt": prompt, "negative_prompt": self.negative_prompt, "number": str(number)}
        return asked | sampling | {"model": self.model, "learned": self.learned} | self.more


def save_scores(path: Path, settings: Mapping[str, object], subjects: Mapping[str, dict]) -> Path | None:
    """Write scores.json. One that is there of other settings is kept under another name, which is returned."""
    kept = None
    if path.exists():
        found = {}
        with contextlib.suppress(UserError):  # a damaged file says nothing of its settings
            found = read_json(path, "is damaged.")
        if any(found.get(name) != value for name, value in settings.items()):
            names = (path.with_stem(f"{path.stem}-{number}") for number in itertools.count(1))
            kept = next(name for name in names if not name.exists())
            with explaining(path):
                os.replace(path, kept)
    write_text(path, json.dumps({**settings, "subjects": subjects}, indent=2) + "\n")
    return kept


def file_stem(text: str, longest: int = LONGEST_STEM) -> str:
    """The words of a text with hyphens between, as the name of a file or folder; at most so many bytes."""
    words = re.sub(r"\W+", "-", text).strip("-")
    return words.encode()[: min(longest, LONGEST_STEM)].decode(errors="ignore") or "picture"


def learned_hash(source) -> str:
    """16 hex digits that name the weights of a finished run's folder, or of one file, from their bytes."""
    digest = hashlib.sha256()
    for path in [Path(source)] if Path(source).is_file() else sorted(Path(source).glob("*.safetensors")):
        with open(path, "rb") as file:
            digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def _read_note(path: Path) -> dict[str, str] | None:
    """What a picture of ours says of itself, None for other files."""
    try:
        with Image.open(path) as picture:
            return json.loads(picture.info["disendiff_lite"])
    except (OSError, SyntaxError, ValueError, KeyError, TypeError, Image.DecompressionBombError):
        return None


def _write_picture(picture: Image.Image, path: Path, note: Mapping[str, str]) -> None:
    info = PngInfo()
    info.add_text("prompt", note["prompt"])
    info.add_text("disendiff_lite", json.dumps(note))
    with replacing(path) as temporary:
        picture.save(temporary, format="PNG", pnginfo=info)
