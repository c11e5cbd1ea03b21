"""The verb `generate`: pictures with what a run learned, with another run or with LoRAs of others beside it."""

import argparse
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from disendiff_lite.adapters import use_lora
from disendiff_lite.cli.commands import learned_pipeline, run_requests, say
from disendiff_lite.cli.results import PictureFolder, file_stem, learned_hash
from disendiff_lite.models import model_name
from disendiff_lite.runs.generate import draw_pictures
from disendiff_lite.runs.learned import load_learned
from disendiff_lite.sampling import check_sampling, picture_seeds, sample
from disendiff_lite.support.errors import UserError
from disendiff_lite.support.progress import progress_callback
from disendiff_lite.tokens import check_prompt


def generate(args: argparse.Namespace) -> None:
    """Draw pictures with what a run learned; prints the folder."""
    loras, renames = _loras(args), _renames(args)
    pipe, record, config = learned_pipeline(args)
    records, beside, more = [record], [], {}
    if args.other is not None:
        records.append(load_learned(pipe, args.other, rename=renames))
        beside.append(Path(args.other).resolve().name)
        more["other"] = f"{learned_hash(args.other)} {' '.join(records[-1].modifiers)}"
    asked = args.prompts or [request.prompt for request in run_requests(records, config)]
    prompts = list(dict.fromkeys(asked))  # the same prompt twice gives the same pictures
    for prompt in prompts:
        check_prompt(pipe.tokenizer, prompt)
    check_sampling(pipe, config, args.negative_prompt)
    with ExitStack() as stack:
        for path, scale in loras:
            stack.enter_context(use_lora(pipe, path, scale))
            beside.append(f"{file_stem(path.stem, 20)}{scale:g}")  # a long name keeps its scale
        if loras:
            more["loras"] = " ".join(f"{learned_hash(path)}:{scale:g}" for path, scale in loras)
        folder = Path(args.out or Path(args.run, "generated"))
        results = PictureFolder(
            folder, args.run, config, model_name(pipe), args.negative_prompt, beside=beside, more=more
        )
        draw_into(results, pipe, prompts, args.count, "drawing")
    print(folder)


def draw_into(
    results: PictureFolder, pipe, prompts: Sequence[str], count: int, doing: str, draw: Callable = sample
) -> None:
    """Draw `count` pictures of each prompt and save each as soon as it is there.

    doing: what the progress bar says. draw: as for draw_pictures.
    """
    config = results.config
    wanted = [(prompt, index) for prompt in prompts for index in range(count)]
    pictures = draw_pictures(
        pipe,
        [prompt for prompt, _ in wanted],
        picture_seeds(config.seed, count) * len(prompts),
        config,
        negative_prompt=results.negative_prompt,
        progress=progress_callback(doing),
        draw=draw,
    )
    longer = sum(not results.save(picture, *which) for which, picture in zip(wanted, pictures))
    if longer:
        say(f"{longer} of {len(wanted)} pictures have longer names: other pictures have the short ones")


def _loras(args: argparse.Namespace) -> list[tuple[Path, float]]:
    """The LoRA files with their scales, one for all or one for each."""
    scales = args.lora_scales or [1.0]
    if args.lora_scales and not args.loras:
        raise UserError("--lora-scale goes with --lora, the file of a LoRA: name it, or leave the scale out.")
    if len(scales) not in (1, len(args.loras)):
        raise UserError(
            f"There are {len(scales)} scales for {len(args.loras)} LoRAs: give one --lora-scale for all or for each."
        )
    paths = [Path(lora).expanduser() for lora in args.loras]
    return list(zip(paths, scales if len(scales) > 1 else scales * len(args.loras)))


def _renames(args: argparse.Namespace) -> dict[str, str]:
    """The other run's words with those that take their place."""
    if args.rename and args.other is None:
        raise UserError("--rename goes with --with, whose words it changes: name the other run, or leave it out.")
    pairs = [pair.partition("=") for text in args.rename for pair in text.split(",")]
    for old, _, new in pairs:
        if not (old and new):
            raise UserError(f"--rename takes OLD=NEW, such as '<new1>=<new3>', not {old or new!r}: write both words.")
    return {old.strip(): new.strip() for old, _, new in pairs}
