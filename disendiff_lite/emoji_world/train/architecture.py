"""The parts of the embedded model, in the stock classes of diffusers and transformers, and the pipeline of them.

The shapes mirror Stable Diffusion's at a hundredth of its size: 64 px pictures, 16x16 latents,
cross-attention at 16x16 and 8x8.
"""

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from disendiff_lite.tokens import clip_tokenizer

TEXT_DIM = 192
CHANNELS = (96, 160)  # of the UNet at 16x16 and 8x8


def new_vae() -> AutoencoderKL:
    """An untrained autoencoder, 64x64 RGB to 16x16x4; its first level is narrow because it costs the most."""
    return AutoencoderKL(
        sample_size=64,
        latent_channels=4,
        block_out_channels=(32, 64, 128),
        layers_per_block=1,
        norm_num_groups=16,
        mid_block_add_attention=False,  # so that crops of any size train it
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
    )


def widened(vae: AutoencoderKL) -> AutoencoderKL:
    """What `vae` computes, in the widths of `new_vae`: it has the same, or half of each.

    A narrow channel becomes two equal ones, and the weights that read it are shared out between them (Net2Net, Chen et
    al. 2016, section 3): in halves in the encoder, which thereby stays exact in fp16, and at random in the decoder, so
    that in further training the two learn different things. Raises RuntimeError when the widths are neither.
    """
    wide, narrow = new_vae(), vae.state_dict()
    tensors = {}
    for name, target in wide.state_dict().items():
        tensor = narrow[name].to(target)
        if len(target) == 2 * len(tensor):
            tensor = torch.cat([tensor, tensor])
        if target.dim() > 1 and target.shape[1] == 2 * tensor.shape[1]:
            shape = (tensor.shape[1],) + (1,) * (tensor.dim() - 2)
            share = torch.rand(shape) if name.startswith("decoder") else torch.full(shape, 0.5)  # (channels, 1, ...)
            tensor = torch.cat([tensor * share, tensor * (1 - share)], dim=1)
        tensors[name] = tensor
    wide.load_state_dict(tensors)
    wide.register_to_config(scaling_factor=vae.config.scaling_factor)
    return wide


def new_text_encoder(layers: int = 1) -> CLIPTextModel:
    """An untrained CLIP text transformer of one layer or more.

    Token embeddings start at standard deviation 0.5, positions at 0.1: from CLIP's own 0.02, words stay lost
    among the positions and prompts are ignored for the whole of a short training. The embeddings are random
    signs, not normal numbers, because most of the 49,408 rows are never trained and signs take a tenth of the
    room in a compressed history.
    """
    tokenizer = clip_tokenizer()
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=TEXT_DIM,
        intermediate_size=4 * TEXT_DIM,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    encoder = CLIPTextModel(config)
    words = encoder.get_input_embeddings().weight
    positions = next(p for name, p in encoder.named_parameters() if "position_embedding" in name)
    with torch.no_grad():
        words.copy_(torch.randint(0, 2, words.shape) - 0.5)
        positions.normal_(std=0.1)
    return encoder


def new_unet(channels: tuple[int, int] = CHANNELS, depth: int = 1) -> UNet2DConditionModel:
    """An untrained UNet with cross-attention at 16x16 and 8x8; with a `depth` of one, in three and four layers."""
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        cross_attention_dim=TEXT_DIM,
        block_out_channels=channels,
        layers_per_block=depth,
        norm_num_groups=16,
        attention_head_dim=4,  # the number of heads, in this class's old naming
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
    )
