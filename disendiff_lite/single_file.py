"""A whole Stable Diffusion in one `.safetensors` file, in the layout of the original code, loaded without a network.

Such a file holds weights and no settings. diffusers converts the weights, and fetches the settings from the hub unless
it is given them: here they are read off the shapes of the tensors. What no shape says is the same in all models of a
kind, such as the number of attention heads. Only one thing differs within a kind, what the UNet predicts, and that is
measured on the loaded model.
"""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from safetensors import SafetensorError, safe_open
from transformers import CLIPTextConfig

from disendiff_lite.support.errors import UserError, first_line
from disendiff_lite.support.memory import is_out_of_memory
from disendiff_lite.tokens import clip_tokenizer

UNET, VAE = "model.diffusion_model.", "first_stage_model."
CLIP, OPEN_CLIP = "cond_stage_model.transformer.text_model.", "cond_stage_model.model."  # of SD 1.x; of SD 2.x
PARTS = {  # a tensor that each part has
    "UNet": (f"{UNET}input_blocks.0.0.weight",),
    "VAE": (f"{VAE}encoder.conv_in.weight",),
    "text encoder": (f"{CLIP}embeddings.token_embedding.weight", f"{OPEN_CLIP}token_embedding.weight"),
}
LATENT, INPAINTING = 4, 9  # input channels of a UNet: latents; those with a mask and the masked picture's latents
LEVELS = range(4)  # of the UNet and of the VAE, from the finest grid to the coarsest
HEAD_WIDTH = 64  # channels of an attention head, in the text encoders and in the UNet of SD 2.x; SD 1.x has 8 heads


def load_single_file(path) -> StableDiffusionPipeline:
    """The pipeline of a one-file checkpoint of the SD 1.x or 2.x kind, on the CPU, in the file's own precision.

    What the UNet predicts is not known yet: settle_prediction finds it out.

    Raises UserError if the file is damaged, lacks a part, or holds another kind of model.
    """
    path = Path(path)
    try:
        with safe_open(path, framework="pt") as file:
            shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is truncated or not a safetensors file ({error}): copy it again.") from None
    _check_kind(path, shapes)
    with tempfile.TemporaryDirectory() as folder:
        try:
            _write_settings(Path(folder), shapes)
        except KeyError as error:
            raise UserError(f"{path} lacks {error.args[0]}, which each Stable Diffusion has: copy it again.") from None
        try:
            pipe = StableDiffusionPipeline.from_single_file(
                str(path),
                config=folder,
                local_files_only=True,
                tokenizer=_tokenizer(shapes),
                scheduler=stable_diffusion_scheduler(),
            )
        except Exception as error:  # tensors that do not fit each other fail in every way there is
            if is_out_of_memory(error):
                raise
            raise UserError(f"Cannot load {path} ({first_line(error)}): copy it again, it looks damaged.") from error
    for part in (pipe.unet, pipe.vae, pipe.text_encoder):
        lost = [name for name, tensor in part.named_parameters() if tensor.is_meta]
        if lost:
            raise UserError(f"{path} lacks tensors, {lost[0]} among them: copy it again, it looks incomplete.")
    pipe.register_to_config(_name_or_path=str(path))
    return pipe


@torch.no_grad()
def settle_prediction(pipe: StableDiffusionPipeline) -> None:
    """Find out whether the UNet predicts the noise or the velocity, and tell the scheduler.

    At the last time step the input x is nearly all noise. So a UNet that predicts noise gives x back, with a
    correlation near 1. The velocity sqrt(a) noise - sqrt(1 - a) x0 is nearly all picture there: with Stable Diffusion's
    schedule the correlation is sqrt(a) = 0.07.

    Raises UserError if the prediction is not made of numbers.
    """
    unet, config = pipe.unet, pipe.scheduler.config
    text, _ = pipe.encode_prompt([""], pipe.device, 1, False)  # (1, T, dim)
    noise = torch.randn((1, 4, 32, 32), generator=torch.Generator("cpu").manual_seed(0)).to(unet.device, unet.dtype)
    # An inpainting UNet sees the mask, all to be filled, and the latents of an empty picture besides.
    more = [torch.ones_like(noise[:, :1]), torch.zeros_like(noise)] if unet.config.in_channels == INPAINTING else []
    predicted = unet(torch.cat([noise, *more], dim=1), config.num_train_timesteps - 1, text).sample
    if not predicted.isfinite().all():
        raise UserError("What the UNet predicts are no numbers: load the model with dtype float32.")
    both = torch.stack([noise.flatten(), predicted.flatten()]).float()  # (2, 4096)
    kind = "epsilon" if torch.corrcoef(both)[0, 1] > 0.5 else "v_prediction"
    pipe.scheduler.register_to_config(prediction_type=kind)


