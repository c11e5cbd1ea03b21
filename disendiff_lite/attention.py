"""Cross-attention capture: see, inside a `with` block, where in the picture each token of the prompt is looked for.

Every cell of a UNet's feature grid asks the prompt which of its tokens matter there. A cross-attention layer answers
with

    P = softmax(Q K^T / sqrt(d))        Q from the picture, K from the prompt, d channels a head

so the column P[:, :, :, t], folded back into the grid, is a picture of where token t acts: its attention map. The fast
processors that diffusers uses never form P. Here the layers of one grid get a processor that does, beside the usual
output.

Axes, here and everywhere in this package: B batch, H heads, Q queries (= h*w cells, row by row), T tokens.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import torch
from diffusers import Transformer2DModel, UNet2DConditionModel
from diffusers.models.attention_processor import Attention, AttentionProcessor

from disendiff_lite.support.errors import UserError
from disendiff_lite.tokens import ConceptPositions


@dataclass
class AttentionStore:
    """What capture_attention saw; it only stores, average_maps and the plots do the rest.

    grid: (h, w), the wanted grid in cells.
    tokens: the positions of the prompt whose columns are kept, or None for all.
    maps: layer name -> its probabilities, one tensor (B, H, Q, T) in [0, 1], float32, for each call of the UNet (in
        sampling: each denoising step), layers in the order in which the UNet runs them. T counts the kept columns, in
        the order of `tokens`. With classifier-free guidance B is doubled and the prompt's half is the second, maps[B //
        2 :].
    grids_seen: every grid (h, w) that a cross-attention layer had, wanted or not; for telling what went wrong.
    """

    grid: tuple[int, int]
    tokens: tuple[int, ...] | None = None
    maps: dict[str, list[torch.Tensor]] = field(default_factory=dict)
    grids_seen: set[tuple[int, int]] = field(default_factory=set)


class CapturingProcessor:
    """Lets a layer's own processor make the output as ever and, beside it, hands P to `record` (equation at the top).

    The output is therefore the original's to the last bit, whichever processor that is; the price is that Q and K of
    these few layers are projected twice. Dropout inside a LoRA adapter, if there is any, is drawn anew for the second
    time.
    """

    def __init__(self, original: AttentionProcessor, record: Callable[[torch.Tensor], None]):
        self.original = original
        self.record = record
        self.active = True  # whether the grid of the call under way is the wanted one

    def __call__(
        self,
        attn: Attention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        if self.active:
            self.record(attention_probabilities(attn, hidden_states, encoder_hidden_states, attention_mask))
        return self.original(attn, hidden_states, encoder_hidden_states, attention_mask)


def attention_probabilities(
    attn: Attention, picture: torch.Tensor, prompt: torch.Tensor, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """P = softmax(Q K^T / sqrt(d)) of one cross-attention layer, with the layer's own rounding (upcast_attention, half
    types).

    picture: (B, Q, channels); prompt: (B, T, text channels); mask: (B, 1, T), added to the scores, or None.
    Returns (B, H, Q, T) in [0, 1], each row of sum 1, with gradient.
    """
    batch, tokens, _ = prompt.shape
    query = attn.head_to_batch_dim(attn.to_q(picture))  # (B*H, Q, d)
    key = attn.head_to_batch_dim(attn.to_k(prompt))  # (B*H, T, d)
    mask = attn.prepare_attention_mask(mask, tokens, batch)
    return attn.get_attention_scores(query, key, mask).unflatten(0, (batch, attn.heads))  # (B, H, Q, T)


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
    again. Gradients may be taken inside the block or after it. Where gradient checkpointing is on, the captured blocks
    go without it, for their maps must live until the gradient is taken anyway, and so nothing is recomputed and stored
    twice; the large grids, where the memory is, stay checkpointed. Captures can be nested.

    unet: any conditional UNet of diffusers' Stable Diffusion kind, with LoRA adapters or without.
    resolution: the grid in cells, a side or (height, width); 16 for SD 1.x at 512 px means 16x16 of the 64x64 latents.
    tokens: positions in the prompt to keep, so that memory does not grow with its length; None keeps all.
    detach: True drops the gradient, for looking only.

    Yields the AttentionStore. Raises UserError if a token position is negative or beyond the prompt.
    """
    grid = (resolution, resolution) if isinstance(resolution, int) else tuple(resolution)
    store = AttentionStore(grid, None if tokens is None else tuple(tokens))
    # Leaving an ExitStack undoes every change, newest first, whatever ended the block.
    with ExitStack() as changes:
        for transformer, layers in _cross_attention(unet):
            watcher = _Watcher(transformer, layers, store, detach, changes)
            changes.callback(transformer.register_forward_pre_hook(watcher, with_kwargs=True).remove)
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

    def __call__(self, _: Transformer2DModel, args: tuple, kwargs: dict) -> None:
        features = args[0] if args else kwargs["hidden_states"]  # (B, channels, h, w)
        seen = tuple(features.shape[-2:])
        self.store.grids_seen.add(seen)
        if seen == self.store.grid and not self.installed:
            self._install()
        for processor in self.installed:
            processor.active = seen == self.store.grid  # a later call may have another grid

    def _install(self) -> None:
        checkpointed = self.transformer.gradient_checkpointing
        self.changes.callback(setattr, self.transformer, "gradient_checkpointing", checkpointed)
        self.transformer.gradient_checkpointing = False
        for name, attn in self.layers.items():
            processor = CapturingProcessor(attn.processor, _recorder(self.store, name, self.detach))
            self.changes.callback(attn.set_processor, attn.processor)
            attn.set_processor(processor)
            self.installed.append(processor)


