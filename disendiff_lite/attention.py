"""Cross-attention capture: see, inside a `with` block, where in the picture each token of the prompt is looked for.

Every cell of a UNet's feature grid asks the prompt which of its tokens matter there. A cross-attention layer answers
with

    P = softmax(Q K^T / sqrt(d))        Q from the picture, K from the prompt, d channels a head

so the column P[:, :, :, t], folded back into the grid, is a picture of where token t acts: its attention map. The fast
processors that diffusers uses never form P. Here the layers of one grid get a processor that does, beside the usual
output, from the very Q and K of this output.

Axes, here and everywhere in this package: B batch, H heads, Q queries (= h*w cells, row by row), T tokens.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch
from diffusers import Transformer2DModel, UNet2DConditionModel
from diffusers.models import attention_processor as stock
from diffusers.models.attention_processor import Attention, AttentionProcessor

from disendiff_lite.precision import in_float32
from disendiff_lite.support.errors import UserError
from disendiff_lite.support.modules import Watched, plain_names, uncompiled
from disendiff_lite.tokens import ConceptPositions

# They make a layer's output by the equation above from its own to_q and to_k; of all others that is not known.
PROCESSORS = (stock.AttnProcessor, stock.AttnProcessor2_0, stock.SlicedAttnProcessor, stock.XFormersAttnProcessor)


@dataclass
class AttentionStore:
    """What capture_attention saw; it only stores, average_maps and the plots do the rest.

    grid: (h, w), the wanted grid in cells. tokens: the positions of the prompt whose columns are kept, or None for all.
    maps: layer name -> its probabilities, one tensor (B, H, Q, T) in [0, 1], float32, for each call of the UNet (in
        sampling: each denoising step), layers in the order in which the UNet runs them. T counts the kept columns, in
        the order of `tokens`. With classifier-free guidance the prompt's half of B is the second, maps[B // 2 :].
    grids_seen: every grid (h, w) that a cross-attention layer had, wanted or not; for telling what went wrong.
    """

    grid: tuple[int, int]
    tokens: tuple[int, ...] | None = None
    maps: dict[str, list[torch.Tensor]] = field(default_factory=dict)
    grids_seen: set[tuple[int, int]] = field(default_factory=set)


class CapturingProcessor:
    """Lets a layer's own processor make the output as ever, and hands `record` the P (B, H, Q, T) that it came from."""

    def __init__(self, original: AttentionProcessor, record: Callable[[torch.Tensor], None]):
        self.original = original
        self.record = record
        self.active = True  # whether the grid of the call under way is the wanted one

    def __call__(
        self, attn: Attention, hidden_states: torch.Tensor, encoder_hidden_states=None, attention_mask=None, **others
    ) -> torch.Tensor:
        others |= {"encoder_hidden_states": encoder_hidden_states, "attention_mask": attention_mask}
        if not self.active:
            return self.original(attn, hidden_states, **others)
        # Q and K are watched, not projected once more: chance, as in the dropout of a LoRA adapter, must be drawn once.
        layer = Watched(attn, ("to_q", "to_k"))
        output = self.original(layer, hidden_states, **others)
        query = attn.head_to_batch_dim(layer.returned["to_q"])  # (B*H, Q, d)
        key = attn.head_to_batch_dim(layer.returned["to_k"])  # (B*H, T, d)
        if isinstance(_innermost(self), stock.AttnProcessor2_0):  # takes 1 / sqrt(d), whatever the layer's scale is
            query = query * (query.shape[-1] ** -0.5 / attn.scale)
        mask = attn.prepare_attention_mask(attention_mask, key.shape[1], len(output))
        with in_float32(output.device):  # half precision is too coarse for the losses
            scores = attn.get_attention_scores(query.float(), key.float(), mask if mask is None else mask.float())
        self.record(scores.unflatten(0, (-1, attn.heads)))
        return output


