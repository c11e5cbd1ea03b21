"""Editing: learned concepts asked for in ways that the reference does not show (the paper's Fig. 5), and judged.

An edit has succeeded where the judge finds what was asked for AND the concept is still recognised among others of its
class. Each of the two alone is easy: a model that forgot the concept follows every prompt, and one that copies the
reference keeps every concept. An edit of colour or style takes away the colour that the concept was known by: there it
has to be recognised by its design alone, which by chance is true more often.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from diffusers import StableDiffusionPipeline
from PIL import Image

from disendiff_lite.config import Config
from disendiff_lite.evaluate.clip import Scorer
from disendiff_lite.evaluate.contents import recognised, recognised_by_design
from disendiff_lite.evaluate.intervals import wilson
from disendiff_lite.evaluate.judge import SMALL_BELOW, Judge, judge_pictures
from disendiff_lite.evaluate.probes import has_probes, no_probes
from disendiff_lite.evaluate.score import Score, pool
from disendiff_lite.runs.generate import draw_pictures
from disendiff_lite.runs.references import Reference
from disendiff_lite.sampling import picture_seeds
from disendiff_lite.support.text import text_table
from disendiff_lite.tokens import class_caption, compose_prompt

SCENES = {"snow": "on the snow", "street": "on a street at night"}  # the first that the reference does not show
ADDED = ("car", "house")  # the first that is not among the concepts
COLOUR, WORN, STYLE = "orange", "sunglasses", "pencil"
BY_DESIGN = ("colour", "style")  # edits that take away a concept's colour
MEASURES = ("edit found", "recognised", "both")


@dataclass(frozen=True)
class Edit:
    """One way of asking for a concept.

    name: "none", "scene", "accessory", "colour", "size", "style", "added object" or "plain class". asked: what the
    judge should find, a word of its labels; of "plain class" the class of another concept. template: with one {}.
    """

    name: str
    asked: str
    template: str


@dataclass(frozen=True)
class EditedPictures:
    """The pictures of one concept, by its number from 0, under one edit. prompt: with the modifier."""

    edit: Edit
    concept: int
    prompt: str
    pictures: list[Image.Image]


def edits_of(reference: Reference, index: int) -> list[Edit]:
    """The edits that suit one concept, in the order of a figure's columns.

    Without "accessory" if none of the reference's prompts has the concept wear something, as of a lamp; without "plain
    class" if there is no other class. index: of the concept.
    """
    classes, prompts = reference.classes, reference.prompts.independent[index]
    scene = next(place for place, phrase in SCENES.items() if any(phrase in prompt for prompt in prompts))
    added = next(class_ for class_ in ADDED if class_ not in classes)
    others = [class_ for class_ in (*classes[index + 1 :], *classes[:index]) if class_ != classes[index]]
    edits = [Edit("none", classes[index], "photo of a {}"), Edit("scene", scene, f"photo of a {{}} {SCENES[scene]}")]
    if any("wearing" in prompt for prompt in prompts):
        edits.append(Edit("accessory", WORN, f"photo of a {{}} wearing {WORN}"))
    edits.append(Edit("colour", COLOUR, f"photo of {class_caption([COLOUR])} {{}}"))
    edits.append(Edit("size", "small", "photo of a small {}"))
    edits.append(Edit("style", STYLE, f"a {STYLE} drawing of a {{}}"))
    edits.append(Edit("added object", added, f"photo of a {{}} and {class_caption([added])}"))
    if others:
        edits.append(Edit("plain class", others[0], f"photo of a {{}} and {class_caption(others[:1])}"))
    return edits


def draw_edits(
    pipe: StableDiffusionPipeline,
    reference: Reference,
    modifiers: Sequence[str],
    config: Config,
    *,
    count: int = 4,
    seed: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[EditedPictures]:
    """Draw every concept under every edit that suits it, all from the same noises.

    pipe: with what a run learned of the reference. modifiers: the run's. count: pictures of each. seed, config,
        progress: as for generate.generate. Raises UserError as it does.
    """
    asked = [(edit, index) for index in range(len(reference.classes)) for edit in edits_of(reference, index)]
    prompts = [compose_prompt([reference.classes[i]], [modifiers[i]], edit.template) for edit, i in asked]
    seeds = picture_seeds(config.seed if seed is None else seed, count) * len(asked)
    repeated = [prompt for prompt in prompts for _ in range(count)]
    pictures = list(draw_pictures(pipe, repeated, seeds, config, progress=progress))
    return [
        EditedPictures(edit, index, prompt, pictures[number * count : (number + 1) * count])
        for number, ((edit, index), prompt) in enumerate(zip(asked, prompts))
    ]


def measure_edits(
    judge: Judge, scorer: Scorer, drawn: Sequence[EditedPictures], reference: Reference
) -> dict[str, dict[str, Score]]:
    """For each edit, over all concepts: "edit found", "recognised", and "both", zeros and ones, one value a picture.

    Colour, accessory and size are those of the concept's thing, and not found where it is not. A plain class is found
    if a thing of it is there that is not recognised as the learned one; that it took the concept's colour does not
    count. Raises UserError if there are no line-ups of the reference.
    """
    if not has_probes(reference.name):
        raise no_probes(reference.name)
    scores = {}
    for each in drawn:
        found = find_edit(judge, scorer, each, reference)
        recognise = recognised_by_design if each.edit.name in BY_DESIGN else recognised
        known = recognise(judge, scorer, each.pictures, reference, each.concept)
        for measure, values in zip(MEASURES, (found, known, found & known)):
            score = Score(tuple(values.astype(float).tolist()))
            scores.setdefault(each.edit.name, {}).setdefault(measure, []).append(score)
    return {name: {measure: pool(several) for measure, several in parts.items()} for name, parts in scores.items()}


def find_edit(judge: Judge, scorer: Scorer, drawn: EditedPictures, reference: Reference) -> np.ndarray:
    """Whether the judge finds in each picture what its edit asked for, bool (P,); see measure_edits."""
    labels, asked = judge.labels, drawn.edit.asked
    findings = judge_pictures(judge, np.stack([np.asarray(picture) for picture in drawn.pictures]))
    class_ = reference.classes[drawn.concept]
    there, column = findings.shows(class_), findings.classes.index(class_)
    match drawn.edit.name:
        case "scene":
            return findings.places == labels.places.index(asked)
        case "style":
            return findings.styles == labels.styles.index(asked)
        case "accessory":
            return there & (findings.accessories[:, column] == labels.accessories.index(asked))
        case "colour":
            return there & (findings.colours[:, column] == labels.colours.index(asked))
        case "size":
            return there & (findings.sizes[:, column] < SMALL_BELOW)
        case "plain class":
            learned = recognised(judge, scorer, drawn.pictures, reference, reference.classes.index(asked))
            return findings.shows(asked) & ~learned
    return findings.shows(asked)


def edit_table(scores: Mapping[str, Mapping[str, Score]]) -> str:
    """The shares of measure_edits as a table of text, a line an edit, each with its 95 % interval."""
    rows = [["edit", *MEASURES, "pictures"]]
    for name, measures in scores.items():
        count = len(measures["both"].values)
        rows.append([name, *(_share(measures[measure]) for measure in MEASURES), str(count)])
    return text_table(rows)


def _share(score: Score) -> str:
    low, high = wilson(round(sum(score.values)), len(score.values))
    return f"{score.mean:.2f} ({low:.2f} to {high:.2f})"
