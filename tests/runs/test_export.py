"""Exported files: stock diffusers gives the run's outputs with them, and the card says how to use them."""

import shutil
from functools import partial

import pytest
import torch
from diffusers import UNet2DConditionModel
from PIL import Image
from safetensors.torch import load_file

from disendiff_lite.config import emoji
from disendiff_lite.runs import export as export_module
from disendiff_lite.runs.learned import LORA_FILE, load_learned
from disendiff_lite.runs.prior import make_prior
from disendiff_lite.runs.train import train
from disendiff_lite.support.errors import UserError
from tests.outputs import outputs

QUICK = dict(steps=2, prior_images=2, inference_steps=1, learning_rate=1e-2)
export = partial(export_module.export, model="tiny")
PROMPT = "a <new1> cat and a <new2> dog"
RUNS = {
    "kv": {"trained": "qkv"},
    "lora": {"trained": "lora", "lora_rank": 4, "lora_alpha": 6},
    "words": {"method": "textual_inversion"},
    "whole": {"method": "dreambooth"},
}


@pytest.fixture(autouse=True)
def fresh(new_tiny_pipe, monkeypatch):
    """A function that gives the base model anew; a copy takes less time than reading it from the disk."""
    monkeypatch.setattr(export_module, "load_pipeline", lambda *_: new_tiny_pipe())
    return new_tiny_pipe


@pytest.fixture(scope="module")
def runs(new_tiny_pipe, tmp_path_factory):
    """A folder for each of RUNS."""
    folder = tmp_path_factory.mktemp("runs")
    image = Image.effect_noise((64, 64), 60).convert("RGB")
    prior = make_prior(new_tiny_pipe(), ["cat", "dog"], emoji(**QUICK))
    for name, changes in RUNS.items():
        config = emoji(**changes, **QUICK)
        list(train(new_tiny_pipe(), image, ["cat", "dog"], config, run_dir=folder / name, prior=prior))
    return folder


def expected(pipe, run):
    load_learned(pipe, run)
    return outputs(pipe, PROMPT, 3)


@pytest.mark.parametrize("name", ["kv", "lora", "words"])
def test_stock_diffusers_gives_the_same_with_both_kinds_of_files(name, runs, fresh, tmp_path):
    results = export(runs / name, tmp_path)
    assert [result.target for result in results] == ["diffusers", "webui"]
    for result in results:
        assert 0 <= result.apart < 1e-4 * result.largest and result.lost == 0
    first, second = fresh(), fresh()
    for number in (1, 2):
        first.load_textual_inversion(tmp_path / "diffusers", weight_name=f"new{number}.safetensors")
        file = tmp_path / "webui" / "embeddings" / f"new{number}.safetensors"
        second.load_textual_inversion(file, token=f"<new{number}>")
    if name != "words":
        first.load_lora_weights(tmp_path / "diffusers")
        second.load_lora_weights(tmp_path / "webui" / "Lora", weight_name=f"{name}.safetensors")
    assert (tmp_path / "webui" / "Lora").exists() == (name != "words")
    for pipe in (first, second):
        torch.testing.assert_close(outputs(pipe, PROMPT, 3), expected(fresh(), runs / name), atol=1e-5, rtol=0)


def test_a_webui_finds_the_names_that_it_knows(runs, tmp_path):
    export(runs / "lora", tmp_path, to="webui")
    assert not (tmp_path / "diffusers").exists()
    factors = load_file(tmp_path / "webui" / "Lora" / "lora.safetensors")
    layer = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k"
    assert factors[f"{layer}.alpha"].item() == 4 and factors[f"{layer}.alpha"].is_floating_point()
    assert factors[f"{layer}.lora_down.weight"].shape == (4, 32) and len(factors) == 3 * 14
    embedding = load_file(tmp_path / "webui" / "embeddings" / "new1.safetensors")
    assert {name: tuple(value.shape) for name, value in embedding.items()} == {"emb_params": (1, 32)}


