"""The command line: which module does a verb's work, and how every kind of end looks.

exit status 0 done · 1 a notebook's cell failed, or nobody read what was printed · 2 bad input, one sentence on stderr ·
130 interrupted, one line on stderr
"""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from disendiff_lite.cli.streams import lasting_streams
from disendiff_lite.cli.verbs import build_parser
from disendiff_lite.support.errors import UserError

MODULES = {  # of the verbs that have their own; the others are in commands
    "bench": "bench",
    "export": "export",
    "fetch-paper-data": "fetch",
    "generate": "generate",
    "inpaint": "inpaint",
    "sweep": "sweep",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit status; what argparse refuses exits with 2 by itself."""
    with lasting_streams() as (out, err):
        args = build_parser().parse_args(argv)
        status = _run(args)
        out.flush()
        if isinstance(out.error, BrokenPipeError):  # a reader who had enough, such as head
            return status or 1
        if out.error is not None:
            print(f"{args.verb}: Cannot print ({out.error.strerror}): free some space.", file=err)
            return status or 2
        return status


def _run(args: argparse.Namespace) -> int:
    try:
        # The commands bring torch and diffusers with them: --help and a misspelt option should not wait for that.
        commands = import_module(f"disendiff_lite.cli.{MODULES.get(args.verb, 'commands')}")
        return getattr(commands, args.verb.replace("-", "_"))(args) or 0
    except UserError as error:
        print(f"{args.verb}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        goes_on = "the same command goes on from the last checkpoint"
        mends = {"train": goes_on, "report": goes_on, "sweep": "the same command makes the runs that are missing"}
        mends["fetch-paper-data"] = "the same command goes on where this one stopped"
        mend = mends.get(args.verb, "start it again")
        print(f"\n{args.verb}: interrupted; {mend}.", file=sys.stderr)
        return 130
