"""What was learned loads in stock diffusers and gives the same UNet outputs; what does not fit is refused with the
reason.
"""

import dataclasses
import json
import shutil

import pytest
import torch
from diffusers import UNet2DConditionModel
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from disendiff_lite.adapters import lora_factors
from disendiff_lite.config import emoji
from disendiff_lite.models import cross_attention_weights
from disendiff_lite.presets import METHODS
from disendiff_lite.runs.learned import LORA_FILE, UNET_FILE, embedding_file, load_learned, save_learned
from disendiff_lite.runs.prior import make_prior
from disendiff_lite.runs.train import train
from disendiff_lite.support.errors import UserError
from disendiff_lite.support.files import read_tensors, write_tensors
from tests.outputs import outputs

CLASSES = ["cat", "dog"]
PROMPT = "a <new1> cat and a <new2> dog on the beach"
RUNS = {method: {"method": method} for method in METHODS} | {
    "queries": {"trained": "qkv"},
    "values": {"trained": "v"},
    "lora": {"trained": "lora", "lora_rank": 4, "lora_alpha": 6},
}
QUICK = dict(steps=3, batch_size=2, prior_images=2, inference_steps=1, learning_rate=1e-2)


@pytest.fixture(scope="module")
def trained(new_tiny_pipe, tmp_path_factory):
    """For each of RUNS its folder, and what the pipeline that trained gives."""
    image = Image.effect_noise((64, 64), 60).convert("RGB")
    prior = make_prior(new_tiny_pipe(), CLASSES, emoji(**QUICK))
    results = {}
    for name, changes in RUNS.items():
        folder, pipe = tmp_path_factory.mktemp("runs") / name, new_tiny_pipe()
        list(train(pipe, image, CLASSES, emoji(**changes, **QUICK), run_dir=folder, prior=prior))
        results[name] = folder, outputs(pipe, PROMPT)
    return results


@pytest.fixture
def run(trained, tmp_path):
    """A copy of the disendiff run, to damage."""
    return shutil.copytree(trained["disendiff"][0], tmp_path / "run")


def apart(first, second):
    return (first - second).abs().max().item()


@pytest.mark.parametrize("method", RUNS)
def test_stock_diffusers_loads_it(method, trained, new_tiny_pipe):
    folder, expected = trained[method]
    pipe = new_tiny_pipe()
    for name in ("new1.safetensors", "new2.safetensors"):
        pipe.load_textual_inversion(folder, weight_name=name)
    if method not in ("dreambooth", "textual_inversion"):
        assert apart(outputs(pipe, PROMPT), expected) > 1e-3  # the embeddings alone are not enough
        pipe.load_lora_weights(folder)
    if method == "dreambooth":
        pipe.unet.load_state_dict(load_file(folder / UNET_FILE), strict=False)
    assert apart(outputs(pipe, PROMPT), expected) < 2e-6 * max(1, expected.abs().max().item())


@pytest.mark.parametrize("method", RUNS)
def test_load_learned_gives_it_back(method, trained, new_tiny_pipe):
    folder, expected = trained[method]
    pipe = new_tiny_pipe()
    record = load_learned(pipe, folder)
    assert record.classes == ("cat", "dog") and record.modifiers == ("<new1>", "<new2>")
    assert apart(outputs(pipe, PROMPT), expected) < 2e-6 * max(1, expected.abs().max().item())


def test_files_have_the_names_and_keys_that_others_expect(trained):
    folder, _ = trained["disendiff"]
    for token in ("<new1>", "<new2>"):
        tensors = load_file(folder / embedding_file(token))
        assert list(tensors) == [token] and tensors[token].shape == (32,)
    factors = load_file(folder / LORA_FILE)
    assert len(factors) == 28
    assert all(key.startswith("unet.") and key.endswith((".lora_A.weight", ".lora_B.weight")) for key in factors)
    assert {min(value.shape) for key, value in factors.items()} == {16, 32}
    assert {value.shape[0] for key, value in factors.items() if "lora_A" in key} == {32}  # one rank everywhere
    with safe_open(folder / LORA_FILE, framework="pt") as file:
        header = json.loads(file.metadata()["disendiff_lite"])
    assert header["lost"] < 1e-6 and set(header["model"]) == {"float16", "bfloat16"}
    assert not (trained["textual_inversion"][0] / LORA_FILE).exists()


