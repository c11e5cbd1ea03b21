"""What a run learned as files for other programs, each read back by stock diffusers and compared with the run.

README.md                                     what to load and to write in each program, and the licence
diffusers/new1.safetensors, ...               the words, {"<new1>": [dim]}
diffusers/pytorch_lora_weights.safetensors    the changes of the keys and values, in peft's names
diffusers/unet/                               in its place, if the whole UNet trained
webui/embeddings/new1.safetensors, ...        the words for A1111 and ComfyUI: the file's name is the word
webui/Lora/RUN.safetensors                    the changes in kohya's names, with an alpha for each layer
"""

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from diffusers.utils.state_dict_utils import convert_state_dict_to_kohya

from disendiff_lite.adapters import lora_factors
from disendiff_lite.config import Config
from disendiff_lite.models import load_pipeline
from disendiff_lite.runs.folder import model_of_run, read_run
from disendiff_lite.runs.learned import LORA_FILE, embedding_files, load_learned
from disendiff_lite.runs.model_card import Exported, model_card
from disendiff_lite.support.errors import UserError
from disendiff_lite.support.files import check_writable, explaining, read_tensors, write_tensors, write_text
from disendiff_lite.support.quiet import without_warnings

TARGETS = ("diffusers", "webui")
ALL = "all"
SAME = 5e-3  # of the largest output: rounding differs by less, so that more is something else


def export(
    run, out=None, *, to: str = ALL, rank: int | None = None, model: str | None = None, device=None
) -> list[Exported]:
    """Write what a run learned for diffusers, for A1111 and ComfyUI ("webui"), or for all; the files are as above.

    run: folder of a finished run. out: where they go; None is RUN/export. to: one of TARGETS, or "all" that can be.
    rank: of the LoRA, for a smaller file; None keeps it as it is, which loses nothing more.
    model, device: as for load_pipeline; None takes the model that the run names.

    Returns how each kind compares. Raises UserError if the run is not finished or not of this model, a whole UNet is
    wanted for a webui, the files cannot be written, or what was read back is not what was learned.
    """
    run, record = Path(run), read_run(run)
    out, config = Path(run, "export") if out is None else Path(out), Config.load(run / "config.json")
    _check_request(run, to, rank, config.trained)
    model = model_of_run(run, record, model)
    pipe = load_pipeline(model, device)
    load_learned(pipe, run)
    check_writable(out, "free some space or choose another folder")
    expected = _output(pipe, record.prompt)
    name = re.sub(r"[^\w-]+", "-", run.resolve().name).strip("-") or "learned"
    possible = TARGETS[:1] if config.trained == "unet" else TARGETS
    results = []
    for target in possible if to == ALL else (to,):
        factors, lost = _factors(run, rank) if (run / LORA_FILE).exists() else ({}, 0.0)
        words, lora = _places(out / target, target, name, record.modifiers)
        _write_words(pipe, words, target)
        if config.trained == "unet":
            lora = _write_unet(pipe, out / target)
        elif factors:
            write_tensors(lora, factors if target == "diffusers" else _kohya(factors), {"lost": lost})
        else:
            lora = None
        apart = (_output(_read_back(load_pipeline(model, device), words, lora), record.prompt) - expected).abs().max()
        largest = expected.abs().max()
        if rank is None and not apart <= SAME * largest:
            raise UserError(f"What {out / target} holds gives other pictures than {run}: update diffusers and peft.")
        results.append(Exported(target, words, lora, apart.item(), largest.item(), lost))
    write_text(out / "README.md", model_card(name, record, config, model, results, _width(pipe)))
    return results


def _check_request(run: Path, to: str, rank: int | None, trained: str) -> None:
    if to not in (*TARGETS, ALL):
        raise UserError(f"There is no target {to!r}: use one of {', '.join((*TARGETS, ALL))}.")
    if rank is not None and rank < 1:
        raise UserError(f"The rank is {rank}: choose at least 1, or none, which keeps all.")
    if trained == "unet" and (to == "webui" or rank is not None):
        raise UserError(f"{run} trained a whole UNet, which is no LoRA: export it to diffusers, without a rank.")


def _factors(run: Path, rank: int | None) -> tuple[dict[str, torch.Tensor], float]:
    """The LoRA of a run, cut down to a rank, and the share that is lost."""
    factors, _ = read_tensors(run / LORA_FILE)
    downs = {key: factor for key, factor in factors.items() if key.endswith(".lora_A.weight")}
    if rank is None or rank >= max(len(down) for down in downs.values()):
        return factors, 0.0
    changes = {
        key.removeprefix("unet.").replace(".lora_A", ""): factors[key.replace("lora_A", "lora_B")].double()
        @ down.double()
        for key, down in downs.items()
    }
    return lora_factors(changes, rank)


def _kohya(factors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    named = convert_state_dict_to_kohya(dict(factors))
    return {key: tensor.float() if key.endswith(".alpha") else tensor for key, tensor in named.items()}


def _places(folder: Path, target: str, name: str, modifiers) -> tuple[dict[str, Path], Path]:
    """Where the words and the LoRA go."""
    files = embedding_files(modifiers)
    if target == "diffusers":
        return {word: folder / file for word, file in files.items()}, folder / LORA_FILE
    return {word: folder / "embeddings" / file for word, file in files.items()}, folder / "Lora" / f"{name}.safetensors"


def _write_words(pipe: StableDiffusionPipeline, words: Mapping[str, Path], target: str) -> None:
    table = pipe.text_encoder.get_input_embeddings().weight
    for word, path in words.items():
        row = table[pipe.tokenizer.convert_tokens_to_ids(word)].detach().float()  # (dim,)
        write_tensors(path, {word: row.clone()} if target == "diffusers" else {"emb_params": row[None].clone()}, {})


def _write_unet(pipe: StableDiffusionPipeline, folder: Path) -> Path:
    """The whole UNet as diffusers writes it, under another name until it is complete."""
    place, temporary = folder / "unet", folder / ".unet.tmp"
    with explaining(place, "free some space or choose another folder"):
        pipe.unet.save_pretrained(temporary)
        shutil.rmtree(place, ignore_errors=True)
        temporary.rename(place)
    return place


def _read_back(pipe: StableDiffusionPipeline, words: Mapping[str, Path], lora: Path | None) -> StableDiffusionPipeline:
    with without_warnings(), torch.random.fork_rng():  # diffusers draws the new rows before it fills them
        for word, path in words.items():
            pipe.load_textual_inversion(str(path.parent), weight_name=path.name, token=word)
        if lora is not None and lora.is_dir():
            pipe.unet = UNet2DConditionModel.from_pretrained(lora).to(pipe.device)
        elif lora is not None:
            pipe.load_lora_weights(lora.parent, weight_name=lora.name)
    return pipe


def _width(pipe: StableDiffusionPipeline) -> int:
    return pipe.text_encoder.get_input_embeddings().weight.shape[1]


@torch.no_grad()
def _output(pipe: StableDiffusionPipeline, prompt: str) -> torch.Tensor:
    """What the UNet predicts for fixed noise halfway through, and a prompt: (1, C, h, w)."""
    side = pipe.unet.config.sample_size
    latents = torch.randn(1, pipe.unet.config.in_channels, side, side, generator=torch.Generator().manual_seed(0))
    text, _ = pipe.encode_prompt(prompt, pipe.device, 1, False)
    middle = pipe.scheduler.config.num_train_timesteps // 2
    return pipe.unet(latents.to(pipe.device), torch.tensor(middle, device=pipe.device), text).sample
