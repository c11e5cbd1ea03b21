"""The tokens' files: each token has one of its own, on every disk, or is refused before the training."""

import numpy as np
import pytest
from PIL import Image

from disendiff_lite.config import emoji
from disendiff_lite.runs.learned import embedding_files, load_learned, save_learned
from disendiff_lite.runs.train import train
from disendiff_lite.support.errors import UserError
from disendiff_lite.tokens import add_modifiers

IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
QUICK = dict(steps=1, batch_size=1, prior_probability=0.0)


@pytest.mark.parametrize(
    "modifiers, words",
    [
        (("<v1.0>", "<v10>"), "<v10> would share the file v10.safetensors with <v1.0>: choose another"),
        (("<Cat's>", "<cats>"), "<cats> would share the file cats.safetensors with <Cat's>"),
        (("<straße>", "<STRASSE>"), "would share the file STRASSE.safetensors with <straße>"),
        (("<caf\u00e9>", "<caf\u00c9!>"), "would share the file"),
        (("<\u1100\u1161>", "<\uac00>"), "would share the file"),  # one Korean syllable, in two pieces and in one
        (("<कि>", "<का>"), "would share the file"),
        (("<*>", "<dog>"), "<\\*> has no letter or digit that could name its file"),
        (("<🐈>",), "has no letter or digit"),
        (("<checkpoint>",), "would have the file checkpoint.safetensors, which the run needs for something else"),
        (("<Pytorch_LoRA_weights>",), "which the run needs"),
        (("<unet_weights.>",), "which the run needs"),
        (("<con>",), "would have the file con.safetensors, which Windows does not allow"),
        (("<COM1>",), "which Windows does not allow"),
        (("<" + "a" * 200 + ">",), "is too long for the name of a file"),
        (("<" + "猫" * 60 + ">",), "is too long for the name of a file"),
    ],
)
def test_words_that_have_no_file_of_their_own(modifiers, words, tmp_path):
    with pytest.raises(UserError, match=f"The modifier .*{words}") as error:
        embedding_files(modifiers)
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


@pytest.mark.parametrize(
    "modifiers",
    [("<new1>", "<new2>", "<new3>"), ("<my-cat>", "<my_cat>"), ("<_>", "<->"), ("<console>", "<com10>"), ("<猫>",)],
)
def test_words_that_have_one(modifiers):
    files = embedding_files(modifiers)
    assert list(files) == list(modifiers) and len({name.casefold() for name in files.values()}) == len(modifiers)
    assert list(files.values()) == [modifier.strip("<>") + ".safetensors" for modifier in modifiers]


@pytest.mark.parametrize("modifiers", [("<v1.0>", "<v10>"), ("<*>", "<dog>"), ("<a>", "<Checkpoint>")])
def test_they_are_refused_before_the_training(tiny_pipe, tmp_path, modifiers):
    with pytest.raises(UserError, match="choose another, such as <new9>"):
        next(train(tiny_pipe, IMAGE, ["cat", "dog"], emoji(**QUICK, modifiers=modifiers), run_dir=tmp_path / "run"))
    assert not (tmp_path / "run").exists() and len(tiny_pipe.tokenizer) == 49408
    add_modifiers(tiny_pipe, modifiers, ("ktn", "pll"))
    with pytest.raises(UserError, match="choose another, such as <new9>"):
        save_learned(tmp_path, tiny_pipe, {}, modifiers, emoji())
    assert not list(tmp_path.iterdir())


def test_what_is_accepted_can_be_loaded(new_tiny_pipe, tmp_path):
    """Also names that earlier versions wrote: a dot is left out."""
    config = emoji(**QUICK, modifiers=("<v1.0>", "<My-Cat!>", "<*>"))  # the third is for a third class
    list(train(new_tiny_pipe(), IMAGE, ["cat", "dog"], config, run_dir=tmp_path))
    assert {"v10.safetensors", "My-Cat.safetensors"} <= {path.name for path in tmp_path.iterdir()}
    assert load_learned(new_tiny_pipe(), tmp_path).modifiers == ("<v1.0>", "<My-Cat!>")
