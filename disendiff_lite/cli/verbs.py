"""The command line: the verbs, and what each of them takes."""

import argparse
import sys
from pathlib import Path

DEFAULT_FOLDER = "runs/<picture>, runs/<picture>-<method> for other methods than disendiff"


def build_parser() -> argparse.ArgumentParser:
    """The parser of all verbs."""
    parser = argparse.ArgumentParser(
        prog="disendiff" if Path(sys.argv[0]).stem == "disendiff" else "python -m disendiff_lite",
        description="Learn two concepts from one picture and keep them apart (DisenDiff).",
        allow_abbrev=False,
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    _add_train(_add_verb(verbs, "train", "learn the concepts of one picture"))
    _add_generate(_add_verb(verbs, "generate", "draw pictures with what a run learned"))
    _add_inpaint(_add_verb(verbs, "inpaint", "put what a run learned into the masked part of a scene"))
    _add_export(_add_verb(verbs, "export", "write what a run learned as files for other programs"))
    _add_score(_add_verb(verbs, "score", "measure image- and text-alignment of a run"))
    _add_report(_add_verb(verbs, "report", "train, draw and score in notebooks, and write one HTML page"))
    _add_sweep(_add_verb(verbs, "sweep", "train and measure pairs x methods x seeds, and write one table"))
    _add_bench(_add_verb(verbs, "bench", "measure the seconds and the memory of a training step"))
    _add_fetch(_add_verb(verbs, "fetch-paper-data", "fetch the paper's ten photographs, for --pair paper/cat_dog"))
    return parser


def _add_verb(verbs, name: str, summary: str) -> argparse.ArgumentParser:
    return verbs.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".", allow_abbrev=False)


def _add_train(parser: argparse.ArgumentParser) -> None:
    _add_source(parser)
    _add_model(parser, default="emoji")
    parser.add_argument(
        "--method", default="disendiff", help="disendiff, custom_diffusion, dreambooth or textual_inversion"
    )
    parser.add_argument("--preset", help="paper or emoji: the recipe; by default the one that suits the model's size")
    parser.add_argument(
        "--prompt", type=_text, help="caption of the picture, with modifiers: 'photo of a <new1> cat and <new2> dog'"
    )
    parser.add_argument("--prior", metavar="FOLDER", help="own pictures of the plain classes, instead of the model's")
    parser.add_argument("--seed", type=int, help="of everything that is random (default 0)")
    _add_settings(parser, "any setting of the recipe, such as steps=100 or calibration_weight=0")
    parser.add_argument("--run-dir", metavar="FOLDER", help=f"where the run is written (default {DEFAULT_FOLDER})")


def _add_generate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="folder of a finished run")
    prompts = "such as 'a <new1> cat on the beach'; by default the set that shows everything"
    parser.add_argument("prompts", metavar="PROMPT", nargs="*", type=_text, help=prompts)
    parser.add_argument(
        "--negative-prompt", metavar="PROMPT", type=_text, default="", help="what the pictures should not show"
    )
    parser.add_argument("--count", type=_at_least_one, default=4, help="pictures of each prompt (default 4)")
    parser.add_argument("--seed", type=int, help="of the pictures (default: the run's)")
    lora = "a LoRA that somebody else trained, such as a style, beside it; may come several times"
    parser.add_argument("--lora", dest="loras", metavar="FILE", action="append", default=[], help=lora)
    scale = "how strongly, one for all LoRAs or one for each (default 1)"
    parser.add_argument("--lora-scale", dest="lora_scales", type=float, metavar="X", action="append", help=scale)
    parser.add_argument("--with", dest="other", metavar="RUN", help="another run of the same model, beside it")
    rename = "other words for those of --with, such as '<new1>=<new3>,<new2>=<new4>'"
    parser.add_argument("--rename", type=_text, metavar="OLD=NEW", action="append", default=[], help=rename)
    _add_settings(parser, "settings of the sampling, such as inference_steps=50 or guidance_scale=8")
    _add_model(parser, default=None)
    parser.add_argument("--out", metavar="FOLDER", help="where the pictures go (default RUN/generated)")


