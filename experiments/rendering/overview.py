"""What a record shows by itself: its trajectories and its course. Tables show records beside each other."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trajclust_experiments.rendering.figures import panels, save_figure
from trajclust_experiments.rendering.scenes import sample_figure
from trajclust_jax.data import REGISTRY
from trajclust_jax.lazy import lazy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

plotting = lazy("trajclust_envs.plotting")
mpl_patches = lazy("matplotlib.patches")

_SHOWN = ("score", "return", "objective", "nmi", "loss")  # what metrics' names end in


def record_figures(record: Mapping[str, Any], folder: Path) -> Iterator[Path]:
    """Draws a record into `folder`, which is made where it is missing: `sample.png`, trajectories where they happened,
    one panel a cluster, and `curves.png`; each where the record has what it shows."""
    figures = {"curves": curves_figure(record)}
    if record.get("sample") and record["cell"]["dataset"] in REGISTRY:
        figures["sample"] = sample_figure(record["sample"], record["cell"]["dataset"])
    for stem, figure in figures.items():
        if figure is not None:
            folder.mkdir(parents=True, exist_ok=True)
            save_figure(figure, folder / f"{stem}.png")
            yield folder / f"{stem}.png"


def curves_figure(record: Mapping[str, Any]) -> "Figure | None":
    """Scores, objectives and losses against iterations, a panel each; None of a record whose history has no numbers.

    A thin line is a seed, or one of the restarts or clusters that it trains side by side, the thick one their mean; a
    phase has a colour. Of an evaluation's episodes the mean is drawn; of returns that are normalised, too, the scores.
    """
    history = record.get("history", ())
    phases = list(dict.fromkeys(entry["phase"] for entry in history))
    names = sorted({name for entry in history for name in entry})
    names = [name for end in _SHOWN for name in names if name.rpartition("/")[2] == end]
    courses = {name: [_course(history, phase, name) for phase in phases] for name in names}
    shown = [name for name in names if any(np.isfinite(lines).any() for _, lines in courses[name])]
    if "score" in shown:
        shown = [name for name in shown if name != "return"]
    if not shown:
        return None
    figure, axes = panels(shown, 2.6, 2.6)
    for ax, name in zip(axes, shown, strict=True):
        for color, (iterations, lines) in zip(itertools.cycle(plotting.PALETTE), courses[name], strict=False):
            style = {"color": color, "marker": "." if len(iterations) == 1 else None}
            ax.plot(iterations, lines, linewidth=0.5, alpha=0.5, **style)
            ax.plot(iterations, np.ma.masked_invalid(lines).mean(1), linewidth=1.8, **style)
        ax.set_xlabel("iteration", fontsize=8)
        ax.xaxis.get_major_locator().set_params(integer=True)
    if len(phases) > 1:
        colors = zip(phases, itertools.cycle(plotting.PALETTE), strict=False)
        handles = [mpl_patches.Patch(color=color, label=phase) for phase, color in colors]
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=7, frameon=False)
    return figure


def _course(history: Sequence[Mapping[str, Any]], phase: str, name: str) -> tuple[list[int], np.ndarray]:
    """A metric in a phase: iterations `[I]`, counted over all phases, and values `[I, lines]`, NaN where not finite."""
    found = [(number, each) for number, each in enumerate(history) if each["phase"] == phase and name in each]
    values = [np.array(each[name], float) for _, each in found]
    values = [np.ravel(value.mean(-1) if name == "return" else value) for value in values]
    return [number for number, _ in found], np.array(values).reshape(len(found), -1 if found else 0)
