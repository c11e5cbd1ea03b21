"""A small pipeline of Stable Diffusion's structure, and its weights under the names of the original code."""

import re

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from disendiff_lite.single_file import assemble
from disendiff_lite.tokens import clip_tokenizer

TEXT_WIDTH = 64
WIDTHS = (32, 32, 64, 64)
RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
OUTER = {
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}
VAE_NAMES = {
    "conv_norm_out": "norm_out",
    "conv_shortcut": "nin_shortcut",
    "mid_block.attentions.0": "mid.attn_1",
    "mid_block.resnets.0": "mid.block_1",
    "mid_block.resnets.1": "mid.block_2",
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}
OPEN_CLIP = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}


def build_original(second: bool = False, channels: int = 4) -> StableDiffusionPipeline:
    """A random pipeline of the structure of SD 1.x, or of SD 2.x if it is the `second`, much narrower.

    channels: of the UNet's input.
    """
    tokenizer = clip_tokenizer()
    if second:
        tokenizer.pad_token = "!"
    with torch.random.fork_rng():
        torch.manual_seed(3)
        unet = UNet2DConditionModel(
            sample_size=64,
            in_channels=channels,
            block_out_channels=WIDTHS,
            cross_attention_dim=TEXT_WIDTH,
            attention_head_dim=(1, 1, 1, 1) if second else 8,
            use_linear_projection=second,
            upcast_attention=second,
        )
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=WIDTHS,
            layers_per_block=2,
            sample_size=512,
        )
        text_encoder = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(tokenizer),
                hidden_size=TEXT_WIDTH,
                intermediate_size=96,
                num_hidden_layers=23 if second else 3,  # the converter knows the last of OpenCLIP's by its number
                num_attention_heads=1,
                hidden_act="gelu" if second else "quick_gelu",
            )
        )
    return assemble(vae.eval(), text_encoder.eval(), unet.eval(), tokenizer)


def original_weights(pipe: StableDiffusionPipeline) -> dict[str, torch.Tensor]:
    """All weights of a pipeline of build_original by their names in a one-file checkpoint."""
    unet = {_unet_name(name): tensor for name, tensor in pipe.unet.state_dict().items()}
    weights = {f"model.diffusion_model.{name}": tensor for name, tensor in unet.items()}
    for name, tensor in pipe.vae.state_dict().items():
        is_projection = re.search(r"attentions\.0\.to_(q|k|v|out\.0)\.weight", name)  # a convolution of 1x1 there
        weights[f"first_stage_model.{_vae_name(name)}"] = tensor[..., None, None] if is_projection else tensor
    text = {name.removeprefix("text_model."): tensor for name, tensor in pipe.text_encoder.state_dict().items()}
    if pipe.text_encoder.config.hidden_act == "gelu":
        weights |= {f"cond_stage_model.model.{name}": tensor for name, tensor in _open_clip(text).items()}
    else:
        weights |= {f"cond_stage_model.transformer.text_model.{name}": tensor for name, tensor in text.items()}
    return {name: tensor.clone().contiguous() for name, tensor in weights.items()}


def _unet_name(name: str) -> str:
    def down(found: re.Match) -> str:
        block, kind, number = int(found[1]), found[2], int(found[3])
        if kind == "downsamplers":
            return f"input_blocks.{3 * block + 3}.0"
        return f"input_blocks.{3 * block + number + 1}.{0 if kind == 'resnets' else 1}"

    def up(found: re.Match) -> str:
        block, kind, number = int(found[1]), found[2], int(found[3])
        if kind == "upsamplers":
            return f"output_blocks.{3 * block + 2}.{1 if block == 0 else 2}"
        return f"output_blocks.{3 * block + number}.{0 if kind == 'resnets' else 1}"

    if ".resnets." in name:
        name = _replaced(name, RESNET)
    else:
        name = name.replace("downsamplers.0.conv", "downsamplers.0.op")
        name = name if ".attentions." in name or "samplers" in name else _replaced(name, OUTER)
    name = _replaced(name, {key: value for key, value in OUTER.items() if "." in key})
    name = re.sub(r"down_blocks\.(\d)\.(\w+)\.(\d)", down, name)
    return re.sub(r"up_blocks\.(\d)\.(\w+)\.(\d)", up, name)


def _vae_name(name: str) -> str:
    name = _replaced(name, VAE_NAMES)
    name = re.sub(r"down_blocks\.(\d)\.resnets\.(\d)", r"down.\1.block.\2", name)
    name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", name)
    name = re.sub(r"up_blocks\.(\d)\.resnets\.(\d)", lambda found: f"up.{3 - int(found[1])}.block.{found[2]}", name)
    return re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda found: f"up.{3 - int(found[1])}.upsample", name)


def _open_clip(text: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    weights = {
        "token_embedding.weight": text["embeddings.token_embedding.weight"],
        "positional_embedding": text["embeddings.position_embedding.weight"],
        "ln_final.weight": text["final_layer_norm.weight"],
        "ln_final.bias": text["final_layer_norm.bias"],
    }
    for name, tensor in text.items():
        if name.startswith("encoder.layers."):
            inner = _replaced(name, OPEN_CLIP).replace("encoder.layers.", "transformer.resblocks.")
            for end in ("weight", "bias"):
                if inner.endswith(f"self_attn.q_proj.{end}"):
                    parts = [text[name.replace("q_proj", f"{part}_proj")] for part in "qkv"]
                    weights[inner.replace(f"self_attn.q_proj.{end}", f"attn.in_proj_{end}")] = torch.cat(parts)
            if "self_attn." not in inner:
                weights[inner] = tensor
    last = {key: value for key, value in weights.items() if key.startswith("transformer.resblocks.0.")}
    # The last layer, which SD 2.x does not use.
    return weights | {key.replace(".0.", ".23.", 1): torch.zeros_like(value) for key, value in last.items()}


def _replaced(name: str, names: dict[str, str]) -> str:
    for old, new in names.items():
        name = re.sub(rf"(^|\.){re.escape(old)}\.", rf"\g<1>{new}.", name)
    return name
