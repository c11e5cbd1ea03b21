"""Queries and keys: what one cross-attention layer compares before it has any attention map.

    score of cell q for token t = query[q] . key[t] / sqrt(d)        attention = softmax of the scores over the tokens

Only for looking: capture_attention gives the attention itself, of many layers at once.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention

from disendiff_lite.attention import check_processor
from disendiff_lite.support.errors import UserError
from disendiff_lite.support.modules import plain_names, uncompiled


@dataclass
class SeenLayer:
    """The last call of one layer.

    queries: (B, H, Q, d), from the picture. keys: (B, H, T, d), from the prompt. Both float32 on the CPU; None before
        the UNet ran.
    """

    queries: torch.Tensor | None = None
    keys: torch.Tensor | None = None


@contextmanager
def watch_layer(unet: UNet2DConditionModel, layer: str) -> Iterator[SeenLayer]:
    """See the queries and keys of one cross-attention layer while the `with` block runs.

        with watch_layer(unet, "mid_block.attentions.0.transformer_blocks.0.attn2") as seen:
            unet(latents, timestep, text)
        scores = seen.queries @ seen.keys.mT / seen.keys.shape[-1] ** 0.5  # (B, H, Q, T)

    layer: its name, as in the maps of an AttentionStore. The UNet's outputs do not change, and nothing stays behind in
        it. What torch.compile compiled runs uncompiled in the block.

    Yields a SeenLayer, without gradient. Raises UserError if the UNet has no such layer, or the layer's processor may
    use other queries and keys than those (attention.check_processors).
    """
    modules = plain_names(unet.named_modules())
    layers = {name: module for name, module in modules.items() if isinstance(module, Attention)}
    if layer not in layers or not layers[layer].is_cross_attention:
        known = [name for name, module in layers.items() if module.is_cross_attention]
        raise UserError(f"The UNet has no cross-attention layer {layer}: choose one of {', '.join(known)}.")
    attn = layers[layer]
    check_processor(layer, attn)
    seen = SeenLayer()

    def note(name: str):
        return lambda _, __, projected: setattr(seen, name, _by_head(attn, projected))

    with ExitStack() as changes:
        changes.enter_context(uncompiled())
        changes.callback(attn.to_q.register_forward_hook(note("queries")).remove)
        changes.callback(attn.to_k.register_forward_hook(note("keys")).remove)
        yield seen


def _by_head(attn: Attention, projected: torch.Tensor) -> torch.Tensor:
    heads = attn.head_to_batch_dim(projected.detach())  # (B*H, length, d)
    return heads.unflatten(0, (-1, attn.heads)).float().cpu()  # (B, H, length, d)
