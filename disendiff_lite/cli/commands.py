"""What each verb of the command line does; the verbs' arguments are described in verbs.py."""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from diffusers import StableDiffusionPipeline
from PIL import Image

from disendiff_lite.cli.results import file_stem, save_scores
from disendiff_lite.config import PRESETS, Config, config_changes, emoji
from disendiff_lite.evaluate.clip import SCORERS, load_scorer
from disendiff_lite.evaluate.pictures import score_run, score_table
from disendiff_lite.models import absolute_model, is_inpainting, load_pipeline, preset_for
from disendiff_lite.runs.folder import RunRecord, check_same, holds_run, model_of_run, picture_hash, read_run
from disendiff_lite.runs.generate import Request, prompt_set
from disendiff_lite.runs.learned import load_learned
from disendiff_lite.runs.references import known_reference, load_reference, own_reference
from disendiff_lite.runs.train import train as train_run
from disendiff_lite.sampling import SAMPLING, check_sampling
from disendiff_lite.support.errors import UserError
from disendiff_lite.support.files import file_names
from disendiff_lite.support.images import load_image
from disendiff_lite.support.lock import check_unclaimed, sole_writer
from disendiff_lite.support.progress import progress, progress_callback
from disendiff_lite.support.typed import typed_settings
from disendiff_lite.tokens import check_concepts, class_caption

if TYPE_CHECKING:
    from disendiff_lite.report.report import Order


def train(args: argparse.Namespace) -> None:
    """Learn the concepts of one picture, or go on where a run was interrupted; prints the run's folder."""
    picture, classes, name = _source(args)
    config = _config(args)
    check_concepts(classes, config.modifiers)
    run_dir = Path(args.run_dir or _default_folder(name, config.method))
    finished = holds_run(run_dir) and read_run(run_dir).finished
    pipe = load_pipeline(args.model, args.device)
    drawing = progress_callback(f'drawing pictures of "{class_caption(classes)}"')
    own = {"prompt": args.prompt, "run_dir": run_dir, "prior": args.prior, "prior_progress": drawing}
    masks = load_reference(args.pair).masks if args.pair else None
    records = train_run(pipe, picture, classes, config, masks=masks, **own)
    steps = [record.skipped for record in progress(records, config.steps)]
    if any(steps):
        say(f"{sum(steps)} of {len(steps)} steps were skipped: their gradients overflowed in float16")
    if not steps:
        say(
            "nothing to do: this run is finished"
            if finished
            else "all steps were done before: the results are written now"
        )
    print(run_dir)


def score(args: argparse.Namespace) -> None:
    """Measure a run; prints a table and writes scores.json into the run's folder."""
    record = read_run(args.run)
    known = known_reference(record)
    reference = known or own_reference(Path(args.run, "reference.png"), record.classes)
    if args.crops is not None:
        crops = tuple(load_image(path) for given in args.crops for path in file_names(given))
        if len(crops) != len(record.classes):
            raise UserError(f"There are {len(crops)} crops for {', '.join(record.classes)}: give one picture of each.")
        reference = dataclasses.replace(reference, crops=crops)
    pipe, record, config = learned_pipeline(args)
    model = model_of_run(args.run, record, args.model)
    scorer = load_scorer(args.scorer or SCORERS[preset_for(model)().preset], args.device)
    scores = score_run(
        pipe,
        scorer,
        reference,
        record,
        config,
        requests=run_requests([record], config) if known is None else None,
        count=args.count,
        progress=progress_callback("scoring"),
    )
    print(score_table(scores))  # first of all: the folder may be one that can only be read
    if reference.crops is None:
        say("single concepts were compared with the whole reference: give --crops to compare them with their own part")
    settings = {"scorer": scorer.name, "count": args.count, "seed": config.seed, "crops": reference.crops is not None}
    settings |= {name: getattr(config, name) for name in SAMPLING}
    path = Path(args.run, "scores.json")
    if kept := save_scores(path, settings, {found.subject: found.to_dict() for found in scores}):
        say(f"the scores that were there, with other settings, are now in {kept}")
    print(path)


def report(args: argparse.Namespace) -> int:
    """Execute notebooks and write the report; prints where it lies. Returns 1 if a cell failed."""
    # papermill and nbconvert take a second to import, which the other verbs should not wait for.
    from disendiff_lite.report.report import make_report

    if args.all_pairs:
        return _report_all(args)
    if args.jobs is not None:
        raise UserError("--jobs goes with --all-pairs: a single report has one process.")
    order = _report_order(args)
    with sole_writer(order.run_dir, "report"):
        written = make_report(**vars(order))
    for failure in written.failures:
        say(f"report: {failure}")
    print(written.path)
    return 1 if written.failures else 0


