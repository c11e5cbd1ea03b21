"""What a pipeline answers to a prompt, so that two pipelines can be compared by their outputs."""

import torch


@torch.no_grad()
def outputs(pipe, prompt: str, seed: int = 0) -> torch.Tensor:
    """The noise that the pipeline predicts for a fixed latent (1, C, 16, 16) and a prompt."""
    text, _ = pipe.encode_prompt(prompt, pipe.device, 1, False)
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(1, pipe.unet.config.in_channels, 16, 16, generator=generator).to(pipe.unet.dtype)
    return pipe.unet(latents, torch.tensor(300), text).sample
