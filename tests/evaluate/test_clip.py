"""CLIP scores: known answers with a scorer whose embeddings are colours, and a real little CLIP from a folder."""

import json
import math
import shutil
from types import SimpleNamespace

import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from disendiff_lite.evaluate import clip as scores
from disendiff_lite.evaluate.clip import (
    Scorer,
    embed_pictures,
    embed_texts,
    image_alignment,
    leakage,
    load_scorer,
    strip_modifiers,
    text_alignment,
)
from disendiff_lite.evaluate.score import Score, pool
from disendiff_lite.support.errors import UserError

HALF = math.sqrt(0.5)
TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 64, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


class ColourModel(torch.nn.Module):
    """Embeddings are what the preprocessing made, three times as long as they should be."""

    def encode_image(self, pixels):
        return 3 * pixels

    encode_text = encode_image


def colour(name: str) -> Image.Image:
    return Image.new("RGB", (16, 16), name)


@pytest.fixture
def scorer() -> Scorer:
    """A scorer to which a picture is its colour, and a text the words red, lime and blue in it, or minus red."""

    def tokenize(texts):
        return torch.tensor(
            [[t.count("red") - 2.0 * t.count("not red"), t.count("lime"), t.count("blue")] for t in texts]
        )

    def preprocess(picture):
        return torch.tensor(picture.getpixel((0, 0))) / 255.0

    return Scorer("colours", ColourModel(), preprocess, tokenize, torch.device("cpu"))


def test_score_has_mean_and_spread_and_says_so():
    score = Score((1.0, 2.0, 3.0, 6.0))
    assert score.mean == 3.0
    assert score.spread == pytest.approx(math.sqrt(14 / 3))
    assert str(score) == "3.000 ± 2.160 (n = 4)"
    assert math.isnan(Score((1.0,)).spread)
    assert pool([Score((1.0,)), Score((2.0, 3.0))]).values == (1.0, 2.0, 3.0)


def test_image_alignment_is_the_mean_cosine_of_all_pairs(scorer):
    score = image_alignment(scorer, [colour("red"), colour("yellow")], [colour("red"), colour("lime")])
    assert score.values == pytest.approx((0.5, HALF))
    assert score.mean == pytest.approx((0.5 + HALF) / 2)


def test_text_alignment_takes_the_modifiers_out_and_weights_by_two_and_a_half(scorer):
    result = text_alignment(scorer, [colour("red"), colour("lime")], "a <new1> red <new2> lime", ["<new1>", "<new2>"])
    assert result.cosine.values == pytest.approx((HALF, HALF))
    assert result.clip_score.values == pytest.approx((2.5 * HALF, 2.5 * HALF))
    assert text_alignment(scorer, [colour("red")], "not red").cosine.mean == pytest.approx(-1)
    assert text_alignment(scorer, [colour("red")], "not red").clip_score.mean == 0


def test_a_modifier_that_nobody_named_is_refused(scorer):
    with pytest.raises(UserError, match="<mew2>"):
        text_alignment(scorer, [colour("red")], "a <new1> cat and <mew2> dog", ["<new1>", "<new2>"])


def test_leakage_is_own_minus_the_nearest_other(scorer):
    result = leakage(scorer, [colour("red"), colour("blue")], colour("red"), [colour("lime"), colour("blue")])
    assert result.own.values == pytest.approx((1, 0))
    assert result.other.values == pytest.approx((0, 1))
    assert result.margin.values == pytest.approx((1, -1))


def test_many_pictures_are_embedded_in_parts(scorer):
    pictures = [colour("red")] * 40 + [colour("blue")] * 30
    embedded = embed_pictures(scorer, pictures)
    assert embedded.shape == (70, 3)
    assert torch.allclose(embedded.norm(dim=1), torch.ones(70))
    assert embedded[:40, 0].sum() == 40 and embedded[40:, 2].sum() == 30


def test_no_picture_is_an_error(scorer):
    with pytest.raises(UserError, match="at least one"):
        image_alignment(scorer, [], [colour("red")])


@pytest.mark.parametrize(
    "prompt, expected",
    [
        ("photo of a <new1> cat and <new2> dog", "photo of a cat and dog"),
        ("a <NEW1> big cat and a <new2>, on the beach", "a big cat and a, on the beach"),
        ("<new2>", ""),
        ("plain  cat", "plain cat"),
    ],
)
def test_strip_modifiers(prompt, expected):
    assert strip_modifiers(prompt, ["<new1>", "<new2>"]) == expected


@pytest.fixture(scope="module")
def tiny_clip(tmp_path_factory):
    """A little random CLIP and the folder that it was saved to."""
    folder = tmp_path_factory.mktemp("clip")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = open_clip.CLIP(**TINY).eval()
    config = {"model_cfg": TINY, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.25] * 3}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return model, folder


