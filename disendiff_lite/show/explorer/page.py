"""The explorer as one HTML file that needs nothing else: no kernel, no server, no network; a double click opens it.

Its controls and its look are those of the widget. The maps travel as numbers, so that the page can take means over
steps,
layers and heads itself: a byte for each value of a map, with that map's lowest value and range as float32. A value is
thereby rounded by at most 1/510 of the range of its map. All bytes are deflated together and written as base64.
"""

import base64
import json
import zlib
from collections.abc import Sequence
from hashlib import sha256
from html import escape
from pathlib import Path

import numpy as np

from disendiff_lite.attention_record import AttentionRecord, layer_label
from disendiff_lite.show.explorer.picture import COLUMNS, ROLE_COLOURS, SCALES, map_colours, picture_tile
from disendiff_lite.show.explorer.view import STRENGTH, check_records, chosen_words, step_label, word_labels
from disendiff_lite.show.maps import SMALL
from disendiff_lite.support.errors import UserError
from disendiff_lite.support.files import read_text, write_text

PARTS = Path(__file__).parent / "static"
SCRIPTS = ("numbers.js", "tiles.js", "save.js", "page.js")
LARGEST = 2**27  # values of maps; browsers hold no longer text than a few times this


def write_explorer(
    path,
    record: AttentionRecord,
    other: AttentionRecord | None = None,
    names: Sequence[str] = ("before", "after"),
    words: Sequence[str] | None = None,
) -> None:
    """Write the page, whole or not at all; arguments as for widgets.AttentionExplorer.

    Raises UserError as it does, if the records are too large for a page, or if the file cannot be written.
    """
    records = check_records(record, other, names)
    size = sum(maps.size for each in records for maps in each.maps.values())
    if size > LARGEST:
        raise UserError(
            f"The maps are too many for a page ({size / 1e6:.0f} million values): record fewer grids, steps or words."
        )
    both = "" if other is None else ", ".join(names)
    facts = _facts(record, len(records), names, chosen_words(record, words))
    write_text(path, _page(f"Attention: {record.prompt}{f' ({both})' if both else ''}", facts, _numbers(records)))


def quantise(maps: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Maps (..., h, w) as bytes: value = lowest + byte / 255 * span.

    Returns lowest and span, float32 (...), and the bytes, uint8 (..., h, w).
    """
    maps = maps.astype(np.float32)
    lowest = maps.min(axis=(-2, -1))  # (...)
    span = maps.max(axis=(-2, -1)) - lowest  # (...)
    places = (maps - lowest[..., None, None]) / np.where(span > 0, span, 1)[..., None, None]  # (..., h, w)
    return lowest, span, np.rint(places * 255).astype(np.uint8)


def _numbers(records: Sequence[AttentionRecord]) -> bytes:
    """For each record its picture, then for each grid the lowest values, the spans and the bytes of
    its maps; then the colours.
    """
    parts = []
    for record in records:
        parts.append(picture_tile(record.picture).tobytes())
        for maps in record.maps.values():
            lowest, span, places = quantise(maps)
            parts += [lowest.astype("<f4").tobytes(), span.astype("<f4").tobytes(), places.tobytes()]
    return zlib.compress(b"".join([*parts, map_colours().tobytes()]), 9)


def _facts(record: AttentionRecord, records: int, names: Sequence[str], words: Sequence[int]) -> dict:
    """What the script needs to know besides the numbers."""
    height, width = picture_tile(record.picture).shape[:2]
    labels = word_labels(record)
    return {
        "prompt": record.prompt,
        "names": list(names) if records > 1 else [""],
        "words": [
            {"label": label, "role": role, "shown": place in words}
            for place, (label, role) in enumerate(zip(labels, record.roles))
        ],
        "steps": [step_label(record, step) for step in (None, *range(len(record.times)))],  # the mean first
        "grids": [
            {"name": grid, "size": list(record.maps[grid].shape), "layers": [layer_label(layer) for layer in layers]}
            for grid, layers in record.layers.items()
        ],
        "tile": {"width": width, "height": height, "crisp": max(record.picture.shape[:2]) <= SMALL},
        "columns": COLUMNS,
        "strength": STRENGTH,
        "scales": {"shared": SCALES[True], "own": SCALES[False]},
        "colours": {role: f"rgb{colour}" for role, colour in ROLE_COLOURS.items()},
    }


def _page(title: str, facts: dict, numbers: bytes) -> str:
    """The template with its places filled; the policy lets nothing run or load but what is written here."""
    style = read_text(PARTS / "page.css")
    script = "\n".join(read_text(PARTS / name) for name in SCRIPTS)
    allowed = f"script-src {_fingerprint(script)}; style-src {_fingerprint(style)}"
    policy = f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'"
    filled = {
        "POLICY": policy,
        "TITLE": escape(title),
        "STYLE": style,
        "SCRIPT": script,
        "FACTS": json.dumps(facts).replace("<", "\\u003c"),  # no word of a prompt can end the script element
        "NUMBERS": base64.b64encode(numbers).decode(),
    }
    head, *pieces = read_text(PARTS / "page.html").split("@@")
    return head + "".join(filled.get(piece, piece) for piece in pieces)


def _fingerprint(text: str) -> str:
    return f"'sha256-{base64.b64encode(sha256(text.encode()).digest()).decode()}'"
