"""What trains and what stands still: while the training lasts, everything but the chosen weights is frozen.

The new tokens' embeddings are a small parameter of their own, laid over the rows of the embedding table by a hook. So
the other rows cannot move, not even by weight decay, and the optimiser keeps no state for 49,408 rows that never
change.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from diffusers import StableDiffusionPipeline
from torch import nn

from disendiff_lite.adapters import adapted, adapter_size
from disendiff_lite.attention import check_processors
from disendiff_lite.config import Config
from disendiff_lite.models import cross_attention_weights
from disendiff_lite.optimizers import make_optimizer, pack_moments, unpack_moments
from disendiff_lite.precision import DTYPES, channels_last, held_in
from disendiff_lite.support.errors import UserError
from disendiff_lite.support.modules import plain_names, uncompiled

EMBEDDINGS = "embeddings"  # the name of the new tokens' rows among the trained tensors


@dataclass
class Trainable:
    """The tensors that a run trains.

    weights: the UNet's, or its adapters', by name. base: copies of the UNet's from before the training, on the CPU;
    none with adapters, which leave them as they are.
    rows: (N, dim), the new tokens' embeddings, or None if they do not train. token_ids: their N places in the table.
    """

    weights: dict[str, nn.Parameter]
    base: dict[str, torch.Tensor]
    rows: nn.Parameter | None
    token_ids: list[int]
    table: nn.Embedding

    def named(self) -> dict[str, nn.Parameter]:
        """Every trained tensor by name, in a fixed order."""
        return self.weights if self.rows is None else {**self.weights, EMBEDDINGS: self.rows}

    def optimizer(self, config: Config) -> torch.optim.Optimizer:
        """With `learning_rate` for the UNet's tensors, `embedding_learning_rate` for the embeddings."""
        groups = [{"params": list(self.weights.values()), "initial_lr": config.learning_rate}]
        if self.rows is not None:
            groups.append({"params": [self.rows], "initial_lr": config.embedding_learning_rate})
        return make_optimizer([group for group in groups if group["params"]], config)

    @torch.no_grad()
    def write_back(self) -> None:
        """Copy the new rows into the embedding table, so that the pipeline is complete without the hook."""
        if self.rows is not None:
            self.table.weight[self.token_ids] = self.rows.to(self.table.weight.dtype)


def set_learning_rates(optimizer: torch.optim.Optimizer, config: Config, step: int) -> None:
    """Give each group the rate of a `step` (from 1 on), as `config.lr_scheduler` has it."""
    share = (1 + math.cos(math.pi * (step - 1) / config.steps)) / 2 if config.lr_scheduler == "cosine" else 1.0
    for group in optimizer.param_groups:
        group["lr"] = share * group["initial_lr"]


@contextmanager
def training(pipe: StableDiffusionPipeline, config: Config, token_ids: Sequence[int]) -> Iterator[Trainable]:
    """Make the chosen weights of the pipeline trainable while the `with` block runs, and freeze the rest.

    The parts are in eval mode meanwhile: Stable Diffusion has no dropout to switch on. Afterwards, also after an
    exception, mode, requires_grad and gradient checkpointing are as before and the hooks are gone; what was learned
    stays.

    With a half `precision` the frozen weights are held in it meanwhile; what trains is always float32.

    token_ids: of the modifiers; their embeddings train in every method but dreambooth.

    What torch.compile compiled runs uncompiled meanwhile. Raises UserError as choose_trainable does, before anything
    changes.
    """
    weights, base = choose_trainable(pipe, config.trained), {}
    table = pipe.text_encoder.get_input_embeddings()
    rows = None if config.method == "dreambooth" else nn.Parameter(table.weight[token_ids].detach().float().clone())
    parts = (pipe.unet, pipe.vae, pipe.text_encoder)
    with ExitStack() as stack:
        stack.enter_context(uncompiled())
        if config.trained == "lora":
            weights = stack.enter_context(adapted(pipe.unet, config))
        else:
            base = {name: weight.detach().to("cpu", torch.float32, copy=True) for name, weight in weights.items()}
        trainable = Trainable(weights, base, rows, list(token_ids), table)
        # The table takes the new rows unrounded, and by the keys and values the files of a run know their model.
        exact = [weight for name, weight in pipe.unet.named_parameters() if ".attn2.to_" in name]
        exact += [*weights.values()] + ([] if rows is None else [table.weight])
        stack.enter_context(held_in(config.precision, parts, exact))
        for part in parts:
            stack.enter_context(_frozen(part))
        for weight in weights.values():
            weight.requires_grad_(True)
        if rows is not None:
            stack.enter_context(_overlaid(trainable, DTYPES[config.precision]))
        if config.method in ("disendiff", "custom_diffusion"):
            stack.enter_context(_first_token_detached(pipe.unet))
        if config.channels_last:
            stack.enter_context(channels_last((pipe.unet, pipe.vae)))
        if config.gradient_checkpointing and not pipe.unet.is_gradient_checkpointing:
            pipe.unet.enable_gradient_checkpointing()
            stack.callback(pipe.unet.disable_gradient_checkpointing)
        yield trainable


