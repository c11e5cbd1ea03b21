"""Draw the reference pictures: the paper's ten pairs and one trio, of individuals that pretraining never saw.

    python -m disendiff_lite.emoji_world.references        (writes data/references, which is committed)

The folders are as disendiff_lite.references reads them; `reference.json` names the designs, their hues and the place too.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
from PIL import Image

from disendiff_lite.emoji_world.draw.backgrounds import PHRASES, SIDE
from disendiff_lite.emoji_world.draw.scenes import ACCESSORY_PHRASES, SIZE_WORDS, STYLES, Scene, Thing, render
from disendiff_lite.emoji_world.draw.world import HELD_OUT_HUES, designs_of, hue_colour
from disendiff_lite.runs.references import Prompts, Reference, number_concepts
from disendiff_lite.support.errors import run_main
from disendiff_lite.support.paths import REFERENCES

# Name -> place and the individuals from left to right: class, held-out design, held-out hue or "" for the artist's own colours.
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
    "cat_dog_bird": ("beach", ("cat", "cat-face", "magenta"), ("dog", "dog-face", "turquoise"), ("bird", "baby-chick", "lime")),
}
# Not among the paper's: for finding settings, so that the ten stay unseen by that too.
TUNING_PAIRS = {
    "rabbit_fish": ("desert", ("rabbit", "rabbit-face", "magenta"), ("fish", "fish", "lime")),
    "house_car": ("snow", ("house", "house", "turquoise"), ("car", "automobile", "magenta")),
    "plant_fish": ("room", ("plant", "cactus", "magenta"), ("fish", "tropical-fish", "turquoise")),
}


def draw(name: str) -> Scene:
    """Draw one reference picture; always the same for a name. Raises KeyError for an unknown name."""
    place, *individuals = (PAIRS | TUNING_PAIRS)[name]
    size = 33 if len(individuals) == 2 else 23
    lefts = np.linspace(17, 47, 2) if len(individuals) == 2 else np.linspace(11.5, 52.5, 3)
    things = []
    for x, (class_, design, hue) in zip(lefts, individuals):
        (chosen,) = [d for d in designs_of(class_, held_out=True) if d.name == design]
        colour = hue_colour(HELD_OUT_HUES[hue], 0.75, 0.85) if hue else None
        things.append(Thing(chosen, (float(x), 38.0), size, colour))
    seed = sorted(PAIRS | TUNING_PAIRS).index(name)
    return render(Scene(tuple(things), place, ""), np.random.default_rng(seed))


def prompts_for(wearers: Sequence[bool], place: str) -> Prompts:
    """Ten prompts for the concepts together and ten for each alone, in words that the world knows.

    wearers: for each concept, whether it can wear a hat; the others are asked for small and big instead.
    place: where the reference picture already shows them, left out.
    """
    elsewhere = [f"photo of a {{}} {phrase}" for key, phrase in PHRASES.items() if key != place][:7]
    wearing = [f"photo of a {{}} {phrase}" for phrase in ACCESSORY_PHRASES.values()]
    sizes = [f"photo of a {size} {{}}" for size in SIZE_WORDS]
    styles = [f"{style} a {{}}" for style in STYLES.values()]
    alone = [["photo of a {}", *elsewhere[:5], *(wearing if wears else sizes), *styles] for wears in wearers]
    return number_concepts(["photo of a {}", *elsewhere, *styles], alone)


def crop(scene: Scene, index: int) -> Image.Image:
    """The part of a drawn scene's picture that one thing takes, with a margin of 1 px. Raises ValueError if nothing of it is seen."""
    rows, columns = np.nonzero(scene.masks[index])
    box = (columns.min() - 1, rows.min() - 1, columns.max() + 2, rows.max() + 2)
    return Image.fromarray(scene.picture).crop(tuple(int(np.clip(edge, 0, SIDE)) for edge in box))


def drawn_reference(name: str) -> Reference:
    """One of PAIRS or TUNING_PAIRS, drawn, as others use a reference. Raises KeyError for an unknown name."""
    scene = draw(name)
    wearers = [thing.design.eyes is not None for thing in scene.things]
    return Reference(
        name,
        tuple(thing.design.class_ for thing in scene.things),
        Image.fromarray(scene.picture),
        tuple(crop(scene, index) for index in range(len(scene.things))),
        scene.masks,
        prompts_for(wearers, scene.place),
    )


def write(name: str) -> None:
    """Draw one reference and write its folder."""
    reference, (place, *individuals) = drawn_reference(name), PAIRS[name]
    folder = REFERENCES / name
    folder.mkdir(parents=True, exist_ok=True)
    reference.picture.save(folder / "reference.png")
    for class_, mask, cropped in zip(reference.classes, reference.masks, reference.crops):
        Image.fromarray(mask.astype(np.uint8) * 255).save(folder / f"mask_{class_}.png")
        cropped.save(folder / f"crop_{class_}.png")
    described = {
        "classes": reference.classes,
        "place": place,
        "designs": [f"{thing.design.set}/{thing.design.name}" for thing in draw(name).things],
        "hues": [hue or "the artist's" for _, _, hue in individuals],
        "prompts": asdict(reference.prompts),
    }
    (folder / "reference.json").write_text(json.dumps(described, indent=1) + "\n")


def main() -> None:
    for name in PAIRS:
        write(name)
        print(REFERENCES / name)


if __name__ == "__main__":
    run_main(main)
