"""Train the embedded model's UNet and text encoder together on cached latents.

The loss is the usual noise prediction, plus the *grounding* term of grounding.py.
"""

import csv
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from torch.nn import functional as F

from disendiff_lite.emoji_world.train.checkpoints import load_state, save_state
from disendiff_lite.emoji_world.train.grounding import grounded_predictor, grounding_loss, maps_at
from disendiff_lite.emoji_world.train.rare_words import RARE_WORD, UsedRows, insert_before
from disendiff_lite.emoji_world.train.training_data import TrainingSet
from disendiff_lite.single_file import stable_diffusion_scheduler
from disendiff_lite.support.errors import UserError, check_name

CHECKPOINT_EVERY = 250  # steps
PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class UnetTraining:
    """The settings of one run. Raises UserError for a batch that makes no step or an unknown precision."""

    images: int = 150_000  # training images in all, repeats counted; 0 leaves the UNet as it is
    batch: int = 12  # small on purpose: where images are scarce, many small steps learn more
    learning_rate: float = 6e-4
    warmup: int = 300  # steps
    ema: float = 0.999
    caption_dropout: float = 0.1  # for classifier-free guidance
    rare_word: float = 0.1  # share of steps in which an unknown word stands before the class words, to be ignored
    grounding: float = 0.03  # weight of the grounding term; with 0 the words learn where to look from captions alone
    frozen_text: bool = False  # leave the text encoder as it is, as Stable Diffusion does
    object_weight: float = 2.0  # of the noise error on objects, relative to the smooth background
    snr_cap: float = 5.0  # min-SNR: errors at lower noise than this signal-to-noise ratio count less
    noise_balance: float = 0.3  # weight SNR^-this above that noise: small errors, but there the caption decides
    precision: str = "float32"  # one of PRECISIONS, in which the networks compute; the weights stay float32
    seed: int = 0

    def __post_init__(self):
        check_name(self.precision, PRECISIONS, "precision")
        if self.batch < 1 or 0 < self.images < self.batch:
            batch = f"A batch of {self.batch} of {self.images} images"
            raise UserError(f"{batch} makes no step: choose from 1 to {self.images}.")


def level_weights(signal: torch.Tensor, cap: float, balance: float) -> torch.Tensor:
    """Weights of the noise error at each timestep, of mean 1: SNR^-balance up to an SNR of `cap`, above it as 1 / SNR.

    signal: (timesteps,), the share of signal; ratios below 0.02, nearly pure noise, count as 0.02. With balance 0 these
    are min-SNR's weights (Hang et al. 2023).
    """
    ratio = signal / (1 - signal)
    weights = ratio.clamp(0.02, cap) ** -balance * (cap / ratio).clamp_max(1.0)  # (timesteps,)
    return weights / weights.mean()


@torch.no_grad()
def validate(predict: Callable, text_encoder, data: TrainingSet, signal: torch.Tensor) -> dict[str, float]:
    """Noise error on unseen scenes at three noise levels, what a wrong caption adds to it, and `map_peak`: how often a
    class word's map peaks on its object (at t = 500).
    """
    device = signal.device
    noise = torch.randn(data.latents.shape, generator=torch.Generator().manual_seed(0)).to(device)
    clean, masks = data.latents.float().to(device), data.masks.float().to(device) / 255
    text = text_encoder(data.ids.to(device))[0]
    row = {}
    for level in (200, 500, 800):
        t = torch.full((len(clean),), level, device=device)
        noisy = signal[level].sqrt() * clean + (1 - signal[level]).sqrt() * noise
        right, maps = predict(noisy, t, text)
        wrong, _ = predict(noisy, t, text.roll(1, dims=0))  # each picture with the caption of the one before it
        row[f"error_{level}"] = F.mse_loss(right, noise).item()
        row[f"wrong_caption_{level}"] = F.mse_loss(wrong, noise).item() / row[f"error_{level}"] - 1
        if level == 500:
            positions = data.positions.to(device)
            peaks = maps_at(maps, positions).flatten(2).argmax(dim=2, keepdim=True)  # (B, 3, 1)
            on_object = masks.flatten(2).gather(2, peaks)[..., 0] > 0.5
            row["map_peak"] = on_object[positions > 0].float().mean().item()
    return row


