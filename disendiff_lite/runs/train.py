"""Personalisation on the disk: check what is asked for, train in a run folder, and go on where a killed run stopped."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

from disendiff_lite.config import Config
from disendiff_lite.data import PriorImages, TrainingData, possible_captions
from disendiff_lite.models import check_text_to_image, model_fingerprint, model_name
from disendiff_lite.optimizers import check_optimizer
from disendiff_lite.precision import as_held, check_precision, make_scaler, pack_scaler, unpack_scaler
from disendiff_lite.runs.folder import RunFolder, RunRecord, open_run, picture_hash
from disendiff_lite.runs.learned import embedding_files, load_learned, save_learned
from disendiff_lite.runs.prior import load_prior, make_prior
from disendiff_lite.sampling import check_sampling
from disendiff_lite.scales import check_grid
from disendiff_lite.support.errors import UserError
from disendiff_lite.support.images import load_image, to_rgb
from disendiff_lite.tokens import (
    ConceptPositions,
    add_modifiers,
    check_concepts,
    check_modifiers,
    compose_prompt,
    find_positions,
)
from disendiff_lite.trainable import Trainable, choose_trainable, pack_state, trained_bytes, training, unpack_state
from disendiff_lite.training import StepRecord, training_steps


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
    masks: np.ndarray | None = None,
) -> Iterator[StepRecord]:
    """Teach the pipeline the concepts of one picture; nothing happens until the records are asked for.

    pipe: freshly loaded, in any precision. It is changed in place: it gets the new words, and its chosen weights are
        trained, in float32. Everything else, mode, requires_grad and the types of the weights are afterwards as before.
    image: the reference picture, a file or a PIL picture.
    classes: what it shows, such as ["cat", "dog"]; the i-th class gets the i-th of `config.modifiers`.
    prompt: its caption with modifiers and classes; None composes one, "photo of a <new1> cat and <new2> dog".
    run_dir: where the run is written; None keeps nothing but the pipeline.
    resume: go on with the run that is in run_dir. A finished one is loaded and yields nothing. False refuses to touch
        one.
    prior: pictures of the plain classes, or a folder of them; None lets the model make them, kept in run_dir/prior,
        which comes before the first step and calls `prior_progress` with how many there are and how many there will be.
    masks: bool (N, height, width), the concepts' places in the picture, for the oracle, `class_maps="masks"`, alone.

    Yields one StepRecord a step, the last one when the results are on the disk. On a CPU the records (but for the
    seconds) and the results are the same for the same seed, whether the run was killed and taken up again or not.
    Raises UserError, before the pipeline has changed, for what cannot work.
    """
    if isinstance(classes, str):
        raise UserError(f"The classes must be a list such as ['cat', 'dog'], not the bare text {classes!r}.")
    modifiers = config.modifiers[: len(classes)]
    image = to_rgb(image) if isinstance(image, Image.Image) else load_image(image)
    prior = load_prior(prior, classes, config) if isinstance(prior, (str, Path)) else prior
    prompt = compose_prompt(classes, config.modifiers, config.template) if prompt is None else prompt
    _check_request(pipe, classes, prior, config)
    _check_masks(masks, image, classes, config)
    if run_dir is not None:
        embedding_files(modifiers)  # refuses words that cannot be kept
    positions = _caption_positions(pipe, prompt, modifiers, classes, config)
    with _opened_run(run_dir, pipe, image, classes, prompt, prior, config, resume) as run:
        if run is not None and run.record.finished:
            load_learned(pipe, run.path)
            return
        if prior is None and config.prior_probability > 0:  # before the new words: so other runs share the pictures
            prior = make_prior(pipe, classes, config, None if run is None else run.path / "prior", prior_progress)
        token_ids = add_modifiers(pipe, modifiers, config.initial_tokens)
        known = [] if masks is None or config.class_maps != "masks" else map(Image.fromarray, np.asarray(masks))
        data = TrainingData(image, prompt, prior, config, pipe.vae_scale_factor, tuple(known))
        with training(pipe, config, token_ids) as trainable:
            yield from _steps(run, pipe, data, positions, trainable, config)


def _steps(
    run: RunFolder | None, pipe, data: TrainingData, positions, trainable: Trainable, config: Config
) -> Iterator[StepRecord]:
    """Train from the run's last checkpoint to its end, and write what is to be written on the way."""
    generator = torch.Generator("cpu").manual_seed(config.seed)
    optimizer, scaler = trainable.optimizer(config), make_scaler(config.precision, pipe.device)
    done = 0
    if run is not None:
        done, state = run.load_checkpoint()
        unpack_state(state, trainable, optimizer, generator)
        unpack_scaler(state, scaler)
    for record in training_steps(pipe, data, positions, optimizer, trainable, config, generator, scaler, done):
        if run is not None:
            run.log(record)
        if record.step % config.checkpoint_every == 0 or record.step == config.steps:
            state = pack_state(trainable, optimizer, generator) | pack_scaler(scaler)
            _check_numbers(state, record.step)
            if run is not None:
                _check_answer(pipe, data.caption, config, record.step)
                run.save_checkpoint(record.step, state)
        if run is not None and record.step == config.steps:
            _finish(run, pipe, trainable, config)
        yield record
    if run is not None and done == config.steps:  # killed between the last checkpoint and the results
        _check_numbers(state, done)
        _check_answer(pipe, data.caption, config, done)
        _finish(run, pipe, trainable, config)


