"""Train the scorer: a small CLIP that knows every individual of the emoji world, saved for open_clip's own loader.

    python -m disendiff_lite.emoji_world.train.scorer --work FOLDER

It learns from pairs of views (draw/views.py), by the losses of scorer_losses.py.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import open_clip
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from disendiff_lite.emoji_world.draw.views import PLACES, Views, cached_views, class_indices
from disendiff_lite.emoji_world.draw.world import designs
from disendiff_lite.emoji_world.train.scorer_losses import caption_loss, kinship, kinship_loss, naming_loss
from disendiff_lite.support.errors import run_main
from disendiff_lite.support.paths import EMBEDDED_SCORER

CONFIG = {
    "model_cfg": {
        "embed_dim": 192,
        "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16, "head_width": 64},
        "text_cfg": {"context_length": 40, "vocab_size": 49408, "width": 48, "heads": 4, "layers": 2},
    },
    "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"},
}
BATCH = 48  # groups, so 96 pictures
LEARNING_RATE, KINSHIP_WEIGHT = 2e-3, 30.0
NAME_SCALE = 20.0  # of the unit embedding before the naming layer
SMALLEST_BOX = 14  # pixels; smaller things are not cropped out


def sight(pictures: np.ndarray, windows: np.ndarray, flipped: np.ndarray) -> torch.Tensor:
    """The part of each picture inside its window, resized to 64 px.

    pictures: uint8 (B, 64, 64, 3); windows: (B, 4) left, top, right, bottom in pixels, which may reach outside (the
    border repeats); flipped: bool (B,). Returns float32 (B, 3, 64, 64) in [-1, 1].
    """
    x = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1  # (B, 3, 64, 64)
    left, top, right, bottom = torch.as_tensor(windows, dtype=torch.float32).T / 32 - 1
    mirror = 1 - 2 * torch.from_numpy(flipped).float()
    zero = torch.zeros_like(left)
    rows = torch.stack([mirror * (right - left) / 2, zero, (right + left) / 2], dim=1)
    columns = torch.stack([zero, (bottom - top) / 2, (bottom + top) / 2], dim=1)
    grid = F.affine_grid(torch.stack([rows, columns], dim=1), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)


def crop_windows(boxes: np.ndarray, margin: np.ndarray | float = 1.15) -> np.ndarray:
    """Square windows (B, 4) around boxes (B, 4), `margin` times as long as their longer side."""
    centres, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]).max(axis=1)
    half = (np.maximum(sides, 4) * margin / 2)[:, None]
    return np.concatenate([centres - half, centres + half], axis=1)


def degrade(x: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Blur half of a batch (B, 3, h, w) a little and vary its brightness, as a decoder would."""
    sigma = rng.uniform(0.3, 1.0)
    taps = torch.exp(-0.5 * (torch.arange(-2, 3) / sigma) ** 2)
    kernel = torch.outer(taps, taps) / taps.sum() ** 2
    blurred = F.conv2d(F.pad(x, (2,) * 4, mode="replicate"), kernel.expand(3, 1, 5, 5).to(x), groups=3)
    chosen = torch.from_numpy(rng.random((len(x), 1, 1, 1)) < 0.5)
    gain = torch.from_numpy(rng.uniform(0.94, 1.06, (len(x), 1, 1, 1))).float()
    return torch.where(chosen, blurred, x) * gain


