"""What many tests start from: a tiny random Stable Diffusion pipeline, and an attention record without any model."""

import copy
import dataclasses
import logging
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from disendiff_lite.attention_record import AttentionRecord
from disendiff_lite.single_file import assemble
from disendiff_lite.tokens import PROMPT_LENGTH, clip_tokenizer

# A shell that starts the tests in the background lets them ignore Ctrl-C, and what they start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

WIDTH = 32  # channels of the text encoder's output


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The notebooks come first, so that none of them begins when the other processes are done."""
    items.sort(key=lambda item: item.get_closest_marker("notebook") is None)


@pytest.fixture(autouse=True)
def same_random_numbers() -> None:
    """Each test draws the same numbers whenever it is run, whichever ran before it."""
    torch.manual_seed(0)


def build_unet(**changes) -> UNet2DConditionModel:
    """A UNet for (B, 4, 16, 16) latents: cross-attention with 2 heads in 3 layers at 16x16 and in 4 at 8x8.

    changes: other settings of UNet2DConditionModel, for example those of SD 2.x.
    """
    settings = dict(
        sample_size=16,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(16, 32),
        layers_per_block=1,
        norm_num_groups=8,
        attention_head_dim=2,  # in diffusers' conditional UNets this is the number of heads
        cross_attention_dim=WIDTH,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return UNet2DConditionModel(**(settings | changes)).eval()


def build_pipe() -> StableDiffusionPipeline:
    """The whole pipeline, for 64 px pictures, in float32 on the CPU; the weights are the same in each build."""
    tokenizer = clip_tokenizer()
    with torch.random.fork_rng():
        torch.manual_seed(1)
        text_encoder = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(tokenizer),
                hidden_size=WIDTH,
                intermediate_size=2 * WIDTH,
                num_hidden_layers=2,
                num_attention_heads=2,
                max_position_embeddings=PROMPT_LENGTH,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        ).eval()
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            block_out_channels=(8, 16, 16),  # two halvings: 64 px to 16x16 latents
            norm_num_groups=8,
            latent_channels=4,
            sample_size=64,
        ).eval()
    return assemble(vae, text_encoder, build_unet(), tokenizer)


@pytest.fixture(scope="session", autouse=True)
def cache_of_the_session(tmp_path_factory):
    """What is made for several tests does not go into the cache of this machine's user, nor come from it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISENDIFF_LITE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache for each test."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("DISENDIFF_LITE_CACHE", str(folder))
    return folder


@pytest.fixture(scope="session")
def new_tiny_pipe() -> Callable[[], StableDiffusionPipeline]:
    """A function that gives a fresh copy of the tiny pipeline each time, for tests that compare several runs."""
    original = build_pipe()

    def copy_of_it() -> StableDiffusionPipeline:
        components = {name: copy.deepcopy(part) for name, part in original.components.items()}
        pipe = StableDiffusionPipeline(**components, requires_safety_checker=False)
        pipe.set_progress_bar_config(disable=True)
        return pipe

    return copy_of_it


@pytest.fixture
def tiny_pipe(new_tiny_pipe: Callable[[], StableDiffusionPipeline]) -> StableDiffusionPipeline:
    """One fresh copy of the tiny pipeline, to change at will."""
    return new_tiny_pipe()


@pytest.fixture
def library_warnings() -> Iterator[list[str]]:
    """What diffusers and transformers say in their logs, which pytest does not see by itself."""
    said = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())
    loggers = [logging.getLogger(name) for name in ("diffusers", "transformers")]
    for logger in loggers:
        logger.addHandler(handler)
    yield said
    for logger in loggers:
        logger.removeHandler(handler)


@pytest.fixture(scope="session")
def tiny_unet() -> Callable[..., UNet2DConditionModel]:
    """build_unet as a fixture: a tiny UNet, with the given settings changed."""
    return build_unet


@pytest.fixture(scope="session")
def new_record() -> Callable[..., AttentionRecord]:
    """A function that gives an attention record of made-up maps on two grids of different layers and heads.

    seed: of the maps. changes: fields to replace.
    """

    def make(seed: int = 0, **changes) -> AttentionRecord:
        random = np.random.default_rng(seed)
        words = ("a", "<new1>", "cat", "and", "a", "dog")
        sizes = {"16x16": (5, 3, 4, len(words), 16, 16), "8x8": (5, 2, 2, len(words), 8, 8)}
        record = AttentionRecord(
            prompt=" ".join(words),
            words=words,
            positions=tuple(range(1, 7)),
            roles=("", "modifier", "class", "", "", "class"),
            times=(900, 700, 500, 300, 100),
            picture=random.integers(0, 256, (64, 64, 3), dtype=np.uint8),
            layers={
                grid: tuple(f"up_blocks.{n}.transformer_blocks.0.attn2" for n in range(size[1]))
                for grid, size in sizes.items()
            },
            maps={grid: (random.random(size) ** 4 * 0.4).astype(np.float16) for grid, size in sizes.items()},
        )
        return dataclasses.replace(record, **changes)

    return make
