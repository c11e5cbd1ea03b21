"""The verb `fetch-paper-data`: the paper's ten photographs, for --pair paper/cat_dog and its like."""

import argparse
import sys

from disendiff_lite.runs.paper_data import fetch_paper_data as fetch
from disendiff_lite.support.paths import PAPER
from disendiff_lite.support.progress import progress_callback


def fetch_paper_data(args: argparse.Namespace) -> None:
    """Fetch what is missing or damaged; prints where it lies."""
    if fetch(args.source, progress_callback("fetching")) == 0:
        print("nothing to do: every file is there", file=sys.stderr)
    print(PAPER)
