"""How weights are held while a model trains: frozen ones in half precision, what trains in float32, and autocast."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext

import torch
from diffusers import StableDiffusionPipeline
from torch import nn

from disendiff_lite.support.errors import UserError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
SCALER = ("scale", "_growth_tracker")  # what changes of a GradScaler's state, by its names there


def computing(precision: str, device: torch.device) -> torch.autocast:
    """The context in which a model computes in a `precision`, a key of DTYPES, whatever its weights are held in."""
    dtype = DTYPES[precision]
    half = dtype != torch.float32
    return torch.autocast(device.type, dtype if half else torch.bfloat16, enabled=half)


def in_float32(device: torch.device):
    """The context in which nothing is rounded to half precision, within `computing` as well."""
    there = torch.amp.is_autocast_available(device.type)  # not on the meta device
    return torch.autocast(device.type, enabled=False) if there else nullcontext()


def as_held(pipe: StableDiffusionPipeline):
    """The context in which a pipeline computes whose weights are partly in half precision, as they are in training.

    For one whose weights are all of one type it does nothing.
    """
    held = {weight.dtype for part in (pipe.unet, pipe.vae, pipe.text_encoder) for weight in part.parameters()}
    halves = held & {torch.float16, torch.bfloat16}
    return torch.autocast(pipe.device.type, halves.pop()) if halves and torch.float32 in held else nullcontext()


@contextmanager
def held_in(precision: str, parts: Collection[nn.Module], trained: Collection[nn.Parameter]) -> Iterator[None]:
    """While the `with` block runs, the weights of `parts` are held in a `precision`, the `trained` ones in float32.

    Afterwards each is of the type that it had. One that was rounded has its old value back, from the main memory; a
    trained one keeps what it learned.
    """
    float32 = {id(weight) for weight in trained}
    changed = []
    try:
        for weight in {id(weight): weight for part in parts for weight in part.parameters()}.values():
            wanted = torch.float32 if id(weight) in float32 else DTYPES[precision]
            if weight.dtype != wanted:
                exact = wanted == torch.float32
                changed.append((weight, weight.dtype, None if exact else weight.data.cpu()))
                weight.grad = None
                weight.data = weight.data.to(wanted)
        yield
    finally:
        for weight, dtype, before in changed:
            weight.grad = None
            weight.data = weight.data.to(dtype) if before is None else before.to(weight.device)


@contextmanager
def channels_last(parts: Collection[nn.Module]) -> Iterator[None]:
    """While the `with` block runs, weights of convolutions lie in the memory with the channels last; values stay."""
    try:
        for part in parts:
            nn.Module.to(part, memory_format=torch.channels_last)
        yield
    finally:
        for part in parts:
            nn.Module.to(part, memory_format=torch.contiguous_format)


def check_precision(precision: str, device: torch.device) -> None:
    """Raise UserError if a device computes in this precision only by emulation, which is slower than float32."""
    if (
        precision == "bfloat16"
        and device.type == "cuda"
        and not torch.cuda.is_bf16_supported(including_emulation=False)
    ):
        raise UserError(f"{torch.cuda.get_device_name(device)} has no bfloat16: set precision to float16.")


def make_scaler(precision: str, device: torch.device) -> torch.amp.GradScaler:
    """Scales losses so that small gradients survive in float16; in other precisions it does nothing.

    A step whose gradients overflow is skipped, and the scale is halved for the next one.
    """
    return torch.amp.GradScaler(device.type, enabled=precision == "float16")


def pack_scaler(scaler: torch.amp.GradScaler) -> dict[str, torch.Tensor]:
    """The scaler's state as "scaler": its scale, and the steps since the scale changed; empty if it does nothing."""
    state = scaler.state_dict()
    return {"scaler": torch.tensor([state[name] for name in SCALER], dtype=torch.float64)} if state else {}


def unpack_scaler(tensors: Mapping[str, torch.Tensor], scaler: torch.amp.GradScaler) -> None:
    """Put a state of pack_scaler back; one without it changes nothing."""
    if scaler.is_enabled() and "scaler" in tensors:
        scale, steps = tensors["scaler"].tolist()
        scaler.load_state_dict(scaler.state_dict() | dict(zip(SCALER, (scale, int(steps)))))
