"""Models that load without progress bars."""

from collections.abc import Iterator
from contextlib import contextmanager

from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging


@contextmanager
def without_progress_bars() -> Iterator[None]:
    """Loading from the disk takes seconds: its bars would only litter notebooks and logs."""
    active = [log for log in (diffusers_logging, transformers_logging) if log.is_progress_bar_enabled()]
    for log in active:
        log.disable_progress_bar()
    try:
        yield
    finally:
        for log in active:
            log.enable_progress_bar()
