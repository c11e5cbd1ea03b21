"""The training step and the loop: fine-tune a pipeline so that `<new1> cat` comes to mean this cat. No files here.

    loss = |predicted noise - noise|^2 + lambda (L_bind + L_s&s)

The methods and ablations are settings (`Config`): disendiff is custom_diffusion with the attention calibration on top.
`runs.train` puts this loop into a run's folder, with checkpoints.
"""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline

from disendiff_lite.attention import average_maps, capture_attention, concept_maps
from disendiff_lite.config import Config
from disendiff_lite.data import Batch, LatentEncoder, TrainingData
from disendiff_lite.losses import calibration_loss
from disendiff_lite.precision import computing
from disendiff_lite.sampling import make_noiser
from disendiff_lite.scales import average_scales, feature_grids
from disendiff_lite.support.errors import UserError
from disendiff_lite.support.memory import enough_memory
from disendiff_lite.tokens import ConceptPositions
from disendiff_lite.trainable import Trainable, set_learning_rates


@dataclass(frozen=True)
class StepRecord:
    """One optimiser step, its losses being means over its micro-batches.

    step: from 1. reconstruction: squared error of the predicted noise. bind, separate: the terms of the calibration,
    not yet weighted; nan in a step that had no concept picture, or without calibration. total: what was minimised.
    learning_rate: of the UNet's weights, or of the embeddings where only they train. seconds: that the step took.
    skipped: 1 if the gradients overflowed in float16 and so nothing was changed, else 0.
    """

    step: int
    reconstruction: float
    bind: float
    separate: float
    total: float
    learning_rate: float
    seconds: float
    skipped: int = 0


def training_steps(
    pipe: StableDiffusionPipeline,
    data: TrainingData,
    positions: Mapping[str, Sequence[ConceptPositions]],
    optimizer: torch.optim.Optimizer,
    trainable: Trainable,
    config: Config,
    generator: torch.Generator,
    scaler: torch.amp.GradScaler,
    done: int = 0,
) -> Iterator[StepRecord]:
    """Train inside trainable.training; yields one record a step, when the pipeline is as that step left it.

    positions: of the concepts, for each caption that the concept picture can have. generator: on the CPU; every random
    number of the training comes from it. scaler: from precision.make_scaler. done: steps that were made before.

    Raises UserError if the loss is no longer a number, the gradients overflow whatever the scale, or the memory is too
    small.
    """
    encoder, noiser = LatentEncoder(pipe, torch.float32), make_noiser(pipe)
    encode = TextEncoder(pipe, keeps=trainable.rows is None)
    for step in range(done + 1, config.steps + 1):
        began = time.perf_counter()
        terms, scale = [], scaler.get_scale()
        with enough_memory(_less_memory(config)):
            for _ in range(config.gradient_accumulation):
                samples = [data.draw(generator) for _ in range(config.batch_size)]
                batch = encoder.batch(samples, generator)
                terms.append(training_losses(pipe, noiser, batch, positions, config, generator, encode))
                scaler.scale(terms[-1]["total"] / config.gradient_accumulation).backward()
            set_learning_rates(optimizer, config, step)
            scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
        trainable.write_back()
        if scaler.get_scale() < 1:
            raise UserError(f"Every step overflows in float16 by step {step}: set precision to bfloat16 or float32.")
        yield _record(step, terms, optimizer, began, skipped=int(scaler.get_scale() < scale))


def training_losses(
    pipe: StableDiffusionPipeline,
    noiser: DDPMScheduler,
    batch: Batch,
    positions: Mapping[str, Sequence[ConceptPositions]],
    config: Config,
    generator: torch.Generator,
    encode: "TextEncoder | None" = None,
) -> dict[str, torch.Tensor]:
    """The losses of one micro-batch at random noise levels.

    noiser: adds the noise. positions: caption -> its concepts, for the captions of the concept picture. generator: on
        the CPU. encode: of the captions; None encodes them anew.

    Returns scalars: "reconstruction", "total" and, if the batch holds the concept picture and there is calibration,
    "bind" and "separate", not yet weighted.
    """
    noise = torch.randn(batch.latents.shape, generator=generator).to(batch.latents)
    times = torch.randint(0, noiser.config.num_train_timesteps, (len(noise),), generator=generator).to(noise.device)
    noisy = noiser.add_noise(batch.latents, noise, times)
    calibrated = config.calibrates and any(batch.is_concept)
    scales = feature_grids(pipe.unet, noisy.shape[-1]) if config.all_scales else [config.map_resolution]
    kept, places = _tracked(batch, positions)
    with ExitStack() as stack:
        captures = [capture_attention(pipe.unet, scale, tokens=kept) for scale in scales] if calibrated else []
        stores = [stack.enter_context(capture) for capture in captures]
        stack.enter_context(computing(config.precision, noise.device))
        text = (encode or TextEncoder(pipe))(batch.captions)  # (B, T, dim)
        predicted = pipe.unet(noisy, times, text).sample
    target = noise
    if noiser.config.prediction_type == "v_prediction":
        target = noiser.get_velocity(batch.latents, noise, times)
    reconstruction = reconstruction_loss(predicted.float(), target, batch.mask)
    if not calibrated:
        return {"reconstruction": reconstruction, "total": reconstruction}
    maps = average_scales(stores, config.map_resolution) if config.all_scales else average_maps(stores[0])
    terms = batch_calibration(maps, batch, places, config)
    weighted = config.bind_weight * terms["bind"] + config.separate_weight * terms["separate"]
    return {"reconstruction": reconstruction, **terms, "total": reconstruction + config.calibration_weight * weighted}


