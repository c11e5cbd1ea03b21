"""Personalisation: fine-tune a pipeline on one picture, so that `<new1> cat` comes to mean this cat.

One generator is the whole training loop; it yields a record a step, and its caller prints, plots or stops. The methods and
ablations are settings (`Config`): disendiff is custom_diffusion with the attention calibration on top.

    loss = |predicted noise - noise|^2 + lambda (L_bind + L_s&s)
"""

import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline
from PIL import Image

from disendiff_lite.attention import AttentionStore, average_maps, capture_attention
from disendiff_lite.checkpoint import pack_state, unpack_state
from disendiff_lite.config import Config
from disendiff_lite.data import Batch, LatentEncoder, TrainingData, possible_captions
from disendiff_lite.errors import UserError
from disendiff_lite.fingerprint import model_fingerprint
from disendiff_lite.images import load_image, to_rgb
from disendiff_lite.learned import load_learned, save_learned
from disendiff_lite.losses import calibration_loss
from disendiff_lite.models import choose_trainable
from disendiff_lite.prior import PriorImages, load_prior, make_prior
from disendiff_lite.runs import RunFolder, RunRecord, StepRecord, open_run, picture_hash
from disendiff_lite.sampling import check_sampling
from disendiff_lite.tokens import add_modifiers, check_concepts, check_modifiers, compose_prompt, find_positions
from disendiff_lite.trainable import Trainable, set_learning_rates, training


def train(
    pipe: StableDiffusionPipeline,
    image: Image.Image | str | Path,
    classes: Sequence[str],
    config: Config,
    *,
    prompt: str | None = None,
    run_dir: str | Path | None = None,
    resume: bool = True,
    prior: PriorImages | str | Path | None = None,
    prior_progress: Callable[[int, int], None] | None = None,
) -> Iterator[StepRecord]:
    """Teach the pipeline the concepts of one picture; nothing happens until the records are asked for.

    pipe: float32, freshly loaded. It is changed in place: it gets the new words, and its chosen weights are trained. Everything
        else, mode and requires_grad are afterwards as before.
    image: the reference picture, a file or a PIL picture.
    classes: what it shows, such as ["cat", "dog"]; the i-th class gets the i-th of `config.modifiers`.
    prompt: its caption with modifiers and classes; None composes one, "photo of a <new1> cat and <new2> dog".
    run_dir: where the run is written; None keeps nothing but the pipeline.
    resume: go on with the run that is in run_dir. A finished one is loaded and yields nothing. False refuses to touch one.
    prior: pictures of the plain classes, or a folder of them; None lets the model make them, kept in run_dir/prior, which comes
        before the first step and calls `prior_progress` with how many there are and how many there will be.

    Yields one StepRecord a step, the last one when the results are on the disk. On a CPU the records (but for the seconds) and
    the results are the same for the same seed, whether the run was killed and taken up again or not. Raises UserError, before
    the pipeline has changed, for what cannot work.
    """
    if isinstance(classes, str):
        raise UserError(f"The classes must be a list such as ['cat', 'dog'], not the bare text {classes!r}.")
    modifiers = config.modifiers[: len(classes)]
    image = to_rgb(image) if isinstance(image, Image.Image) else load_image(image)
    prior = load_prior(prior, classes, config) if isinstance(prior, (str, Path)) else prior
    prompt = compose_prompt(classes, config.modifiers, config.template) if prompt is None else prompt
    _check_request(pipe, classes, prior, config)
    _check_prompt(pipe, prompt, modifiers, classes, config)
    run = _open_run(run_dir, pipe, image, classes, prompt, prior, config, resume)
    if run is not None and run.record.finished:
        load_learned(pipe, run.path)
        return
    token_ids = add_modifiers(pipe, modifiers, config.initial_tokens)
    if prior is None and config.prior_probability > 0:
        prior = make_prior(pipe, classes, config, None if run is None else run.path / "prior", prior_progress)
    data = TrainingData(image, prompt, prior, config, pipe.vae_scale_factor)
    encoder = LatentEncoder(pipe)
    noiser = make_noiser(pipe)
    generator = torch.Generator("cpu").manual_seed(config.seed)
    with training(pipe, config, token_ids) as trainable:
        optimizer = trainable.optimizer(config)
        done = 0
        if run is not None:
            done, state = run.load_checkpoint()
            unpack_state(state, trainable, optimizer, generator)
        for step in range(done + 1, config.steps + 1):
            began = time.perf_counter()
            terms = []
            for _ in range(config.gradient_accumulation):
                samples = [data.draw(generator) for _ in range(config.batch_size)]
                batch = encoder.batch(samples, generator)
                terms.append(training_losses(pipe, noiser, batch, modifiers, classes, config, generator))
                (terms[-1]["total"] / config.gradient_accumulation).backward()
            set_learning_rates(optimizer, config, step)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            trainable.write_back()
            record = _record(step, terms, optimizer, began)
            if run is not None:
                run.log(record)
                if step % config.checkpoint_every == 0 or step == config.steps:
                    run.save_checkpoint(step, pack_state(trainable, optimizer, generator))
                if step == config.steps:
                    _finish(run, pipe, trainable, config)
            yield record
        if run is not None and done == config.steps:  # killed between the last checkpoint and the results
            _finish(run, pipe, trainable, config)


