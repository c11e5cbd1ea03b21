"""What is looked at in attention records: which words, step, grid, layer and head, and how their maps are drawn.

The explorer in notebooks and its offline twin share these choices and their wording.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import shorten

import numpy as np

from disendiff_lite.attention_record import AttentionRecord, layer_label, mean_maps
from disendiff_lite.support.errors import UserError, check_name

STRENGTH = 0.6  # of the maps over the picture, unless it is chosen: about that of the static figures


@dataclass(frozen=True)
class View:
    """One look at a record, or at two.

    words: numbers of the record's words, from 0. grid: its name, "16x16". step, layer, head: numbers
        from 0, None for the mean.
    strength: of the maps over the picture, in [0, 1]; 0 shows the picture alone, 1 the map alone.
    shared: one colour scale for all maps, from 0 to their highest value; else each is stretched from
        its lowest to its highest.
    """

    words: tuple[int, ...]
    grid: str
    step: int | None = None
    layer: int | None = None
    head: int | None = None
    strength: float = STRENGTH
    shared: bool = True


def check_records(
    record: AttentionRecord, other: AttentionRecord | None, names: Sequence[str]
) -> tuple[AttentionRecord, ...]:
    """The one record or the two, which can be shown under the same controls.

    names: of the two. Raises UserError if the two differ in words, steps, grids, layers or heads, if a value is not a
    finite number, or if there are not two different names.
    """
    records = (record,) if other is None else (record, other)
    if other is not None:
        if len(names) != 2 or names[0] == names[1]:
            raise UserError(f"The names {tuple(names)} must be two different ones: give one for each record.")
        first, second = _frame(record), _frame(other)
        for what in first:
            if first[what] != second[what]:
                raise UserError(
                    f"The two records differ in their {what} ({shorten(first[what], 60)} and"
                    f" {shorten(second[what], 60)}):"
                    " record both with the same prompt and settings."
                )
    if not all(np.isfinite(maps).all() for each in records for maps in each.maps.values()):
        raise UserError("The record has maps with values that are no numbers: the model was broken, train it again.")
    return records


def word_labels(record: AttentionRecord) -> tuple[str, ...]:
    """The record's words, each different: the second "a" is "a (2)"."""
    before = [record.words[:place].count(word) for place, word in enumerate(record.words)]
    return tuple(f"{word} ({count + 1})" if count else word for word, count in zip(record.words, before))


def chosen_words(record: AttentionRecord, words: Sequence[str] | None) -> tuple[int, ...]:
    """Numbers of the words with these labels, in the prompt's order; None takes the modifiers and
    classes, or all without such.

    Raises UserError naming the nearest word if there is no such one.
    """
    labels = word_labels(record)
    if words is None:
        return tuple(n for n, role in enumerate(record.roles) if role) or tuple(range(len(labels)))
    for word in words:
        check_name(word, labels, "word")
    return tuple(sorted({labels.index(word) for word in words}))


def select_maps(records: Sequence[AttentionRecord], view: View) -> np.ndarray:
    """The maps of a view, float32 (records, words, h, w), in [0, 1]. Raises UserError as mean_maps does."""
    side = tuple(int(length) for length in view.grid.split("x"))
    maps = [mean_maps(record, side, step=view.step, layer=view.layer, head=view.head) for record in records]
    return np.stack(maps)[:, list(view.words)]  # (records, words, h, w)


def overlay_opacities(strength: float) -> tuple[float, float]:
    """Opacity of the lowest and of the highest attention: both 0 at strength 0, both 1 at strength 1."""
    return strength**2, strength * (2 - strength)


def step_label(record: AttentionRecord, step: int | None) -> str:
    """Which step it is, and how much noise there was: a timestep of the model's schedule."""
    count = len(record.times)
    return f"mean of {count} steps" if step is None else f"step {step + 1} of {count}, noise level {record.times[step]}"


def describe(record: AttentionRecord, view: View) -> str:
    """One line that says which maps these are, for under the prompt."""
    layers, heads = record.layers[view.grid], record.maps[view.grid].shape[2]
    layer = f"mean of {len(layers)} layers" if view.layer is None else layer_label(layers[view.layer])
    head = f"mean of {heads} heads" if view.head is None else f"head {view.head + 1} of {heads}"
    return ", ".join([step_label(record, view.step), f"{view.grid} maps", layer, head])


def _frame(record: AttentionRecord) -> dict[str, str]:
    """What must be the same in two records, in words."""
    return {
        "words": " ".join(record.words),
        "positions": ", ".join(map(str, record.positions)),
        "noise levels": ", ".join(map(str, record.times)),
        "grids": ", ".join(record.layers),
        "layers": ", ".join(layer_label(layer) for layers in record.layers.values() for layer in layers),
        "heads": ", ".join(str(maps.shape[2]) for maps in record.maps.values()),
    }
