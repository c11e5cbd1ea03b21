"""The reference pictures as scenes: the paper's ten pairs, a trio and two of one class, of individuals never seen."""

import numpy as np

from disendiff_lite.emoji_world.draw.scenes import Scene, Thing, render
from disendiff_lite.emoji_world.draw.world import HELD_OUT_HUES, designs_of, hue_colour

# Name -> place and the individuals from left to right: class, held-out design, held-out hue or "" for the artist's
# own colours.
PAIRS = {
    "baby_toy": ("room", ("baby", "baby-light", ""), ("toy", "teddy-bear", "turquoise")),
    "cat_dog": ("grass", ("cat", "cat-face", "turquoise"), ("dog", "dog-face", "magenta")),
    "chair_lamp": ("room", ("chair", "chair", "lime"), ("lamp", "red-paper-lantern", "magenta")),
    "chair_vase": ("beach", ("chair", "seat", "magenta"), ("vase", "amphora", "turquoise")),
    "cow_bird": ("grass", ("cow", "cow-face", ""), ("bird", "baby-chick", "magenta")),
    "dog_pig": ("desert", ("dog", "dog-face", "lime"), ("pig", "pig-face", "turquoise")),
    "horse_dog": ("beach", ("horse", "horse-face", "turquoise"), ("dog", "dog-face", "")),
    "man_woman": ("street", ("man", "man-beard-medium-dark", ""), ("woman", "woman-light", "")),
    "mother_child": ("grass", ("mother", "woman-feeding-baby-medium-light", ""), ("child", "girl-medium", "")),
    "woman_dog": ("snow", ("woman", "woman-curly-hair-medium-dark", ""), ("dog", "dog-face", "turquoise")),
    "cat_dog_bird": (
        "beach",
        ("cat", "cat-face", "magenta"),
        ("dog", "dog-face", "turquoise"),
        ("bird", "baby-chick", "lime"),
    ),
}
# The paper's limitation: two subjects of one class.
SAME_CLASS = {"dog_dog": ("grass", ("dog", "dog-face", "magenta"), ("dog", "dog", "turquoise"))}
SHIPPED = PAIRS | SAME_CLASS
# Not among the paper's: for finding settings, so that the ten stay unseen by that too.
TUNING_PAIRS = {
    "rabbit_fish": ("desert", ("rabbit", "rabbit-face", "magenta"), ("fish", "fish", "lime")),
    "house_car": ("snow", ("house", "house", "turquoise"), ("car", "automobile", "magenta")),
    "plant_fish": ("room", ("plant", "cactus", "magenta"), ("fish", "tropical-fish", "turquoise")),
}


def draw(name: str, only: int | None = None) -> Scene:
    """Draw one reference picture; always the same for a name. Raises KeyError for an unknown name.

    only: the index of the one thing that is drawn, in its place on the same background; None draws them all.
    """
    place, *individuals = (SHIPPED | TUNING_PAIRS)[name]
    size = 33 if len(individuals) == 2 else 23
    lefts = np.linspace(17, 47, 2) if len(individuals) == 2 else np.linspace(11.5, 52.5, 3)
    things = []
    for x, (class_, name_of_design, hue) in zip(lefts, individuals, strict=True):
        (design,) = [d for d in designs_of(class_, held_out=True) if d.name == name_of_design]
        colour = hue_colour(HELD_OUT_HUES[hue], 0.75, 0.85) if hue else None
        things.append(Thing(design, (float(x), 38.0), size, colour))
    if only is not None:
        things = [things[only]]
    seed = [*sorted(PAIRS | TUNING_PAIRS), *sorted(SAME_CLASS)].index(name)  # new names leave the old pictures alone
    return render(Scene(tuple(things), place, ""), np.random.default_rng(seed))
