"""Numbers: CLIP scores of pictures, agreement of maps with true masks, runs measured side by side."""

from typing import TYPE_CHECKING

from disendiff_lite.support.lazy import lazy_names

_HOMES = {
    # pictures: likeness to a reference, to a prompt
    "clip": (
        "CLIP_SCORE_WEIGHT",
        "SCORERS",
        "embed_pictures",
        "embed_texts",
        "image_alignment",
        "leakage",
        "load_scorer",
        "strip_modifiers",
        "text_alignment",
    ),
    "score": ("Score", "paired_difference", "pool", "standard_error"),
    "pictures": ("score_pictures", "score_run", "score_table"),
    # maps: agreement with true masks, and of the words of a concept
    "maps": ("enlarge", "map_density", "map_hits", "map_iou", "map_leak", "mask_to_grid"),
    "concepts": (
        "calibration_terms",
        "class_agreement",
        "map_agreement",
        "record_reference",
        "record_references",
        "record_untrained",
        "tracked_maps",
        "tracked_words",
        "word_maps",
    ),
    # runs side by side
    "compare": ("compare_table", "difference_table", "measure_maps", "measure_run"),
    "ablation": ("VARIANTS", "ablation_configs", "find_runs", "shared_prior", "train_variants", "variant_folder"),
    # edits: are they found, and is the concept still recognised?
    "editing": ("draw_edits", "edit_table", "measure_edits"),
    # what is in a picture, and pictures whose truth is known
    "judge": ("load_judge",),
    "probes": ("probes_alone", "probes_together"),
}
__getattr__, __dir__ = lazy_names(__name__, _HOMES)
__all__ = __dir__()

if TYPE_CHECKING:  # so that editors know the names
    from disendiff_lite.evaluate.ablation import (
        VARIANTS,
        ablation_configs,
        find_runs,
        shared_prior,
        train_variants,
        variant_folder,
    )
    from disendiff_lite.evaluate.clip import (
        CLIP_SCORE_WEIGHT,
        SCORERS,
        embed_pictures,
        embed_texts,
        image_alignment,
        leakage,
        load_scorer,
        strip_modifiers,
        text_alignment,
    )
    from disendiff_lite.evaluate.compare import compare_table, difference_table, measure_maps, measure_run
    from disendiff_lite.evaluate.concepts import (
        calibration_terms,
        class_agreement,
        map_agreement,
        record_reference,
        record_references,
        record_untrained,
        tracked_maps,
        tracked_words,
        word_maps,
    )
    from disendiff_lite.evaluate.editing import draw_edits, edit_table, measure_edits
    from disendiff_lite.evaluate.judge import load_judge
    from disendiff_lite.evaluate.maps import enlarge, map_density, map_hits, map_iou, map_leak, mask_to_grid
    from disendiff_lite.evaluate.pictures import score_pictures, score_run, score_table
    from disendiff_lite.evaluate.probes import probes_alone, probes_together
    from disendiff_lite.evaluate.score import Score, paired_difference, pool, standard_error
