"""Runs that are there already: which variants of an ablation a folder holds, for one model and one picture."""

from collections.abc import Iterable
from pathlib import Path

from disendiff_lite.ablation import variant_folder
from disendiff_lite.base_model import absolute_model, recall_model
from disendiff_lite.models import SHORT_NAMES
from disendiff_lite.references import Reference
from disendiff_lite.runs import picture_hash, read_run

SHIPPED = Path(__file__).resolve().parents[1] / "data" / "ablation"


def find_runs(folder, names: Iterable[str], model: str, reference: Reference) -> dict[str, Path]:
    """Those variants whose finished run lies in `folder`, was trained on `model`, and learned this very reference.

    names: of the variants, such as ablation.VARIANTS. model: as load_pipeline takes it. Returns their folders by name, none if
    nothing fits. Raises UserError if a run's own files are damaged.
    """
    folders = {name: variant_folder(folder, name) for name in names}
    return {name: path for name, path in folders.items() if (path / "run.json").exists() and _fits(path, model, reference)}


def _fits(path: Path, model: str, reference: Reference) -> bool:
    record = read_run(path)
    same_picture = record.classes == reference.classes and record.picture == picture_hash(reference.picture)
    return record.finished and same_picture and _source(recall_model(path)) == _source(model)


def _source(model: str) -> str:
    # A model has several names: "sd15" and its hub id are one.
    return absolute_model(SHORT_NAMES.get(model, model))