def _add_inpaint(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="folder of a finished run")
    parser.add_argument("prompts", metavar="PROMPT", nargs="+", type=_text, help="such as 'a <new1> cat on the beach'")
    parser.add_argument("--image", metavar="FILE", required=True, help="the scene, of any size")
    parser.add_argument("--mask", metavar="FILE", required=True, help="white where the scene is drawn anew")
    parser.add_argument("--invert", action="store_true", help="draw anew what is black in the mask")
    feather = "width of the soft border outside the mask (default: a 32nd of the square that the model sees)"
    parser.add_argument("--feather", type=int, metavar="PX", help=feather)
    strength = "share of the steps that is made; below 1 what was there before shows through (default 1)"
    parser.add_argument("--strength", type=float, default=1.0, help=strength)
    parser.add_argument(
        "--negative-prompt", metavar="PROMPT", type=_text, default="", help="what should not be drawn there"
    )
    parser.add_argument("--count", type=_at_least_one, default=4, help="pictures of each prompt (default 4)")
    parser.add_argument("--seed", type=int, help="of the pictures (default: the run's)")
    _add_settings(parser, "settings of the sampling, such as inference_steps=50 or guidance_scale=8")
    _add_model(parser, default=None)
    parser.add_argument("--out", metavar="FOLDER", help="where the pictures go (default RUN/inpainted)")


def _add_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="folder of a finished run")
    to = "diffusers, webui (A1111 and ComfyUI) or all (default all)"
    parser.add_argument("--to", choices=("diffusers", "webui", "all"), default="all", help=to)
    rank = "rank of the LoRA, for a smaller file (default: the run's own, which loses nothing more)"
    parser.add_argument("--rank", type=_at_least_one, metavar="R", help=rank)
    _add_model(parser, default=None)
    parser.add_argument("--out", metavar="FOLDER", help="where the files go (default RUN/export)")


def _add_score(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="folder of a finished run")
    crops = "one picture of each concept alone, in one option or in several; shipped references have theirs"
    parser.add_argument("--crops", metavar="A.png,B.png", action="append", help=crops)
    parser.add_argument(
        "--count", type=_at_least_one, default=4, help="pictures of each prompt (default 4, the paper has 16)"
    )
    parser.add_argument("--seed", type=int, help="of the pictures (default: the run's)")
    _add_settings(parser, "settings of the sampling, such as inference_steps=50")
    parser.add_argument("--scorer", help="emoji, clip or another CLIP model (default: the one that suits the model)")
    _add_model(parser, default=None)


def _add_report(parser: argparse.ArgumentParser) -> None:
    source = _add_source(parser)
    source.add_argument(
        "--all-pairs", action="store_true", help="every shipped pair, several at a time, and an index page over them"
    )
    parser.add_argument(
        "--jobs", type=_at_least_one, metavar="N", help="pairs at a time with --all-pairs (default: one a core)"
    )
    parser.add_argument("--model", help="a short name, a folder, a file or a hub id (default: the notebook's)")
    parser.add_argument("--method", help="disendiff, custom_diffusion, dreambooth or textual_inversion")
    parser.add_argument("--seed", type=int, help="of everything that is random")
    _add_settings(parser, "any parameter of the notebooks, such as steps=100")
    parser.add_argument(
        "--notebooks", default="00_quickstart", help="names with commas between, or all (default 00_quickstart)"
    )
    where = (
        f"where the report is written (default {DEFAULT_FOLDER}; runs/all-pairs with a folder a pair for all of them)"
    )
    parser.add_argument("--run-dir", metavar="FOLDER", help=where)


