"""A pipeline of Stable Diffusion 1.5's shape with random weights, for measuring time and memory without a download."""

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from disendiff_lite.single_file import assemble
from disendiff_lite.tokens import clip_tokenizer

# The settings of the published model that differ from the defaults of their classes, or are worth seeing.
UNET = {
    "sample_size": 64,
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,  # the number of heads, in this class's old naming
}
VAE = {
    "sample_size": 512,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 4,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
}
TEXT = {  # CLIP ViT-L/14's text transformer
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "projection_dim": 768,
}


def random_sd15(device: torch.device, dtype: torch.dtype) -> StableDiffusionPipeline:
    """Stable Diffusion 1.5 but for the values of its weights, which are random: its pictures are noise.

    The weights are made on the device.
    """
    tokenizer = clip_tokenizer()
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **TEXT,
    )
    with torch.random.fork_rng(), torch.device(device):
        torch.manual_seed(0)
        parts = UNet2DConditionModel(**UNET), AutoencoderKL(**VAE), CLIPTextModel(text)
    for part in parts:
        nn.Module.to(part, dtype=dtype).eval()  # diffusers' own `to` warns of float32 layers that there are not
    unet, vae, text_encoder = parts
    return assemble(vae, text_encoder, unet, tokenizer)
