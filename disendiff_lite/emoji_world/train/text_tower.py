"""Train a text encoder as Stable Diffusion's was trained: contrastively, against the embeddings of pictures.

    python -m disendiff_lite.emoji_world.train.text_tower --layers 4 --work FOLDER --out FOLDER

Each caption of a batch has to be told from the others by the embedding of its picture, which the frozen scorer gives
(CLIP, Radford et al. 2021). Nothing in this says that a token's state should stay with its word: through several layers
of causal attention each one takes in what stands before it. The UNet must then find out by itself which words are about
which object, and does so less well than beside an encoder that it trained together with. The encoder is frozen from
here on, so the folder that is written, the shipped model with the new encoder in it, is a start for
`pretrain --start FOLDER --forget to_q to_k to_v --frozen-text --grounding 0`.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from torch import nn
from torch.nn import functional as F
from transformers import CLIPTextModel

from disendiff_lite.emoji_world.draw.dataset import Scenes, load_scenes
from disendiff_lite.emoji_world.train.architecture import new_text_encoder
from disendiff_lite.emoji_world.train.pretrain import export
from disendiff_lite.emoji_world.train.rare_words import RARE_WORD, UsedRows
from disendiff_lite.evaluate.clip import load_scorer
from disendiff_lite.single_file import assemble
from disendiff_lite.support.errors import run_main
from disendiff_lite.support.paths import EMBEDDED_MODEL

HELD_BACK = 1000  # captions that are not trained on, to tell apart at the end
SCALE = 2.6  # log of the factor of the cosines at the start, as in CLIP
WARMUP = 100  # steps


@torch.no_grad()
def picture_embeddings(scenes: Scenes, device: str) -> torch.Tensor:
    """The scorer's embeddings of scenes, float32 (N, dim) of unit length, on the device."""
    scorer, rows = load_scorer("emoji", device), []
    for start in range(0, len(scenes), 256):
        x = torch.from_numpy(scenes.pictures[start : start + 256]).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1
        rows.append(F.normalize(scorer.model.encode_image(x), dim=1))
    return torch.cat(rows)


def train_text_tower(
    scenes: Scenes, tokenizer, layers: int, *, steps: int, batch: int, learning_rate: float, device: str
) -> tuple[CLIPTextModel, float]:
    """Train a text encoder of so many layers; returns it, in float32 on the CPU, and the share of captions that were
    not trained on whose picture is the nearest among those of a batch.
    """
    pictures = picture_embeddings(scenes, device)
    ids = tokenizer(scenes.captions, padding="max_length", truncation=True, return_tensors="pt").input_ids  # (N, 77)
    encoder = new_text_encoder(layers)
    empty = tokenizer([""], padding="max_length", return_tensors="pt").input_ids
    rows = UsedRows(encoder, torch.cat([ids, empty]), tokenizer.convert_tokens_to_ids(RARE_WORD))
    ends = (ids == tokenizer.eos_token_id).int().argmax(dim=1)  # (N,), where the first end stands
    longest = int(ends.max()) + 1
    compact, ends = rows.compact[ids][:, :longest].to(device), ends.to(device)
    model = nn.ModuleDict({"text": encoder, "projection": nn.Linear(encoder.config.hidden_size, pictures.shape[1])})
    model.to(device).train()
    scale = nn.Parameter(torch.tensor(SCALE, device=device))
    optimiser = torch.optim.AdamW([*model.parameters(), scale], learning_rate, betas=(0.9, 0.98), weight_decay=0.05)

    def cosines(chosen: torch.Tensor) -> torch.Tensor:
        states = encoder(compact[chosen])[0]  # (B, longest, dim)
        own = model["projection"](states[torch.arange(len(chosen), device=device), ends[chosen]])
        return F.normalize(own, dim=1) @ pictures[chosen].T  # (B, B)

    right, started = torch.arange(batch, device=device), time.perf_counter()
    for step in range(steps):
        fall = 0.03 + 0.97 * float(np.cos(np.pi / 2 * step / steps)) ** 2
        optimiser.param_groups[0]["lr"] = learning_rate * min(1, (step + 1) / WARMUP) * fall
        logits = scale.exp().clamp_max(100) * cosines(torch.randint(len(ids) - HELD_BACK, (batch,)).to(device))
        loss = (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 2
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if (step + 1) % 100 == 0:
            seconds = time.perf_counter() - started
            print(f"text step {step + 1}/{steps}  loss {loss.item():.3f}  {seconds:.0f} s", flush=True)
    with torch.no_grad():
        unseen = torch.arange(len(ids) - HELD_BACK, len(ids), device=device).split(batch)[:-1]
        found = [(cosines(part).argmax(dim=1) == right).float().mean().item() for part in unseen]
    encoder.cpu().eval()
    rows.full.cpu()
    rows.restore()
    return encoder, float(np.mean(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("runs/pretrain"), help="holds scenes (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="where the model goes (default: WORK/text-tower)")
    parser.add_argument("--layers", type=int, default=4, help="of the encoder (default: %(default)s)")
    parser.add_argument("--scenes", type=int, default=60_000, help="different scenes to draw (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=600, help="(default: %(default)s)")
    parser.add_argument("--batch", type=int, default=128, help="captions of one step (default: %(default)s)")
    parser.add_argument("--learning-rate", type=float, default=8e-4, help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    scenes = load_scenes(options.work / "scenes", options.scenes)
    pipe = StableDiffusionPipeline.from_pretrained(EMBEDDED_MODEL, safety_checker=None)
    encoder, found = train_text_tower(
        scenes,
        pipe.tokenizer,
        options.layers,
        steps=options.steps,
        batch=options.batch,
        learning_rate=options.learning_rate,
        device=options.device,
    )
    print(f"unseen captions whose picture is the nearest of {options.batch}: {found:.1%}")
    export(assemble(pipe.vae, encoder, pipe.unet), options.out or options.work / "text-tower")


if __name__ == "__main__":
    run_main(main)
