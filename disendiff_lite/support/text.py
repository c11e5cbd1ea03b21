"""Things in words: several named in one phrase, and tables."""

from collections.abc import Sequence


def enumeration(parts: Sequence[str]) -> str:
    """One or more words or phrases in a row, with commas and a last "and"."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def text_table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as lines of text, with the columns aligned to the left."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells, the first being the heads, as a table of Markdown."""
    head, *rest = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([head, "|---" * len(rows[0]) + "|", *rest])