def train_unet(
    pipe: StableDiffusionPipeline,
    data: TrainingSet,
    unseen: TrainingSet,
    work: Path,
    settings: UnetTraining,
    *,
    device: str,
    every: int = 1000,
    on_progress: Callable[[StableDiffusionPipeline, int], None],
) -> None:
    """Train `pipe`'s UNet and text encoder in place up to `settings.images`, resuming from `work`, to their EMA.

    Each CHECKPOINT_EVERY steps a checkpoint is written; each `every` steps a line is printed and appended to
    `work/training.csv`, and `on_progress(pipe, step)` is called with the EMA weights in the pipeline.
    """
    torch.manual_seed(settings.seed)
    signal = stable_diffusion_scheduler().alphas_cumprod.to(device)  # (1000,), the share of signal at each step
    tokenizer, unet, text_encoder = pipe.tokenizer, pipe.unet.to(device), pipe.text_encoder.to(device)
    empty_ids = tokenizer([""], padding="max_length", return_tensors="pt").input_ids  # (1, 77)
    rows = UsedRows(text_encoder, torch.cat([data.ids, empty_ids]), tokenizer.convert_tokens_to_ids(RARE_WORD))
    text_encoder.to(device)
    empty = rows.compact[empty_ids[0]]
    data_ids = rows.compact[data.ids]
    unseen = TrainingSet(unseen.latents, rows.compact[unseen.ids], unseen.masks, unseen.positions)
    text_encoder.requires_grad_(not settings.frozen_text)
    parts = {"unet": unet} if settings.frozen_text else {"unet": unet, "text": text_encoder}
    trained = torch.nn.ModuleDict(parts).train().requires_grad_(True)
    copies = (torch.nn.Parameter(p.detach().clone(), requires_grad=False) for p in trained.parameters())
    ema = torch.nn.ParameterList(copies)
    optimiser = torch.optim.AdamW(
        trained.parameters(), settings.learning_rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True
    )
    first = load_state(work / "unet.safetensors", {"model": trained, "ema": ema}, optimiser)
    predict, capture = grounded_predictor(unet)
    grounded = settings.grounding > 0 or not signal.is_cuda  # on a CPU the maps are free: fused attention is slower
    capture(grounded)
    # Used with one shape and mode only: each other one would cost minutes of compiling, more than it gains on a GPU.
    fast_predict = predict if signal.is_cuda else torch.compile(predict)
    level_weight_of = level_weights(signal, settings.snr_cap, settings.noise_balance)
    steps = settings.images // settings.batch
    started = time.perf_counter()
    averages = torch.zeros(2, device=device)
    for step in range(first, steps):
        rng = np.random.default_rng([settings.seed, step])
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        warm = min(1.0, (step + 1) / settings.warmup)
        fall = 0.03 + 0.97 * float(np.cos(np.pi / 2 * step / steps)) ** 2
        optimiser.param_groups[0]["lr"] = settings.learning_rate * warm * fall
        chosen = torch.from_numpy(rng.integers(len(data.latents), size=settings.batch))
        ids, positions = data_ids[chosen], data.positions[chosen]
        if rng.random() < settings.rare_word:
            rows.new_rare_word(generator)
            ids, positions = insert_before(ids, positions, rows.rare)
        dropped = torch.from_numpy(rng.random(settings.batch) < settings.caption_dropout)
        ids = torch.where(dropped[:, None], empty, ids).to(device)
        clean = data.latents[chosen].float().to(device, memory_format=torch.channels_last)
        masks = data.masks[chosen].float().to(device) / 255  # (B, 3, 16, 16)
        # One noise level from each of B equal slices of [0, 1000): less variance than B independent draws.
        t = torch.from_numpy((np.arange(settings.batch) + rng.random()) / settings.batch * 1000).long().to(device)
        noise = torch.randn(clean.shape, generator=generator).to(device, memory_format=torch.channels_last)
        share = signal[t][:, None, None, None]
        with torch.autocast(clean.device.type, torch.bfloat16, enabled=settings.precision == "bfloat16"):
            predicted, maps = fast_predict(share.sqrt() * clean + (1 - share).sqrt() * noise, t, text_encoder(ids)[0])
        predicted = predicted.float()
        level_weight = level_weight_of[t][:, None, None, None]
        place_weight = 1 + (settings.object_weight - 1) * masks.sum(dim=1, keepdim=True).clamp_max(1)  # (B, 1, 16, 16)
        weights = (level_weight * place_weight / place_weight.mean()).expand_as(noise)
        error = (weights * (predicted - noise).square()).mean()
        grounding = error.new_zeros(())
        if grounded:
            class_maps = maps_at(maps.float(), positions.to(device))  # (B, 3, h, w)
            grounding = grounding_loss(class_maps, masks * (~dropped).to(device)[:, None, None, None])
        optimiser.zero_grad()
        (error + settings.grounding * grounding).backward()
        torch.nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
        optimiser.step()
        decay = min(settings.ema, (step + 1) / (step + 20))
        torch._foreach_lerp_(list(ema), [p.detach() for p in trained.parameters()], 1 - decay)
        averages = averages.lerp(torch.stack([error.detach(), grounding.detach()]), 1 / min(step - first + 1, 200))
        if (step + 1) % 100 == 0 or step == steps - 1:
            rate = (step + 1 - first) * settings.batch / (time.perf_counter() - started)
            eta = (steps - step - 1) * settings.batch / rate / 60
            print(
                f"unet step {step + 1}/{steps}  error {averages[0]:.4f}  grounding {averages[1]:.3f}  "
                f"{rate:.1f} images/s  ETA {eta:.0f} min",
                flush=True,
            )
        if (step + 1) % CHECKPOINT_EVERY == 0 or step == steps - 1:
            save_state(work / "unet.safetensors", {"model": trained, "ema": ema}, optimiser, step + 1)
        if (step + 1) % every == 0 or step == steps - 1:
            with _holding(trained, ema):
                means = {"error": averages[0].item(), "grounding": averages[1].item()}
                row = {"images": (step + 1) * settings.batch, **means}
                capture(True)
                row |= validate(predict, text_encoder, unseen, signal)
                print("  ".join(f"{key} {value:.3f}" for key, value in row.items()), flush=True)
                _append_row(work / "training.csv", row)
                rows.restore()
                capture(False)
                on_progress(pipe, step + 1)
                rows.install()
                capture(grounded)
    with torch.no_grad():
        for parameter, average in zip(trained.parameters(), ema, strict=True):
            parameter.copy_(average)
    rows.restore()
    capture(False)


@contextmanager
def _holding(model: torch.nn.Module, values: torch.nn.ParameterList) -> Iterator[None]:
    """Inside the block, the model has these parameters (the EMA's) instead of its own, and is in evaluation mode."""
    own = [parameter.detach().clone() for parameter in model.parameters()]
    with torch.no_grad():
        torch._foreach_copy_(list(model.parameters()), list(values))
        model.eval()
        yield
        model.train()
        torch._foreach_copy_(list(model.parameters()), own)


def _append_row(path: Path, row: dict[str, float]) -> None:
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, row)
        if new:
            writer.writeheader()
        writer.writerow({key: f"{value:.5g}" for key, value in row.items()})
