"""Load a Stable Diffusion pipeline by a short name, a folder, a file or a hub id, and name what it is."""

import contextlib
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from diffusers import StableDiffusionInpaintPipeline, StableDiffusionPipeline
from torch import nn

from disendiff_lite.config import Config, emoji, paper
from disendiff_lite.model_source import SHORT_NAMES, find_source, read_pipeline
from disendiff_lite.presets import TRAINED
from disendiff_lite.single_file import INPAINTING, LATENT, settle_prediction
from disendiff_lite.support.errors import UserError, first_line
from disendiff_lite.support.files import read_json
from disendiff_lite.support.memory import TO_LOAD, enough_memory, is_out_of_memory
from disendiff_lite.support.modules import beneath_adapters, plain_names

SMALL = 16  # latents of the embedded model are 16x16; Stable Diffusion's are 64x64 and larger


def load_pipeline(
    name="emoji", device=None, dtype=None, *, inpainting: bool = False
) -> StableDiffusionPipeline | StableDiffusionInpaintPipeline:
    """Load a pipeline of the Stable Diffusion 1.x or 2.x kind, one that predicts noise or velocity.

    Only safetensors weights are read, plain ones or else those of a variant such as fp16. The safety checker is left
    out: it knows photographs alone and blackens the rest.

    name: a short name ("emoji", the embedded model, or another of SHORT_NAMES), a diffusers folder, a hub id
        "owner/model", or a one-file `.safetensors` checkpoint in the layout of the original code.
    device: where to put it; None takes the first of cuda, mps and cpu that is there.
    dtype: of the weights, a torch.dtype or its name; None is float32.
    inpainting: whether an inpainting model, whose UNet has 9 input channels, is taken, too.

    Returns the pipeline, in eval mode, with its progress bar off; an inpainting model as a
    StableDiffusionInpaintPipeline. Raises UserError if the name leads to nothing, to another kind of model or to
    pickled weights, the hub cannot be reached or keeps the model for others, or the device is missing or full.
    """
    device, dtype = pick_device(device), _dtype(dtype)
    source = find_source(str(name))
    with enough_memory(TO_LOAD):
        pipe = read_pipeline(str(name), source)
    if is_inpainting(pipe):
        pipe = _as_inpainting(pipe)
    elif (channels := pipe.unet.config.in_channels) != LATENT:
        raise UserError(f"The UNet of {name} has {channels} input channels: give a text-to-image or inpainting model.")
    if not inpainting:
        check_text_to_image(pipe)
    pipe.set_progress_bar_config(disable=True)
    longest = pipe.text_encoder.config.max_position_embeddings  # old folders do not say it to the tokenizer
    pipe.tokenizer.model_max_length = min(pipe.tokenizer.model_max_length, longest)
    try:
        for part in (pipe.unet, pipe.vae, pipe.text_encoder):
            # diffusers' own `to` warns of float32 layers that there are not
            nn.Module.to(part, device=device, dtype=dtype)
    except RuntimeError as error:  # most often the device's memory is full
        mend = TO_LOAD if is_out_of_memory(error) else "choose another one"
        raise UserError(f"Cannot put {name} on the device {device} ({first_line(error)}): {mend}.") from error
    if Path(source).is_file():
        settle_prediction(pipe)
    return pipe


def is_inpainting(pipe) -> bool:
    """Whether the UNet sees a mask and the masked picture besides the latents."""
    return pipe.unet.config.in_channels == INPAINTING


def check_text_to_image(pipe) -> None:
    """Raise UserError for an inpainting model: it draws from a picture and a mask, never from a prompt alone."""
    if is_inpainting(pipe):
        raise UserError(
            f"{model_name(pipe) or 'This model'} is an inpainting model, which neither trains nor draws from a prompt"
            " alone: train on its text-to-image sister, such as sd15, then give this one to inpaint."
        )


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


def cross_attention_weights(unet, trained: str = "kv", *, wrapped: bool = False) -> dict[str, nn.Parameter]:
    """The weights of some projections of every cross-attention layer (`attn2`), by their names in the plain UNet.

    trained: which, a key of presets.TRAINED that names projections; "kv" is keys and values.
    wrapped: whether LoRA adapters may wrap them; the weights are those beneath the adapters.

    Raises UserError if there are none, or LoRA adapters wrap some and may not.
    """
    ends = tuple(f".attn2.{projection}.weight" for projection in TRAINED[trained])
    weights = plain_names(unet.named_parameters())
    weights = beneath_adapters(weights) if wrapped else weights
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
    """A folder's or a file's path that holds everywhere; short names and hub ids as they are."""
    return str(Path(name).resolve()) if name not in SHORT_NAMES and Path(name).exists() else name


def model_name(pipe: StableDiffusionPipeline) -> str:
    """What load_pipeline was asked for, by its short name if it has one; "" for a pipeline that was put together by
    hand.
    """
    source = getattr(pipe.config, "_name_or_path", None) or ""
    short = [name for name, known in SHORT_NAMES.items() if known == source]
    return short[0] if short else absolute_model(source)


def weights_hash(name: str) -> str | None:
    """16 hex digits that name the weights of a model's UNet, or of all in a one-file checkpoint, as they lie on this
    disk; None for a model of the hub.
    """
    digest, source = hashlib.sha256(), Path(SHORT_NAMES.get(name, name))
    files = [source] if source.is_file() else sorted(source.glob("unet/*.safetensors"))
    for path in files:
        with open(path, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16] if files else None


def model_fingerprint(unet, base: Mapping[str, torch.Tensor] | None = None) -> dict[str, str]:
    """A hash of the cross-attention keys and values beneath all adapters, once as float16 and once as bfloat16.

    Two roundings, because the same weights may be loaded in float32 today and in half precision tomorrow: rounded to
    the coarser of the two types they are the same again.

    unet: the UNet, or one whose keys and values are in use for training.
    base: weights by name that take the place of the UNet's, those from before the training; None takes all from the
        UNet.

    Returns {"float16": 16 hex digits, "bfloat16": 16 hex digits}.
    """
    names = sorted(keys_and_values := cross_attention_weights(unet, wrapped=True))
    weights = {**keys_and_values, **(base or {})}
    hashes = {"float16": hashlib.sha256(), "bfloat16": hashlib.sha256()}
    for name in names:
        for kind, digest in hashes.items():
            rounded = weights[name].detach().to("cpu", getattr(torch, kind)).contiguous()
            digest.update(f"{name} {tuple(rounded.shape)}".encode())
            digest.update(rounded.view(torch.int16).numpy().tobytes())
    return {kind: digest.hexdigest()[:16] for kind, digest in hashes.items()}


def same_model(unet, expected: Mapping[str, str], found: Mapping[str, str] | None = None) -> bool:
    """Whether the UNet is the one that `expected`, from model_fingerprint, names.

    One hash has to be the same: the other one is, too, unless one of the two was loaded in half precision. found: the
    UNet's fingerprint, if it is known.
    """
    return any(expected.get(kind) == value for kind, value in (found or model_fingerprint(unet)).items())


def _dtype(dtype) -> torch.dtype:
    if dtype is None:
        return torch.float32
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if found not in (torch.float32, torch.bfloat16, torch.float16):
        raise UserError(f"There is no weight type {dtype!r}: use float32, bfloat16 or float16.")
    return found


def _as_inpainting(pipe: StableDiffusionPipeline) -> StableDiffusionInpaintPipeline:
    inpaint = StableDiffusionInpaintPipeline(**pipe.components, requires_safety_checker=False)
    inpaint.register_to_config(_name_or_path=pipe.config._name_or_path)
    return inpaint
