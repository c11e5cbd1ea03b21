"""Pictures from prompts by DDIM sampling, each from a seed of its own, so that a picture never depends on its
neighbours.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from diffusers import DDIMScheduler, DDPMScheduler, StableDiffusionPipeline
from PIL import Image

from disendiff_lite.config import Config
from disendiff_lite.models import check_text_to_image
from disendiff_lite.precision import as_held
from disendiff_lite.support.errors import UserError
from disendiff_lite.tokens import check_prompt

SAMPLING = {"inference_steps": int, "guidance_scale": float, "eta": float, "resolution": int}  # what `sample` reads
DIFFUSERS_MULTIPLE = 8  # pixels; a side that it does not divide is refused, whatever the model's latent cell


def sample(
    pipe: StableDiffusionPipeline,
    prompts: Sequence[str],
    seeds: Sequence[int],
    config: Config,
    *,
    negative_prompt: str = "",
) -> list[Image.Image]:
    """One picture a prompt, by DDIM with classifier-free guidance.

    prompts, seeds: of the same length; the random numbers come from CPU generators, so they do not depend on the
        device.
    config: gives `resolution`, `inference_steps`, `guidance_scale` and `eta`.
    negative_prompt: what the guidance leads away from, in place of the empty prompt.

    Returns RGB pictures of resolution x resolution px. The pipeline's scheduler is put back afterwards. Raises
    UserError as check_sampling does, and if a picture comes out without numbers.
    """
    check_text_to_image(pipe)
    check_sampling(pipe, config, negative_prompt)
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    with ddim(pipe), as_held(pipe):
        pixels = pipe(
            list(prompts),
            negative_prompt=[negative_prompt] * len(prompts) if negative_prompt else None,
            height=config.resolution,
            width=config.resolution,
            num_inference_steps=config.inference_steps,
            guidance_scale=config.guidance_scale,
            eta=config.eta,
            generator=generators,
            output_type="np",
        ).images  # (B, height, width, 3) in [0, 1]
    return finite_pictures(pipe, prompts, pixels)


def finite_pictures(pipe, prompts: Sequence[str], pixels: np.ndarray) -> list[Image.Image]:
    """Pixels (B, height, width, 3) in [0, 1] as pictures; UserError if some are not numbers."""
    for prompt, picture in zip(prompts, pixels):
        if not np.isfinite(picture).all():  # it would be written as a black one
            raise UserError(
                f"The picture of {prompt!r} is not made of numbers: train with a smaller learning_rate if the run has"
                " diverged, or load the model with dtype float32 if it was loaded with another."
            )
    return pipe.image_processor.numpy_to_pil(pixels)


def check_sampling(pipe: StableDiffusionPipeline, config: Config, negative_prompt: str = "") -> None:
    """Raise UserError if the pipeline cannot draw pictures of this `resolution`, in so many `inference_steps`, or with
    a negative prompt.
    """
    if negative_prompt:
        check_prompt(pipe.tokenizer, negative_prompt)
        if config.guidance_scale <= 1:
            raise UserError(
                f"guidance_scale is {config.guidance_scale}, without guidance, so a negative prompt would do nothing:"
                " choose more than 1."
            )
    multiple = math.lcm(DIFFUSERS_MULTIPLE, pipe.vae_scale_factor)
    if config.resolution % multiple:
        raise UserError(f"The resolution {config.resolution} is not a multiple of {multiple}: choose another.")
    schedule = pipe.scheduler.config
    most = schedule.num_train_timesteps - schedule.get(
        "steps_offset", 0
    )  # with an offset the sampling begins that much above
    if config.inference_steps > most:
        raise UserError(f"inference_steps is {config.inference_steps}: choose at most {most} with this model.")


@contextmanager
def ddim(pipe: StableDiffusionPipeline) -> Iterator[None]:
    """Sample with DDIM while the `with` block runs, whatever scheduler the pipeline has."""
    original = pipe.scheduler
    # Clipping to [-1, 1] is for pixels; a scheduler of another kind does not say so, and DDIM would clip by default.
    # And from_config forgets what was set on a scheduler after it was made, such as v-prediction.
    pipe.scheduler = DDIMScheduler.from_config(
        original.config, clip_sample=False, prediction_type=original.config.prediction_type
    )
    try:
        yield
    finally:
        pipe.scheduler = original


def make_noiser(pipe: StableDiffusionPipeline) -> DDPMScheduler:
    """The scheduler that adds the model's noise, whichever scheduler the pipeline samples with."""
    config = pipe.scheduler.config
    # from_config alone would forget a prediction type that was set on the scheduler after it was made.
    return DDPMScheduler.from_config(config, prediction_type=config.prediction_type)


def picture_seeds(seed: int, count: int) -> list[int]:
    """Seeds for pictures 0 to count - 1, mixed so that neighbouring seeds share no picture; UserError if `seed` is
    negative.
    """
    if seed < 0:
        raise UserError(f"The seed is {seed}: give a whole number from 0.")
    return [int(np.random.SeedSequence((seed, index)).generate_state(1)[0]) for index in range(count)]
