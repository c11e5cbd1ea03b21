"""Where the words of each concept look in the reference picture: do its modifier and its class agree, and
do they cover their thing?

Maps of concepts are stacked as (2N, h, w), for each concept its modifier and then its class: <new1>, cat, <new2>, dog.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import StableDiffusionPipeline

from disendiff_lite.attention import concept_maps
from disendiff_lite.attention_record import AttentionRecord, grid_name, layer_label, mean_maps
from disendiff_lite.config import Config
from disendiff_lite.evaluate.maps import enlarge, map_hits, map_iou, map_leak
from disendiff_lite.evaluate.score import Score
from disendiff_lite.losses import calibration_loss
from disendiff_lite.models import load_pipeline
from disendiff_lite.recording import maps_on_picture
from disendiff_lite.runs.references import Reference
from disendiff_lite.tokens import ConceptPositions, add_modifiers, compose_prompt, find_positions

KINDS = ("modifier", "class")  # the tracked words of each concept, in the order of their maps


@dataclass(frozen=True, eq=False)  # arrays have no single answer to ==
class ReferenceRecord:
    """A reference picture, and what the words of its training caption look at in it."""

    reference: Reference
    record: AttentionRecord


@dataclass(frozen=True, eq=False)
class WordMaps:
    """Maps of words of one kind, with the masks that they should and should not cover.

    maps: (N, h, w), probabilities. own: bool (N, H, W), the thing that the word stands for. other:
        the other things, all in one.
    """

    maps: np.ndarray
    own: np.ndarray
    other: np.ndarray


def record_reference(
    pipe: StableDiffusionPipeline, reference: Reference, config: Config, seed: int | None = None, **choice
) -> AttentionRecord:
    """What the words of the training caption look at in the reference picture, noised to several levels.

    pipe: it knows the modifiers (tokens.add_modifiers, a run, or one that is being trained). seed: of the noise; None
    takes the config's. choice: `times` and `resolutions`, as maps_on_picture takes them. Raises UserError as it does.
    """
    modifiers = config.modifiers[: len(reference.classes)]
    prompt = compose_prompt(reference.classes, config.modifiers, config.template)
    concepts = find_positions(pipe.tokenizer, prompt, modifiers, reference.classes)
    return maps_on_picture(pipe, reference.picture, prompt, config=config, seed=seed, concepts=concepts, **choice)


def record_untrained(model: str, reference: Reference, config: Config, seed: int | None = None) -> AttentionRecord:
    """record_reference of a freshly loaded model to which the new words still mean nothing. model:
    as load_pipeline takes it.
    """
    pipe = load_pipeline(model)
    add_modifiers(pipe, config.modifiers[: len(reference.classes)], config.initial_tokens)
    return record_reference(pipe, reference, config, seed)


def record_references(
    pipe: StableDiffusionPipeline,
    references: Sequence[Reference],
    config: Config,
    *,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
    **choice,
) -> list[ReferenceRecord]:
    """record_reference of several pictures. progress: called with how many are done and how many there are."""
    records = []
    for number, reference in enumerate(references, start=1):
        records.append(ReferenceRecord(reference, record_reference(pipe, reference, config, seed, **choice)))
        if progress is not None:
            progress(number, len(references))
    return records


def tracked_words(record: AttentionRecord) -> list[str]:
    """The tracked words, 2N: each concept's modifier and its class, a class of several tokens as one word."""
    places = [tokens for modifier, class_ in record.concepts for tokens in ((modifier,), class_)]
    labels = [[record.words[place].partition(" ") for place in tokens] for tokens in places]
    # A letter of several tokens has a label for each, "猫 1/3", "猫 2/3": it is named once.
    return ["".join(word for word, _, part in pieces if not part or part.startswith("1/")) for pieces in labels]


