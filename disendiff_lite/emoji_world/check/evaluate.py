"""How good the embedded model is, as one table, measured on seeded unseen scenes and prompts.

    python -m disendiff_lite.emoji_world.check.evaluate --model data/emoji-diffusion --json evaluation.json

Columns: the target; what was reached; its 95 % interval (Wilson's for shares, mean +- 1.96 standard errors for means);
how many pictures, objects or maps; `by chance`, what the same pictures reach when each is asked about another one's
prompt; and `judge`, the share of renderings (in brackets: of the same renderings through the autoencoder) for which the
judge, in the rows on learned individuals the scorer, gives the right answer to that question.
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

from disendiff_lite.config import Config, emoji
from disendiff_lite.emoji_world.check.individuals import learned_rows
from disendiff_lite.emoji_world.check.questions import (
    QUESTIONS,
    Expectation,
    false_alarms,
    outcomes,
    prompts,
    true_expectation,
)
from disendiff_lite.emoji_world.check.table import Row, mean_row, share_row, table
from disendiff_lite.emoji_world.check.word_maps import map_rows
from disendiff_lite.emoji_world.draw.scenes import DISTANCE_PREFIXES, Scene, random_scene
from disendiff_lite.emoji_world.draw.views import random_views
from disendiff_lite.emoji_world.train.scorer import ranked_right, ranking
from disendiff_lite.emoji_world.train.vae import reconstruction_psnr, through_autoencoder
from disendiff_lite.evaluate.judge import Judge, judge_pictures, load_judge
from disendiff_lite.models import load_pipeline
from disendiff_lite.sampling import sample
from disendiff_lite.support.errors import run_main
from disendiff_lite.support.files import write_text
from disendiff_lite.support.paths import EMBEDDED_SCORER

BATCH = 16
TARGETS = {
    "one object": 0.95,
    "both objects": 0.95,
    "colour": 0.90,
    "place": 0.98,
    "accessory": 0.80,
    "size": 0.80,
    "style": 0.80,
}


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
    judge: Judge, pictures: np.ndarray, expectations: list[Expectation], scenes: list[Scene], decoded: np.ndarray
) -> list[Row]:
    """What the judge finds in generated pictures, beside what it finds in renderings with the same questions.

    pictures: generated for `expectations`. scenes: renderings whose truth the judge must find. decoded: their pictures
        through the autoencoder, uint8 (N, 64, 64, 3).
    """
    findings = judge_pictures(judge, pictures)
    reached = outcomes(expectations, findings)
    by_chance = outcomes(expectations[1:] + expectations[:1], findings)  # the next prompt is mostly of the same kind
    truth = [true_expectation(scene) for scene in scenes]
    findings_in_scenes = judge_pictures(judge, np.stack([scene.picture for scene in scenes]))
    own = outcomes(truth, findings_in_scenes)
    own_decoded = outcomes(truth, judge_pictures(judge, decoded))
    rows = [
        share_row(
            question,
            reached[question],
            target=TARGETS.get(question),
            chance=_mean(by_chance[question]),
            judge=_mean(own[question]),
            judge_decoded=_mean(own_decoded[question]),
        )
        for question in QUESTIONS
    ]
    return [*rows, share_row("rendering, an absent class found", false_alarms(scenes, findings_in_scenes))]


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None


def scorer_row(count: int, seed: int) -> Row:
    """How often the scorer ranks right what an individual's crop is most like.

    A picture of itself (other place, size, flip) before one of another individual of its class, and that
    before one of another class.
    """
    model, _ = open_clip.create_model_from_pretrained(f"local-dir:{EMBEDDED_SCORER}")
    cosines = ranking(model.eval().encode_image, random_views(count, seed=1000 + seed))
    return share_row("scorer: same > same class > other class", ranked_right(cosines), target=0.95)


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
    pictures = np.stack([scene.picture for scene in scenes])
    parts = [pictures[start : start + BATCH] for start in range(0, len(scenes), BATCH)]
    decoded = np.concatenate([through_autoencoder(part, pipe.vae) for part in parts])
    texts, expectations = prompts(count, seed)
    plain = [scene for scene in scenes if not scene.style][: 2 * count]
    print("looking at the autoencoder, the attention maps and the scorer", flush=True)
    rows = [autoencoder_row(pipe, scenes[: 2 * count]), *map_rows(pipe, plain[:count], seed), scorer_row(1000, seed)]
    generated = generate(pipe, texts, config, seed)
    answers = prompt_rows(judge, generated, expectations, scenes, decoded)
    return [rows[0], *answers, *rows[1:], speed_row(pipe, config)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", default="emoji", help="short name or diffusers folder (default: %(default)s, data/emoji-diffusion)"
    )
    parser.add_argument(
        "--count", type=int, default=60, help="two-object prompts; other kinds in proportion (default: %(default)s)"
    )
    parser.add_argument(
        "--individuals",
        type=int,
        default=4,
        help="unseen individuals to learn by each of two methods; 0 leaves that out (default: %(default)s)",
    )
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
        values = {"settings": settings, "rows": [asdict(row) for row in rows]}
        write_text(options.json, json.dumps(values, indent=2) + "\n")


if __name__ == "__main__":
    run_main(main)
