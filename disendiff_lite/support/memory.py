"""A memory that is too small, said in a sentence."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from disendiff_lite.support.errors import UserError


class TooLittleMemory(UserError):
    """A device, or the main memory, had no room for a tensor."""


def is_out_of_memory(error: Exception) -> bool:
    """Whether a device, or the main memory, had no room for a tensor."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


@contextmanager
def enough_memory(what: str, mend: str) -> Iterator[None]:
    """Turn a lack of memory in the `with` block into TooLittleMemory.

    what: that lacks it, as in "The memory is too small for {what}". mend: what to change.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise TooLittleMemory(f"The memory is too small for {what}: {mend}.") from None
