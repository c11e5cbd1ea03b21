"""Figures and views: pictures, attention maps, charts, and the explorer."""

from typing import TYPE_CHECKING

from disendiff_lite.support.lazy import lazy_names

_HOMES = {
    # figures
    "maps": ("outline_cell", "plot_map_grid", "plot_maps", "plot_pictures"),
    "charts": (
        "plot_agreement",
        "plot_cosines",
        "plot_losses",
        "plot_one_query",
        "plot_pushes",
        "plot_scores",
        "plot_terms",
        "push",
    ),
    "editing": ("plot_edits",),
    # in a notebook
    "notebook": ("code_listing", "follow_maps", "live_losses", "read_followed"),
    "queries": ("watch_layer",),
    # attention to explore by hand
    "explorer.page": ("write_explorer",),
    "explorer.widget": ("AttentionExplorer",),
}
__getattr__, __dir__ = lazy_names(__name__, _HOMES)
__all__ = __dir__()

if TYPE_CHECKING:  # so that editors know the names
    from disendiff_lite.show.charts import (
        plot_agreement,
        plot_cosines,
        plot_losses,
        plot_one_query,
        plot_pushes,
        plot_scores,
        plot_terms,
        push,
    )
    from disendiff_lite.show.editing import plot_edits
    from disendiff_lite.show.explorer.page import write_explorer
    from disendiff_lite.show.explorer.widget import AttentionExplorer
    from disendiff_lite.show.maps import outline_cell, plot_map_grid, plot_maps, plot_pictures
    from disendiff_lite.show.notebook import code_listing, follow_maps, live_losses, read_followed
    from disendiff_lite.show.queries import watch_layer
