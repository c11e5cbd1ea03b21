"""Score a run as the paper does: draw its prompts, compare the pictures with the reference and with their prompts.

Pictures of all concepts are compared with the whole reference, pictures of one concept with its crop of the reference (with the whole
one if there are no crops, which makes its image-alignment smaller).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from diffusers import StableDiffusionPipeline
from PIL import Image

from disendiff_lite.config import Config
from disendiff_lite.generate import PictureSet, Request, concept_name, generate
from disendiff_lite.references import Reference, load_reference, reference_names
from disendiff_lite.runs import RunRecord, picture_hash
from disendiff_lite.scores import Leakage, Score, Scorer, image_alignment, leakage, pool, text_alignment
from disendiff_lite.wording import text_table


@dataclass(frozen=True)
class SubjectScores:
    """The scores of all pictures of one subject: "combined", or one concept ("cat"; "dog 1", "dog 2" if a class comes twice).

    margin: how much more like its own crop than like another concept's; None for the combined pictures or without crops.
    """

    subject: str
    prompts: tuple[str, ...]
    image: Score
    text: Score
    clip_score: Score
    margin: Score | None

    def to_dict(self) -> dict:
        """Means, spreads and numbers of pictures as plain values."""
        scores = {"image_alignment": self.image, "text_alignment": self.text, "clip_score": self.clip_score, "margin": self.margin}
        plain = {name: {"mean": s.mean, "spread": s.spread, "n": len(s.values)} for name, s in scores.items() if s is not None}
        return {"prompts": list(self.prompts), **plain}


def known_reference(record: RunRecord) -> Reference | None:
    """The shipped reference that a run was trained on, None if its picture or its classes were others."""
    references = map(load_reference, reference_names())
    same = (found for found in references if found.classes == record.classes and picture_hash(found.picture) == record.picture)
    return next(same, None)


def reference_requests(reference: Reference, record: RunRecord) -> list[Request]:
    """The prompts that a reference comes with: for all concepts, unless there is only one, and for each alone."""
    names = [f"{modifier} {class_}" for modifier, class_ in zip(record.modifiers, record.classes)]
    everything = tuple(range(len(names)))
    requests = [Request("combined", prompt.format(*names), everything) for prompt in reference.prompts.combined]
    for index, prompts in enumerate(reference.prompts.independent):
        requests += [Request("independent", prompt.format(*names), (index,)) for prompt in prompts]
    return requests


def score_run(
    pipe: StableDiffusionPipeline,
    scorer: Scorer,
    requests: Sequence[Request],
    classes: Sequence[str],
    modifiers: Sequence[str],
    picture: Image.Image,
    crops: Sequence[Image.Image] | None,
    config: Config,
    *,
    count: int,
    seed: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[SubjectScores]:
    """Draw `count` pictures of each request and score them.

    pipe: with what the run learned. picture: the reference. crops: one a concept, or None. seed, config: as for generate.
    progress: called with how many pictures there are and how many there will be.

    Returns the scores of the combined pictures and of each concept, pooled over their prompts, in the order of the requests.
    """
    drawn = _drawn(pipe, requests, config, count, seed, progress)
    return score_pictures(scorer, drawn, classes, modifiers, picture, crops)


def score_pictures(
    scorer: Scorer,
    drawn: Iterable[PictureSet],
    classes: Sequence[str],
    modifiers: Sequence[str],
    picture: Image.Image,
    crops: Sequence[Image.Image] | None,
) -> list[SubjectScores]:
    """Score pictures that are there already.

    drawn: such as the values of generate.generate_set; each set is let go before the next is asked for. Others as for score_run.

    Returns the scores as score_run does.
    """
    found = {}
    for request, pictures in ((made.request, made.pictures) for made in drawn):
        own = picture if len(request.concepts) > 1 or crops is None else crops[request.concepts[0]]
        image = image_alignment(scorer, pictures, [own])
        text = text_alignment(scorer, pictures, request.prompt, modifiers)
        leaks = _leakage(scorer, pictures, request.concepts, crops)
        found.setdefault(request.concepts, []).append((request.prompt, image, text, leaks))
    return [_pooled(concepts, rows, classes) for concepts, rows in found.items()]


def score_table(scores: Sequence[SubjectScores]) -> str:
    """The scores as a table of text, "mean ± spread (n)" in each column."""
    header = ["", "image-alignment", "text-alignment", "CLIPScore", "own - other concept"]
    rows = [[s.subject, str(s.image), str(s.text), str(s.clip_score), str(s.margin or "-")] for s in scores]
    return text_table([header, *rows])


def _drawn(pipe, requests: Sequence[Request], config: Config, count: int, seed, progress) -> Iterator[PictureSet]:
    for number, request in enumerate(requests, start=1):
        yield PictureSet(request, generate(pipe, request.prompt, count=count, seed=seed, config=config))
        if progress is not None:
            progress(number * count, len(requests) * count)


def _leakage(scorer: Scorer, pictures, concepts: tuple[int, ...], crops) -> Leakage | None:
    if crops is None or len(crops) < 2 or len(concepts) > 1:
        return None
    others = [crop for index, crop in enumerate(crops) if index not in concepts]
    return leakage(scorer, pictures, crops[concepts[0]], others)


def _pooled(concepts: tuple[int, ...], rows: Sequence[tuple], classes: Sequence[str]) -> SubjectScores:
    prompts, images, texts, leaks = zip(*rows)
    return SubjectScores(
        subject="combined" if len(concepts) > 1 else concept_name(classes, concepts[0]),
        prompts=prompts,
        image=pool(images),
        text=pool([text.cosine for text in texts]),
        clip_score=pool([text.clip_score for text in texts]),
        margin=None if leaks[0] is None else pool([leak.margin for leak in leaks]),
    )
