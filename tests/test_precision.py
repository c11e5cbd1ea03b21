"""Half precision: what is frozen is held in it and comes back unrounded, and what trains does not feel it."""

import pytest
import torch

from disendiff_lite import precision as module
from disendiff_lite.precision import as_held, check_precision, held_in, make_scaler, pack_scaler, unpack_scaler
from disendiff_lite.support.errors import UserError

CPU = torch.device("cpu")


@pytest.mark.parametrize("held", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("loaded", [torch.float32, torch.float16])
def test_weights_are_held_in_a_precision_and_are_afterwards_as_before(held, loaded):
    net = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)).to(loaded)
    before = {name: weight.clone() for name, weight in net.named_parameters()}
    with pytest.raises(KeyError), held_in(held, [net], [net[1].weight]):
        types = [weight.dtype for weight in net.parameters()]
        assert types == [module.DTYPES[held]] * 2 + [torch.float32, module.DTYPES[held]]
        with torch.no_grad():
            net[1].weight += 0.5
        raise KeyError  # whatever ends the block
    after = dict(net.named_parameters())
    assert all(weight.dtype == loaded for weight in after.values())
    assert torch.equal(after.pop("1.weight"), (before.pop("1.weight").float() + 0.5).to(loaded))
    assert all(torch.equal(after[name], before[name]) for name in after)


def test_a_pipeline_in_two_types_computes_all_the_same(tiny_pipe):
    inputs = torch.randn(1, 4, 16, 16), torch.tensor([500]), torch.randn(1, 77, 32)
    expected = tiny_pipe.unet(*inputs).sample
    with as_held(tiny_pipe):
        assert not torch.is_autocast_enabled("cpu") and torch.equal(tiny_pipe.unet(*inputs).sample, expected)
    keys = [weight for name, weight in tiny_pipe.unet.named_parameters() if ".attn2." in name]
    with held_in("bfloat16", [tiny_pipe.unet], keys):
        with pytest.raises(RuntimeError, match="dtype|type"):
            tiny_pipe.unet(*inputs)
        with as_held(tiny_pipe):
            assert torch.allclose(tiny_pipe.unet(*inputs).sample.float(), expected, atol=0.05)


def test_the_scale_is_kept():
    scaler, again, off = (make_scaler(name, CPU) for name in ("float16", "float16", "float32"))
    weight = torch.nn.Parameter(torch.ones(()))
    optimizer = torch.optim.SGD([weight])
    for gradient in (1.0, float("inf"), 1.0):
        scaler.scale(weight * gradient).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
    state = pack_scaler(scaler)
    unpack_scaler(state, again)
    assert again.state_dict() == scaler.state_dict() and scaler.get_scale() == 2.0**15
    unpack_scaler(state, off)
    assert pack_scaler(off) == {} and off.get_scale() == 1.0
    unpack_scaler({}, again)
    assert again.get_scale() == 2.0**15


def test_a_card_without_bfloat16_is_told_so(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    with pytest.raises(UserError, match="Tesla T4 has no bfloat16: set precision to float16"):
        check_precision("bfloat16", torch.device("cuda"))
    check_precision("float16", torch.device("cuda"))
    check_precision("bfloat16", CPU)
