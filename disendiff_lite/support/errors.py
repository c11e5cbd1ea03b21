"""Errors that a person can mend: their text is a single sentence that names the mend."""

import difflib
import sys
from collections.abc import Callable, Mapping, Sequence


class UserError(ValueError):
    """Bad input. The command line prints the text alone, without a traceback, and exits with status 2."""


def first_line(error: Exception) -> str:
    """What a library's error says, in one line to quote within a sentence; its kind, if it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".:")


def check_name(name: str, known: Sequence[str] | Mapping, what: str) -> None:
    """Raise UserError, which names the nearest one, if `name` is not among the known names."""
    if name not in known:
        near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.0)
        mend = f"did you mean {near[0]!r}?" if near else "leave it out, there are none."
        raise UserError(f"There is no {what} {name!r}: {mend}")


def run_main(main: Callable[[], None]) -> None:
    """Run the `main` of a module that is a command; after a UserError, print its sentence and exit with status 2."""
    try:
        main()
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
