"""Figures without global state."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from trajclust_experiments.rendering.columns import dataset_title
from trajclust_jax.lazy import lazy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

agg = lazy("matplotlib.backends.backend_agg")
mpl_figure = lazy("matplotlib.figure")

PANELS_A_ROW = 5  # of a figure with a panel a dataset


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure, in inches."""
    figure = mpl_figure.Figure(figsize=(width, height), dpi=150, layout="constrained")
    agg.FigureCanvasAgg(figure)
    return figure


def save_figure(figure: "Figure", path: Path) -> None:
    """Writes a PNG whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    figure.savefig(temporary, format="png")
    os.replace(temporary, path)


def panels(datasets: Iterable[str], width: float, height: float = 3.2) -> "tuple[Figure, list[Axes]]":
    """A figure with one titled panel of `width` by `height` inches a dataset, at most `PANELS_A_ROW` side by side."""
    datasets = list(datasets)
    rows = max(1, -(-len(datasets) // PANELS_A_ROW))
    columns = max(1, -(-len(datasets) // rows))
    figure = new_figure(1.2 + width * columns, height * rows)
    axes = list(figure.subplots(rows, columns, squeeze=False).ravel())
    for ax, dataset in zip(axes, datasets, strict=False):
        ax.set_title(dataset_title(dataset), fontsize=9)
        ax.spines[["top", "right"]].set_visible(False)
    for ax in axes[len(datasets) :]:
        ax.set_axis_off()
    return figure, axes[: len(datasets)]
