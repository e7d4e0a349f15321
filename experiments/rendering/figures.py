"""Figures without global state."""

import os
import textwrap
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

CHARACTERS = 13  # of a panel's title, an inch
PANELS_A_ROW = 5  # of a figure with a panel a dataset
SCREEN = 120  # pixels an inch that a page shows a figure with
WIDEST = 2400  # pixels: twice what a page has room for


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure, in inches."""
    figure = mpl_figure.Figure(figsize=(width, height), dpi=150, layout="constrained")
    agg.FigureCanvasAgg(figure)
    return figure


def captioned(figure: "Figure", caption: str) -> "Figure":
    """The figure, with what it shows in a sentence: it stands below it in the report."""
    figure.set_label(caption)
    return figure


def caption_of(figure: "Figure") -> str:
    """What `captioned` gave it; nothing where it gave none."""
    return figure.get_label()


def save_figure(figure: "Figure", path: Path, sharp: bool = False) -> None:
    """Writes a PNG whole or not at all; with all titles, also where they are wider than their panels.

    `sharp` is for pages: two pixels for each that a page shows.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    dpi = min(2 * SCREEN, WIDEST / figure.get_figwidth()) if sharp else "figure"
    figure.savefig(temporary, format="png", dpi=dpi, bbox_inches="tight", pad_inches=0.05)
    os.replace(temporary, path)


def panels(datasets: Iterable[str], width: float, height: float = 3.2) -> "tuple[Figure, list[Axes]]":
    """A figure with one titled panel of `width` by `height` inches a dataset, at most `PANELS_A_ROW` side by side."""
    datasets = list(datasets)
    rows = max(1, -(-len(datasets) // PANELS_A_ROW))
    columns = max(1, -(-len(datasets) // rows))
    figure = new_figure(1.2 + width * columns, height * rows)
    axes = list(figure.subplots(rows, columns, squeeze=False).ravel())
    for ax, dataset in zip(axes, datasets, strict=False):
        parts = dataset_title(dataset).replace(", ", ",\n").splitlines()
        lines = [textwrap.fill(part, int(CHARACTERS * width)) for part in parts]  # a panel is narrow
        ax.set_title("\n".join(lines), fontsize=9)
        ax.tick_params(labelsize=7)
        ax.spines[["top", "right"]].set_visible(False)
    for ax in axes[len(datasets) :]:
        ax.set_axis_off()
    return figure, axes[: len(datasets)]