@contextmanager
def capture_attention(
    unet: UNet2DConditionModel,
    resolution: int | tuple[int, int] = 16,
    tokens: Sequence[int] | None = None,
    detach: bool = False,
) -> Iterator[AttentionStore]:
    """Record the cross-attention probabilities of the layers with one grid while the `with` block runs.

        with capture_attention(unet, 16, tokens=[4, 5]) as store:
            prediction = unet(latents, timestep, text).sample
        maps = average_maps(store)  # (B, 2, 16, 16)

    Only `attn2` layers whose grid is the wanted one get a CapturingProcessor, when they first run; all others keep
    their own. The UNet's outputs do not change. On leaving, also by an exception, each layer has its original processor
    again. Gradients may be taken inside the block or after it. Captures can be nested. Where gradient checkpointing is
    on, the captured blocks go without it, for their maps must live until the gradient is taken anyway, and so nothing
    is recomputed and stored twice. What torch.compile compiled runs uncompiled in the block, and rounds accordingly.

    unet: any conditional UNet of diffusers' Stable Diffusion kind, with LoRA adapters or without, compiled or not.
    resolution: the grid in cells, a side or (height, width); 16 for SD 1.x at 512 px means 16x16 of the 64x64 latents.
    tokens: positions in the prompt to keep, so that memory does not grow with its length; None keeps all.
    detach: True drops the gradient, for looking only.

    Yields the AttentionStore. Raises UserError if the model has no such layers; when it runs, if a layer of the grid
    has a processor that is not among PROCESSORS, or a token position is negative or beyond the prompt.
    """
    grid = (resolution, resolution) if isinstance(resolution, int) else tuple(resolution)
    store = AttentionStore(grid, None if tokens is None else tuple(tokens))
    # Leaving an ExitStack undoes every change, newest first, whatever ended the block.
    with ExitStack() as changes:
        changes.enter_context(uncompiled())
        for transformer, layers in _cross_attention(unet):
            watcher = _Watcher(transformer, layers, store, detach, changes)
            changes.callback(transformer.register_forward_pre_hook(watcher, with_kwargs=True).remove)
            changes.callback(transformer.register_forward_hook(watcher.check_recorded).remove)
        yield store


@dataclass
class _Watcher:
    # Stands before one transformer of the UNet, the last to see (B, channels, h, w): it is here that a layer's grid is
    # known, for pictures of any shape, without trusting names or counting the halvings on the way.
    transformer: Transformer2DModel
    layers: dict[str, Attention]
    store: AttentionStore
    detach: bool
    changes: ExitStack  # takes what undoes each change
    installed: list[CapturingProcessor] = field(default_factory=list)
    expected: dict[str, int] = field(default_factory=dict)  # layer name -> its maps after the call under way

    def __call__(self, _: Transformer2DModel, args: tuple, kwargs: dict) -> None:
        self.store.grids_seen.add(seen := tuple((args[0] if args else kwargs["hidden_states"]).shape[-2:]))  # (h, w)
        wanted = seen == self.store.grid
        if wanted and not self.installed:
            self._install()
        for processor in self.installed:
            processor.active = wanted  # a later call may have another grid
        self.expected = {name: len(self.store.maps.get(name, ())) + wanted for name in self.layers}

    def check_recorded(self, *_) -> None:
        for name, count in self.expected.items():
            if len(self.store.maps.get(name, ())) < count:
                raise UserError(f"{name} was not captured: set no processor in the block, nor a forward of your own.")

    def _install(self) -> None:
        checkpointed = self.transformer.gradient_checkpointing
        self.changes.callback(setattr, self.transformer, "gradient_checkpointing", checkpointed)
        self.transformer.gradient_checkpointing = False
        for name, attn in self.layers.items():
            check_processor(name, attn)
            processor = CapturingProcessor(attn.processor, partial(self._record, name))
            processor.__call__ = attn.processor.__call__  # diffusers reads in its signature what else it may pass on
            self.changes.callback(attn.set_processor, attn.processor)
            attn.set_processor(processor)
            self.installed.append(processor)

    def _record(self, name: str, probabilities: torch.Tensor) -> None:
        tokens, length = self.store.tokens, probabilities.shape[-1]
        if tokens is not None:
            if outside := [token for token in tokens if not 0 <= token < length]:
                raise UserError(f"Token positions {outside} are not in the prompt: choose among 0 to {length - 1}.")
            probabilities = probabilities[..., list(tokens)]  # (B, H, Q, kept T), a copy: the others can be freed
        self.store.maps.setdefault(name, []).append(probabilities.detach() if self.detach else probabilities)


def check_processors(unet: UNet2DConditionModel) -> None:
    """Raise UserError, with its name, if a cross-attention layer has a processor that is not among PROCESSORS.

    Others may have keys of their own (Custom Diffusion's, fused ones) or add a picture's attention (IP-Adapter's).
    """
    for _, layers in _cross_attention(unet):
        for name, attn in layers.items():
            check_processor(name, attn)


