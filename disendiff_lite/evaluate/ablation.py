"""The ablation: what each piece of the calibration does, seen by training without it, all else being equal.

    python -m disendiff_lite.evaluate.ablation --pair cat_dog --out data/ablation

trains the variants and keeps what they learned, a run's folder each, for notebooks that compare runs without training
them. The variants are changes of one Config. They share their seed and their pictures of the plain classes, and the
calibration draws no random number: so each sees the same pictures with the same noise in the same order.
"""

import argparse
import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from diffusers import StableDiffusionPipeline

from disendiff_lite.config import Config
from disendiff_lite.data import PriorImages
from disendiff_lite.models import SHORT_NAMES, absolute_model, load_pipeline, preset_for
from disendiff_lite.runs.folder import picture_hash, read_run
from disendiff_lite.runs.prior import make_prior
from disendiff_lite.runs.references import Reference, load_reference
from disendiff_lite.runs.train import train
from disendiff_lite.support.errors import UserError, run_main
from disendiff_lite.support.paths import ABLATION
from disendiff_lite.support.progress import progress, progress_callback

VARIANTS = {
    "full": {},
    "without bind": {"bind_weight": 0.0},
    "without separate": {"separate_weight": 0.0},
    "without suppression": {"suppress": False},
    "Custom Diffusion": {"method": "custom_diffusion", "calibration_weight": 0.0},
}
SHIPPED_RANK = 32  # of the changes that the command keeps: a fifth of the full size, and most of the change


def ablation_configs(config: Config) -> dict[str, Config]:
    """The settings of each variant by its name, the full method first.

    Raises UserError if `config` is not DisenDiff with both terms and with suppression: then
    there is nothing to take away.
    """
    terms = (config.calibration_weight, config.bind_weight, config.separate_weight)
    if not (all(terms) and config.suppress and config.smooth):
        raise UserError(
            "The ablation begins with the whole calibration: give settings in which no part of it is switched off."
        )
    return {name: dataclasses.replace(config, **changes) for name, changes in VARIANTS.items()}


def variant_folder(folder, name: str) -> Path:
    """Where a variant's run lies: "without bind" in folder/without_bind."""
    return Path(folder) / name.lower().replace(" ", "_")


def train_variants(
    model: str,
    reference: Reference,
    configs: Mapping[str, Config],
    folder,
    prior: PriorImages | None = None,
) -> Iterator[tuple[str, StableDiffusionPipeline]]:
    """Train the variants one after another; finished ones are loaded, and broken-off ones go on.

    model: as load_pipeline takes it. configs: by name, such as ablation_configs gives. folder: each gets one of its own
        in it, see variant_folder. prior: pictures of the plain classes for all of them, such as shared_prior gives.

    Yields each variant's name and the pipeline that has learned it. Keep none of them: then two at most are in memory.
    """
    for name, config in configs.items():
        pipe = load_pipeline(model)
        run = variant_folder(folder, name)
        records = train(pipe, reference.picture, reference.classes, config, run_dir=run, prior=prior)
        for _ in progress(records, config.steps, name):
            pass
        yield name, pipe
        del pipe


def shared_prior(model: str, reference: Reference, config: Config, folder=None) -> PriorImages:
    """Pictures of the plain classes that several runs share, drawn by the untrained model or read from `folder`.

    folder: as for prior.make_prior.
    """
    return make_prior(load_pipeline(model), reference.classes, config, folder, progress_callback("class pictures"))


def find_runs(folder: str | Path | None, names: Iterable[str], model: str, reference: Reference) -> dict[str, Path]:
    """Those variants whose finished run lies in `folder`, was trained on `model`, and learned this very reference.

    folder: None takes the shipped runs. names: of the variants, such as ablation.VARIANTS. model: as load_pipeline
    takes it. Returns their folders by name, none if nothing fits. Raises UserError if a run's own files are damaged.
    """
    folders = {name: variant_folder(folder or ABLATION, name) for name in names}
    return {
        name: path for name, path in folders.items() if (path / "run.json").exists() and _fits(path, model, reference)
    }


def _fits(path: Path, model: str, reference: Reference) -> bool:
    record = read_run(path)
    same_picture = record.classes == reference.classes and record.picture == picture_hash(reference.picture)
    return record.finished and same_picture and _source(record.base) == _source(model)


def _source(model: str) -> str:
    # A model has several names: "sd15" and its hub id are one.
    return absolute_model(SHORT_NAMES.get(model, model))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pair", default="cat_dog", help="a shipped reference picture (default cat_dog)")
    parser.add_argument("--model", default="emoji", help="a short name, a folder or a hub id (default emoji)")
    parser.add_argument("--seed", type=int, default=0, help="of everything that is random (default 0)")
    parser.add_argument("--steps", type=int, help="optimiser steps (default: the preset's)")
    parser.add_argument(
        "--out", required=True, help="where the runs go, a folder each; to make them anew, delete it first"
    )
    args = parser.parse_args()
    reference = load_reference(args.pair)
    changes = {"steps": args.steps} if args.steps else {}
    config = preset_for(args.model)(seed=args.seed, saved_rank=SHIPPED_RANK, **changes)
    prior = shared_prior(args.model, reference, config)  # in memory alone: it is not shipped
    for name, _ in train_variants(args.model, reference, ablation_configs(config), args.out, prior):
        files = [path for path in variant_folder(args.out, name).rglob("*") if path.is_file()]
        print(f"{name}: {sum(path.stat().st_size for path in files) / 1000:.0f} kB")


if __name__ == "__main__":
    run_main(main)
