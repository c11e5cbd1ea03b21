"""Numbers that a notebook wants kept: metrics.json in the run's folder, one section a notebook."""

import json
from collections.abc import Mapping
from pathlib import Path

from disendiff_lite.support.errors import UserError
from disendiff_lite.support.files import read_json, write_text

FILE = "metrics.json"


def record_metrics(folder, section: str, values: Mapping[str, object]) -> None:
    """Put `values` in place of a section of metrics.json; the other sections stay.

    folder: the run's. section: such as "quickstart". values: plain numbers, texts, lists and dicts.

    Raises UserError if a value is not plain, or the file cannot be written.
    """
    metrics = read_metrics(folder) | {section: dict(values)}
    try:
        text = json.dumps(metrics, indent=2)
    except TypeError as error:
        raise UserError(
            f"The metrics of {section} are not all plain numbers and texts ({error}): convert them."
        ) from None
    write_text(Path(folder) / FILE, text + "\n")


def read_metrics(folder) -> dict:
    """The sections of metrics.json, none if there is no such file yet. Raises UserError if the file is damaged."""
    path = Path(folder) / FILE
    return read_json(path, "is damaged: delete it and make the report again.") if path.exists() else {}
