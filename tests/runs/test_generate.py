"""Pictures from the tiny pipeline: the same for a seed whatever they are made with, and the set that shows what was
learned.
"""

import math

import numpy as np
import pytest
import torch

from disendiff_lite.config import emoji
from disendiff_lite.runs.generate import draw_pictures, generate, generate_set, prompt_set
from disendiff_lite.sampling import picture_seeds
from disendiff_lite.support.errors import UserError
from disendiff_lite.tokens import add_modifiers

CONFIG = emoji(inference_steps=3)
MODIFIERS = ("<new1>", "<new2>", "<new3>")


def difference(first, second) -> int:
    """Levels of 256 by which two lists of pictures differ at most."""
    assert len(first) == len(second)
    return max(int(np.abs(np.asarray(a, int) - np.asarray(b, int)).max()) for a, b in zip(first, second))


def test_a_picture_depends_on_its_seed_and_number_alone(tiny_pipe):
    together = generate(tiny_pipe, "a cat", count=4, seed=5, config=CONFIG)
    assert [picture.size for picture in together] == [(64, 64)] * 4
    assert difference(together, generate(tiny_pipe, "a cat", count=4, seed=5, config=CONFIG)) == 0
    assert difference(together, generate(tiny_pipe, "a cat", count=4, seed=5, config=CONFIG, batch_size=1)) <= 1
    assert difference(together[:3], generate(tiny_pipe, "a cat", count=3, seed=5, config=CONFIG, batch_size=2)) <= 1
    assert difference(together[:1], together[1:2]) > 10
    assert difference(together, generate(tiny_pipe, "a cat", count=4, seed=6, config=CONFIG)) > 10


def test_the_settings_give_the_seed_if_none_is_named(tiny_pipe):
    config = emoji(inference_steps=2, seed=9)
    assert (
        difference(generate(tiny_pipe, "a cat", config=config), generate(tiny_pipe, "a cat", seed=9, config=config))
        == 0
    )


def test_neighbouring_seeds_share_no_picture():
    seeds = [seed for base in range(50) for seed in picture_seeds(base, 20)]
    assert len(set(seeds)) == len(seeds)


def test_progress_counts_the_pictures(tiny_pipe):
    calls = []
    generate(
        tiny_pipe,
        "a",
        count=5,
        config=emoji(inference_steps=1),
        batch_size=2,
        progress=lambda *call: calls.append(call),
    )
    assert calls == [(2, 5), (4, 5), (5, 5)]


def test_an_unknown_modifier_a_long_prompt_or_a_negative_seed_is_refused(tiny_pipe):
    with pytest.raises(UserError, match="<new1>"):
        generate(tiny_pipe, "photo of a <new1> cat", config=CONFIG)
    with pytest.raises(UserError, match="77"):
        generate(tiny_pipe, "cat " * 80, config=CONFIG)
    with pytest.raises(UserError, match="-1"):
        generate(tiny_pipe, "a cat", seed=-1, config=CONFIG)


@pytest.mark.parametrize(
    "change, words", [({"resolution": 60}, "not a multiple of 8"), ({"inference_steps": 1000}, "at most 999")]
)
def test_settings_that_the_model_cannot_sample_with_are_refused(tiny_pipe, change, words):
    with pytest.raises(UserError, match=words):
        generate(tiny_pipe, "a cat", config=emoji(**change))


