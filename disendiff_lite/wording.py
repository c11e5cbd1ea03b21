"""How several things are named in one phrase, in captions as in prompts: "a", "a and b", "a, b and c"."""

from collections.abc import Sequence


def enumeration(parts: Sequence[str]) -> str:
    """One or more words or phrases in a row, with commas and a last "and"."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
