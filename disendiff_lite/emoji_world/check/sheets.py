"""Sheets by which the embedded model can be judged at a glance, written as PNG files beside it.

    python -m disendiff_lite.emoji_world.check.sheets prompts                   64 prompts, one picture each
    python -m disendiff_lite.emoji_world.check.sheets personalised cat_dog ...  rows: reference, both, each alone
    python -m disendiff_lite.emoji_world.check.sheets compared cow_bird ...     the same, a row by each of COMPARED
    python -m disendiff_lite.emoji_world.check.sheets training                  the course of training, of training.csv

The second and the third train every named pair (by default the ten) with the `emoji()` preset; the names of their
pairs go into the file's name.
"""

import argparse
import csv
import textwrap
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from disendiff_lite.config import emoji
from disendiff_lite.emoji_world.draw.backgrounds import PHRASES
from disendiff_lite.emoji_world.draw.pairs import PAIRS
from disendiff_lite.emoji_world.draw.scenes import STYLES
from disendiff_lite.emoji_world.draw.world import COLOURS, classes
from disendiff_lite.models import load_pipeline
from disendiff_lite.runs.generate import generate
from disendiff_lite.runs.references import load_reference
from disendiff_lite.runs.train import train
from disendiff_lite.sampling import sample
from disendiff_lite.support.errors import run_main
from disendiff_lite.support.paths import EMBEDDED_MODEL
from disendiff_lite.support.progress import progress, progress_callback
from disendiff_lite.tokens import compose_prompt

COLUMNS = 8
ALONE = 3  # pictures of each kind in a row of the personalised sheet
COMPARED = {"custom_diffusion": "Custom Diffusion", "disendiff": "DisenDiff"}


def sheet_prompts() -> list[str]:
    """64 prompts that go through the world's classes, colours, places, accessories and styles."""
    names, colours, places = classes(), list(COLOURS), list(PHRASES.values())
    prompts = [f"photo of a {name}" for name in names[:16]]
    prompts += [f"photo of a {colours[i % len(colours)]} {names[(3 * i + 16) % 20]} {places[i % 8]}" for i in range(16)]
    prompts += [f"photo of a {names[i]} and a {names[(7 * i + 5) % 20]} {places[(i + 3) % 8]}" for i in range(12)]
    prompts += [f"photo of a {colours[i]} {names[2 * i]} and a {colours[-1 - i]} {names[2 * i + 1]}" for i in range(8)]
    prompts += [
        f"photo of a {name} wearing {worn}" for name in ("cat", "dog", "man") for worn in ("a hat", "sunglasses")
    ]
    prompts += [f"{style} a {name}" for style in STYLES.values() for name in ("rabbit", "car", "house")]
    return prompts


def _draw(panel, picture: Image.Image, title: str = "", size: float = 5) -> None:
    panel.imshow(np.asarray(picture), interpolation="nearest")
    panel.set_title(title, fontsize=size, pad=2)


def draw_prompts(pipe, path: Path) -> None:
    """Write the sheet of 64 prompts."""
    prompts = sheet_prompts()
    pictures = []
    for start in range(0, len(prompts), 16):
        pictures += sample(pipe, prompts[start : start + 16], range(start, start + 16), emoji())
    figure, panels = plt.subplots(COLUMNS, COLUMNS, figsize=(9, 10.4), layout="constrained")
    for panel, picture, prompt in zip(panels.flat, pictures, prompts, strict=True):
        _draw(panel, picture, textwrap.fill(prompt, 26))
        panel.axis("off")
    figure.savefig(path, dpi=130)
    plt.close(figure)


