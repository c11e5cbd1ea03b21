"""Reference pictures: the shipped ones with what is known of them, or one of one's own.

A folder of data/references holds `reference.png`, for each concept a `crop_cat.png` and a `mask_cat.png` (if there are
two of one class, `crop_dog_1.png` and `crop_dog_2.png`), and `reference.json` with the classes and the prompts. In a
prompt `{0}` stands for the first concept ("<new1> cat"), `{1}` for the second; `{modifier0}` is the modifier alone,
where other words stand before the class ("{modifier0} big cat").

The paper's own photographs have names such as "paper/cat_dog", once fetch-paper-data has brought them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from disendiff_lite.runs.folder import RunRecord, picture_hash
from disendiff_lite.runs.paper_data import is_fetched, paper_classes, paper_pairs, read_paper_pair
from disendiff_lite.support.errors import UserError
from disendiff_lite.support.files import read_json
from disendiff_lite.support.images import load_image
from disendiff_lite.support.paths import REFERENCES, check_shipped
from disendiff_lite.support.text import enumeration

# What a picture of one's own is asked for; {} becomes the concepts. It suits any class, in words that the embedded
# model knows.
PLACES = (
    "on the beach",
    "on the grass",
    "on the snow",
    "on a street at night",
    "in a room",
    "in the desert",
    "at sunset",
)
STYLES = ("a pencil drawing of a {}", "an old photo of a {}")
TOGETHER = ("photo of a {}", *(f"photo of a {{}} {place}" for place in PLACES), *STYLES)
ALONE = (*TOGETHER[:6], "photo of a small {}", "photo of a big {}", *STYLES)
FROM_PAPER = "paper/"  # before a pair's name


@dataclass(frozen=True)
class Prompts:
    """Prompts with `{0}`, `{1}`, ... for the concepts and `{modifier0}`, ... for their modifiers.

    combined: for all concepts together; none if there is only one. independent: for each concept alone, in their order.
    """

    combined: tuple[str, ...]
    independent: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Reference:
    """A reference picture as others use it.

    picture: RGB; the shipped ones have 64 px. crops: one RGB picture a concept. masks: bool (N, 64, 64). Of a picture
    of one's own, crops and masks are not known and None; of the paper's photographs, the masks.
    """

    name: str
    classes: tuple[str, ...]
    picture: Image.Image
    crops: tuple[Image.Image, ...] | None
    masks: np.ndarray | None
    prompts: Prompts


def number_concepts(together: Sequence[str], alone: Sequence[Sequence[str]]) -> Prompts:
    """Templates with {} as prompts for numbered concepts; "photo of a {}" for two becomes "photo of a {0} and {1}".

    alone: one list of templates a concept.
    """
    slots = [f"{{{index}}}" for index in range(len(alone))]
    combined = [template.replace("{}", enumeration(slots)) for template in together] if len(slots) > 1 else []
    independent = [
        tuple(template.replace("{}", slot) for template in templates) for slot, templates in zip(slots, alone)
    ]
    return Prompts(tuple(combined), tuple(independent))


def concept_name(classes: Sequence[str], index: int) -> str:
    """What one concept is called beside the others: its class, numbered ("dog 2") if the class comes more than once."""
    name = classes[index]
    return name if list(classes).count(name) == 1 else f"{name} {list(classes[: index + 1]).count(name)}"


def subject_name(classes: Sequence[str], concepts: Sequence[int]) -> str:
    """What a picture of some concepts shows: "combined" for all, else their names, "cat", "cat and bird"."""
    if 1 < len(concepts) == len(classes):
        return "combined"
    return enumeration([concept_name(classes, index) for index in concepts])


def concept_file(pattern: str, classes: Sequence[str], index: int) -> str:
    """The file of one concept of a shipped reference: "mask_{}.png" becomes "mask_cat.png", or "mask_dog_2.png"."""
    return pattern.format(concept_name(classes, index).replace(" ", "_"))


def reference_names() -> list[str]:
    """The names of the shipped reference pictures, such as "cat_dog"."""
    return sorted(path.parent.name for path in REFERENCES.glob("*/reference.json"))


def pair_names() -> list[str]:
    """The shipped reference pictures with two concepts of different classes."""
    classes = {name: load_reference(name).classes for name in reference_names()}
    return [name for name, both in classes.items() if len(both) == len(set(both)) == 2]


def load_reference(name: str) -> Reference:
    """A shipped reference picture by name, or one of the paper's, such as "paper/cat_dog".

    Raises UserError naming those there are, or, of the paper's, the command that fetches them.
    """
    check_shipped(REFERENCES)
    if name.startswith(FROM_PAPER):
        return _paper_reference(name)
    if name not in reference_names():
        raise UserError(f"There is no reference picture {name!r}: choose one of {', '.join(reference_names())}.")
    folder = REFERENCES / name
    described = read_json(folder / "reference.json", "is damaged: restore it from the repository.")
    classes, prompts = tuple(described["classes"]), described["prompts"]
    return Reference(
        name,
        classes,
        Image.open(folder / "reference.png").convert("RGB"),
        tuple(_opened("crop_{}.png", classes, index, folder).convert("RGB") for index in range(len(classes))),
        np.stack([np.asarray(_opened("mask_{}.png", classes, index, folder)) > 127 for index in range(len(classes))]),
        Prompts(tuple(prompts["combined"]), tuple(tuple(texts) for texts in prompts["independent"])),
    )


def own_reference(image: str | Path, classes: Sequence[str]) -> Reference:
    """A picture of one's own as a reference: its classes in the order of the concepts, and prompts for them.

    classes: one a concept; space around a name is dropped. Raises UserError for a picture that cannot be read.
    """
    classes = tuple(class_.strip() for class_ in classes)
    return Reference(
        Path(image).stem, classes, load_image(image), None, None, number_concepts(TOGETHER, [ALONE] * len(classes))
    )


def known_reference(record: RunRecord) -> Reference | None:
    """The shipped reference, or photograph of the paper, that a run was trained on, None if it was none of them."""
    photographs = [pair for pair in paper_pairs() if paper_classes(pair) == record.classes and is_fetched(pair)]
    references = map(load_reference, [*reference_names(), *(FROM_PAPER + pair for pair in photographs)])
    same = (
        found
        for found in references
        if found.classes == record.classes and picture_hash(found.picture) == record.picture
    )
    return next(same, None)


def _opened(pattern: str, classes: Sequence[str], index: int, folder: Path) -> Image.Image:
    return Image.open(folder / concept_file(pattern, classes, index))


def _paper_reference(name: str) -> Reference:
    pair = name.removeprefix(FROM_PAPER)
    if pair not in paper_pairs():
        known = ", ".join(FROM_PAPER + each for each in paper_pairs())
        raise UserError(f"There is no photograph {name!r}: choose one of {known}.")
    found = read_paper_pair(pair)
    combined, *independent = [[_numbered(prompt, found.classes) for prompt in prompts] for prompts in found.prompts]
    return Reference(
        name,
        found.classes,
        load_image(found.picture),
        tuple(map(load_image, found.crops)),
        None,
        Prompts(tuple(combined), tuple(map(tuple, independent))),
    )


def _numbered(prompt: str, classes: Sequence[str]) -> str:
    """The prompt with places for concepts: {1} for "<new2> dog", and {modifier1} small dog for "<new2> small dog"."""
    for index, class_ in enumerate(classes):
        modifier = f"<new{index + 1}>"
        prompt = prompt.replace(f"{modifier} {class_}", f"{{{index}}}").replace(modifier, f"{{modifier{index}}}")
    return prompt
