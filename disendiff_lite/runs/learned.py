"""What was learned, as safetensors that stock diffusers loads: an embedding a token, and the changes of the UNet.

    new1.safetensors, ...                  {"<new1>": [dim]}, for pipe.load_textual_inversion
    pytorch_lora_weights.safetensors       the changes of the projections as a LoRA, for pipe.load_lora_weights
    unet_weights.safetensors               if the whole UNet trained: every tensor that changed, as it is now

Each file's header names the model that it belongs to. What a LoRA's factors are: adapters.lora_factors.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline

from disendiff_lite.adapters import adapter_factors, lora_factors
from disendiff_lite.config import Config
from disendiff_lite.models import cross_attention_weights, model_fingerprint, same_model
from disendiff_lite.runs.folder import CHECKPOINT, RunRecord, read_run
from disendiff_lite.support.errors import UserError, check_name
from disendiff_lite.support.files import file_key, read_tensors, write_tensors
from disendiff_lite.support.modules import beneath_adapters, plain_names
from disendiff_lite.tokens import MODIFIER, add_modifiers

LORA_FILE = "pytorch_lora_weights.safetensors"
UNET_FILE = "unet_weights.safetensors"
LONGEST_NAME = 120  # bytes of a file's name; some disks take no more than 143, and a temporary one has five more
LOADED = "_disendiff_loaded"  # on a UNet: its fingerprint without what was loaded into it, and with it
WINDOWS_DEVICE = re.compile(r"(con|prn|aux|nul|(com|lpt)[0-9¹²³])\.safetensors")


def save_learned(
    folder, pipe: StableDiffusionPipeline, base: Mapping[str, torch.Tensor], modifiers: Sequence[str], config: Config
) -> list[Path]:
    """Write what a pipeline learned.

    pipe: the pipeline as trained, with the adapters that trained. base: the UNet's trained tensors from before the
        training, by name, on the CPU.
    modifiers: the new words. config: gives `trained` and `saved_rank`.

    Returns the files written. If the rank is not full, prints how much of the changes it loses. Raises UserError as
    embedding_files does.
    """
    folder = Path(folder)
    header = {"model": model_fingerprint(pipe.unet, base)}
    files = []
    table = pipe.text_encoder.get_input_embeddings().weight
    for modifier, name in embedding_files(modifiers).items():
        row = table[pipe.tokenizer.convert_tokens_to_ids(modifier)]  # (dim,)
        files.append(folder / name)
        write_tensors(files[-1], {modifier: row.float().clone()}, header)
    weights = plain_names(pipe.unet.named_parameters())
    trained = {name: weight.detach().cpu() for name, weight in weights.items() if name in base}
    if config.trained == "unet":
        changed = {name: weight for name, weight in trained.items() if not torch.equal(weight, base[name])}
        files.append(folder / UNET_FILE)
        write_tensors(files[-1], changed, header)
    elif config.trained == "lora":
        files.append(folder / LORA_FILE)
        write_tensors(files[-1], adapter_factors(pipe.unet), {**header, "lost": 0.0})
    elif trained:
        changes = {name: weight.double() - base[name].double() for name, weight in trained.items()}
        factors, lost = lora_factors(changes, config.saved_rank)
        files.append(folder / LORA_FILE)
        write_tensors(files[-1], factors, {**header, "lost": lost})
        if config.saved_rank and lost > 1e-5:
            print(f"Saved at rank {config.saved_rank}: {lost:.2%} of the changes is lost (saved_rank 0 keeps all).")
    return files


def load_learned(
    pipe: StableDiffusionPipeline, folder, *, any_model: bool = False, rename: Mapping[str, str] | None = None
) -> RunRecord:
    """Put what a run learned on a pipeline, in place: the new words, their embeddings, and the changes of the UNet.

    The changes are added to the weights themselves, so that sampling costs no more than before. Several runs can be
    loaded one after the other, each with words of its own: the changes of the keys and values are summed, whichever
    came first. A run that trained the whole UNet has its weights, and no changes that could be added: it comes first.

    pipe: the base model that the run began with, loaded afresh or with other runs of it, in any precision; with
        `any_model` another one whose layers have the same shapes, such as its inpainting sister. LoRA adapters may lie
        on it.
    folder: of the run. rename: other words for the run's own, such as {"<new1>": "<new3>"}.

    Returns the run's record (classes, modifiers, prompt), with the words as they are now. Raises UserError if the run
    is not finished, a file is missing, truncated or made for another model, the pipeline has the words already, or its
    UNet has processors that what was learned would not reach; the pipeline is then as it was.
    """
    folder = Path(folder)
    record = read_run(folder)
    if not record.finished:
        raise UserError(f"The run in {folder} is not finished: start it again, it goes on from its last checkpoint.")
    config = Config.load(folder / "config.json")
    rows = [_read_embedding(pipe, folder, modifier) for modifier in record.modifiers]
    weights = _read_unet_weights(pipe, folder, config.trained)
    found = model_fingerprint(pipe.unet)
    base, now = getattr(pipe.unet, LOADED, (found, found))
    base = base if now == found else found  # else something else changed it meanwhile
    # A run that was trained on top of another belongs to the model with that other one in it, which is `found`.
    on_top = same_model(pipe.unet, record.model, found)
    if not (any_model or on_top or same_model(pipe.unet, record.model, base)):
        raise UserError(
            f"What {folder} holds was learned on another model than the one loaded: load that one afresh, or allow"
            " any_model."
        )
    if config.trained == "unet" and base != found and not on_top:
        raise UserError(f"{folder} holds a whole UNet, which would undo what was loaded before it: load it first.")
    record = _renamed(record, rename or {}, pipe.tokenizer, folder)
    token_ids = add_modifiers(pipe, record.modifiers, config.initial_tokens)
    table = pipe.text_encoder.get_input_embeddings().weight
    parameters = beneath_adapters(plain_names(pipe.unet.named_parameters()))
    with torch.no_grad():
        table[token_ids] = torch.stack(rows).to(table)
        for name, weight in weights.items():
            parameters[name].copy_(weight)
    setattr(pipe.unet, LOADED, (base, model_fingerprint(pipe.unet)))
    return record


def embedding_file(modifier: str) -> str:
    """The name of a token's file: "new1.safetensors" for "<new1>"; web interfaces take it as the word."""
    return re.sub(r"[^\w-]", "", modifier) + ".safetensors"


