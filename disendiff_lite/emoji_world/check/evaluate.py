"""How good the embedded model is, as one table, measured on seeded unseen scenes and prompts.

    python -m disendiff_lite.emoji_world.evaluate --model data/emoji-diffusion --json evaluation.json

Columns: the target; what was reached; its 95 % interval (Wilson's for shares, mean +- 1.96 standard errors for means); how many pictures,
objects or maps; `by chance`, what the same pictures reach when each is asked about another one's prompt; and `judge`, the share of
renderings (in brackets: of the same renderings through the autoencoder) for which the judge, in the rows on learned individuals the
scorer, gives the right answer to that question.
"""

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import open_clip
import torch
from diffusers import StableDiffusionPipeline

from disendiff_lite.attention import average_maps, capture_attention
from disendiff_lite.config import Config, emoji
from disendiff_lite.emoji_world.check.individuals import CANDIDATES, learn_individuals
from disendiff_lite.emoji_world.check.judge import Judge, judge_pictures, load_judge, through_autoencoder
from disendiff_lite.emoji_world.check.questions import QUESTIONS, Wish, false_alarms, outcomes, prompts, shown
from disendiff_lite.emoji_world.check.table import Row, mean_row, share_row, table
from disendiff_lite.emoji_world.draw.scenes import DISTANCE_PREFIXES, Scene, random_scene
from disendiff_lite.emoji_world.draw.views import random_views
from disendiff_lite.emoji_world.train.scorer import ranking
from disendiff_lite.emoji_world.train.vae import reconstruction_psnr
from disendiff_lite.evaluate.clip import load_scorer
from disendiff_lite.evaluate.maps import map_hits, map_iou
from disendiff_lite.models import load_pipeline
from disendiff_lite.sampling import sample
from disendiff_lite.support.errors import run_main
from disendiff_lite.support.files import write_text
from disendiff_lite.support.paths import EMBEDDED_SCORER

LEVELS = (200, 400, 600, 800)  # noise levels at which the maps are looked at
BATCH = 16
TARGETS = {"one object": 0.95, "both objects": 0.95, "colour": 0.90, "place": 0.98, "accessory": 0.80, "size": 0.80, "style": 0.80}
LEARNED = {"dreambooth": ("by the whole UNet", 0.90), "custom_diffusion": ("by keys and values", 0.75)}


def unseen_scenes(count: int, seed: int) -> list[Scene]:
    """Scenes as pretraining draws them, from seeds that it never uses, without the far and near ones."""
    rng = np.random.default_rng([5, seed])
    closeness = tuple(word for words in DISTANCE_PREFIXES.values() for word in words)
    scenes: list[Scene] = []
    while len(scenes) < count:
        scene = random_scene(rng)
        if not scene.caption.startswith(closeness):
            scenes.append(scene)
    return scenes


@torch.no_grad()
def autoencoder_row(pipe: StableDiffusionPipeline, scenes: list[Scene]) -> Row:
    """Peak signal-to-noise ratio (dB) of reconstructions of whole pictures."""
    values = reconstruction_psnr(pipe.vae, np.stack([scene.picture for scene in scenes]))
    return mean_row("autoencoder, unseen scenes", values, target=30.0, unit="dB")


