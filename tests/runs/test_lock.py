"""One run, one writer: a second one is refused before anything has changed, and a dead one is in nobody's way."""

import errno
import os
import shutil
import subprocess
import sys
import types

import numpy as np
import pytest
from PIL import Image

from disendiff_lite.config import emoji
from disendiff_lite.runs.folder import read_losses, read_run
from disendiff_lite.runs.train import train
from disendiff_lite.support import lock
from disendiff_lite.support.errors import UserError
from disendiff_lite.support.lock import check_unclaimed, sole_writer

CLASSES = ["cat", "dog"]
BUSY = "Another run is writing to .*: wait until it ends, stop it, or choose another folder"
IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))


def quick(**changes):
    small = dict(steps=4, batch_size=1, prior_images=2, prior_batch=1, inference_steps=1, checkpoint_every=2)
    return emoji(**{**small, **changes})


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("done", [1, 2])  # before the first checkpoint, and after it
def test_a_run_under_way_is_left_alone(new_tiny_pipe, tmp_path, done):
    records = train(new_tiny_pipe(), IMAGE, CLASSES, quick(), run_dir=tmp_path)
    for _ in range(done):
        next(records)
    before, pipe = contents(tmp_path), new_tiny_pipe()
    with pytest.raises(UserError, match=BUSY):  # the very same
        next(train(pipe, IMAGE, CLASSES, quick(), run_dir=tmp_path))
    with pytest.raises(UserError, match=BUSY if done == 1 else "another run, with"):
        next(train(pipe, IMAGE.rotate(90), ["cat"], quick(method="custom_diffusion", seed=5), run_dir=tmp_path))
    with pytest.raises(UserError, match=BUSY):
        check_unclaimed(tmp_path, "run")
    assert contents(tmp_path) == before and len(pipe.tokenizer) == 49408
    assert [record.step for record in records] == list(range(done + 1, 5))
    assert read_run(tmp_path).finished and len(read_losses(tmp_path)) == 4
    assert list(train(new_tiny_pipe(), IMAGE, CLASSES, quick(), run_dir=tmp_path)) == []  # it can be read by many


def test_the_class_pictures_are_drawn_by_one(new_tiny_pipe, tmp_path):
    refusals = []

    def second(done, total):
        with pytest.raises(UserError, match=BUSY):
            next(train(new_tiny_pipe(), IMAGE, CLASSES, quick(), run_dir=tmp_path))
        refusals.append(done)

    next(train(new_tiny_pipe(), IMAGE, CLASSES, quick(), run_dir=tmp_path, prior_progress=second))
    assert refusals == [1, 2]


@pytest.mark.parametrize("end", ["closed", "forgotten", "failed"])
def test_a_run_that_ends_early_lets_go(new_tiny_pipe, tmp_path, monkeypatch, end):
    records = train(new_tiny_pipe(), IMAGE, CLASSES, quick(), run_dir=tmp_path)
    next(records)
    assert (tmp_path / ".run.lock").exists()
    if end == "closed":
        records.close()
    elif end == "forgotten":
        del records
    else:
        with pytest.raises(ZeroDivisionError):
            records.throw(ZeroDivisionError)
    assert not (tmp_path / ".run.lock").exists()
    check_unclaimed(tmp_path, "run")
    assert len(list(train(new_tiny_pipe(), IMAGE, CLASSES, quick(), run_dir=tmp_path))) == 4


def test_a_folder_that_is_deleted_meanwhile_belongs_to_the_next_run(new_tiny_pipe, tmp_path):
    folder = tmp_path / "run"
    first = train(new_tiny_pipe(), IMAGE, CLASSES, quick(), run_dir=folder)
    next(first)
    shutil.rmtree(folder)
    second = train(new_tiny_pipe(), IMAGE, CLASSES, quick(seed=1), run_dir=folder)
    next(second)
    with pytest.raises(UserError, match="was deleted while the run was under way: start the run again"):
        next(first)
    assert [record.step for record in second] == [2, 3, 4] and len(read_losses(folder)) == 4


def test_a_killed_process_is_in_nobodys_way(tmp_path):
    program = (
        "import sys, time\n"
        "from disendiff_lite.support.lock import sole_writer\n"
        "with sole_writer(sys.argv[1], 'run'):\n"
        "    print('mine', flush=True)\n"
        "    time.sleep(600)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "mine\n"
    with pytest.raises(UserError, match=BUSY), sole_writer(tmp_path, "run"):
        pass
    with pytest.raises(UserError, match=BUSY):
        check_unclaimed(tmp_path, "run")
    assert os.listdir(tmp_path) == [".run.lock"]
    process.kill()
    process.wait()
    process.stdout.close()
    assert os.listdir(tmp_path) == [".run.lock"]  # what it left behind
    check_unclaimed(tmp_path, "run")
    with sole_writer(tmp_path, "run"):
        pass
    assert os.listdir(tmp_path) == []


def test_a_folder_that_was_made_for_nothing_is_unmade(tmp_path):
    with sole_writer(tmp_path / "a" / "b", "run"), sole_writer(tmp_path / "a" / "b", "report"):
        assert sorted(os.listdir(tmp_path / "a" / "b")) == [".report.lock", ".run.lock"]
    assert os.listdir(tmp_path) == []
    with sole_writer(tmp_path / "a" / "b", "run"):
        (tmp_path / "a" / "file").write_text("")
    assert os.listdir(tmp_path / "a") == ["file"]


def test_a_lock_file_that_goes_before_it_is_locked_is_made_again(tmp_path, monkeypatch):
    real, calls = lock._lock, []

    def slow(handle):
        if not calls:
            (tmp_path / ".run.lock").unlink()  # its owner ends just now
        calls.append(handle)
        return real(handle)

    monkeypatch.setattr(lock, "_lock", slow)
    with sole_writer(tmp_path, "run") as claim:
        assert claim.holds() and len(calls) == 2


def test_a_disk_without_locks_still_takes_a_run(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(lock.fcntl, "flock", no_locks)
    with sole_writer(tmp_path, "run"):
        pass
    monkeypatch.undo()
    assert os.listdir(tmp_path) == []


def test_windows_locks_in_its_own_way(tmp_path, monkeypatch):
    locked = set()

    def locking(handle, mode, size):
        if os.fstat(handle).st_ino in locked:
            raise PermissionError(errno.EACCES, "Permission denied")
        locked.add(os.fstat(handle).st_ino)

    monkeypatch.setattr(lock, "fcntl", None)
    monkeypatch.setattr(lock, "msvcrt", types.SimpleNamespace(locking=locking, LK_NBLCK=2), raising=False)
    with sole_writer(tmp_path, "run"):
        with pytest.raises(UserError, match=BUSY), sole_writer(tmp_path, "run"):
            pass
        assert os.listdir(tmp_path) == [".run.lock"]
    assert os.listdir(tmp_path) == []
