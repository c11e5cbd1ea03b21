"""LoRA adapters: low-rank changes beside the keys and values that train, and LoRAs that somebody else trained.

An adapter leaves a weight W as it is and adds to its output: W x + scale B (A x), with A (rank, in) and B (out, rank).
"""

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils import convert_state_dict_to_diffusers, convert_state_dict_to_peft, get_peft_kwargs
from peft import LoraConfig, inject_adapter_in_model, set_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from disendiff_lite.config import Config
from disendiff_lite.models import cross_attention_weights
from disendiff_lite.support.errors import UserError, first_line
from disendiff_lite.support.files import read_tensors
from disendiff_lite.support.modules import plain_names
from disendiff_lite.support.quiet import without_warnings

ADAPTER = "disendiff"  # the name of the adapters that train
FIRST_FACTOR = re.compile(r"(lora_A|down)\.weight$")  # what each layer of a LoRA has one of, in diffusers' and kohya's


@contextmanager
def adapted(unet, config: Config) -> Iterator[dict[str, nn.Parameter]]:
    """Lay adapters over the keys and values of every cross-attention layer while the `with` block runs.

    unet: without adapters. config: gives `lora_rank`, `lora_alpha`, and the `seed` from which A is drawn; B begins
        with zeros, so that nothing changes at first.

    Yields the adapters' weights by name, float32. Afterwards they are added to the weights beneath, so that the UNet is
    a plain one again and keeps what it learned. Raises UserError if torch.compile compiled one of the projections by
    itself, which would then run without its adapter.
    """
    wanted = {name.removesuffix(".weight") for name in cross_attention_weights(unet)}
    linear = [name for name, module in unet.named_modules() if isinstance(module, nn.Linear)]
    targets = [name for name in linear if set(plain_names([(name, None)])) & wanted]
    if compiled := [name for name in targets if name.endswith("._orig_mod")]:
        raise UserError(f"{compiled[0]} was compiled by itself, without its adapter: load the model afresh for a LoRA.")
    wanted_gradients = [(weight, weight.requires_grad) for weight in unet.parameters()]
    with torch.random.fork_rng(devices=[]):  # peft draws on the CPU
        torch.manual_seed(config.seed)
        adapter = LoraConfig(r=config.lora_rank, lora_alpha=config.lora_alpha, target_modules=targets)
        unet.add_adapter(adapter, adapter_name=ADAPTER)
    try:
        for weight in (weights := _own_weights(unet)).values():
            weight.data = weight.data.float()
        yield weights
    finally:
        unet.fuse_lora(adapter_names=[ADAPTER])
        unet.unload_lora()
        for weight, requires_grad in wanted_gradients:
            weight.requires_grad_(requires_grad)


def adapter_factors(unet) -> dict[str, torch.Tensor]:
    """The factors that the adapters of `adapted` hold now, under the names that diffusers reads, all of one rank.

    lora_alpha / rank is multiplied into B: a file without an alpha is read as if they were equal.
    """
    scales = {
        name: module.scaling[ADAPTER]
        for name, module in plain_names(unet.named_modules()).items()
        if isinstance(module, BaseTunerLayer)
    }
    factors = {}
    for name, weight in _own_weights(unet).items():
        module, _, factor = name.removesuffix(f".{ADAPTER}.weight").rpartition(".")
        scale = scales[module] if factor == "lora_B" else 1.0
        factors[f"unet.{module}.{factor}.weight"] = weight.detach().cpu().float() * scale
    return factors


def lora_factors(changes: Mapping[str, torch.Tensor], rank: int = 0) -> tuple[dict[str, torch.Tensor], float]:
    """Low-rank factors of weight changes, under the names that diffusers reads, all of one rank.

    A change D = trained - base of a projection (out, in) becomes two factors by its singular value decomposition D = U
    S V': lora_B = U sqrt(S) (out, rank) and lora_A = sqrt(S) V' (rank, in). At full rank nothing is lost; below, the
    smallest singular values are dropped, which is the best that this rank allows.

    changes: name of a UNet weight -> its change (out, in). rank: how many singular values are kept; 0, or more than
        there are, keeps all. Layers that have fewer are filled up with zeros: programs that load LoRAs expect one rank
        in a file.

    Returns the factors, float32, and the share of the changes that is lost, ||D - B A|| / ||D|| over all layers, in [0,
    1].
    """
    full = max(min(change.shape) for change in changes.values())
    rank = min(rank or full, full)
    factors, lost, total = {}, 0.0, 0.0
    for name, change in changes.items():
        left, values, right = torch.linalg.svd(change.double(), full_matrices=False)  # (out, r), (r,), (r, in)
        root = values[:rank].sqrt()
        up = torch.zeros(change.shape[0], rank)
        down = torch.zeros(rank, change.shape[1])
        up[:, : len(root)] = (left[:, :rank] * root).float()
        down[: len(root)] = (root[:, None] * right[:rank]).float()
        module = name.removesuffix(".weight")
        factors[f"unet.{module}.lora_A.weight"] = down
        factors[f"unet.{module}.lora_B.weight"] = up
        lost += values[rank:].square().sum().item()
        total += values.square().sum().item()
    return factors, math.sqrt(lost / total) if total else 0.0


def adapter_size(unet, config: Config) -> int:
    """Bytes of the adapters' weights."""
    return sum(4 * config.lora_rank * sum(weight.shape) for weight in cross_attention_weights(unet).values())


