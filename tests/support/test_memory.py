"""A memory that is too small is said in a sentence; other errors pass."""

import pytest
import torch

from disendiff_lite.support.errors import UserError
from disendiff_lite.support.memory import enough_memory


def test_a_tensor_that_is_too_large():
    with pytest.raises(UserError, match="^The memory is too small for this: take less.$"):
        with enough_memory("this", "take less"):
            torch.empty(2**60)
    with pytest.raises(UserError, match="take less"), enough_memory("this", "take less"):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")
    with pytest.raises(RuntimeError, match="other"), enough_memory("this", "take less"):
        raise RuntimeError("other")
