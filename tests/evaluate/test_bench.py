"""What a step costs: the kinds of step do what they say, in turn, and leave the model's layers as they were."""

import math

import pytest
import torch

from disendiff_lite.config import emoji
from disendiff_lite.evaluate import bench as module
from disendiff_lite.evaluate.bench import ANEW, CALIBRATED, FULL, PLAIN, Cost, full_maps, measure_steps, ratio
from disendiff_lite.evaluate.bench_table import Bench
from disendiff_lite.evaluate.peak_memory import peak_memory
from disendiff_lite.support.errors import UserError

CPU = torch.device("cpu")


def test_each_kind_is_measured(tiny_pipe):
    processors, seen = tiny_pipe.unet.attn_processors, []
    costs = measure_steps(tiny_pipe, emoji(), 2, lambda done, total: seen.append((done, total)))
    assert list(costs) == [PLAIN, CALIBRATED, FULL, ANEW] and seen[-1] == (3, 3)
    assert all(len(cost.seconds) == 2 and min(cost.seconds) > 0 and cost.fits for cost in costs.values())
    weights = sum(weight.nbytes for weight in tiny_pipe.text_encoder.parameters())
    assert all(cost.peak > weights for cost in costs.values())
    assert costs[FULL].peak > costs[CALIBRATED].peak >= costs[PLAIN].peak
    assert tiny_pipe.unet.attn_processors == processors


def test_full_maps_give_the_same_losses(tiny_pipe, monkeypatch):
    losses = []

    class Steps(module._Steps):
        def _step(self, batch, losses_of):
            self.generator.manual_seed(0)
            losses.append(losses_of(batch())["total"].item())

    monkeypatch.setattr(module, "_Steps", Steps)
    measure_steps(tiny_pipe, emoji(calibration_weight=10.0), 1)
    plain, calibrated, full, anew = losses[:4]
    assert full == pytest.approx(calibrated, rel=1e-5) != pytest.approx(plain, rel=1e-3)
    assert anew == pytest.approx(plain, rel=1e-5)  # the same pictures, kept or not


def test_full_maps_are_of_every_layer(tiny_unet):
    unet = tiny_unet()
    inputs = torch.randn(2, 4, 16, 16), torch.tensor([10]), torch.randn(2, 77, 32)
    before = unet(*inputs).sample
    with full_maps(unet) as maps:
        during = unet(*inputs).sample
    assert torch.allclose(before, during, atol=1e-5) and torch.equal(unet(*inputs).sample, before)
    assert set(maps) == set(unet.attn_processors)
    sizes = {(name.split(".")[-2], tuple(one.shape)) for name, one in maps.items()}
    assert sizes == {
        (layer, (2, 2, queries, queries if layer == "attn1" else 77))
        for layer in ("attn1", "attn2")
        for queries in (256, 64)
    }
    assert all(torch.allclose(one.sum(dim=-1), torch.ones(()), atol=1e-5) for one in maps.values())


def test_a_kind_that_does_not_fit_is_left_out(tiny_pipe, monkeypatch):
    def too_large(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(module._Steps, "_losses_of_maps", too_large)
    costs = measure_steps(tiny_pipe, emoji(), 1)
    assert [name for name, cost in costs.items() if not cost.fits] == [FULL] and costs[FULL].peak is None
    rows = Bench("about", "peak", {"float32": costs}).rows()
    assert rows[3][2:] == ["out of memory", "", "", ""] and "" not in rows[2]


def test_the_ratio_is_the_median_of_the_rounds():
    costs = {PLAIN: Cost([1.0, 10.0, 2.0]), CALIBRATED: Cost([1.1, 30.0, 2.4]), ANEW: Cost()}
    assert ratio(costs, CALIBRATED) == pytest.approx(1.2)
    assert math.isnan(ratio(costs, ANEW))


@pytest.mark.parametrize("numbers", [1_000_000, 3_000_000])
def test_the_peak_is_that_of_the_highest_moment(numbers):
    def step():
        first = torch.zeros(numbers)
        second = first + 1
        del first
        torch.zeros(1000).add_(second.sum())

    assert peak_memory(step, CPU, standing=7) == pytest.approx(7 + 8 * numbers, rel=0.01)
    assert peak_memory(step, torch.device("meta"), standing=0) is None


def test_a_table_is_kept_and_read_again(tmp_path):
    costs = {PLAIN: Cost([1.0, 2.0], 2 * 10**9), ANEW: Cost([2.0, 4.0], None)}
    bench = Bench("about", "peak", {"float32": costs})
    bench.save(tmp_path / "bench.json")
    assert Bench.load(tmp_path / "bench.json") == bench
    assert bench.rows()[1:] == [
        ["float32", "plain, latents kept", "1.5", "1.000", "0.500", "2"],
        ["float32", "plain, pictures encoded anew", "3", "2.000", "1.000", ""],
    ]
    for text in ('{"about": "x"}', '{"about": "x", "peak": "y", "costs": {"float32": {"other": {}}}}'):
        (tmp_path / "bench.json").write_text(text)
        with pytest.raises(UserError, match="holds no costs of training steps"):
            Bench.load(tmp_path / "bench.json")
