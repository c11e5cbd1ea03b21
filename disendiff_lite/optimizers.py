"""The optimisers that a run can have: AdamW, and one whose moments are kept in 8 bits where bitsandbytes is installed.

The 8-bit one is for the whole UNet, whose moments take twice the weights' memory; keys and values have few.
"""

from collections.abc import Mapping, Sequence

import torch

from disendiff_lite.config import Config
from disendiff_lite.support.errors import UserError

SHARED = ("qmap1", "qmap2")  # tables of bitsandbytes, the same for all parameters


def check_optimizer(config: Config) -> None:
    """Raise UserError if the optimiser of these settings is not installed."""
    if config.optimizer == "adamw8bit":
        _bitsandbytes()


def make_optimizer(groups: Sequence[dict], config: Config) -> torch.optim.Optimizer:
    """The optimiser of these settings; UserError as check_optimizer. groups: of parameters, as torch.optim has them."""
    if config.optimizer == "adamw8bit":
        return _bitsandbytes().optim.AdamW8bit(groups, weight_decay=config.weight_decay)
    return torch.optim.AdamW(groups, weight_decay=config.weight_decay)


def pack_moments(optimizer: torch.optim.Optimizer, parameter: torch.Tensor) -> dict[str, torch.Tensor]:
    """What an optimiser keeps of one parameter, by name, as tensors that no other parameter has a share in."""
    kept = optimizer.state[parameter].items()
    return {name: value.clone() if name in SHARED else torch.as_tensor(value) for name, value in kept}


def unpack_moments(
    moments: Mapping[str, torch.Tensor], optimizer: torch.optim.Optimizer, parameter: torch.Tensor
) -> None:
    """Put back what pack_moments gave."""
    state = {name: value if name == "step" else value.to(parameter.device) for name, value in moments.items()}
    if "step" in state and not isinstance(optimizer, torch.optim.AdamW):
        state["step"] = int(state["step"])  # AdamW has a tensor on the CPU there, the 8-bit one a number
    optimizer.state[parameter] = state


def _bitsandbytes():
    try:
        import bitsandbytes
    except ImportError:
        raise UserError(
            "The optimizer adamw8bit needs bitsandbytes: pip install bitsandbytes, or set optimizer to adamw."
        ) from None
    return bitsandbytes
