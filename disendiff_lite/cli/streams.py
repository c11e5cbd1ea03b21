"""What is printed never ends the work: not a reader that goes away, nor a full disk behind `>`, nor an odd letter."""

import contextlib
import os
import sys
from collections.abc import Iterator


class Lasting:
    """A text stream that falls silent after an error, instead of raising it wherever something is printed.

    stream: where it writes; everything else is asked of it. error: what it failed with, None as long as all is well.
    """

    def __init__(self, stream):
        self.stream, self.error = stream, None

    def write(self, text: str) -> int:
        self._try(self.stream.write, text)
        return len(text)

    def flush(self) -> None:
        self._try(self.stream.flush)

    def reconfigure(self, **changes) -> None:
        self._try(self.stream.reconfigure, **changes)

    def __getattr__(self, name: str):
        return getattr(self.stream, name)

    def _try(self, action, *arguments, **named) -> None:
        if self.error is not None:
            return
        try:
            action(*arguments, **named)
        except OSError as error:
            self.error = error
            with contextlib.suppress(OSError):  # so that Python does not complain once more when it flushes at exit
                os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())


@contextlib.contextmanager
def lasting_streams() -> Iterator[tuple[Lasting, Lasting]]:
    """While the `with` block runs, stdout and stderr are Lasting, and letters that they cannot write become \\\\xb1.

    Yields both. One that was closed before the start leads nowhere.
    """
    before = sys.stdout, sys.stderr
    # A closed one must be opened before any other file is: that would get its number, and with it what is printed.
    streams = tuple(Lasting(stream or open(os.devnull, "w", encoding="utf-8")) for stream in before)
    strict = [stream for stream in streams if getattr(stream.stream, "errors", "") == "strict"]
    try:
        sys.stdout, sys.stderr = streams
        for stream in strict:
            stream.reconfigure(errors="backslashreplace")
        yield streams
    finally:
        for stream in streams:
            stream.flush()
        for stream in strict:
            stream.reconfigure(errors="strict")
        sys.stdout, sys.stderr = before