def embedding_files(modifiers: Sequence[str]) -> dict[str, str]:
    """The names of the tokens' files by token, each a name of its own on every kind of disk.

    Raises UserError if a token has no name for a file, or one that another token, the run or Windows has already.
    """
    files, owners = {}, {}
    for modifier in modifiers:
        files[modifier] = name = embedding_file(modifier)
        other = owners.setdefault(file_key(name), modifier)
        trouble = _file_trouble(name) or (other != modifier and f"would share the file {name} with {other}")
        if trouble:
            raise UserError(f"The modifier {modifier[:60]} {trouble}: choose another, such as <new9>.")
    return files


def _file_trouble(name: str) -> str | None:
    """Why no token can have a file of this name, None if one can."""
    key = file_key(name)
    if key == ".safetensors":
        return "has no letter or digit that could name its file"
    if len(name.encode()) > LONGEST_NAME:
        return "is too long for the name of a file"
    if key in (CHECKPOINT, LORA_FILE, UNET_FILE):
        return f"would have the file {name}, which the run needs for something else"
    if WINDOWS_DEVICE.fullmatch(key):
        return f"would have the file {name}, which Windows does not allow"
    return None


def _renamed(record: RunRecord, rename: Mapping[str, str], tokenizer, folder: Path) -> RunRecord:
    """The record with other words; UserError if it has no such word, or the model has one of the new ones already."""
    for old in rename:
        check_name(old, record.modifiers, f"word of {folder}")
    modifiers = tuple(rename.get(modifier, modifier) for modifier in record.modifiers)
    taken = {word.lower() for word in tokenizer.get_added_vocab()}  # CLIP's tokenizer folds the case
    for old, new in zip(record.modifiers, modifiers):
        if new.lower() in taken:
            free = next(f"<new{n}>" for n in count(1) if f"<new{n}>" not in taken | {*modifiers, *record.modifiers})
            raise UserError(
                f"{new}, a word of {folder}, is already a word of this model: load it under another, with"
                f" rename={{'{old}': '{free}'}} or --rename '{old}={free}'."
            )
    prompt = MODIFIER.sub(lambda word: rename.get(word[0], word[0]), record.prompt)
    return dataclasses.replace(record, modifiers=modifiers, prompt=prompt)


