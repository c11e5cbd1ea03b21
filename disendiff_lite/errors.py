"""The one exception that a person can mend: its text is a single sentence that names the mend."""


class UserError(ValueError):
    """Bad input. The command line prints the text alone, without a traceback, and exits with status 2."""
