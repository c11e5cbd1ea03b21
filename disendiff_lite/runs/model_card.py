"""The README of an export: what to load and to write in diffusers, A1111 and ComfyUI, and under which licence."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from disendiff_lite.config import Config
from disendiff_lite.models import SHORT_NAMES
from disendiff_lite.runs.folder import RunRecord
from disendiff_lite.support.text import enumeration

PAPER = "[DisenDiff](https://arxiv.org/abs/2403.18551)"
METHODS = {
    "disendiff": PAPER,
    "custom_diffusion": "Custom Diffusion",
    "dreambooth": "DreamBooth",
    "textual_inversion": "Textual Inversion",
}
LICENCES = {  # of the models that have a short name: Hugging Face's word for it, and what it is
    "emoji": ("other", "Apache-2.0, CC BY 4.0 and MIT, those of the emoji designs that it was trained on"),
    "sd14": ("creativeml-openrail-m", "CreativeML Open RAIL-M"),
    "sd15": ("creativeml-openrail-m", "CreativeML Open RAIL-M"),
}
WIDTHS = (768, 1024)  # of the text encoders of Stable Diffusion 1.x and 2.x


@dataclass(frozen=True)
class Exported:
    """The files for one kind of program, and how they compare when stock diffusers has read them back.

    target: "diffusers" or "webui". words: the file of each word. lora: that of the changes, the folder `unet` if the
    whole UNet trained, None if words alone did. apart: the largest difference of the UNet's output from the run's own.
    largest: of this output. lost: the share of the changes of keys and values that a lower rank cut off, in [0, 1].
    """

    target: str
    words: dict[str, Path]
    lora: Path | None
    apart: float
    largest: float
    lost: float


def model_card(
    name: str, record: RunRecord, config: Config, model: str, results: Sequence[Exported], width: int
) -> str:
    """The text of the card, Markdown with Hugging Face's front matter.

    name: of the run. model: its base model, as load_pipeline takes it. results: of the export. width: of a word's
    embedding.
    """
    path = Path(model).expanduser()
    local = model not in SHORT_NAMES and path.exists()
    # Of a path its last part alone: what lies above it is nobody else's business, and not on their disk.
    base = "data/emoji-diffusion" if model == "emoji" else path.name if local else SHORT_NAMES.get(model, model)
    load = "from_single_file" if local and path.is_file() else "from_pretrained"
    known = f"`{base}` of disendiff_lite" if model == "emoji" else f"`{base}`"
    code, licence = LICENCES.get(model, ("other", "see there"))
    learned = enumeration([f"`{word} {class_}`" for word, class_ in zip(record.modifiers, record.classes)])
    front = ["---", f"license: {code}", "tags:", "- text-to-image", "- stable-diffusion", "- textual-inversion"]
    front += ["- lora"] if any(result.lora is not None and not result.lora.is_dir() for result in results) else []
    front += [f"base_model: {base}"] if model != "emoji" and not local else []
    front += [f"instance_prompt: {record.prompt}", "---"]
    steps, guidance = config.inference_steps, config.guidance_scale
    parts = [
        "\n".join(front),
        f"# {name}",
        f"{learned}, learned from one picture with {METHODS[config.method]}, on the model {known}. Each word keeps its"
        f" class behind it. Pictures of the run were drawn by DDIM with {steps} steps and a guidance of {guidance:g}.",
    ]
    for result in results:
        own = result.target == "diffusers"
        parts += _diffusers(result, record, f'{load}("{base}"') if own else _webui(result, record, width)
    parts += ["## How exact", _comparison(results), "## Licence"]
    parts.append(
        f"These files are changes of {known} and stand under its licence ({licence}). The picture that they were"
        " learned from has rights of its own: pass them on only if you may pass on that picture."
    )
    return "\n\n".join(parts) + "\n"


def _diffusers(result: Exported, record: RunRecord, load: str) -> list[str]:
    """load: the call that loads the base model, up to its closing bracket."""
    lines = ["from diffusers import StableDiffusionPipeline", ""]
    if result.lora is not None and result.lora.is_dir():
        lines[0] = "from diffusers import StableDiffusionPipeline, UNet2DConditionModel"
        lines.append('unet = UNet2DConditionModel.from_pretrained("diffusers/unet")')
        lines.append(f"pipe = StableDiffusionPipeline.{load}, unet=unet)")
    else:
        lines.append(f"pipe = StableDiffusionPipeline.{load})")
    lines += [f'pipe.load_textual_inversion("diffusers", weight_name="{path.name}")' for path in result.words.values()]
    if result.lora is not None and not result.lora.is_dir():
        lines.append('pipe.load_lora_weights("diffusers")')
    lines.append(f'pipe("{record.prompt}").images[0]')
    return ["## diffusers", "\n".join(["```python", *lines, "```"])]


def _webui(result: Exported, record: RunRecord, width: int) -> list[str]:
    automatic = comfy = record.prompt
    for word, path in result.words.items():
        automatic = automatic.replace(word, path.stem)
        comfy = comfy.replace(word, f"embedding:{path.stem}")
    files = "the files of `webui/embeddings` to `{}`"
    a1111, comfyui = f"Copy {files.format('embeddings')}", f"Copy {files.format('models/embeddings')}"
    if result.lora is not None:
        automatic += f" <lora:{result.lora.stem}:1>"
        a1111 += f" and `webui/Lora/{result.lora.name}` to `models/Lora`"
        comfyui += f" and `webui/Lora/{result.lora.name}` to `models/loras`; put a Load LoRA node with strength_model 1"
        comfyui += " behind the checkpoint (it changes nothing in CLIP)"
    note = "A word is the name of its file: rename the file if you have another of this name."
    parts = ["## AUTOMATIC1111", f"{a1111}. {note} Prompt:", f"```\n{automatic}\n```"]
    parts += ["## ComfyUI", f"{comfyui}. Prompt:", f"```\n{comfy}\n```"]
    if width not in WIDTHS:
        said = "These two programs load models of Stable Diffusion's own shape, and the one of this run has another:"
        parts.append(f"{said} the files are for showing what they would be.")
    return parts


def _comparison(results: Sequence[Exported]) -> str:
    lines = [
        "Stock diffusers read the files back into a fresh model; its UNet's output, for fixed noise, beside the run's:",
        "",
        "| files | largest difference | largest output | lost by the rank |",
        "|---|---|---|---|",
    ]
    lines += [f"| {r.target} | {r.apart:.1e} | {r.largest:.1f} | {r.lost:.2%} |" for r in results]
    return "\n".join(lines)