@torch.no_grad()
def map_rows(pipe: StableDiffusionPipeline, scenes: list[Scene], seed: int) -> list[Row]:
    """Where the class words look in noised unseen scenes: whether a map's peak is on its object, and its IoU with the mask.

    The maps are means over the 16x16 layers and heads; every scene is looked at once at each of LEVELS.
    """
    generator, hits, ious = torch.Generator().manual_seed(seed), [], []
    for start in range(0, len(scenes), BATCH):
        part = scenes[start : start + BATCH]
        x = torch.from_numpy(np.stack([scene.picture for scene in part])).permute(0, 3, 1, 2).float() / 127.5 - 1
        latents = pipe.vae.encode(x).latent_dist.mode() * pipe.vae.config.scaling_factor
        ids = pipe.tokenizer([scene.caption for scene in part], padding="max_length", truncation=True, return_tensors="pt").input_ids
        text = pipe.text_encoder(ids)[0]
        for level in LEVELS:
            noise = torch.randn(latents.shape, generator=generator)
            noisy = pipe.scheduler.add_noise(latents, noise, torch.full((len(part),), level))
            with capture_attention(pipe.unet, 16, detach=True) as store:
                pipe.unet(noisy, level, text)
            maps = average_maps(store)  # (B, 77, 16, 16)
            looked, masks = class_maps(maps, ids, part, pipe.tokenizer)
            hits += map_hits(looked, masks).values
            ious += map_iou(looked, masks).values
    return [
        share_row("map peak on the object", np.array(hits) > 0.5, target=0.90),
        mean_row("map above 0.5, IoU with the mask", np.array(ious), target=0.45, unit=""),
    ]


def class_maps(maps: torch.Tensor, ids: torch.Tensor, scenes: list[Scene], tokenizer) -> tuple[torch.Tensor, torch.Tensor]:
    """The maps of the class words of all things that can be seen, (N, h, w), and their masks, bool (N, 64, 64).

    maps: (B, T, h, w); ids: (B, T), of the captions of `scenes`. Every class word is one token.
    """
    looked, masks = [], []
    for row, scene in enumerate(scenes):
        for thing, mask in zip(scene.things, scene.masks):
            (token,) = tokenizer(thing.design.class_, add_special_tokens=False).input_ids
            if mask.any():
                looked.append(maps[row, int((ids[row] == token).nonzero()[0, 0])])
                masks.append(torch.from_numpy(mask))
    return torch.stack(looked), torch.stack(masks)


def generate(pipe: StableDiffusionPipeline, texts: list[str], config: Config, seed: int) -> np.ndarray:
    """One picture a prompt, uint8 (N, 64, 64, 3), with a progress line now and then."""
    pictures: list[np.ndarray] = []
    started = time.perf_counter()
    for start in range(0, len(texts), BATCH):
        part = texts[start : start + BATCH]
        seeds = [seed * 1_000_000 + start + index for index in range(len(part))]
        pictures += [np.asarray(picture) for picture in sample(pipe, part, seeds, config)]
        eta = (time.perf_counter() - started) / len(pictures) * (len(texts) - len(pictures))
        print(f"generated {len(pictures)}/{len(texts)} pictures  ETA {eta:.0f} s", flush=True)
    return np.stack(pictures)


def prompt_rows(
    judge: Judge, pictures: np.ndarray, wishes: list[Wish], scenes: list[Scene], decoded: np.ndarray
) -> list[Row]:
    """What the judge finds in generated pictures, beside what it finds in renderings with the same questions.

    pictures: generated for `wishes`. scenes: drawn ones whose truth the judge must find. decoded: their pictures through the
    autoencoder, uint8 (N, 64, 64, 3).
    """
    findings = judge_pictures(judge, pictures)
    met = outcomes(wishes, findings)
    by_chance = outcomes(wishes[1:] + wishes[:1], findings)  # the next prompt is mostly of the same kind
    truth = [shown(scene) for scene in scenes]
    seen = judge_pictures(judge, np.stack([scene.picture for scene in scenes]))
    own = outcomes(truth, seen)
    own_decoded = outcomes(truth, judge_pictures(judge, decoded))
    return [
        share_row(question, met[question], target=TARGETS.get(question), chance=_mean(by_chance[question]),
                  judge=_mean(own[question]), judge_decoded=_mean(own_decoded[question]))  # fmt: skip
        for question in QUESTIONS
    ] + [share_row("rendering, an absent class found", false_alarms(scenes, seen))]


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None


