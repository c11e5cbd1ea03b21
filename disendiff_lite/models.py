"""Load a Stable Diffusion pipeline by a short name, a folder or a hub id, and choose which of its weights train."""

import contextlib
import hashlib
import os
import re
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from huggingface_hub import hf_hub_download, model_info
from torch import nn

from disendiff_lite.config import Config, emoji, paper
from disendiff_lite.presets import TRAINED
from disendiff_lite.support.errors import UserError, first_line
from disendiff_lite.support.files import read_json
from disendiff_lite.support.modules import plain_names
from disendiff_lite.support.paths import EMBEDDED_MODEL
from disendiff_lite.support.quiet import without_progress_bars
from disendiff_lite.support.saved_parts import variant_parts

SHORT_NAMES = {
    "emoji": str(EMBEDDED_MODEL),
    "sd15": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "sd14": "CompVis/stable-diffusion-v1-4",
}
PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
NOT_LOADED = {  # the safety checker and what goes with it, and what only prompts in pictures need
    **dict.fromkeys(("safety_checker", "feature_extractor", "image_encoder")),
    "requires_safety_checker": False,
}
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
SMALL = 16  # latents of the embedded model are 16x16; Stable Diffusion's are 64x64 and larger


def load_pipeline(name="emoji", device=None, dtype=None) -> StableDiffusionPipeline:
    """Load a text-to-image pipeline of the Stable Diffusion 1.x or 2.x kind.

    Only safetensors weights are read, plain ones or else those of a variant such as fp16. The safety checker is left
    out: it knows photographs alone and blackens the rest.

    name: a short name ("emoji", the embedded model, or another of SHORT_NAMES), a diffusers folder, or a hub id
        "owner/model".
    device: where to put it; None takes the first of cuda, mps and cpu that is there.
    dtype: of the weights, a torch.dtype or its name; None is float32.

    Returns the pipeline, in eval mode, with its progress bar off. Raises UserError if the name leads to nothing, to
    another kind of model or to pickled weights, the hub cannot be reached, or the device is missing or full.
    """
    device, dtype = pick_device(device), _dtype(dtype)
    source = _checked_source(SHORT_NAMES.get(str(name), str(name)))
    local = Path(source).is_dir() or not _is_on_reachable_hub(source)
    try:
        index = StableDiffusionPipeline.load_config(source, local_files_only=local)
        kind = index.get("_class_name")
        if kind == "StableDiffusionPipeline":
            with without_progress_bars() if local else nullcontext():
                parts = variant_parts(source, index, PARTS) if Path(source).is_dir() else {}
                pipe = StableDiffusionPipeline.from_pretrained(
                    source, local_files_only=local, use_safetensors=True, **NOT_LOADED, **parts
                )
    except Exception as error:  # diffusers, the hub client and safetensors each have their own families of errors
        raise UserError(_why_not_loaded(str(name), source, error)) from error
    if kind != "StableDiffusionPipeline":
        raise UserError(f"{name} is a {kind}: give a Stable Diffusion 1.x or 2.x text-to-image model.")
    pipe.set_progress_bar_config(disable=True)
    longest = pipe.text_encoder.config.max_position_embeddings  # old folders do not say it to the tokenizer
    pipe.tokenizer.model_max_length = min(pipe.tokenizer.model_max_length, longest)
    try:
        for part in (pipe.unet, pipe.vae, pipe.text_encoder):
            # diffusers' own `to` warns of float32 layers that there are not
            nn.Module.to(part, device=device, dtype=dtype)
    except RuntimeError as error:  # most often the device's memory is full
        raise UserError(
            f"Cannot put {name} on the device {device} ({first_line(error)}): choose another one."
        ) from error
    return pipe


def pick_device(device=None) -> torch.device:
    """`device`, or the first of cuda, mps and cpu that is there. Raises UserError if the wanted one is not."""
    available = [
        kind
        for kind, there in (
            ("cuda", torch.cuda.is_available()),
            ("mps", torch.backends.mps.is_available()),
            ("cpu", True),
        )
        if there
    ]
    if device is None:
        return torch.device(available[0])
    try:
        wanted = torch.device(device)
        if wanted.type in available:
            torch.empty(0, device=wanted)  # fails if there is no device of this number, as for cuda:9
            return wanted
    except (RuntimeError, AssertionError):  # without CUDA support torch asserts
        pass
    raise UserError(f"There is no device {str(device)!r} on this machine: use one of {', '.join(available)}.")


def cross_attention_weights(unet, trained: str = "kv") -> dict[str, nn.Parameter]:
    """The weights of some projections of every cross-attention layer (`attn2`), by their names in the plain UNet.

    trained: which, a key of presets.TRAINED that names projections; "kv" is keys and values.

    Raises UserError if there are none, or LoRA adapters wrap some.
    """
    ends = tuple(f".attn2.{projection}.weight" for projection in TRAINED[trained])
    weights = plain_names(unet.named_parameters())
    found = {name: weight for name, weight in weights.items() if name.endswith(ends)}
    layers = [name for name in plain_names(unet.named_modules()) if name.endswith(".attn2")]
    if not layers or len(found) < len(ends) * len(layers):
        wanted = " and ".join(f"attn2.{projection}" for projection in TRAINED[trained])
        raise UserError(f"This UNet has no plain {wanted}: fuse or unload its LoRA adapters first.")
    return found