def assemble(vae, text_encoder, unet, tokenizer=None) -> StableDiffusionPipeline:
    """The parts as a stock pipeline with Stable Diffusion's schedule and, unless another is given, CLIP's tokenizer.

    It has no safety checker, as those of load_pipeline, and its progress bar is off.
    """
    pipe = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer or clip_tokenizer(),
        unet=unet,
        scheduler=stable_diffusion_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def stable_diffusion_scheduler() -> DDIMScheduler:
    """Stable Diffusion's noise schedule."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def _check_kind(path: Path, shapes: Mapping[str, tuple]) -> None:
    if any(key.startswith("conditioner.") for key in shapes):
        raise UserError(f"{path} is a Stable Diffusion XL checkpoint: give one of Stable Diffusion 1.x or 2.x.")
    if any(".lora_" in key or "lora_A" in key for key in shapes):
        raise UserError(f"{path} is a LoRA, a change of a model and no whole one: give the checkpoint it is meant for.")
    lost = [name for name, keys in PARTS.items() if not any(key in shapes for key in keys)]
    if lost:
        raise UserError(
            f"{path} has no {' and no '.join(lost)} in the layout of Stable Diffusion 1.x or 2.x: give a checkpoint"
            " that holds the whole model, or a diffusers folder."
        )


def _write_settings(folder: Path, shapes: Mapping[str, tuple]) -> None:
    """A diffusers folder without weights that fits the tensors."""
    library = {"unet": "diffusers", "vae": "diffusers", "scheduler": "diffusers"}
    kinds = {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL", "scheduler": "DDIMScheduler"}
    kinds |= {"text_encoder": "CLIPTextModel", "tokenizer": "CLIPTokenizer"}
    index = {part: [library.get(part, "transformers"), kind] for part, kind in kinds.items()}
    index |= dict.fromkeys(("safety_checker", "feature_extractor", "image_encoder"), [None, None])
    index |= {"_class_name": "StableDiffusionPipeline", "requires_safety_checker": False}
    _write_json(folder / "model_index.json", index)
    _write_json(folder / "unet" / "config.json", {"_class_name": kinds["unet"], **_unet_settings(shapes)})
    _write_json(folder / "vae" / "config.json", {"_class_name": kinds["vae"], **_vae_settings(shapes)})
    _text_settings(shapes).save_pretrained(folder / "text_encoder")


def _unet_settings(shapes: Mapping[str, tuple]) -> dict:
    widths = [shapes[f"{UNET}input_blocks.{3 * level + 1}.0.out_layers.3.weight"][0] for level in LEVELS]
    attention = f"{UNET}input_blocks.1.1."
    second = _is_second(shapes)
    return {
        "sample_size": 64,
        "in_channels": shapes[f"{UNET}input_blocks.0.0.weight"][1],
        "block_out_channels": widths,
        "layers_per_block": 2,
        "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
        "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
        "cross_attention_dim": shapes[f"{attention}transformer_blocks.0.attn2.to_k.weight"][1],
        # In diffusers' conditional UNets this is the number of heads.
        "attention_head_dim": [max(width // HEAD_WIDTH, 1) for width in widths] if second else 8,
        "use_linear_projection": len(shapes[f"{attention}proj_in.weight"]) == 2,
        "upcast_attention": second,  # else SD 2.1 overflows in float16
    }


def _vae_settings(shapes: Mapping[str, tuple]) -> dict:
    return {
        "sample_size": 512,
        "block_out_channels": [shapes[f"{VAE}encoder.down.{level}.block.0.conv2.weight"][0] for level in LEVELS],
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "layers_per_block": 2,
        "latent_channels": 4,
        "scaling_factor": 0.18215,
    }


def _text_settings(shapes: Mapping[str, tuple]) -> CLIPTextConfig:
    if _is_second(shapes):
        prefix, table, widened = OPEN_CLIP, "token_embedding.weight", "transformer.resblocks.0.mlp.c_fc.weight"
        places = shapes[f"{OPEN_CLIP}positional_embedding"]
    else:
        prefix, table, widened = CLIP, "embeddings.token_embedding.weight", "encoder.layers.0.mlp.fc1.weight"
        places = shapes[f"{CLIP}embeddings.position_embedding.weight"]
    depth = len({key.split(".layer_norm1.")[0].split(".ln_1.")[0] for key in shapes if _opens_layer(key, prefix)})
    words, width = shapes[prefix + table]
    return CLIPTextConfig(
        vocab_size=words,
        hidden_size=width,
        intermediate_size=shapes[prefix + widened][0],
        # SD 2.x reads the text from the last layer but one, so diffusers leaves out the last.
        num_hidden_layers=depth - 1 if _is_second(shapes) else depth,
        num_attention_heads=max(width // HEAD_WIDTH, 1),
        max_position_embeddings=places[0],
        hidden_act="gelu" if _is_second(shapes) else "quick_gelu",
    )


def _opens_layer(key: str, prefix: str) -> bool:
    return key.startswith(prefix) and key.endswith((".layer_norm1.weight", ".ln_1.weight"))


def _tokenizer(shapes: Mapping[str, tuple]):
    tokenizer = clip_tokenizer()
    if _is_second(shapes):
        tokenizer.pad_token = "!"  # number 0, with which OpenCLIP fills up
    return tokenizer


def _is_second(shapes: Mapping[str, tuple]) -> bool:
    """Whether the text encoder is OpenCLIP's, as in Stable Diffusion 2.x."""
    return f"{OPEN_CLIP}token_embedding.weight" in shapes


def _write_json(path: Path, values: Mapping) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(values), encoding="utf-8")
