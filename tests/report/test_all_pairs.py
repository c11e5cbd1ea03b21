"""All pairs: each report in a process of its own; failures and interruptions leave the others alone."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from disendiff_lite.cli.options import main
from disendiff_lite.report import all_pairs
from disendiff_lite.report.all_pairs import Outcome, default_jobs, make_reports
from disendiff_lite.report.page import is_finished
from disendiff_lite.report.report import Order, make_report
from disendiff_lite.runs.references import pair_names
from tests.report.test_report import FIGURE, write_notebook

pytestmark = pytest.mark.slow  # they start commands, kernels and environments of their own

PAIRS = ["cat_dog", "chair_lamp"]
CELL = (
    "import os\n"
    "from disendiff_lite.report.metrics import record_metrics\n"
    "record_metrics(run_dir, 'quickstart',"
    " {'maps': {'after': {'IoU': 0.5 / (pair == 'cat_dog'), 'peak on the thing': 1.0}}})\n"
    "print('threads', os.environ['OMP_NUM_THREADS'])"
)


@pytest.fixture
def stand_in(tmp_path):
    return write_notebook(tmp_path / "small.ipynb", "## A figure", FIGURE, "## Numbers", CELL)


def orders_in(folder, notebook, pairs=PAIRS, **parameters):
    return {pair: Order({"pair": pair, **parameters}, folder / pair, (str(notebook),), pair) for pair in pairs}


def processes(monkeypatch, code):
    """Let each pair's process run this code, with the pair's folder as argument; returns the list of those started."""
    started = []

    def start(command, run_dir, threads):
        run_dir.mkdir(parents=True, exist_ok=True)
        started.append(run_dir.name)
        with open(run_dir / all_pairs.LOG, "w") as log:
            return subprocess.Popen(
                [sys.executable, "-c", code, str(run_dir)], stdout=log, stderr=log, start_new_session=True
            )

    monkeypatch.setattr(all_pairs, "_start", start)
    return started


def test_the_ten_pairs():
    names = pair_names()
    assert len(names) == 10 and "cat_dog" in names and "cat_dog_bird" not in names


def test_one_fails_and_what_is_finished_is_kept(stand_in, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("disendiff_lite.runs.references.pair_names", lambda: PAIRS)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    folder = tmp_path / "all"
    command = [
        "report",
        "--all-pairs",
        "--notebooks",
        str(stand_in),
        "--run-dir",
        str(folder),
        "--jobs",
        "2",
        "--set",
        "steps=3",
    ]
    assert main(command) == 1
    printed = capsys.readouterr()
    assert printed.out.strip() == str(folder / "index.html")
    lines = printed.err.splitlines()
    assert lines[:2] == ["cat_dog: started", "chair_lamp: started"] and len(lines) == 5
    assert lines[-1] == "report: 1 of 2 pairs failed: chair_lamp"
    assert any("with ZeroDivisionError" in line and line.startswith("chair_lamp: failed after") for line in lines)
    assert "threads 1" in (folder / "cat_dog" / "report.log").read_text()
    index = (folder / "index.html").read_text()
    assert not is_finished(folder / "index.html") and "1 finished, 1 failed" in index
    assert 'href="cat_dog/report.html"' in index and "ZeroDivisionError" in index and "steps=3" in index

    started = processes(monkeypatch, "print('report: still not')\nraise SystemExit(1)")
    assert main(command) == 1
    assert started == ["chair_lamp"] and "cat_dog: finished before, kept" in capsys.readouterr().err
    assert "still not" in (folder / "index.html").read_text()

    assert main([*command, "--seed", "7"]) == 1
    assert "cat_dog: made before with seed 0 instead of 7, so it is made again" in capsys.readouterr().err
    assert started == ["chair_lamp", "cat_dog", "chair_lamp"]


def test_other_notebooks_are_another_report(tmp_path, monkeypatch):
    notebooks = [write_notebook(tmp_path / f"{name}.ipynb", "1") for name in ("one", "two")]
    node = nbformat.read(notebooks[0], as_version=4)
    node.cells[1].source += '\nmodel = "emoji"'
    nbformat.write(node, notebooks[0])
    make_report({"pair": "cat_dog"}, tmp_path / "cat_dog", [str(notebooks[0])])
    said = []
    started = processes(monkeypatch, "")
    orders = orders_in(tmp_path, notebooks[1], ["cat_dog"])
    assert make_reports(orders, [], tmp_path, 1, said.append)["cat_dog"].state == "finished"
    assert said[0].startswith("cat_dog: made before with notebooks ['one'] instead of ['two'], ")
    monkeypatch.setattr("disendiff_lite.report.report.weights_hash", lambda model: "others")
    orders = orders_in(tmp_path, notebooks[0], ["cat_dog"])
    make_reports(orders, [], tmp_path, 1, said.append)
    assert "cat_dog: made before with another model, so it is made again" in said and len(started) == 2


@pytest.mark.parametrize(
    "code, reason",
    [
        (
            "import os\nos.kill(os.getpid(), 9)",
            "Its process was ended by SIGKILL, perhaps because the memory was full.",
        ),
        ("raise SystemExit(3)", "It ended with status 3 and said nothing."),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("print('report: no room')\nraise SystemExit(2)", "no room"),
    ],
)
def test_every_kind_of_end_has_its_reason(code, reason, stand_in, tmp_path, monkeypatch):
    processes(monkeypatch, code)
    assert make_reports(orders_in(tmp_path, stand_in), [], tmp_path, 2, lambda line: None) == {
        pair: Outcome("failed", reason) for pair in PAIRS
    }
    assert reason in (tmp_path / "index.html").read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_ends_the_processes_and_leaves_an_index(number, stand_in, tmp_path, monkeypatch):
    code = (
        "import pathlib, sys, time\ntry:\n    time.sleep(60)\n"
        "except KeyboardInterrupt:\n    pathlib.Path(sys.argv[1], 'saved').touch()"
    )
    processes(monkeypatch, code)
    said = []

    def say(line):
        said.append(line)
        if line == "chair_lamp: started":
            time.sleep(1)  # until the processes are far enough to be interrupted in their work
            os.kill(os.getpid(), number)

    with pytest.raises(KeyboardInterrupt):
        make_reports(orders_in(tmp_path, stand_in, [*PAIRS, "dog_pig"]), [], tmp_path, 2, say)
    assert said[-2] == "stopping cat_dog, chair_lamp: what they have is kept" and "index.html" in said[-1]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert all((tmp_path / pair / "saved").exists() for pair in PAIRS) and not (tmp_path / "dog_pig").exists()
    assert "3 not made" in (tmp_path / "index.html").read_text()


def test_the_processes_share_the_cores(tmp_path, monkeypatch):
    monkeypatch.setattr(all_pairs, "cores", lambda: 8)
    assert default_jobs(small_model=False) == 1 and 1 <= default_jobs(small_model=True) <= 8
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    seen = []
    monkeypatch.setattr(all_pairs, "_start", lambda command, run_dir, threads: seen.append(threads) or ended())
    monkeypatch.setattr(all_pairs, "_outcome", lambda status, log: Outcome("failed", ""))
    for jobs, pairs in [(2, 4), (3, 4), (16, 4), (8, 1)]:
        orders = orders_in(tmp_path, "none", pair_names()[:pairs])
        all_pairs._run(orders, [], jobs, {}, lambda line: None)
    assert [seen[0], seen[4], seen[8], seen[12]] == [4, 2, 2, 8]


def ended():
    """A process that failed."""
    process = subprocess.Popen([sys.executable, "-c", "1 / 0"], stderr=subprocess.DEVNULL)
    process.wait()
    return process


def test_options_reach_each_pair(stand_in, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("disendiff_lite.runs.references.pair_names", lambda: PAIRS)
    commands = []
    monkeypatch.setattr(all_pairs, "_start", lambda command, run_dir, threads: commands.append(command) or ended())
    monkeypatch.setattr(all_pairs, "_outcome", lambda status, log: Outcome("failed", ""))
    command = [
        "report",
        "--all-pairs",
        "--notebooks",
        str(stand_in),
        "--method",
        "dreambooth",
        "--seed",
        "3",
        "--set",
        "rate=0.7",
    ]
    assert main(command) == 1
    folder = Path("runs", "all-pairs-dreambooth")
    own = ["--method=dreambooth", "--seed=3", f"--notebooks={stand_in}", "--set=rate=0.7"]
    assert commands[0] == [*own, "--pair", "cat_dog", "--run-dir", str(folder / "cat_dog")] and len(commands) == 2
    assert capsys.readouterr().out.strip() == str(folder / "index.html")


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["--all-pairs", "--set", "stps=3"], "There is no parameter 'stps': did you mean 'steps'?"),
        (["--all-pairs", "--classes", "cat,dog"], "--classes goes with a picture of your own"),
        (["--pair", "cat_dog", "--jobs", "2"], "--jobs goes with --all-pairs"),
    ],
)
def test_options_that_do_not_go_together(arguments, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["report", *arguments]) == 2
    assert sentence in capsys.readouterr().err and not list(tmp_path.iterdir())
