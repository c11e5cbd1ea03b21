"""Grounding: the attention of the class words, which the UNet's training pulls towards the true masks of their objects.

Stable Diffusion's words learn where to look by seeing hundreds of millions of captions; here the masks are known. Only
class words are grounded: what a new modifier token attends to is left open, as in Stable Diffusion.
"""

from collections.abc import Callable

import torch
from diffusers.models.attention_processor import AttnProcessor

from disendiff_lite.attention import CapturingProcessor


def grounding_loss(maps: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Cross-entropy between where the class words look and where their objects are, both normalised to sum 1.

    maps: (B, 3, h, w), mean attention of each class word; masks: (B, 3, h, w) in [0, 1], all zero where there is no
    object. Returns a scalar, in nats, the mean over the objects that are there.
    """
    present = masks.flatten(2).sum(dim=2) > 0.5  # (B, 3)
    attention = maps.flatten(2) / maps.flatten(2).sum(dim=2, keepdim=True)  # (B, 3, h*w)
    target = masks.flatten(2) / masks.flatten(2).sum(dim=2, keepdim=True).clamp_min(1e-6)
    entropy = -(target * attention.clamp_min(1e-8).log()).sum(dim=2)  # (B, 3)
    return (entropy * present).sum() / present.sum().clamp_min(1)


def maps_at(maps: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """The maps of the class words, (B, 3, h, w), of the maps (B, T, h, w) of all tokens. positions: int (B, 3)."""
    return maps.gather(1, positions[:, :, None, None].expand(-1, -1, *maps.shape[-2:]))


def grounded_predictor(unet) -> tuple[Callable, Callable[[bool], None]]:
    """A function (noisy, t, text) -> (predicted noise (B, 4, h, w), mean 16x16 maps (B, 77, 16, 16)), to be compiled.

    Without its processors the maps are None, and the UNet computes its attention as it usually does.

    Beside it, a function that gives the UNet the processors which this needs (True, as at first) or its own ones back
    (False), for capture_attention, which does that by itself, cannot be traced through by the compiler.
    """
    seen: list[torch.Tensor] = []
    own = unet.attn_processors
    plain = AttnProcessor()  # the fused kernels are slower on a CPU with heads this small
    grids_of_16 = ("down_blocks.0.", f"up_blocks.{len(unet.up_blocks) - 1}.")
    capturing = {
        name: CapturingProcessor(plain, seen.append) if name.startswith(grids_of_16) and ".attn2." in name else plain
        for name in own
    }

    def capture(on: bool) -> None:
        seen.clear()  # so that the last maps are not kept alive
        unet.set_attn_processor(dict(capturing if on else own))  # a copy: diffusers empties what it is given

    def predict(noisy, t, text):
        seen.clear()
        noise = unet(noisy, t, text).sample
        if not seen:
            return noise, None
        maps = torch.stack([probabilities.mean(dim=1) for probabilities in seen]).mean(dim=0)  # (B, Q, T)
        return noise, maps.transpose(1, 2).unflatten(2, noisy.shape[-2:])  # (B, T, h, w)

    capture(True)
    return predict, capture
