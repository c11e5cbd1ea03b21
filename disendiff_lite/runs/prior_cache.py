"""Class pictures that were drawn once are not drawn again: runs of one model, classes and settings share them.

They lie in support.paths.cache_folder(), a folder for each recipe. It is only a saving: where it cannot be read or
written, the pictures are drawn.
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

from disendiff_lite.adapters import adapters_in_use
from disendiff_lite.support.errors import UserError
from disendiff_lite.support.images import load_image
from disendiff_lite.support.paths import cache_folder

SAMPLED = 64  # values of each weight that the key is made from


def shared_folder(pipe: StableDiffusionPipeline, recipe: Mapping) -> Path:
    """Where pictures of a recipe are shared; its name is a hash of the recipe, of the noise schedule, of some values of
    each weight, of the adapters in use and their scales, of the kind of device and of torch's version.

    Another device of the same kind, or another number of threads, may round a last bit otherwise.

    recipe: how they are made, values that JSON can hold.
    """
    facts = {**recipe, "device": pipe.device.type, "torch": torch.__version__, "noise": dict(pipe.scheduler.config)}
    facts["adapters"] = adapters_in_use(pipe)
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode())
    for part in (pipe.unet, pipe.vae, pipe.text_encoder):
        for weight in part.parameters():
            flat = weight.detach().flatten()
            some = flat[:: max(1, len(flat) // SAMPLED)].float().cpu()
            digest.update(some.numpy().tobytes())
    return cache_folder() / "class-pictures" / digest.hexdigest()[:16]


def read_shared(folder: Path, count: int) -> list[Image.Image]:
    """The pictures that a shared folder holds, or none at all if they are not `count` sound ones."""
    try:
        return [load_image(path) for path in _paths(folder, count)]
    except (OSError, UserError):
        return []


def share(folder: Path, pictures: Sequence[Image.Image]) -> None:
    """Keep pictures for other runs, all at once; of several processes that do so the first one's stay."""
    made = folder.with_name(f".{folder.name}-{os.getpid()}")
    with contextlib.suppress(OSError):
        made.mkdir(parents=True)
        for path, picture in zip(_paths(made, len(pictures)), pictures):
            picture.save(path)
        if folder.exists() and not read_shared(folder, len(pictures)):  # damaged
            shutil.rmtree(folder)
        made.rename(folder)
    shutil.rmtree(made, ignore_errors=True)


def _paths(folder: Path, count: int) -> list[Path]:
    return [folder / f"{number:04d}.png" for number in range(count)]
