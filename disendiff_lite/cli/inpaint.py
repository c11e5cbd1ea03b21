"""The verb `inpaint`: what a run learned, put into the masked part of a scene."""

import argparse
from pathlib import Path

from PIL import Image

from disendiff_lite.cli.commands import learned_pipeline, say
from disendiff_lite.cli.results import PictureFolder, file_stem
from disendiff_lite.inpainting import Canvas, prepare_canvas
from disendiff_lite.models import model_name
from disendiff_lite.runs.folder import picture_hash
from disendiff_lite.runs.inpaint import draw_inpaintings
from disendiff_lite.sampling import picture_seeds
from disendiff_lite.support.images import load_image
from disendiff_lite.support.progress import progress_callback
from disendiff_lite.tokens import check_prompt


def inpaint(args: argparse.Namespace) -> None:
    """Draw the masked part of a scene anew with what a run learned; prints the folder."""
    scene, mask = load_image(args.image), load_image(args.mask)
    pipe, _, config = learned_pipeline(args, inpainting=True)
    for prompt in args.prompts:
        check_prompt(pipe.tokenizer, prompt)
    canvas = prepare_canvas(scene, mask, config.resolution, invert=args.invert, feather=args.feather)
    folder = Path(args.out or Path(args.run, "inpainted"))
    notes = {"scene": picture_hash(scene), "mask": picture_hash(Image.fromarray(canvas.mask))}
    notes |= {"strength": f"{args.strength:g}", "feather": str(canvas.feather)}
    scene_name = file_stem(Path(args.image).stem, 40)
    results = PictureFolder(
        folder, args.run, config, model_name(pipe), args.negative_prompt, scene=scene_name, more=notes
    )
    if mask.size != scene.size:
        say(f"the mask was resized from {mask.width}x{mask.height} to {scene.width}x{scene.height} px")
    if said := _describe(canvas, config.resolution):
        say(said)
    prompts = list(dict.fromkeys(args.prompts))
    wanted = [(prompt, index) for prompt in prompts for index in range(args.count)]
    pictures = draw_inpaintings(
        pipe,
        [prompt for prompt, _ in wanted],
        picture_seeds(config.seed, args.count) * len(prompts),
        canvas,
        config,
        negative_prompt=args.negative_prompt,
        strength=args.strength,
        progress=progress_callback("inpainting"),
    )
    longer = sum(not results.save(picture, *which) for which, picture in zip(wanted, pictures))
    if longer:
        say(f"{longer} of {len(wanted)} pictures have longer names: other pictures have the short ones")
    print(folder)


def _describe(canvas: Canvas, resolution: int) -> str:
    """What the model sees of the scene, if that is not all of it as it is."""
    height, width = canvas.mask.shape
    window = canvas.window
    if (height, width) == (resolution, resolution):
        return ""
    seen = f"the model sees a square of {window.side} px, at {max(window.left, 0)}, {max(window.top, 0)}"
    if window.side > min(height, width):
        seen += ", with the scene's border repeated beyond it"
    return seen if window.side == resolution else f"{seen}, as {resolution} px"