def test_a_lower_rank_is_a_smaller_file_and_says_what_it_loses(runs, fresh, tmp_path):
    whole, cut, more = (export(runs / "kv", tmp_path / str(rank), rank=rank) for rank in (None, 2, 99))
    for kept, small, same in zip(whole, cut, more):
        assert 0.01 < small.lost < 1 and small.apart > 100 * kept.apart and same.lost == 0
        assert small.lora.stat().st_size < kept.lora.stat().st_size == same.lora.stat().st_size
    card = (tmp_path / "2" / "README.md").read_text()
    assert f"| webui | {cut[1].apart:.1e} | {cut[1].largest:.1f} | {cut[1].lost:.2%} |" in card


def test_a_whole_unet_is_a_folder_of_diffusers_alone(runs, fresh, tmp_path):
    for _ in range(2):  # once more over what is there
        (result,) = export(runs / "whole", tmp_path)
    assert result.lora == tmp_path / "diffusers" / "unet" and not (tmp_path / "webui").exists()
    pipe = fresh()
    pipe.unet = UNet2DConditionModel.from_pretrained(result.lora)
    for number in (1, 2):
        pipe.load_textual_inversion(tmp_path / "diffusers", weight_name=f"new{number}.safetensors")
    torch.testing.assert_close(outputs(pipe, PROMPT, 3), expected(fresh(), runs / "whole"), atol=1e-5, rtol=0)
    assert 'UNet2DConditionModel.from_pretrained("diffusers/unet")' in (tmp_path / "README.md").read_text()
    for options in ({"to": "webui"}, {"rank": 4}):
        with pytest.raises(UserError, match="trained a whole UNet, which is no LoRA: export it to diffusers"):
            export(runs / "whole", tmp_path / "other", **options)


def test_the_card_says_what_to_write_and_its_python_runs(runs, fresh, tmp_path, monkeypatch):
    export(runs / "kv", tmp_path)
    card = (tmp_path / "README.md").read_text()
    assert "photo of a new1 cat and new2 dog <lora:kv:1>" in card
    assert "photo of a embedding:new1 cat and embedding:new2 dog" in card
    assert card.startswith("---\nlicense: other\n") and "Stable Diffusion's own shape" in card
    fresh().save_pretrained(tmp_path / "tiny")
    monkeypatch.chdir(tmp_path)
    found = {}
    exec(card.split("```python\n")[1].split("```")[0].replace('").images', '", num_inference_steps=1).images'), found)
    torch.testing.assert_close(outputs(found["pipe"], PROMPT, 3), expected(fresh(), runs / "kv"), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name, kind", [("kv", "file"), ("whole", "file"), ("kv", "folder")])
def test_the_card_loads_a_local_model_as_what_it_is(name, kind, runs, tmp_path):
    model = tmp_path / "own.safetensors"
    model.touch() if kind == "file" else model.mkdir()
    export(runs / name, tmp_path / "out", model=str(model))
    card = (tmp_path / "out" / "README.md").read_text()
    load = "from_single_file" if kind == "file" else "from_pretrained"
    assert f'StableDiffusionPipeline.{load}("own.safetensors"{", unet=unet" if name == "whole" else ""})' in card
    assert str(tmp_path) not in card and "base_model" not in card


def test_files_that_give_something_else_are_not_called_the_same(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(export_module, "_kohya", lambda factors: convert(factors))

    def convert(factors):
        return {name: tensor * 2 for name, tensor in kohya(factors).items()}

    kohya = export_module.convert_state_dict_to_kohya
    with pytest.raises(UserError, match="gives other pictures than"):
        export(runs / "kv", tmp_path)


def test_what_cannot_be_exported(runs, fresh, tmp_path):
    with pytest.raises(UserError, match="There is no run in"):
        export(tmp_path)
    with pytest.raises(UserError, match="no target 'comfy': use one of diffusers, webui, all"):
        export(runs / "kv", to="comfy")
    with pytest.raises(UserError, match="The rank is 0"):
        export(runs / "kv", rank=0)
    run = shutil.copytree(runs / "kv", tmp_path / "run")
    (run / LORA_FILE).unlink()
    with pytest.raises(UserError, match="There is no file"):
        export(run)
    assert not (run / "export").exists()
