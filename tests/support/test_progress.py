"""Progress: every record passes through, lines are few and end with the last step, and the right display is chosen."""

import io
import time

import pytest
from tqdm.notebook import tqdm as tqdm_notebook

from disendiff_lite.support import progress as progress_module
from disendiff_lite.support.progress import (
    BarProgress,
    ChannelProgress,
    Progress,
    clock,
    followed,
    open_progress,
    progress,
    progress_callback,
)
from disendiff_lite.training import StepRecord


@pytest.fixture
def now(monkeypatch):
    """A clock that stands still until it is set, in seconds."""

    class Clock:
        value = 100.0

    monkeypatch.setattr(progress_module.time, "monotonic", lambda: Clock.value)
    return Clock


def record(step):
    return StepRecord(step, 0.1, 0.1, 0.1, 0.25, 1e-4, 0.5)


def test_records_pass_through_and_lines_are_few(now, capsys):
    def train():
        for step in range(3, 101):  # a run that goes on after step 2
            now.value += 1.0
            yield record(step)

    records = list(progress(train(), total=100))
    assert [r.step for r in records] == list(range(3, 101))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "training 3/100, loss 0.2500"
    assert (
        lines[1] == "training 13/100, loss 0.2500, 1:27 left"
    )  # at the speed of this run, whatever the earlier one took
    assert lines[-1] == "training 100/100, loss 0.2500, took 1:37" and len(lines) == 11


def test_records_of_any_kind_are_counted(capsys):
    assert list(progress("ab", total=2, label="letters")) == ["a", "b"]
    assert capsys.readouterr().err.splitlines() == ["letters 1/2", "letters 2/2, took 0:00"]


def test_stopping_early_closes_the_records(capsys):
    closed = []

    def train():
        try:
            yield from map(record, range(1, 9))
        finally:
            closed.append(True)

    records = train()
    for _ in progress(records, total=8):
        break
    records.close()
    assert closed and capsys.readouterr().err.splitlines() == ["training 1/8, loss 0.2500"]
    assert list(progress(iter([]), total=5)) == [] and capsys.readouterr().err == ""


def test_which_display(monkeypatch, tmp_path):
    assert type(open_progress("x", 1)) is Progress
    monkeypatch.setattr(progress_module.sys.stderr, "isatty", lambda: True, raising=False)
    assert type(open_progress("x", 1)) is BarProgress
    with monkeypatch.context() as patch:  # a terminal without a size, where a bar would never show
        patch.setattr(progress_module.sys.stderr, "fileno", lambda: 2, raising=False)
        patch.setattr(progress_module.os, "get_terminal_size", lambda handle: (0, 0))
        assert type(open_progress("x", 1)) is Progress
    monkeypatch.setattr(progress_module, "_in_kernel", lambda: True)
    for name in progress_module.FRONT_ENDS:
        monkeypatch.delenv(name, raising=False)
    assert type(open_progress("x", 1)) is Progress  # papermill: lines, not a bar that nobody draws
    monkeypatch.setenv("JPY_SESSION_NAME", "notebook.ipynb")
    assert isinstance(open_progress("x", 1).bar, tqdm_notebook)
    monkeypatch.setenv(progress_module.CHANNEL, str(tmp_path / "channel"))
    assert type(open_progress("x", 1)) is ChannelProgress


def test_a_bar_in_a_terminal(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(progress_module.sys, "stderr", terminal)
    assert len(list(progress(map(record, range(5, 11)), total=10))) == 6
    assert "10/10" in terminal.getvalue() and "loss 0.2500" in terminal.getvalue()


def test_a_bar_in_a_live_notebook(monkeypatch):
    monkeypatch.setattr(progress_module, "_in_kernel", lambda: True)
    monkeypatch.setenv("JPY_SESSION_NAME", "notebook.ipynb")
    bar = open_progress("training", 3)
    for step in (2, 3):  # a run that goes on after step 1
        bar.update(step, "loss 0.2500")
    bar.close()
    assert isinstance(bar.bar, tqdm_notebook) and bar.bar.n == 3 and bar.bar.initial == 1
    assert "loss\u20070.2500" in bar.bar.container.children[2].value  # with figure spaces


def test_a_channel_is_followed(monkeypatch, tmp_path, capsys):
    channel = tmp_path / "channel"
    with followed(channel):
        for label, total in (("drawing", 2), ("training", 3)):
            shown = ChannelProgress(label, total, str(channel))
            for done in range(1, total + 1):
                shown.update(done, "fine")
        time.sleep(0.3)
        ChannelProgress("training", 2, str(channel)).update(2)
    assert capsys.readouterr().err.splitlines() == [
        "drawing 1/2, fine",
        "drawing 2/2, fine, took 0:00",
        "training 1/3, fine",
        "training 3/3, fine, took 0:00",
        "training 2/2, took 0:00",
    ]


def test_the_clock():
    assert [clock(seconds) for seconds in (0, 35.4, 61, 3723)] == ["0:00", "0:35", "1:01", "1:02:03"]


def test_a_task_that_calls_back(capsys):
    update = progress_callback("drawing")
    for done in (8, 16, 20):
        update(done, 20)
    assert capsys.readouterr().err.splitlines() == ["drawing 8/20", "drawing 20/20, took 0:00"]
