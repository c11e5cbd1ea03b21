"""Rivals: other individuals of a class, among which one individual must be recognised."""

from dataclasses import replace

import numpy as np

from disendiff_lite.emoji_world.draw.scenes import Thing
from disendiff_lite.emoji_world.draw.views import mean_colour, random_individual

LEAST_DIFFERENCE = 0.15  # between the mean colours (RGB in [0, 1]) of two individuals of one design


def rivals(individual: Thing, rng: np.random.Generator, count: int, *, same_design: int = 0) -> list[Thing]:
    """`count` others of the individual's class, in its place and size; each differs from it and from one another.

    They differ in design, in colour or in both. same_design: how many, the first ones, differ in colour alone.
    """
    others = []
    while len(others) < count:
        other = random_individual(rng, individual.design.class_)
        design = individual.design if len(others) < same_design else other.design
        other = replace(other, design=design, centre=individual.centre, size=individual.size, flipped=False)
        if not any(_alike(other, one) for one in (individual, *others)):
            others.append(other)
    return others


def _alike(a: Thing, b: Thing) -> bool:
    return a.design == b.design and np.linalg.norm(mean_colour(a) - mean_colour(b)) < LEAST_DIFFERENCE
