"""Draw the reference pictures, with their probes and line-ups, into data/references, which is committed.

    python -m disendiff_lite.emoji_world.draw.draw_references

The folders are as runs/references.py and evaluate/probes.py read them; `reference.json` names the designs,
their hues and the place too.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from PIL import Image

from disendiff_lite.emoji_world.draw.backgrounds import PHRASES, SIDE
from disendiff_lite.emoji_world.draw.pairs import SHIPPED, TUNING_PAIRS, draw
from disendiff_lite.emoji_world.draw.probes import draw_alone, draw_line_up, draw_together
from disendiff_lite.emoji_world.draw.scenes import ACCESSORY_PHRASES, SIZE_WORDS, STYLES, Scene, Thing
from disendiff_lite.evaluate.probes import ALONE_STRIP, LINE_UP, TOGETHER_STRIP, Probes
from disendiff_lite.runs.references import Prompts, Reference, concept_file, number_concepts
from disendiff_lite.support.errors import check_name, run_main
from disendiff_lite.support.paths import REFERENCES

PROBE_SEED = 0


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
    """The part of a scene's picture that one thing takes, with a margin of 1 px. Raises ValueError if it is hidden."""
    rows, columns = np.nonzero(scene.masks[index])
    box = (columns.min() - 1, rows.min() - 1, columns.max() + 2, rows.max() + 2)
    return Image.fromarray(scene.picture).crop(tuple(int(np.clip(edge, 0, SIDE)) for edge in box))


def draw_reference(name: str) -> Reference:
    """One of SHIPPED or TUNING_PAIRS as others use a reference. Raises UserError for an unknown name."""
    check_name(name, SHIPPED | TUNING_PAIRS, "reference picture")
    scene = draw(name)
    wearers = [thing.design.eyes is not None for thing in scene.things]
    return Reference(
        name,
        tuple(thing.design.class_ for thing in scene.things),
        Image.fromarray(scene.picture),
        tuple(crop(draw(name, only=index), 0) for index in range(len(scene.things))),  # no crop holds the other thing
        scene.masks,
        prompts_for(wearers, scene.place),
    )


def write(name: str) -> None:
    """Draw one reference with its probes and line-ups, those of both together only of a pair, and write its folder."""
    reference, (place, *individuals) = draw_reference(name), SHIPPED[name]
    classes, concepts = reference.classes, range(len(reference.classes))
    folder = REFERENCES / name
    folder.mkdir(parents=True, exist_ok=True)
    reference.picture.save(folder / "reference.png")
    for index, mask, part in zip(concepts, reference.masks, reference.crops, strict=True):
        Image.fromarray(mask.astype(np.uint8) * 255).save(folder / concept_file("mask_{}.png", classes, index))
        part.save(folder / concept_file("crop_{}.png", classes, index))
    described = {
        "classes": classes,
        "place": place,
        "designs": [design_name(thing) for thing in draw(name).things],
        "hues": [hue or "the artist's" for _, _, hue in individuals],
        "prompts": asdict(reference.prompts),
    }
    described["probes"] = {}
    if len(set(classes)) == len(classes) == 2:
        described["probes"]["together"] = write_strip(draw_together(name, PROBE_SEED), folder / TOGETHER_STRIP)
    described["probes"]["alone"] = [
        write_strip(draw_alone(name, index, PROBE_SEED), folder / concept_file(ALONE_STRIP, classes, index))
        for index in concepts
    ]
    described["line_ups"] = [
        write_line_up(*draw_line_up(name, index, PROBE_SEED), folder / concept_file(LINE_UP, classes, index))
        for index in concepts
    ]
    (folder / "reference.json").write_text(json.dumps(described, indent=1) + "\n")


def write_strip(probes: Probes, path: Path) -> dict:
    """Write the pictures of one prompt side by side; returns what reference.json says of them."""
    save_strip(list(probes.pictures.values()), path)
    return {"prompt": probes.prompt, "kinds": list(probes.pictures)}


def write_line_up(things: Sequence[Thing], pictures: Sequence[Image.Image], path: Path) -> list[str]:
    """Write the pictures of a line-up side by side; returns what reference.json says of them: designs and colours."""
    save_strip(pictures, path)
    return [f"{design_name(thing)}, {colour_name(thing)}" for thing in things]


def save_strip(pictures: Sequence[Image.Image], path: Path) -> None:
    """Save pictures of SIDE px side by side as one."""
    strip = np.concatenate([np.asarray(picture) for picture in pictures], axis=1)  # (SIDE, n * SIDE, 3)
    Image.fromarray(strip).save(path)


def design_name(thing: Thing) -> str:
    """Whose drawing of what, such as "fluent-emoji/cat-face"."""
    return f"{thing.design.set}/{thing.design.name}"


def colour_name(thing: Thing) -> str:
    """The colour that a thing is painted in, such as "#35d9ce"."""
    return "the artist's" if thing.colour is None else "#" + "".join(f"{round(255 * v):02x}" for v in thing.colour)


def main() -> None:
    for name in SHIPPED:
        write(name)
        print(REFERENCES / name)


if __name__ == "__main__":
    run_main(main)
