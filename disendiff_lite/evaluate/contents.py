"""What is in the pictures: is the other thing there unasked, is one missing, does each look like itself?

The judge says which class covers which cell of a picture, the scorer whether a thing that was found looks like its own
individual or like the other one. So these measures exist for the emoji world, whose judge is known to be right on
renderings; they are tested on the probes, pictures whose truth is known.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from disendiff_lite.evaluate.clip import Scorer, embed_pictures
from disendiff_lite.evaluate.judge import Findings, Judge, judge_pictures
from disendiff_lite.evaluate.probes import GREY, LEAKED, RIGHT, line_up, line_up_designs, probes_alone
from disendiff_lite.evaluate.score import Score, pool
from disendiff_lite.runs.generate import PictureSet
from disendiff_lite.runs.references import Reference


def measure_contents(
    judge: Judge, scorer: Scorer, sets: Mapping[str, PictureSet], reference: Reference
) -> dict[str, Score]:
    """What is in the pictures of all concepts, of each alone, and, of three, of each two.

    sets: such as generate.generate_set gives. reference: a shipped one. The judge tells things by their class, so of
    two concepts of one class only "own thing", "own looks" and "recognised" can be measured.

    Returns Scores of zeros and ones, one value a picture, by name; those of concepts alone pooled and for each concept,
    as "own thing, concept 1":
        "own thing" and "co-occurrence": alone, the asked thing is there; another concept's class is there, too;
        "omission": all together, at least one is missing;
        "own looks": alone, it is nearer to the probe as asked than to the one in the other's colour (looks_share above
            a half);
        "recognised": alone, it is there and looks like its own individual, not like another of its class (recognised);
        "success", "mix-up": all together, one value a concept: it is there and looks like its own individual
            (own_looks); it is there and does not. What is left is missing;
        "omission, two of three" and so on: the same of the pictures of two of three concepts, pooled, and
            "co-occurrence, two of three".
    Raises UserError if there are no probes of the reference.
    """
    scores, apart = {}, len(set(reference.classes)) == len(reference.classes)
    for each in (each for each in sets.values() if len(each.request.concepts) == 1):
        (index,) = each.request.concepts
        found = found_classes(judge, each.pictures, reference.classes)  # (P, N)
        looks = np.array(looks_share(scorer, each.pictures, reference, index).values) > 0.5  # (P,)
        parts = {
            "own thing": found[:, index],
            **({"co-occurrence": np.delete(found, index, axis=1).any(axis=1)} if apart else {}),
            "own looks": looks,
            "recognised": recognised(judge, scorer, each.pictures, reference, index),
        }
        scores |= {f"{name}, concept {index + 1}": _score(values) for name, values in parts.items()}
    for name in ("own thing", "co-occurrence", "own looks", "recognised"):
        several = [score for key, score in scores.items() if key.startswith(name)]
        scores |= {name: pool(several)} if several else {}
    parts = {}
    for together in (each for each in sets.values() if apart and len(each.request.concepts) > 1):
        for name, score in _together(judge, scorer, together, reference).items():
            parts.setdefault(name, []).append(score)
    return scores | {name: pool(several) for name, several in parts.items()}


def found_classes(judge: Judge, pictures: Sequence[Image.Image], classes: Sequence[str]) -> np.ndarray:
    """Whether each class is found in each picture of 64 px, bool (P, N)."""
    findings = _judged(judge, pictures)
    return np.stack([findings.shows(name) for name in classes], axis=1)


def own_looks(judge: Judge, scorer: Scorer, pictures: Sequence[Image.Image], reference: Reference) -> np.ndarray:
    """Whether each thing looks like its own individual, bool (P, N); false where it is not found.

    It is compared with its own individual, with the others, and with the probes of its own class in the others'
    colours, so that a cat in the dog's colour is no success. Things are cut out by the judge's cells, individuals by
    their masks: the cat's crop holds no dog's ear. Raises UserError if there are no probes of the reference.
    """
    individuals = [cut_out(reference.picture, mask) for mask in reference.masks]
    own = np.zeros((len(pictures), len(reference.classes)), dtype=bool)
    for index, class_ in enumerate(reference.classes):
        leaked = _leaked(reference.name, index)
        cut = dict(enumerate(leaked)) | dict(found_things(judge, leaked, class_))
        own[:, index] = _nearest(judge, scorer, pictures, class_, [*individuals, *cut.values()]) == index
    return own


def recognised(
    judge: Judge, scorer: Scorer, pictures: Sequence[Image.Image], reference: Reference, index: int
) -> np.ndarray:
    """Whether a concept's thing is nearer to its individual than to all of the RIVALS of its class, bool (P,).

    False where the thing is not found; by chance it is true of 1 / (1 + RIVALS). index: of the concept. Raises
    UserError as own_looks does.
    """
    return _nearest(judge, scorer, pictures, reference.classes[index], line_up(reference.name, index)) == 0


def recognised_by_design(
    judge: Judge, scorer: Scorer, pictures: Sequence[Image.Image], reference: Reference, index: int
) -> np.ndarray:
    """As recognised, but one of its individual's design in another colour counts as well, bool (P,).

    By chance it is true as often as that design comes in the line-up.
    """
    designs = np.array(line_up_designs(reference.name, index))
    nearest = _nearest(judge, scorer, pictures, reference.classes[index], line_up(reference.name, index))  # (P,)
    return (nearest >= 0) & (designs[nearest] == designs[0])


def found_things(judge: Judge, pictures: Sequence[Image.Image], class_: str) -> list[tuple[int, Image.Image]]:
    """The things of a class, cut out, each with the number of its picture; several in one picture count as one."""
    findings = _judged(judge, pictures)
    cells = findings.cells == findings.classes.index(class_)  # (P, 8, 8)
    rows = np.flatnonzero(cells.any(axis=(1, 2)))
    return [(int(row), cut_out(pictures[row], _enlarged(cells[row], pictures[row].size))) for row in rows]


def looks_scale(scorer: Scorer, reference: Reference, index: int) -> tuple[float, float]:
    """The margins (likeness to the own crop minus to the other's) between which a concept's pictures are placed.

    Returns that of the probe in the other's colour (of several the greatest), and that of the probe as asked. Raises
    UserError if there are no probes of the reference.
    """
    right = probes_alone(reference.name, index).pictures[RIGHT]
    *leaked, right = _margins(scorer, [*_leaked(reference.name, index), right], reference, index).tolist()
    return max(leaked), right


def looks_share(scorer: Scorer, pictures: Sequence[Image.Image], reference: Reference, index: int) -> Score:
    """Where pictures of one concept alone lie between the other's colour (0) and its own looks (1), a value each.

    Below 0 they are further off than a colour: a blend, the other thing itself. index: of the concept. Raises
    UserError as looks_scale does.
    """
    low, high = looks_scale(scorer, reference, index)
    return Score(tuple(((_margins(scorer, pictures, reference, index) - low) / (high - low)).tolist()))


def cut_out(picture: Image.Image, mask: np.ndarray) -> Image.Image:
    """The part of a picture that a thing takes, all else grey. mask: bool (height, width), somewhere true."""
    rows, columns = np.nonzero(mask)
    alone = Image.composite(picture, Image.new("RGB", picture.size, GREY), Image.fromarray(mask))
    return alone.crop((int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1))


def _enlarged(cells: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return np.asarray(Image.fromarray(cells).resize(size, Image.Resampling.NEAREST))


def _leaked(name: str, index: int) -> list[Image.Image]:
    # The probes of a thing in the colour of each other one.
    return [picture for kind, picture in probes_alone(name, index).pictures.items() if kind in LEAKED]


def _together(judge: Judge, scorer: Scorer, drawn: PictureSet, reference: Reference) -> dict[str, Score]:
    # Of pictures of several concepts, all of different classes: what of them is there, and what besides.
    asked, several = list(drawn.request.concepts), len(reference.classes)
    found = found_classes(judge, drawn.pictures, reference.classes)  # (P, N)
    own = own_looks(judge, scorer, drawn.pictures, reference)  # (P, N)
    there, like = found[:, asked], own[:, asked]
    scores = {"omission": ~there.all(axis=1), "success": (there & like).ravel(), "mix-up": (there & ~like).ravel()}
    if len(asked) == several:
        return {name: _score(values) for name, values in scores.items()}
    scores["co-occurrence"] = np.delete(found, asked, axis=1).any(axis=1)
    words = {2: "two", 3: "three"}
    part = f"{words.get(len(asked), len(asked))} of {words.get(several, several)}"
    return {f"{name}, {part}": _score(values) for name, values in scores.items()}


def _nearest(
    judge: Judge, scorer: Scorer, pictures: Sequence[Image.Image], class_: str, known: Sequence[Image.Image]
) -> np.ndarray:
    # Index of the known picture that is most like the thing of each picture; int (P,), -1 where it is not found.
    nearest, things = np.full(len(pictures), -1), found_things(judge, pictures, class_)
    if things:
        cosines = embed_pictures(scorer, [thing for _, thing in things]) @ embed_pictures(scorer, known).T
        nearest[[row for row, _ in things]] = cosines.argmax(dim=1).numpy()  # of (found, K)
    return nearest


def _margins(scorer: Scorer, pictures: Sequence[Image.Image], reference: Reference, index: int) -> np.ndarray:
    cosines = embed_pictures(scorer, pictures) @ embed_pictures(scorer, reference.crops).T  # (P, N)
    others = np.delete(cosines.numpy(), index, axis=1)
    return cosines[:, index].numpy() - others.max(axis=1)


def _judged(judge: Judge, pictures: Sequence[Image.Image]) -> Findings:
    return judge_pictures(judge, np.stack([np.asarray(picture) for picture in pictures]))


def _score(values: np.ndarray) -> Score:
    return Score(tuple(values.astype(float).tolist()))
