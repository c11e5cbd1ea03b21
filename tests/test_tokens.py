"""Modifier tokens: new words in tokenizer and text encoder, their positions in prompts, and the prompts themselves."""

import copy

import pytest
import torch
from open_clip import get_tokenizer

from disendiff_lite.support.errors import UserError
from disendiff_lite.tokens import (
    ConceptPositions,
    add_modifiers,
    class_caption,
    clip_tokenizer,
    compose_prompt,
    find_positions,
    token_words,
)

MODIFIERS = ("<new1>", "<new2>", "<new3>")
INITIALIZERS = ("ktn", "pll", "ucd")


@pytest.fixture(scope="module")
def taught():
    """A tokenizer that knows the three modifiers."""
    tokenizer = clip_tokenizer()
    tokenizer.add_tokens(list(MODIFIERS))
    return tokenizer


@pytest.mark.parametrize(
    "text", ["photo of a cat, and Dog's 33 houses!", "café — naïve axolotl", "a 3-D 🐈 teddy bear", ""]
)
def test_clip_tokenizer_gives_open_clips_ids(text):
    tokenizer = clip_tokenizer()
    padded = tokenizer(text, padding="max_length").input_ids
    ids = [number for number in get_tokenizer("ViT-B-32")(text)[0].tolist() if number]  # open_clip pads with 0
    assert padded == ids + [49407] * (77 - len(ids))
    assert len(tokenizer) == 49408


def test_added_rows_are_copies_of_the_published_rare_tokens_and_nothing_else_changes(tiny_pipe):
    before = tiny_pipe.text_encoder.get_input_embeddings().weight.detach().clone()
    random_state = torch.get_rng_state()
    ids = add_modifiers(tiny_pipe, MODIFIERS, INITIALIZERS)
    rows = tiny_pipe.text_encoder.get_input_embeddings().weight
    assert ids == [49408, 49409, 49410]
    assert torch.equal(rows[ids], before[[42170, 47629, 43514]])
    assert torch.equal(rows[: len(before)], before)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert tiny_pipe.tokenizer("a <new2> cat").input_ids[2] == 49409
    assert tiny_pipe("a <new1> cat", num_inference_steps=1, output_type="latent").images.isfinite().all()


def test_a_common_word_as_initializer_is_the_whole_word(tiny_pipe):
    (new,) = add_modifiers(tiny_pipe, ["<new1>"], ["cat"])
    rows = tiny_pipe.text_encoder.get_input_embeddings().weight
    assert torch.equal(rows[new], rows[tiny_pipe.tokenizer("cat").input_ids[1]])


def test_a_vocabulary_with_spare_rows_is_not_cut(tiny_pipe):
    tiny_pipe.text_encoder.resize_token_embeddings(49500, mean_resizing=False)
    add_modifiers(tiny_pipe, MODIFIERS, INITIALIZERS)
    assert len(tiny_pipe.text_encoder.get_input_embeddings().weight) == 49500


@pytest.mark.parametrize(
    "modifiers, initializers, message",
    [
        (["<new1>", "cat"], ["ktn", "pll"], "'cat' is already a word"),
        (["<new1>", "<NEW1>"], ["ktn", "pll"], "'<NEW1>' is already a word"),
        (["<|endoftext|>"], ["ktn"], "already a word"),
        (["xyzzyq"], ["ktn"], "angle brackets"),
        (["<new 1>"], ["ktn"], "angle brackets"),
        ([""], ["ktn"], "angle brackets"),
        (["<new1>"], ["antidisestablishment"], "not one entry"),
        (["<new1>", "<new2>"], ["ktn"], "give each modifier one"),
    ],
)
def test_what_cannot_be_added_is_refused_and_changes_nothing(tiny_pipe, modifiers, initializers, message):
    with pytest.raises(UserError, match=message):
        add_modifiers(tiny_pipe, modifiers, initializers)
    assert len(tiny_pipe.tokenizer) == len(tiny_pipe.text_encoder.get_input_embeddings().weight) == 49408


def test_a_modifier_cannot_be_added_twice(tiny_pipe):
    add_modifiers(tiny_pipe, ["<new1>"], ["ktn"])
    with pytest.raises(UserError, match="already a word"):
        add_modifiers(tiny_pipe, ["<new1>"], ["pll"])


@pytest.mark.parametrize(
    "prompt, classes, expected",
    [
        # position 0 is the start mark
        ("photo of a <new1> cat and <new2> dog", ("cat", "dog"), [(4, (5,)), (7, (8,))]),
        ("a <new1> big red cat", ("cat",), [(2, (5,))]),
        ("a cat, <new1> cat and a <new2> cat", ("cat", "cat"), [(4, (5,)), (8, (9,))]),
        ("<new2> Dog on a <new1>cat", ("cat", "dog"), [(5, (6,)), (1, (2,))]),
        ("a <new1> teddy bear", ("teddy bear",), [(2, (3, 4))]),
        ("a <new1> axolotl", ("axolotl",), [(2, (3, 4, 5, 6))]),
    ],
)
def test_positions(taught, prompt, classes, expected):
    positions = find_positions(taught, prompt, MODIFIERS, classes)
    assert positions == [ConceptPositions(modifier, class_) for modifier, class_ in expected]


def test_the_tail_of_a_longer_word_is_not_the_class(taught):
    word, tail = "axolotl", "l"
    ids = taught(word, add_special_tokens=False).input_ids
    assert ids[-1:] == taught(tail, add_special_tokens=False).input_ids  # or this would show nothing
    (position,) = find_positions(taught, f"<new1> {word} {tail}", MODIFIERS, [tail])
    assert position.class_ == (2 + len(ids),)
    with pytest.raises(UserError, match="does not come after"):
        find_positions(taught, f"<new1> {word}", MODIFIERS, [tail])


