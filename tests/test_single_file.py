"""One-file checkpoints in the original layout: the same model as the diffusers folder, without a network."""

import pytest
import torch
from diffusers import StableDiffusionInpaintPipeline
from safetensors.torch import save_file

from disendiff_lite.config import paper
from disendiff_lite.models import absolute_model, load_pipeline, model_name, preset_for, weights_hash
from disendiff_lite.single_file import settle_prediction
from disendiff_lite.support.errors import UserError
from tests.original_layout import TEXT_WIDTH, build_original, original_weights


@pytest.fixture
def no_network(monkeypatch):
    def unreachable(*_, **__):
        raise AssertionError("asked for the network")

    monkeypatch.setattr("socket.socket.connect", unreachable)


@pytest.mark.parametrize("second", [False, True], ids=["sd1", "sd2"])
@pytest.mark.parametrize("half", [False, True], ids=["float32", "float16"])
def test_a_single_file_is_the_same_model(second, half, tmp_path, no_network, library_warnings):
    original, path = build_original(second), tmp_path / "model.safetensors"
    weights = original_weights(original)
    save_file({name: tensor.half() if half else tensor for name, tensor in weights.items()}, path)
    library_warnings.clear()
    pipe = load_pipeline(path, device="cpu")
    assert library_warnings == []
    assert pipe.unet.dtype == pipe.vae.dtype == pipe.text_encoder.dtype == torch.float32
    tolerance = {"rtol": 0.02, "atol": 0.02} if half else {"rtol": 1e-5, "atol": 1e-5}
    with torch.no_grad():
        latents, text = torch.randn(1, 4, 16, 16), torch.randn(1, 77, TEXT_WIDTH)
        for part, call in {
            "unet": lambda p: p.unet(latents, 500, text).sample,
            "vae": lambda p: p.vae.decode(latents[..., :8, :8]).sample,
            "encoder": lambda p: p.vae.encode(torch.linspace(-1, 1, 3 * 64 * 64).view(1, 3, 64, 64)).latent_dist.mean,
            # Short and long, for what fills up a prompt is the tokenizer's.
            "text": lambda p: p.encode_prompt(["a cat", "a dog " * 20], p.device, 1, False)[0],
        }.items():
            torch.testing.assert_close(call(pipe), call(original), **tolerance, msg=lambda m, part=part: f"{part}: {m}")


def test_an_inpainting_file(tmp_path):
    path = tmp_path / "inpainting.safetensors"
    save_file(original_weights(build_original(channels=9)), path)
    pipe = load_pipeline(path, device="cpu", inpainting=True)
    assert isinstance(pipe, StableDiffusionInpaintPipeline) and pipe.unet.config.in_channels == 9
    with pytest.raises(UserError, match=r"inpainting.safetensors is an inpainting model, .* train on its text-to-im"):
        load_pipeline(path, device="cpu")
    save_file(original_weights(build_original(channels=8)), path)
    with pytest.raises(UserError, match="has 8 input channels: give a text-to-image or inpainting model"):
        load_pipeline(path, device="cpu", inpainting=True)


def test_a_file_has_a_name_a_preset_and_a_hash(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    save_file(original_weights(build_original()), path)
    monkeypatch.chdir(tmp_path)
    assert model_name(load_pipeline("model.safetensors", device="cpu")) == str(path)
    assert absolute_model("model.safetensors") == str(path) and preset_for(str(path)) is paper
    before = weights_hash(str(path))
    save_file(original_weights(build_original(second=True)), path)
    assert len(before) == 16 and weights_hash(str(path)) != before


def test_what_a_unet_predicts_is_measured():
    pipe = load_pipeline("emoji", device="cpu")
    pipe.scheduler.register_to_config(prediction_type="v_prediction")
    settle_prediction(pipe)
    assert pipe.scheduler.config.prediction_type == "epsilon"
    predict = pipe.unet.forward
    signal = pipe.scheduler.alphas_cumprod[-1]

    def velocity(latents, time, text):
        predicted = predict(latents, time, text)
        picture = (latents - (1 - signal).sqrt() * predicted.sample) / signal.sqrt()
        predicted.sample = signal.sqrt() * predicted.sample - (1 - signal).sqrt() * picture
        return predicted

    pipe.unet.forward = velocity
    settle_prediction(pipe)
    assert pipe.scheduler.config.prediction_type == "v_prediction"
    with torch.no_grad():
        pipe.unet.conv_out.bias.fill_(torch.nan)
    with pytest.raises(UserError, match="no numbers: load the model with dtype float32"):
        settle_prediction(pipe)


def test_other_files_are_refused_in_words(tmp_path):
    path, whole = tmp_path / "model.safetensors", original_weights(build_original())
    one = torch.zeros(1)

    def refused():
        with pytest.raises(UserError) as said:
            load_pipeline(path, device="cpu")
        assert "\n" not in str(said.value)
        return str(said.value)

    path.write_bytes(b"no safetensors")
    assert "is truncated or not a safetensors file" in refused()
    save_file({"lora_unet_down_blocks_0_attn2_to_k.lora_down.weight": one}, path)
    assert "is a LoRA, a change of a model and no whole one" in refused()
    save_file({"conditioner.embedders.0.x": one}, path)
    assert "is a Stable Diffusion XL checkpoint" in refused()
    save_file({name: tensor for name, tensor in whole.items() if not name.startswith("first_stage_model")}, path)
    assert "has no VAE in the layout" in refused()
    save_file({"<new1>": one}, path)
    assert "has no UNet and no VAE and no text encoder in the layout" in refused()
    shallow = {name: tensor for name, tensor in whole.items() if ".input_blocks.10." not in name}
    save_file(shallow, path)
    assert "lacks model.diffusion_model.input_blocks.10.0.out_layers.3.weight" in refused()
    for lost in ("model.diffusion_model.out.2.weight", "first_stage_model.decoder.conv_out.bias", "final_layer_norm"):
        save_file({name: tensor for name, tensor in whole.items() if lost not in name}, path)
        assert "copy it again, it looks" in refused()
    path.rename(tmp_path / "model.txt")
    with pytest.raises(UserError, match="model.txt is no model: give a .safetensors checkpoint, or the folder"):
        load_pipeline(tmp_path / "model.txt", device="cpu")
    with pytest.raises(UserError, match="There is no model .*gone.safetensors: check the path"):
        load_pipeline("models/gone.safetensors", device="cpu")
