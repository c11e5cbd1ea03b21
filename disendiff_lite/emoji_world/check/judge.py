"""The judge: a small network that says what is in a 64 px picture of the emoji world, trained on renderings.

    python -m disendiff_lite.emoji_world.check.judge --work FOLDER

It decides whether generated pictures follow their prompts, so it never sees the measured model's text encoder. For
every cell of an 8x8 grid it says which design covers it, in which colour, wearing what, and how large that object is;
for the whole picture, which place and style it shows. A class is the sum of its designs: they look alike in themselves,
which a class does not, and so they are learned far sooner.
"""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from disendiff_lite.emoji_world.draw.dataset import MOST_THINGS
from disendiff_lite.emoji_world.draw.views import ACCESSORIES, COLOUR_WORDS, PLACES, STYLE_NAMES, Views, cached_views
from disendiff_lite.emoji_world.draw.world import classes, designs
from disendiff_lite.emoji_world.train.scorer import degrade, sight
from disendiff_lite.emoji_world.train.vae import through_autoencoder
from disendiff_lite.support.errors import UserError, run_main
from disendiff_lite.support.paths import EMBEDDED_MODEL, JUDGE

BATCH, LEARNING_RATE = 32, 2e-3
# Of the individuals to learn from: the measured model mostly draws typical looks, yet any design may be asked about.
TYPICAL_SHARE = 0.5
CELLS = 8  # a side
NOTHING = len(designs())  # the design of a cell that no object covers
CELL_SPLIT = (NOTHING + 1, len(COLOUR_WORDS), len(ACCESSORIES), 1)  # of a cell: design, colour, worn, log2 size
PICTURE_SPLIT = (len(PLACES), len(STYLE_NAMES))
SIZE_UNIT = 32.0  # pixels


@dataclass(frozen=True)
class Findings:
    """What the judge sees in B pictures, for C classes in the order of `classes()`."""

    areas: np.ndarray  # (B, C): cells of the 8x8 grid in which nothing is likelier than the class
    designs: np.ndarray  # (B, C): index of the likeliest design of that class
    colours: np.ndarray  # (B, C): index in COLOUR_WORDS of the word nearest to that object's colour
    accessories: np.ndarray  # (B, C): index in ACCESSORIES
    sizes: np.ndarray  # (B, C): longest side, pixels
    places: np.ndarray  # (B,): index in PLACES
    styles: np.ndarray  # (B,): index in STYLE_NAMES

    def shows(self, class_: str, least: float = 1.0) -> np.ndarray:
        """Whether a class covers at least `least` cells of 8x8 px, bool (B,)."""
        return self.areas[:, classes().index(class_)] >= least


