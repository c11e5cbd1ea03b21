"""Can the embedded model learn an individual that it never saw? Learn some from one picture each, and try to tell.

A picture counts when the scorer finds it more like the individual's own sprite than like any of nineteen others of
its class, which differ from it in design, in colour or in both. How often the scorer is right about *renderings* of
the individual stands beside.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from disendiff_lite.config import Config
from disendiff_lite.emoji_world.check.table import Row, share_row
from disendiff_lite.emoji_world.draw.draw_references import crop
from disendiff_lite.emoji_world.draw.rivals import rivals
from disendiff_lite.emoji_world.draw.scenes import Scene, Thing, render
from disendiff_lite.emoji_world.draw.views import picture_of
from disendiff_lite.emoji_world.draw.world import HELD_OUT_HUES, classes, designs_of, hue_colour
from disendiff_lite.evaluate.clip import Scorer, embed_pictures, load_scorer
from disendiff_lite.models import load_pipeline
from disendiff_lite.runs.generate import generate
from disendiff_lite.runs.train import train

CANDIDATES = 20  # the individual and others of its class
PLACE, CENTRE, SIZE = "beach", (32.0, 38.0), 36.0
METHODS = {"dreambooth": ("by the whole UNet", 0.90), "custom_diffusion": ("by keys and values", 0.75)}  # name, target


@dataclass(frozen=True)
class Recognition:
    """Whether one individual was recognised: in each generated picture, bool (N,), and in each rendering, bool (M,)."""

    class_: str
    pictures: np.ndarray
    renderings: np.ndarray


def unseen_individuals(count: int, seed: int) -> list[Thing]:
    """Individuals of held-out designs, the first ones of different classes; every second one in a held-out hue."""
    rng = np.random.default_rng([6, seed])
    named = [str(name) for name in rng.permutation([name for name in classes() if designs_of(name, held_out=True)])]
    individuals = []
    for index in range(count):
        pool = designs_of(named[index % len(named)], held_out=True)
        design = pool[rng.integers(len(pool))]
        colour = hue_colour(float(rng.choice(list(HELD_OUT_HUES.values()))), 0.75, 0.85) if index % 2 else None
        individuals.append(Thing(design, CENTRE, SIZE, colour))
    return individuals


def recognise(
    scorer: Scorer, pictures: list[Image.Image], candidates: list[Thing], rng: np.random.Generator
) -> np.ndarray:
    """Whether the first candidate is the best match of each picture: bool (number of pictures,).

    A candidate is compared by the mean embedding of its crops from two backgrounds, for these are not what is asked.
    """
    scenes = [render(Scene((thing,), place, ""), rng) for thing in candidates for place in (PLACE, "room")]
    crops = embed_pictures(scorer, [crop(scene, 0) for scene in scenes])  # (2 * C, dim)
    crops = crops.unflatten(0, (len(candidates), 2)).mean(dim=1)  # (C, dim)
    cosines = embed_pictures(scorer, pictures) @ torch.nn.functional.normalize(crops, dim=1).T  # (P, C)
    return (cosines.argmax(dim=1) == 0).numpy()


def learn_individuals(
    model: str, scorer: Scorer, config: Config, *, count: int, pictures: int, seed: int
) -> Iterator[Recognition]:
    """Learn `count` unseen individuals one after the other, each from one picture; generate `pictures` of each."""
    for index, individual in enumerate(unseen_individuals(count, seed)):
        rng = np.random.default_rng([7, seed, index])
        class_ = individual.design.class_
        reference = render(Scene((individual,), PLACE, ""), rng)
        candidates = [individual, *rivals(individual, rng, CANDIDATES - 1)]
        renderings = [Image.fromarray(picture_of([individual], rng).picture) for _ in range(pictures)]
        pipe = load_pipeline(model)
        for _ in train(pipe, Image.fromarray(reference.picture), [class_], config):
            pass
        prompt = f"photo of a {config.modifiers[0]} {class_}"
        generated = generate(pipe, prompt, count=pictures, seed=seed, config=config)
        yield Recognition(class_, *(recognise(scorer, part, candidates, rng) for part in (generated, renderings)))


def learned_rows(model: str, config: Config, *, count: int, pictures: int, seed: int) -> list[Row]:
    """How often an individual that was learned from one picture is recognised, a row for each of METHODS."""
    rows, scorer = [], load_scorer("emoji")
    for method, (name, target) in METHODS.items():
        results, settings = [], config.for_method(method)
        for result in learn_individuals(model, scorer, settings, count=count, pictures=pictures, seed=seed):
            results.append(result)
            print(
                f"{method} learned {len(results)}/{count} individuals: {result.pictures.mean():.0%} of {pictures} "
                f"pictures of the {result.class_} recognised, {result.renderings.mean():.0%} of drawn ones",
                flush=True,
            )
        recognised = np.concatenate([result.pictures for result in results])
        by_scorer = float(np.concatenate([result.renderings for result in results]).mean())
        chance = 1 / CANDIDATES
        rows.append(share_row(f"individual learned {name}", recognised, target=target, chance=chance, judge=by_scorer))
    return rows
