"""Attention recordings: run the model once, keep every map of the chosen words, look at them for as long as you like.

An AttentionRecord holds the maps of one prompt at each denoising step, layer and head, with the picture they belong to. It
needs no model any more, so that figures and an interactive explorer only index arrays, and it goes to one file and back.
"""

import dataclasses
import json
import zipfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

from disendiff_lite.attention import AttentionStore, capture_attention
from disendiff_lite.config import Config
from disendiff_lite.data import LatentEncoder, Sample
from disendiff_lite.errors import UserError
from disendiff_lite.files import replacing
from disendiff_lite.generate import check_prompt, picture_seeds
from disendiff_lite.images import centre_square, to_rgb, to_tensor
from disendiff_lite.sampling import sample
from disendiff_lite.tokens import ConceptPositions, token_words
from disendiff_lite.train import make_noiser

FIELDS = "record"  # the entry of the file that holds, as JSON, what is not an array


@dataclass(frozen=True, eq=False)  # arrays have no single answer to ==
class AttentionRecord:
    """Attention maps of one prompt and one picture.

    prompt: what was asked. words: the kept tokens as text, a class of several tokens having several.
    positions: where they stand in the prompt. roles: for each "modifier", "class" or "".
    times: the noise level of each step, as a timestep of the model's schedule (999 is pure noise, for most).
    picture: uint8 (height, width, 3), what came out, or the reference picture.
    layers: for each grid, the names of its layers in the order in which the UNet runs them.
    maps: for each grid, named "16x16" (height, width), float16 (steps, layers, heads, tokens, h, w), probabilities in [0, 1].
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

    def to_html(
        self, path, other=None, names: Sequence[str] = ("before", "after"), words: Sequence[str] | None = None
    ) -> None:
        """Write an explorer page that opens with a double click; arguments and errors as for explorer_page.write_explorer."""
        from disendiff_lite.explorer_page import write_explorer  # which draws records, and so imports this file

        write_explorer(path, self, other, names, words)

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


def record_maps(
    pipe: StableDiffusionPipeline,
    prompt: str,
    *,
    config: Config,
    seed: int | None = None,
    index: int = 0,
    positions: Sequence[int] | None = None,
    concepts: Sequence[ConceptPositions] = (),
    resolutions: Sequence[int | tuple[int, int]] | None = None,
) -> AttentionRecord:
    """Draw one picture and keep the maps of the chosen words at each denoising step.

    seed, index: the picture is number `index` of generate(pipe, prompt, seed=seed, config=config).
    positions: the tokens to keep, from 0, the start mark; None keeps the words, without the marks at both ends.
    concepts: from tokens.find_positions; they only mark which words are modifiers and classes.
    resolutions: grids to keep, as capture_attention takes them; None keeps the one that is calibrated, config.map_resolution.

    The maps are those of the guided prompt, not of the empty one beside it. Raises UserError as generate does, and if there is no
    such position or grid.
    """
    check_prompt(pipe.tokenizer, prompt)
    words, positions = _chosen_words(pipe.tokenizer, prompt, positions)
    seed = picture_seeds(config.seed if seed is None else seed, index + 1)[index]
    times = _Times()
    with ExitStack() as stack:
        stores = [stack.enter_context(capture) for capture in _captures(pipe, config, positions, resolutions)]
        stack.callback(pipe.unet.register_forward_pre_hook(times, with_kwargs=True).remove)
        picture = sample(pipe, [prompt], [seed], config)[0]
    # With guidance the batch is the empty prompt and the prompt, without it the prompt alone: the last in both cases.
    maps = [_stacked(store, lambda calls: torch.stack([maps[-1] for maps in calls])) for store in stores]
    return _record(prompt, words, positions, concepts, times.seen, picture, stores, maps)


@torch.no_grad()
def maps_on_picture(
    pipe: StableDiffusionPipeline,
    image: Image.Image,
    prompt: str,
    *,
    config: Config,
    seed: int | None = None,
    times: Sequence[int] = tuple(range(200, 801, 100)),
    positions: Sequence[int] | None = None,
    concepts: Sequence[ConceptPositions] = (),
    resolutions: Sequence[int | tuple[int, int]] | None = None,
) -> AttentionRecord:
    """What the words of a prompt look at in a given picture: it is noised to some levels, and each is denoised by one step.

    This is what training sees, and it shows the same picture before and after training. mean_maps of the record is the mean over
    the noise levels.

    image: cut to its centre square. seed: of the noise; the same seed gives the same noise for each model.
    times: noise levels, as timesteps of the model's schedule; in the middle ones objects take shape. Others as for record_maps.

    Raises UserError if a timestep is not in the schedule, and as record_maps does.
    """
    check_prompt(pipe.tokenizer, prompt)
    words, positions = _chosen_words(pipe.tokenizer, prompt, positions)
    noiser = make_noiser(pipe)
    last = noiser.config.num_train_timesteps - 1
    if not times or not all(0 <= time <= last for time in times):
        raise UserError(f"The times {tuple(times)} must be timesteps of the model's schedule: choose some from 0 to {last}.")
    picture = centre_square(to_rgb(image), config.resolution)
    generator = torch.Generator("cpu").manual_seed(config.seed if seed is None else seed)
    seen = Sample(to_tensor(picture), torch.ones(1, 1, 1), prompt, is_concept=True)  # its loss mask plays no part here
    latents = LatentEncoder(pipe).batch([seen], generator).latents  # (1, C, h, w)
    noise = torch.randn((len(times), *latents.shape[1:]), generator=generator).to(latents)  # (steps, C, h, w)
    steps = torch.tensor(times, device=latents.device)  # (steps,)
    noisy = noiser.add_noise(latents.expand_as(noise), noise, steps).to(pipe.unet.dtype)
    text, _ = pipe.encode_prompt([prompt] * len(times), latents.device, 1, False)  # (steps, T, dim)
    with ExitStack() as stack:
        stores = [stack.enter_context(capture) for capture in _captures(pipe, config, positions, resolutions)]
        pipe.unet(noisy, steps, text)
    maps = [_stacked(store, lambda calls: calls[0]) for store in stores]
    return _record(prompt, words, positions, concepts, times, picture, stores, maps)


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


class _Times:
    # A hook that notes at which timestep the UNet is called; the scheduler's own list is gone when sampling is over.
    def __init__(self):
        self.seen: list[int] = []

    def __call__(self, _, args: tuple, kwargs: dict) -> None:
        self.seen.append(int(args[1] if len(args) > 1 else kwargs["timestep"]))


def _chosen_words(tokenizer, prompt: str, positions) -> tuple[tuple[str, ...], tuple[int, ...]]:
    words = token_words(tokenizer, prompt)
    positions = range(1, len(words) - 1) if positions is None else positions
    if not positions:
        raise UserError(f"No word is chosen of the prompt {prompt!r}: give positions from 0 to {len(words) - 1}.")
    outside = [position for position in positions if not 0 <= position < len(words)]
    if outside:
        raise UserError(f"Positions {outside} are not in the prompt {prompt!r}: choose among 0 to {len(words) - 1}.")
    return tuple(words[position] for position in positions), tuple(positions)


def _captures(pipe, config: Config, positions: Sequence[int], resolutions) -> list:
    grids = (config.map_resolution,) if resolutions is None else resolutions
    return [capture_attention(pipe.unet, grid, tokens=positions, detach=True) for grid in grids]


def _stacked(store: AttentionStore, over_steps) -> np.ndarray:
    """(steps, layers, heads, tokens, h, w); `over_steps` makes one layer's calls into (steps, H, Q, T)."""
    if not store.maps:
        seen = ", ".join(grid_name(grid) for grid in sorted(store.grids_seen, reverse=True))
        raise UserError(f"No cross-attention layer has the grid {grid_name(store.grid)}: choose among {seen} as resolutions.")
    layers = torch.stack([over_steps(calls) for calls in store.maps.values()], dim=1)  # (steps, layers, H, Q, T)
    return layers.transpose(3, 4).unflatten(4, store.grid).to("cpu", torch.float16).numpy()  # (..., T, h, w)


def _record(prompt, words, positions, concepts, times, picture, stores, maps) -> AttentionRecord:
    modifiers = {concept.modifier for concept in concepts}
    classes = {position for concept in concepts for position in concept.class_}
    roles = tuple("modifier" if p in modifiers else "class" if p in classes else "" for p in positions)
    names = [grid_name(store.grid) for store in stores]
    return AttentionRecord(
        prompt=prompt,
        words=words,
        positions=positions,
        roles=roles,
        times=tuple(times),
        picture=np.asarray(picture),
        layers={name: tuple(store.maps) for name, store in zip(names, stores)},
        maps=dict(zip(names, maps)),
    )
