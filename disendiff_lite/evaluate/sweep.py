"""The sweep: pairs x methods x seeds, each cell an independent run that is trained and measured; resumable.

    <out>/cells/<pair>/<method>/<seed>.json    what was measured, with the settings that it was measured with
    <out>/prior/<pair>-<seed>/                 pictures of the plain classes, shared by the methods
    <out>/measures.csv                         a row a run and measure: what tables and figures are made from

All methods get the same seeds and noises, so that runs are compared picture by picture. joblib runs the cells, on this
machine or, with its other backends, on a cluster.
"""

import csv
import dataclasses
import io
import itertools
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import joblib

from disendiff_lite.config import Config
from disendiff_lite.evaluate.ablation import VARIANTS, variant_folder
from disendiff_lite.evaluate.clip import SCORERS, Scorer, embed_pictures, load_scorer
from disendiff_lite.evaluate.compare import measure_run
from disendiff_lite.evaluate.contents import measure_contents
from disendiff_lite.evaluate.judge import SIDE, load_judge
from disendiff_lite.evaluate.probes import has_probes
from disendiff_lite.evaluate.score import Score
from disendiff_lite.models import load_pipeline, preset_for, weights_hash
from disendiff_lite.presets import METHODS
from disendiff_lite.runs.generate import generate
from disendiff_lite.runs.prior import make_prior
from disendiff_lite.runs.references import Reference, load_reference
from disendiff_lite.runs.train import train
from disendiff_lite.support.errors import UserError, check_name, first_line
from disendiff_lite.support.files import read_json, write_text
from disendiff_lite.support.lock import Claim

PAUSE = 0.5  # seconds between two looks whether a folder is free
DAMAGED = "is damaged: delete it, and the sweep makes it again."
COLUMNS = ("pair", "method", "seed", "measure", "mean", "spread", "n")


@dataclass(frozen=True, order=True)
class Cell:
    """One run of a sweep. method: a name of METHOD_CHANGES."""

    pair: str
    method: str
    seed: int

    def file(self, out: Path) -> Path:
        return out / "cells" / self.pair / self.method / f"{self.seed}.json"


@dataclass(frozen=True)
class SweepSettings:
    """What all cells share.

    model: as load_pipeline takes it. changes: settings of Config by name. count: pictures of each subject, of which a
        pair has three.
    noises: of the reference picture, for the maps. plain: pictures of each plain class, for language drift.
    """

    model: str = "emoji"
    changes: Mapping[str, object] = dataclasses.field(default_factory=dict)
    count: int = 20
    noises: int = 8
    plain: int = 8

    def config(self, cell: Cell) -> Config:
        """The settings of one cell's run. Raises UserError for a method or a setting that does not exist."""
        check_name(cell.method, METHOD_CHANGES, "method")
        return preset_for(self.model)(seed=cell.seed, **{**METHOD_CHANGES[cell.method], **self.changes})


# What each method of a sweep changes in the preset: the four of the paper, then the arms of its ablation.
METHOD_CHANGES: dict[str, dict] = {
    **{method: {"method": method} for method in METHODS},
    **{
        variant_folder("", name).name: changes
        for name, changes in VARIANTS.items()
        if name not in ("full", "Custom Diffusion")
    },
    "without_gaussian": {"smooth": False},  # and so without suppression, as in the published code
    "suppressed_twice": {"suppress_twice": True},
    "all_scales": {"all_scales": True},
    "queries_too": {"trained": "qkv"},
    "values_only": {"trained": "v"},
    "oracle": {"class_maps": "masks"},
}


def plan(pairs: Sequence[str], methods: Sequence[str], seeds: Sequence[int]) -> list[Cell]:
    """The cells, seed by seed, so that an early end leaves whole seeds. Raises UserError for unknown names."""
    for pair in pairs:
        load_reference(pair)
    for method in methods:
        check_name(method, METHOD_CHANGES, "method")
    if not (pairs and methods and seeds):
        raise UserError("A sweep needs at least one pair, one method and one seed: name some.")
    order = itertools.product(dict.fromkeys(seeds), dict.fromkeys(pairs), dict.fromkeys(methods))
    return [Cell(pair, method, seed) for seed, pair, method in order]


def run_sweep(
    cells: Sequence[Cell],
    settings: SweepSettings,
    out: Path,
    *,
    jobs: int,
    backend: str = "loky",
    progress: Callable[[Cell, str | None, int, int], None] | None = None,
) -> dict[Cell, str]:
    """Train and measure the cells that `out` does not hold yet, several at a time, and write measures.csv.

    jobs: at a time, one thread each. backend: of joblib; "loky" is processes on this machine.
    progress: called after each cell with it, with its error or None, and with how many are done and how many there are.

    A cell that fails does not stop the others. Returns the errors by cell. Raises UserError, before anything runs, if
    `out` holds one of the cells made with other settings, or a setting is not right.
    """
    wanted = {cell: cell_facts(cell, settings) for cell in cells}
    missing = [cell for cell in cells if not _is_done(cell.file(out), wanted[cell])]
    done, failures = len(cells) - len(missing), {}
    # Processes of this machine share its cores; a cluster's workers have threads of their own.
    threads = {"inner_max_num_threads": 1} if backend == "loky" else {}
    with joblib.parallel_config(backend=backend, **threads):
        parallel = joblib.Parallel(n_jobs=jobs, return_as="generator_unordered")
        tasks = (joblib.delayed(run_cell_safely)(cell, settings, out / "prior") for cell in missing)
        for cell, measures, error in parallel(tasks):
            done += 1
            if error is None:
                write_text(cell.file(out), json.dumps({**wanted[cell], "measures": measures}, indent=1) + "\n")
                write_measures(out)
            else:
                failures[cell] = error
            if progress is not None:
                progress(cell, error, done, len(cells))
    write_measures(out)
    return failures


