"""Errors that a person can mend: their text is a single sentence that names the mend."""


class UserError(ValueError):
    """Bad input. The command line prints the text alone, without a traceback, and exits with status 2."""


def first_line(error: Exception) -> str:
    """What a library's error says, in one line to quote within a sentence; its kind, if it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".:")
