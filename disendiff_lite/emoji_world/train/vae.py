"""Train the embedded model's autoencoder: no picture can be sharper than its decoder.

It sees 32x32 crops rather than whole scenes: four times as many for the same work, and fewer of them empty background.
"""

import copy
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch.nn import functional as F

from disendiff_lite.emoji_world.train.architecture import new_vae, widened
from disendiff_lite.emoji_world.train.checkpoints import load_state, save_state

CROP, BATCH, LEARNING_RATE, KL_WEIGHT = 32, 16, 1.5e-3, 2e-6


def random_crops(pictures: np.ndarray, rng: np.random.Generator, count: int) -> torch.Tensor:
    """Random CROP x CROP pieces of random pictures as float32 (count, 3, CROP, CROP) in [-1, 1]."""
    rows = rng.integers(len(pictures), size=count)
    tops = rng.integers(8, 65 - CROP, size=count)  # the top rows are nearly always sky
    lefts = rng.integers(0, 65 - CROP, size=count)
    crops = np.stack([pictures[r, t : t + CROP, c : c + CROP] for r, t, c in zip(rows, tops, lefts, strict=True)])
    return torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 127.5 - 1  # (count, 3, CROP, CROP)


@torch.no_grad()
def reconstruction_psnr(vae: AutoencoderKL, pictures: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio (dB) of the reconstruction of each of uint8 (N, 64, 64, 3) pictures, float32 (N,)."""
    values = []
    for part in torch.from_numpy(pictures).split(BATCH):
        x = part.permute(0, 3, 1, 2).to(vae.device, vae.dtype) / 127.5 - 1  # (B, 3, 64, 64)
        y = vae.decode(vae.encode(x).latent_dist.mode()).sample.clamp(-1, 1)
        errors = ((x - y).float() / 2).square().mean(dim=(1, 2, 3))  # (B,)
        values.append(-10 * errors.log10())
    return torch.cat(values).cpu().numpy()


@torch.no_grad()
def through_autoencoder(pictures: np.ndarray, vae: AutoencoderKL, rng: np.random.Generator | None = None) -> np.ndarray:
    """Pictures, uint8 (B, 64, 64, 3), as the autoencoder gives them back; `rng` disturbs their latents a little."""
    x = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
    latents = vae.encode(x).latent_dist.mode()
    if rng is not None:
        noise = rng.normal(size=latents.shape) * rng.uniform(0, 0.2, (len(x), 1, 1, 1))
        latents = latents + torch.from_numpy(noise).float() * latents.std()
    decoded = vae.decode(latents).sample.clamp(-1, 1)
    return ((decoded + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


def train_vae(
    pictures: np.ndarray,
    unseen: np.ndarray,
    work: Path,
    *,
    crops: int,
    seed: int,
    device: str,
    start: AutoencoderKL | None = None,
) -> AutoencoderKL:
    """Train on `crops` crops in all, resuming from `work`; returns the EMA autoencoder.

    Compiled, because group normalisation at full resolution is what costs (on two CPU cores twice as fast as eager).

    pictures, unseen: uint8 (N, 64, 64, 3), to train on and to measure with.
    start: a finished autoencoder of which the decoder alone is trained further, widened if it is narrower than a new
        one: a UNet that has learned its latents stays valid.
    """
    torch.manual_seed(seed)
    vae = (widened(start) if start else new_vae()).to(device, memory_format=torch.channels_last).train()
    if start:
        vae.encoder.requires_grad_(False)
        vae.quant_conv.requires_grad_(False)
    # The narrower encoder is the faster one.
    encoding = copy.deepcopy(start).requires_grad_(False).to(vae.device, vae.dtype) if start else vae
    ema = copy.deepcopy(vae).requires_grad_(False)
    trained = [parameter for parameter in vae.parameters() if parameter.requires_grad]
    averaged = [e for e, p in zip(ema.parameters(), vae.parameters(), strict=True) if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, LEARNING_RATE, betas=(0.9, 0.99), weight_decay=1e-3)
    steps = crops // BATCH
    checkpoint = work / ("decoder.safetensors" if start else "vae.safetensors")
    first = load_state(checkpoint, {"model": vae, "ema": ema}, optimiser)

    @torch.compile
    def losses(x: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        posterior = encoding.encode(x).latent_dist
        y = vae.decode(posterior.mean + posterior.std * noise).sample
        edges = sum(F.l1_loss(y.diff(dim=axis), x.diff(dim=axis)) for axis in (2, 3))
        return F.l1_loss(y, x) + 4 * F.mse_loss(y, x) + 0.5 * edges + KL_WEIGHT * posterior.kl().mean()

    started = time.perf_counter()
    for step in range(first, steps):
        x = random_crops(pictures, np.random.default_rng([seed, step]), BATCH)
        x = x.to(device, memory_format=torch.channels_last)
        fall = 0.02 + 0.98 * np.cos(np.pi / 2 * step / steps) ** 2
        optimiser.param_groups[0]["lr"] = LEARNING_RATE * min(1, (step + 1) / 200) * fall
        loss = losses(x, torch.randn(BATCH, 4, CROP // 4, CROP // 4, device=device))
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        decay = min(0.998, (step + 1) / (step + 20))
        torch._foreach_lerp_(averaged, [parameter.detach() for parameter in trained], 1 - decay)
        if step % 250 == 249 or step == steps - 1:
            rate = (step + 1 - first) * BATCH / (time.perf_counter() - started)
            psnr = reconstruction_psnr(ema, unseen).mean()
            print(
                f"vae step {step + 1}/{steps}  loss {loss.item():.4f}  unseen {psnr:.2f} dB  "
                f"{rate:.0f} crops/s  ETA {(steps - step - 1) * BATCH / rate / 60:.1f} min",
                flush=True,
            )
            save_state(checkpoint, {"model": vae, "ema": ema}, optimiser, step + 1)
    return ema.eval()
