"""What the UNet is trained on: encoded scenes, tokenized captions, masks, and where the class words stand."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, save_file

from disendiff_lite.emoji_world.draw.dataset import Scenes


@dataclass
class TrainingSet:
    """Everything a step needs, row by row."""

    latents: torch.Tensor  # float16 (N, 4, 16, 16)
    ids: torch.Tensor  # (N, 77), tokens
    masks: torch.Tensor  # uint8 (N, 3, 16, 16)
    positions: torch.Tensor  # (N, 3), of the class words in the caption, 0 where there is no such object


def class_positions(tokenizer, ids: torch.Tensor, classes: list[list[str]]) -> torch.Tensor:
    """Positions of each scene's class words in its caption, int64 (N, 3); 0 fills up. Every class word is one token."""
    token_of = {word: tokenizer(word, add_special_tokens=False).input_ids[0] for words in classes for word in words}
    positions = torch.zeros(len(ids), 3, dtype=torch.long)
    for row, words in enumerate(classes):
        for column, word in enumerate(words):
            positions[row, column] = int((ids[row] == token_of[word]).nonzero()[0, 0])
    return positions


def training_set(pipe: StableDiffusionPipeline, scenes: Scenes, device: str, cache: Path | None = None) -> TrainingSet:
    """Encode scenes and captions once. cache: folder where the latents are kept, apart for each autoencoder."""
    vae = pipe.vae.to(device, memory_format=torch.channels_last).eval()
    ids = pipe.tokenizer(scenes.captions, padding="max_length", truncation=True, return_tensors="pt").input_ids
    positions = class_positions(pipe.tokenizer, ids, scenes.classes)
    digest = hashlib.sha256(f"{vae.config.scaling_factor} {scenes.captions}".encode())
    for value in vae.state_dict().values():
        digest.update(value.cpu().contiguous().numpy().tobytes())
    kept = cache / f"latents-{digest.hexdigest()[:12]}.safetensors" if cache else None
    if kept and kept.exists():
        return TrainingSet(load_file(kept)["latents"], ids, torch.from_numpy(scenes.masks), positions)

    def encode(x: torch.Tensor) -> torch.Tensor:
        return vae.encode(x).latent_dist.mode() * vae.config.scaling_factor

    if torch.device(device).type == "cpu":
        encode = torch.compile(encode)
    rows = []
    with torch.no_grad():
        for start in range(0, len(scenes), 96):
            x = torch.from_numpy(scenes.pictures[start : start + 96]).permute(0, 3, 1, 2)  # (B, 3, 64, 64)
            x = x.to(device, torch.float32, memory_format=torch.channels_last) / 127.5 - 1
            rows.append(encode(x).half().cpu())
    latents = torch.cat(rows)
    if kept:
        save_file({"latents": latents.contiguous()}, kept)
    return TrainingSet(latents, ids, torch.from_numpy(scenes.masks), positions)


def latent_scale(pipe: StableDiffusionPipeline, scenes: Scenes, device: str) -> float:
    """The factor that gives latents unit standard deviation, as the noise schedule expects."""
    pipe.vae.register_to_config(scaling_factor=1.0)
    return 1 / float(training_set(pipe, scenes, device).latents.float().std())
