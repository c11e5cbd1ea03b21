"""Find the `emoji()` preset: train a method with several settings, on pairs that are not among the ten, and compare.

    python -m disendiff_lite.emoji_world.check.tune custom_diffusion learning_rate=1e-4,3e-4 steps=300,600

Columns, means over the concepts of the pairs: *likeness* of each concept alone to its crop, *margin* over its likeness
to the other concept's, *together* of pictures of both to the reference (cosines of the scorer's image embeddings);
*prompt*, the cosine of the pictures in new contexts with their text; *sum* of these four, by which a setting is chosen;
*IoU* of the tracked words' maps with the masks.
"""

import argparse
import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from disendiff_lite.config import Config, config_changes, emoji
from disendiff_lite.data import PriorImages
from disendiff_lite.emoji_world.draw.draw_references import draw_reference
from disendiff_lite.emoji_world.draw.pairs import TUNING_PAIRS
from disendiff_lite.evaluate.clip import Scorer, image_alignment, leakage, load_scorer, text_alignment
from disendiff_lite.evaluate.concepts import record_reference, tracked_maps
from disendiff_lite.evaluate.maps import map_iou
from disendiff_lite.models import load_pipeline
from disendiff_lite.presets import METHODS
from disendiff_lite.runs.generate import generate
from disendiff_lite.runs.prior import make_prior
from disendiff_lite.runs.references import Reference
from disendiff_lite.runs.train import train
from disendiff_lite.support.errors import run_main
from disendiff_lite.support.text import text_table


@dataclass(frozen=True)
class Result:
    """What one setting reached on one pair; cosines in [-1, 1], IoU in [0, 1], seconds of training."""

    likeness: float
    margin: float
    together: float
    prompt: float
    iou: float
    seconds: float

    @property
    def sum(self) -> float:
        return self.likeness + self.margin + self.together + self.prompt


def settings_grid(texts: list[str]) -> list[dict]:
    """All combinations of "name=value,value", each as changes of a Config. Raises UserError for what is no setting."""
    choices = [
        [f"{name}={value}" for value in values.split(",")]
        for name, _, values in (text.partition("=") for text in texts)
    ]
    return [config_changes(list(combination)) for combination in itertools.product(*choices)]


def try_settings(
    model: str, scorer: Scorer, reference: Reference, prior: PriorImages, config: Config, *, count: int
) -> Result:
    """Learn a pair and measure it, with `count` pictures of each of five prompts or kinds of prompts."""
    pipe, modifiers = load_pipeline(model), config.modifiers[: len(reference.classes)]
    started = time.perf_counter()
    for _ in train(pipe, reference.picture, reference.classes, config, prior=prior):
        pass
    seconds = time.perf_counter() - started
    names = [f"{modifier} {class_}" for modifier, class_ in zip(modifiers, reference.classes, strict=True)]

    def pictures_of(template: str):
        prompt = template.format(*names)
        return prompt, generate(pipe, prompt, count=count, seed=1, config=config)

    likeness, margins, fits = [], [], []
    for index, own in enumerate(reference.crops):
        alone, elsewhere = reference.prompts.independent[index][:2]
        others = [other for other in reference.crops if other is not own]
        leak = leakage(scorer, pictures_of(alone)[1], own, others)
        likeness.append(leak.own.mean)
        margins.append(leak.margin.mean)
        prompt, pictures = pictures_of(elsewhere)
        fits.append(text_alignment(scorer, pictures, prompt, modifiers).cosine.mean)
    together = image_alignment(scorer, pictures_of(reference.prompts.combined[0])[1], [reference.picture]).mean
    iou = tracked_iou(pipe, reference, config)
    return Result(np.mean(likeness), np.mean(margins), together, np.mean(fits), iou, seconds)


def tracked_iou(pipe, reference: Reference, config: Config) -> float:
    """Mean IoU of the modifiers' and classes' maps on the reference picture with their concept's mask."""
    maps = tracked_maps(record_reference(pipe, reference, config, seed=0), config.map_resolution)  # (2N, h, w)
    return map_iou(maps, np.repeat(reference.masks, 2, axis=0)).mean


def try_grid(
    model: str, method: str, grid: list[dict], pairs: list[str], *, count: int
) -> Iterator[tuple[dict, list[Result]]]:
    """Each setting with what it reached on each pair; the pictures of the plain classes are made once a pair."""
    scorer, priors, references = load_scorer("emoji"), {}, {pair: draw_reference(pair) for pair in pairs}
    for changes in grid:
        config, results = emoji(method=method, **changes), []
        for pair, reference in references.items():
            key = (pair, config.guidance_scale, config.inference_steps, config.prior_images)
            if key not in priors:
                priors[key] = make_prior(load_pipeline(model), reference.classes, config)
            results.append(try_settings(model, scorer, reference, priors[key], config, count=count))
        yield changes, results


def row(changes: dict, results: list[Result]) -> list[str]:
    """A line of the table: the setting, then the means over the pairs, the spread of the sum in brackets."""
    columns = (*Result.__dataclass_fields__, "sum")
    means = {name: np.mean([getattr(result, name) for result in results]) for name in columns}
    values = {name: f"{value:g}" if isinstance(value, float) else value for name, value in changes.items()}
    setting = " ".join(f"{name}={value}" for name, value in values.items())
    spread = np.std([result.sum for result in results], ddof=1) if len(results) > 1 else np.nan
    numbers = [f"{means[name]:.3f}" for name in ("likeness", "margin", "together", "prompt")]
    numbers += [f"{means['sum']:.3f} ({spread:.3f})", f"{means['iou']:.2f}", f"{means['seconds']:.0f} s"]
    return [setting or "preset", *numbers]


HEADER = ["", "likeness", "margin", "together", "prompt", "sum (spread over pairs)", "IoU", "training"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("method", choices=METHODS)
    parser.add_argument(
        "settings", nargs="*", metavar="NAME=VALUE,VALUE", help="all combinations are tried; none tries the preset"
    )
    parser.add_argument("--pairs", default=",".join(TUNING_PAIRS), help="with commas between (default: %(default)s)")
    parser.add_argument("--count", type=int, default=4, help="pictures of each prompt (default: %(default)s)")
    parser.add_argument("--model", default="emoji", help="short name or diffusers folder (default: %(default)s)")
    options = parser.parse_args()
    rows, grid, pairs = [HEADER], settings_grid(options.settings), options.pairs.split(",")
    for changes, results in try_grid(options.model, options.method, grid, pairs, count=options.count):
        rows.append(row(changes, results))
        print(*rows[-1], sep="  ", flush=True)
    print(text_table(rows))


if __name__ == "__main__":
    run_main(main)