def _convolution(inputs: int, outputs: int, side: int, stride: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, side, stride, side // 2, bias=False), nn.BatchNorm2d(outputs)]


def _halve(inputs: int, outputs: int, depth: int) -> nn.Sequential:
    return nn.Sequential(*_convolution(inputs, outputs, 3, 2), nn.ReLU(), *(_Residual(outputs) for _ in range(depth)))


class _Residual(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.body = nn.Sequential(*_convolution(channels, channels, 3), nn.ReLU(), *_convolution(channels, channels, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(x + self.body(x))


class Judge(nn.Module):
    """Convolutions down to 4x4 cells, where it knows what is there, and up again to 8x8, where it says where."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(*_convolution(3, 24, 3, 2), nn.ReLU())  # 32x32
        self.fine = _halve(24, 48, 1)  # 16x16
        self.middle = _halve(48, 96, 2)  # 8x8
        self.coarse = _halve(96, 192, 2)  # 4x4
        self.up = nn.Sequential(*_convolution(192 + 96, 160, 1), nn.ReLU(), _Residual(160))
        self.cells = nn.Conv2d(160, sum(CELL_SPLIT), 1)
        self.picture = nn.Linear(192 + 96 + 48, sum(PICTURE_SPLIT))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Pictures (B, 3, 64, 64) in [-1, 1] -> logits (B, sum(CELL_SPLIT), 8, 8) and (B, sum(PICTURE_SPLIT))."""
        fine = self.fine(self.stem(x))  # (B, 48, 16, 16)
        middle = self.middle(fine)  # (B, 96, 8, 8)
        coarse = self.coarse(middle)  # (B, 192, 4, 4)
        whole = torch.cat([level.mean(dim=(2, 3)) for level in (coarse, middle, fine)], dim=1)
        up = self.up(torch.cat([F.interpolate(coarse, scale_factor=2), middle], dim=1))  # (B, 160, 8, 8)
        return self.cells(up), self.picture(whole)


def load_judge(path: Path = JUDGE) -> Judge:
    """The trained judge, in float32, in eval mode. Raises UserError if there is no such file."""
    if not Path(path).is_file():
        raise UserError(f"There is no judge {path}: train it with python -m disendiff_lite.emoji_world.check.judge.")
    judge = Judge()
    judge.load_state_dict(load_file(path))
    return judge.eval()


@torch.no_grad()
def judge_pictures(judge: Judge, pictures: np.ndarray) -> Findings:
    """What the judge sees in pictures, uint8 (B, 64, 64, 3)."""
    x = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1  # (B, 3, 64, 64)
    cells, picture = (torch.cat(parts) for parts in zip(*map(judge, x.split(64)), strict=True))
    design, colour, worn, size = cells.flatten(2).split(CELL_SPLIT, dim=1)  # (B, ..., 64)
    belongs = torch.tensor([[float(d.class_ == name) for d in designs()] for name in classes()])  # (C, designs)
    likely = design.softmax(dim=1)  # (B, designs + 1, 64)
    share = belongs @ likely[:, :NOTHING]  # (B, C, 64)
    best = torch.cat([share, likely[:, NOTHING:]], dim=1).argmax(dim=1)  # (B, 64)
    areas = F.one_hot(best, len(classes()) + 1)[..., :-1].sum(dim=1)  # (B, C)

    def vote(values: torch.Tensor) -> torch.Tensor:
        # Each cell says what it sees, (B, V, 64), as far as it belongs to the class: (B, C, V).
        return (share @ values.transpose(1, 2)) / share.sum(dim=2, keepdim=True).clamp_min(1e-6)

    of_class = belongs * likely[:, None, :NOTHING].sum(dim=3)  # (B, C, designs)
    place, style = picture.split(PICTURE_SPLIT, dim=1)
    return Findings(
        areas.numpy(),
        of_class.argmax(dim=2).numpy(),
        vote(colour.log_softmax(dim=1)).argmax(dim=2).numpy(),
        vote(worn.log_softmax(dim=1)).argmax(dim=2).numpy(),
        SIZE_UNIT * vote(size)[..., 0].exp2().numpy(),
        place.argmax(dim=1).numpy(),
        style.argmax(dim=1).numpy(),
    )


def judge_loss(cells: torch.Tensor, picture: torch.Tensor, truth: dict[str, torch.Tensor]) -> torch.Tensor:
    """Sum of the cross-entropies of all that a judge says, and the absolute error of log2 size.

    truth: design, colour, worn int (B, 8, 8), -1 where nothing is asked; size float (B, 8, 8), nan likewise; place,
        style int (B,).
    """
    design, colour, worn, size = cells.split(CELL_SPLIT, dim=1)
    place, style = picture.split(PICTURE_SPLIT, dim=1)
    emphasis = torch.ones(NOTHING + 1)
    emphasis[NOTHING] = 0.3  # most cells are empty
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
        "design": (views.designs[rows], NOTHING),
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
    judge = load_judge(options.start) if options.start else Judge()
    # A judge that is trained on sees other batches than before.
    train_judge(judge, views, steps=options.steps, seed=options.seed + bool(options.start))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    tensors = {k: v.half().contiguous() if v.is_floating_point() else v for k, v in judge.state_dict().items()}
    save_file(tensors, options.out)


if __name__ == "__main__":
    run_main(main)
