"""What a training step costs, in seconds and memory: plain, calibrated, and as earlier tools make it.

    plain         Custom Diffusion's step, on latents that are kept
    calibrated    the same with the attention calibration: maps of the concepts' tokens, at one grid alone
    full maps     the same calibration, but every attention layer forms its whole probabilities, and all are stored
    anew          the plain step as the stock script of Custom Diffusion has it: the pictures are encoded in every step

All captions name the concepts, so that the calibration is part of every step; in a real training a share of the
samples are pictures of the plain classes, which cost less.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from statistics import median

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from diffusers.models.attention_processor import AttnProcessor
from PIL import Image

from disendiff_lite.attention import AttentionStore, average_maps
from disendiff_lite.config import Config
from disendiff_lite.data import Batch, LatentEncoder, TrainingData
from disendiff_lite.evaluate.peak_memory import peak_memory
from disendiff_lite.precision import make_scaler
from disendiff_lite.sampling import make_noiser
from disendiff_lite.support.modules import Watched
from disendiff_lite.tokens import add_modifiers, compose_prompt, find_positions
from disendiff_lite.trainable import Trainable, set_learning_rates, training
from disendiff_lite.training import batch_calibration, training_losses

CLASSES = ("cat", "dog")
PLAIN, CALIBRATED, FULL, ANEW = "plain", "calibrated", "full maps", "anew"
WARM_UP = 1  # rounds that are not counted: the first step makes the optimiser's state, and libraries choose kernels


@dataclass
class Cost:
    """Of one kind of step. seconds: of each round. peak: bytes, None where it cannot be measured. fits: into memory."""

    seconds: list[float] = field(default_factory=list)
    peak: int | None = None
    fits: bool = True

    @property
    def middle(self) -> float:
        """The median of the seconds."""
        return median(self.seconds)


def measure_steps(
    pipe: StableDiffusionPipeline, config: Config, rounds: int, progress: Callable[[int, int], None] | None = None
) -> dict[str, Cost]:
    """Time each kind of step `rounds` times, in turn, and then measure its peak memory.

    pipe: not yet personalised; it gets new words and its weights are trained. config: gives what is measured; the
    picture is not scaled at random. progress: called with rounds made and rounds to make.

    Returns the costs by the kind of step. A kind that does not fit into the device's memory is left out of later
    rounds. Raises UserError if this model cannot be trained with these settings.
    """
    config = replace(config, augment=False, prior_probability=0.0)
    token_ids = add_modifiers(pipe, config.modifiers[: len(CLASSES)], config.initial_tokens)
    with training(pipe, config, token_ids) as trainable:
        model = _Steps(pipe, config, trainable)
        steps = model.kinds()
        costs = {name: Cost() for name in steps}
        for number in range(WARM_UP + rounds):
            turn = number % len(steps)  # so that each kind comes once after each other one
            for name in [*steps, *steps][turn : turn + len(steps)]:
                if costs[name].fits:
                    seconds = _timed(steps[name], pipe.device)
                    costs[name].fits = seconds is not None
                    if costs[name].fits and number >= WARM_UP:
                        costs[name].seconds.append(seconds)
            if progress is not None:
                progress(number + 1, WARM_UP + rounds)
        for name, step in steps.items():
            if costs[name].fits:
                costs[name].peak = peak_memory(step, pipe.device, model.standing())
    return costs


def ratio(costs: Mapping[str, Cost], name: str, base: str = PLAIN) -> float:
    """How many times as long as the `base` kind a kind takes: the median of the rounds' ratios; nan if one lacks."""
    pairs = list(zip(costs[name].seconds, costs[base].seconds))
    return median(one / other for one, other in pairs) if pairs else float("nan")


