"""What the training sees: the one concept picture in many sizes and places, and pictures of the plain classes.

The augmentation is that of the published code. A picture made small or large says so in its caption ("a far away
photo of a ..."), and where it is pasted on an empty canvas only the pasted area counts for the loss: so the model
learns the concepts and not the canvas. Pictures of the plain classes (prior preservation) keep "a cat" from
drifting towards this one cat.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from diffusers import StableDiffusionPipeline
from PIL import Image, ImageOps

from disendiff_lite.config import Config
from disendiff_lite.sampling import picture_seeds
from disendiff_lite.support.images import centre_square, to_tensor

SHRINK_CHANCE = 2 / 3  # of a scale in SHRINK_RANGE; else it is in ENLARGE_RANGE
SHRINK_RANGE = (1 / 3, 1.0)  # times the resolution
ENLARGE_RANGE = (1.2, 1.4)
PASTE_BELOW = 0.6  # times the resolution: below it, pasted on an empty canvas; from here to 1 nothing changes
FAR_PREFIXES = ("a far away ", "very small ")
NEAR_PREFIXES = ("zoomed in ", "close up ")


@dataclass(frozen=True)
class Sample:
    """One training picture.

    pixels: (3, resolution, resolution) in [-1, 1].
    mask: (1, h, w) in latent cells, 1 where the loss counts, else 0.
    caption: its prompt.
    is_concept: whether the caption holds the modifiers.
    objects: (N, r, r) in [0, 1], the concepts' true masks in cells of the calibrated maps; None where not known.
    key: names a picture that comes again unchanged, so that its latents can be kept; None for one that does not.
    """

    pixels: torch.Tensor
    mask: torch.Tensor
    caption: str
    is_concept: bool
    objects: torch.Tensor | None = None
    key: tuple | None = None


@dataclass(frozen=True)
class Batch:
    """A micro-batch: latents (B, C, h, w), already scaled; mask (B, 1, h, w); the rest as of B Samples."""

    latents: torch.Tensor
    mask: torch.Tensor
    captions: list[str]
    is_concept: list[bool]
    objects: list[torch.Tensor | None]


@dataclass(frozen=True)
class PriorImages:
    """Square RGB pictures of the plain classes, all with one caption, such as "a cat and a dog"."""

    caption: str
    pictures: list[Image.Image]


def augment(
    image: Image.Image,
    caption: str,
    config: Config,
    cell: int,
    generator: torch.Generator,
    masks: Sequence[Image.Image] = (),
) -> Sample:
    """The concept picture at a random scale and place (method, "Training recipe as published").

    It is cut to its centre square, flipped with `config.flip_probability`, and, with `config.augment`, scaled. Let s
    be the resolution. With chance 2/3 the scale is uniform in [s/3, s], else in [1.2 s, 1.4 s]. Below 0.6 s: pasted at
    a random place on mid-grey (0), loss on the pasted cells one cell in from the border. Above s: a random crop.
    Between: the picture as it is.

    image: RGB, any size. caption: of the picture; the first two cases put a prefix before it.
    cell: side of a latent cell in pixels. generator: on the CPU. masks: of the concepts, in grey and of the picture's
    size; they go where the picture goes, into the sample's objects.
    """
    size = config.resolution
    flipped = _chance(config.flip_probability, generator)
    layers = [ImageOps.mirror(layer) if flipped else layer for layer in (image, *masks)]
    scale = _draw_scale(size, generator) if config.augment else size
    cells = size // cell
    if scale < PASTE_BELOW * size:
        top, left = (_integer(0, size - scale, generator) for _ in range(2))
        pixels = torch.zeros(3 + len(masks), size, size)
        pixels[:, top : top + scale, left : left + scale] = _stacked(layers, scale)
        mask = torch.zeros(1, cells, cells)
        mask[:, _inner_cells(top, scale, cell), _inner_cells(left, scale, cell)] = 1.0
        return _sample(pixels, mask, _pick(FAR_PREFIXES, generator) + caption, config)
    whole = torch.ones(1, cells, cells)
    if scale > size:
        top, left = (_integer(0, scale - size, generator) for _ in range(2))
        pixels = _stacked(layers, scale)[:, top : top + size, left : left + size]  # (3 + N, size, size)
        return _sample(pixels, whole, _pick(NEAR_PREFIXES, generator) + caption, config)
    return _sample(_stacked(layers, size), whole, caption, config, key=("concept", flipped))


def possible_captions(caption: str, config: Config) -> list[str]:
    """Every caption that `augment` can give the concept picture, the plain one first."""
    prefixes = ("", *FAR_PREFIXES, *NEAR_PREFIXES) if config.augment else ("",)
    return [prefix + caption for prefix in prefixes]


@dataclass
class TrainingData:
    """Draws samples: with `config.prior_probability` one of the prior pictures, else the augmented concept picture.

    cell: side of a latent cell in pixels. prior may be None if its probability is 0. masks: as for `augment`.
    """

    image: Image.Image
    caption: str
    prior: PriorImages | None
    config: Config
    cell: int
    masks: Sequence[Image.Image] = ()

    def draw(self, generator: torch.Generator) -> Sample:
        """One random sample; all its randomness comes from `generator`, on the CPU."""
        if not _chance(self.config.prior_probability, generator):
            return self._view(generator)
        index = _integer(0, len(self.prior.pictures) - 1, generator)
        flipped = _chance(self.config.flip_probability, generator)
        picture = self.prior.pictures[index]
        pixels = to_tensor(ImageOps.mirror(picture) if flipped else picture)
        cells = self.config.resolution // self.cell
        return Sample(pixels, torch.ones(1, cells, cells), self.prior.caption, is_concept=False, key=(index, flipped))

    def _view(self, generator: torch.Generator) -> Sample:
        """The concept picture, augmented anew or, with `augmented_views`, as one of so many views that come again."""
        key = None
        if self.config.augment and self.config.augmented_views:
            index = _integer(0, self.config.augmented_views - 1, generator)
            key = ("view", index)
            seeds = picture_seeds(self.config.seed, self.config.augmented_views)
            generator = torch.Generator().manual_seed(seeds[index])  # its own, whenever it is drawn
        sample = augment(self.image, self.caption, self.config, self.cell, generator, self.masks)
        return replace(sample, key=sample.key or key)


@dataclass
class LatentEncoder:
    """Turns samples into the latents that the UNet sees, and keeps the statistics of pictures that come again.

    Each picture is encoded on its own, so that a kept one and a fresh one are the same to the last bit.
    """

    pipe: StableDiffusionPipeline
    dtype: torch.dtype | None = None  # of the latents; None is that of the VAE
    kept: dict[tuple, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)

    def batch(self, samples: Sequence[Sample], generator: torch.Generator) -> Batch:
        """The samples as one micro-batch on the pipeline's device; latents are drawn from the VAE's Gaussian."""
        device = self.pipe.unet.device
        latents = [self._draw(sample, generator) for sample in samples]  # each (1, C, h, w)
        return Batch(
            torch.cat(latents).to(device) * self.pipe.vae.config.scaling_factor,
            torch.stack([sample.mask for sample in samples]).to(device),
            [sample.caption for sample in samples],
            [sample.is_concept for sample in samples],
            [sample.objects for sample in samples],
        )

    def _draw(self, sample: Sample, generator: torch.Generator) -> torch.Tensor:
        mean, deviation = self.kept.get(sample.key) or self._encode(sample.pixels)
        if sample.key is not None:
            self.kept[sample.key] = (mean, deviation)
        noise = torch.randn(mean.shape, generator=generator)  # on the CPU: the same on every device
        return mean + deviation * noise.to(mean)

    @torch.no_grad()
    def _encode(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        vae = self.pipe.vae
        encoded = vae.encode(pixels[None].to(vae.device, vae.dtype))
        dtype = self.dtype or vae.dtype
        if hasattr(encoded, "latent_dist"):
            return encoded.latent_dist.mean.to(dtype), encoded.latent_dist.std.to(dtype)
        return encoded.latents.to(dtype), torch.zeros_like(encoded.latents, dtype=dtype)  # AutoencoderTiny: no Gaussian


def _stacked(layers: Sequence[Image.Image], size: int) -> torch.Tensor:
    """The picture in [-1, 1] and under it the masks in [0, 1], each as its centre square: (3 + N, size, size)."""
    picture, *masks = [to_tensor(centre_square(layer.convert("RGB"), size)) for layer in layers]
    return torch.cat([picture, *(mask[:1] / 2 + 0.5 for mask in masks)])


def _sample(
    stacked: torch.Tensor, mask: torch.Tensor, caption: str, config: Config, key: tuple | None = None
) -> Sample:
    pixels, masks = stacked[:3], stacked[3:]
    objects = F.adaptive_avg_pool2d(masks, config.map_resolution) if len(masks) else None  # (N, r, r)
    return Sample(pixels, mask, caption, is_concept=True, objects=objects, key=key)


def _draw_scale(size: int, generator: torch.Generator) -> int:
    low, high = SHRINK_RANGE if _chance(SHRINK_CHANCE, generator) else ENLARGE_RANGE
    return _integer(round(low * size), round(high * size), generator)


def _inner_cells(start: int, length: int, cell: int) -> slice:
    """The latent cells covered by pixels [start, start + length), one cell in from the border, and at least one."""
    first, last = start // cell + 1, (start + length) // cell - 1
    return slice(first, max(last, first + 1))


def _chance(probability: float, generator: torch.Generator) -> bool:
    return torch.rand((), generator=generator).item() < probability


def _integer(low: int, high: int, generator: torch.Generator) -> int:
    """A whole number in [low, high], both ends included."""
    return int(torch.randint(low, high + 1, (), generator=generator))


def _pick(choices: Sequence[str], generator: torch.Generator) -> str:
    return choices[_integer(0, len(choices) - 1, generator)]
