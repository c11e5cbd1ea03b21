"""One safetensors file that holds a pretraining's models, its optimiser and its step; written whole or not at all."""

from pathlib import Path

import torch

from disendiff_lite.support.files import read_tensors, write_tensors


def save_state(path: Path, models: dict[str, torch.nn.Module], optimiser: torch.optim.Optimizer, step: int) -> None:
    """Write models, optimiser moments and the number of steps done, replacing an older file in one move."""
    tensors = {f"{name}.{key}": value for name, model in models.items() for key, value in model.state_dict().items()}
    for index, moments in optimiser.state_dict()["state"].items():
        tensors.update({f"optimiser.{index}.{key}": value for key, value in moments.items()})
    path.parent.mkdir(parents=True, exist_ok=True)
    write_tensors(path, {key: value.clone() for key, value in tensors.items()}, {"step": step})


def load_state(path: Path, models: dict[str, torch.nn.Module], optimiser: torch.optim.Optimizer) -> int:
    """Put a saved state back into the models and the optimiser; returns the steps done, 0 when there is no file."""
    if not path.exists():
        return 0
    tensors, header = read_tensors(path)
    for name, model in models.items():
        prefix = f"{name}."
        model.load_state_dict({key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)})
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimiser."):
            _, index, name = key.split(".")
            moments.setdefault(int(index), {})[name] = value
    if moments:
        optimiser.load_state_dict({"state": moments, "param_groups": optimiser.state_dict()["param_groups"]})
    return header["step"]
