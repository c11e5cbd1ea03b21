"""The attention calibration: two losses that tie each modifier to its class and keep the classes apart.

Pure functions of tensors, from "Attention Calibration for Disentangled Text-to-Image Personalization" (arXiv
2403.18551). A *map* is a token's cross-attention over the h x w cells of the picture, averaged over layers and
heads, never negative. Maps are stacked as (N, h, w), one row a concept; row n of the modifier maps and of the
class maps belong together.

    raw map -> normalise -> smooth -> suppress (class maps only) -> soft IoU -> bind_loss, separate_loss
"""

import math

import torch
import torch.nn.functional as F

from disendiff_lite.support.errors import UserError

EPSILON = 1e-8  # keeps the normalisation of a constant map finite
SIGMA = 0.5  # of the published kernel, see smooth()


def normalise(maps: torch.Tensor) -> torch.Tensor:
    """Stretch each map to [0, 1]: (a - min a) / (max a - min a + 1e-8).

    maps: (..., h, w). Returns the same shape; a constant map becomes zero everywhere.
    """
    low = maps.amin(dim=(-2, -1), keepdim=True)  # (..., 1, 1)
    high = maps.amax(dim=(-2, -1), keepdim=True)  # (..., 1, 1)
    return (maps - low) / (high - low + EPSILON)


def smooth(maps: torch.Tensor) -> torch.Tensor:
    """Blur each map with the published 3x3 Gaussian after reflecting its border by one cell.

    The kernel is exp(-(d / (2 sigma))^2), sigma = 0.5, normalised to sum 1, where d is the distance in cells. A
    conventional Gaussian is exp(-(d / s)^2 / 2), so this is one of s = sigma * sqrt(2) = 0.7071, not a
    library's blur of sigma 0.5.

    maps: (N, h, w) with h, w >= 2. Returns the same shape.
    """
    side = math.exp(-((1 / (2 * SIGMA)) ** 2))
    near, middle = side / (1 + 2 * side), 1 / (1 + 2 * side)
    # A Gaussian separates into rows and columns. Plain sums, unlike conv2d, keep float32 under autocast.
    padded = F.pad(maps, (1, 1, 1, 1), mode="reflect")  # (N, h + 2, w + 2)
    rows = near * padded[:, :-2] + middle * padded[:, 1:-1] + near * padded[:, 2:]  # (N, h, w + 2)
    return near * rows[:, :, :-2] + middle * rows[:, :, 1:-1] + near * rows[:, :, 2:]  # (N, h, w)


def suppress(maps: torch.Tensor) -> torch.Tensor:
    """Sharpen maps in [0, 1] by f(a) = a^2: strong patches stay, weak ones fade. Any shape, returned as it came."""
    return maps * maps


def soft_iou(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Overlap of two maps in [0, 1]: (sum(a b) + 1) / (sum(a) + sum(b) - sum(a b) + 1).

    a, b: (..., h, w). Returns (...), above 0; 1 means the same mask, or, by the ones added, two empty ones.
    """
    both = (a * b).sum(dim=(-2, -1))  # (...)
    either = a.sum(dim=(-2, -1)) + b.sum(dim=(-2, -1)) - both  # (...)
    return (both + 1) / (either + 1)


def bind_loss(modifier_maps: torch.Tensor, class_maps: torch.Tensor) -> torch.Tensor:
    """L_bind = sum over concepts of 1 - IoU(class map, modifier map): the modifier looks where its class looks.

    The class map is detached: it already knows its object and must not be pulled towards an untrained modifier.

    modifier_maps, class_maps: (N, h, w) in [0, 1]. Returns a scalar in [0, N).
    """
    return (1 - soft_iou(class_maps.detach(), modifier_maps)).sum()


def separate_loss(class_maps: torch.Tensor) -> torch.Tensor:
    """L_s&s = mean over pairs of concepts of IoU(class map i, class map j), both with gradient: the classes part.

    class_maps: (N, h, w) in [0, 1], N >= 2. Returns a scalar in (0, 1]. Raises UserError for fewer than two concepts.
    """
    concepts = len(class_maps)
    if concepts < 2:
        raise UserError(
            f"Separating takes at least two class maps and there is {concepts}: pass maps of two or more classes."
        )
    first, second = torch.triu_indices(concepts, concepts, offset=1, device=class_maps.device)  # (pairs,) each
    return soft_iou(class_maps[first], class_maps[second]).mean()


def calibration_loss(
    modifier_maps: torch.Tensor, class_maps: torch.Tensor, *, smooth: bool = True, suppress: int = True
) -> dict[str, torch.Tensor]:
    """Both terms of the calibration, before their weight lambda, from raw maps.

    modifier_maps, class_maps: (N, h, w), N >= 2, averaged over layers and heads and not yet normalised.
    smooth: blur the maps after normalising them.
    suppress: how often to square the class maps after blurring; True is once. As in the published code the square is
        part of the smoothing, so with smooth=False there is none, whatever suppress says: the paper's ablation "without
        Gaussian" is without both. To square without a blur, compose normalise, suppress, bind_loss and separate_loss.

    Returns {"bind": L_bind, "separate": L_s&s}, scalars with gradient. Raises UserError if the shapes differ or N < 2.
    """
    if modifier_maps.shape != class_maps.shape or modifier_maps.ndim != 3:
        raise UserError(
            f"Modifier maps {tuple(modifier_maps.shape)} and class maps {tuple(class_maps.shape)} must both be"
            " (N, h, w): pass one map for each concept."
        )
    modifier_maps = _prepare(modifier_maps, blur=smooth, squares=0)
    class_maps = _prepare(class_maps, blur=smooth, squares=suppress if smooth else 0)
    return {"bind": bind_loss(modifier_maps, class_maps), "separate": separate_loss(class_maps)}


def _prepare(maps: torch.Tensor, blur: bool, squares: int) -> torch.Tensor:
    # Out of calibration_loss because its switches carry the names of the functions that they switch.
    maps = normalise(maps)
    if blur:
        maps = smooth(maps)
    for _ in range(squares):
        maps = suppress(maps)
    return maps
