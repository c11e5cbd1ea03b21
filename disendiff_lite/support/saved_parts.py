"""The parts of a model as save_pretrained writes them: a folder each, with weights plain or of a variant (fp16)."""

import importlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from disendiff_lite.support.files import read_json

LIBRARIES = ("diffusers", "transformers")
STEM = r"(?:diffusion_pytorch_model|model)"  # what diffusers and transformers call a file of weights
WHOLE = re.compile(rf"{STEM}(?:\.(?P<variant>.+?))?\.safetensors")
INDEX = re.compile(rf"{STEM}\.safetensors\.index(?:\.(?P<variant>.+))?\.json")  # lists files that hold a share each
SHARE = re.compile(r"-\d{5}-of-\d{5}\.")
FINEST = ("", "fp32", "fp16")  # the variants to take first, plain weights before all
MODEL = (("config.json",),)
OTHERS = {  # the files without which a part that is no model is not there: all of one of the lists
    "scheduler": (("scheduler_config.json",),),
    "tokenizer": (("vocab.json", "merges.txt"), ("tokenizer.json",)),
}


def variant_parts(folder, index: Mapping, parts: Sequence[str]) -> dict:
    """Load those parts that have only weights of a variant, such as fp16, which the pipeline would not find by itself.

    folder: that holds a folder for each part. index: by part its library and class, as in model_index.json.
    parts: that the model needs; the scheduler and the tokenizer have no weights.

    Returns the loaded modules by part. Raises FileNotFoundError, which names the part, if one of the parts is not all
    there; pickled weights do not count.
    """
    loaded = {}
    for part in parts:
        library, kind = index.get(part) or (None, None)
        place = Path(folder, part)
        if not library or not place.is_dir():
            raise FileNotFoundError(f"its {part} is missing")
        lost = min((_lost(place, names) for names in OTHERS.get(part, MODEL)), key=len)
        if lost:
            raise FileNotFoundError(f"its {part} has no {lost[0]}")
        variant = _variant(place) if library in LIBRARIES and part not in OTHERS else ""
        if variant:
            load = getattr(importlib.import_module(library), kind).from_pretrained
            loaded[part] = load(place, variant=variant, use_safetensors=True, local_files_only=True)
    return loaded


def _variant(place: Path) -> str:
    """Which weights of a part to load, "" for the plain ones."""
    found = {}  # by variant, the file that holds the weights or lists the files that do
    for pattern in (INDEX, WHOLE):
        for path in sorted(place.iterdir()):
            match = pattern.fullmatch(path.name)
            if match and not SHARE.search(path.name):
                found[match["variant"] or ""] = path
    if not found:
        lost = "index of its weights" if any(place.glob("*.safetensors")) else "safetensors weights"
        raise FileNotFoundError(f"its {place.name} has no {lost}")
    variant = next((name for name in FINEST if name in found), min(found))
    if found[variant].suffix == ".json":
        shares = read_json(found[variant], "is damaged").get("weight_map", {})
        lost = _lost(place, sorted(set(shares.values())))
        if lost:
            raise FileNotFoundError(f"its {place.name} has no {lost[0]}")
    return variant


def _lost(place: Path, names: Sequence[str]) -> list[str]:
    return [name for name in names if not (place / name).is_file()]