def test_a_folder_gives_back_the_model_that_was_saved(tiny_clip):
    model, folder = tiny_clip
    scorer = load_scorer(folder, device="cpu")
    picture = colour("red")
    with torch.no_grad():
        expected = model.encode_image((torch.tensor([1.0, 0, 0]) - 0.5).view(1, 3, 1, 1).expand(1, 3, 64, 64) / 0.25)
        words = model.encode_text(open_clip.SimpleTokenizer(context_length=32)(["a red cat"]))
    assert torch.allclose(embed_pictures(scorer, [picture])[0], expected[0] / expected.norm(), atol=1e-6)
    assert torch.allclose(embed_texts(scorer, ["a red cat"])[0], words[0] / words.norm(), atol=1e-6)
    assert image_alignment(scorer, [picture], [picture]).mean == pytest.approx(1)
    assert not scorer.model.training


@pytest.mark.parametrize("missing", ["open_clip_config.json", "open_clip_model.safetensors"])
def test_a_folder_without_a_file_is_refused_even_if_a_pickle_lies_there(tiny_clip, tmp_path, missing):
    folder = shutil.copytree(tiny_clip[1], tmp_path / "copy")
    torch.save({}, folder / "open_clip_pytorch_model.bin")
    (folder / missing).unlink()
    with pytest.raises(UserError, match=missing):
        load_scorer(folder, device="cpu")


def test_damaged_or_misfitting_weights_are_refused(tiny_clip, tmp_path):
    folder = shutil.copytree(tiny_clip[1], tmp_path / "copy")
    weights = folder / "open_clip_model.safetensors"
    save_file({"visual.proj": torch.zeros(2, 2)}, weights)
    with pytest.raises(UserError, match="copy the folder again"):
        load_scorer(folder, device="cpu")
    weights.write_bytes((tiny_clip[1] / weights.name).read_bytes()[:1000])
    with pytest.raises(UserError, match="copy the folder again"):
        load_scorer(folder, device="cpu")


def test_names_that_lead_to_nothing_are_explained_in_one_sentence(monkeypatch):
    with pytest.raises(UserError, match="There is no scorer nothing"):
        load_scorer("nothing", device="cpu")
    with pytest.raises(UserError, match="openai"):
        load_scorer("ViT-B-32-quickgelu/nonsense", device="cpu")

    def unreachable(*_, **__):
        raise ConnectionError("no network")

    monkeypatch.setattr(scores, "model_info", unreachable)
    with pytest.raises(UserError, match="no network.*'emoji'") as caught:
        load_scorer("ViT-B-32-quickgelu/metaclip_400m", device="cpu")
    assert "\n" not in str(caught.value)


@pytest.fixture
def hub(monkeypatch):
    """A stand-in for the model hub: what it has, its cache, what was fetched and which scorers were loaded."""
    hub = SimpleNamespace(files=[], cached=[], fetched=[], loaded=[])

    def load(*asked, **_):
        hub.loaded.append(asked)
        return torch.nn.Identity(), None

    def listed(*_, **__):
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename=file) for file in hub.files])

    monkeypatch.setattr(scores, "model_info", listed)
    monkeypatch.setattr(
        scores, "try_to_load_from_cache", lambda _, file: f"/cache/{file}" if file in hub.cached else None
    )
    monkeypatch.setattr(scores, "hf_hub_download", lambda *asked: hub.fetched.append(asked))
    monkeypatch.setattr(open_clip, "create_model_from_pretrained", load)
    return hub


def test_pickled_weights_are_never_read_wherever_they_are(hub, monkeypatch):
    def refused(name):
        with pytest.raises(
            UserError, match="pickled weights only, which are not read: use one whose hub repository holds"
        ):
            load_scorer(name, device="cpu")
        assert hub.fetched == hub.loaded == []

    hub.files = hub.cached = ["open_clip_config.json", "open_clip_pytorch_model.bin"]
    refused("clip")
    hub.files = ["open_clip_model.safetensors"]
    refused("ViTamin-S/datacomp1b")  # whose address names a pickled file
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda *_: {"url": "https://example.org/model.pt"})
    refused("ViT-B-32/openai")


def test_safetensors_weights_are_fetched_before_open_clip_looks(hub, monkeypatch):
    hub.files = ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"]
    load_scorer("clip", device="cpu")
    hub.cached = hub.files
    monkeypatch.setattr(scores, "model_info", None)  # asking again would raise
    load_scorer("clip", device="cpu")
    assert hub.fetched == [("timm/vit_base_patch32_clip_224.openai", "open_clip_model.safetensors")]
    assert hub.loaded == [("ViT-B-32-quickgelu", "openai")] * 2
