"""One run measured in every way that this project knows, so that runs can be laid side by side.

Maps come from the reference picture under several noises, pictures from the plain prompt of each subject.
All runs are measured with the same noises and seeds, and their calibration terms with the same formula,
whatever they were trained with.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from diffusers import StableDiffusionPipeline

from disendiff_lite.config import Config
from disendiff_lite.evaluate.clip import Scorer
from disendiff_lite.evaluate.concepts import (
    calibration_terms,
    map_agreement,
    record_reference,
    tracked_maps,
    tracked_words,
)
from disendiff_lite.evaluate.pictures import SubjectScores, score_pictures
from disendiff_lite.evaluate.score import Score, paired_difference, pool, standard_error
from disendiff_lite.runs.generate import PictureSet, generate_set
from disendiff_lite.runs.references import Reference
from disendiff_lite.support.text import text_table


@dataclass(frozen=True, eq=False)  # arrays have no single answer to ==
class RunMeasures:
    """What was measured of one run.

    words: the tracked words. maps: (2N, h, w), theirs, the mean over the noises. map_scores: by name, see measure_maps.
    pictures: those of "combined", of each concept, and of each two of three. scores: of those pictures, one entry a
    subject.
    """

    words: list[str]
    maps: np.ndarray
    map_scores: dict[str, Score]
    pictures: dict[str, PictureSet]
    scores: list[SubjectScores]

    @property
    def picture_scores(self) -> dict[str, Score]:
        """By name: the margins and the image-alignment of single concepts, pooled, that of all together, and
        text-alignment.
        """
        alone = [each for each in self.scores if len(each.concepts) == 1]
        margins = [each.margin for each in alone if each.margin is not None]
        combined = [each.image for each in self.scores if each.subject == "combined"]
        together = {"image, combined": combined[0]} if combined else {}
        pooled = {
            "image, alone": pool([each.image for each in alone]),
            "text": pool([each.text for each in self.scores]),
        }
        return ({"own - other": pool(margins)} if margins else {}) | together | pooled

    @property
    def paper_scores(self) -> dict[str, Score]:
        """Image- and text-alignment as the paper reports them: combined, each concept, and the mean of these.

        Of three concepts those of each two follow, "cat and bird", which the mean leaves out.
        """
        papers = [each for each in self.scores if each.subject == "combined" or len(each.concepts) == 1]
        others = [each for each in self.scores if each not in papers]
        names = ["combined" if len(each.concepts) > 1 else f"concept {each.concepts[0] + 1}" for each in papers]
        rows = {}
        for kind in ("image", "text"):
            scores = [getattr(each, kind) for each in papers]
            rows |= {f"{kind}-alignment, {name}": score for name, score in zip(names, scores)}
            means = [sum(values) / len(values) for values in zip(*(score.values for score in scores))]
            rows[f"{kind}-alignment, mean"] = Score(tuple(means))
            rows |= {f"{kind}-alignment, {each.subject}": getattr(each, kind) for each in others}
        return rows

    def to_dict(self) -> dict:
        """Means, spreads and numbers of values as plain values."""
        plain = {name: {"mean": s.mean, "spread": s.spread, "n": len(s.values)} for name, s in self.map_scores.items()}
        return {"maps": plain, "pictures": {each.subject: each.to_dict() for each in self.scores}}


def measure_run(
    pipe: StableDiffusionPipeline,
    scorer: Scorer,
    reference: Reference,
    config: Config,
    *,
    count: int = 8,
    noises: int = 8,
    seed: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> RunMeasures:
    """Measure what a pipeline has learned of a reference.

    pipe: with a run's words and weights. count: pictures of each subject. noises: of the
        reference picture, for the maps.
    seed: of the pictures, and of the first noise; None takes the config's. progress: as for generate.generate_set.
    """
    seed = config.seed if seed is None else seed
    words, maps, map_scores = measure_maps(pipe, reference, config, noises=noises, seed=seed)
    modifiers = config.modifiers[: len(reference.classes)]
    pictures = generate_set(
        pipe, reference.classes, modifiers, config, count=count, seed=seed, contexts={}, progress=progress
    )
    scores = score_pictures(scorer, pictures.values(), reference, modifiers)
    return RunMeasures(words, maps, map_scores, pictures, scores)


def measure_maps(
    pipe: StableDiffusionPipeline, reference: Reference, config: Config, *, noises: int = 8, seed: int = 0
) -> tuple[list[str], np.ndarray, dict[str, Score]]:
    """The tracked words of a pipeline, their maps, and how these agree with each other and with the true masks.

    noises: how many noises the reference picture gets, from `seed` on; each gives maps of its own.

    Returns the words, their mean maps (2N, h, w), and Scores by name: "bind" and "separate", the calibration's terms
    (one value a noise), and, where masks are known, those of concepts.map_agreement (one value a noise and map).
    """
    records = [record_reference(pipe, reference, config, seed=seed + number) for number in range(noises)]
    maps = [tracked_maps(record) for record in records]  # each (2N, h, w)
    # Single concepts have no classes to separate.
    terms = [calibration_terms(each) for each in maps] if len(reference.classes) > 1 else []
    scores = {name: Score(tuple(term[name] for term in terms)) for name in (terms[0] if terms else ())}
    if reference.masks is not None:
        agreements = [map_agreement(each, reference.masks) for each in maps]
        scores |= {name: pool([each[name] for each in agreements]) for name in agreements[0]}
    return tracked_words(records[0]), np.mean(maps, axis=0), scores


def compare_table(rows: Mapping[str, Mapping[str, Score]]) -> str:
    """A table of text, a line a run and a column a measure: mean ± spread, and under the columns how many values each
    has.

    rows: run -> measure -> Score; a measure that a run lacks is "-".
    """
    counts = {}
    for scores in rows.values():
        for measure, score in scores.items():
            counts.setdefault(measure, set()).add(len(score.values))
    cells = {name: {measure: _pair(s.mean, s.spread) for measure, s in scores.items()} for name, scores in rows.items()}
    return _table(cells | {"n": {measure: "/".join(map(str, sorted(several))) for measure, several in counts.items()}})


def difference_table(rows: Mapping[str, Mapping[str, Score]], baseline: str) -> str:
    """How each run differs from one of them, value by value: mean ± standard error, marked *
    from two standard errors on.

    What all runs share, such as a noise that suits nobody, falls out, so that small differences show (see score.py).

    rows: run -> measure -> Score, measured alike. baseline: the run that is taken off the others.
    """
    cells = {}
    for name in (name for name in rows if name != baseline):
        differences = {
            measure: paired_difference(score, rows[baseline][measure]) for measure, score in rows[name].items()
        }
        cells[name] = {measure: _difference(score) for measure, score in differences.items()}
    return _table(cells)


def _difference(score: Score) -> str:
    error = standard_error(score)
    return _pair(score.mean, error, sign="+") + (" *" if abs(score.mean) >= 2 * error > 0 else "")


def _pair(mean: float, spread: float, sign: str = "") -> str:
    return f"{mean:{sign}.2f}" if math.isnan(spread) else f"{mean:{sign}.2f} ± {spread:.2f}"


def _table(cells: Mapping[str, Mapping[str, str]]) -> str:
    measures = list(dict.fromkeys(measure for row in cells.values() for measure in row))
    lines = [[name, *(row.get(measure, "-") for measure in measures)] for name, row in cells.items()]
    return text_table([["", *measures], *lines])