def test_half_precision_takes_it(trained, new_tiny_pipe):
    folder, expected = trained["disendiff"]
    pipe = new_tiny_pipe().to(torch.bfloat16)
    load_learned(pipe, folder)
    assert pipe.unet.dtype == torch.bfloat16
    assert apart(outputs(pipe, PROMPT).float(), expected) < 0.1 * expected.abs().max().item()


def test_an_inpainting_sister_takes_it(trained, new_tiny_pipe):
    folder, _ = trained["disendiff"]
    donor, pipe = new_tiny_pipe(), new_tiny_pipe()
    load_learned(donor, folder)
    weights = {name: value for name, value in pipe.unet.state_dict().items() if name != "conv_in.weight"}
    pipe.unet = UNet2DConditionModel.from_config(pipe.unet.config, in_channels=9).eval()
    pipe.unet.load_state_dict(weights, strict=False)
    load_learned(pipe, folder)
    learned = dict(donor.unet.named_parameters())
    kept = [
        name
        for name, value in pipe.unet.named_parameters()
        if "attn2.to_" in name and torch.equal(value, learned[name])
    ]
    assert len(kept) == 7 * 5  # query, key, value, and the output's weight and bias of each layer
    assert outputs(pipe, PROMPT).shape == (1, 4, 16, 16)


def test_a_relative_must_be_allowed(trained, new_tiny_pipe):
    folder, _ = trained["disendiff"]
    pipe = new_tiny_pipe()
    with torch.no_grad():
        next(p for name, p in pipe.unet.named_parameters() if ".attn2.to_k" in name).mul_(1.5)
    before = outputs(pipe, "a cat")
    with pytest.raises(UserError, match="learned on another model than the one loaded: load that one afresh"):
        load_learned(pipe, folder)
    assert torch.equal(outputs(pipe, "a cat"), before) and "<new1>" not in pipe.tokenizer.get_vocab()
    load_learned(pipe, folder, any_model=True)
    assert not torch.equal(outputs(pipe, "a cat"), before)


def test_it_is_not_loaded_twice(trained, new_tiny_pipe):
    pipe = new_tiny_pipe()
    load_learned(pipe, trained["textual_inversion"][0])
    with pytest.raises(UserError, match="already a word"):
        load_learned(pipe, trained["textual_inversion"][0])


def test_factors_of_full_rank_lose_nothing():
    generator = torch.Generator().manual_seed(0)
    changes = {"a.weight": torch.randn(8, 6, generator=generator), "b.weight": torch.randn(3, 6, generator=generator)}
    factors, lost = lora_factors(changes)
    assert lost == 0
    for name, change in changes.items():
        module = "unet." + name.removesuffix(".weight")
        down, up = factors[f"{module}.lora_A.weight"], factors[f"{module}.lora_B.weight"]
        assert down.shape == (6, 6) and torch.allclose(up @ down, change, atol=1e-6)


def test_factors_of_a_lower_rank_lose_the_smallest_values():
    change = torch.diag(torch.tensor([4.0, 3.0, 0.0, 0.0]))
    factors, lost = lora_factors({"a.weight": change}, rank=1)
    assert lost == pytest.approx(3 / 5)
    up, down = factors["unet.a.lora_B.weight"], factors["unet.a.lora_A.weight"]
    assert up.shape == (4, 1) and torch.allclose(up @ down, torch.diag(torch.tensor([4.0, 0.0, 0.0, 0.0])))
    assert lora_factors({"a.weight": torch.zeros(4, 4)})[1] == 0


