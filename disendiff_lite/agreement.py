"""Where attention and true masks agree: what the words look at in pictures whose masks are known, by layer and noise level."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from diffusers import StableDiffusionPipeline

from disendiff_lite.config import Config
from disendiff_lite.map_scores import enlarge, map_iou
from disendiff_lite.map_view import layer_label
from disendiff_lite.recording import AttentionRecord, grid_name, maps_on_picture, mean_maps
from disendiff_lite.references import Reference
from disendiff_lite.tokens import compose_prompt, find_positions

KINDS = ("modifier", "class")  # the words of each concept, in the order in which a LookedAt keeps them


@dataclass(frozen=True, eq=False)  # arrays have no single answer to ==
class LookedAt:
    """A reference picture with the maps of its words: each concept's modifier, then its class (the first token of it)."""

    reference: Reference
    record: AttentionRecord


@dataclass(frozen=True, eq=False)
class WordMaps:
    """Maps of words of one kind, with the masks that they should and should not cover.

    maps: (N, h, w), probabilities. own: bool (N, H, W), the thing that the word stands for. other: the other things, all in one.
    """

    maps: np.ndarray
    own: np.ndarray
    other: np.ndarray


def look_at_references(
    pipe: StableDiffusionPipeline,
    references: Sequence[Reference],
    config: Config,
    *,
    seed: int,
    times: Sequence[int],
    resolutions: Sequence[int | tuple[int, int]],
    progress: Callable[[int, int], None] | None = None,
) -> list[LookedAt]:
    """Record what the words of each reference's training caption look at in it.

    pipe: with the modifiers of `config`. seed, times, resolutions: as for maps_on_picture. progress: called with how many pictures
    are done and how many there are. Raises UserError as maps_on_picture does.
    """
    looked = []
    for number, reference in enumerate(references, start=1):
        prompt = compose_prompt(reference.classes, config.modifiers, config.template)
        concepts = find_positions(pipe.tokenizer, prompt, config.modifiers, reference.classes)
        positions = [position for concept in concepts for position in (concept.modifier, concept.class_[0])]
        record = maps_on_picture(
            pipe, reference.picture, prompt, config=config, seed=seed, times=times,
            positions=positions, concepts=concepts, resolutions=resolutions,
        )  # fmt: skip
        looked.append(LookedAt(reference, record))
        if progress is not None:
            progress(number, len(references))
    return looked


def word_maps(looked: Sequence[LookedAt], kind: str, resolution: int | tuple[int, int]) -> WordMaps:
    """All modifiers or all classes of the pictures, each map the mean over noise levels, layers and heads of one grid.

    kind: one of KINDS.
    """
    maps = [mean_maps(found.record, resolution)[KINDS.index(kind) :: len(KINDS)] for found in looked]
    masks = [found.reference.masks for found in looked]
    others = [np.stack([np.delete(mask, index, axis=0).any(axis=0) for index in range(len(mask))]) for mask in masks]
    return WordMaps(np.concatenate(maps), np.concatenate(masks), np.concatenate(others))


def class_agreement(looked: Sequence[LookedAt], resolution: int | tuple[int, int]) -> dict[str, np.ndarray]:
    """IoU, in the pixels of the masks, of the class words' maps of one grid: for each layer, and for "all layers" together.

    Each map is the mean over heads, and over the layers for "all layers". In pixels a coarse grid pays for its coarseness.

    Returns by layer float (steps, words), the words of all pictures in a row.
    """
    layers = looked[0].record.layers[grid_name(resolution)]
    chosen = {layer_label(name): [index] for index, name in enumerate(layers)} | {"all layers": range(len(layers))}
    return {name: np.concatenate([_iou(found, resolution, index) for found in looked], axis=1) for name, index in chosen.items()}


def _iou(found: LookedAt, resolution, layers: Sequence[int]) -> np.ndarray:
    maps = found.record.maps[grid_name(resolution)]  # (steps, layers, heads, tokens, h, w)
    maps = maps[:, list(layers), :, KINDS.index("class") :: len(KINDS)].mean(axis=(1, 2), dtype=np.float32)  # (steps, N, h, w)
    steps, words = maps.shape[:2]
    masks = np.tile(found.reference.masks, (steps, 1, 1))  # (steps * N, H, W)
    large = enlarge(maps.reshape(steps * words, *maps.shape[2:]), masks.shape[1:])
    return np.array(map_iou(large, masks).values).reshape(steps, words)
