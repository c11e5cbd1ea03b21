"""The costs of training steps as tables, as JSON, and read back: `bench.json` holds every round's seconds."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from disendiff_lite.evaluate.bench import ANEW, CALIBRATED, FULL, PLAIN, Cost, ratio
from disendiff_lite.support.errors import UserError
from disendiff_lite.support.files import read_json, write_text
from disendiff_lite.support.text import markdown_table, text_table

LABELS = {
    PLAIN: "plain, latents kept",
    CALIBRATED: "calibrated, latents kept",
    FULL: "calibrated from full maps of every layer",
    ANEW: "plain, pictures encoded anew",
}
HEAD = ("precision", "step", "seconds", "times plain", "times anew", "peak GB")
DAMAGED = "is damaged in line {line}: measure again."


@dataclass(frozen=True)
class Bench:
    """One measurement.

    about: what was measured and on what, in one line. peak: how the memory was counted. costs: precision -> kind of
    step -> its cost.
    """

    about: str
    peak: str
    costs: Mapping[str, Mapping[str, Cost]]

    def rows(self) -> list[list[str]]:
        """The table's rows, the heads first; times plain and times anew are medians of the rounds' ratios."""
        rows = [list(HEAD)]
        for precision, costs in self.costs.items():
            for name, cost in costs.items():
                if not cost.fits:
                    rows.append([precision, LABELS[name], "out of memory", "", "", ""])
                    continue
                peak = "" if cost.peak is None else f"{cost.peak / 1e9:.3g}"
                ratios = [f"{ratio(costs, name, base):.3f}" if costs[base].fits else "" for base in (PLAIN, ANEW)]
                rows.append([precision, LABELS[name], f"{cost.middle:.4g}", *ratios, peak])
        return rows

    def text(self) -> str:
        return f"{self.about}\n\n{text_table(self.rows())}\n\n{self.peak}"

    def markdown(self) -> str:
        return f"{self.about}\n\n{markdown_table(self.rows())}\n\n{self.peak}"

    def save(self, path) -> None:
        """Write it as JSON, whole or not at all."""
        write_text(path, json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def load(cls, path) -> "Bench":
        """Read what `save` wrote. Raises UserError if the file is missing, damaged or another kind of file."""
        values = read_json(path, DAMAGED)
        try:
            found = {name: {kind: Cost(**cost) for kind, cost in one.items()} for name, one in values["costs"].items()}
            bench = cls(values["about"], values["peak"], found)
            bench.rows()
        except (KeyError, TypeError, AttributeError, ValueError):
            raise UserError(f"{path} holds no costs of training steps: give a bench.json.") from None
        return bench
