"""What the training sees: the augmentation's cases and chances, prior pictures, and latents."""

import dataclasses
import shutil

import pytest
import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny
from PIL import Image

from disendiff_lite.config import emoji
from disendiff_lite.data import (
    FAR_PREFIXES,
    NEAR_PREFIXES,
    LatentEncoder,
    PriorImages,
    TrainingData,
    augment,
    possible_captions,
)
from disendiff_lite.runs.prior import load_prior, make_prior
from disendiff_lite.support.errors import UserError
from disendiff_lite.support.images import centre_square, load_image, to_tensor

CAPTION = "photo of a <new1> cat and <new2> dog"
CONFIG = emoji(
    augment=True, prior_probability=0.5, prior_images=5, prior_batch=2, inference_steps=2, flip_probability=0.0
)
CELL = 4  # px


@pytest.fixture
def image():
    """Left half red, right half bright grey: nothing in it is the mid-grey of the canvas."""
    image = Image.new("RGB", (96, 64), (255, 255, 255))
    image.paste((255, 0, 0), (0, 0, 48, 64))
    return image


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def draws(image, count, config=CONFIG):
    generator = seeded()
    return [augment(image, CAPTION, config, CELL, generator) for _ in range(count)]


def canvas(sample):
    return (sample.pixels == 0).all(dim=0)  # (64, 64)


def test_cases_come_with_their_chances(image):
    samples = draws(image, 900)
    prefixes = [sample.caption.removesuffix(CAPTION) for sample in samples]
    share = {prefix: prefixes.count(prefix) / len(samples) for prefix in set(prefixes)}
    assert set(share) == {"", *FAR_PREFIXES, *NEAR_PREFIXES}
    # Of scales uniform in [s/3, s], 2/3 of all, those below 0.6 s are 0.4 of them.
    assert sum(share[prefix] for prefix in FAR_PREFIXES) == pytest.approx(2 / 3 * 0.4, abs=0.05)
    assert sum(share[prefix] for prefix in NEAR_PREFIXES) == pytest.approx(1 / 3, abs=0.05)
    assert share[FAR_PREFIXES[0]] == pytest.approx(share[FAR_PREFIXES[1]], abs=0.05)
    assert all(sample.is_concept for sample in samples)


def test_only_pictures_that_come_again_are_named(image):
    samples = draws(image, 200, dataclasses.replace(CONFIG, flip_probability=0.5))
    named = {flipped: [s for s in samples if s.key == ("concept", flipped)] for flipped in (False, True)}
    for same in named.values():
        assert len(same) > 5 and all(torch.equal(sample.pixels, same[0].pixels) for sample in same)
    assert torch.equal(named[True][0].pixels, named[False][0].pixels.flip(2))
    assert all((sample.key is None) == (sample.caption != CAPTION) for sample in samples)


