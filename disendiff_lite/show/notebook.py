"""Watch a training from within a notebook: its losses drawn anew in place, and its attention maps kept as they change.

Both wrap the records that train.train yields, so they can be put around each other and around progress.progress:

    for record in live_losses(follow_maps(progress(train(...), steps), look, folder, every=50,
    before=before), run_dir): ...
"""

import ast
import inspect
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from IPython.display import Markdown

from disendiff_lite.attention_record import AttentionRecord
from disendiff_lite.runs.folder import read_losses
from disendiff_lite.show.charts import plot_losses
from disendiff_lite.support.errors import UserError
from disendiff_lite.support.progress import is_watched
from disendiff_lite.training import StepRecord

DRAW_EVERY = 3.0  # seconds between drawings; each takes a tenth of that


def live_losses(records: Iterable[StepRecord], run_dir) -> Iterator[StepRecord]:
    """Yield the records while the loss curves of the run are drawn in the output of the cell, always in the same place.

    In a live notebook they are drawn anew every few seconds; where nobody watches, as in a report, once, when
    the training is over. One static figure stays in both cases, also of a run that is only loaded. run_dir:
    where the run writes losses.csv.
    """
    handle, drawn, watched = None, time.monotonic(), is_watched()
    for record in records:
        if watched and time.monotonic() - drawn >= DRAW_EVERY:
            handle, drawn = _draw(run_dir, handle), time.monotonic()
        yield record
    _draw(run_dir, handle)


def follow_maps(
    records: Iterable[StepRecord], look: Callable[[], AttentionRecord], folder, *, every: int, before: AttentionRecord
) -> Iterator[StepRecord]:
    """Yield the records, and every so many steps keep in `folder` what the words look at.

    look: records the maps of the model that is being trained; it must leave the training's random numbers alone, as
        maps_on_picture does. before: the record of step 0.
    """
    before.save(_file(folder, 0))
    for record in records:
        if record.step % every == 0:
            look().save(_file(folder, record.step))
        yield record


def read_followed(folder) -> dict[int, AttentionRecord]:
    """What follow_maps kept, by step, in their order. Raises UserError if there is nothing, or a file is damaged."""
    paths = sorted(Path(folder).glob("step*.npz"))
    if not paths:
        raise UserError(f"There are no maps in {folder}: follow a training with follow_maps first.")
    return {int(path.stem.removeprefix("step")): AttentionRecord.load(path) for path in paths}


def code_listing(*functions: Callable) -> Markdown:
    """The source of functions without their docstrings, as Markdown that notebooks, exports and GitHub show
    highlighted.
    """
    return Markdown("```python\n" + "\n\n".join(map(_without_docstring, functions)) + "\n```")


def _without_docstring(function: Callable) -> str:
    source = textwrap.dedent(inspect.getsource(function)).rstrip()
    (definition,) = ast.parse(source).body
    if ast.get_docstring(definition) is None:
        return source
    lines, text = source.split("\n"), definition.body[0]
    return "\n".join(lines[: text.lineno - 1] + lines[text.end_lineno :])


def _file(folder, step: int) -> Path:
    return Path(folder) / f"step{step:05}.npz"


def _draw(run_dir, handle):
    from IPython.display import display

    figure = plot_losses(read_losses(run_dir))
    if handle is None:
        return display(figure, display_id=True)
    handle.update(figure)
    return handle
