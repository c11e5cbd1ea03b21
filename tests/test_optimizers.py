"""Optimisers: what they keep survives a checkpoint, and one that is not installed is named."""

import sys
from types import SimpleNamespace

import pytest
import torch

from disendiff_lite.config import emoji
from disendiff_lite.optimizers import check_optimizer, make_optimizer, pack_moments, unpack_moments
from disendiff_lite.support.errors import UserError


def stepped(optimizer, parameter, steps):
    for _ in range(steps):
        parameter.square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()


TABLE = torch.zeros(256)


class Counting(torch.optim.Optimizer):
    """Keeps a plain number as its step and a moment in another type than the weights, as bitsandbytes does."""

    def __init__(self, groups, weight_decay):
        super().__init__(groups, dict(lr=0.1, weight_decay=weight_decay))

    def step(self):
        for parameter in self.param_groups[0]["params"]:
            state = self.state[parameter]
            state["step"] = state.get("step", 0) + 1
            state["state1"] = torch.full((4,), state["step"], dtype=torch.uint8)
            state.setdefault("qmap1", TABLE)
            assert type(state["step"]) is int and state["state1"].dtype == torch.uint8
            parameter.data -= 0.1 * state["step"] * parameter.grad


@pytest.mark.parametrize("kind", ["adamw", "adamw8bit"])
def test_moments_survive_a_checkpoint(kind, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", SimpleNamespace(optim=SimpleNamespace(AdamW8bit=Counting)))
    config = emoji(optimizer=kind)
    check_optimizer(config)
    whole, parts = (torch.nn.Parameter(torch.ones(3)) for _ in range(2))
    stepped(make_optimizer([{"params": [whole]}], config), whole, 4)
    first = make_optimizer([{"params": [parts]}], config)
    stepped(first, parts, 2)
    moments = pack_moments(first, parts)
    assert all(isinstance(value, torch.Tensor) for value in moments.values()) and "step" in moments
    assert all(value.data_ptr() != TABLE.data_ptr() for value in moments.values())  # safetensors writes none twice
    second = make_optimizer([{"params": [parts]}], config)
    assert type(second) is (torch.optim.AdamW if kind == "adamw" else Counting)
    unpack_moments(moments, second, parts)
    stepped(second, parts, 2)
    assert torch.equal(parts, whole)


def test_an_optimizer_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(UserError, match="needs bitsandbytes: pip install bitsandbytes, or set optimizer to adamw"):
        check_optimizer(emoji(optimizer="adamw8bit"))
    check_optimizer(emoji())
    with pytest.raises(UserError, match="There is no optimizer 'sgd': use one of adamw, adamw8bit"):
        emoji(optimizer="sgd")


def test_eight_bits_train_a_run(new_tiny_pipe, tmp_path):
    pytest.importorskip("bitsandbytes")
    from PIL import Image

    from disendiff_lite.runs.train import train

    config = emoji(method="dreambooth", optimizer="adamw8bit", steps=4, checkpoint_every=2, prior_probability=0.0)
    picture, classes, ends = Image.new("RGB", (64, 64), "red"), ["cat", "dog"], []
    for stop in (None, 2):
        pipe, folder = new_tiny_pipe(), tmp_path / str(stop)
        for record in train(pipe, picture, classes, config, run_dir=folder):
            if record.step == stop:
                break
        pipe = new_tiny_pipe()
        list(train(pipe, picture, classes, config, run_dir=folder))
        ends.append(pipe.unet.state_dict())
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