def _check_request(
    pipe: StableDiffusionPipeline, classes: Sequence[str], prior: PriorImages | None, config: Config
) -> None:
    check_text_to_image(pipe)
    check_concepts(classes, config.modifiers)
    check_modifiers(pipe.tokenizer, config.modifiers[: len(classes)], config.initial_tokens)
    if prior is not None and {picture.size for picture in prior.pictures} != {(config.resolution,) * 2}:
        raise UserError(
            f"The class pictures are not all {config.resolution} px squares: make them with the same settings."
        )
    if config.calibrates and len(classes) < 2:
        raise UserError(
            "The calibration keeps concepts apart and takes two or three classes: for one use custom_diffusion."
        )
    check_precision(config.precision, pipe.device)
    check_optimizer(config)
    if pipe.scheduler.config.prediction_type not in ("epsilon", "v_prediction"):
        raise UserError(
            f"Cannot train a model that predicts {pipe.scheduler.config.prediction_type}: use one that predicts noise."
        )
    choose_trainable(pipe, config.trained)  # refuses a UNet whose weights would not be those that train
    check_sampling(pipe, config)
    check_grid(pipe, config)


def _check_masks(masks: np.ndarray | None, image: Image.Image, classes: Sequence[str], config: Config) -> None:
    if config.class_maps != "masks" or not config.calibrates:
        return
    wanted = (len(classes), image.height, image.width)
    if masks is None or np.shape(masks) != wanted:
        raise UserError(
            f"With class_maps 'masks' the training needs masks of the shape {wanted}: give them, or set 'attention'."
        )


def _caption_positions(
    pipe: StableDiffusionPipeline, prompt: str, modifiers: Sequence[str], classes: Sequence[str], config: Config
) -> dict[str, list[ConceptPositions]]:
    """Where the concepts stand in every caption that will be used.

    They are looked for with a copy of the tokenizer: the pipeline has not changed if a caption is refused.
    """
    tokenizer = copy.deepcopy(pipe.tokenizer)
    tokenizer.add_tokens(list(modifiers))
    captions = possible_captions(prompt, config)
    return {caption: find_positions(tokenizer, caption, modifiers, classes) for caption in captions}


def _opened_run(run_dir, pipe, image, classes, prompt, prior, config: Config, resume: bool):
    """A context whose value is the RunFolder, None if nothing is kept."""
    if run_dir is None:
        return nullcontext()
    record = RunRecord(
        classes=tuple(classes),
        modifiers=config.modifiers[: len(classes)],
        prompt=prompt,
        picture=picture_hash(image),
        prior=None if prior is None else picture_hash(*prior.pictures),
        model=model_fingerprint(pipe.unet),
        base=model_name(pipe),
    )
    # Weights with two moments make a checkpoint, written beside the last one, and the results are as large as two
    # copies.
    return open_run(run_dir, config, record, image, resume=resume, size=8 * trained_bytes(pipe, config))


def _finish(run: RunFolder, pipe: StableDiffusionPipeline, trainable: Trainable, config: Config) -> None:
    save_learned(run.path, pipe, trainable.base, run.record.modifiers, config)
    run.finish()


def _check_numbers(state: Mapping[str, torch.Tensor], step: int) -> None:
    """Raise UserError if the training has diverged: a run that goes on from such a state would be lost."""
    if not all(tensor.isfinite().all() for tensor in state.values()):
        raise UserError(f"A weight is no longer a number at step {step}: choose a smaller learning_rate.")


@torch.no_grad()
def _check_answer(pipe: StableDiffusionPipeline, prompt: str, config: Config, step: int) -> None:
    """Raise UserError if weights that are numbers have become so large that what the UNet makes of them is none."""
    side = config.resolution // pipe.vae_scale_factor
    shape = (1, pipe.unet.config.in_channels, side, side)
    latents = torch.randn(shape, generator=torch.Generator("cpu").manual_seed(0)).to(pipe.device)
    middle = torch.tensor([pipe.scheduler.config.num_train_timesteps // 2], device=pipe.device)
    with as_held(pipe):
        text, _ = pipe.encode_prompt([prompt], pipe.device, 1, False)  # (1, T, dim)
        predicted = pipe.unet(latents, middle, text).sample
    if not predicted.isfinite().all():
        raise UserError(f"The prediction is no longer a number at step {step}: choose a smaller learning_rate.")
