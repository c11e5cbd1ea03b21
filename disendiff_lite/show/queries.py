"""Queries and keys: what one cross-attention layer compares before it has any attention map.

    score of cell q for token t = query[q] . key[t] / sqrt(d)        attention = softmax of the scores over the tokens

Only for looking: capture_attention gives the attention itself, of many layers at once.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention

from disendiff_lite.support.errors import UserError


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
        it.

    Yields a SeenLayer, without gradient. Raises UserError if the UNet has no such layer.
    """
    layers = {name: module for name, module in unet.named_modules() if isinstance(module, Attention)}
    if layer not in layers or not layers[layer].is_cross_attention:
        known = [name for name, module in layers.items() if module.is_cross_attention]
        raise UserError(f"The UNet has no cross-attention layer {layer}: choose one of {', '.join(known)}.")
    seen = SeenLayer()
    hook = layers[layer].register_forward_pre_hook(_note_call(seen), with_kwargs=True)
    try:
        yield seen
    finally:
        hook.remove()


def _note_call(seen: SeenLayer):
    @torch.no_grad()
    def note(attn: Attention, args: tuple, kwargs: dict) -> None:
        picture = args[0] if args else kwargs["hidden_states"]  # (B, Q, channels)
        prompt = args[1] if len(args) > 1 else kwargs["encoder_hidden_states"]  # (B, T, text channels)
        seen.queries = _by_head(attn, attn.to_q(picture))  # (B, H, Q, d)
        seen.keys = _by_head(attn, attn.to_k(prompt))  # (B, H, T, d)

    return note


def _by_head(attn: Attention, projected: torch.Tensor) -> torch.Tensor:
    heads = attn.head_to_batch_dim(projected)  # (B*H, length, d)
    return heads.unflatten(0, (-1, attn.heads)).float().cpu()  # (B, H, length, d)
