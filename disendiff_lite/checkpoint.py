"""A training state as flat named tensors and back: weights, the optimiser's moments, and the random generator.

Together with the settings they decide every later step, so a run that is taken up again ends as if it had never stopped.
"""

from collections.abc import Mapping

import torch

from disendiff_lite.errors import UserError
from disendiff_lite.trainable import Trainable


def pack_state(
    trainable: Trainable, optimizer: torch.optim.Optimizer, generator: torch.Generator
) -> dict[str, torch.Tensor]:
    """The state after a step: "weights/<name>", "optimizer/<name>/<moment>", and "generator", (bytes,) uint8."""
    tensors = {"generator": generator.get_state()}
    for name, parameter in trainable.named().items():
        tensors[f"weights/{name}"] = parameter
        tensors |= {f"optimizer/{name}/{moment}": value for moment, value in optimizer.state[parameter].items()}
    return tensors


def unpack_state(
    tensors: Mapping[str, torch.Tensor],
    trainable: Trainable,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
) -> None:
    """Put a state of pack_state back; an empty one changes nothing.

    Raises UserError if it belongs to other weights; some may then have been overwritten.
    """
    if not tensors:
        return
    moments = {name: {} for name in trainable.named()}
    try:
        for key in tensors:
            if key.startswith("optimizer/"):
                _, name, moment = key.split("/")
                moments[name][moment] = tensors[key]
        with torch.no_grad():
            for name, parameter in trainable.named().items():
                parameter.copy_(tensors[f"weights/{name}"])
                # AdamW keeps its step count on the CPU and the rest beside the parameter.
                optimizer.state[parameter] = {
                    moment: value if moment == "step" else value.to(parameter) for moment, value in moments[name].items()
                }
        generator.set_state(tensors["generator"])
    except (KeyError, RuntimeError):
        raise UserError("The checkpoint does not fit this run: delete the run's folder and train again.") from None
    trainable.write_back()