def make_noiser(pipe: StableDiffusionPipeline) -> DDPMScheduler:
    """The scheduler that adds the model's noise, whichever scheduler the pipeline samples with."""
    config = pipe.scheduler.config
    # from_config alone would forget a prediction type that was set on the scheduler after it was made.
    return DDPMScheduler.from_config(config, prediction_type=config.prediction_type)


def training_losses(
    pipe: StableDiffusionPipeline,
    noiser: DDPMScheduler,
    batch: Batch,
    modifiers: Sequence[str],
    classes: Sequence[str],
    config: Config,
    generator: torch.Generator,
) -> dict[str, torch.Tensor]:
    """The losses of one micro-batch at random noise levels.

    noiser: adds the noise. modifiers, classes: one each a concept. generator: on the CPU.

    Returns scalars: "reconstruction", "total" and, if the batch holds the concept picture and there is calibration, "bind" and
    "separate", not yet weighted.
    """
    noise = torch.randn(batch.latents.shape, generator=generator).to(batch.latents)
    times = torch.randint(0, noiser.config.num_train_timesteps, (len(noise),), generator=generator).to(noise.device)
    noisy = noiser.add_noise(batch.latents, noise, times)
    calibrated = config.calibrates and any(batch.is_concept)
    capture = capture_attention(pipe.unet, config.map_resolution) if calibrated else nullcontext()
    with torch.autocast(noise.device.type, torch.bfloat16, enabled=config.precision == "bfloat16"), capture as store:
        text, _ = pipe.encode_prompt(batch.captions, noise.device, 1, False)  # (B, T, dim)
        predicted = pipe.unet(noisy, times, text).sample
    target = noise
    if noiser.config.prediction_type == "v_prediction":
        target = noiser.get_velocity(batch.latents, noise, times)
    reconstruction = reconstruction_loss(predicted.float(), target, batch.mask)
    if not calibrated:
        return {"reconstruction": reconstruction, "total": reconstruction}
    terms = _calibration(store, pipe.tokenizer, batch, modifiers, classes, config)
    weighted = config.bind_weight * terms["bind"] + config.separate_weight * terms["separate"]
    return {"reconstruction": reconstruction, **terms, "total": reconstruction + config.calibration_weight * weighted}


