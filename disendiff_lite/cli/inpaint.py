"""The verb `inpaint`: what a run learned, put into the masked part of a scene."""

import argparse
from functools import partial
from pathlib import Path

from PIL import Image

from disendiff_lite.cli.commands import learned_pipeline, say
from disendiff_lite.cli.generate import draw_into
from disendiff_lite.cli.results import PictureFolder, file_stem
from disendiff_lite.inpainting import Canvas, inpaint_batch, prepare_canvas
from disendiff_lite.models import model_name
from disendiff_lite.runs.folder import picture_hash
from disendiff_lite.support.images import load_image
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
    draw = partial(inpaint_batch, canvas=canvas, strength=args.strength)
    draw_into(results, pipe, list(dict.fromkeys(args.prompts)), args.count, "inpainting", draw=draw)
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
