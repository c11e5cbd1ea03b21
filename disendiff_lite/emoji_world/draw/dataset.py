"""Rendered scenes kept on disk in shards, so that every scene is drawn once and trained on many times.

A shard is one `.npz`: `pictures` uint8 (N, 64, 64, 3); `masks` uint8 (N, 3, 16, 16), each object's share of a latent
cell, 0 to 255, zero rows where a scene has fewer than three objects; `captions` and `classes` (the class words in
caption order, space-separated). A shard is written under a temporary name and renamed, so one that exists is whole.
"""

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from disendiff_lite.emoji_world.draw.scenes import random_scene

SHARD = 2500  # scenes
GRID = 16  # cells a side of the attention maps
MOST_THINGS = 3


@dataclass
class Scenes:
    """Scenes in memory; the fields are those of a shard."""

    pictures: np.ndarray
    masks: np.ndarray
    captions: list[str]
    classes: list[list[str]]

    def __len__(self) -> int:
        return len(self.captions)


def shrink_masks(masks: np.ndarray, grid: int = GRID) -> np.ndarray:
    """Masks bool (n, 64, 64) -> each cell's covered share, float32 (n, grid, grid) in [0, 1]."""
    n, side, _ = masks.shape
    cell = side // grid
    return masks.reshape(n, grid, cell, grid, cell).mean(axis=(2, 4), dtype=np.float32)


def _render_shard(path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scenes = [random_scene(rng) for _ in range(SHARD)]
    masks = np.zeros((SHARD, MOST_THINGS, GRID, GRID), np.uint8)
    for row, scene in zip(masks, scenes, strict=True):
        row[: len(scene.things)] = shrink_masks(scene.masks) * 255
    temporary = path.with_suffix(".part.npz")
    np.savez(
        temporary,
        pictures=np.stack([scene.picture for scene in scenes]),
        masks=masks,
        captions=np.array([scene.caption for scene in scenes]),
        classes=np.array([" ".join(thing.design.class_ for thing in scene.things) for scene in scenes]),
    )
    temporary.rename(path)


def load_scenes(folder: Path, count: int, *, seed: int = 0, workers: int = 2) -> Scenes:
    """The first `count` training scenes of a seed, rendering into `folder` what is not there yet.

    Shard k is drawn from seed 1_000_000 * (seed + 1) + k, so evaluation scenes (other seeds) are never training scenes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    seeds = [1_000_000 * (seed + 1) + k for k in range(-(-count // SHARD))]
    paths = [folder / f"scenes-{s}.npz" for s in seeds]
    missing = [(path, s) for path, s in zip(paths, seeds, strict=True) if not path.exists()]
    if missing:
        print(f"drawing {len(missing) * SHARD} scenes into {folder}", flush=True)
        with ProcessPoolExecutor(workers) as pool:
            list(pool.map(_render_shard, *zip(*missing, strict=True)))
    shards = [np.load(path) for path in paths]
    captions = [str(c) for shard in shards for c in shard["captions"]][:count]
    classes = [str(c).split() for shard in shards for c in shard["classes"]][:count]
    pictures = np.concatenate([shard["pictures"] for shard in shards])[:count]
    masks = np.concatenate([shard["masks"] for shard in shards])[:count]
    return Scenes(pictures, masks, captions, classes)
