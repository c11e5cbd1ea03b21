"""Train the judge (evaluate/judge.py) on renderings, whose truth is known.

    python -m disendiff_lite.emoji_world.check.judge --work FOLDER

It decides whether generated pictures follow their prompts, so it never sees the measured model's text encoder.
"""

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from disendiff_lite.emoji_world.draw.dataset import MOST_THINGS
from disendiff_lite.emoji_world.draw.views import ACCESSORIES, COLOUR_WORDS, PLACES, STYLE_NAMES, Views, cached_views
from disendiff_lite.emoji_world.draw.world import classes, designs
from disendiff_lite.emoji_world.train.scorer import degrade, sight
from disendiff_lite.emoji_world.train.vae import through_autoencoder
from disendiff_lite.evaluate.judge import CELLS, LABELS, SIZE_UNIT, Judge, Labels, load_judge
from disendiff_lite.support.errors import run_main
from disendiff_lite.support.files import write_text
from disendiff_lite.support.paths import EMBEDDED_MODEL, JUDGE

BATCH, LEARNING_RATE = 32, 2e-3
# Of the individuals to learn from: the measured model mostly draws typical looks, yet any design may be asked about.
TYPICAL_SHARE = 0.5


def world_labels() -> Labels:
    """What a judge of this world has to tell apart."""
    owners = tuple(design.class_ for design in designs())
    return Labels(owners, tuple(classes()), COLOUR_WORDS, ACCESSORIES, PLACES, STYLE_NAMES)


def judge_loss(cells: torch.Tensor, picture: torch.Tensor, truth: dict[str, torch.Tensor]) -> torch.Tensor:
    """Sum of the cross-entropies of all that a judge says, and the absolute error of log2 size.

    truth: design, colour, worn int (B, 8, 8), -1 where nothing is asked; size float (B, 8, 8), nan
        likewise; place, style int (B,).
    """
    labels = world_labels()
    nothing = len(labels.designs)
    design, colour, worn, size = cells.split(labels.cell_split, dim=1)
    place, style = picture.split(labels.picture_split, dim=1)
    emphasis = torch.ones(nothing + 1)
    emphasis[nothing] = 0.3  # most cells are empty
    asked = ~truth["size"].isnan()
    size_error = F.l1_loss(size[:, 0][asked], torch.log2(truth["size"][asked] / SIZE_UNIT))
    grids = ((design, "design", emphasis), (colour, "colour", None), (worn, "worn", None))
    total = sum(F.cross_entropy(logits, truth[name], weight, ignore_index=-1) for logits, name, weight in grids)
    return total + size_error + 0.5 * (F.cross_entropy(place, truth["place"]) + F.cross_entropy(style, truth["style"]))


def coarse_owners(owners: np.ndarray) -> np.ndarray:
    """Owner maps (B, 16, 16) -> int64 (B, 8, 8): the thing that has at least two of four cells, 0 where none has."""
    fours = owners.reshape(len(owners), CELLS, 2, CELLS, 2)
    counts = [(fours == thing).sum(axis=(2, 4)) for thing in range(1, MOST_THINGS + 1)]
    counts = np.stack(counts, axis=1)  # (B, K, 8, 8)
    return np.where(counts.max(axis=1) >= 2, 1 + counts.argmax(axis=1), 0)