def reconstruction_loss(predicted: torch.Tensor, target: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Squared error of a latent cell, summed over its channels as in the published code, mean over the cells that count.

    The sum makes it C times the usual mean over channels; lambda is meant beside this one.

    predicted, target: (B, C, h, w). mask: (B, 1, h, w), 1 where the loss counts, somewhere in every entry. Returns a scalar.
    """
    squares = (predicted - target).square() * mask  # (B, C, h, w)
    return (squares.sum(dim=(1, 2, 3)) / mask.sum(dim=(1, 2, 3))).mean()


def _calibration(
    store: AttentionStore, tokenizer, batch: Batch, modifiers: Sequence[str], classes: Sequence[str], config: Config
) -> dict[str, torch.Tensor]:
    """The calibration's terms, the mean over the batch entries whose caption holds the modifiers."""
    maps = average_maps(store)  # (B, T, h, w)
    terms = []
    for entry, caption in enumerate(batch.captions):
        if batch.is_concept[entry]:
            positions = find_positions(tokenizer, caption, modifiers, classes)
            modifier_maps = torch.stack([maps[entry, found.modifier] for found in positions])  # (N, h, w)
            class_maps = torch.stack([maps[entry, list(found.class_)].mean(dim=0) for found in positions])  # (N, h, w)
            terms.append(calibration_loss(modifier_maps, class_maps, smooth=config.smooth, suppress=config.suppress))
    return {name: torch.stack([term[name] for term in terms]).mean() for name in ("bind", "separate")}


def _record(step: int, terms: list[dict], optimizer: torch.optim.Optimizer, began: float) -> StepRecord:
    def mean(name: str) -> float:
        values = [term[name].item() for term in terms if name in term]
        return sum(values) / len(values) if values else math.nan

    means = {name: mean(name) for name in ("reconstruction", "bind", "separate", "total")}
    if not math.isfinite(means["total"]):
        raise UserError(f"The loss is no longer a number at step {step}: choose a smaller learning_rate.")
    rate = optimizer.param_groups[0]["lr"]
    return StepRecord(step=step, **means, learning_rate=rate, seconds=time.perf_counter() - began)


def _check_request(
    pipe: StableDiffusionPipeline, classes: Sequence[str], prior: PriorImages | None, config: Config
) -> None:
    check_concepts(classes, config.modifiers)
    check_modifiers(pipe.tokenizer, config.modifiers[: len(classes)], config.initial_tokens)
    if prior is not None and {picture.size for picture in prior.pictures} != {(config.resolution,) * 2}:
        raise UserError(f"The class pictures are not all {config.resolution} px squares: make them with the same settings.")
    if config.calibrates and len(classes) < 2:
        raise UserError("The calibration keeps concepts apart and takes two or three classes: for one use custom_diffusion.")
    if pipe.unet.dtype != torch.float32 or pipe.text_encoder.dtype != torch.float32:
        raise UserError(f"Training needs float32 weights, not {pipe.unet.dtype}: load the model with dtype float32.")
    if pipe.scheduler.config.prediction_type not in ("epsilon", "v_prediction"):
        raise UserError(f"Cannot train a model that predicts {pipe.scheduler.config.prediction_type}: use one that predicts noise.")
    check_sampling(pipe, config)
    side = config.resolution // pipe.vae_scale_factor
    grids = [math.ceil(side / 2**level) for level in range(len(pipe.unet.config.block_out_channels))]
    if config.calibrates and config.map_resolution not in grids:
        raise UserError(
            f"At {config.resolution} px this UNet has no grid of map_resolution {config.map_resolution}:"
            f" choose one of {', '.join(map(str, grids))}."
        )


def _check_prompt(pipe, prompt: str, modifiers: Sequence[str], classes: Sequence[str], config: Config) -> None:
    """Find every concept in every caption that will be used, on a copy: the pipeline has not changed if one is refused."""
    tokenizer = copy.deepcopy(pipe.tokenizer)
    tokenizer.add_tokens(list(modifiers))
    for caption in possible_captions(prompt, config):
        find_positions(tokenizer, caption, modifiers, classes)


def _open_run(run_dir, pipe, image, classes, prompt, prior, config: Config, resume: bool) -> RunFolder | None:
    if run_dir is None:
        return None
    record = RunRecord(
        classes=tuple(classes),
        modifiers=config.modifiers[: len(classes)],
        prompt=prompt,
        picture=picture_hash(image),
        prior=None if prior is None else picture_hash(*prior.pictures),
        model=model_fingerprint(pipe.unet),
    )
    trained = sum(weight.nbytes for weight in choose_trainable(pipe, config.method).values())
    # Weights with two moments make a checkpoint, written beside the last one, and the results are as large as two copies.
    return open_run(run_dir, config, record, image, resume=resume, size=8 * trained)


def _finish(run: RunFolder, pipe: StableDiffusionPipeline, trainable: Trainable, config: Config) -> None:
    save_learned(run.path, pipe, trainable.base, run.record.modifiers, config)
    run.finish()
