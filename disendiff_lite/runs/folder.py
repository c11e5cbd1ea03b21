"""The folder of a run: what was asked, the losses so far, the last checkpoint, and in the end what was learned.

    config.json           the settings (Config)
    run.json              classes, caption, the picture's hash, the base model's fingerprint, and whether the run is
    finished
    reference.png         the picture
    losses.csv            a line a step
    prior/                pictures of the plain classes, made by the model
    checkpoint.safetensors    weights, optimiser and random state after some step; deleted when the run is finished
    new1.safetensors ...  what was learned, see learned.py
    .run.lock             while the run is under way: its one writer holds it

Every file is written whole or not at all, so a run killed at any moment goes on from its last checkpoint.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from disendiff_lite.config import Config
from disendiff_lite.support.errors import UserError
from disendiff_lite.support.files import (
    check_space,
    explaining,
    read_json,
    read_tensors,
    read_text,
    replacing,
    write_tensors,
    write_text,
)
from disendiff_lite.support.lock import Claim, sole_writer
from disendiff_lite.training import StepRecord

CHECKPOINT = "checkpoint.safetensors"
FREE_TO_CHANGE = ("checkpoint_every",)  # settings that a run may go on with changed: they do not touch its result
# What a record holds hashes of, as an error calls it: nobody can read the hashes themselves.
HASHED = {"picture": "another picture", "prior": "other class pictures", "model": "another model"}


@dataclass(frozen=True)
class RunRecord:
    """What run.json says: the part of a run that is not a setting.

    classes: one a concept. modifiers: one a class. prompt: the training caption without prefixes.
    picture: hash of the reference picture's pixels. prior: hash of the class pictures, None if the model made them for
        the run.
    model: fingerprint of the base model. finished: the results are complete. base: the base model as load_pipeline
    takes it, "" if it had no name.
    """

    classes: tuple[str, ...]
    modifiers: tuple[str, ...]
    prompt: str
    picture: str
    prior: str | None
    model: dict[str, str]
    finished: bool = False
    base: str = "emoji"


def picture_hash(*pictures: Image.Image) -> str:
    """16 hex digits that name the pictures' pixels, whatever files they came from."""
    digest = hashlib.sha256()
    for picture in pictures:
        digest.update(f"{picture.size}".encode() + picture.tobytes())
    return digest.hexdigest()[:16]


def read_run(folder) -> RunRecord:
    """What run.json in a run's folder says.

    Raises UserError if there is no run in the folder, or its run.json is damaged.
    """
    path = Path(folder) / "run.json"
    if not path.exists():
        raise UserError(f"There is no run in {folder} (no run.json): check the path, or train first.")
    damaged = "is damaged: delete the folder and train again."
    fields = read_json(path, damaged)
    if "base" not in fields and (noted := Path(folder, "model.json")).exists():  # as runs had it before
        fields["base"] = read_json(noted, damaged).get("model")
    try:
        fields |= {name: tuple(fields[name]) for name in ("classes", "modifiers")}
        return RunRecord(**fields)
    except (TypeError, KeyError):
        raise UserError(f"{path} {damaged}") from None


def model_of_run(folder, record: RunRecord, named: str | None = None) -> str:
    """The model that is named, or the one that the run in a folder was trained on; UserError if there is neither."""
    if not (named or record.base):
        raise UserError(f"The run in {folder} does not say which model it was trained on: name it with --model.")
    return named or record.base


def read_losses(folder) -> list[StepRecord]:
    """The records that losses.csv in a run's folder holds, in the order of the steps.

    Raises UserError if there is none, or a line is damaged.
    """
    path = Path(folder) / "losses.csv"
    kinds = [field.type for field in dataclasses.fields(StepRecord)]
    lines = [line.split(",") for line in read_text(path).splitlines()[1:]]
    try:
        before = len(kinds) - 1  # columns of runs from before steps could be skipped
        return [
            StepRecord(*(kind(value) for kind, value in zip(kinds, values, strict=len(values) != before)))
            for values in lines
        ]
    except (TypeError, ValueError):
        raise UserError(f"{path} is damaged: copy it again, or delete the run's folder and train anew.") from None


