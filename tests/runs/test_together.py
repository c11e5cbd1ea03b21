"""Several runs on one model: the changes of keys and values add up, and each keeps words of its own."""

import pytest
import torch
from PIL import Image

from disendiff_lite.config import emoji
from disendiff_lite.models import cross_attention_weights
from disendiff_lite.runs.learned import load_learned
from disendiff_lite.runs.prior import make_prior
from disendiff_lite.runs.train import train
from disendiff_lite.support.errors import UserError
from tests.outputs import outputs

QUICK = dict(steps=2, prior_images=2, inference_steps=1, learning_rate=1e-2)
RENAME = {"<new1>": "<new3>", "<new2>": "<mine>"}
RUNS = {  # name: its classes, and what trained
    "first": (["cat", "dog"], {}),
    "second": (["chair", "lamp"], {"trained": "lora", "lora_rank": 4}),
    "words": (["cow", "bird"], {"method": "textual_inversion"}),
    "whole": (["cat", "dog"], {"method": "dreambooth"}),
}


@pytest.fixture(scope="module")
def runs(new_tiny_pipe, tmp_path_factory):
    """A folder for each of RUNS, of different pictures."""
    folder = tmp_path_factory.mktemp("runs")
    prior = make_prior(new_tiny_pipe(), ["cat", "dog"], emoji(**QUICK))
    for number, (name, (classes, changes)) in enumerate(RUNS.items()):
        image = Image.effect_noise((64, 64), 40 + 10 * number).convert("RGB")
        config = emoji(**changes, **QUICK, seed=number)
        list(train(new_tiny_pipe(), image, classes, config, run_dir=folder / name, prior=prior))
    return folder


def keys_and_values(pipe):
    return {name: weight.detach().clone() for name, weight in cross_attention_weights(pipe.unet).items()}


def rows(pipe, *words):
    return pipe.text_encoder.get_input_embeddings().weight[pipe.tokenizer.convert_tokens_to_ids(list(words))]


def test_changes_of_keys_and_values_are_summed_in_either_order(runs, new_tiny_pipe):
    plain, first, second, both, turned = (new_tiny_pipe() for _ in range(5))
    load_learned(first, runs / "first"), load_learned(second, runs / "second")
    load_learned(both, runs / "first")
    record = load_learned(both, runs / "second", rename=RENAME)
    load_learned(turned, runs / "second", rename=RENAME), load_learned(turned, runs / "first")
    assert record.modifiers == ("<new3>", "<mine>") and record.classes == ("chair", "lamp")
    assert record.prompt == "photo of a <new3> chair and <mine> lamp"
    base, one, other, sum_ = map(keys_and_values, (plain, first, second, both))
    for name, weight in base.items():
        assert not torch.equal(one[name], weight) and not torch.equal(other[name], weight)
        torch.testing.assert_close(sum_[name], one[name] + other[name] - weight, atol=1e-6, rtol=0)
        torch.testing.assert_close(sum_[name], keys_and_values(turned)[name], atol=1e-6, rtol=0)
    assert torch.equal(rows(both, "<new1>", "<new2>"), rows(first, "<new1>", "<new2>"))
    assert torch.equal(rows(both, "<new3>", "<mine>"), rows(second, "<new1>", "<new2>"))
    prompt = "a <new1> cat and a <new3> chair"
    torch.testing.assert_close(outputs(both, prompt), outputs(turned, prompt), atol=1e-5, rtol=0)


def test_words_alone_change_nothing_else(runs, tiny_pipe):
    load_learned(tiny_pipe, runs / "first")
    before = outputs(tiny_pipe, "a <new1> cat")
    load_learned(tiny_pipe, runs / "words", rename={"<new1>": "<new3>", "<new2>": "<new4>"})
    assert torch.equal(outputs(tiny_pipe, "a <new1> cat"), before)


def test_a_whole_unet_comes_first(runs, new_tiny_pipe):
    pipe = new_tiny_pipe()
    load_learned(pipe, runs / "whole"), load_learned(pipe, runs / "second", rename=RENAME)
    whole, second, plain = new_tiny_pipe(), new_tiny_pipe(), new_tiny_pipe()
    load_learned(whole, runs / "whole"), load_learned(second, runs / "second")
    added = keys_and_values(second)
    for name, weight in keys_and_values(plain).items():
        expected = keys_and_values(whole)[name] + added[name] - weight
        torch.testing.assert_close(keys_and_values(pipe)[name], expected, atol=1e-6, rtol=0)
    other = new_tiny_pipe()
    load_learned(other, runs / "second")
    before = outputs(other, "a cat")
    with pytest.raises(UserError, match="whole UNet, which would undo what was loaded before it: load it first"):
        load_learned(other, runs / "whole", rename=RENAME)
    assert torch.equal(outputs(other, "a cat"), before) and "<mine>" not in other.tokenizer.get_vocab()


def test_words_that_clash_are_refused_with_the_mend(runs, tiny_pipe):
    load_learned(tiny_pipe, runs / "first")
    before = outputs(tiny_pipe, "a <new1> cat")
    cases = {
        None: "<new1>, a word of .*second, is already .*rename={'<new1>': '<new3>'} or --rename '<new1>=<new3>'",
        ("<new1>", "<new3>"): "<new2>, a word of .* is already a word .*rename={'<new2>': '<new4>'}",
        ("<new2>", "<New1>"): "<new1>, a word of",
        ("<new7>", "<new8>"): "There is no word of .*second '<new7>': did you mean",
    }
    for rename, words in cases.items():
        with pytest.raises(UserError, match=words) as error:
            load_learned(tiny_pipe, runs / "second", rename=rename and dict([rename]))
        assert "\n" not in str(error.value) and torch.equal(outputs(tiny_pipe, "a <new1> cat"), before)
    with pytest.raises(UserError, match="must be one word in angle brackets"):
        load_learned(tiny_pipe, runs / "second", rename={"<new1>": "xqzt", "<new2>": "<new3>"})
    with pytest.raises(UserError, match="already a word"):
        load_learned(tiny_pipe, runs / "second", rename={"<new1>": "<a>", "<new2>": "<A>"})


def test_what_something_else_changed_meanwhile_is_another_model(runs, tiny_pipe):
    load_learned(tiny_pipe, runs / "first")
    with torch.no_grad():
        next(iter(cross_attention_weights(tiny_pipe.unet).values())).mul_(1.5)
    with pytest.raises(UserError, match="learned on another model"):
        load_learned(tiny_pipe, runs / "second", rename=RENAME)
    load_learned(tiny_pipe, runs / "second", rename=RENAME, any_model=True)


@pytest.mark.parametrize("changes", [{}, {"method": "dreambooth"}], ids=["keys and values", "whole"])
def test_a_run_on_top_of_another_is_loaded_on_top_of_it(changes, runs, new_tiny_pipe, tmp_path):
    pipe, fresh = new_tiny_pipe(), new_tiny_pipe()
    load_learned(pipe, runs / "first")
    image = Image.effect_noise((64, 64), 90).convert("RGB")
    config = emoji(**changes, **QUICK, modifiers=("<a>", "<b>"))
    list(train(pipe, image, ["chair", "lamp"], config, run_dir=tmp_path / "top"))
    with pytest.raises(UserError, match="was learned on another model"):
        load_learned(fresh, tmp_path / "top")
    load_learned(fresh, runs / "first"), load_learned(fresh, tmp_path / "top")
    for prompt in ("a <new1> cat", "a <a> chair and a <b> lamp"):
        torch.testing.assert_close(outputs(fresh, prompt), outputs(pipe, prompt), atol=1e-5, rtol=0)