def training_batch(views: Views, classes: np.ndarray, rng: np.random.Generator):
    """Both views of BATCH random groups, each as the whole picture or one thing's crop.

    Returns the pictures, captions, their kinship, which of them are not stylised, the designs (B, K) and which
    of these are present (B, K).
    """
    rows = rng.integers(len(views), size=BATCH)
    count = (views.designs[rows] >= 0).sum(axis=1)
    rows, focus = np.tile(rows, 2), np.tile(rng.integers(count), 2)  # (2 * BATCH,): first views, then second ones
    view = np.repeat([0, 1], BATCH)
    boxes = views.boxes[rows, view]  # (B, K, 4)
    extent = (boxes[..., 2:] - boxes[..., :2]).max(axis=2)
    here = np.arange(len(rows))
    cropped = (rng.random(len(rows)) < 0.4) & (extent[here, focus] >= SMALLEST_BOX)
    zoom, shift = rng.uniform(0.9, 1.08, (len(rows), 2)), rng.uniform(-3, 3, (len(rows), 2))
    whole = np.concatenate([32 + shift - 32 * zoom, 32 + shift + 32 * zoom], axis=1)
    windows = np.where(cropped[:, None], crop_windows(boxes[here, focus], rng.uniform(0.95, 1.35, len(rows))), whole)
    pictures = degrade(sight(views.pictures[rows, view], windows, rng.random(len(rows)) < 0.5), rng)
    present = np.where(cropped[:, None], np.arange(extent.shape[1]) == focus[:, None], extent > 2)
    places = np.where(cropped, len(PLACES), views.places[rows, view])  # a crop shows hardly any place
    captions = np.where(cropped, views.thing_captions[rows, view, focus], views.captions[rows, view])
    present, names = torch.from_numpy(present).float(), torch.from_numpy(views.designs[rows]).long()
    kinds, colours, places = (torch.from_numpy(array) for array in (classes[rows], views.colours[rows], places))
    target = kinship(kinds, names, colours, present, places)
    return pictures, captions, target, torch.from_numpy(views.styles[rows, view] == 0), names, present


@torch.no_grad()
def ranking(encode, views: Views) -> dict[str, np.ndarray]:
    """Cosines between an individual's crop and whole pictures: its other view, another of its class, another class.

    encode: maps (B, 3, 64, 64) to (B, C). Returns three arrays, a value for each one-thing group that is not stylised.
    """
    alone = np.nonzero(((views.designs >= 0).sum(axis=1) == 1) & (views.styles == 0).all(axis=1))[0]
    kind = class_indices(views)[alone, 0]
    paired = np.bincount(kind)[kind] > 1  # an individual whose class no other shares cannot be ranked
    alone, kind = alone[paired], kind[paired]
    still = np.zeros(len(alone), bool)
    whole = np.tile([0, 0, 64, 64], (len(alone), 1))
    crops = F.normalize(encode(sight(views.pictures[alone, 0], crop_windows(views.boxes[alone, 0, 0]), still)), dim=1)
    wholes = F.normalize(encode(sight(views.pictures[alone, 1], whole, still)), dim=1)
    cosines = (crops @ wholes.T).numpy()
    rng, here = np.random.default_rng(0), np.arange(len(alone))
    same_class = np.array([rng.choice(np.nonzero((kind == k) & (here != i))[0]) for i, k in enumerate(kind)])
    other_class = np.array([rng.choice(np.nonzero(kind != k)[0]) for k in kind])
    return {
        "same": cosines[here, here],
        "same_class": cosines[here, same_class],
        "other_class": cosines[here, other_class],
    }


def ranked_right(cosines: dict[str, np.ndarray]) -> np.ndarray:
    """Whether each individual is nearest to itself, then to its class: bool, one value for each one of `ranking`."""
    return (cosines["same"] > cosines["same_class"]) & (cosines["same_class"] > cosines["other_class"])


def new_scorer() -> open_clip.CLIP:
    """An untrained scorer. Its token embeddings start larger than CLIP's, for words to count from the first step."""
    model = open_clip.CLIP(**CONFIG["model_cfg"])
    torch.nn.init.normal_(model.token_embedding.weight, std=0.2)
    return model


