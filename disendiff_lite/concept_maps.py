"""Where the words of each concept look in the reference picture: its modifier and its class, and whether they agree.

Maps of concepts are stacked as (2N, h, w), for each concept its modifier and then its class: <new1>, cat, <new2>, dog.
"""

import numpy as np
import torch
from diffusers import StableDiffusionPipeline

from disendiff_lite.config import Config
from disendiff_lite.losses import calibration_loss
from disendiff_lite.map_scores import map_hits, map_iou, map_leak
from disendiff_lite.models import load_pipeline
from disendiff_lite.recording import AttentionRecord, maps_on_picture, mean_maps
from disendiff_lite.references import Reference
from disendiff_lite.scores import Score
from disendiff_lite.tokens import add_modifiers, compose_prompt, find_positions


def record_reference(
    pipe: StableDiffusionPipeline, reference: Reference, config: Config, seed: int | None = None
) -> AttentionRecord:
    """What the words of the training caption look at in the reference picture, noised to several levels.

    pipe: it knows the modifiers (tokens.add_modifiers, a run, or one that is being trained). seed: of the noise; None takes the
    config's. Raises UserError as recording.maps_on_picture does.
    """
    modifiers = config.modifiers[: len(reference.classes)]
    prompt = compose_prompt(reference.classes, config.modifiers, config.template)
    concepts = find_positions(pipe.tokenizer, prompt, modifiers, reference.classes)
    return maps_on_picture(pipe, reference.picture, prompt, config=config, seed=seed, concepts=concepts)


def record_untrained(model: str, reference: Reference, config: Config, seed: int | None = None) -> AttentionRecord:
    """record_reference of a freshly loaded model to which the new words still mean nothing. model: as load_pipeline takes it."""
    pipe = load_pipeline(model)
    add_modifiers(pipe, config.modifiers[: len(reference.classes)], config.initial_tokens)
    return record_reference(pipe, reference, config, seed)


def concept_words(record: AttentionRecord) -> list[str]:
    """The tracked words, 2N: each concept's modifier and its class, a class of several tokens as one word."""
    return ["".join(record.words[token] for token in tokens) for tokens in _tracked(record)]


def concept_maps(record: AttentionRecord, **choice: int) -> np.ndarray:
    """The maps of the tracked words, (2N, h, w) in [0, 1]; a class of several tokens has their mean, as in the loss.

    choice: `step`, `layer` or `head` in place of the mean over all, as recording.mean_maps takes them.
    """
    maps = mean_maps(record, **choice)  # (tokens, h, w)
    return np.stack([maps[tokens].mean(axis=0) for tokens in _tracked(record)])


def calibration_terms(maps: np.ndarray, suppress: bool = True) -> dict[str, float]:
    """L_bind and L_s&s of maps (2N, h, w), by name: the same yardstick for every run, whatever it was trained with."""
    modifiers, classes = torch.from_numpy(maps[0::2]), torch.from_numpy(maps[1::2])  # (N, h, w) each
    return {name: term.item() for name, term in calibration_loss(modifiers, classes, suppress=suppress).items()}


def map_agreement(maps: np.ndarray, masks: np.ndarray) -> dict[str, Score]:
    """How well the maps of concepts agree with the true masks, one value a map.

    maps: (2N, h, w). masks: (N, H, W), true on the concept's thing.

    Returns by name: "modifier IoU" and "class IoU" with the own mask, "peak hits" of both, and "modifier on other", "class on
    other", the share of the attention that lies on another concept's thing. Raises UserError as the functions of map_scores do.
    """
    masks = np.asarray(masks, dtype=bool)
    others = np.stack([np.delete(masks, index, axis=0).any(axis=0) for index in range(len(masks))])  # (N, H, W)
    modifiers, classes = maps[0::2], maps[1::2]  # (N, h, w) each
    return {
        "modifier IoU": map_iou(modifiers, masks),
        "class IoU": map_iou(classes, masks),
        "peak hits": map_hits(maps, np.repeat(masks, 2, axis=0)),
        "modifier on other": map_leak(modifiers, masks, others),
        "class on other": map_leak(classes, masks, others),
    }


def _tracked(record: AttentionRecord) -> list[list[int]]:
    """Indices among the record's words: each modifier alone, then the tokens of its class, which the caption puts after it."""
    found = []
    for index, role in enumerate(record.roles):
        if role == "modifier":
            found += [[index], []]
        elif role == "class":
            found[-1].append(index)
    return found
