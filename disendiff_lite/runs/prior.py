"""Prior preservation: pictures of the plain classes, made by the model itself before it changes, or taken from a
folder.
"""

import contextlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

from disendiff_lite.config import Config
from disendiff_lite.data import PriorImages
from disendiff_lite.models import model_fingerprint
from disendiff_lite.precision import held_in
from disendiff_lite.runs.prior_cache import read_shared, share, shared_folder
from disendiff_lite.sampling import SAMPLING, sample
from disendiff_lite.support.errors import UserError
from disendiff_lite.support.files import read_json, replacing, write_text
from disendiff_lite.support.images import centre_square, load_image
from disendiff_lite.support.memory import TooLittleMemory, enough_memory
from disendiff_lite.tokens import class_caption

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
RECORD = "prior.json"  # in a folder of pictures that the model made: how they were made


def make_prior(
    pipe: StableDiffusionPipeline,
    classes: Sequence[str],
    config: Config,
    folder=None,
    progress: Callable[[int, int], None] | None = None,
) -> PriorImages:
    """Let the model draw `config.prior_images` pictures of the plain classes, or read those that it drew before.

    pipe: the model, not yet personalised. classes: such as ["cat", "dog"].
    folder: where the pictures are kept, as PNG files with a prior.json; a run that was killed goes on with the ones
        that are missing. None keeps them in memory alone.
    progress: called with how many there are and how many there will be, after each batch.

    They are drawn in `config.precision`, `config.prior_batch` at once or as many as fit into the memory. What any run
    drew before in the same way is taken from the cache, see prior_cache.

    Raises UserError if the folder holds pictures that were made otherwise (another model, caption or sampling setting),
    or if not even one fits into the memory.
    """
    caption, count = class_caption(classes), config.prior_images
    recipe = _recipe(pipe, caption, config)
    if folder is not None:
        _check_record(Path(folder), recipe)
    shared = shared_folder(pipe, recipe)
    drawn, pictures = _Drawn(pipe, caption, config, read_shared(shared, count)), []
    with held_in(config.precision, (pipe.unet, pipe.vae, pipe.text_encoder), ()):
        # Batches always begin at the same numbers: what a picture shares its batch with can change its last bit.
        for start in range(0, count, config.prior_batch):
            numbers = range(start, min(start + config.prior_batch, count))
            pictures += _make_batch(drawn, numbers, folder)
            if progress is not None:
                progress(len(pictures), count)
    if drawn.made == count:  # not if some lay in the folder, where they may have been changed
        share(shared, pictures)
    return PriorImages(caption, pictures)


def load_prior(folder, classes: Sequence[str], config: Config) -> PriorImages:
    """The pictures of a folder of one's own, each cut to its centre square of `config.resolution` px.

    Hidden files, folders and files of other kinds are passed over: macOS puts a `._a.png` beside each `a.png` of a
    memory stick, which is no picture.

    Raises UserError if there is no such folder, no picture in it, or one that cannot be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder} of class pictures: check the path, or let the model make them.")
    seen = (path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    paths = sorted(path for path in seen if path.suffix.lower() in PICTURE_SUFFIXES)
    if not paths:
        raise UserError(
            f"The folder {folder} holds no pictures (PNG, JPEG, WebP or BMP): put some of the classes there."
        )
    return PriorImages(class_caption(classes), [centre_square(load_image(path), config.resolution) for path in paths])


def _make_batch(drawn: "_Drawn", numbers: range, folder) -> list[Image.Image]:
    if folder is None:
        return drawn.pictures(numbers)
    paths = [Path(folder) / f"{number:04d}.png" for number in numbers]
    if not all(path.exists() for path in paths):
        for path, picture in zip(paths, drawn.pictures(numbers)):
            with replacing(path) as temporary:
                picture.save(temporary, format="PNG")
    return [load_image(path) for path in paths]


@dataclass
class _Drawn:
    """Pictures by number: those known from before, and else those that the model draws."""

    pipe: StableDiffusionPipeline
    caption: str
    config: Config
    known: list[Image.Image]
    made: int = 0
    most: int | None = None  # that fit into the memory at once, once that was found out

    def pictures(self, numbers: range) -> list[Image.Image]:
        if self.known:
            return [self.known[number] for number in numbers]
        pictures = []
        while rest := numbers[len(pictures) :][: self.most]:
            drawn = self._draw(rest)
            self.most = self.most if drawn else len(rest) // 2
            pictures += drawn
        self.made += len(pictures)
        return pictures

    def _draw(self, numbers: range) -> list[Image.Image]:
        """Pictures, or none if they do not fit into the memory together."""
        # Far from the small seeds that people choose, so that no picture judged later starts from the same noise.
        seeds = [1_000_000 * (self.config.seed + 1) + number for number in numbers]
        try:
            with enough_memory("set precision to float16 or bfloat16, or give pictures of your own"):
                return sample(self.pipe, [self.caption] * len(seeds), seeds, self.config)
        except TooLittleMemory:
            if len(seeds) == 1:
                raise
        if self.pipe.device.type == "cuda":
            torch.cuda.empty_cache()
        return []


def _recipe(pipe, caption: str, config: Config) -> dict:
    names = ("prior_images", "prior_batch", *SAMPLING, "seed", "precision")
    settings = {name: getattr(config, name) for name in names}
    return {"caption": caption, **settings, "model": model_fingerprint(pipe.unet)}


def _check_record(folder: Path, recipe: dict) -> None:
    path = folder / RECORD
    if not path.exists():
        write_text(path, json.dumps(recipe, indent=2) + "\n")
        return
    found = {}
    with contextlib.suppress(UserError):  # a damaged record says nothing
        found = read_json(path, "is damaged")
    found = {"precision": "float32"} | found  # it was always that before it was noted
    different = [name for name in recipe if found.get(name) != recipe[name]]
    if different:
        raise UserError(
            f"The class pictures in {folder} were made with another {', '.join(different)}: delete them or choose"
            " another folder."
        )
