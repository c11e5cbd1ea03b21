"""A short name for a model's weights, so that what was learned on one model is not put on another by mistake."""

import hashlib
from collections.abc import Mapping

import torch

from disendiff_lite.models import KEYS_AND_VALUES, keys_and_values


def model_fingerprint(unet, base: Mapping[str, torch.Tensor] | None = None) -> dict[str, str]:
    """A hash of the cross-attention keys and values, once as float16 and once as bfloat16.

    Two roundings, because the same weights may be loaded in float32 today and in half precision tomorrow: rounded to the
    coarser of the two types they are the same again.

    unet: the UNet, or one whose keys and values are in use for training.
    base: weights by name that take the place of the UNet's, those from before the training; None takes all from the UNet.

    Returns {"float16": 16 hex digits, "bfloat16": 16 hex digits}.
    """
    weights = {**keys_and_values(unet), **(base or {})}
    hashes = {"float16": hashlib.sha256(), "bfloat16": hashlib.sha256()}
    for name in sorted(name for name in weights if KEYS_AND_VALUES.search(name)):
        for kind, digest in hashes.items():
            rounded = weights[name].detach().to("cpu", getattr(torch, kind)).contiguous()
            digest.update(f"{name} {tuple(rounded.shape)}".encode())
            digest.update(rounded.view(torch.int16).numpy().tobytes())
    return {kind: digest.hexdigest()[:16] for kind, digest in hashes.items()}


def same_model(unet, expected: Mapping[str, str]) -> bool:
    """Whether the UNet is the one that `expected`, from model_fingerprint, names; its own precision decides which hash counts."""
    kind = "bfloat16" if unet.dtype == torch.bfloat16 else "float16"
    return model_fingerprint(unet)[kind] == expected.get(kind)
