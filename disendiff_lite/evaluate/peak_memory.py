"""The most memory that a training step takes at any moment, by the counters of the device or of the profiler."""

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

COUNTED = {  # by the kind of device, how its peak is counted
    "cuda": "torch.cuda.max_memory_allocated, weights and the optimiser's state among it",
    "cpu": "tensors that torch's profiler sees allocated in a step, on top of the weights and the optimiser's state",
}


def peak_memory(step: Callable[[], None], device: torch.device, standing: int) -> int | None:
    """Bytes at the highest moment of a step; None on a device without such a counter.

    standing: bytes that are there before it, which a GPU counts itself.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        step()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device)
    return standing + _profiled(step) if device.type == "cpu" else None


def _profiled(step: Callable[[], None]) -> int:
    """The highest sum of what a step has allocated on the CPU and not yet freed, in bytes."""
    with _silent(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "trace.json")
        profiler.export_chrome_trace(str(path))
        events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    total = highest = 0
    changes = [event for event in events if event["name"] == "[memory]"]
    for event in sorted(changes, key=lambda event: (event["ts"], event["args"]["Ev Idx"])):
        total += event["args"]["Bytes"]  # negative when freed
        highest = max(highest, total)
    return highest


@contextmanager
def _silent() -> Iterator[None]:
    """The profiler's C++ part writes notes for its makers to standard error, past Python's own."""
    kept = os.dup(2)
    with open(os.devnull, "wb") as nothing:
        os.dup2(nothing.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