@pytest.mark.parametrize(
    "prompt, modifiers, classes, message",
    [
        ("a <new1> cat", MODIFIERS, ["dog"], "class 'dog' does not come after <new1>"),
        ("a cat and <new1> one", MODIFIERS, ["cat"], "class 'cat' does not come after <new1>"),
        ("a <new1> cats", MODIFIERS, ["cat"], "class 'cat' does not come after <new1>"),
        ("a cat", MODIFIERS, ["cat"], "<new1> is not in the prompt"),
        ("a <new4> cat", ["<new4>"], ["cat"], "does not know the modifier <new4>"),
        ("a <new1> cat", ["<new1>"], ["cat", "dog"], "2 classes .* 1 modifiers"),
        ("a <new1> cat", MODIFIERS, [], "class name is missing"),
        ("a <new1> cat", MODIFIERS, [" "], "class name is missing"),
        ("a <new1> cat" + " very" * 80, MODIFIERS, ["cat"], "85 tokens but the text encoder reads 77"),
    ],
)
def test_prompts_that_do_not_fit_are_refused(taught, prompt, modifiers, classes, message):
    with pytest.raises(UserError, match=message):
        find_positions(taught, prompt, modifiers, classes)


@pytest.mark.parametrize(
    "prompt, classes, right",
    [
        ("photo of a <new1> and <new2> dog", ("dog", "dog"), "photo of a <new1> dog and <new2> dog"),
        ("a <new2> and <new1> Dog in rain", ("dog", "Dog"), "a <new2> Dog and <new1> Dog in rain"),
        ("a <new1>, <new2> and <new3> dog", ("dog",) * 3, "a <new1> dog, <new2> dog and <new3> dog"),
        ("<NEW1> <new2> dog dog", ("dog", "dog"), "<NEW1> dog <new2> dog dog"),
        ("a <new1> by a <new2> teddy bear", ("bear", "teddy bear"), "a <new1> bear by a <new2> teddy bear"),
        ("a <new1> by a <new2> axolotl", ("axolotl", "axolotl"), "a <new1> axolotl by a <new2> axolotl"),
    ],
)
def test_two_concepts_never_share_a_token(taught, prompt, classes, right):
    with pytest.raises(UserError, match="Two concepts share a word of the prompt") as error:
        find_positions(taught, prompt, MODIFIERS, classes)
    assert str(error.value).endswith(f"give each its own, as in {right!r}.")
    found = find_positions(taught, right, MODIFIERS, classes)  # the advice holds
    places = [place for concept in found for place in (concept.modifier, *concept.class_)]
    assert len(set(places)) == len(places)


def test_one_modifier_for_two_concepts_is_refused(taught):
    with pytest.raises(UserError, match="<new1> stands for two concepts in 'a <new1> cat and dog'"):
        find_positions(taught, "a <new1> cat and dog", ["<new1>", "<new1>"], ["cat", "dog"])


def test_a_prompt_of_just_77_tokens_is_fine(taught):
    prompt = "<new1> cat" + " very" * 73
    assert len(taught(prompt).input_ids) == 77
    assert find_positions(taught, prompt, MODIFIERS, ["cat"]) == [ConceptPositions(1, (2,))]


def test_words_are_readable(taught):
    prompt = "photo of a <new1> cat and <new2> dog"
    assert token_words(taught, prompt) == ["[start]", *prompt.split(), "[end]"]
    assert token_words(taught, "a hovercraft")[2:-1] == ["hover", "craft"]


@pytest.mark.parametrize(
    "prompt, expected",
    [
        ("a 猫 and a teddy bear", ["a", "猫 1/3", "猫 2/3", "猫 3/3", "and", "a", "teddy", "bear"]),
        ("café naïve", ["café", "na", "ï", "ve"]),
        ("a 🐈 <é猫>!", ["a", "🐈 1/2", "🐈 2/2", "<é猫>", "!"]),
        ("👩\u200d👧 ❤\ufe0f", ["👩", "👧 1/2", "👧 2/2", "❤"]),  # what joins or colours emoji is not seen
    ],
)
def test_letters_of_several_tokens_are_readable(prompt, expected):
    original = clip_tokenizer()
    original.add_tokens(["<é猫>"])
    for tokenizer in (original, copy.deepcopy(original)):  # a copy decodes otherwise
        assert token_words(tokenizer, prompt) == ["[start]", *expected, "[end]"]


def test_composed_prompts():
    assert compose_prompt(["cat", "dog"], MODIFIERS) == "photo of a <new1> cat and <new2> dog"
    assert compose_prompt(["cat"], MODIFIERS, "a drawing of {} at night") == "a drawing of <new1> cat at night"
    assert compose_prompt(["cat", "dog", "pig"], MODIFIERS) == "photo of a <new1> cat, <new2> dog and <new3> pig"
    with pytest.raises(UserError, match="must hold {} once"):
        compose_prompt(["cat"], MODIFIERS, "a drawing")
    with pytest.raises(UserError, match="2 classes"):
        compose_prompt(["cat", "dog"], ["<new1>"])


def test_class_captions():
    assert class_caption(["cat", "dog"]) == "a cat and a dog"
    assert class_caption(["owl", "teddy bear", "pig"]) == "an owl, a teddy bear and a pig"
    with pytest.raises(UserError):
        class_caption([])