@dataclass
class TextEncoder:
    """The encodings of captions. keeps: encode each caption once, which is right where no embedding trains."""

    pipe: StableDiffusionPipeline
    keeps: bool = False
    kept: dict[str, torch.Tensor] = field(default_factory=dict)

    def __call__(self, captions: list[str]) -> torch.Tensor:
        """(B, T, dim), with gradient if embeddings train."""
        if not self.keeps:
            return self._encode(captions)
        for caption in set(captions) - set(self.kept):
            self.kept[caption] = self._encode([caption])  # (1, T, dim)
        return torch.cat([self.kept[caption] for caption in captions])

    def _encode(self, captions: list[str]) -> torch.Tensor:
        return self.pipe.encode_prompt(captions, self.pipe.unet.device, 1, False)[0]


def reconstruction_loss(predicted: torch.Tensor, target: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Squared error of a latent cell, summed over its channels as in the published code, mean
    over the cells that count.

    The sum makes it C times the usual mean over channels; lambda is meant beside this one.

    predicted, target: (B, C, h, w). mask: (B, 1, h, w), 1 where the loss counts, somewhere in
        every entry. Returns a scalar.
    """
    squares = (predicted - target).square() * mask  # (B, C, h, w)
    return (squares.sum(dim=(1, 2, 3)) / mask.sum(dim=(1, 2, 3))).mean()


def _tracked(
    batch: Batch, positions: Mapping[str, Sequence[ConceptPositions]]
) -> tuple[list[int], dict[str, list[ConceptPositions]]]:
    """The positions of all modifiers and classes of a batch, in order, and by caption the concepts' places among these.

    A map of each of the prompt's 77 tokens would cost ten times the memory.
    """
    captions = {caption for caption, concept in zip(batch.captions, batch.is_concept) if concept}
    kept = sorted({p for text in captions for each in positions[text] for p in (each.modifier, *each.class_)})
    places = {
        text: [ConceptPositions(kept.index(c.modifier), tuple(map(kept.index, c.class_))) for c in positions[text]]
        for text in captions
    }
    return kept, places


def batch_calibration(
    maps: torch.Tensor, batch: Batch, places: Mapping[str, Sequence[ConceptPositions]], config: Config
) -> dict[str, torch.Tensor]:
    """The calibration's terms, the mean over the entries whose caption holds the modifiers.

    maps: (B, K, h, w), of the kept tokens. places: by caption, of the concepts among the K.
    """
    squares = 2 if config.suppress_twice else int(config.suppress)
    terms = []
    for entry, caption in enumerate(batch.captions):
        if batch.is_concept[entry]:
            modifier_maps, class_maps = concept_maps(maps[entry], places[caption])  # (N, h, w) each
            if config.class_maps == "masks":
                class_maps = batch.objects[entry].to(class_maps)
            terms.append(calibration_loss(modifier_maps, class_maps, smooth=config.smooth, suppress=squares))
    return {name: torch.stack([term[name] for term in terms]).mean() for name in ("bind", "separate")}


def _less_memory(config: Config) -> str:
    """Which settings would save memory, those that do already left out."""
    mends = [
        "precision to float16 or bfloat16" if config.precision == "float32" else "",
        "" if config.gradient_checkpointing else "gradient_checkpointing to true",
        "batch_size to 1 with more gradient_accumulation" if config.batch_size > 1 else "",
        "trained to kv" if config.trained == "unet" else "",
    ]
    return f"set {' or '.join(filter(None, mends)) or 'a smaller resolution'}"


def _record(
    step: int, terms: list[dict], optimizer: torch.optim.Optimizer, began: float, skipped: int = 0
) -> StepRecord:
    def mean(name: str) -> float:
        values = [term[name].item() for term in terms if name in term]
        return sum(values) / len(values) if values else math.nan

    means = {name: mean(name) for name in ("reconstruction", "bind", "separate", "total")}
    if not math.isfinite(means["total"]):
        raise UserError(f"The loss is no longer a number at step {step}: choose a smaller learning_rate.")
    rate = optimizer.param_groups[0]["lr"]
    return StepRecord(step, **means, learning_rate=rate, seconds=time.perf_counter() - began, skipped=skipped)