@contextmanager
def use_lora(pipe: StableDiffusionPipeline, file, scale: float = 1.0) -> Iterator[None]:
    """Draw with a LoRA that somebody else trained, such as a style, while the `with` block runs (the paper's Fig. 8).

        with dd.use_lora(pipe, "pencil.safetensors", 0.8):
            dd.generate(pipe, "a <new1> cat", config=config)

    It lies beside the weights, in the UNet and in the text encoder: what a run learned can be loaded before or in the
    block, and both add up in either order. Blocks can be nested. Afterwards every output is what it would be without.

    file: safetensors, as diffusers and peft write them, or kohya's, as web interfaces use them. scale: by which its
        changes are multiplied; 0 is without it.

    Raises UserError if the file is missing, damaged or no LoRA of this model; the pipeline is then as it was.
    """
    if not math.isfinite(scale):
        raise UserError(f"The LoRA's scale is {scale}: give a finite number, such as 0.8.")
    path = Path(file).expanduser()
    tensors, _ = read_tensors(path)
    parts = (pipe.unet, pipe.text_encoder)
    gradients = [(weight, weight.requires_grad) for part in parts for weight in part.parameters()]
    active = {layer: list(layer.active_adapters) for layer in _layers(pipe)}
    name = next(name for name in (f"lora{n}" for n in count(1)) if not any(_has(layer, name) for layer in active))
    try:
        _load(pipe, path, len([key for key in tensors if FIRST_FACTOR.search(key)]), name)
        for layer in _layers(pipe):
            if _has(layer, name):
                layer.set_adapter([*active.get(layer, ()), name])
                layer.set_scale(name, scale)
        for part in parts:
            part.requires_grad_(False)
        yield
    finally:
        for layer, names in active.items():
            layer.set_adapter([known for known in names if _has(layer, known)])
        for part in parts:
            _remove(part, name)
        for weight, requires_grad in gradients:
            weight.requires_grad_(requires_grad)


def _load(pipe, path: Path, layers: int, name: str) -> None:
    """Lay the adapters of a file over the pipeline's parts; UserError unless they are as many as it has layers."""
    if not layers:
        raise UserError(f"{path} holds no LoRA: choose another file.")
    options = {"weight_name": path.name, "local_files_only": True, "return_lora_metadata": True}
    try:
        with without_warnings():
            factors, alphas, metadata = pipe.lora_state_dict(path.parent, **options)
            pipe.load_lora_into_unet(factors, alphas, pipe.unet, adapter_name=name, metadata=metadata)
            _load_into_text(pipe.text_encoder, factors, alphas or {}, metadata or {}, name)
    except Exception as error:  # diffusers, peft and torch each have their own
        raise UserError(f"{path} is no LoRA for this model ({first_line(error)}): choose one made for it.") from error
    laid = sum(_has(layer, name) for layer in _layers(pipe))
    if laid < layers:
        raise UserError(f"This model has {laid} of the {layers} layers of the LoRA {path}: choose one made for it.")


def _load_into_text(
    text_encoder, factors: Mapping[str, torch.Tensor], alphas: Mapping[str, float], metadata: Mapping, name: str
) -> None:
    # By peft itself: transformers 5.24 refuses to do it with peft 0.21.
    factors, alphas, metadata = (
        {key.removeprefix("text_encoder."): value for key, value in kept.items() if key.startswith("text_encoder.")}
        for kept in (factors, alphas, metadata)
    )
    if not factors:
        return
    factors = convert_state_dict_to_peft(convert_state_dict_to_diffusers(factors))
    ranks = {key: factor.shape[1] for key, factor in factors.items() if key.endswith("lora_B.weight")}
    settings = metadata or get_peft_kwargs(ranks, alphas, factors, is_unet=False)
    if not hasattr(text_encoder, "text_model"):  # newer transformers have the layers without it
        factors = {key.removeprefix("text_model."): factor for key, factor in factors.items()}
        for part in ("rank_pattern", "alpha_pattern"):
            own = settings.get(part, {}).items()
            settings = {**settings, part: {key.removeprefix("text_model."): value for key, value in own}}
    config = LoraConfig(**{**settings, "target_modules": sorted({key.rsplit(".", 2)[0] for key in factors})})
    inject_adapter_in_model(config, text_encoder, adapter_name=name, state_dict=factors)
    set_peft_model_state_dict(text_encoder, factors, name)


def _remove(part: nn.Module, name: str) -> None:
    """Take an adapter off a part of the pipeline, and what wraps its layers if no other adapter needs that."""
    for path, layer in list(part.named_modules()):
        if isinstance(layer, BaseTunerLayer):
            if _has(layer, name):
                layer.delete_adapter(name)
            if not any(getattr(layer, kind) for kind in layer.adapter_layer_names):
                parent, _, child = path.rpartition(".")
                setattr(part.get_submodule(parent), child, layer.get_base_layer())
    configs = getattr(part, "peft_config", {})
    configs.pop(name, None)
    if not configs and hasattr(part, "peft_config"):
        del part.peft_config
        part._hf_peft_config_loaded = False  # read by diffusers and transformers


def adapters_in_use(pipe) -> list[tuple[str, float | None]]:
    """Name and scale of each adapter that adds to what the pipeline's parts give, layer by layer: no weight says them.

    The scale is None for adapters of a kind that has none.
    """
    used = [layer for layer in _layers(pipe) if not layer.disable_adapters]
    return [(name, getattr(layer, "scaling", {}).get(name)) for layer in used for name in layer.active_adapters]


def _layers(pipe) -> list[BaseTunerLayer]:
    parts = (pipe.unet, pipe.text_encoder)
    return [layer for part in parts for layer in part.modules() if isinstance(layer, BaseTunerLayer)]


def _has(layer: BaseTunerLayer, name: str) -> bool:
    return any(name in getattr(layer, kind) for kind in layer.adapter_layer_names)


def _own_weights(unet) -> dict[str, nn.Parameter]:
    weights = plain_names(unet.named_parameters())
    return {name: weight for name, weight in weights.items() if name.endswith(f".{ADAPTER}.weight")}