def draw_personalised(model: str, pairs: list[str], methods: dict[str, str], path: Path) -> None:
    """Train each pair by each method and write its row: the reference, both concepts, the first alone, the second
    alone. methods: with what stands over the reference.
    """
    runs = [(pair, method) for pair in pairs for method in methods]
    figure, panels = plt.subplots(
        len(runs), 1 + 3 * ALONE, figsize=(10.5, 1.28 * len(runs)), squeeze=False, layout="constrained"
    )
    for row, (pair, method) in zip(panels, runs, strict=True):
        config, reference, pipe = emoji(method=method), load_reference(pair), load_pipeline(model)
        show_prior = progress_callback(f"{pair}: classes")
        records = train(pipe, reference.picture, reference.classes, config, prior_progress=show_prior)
        for _ in progress(records, config.steps, pair):
            pass
        modifiers = config.modifiers[: len(reference.classes)]
        names = [f"{modifier} {class_}" for modifier, class_ in zip(modifiers, reference.classes, strict=True)][:2]
        prompts = [compose_prompt(reference.classes, config.modifiers, config.template)]
        prompts += [f"photo of a {name}" for name in names]
        _draw(row[0], reference.picture, methods[method], 7)
        for place, prompt in enumerate(prompts):
            for number, picture in enumerate(generate(pipe, prompt, count=ALONE, seed=0, config=config)):
                title = prompt.removeprefix("photo of ") if number == 1 else ""
                _draw(row[1 + place * ALONE + number], picture, title, 7)
        for panel in row:
            panel.axis("off")
    figure.savefig(path, dpi=130)
    plt.close(figure)


def draw_training(log: Path, path: Path) -> None:
    """Write the figure of a training log: what the model learned, on unseen scenes, after how many training images.

    log: the CSV file that train/unet.py writes.
    """
    with log.open(newline="") as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    images = [row["images"] / 1000 for row in rows]
    figure, (errors, costs, peaks) = plt.subplots(1, 3, figsize=(9.6, 2.9), layout="constrained")
    for level in (200, 500, 800):
        errors.plot(images, [row[f"error_{level}"] for row in rows], marker=".", label=f"t = {level}")
        costs.plot(images, [100 * row[f"wrong_caption_{level}"] for row in rows], marker=".", label=f"t = {level}")
    errors.set(yscale="log", ylabel="mean squared noise error")
    errors.set_yticks([0.01, 0.02, 0.05, 0.1, 0.2], ["0.01", "0.02", "0.05", "0.1", "0.2"])
    errors.minorticks_off()
    errors.set_title("Error on unseen scenes", fontsize=10)
    costs.margins(y=0.2)  # room for the legend above the lines
    costs.set(ylim=(0, None), ylabel="%")
    costs.set_title("What a wrong caption adds to it", fontsize=10)
    peaks.plot(images, [100 * row["map_peak"] for row in rows], marker=".", color="black")
    peaks.set(ylim=(0, 100), ylabel="%")
    peaks.set_title("Class maps that peak on their object", fontsize=10)
    for panel in (errors, costs, peaks):
        panel.set_xlabel("training images, thousands")
        panel.grid(alpha=0.3)
    costs.legend(fontsize=8, ncols=3, loc="upper left", handlelength=1, columnspacing=1)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sheet", choices=("prompts", "personalised", "compared", "training"))
    parser.add_argument("pairs", nargs="*", help="for sheets of what was learned (default: the ten)")
    parser.add_argument("--model", default=str(EMBEDDED_MODEL), help="(default: the shipped one)")
    parser.add_argument(
        "--out", type=Path, default=EMBEDDED_MODEL, help="folder for the sheet (default: beside the model)"
    )
    options = parser.parse_args()
    path = options.out / f"{'-'.join([options.sheet, *options.pairs])}.png"
    if options.sheet == "prompts":
        draw_prompts(load_pipeline(options.model), path)
    elif options.sheet == "training":
        draw_training(options.out / "training.csv", path)
    else:
        methods = COMPARED if options.sheet == "compared" else {"disendiff": "reference"}
        draw_personalised(options.model, options.pairs or list(PAIRS)[:10], methods, path)
    print(path)


if __name__ == "__main__":
    run_main(main)
