"""Half precision: frozen weights are held in it, what trains stays in float32, and autocast joins the two."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import nn

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def computing(precision: str, device: torch.device) -> torch.autocast:
    """The context in which a model computes in a `precision`, a key of DTYPES, whatever its weights are held in."""
    dtype = DTYPES[precision]
    half = dtype != torch.float32
    return torch.autocast(device.type, dtype if half else torch.bfloat16, enabled=half)


def in_float32(device: torch.device):
    """The context in which nothing is rounded to half precision, within `computing` as well."""
    there = torch.amp.is_autocast_available(device.type)  # not on the meta device
    return torch.autocast(device.type, enabled=False) if there else nullcontext()


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
