"""Learn two concepts from one picture, and keep them apart by calibrating cross-attention (DisenDiff, CVPR 2024).

    import disendiff_lite as dd
    from disendiff_lite import evaluate, show

is all that a notebook imports. The calibration itself is `losses.py`. Each name is imported from its module when it is
first asked for, so that `import disendiff_lite` and `--help` do not wait for torch.
"""

from typing import TYPE_CHECKING

from disendiff_lite.support.lazy import lazy_names

_HOMES = {
    # a model, its settings, a picture
    "models": ("load_pipeline", "preset_for"),
    "config": ("Config", "emoji", "paper"),
    "runs.paper_data": ("fetch_paper_data",),
    "runs.references": ("load_reference", "own_reference", "pair_names", "reference_names"),
    "support.images": ("centre_square",),
    # new words
    "tokens": ("add_modifiers", "compose_prompt", "find_positions", "token_words"),
    # the method: attention, and the calibration in `losses`
    "attention": ("average_maps", "capture_attention", "concept_maps"),
    "attention_record": ("AttentionRecord", "layer_label", "mean_maps"),
    "recording": ("maps_on_picture", "record_maps"),
    # train and draw
    "runs.prior": ("make_prior",),
    "runs.train": ("train",),
    "runs.folder": ("read_losses", "read_run"),
    "runs.learned": ("load_learned",),
    "runs.generate": ("generate", "generate_set"),
    "runs.inpaint": ("inpaint",),
    # what was learned beside LoRAs of others, and for other programs
    "adapters": ("use_lora",),
    "runs.export": ("export",),
    # on the way
    "support.progress": ("progress", "progress_callback"),
    "report.metrics": ("record_metrics",),
    "support.paths": ("ROOT",),
}
_ROOMS = ("evaluate", "losses", "show")
__getattr__, __dir__ = lazy_names(__name__, _HOMES, _ROOMS)
__all__ = __dir__()

if TYPE_CHECKING:  # so that editors know the names
    from disendiff_lite import evaluate, losses, show
    from disendiff_lite.adapters import use_lora
    from disendiff_lite.attention import average_maps, capture_attention, concept_maps
    from disendiff_lite.attention_record import AttentionRecord, layer_label, mean_maps
    from disendiff_lite.config import Config, emoji, paper
    from disendiff_lite.models import load_pipeline, preset_for
    from disendiff_lite.recording import maps_on_picture, record_maps
    from disendiff_lite.report.metrics import record_metrics
    from disendiff_lite.runs.export import export
    from disendiff_lite.runs.folder import read_losses, read_run
    from disendiff_lite.runs.generate import generate, generate_set
    from disendiff_lite.runs.inpaint import inpaint
    from disendiff_lite.runs.learned import load_learned
    from disendiff_lite.runs.paper_data import fetch_paper_data
    from disendiff_lite.runs.prior import make_prior
    from disendiff_lite.runs.references import load_reference, own_reference, pair_names, reference_names
    from disendiff_lite.runs.train import train
    from disendiff_lite.support.images import centre_square
    from disendiff_lite.support.paths import ROOT
    from disendiff_lite.support.progress import progress, progress_callback
    from disendiff_lite.tokens import add_modifiers, compose_prompt, find_positions, token_words
