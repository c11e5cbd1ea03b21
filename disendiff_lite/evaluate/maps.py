"""Attention maps against the truth: does a token look where its object is? Only for worlds whose masks are known.

A map has few cells and a mask many pixels; a cell of the map belongs to the object if the mask covers at least half of
it (or, for an object too thin for that anywhere, as much of it as of any cell).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from disendiff_lite.evaluate.score import Score
from disendiff_lite.losses import normalise
from disendiff_lite.support.errors import UserError

COVERED = 0.5  # share of a cell that the mask must cover


def map_hits(maps, masks) -> Score:
    """Share of maps whose peak lies on the mask; by chance it is the share of the picture that the object covers.

    maps: (N, h, w), tensor or array, not negative. masks: (N, H, W), tensor or array, true on the object.

    Returns a Score of zeros and ones, one a map; a map with several equal peaks hits if all are on the mask, so a flat
    one never does. Raises UserError if there are not as many masks as maps, or a mask is empty.
    """
    maps, cells = _prepare(maps, masks)  # (N, h, w) both
    peaks = maps == maps.amax(dim=(1, 2), keepdim=True)  # (N, h, w)
    missed = (peaks & ~cells).any(dim=(1, 2))  # (N,)
    return Score(tuple((~missed).float().tolist()))


def map_iou(maps, masks, threshold: float = 0.5) -> Score:
    """IoU of the mask with the cells where the map, stretched to [0, 1], is above a threshold.

    maps: (N, h, w). masks: (N, H, W), true on the object. threshold: in [0, 1).

    Returns a Score in [0, 1], one value a map. Raises UserError as map_hits does.
    """
    maps, cells = _prepare(maps, masks)  # (N, h, w) both
    above = normalise(maps) > threshold  # (N, h, w)
    both = (above & cells).sum(dim=(1, 2))  # (N,)
    either = (above | cells).sum(dim=(1, 2))  # (N,)
    return Score(tuple((both / either).tolist()))


def map_density(maps, masks) -> Score:
    """Mean of the map over the object's cells, divided by its mean over the whole picture.

    1 means that the token does not care about the object, 2 that it is looked for there twice as much as on average.

    maps: (N, h, w), probabilities as they come, not stretched. masks: (N, H, W), true on the object.

    Returns a Score, one value a map, at least 0; nan for a map that is 0 everywhere. Raises UserError as map_hits does.
    """
    maps, cells = _prepare(maps, masks)  # (N, h, w) both
    inside = (maps * cells).sum(dim=(1, 2)) / cells.sum(dim=(1, 2))  # (N,)
    return Score(tuple((inside / maps.mean(dim=(1, 2))).tolist()))


def enlarge(maps, size: Sequence[int]) -> torch.Tensor:
    """Maps with each cell repeated up to `size`, so that maps of different grids are measured in the same pixels.

    maps: (N, h, w). size: (H, W), such as the masks'. Returns float32 (N, H, W).
    """
    maps = torch.as_tensor(maps).detach().cpu().float()  # (N, h, w)
    return F.interpolate(maps[:, None], tuple(size), mode="nearest-exact")[:, 0]  # (N, H, W)


def map_leak(maps, masks, others) -> Score:
    """How much of the attention that lies on things lies on the wrong one: sum over other / sum
    over own and other, in [0, 1].

    Of a map without preference it is the other thing's share of the two areas.

    maps: (N, h, w); each is stretched to [0, 1] first. masks: (N, H, W), true on the own thing. others: (N, H, W), true
        on things that the map should leave alone.

    Returns a Score, one value a map, nan for a flat one. Raises UserError as map_hits does.
    """
    maps, own = _prepare(maps, masks)  # (N, h, w) both
    other = mask_to_grid(others, maps.shape[1:]) & ~own
    maps = normalise(maps)
    wrong = (maps * other).sum(dim=(1, 2))  # (N,)
    return Score(tuple((wrong / (wrong + (maps * own).sum(dim=(1, 2)))).tolist()))


def mask_to_grid(masks, grid: Sequence[int]) -> torch.Tensor:
    """Which cells of a grid belong to each object, bool (N, h, w), by the rule at the top of this file.

    masks: (N, H, W), true on the object. grid: (h, w). Raises UserError if a mask is empty.
    """
    masks = torch.as_tensor(masks).detach().cpu().float()  # (N, H, W)
    coverage = F.adaptive_avg_pool2d(masks, tuple(grid))  # (N, h, w)
    most = coverage.amax(dim=(1, 2), keepdim=True)  # (N, 1, 1)
    empty = [index for index, value in enumerate(most.flatten().tolist()) if value == 0]
    if empty:
        raise UserError(f"The masks {empty} are empty: leave out objects that cannot be seen.")
    return coverage >= most.clamp(max=COVERED)


def _prepare(maps, masks) -> tuple[torch.Tensor, torch.Tensor]:
    maps = torch.as_tensor(maps).detach().cpu().float()  # (N, h, w)
    if maps.ndim != 3 or len(maps) == 0 or len(maps) != len(masks):
        raise UserError(
            f"There are {len(masks)} masks for maps {tuple(maps.shape)}: give one mask for each map, (N, h, w)."
        )
    return maps, mask_to_grid(masks, maps.shape[1:])
