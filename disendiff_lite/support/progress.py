"""Progress that suits where it is seen: a bar in a terminal and in Jupyter, plain lines in logs,
nothing left behind in notebooks.

    for record in progress(train(...), total=config.steps): ...

`tqdm.auto` picks a widget in every kernel, which stays frozen at zero where nobody draws widgets: under papermill, in
exports. While a report is made, the kernel's progress therefore goes through a file (named by the environment variable
CHANNEL) to the process that makes the report, which shows it where the person is: the notebook itself stays clean.
"""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

CHANNEL = "DISENDIFF_LITE_PROGRESS"
LINE_EVERY = 10.0  # seconds between plain lines
DRAW_EVERY = 0.5  # seconds between changes of a display, or messages to a report
FRONT_ENDS = ("JPY_SESSION_NAME", "VSCODE_PID", "COLAB_RELEASE_TAG")  # set where someone is watching a kernel


class Progress:
    """How far a task has come, as plain lines; each other display is a subclass that says how to `draw`.

    label: what is being done. total: how many steps there are. write: takes a line of text.
    """

    every = LINE_EVERY

    def __init__(self, label: str, total: int, write=None):
        self.label, self.total, self._write = label, total, write
        self.done, self.note = 0, ""
        self.begun = self._drawn = None  # seconds of time.monotonic(), None before the first step
        self._before = 0  # steps that an earlier run had done

    def update(self, done: int, note: str = "") -> None:
        """Say that `done` of the steps are done; `note` is shown beside it, for example the loss."""
        now = time.monotonic()
        if self.begun is None:
            # The clock starts with the first step: until then there was loading, which says nothing of the steps'
            # speed.
            self.begun, self._before = now, done
        self.done, self.note = done, note
        if self._drawn is None or done >= self.total or now - self._drawn >= self.every:
            self._drawn = now
            self.draw()

    def draw(self) -> None:
        self._write(self.line())

    def close(self) -> None:
        """The task is over, whether done or broken off."""

    def line(self) -> str:
        """For example "training 120/300, loss 0.0123, 0:35 left"; the time taken instead, once all is done."""
        steps = self.done - self._before
        elapsed = 0.0 if self.begun is None else time.monotonic() - self.begun
        parts = [f"{self.label} {self.done}/{self.total}", self.note]
        if self.done >= self.total:
            parts.append(f"took {clock(elapsed)}")
        elif steps > 0:
            parts.append(f"{clock(elapsed / steps * (self.total - self.done))} left")
        return ", ".join(part for part in parts if part)


class BarProgress(Progress):
    """A bar of tqdm's, in a terminal or, with `kind` from tqdm.notebook, in a live notebook."""

    every = 0.0  # tqdm itself draws at a bearable rate

    def __init__(self, label: str, total: int, kind: type[tqdm] = tqdm):
        super().__init__(label, total)
        # disable=False: the environment may silence the bars of other libraries.
        self.bar = kind(total=total, desc=label, leave=True, dynamic_ncols=True, disable=False)

    def draw(self) -> None:
        if self.bar.n == 0 and self.done > 1:
            self.bar.initial = self.done - 1  # a run that goes on: its speed is that of the new steps alone
        self.bar.set_postfix_str(self.note, refresh=False)
        self.bar.update(self.done - self.bar.n)
        if self.done >= self.total:
            self.bar.refresh()

    def close(self) -> None:
        self.bar.close()


class ChannelProgress(Progress):
    """Lines in a file that the process which makes the report follows."""

    every = DRAW_EVERY

    def __init__(self, label: str, total: int, path: str):
        super().__init__(label, total)
        self.path = path

    def draw(self) -> None:
        fields = (self.label, self.done, self.total, self.note)
        with open(self.path, "a", encoding="utf-8") as channel:
            channel.write("\t".join(map(str, fields)) + "\n")


def open_progress(label: str, total: int) -> Progress:
    """The display that suits the place: a report's channel, a live notebook, a terminal, or plain lines.

    Lines go to a notebook's output where nobody watches it, and else to stderr.
    """
    if channel := os.environ.get(CHANNEL):
        return ChannelProgress(label, total, channel)
    if _in_kernel():
        if not is_watched():
            return Progress(label, total, _print_line)
        from tqdm.notebook import tqdm as widget_bar  # it imports ipywidgets, which a terminal does not need

        return BarProgress(label, total, widget_bar)
    return BarProgress(label, total) if _in_terminal() else Progress(label, total, _print_error_line)


def is_watched() -> bool:
    """Whether this is a notebook that someone has open, in which outputs can change in place."""
    return _in_kernel() and CHANNEL not in os.environ and any(name in os.environ for name in FRONT_ENDS)


def progress(records: Iterable, total: int, label: str = "training") -> Iterator:
    """Yield the records while showing how far they have come.

    records: such as train() gives; a record's `step` says how far it is (else they are counted)
        and its `total` is the loss.
    total: how many steps there are, those of an earlier run included.
    """
    display = None
    try:
        for count, record in enumerate(records, start=1):
            # Not before the first record: what comes before it may fail, or show a progress of its own.
            display = open_progress(label, total) if display is None else display
            loss = getattr(record, "total", None)
            display.update(getattr(record, "step", count), "" if loss is None else f"loss {loss:.4f}")
            yield record
    finally:
        if display is not None:
            display.close()


def progress_callback(label: str) -> Callable[[int, int], None]:
    """A function of (done, total) that shows how far a task has come, for those that call back
    instead of yielding records.
    """
    display = None

    def update(done: int, total: int) -> None:
        nonlocal display
        display = open_progress(label, total) if display is None else display
        display.update(done)
        if done >= total:
            display.close()

    return update


@contextmanager
def followed(path) -> Iterator[None]:
    """While the `with` block runs, show here what kernels write to the channel `path`."""
    path = Path(path)
    path.touch()
    over = threading.Event()
    follower = threading.Thread(target=_follow, args=(path, over), daemon=True)
    follower.start()
    try:
        yield
    finally:
        over.set()
        follower.join()


def clock(seconds: float) -> str:
    """Seconds as "0:35" or "1:02:03"."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def _follow(path: Path, over: threading.Event) -> None:
    display, last = None, False
    with open(path, encoding="utf-8") as channel:
        pending = ""
        while not last:
            last = over.wait(0.2)  # once more after the end, for what came last
            *lines, pending = (pending + channel.read()).split("\n")
            for line in lines:
                label, done, total, note = line.split("\t")
                begun_anew = display is not None and (display.label != label or int(done) < display.done)
                if display is not None and begun_anew:
                    display.close()
                if display is None or begun_anew:
                    display = open_progress(label, int(total))
                display.update(int(done), note)
    if display is not None:
        display.close()


def _in_kernel() -> bool:
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return hasattr(shell, "kernel")


def _in_terminal() -> bool:
    if not sys.stderr.isatty():
        return False
    try:
        return 0 not in os.get_terminal_size(
            sys.stderr.fileno()
        )  # one without a size, as in some containers, would show no bar
    except OSError:
        return True


def _print_line(text: str) -> None:
    print(text, flush=True)


def _print_error_line(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
