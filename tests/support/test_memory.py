"""A memory that is too small is said in a sentence; other errors pass."""

import pytest
import torch

from disendiff_lite.support.errors import UserError
from disendiff_lite.support.memory import enough_memory


def test_a_tensor_that_is_too_large():
    with (
        pytest.raises(UserError, match=r"^There is too little memory \(.*\): take less\.$"),
        enough_memory("take less"),
    ):
        torch.empty(2**60)
    for error in (MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")):
        with pytest.raises(UserError, match="take less"), enough_memory("take less"):
            raise error


def test_other_errors_are_left_alone():
    for error in (RuntimeError("shapes do not fit"), UserError("no such thing")):
        with pytest.raises(type(error), match=str(error)), enough_memory("take less"):
            raise error
