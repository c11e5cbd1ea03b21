"""Reports of all shipped pairs: each made by a process of its own, several at a time, and one page over all of them.

    <folder>/index.html            the table over all pairs, see index_page.py; also after an interruption
    <folder>/<pair>/report.html    the report of each, with everything beside it, see report.py
    <folder>/<pair>/report.log     what making it said

Processes of their own rather than a pool's workers: one that dies, for want of memory say, takes no other pair with it.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from disendiff_lite.report.index_page import read_row, write_index
from disendiff_lite.report.metrics import read_metrics
from disendiff_lite.report.report import Order, is_complete, report_differences
from disendiff_lite.runs.references import load_reference
from disendiff_lite.support.cores import cores
from disendiff_lite.support.files import explaining
from disendiff_lite.support.paths import ROOT
from disendiff_lite.support.progress import clock

MEMORY = 2e9  # bytes that a notebook with the embedded model may need
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
INDEX, LOG = "index.html", "report.log"
PAUSE = 0.2  # seconds between two looks at the running processes


@dataclass(frozen=True)
class Outcome:
    """How it went with a pair's report.

    state: "finished" now, "kept" from before, "failed", or "not made" because of an interruption. reason:
        of a failure, one sentence.
    """

    state: str
    reason: str = ""


def default_jobs(small_model: bool) -> int:
    """How many pairs to work on at a time: one a core, as far as the memory goes.

    small_model: the embedded one. Of a larger one a single run fills a GPU, or all cores.
    """
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(1, min(cores(), int(memory / MEMORY))) if small_model else 1


def make_reports(
    orders: Mapping[str, Order], options: Sequence[str], folder, jobs: int, say: Callable[[str], None]
) -> dict[str, Outcome]:
    """Make the report of each pair that has none yet, or another one, and write the index page.

    orders: by pair. options: of the command line that makes a report, without its pair and folder. folder: the index's.
    jobs: pairs at a time; they share the cores. say: takes a line whenever something changes for a pair.

    Returns the outcomes by pair. Interrupted, it lets the running ones save what they have, and still writes the index.
    """
    outcomes = {pair: Outcome("not made") for pair in orders}
    for pair, order in orders.items():
        if not is_complete(order.run_dir):
            continue
        if differences := report_differences(order):
            say(f"{pair}: made before with {', '.join(differences)}, so it is made again")
        else:
            outcomes[pair] = Outcome("kept")
            say(f"{pair}: finished before, kept")
    wanted = {pair: order for pair, order in orders.items() if outcomes[pair].state != "kept"}
    try:
        _run(wanted, options, jobs, outcomes, say)
    except KeyboardInterrupt:
        say(f"what was finished is listed in {Path(folder, INDEX)}")
        raise
    finally:
        _write_index(Path(folder), orders, outcomes)
    return outcomes


def _run(orders: Mapping[str, Order], options: Sequence[str], jobs: int, outcomes: dict[str, Outcome], say) -> None:
    """Make the reports, and note each outcome as soon as it is known."""
    waiting, running, began = list(orders), {}, time.monotonic()
    threads = max(1, cores() // max(1, min(jobs, len(orders))))
    # Also when the terminal closes or a time limit ends us, no process may stay behind and go on computing.
    handlers = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                pair = waiting.pop(0)
                command = [*options, "--pair", pair, "--run-dir", str(orders[pair].run_dir)]
                running[pair] = _start(command, orders[pair].run_dir, threads), time.monotonic()
                say(f"{pair}: started")
            for pair, (process, since) in list(running.items()):
                if process.poll() is not None:
                    del running[pair]
                    outcomes[pair] = _outcome(process.returncode, orders[pair].run_dir / LOG)
                    done = len(orders) - len(waiting) - len(running)
                    left = (time.monotonic() - began) / done * (len(orders) - done)
                    took = clock(time.monotonic() - since)
                    said = f"{pair}: {outcomes[pair].state} after {took}, {done} of {len(orders)}"
                    say(
                        said
                        + (f", about {clock(left)} left" if left else "")
                        + f". {outcomes[pair].reason}".rstrip(". ")
                    )
            time.sleep(PAUSE)
    finally:
        if running:
            say(f"stopping {', '.join(running)}: what they have is kept")
        for process, _ in running.values():
            process.send_signal(signal.SIGINT)
        for process, _ in running.values():
            process.wait()
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _start(command: Sequence[str], run_dir: Path, threads: int) -> subprocess.Popen:
    """A process that makes one report and writes what it says into the folder's log."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    limits = {name: os.environ.get(name, str(threads)) for name in THREADS}  # what is set already is somebody's wish
    with explaining(run_dir):
        run_dir.mkdir(parents=True, exist_ok=True)
        log = open(run_dir / LOG, "w", encoding="utf-8")
    with log:
        return subprocess.Popen(
            [sys.executable, "-m", "disendiff_lite", "report", *command],
            env=os.environ | limits | {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches it once, from here, and not from the terminal besides
        )


def _outcome(status: int, log: Path) -> Outcome:
    if status == 0:
        return Outcome("finished")
    if status < 0:
        return Outcome(
            "failed", f"Its process was ended by {signal.Signals(-status).name}, perhaps because the memory was full."
        )
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    said = [line.removeprefix("report: ") for line in lines if line.startswith("report: ")] or lines[-1:]
    return Outcome("failed", " ".join(said) or f"It ended with status {status} and said nothing.")


def _write_index(folder: Path, orders: Mapping[str, Order], outcomes: Mapping[str, Outcome]) -> None:
    rows = [
        read_row(pair, outcome.state, outcome.reason, load_reference(pair).picture, orders[pair].run_dir)
        for pair, outcome in outcomes.items()
    ]
    made = [read_metrics(orders[row.pair].run_dir)["report"] for row in rows if row.seconds is not None]
    settings = [{name: value for name, value in report["settings"].items() if name != "pair"} for report in made]
    facts = {
        "date": [datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")],
        "notebooks": [", ".join(report["notebooks"]) for report in made],
        "settings": [", ".join(f"{name}={value!r}" for name, value in several.items()) for several in settings],
        "commit": [report["commit"] for report in made],
        "versions": [report["versions"] for report in made],
    }
    unique = {name: " or ".join(dict.fromkeys(values)) for name, values in facts.items() if values}
    write_index(folder / INDEX, f"DisenDiff: {folder.name}", rows, unique)