def _read_embedding(pipe, folder: Path, modifier: str) -> torch.Tensor:
    path = folder / embedding_file(modifier)
    tensors, _ = read_tensors(path)
    if list(tensors) != [modifier]:
        raise UserError(
            f"{path} holds {', '.join(tensors) or 'nothing'} instead of {modifier}: train or copy it again."
        )
    have, need = tuple(tensors[modifier].shape), (pipe.text_encoder.get_input_embeddings().weight.shape[1],)
    if have != need:
        raise UserError(f"{path} was made for another model: it has shape {have} and this text encoder needs {need}.")
    return tensors[modifier]


def _read_unet_weights(pipe, folder: Path, trained: str) -> dict[str, torch.Tensor]:
    """The UNet's weights after the change, by name, float32."""
    if trained == "none":
        return {}
    for name, processor in pipe.unet.attn_processors.items():
        if "Fused" in type(processor).__name__ or hasattr(processor, "to_k_custom_diffusion"):
            raise UserError(
                f"{type(processor).__name__}, the processor of {name}, has keys and values of its own, which {folder}"
                " would not change: call pipe.unet.set_attn_processor(AttnProcessor2_0()), from"
                " diffusers.models.attention_processor, first."
            )
    parameters = beneath_adapters(plain_names(pipe.unet.named_parameters()))
    if trained == "unet":
        tensors, _ = read_tensors(folder / UNET_FILE)
        for name, tensor in tensors.items():
            _check_fits(folder / UNET_FILE, name, tuple(tensor.shape), parameters)
        return tensors
    factors, _ = read_tensors(folder / LORA_FILE)
    parameters, weights = cross_attention_weights(pipe.unet, trained, wrapped=True), {}
    for key in (key for key in factors if key.endswith(".lora_A.weight")):
        name = key.removeprefix("unet.").replace(".lora_A.weight", ".weight")
        down, up = factors[key], factors.get(key.replace("lora_A", "lora_B"))
        if up is None or up.shape[1] != len(down):
            raise UserError(f"{folder / LORA_FILE} lacks the second half of {name}: train or copy it again.")
        _check_fits(folder / LORA_FILE, name, (up.shape[0], down.shape[1]), parameters)
        base = parameters[name].detach()
        weights[name] = base.float() + (up.double() @ down.double()).to(base.device, torch.float32)
    missing = set(parameters) - set(weights)
    if missing:
        raise UserError(f"{folder / LORA_FILE} was made for another model: it has nothing for {min(missing)}.")
    return weights


def _check_fits(path: Path, name: str, shape: tuple[int, ...], parameters: Mapping[str, torch.Tensor]) -> None:
    if name not in parameters:
        raise UserError(f"{path} was made for another model: this one has no {name}; load the one it was learned on.")
    have = tuple(parameters[name].shape)
    if have != shape:
        raise UserError(f"{path} was made for another model: {name} is {shape} there and {have} here; load that model.")