def _add_sweep(parser: argparse.ArgumentParser) -> None:
    pairs = "references with commas between, also cat_dog_bird, dog_dog or paper/cat_dog, or all, the ten shipped pairs"
    parser.add_argument("--pairs", default="all", help=f"{pairs} (default all)")
    methods = "methods and arms of the ablation with commas between, such as disendiff,without_bind, or all"
    parser.add_argument("--methods", default="disendiff,custom_diffusion", help=f"{methods} (default %(default)s)")
    parser.add_argument("--seeds", default="0,1,2", help="with commas between (default %(default)s)")
    parser.add_argument(
        "--count",
        type=_at_least_one,
        default=20,
        help="pictures of each subject, of which a pair has three (default 20)",
    )
    parser.add_argument("--model", default="emoji", help="a short name, a folder, a file or a hub id (default emoji)")
    _add_settings(parser, "any setting of the recipe, for all methods")
    parser.add_argument("--jobs", type=_at_least_one, metavar="N", help="runs at a time (default: one a core)")
    backends = "where the runs go: processes of this machine (loky), or a cluster (default loky)"
    parser.add_argument("--backend", choices=("loky", "dask", "ray"), default="loky", help=backends)
    parser.add_argument("--address", help="of the cluster's scheduler, such as tcp://host:8786")
    parser.add_argument("--out", metavar="FOLDER", default="results", help="where it goes on (default %(default)s)")


def _add_bench(parser: argparse.ArgumentParser) -> None:
    model = parser.add_mutually_exclusive_group()
    shapes = "emoji, the embedded model, or sd15, random weights in the shape of Stable Diffusion 1.5 (default emoji)"
    model.add_argument("--shape", choices=("emoji", "sd15"), default="emoji", help=shapes)
    model.add_argument("--model", help="a model of your own instead: a short name, a folder, a file or a hub id")
    precisions = "float32, bfloat16, float16, or several with commas between (default %(default)s)"
    parser.add_argument("--precision", default="float32", help=precisions)
    parser.add_argument("--batch", type=_at_least_one, help="pictures in a step (default: the recipe's, 2)")
    parser.add_argument("--resolution", type=_at_least_one, help="side of the pictures, pixels (default: the recipe's)")
    parser.add_argument("--checkpointing", action="store_true", help="recompute activations: less memory, slower")
    parser.add_argument("--channels-last", action="store_true", help="the order that some devices are faster with")
    parser.add_argument("--what", default="kv", help="what trains of the UNet, as in --set trained=... (default kv)")
    parser.add_argument("--steps", type=_at_least_one, default=10, help="of each kind that are timed (default 10)")
    parser.add_argument("--device", help="cpu, cuda, mps, ... (default: the fastest there is)")
    earlier = "show the bench.json of earlier measurements instead, in one option or in several"
    parser.add_argument("--earlier", metavar="FILE", action="append", help=earlier)
    parser.add_argument("--out", metavar="FOLDER", help="where bench.json and bench.md go (default: nowhere)")
    page = "a page that gets the tables between its lines <!-- bench --> and <!-- end of bench -->"
    parser.add_argument("--readme", metavar="FILE", help=page)


def _add_fetch(parser: argparse.ArgumentParser) -> None:
    source = "address of a folder with the repository's files (default: the published commit on GitHub)"
    parser.add_argument("--source", metavar="URL", help=source)


def _add_source(parser: argparse.ArgumentParser):
    """The options that name the picture; returns the group of those of which there must be one."""
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--pair", help="a shipped picture, such as cat_dog, or one of the paper's: paper/cat_dog")
    source.add_argument("--image", metavar="FILE", help="a picture of your own, together with --classes")
    parser.add_argument("--classes", type=_text, help="what your picture shows, such as cat,dog")
    return source


def _add_model(parser: argparse.ArgumentParser, default: str | None) -> None:
    shown = default or "the one that the run was trained on"
    parser.add_argument(
        "--model", default=default, help=f"a short name, a folder, a file or a hub id (default: {shown})"
    )
    parser.add_argument("--device", help="cpu, cuda, mps, ... (default: the fastest there is)")


def _add_settings(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--set", dest="settings", metavar="NAME=VALUE", action="append", default=[], help=what)


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def _text(text: str) -> str:
    if any("\ud800" <= letter <= "\udfff" for letter in text):  # what Python makes of bytes that are not UTF-8
        raise argparse.ArgumentTypeError(f"{text!r} holds bytes that are no letters: write it in UTF-8")
    return text