def ground_truth(views: Views, rows: np.ndarray, view: np.ndarray, flipped: np.ndarray) -> dict[str, torch.Tensor]:
    """What judge_loss asks for these pictures; colour is not asked of stylised ones, which hide it."""
    owners = coarse_owners(views.owners[rows, view])  # (B, 8, 8)
    owners = np.where(flipped[:, None, None], owners[:, :, ::-1], owners)
    colours = np.where(views.styles[rows, view, None] == 0, views.colour_words[rows], -1)
    labels = {
        "design": (views.designs[rows], len(designs())),
        "colour": (colours, -1),
        "worn": (views.accessories[rows, view], -1),
        "size": (views.sizes[rows, view], np.nan),
    }
    truth = {}
    for name, (values, empty) in labels.items():
        table = np.concatenate([np.full((len(rows), 1), empty), values], axis=1)  # (B, 1 + K): column 0 is "no object"
        picked = np.take_along_axis(table, owners.reshape(len(rows), -1), axis=1).reshape(owners.shape)
        truth[name] = torch.from_numpy(picked.astype(np.float32 if name == "size" else np.int64))
    truth["place"] = torch.from_numpy(views.places[rows, view].astype(np.int64))
    truth["style"] = torch.from_numpy(views.styles[rows, view].astype(np.int64))
    return truth


def train_judge(judge: Judge, views: Views, *, steps: int, seed: int) -> None:
    """Train a judge in place for `steps` batches on the CPU, printing progress; it ends in eval mode."""
    judge.to(memory_format=torch.channels_last).train()
    forward = torch.compile(judge)
    optimiser = torch.optim.AdamW(judge.parameters(), LEARNING_RATE, weight_decay=0.02)
    one_cycle = torch.optim.lr_scheduler.OneCycleLR
    schedule = one_cycle(optimiser, LEARNING_RATE, steps, pct_start=0.05, final_div_factor=100)
    started, average = time.perf_counter(), 0.0
    for step in range(steps):
        rng = np.random.default_rng([seed, step])
        rows, view, flipped = rng.integers(len(views), size=BATCH), rng.integers(2, size=BATCH), rng.random(BATCH) < 0.5
        x = degrade(sight(views.pictures[rows, view], np.tile([0, 0, 64, 64], (BATCH, 1)), flipped), rng)
        logits = forward(x.contiguous(memory_format=torch.channels_last))
        loss = judge_loss(*logits, ground_truth(views, rows, view, flipped))
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(judge.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        average += (loss.item() - average) / min(step + 1, 100)
        if (step + 1) % 100 == 0 or step == steps - 1:
            eta = (time.perf_counter() - started) / (step + 1) * (steps - step - 1) / 60
            print(f"judge step {step + 1}/{steps}  loss {average:.3f}  ETA {eta:.1f} min", flush=True)
    judge.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder where the drawn pictures are kept")
    parser.add_argument("--out", type=Path, default=JUDGE, help="where the judge goes (default: %(default)s)")
    parser.add_argument("--start", type=Path, help="a trained judge to start from instead of from nothing")
    parser.add_argument(
        "--vae",
        type=Path,
        default=EMBEDDED_MODEL / "vae",
        help="autoencoder through which a quarter of the pictures go (default: %(default)s)",
    )
    parser.add_argument(
        "--groups", type=int, default=32_000, help="groups of individuals to draw (default: %(default)s)"
    )
    parser.add_argument("--steps", type=int, default=8_000, help="batches of 32 pictures (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    views = cached_views(options.work, options.groups, seed=options.seed, typical=TYPICAL_SHARE)
    vae = AutoencoderKL.from_pretrained(options.vae, torch_dtype=torch.float32).eval()
    print("sending a quarter of the pictures through the autoencoder", flush=True)
    for start in range(0, len(views) // 2, 50):
        part = slice(start, start + 50)
        rng = np.random.default_rng([options.seed, start])
        views.pictures[part, 1] = through_autoencoder(views.pictures[part, 1], vae, rng)
    torch.manual_seed(options.seed)
    judge = load_judge(options.start) if options.start else Judge(world_labels())
    # A judge that is trained on sees other batches than before.
    train_judge(judge, views, steps=options.steps, seed=options.seed + bool(options.start))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    tensors = {k: v.half().contiguous() if v.is_floating_point() else v for k, v in judge.state_dict().items()}
    save_file(tensors, options.out)
    write_text(options.out.with_name(LABELS), json.dumps(asdict(judge.labels), indent=1) + "\n")


if __name__ == "__main__":
    run_main(main)
