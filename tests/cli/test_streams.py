"""What is printed never ends the work, whatever is behind stdout and stderr."""

import io
import os
import sys

import pytest

from disendiff_lite.cli import commands
from disendiff_lite.cli.options import main
from disendiff_lite.cli.streams import lasting_streams
from disendiff_lite.support.errors import UserError


@pytest.fixture
def verb(monkeypatch):
    """What `score` prints and how far it comes, without its work."""
    done = []

    def score(args):
        print("0.5 ± 0.1 🐈")
        print("at work", file=sys.stderr, flush=True)
        done.append("saved")
        sys.stdout.flush()
        done.append("said")

    monkeypatch.setattr(commands, "score", score)
    return done


def broken_pipe():
    read, write = os.pipe()
    os.close(read)
    return open(write, "w", encoding="utf-8")


def test_letters_that_cannot_be_written_are_spelled(verb, monkeypatch):
    shown = io.BytesIO()
    stream = io.TextIOWrapper(shown, encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    assert main(["score", "run"]) == 0 and verb == ["saved", "said"]
    assert shown.getvalue() == b"0.5 \\xb1 0.1 \\U0001f408\n"
    assert sys.stdout is stream and stream.errors == "strict"  # as it was


def test_what_somebody_chose_for_such_letters_stays(verb, monkeypatch):
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, encoding="ascii", errors="replace"))
    assert main(["score", "run"]) == 0 and shown.getvalue() == b"0.5 ? 0.1 ?\n"


@pytest.mark.parametrize("names, status", [(["stdout"], 1), (["stderr"], 0), (["stdout", "stderr"], 1)])
def test_a_reader_that_went_away(verb, monkeypatch, capsys, names, status):
    streams = [broken_pipe() for _ in names]
    for name, stream in zip(names, streams):
        monkeypatch.setattr(sys, name, stream)
    assert main(["score", "run"]) == status and verb == ["saved", "said"]
    for stream in streams:
        stream.write("nothing is waiting to be written")
        stream.close()  # which Python does at exit: without an error


def test_a_full_disk_behind_the_output(verb, monkeypatch, capsys):
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full")
    monkeypatch.setattr(sys, "stdout", open("/dev/full", "w", encoding="utf-8"))
    assert main(["score", "run"]) == 2 and verb == ["saved", "said"]
    assert capsys.readouterr().err.splitlines()[-1] == (
        "score: Cannot print (No space left on device): free some space."
    )


@pytest.mark.parametrize("names", [["stdout"], ["stderr"], ["stdout", "stderr"]])
def test_streams_that_were_closed_before(verb, monkeypatch, capsys, names):
    for name in names:
        monkeypatch.setattr(sys, name, None)
    assert main(["score", "run"]) == 0 and verb == ["saved", "said"]
    shown = capsys.readouterr()  # nothing of the one goes to the other
    assert (shown.out != "", shown.err != "") == ("stdout" not in names, "stderr" not in names)


def test_an_error_ends_as_ever(monkeypatch, capsys):
    def refuse(args):
        raise UserError("Mend it.")

    monkeypatch.setattr(commands, "score", refuse)
    monkeypatch.setattr(sys, "stdout", broken_pipe())
    assert main(["score", "run"]) == 2 and capsys.readouterr().err == "score: Mend it.\n"
    with pytest.raises(ZeroDivisionError), lasting_streams():
        raise ZeroDivisionError
    assert not hasattr(sys.stdout, "error")
