"""Files that are written whole or not at all, and weights that are read from safetensors alone.

Everything is written to a temporary neighbour first and then renamed over its place, so that a run killed at any moment
leaves either the old file or the new one. Pickled weights (.bin, .pt, .ckpt) are never opened: loading one runs its
code.
"""

import contextlib
import csv
import json
import os
import shutil
import tempfile
import unicodedata
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from disendiff_lite.support.errors import UserError

HEADER = "disendiff_lite"  # the entry of a safetensors file's metadata that is ours
MEND = "free some space or choose a run folder that you may write to"


@contextlib.contextmanager
def replacing(path):
    """Yield the temporary path to write; on leaving without an error it takes the place of `path`.

    Folders that are missing are made. The temporary file is deleted after an error. Raises UserError if the disk is
    full, or the folder cannot be made or written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp")
    with explaining(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            _flush(temporary)
            os.replace(temporary, path)
            _flush(path.parent)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise


@contextlib.contextmanager
def explaining(path, mend: str = MEND):
    """Turn an operating system's refusal to write `path` into a `UserError` that says what to do, the `mend`."""
    try:
        yield
    except BrokenPipeError:  # no file, but the reader of what is printed meanwhile
        raise
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"Cannot write {path} ({reason}): {mend} (what was written before is kept).") from error


def check_space(folder, needed: int) -> None:
    """Raise UserError, before the work begins, if the disk that holds `folder` has fewer than `needed` bytes left."""
    folder = Path(folder)
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"{folder} has {free / 1e6:.0f} MB left and this run needs {needed / 1e6:.0f} MB:"
            " free some space or choose a run folder on another disk."
        )


def check_writable(folder, mend: str = MEND) -> None:
    """Raise UserError, before the work begins, if no file can be written in `folder`, which is made if it is missing.

    mend: as for explaining.
    """
    with explaining(folder, mend):
        Path(folder).mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()


def file_key(name: str) -> str:
    """One text for all names that some disk takes for the same: in capitals or not, accents in one piece or two."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())


def file_names(text: str) -> list[str]:
    """The names of files in a text with commas between; one that has a comma itself stands alone or in quotes."""
    if os.path.isfile(text):
        return [text]
    return [name.strip() for names in csv.reader(text.splitlines(), skipinitialspace=True) for name in names]


def write_text(path, text: str) -> None:
    """Write `text` to `path`, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def put_into_page(path, section: str, inserted: str) -> None:
    """Replace, in a page of Markdown, what stands between the lines `<!-- section -->` and `<!-- end of section -->`.

    Raises UserError if the file cannot be read or written, or lacks one of these lines.
    """
    begin, end = f"<!-- {section} -->", f"<!-- end of {section} -->"
    before, first, rest = read_text(path).partition(begin)
    _, last, after = rest.partition(end)
    if not (first and last):
        raise UserError(f"{path} has no lines {begin} and {end}: put them where the tables should go.")
    write_text(path, f"{before}{begin}\n{inserted}\n{end}{after}")


def read_text(path) -> str:
    """The text of `path`. Raises UserError if the file is missing or cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8-sig")  # some editors put a mark of its encoding before a text
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise UserError(f"Cannot read {path} ({reason}): check the path.") from None


def read_json(path, otherwise: str) -> dict:
    """The values by name that a JSON file holds.

    otherwise: what an error says after the path if the file is damaged, with {line} for the line: "is damaged: train
        again."

    Raises UserError if the file is missing, cannot be read, or does not hold values by name.
    """
    try:
        values = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise UserError(f"{path} {otherwise.format(line=error.lineno)}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path} {otherwise.format(line=1)}")
    return values


def write_tensors(path, tensors: dict[str, torch.Tensor], header: dict) -> None:
    """Write tensors, and plain values under names, as one safetensors file, whole or not at all."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    # One entry of metadata, for safetensors writes several in an order that changes from run to run.
    metadata = {HEADER: json.dumps(header, sort_keys=True)}
    with replacing(path) as temporary:
        save_file(plain, temporary, metadata=metadata)
        temporary.chmod(0o644)  # safetensors makes files that only their owner can read


def read_tensors(path) -> tuple[dict[str, torch.Tensor], dict]:
    """The tensors of a safetensors file, on the CPU, and the header that write_tensors gave it, empty if it did not.

    Raises UserError if the file is missing, is a pickle, or is truncated or otherwise not safetensors.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise UserError(f"{path} is not a safetensors file: pickled weights are not read, convert it to safetensors.")
    if not path.is_file():
        raise UserError(f"There is no file {path}: check the path, or train first.")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            header = json.loads((file.metadata() or {}).get(HEADER, "{}"))
            return {name: file.get_tensor(name) for name in file.keys()}, header
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{path} is truncated or not a safetensors file ({error}): delete it and train or copy it again."
        ) from None


def _flush(path: Path) -> None:
    """Push a file or a folder's list of names to the disk, so that the rename cannot outrun the contents."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
