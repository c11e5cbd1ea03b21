"""Make a style LoRA of the embedded model, as communities share them: plain captions, and pictures all in one style.

    python -m disendiff_lite.emoji_world.train.style_lora --style neon --out neon.safetensors

The captions never name the style, so whatever is drawn with the LoRA gets it. It is trained apart from every concept,
and takes about two minutes on one core.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from PIL import Image, ImageFilter
from torch.nn import functional as F

from disendiff_lite.emoji_world.draw.scenes import STYLES, describe_scene, render, stylise
from disendiff_lite.models import load_pipeline
from disendiff_lite.sampling import make_noiser
from disendiff_lite.support.errors import UserError, check_name, run_main
from disendiff_lite.support.files import check_writable, write_tensors
from disendiff_lite.support.images import to_tensor
from disendiff_lite.support.progress import progress

LAYERS = r".*\.(to_q|to_k|to_v|to_out\.0|proj_in|proj_out|ff\.net\.0\.proj|ff\.net\.2|conv1|conv2|conv_out)"
SCENES = 300  # drawn once
STEPS = 500
NEON = "neon"  # outlines that glow in the colours of the things, on near black: no caption of the world names it
CHOICES = (NEON, *STYLES)


def in_style(picture: np.ndarray, style: str) -> np.ndarray:
    """A picture, uint8 (h, w, 3), in one of CHOICES."""
    if style != NEON:
        return stylise(picture, style)
    grey = Image.fromarray(picture).convert("L")
    thick = [np.asarray(grey.filter(kind(3)), np.float32) for kind in (ImageFilter.MaxFilter, ImageFilter.MinFilter)]
    edges = ((thick[0] - thick[1]) / 90).clip(0, 1)[..., None]  # (h, w, 1)
    colours = picture.astype(np.float32)
    vivid = 255 * (colours / colours.max(axis=-1, keepdims=True).clip(1)) ** 1.5
    return (np.array([12, 6, 32]) * (1 - edges) + vivid * edges).clip(0, 255).astype(np.uint8)


def style_scenes(style: str, count: int, seed: int) -> tuple[list[Image.Image], list[str]]:
    """Random scenes of the emoji world in a style, and captions that do not name it."""
    rng, pictures, captions = np.random.default_rng([8, seed]), [], []
    while len(pictures) < count:
        scene = describe_scene(rng)
        if not scene.style:
            pictures.append(Image.fromarray(in_style(render(scene, rng).picture, style)))
            captions.append(scene.caption)
    return pictures, captions


def train_style(
    pipe: StableDiffusionPipeline,
    style: str,
    *,
    steps: int,
    rank: int = 8,
    batch: int = 4,
    learning_rate: float = 6e-3,
    seed: int = 0,
) -> Iterator[float]:
    """Lay adapters over the UNet and train them on scenes in a style; yields the error of each step's batch."""
    pictures, captions = style_scenes(style, SCENES, seed)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        pipe.unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=LAYERS))
        pixels = torch.stack([to_tensor(picture) for picture in pictures]).to(pipe.device)  # (N, 3, 64, 64)
        latents = torch.cat([pipe.vae.encode(part).latent_dist.mode() for part in pixels.split(32)])
        latents = latents * pipe.vae.config.scaling_factor  # (N, 4, 16, 16)
        text = torch.cat([pipe.encode_prompt([caption], pipe.device, 1, False)[0] for caption in captions])
    weights = [weight for weight in pipe.unet.parameters() if weight.requires_grad]
    optimizer, noiser = torch.optim.AdamW(weights, learning_rate), make_noiser(pipe)
    generator = torch.Generator().manual_seed(seed)
    for step in range(steps):
        chosen = torch.randint(0, SCENES, (batch,), generator=generator)
        share = torch.rand(batch, generator=generator).sqrt()  # more of the high noise, where a style is decided
        times = (share * noiser.config.num_train_timesteps).long().to(pipe.device)
        noise = torch.randn(batch, *latents.shape[1:], generator=generator).to(pipe.device)
        predicted = pipe.unet(noiser.add_noise(latents[chosen], noise, times), times, text[chosen]).sample
        error = F.mse_loss(predicted, noise)
        optimizer.param_groups[0]["lr"] = learning_rate * (1 + np.cos(np.pi * step / steps)) / 2
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        yield error.item()


def style_factors(pipe: StableDiffusionPipeline) -> dict[str, torch.Tensor]:
    """The adapters of train_style, under the names that diffusers reads."""
    return {f"unet.{name}": factor for name, factor in get_peft_model_state_dict(pipe.unet).items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--style", default=NEON, help=f"{', '.join(CHOICES)} (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=STEPS, help="batches of 4 pictures (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the scenes and of the training (default: 0)")
    parser.add_argument("--model", default="emoji", help="short name or diffusers folder (default: %(default)s)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where it is written (default: STYLE.safetensors)")
    options = parser.parse_args()
    check_name(options.style, CHOICES, "style")
    out = options.out or Path(f"{options.style}.safetensors")
    if options.steps < 1 or out.suffix != ".safetensors":
        raise UserError(f"{options.steps} steps into {out}: choose at least one step, and a name with .safetensors.")
    check_writable(out.parent, "free some space or choose another place with --out")
    pipe = load_pipeline(options.model)
    for _ in progress(train_style(pipe, options.style, steps=options.steps, seed=options.seed), options.steps):
        pass
    write_tensors(out, style_factors(pipe), {"style": options.style})
    print(out)


if __name__ == "__main__":
    run_main(main)
