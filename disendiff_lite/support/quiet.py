"""Models and weights that load without progress bars and warnings."""

import logging
import warnings
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


@contextmanager
def without_warnings() -> Iterator[None]:
    """diffusers, transformers and peft warn of what is meant, such as a LoRA for the UNet alone, or more words."""
    logs = [(log, log.get_verbosity()) for log in (diffusers_logging, transformers_logging)]
    for log, _ in logs:
        log.set_verbosity(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            yield
    finally:
        for log, before in logs:
            log.set_verbosity(before)