def test_a_lower_rank_says_what_it_loses(trained, new_tiny_pipe, tmp_path, capsys):
    folder, expected = trained["disendiff"]
    pipe = new_tiny_pipe()
    base = {name: weight.detach().clone() for name, weight in cross_attention_weights(pipe.unet).items()}
    load_learned(pipe, folder)
    save_learned(tmp_path, pipe, base, ["<new1>", "<new2>"], dataclasses.replace(emoji(), saved_rank=4))
    assert "Saved at rank 4: " in capsys.readouterr().out
    lost = read_tensors(tmp_path / LORA_FILE)[1]["lost"]
    assert 0 < lost < 1
    smaller = new_tiny_pipe()
    for name in ("new1.safetensors", "new2.safetensors"):
        smaller.load_textual_inversion(tmp_path, weight_name=name)
    smaller.load_lora_weights(tmp_path)
    assert 1e-5 < apart(outputs(smaller, PROMPT), expected)


# What does not fit


def refused(pipe, folder, words):
    before = outputs(pipe, "a cat")
    with pytest.raises(UserError, match=words) as error:
        load_learned(pipe, folder)
    assert "\n" not in str(error.value)
    assert torch.equal(outputs(pipe, "a cat"), before) and "<new1>" not in pipe.tokenizer.get_vocab()


@pytest.mark.parametrize("name", ["new2.safetensors", LORA_FILE])
def test_truncated_and_missing_files(name, run, tiny_pipe):
    whole = (run / name).read_bytes()
    for part in (whole[: len(whole) // 2], whole[:5], b""):
        (run / name).write_bytes(part)
        refused(
            tiny_pipe, run, f"{name} is truncated or not a safetensors file .*: delete it and train or copy it again"
        )
    (run / name).unlink()
    refused(tiny_pipe, run, f"There is no file .*{name}")


def test_pickles_are_never_read(tmp_path):
    for name in ("weights.bin", "weights.pt", "weights.ckpt"):
        torch.save({"a": torch.zeros(1)}, tmp_path / name)
        with pytest.raises(UserError, match="pickled weights are not read, convert it to safetensors"):
            read_tensors(tmp_path / name)
    torch.save({"a": torch.zeros(1)}, tmp_path / "disguised.safetensors")
    with pytest.raises(UserError, match="not a safetensors file"):
        read_tensors(tmp_path / "disguised.safetensors")


def test_weights_of_another_model(run, tiny_pipe, tiny_unet):
    tiny_pipe.unet = tiny_unet(block_out_channels=(16, 16))
    refused(tiny_pipe, run, "made for another model: .*attn2.to_k.weight is .* there and .* here")


def test_weights_of_a_model_with_other_layers(run, tiny_pipe):
    factors, header = read_tensors(run / LORA_FILE)
    names = sorted(factors)
    renamed = {name.replace("mid_block", "middle"): value for name, value in factors.items()}
    write_tensors(run / LORA_FILE, renamed, header)
    refused(tiny_pipe, run, "made for another model: this one has no middle")
    write_tensors(run / LORA_FILE, {name: factors[name] for name in names[2:]}, header)
    refused(tiny_pipe, run, "made for another model: it has nothing for")
    write_tensors(run / LORA_FILE, {name: factors[name] for name in names[:-1]}, header)
    refused(tiny_pipe, run, "lacks the second half of")


def test_embeddings_that_do_not_fit(run, tiny_pipe):
    write_tensors(run / "new1.safetensors", {"<new1>": torch.zeros(7)}, {})
    refused(tiny_pipe, run, r"made for another model: it has shape \(7,\) and this text encoder needs \(32,\)")
    write_tensors(run / "new1.safetensors", {"<other>": torch.zeros(32)}, {})
    refused(tiny_pipe, run, "holds <other> instead of <new1>")


def test_dreambooth_weights_of_another_model(trained, tmp_path, tiny_pipe):
    run = shutil.copytree(trained["dreambooth"][0], tmp_path / "run")
    write_tensors(run / UNET_FILE, {"conv_in.weight": torch.zeros(2, 2)}, {})
    refused(tiny_pipe, run, "made for another model: conv_in.weight is")


def test_a_run_that_is_not_finished(run, tiny_pipe):
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**record, "finished": False}))
    refused(tiny_pipe, run, "not finished: start it again")
    refused(tiny_pipe, run.parent, "There is no run in")
