"""The verb `export`: what a run learned as files for other programs."""

import argparse
from pathlib import Path

from disendiff_lite.cli.commands import say
from disendiff_lite.runs.export import ALL, TARGETS
from disendiff_lite.runs.export import export as export_run


def export(args: argparse.Namespace) -> None:
    """Write the files, say how exact each is, and print their folder."""
    out = Path(args.out or Path(args.run, "export"))
    results = export_run(args.run, out, to=args.to, rank=args.rank, model=args.model, device=args.device)
    for result in results:
        lost = f", {result.lost:.2%} of the changes cut off by the rank" if args.rank else ""
        apart = f"the UNet's output differs by at most {result.apart:.1e} of {result.largest:.1f}"
        say(f"{result.target}: read back by stock diffusers, {apart}{lost}")
    if args.to == ALL and len(results) < len(TARGETS):
        say("webui: left out, for a whole UNet is no LoRA; train with --set trained=lora or kv for these programs")
    print(out)
