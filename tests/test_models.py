"""Loading models by name, folder or hub id with clear refusals, and what each method trains."""

import json
import shutil

import peft
import pytest
import torch
from diffusers import StableDiffusionInpaintPipeline, StableDiffusionPipeline
from diffusers.utils import deprecate

from disendiff_lite import hub, models
from disendiff_lite.models import load_pipeline, model_fingerprint, pick_device, same_model
from disendiff_lite.support.errors import UserError
from disendiff_lite.support.paths import EMBEDDED_MODEL
from disendiff_lite.trainable import choose_trainable


@pytest.fixture(scope="module")
def folder(new_tiny_pipe, tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    new_tiny_pipe().save_pretrained(path)
    return path


@pytest.fixture
def copied(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def test_a_folder_loads(folder, tiny_pipe):
    pipe = load_pipeline(folder, device="cpu")
    assert pipe.unet.dtype == pipe.text_encoder.dtype == pipe.vae.dtype == torch.float32
    assert not pipe.unet.training and pipe.safety_checker is None and pipe.device.type == "cpu"
    assert model_fingerprint(pipe.unet) == model_fingerprint(tiny_pipe.unet)


@pytest.mark.parametrize("dtype", [torch.bfloat16, "float16"])
def test_half_precision_is_the_same_model(folder, tiny_pipe, dtype):
    pipe = load_pipeline(folder, device="cpu", dtype=dtype)
    assert pipe.unet.dtype in (torch.bfloat16, torch.float16)
    assert same_model(pipe.unet, model_fingerprint(tiny_pipe.unet))


def test_a_changed_model_is_another(tiny_pipe):
    before = model_fingerprint(tiny_pipe.unet)
    with torch.no_grad():
        choose_trainable(tiny_pipe, "kv").popitem()[1][0, 0] += 0.01
    assert not same_model(tiny_pipe.unet, before)


def test_short_names(folder, monkeypatch):
    assert models.SHORT_NAMES["emoji"] == str(EMBEDDED_MODEL)
    assert EMBEDDED_MODEL.parts[-2:] == ("data", "emoji-diffusion")
    monkeypatch.setitem(models.SHORT_NAMES, "emoji", str(folder))
    assert load_pipeline("emoji", device="cpu").unet.config.sample_size == 16


def test_names_that_lead_nowhere(tmp_path):
    for name in ("nothing", tmp_path / "nothing", "./a/b", "~/none"):
        with pytest.raises(UserError, match="There is no model .*: check the path, or use one of emoji"):
            load_pipeline(name, device="cpu")
    with pytest.raises(UserError, match="no model_index.json: give a diffusers folder"):
        load_pipeline(tmp_path, device="cpu")


def test_pickles_are_refused(tmp_path):
    for name in ("model.ckpt", "model.bin", "model.pt"):
        with pytest.raises(UserError, match="pickled weights, which are not read"):
            load_pipeline(tmp_path / name, device="cpu")


def test_an_inpainting_folder(new_tiny_pipe, tiny_unet, tmp_path, library_warnings):
    parts = new_tiny_pipe().components | {"unet": tiny_unet(in_channels=9), "requires_safety_checker": False}
    inpainting = StableDiffusionInpaintPipeline(**parts)
    inpainting.save_pretrained(tmp_path / "nine")
    library_warnings.clear()
    pipe = load_pipeline(tmp_path / "nine", device="cpu", inpainting=True)
    assert isinstance(pipe, StableDiffusionInpaintPipeline) and models.model_name(pipe) == str(tmp_path / "nine")
    assert library_warnings == []
    refusal = "nine is an inpainting model, which neither trains nor draws from a prompt alone: train on its text-to-im"
    with pytest.raises(UserError, match=refusal):
        load_pipeline(tmp_path / "nine", device="cpu")
    parts["unet"] = tiny_unet()  # four channels: it draws from a prompt, whatever the folder says
    StableDiffusionInpaintPipeline(**parts).save_pretrained(tmp_path / "four")
    for inpainting in (False, True):
        pipe = load_pipeline(tmp_path / "four", device="cpu", inpainting=inpainting)
        assert isinstance(pipe, StableDiffusionPipeline)


def test_another_kind_of_model_is_refused(copied):
    index = json.loads((copied / "model_index.json").read_text())
    index["_class_name"] = "StableDiffusionXLPipeline"
    (copied / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match="is a StableDiffusionXLPipeline: give a Stable Diffusion 1.x or 2.x model"):
        load_pipeline(copied, device="cpu")


def test_a_folder_of_pickles_is_refused(copied):
    weights = copied / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(UserError, match="pickled weights only"):
        load_pipeline(copied, device="cpu")


def test_a_damaged_folder_is_refused(copied):
    weights = copied / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match="Cannot load the model folder .* incomplete or damaged"):
        load_pipeline(copied, device="cpu")


def test_an_unreachable_hub_is_explained(monkeypatch):
    def unreachable(*_, **__):
        raise ConnectionError("Name or service not known\nand a long tail of advice")

    monkeypatch.setattr(hub, "model_info", unreachable)
    with pytest.raises(UserError) as refused:
        load_pipeline("nobody/such-a-model", device="cpu")
    message = str(refused.value)
    assert message.startswith(
        "Cannot fetch nobody/such-a-model from the model hub (Name or service not known): download it"
    )
    assert "'emoji'" in message and "\n" not in message


def test_a_model_downloaded_before_needs_no_hub(folder, monkeypatch):
    def unreachable(*_, **__):
        raise ConnectionError

    asked = []
    monkeypatch.setattr(hub, "model_info", unreachable)
    monkeypatch.setattr(hub, "hf_hub_download", lambda *_, **__: "model_index.json")

    def from_cache(read):
        def reads_the_folder(source, **options):
            asked.append((source, options.get("local_files_only")))
            return read(folder, **options)

        return reads_the_folder

    for name in ("from_pretrained", "load_config"):
        monkeypatch.setattr(StableDiffusionPipeline, name, from_cache(getattr(StableDiffusionPipeline, name)))
    assert load_pipeline("sd15", device="cpu").unet.config.sample_size == 16
    hub_id = "stable-diffusion-v1-5/stable-diffusion-v1-5"
    assert [local for source, local in asked if source == hub_id] == [True, True]


def test_what_diffusers_is_about_to_drop_fails_a_test():
    with pytest.raises(FutureWarning, match="old_name"):  # as pyproject.toml says
        deprecate("old_name", "99.0", "Use the new one.")


def test_loading_is_silent(folder, capfd):
    load_pipeline(folder, device="cpu")
    assert capfd.readouterr() == ("", "")


def test_devices_and_types():
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device().type in ("cuda", "mps", "cpu")
    for device in ("tpu", "warp drive"):
        with pytest.raises(UserError, match="no device .* use one of .*cpu"):
            pick_device(device)
    with pytest.raises(UserError, match="no weight type 'float8'"):
        load_pipeline("emoji", device="cpu", dtype="float8")


def test_a_device_that_is_not_there_or_full(folder, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # of the kind there is one, but not number 9
    with pytest.raises(UserError, match="no device 'cuda:9' on this machine: use one of cuda"):
        load_pipeline(folder, device="cuda:9")

    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory\nand what one could try")

    monkeypatch.setattr(torch.nn.Module, "to", full)
    with pytest.raises(UserError, match=r"on the device cpu \(CUDA out of memory\): load it with dtype float16, close"):
        load_pipeline(folder, device="cpu")

    def no_memory(*_, **__):
        raise MemoryError

    monkeypatch.setattr(StableDiffusionPipeline, "from_pretrained", no_memory)
    with pytest.raises(UserError, match=r"There is too little memory \(MemoryError\): load it with dtype float16"):
        load_pipeline(folder, device="cpu")


def test_what_each_method_trains(tiny_pipe):
    everything = {name for name, _ in tiny_pipe.unet.named_parameters()}
    expected = {
        f"{name}.{part}.weight"
        for name, _ in tiny_pipe.unet.named_modules()
        if name.endswith("attn2")
        for part in ("to_k", "to_v")
    }
    assert len(expected) == 14  # two in each of seven layers
    assert set(choose_trainable(tiny_pipe, "kv")) == expected
    assert set(choose_trainable(tiny_pipe, "v")) == {name for name in expected if ".to_v." in name}
    queries = {name.replace(".to_v.", ".to_q.") for name in expected if ".to_v." in name}
    assert set(choose_trainable(tiny_pipe, "qkv")) == expected | queries
    assert set(choose_trainable(tiny_pipe, "unet")) == everything
    assert choose_trainable(tiny_pipe, "none") == {}


def test_wrapped_layers_are_refused(tiny_pipe):
    tiny_pipe.unet.add_adapter(peft.LoraConfig(r=2, target_modules=r".*attn2\.(to_k|to_v)$"))
    with pytest.raises(UserError, match="fuse or unload its LoRA adapters first"):
        choose_trainable(tiny_pipe, "kv")
