"""Edited pictures as one grid, and the command that draws it for a run and counts which edits succeeded.

    python -m disendiff_lite.show.editing runs/cat_dog [--count 16]

writes edits.png into the run's folder and prints the table of evaluate.edit_table.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from disendiff_lite.config import Config
from disendiff_lite.evaluate.clip import SCORERS, load_scorer
from disendiff_lite.evaluate.editing import EditedPictures, draw_edits, edit_table, measure_edits
from disendiff_lite.evaluate.judge import SIDE, load_judge
from disendiff_lite.evaluate.probes import has_probes
from disendiff_lite.models import load_pipeline, preset_for
from disendiff_lite.runs.folder import model_of_run, read_run
from disendiff_lite.runs.learned import load_learned
from disendiff_lite.runs.references import Reference, concept_name, known_reference
from disendiff_lite.show.maps import plot_pictures
from disendiff_lite.support.errors import UserError, run_main
from disendiff_lite.support.files import replacing
from disendiff_lite.support.progress import progress_callback

FIGURE = "edits.png"


def plot_edits(
    drawn: Sequence[EditedPictures], reference: Reference, number: int = 0, *, ax: Axes | None = None
) -> Figure:
    """One grid: a row a concept with its crop in front, a column an edit; an edit that does not suit it stays empty.

    drawn: of evaluate.draw_edits. number: which picture of each edit, from 0.
    """
    names = list(dict.fromkeys(each.edit.name for each in drawn))
    shown = {(each.concept, each.edit.name): each for each in drawn}
    concepts = sorted({each.concept for each in drawn})
    empty = np.full((64, 64, 3), 255, dtype=np.uint8)
    pictures, titles = [], []
    for concept in concepts:
        row = [shown.get((concept, name)) for name in names]
        pictures += [reference.crops[concept], *(each.pictures[number] if each else empty for each in row)]
        titles += ["learned from", *(each.prompt if each else "" for each in row)]
    rows = [concept_name(reference.classes, concept) for concept in concepts]
    return plot_pictures(pictures, titles, columns=1 + len(names), row_titles=rows, ax=ax)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the folder of a finished run on a shipped picture")
    parser.add_argument("--count", type=int, default=8, help="pictures of each edit and concept (default %(default)s)")
    parser.add_argument("--seed", type=int, help="of the pictures (default: the run's)")
    parser.add_argument("--model", help="a folder or a file (default: the one that the run was trained on)")
    options = parser.parse_args()
    if options.count < 1:
        raise UserError("There must be at least 1 picture of each edit: give --count 8.")
    record = read_run(options.run)
    reference = known_reference(record)
    if reference is None or not has_probes(reference.name):
        raise UserError(
            f"The run in {options.run} is on no shipped picture, and edits are judged on those:"
            " train with --pair cat_dog."
        )
    config = Config.load(options.run / "config.json")
    if config.resolution != SIDE:
        raise UserError(
            f"The run in {options.run} draws pictures of {config.resolution} px, and edits are judged at {SIDE} px:"
            " train on the embedded model."
        )
    model = model_of_run(options.run, record, options.model)
    pipe, scorer = load_pipeline(model), load_scorer(SCORERS[preset_for(model)().preset])
    load_learned(pipe, options.run)
    show = progress_callback("drawing")
    drawn = draw_edits(pipe, reference, record.modifiers, config, count=options.count, seed=options.seed, progress=show)
    print(edit_table(measure_edits(load_judge(), scorer, drawn, reference)))
    with replacing(options.run / FIGURE) as temporary:
        plot_edits(drawn, reference).savefig(temporary, format="png", dpi=150, bbox_inches="tight")
    print(options.run / FIGURE)


if __name__ == "__main__":
    run_main(main)
