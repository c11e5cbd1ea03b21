"""Every setting of a run in one frozen dataclass, with presets for Stable Diffusion and for the embedded model.

Ablations are changes of a `Config`, not other code paths: `dataclasses.replace(config, bind_weight=0.0)` trains without
L_bind, `separate_weight=0.0` without L_s&s, `suppress=False` without suppression.
"""

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

from disendiff_lite.precision import DTYPES
from disendiff_lite.presets import CLASS_MAPS, EMOJI, METHODS, PER_METHOD, PER_TRAINED, TRAINED
from disendiff_lite.support.errors import UserError, check_name
from disendiff_lite.support.files import read_json, write_text
from disendiff_lite.support.typed import typed_settings


@dataclass(frozen=True)
class Config:
    """The settings of one run; the defaults are those of the paper for Stable Diffusion at 512 px.

    Raises UserError if a value is of the wrong type or out of its range.
    """

    preset: str = "paper"  # "paper" or "emoji": whose learning rates `for_method` takes
    method: str = "disendiff"  # one of METHODS
    trained: str = "kv"  # one of TRAINED: keys and values, queries too, values alone, LoRA, the whole UNet, none
    # Of the adapters over keys and values, with trained="lora". Cut down to rank 32, what whole keys and values learned
    # in the shipped ablation loses 4 %, to rank 16 9 %, to rank 4 30 %.
    lora_rank: int = 16
    lora_alpha: float = 16.0  # the adapters' output counts lora_alpha / lora_rank times

    resolution: int = 512  # side of the square training and sampling pictures, pixels
    steps: int = 250  # optimiser steps
    batch_size: int = 2  # pictures in a micro-batch
    gradient_accumulation: int = 4  # micro-batches in an optimiser step
    learning_rate: float = 8e-5  # of what trains of the UNet; final, not scaled again
    embedding_learning_rate: float = 8e-5  # of the modifier tokens' embeddings
    lr_scheduler: str = "constant"  # or "cosine": both rates fall to nothing along half a cosine
    optimizer: str = "adamw"  # or "adamw8bit", with moments in 8 bits: needs bitsandbytes, for a whole UNet
    weight_decay: float = 1e-2  # AdamW's
    gradient_checkpointing: bool = False  # recompute the UNet's activations: less memory, about a third slower
    channels_last: bool = False  # weights of convolutions in the order that some devices are faster with
    precision: str = "float32"  # of what is frozen while the rest trains, and of computing; what trains is float32

    calibration_weight: float = 0.01  # lambda of the paper; 0 captures no attention at all
    bind_weight: float = 1.0  # of L_bind within the calibration; 0 switches it off
    separate_weight: float = 1.0  # of L_s&s within the calibration; 0 switches it off
    suppress: bool = True  # square the class tokens' maps
    suppress_twice: bool = False  # square them twice, a^4
    smooth: bool = True  # blur the maps with the 3x3 Gaussian
    map_resolution: int = 16  # side of the calibrated maps, cells; Stable Diffusion at 512 px has 64, 32, 16, 8
    all_scales: bool = False  # calibrate the mean of the maps of all grids, brought to map_resolution
    class_maps: str = (
        "attention"  # or "masks": an oracle, the true masks take the place of the class words' maps, L_s&s is constant
    )

    modifiers: tuple[str, ...] = ("<new1>", "<new2>", "<new3>")  # the new words, one a concept
    initial_tokens: tuple[str, ...] = ("ktn", "pll", "ucd")  # rare words whose embeddings the modifiers start from
    template: str = "photo of a {}"  # training caption; {} becomes "<new1> cat and <new2> dog"

    prior_probability: float = 0.5  # chance that a training sample is a picture of the plain classes
    prior_images: int = 200  # pictures of the plain classes that are made, when no folder of them is given
    prior_batch: int = 8  # how many of them are made at once
    augment: bool = True  # random scale of the concept picture, with its caption prefix and loss mask
    augmented_views: int = 0  # that many random scales are drawn once and encoded once; 0 draws a new one each time
    flip_probability: float = 0.5  # chance of a horizontal flip

    inference_steps: int = 50  # DDIM steps
    guidance_scale: float = 6.0  # classifier-free guidance; 1 switches it off
    eta: float = 1.0  # 0 is deterministic DDIM, 1 has the noise of DDPM

    seed: int = 0  # of everything that is random in a run
    checkpoint_every: int = 50  # optimiser steps between checkpoints
    saved_rank: int = 0  # rank of the saved key and value changes; 0 is full rank, which loses nothing

    def __post_init__(self):
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, _checked(field, getattr(self, field.name)))
        _check_ranges(self)

    @property
    def calibrates(self) -> bool:
        """Whether the attention calibration is part of the loss; without it no attention is captured."""
        return self.calibration_weight > 0 and (self.bind_weight > 0 or self.separate_weight > 0)

    def for_method(self, method: str) -> "Config":
        """These settings with another method and with the preset's numbers for it, those that `PER_METHOD` names."""
        fresh = PRESETS[self.preset](method=method)
        names = {name for methods in PER_METHOD.values() for changes in methods.values() for name in changes}
        return dataclasses.replace(self, method=method, **{name: getattr(fresh, name) for name in names})

    def to_dict(self) -> dict:
        """The settings as plain values that JSON can hold."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()}

    @classmethod
    def from_dict(cls, settings: dict) -> "Config":
        """The `Config` with these settings; those not named keep their defaults.

        Raises UserError if there is no setting of a name (the nearest one is named), or a value is not right.
        """
        _check_names(settings)
        if "trained" not in settings:  # runs of before it was a setting of its own
            usual = PER_METHOD["paper"].get(settings.get("method"), {}).get("trained", cls.trained)
            settings = {**settings, "trained": usual}
        return cls(**settings)

    def save(self, path) -> None:
        """Write the settings as JSON, whole or not at all."""
        write_text(path, json.dumps(self.to_dict(), indent=2) + "\n")

    @classmethod
    def load(cls, path) -> "Config":
        """Read settings that `save` wrote.

        Raises UserError if the file is missing, is not JSON, or holds a setting that does not exist or is not right.
        """
        return cls.from_dict(
            read_json(path, "is not JSON with settings by name (line {line}): mend it, or delete it and train anew.")
        )


def paper(**changes) -> Config:
    """The published recipe for Stable Diffusion at 512 px, with `changes`; `method` brings its own learning rates."""
    return _preset("paper", {}, changes)


def emoji(**changes) -> Config:
    """The recipe for the embedded 64 px model, with `changes`; `method` brings its own learning rates."""
    return _preset("emoji", EMOJI, changes)


PRESETS = {"paper": paper, "emoji": emoji}


def config_changes(settings: Sequence[str]) -> dict:
    """Settings "key=value" of a Config, as a command line has them, as a dict of typed values.

    Raises UserError if a key does not exist (the nearest one is named), comes twice, or its value is of another type.
    """
    kinds = {field.name: tuple if field.type == tuple[str, ...] else field.type for field in dataclasses.fields(Config)}
    return typed_settings(settings, kinds, "setting")


def _preset(name: str, base: dict, changes: dict) -> Config:
    _check_names(changes)
    per_method = PER_METHOD[name]
    method = changes.get("method", "disendiff")
    if method not in per_method:
        raise UserError(f"There is no method {method!r}: use one of {', '.join(METHODS)}.")
    settings = {"preset": name, **base, **per_method[method], **changes}
    trained = settings.get("trained", Config.trained)
    return Config(**(settings | PER_TRAINED[name].get(trained, {}) | changes))


def _check_names(settings: dict) -> None:
    known = [field.name for field in dataclasses.fields(Config)]
    for name in settings:
        check_name(str(name), known, "setting")


def _checked(field: dataclasses.Field, value):
    """`value` as the field's type: whole numbers pass as floats and lists as tuples, nothing else is converted."""
    if field.type == tuple[str, ...]:
        if isinstance(value, (list, tuple)) and all(isinstance(word, str) and word for word in value):
            return tuple(value)
        raise UserError(f"{field.name} must be a list of words, not {value!r}.")
    if field.type is float and type(value) is int:
        return float(value)
    if type(value) is not field.type:  # not isinstance: a bool would pass for an int
        raise UserError(f"{field.name} must be of type {field.type.__name__}, not {value!r}.")
    return value


