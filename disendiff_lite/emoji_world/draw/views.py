"""Pairs of pictures of the same individuals, with all that is known of them: what the scorer and the judge learn from.

A *group* is one to three individuals, pictured in two *views*: other places, sizes, positions, flips, accessories and
words each time. Unlike the scenes of pretraining, the individuals are drawn from ALL designs and hues, the held-out
ones too: whoever measures must know what the measured model does not.
"""

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from disendiff_lite.emoji_world.draw.backgrounds import PHRASES
from disendiff_lite.emoji_world.draw.dataset import GRID, MOST_THINGS, shrink_masks
from disendiff_lite.emoji_world.draw.scenes import (
    ACCESSORY_PHRASES,
    DISTANCE_PREFIXES,
    OPENINGS,
    STYLES,
    Scene,
    Thing,
    caption,
    describe_scene,
    random_thing,
    render,
)
from disendiff_lite.emoji_world.draw.world import COLOURS, classes, designs, designs_of, hue_colour, recolour, sprite

PLACES, STYLE_NAMES, COLOUR_WORDS = tuple(PHRASES), ("", *STYLES), tuple(COLOURS)
ACCESSORIES = ("", *ACCESSORY_PHRASES)
CHUNK = 1000  # groups that one process draws from one seed


@dataclass
class Views:
    """N groups in two views each; K = 3 things at most, absent things hold -1 (numbers) or "" (texts)."""

    pictures: np.ndarray  # uint8 (N, 2, 64, 64, 3)
    owners: np.ndarray  # uint8 (N, 2, 16, 16): of owner_map
    boxes: np.ndarray  # float32 (N, 2, K, 4): left, top, right, bottom of what is visible, pixels
    sizes: np.ndarray  # float32 (N, 2, K): longest side, pixels
    accessories: np.ndarray  # int8 (N, 2, K): index in ACCESSORIES
    designs: np.ndarray  # int16 (N, K): index of the design in the atlas
    colours: np.ndarray  # float32 (N, K, 3): mean RGB of the sprite, in [0, 1]
    colour_words: np.ndarray  # int8 (N, K): index in COLOUR_WORDS, -1 where no word names the colour
    places: np.ndarray  # int8 (N, 2): index in PLACES
    styles: np.ndarray  # int8 (N, 2): index in STYLE_NAMES
    captions: np.ndarray  # str (N, 2)
    thing_captions: np.ndarray  # str (N, 2, K): of each thing alone

    def __len__(self) -> int:
        return len(self.pictures)


def random_individual(rng: np.random.Generator, class_: str | None = None, *, typical: float = 0.0) -> Thing:
    """A thing of any design and any hue, the held-out ones too; its place, size, flip and accessory are not set.

    typical: share of the individuals whose design is drawn as in pretraining, the typical looks most often; of the
        others, all designs are equally frequent.
    """
    thing = random_thing(rng, (32, 40), 36, class_)
    thing = replace(thing, accessory=None, size_word="", mentions=thing.mentions & {"colour"})
    if typical == 0 or rng.random() >= typical:
        pool = designs_of(thing.design.class_) + designs_of(thing.design.class_, held_out=True)
        thing = replace(thing, design=pool[rng.integers(len(pool))])
    if rng.random() < 0.25:
        colour = hue_colour(rng.uniform(0, 360), rng.uniform(0.45, 0.9), rng.uniform(0.55, 0.95))
        thing = replace(thing, colour=colour, colour_word="", mentions=frozenset())
    return thing


def picture_of(individuals: list[Thing], rng: np.random.Generator) -> Scene:
    """One random view of these individuals, drawn; the caption names the design of about half of them."""
    layout = describe_scene(rng, len(individuals))
    order = rng.permutation(len(individuals))
    things = []
    for spot, who in zip(layout.things, (individuals[i] for i in order), strict=True):
        accessory = spot.accessory if who.design.eyes is not None else None
        colour_mention = {"colour"} if who.colour_word and rng.random() < 0.7 else set()
        things.append(
            replace(
                spot,
                design=who.design,
                colour=who.colour,
                colour_word=who.colour_word,
                accessory=accessory,
                mentions=(spot.mentions & {"size", "accessory"}) | colour_mention,
            )
        )
    articles = [f"a {t.design.set} {t.design.name} " if rng.random() < 0.5 else "a " for t in things]
    opening = STYLES[layout.style] if layout.style else str(rng.choice(OPENINGS))
    prefix = next(
        (word for words in DISTANCE_PREFIXES.values() for word in words if layout.caption.startswith(word)), ""
    )
    text = caption(
        tuple(things),
        layout.place,
        opening=opening,
        with_place=bool(rng.random() < 0.7),
        prefix=prefix,
        articles=articles,
    )
    scene = render(replace(layout, things=tuple(things), caption=text), rng)
    back = np.argsort(order)  # things and masks in the order of `individuals`; the caption keeps its own
    return replace(scene, things=tuple(things[i] for i in back), masks=scene.masks[back])


