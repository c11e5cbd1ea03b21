"""Rivals: of one class, no two alike, some of them of the individual's own design."""

import numpy as np
import pytest

from disendiff_lite.emoji_world.check.individuals import unseen_individuals
from disendiff_lite.emoji_world.draw.rivals import LEAST_DIFFERENCE, rivals
from disendiff_lite.emoji_world.draw.views import mean_colour


@pytest.mark.parametrize("same_design", [0, 6])
def test_rivals_are_of_the_same_class_and_differ_from_one_another(same_design):
    individual = unseen_individuals(1, seed=3)[0]
    everyone = [individual, *rivals(individual, np.random.default_rng(0), 20, same_design=same_design)]
    assert len(everyone) == 21 and {one.design.class_ for one in everyone} == {individual.design.class_}
    assert {(one.centre, one.size, one.flipped) for one in everyone} == {(individual.centre, individual.size, False)}
    for index, one in enumerate(everyone):
        twins = [other for other in everyone[:index] if other.design == one.design]
        assert all(np.linalg.norm(mean_colour(one) - mean_colour(twin)) >= LEAST_DIFFERENCE for twin in twins)
    assert all(one.design == individual.design for one in everyone[1 : 1 + same_design])
    assert len({one.design for one in everyone}) > 5


def test_the_generator_decides():
    individual = unseen_individuals(1, seed=3)[0]
    once, again, other = (rivals(individual, np.random.default_rng(seed), 5) for seed in (1, 1, 2))
    assert once == again != other
