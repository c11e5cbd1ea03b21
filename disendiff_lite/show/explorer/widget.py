"""Attention maps to look at with your own hands: a widget that shows what was recorded, without calling a model.

It is made of core ipywidgets alone, for JupyterLab, VS Code and Colab. Beside it stands explorer.figure(), for readers
without a kernel; show.write_explorer writes its twin, a page that needs no kernel at all.
"""

import io
from collections.abc import Sequence

import ipywidgets
from matplotlib.figure import Figure
from PIL import Image

from disendiff_lite.attention_record import AttentionRecord, layer_label
from disendiff_lite.show.explorer.picture import draw_view
from disendiff_lite.show.explorer.view import (
    STRENGTH,
    View,
    check_records,
    chosen_words,
    overlay_opacities,
    select_maps,
    step_label,
    word_labels,
)
from disendiff_lite.show.maps import plot_map_grid
from disendiff_lite.support.errors import UserError
from disendiff_lite.support.files import replacing

MEAN = "mean"
CHIP_STYLES = {"modifier": "warning", "class": "info", "": ""}
PLAY_EVERY = 300  # milliseconds


class AttentionExplorer(ipywidgets.VBox):
    """Maps of an attention record under controls for words, step, grid, layer, head, overlay and colour scale.

    record: what is shown. other: a second one of the same prompt and settings, shown under the
        first by the same controls.
    names: of the two. words: shown at first, as the record names them (a second "a" is "a (2)"); None takes the
    modifiers and classes, or all words without such.

    Raises UserError if there is no such word, or the two records cannot be compared.
    """

    def __init__(
        self,
        record: AttentionRecord,
        other: AttentionRecord | None = None,
        names: Sequence[str] = ("before", "after"),
        words: Sequence[str] | None = None,
    ):
        self._records, self._names = check_records(record, other, names), tuple(names)
        self._make_controls(record, chosen_words(record, words))
        self._image = ipywidgets.Image(format="png", layout={"max_width": "100%", "object_fit": "contain"})
        self._image.add_class("disendiff-maps")
        super().__init__([*self._rows(), self._image, ipywidgets.HBox([self._path, self._save, self._message])])
        self._observe()
        self._draw()

    @property
    def view(self) -> View:
        """What the controls say now."""
        return View(
            words=tuple(place for place, chip in enumerate(self._chips) if chip.value),
            grid=self._grid.value,
            step=_number(self._step.value),
            layer=_number(self._layer.value),
            head=_number(self._head.value),
            strength=self._strength.value,
            shared=self._shared.value,
        )

    def picture(self) -> Image.Image:
        """What is shown now, with its labels."""
        return draw_view(self._records, self._names, self.view)

    def figure(self) -> Figure:
        """The static figure of what is shown now. Raises UserError if no word is chosen."""
        view, (first, *_) = self.view, self._records
        if not view.words:
            raise UserError("No word is chosen: press at least one for a figure.")
        labels = word_labels(first)
        return plot_map_grid(
            select_maps(self._records, view),
            [labels[place] for place in view.words],
            self._names if len(self._records) > 1 else None,
            [record.picture for record in self._records],
            view.shared,
            overlay=overlay_opacities(view.strength),
        )

    def save(self, path) -> None:
        """Write what is shown now as a PNG file, whole or not at all. Raises UserError if it cannot be written."""
        with replacing(path) as temporary:
            self.picture().save(temporary, format="PNG")

    def __repr__(self) -> str:  # stands in notebooks where no widgets are drawn
        return f"AttentionExplorer of {self._records[0].prompt!r}: run the notebook to use it"

    def _make_controls(self, record: AttentionRecord, words: Sequence[int]) -> None:
        self._chips = [
            ipywidgets.ToggleButton(
                value=place in words, description=f"{label} · {role}" if role else label, layout={"width": "auto"}
            )
            for place, (label, role) in enumerate(zip(word_labels(record), record.roles))
        ]
        steps = [
            (step_label(record, step), MEAN if step is None else step) for step in (None, *range(len(record.times)))
        ]
        self._play = ipywidgets.Play(min=0, max=len(record.times), interval=PLAY_EVERY, layout={"width": "auto"})
        self._step = _described(ipywidgets.SelectionSlider, "step", "26em", options=steps, readout=False)
        self._said = ipywidgets.Label()  # the slider's own readout would be cut
        self._grid = _described(ipywidgets.Dropdown, "grid", "9em", options=list(record.maps))
        self._layer = _described(ipywidgets.Dropdown, "layer", "22em", options=self._layers())
        self._head = _described(ipywidgets.Dropdown, "head", "12em", options=self._heads())
        self._strength = _described(ipywidgets.FloatSlider, "overlay", "20em", value=STRENGTH, min=0, max=1, step=0.05)
        scales = [("one for all maps", True), ("each map its own", False)]
        self._shared = _described(ipywidgets.Dropdown, "colour scale", "18em", options=scales)
        self._path = _described(ipywidgets.Text, "file", "20em", value="attention.png")
        self._save = ipywidgets.Button(description="save picture", icon="download")
        self._message = ipywidgets.Label()

    def _rows(self) -> list[ipywidgets.Box]:
        grid = [self._grid] if len(self._grid.options) > 1 else []
        rows = (
            self._chips,
            [self._play, self._step, self._said],
            [*grid, self._layer, self._head],
            [self._strength, self._shared],
        )
        return [ipywidgets.Box(row, layout={"flex_flow": "row wrap", "grid_gap": "0 12px"}) for row in rows]

    def _observe(self) -> None:
        ipywidgets.link((self._play, "value"), (self._step, "index"))
        self._grid.observe(self._change_grid, "value")
        for control in (*self._chips, self._step, self._layer, self._head, self._strength, self._shared):
            control.observe(self._draw, "value")
        self._save.on_click(self._save_picture)

    def _layers(self) -> list[tuple[str, str | int]]:
        """The choices of layers that the chosen grid has."""
        layers = self._records[0].layers[self._grid.value]
        return [(f"mean of {len(layers)}", MEAN), *((layer_label(name), number) for number, name in enumerate(layers))]

    def _heads(self) -> list[tuple[str, str | int]]:
        heads = self._records[0].maps[self._grid.value].shape[2]
        return [(f"mean of {heads}", MEAN), *((f"{number + 1} of {heads}", number) for number in range(heads))]

    def _change_grid(self, _) -> None:
        choices = {self._layer: self._layers(), self._head: self._heads()}
        for control in choices:  # else a picture would be drawn of a layer or head that the new grid may not have
            control.unobserve(self._draw, "value")
        for control, options in choices.items():
            control.options, control.value = options, MEAN
            control.observe(self._draw, "value")
        self._draw()

    def _draw(self, _=None) -> None:
        self._said.value = self._step.label
        for chip, role in zip(self._chips, self._records[0].roles):
            chip.icon = "check" if chip.value else ""
            chip.button_style = CHIP_STYLES[role] if chip.value else ""
        file = io.BytesIO()
        self.picture().save(file, format="PNG", compress_level=1)  # the fastest: most of a change's time goes here
        self._image.value = file.getvalue()

    def _save_picture(self, _) -> None:
        try:
            self.save(self._path.value)
            self._message.value = f"saved {self._path.value}"
        except UserError as error:
            self._message.value = str(error)


def _number(value: str | int) -> int | None:
    return None if value == MEAN else value


def _described(kind: type[ipywidgets.DOMWidget], description: str, width: str, **options) -> ipywidgets.DOMWidget:
    """A control with its description directly before it."""
    return kind(description=description, layout={"width": width}, style={"description_width": "initial"}, **options)