def train_scorer(model: open_clip.CLIP, views: Views, unseen: Views, *, steps: int, seed: int) -> None:
    """Train a model in place for `steps` batches on the CPU; prints progress and how it ranks `unseen` individuals."""
    torch.manual_seed(seed)
    model.to(memory_format=torch.channels_last).train()
    naming = torch.nn.Linear(CONFIG["model_cfg"]["embed_dim"], len(designs()))
    tokenize = open_clip.SimpleTokenizer(context_length=model.context_length)
    see, read = torch.compile(model.encode_image), torch.compile(model.encode_text)
    parameters = [*model.parameters(), *naming.parameters()]
    optimiser = torch.optim.AdamW(parameters, LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.02)
    one_cycle = torch.optim.lr_scheduler.OneCycleLR
    schedule = one_cycle(optimiser, LEARNING_RATE, steps, pct_start=0.05, final_div_factor=100)
    classes, used = class_indices(views), torch.zeros(model.vocab_size, dtype=torch.bool)
    started, average = time.perf_counter(), np.zeros(3)
    for step in range(steps):
        rng = np.random.default_rng([seed, step])
        pictures, captions, target, counted, names, present = training_batch(views, classes, rng)
        tokens = tokenize(list(captions))
        used[tokens.unique()] = True
        embeddings = F.normalize(see(pictures.contiguous(memory_format=torch.channels_last)), dim=1)
        texts = F.normalize(read(tokens), dim=1)
        same_text = torch.from_numpy(captions[:, None] == captions).float()
        caption_term = caption_loss(embeddings, texts, model.logit_scale.exp(), same_text)
        kinship_term = kinship_loss(embeddings, target, counted)
        naming_term = naming_loss(naming(NAME_SCALE * embeddings), names, present)
        optimiser.zero_grad()
        (caption_term + KINSHIP_WEIGHT * kinship_term + naming_term).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, np.log(100))
        terms = np.array([caption_term.item(), kinship_term.item(), naming_term.item()])
        average += (terms - average) / min(step + 1, 100)
        if (step + 1) % 100 == 0 or step == steps - 1:
            eta = (time.perf_counter() - started) / (step + 1) * (steps - step - 1) / 60
            print(
                f"scorer step {step + 1}/{steps}  caption {average[0]:.3f}  kinship {average[1]:.4f}  "
                f"naming {average[2]:.3f}  ETA {eta:.1f} min",
                flush=True,
            )
        if (step + 1) % 500 == 0 or step == steps - 1:
            model.eval()
            cosines = ranking(model.encode_image, unseen)
            model.train()
            right = ranked_right(cosines)
            print(
                f"  ranked right {right.mean():.1%} of {len(right)}; mean cosines "
                + ", ".join(f"{name} {values.mean():.2f}" for name, values in cosines.items()),
                flush=True,
            )
    with torch.no_grad():
        model.token_embedding.weight[~used] = 0  # words that were never read add nothing, and compress to nothing
    model.eval()


def save_scorer(model: open_clip.CLIP, folder: Path) -> None:
    """Write the model as fp16 safetensors in the layout that open_clip loads by "local-dir:FOLDER"."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {key: value.half() if value.is_floating_point() else value for key, value in model.state_dict().items()}
    save_file({key: value.contiguous() for key, value in tensors.items()}, folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder where the drawn pictures are kept")
    parser.add_argument(
        "--out", type=Path, default=EMBEDDED_SCORER, help="where the scorer goes (default: %(default)s)"
    )
    parser.add_argument("--start", type=Path, help="a trained scorer to start from instead of from nothing")
    parser.add_argument(
        "--groups", type=int, default=32_000, help="groups of individuals to draw (default: %(default)s)"
    )
    parser.add_argument("--steps", type=int, default=10_000, help="batches of 96 pictures (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    views = cached_views(options.work, options.groups, seed=options.seed)
    unseen = cached_views(options.work, 1000, seed=options.seed + 1)
    model = open_clip.create_model_from_pretrained(f"local-dir:{options.start}")[0] if options.start else new_scorer()
    train_scorer(model, views, unseen, steps=options.steps, seed=options.seed)
    save_scorer(model, options.out)


if __name__ == "__main__":
    run_main(main)
