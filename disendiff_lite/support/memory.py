"""Too little memory, in words: each kind of work says what would make it smaller."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from disendiff_lite.support.errors import UserError, first_line

SIGNS = ("out of memory", "can't allocate memory", "not enough memory")  # in torch's own words, on all its devices
TO_LOAD = "load it with dtype float16, close other programs, or choose another device, such as cpu"
TO_DRAW = "draw fewer pictures at once, choose a smaller resolution, or load the model with dtype float16"


class TooLittleMemory(UserError):
    """A device, or the main memory, had no room for a tensor."""


@contextmanager
def enough_memory(mend: str) -> Iterator[None]:
    """Turn a lack of memory, of the device or of the machine, into TooLittleMemory that says what to do, the `mend`."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        reason = first_line(error).split(". ")[0]  # torch tells all that it holds
        raise TooLittleMemory(f"There is too little memory ({reason}): {mend}.") from None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the device's or the machine's memory is full."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in SIGNS)