def choose_trainable(pipe, trained: str) -> dict[str, nn.Parameter]:
    """The UNet parameters that a run trains, by name; the new tokens' embeddings come on top of them.

    trained: a key of presets.TRAINED: some projections of every cross-attention layer, the whole UNet, or none. With
        "lora" they are those that the adapters lie over.

    Returns parameters by their name in the plain UNet, in its order. Raises UserError if they are not what the pictures
    are made of: if LoRA adapters wrap them or attention processors have weights of their own in their place.
    """
    if trained == "none":
        return {}
    if trained == "unet":
        return _whole(pipe.unet)
    check_processors(pipe.unet)
    if trained == "lora" and getattr(pipe.unet, "peft_config", None):
        raise UserError("This UNet has LoRA adapters already, beside which no others train: fuse or unload them first.")
    return cross_attention_weights(pipe.unet, trained)


def trained_bytes(pipe, config: Config) -> int:
    """The size of the UNet's trained weights in float32, of the adapters alone with "lora"; errors as above."""
    chosen = choose_trainable(pipe, config.trained)
    return adapter_size(pipe.unet, config) if config.trained == "lora" else sum(4 * w.numel() for w in chosen.values())


def pack_state(
    trainable: Trainable, optimizer: torch.optim.Optimizer, generator: torch.Generator
) -> dict[str, torch.Tensor]:
    """The state after a step: "weights/<name>", "optimizer/<name>/<moment>", and "generator", (bytes,) uint8."""
    tensors = {"generator": generator.get_state()}
    for name, parameter in trainable.named().items():
        tensors[f"weights/{name}"] = parameter
        moments = pack_moments(optimizer, parameter)
        tensors |= {f"optimizer/{name}/{moment}": value for moment, value in moments.items()}
    return tensors


def unpack_state(
    tensors: Mapping[str, torch.Tensor],
    trainable: Trainable,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
) -> None:
    """Put a state of pack_state back; an empty one changes nothing.

    Raises UserError if it belongs to other weights; some may then have been overwritten.
    """
    if not tensors:
        return
    moments = {name: {} for name in trainable.named()}
    try:
        for key in tensors:
            if key.startswith("optimizer/"):
                _, name, moment = key.split("/")
                moments[name][moment] = tensors[key]
        with torch.no_grad():
            for name, parameter in trainable.named().items():
                parameter.copy_(tensors[f"weights/{name}"])
                unpack_moments(moments[name], optimizer, parameter)
        generator.set_state(tensors["generator"])
    except (KeyError, RuntimeError):
        raise UserError("The checkpoint does not fit this run: delete the run's folder and train again.") from None
    trainable.write_back()


def _whole(unet) -> dict[str, nn.Parameter]:
    """All weights of a UNet that has those of a plain one and no others in use, by name."""
    weights = plain_names(unet.named_parameters())
    fused = any("Fused" in type(processor).__name__ for processor in unet.attn_processors.values())
    copies = [name for name in weights if re.search(r"\.to_q?kv\.", name)]  # they stay after unfuse_qkv_projections
    added = [name for name in weights if re.search(r"\.(processor|base_layer)\.", name)] + (copies if fused else [])
    if added:
        raise UserError(
            f"This UNet has weights that no plain one has, such as {added[0]}: unload its adapters, or call"
            " pipe.unet.set_attn_processor(AttnProcessor2_0()), from diffusers.models.attention_processor, first."
        )
    return {name: weight for name, weight in weights.items() if name not in copies}


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    wanted = [(parameter, parameter.requires_grad) for parameter in module.parameters()]
    modes = [(part, part.training) for part in module.modules()]
    module.requires_grad_(False)
    module.eval()
    try:
        yield
    finally:
        for parameter, requires_grad in wanted:
            parameter.requires_grad_(requires_grad)
            parameter.grad = None
        for part, mode in modes:
            part.training = mode


@contextmanager
def _overlaid(trainable: Trainable, dtype: torch.dtype) -> Iterator[None]:
    """The trained rows take the place of the table's wherever one of their tokens is looked up.

    dtype: in which what is looked up goes on, that of the text encoder's other weights.
    """

    def replace_rows(_, args: tuple, looked_up: torch.Tensor) -> torch.Tensor:
        ids = args[0]  # (B, T)
        for token_id, row in zip(trainable.token_ids, trainable.rows):
            looked_up = torch.where((ids == token_id)[..., None], row, looked_up)  # (B, T, dim)
        return looked_up.to(dtype)

    hook = trainable.table.register_forward_hook(replace_rows)
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def _first_token_detached(unet: nn.Module) -> Iterator[None]:
    """Let no gradient through the key and value of the first token.

    The start mark is the same in every prompt and takes most of the attention: what trained on it would change every
    picture.
    """

    def detach_first(_, args: tuple, projected: torch.Tensor) -> torch.Tensor:
        return torch.cat([projected[:, :1].detach(), projected[:, 1:]], dim=1)  # (B, T, channels)

    layers = plain_names(unet.named_modules())
    projections = [layer for name, layer in layers.items() if name.endswith((".attn2.to_k", ".attn2.to_v"))]
    hooks = [layer.register_forward_hook(detach_first) for layer in projections]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