def scorer_row(count: int, seed: int) -> Row:
    """How often the scorer finds the crop of an individual more like a picture of itself (other place, size, flip) than of another
    individual of its class, and that more than one of another class."""
    model, _ = open_clip.create_model_from_pretrained(f"local-dir:{EMBEDDED_SCORER}")
    cosines = ranking(model.eval().encode_image, random_views(count, seed=1000 + seed))
    right = (cosines["same"] > cosines["same_class"]) & (cosines["same_class"] > cosines["other_class"])
    return share_row("scorer: same > same class > other class", right, target=0.95)


def learned_rows(model: str, config: Config, *, count: int, pictures: int, seed: int) -> list[Row]:
    """How often an individual that was learned from one picture is recognised among twenty of its class, for each method."""
    rows, scorer = [], load_scorer("emoji")
    for method, (name, target) in LEARNED.items():
        results = []
        for result in learn_individuals(model, scorer, config.for_method(method), count=count, pictures=pictures, seed=seed):
            results.append(result)
            print(f"{method} learned {len(results)}/{count} individuals: {result.generated.mean():.0%} of {pictures} pictures of the "
                  f"{result.class_} recognised, {result.drawn.mean():.0%} of drawn ones", flush=True)  # fmt: skip
        generated, drawn = (np.concatenate([getattr(result, kind) for result in results]) for kind in ("generated", "drawn"))
        rows.append(share_row(f"individual learned {name}", generated, target=target, chance=1 / CANDIDATES, judge=_mean(drawn)))
    return rows


def speed_row(pipe: StableDiffusionPipeline, config: Config) -> Row:
    """Seconds for one picture made alone, with guidance, after one to warm up."""
    seconds = []
    for seed in range(4):
        started = time.perf_counter()
        sample(pipe, ["photo of a cat and a dog"], [seed], config)
        seconds.append(time.perf_counter() - started)
    return mean_row(f"one picture, {config.inference_steps} steps", np.array(seconds[1:]), target=2.0, unit="s")


def evaluate(pipe: StableDiffusionPipeline, *, count: int, seed: int, config: Config) -> list[Row]:
    """All rows of the table. `count`: two-object prompts; the other kinds, scenes and maps follow from it."""
    judge, scenes = load_judge(), unseen_scenes(max(600, 6 * count), seed)
    decoded = np.concatenate([
        through_autoencoder(np.stack([scene.picture for scene in scenes[start : start + BATCH]]), pipe.vae)
        for start in range(0, len(scenes), BATCH)
    ])  # fmt: skip
    texts, wishes = prompts(count, seed)
    plain = [scene for scene in scenes if not scene.style][: 2 * count]
    print("looking at the autoencoder, the attention maps and the scorer", flush=True)
    rows = [autoencoder_row(pipe, scenes[: 2 * count]), *map_rows(pipe, plain[:count], seed), scorer_row(1000, seed)]
    rows = [rows[0], *prompt_rows(judge, generate(pipe, texts, config, seed), wishes, scenes, decoded), *rows[1:]]
    return [*rows, speed_row(pipe, config)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="emoji", help="short name or diffusers folder (default: %(default)s, data/emoji-diffusion)")
    parser.add_argument("--count", type=int, default=60, help="two-object prompts; other kinds in proportion (default: %(default)s)")
    parser.add_argument("--individuals", type=int, default=4,
                        help="unseen individuals to learn by each of two methods; 0 leaves that out (default: %(default)s)")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of scenes, prompts and pictures")
    parser.add_argument("--guidance", type=float, default=emoji().guidance_scale, help="(default: %(default)s)")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    options = parser.parse_args()
    config = emoji(guidance_scale=options.guidance)
    rows = evaluate(load_pipeline(options.model), count=options.count, seed=options.seed, config=config)
    if options.individuals:
        rows += learned_rows(options.model, config, count=options.individuals, pictures=BATCH, seed=options.seed)
    print(table(rows))
    if options.json:
        settings = {"model": options.model, "count": options.count, "seed": options.seed, "guidance": options.guidance}
        write_text(options.json, json.dumps({"settings": settings, "rows": [asdict(row) for row in rows]}, indent=2) + "\n")


if __name__ == "__main__":
    run_main(main)