def test_small_pictures_count_inside_their_border_only(image):
    sides, tops = set(), set()
    for sample in draws(image, 400):
        if not sample.caption.startswith(FAR_PREFIXES):
            assert sample.mask.shape == (1, 16, 16) and sample.mask.all()
            assert not canvas(sample).any()
            continue
        rows, columns = (~canvas(sample)).nonzero(as_tuple=True)
        top, left, side = rows.min().item(), columns.min().item(), rows.max().item() - rows.min().item() + 1
        assert len(rows) == side * side  # a filled square
        assert 64 / 3 - 1 <= side < 0.6 * 64
        counted = sample.mask[0].nonzero()
        first = torch.tensor([top // CELL + 1, left // CELL + 1])
        last = torch.tensor([(top + side) // CELL - 2, (left + side) // CELL - 2])
        assert torch.equal(counted.min(dim=0).values, first) and torch.equal(counted.max(dim=0).values, last)
        # Every pixel of a counted cell is picture, not canvas.
        pixels = sample.mask[0].repeat_interleave(CELL, 0).repeat_interleave(CELL, 1).bool()
        assert not (canvas(sample) & pixels).any()
        sides.add(side)
        tops.add(top)
    assert len(sides) > 10 and min(tops) < 5 and max(tops) > 30


def test_large_pictures_are_cropped(image):
    near = [sample for sample in draws(image, 200) if sample.caption.startswith(NEAR_PREFIXES)]
    edges = {(sample.pixels[1, 0] < 0).sum().item() for sample in near}  # red columns: where the crop lies
    assert all(sample.pixels.shape == (3, 64, 64) for sample in near)
    assert len(edges) > 10


def test_without_augmentation_only_the_flip_is_left(image):
    plain = draws(image, 20, dataclasses.replace(CONFIG, augment=False))
    assert all(torch.equal(sample.pixels, to_tensor(centre_square(image, 64))) for sample in plain)
    assert {sample.caption for sample in plain} == {CAPTION}
    flipping = draws(image, 200, dataclasses.replace(CONFIG, augment=False, flip_probability=0.5))
    flipped = [torch.equal(sample.pixels, plain[0].pixels.flip(2)) for sample in flipping]
    assert sum(flipped) / len(flipped) == pytest.approx(0.5, abs=0.12)


def test_the_same_seed_draws_the_same(image):
    for first, second in zip(draws(image, 20), draws(image, 20)):
        assert torch.equal(first.pixels, second.pixels) and first.caption == second.caption


def test_possible_captions_are_the_ones_drawn(image):
    assert {sample.caption for sample in draws(image, 300)} == set(possible_captions(CAPTION, CONFIG))
    assert possible_captions(CAPTION, dataclasses.replace(CONFIG, augment=False)) == [CAPTION]


def test_odd_resolutions_keep_at_least_one_cell(image):
    config = dataclasses.replace(CONFIG, resolution=16)
    assert all(sample.mask.sum() >= 1 for sample in draws(image, 200, config))


def test_prior_pictures_come_with_their_chance(image):
    prior = PriorImages("a cat and a dog", [Image.new("RGB", (64, 64), (shade, 0, 0)) for shade in (10, 20, 30)])
    data = TrainingData(image, CAPTION, prior, dataclasses.replace(CONFIG, flip_probability=0.5), CELL)
    generator = seeded()
    samples = [data.draw(generator) for _ in range(400)]
    plain = [sample for sample in samples if not sample.is_concept]
    assert len(plain) / len(samples) == pytest.approx(0.5, abs=0.08)
    assert {sample.caption for sample in plain} == {"a cat and a dog"}
    assert {sample.key for sample in plain} == {(index, flip) for index in range(3) for flip in (False, True)}
    assert all(sample.mask.all() for sample in plain)


def test_kept_latents_are_those_of_a_fresh_encoding(tiny_pipe, image):
    prior = PriorImages("a cat and a dog", [centre_square(image, 64)])
    data = TrainingData(image, CAPTION, prior, dataclasses.replace(CONFIG, prior_probability=0.9), CELL)
    generator = seeded()
    samples = [data.draw(generator) for _ in range(4)]
    encoder = LatentEncoder(tiny_pipe)
    first = encoder.batch(samples, seeded(1))
    assert first.latents.shape == (4, 4, 16, 16) and first.mask.shape == (4, 1, 16, 16)
    assert len(encoder.kept) == 1
    assert torch.equal(encoder.batch(samples, seeded(1)).latents, first.latents)
    assert not torch.equal(encoder.batch(samples, seeded(2)).latents, first.latents)
    # As diffusers scales them, up to the spread of the VAE's Gaussian.
    gaussian = tiny_pipe.vae.encode(samples[0].pixels[None]).latent_dist
    apart = (first.latents[:1] / tiny_pipe.vae.config.scaling_factor - gaussian.mean).abs()
    assert (apart <= 6 * gaussian.std).all()


def test_a_vae_without_a_gaussian(tiny_pipe, image):
    tiny_pipe.vae = AutoencoderTiny(
        encoder_block_out_channels=(8, 8, 8),
        decoder_block_out_channels=(8, 8, 8),
        num_encoder_blocks=(1, 1, 1),
        num_decoder_blocks=(1, 1, 1),
    ).eval()
    sample = augment(image, CAPTION, dataclasses.replace(CONFIG, augment=False), CELL, seeded())
    latents = LatentEncoder(tiny_pipe).batch([sample], seeded()).latents
    expected = tiny_pipe.vae.encode(sample.pixels[None]).latents * tiny_pipe.vae.config.scaling_factor
    assert torch.equal(latents, expected)


def test_prior_pictures_are_made_once_and_made_again_alike(tiny_pipe, tmp_path, cache):
    calls = []
    made = make_prior(tiny_pipe, ["cat", "dog"], CONFIG, tmp_path, progress=lambda *counts: calls.append(counts))
    assert made.caption == "a cat and a dog"
    assert calls == [(2, 5), (4, 5), (5, 5)]
    files = sorted(tmp_path.glob("*.png"))
    contents = [file.read_bytes() for file in files]
    assert len(files) == len(made.pictures) == 5 and len(set(contents)) == 5
    files[1].unlink()
    files[4].unlink()
    times = files[2].stat().st_mtime_ns
    shutil.rmtree(cache / "class-pictures")
    make_prior(tiny_pipe, ["cat", "dog"], CONFIG, tmp_path)
    assert [file.read_bytes() for file in files] == contents
    assert files[2].stat().st_mtime_ns == times
    in_memory = make_prior(tiny_pipe, ["cat", "dog"], CONFIG)
    assert [picture.tobytes() for picture in in_memory.pictures] == [load_image(file).tobytes() for file in files]


def test_prior_pictures_of_another_kind_are_refused(tiny_pipe, tmp_path):
    make_prior(tiny_pipe, ["cat", "dog"], CONFIG, tmp_path)
    with pytest.raises(UserError, match="made with another caption: delete them or choose another folder"):
        make_prior(tiny_pipe, ["cat", "cow"], CONFIG, tmp_path)
    with pytest.raises(UserError, match="another seed"):
        make_prior(tiny_pipe, ["cat", "dog"], dataclasses.replace(CONFIG, seed=1), tmp_path)
    with torch.no_grad():
        next(p for name, p in tiny_pipe.unet.named_parameters() if "attn2.to_k" in name).add_(1)
    with pytest.raises(UserError, match="another model"):
        make_prior(tiny_pipe, ["cat", "dog"], CONFIG, tmp_path)


def test_making_prior_pictures_leaves_the_pipeline_as_it_was(tiny_pipe):
    scheduler = tiny_pipe.scheduler
    before = torch.get_rng_state()
    make_prior(tiny_pipe, ["cat"], dataclasses.replace(CONFIG, prior_images=1))
    assert tiny_pipe.scheduler is scheduler
    assert torch.equal(torch.get_rng_state(), before)


def test_a_folder_of_ones_own(tmp_path, image):
    image.save(tmp_path / "b.png")
    image.convert("L").save(tmp_path / "a.jpg")
    (tmp_path / "notes.txt").write_text("not a picture")
    prior = load_prior(tmp_path, ["cat", "dog"], CONFIG)
    assert [picture.size for picture in prior.pictures] == [(64, 64)] * 2
    assert prior.caption == "a cat and a dog"


def test_folders_that_will_not_do(tmp_path):
    with pytest.raises(UserError, match="no folder .* of class pictures"):
        load_prior(tmp_path / "none", ["cat"], CONFIG)
    with pytest.raises(UserError, match="holds no pictures"):
        load_prior(tmp_path, ["cat"], CONFIG)
    (tmp_path / "a.png").write_text("not a picture")
    with pytest.raises(UserError, match="as a picture"):
        load_prior(tmp_path, ["cat"], CONFIG)


def test_masks_go_where_the_picture_goes(image):
    left = Image.new("L", image.size)
    left.paste(255, (0, 0, image.width // 2, image.height))
    marked = Image.composite(Image.new("RGB", image.size, "white"), Image.new("RGB", image.size), left)
    generator = seeded()
    kinds = set()
    for _ in range(60):
        sample = augment(marked, CAPTION, CONFIG, 8, generator, [left])
        white = F.adaptive_avg_pool2d((sample.pixels.mean(dim=0, keepdim=True) > 0.5).float(), CONFIG.map_resolution)
        assert (sample.objects - white).abs().mean() < 0.05
        kinds.add(sample.caption)
    assert len(kinds) == 5  # all the ways to place it
    assert augment(marked, CAPTION, CONFIG, 8, generator).objects is None


def test_a_bank_of_augmented_views_is_encoded_once(tiny_pipe, image):
    config = dataclasses.replace(CONFIG, augment=True, augmented_views=3, prior_probability=0.0)
    data, encoder = TrainingData(image, CAPTION, None, config, CELL), LatentEncoder(tiny_pipe)
    encoded = []
    tiny_pipe.vae.encoder.register_forward_hook(lambda *_: encoded.append(1))
    generator, by_key = seeded(), {}
    for _ in range(40):
        sample = data.draw(generator)
        encoder.batch([sample], generator)
        first = by_key.setdefault(sample.key, sample)
        assert torch.equal(sample.pixels, first.pixels) and sample.caption == first.caption
        assert torch.equal(sample.mask, first.mask)
    assert len(encoded) == len(by_key) <= 3 and None not in by_key
    other = TrainingData(image, CAPTION, None, dataclasses.replace(config, seed=1), CELL)
    assert not {one.pixels.sum().item() for one in by_key.values()} >= {
        other.draw(generator).pixels.sum().item() for _ in range(9)
    }
    each_new = TrainingData(image, CAPTION, None, dataclasses.replace(config, augmented_views=0), CELL)
    assert None in {each_new.draw(generator).key for _ in range(10)}


def test_a_bank_plays_no_part_without_augmentation(image):
    plain, bank = (
        TrainingData(image, CAPTION, None, dataclasses.replace(CONFIG, prior_probability=0.0, **changes), CELL)
        for changes in ({"augment": False}, {"augment": False, "augmented_views": 3})
    )
    assert all(torch.equal(plain.draw(a).pixels, bank.draw(b).pixels) for a, b in [(seeded(), seeded())] * 3)