def preset_for(name: str) -> Callable[..., Config]:
    """The preset that suits a model's size: `emoji` for the embedded one and others with latents as small, else
    `paper`.
    """
    if name == "emoji":
        return emoji
    settings = Path(name, "unet", "config.json")
    side = None
    if settings.is_file():
        with contextlib.suppress(UserError):  # loading the model will say what is wrong with it
            side = read_json(settings, "is damaged").get("sample_size")
    return emoji if isinstance(side, int) and side <= SMALL else paper


def absolute_model(name: str) -> str:
    """A folder's path that holds everywhere; short names and hub ids as they are."""
    return str(Path(name).resolve()) if name not in SHORT_NAMES and Path(name).is_dir() else name


def model_name(pipe: StableDiffusionPipeline) -> str:
    """What load_pipeline was asked for, by its short name if it has one; "" for a pipeline that was put together by
    hand.
    """
    source = getattr(pipe.config, "_name_or_path", None) or ""
    short = [name for name, known in SHORT_NAMES.items() if known == source]
    return short[0] if short else absolute_model(source)


def weights_hash(name: str) -> str | None:
    """16 hex digits that name the weights of a model's UNet, as they lie on this disk; None for a model of the hub."""
    digest = hashlib.sha256()
    files = sorted(Path(SHORT_NAMES.get(name, name), "unet").glob("*.safetensors"))
    for path in files:
        with open(path, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16] if files else None


def model_fingerprint(unet, base: Mapping[str, torch.Tensor] | None = None) -> dict[str, str]:
    """A hash of the cross-attention keys and values, once as float16 and once as bfloat16.

    Two roundings, because the same weights may be loaded in float32 today and in half precision tomorrow: rounded to
    the coarser of the two types they are the same again.

    unet: the UNet, or one whose keys and values are in use for training.
    base: weights by name that take the place of the UNet's, those from before the training; None takes all from the
        UNet.

    Returns {"float16": 16 hex digits, "bfloat16": 16 hex digits}.
    """
    names = sorted(keys_and_values := cross_attention_weights(unet))
    weights = {**keys_and_values, **(base or {})}
    hashes = {"float16": hashlib.sha256(), "bfloat16": hashlib.sha256()}
    for name in names:
        for kind, digest in hashes.items():
            rounded = weights[name].detach().to("cpu", getattr(torch, kind)).contiguous()
            digest.update(f"{name} {tuple(rounded.shape)}".encode())
            digest.update(rounded.view(torch.int16).numpy().tobytes())
    return {kind: digest.hexdigest()[:16] for kind, digest in hashes.items()}


def same_model(unet, expected: Mapping[str, str]) -> bool:
    """Whether the UNet is the one that `expected`, from model_fingerprint, names.

    One hash has to be the same: the other one is, too, unless one of the two was loaded in half precision.
    """
    return any(expected.get(kind) == found for kind, found in model_fingerprint(unet).items())


def _dtype(dtype) -> torch.dtype:
    if dtype is None:
        return torch.float32
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if found not in (torch.float32, torch.bfloat16, torch.float16):
        raise UserError(f"There is no weight type {dtype!r}: use float32, bfloat16 or float16.")
    return found


def _checked_source(source: str) -> str:
    """The path of a folder with a model, or a hub id; stops at what can be neither."""
    path = Path(source).expanduser()
    if path.suffix in PICKLES:
        raise UserError(f"{source} holds pickled weights, which are not read: convert it to a safetensors folder.")
    if path.is_file():
        raise UserError(f"{source} is a single file: give the diffusers folder that holds model_index.json.")
    if path.is_dir():
        if not (path / "model_index.json").is_file():
            raise UserError(f"{source} has no model_index.json: give a diffusers folder, as save_pretrained writes it.")
        return str(path)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", source) or source.startswith((".", os.sep)):
        raise UserError(
            f"There is no model folder {source}: check the path, or use one of {', '.join(SHORT_NAMES)} or owner/model."
        )
    return source


def _is_on_reachable_hub(source: str) -> bool:
    """Whether the hub answers that it has the model; False if it does not answer but the model was downloaded before.

    Asking first costs one request and spares the half minute in which a download would try again and again.
    """
    try:
        model_info(source, timeout=10)
        return True
    except Exception as error:
        try:
            hf_hub_download(source, "model_index.json", local_files_only=True)
            return False
        except Exception:
            raise UserError(_why_not_loaded(source, source, error)) from error


def _why_not_loaded(name: str, source: str, error: Exception) -> str:
    reason = first_line(error)
    if not Path(source).is_dir():
        return (
            f"Cannot fetch {name} from the model hub ({reason}): download it on a connected machine and give its"
            " folder, or use the model that is shipped, 'emoji'."
        )
    if any(Path(source).glob("*/*.bin")) and not any(Path(source).glob("unet/*.safetensors")):
        return f"{name} holds pickled weights only, which are not read: convert them to safetensors."
    return f"Cannot load the model folder {name} ({reason}): copy it again, it looks incomplete or damaged."
