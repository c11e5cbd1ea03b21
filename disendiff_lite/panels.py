"""Where a figure's panels stand: in a figure of their own, or in the place of one panel of a larger one."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from disendiff_lite.errors import UserError

DPI = 96
FONT = 8  # points


def make_panels(
    rows: int, columns: int, size: tuple[float, float], ax: Axes | None, share_y: bool = False
) -> tuple[Figure, np.ndarray]:
    """Axes (rows, columns) in a new figure of `size` inches, or in the place of `ax`.

    Raises UserError if `ax` has no place in a grid.
    """
    if ax is None:
        figure = plt.figure(figsize=size, dpi=DPI, layout="constrained")
        plt.close(figure)  # else a notebook shows it twice: at the end of the cell, and as the value returned
        return figure, figure.subplots(rows, columns, squeeze=False, sharey=share_y)
    if ax.get_subplotspec() is None:
        raise UserError("This ax has no place in a grid: make it with plt.subplots.")
    ax.set_axis_off()
    return ax.figure, ax.get_subplotspec().subgridspec(rows, columns).subplots(squeeze=False, sharey=share_y)
