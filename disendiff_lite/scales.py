"""Maps of all scales: the feature grids of a UNet, and the mean of the attention maps over several of them."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from diffusers import StableDiffusionPipeline, UNet2DConditionModel

from disendiff_lite.attention import AttentionStore, average_maps
from disendiff_lite.config import Config
from disendiff_lite.support.errors import UserError


def feature_grids(unet: UNet2DConditionModel, side: int) -> list[int]:
    """The sides of a UNet's feature grids, the largest first, for square latents of a side: 64, 32, 16, 8 for SD."""
    return [math.ceil(side / 2**level) for level in range(len(unet.config.block_out_channels))]


def check_grid(pipe: StableDiffusionPipeline, config: Config) -> None:
    """Raise UserError if the calibration of these settings takes maps of a grid that the pipeline's UNet lacks."""
    grids = feature_grids(pipe.unet, config.resolution // pipe.vae_scale_factor)
    if config.calibrates and config.map_resolution not in grids:
        raise UserError(
            f"At {config.resolution} px this UNet has no grid of map_resolution {config.map_resolution}:"
            f" choose one of {', '.join(map(str, grids))}."
        )


def average_scales(stores: Sequence[AttentionStore], side: int) -> torch.Tensor:
    """average_maps over the layers of several grids: the maps of each are brought to side x side cells, bilinearly.

    stores: of captures of one call, a grid each; those of grids without cross-attention are left out, and each counts
        by its number of layers.

    Returns (B, T, side, side), with gradient. Raises UserError as average_maps does if no grid had maps.
    """
    filled = [store for store in stores if store.maps] or list(stores)
    layers = [len(store.maps) for store in filled]
    maps = [F.interpolate(average_maps(s), (side, side), mode="bilinear", antialias=True) for s in filled]
    return sum(each * number for each, number in zip(maps, layers)) / sum(layers)