@dataclass
class RunFolder:
    """Writes a run's folder; `open_run` makes one. What was learned is written by learned.save_learned.

    claim: to be its one writer; None if the run is finished and nothing will be written.
    """

    path: Path
    record: RunRecord
    claim: Claim | None = None

    @property
    def checkpoint(self) -> Path:
        return self.path / CHECKPOINT

    def load_checkpoint(self) -> tuple[int, dict[str, torch.Tensor]]:
        """The last checkpoint's step and tensors, and losses.csv cut back to that step; (0, {}) if there is none."""
        step, tensors = 0, {}
        if self.checkpoint.exists():
            tensors, header = read_tensors(self.checkpoint)
            if "step" not in header:
                raise UserError(f"{self.checkpoint} is no checkpoint of a run: delete it and start the run again.")
            step = header["step"]
        columns = ",".join(field.name for field in dataclasses.fields(StepRecord))
        lines = read_text(self.losses).splitlines()[1 : step + 1] if self.losses.exists() else []
        write_text(self.losses, "\n".join([columns, *lines]) + "\n")
        return step, tensors

    def save_checkpoint(self, step: int, tensors: dict[str, torch.Tensor]) -> None:
        """Replace the last checkpoint by this one, in one piece."""
        with explaining(self.losses), open(self.losses, "rb") as losses:
            os.fsync(losses.fileno())  # the checkpoint must not be on the disk before the lines that it counts on
        write_tensors(self.checkpoint, tensors, {"step": step})

    @property
    def losses(self) -> Path:
        return self.path / "losses.csv"

    def log(self, record: StepRecord) -> None:
        """Add a line to losses.csv. Raises UserError if the claim is gone: another run may be there by now."""
        if not self.claim.holds():
            raise UserError(f"{self.claim.path} was deleted while the run was under way: start the run again.")
        with explaining(self.losses), open(self.losses, "a", encoding="utf-8") as file:
            file.write(",".join(map(repr, dataclasses.astuple(record))) + "\n")

    def finish(self) -> None:
        """Mark the results as complete, and let go of the checkpoint, which is several times their size."""
        self.record = dataclasses.replace(self.record, finished=True)
        _write_record(self.path, self.record)
        with explaining(self.checkpoint):
            self.checkpoint.unlink(missing_ok=True)


@contextmanager
def open_run(
    folder, config: Config, record: RunRecord, image: Image.Image, *, resume: bool, size: int
) -> Iterator[RunFolder]:
    """Begin a run in `folder`, or take up the one that is there; one without a checkpoint has nothing to lose and is
    begun anew. While the `with` block runs, nobody else can; a finished run is only read, by as many as like.

    record: of the run that is wanted. image: the reference picture. size: bytes that the run will write, at least.

    Raises UserError if the folder holds a run and `resume` is false, or one with other settings, classes, picture or
    model; if another run is writing to it; if the disk has too little room; or if the folder cannot be written.
    """
    folder = Path(folder)
    found = _found_run(folder, config, record, resume)
    if found is not None and found.finished:
        yield RunFolder(folder, found)
        return
    if found is None:
        check_space(folder, size)
    with sole_writer(folder, "run") as claim:
        found = _found_run(folder, config, record, resume)  # once more: another one may just have ended
        if found is None:
            config.save(folder / "config.json")
            with replacing(folder / "reference.png") as temporary:
                image.save(temporary, format="PNG")
            _write_record(folder, record)
        yield RunFolder(folder, found or record, claim)


def holds_run(folder) -> bool:
    """Whether a folder holds a run that has something to lose: a finished one, or one with a checkpoint."""
    return Path(folder, "run.json").exists() and (read_run(folder).finished or Path(folder, CHECKPOINT).exists())


def check_same(folder, wanted: Mapping[str, object]) -> None:
    """Raise UserError if a folder holds a run, and it is not the wanted one.

    wanted: settings of Config and fields of RunRecord by name; what is not named may differ, and so may FREE_TO_CHANGE.
    """
    if not holds_run(folder):
        return
    found = vars(Config.load(Path(folder, "config.json"))) | vars(read_run(folder))
    differences = [
        HASHED.get(name) or f"{name} {found[name]!r} instead of {value!r}"
        for name, value in wanted.items()
        if name not in (*FREE_TO_CHANGE, "finished", "base") and found[name] != value
    ]
    if differences:
        raise UserError(
            f"{folder} holds another run, with {', '.join(differences)}: choose another folder, or ask for the same."
        )


def _found_run(folder: Path, config: Config, wanted: RunRecord, resume: bool) -> RunRecord | None:
    """The record of the run that a folder holds, None if it holds none; UserError if it is not to be gone on with."""
    if not holds_run(folder):
        return None
    if not resume:
        raise UserError(f"{folder} holds a run already: choose another folder, or delete this one first.")
    check_same(folder, vars(config) | vars(wanted))
    return read_run(folder)


def _write_record(folder: Path, record: RunRecord) -> None:
    write_text(folder / "run.json", json.dumps(dataclasses.asdict(record), indent=2) + "\n")