def _report_all(args: argparse.Namespace) -> int:
    """Make the reports of all pairs; prints where their index lies. Returns 1 if one failed."""
    from disendiff_lite.report.all_pairs import INDEX, default_jobs, make_reports
    from disendiff_lite.runs.references import pair_names

    if args.classes is not None:
        raise UserError("--classes goes with a picture of your own (--image): the shipped pairs have theirs.")
    orders = {pair: _report_order(argparse.Namespace(**vars(args) | {"pair": pair})) for pair in pair_names()}
    folder = next(iter(orders.values())).run_dir.parent
    given = {name: getattr(args, name) for name in ("model", "method", "seed", "notebooks")}
    options = [f"--{name}={value}" for name, value in given.items() if value is not None]
    options += [f"--set={setting}" for setting in args.settings]
    jobs = args.jobs or default_jobs(preset_for(args.model or "emoji") is emoji)
    outcomes = make_reports(orders, options, folder, jobs, say)
    failed = [pair for pair, outcome in outcomes.items() if outcome.state == "failed"]
    if failed:
        say(f"report: {len(failed)} of {len(outcomes)} pairs failed: {', '.join(failed)}")
    print(folder / INDEX)
    return 1 if failed else 0


def _report_order(args: argparse.Namespace) -> "Order":
    """The report that the options ask for, checked before a kernel starts; with --all-pairs that of the pair that they
    name.
    """
    from disendiff_lite.report.execute import check_parameters, find_notebooks, notebook_parameters
    from disendiff_lite.report.report import Order

    picture, classes, name = _source(args)
    notebooks = [notebook for notebook in file_names(args.notebooks) if notebook]
    known = [notebook_parameters(path) for path in find_notebooks(notebooks)]
    kinds = {parameter: type(value) for defaults in known for parameter, value in defaults.items()}
    parameters = typed_settings(args.settings, kinds, "parameter")
    own = {"pair": args.pair, "image": args.image and str(Path(args.image).resolve()), "classes": args.classes}
    own |= {"model": args.model and absolute_model(args.model), "method": args.method, "seed": args.seed}
    for option, value in own.items():
        if value is not None and option in parameters:
            raise UserError(f"{option} is given twice: give it as --{option} or with --set, not both.")
    parameters |= {option: value for option, value in own.items() if value is not None}
    check_parameters(parameters, known)
    # Any preset will do: it is the method and the seed that are checked here, before a kernel starts.
    config = emoji(**{option: parameters[option] for option in ("method", "seed") if option in parameters})
    check_concepts(classes, config.modifiers)
    title = _default_folder(name, config.method).name
    if args.all_pairs:
        run_dir = Path(args.run_dir or _default_folder("all-pairs", config.method), name)
    else:
        run_dir = Path(args.run_dir or _default_folder(name, config.method))
    asked = {"picture": picture_hash(picture), "classes": classes, "method": config.method}
    for what in ("run", "report"):
        check_unclaimed(run_dir, what)
    check_same(run_dir, asked | {option: parameters[option] for option in ("seed", "steps") if parameters.get(option)})
    return Order(parameters, run_dir, tuple(notebooks), title)


def _source(args: argparse.Namespace) -> tuple[Image.Image, tuple[str, ...], str]:
    """The reference picture, its classes, and a name for its run."""
    if args.pair is not None:
        if args.classes is not None:
            raise UserError("--classes goes with a picture of your own (--image): a shipped pair has its classes.")
        reference = load_reference(args.pair)
        return reference.picture, reference.classes, args.pair
    if args.classes is None:
        raise UserError("A picture of your own needs --classes, such as --classes cat,dog: say what it shows.")
    reference = own_reference(args.image, args.classes.split(","))
    return reference.picture, reference.classes, file_stem(reference.name)


def _config(args: argparse.Namespace) -> Config:
    changes = config_changes(args.settings)
    for option in ("preset", "method", "seed"):
        if option in changes:
            raise UserError(f"{option} has an option of its own: give it as --{option}.")
    if args.seed is not None:
        changes["seed"] = args.seed
    if args.preset is not None and args.preset not in PRESETS:
        raise UserError(f"There is no preset {args.preset!r}: use one of {', '.join(PRESETS)}.")
    preset = PRESETS[args.preset] if args.preset else preset_for(args.model)
    return preset(method=args.method, **changes)


def _default_folder(name: str, method: str) -> Path:
    return Path("runs", name if method == "disendiff" else f"{name}-{method}")


def learned_pipeline(
    args: argparse.Namespace, inpainting: bool = False
) -> tuple[StableDiffusionPipeline, RunRecord, Config]:
    """The pipeline with what a run learned, the run's record, and its settings with those of the command line; the
    pipeline may be of the model's `inpainting` sister.
    """
    record = read_run(args.run)
    config = Config.load(Path(args.run, "config.json"))
    changes = typed_settings(args.settings, SAMPLING, "setting of the sampling")
    if args.seed is not None:
        changes["seed"] = args.seed
    config = dataclasses.replace(config, **changes)
    pipe = load_pipeline(model_of_run(args.run, record, args.model), args.device, inpainting=inpainting)
    check_sampling(pipe, config)
    load_learned(pipe, args.run, any_model=is_inpainting(pipe))
    return pipe, record, config


def run_requests(records: Sequence[RunRecord], config: Config) -> list[Request]:
    """What shows everything that runs on one model learned."""
    classes = [class_ for record in records for class_ in record.classes]
    modifiers = [modifier for record in records for modifier in record.modifiers]
    return list(prompt_set(classes, modifiers, template=config.template).values())


def say(text: str) -> None:
    """Tell the person at the terminal something that is no result."""
    print(text, file=sys.stderr, flush=True)
