"""Train the embedded model from the atlas: autoencoder, then UNet with text encoder, on whatever device is there.

    python -m disendiff_lite.emoji_world.train.pretrain [--work FOLDER]

Every hundred steps it prints a line; every 250 it writes a checkpoint, from which a killed run goes on; every thousand
a row of `training.csv` and a sheet of sample pictures. At the end the EMA weights are exported as fp16 safetensors in
the stock diffusers layout.
"""

import argparse
import copy
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image

from disendiff_lite.emoji_world.draw.dataset import load_scenes
from disendiff_lite.emoji_world.train.architecture import new_text_encoder, new_unet
from disendiff_lite.emoji_world.train.training_data import latent_scale, training_set
from disendiff_lite.emoji_world.train.unet import PRECISIONS, UnetTraining, train_unet
from disendiff_lite.emoji_world.train.vae import train_vae
from disendiff_lite.presets import TRAINED
from disendiff_lite.single_file import assemble
from disendiff_lite.support.errors import UserError, run_main

PROJECTIONS = TRAINED["qkv"]  # that can be forgotten
UNSEEN_SEED = 7  # of the scenes that are only looked at
SAMPLE_PROMPTS = (
    "photo of a cat and a dog",
    "photo of a red cat and a blue dog on the grass",
    "photo of a dog on the beach",
    "photo of a green car and a house on the snow",
    "photo of a man and a woman in a room",
    "photo of a blue fish",
    "photo of a horse and a chair on a street at night",
    "a pencil drawing of a rabbit",
    "photo of a cow wearing sunglasses in the desert",
    "photo of a yellow bird and a plant at sunset",
    "photo of a small pig and a big toy",
    "photo of a purple vase and a lamp",
)


def sample_sheet(pipe: StableDiffusionPipeline, path: Path) -> None:
    """Write two rows of pictures, one for each of SAMPLE_PROMPTS."""
    pipe.set_progress_bar_config(disable=True)
    pictures = pipe(
        list(SAMPLE_PROMPTS), num_inference_steps=20, guidance_scale=5.0, generator=torch.Generator().manual_seed(0)
    ).images
    sheet = Image.new("RGB", (6 * 132, 2 * 132), "white")
    for index, picture in enumerate(pictures):
        sheet.paste(picture.resize((128, 128), Image.NEAREST), (index % 6 * 132, index // 6 * 132))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)


def export(pipe: StableDiffusionPipeline, folder: Path) -> None:
    """Write the pipeline as fp16 safetensors, replacing what is there only when it is complete."""
    temporary = folder.with_name(folder.name + ".part")
    shutil.rmtree(temporary, ignore_errors=True)
    halved = [copy.deepcopy(part).to("cpu", torch.float16) for part in (pipe.vae, pipe.text_encoder, pipe.unet)]
    assemble(*halved).save_pretrained(temporary, safe_serialization=True)
    for config in temporary.glob("*/config.json"):
        settings = json.loads(config.read_text())
        settings.pop("_name_or_path", None)  # where the training started from is nobody else's path
        if "dtype" in settings:
            # transformers loads in the type that the config names, diffusers in float32: so the parts fit together.
            settings["dtype"] = "float32"
        config.write_text(json.dumps(settings, indent=2) + "\n")
    folder.mkdir(parents=True, exist_ok=True)
    for part in temporary.iterdir():
        target = folder / part.name
        shutil.rmtree(target, ignore_errors=True)
        part.replace(target)
    temporary.rmdir()


def forget(unet: UNet2DConditionModel, projections: Sequence[str]) -> None:
    """Give these of PROJECTIONS fresh random weights in every cross-attention layer."""
    for name, module in unet.named_modules():
        parent, _, last = name.rpartition(".")
        if parent.endswith("attn2") and last in projections:
            module.reset_parameters()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--work",
        type=Path,
        default=Path("runs/pretrain"),
        help="folder for scenes, checkpoints and samples (default: %(default)s)",
    )
    parser.add_argument("--out", type=Path, help="where the finished model goes (default: WORK/emoji-diffusion)")
    parser.add_argument(
        "--start", type=Path, help="a finished model to start from, with a fresh optimiser, instead of from nothing"
    )
    parser.add_argument("--scenes", type=int, default=60_000, help="different scenes to draw (default: %(default)s)")
    parser.add_argument(
        "--vae-crops", type=int, default=168_000, help="crops to train the autoencoder on (default: %(default)s)"
    )
    parser.add_argument(
        "--decoder-crops",
        type=int,
        default=0,
        help="with --start: crops to train the decoder further on (default: %(default)s)",
    )
    parser.add_argument(
        "--images", type=int, default=150_000, help="images to train the UNet on, 0 for none (default: %(default)s)"
    )
    parser.add_argument(
        "--batch",
        type=int,
        default=UnetTraining.batch,
        help="images of one step; a GPU is idle with few, and more want a higher rate (default: %(default)s)",
    )
    parser.add_argument(
        "--learning-rate", type=float, default=UnetTraining.learning_rate, help="(default: %(default)s)"
    )
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default=UnetTraining.precision,
        help="of the UNet's arithmetic; bfloat16 is faster where the processor has it (default: %(default)s)",
    )
    parser.add_argument(
        "--grounding",
        type=float,
        default=UnetTraining.grounding,
        help="weight of the true masks in teaching class words where to look, 0 for captions alone"
        " (default: %(default)s)",
    )
    parser.add_argument(
        "--forget",
        nargs="+",
        choices=PROJECTIONS,
        default=[],
        help="with --start: these projections of all cross-attention layers start anew",
    )
    parser.add_argument("--frozen-text", action="store_true", help="with --start: leave the text encoder as it is")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    if (options.forget or options.frozen_text) and not options.start:
        raise UserError("--forget and --frozen-text need a finished model: name it with --start.")
    settings = UnetTraining(
        images=options.images,
        batch=options.batch,
        learning_rate=options.learning_rate,
        precision=options.precision,
        grounding=options.grounding,
        frozen_text=options.frozen_text,
        seed=options.seed,
    )
    torch.manual_seed(options.seed)
    scenes = load_scenes(options.work / "scenes", options.scenes)
    unseen = load_scenes(options.work / "scenes", 96, seed=UNSEEN_SEED)
    if options.start:
        pipe = StableDiffusionPipeline.from_pretrained(options.start, safety_checker=None).to(torch.float32)
        forget(pipe.unet, options.forget)
        if options.decoder_crops:
            pipe.vae = train_vae(
                scenes.pictures,
                unseen.pictures,
                options.work,
                crops=options.decoder_crops,
                seed=options.seed,
                device=options.device,
                start=pipe.vae,
            )
    else:
        vae = train_vae(
            scenes.pictures,
            unseen.pictures,
            options.work,
            crops=options.vae_crops,
            seed=options.seed,
            device=options.device,
        )
        pipe = assemble(vae, new_text_encoder(), new_unet())
        vae.register_to_config(scaling_factor=latent_scale(pipe, unseen, options.device))
    pipe.to(options.device)
    pipe.unet.to(memory_format=torch.channels_last)
    print("encoding scenes", flush=True)
    data = training_set(pipe, scenes, options.device, options.work)
    train_unet(
        pipe,
        data,
        training_set(pipe, unseen, options.device),
        options.work,
        settings,
        device=options.device,
        on_progress=lambda current, step: sample_sheet(current, options.work / "samples" / f"{step:06d}.png"),
    )
    export(pipe, options.out or options.work / "emoji-diffusion")


if __name__ == "__main__":
    run_main(main)
