"""An attention record: every map of some words at each denoising step, layer and head, with the picture they belong to.

It needs no model any more, so that figures and an interactive explorer only index arrays, and it
goes to one file and back.
"""

import dataclasses
import json
import zipfile
from dataclasses import dataclass

import numpy as np

from disendiff_lite.support.errors import UserError
from disendiff_lite.support.files import replacing

FIELDS = "record"  # the entry of the file that holds, as JSON, what is not an array


@dataclass(frozen=True, eq=False)  # arrays have no single answer to ==
class AttentionRecord:
    """Attention maps of one prompt and one picture.

    prompt: what was asked. words: the kept tokens as text, a class of several tokens having several.
    positions: where they stand in the prompt. roles: for each "modifier", "class" or "".
    times: the noise level of each step, as a timestep of the model's schedule (999 is pure noise, for most).
    picture: uint8 (height, width, 3), what came out, or the reference picture.
    layers: for each grid, the names of its layers in the order in which the UNet runs them.
    maps: for each grid, named "16x16" (height, width), float16 (steps, layers, heads, tokens, h,
        w), probabilities in [0, 1].
    """

    prompt: str
    words: tuple[str, ...]
    positions: tuple[int, ...]
    roles: tuple[str, ...]
    times: tuple[int, ...]
    picture: np.ndarray
    layers: dict[str, tuple[str, ...]]
    maps: dict[str, np.ndarray]

    def save(self, path) -> None:
        """Write the record as one compressed .npz file, whole or not at all."""
        plain = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        arrays = {f"maps {grid}": maps for grid, maps in plain.pop("maps").items()}
        with replacing(path) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, picture=plain.pop("picture"), **arrays, **{FIELDS: np.array(json.dumps(plain))})

    @property
    def concepts(self) -> tuple[tuple[int, tuple[int, ...]], ...]:
        """For each concept the places, among the words, of its modifier and of its class, which
        the caption puts after it.
        """
        places = []
        for place, role in enumerate(self.roles):
            if role == "modifier":
                places.append((place, ()))
            elif role == "class":
                modifier, tokens = places[-1]
                places[-1] = (modifier, (*tokens, place))
        return tuple(places)

    @classmethod
    def load(cls, path) -> "AttentionRecord":
        """Read a record that `save` wrote. Raises UserError if the file is missing, damaged or something else."""
        try:
            with np.load(path, allow_pickle=False) as file:
                plain = json.loads(str(file[FIELDS]))
                maps = {grid: file[f"maps {grid}"] for grid in plain["layers"]}
                picture = file["picture"]
        except FileNotFoundError:
            raise UserError(f"There is no attention record {path}: check the path, or record it first.") from None
        except (OSError, EOFError, KeyError, ValueError, TypeError, zipfile.BadZipFile):
            raise UserError(f"{path} is damaged or not an attention record: record it again.") from None
        layers = {grid: tuple(names) for grid, names in plain.pop("layers").items()}
        lists = {name: tuple(value) if isinstance(value, list) else value for name, value in plain.items()}
        return cls(**lists, layers=layers, maps=maps, picture=picture)


def mean_maps(
    record: AttentionRecord,
    resolution: int | tuple[int, int] | None = None,
    *,
    step: int | None = None,
    layer: int | None = None,
    head: int | None = None,
) -> np.ndarray:
    """One map a word: the mean over steps, layers and heads, or that of one of them.

    resolution: the grid, a side or (height, width); None takes the first that was recorded.
    step, layer, head: numbers from 0, negative from the end.

    Returns float32 (tokens, h, w) in [0, 1]. Raises UserError if the record has no such grid, step, layer or head.
    """
    grid = next(iter(record.maps)) if resolution is None else grid_name(resolution)
    if grid not in record.maps:
        raise UserError(f"The record has no {grid} maps: choose one of {', '.join(record.maps)}, or record them too.")
    maps = record.maps[grid]  # (steps, layers, heads, tokens, h, w)
    for axis, (name, number) in enumerate({"step": step, "layer": layer, "head": head}.items()):
        if number is None:
            continue
        size = maps.shape[axis]
        if not -size <= number < size:
            raise UserError(f"The record has no {name} {number}: choose one from 0 to {size - 1}.")
        maps = np.take(maps, [number], axis=axis)
    return maps.mean(axis=(0, 1, 2), dtype=np.float32)


def grid_name(resolution: int | tuple[int, int]) -> str:
    """How a record names a grid: "16x16", height first."""
    h, w = (resolution, resolution) if isinstance(resolution, int) else resolution
    return f"{h}x{w}"


def layer_label(layer: str) -> str:
    """A layer's name without what all have in common: "up 1.0" for
    "up_blocks.1.attentions.0.transformer_blocks.0.attn2".
    """
    kind, *parts = layer.split(".")
    numbers = [part for part in parts if part.isdigit()]
    # The last number counts the blocks of one transformer, of which Stable Diffusion 1.x and 2.x have one.
    return " ".join([kind.split("_")[0], ".".join(numbers[:-1])]).strip()
