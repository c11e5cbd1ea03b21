"""The calibration losses: hand-made maps, the published code's numbers and gradients, and where the gradient goes."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from disendiff_lite.losses import bind_loss, calibration_loss, normalise, separate_loss, smooth, soft_iou, suppress
from disendiff_lite.support.errors import UserError

GOLDEN = Path(__file__).parent / "golden"
EXPECTED = {case["name"]: case["expected"] for case in json.loads((GOLDEN / "calibration.json").read_text())}
# variant of the published code -> our switches, and the terms that it adds up
VARIANTS = {
    "full": ({}, ("bind", "separate")),
    "bind_only": ({}, ("bind",)),
    "separate": ({}, ("separate",)),
    "without_suppression": ({"suppress": False}, ("bind", "separate")),
    "without_gaussian": ({"smooth": False}, ("bind", "separate")),
    "without_suppression_and_gaussian": ({"smooth": False, "suppress": False}, ("bind", "separate")),
}
HAS_NO_GRADIENT = {"separate"}


def random_maps(concepts, seed=0):
    return torch.rand(concepts, 6, 5, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("case", EXPECTED)
@pytest.mark.parametrize("variant", VARIANTS)
def test_golden_numbers(case, variant):
    switches, terms = VARIANTS[variant]
    with np.load(GOLDEN / "calibration.npz") as golden:
        probabilities = torch.from_numpy(golden[f"{case}/maps"]).requires_grad_()  # (layers, H, Q, 4 tokens)
        gradient = None if variant in HAS_NO_GRADIENT else torch.from_numpy(golden[f"{case}/grad/{variant}"])
    maps = probabilities.mean(dim=(0, 1)).T.reshape(4, 16, 16)  # modifier 1, class 1, modifier 2, class 2
    losses = calibration_loss(maps[0::2], maps[1::2], **switches)
    loss = sum(losses[term] for term in terms)
    assert loss.item() == pytest.approx(EXPECTED[case][variant], rel=1e-5)
    if gradient is not None:
        loss.backward()
        for layer in probabilities.grad:
            # Relative to the gradient's largest entry: below that, both sides are float32 rounding of cancelling sums.
            torch.testing.assert_close(layer, gradient, rtol=1e-5, atol=1e-5 * gradient.abs().max().item())


def test_normalise_stretches_each_map_by_itself():
    maps = torch.tensor([[[1.0, 3.0], [2.0, 5.0]], [[0.0, 0.2], [0.1, 0.4]]])
    expected = torch.tensor([[0.0, 0.5], [0.25, 1.0]])
    torch.testing.assert_close(normalise(maps), expected.expand(2, 2, 2))
    assert torch.equal(normalise(torch.full((1, 2, 2), 0.7)), torch.zeros(1, 2, 2))


def test_smooth_is_a_gaussian_of_sigma_0_7071():
    impulse = torch.zeros(1, 5, 5)
    impulse[0, 2, 2] = 1
    blurred = smooth(impulse)[0]
    assert blurred.sum().item() == pytest.approx(1)
    assert (blurred[2, 1] / blurred[2, 2]).item() == pytest.approx(math.exp(-1 / (2 * 0.5)))  # distance 1, variance 1/2
    assert (blurred[1, 1] / blurred[2, 2]).item() == pytest.approx(math.exp(-2 / (2 * 0.5)))  # distance sqrt(2)
    assert blurred[0].abs().max() == 0  # 3x3 reaches no further


def test_smooth_reflects_the_border_without_repeating_it():
    maps = torch.arange(3.0)[None, :, None].expand(1, 3, 4)  # rows of 0, 1, 2; beyond the border 1 and 1
    near, middle = math.exp(-1), 1.0
    total = middle + 2 * near
    rows = torch.tensor([2 * near, 1 * total, 2 * near + 2 * middle]) / total
    torch.testing.assert_close(smooth(maps), rows[None, :, None].expand(1, 3, 4))


def test_smooth_keeps_float32_under_autocast():
    maps = random_maps(2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = smooth(maps)
    assert torch.equal(inside, smooth(maps))


def test_suppress_squares():
    assert torch.equal(suppress(torch.tensor([0.0, 0.5, 1.0])), torch.tensor([0.0, 0.25, 1.0]))


def test_soft_iou_of_binary_masks_counts_cells():
    a, b = torch.zeros(2, 4, 4)
    a[:2] = 1  # 8 cells
    b[1:4] = 1  # 12 cells, 4 shared
    assert soft_iou(a, b).item() == pytest.approx((4 + 1) / (16 + 1))
    assert soft_iou(a, a).item() == 1
    assert soft_iou(a, torch.zeros(4, 4)).item() == pytest.approx(1 / 9)


def test_bind_loss_pulls_the_modifiers_and_never_the_classes():
    modifiers, classes = random_maps(3, seed=1).requires_grad_(), random_maps(3, seed=2).requires_grad_()
    loss = bind_loss(modifiers, classes)
    loss.backward()
    assert loss.item() == pytest.approx(sum(1 - soft_iou(m, c).item() for m, c in zip(modifiers, classes)))
    assert modifiers.grad.abs().amin() > 0
    assert classes.grad is None


def test_separate_loss_has_gradient_on_both_sides():
    classes = random_maps(2).requires_grad_()
    separate_loss(classes).backward()
    assert (classes.grad.abs().amax(dim=(1, 2)) > 0).all()


def test_three_concepts_take_the_mean_over_the_three_pairs():
    a, b, c = maps = random_maps(3)
    expected = (soft_iou(a, b) + soft_iou(a, c) + soft_iou(b, c)) / 3
    torch.testing.assert_close(separate_loss(maps), expected)
    losses = calibration_loss(random_maps(3, seed=1), maps)
    assert set(losses) == {"bind", "separate"} and 0 < losses["bind"] < 3


def test_raw_scale_does_not_matter():
    modifiers, classes = random_maps(2, seed=1), random_maps(2, seed=2)
    losses, scaled = calibration_loss(modifiers, classes), calibration_loss(modifiers * 0.01, classes * 0.03 + 0.2)
    for term in losses:
        torch.testing.assert_close(losses[term], scaled[term], rtol=1e-4, atol=0)


def test_without_smoothing_there_is_no_suppression_as_published():
    modifiers, classes = random_maps(2, seed=1), random_maps(2, seed=2)
    unsmoothed = calibration_loss(modifiers, classes, smooth=False, suppress=True)
    assert unsmoothed == calibration_loss(modifiers, classes, smooth=False, suppress=False)
    assert unsmoothed["separate"] == separate_loss(normalise(classes)) != separate_loss(suppress(normalise(classes)))


@pytest.mark.parametrize("modifiers, classes", [((1, 4, 4), (1, 4, 4)), ((2, 4, 4), (3, 4, 4)), ((4, 4), (4, 4))])
def test_maps_that_do_not_fit_are_refused(modifiers, classes):
    with pytest.raises(UserError, match="pass maps of two or more classes|pass one map for each concept"):
        calibration_loss(torch.rand(modifiers), torch.rand(classes))


def test_suppression_can_be_applied_twice():
    maps = random_maps(2)
    blurred = smooth(normalise(maps))
    expected = separate_loss(blurred**4)
    assert calibration_loss(maps, maps, suppress=2)["separate"].item() == pytest.approx(expected.item(), rel=1e-6)