class _Steps:
    """One model with all that its training steps need."""

    def __init__(self, pipe: StableDiffusionPipeline, config: Config, trainable: Trainable):
        self.pipe, self.config, self.trainable = pipe, config, trainable
        self.plain = replace(config, calibration_weight=0.0)
        modifiers = config.modifiers[: len(CLASSES)]
        self.caption = compose_prompt(CLASSES, modifiers, config.template)
        self.positions = {self.caption: find_positions(pipe.tokenizer, self.caption, modifiers, CLASSES)}
        noise = np.random.default_rng(0).integers(0, 256, (config.resolution, config.resolution, 3), dtype=np.uint8)
        self.data = TrainingData(Image.fromarray(noise), self.caption, None, config, pipe.vae_scale_factor)
        self.encoder, self.noiser = LatentEncoder(pipe, torch.float32), make_noiser(pipe)
        self.generator = torch.Generator("cpu").manual_seed(config.seed)
        self.optimizer = trainable.optimizer(config)
        set_learning_rates(self.optimizer, config, step=1)
        self.scaler = make_scaler(config.precision, pipe.device)

    def kinds(self) -> dict[str, Callable[[], None]]:
        plain, calibrated = (partial(self._losses, config=config) for config in (self.plain, self.config))
        return {
            PLAIN: partial(self._step, self._kept, plain),
            CALIBRATED: partial(self._step, self._kept, calibrated),
            FULL: self._step_with_full_maps,
            ANEW: partial(self._step, self._anew, plain),
        }

    def standing(self) -> int:
        """Bytes of all weights, and of what the optimiser keeps of those that train."""
        parts = (self.pipe.unet, self.pipe.vae, self.pipe.text_encoder)
        tensors = [tensor for part in parts for tensor in (*part.parameters(), *part.buffers())]
        moments = [value for state in self.optimizer.state.values() for value in state.values()]
        return sum(tensor.nbytes for tensor in (*tensors, *moments))

    def _step(self, batch: Callable[[], Batch], losses: Callable[[Batch], dict[str, torch.Tensor]]) -> None:
        try:
            self.scaler.scale(losses(batch())["total"]).backward()
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.trainable.write_back()
        finally:  # also when the memory was too small
            self.optimizer.zero_grad(set_to_none=True)

    def _kept(self) -> Batch:
        samples = [self.data.draw(self.generator) for _ in range(self.config.batch_size)]
        return self.encoder.batch(samples, self.generator)

    @torch.no_grad()
    def _anew(self) -> Batch:
        """All pictures encoded at once, as the stock script does it."""
        samples = [self.data.draw(self.generator) for _ in range(self.config.batch_size)]
        vae = self.pipe.vae
        pixels = torch.stack([sample.pixels for sample in samples]).to(vae.device, vae.dtype)  # (B, 3, h, w)
        given = vae.encode(pixels).latent_dist
        noise = torch.randn(given.mean.shape, generator=self.generator).to(given.mean)
        return Batch(
            (given.mean + given.std * noise).float() * vae.config.scaling_factor,
            torch.stack([sample.mask for sample in samples]).to(vae.device),
            [sample.caption for sample in samples],
            [sample.is_concept for sample in samples],
            [sample.objects for sample in samples],
        )

    def _losses(self, batch: Batch, config: Config) -> dict[str, torch.Tensor]:
        return training_losses(self.pipe, self.noiser, batch, self.positions, config, self.generator)

    def _step_with_full_maps(self) -> None:
        with full_maps(self.pipe.unet) as maps:  # until the gradient is taken: with checkpointing layers run again then
            self._step(self._kept, partial(self._losses_of_maps, maps))

    def _losses_of_maps(self, maps: Mapping[str, torch.Tensor], batch: Batch) -> dict[str, torch.Tensor]:
        config, side = self.config, self.config.map_resolution
        losses = self._losses(batch, self.plain)
        wanted = {name: [one] for name, one in maps.items() if ".attn2." in name and one.shape[2] == side**2}
        mean = average_maps(AttentionStore((side, side), maps=wanted))  # (B, T, h, w)
        terms = batch_calibration(mean.float(), batch, self.positions, config)
        weighted = config.bind_weight * terms["bind"] + config.separate_weight * terms["separate"]
        return {"total": losses["total"] + config.calibration_weight * weighted}


@contextmanager
def full_maps(unet) -> Iterator[dict[str, torch.Tensor]]:
    """While the `with` block runs, each attention layer forms its whole probabilities, and the last ones are kept.

    Yields them by the processors' names, (B, H, Q, T) with gradient; T is as large as Q in self-attention.
    """
    maps, before = {}, unet.attn_processors
    unet.set_attn_processor({name: _Keeping(maps, name) for name in before})
    try:
        yield maps
    finally:
        unet.set_attn_processor(before)


class _Keeping(AttnProcessor):
    def __init__(self, maps: dict[str, torch.Tensor], name: str):
        self.maps, self.name = maps, name

    def __call__(self, attn, hidden_states: torch.Tensor, *args, **kwargs) -> torch.Tensor:
        layer = Watched(attn, ("get_attention_scores",))
        output = super().__call__(layer, hidden_states, *args, **kwargs)
        self.maps[self.name] = layer.returned["get_attention_scores"].unflatten(0, (-1, attn.heads))
        return output


def _timed(step: Callable[[], None], device: torch.device) -> float | None:
    """Seconds of a step with all that it started on the device; None if it does not fit into its memory."""
    _finish(device)
    began = time.perf_counter()
    try:
        step()
        _finish(device)
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        return None
    return time.perf_counter() - began


def _finish(device: torch.device) -> None:
    if device.type in ("cuda", "mps"):
        getattr(torch, device.type).synchronize()
