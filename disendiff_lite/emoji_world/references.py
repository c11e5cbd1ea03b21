"""The reference pictures: the paper's ten pairs and one trio, of individuals that pretraining never saw.

    python -m disendiff_lite.emoji_world.references        (writes data/references; the pictures are committed)

Each folder holds `reference.png`, one `crop_<class>.png` and one `mask_<class>.png` a concept, and `reference.json` with the classes,
the designs, and prompts: ten for the concepts together and ten for each alone. In a prompt `{0}` stands for the first concept
("<new1> cat"), `{1}` for the second.
"""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from disendiff_lite.emoji_world.backgrounds import PHRASES, SIDE
from disendiff_lite.emoji_world.scenes import ACCESSORY_PHRASES, STYLES, Scene, Thing, render
from disendiff_lite.emoji_world.world import DATA, HELD_OUT_HUES, designs_of, hue_colour
from disendiff_lite.errors import UserError
from disendiff_lite.images import load_image

FOLDER = DATA.parent / "references"
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


@dataclass(frozen=True)
class Reference:
    """A reference picture as others use it.

    picture: RGB, 64 px. crops: one RGB picture a concept. masks: bool (N, 64, 64). prompts: "combined" and each class -> ten prompts
    with `{0}`, `{1}` for the concepts. Of a picture of one's own, crops and masks are not known and None.
    """

    name: str
    classes: tuple[str, ...]
    picture: Image.Image
    crops: tuple[Image.Image, ...] | None
    masks: np.ndarray | None
    prompts: dict[str, list[str]]


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


def prompts_for(classes: Sequence[str], wearers: Collection[str] = (), place: str = "") -> dict[str, list[str]]:
    """Ten prompts for the concepts together and ten for each alone, in words that the world knows.

    classes: one a concept. wearers: those of them that can wear a hat; the others are asked for small and big instead.
    place: where the reference picture already shows them, left out.
    """
    slots = [f"{{{index}}}" for index in range(len(classes))]
    together = "a " + (", ".join(slots[:-1]) + " and " + slots[-1])
    elsewhere = [phrase for key, phrase in PHRASES.items() if key != place][:7]
    combined = [f"photo of {together}"] + [f"photo of {together} {phrase}" for phrase in elsewhere]
    prompts = {"combined": combined + [f"{style} {together}" for style in STYLES.values()]}
    for slot, class_ in zip(slots, classes):
        alone = [f"photo of a {slot}"] + [f"photo of a {slot} {phrase}" for phrase in elsewhere[:5]]
        wears = [f"photo of a {slot} {phrase}" for phrase in ACCESSORY_PHRASES.values()]
        sizes = [f"photo of a small {slot}", f"photo of a big {slot}"]
        prompts[class_] = alone + (wears if class_ in wearers else sizes) + [f"{style} a {slot}" for style in STYLES.values()]
    return prompts


def write(name: str) -> None:
    """Draw one reference and write its folder."""
    scene = draw(name)
    folder = FOLDER / name
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(scene.picture).save(folder / "reference.png")
    for thing, mask in zip(scene.things, scene.masks):
        class_ = thing.design.class_
        Image.fromarray(mask.astype(np.uint8) * 255).save(folder / f"mask_{class_}.png")
        rows, columns = np.nonzero(mask)
        box = (columns.min() - 1, rows.min() - 1, columns.max() + 2, rows.max() + 2)
        box = tuple(int(np.clip(edge, 0, SIDE)) for edge in box)
        Image.fromarray(scene.picture).crop(box).save(folder / f"crop_{class_}.png")
    described = {
        "classes": [thing.design.class_ for thing in scene.things],
        "place": scene.place,
        "designs": [f"{thing.design.set}/{thing.design.name}" for thing in scene.things],
        "hues": [hue or "the artist's" for _, _, hue in PAIRS[name][1:]],
        "prompts": prompts_for(
            [thing.design.class_ for thing in scene.things],
            [thing.design.class_ for thing in scene.things if thing.design.eyes is not None],
            scene.place,
        ),
    }
    (folder / "reference.json").write_text(json.dumps(described, indent=1) + "\n")


def load_reference(name: str) -> Reference:
    """Read a committed reference picture by name, such as "cat_dog". Raises UserError naming those there are."""
    folder = FOLDER / name
    if not (folder / "reference.json").is_file():
        raise UserError(f"There is no reference picture {name!r}: choose one of {', '.join(PAIRS)}.")
    described = json.loads((folder / "reference.json").read_text())
    classes = tuple(described["classes"])
    return Reference(
        name,
        classes,
        Image.open(folder / "reference.png").convert("RGB"),
        tuple(Image.open(folder / f"crop_{c}.png").convert("RGB") for c in classes),
        np.stack([np.asarray(Image.open(folder / f"mask_{c}.png")) > 127 for c in classes]),
        described["prompts"],
    )


def own_reference(image: str, classes: Sequence[str]) -> Reference:
    """A picture of one's own as a reference: its classes in the order of the concepts, and prompts for them.

    Raises UserError for a picture that cannot be read.
    """
    return Reference(Path(image).stem, tuple(classes), load_image(image), None, None, prompts_for(classes))


def main() -> None:
    for name in PAIRS:
        write(name)
        print(FOLDER / name)


if __name__ == "__main__":
    main()
