"""Record attention: run the model once, and keep every map of the chosen words for as long as you like."""

from collections.abc import Sequence
from contextlib import ExitStack

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

from disendiff_lite.attention import AttentionStore, capture_attention
from disendiff_lite.attention_record import AttentionRecord, grid_name
from disendiff_lite.config import Config
from disendiff_lite.data import LatentEncoder, Sample
from disendiff_lite.models import check_text_to_image
from disendiff_lite.precision import as_held
from disendiff_lite.sampling import make_noiser, picture_seeds, sample
from disendiff_lite.support.errors import UserError
from disendiff_lite.support.images import centre_square, to_rgb, to_tensor
from disendiff_lite.tokens import ConceptPositions, check_prompt, token_words


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
    resolutions: grids to keep, as capture_attention takes them; None keeps the one that is calibrated,
        config.map_resolution.

    The maps are those of the guided prompt, not of the empty one beside it. Raises UserError as generate does, and if
    there is no such position or grid.
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
    """What the words of a prompt look at in a given picture: it is noised to some levels, and each is denoised by one
    step.

    This is what training sees, and it shows the same picture before and after training. mean_maps of the record is the
    mean over the noise levels.

    image: cut to its centre square. seed: of the noise; the same seed gives the same noise for each model.
    times: noise levels, as timesteps of the model's schedule; in the middle ones objects take shape. Others as for
        record_maps.

    Raises UserError if a timestep is not in the schedule, and as record_maps does.
    """
    check_text_to_image(pipe)
    check_prompt(pipe.tokenizer, prompt)
    words, positions = _chosen_words(pipe.tokenizer, prompt, positions)
    noiser = make_noiser(pipe)
    last = noiser.config.num_train_timesteps - 1
    if not times or not all(0 <= time <= last for time in times):
        raise UserError(
            f"The times {tuple(times)} must be timesteps of the model's schedule: choose some from 0 to {last}."
        )
    picture = centre_square(to_rgb(image), config.resolution)
    generator = torch.Generator("cpu").manual_seed(config.seed if seed is None else seed)
    seen = Sample(to_tensor(picture), torch.ones(1, 1, 1), prompt, is_concept=True)  # its loss mask plays no part here
    latents = LatentEncoder(pipe).batch([seen], generator).latents  # (1, C, h, w)
    noise = torch.randn((len(times), *latents.shape[1:]), generator=generator).to(latents)  # (steps, C, h, w)
    steps = torch.tensor(times, device=latents.device)  # (steps,)
    noisy = noiser.add_noise(latents.expand_as(noise), noise, steps).to(pipe.unet.dtype)
    with ExitStack() as stack:
        stack.enter_context(as_held(pipe))
        text, _ = pipe.encode_prompt([prompt] * len(times), latents.device, 1, False)  # (steps, T, dim)
        stores = [stack.enter_context(capture) for capture in _captures(pipe, config, positions, resolutions)]
        pipe.unet(noisy, steps, text)
    maps = [_stacked(store, lambda calls: calls[0]) for store in stores]
    return _record(prompt, words, positions, concepts, times, picture, stores, maps)


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
        raise UserError(
            f"No cross-attention layer has the grid {grid_name(store.grid)}: choose among {seen} as resolutions."
        )
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
