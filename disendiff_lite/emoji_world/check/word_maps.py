"""Where the class words look in noised unseen scenes, as rows of the evaluation's table."""

import numpy as np
import torch
from diffusers import StableDiffusionPipeline

from disendiff_lite.attention import average_maps, capture_attention
from disendiff_lite.emoji_world.check.table import Row, mean_row, share_row
from disendiff_lite.emoji_world.draw.scenes import Scene
from disendiff_lite.evaluate.maps import map_hits, map_iou

LEVELS = (200, 400, 600, 800)  # noise levels at which the maps are looked at
BATCH = 16


@torch.no_grad()
def map_rows(pipe: StableDiffusionPipeline, scenes: list[Scene], seed: int) -> list[Row]:
    """Whether a class word's map peaks on its object, and the map's IoU with the mask.

    The maps are means over the 16x16 layers and heads; every scene is looked at once at each of LEVELS.
    """
    generator, hits, ious = torch.Generator().manual_seed(seed), [], []
    for start in range(0, len(scenes), BATCH):
        part = scenes[start : start + BATCH]
        x = torch.from_numpy(np.stack([scene.picture for scene in part])).permute(0, 3, 1, 2).float() / 127.5 - 1
        latents = pipe.vae.encode(x).latent_dist.mode() * pipe.vae.config.scaling_factor
        captions = [scene.caption for scene in part]
        ids = pipe.tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids
        text = pipe.text_encoder(ids)[0]
        for level in LEVELS:
            noise = torch.randn(latents.shape, generator=generator)
            noisy = pipe.scheduler.add_noise(latents, noise, torch.full((len(part),), level))
            with capture_attention(pipe.unet, 16, detach=True) as store:
                pipe.unet(noisy, level, text)
            maps, masks = class_maps(average_maps(store), ids, part, pipe.tokenizer)
            hits += map_hits(maps, masks).values
            ious += map_iou(maps, masks).values
    return [
        share_row("map peak on the object", np.array(hits) > 0.5, target=0.90),
        mean_row("map above 0.5, IoU with the mask", np.array(ious), target=0.45, unit=""),
    ]


def class_maps(
    maps: torch.Tensor, ids: torch.Tensor, scenes: list[Scene], tokenizer
) -> tuple[torch.Tensor, torch.Tensor]:
    """The maps of the class words of all things that can be seen, (N, h, w), and their masks, bool (N, 64, 64).

    maps: (B, T, h, w); ids: (B, T), of the captions of `scenes`. Every class word is one token.
    """
    visible = []
    for row, scene in enumerate(scenes):
        for thing, mask in zip(scene.things, scene.masks, strict=True):
            (token,) = tokenizer(thing.design.class_, add_special_tokens=False).input_ids
            if mask.any():
                position = int((ids[row] == token).nonzero()[0, 0])
                visible.append((maps[row, position], torch.from_numpy(mask)))
    chosen, masks = zip(*visible, strict=True)
    return torch.stack(chosen), torch.stack(masks)
