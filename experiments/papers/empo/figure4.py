"""Figure 4 of the EMPO paper: full batch against minibatches in the policies' improvement, over its epochs.

    trajclust run empo/figure4 --preset cpu

The improvement is the last stage, so that a run's evaluations are the curve. Full batch: an epoch is one gradient step
on all transitions. Minibatches: as many steps as they fill.
"""

from typing import Any, NamedTuple

import numpy as np

from trajclust_experiments.cells.cell import Cell
from trajclust_experiments.presets import LEARNING, learner_cells
from trajclust_experiments.rendering import columns
from trajclust_experiments.rendering.columns import Column
from trajclust_experiments.rendering.figures import captioned, panels
from trajclust_experiments.rendering.markdown import provenance, spread
from trajclust_experiments.tables import Preset, Records, Table
from trajclust_jax.lazy import lazy

plotting = lazy("trajclust_envs.plotting")


def cells(preset: Preset, datasets, methods, seeds) -> list[Cell]:
    """Both ways of each dataset; the full batch is Table 2's cell."""
    ways: tuple[dict[str, bool], ...] = ({}, {"full_batch": False})
    return [cell for more in ways for cell in learner_cells(preset, datasets, methods, seeds, **more)]


class _Line(NamedTuple):
    record: dict[str, Any]
    epochs: np.ndarray  # [V]
    scores: np.ndarray  # [V, S]


def _line(record: dict[str, Any]) -> _Line:
    found = [entry for entry in record["history"] if "score" in entry]
    epochs = np.array([entry["iteration"] for entry in found])
    return _Line(record, epochs, np.array([entry["score"] for entry in found], float))


def _full(line: _Line) -> bool:
    return line.record["cell"]["settings"].get("full_batch", True)


def _name(line: _Line) -> str:
    return "full batch" if _full(line) else "minibatches"


COLUMNS = [
    columns.task(),
    Column("improvement", _name),
    Column("first score", lambda line: f"{spread(line.scores[0], 1)} (epoch {line.epochs[0]})"),
    Column(
        "best mean", lambda line: f"{line.scores.mean(1).max():.1f} (epoch {line.epochs[line.scores.mean(1).argmax()]})"
    ),
    Column("last score", lambda line: f"{spread(line.scores[-1], 1)} (epoch {line.epochs[-1]})"),
    columns.num_seeds(),
    columns.seconds("seconds, all seeds (compile + run)", "compile", "run"),
]


def render(records: Records):
    lines = [line for line in map(_line, records) if len(line.epochs)]
    by_dataset: dict[str, list[_Line]] = {}
    for line in lines:
        by_dataset.setdefault(line.record["cell"]["dataset"], []).append(line)
    figure, axes = panels(by_dataset, 3.2)
    for ax, found in zip(axes, by_dataset.values(), strict=True):
        for line in found:
            mean, std = line.scores.mean(1), line.scores.std(1)
            color = plotting.PALETTE[0 if _full(line) else 1]
            ax.plot(line.epochs, mean, color=color, marker=".", label=_name(line))
            ax.fill_between(line.epochs, mean - std, mean + std, color=color, alpha=0.15, linewidth=0)
        for policy, value in found[0].record["policies"].items():
            ax.axhline(value, color="black", linewidth=1, linestyle=":")
            ax.annotate(policy, (0.01, value), xycoords=("axes fraction", "data"), fontsize=6, va="bottom")
        ax.set(xlabel="epochs of the improvement", ylabel="normalised score")
        ax.legend(fontsize=6)
    notes = [
        *provenance(records),
        "Mean ± std over seeds of D4RL-normalised scores, 10 episodes without the policies' noise; dotted: the data.",
        "The paper prints no numbers here: full batch is above minibatches, and hardly depends on the epochs.",
    ]
    title = "EMPO paper, Figure 4: full batch against minibatches"
    caption = (
        "Normalised score over the epochs of EMPO's improvement, with the full batch and with minibatches; "
        "dotted: the policies of the data."
    )
    return columns.table(title, COLUMNS, lines, notes), {"score-against-epochs": captioned(figure, caption)}


TABLE = Table(
    name="empo/figure4",
    summary="full batch against minibatches in EMPO's improvement",
    datasets=("hopper-medium-expert",),
    methods=("empo",),
    presets=LEARNING,
    cells=cells,
    render=render,
)
