"""LoRA adapters: low-rank changes beside the keys and values that train, and LoRAs that somebody else trained.

An adapter leaves a weight W as it is and adds to its output: W x + scale B (A x), with A (rank, in) and B (out, rank).
"""

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from diffusers.utils import recurse_remove_peft_layers
from peft import LoraConfig
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from disendiff_lite.config import Config
from disendiff_lite.models import cross_attention_weights
from disendiff_lite.support.errors import UserError, first_line
from disendiff_lite.support.files import read_tensors
from disendiff_lite.support.modules import plain_names

ADAPTER = "disendiff"  # the name of the adapters that train


@contextmanager
def adapted(unet, config: Config) -> Iterator[dict[str, nn.Parameter]]:
    """Lay adapters over the keys and values of every cross-attention layer while the `with` block runs.

    unet: without adapters. config: gives `lora_rank`, `lora_alpha`, and the `seed` from which A is drawn; B begins
        with zeros, so that nothing changes at first.

    Yields the adapters' weights by name, float32. Afterwards they are added to the weights beneath, so that the UNet is
    a plain one again and keeps what it learned. Raises UserError if torch.compile compiled one of the projections by
    itself, which would then run without its adapter.
    """
    wanted = {name.removesuffix(".weight") for name in cross_attention_weights(unet)}
    linear = [name for name, module in unet.named_modules() if isinstance(module, nn.Linear)]
    targets = [name for name in linear if set(plain_names([(name, None)])) & wanted]
    if compiled := [name for name in targets if name.endswith("._orig_mod")]:
        raise UserError(f"{compiled[0]} was compiled by itself, without its adapter: load the model afresh for a LoRA.")
    wanted_gradients = [(weight, weight.requires_grad) for weight in unet.parameters()]
    with torch.random.fork_rng(devices=[]):  # peft draws on the CPU
        torch.manual_seed(config.seed)
        adapter = LoraConfig(r=config.lora_rank, lora_alpha=config.lora_alpha, target_modules=targets)
        unet.add_adapter(adapter, adapter_name=ADAPTER)
    try:
        for weight in (weights := _own_weights(unet)).values():
            weight.data = weight.data.float()
        yield weights
    finally:
        unet.fuse_lora(adapter_names=[ADAPTER])
        unet.unload_lora()
        for weight, requires_grad in wanted_gradients:
            weight.requires_grad_(requires_grad)


def adapter_factors(unet) -> dict[str, torch.Tensor]:
    """The factors that the adapters of `adapted` hold now, under the names that diffusers reads, all of one rank.

    lora_alpha / rank is multiplied into B: a file without an alpha is read as if they were equal.
    """
    scales = {
        name: module.scaling[ADAPTER]
        for name, module in plain_names(unet.named_modules()).items()
        if isinstance(module, BaseTunerLayer)
    }
    factors = {}
    for name, weight in _own_weights(unet).items():
        module, _, factor = name.removesuffix(f".{ADAPTER}.weight").rpartition(".")
        scale = scales[module] if factor == "lora_B" else 1.0
        factors[f"unet.{module}.{factor}.weight"] = weight.detach().cpu().float() * scale
    return factors


def adapter_size(unet, config: Config) -> int:
    """Bytes of the adapters' weights."""
    return sum(4 * config.lora_rank * sum(weight.shape) for weight in cross_attention_weights(unet).values())


def _own_weights(unet) -> dict[str, nn.Parameter]:
    weights = plain_names(unet.named_parameters())
    return {name: weight for name, weight in weights.items() if name.endswith(f".{ADAPTER}.weight")}
