"""Score a run as the paper does: draw its prompts, compare the pictures with the reference and with their prompts.

Pictures of all concepts are compared with the whole reference, pictures of one concept with its crop of the reference,
pictures of two of three with both crops in turn (with the whole one if there are no crops, which makes image-alignment
smaller).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from diffusers import StableDiffusionPipeline

from disendiff_lite.config import Config
from disendiff_lite.evaluate.clip import Leakage, Scorer, image_alignment, leakage, text_alignment
from disendiff_lite.evaluate.score import Score, pool
from disendiff_lite.runs.folder import RunRecord
from disendiff_lite.runs.generate import PictureSet, Request, draw_pictures, reference_requests
from disendiff_lite.runs.references import Reference, subject_name
from disendiff_lite.sampling import picture_seeds
from disendiff_lite.support.text import text_table


@dataclass(frozen=True)
class SubjectScores:
    """The scores of all pictures of one subject: "combined", some of three concepts ("cat and bird"), or one concept
    ("cat"; "dog 1", "dog 2" if a class comes twice).

    concepts: their numbers, from 0. margin: how much more like its own crop than like another concept's; None for
    pictures of several, or without crops.
    """

    subject: str
    concepts: tuple[int, ...]
    prompts: tuple[str, ...]
    image: Score
    text: Score
    clip_score: Score
    margin: Score | None

    def to_dict(self) -> dict:
        """Means, spreads and numbers of pictures as plain values."""
        scores = {
            "image_alignment": self.image,
            "text_alignment": self.text,
            "clip_score": self.clip_score,
            "margin": self.margin,
        }
        plain = {
            name: {"mean": s.mean, "spread": s.spread, "n": len(s.values)}
            for name, s in scores.items()
            if s is not None
        }
        return {"prompts": list(self.prompts), **plain}


def score_run(
    pipe: StableDiffusionPipeline,
    scorer: Scorer,
    reference: Reference,
    run: RunRecord,
    config: Config,
    *,
    requests: Sequence[Request] | None = None,
    count: int,
    seed: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[SubjectScores]:
    """Draw `count` pictures of each request and score them.

    pipe: with what the run learned. reference: its picture and, if they are known, its crops are what
        pictures are compared with.
    requests: None takes the prompts that the reference comes with. seed, config: as for generate.
    progress: called with how many pictures there are and how many there will be.

    Returns the scores of each subject, pooled over its prompts, in the order of the requests.
    """
    requests = reference_requests(reference, run) if requests is None else requests
    prompts = [request.prompt for request in requests for _ in range(count)]
    seeds = picture_seeds(config.seed if seed is None else seed, count) * len(requests)
    pictures = draw_pictures(pipe, prompts, seeds, config, progress=progress)
    sets = (PictureSet(request, list(islice(pictures, count))) for request in requests)
    return score_pictures(scorer, sets, reference, run.modifiers)


def score_pictures(
    scorer: Scorer, sets: Iterable[PictureSet], reference: Reference, modifiers: Sequence[str]
) -> list[SubjectScores]:
    """Score pictures that are there already.

    sets: such as the values of generate.generate_set; each is let go before the next is asked
        for. Others as for score_run.

    Returns the scores as score_run does.
    """
    crops, rows = reference.crops, {}
    for request, pictures in ((each.request, each.pictures) for each in sets):
        whole = crops is None or 1 < len(request.concepts) == len(reference.classes)
        own = [reference.picture] if whole else [crops[index] for index in request.concepts]
        image = image_alignment(scorer, pictures, own)
        text = text_alignment(scorer, pictures, request.prompt, modifiers)
        leaks = _leakage(scorer, pictures, request.concepts, crops)
        rows.setdefault(request.concepts, []).append((request.prompt, image, text, leaks))
    return [_pooled(concepts, several, reference.classes) for concepts, several in rows.items()]


def score_table(scores: Sequence[SubjectScores]) -> str:
    """The scores as a table of text, "mean ± spread (n)" in each column."""
    header = ["", "image-alignment", "text-alignment", "CLIPScore", "own - other concept"]
    rows = [[s.subject, str(s.image), str(s.text), str(s.clip_score), str(s.margin or "-")] for s in scores]
    return text_table([header, *rows])


def _leakage(scorer: Scorer, pictures, concepts: tuple[int, ...], crops) -> Leakage | None:
    if crops is None or len(crops) < 2 or len(concepts) > 1:
        return None
    others = [crop for index, crop in enumerate(crops) if index not in concepts]
    return leakage(scorer, pictures, crops[concepts[0]], others)


def _pooled(concepts: tuple[int, ...], rows: Sequence[tuple], classes: Sequence[str]) -> SubjectScores:
    prompts, images, texts, leaks = zip(*rows)
    return SubjectScores(
        subject=subject_name(classes, concepts),
        concepts=concepts,
        prompts=prompts,
        image=pool(images),
        text=pool([text.cosine for text in texts]),
        clip_score=pool([text.clip_score for text in texts]),
        margin=None if leaks[0] is None else pool([leak.margin for leak in leaks]),
    )
