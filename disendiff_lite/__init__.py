"""Learn two concepts from one picture, and keep them apart by calibrating cross-attention (DisenDiff, CVPR 2024).

The names below are what notebooks use most; each is imported from its module when it is first asked for, so that `import
disendiff_lite` and `--help` do not wait for torch. None is the name of a module too, which an import would give in its place:
pictures come from `disendiff_lite.generate.generate`, training from `disendiff_lite.train.train`.
"""

from importlib import import_module

_HOME = {
    "AttentionRecord": "recording",
    "Config": "config",
    "average_maps": "attention",
    "calibration_loss": "losses",
    "capture_attention": "attention",
    "emoji": "config",
    "find_positions": "tokens",
    "load_learned": "learned",
    "load_pipeline": "models",
    "load_scorer": "scores",
    "paper": "config",
}
__all__ = sorted(_HOME)


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
