"""The verb `bench`: what a training step costs on this machine, in seconds and memory."""

import argparse
import dataclasses
import gc
from pathlib import Path

import diffusers
import torch
from diffusers import StableDiffusionPipeline

from disendiff_lite.config import Config
from disendiff_lite.evaluate.bench import measure_steps
from disendiff_lite.evaluate.bench_table import Bench
from disendiff_lite.evaluate.peak_memory import COUNTED
from disendiff_lite.evaluate.random_model import random_sd15
from disendiff_lite.models import load_pipeline, pick_device, preset_for
from disendiff_lite.precision import DTYPES
from disendiff_lite.sampling import check_sampling
from disendiff_lite.scales import check_grid
from disendiff_lite.support.errors import check_name
from disendiff_lite.support.files import check_writable, put_into_page, write_text
from disendiff_lite.support.progress import progress_callback

SECTION = "bench"  # of a page that gets the tables
SHAPES = {"emoji": "the embedded model", "sd15": "a model of Stable Diffusion 1.5's shape with random weights"}


def bench(args: argparse.Namespace) -> None:
    """Measure training steps, or read what was measured; prints tables, and writes them where it is asked to."""
    if args.out:
        check_writable(args.out, "free some space or choose another folder with --out")
    found = [Bench.load(path) for path in args.earlier] if args.earlier else [_measured(args)]
    print("\n\n".join(each.text() for each in found))
    page = "\n\n".join(each.markdown() for each in found)
    if args.out:
        if not args.earlier:
            found[0].save(Path(args.out, "bench.json"))
        write_text(Path(args.out, "bench.md"), page + "\n")
    if args.readme:
        put_into_page(args.readme, SECTION, page)


def _measured(args: argparse.Namespace) -> Bench:
    precisions = [word.strip() for word in args.precision.split(",")]
    for precision in precisions:
        check_name(precision, DTYPES, "precision")
    device, config = pick_device(args.device), _config(args)
    costs = {}
    for precision in precisions:
        gc.collect()  # the model before, which is part of circles
        if device.type == "cuda":
            torch.cuda.empty_cache()
        pipe = _pipeline(args, device, DTYPES[precision])
        own = dataclasses.replace(config, precision=precision)
        check_sampling(pipe, own)
        check_grid(pipe, own)
        costs[precision] = measure_steps(pipe, own, args.steps, progress_callback(f"steps in {precision}"))
        del pipe
    return Bench(_about(args, config, device), _counted(device), costs)


def _config(args: argparse.Namespace) -> Config:
    given = {"resolution": args.resolution, "batch_size": args.batch, "trained": args.what}
    changes = {name: value for name, value in given.items() if value is not None}
    return preset_for(args.model or args.shape)(
        gradient_checkpointing=args.checkpointing, channels_last=args.channels_last, **changes
    )


def _pipeline(args: argparse.Namespace, device: torch.device, dtype: torch.dtype) -> StableDiffusionPipeline:
    if args.model is None and args.shape == "sd15":
        return random_sd15(device, dtype)
    return load_pipeline(args.model or args.shape, device, dtype)


def _about(args: argparse.Namespace, config: Config, device: torch.device) -> str:
    """What is measured, in one line."""
    model = args.model or SHAPES[args.shape]
    memory = ", gradient checkpointing" if config.gradient_checkpointing else ""
    memory += ", channels last" if config.channels_last else ""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    threads = f", threads: {torch.get_num_threads()}" if device.type == "cpu" else ""
    return (
        f"A training step of {model}: {config.trained} trains, batch {config.batch_size}, {config.resolution} px"
        f"{memory}. On {name}{threads}, torch {torch.__version__}, diffusers {diffusers.__version__}."
        f" Each kind {args.steps} times, in turn; medians."
    )


def _counted(device: torch.device) -> str:
    return f"Peak: {COUNTED[device.type]}." if device.type in COUNTED else "No memory is counted on this device."