def owner_map(masks: np.ndarray, grid: int = GRID) -> np.ndarray:
    """Masks bool (n, 64, 64) -> uint8 (grid, grid): 1 + index of the thing that covers half of a cell, 0 where none."""
    shares = shrink_masks(masks, grid)  # (n, grid, grid)
    return np.where(shares.max(axis=0) >= 0.5, 1 + shares.argmax(axis=0), 0).astype(np.uint8)


def mean_colour(thing: Thing) -> np.ndarray:
    """Mean RGB of a thing's visible sprite, without its accessory: float32 (3,) in [0, 1]."""
    picture = sprite(thing.design.index)
    if thing.colour is not None:
        picture = recolour(picture, thing.colour)
    return (picture[..., :3] * picture[..., 3:]).sum(axis=(0, 1)) / picture[..., 3].sum()


def _box(mask: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.nonzero(mask.any(axis=1))[0], np.nonzero(mask.any(axis=0))[0]
    if not len(rows):
        return (0, 0, 0, 0)
    return (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)


def _group(rng: np.random.Generator, typical: float) -> dict[str, np.ndarray]:
    # One row of each field of Views.
    count = int(rng.choice([1, 2, 3], p=[0.5, 0.42, 0.08]))
    chosen = rng.choice(classes(), size=count, replace=False)
    individuals = [random_individual(rng, str(class_), typical=typical) for class_ in chosen]
    scenes = [picture_of(individuals, rng) for _ in range(2)]
    rest = MOST_THINGS - count

    def per_thing(value, empty, dtype=None):
        return np.array([[value(scene, i) for i in range(count)] + [empty] * rest for scene in scenes], dtype)

    return {
        "pictures": np.stack([scene.picture for scene in scenes]),
        "owners": np.stack([owner_map(scene.masks) for scene in scenes]),
        "boxes": per_thing(lambda scene, i: _box(scene.masks[i]), (-1,) * 4, np.float32),
        "sizes": per_thing(lambda scene, i: scene.things[i].size, -1, np.float32),
        "accessories": per_thing(
            lambda scene, i: ACCESSORIES.index(scene.things[i].accessory.class_ if scene.things[i].accessory else ""),
            -1,
            np.int8,
        ),
        "designs": np.array([t.design.index for t in individuals] + [-1] * rest, np.int16),
        "colours": np.array([mean_colour(t) for t in individuals] + [(-1,) * 3] * rest, np.float32),
        "colour_words": np.array(
            [COLOUR_WORDS.index(t.colour_word) if t.colour_word else -1 for t in individuals] + [-1] * rest, np.int8
        ),
        "places": np.array([PLACES.index(scene.place) for scene in scenes], np.int8),
        "styles": np.array([STYLE_NAMES.index(scene.style) for scene in scenes], np.int8),
        "captions": np.array([scene.caption for scene in scenes]),
        "thing_captions": per_thing(lambda scene, i: f"photo of a {scene.things[i].phrase()}", ""),
    }


def _chunk(seed: int, count: int, typical: float) -> dict[str, np.ndarray]:
    rng = np.random.default_rng([3, seed])  # a stream of its own, apart from the scenes'
    rows = [_group(rng, typical) for _ in range(count)]
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def random_views(count: int, *, seed: int, workers: int = 1, typical: float = 0.0) -> Views:
    """`count` groups of a seed; the same whatever the number of processes that draw them.

    typical: as for random_individual.
    """
    sizes = [CHUNK] * (count // CHUNK) + ([count % CHUNK] if count % CHUNK else [])
    seeds = [seed * 1_000_000 + k for k in range(len(sizes))]
    if workers > 1:
        with ProcessPoolExecutor(workers) as pool:
            chunks = list(pool.map(_chunk, seeds, sizes, [typical] * len(sizes)))
    else:
        chunks = [_chunk(*job, typical) for job in zip(seeds, sizes, strict=True)]
    return Views(**{field.name: np.concatenate([chunk[field.name] for chunk in chunks]) for field in fields(Views)})


def cached_views(folder: Path, count: int, *, seed: int, workers: int = 1, typical: float = 0.0) -> Views:
    """`random_views`, kept in `folder` once drawn."""
    path = folder / f"views-{seed}-{count}-{typical:g}.npz"
    if not path.exists():
        print(f"drawing {count} groups of views into {path}", flush=True)
        folder.mkdir(parents=True, exist_ok=True)
        views = random_views(count, seed=seed, workers=workers, typical=typical)
        temporary = path.with_suffix(".part.npz")
        np.savez(temporary, **{field.name: getattr(views, field.name) for field in fields(Views)})
        temporary.rename(path)
    with np.load(path) as stored:
        return Views(**{field.name: stored[field.name] for field in fields(Views)})


def class_indices(views: Views) -> np.ndarray:
    """Class of each thing as an index in `classes()`, int64 (N, K), -1 where there is none."""
    of_design = np.array([classes().index(d.class_) if d.class_ in classes() else -1 for d in designs()] + [-1])
    return of_design[views.designs]