def test_a_negative_prompt_leads_away_from_something(tiny_pipe):
    def drawn(**changes):
        return generate(tiny_pipe, "a cat", count=2, seed=5, config=CONFIG, **changes)

    plain = drawn()
    assert difference(plain, drawn(negative_prompt="")) == 0
    assert difference(drawn(negative_prompt="a dog"), drawn(negative_prompt="a dog")) == 0
    assert difference(plain, drawn(negative_prompt="a dog")) > 0
    assert difference(drawn(negative_prompt="a dog"), drawn(negative_prompt="a pig")) > 0
    with pytest.raises(UserError, match="guidance_scale is 1.0, .* a negative prompt would do nothing: choose more"):
        generate(tiny_pipe, "a cat", config=emoji(guidance_scale=1.0), negative_prompt="a dog")
    with pytest.raises(UserError, match="<new1>"):
        generate(tiny_pipe, "a cat", config=CONFIG, negative_prompt="a <new1> dog")
    with pytest.raises(UserError, match="77"):
        generate(tiny_pipe, "a cat", config=CONFIG, negative_prompt="dog " * 80)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_a_picture_without_numbers_is_an_error_not_a_black_one(tiny_pipe, part):
    scheduler = tiny_pipe.scheduler
    with torch.no_grad():
        for weight in getattr(tiny_pipe, part).parameters():
            weight.fill_(math.nan)
    with pytest.raises(UserError, match="The picture of 'a cat' is not made of numbers: train with a smaller"):
        generate(tiny_pipe, "a cat", config=CONFIG)
    assert tiny_pipe.scheduler is scheduler


def test_one_broken_picture_of_several_is_named(tiny_pipe, monkeypatch):
    (new,) = add_modifiers(tiny_pipe, MODIFIERS[:1], ("ktn",))
    with torch.no_grad():
        tiny_pipe.text_encoder.get_input_embeddings().weight[new] = math.inf
    with pytest.raises(UserError, match="The picture of 'a <new1> cat' is not made of numbers"):
        list(draw_pictures(tiny_pipe, ["a cat", "a <new1> cat"], picture_seeds(0, 2), CONFIG))


def test_the_prompts_of_two_concepts():
    requests = prompt_set(("cat", "dog"), MODIFIERS, {"on the beach": "photo of a {} on the beach"})
    assert {name: (request.kind, request.prompt, request.concepts) for name, request in requests.items()} == {
        "combined": ("combined", "photo of a <new1> cat and <new2> dog", (0, 1)),
        "cat": ("independent", "photo of a <new1> cat", (0,)),
        "dog": ("independent", "photo of a <new2> dog", (1,)),
        "combined, on the beach": ("editing", "photo of a <new1> cat and <new2> dog on the beach", (0, 1)),
        "cat, on the beach": ("editing", "photo of a <new1> cat on the beach", (0,)),
        "dog, on the beach": ("editing", "photo of a <new2> dog on the beach", (1,)),
    }


def test_the_names_of_one_three_and_equal_concepts():
    assert list(prompt_set(("cat",), MODIFIERS, {})) == ["cat"]
    assert list(prompt_set(("cat", "dog", "car"), MODIFIERS, {})) == [
        "combined",
        *("cat and dog", "cat and car", "dog and car"),
        *("cat", "dog", "car"),
    ]
    three = prompt_set(("dog", "cat", "dog"), MODIFIERS, {"far": "a far {}"})
    assert [*three][1:7] == ["dog 1 and cat", "dog 1 and dog 2", "cat and dog 2", "dog 1", "cat", "dog 2"]
    assert three["dog 1 and dog 2"].prompt == "photo of a <new1> dog and <new3> dog"
    assert [*three][7:] == ["combined, far", "dog 1, far", "cat, far", "dog 2, far"]
    assert len(prompt_set(("cat", "dog"), MODIFIERS)) == 12
    with pytest.raises(UserError, match="modifiers"):
        prompt_set(("cat", "dog"), ("<new1>",))


def test_the_set_is_the_pictures_of_its_prompts(tiny_pipe):
    add_modifiers(tiny_pipe, MODIFIERS[:2], ("ktn", "pll"))
    result = generate_set(
        tiny_pipe, ("cat", "dog"), MODIFIERS, CONFIG, count=2, seed=3, contexts={"far": "a far {}"}, batch_size=5
    )
    assert list(result) == ["combined", "cat", "dog", "combined, far", "cat, far", "dog, far"]
    for made in result.values():
        alone = generate(tiny_pipe, made.request.prompt, count=2, seed=3, config=CONFIG)
        assert difference(made.pictures, alone) <= 1