def average_maps(
    store: AttentionStore, *, layer: str | None = None, head: int | None = None, call: int | None = None
) -> torch.Tensor:
    """One attention map for each kept token: the mean of the stored probabilities over layers, heads and calls.

    layer, head, call: one layer's name, one head or one call (denoising step, negative from the end) in place of the
        mean.

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
            f" {', '.join(store.maps)}, "
            f"heads 0 to {one[0].shape[1] - 1} and calls 0 to {len(one) - 1}."
        ) from None
    mean = torch.stack(chosen).mean(dim=0)  # (B, Q, T)
    return mean.transpose(1, 2).unflatten(2, store.grid)  # (B, T, h, w)


def concept_maps(maps: torch.Tensor, concepts: Sequence[ConceptPositions]) -> tuple[torch.Tensor, torch.Tensor]:
    """The maps of each concept's modifier and of its class; a class of several sub-word tokens has the mean of their
    maps.

    maps: (T, h, w), of the prompt's tokens. concepts: N places among the T, from tokens.find_positions.

    Returns the modifiers' and the classes' maps, (N, h, w) each, with gradient.
    """
    modifiers = torch.stack([maps[concept.modifier] for concept in concepts])  # (N, h, w)
    classes = torch.stack([maps[list(concept.class_)].mean(dim=0) for concept in concepts])  # (N, h, w)
    return modifiers, classes


def _cross_attention(unet: UNet2DConditionModel) -> Iterator[tuple[Transformer2DModel, dict[str, Attention]]]:
    # Each transformer of the UNet with its cross-attention layers, by the names they have in the whole UNet.
    for path, transformer in unet.named_modules():
        if isinstance(transformer, Transformer2DModel):
            layers = {
                f"{path}.{name}": module
                for name, module in transformer.named_modules()
                if isinstance(module, Attention) and module.is_cross_attention and name.endswith(".attn2")
            }
            yield transformer, layers


def _recorder(store: AttentionStore, name: str, detach: bool) -> Callable[[torch.Tensor], None]:
    def record(probabilities: torch.Tensor) -> None:
        if store.tokens is not None:
            length = probabilities.shape[-1]
            outside = [token for token in store.tokens if not 0 <= token < length]
            if outside:
                raise UserError(f"Token positions {outside} are not in the prompt: choose among 0 to {length - 1}.")
            # Indexing copies, so that the columns not asked for can be freed.
            probabilities = probabilities[..., list(store.tokens)]  # (B, H, Q, kept T)
        if detach:
            probabilities = probabilities.detach()
        store.maps.setdefault(name, []).append(probabilities.float())

    return record


def _why_empty(store: AttentionStore) -> str:
    wanted = "x".join(map(str, store.grid))
    if not store.grids_seen:
        return f"No attention was captured at {wanted}: run the UNet inside the `with capture_attention(...)` block."
    seen = ", ".join(f"{h}x{w}" for h, w in sorted(store.grids_seen, reverse=True))
    return (
        f"No cross-attention layer has the grid {wanted}: pass one of those that the UNet has, {seen}, as resolution."
    )