def tracked_maps(record: AttentionRecord, resolution: int | tuple[int, int] | None = None, **choice: int) -> np.ndarray:
    """The maps of the tracked words, (2N, h, w) in [0, 1], as the loss takes them.

    resolution, and in `choice` step, layer or head in place of the mean over all: as
    attention_record.mean_maps takes them.
    """
    concepts = [ConceptPositions(*places) for places in record.concepts]
    maps = torch.from_numpy(mean_maps(record, resolution, **choice))  # (tokens, h, w)
    return torch.stack(concept_maps(maps, concepts), dim=1).flatten(0, 1).numpy()


def calibration_terms(maps: np.ndarray, suppress: bool = True) -> dict[str, float]:
    """L_bind and L_s&s of maps (2N, h, w), by name: the same yardstick for every run, whatever it was trained with."""
    modifiers, classes = torch.from_numpy(maps[0::2]), torch.from_numpy(maps[1::2])  # (N, h, w) each
    return {name: term.item() for name, term in calibration_loss(modifiers, classes, suppress=suppress).items()}


def map_agreement(maps: np.ndarray, masks: np.ndarray) -> dict[str, Score]:
    """How well the maps of concepts agree with the true masks, one value a map.

    maps: (2N, h, w). masks: (N, H, W), true on the concept's thing.

    Returns by name: "modifier IoU" and "class IoU" with the own mask, "peak hits" of both, and "modifier on other",
    "class on other", the share of the attention that lies on another concept's thing. Raises UserError as the
    functions of evaluate.maps do.
    """
    masks = np.asarray(masks, dtype=bool)
    others = other_masks(masks)
    modifiers, classes = maps[0::2], maps[1::2]  # (N, h, w) each
    return {
        "modifier IoU": map_iou(modifiers, masks),
        "class IoU": map_iou(classes, masks),
        "peak hits": map_hits(maps, np.repeat(masks, 2, axis=0)),
        "modifier on other": map_leak(modifiers, masks, others),
        "class on other": map_leak(classes, masks, others),
    }


def other_masks(masks: np.ndarray) -> np.ndarray:
    """For each thing where the other ones are, all in one: bool (N, H, W) of masks (N, H, W)."""
    return np.stack([np.delete(masks, index, axis=0).any(axis=0) for index in range(len(masks))])


def word_maps(records: Sequence[ReferenceRecord], kind: str, resolution: int | tuple[int, int]) -> WordMaps:
    """All modifiers or all classes of the pictures, each map the mean over noise levels, layers and heads of one grid.

    kind: one of KINDS.
    """
    maps = [tracked_maps(each.record, resolution)[KINDS.index(kind) :: len(KINDS)] for each in records]
    masks = [each.reference.masks for each in records]
    return WordMaps(np.concatenate(maps), np.concatenate(masks), np.concatenate([other_masks(mask) for mask in masks]))


def class_agreement(records: Sequence[ReferenceRecord], resolution: int | tuple[int, int]) -> dict[str, np.ndarray]:
    """IoU, in the pixels of the masks, of the class words' maps of one grid: for each layer, and
    for "all layers" together.

    Each map is the mean over heads, and over the layers for "all layers". In pixels a coarse
    grid pays for its coarseness.

    Returns by layer float (steps, words), the words of all pictures in a row.
    """
    names = records[0].record.layers[grid_name(resolution)]
    choices = {layer_label(name): {"layer": index} for index, name in enumerate(names)} | {"all layers": {}}
    return {
        name: np.concatenate([_class_iou(each, resolution, choice) for each in records], axis=1)
        for name, choice in choices.items()
    }


def _class_iou(each: ReferenceRecord, resolution, choice: dict[str, int]) -> np.ndarray:
    """(steps, N)."""
    size = each.reference.masks.shape[1:]
    steps = range(len(each.record.times))
    maps = [tracked_maps(each.record, resolution, step=step, **choice)[1::2] for step in steps]  # (N, h, w) each
    return np.array([map_iou(enlarge(classes, size), each.reference.masks).values for classes in maps])
