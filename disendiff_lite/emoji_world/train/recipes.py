"""Which recipe learns most from the same compute? Train each from nothing for a while, and compare on unseen scenes.

    python -m disendiff_lite.emoji_world.train.recipes --work runs/recipes shipped batch-24 wide

The compute is counted in floating-point operations of the UNet, forward and backward, so that the table does not depend
on the machine: a wider UNet sees fewer images. Columns: parameters of the UNet; images seen; the noise error on unseen
scenes at t = 200, 500 and 800; what a wrong caption adds to the error at t = 500 and 800; class maps (16x16, t = 500)
that peak on their object.
"""

import argparse
import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch.utils.flop_counter import FlopCounterMode

from disendiff_lite.emoji_world.draw.dataset import Scenes, load_scenes
from disendiff_lite.emoji_world.train.architecture import CHANNELS, TEXT_DIM, new_text_encoder, new_unet
from disendiff_lite.emoji_world.train.pretrain import UNSEEN_SEED
from disendiff_lite.emoji_world.train.training_data import training_set
from disendiff_lite.emoji_world.train.unet import UnetTraining, train_unet
from disendiff_lite.single_file import assemble
from disendiff_lite.support.errors import check_name, run_main
from disendiff_lite.support.paths import EMBEDDED_MODEL
from disendiff_lite.support.text import text_table


@dataclass(frozen=True)
class Recipe:
    """What differs from the shipped model's recipe: settings of UnetTraining, width and depth of the UNet."""

    training: dict = field(default_factory=dict)
    channels: tuple[int, int] = CHANNELS
    depth: int = 1


RECIPES = {
    "shipped": Recipe(),
    "batch-6": Recipe({"batch": 6}),
    "batch-24": Recipe({"batch": 24}),
    "batch-48": Recipe({"batch": 48, "learning_rate": 1.2e-3}),
    "rate-3e-4": Recipe({"learning_rate": 3e-4}),
    "rate-1.2e-3": Recipe({"learning_rate": 1.2e-3}),
    "narrow": Recipe(channels=(64, 112)),
    "wide": Recipe(channels=(128, 224)),
    "deep": Recipe(depth=2),
    "min-snr": Recipe({"noise_balance": 0.0}),
    "snr-0.5": Recipe({"noise_balance": 0.5}),
    "dropout-0.05": Recipe({"caption_dropout": 0.05}),
    "ungrounded": Recipe({"grounding": 0.0}),
    "plain-weights": Recipe({"object_weight": 1.0}),
}


def gflop_per_image(channels: tuple[int, int], depth: int) -> float:
    """Floating-point operations (1e9) of one image's way through the UNet and back, counted on shapes alone."""
    with torch.device("meta"):
        unet = new_unet(channels, depth)
        noisy, text = torch.zeros(1, 4, 16, 16), torch.zeros(1, 77, TEXT_DIM)
        with FlopCounterMode(display=False) as counter:
            unet(noisy, torch.zeros(1), text).sample.sum().backward()
    return counter.get_total_flops() / 1e9


def train_recipe(
    recipe: Recipe,
    vae: AutoencoderKL,
    scenes: Scenes,
    unseen: Scenes,
    work: Path,
    *,
    gflop: float,
    seed: int,
    device: str,
) -> list[str]:
    """Train one recipe for `gflop`, going on from `work`, and return its line of the table, without its name."""
    torch.manual_seed(seed)
    pipe = assemble(vae, new_text_encoder(), new_unet(recipe.channels, recipe.depth)).to(device)
    pipe.unet.to(memory_format=torch.channels_last)
    images = int(gflop / gflop_per_image(recipe.channels, recipe.depth))
    settings = UnetTraining(seed=seed, images=images, **recipe.training)
    log = work / "training.csv"  # one look, at the end: a finished run has its line already
    if not log.exists():
        work.mkdir(parents=True, exist_ok=True)
        data, unseen_data = (training_set(pipe, part, device, work.parent) for part in (scenes, unseen))
        options = {"device": device, "every": images, "on_progress": lambda *_: None}
        train_unet(pipe, data, unseen_data, work, settings, **options)
    with log.open(newline="") as file:
        last = list(csv.DictReader(file))[-1]
    errors = " / ".join(f"{float(last[f'error_{level}']):.3f}" for level in (200, 500, 800))
    costs = " / ".join(f"{float(last[f'wrong_caption_{level}']):+.1%}" for level in (500, 800))
    parameters = sum(p.numel() for p in pipe.unet.parameters())
    size, seen = f"{parameters / 1e6:.1f} M", f"{float(last['images']):,.0f}"
    return [size, seen, errors, costs, f"{float(last['map_peak']):.0%}"]


HEADER = ["recipe", "UNet", "images", "error at t = 200 / 500 / 800", "wrong caption at 500 / 800", "map peak"]


def compare(names: Sequence[str], work: Path, *, gflop: float, scenes: int, seed: int, device: str) -> list[list[str]]:
    """The table's lines, its header first, each printed once it is known. Raises UserError for an unknown recipe."""
    for name in names:
        check_name(name, RECIPES, "recipe")
    vae = AutoencoderKL.from_pretrained(EMBEDDED_MODEL / "vae", torch_dtype=torch.float32)
    training, unseen = load_scenes(work / "scenes", scenes), load_scenes(work / "scenes", 96, seed=UNSEEN_SEED)
    lines = [HEADER]
    for name in names:
        print(f"recipe {name}", flush=True)
        folder = work / f"{name}-{gflop:g}-{seed}"
        cells = train_recipe(RECIPES[name], vae, training, unseen, folder, gflop=gflop, seed=seed, device=device)
        lines.append([name, *cells])
        print(*lines[-1], sep="  ", flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", metavar="RECIPE", help=f"{', '.join(RECIPES)} (default: all)")
    parser.add_argument(
        "--work", type=Path, default=Path("runs/recipes"), help="for scenes and checkpoints (default: %(default)s)"
    )
    parser.add_argument(
        "--gflop",
        type=float,
        default=24_000.0,
        help="compute of each recipe, 1e9 operations (default: %(default)g, five minutes of one core)",
    )
    parser.add_argument("--scenes", type=int, default=20_000, help="different scenes to draw (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    lines = compare(
        options.recipes or list(RECIPES),
        options.work,
        gflop=options.gflop,
        scenes=options.scenes,
        seed=options.seed,
        device=options.device,
    )
    print(text_table(lines))


if __name__ == "__main__":
    run_main(main)