def run_cell_safely(cell: Cell, settings: SweepSettings, prior: Path) -> tuple[Cell, dict | None, str | None]:
    """run_cell, with an error as one line of text instead of an exception."""
    try:
        return cell, run_cell(cell, settings, prior), None
    except Exception as error:  # whatever it is, the other cells go on
        return cell, None, f"{type(error).__name__}: {first_line(error)}"


def run_cell(cell: Cell, settings: SweepSettings, prior: Path) -> dict[str, dict[str, float]]:
    """Train one run and measure it.

    prior: a folder for the pictures of the plain classes. Returns by measure {"mean", "spread", "n"}.
    """
    config, reference = settings.config(cell), load_reference(cell.pair)
    pipe, scorer = load_pipeline(settings.model), load_scorer(SCORERS[config.preset])
    before = plain_pictures(pipe, reference, config, settings.plain)
    pictures = None
    if config.prior_probability > 0:
        with _alone_in(prior / f"{cell.pair}-{cell.seed}") as folder:
            pictures = make_prior(pipe, reference.classes, config, folder)
    for _ in train(pipe, reference.picture, reference.classes, config, prior=pictures, masks=reference.masks):
        pass
    run = measure_run(pipe, scorer, reference, config, count=settings.count, noises=settings.noises)
    scores = run.map_scores | run.paper_scores | run.picture_scores
    # The judge knows the emoji world alone, no photographs, and pictures of its own size.
    if has_probes(reference.name) and config.resolution == SIDE:
        scores |= measure_contents(load_judge(), scorer, run.pictures, reference)
    scores["language drift"] = language_drift(scorer, before, plain_pictures(pipe, reference, config, settings.plain))
    return {name: {"mean": s.mean, "spread": s.spread, "n": len(s.values)} for name, s in scores.items()}


def plain_pictures(pipe, reference: Reference, config: Config, count: int) -> list:
    """Pictures of each plain class, "photo of a cat", without modifiers; the same noises whenever they are drawn."""
    prompts = [config.template.replace("{}", class_) for class_ in reference.classes]
    return [picture for prompt in prompts for picture in generate(pipe, prompt, count=count, seed=1, config=config)]


def language_drift(scorer: Scorer, before: Sequence, after: Sequence) -> Score:
    """How far pictures of the plain classes moved by the training: 1 - cosine of each with itself before; 0 for not."""
    cosines = (embed_pictures(scorer, before) * embed_pictures(scorer, after)).sum(dim=1)  # (P,)
    return Score(tuple((1 - cosines).tolist()))


def cell_facts(cell: Cell, settings: SweepSettings) -> dict:
    """What decides a cell's measures: its settings, the pictures drawn of it, the model's weights."""
    counts = {name: getattr(settings, name) for name in ("count", "noises", "plain")}
    config = settings.config(cell).to_dict()
    return {**dataclasses.asdict(cell), "config": config, **counts, "weights": weights_hash(settings.model)}


def write_measures(out: Path) -> Path:
    """Write measures.csv from all cells that `out` holds, whole or not at all."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    for found in _cells_of(out):
        for name, numbers in found["measures"].items():
            values = (f"{numbers['mean']:.6g}", f"{numbers['spread']:.6g}", numbers["n"])
            writer.writerow((found["pair"], found["method"], found["seed"], name, *values))
    write_text(out / "measures.csv", file.getvalue())
    return out / "measures.csv"


@contextmanager
def _alone_in(folder: Path) -> Iterator[Path]:
    """Wait until no other cell is in the folder: the methods of a pair and seed share it; the first fills it."""
    folder.mkdir(parents=True, exist_ok=True)
    while not (claim := Claim(folder / ".lock")).taken:
        claim.release()
        time.sleep(PAUSE)
    try:
        yield folder
    finally:
        claim.release()


def _cells_of(out: Path) -> Iterator[dict]:
    for path in sorted((out / "cells").rglob("*.json")):  # the name of a pair may have a folder: paper/cat_dog
        yield read_json(path, DAMAGED)


def _is_done(path: Path, facts: Mapping) -> bool:
    if not path.exists():
        return False
    held = read_json(path, DAMAGED)
    held["config"] = Config.from_dict(held.get("config", {})).to_dict()  # with settings that there were not then
    different = [name for name, value in facts.items() if held.get(name) != value]
    if different:
        raise UserError(
            f"{path} was made with another {', '.join(different)}: choose another folder for this sweep, or delete it."
        )
    return True
