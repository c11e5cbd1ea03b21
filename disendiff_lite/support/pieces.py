"""Readable labels for the pieces of a text that was cut between bytes, as tokenizers cut letters they do not know."""

import unicodedata
from collections.abc import Sequence


def piece_labels(pieces: Sequence[bytes]) -> list[str]:
    """One printable label a piece: its text; where pieces make up a letter only together, "猫 1/3", "猫 2/3", "猫 3/3".

    pieces: of UTF-8 text, in its order. Bytes that make up no letter are labelled by their numbers: "e7 8c".
    """
    labels, together = [], []
    for piece in pieces:
        together.append(piece)
        try:
            text = _printable(b"".join(together).decode())
        except UnicodeDecodeError:  # the letter goes on in the next piece
            continue
        count = len(together)
        labels += [text] if count == 1 else [f"{text} {number}/{count}" for number in range(1, count + 1)]
        together = []
    return labels + [piece.hex(" ") for piece in together]


def _printable(text: str) -> str:
    """What of a text can be seen, or, if nothing can be, its code points: "U+200D" joins two emoji into one."""
    seen = "".join(letter for letter in text if letter.isprintable() and not "\ufe00" <= letter <= "\ufe0f").strip()
    if not seen:
        return " ".join(f"U+{ord(letter):04X}" for letter in text)
    return f"◌{seen}" if unicodedata.category(seen[0]).startswith("M") else seen  # an accent needs something to sit on