def _check_ranges(config: Config) -> None:
    of = {
        "preset": tuple(PRESETS),
        "method": METHODS,
        "precision": tuple(DTYPES),
        "lr_scheduler": ("constant", "cosine"),
        "optimizer": ("adamw", "adamw8bit"),
        "trained": tuple(TRAINED),
        "class_maps": CLASS_MAPS,
    }
    for name, choices in of.items():
        if getattr(config, name) not in choices:
            raise UserError(f"There is no {name} {getattr(config, name)!r}: use one of {', '.join(choices)}.")
    at_least_one = (
        "resolution",
        "steps",
        "batch_size",
        "gradient_accumulation",
        "map_resolution",
        "prior_batch",
        "inference_steps",
        "checkpoint_every",
        "lora_rank",
    )
    for name, value in vars(config).items():
        if type(value) not in (int, float):
            continue
        if not math.isfinite(value) or value < 0:
            raise UserError(f"{name} is {value}: it must be a finite number that is not negative.")
        if name in at_least_one and value < 1:
            raise UserError(f"{name} is {value}: it must be at least 1.")
        if name in ("prior_probability", "flip_probability", "eta") and value > 1:
            raise UserError(f"{name} is {value}: it must lie between 0 and 1.")
    if config.seed >= 2**32:
        raise UserError(f"seed is {config.seed}: it must be less than 2**32, which is 4294967296.")
    if config.method != "disendiff" and config.calibration_weight > 0:
        raise UserError(
            f"{config.method} has no calibration, yet calibration_weight is {config.calibration_weight}: set it to 0,"
            f" or use config.for_method({config.method!r})."
        )
    if config.lora_alpha == 0:
        raise UserError("lora_alpha is 0, so the adapters would change nothing: choose more, such as the lora_rank.")
    if config.trained == "lora" and config.saved_rank:
        raise UserError("saved_rank is for changes that are saved as a LoRA, and this is one: set lora_rank instead.")
    if config.prior_probability == 1:
        raise UserError("prior_probability is 1, so the concept picture would never be seen: choose less than 1.")
    if config.prior_probability > 0 and config.prior_images == 0:
        raise UserError("prior_images is 0: make at least one, or set prior_probability to 0 to train without them.")
    if config.template.count("{}") != 1:
        raise UserError(
            f"The template {config.template!r} must hold {{}} once, where the concepts go: 'photo of a {{}}'."
        )
    if config.suppress_twice and not (config.suppress and config.smooth):
        raise UserError("suppress_twice squares the smoothed maps once more: leave suppress and smooth on with it.")
    if len(set(config.modifiers)) != len(config.modifiers):
        raise UserError(
            f"The modifiers {', '.join(config.modifiers)} are not all different: give each concept its own."
        )
    if len(config.initial_tokens) < len(config.modifiers):
        raise UserError("There are fewer initial_tokens than modifiers: give one rare word for each modifier.")
