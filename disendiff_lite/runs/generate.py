"""Pictures from a (personalised) pipeline: any prompt, or the set that shows what was learned.

The set is the paper's: *combined* (several concepts in one picture: all, and of three also each two), *independent*
(each concept alone), *editing* (all, and each alone, in new contexts). Picture number i of a seed always starts from
the same noise, whatever the prompt, the method and the batch.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from diffusers import StableDiffusionPipeline
from PIL import Image

from disendiff_lite.config import Config
from disendiff_lite.runs.folder import RunRecord
from disendiff_lite.runs.references import Reference, subject_name
from disendiff_lite.sampling import picture_seeds, sample
from disendiff_lite.support.memory import TO_DRAW, enough_memory
from disendiff_lite.support.text import enumeration
from disendiff_lite.tokens import check_concepts, check_prompt, compose_prompt

BATCH = 8  # pictures made at once
# What the editing pictures change: the place, the light, the style; each suits any class. {} becomes the concepts.
CONTEXTS = {
    "on the beach": "photo of a {} on the beach",
    "at sunset": "photo of a {} at sunset",
    "pencil drawing": "a pencil drawing of a {}",
}


@dataclass(frozen=True)
class Request:
    """One prompt of the set.

    kind: "combined", "independent" or "editing". prompt: with the modifiers.
    concepts: the numbers of the concepts that it asks for, from 0.
    """

    kind: str
    prompt: str
    concepts: tuple[int, ...]


@dataclass(frozen=True)
class PictureSet:
    """The pictures that a request got: RGB, config.resolution px a side."""

    request: Request
    pictures: list[Image.Image]


def generate(
    pipe: StableDiffusionPipeline,
    prompt: str,
    *,
    count: int = 1,
    seed: int | None = None,
    config: Config,
    negative_prompt: str = "",
    batch_size: int = BATCH,
    progress: Callable[[int, int], None] | None = None,
) -> list[Image.Image]:
    """Pictures of one prompt.

    seed: of the pictures; None takes config.seed. Picture i depends on (seed, i) alone: not on how many there are, and
        on the batch only as far as a sum's last bit does, which can move a pixel by one level of 256.
    config: gives `resolution`, `inference_steps`, `guidance_scale` and `eta`. negative_prompt: as for sampling.sample.
    progress: called with how many there are and how many there will be, after each batch.

    Returns `count` RGB pictures. Raises UserError if the prompt holds a modifier that the model does not know, or is
    longer than the text encoder reads, and as sampling.sample does.
    """
    seeds = picture_seeds(config.seed if seed is None else seed, count)
    pictures = draw_pictures(
        pipe,
        [prompt] * count,
        seeds,
        config,
        negative_prompt=negative_prompt,
        batch_size=batch_size,
        progress=progress,
    )
    return list(pictures)


def draw_pictures(
    pipe: StableDiffusionPipeline,
    prompts: Sequence[str],
    seeds: Sequence[int],
    config: Config,
    *,
    negative_prompt: str = "",
    batch_size: int = BATCH,
    progress: Callable[[int, int], None] | None = None,
    draw: Callable[..., list[Image.Image]] = sample,
) -> Iterator[Image.Image]:
    """One picture for each prompt and seed, in batches; each prompt is checked before the first picture is drawn.

    seeds: from sampling.picture_seeds. draw: makes the pictures of a batch, called as `sample` is. Others, and errors,
        as for `generate`.
    """
    for prompt in dict.fromkeys(prompts):
        check_prompt(pipe.tokenizer, prompt)
    for start in range(0, len(prompts), batch_size):
        part = slice(start, start + batch_size)
        with enough_memory(TO_DRAW):
            pictures = draw(pipe, prompts[part], seeds[part], config, negative_prompt=negative_prompt)
        if progress is not None:
            progress(start + len(pictures), len(prompts))
        yield from pictures


def generate_set(
    pipe: StableDiffusionPipeline,
    classes: Sequence[str],
    modifiers: Sequence[str],
    config: Config,
    *,
    count: int = 4,
    seed: int | None = None,
    contexts: Mapping[str, str] = CONTEXTS,
    batch_size: int = BATCH,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, PictureSet]:
    """The combined, independent and editing pictures, `count` of each prompt of prompt_set; all prompts share their
    noises.

    seed, batch_size, progress, config: as for `generate`; config.template is the plain prompt. contexts: as for
        prompt_set.

    Returns PictureSets by name, in the order of prompt_set. Raises UserError as prompt_set and `generate` do.
    """
    requests = prompt_set(classes, modifiers, contexts, template=config.template)
    prompts = [request.prompt for request in requests.values() for _ in range(count)]
    seeds = picture_seeds(config.seed if seed is None else seed, count) * len(requests)
    pictures = list(draw_pictures(pipe, prompts, seeds, config, batch_size=batch_size, progress=progress))
    return {
        name: PictureSet(request, pictures[index * count : (index + 1) * count])
        for index, (name, request) in enumerate(requests.items())
    }


def prompt_set(
    classes: Sequence[str],
    modifiers: Sequence[str],
    contexts: Mapping[str, str] = CONTEXTS,
    template: str = "photo of a {}",
) -> dict[str, Request]:
    """The prompts that show what was learned.

    contexts: name -> template with one {}, for the editing prompts; empty leaves them out.

    Returns requests by name: "combined", of more than two concepts then some of them ("cat and bird"), then each class
    ("cat"; "dog 1", "dog 2" if a class comes twice), then all and each with a context ("combined, on the beach").
    Raises UserError if there are more classes than modifiers, or a template has no {}.
    """
    check_concepts(classes, modifiers)
    subjects = {subject_name(classes, concepts): concepts for concepts in subsets(len(classes))}

    def request(kind: str, concepts: tuple[int, ...], template: str) -> Request:
        prompt = compose_prompt([classes[i] for i in concepts], [modifiers[i] for i in concepts], template)
        return Request(kind, prompt, concepts)

    requests = {
        name: request("combined" if len(concepts) > 1 else "independent", concepts, template)
        for name, concepts in subjects.items()
    }
    for context, edited in contexts.items():
        requests |= {
            f"{name}, {context}": request("editing", concepts, edited)
            for name, concepts in subjects.items()
            if len(concepts) in (1, len(classes))
        }
    return requests


def reference_requests(reference: Reference, run: RunRecord) -> list[Request]:
    """The prompts that a reference comes with: for all concepts, unless there is only one, and for each alone.

    Of more than two concepts, those for all are asked for some of them, too.
    """
    names = [f"{modifier} {class_}" for modifier, class_ in zip(run.modifiers, run.classes)]
    modifiers = {f"modifier{index}": modifier for index, modifier in enumerate(run.modifiers)}
    requests = []
    for concepts in subsets(len(names)):
        if len(concepts) == 1:
            kind, prompts = "independent", reference.prompts.independent[concepts[0]]
        else:
            whole, part = (enumeration([f"{{{index}}}" for index in some]) for some in (range(len(names)), concepts))
            kind = "combined"
            prompts = [prompt.replace(whole, part) for prompt in reference.prompts.combined]
        requests += [Request(kind, prompt.format(*names, **modifiers), concepts) for prompt in prompts]
    return requests


def subsets(count: int) -> list[tuple[int, ...]]:
    """Every choice of at least one of `count` concepts, the larger ones first: (0, 1), (0,), (1,)."""
    return [some for size in range(count, 0, -1) for some in combinations(range(count), size)]
