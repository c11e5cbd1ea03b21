"""One folder, one writer: a second one that asks is refused, in this process or another, before it changes anything.

The claim is a lock on a hidden file, which is deleted in the end. The operating system lifts it when a process dies,
so that what a killed one left behind is in nobody's way.
"""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from disendiff_lite.support.errors import UserError
from disendiff_lite.support.files import explaining

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None
    import msvcrt

TAKEN = (errno.EAGAIN, errno.EACCES, errno.EDEADLK)  # what a system says of a lock that another has


class Claim:
    """A lock on a file. path: of the file, which is made if it is missing. taken: whether this one got it."""

    def __init__(self, path: Path):
        self.path = path
        while True:
            self._file = open(path, "ab")  # nothing is ever written; a claim that is forgotten closes it
            self.taken = _lock(self._file.fileno())
            if not self.taken or self.holds():
                return
            self._file.close()  # the one before deleted the file between our opening and locking it

    def holds(self) -> bool:
        """Whether the file is still there and ours; it is not once somebody has deleted the folder."""
        with contextlib.suppress(OSError):
            return os.path.samestat(os.fstat(self._file.fileno()), os.stat(self.path))
        return False

    def release(self) -> None:
        """Let go of the lock, and delete the file if it was ours."""
        ours = self.taken and self.holds()
        if fcntl is None:  # Windows deletes no file that is open: neither ours, nor one that the next has opened
            self._file.close()
        with contextlib.suppress(OSError):
            if ours:
                self.path.unlink()  # before it is free, so that nobody locks a file that is about to go
            if fcntl is not None and self.taken:
                fcntl.flock(self._file, fcntl.LOCK_UN)  # closing is not enough if a child process has it open, too
        self._file.close()


@contextlib.contextmanager
def sole_writer(folder, what: str) -> Iterator[Claim]:
    """While the `with` block runs, no other one writes a `what`, such as "run", into the folder.

    The folder is made if it is missing, and unmade if nothing came into it. A disk without locks lets everyone write.

    Raises UserError if another one is at work there, or the folder cannot be written; nothing has changed then.
    """
    folder = Path(folder)
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    with explaining(folder):
        folder.mkdir(parents=True, exist_ok=True)
        claim = Claim(_lock_file(folder, what))
    try:
        if not claim.taken:
            raise _in_use(folder, what)
        yield claim
    finally:
        claim.release()
        with contextlib.suppress(OSError):  # a folder that holds something stays
            for place in made:
                place.rmdir()


def check_unclaimed(folder, what: str) -> None:
    """Raise UserError if someone writes a `what` into the folder at this moment; changes nothing."""
    path = _lock_file(folder, what)
    with contextlib.suppress(OSError):  # nobody has written there, or nobody may
        if path.exists():
            with open(path, "r+b") as file:
                if not _lock(file.fileno()):
                    raise _in_use(folder, what)


def _lock_file(folder, what: str) -> Path:
    return Path(folder, f".{what}.lock")


def _in_use(folder, what: str) -> UserError:
    return UserError(f"Another {what} is writing to {folder}: wait until it ends, stop it, or choose another folder.")


def _lock(handle: int) -> bool:
    """Lock an open file, if nobody has; True also where the disk knows no locks, for a run must be possible there."""
    try:
        if fcntl is None:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in TAKEN
    return True
