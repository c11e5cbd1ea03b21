"""CLIP scores: how alike pictures are to a reference, how well they fit their prompt, and whether
concepts leak into each other.

CLIP gives pictures and texts embeddings of unit length in one space; their cosine says how alike they are:

    image-alignment   cos(picture, reference), mean over all pairs
    text-alignment    cos(picture, prompt without modifiers), and CLIPScore = 2.5 max(cos, 0), mean over pictures
    leakage           cos(picture of one concept alone, its own crop) - cos(the same picture, the other concept's crop)

A cosine of 0.8 is neither good nor bad in itself: compare only scores of one scorer on one reference.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import hf_hub_download, model_info, try_to_load_from_cache
from PIL import Image

from disendiff_lite.evaluate.score import Score
from disendiff_lite.models import pick_device
from disendiff_lite.support.errors import UserError, first_line
from disendiff_lite.support.paths import EMBEDDED_SCORER, check_shipped
from disendiff_lite.tokens import MODIFIER

SHORT_NAMES = {"emoji": str(EMBEDDED_SCORER), "clip": "ViT-B-32-quickgelu/openai"}
SCORERS = {"emoji": "emoji", "paper": "clip"}  # the scorer that suits a preset
CLIP_SCORE_WEIGHT = 2.5  # of CLIPScore (Hessel et al. 2021), without its "A photo depicts" before the prompt
BATCH = 32  # pictures or texts embedded at once
CONFIG_FILE, WEIGHTS_FILE = "open_clip_config.json", "open_clip_model.safetensors"


@dataclass(frozen=True)
class TextAlignment:
    """How well pictures fit their prompt: the raw cosine in [-1, 1], and CLIPScore, 2.5 max(cosine, 0), in [0, 2.5]."""

    cosine: Score
    clip_score: Score


@dataclass(frozen=True)
class Leakage:
    """Cosines of pictures of one concept to its own crop and to the most similar other crop; margin is own minus other.

    A negative margin means that the picture looks more like a concept it was not asked for.
    """

    own: Score
    other: Score
    margin: Score


@dataclass(frozen=True)
class Scorer:
    """A CLIP model: `encode_image` takes what `preprocess` made of a picture, `encode_text` what `tokenize` made of
    texts.
    """

    name: str
    model: torch.nn.Module
    preprocess: Callable[[Image.Image], torch.Tensor]
    tokenize: Callable[[list[str]], torch.Tensor]
    device: torch.device


def load_scorer(name="emoji", device=None) -> Scorer:
    """Load a CLIP model with open_clip; only safetensors weights are read.

    name: "emoji" (the embedded scorer, for the emoji world), "clip" (real CLIP ViT-B/32, for real pictures), a folder
        with open_clip_config.json and open_clip_model.safetensors, or open_clip's "architecture" or "architecture/tag"
        (without a tag OpenAI's weights, which need a -quickgelu architecture).
    device: where to put it; None takes the first of cuda, mps and cpu that is there.

    Returns the scorer, in eval mode. Raises UserError if there is no such folder or model, if the folder lacks a file
    or holds a damaged one, or if the weights cannot be fetched or are pickled.
    """
    # Importing open_clip takes seconds, which whoever only plots or trains should not wait for.
    import open_clip

    device = pick_device(device)
    source = SHORT_NAMES.get(str(name), str(name))
    architecture, _, tag = source.partition("/")
    if architecture in open_clip.list_models():
        identifier, tag = architecture, tag or "openai"
        _check_tag(architecture, tag, open_clip.list_pretrained_tags_by_model(architecture))
        _fetch(source, open_clip.get_pretrained_cfg(architecture, tag).get("hf_hub", ""))
    else:
        identifier, tag = f"local-dir:{_checked_folder(source)}", None
    try:
        model, preprocess = open_clip.create_model_from_pretrained(identifier, tag, device=device)
        tokenize = open_clip.get_tokenizer(identifier)
    except Exception as error:  # open_clip, safetensors and the hub client each have their own families of errors
        mend = "download it on a connected machine" if tag else "copy the folder again, it looks incomplete or damaged"
        raise UserError(f"Cannot load the scorer {name} ({first_line(error)}): {mend}.") from error
    return Scorer(str(name), model.eval(), preprocess, tokenize, device)


@torch.no_grad()
def embed_pictures(scorer: Scorer, pictures: Sequence[Image.Image]) -> torch.Tensor:
    """Embeddings of pictures, (P, dim) of unit length, float32 on the CPU. Raises UserError if there is no picture."""
    if not pictures:
        raise UserError("There is no picture to score: give at least one.")
    pixels = torch.stack([scorer.preprocess(picture) for picture in pictures])  # (P, 3, side, side)
    return _unit([scorer.model.encode_image(part.to(scorer.device)) for part in pixels.split(BATCH)])


@torch.no_grad()
def embed_texts(scorer: Scorer, texts: Sequence[str]) -> torch.Tensor:
    """Embeddings of texts, (number of texts, dim) of unit length, float32 on the CPU."""
    tokens = scorer.tokenize(list(texts))  # (number of texts, context)
    return _unit([scorer.model.encode_text(part.to(scorer.device)) for part in tokens.split(BATCH)])


def image_alignment(scorer: Scorer, pictures: Sequence[Image.Image], references: Sequence[Image.Image]) -> Score:
    """Mean cosine of all pairs of pictures and references (the paper's image-alignment).

    references: the whole reference picture for pictures of all concepts, the concept's crop for pictures of one
        concept.

    Returns a Score with one value a picture, its mean over the references. Raises UserError if there are no pictures.
    """
    cosines = embed_pictures(scorer, pictures) @ embed_pictures(scorer, references).T  # (P, R)
    return _score(cosines.mean(dim=1))


def text_alignment(
    scorer: Scorer, pictures: Sequence[Image.Image], prompt: str, modifiers: Sequence[str] = ()
) -> TextAlignment:
    """Cosine of each picture with its prompt, and CLIPScore (the paper's text-alignment).

    prompt: what the pictures were asked for. modifiers: words to take out of it, for CLIP has never seen them.

    Raises UserError if a word in angle brackets is left, or if there are no pictures.
    """
    text = strip_modifiers(prompt, modifiers)
    left = MODIFIER.findall(text)
    if left:
        raise UserError(
            f"The scorer does not know {', '.join(left)} in the prompt {prompt!r}: name it among the modifiers."
        )
    cosines = (embed_pictures(scorer, pictures) @ embed_texts(scorer, [text]).T)[:, 0]  # (P,)
    return TextAlignment(_score(cosines), _score(CLIP_SCORE_WEIGHT * cosines.clamp(min=0)))


def leakage(
    scorer: Scorer, pictures: Sequence[Image.Image], own: Image.Image, others: Sequence[Image.Image]
) -> Leakage:
    """How much more pictures of one concept alone are like it than like the other concepts of the same reference.

    pictures: of the one concept alone. own: its crop of the reference. others: the crops of the
        others; the most similar counts.

    Raises UserError if there are no pictures or no others.
    """
    embedded = embed_pictures(scorer, pictures)  # (P, dim)
    to_own = (embedded @ embed_pictures(scorer, [own]).T)[:, 0]  # (P,)
    to_other = (embedded @ embed_pictures(scorer, others).T).amax(dim=1)  # (P,)
    return Leakage(_score(to_own), _score(to_other), _score(to_own - to_other))


def strip_modifiers(prompt: str, modifiers: Sequence[str]) -> str:
    """The prompt without its modifiers: "a <new1> cat and <new2> dog" becomes "a cat and dog";
    upper and lower case are one.
    """
    for modifier in modifiers:
        prompt = re.sub(re.escape(modifier), " ", prompt, flags=re.IGNORECASE)
    return re.sub(r"\s+([,.;:!?])", r"\1", " ".join(prompt.split()))


def _score(values: torch.Tensor) -> Score:
    return Score(tuple(values.tolist()))


def _unit(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    embedded = torch.cat(parts).float().cpu()  # (rows, dim)
    return embedded / embedded.norm(dim=-1, keepdim=True)


def _checked_folder(source: str) -> Path:
    folder = Path(source).expanduser()
    if folder == EMBEDDED_SCORER:
        check_shipped(folder)
    if not folder.is_dir():
        raise UserError(
            f"There is no scorer {source}: give a folder, an open_clip architecture, or one of"
            f" {', '.join(SHORT_NAMES)}."
        )
    # Without this file open_clip would take a pickled one beside it.
    for file in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / file).is_file():
            raise UserError(f"{folder} has no {file}: give a folder that holds {CONFIG_FILE} and {WEIGHTS_FILE}.")
    return folder


def _check_tag(architecture: str, tag: str, tags: Sequence[str]) -> None:
    if tag not in tags:
        raise UserError(
            f"There are no weights {tag!r} of {architecture}: use one of {', '.join(tags) or 'another model'}."
        )


def _fetch(name: str, address: str) -> None:
    """Bring a scorer's safetensors weights into the hub's cache, where open_clip looks first: it
    would also take pickled ones.

    address: "owner/name/" of the hub repository; with more behind it, or "", the weights are one pickled file.
    """
    files, repository = [], address.removesuffix("/")
    if address.endswith("/"):
        if isinstance(try_to_load_from_cache(repository, WEIGHTS_FILE), str):
            return
        try:
            # Asking first fails at once where a download would try again and again for a minute.
            files = [file.rfilename for file in model_info(repository, timeout=10).siblings]
            if WEIGHTS_FILE in files:
                hf_hub_download(repository, WEIGHTS_FILE)
        except Exception as error:  # the hub client's errors have no common family
            raise UserError(
                f"Cannot fetch the scorer {name} from the model hub ({first_line(error)}): download it on a connected"
                " machine,"
                " or use the scorer that is shipped, 'emoji'."
            ) from error
    if WEIGHTS_FILE not in files:
        raise UserError(
            f"The scorer {name} comes with pickled weights only, which are not read: use one whose hub repository holds"
            f" {WEIGHTS_FILE}, such as 'clip'."
        )
