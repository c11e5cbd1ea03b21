"""The verb `sweep`: pairs x methods x seeds, trained and measured, and one table of all."""

import argparse
import os
import sys
from contextlib import nullcontext
from pathlib import Path

from disendiff_lite.config import config_changes
from disendiff_lite.evaluate.sweep import (
    METHOD_CHANGES,
    Cell,
    SweepSettings,
    plan,
    run_sweep,
)
from disendiff_lite.models import absolute_model
from disendiff_lite.runs.references import pair_names
from disendiff_lite.support.cores import cores
from disendiff_lite.support.errors import UserError
from disendiff_lite.support.progress import open_progress


def sweep(args: argparse.Namespace) -> int:
    """Make the cells that the folder does not hold yet; prints where the table lies. Returns 1 if a cell failed."""
    pairs = pair_names() if args.pairs == "all" else _words(args.pairs)
    methods = list(METHOD_CHANGES) if args.methods == "all" else _words(args.methods)
    settings = SweepSettings(absolute_model(args.model), config_changes(args.settings), count=args.count)
    cells, out = plan(pairs, methods, _seeds(args.seeds)), Path(args.out)
    shown = open_progress("sweep", len(cells))

    def say(cell: Cell, error: str | None, done: int, _: int) -> None:
        name = f"{cell.pair} {cell.method} {cell.seed}"
        if error is not None:
            print(f"sweep: {name} failed with {error}", file=sys.stderr, flush=True)
        shown.update(done, name)

    try:
        with _cluster(args.backend, args.address):
            jobs = args.jobs or (cores() if args.backend == "loky" else -1)  # -1: all that a cluster has
            failures = run_sweep(cells, settings, out, jobs=jobs, backend=args.backend, progress=say)
    finally:
        shown.close()
    if failures:
        print(f"sweep: {len(failures)} of {len(cells)} runs failed: give the command again", file=sys.stderr)
    print(out / "measures.csv")
    return 1 if failures else 0


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _seeds(text: str) -> list[int]:
    try:
        return [int(word) for word in _words(text)]
    except ValueError:
        raise UserError(f"The seeds {text!r} must be whole numbers with commas between: write 0,1,2.") from None


def _cluster(backend: str, address: str | None):
    """A connection to a cluster, as a context; nothing for processes of this machine."""
    if backend == "loky":
        if address is not None:
            raise UserError("--address goes with a cluster: name its --backend, dask or ray, too.")
        return nullcontext()
    try:
        if backend == "dask":
            from distributed import Client

            return Client(address)
        from ray import init
        from ray.util.joblib import register_ray
    except ImportError:
        package = {"dask": "distributed", "ray": "ray"}[backend]
        raise UserError(f"The backend {backend} is not installed: pip install {package}, or leave it out.") from None
    except OSError as error:
        raise UserError(f"No cluster answers at {address} ({error}): check the address, and that it runs.") from None
    register_ray()
    return init(address=address or os.environ.get("RAY_ADDRESS"))