def check_processor(name: str, attn: Attention) -> None:
    """check_processors for one layer."""
    kind = type(_innermost(attn.processor))
    norms = kind is stock.AttnProcessor2_0 and (attn.norm_q is not None or attn.norm_k is not None)  # the others ignore
    if kind not in PROCESSORS or norms:
        plain = "AttnProcessor()" if norms else "AttnProcessor2_0()"
        usual = f"pipe.unet.set_attn_processor({plain}), from diffusers.models.attention_processor,"
        raise UserError(
            f"{kind.__name__}, the processor of {name}, may attend by more than the layer's own to_q and to_k: call"
            f" {'pipe.unload_ip_adapter()' if 'IPAdapter' in kind.__name__ else usual} first."
        )


def average_maps(
    store: AttentionStore, *, layer: str | None = None, head: int | None = None, call: int | None = None
) -> torch.Tensor:
    """One attention map for each kept token: the mean of the stored probabilities over layers, heads and calls.

    layer, head, call: a layer's name, a head or a call (denoising step, negative from the end) in place of the mean.

    Returns (B, T, h, w) in [0, 1], with gradient unless captured with detach; the calls must have one batch size.
    Raises UserError if the store is empty, saying what was forgotten, or if it has no such layer, head or call.
    """
    if not store.maps:
        raise UserError(_why_empty(store))
    try:
        layers = store.maps.values() if layer is None else [store.maps[layer]]
        chosen = [maps for calls in layers for maps in (calls if call is None else [calls[call]])]  # each (B, H, Q, T)
        chosen = [maps.mean(dim=1) if head is None else maps[:, head] for maps in chosen]  # each (B, Q, T)
    except (KeyError, IndexError):
        one = next(iter(store.maps.values()))
        raise UserError(
            f"No maps of layer {layer}, head {head}, call {call}: choose None or among the layers"
            f" {', '.join(store.maps)}, heads 0 to {one[0].shape[1] - 1} and calls 0 to {len(one) - 1}."
        ) from None
    mean = torch.stack(chosen).mean(dim=0)  # (B, Q, T)
    return mean.transpose(1, 2).unflatten(2, store.grid)  # (B, T, h, w)


def concept_maps(maps: torch.Tensor, concepts: Sequence[ConceptPositions]) -> tuple[torch.Tensor, torch.Tensor]:
    """The maps of each concept's modifier and of its class; a class of several sub-word tokens has their mean.

    maps: (T, h, w), of the prompt's tokens. concepts: N places among the T, from tokens.find_positions.
    Returns the modifiers' and the classes' maps, (N, h, w) each, with gradient.
    """
    modifiers = torch.stack([maps[concept.modifier] for concept in concepts])  # (N, h, w)
    classes = torch.stack([maps[list(concept.class_)].mean(dim=0) for concept in concepts])  # (N, h, w)
    return modifiers, classes


def _innermost(processor: AttentionProcessor) -> AttentionProcessor:
    return _innermost(processor.original) if isinstance(processor, CapturingProcessor) else processor


def _cross_attention(unet: UNet2DConditionModel) -> list[tuple[Transformer2DModel, dict[str, Attention]]]:
    # Each transformer of the UNet with its cross-attention layers, by the names they have in the whole plain UNet.
    found = []
    for path, transformer in plain_names(unet.named_modules()).items():
        if isinstance(transformer, Transformer2DModel):
            layers = {
                f"{path}.{name}": module
                for name, module in plain_names(transformer.named_modules()).items()
                if isinstance(module, Attention) and module.is_cross_attention and name.endswith(".attn2")
            }
            found.append((transformer, layers))
    if not any(layers for _, layers in found):
        raise UserError("This model has no cross-attention layers: give a UNet of diffusers, not traced nor exported.")
    return found


def _why_empty(store: AttentionStore) -> str:
    wanted = "x".join(map(str, store.grid))
    if not store.grids_seen:
        return f"No attention was captured at {wanted}: run the UNet inside the `with capture_attention(...)` block."
    seen = ", ".join(f"{h}x{w}" for h, w in sorted(store.grids_seen, reverse=True))
    return f"No cross-attention layer has the grid {wanted}: pass one that the UNet has, {seen}, as resolution."
