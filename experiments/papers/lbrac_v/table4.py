"""Table 4 of the LBRAC-v paper: LBRAC-v for every K on the data of medium, expert and replay policies.

trajclust run lbrac_v/table4 --preset cpu --datasets hopper-medium-expert
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from trajclust_experiments import catalogue
from trajclust_experiments.cells.cell import Cell
from trajclust_experiments.papers.lbrac_v import D4RL, PRESETS, Scale
from trajclust_experiments.papers.lbrac_v._results import COLUMNS, Line, lines, sweep_cell
from trajclust_experiments.rendering import columns
from trajclust_experiments.rendering.figures import captioned, panels
from trajclust_experiments.rendering.intervals import draw_curve
from trajclust_experiments.rendering.markdown import provenance
from trajclust_experiments.tables import Records, Table
from trajclust_jax.lazy import lazy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

plotting = lazy("trajclust_envs.plotting")


def cells(preset: Scale, datasets, methods, seeds) -> list[Cell]:
    """A cell a dataset: all K in one program."""
    return [sweep_cell(preset, dataset, seeds) for dataset in datasets if methods]


def render(records: Records):
    notes = [
        *provenance(records),
        "All K of a dataset are one program, with codes out of use. The text of the paper that we have does not hold "
        "its numbers.",
    ]
    shown = {record["cell"]["dataset"]: list(lines(record)) for record in records}
    every = [line for of_dataset in shown.values() for line in of_dataset]
    return columns.table("LBRAC-v paper, Table 4", COLUMNS, every, notes), {"score-against-k": _figure(shown)}


def _figure(shown: Mapping[str, Sequence[Line]]) -> "Figure":
    figure, axes = panels(shown, 2.6)
    for ax, of_dataset in zip(axes, shown.values(), strict=True):
        found = [line.score for line in of_dataset]
        draw_curve(ax, [str(line.k) for line in of_dataset], found, plotting.PALETTE[0], catalogue.title("lbrac_v"))
        ax.set_xlabel("K", fontsize=7)
    axes[0].set_ylabel("score", fontsize=7)
    return captioned(figure, "LBRAC-v's score against the number of codes: means over seeds, 95% bootstrap intervals.")


TABLE = Table(
    name="lbrac_v/table4",
    summary="LBRAC-v for every K",
    datasets=D4RL,
    methods=("lbrac_v",),
    presets=PRESETS,
    cells=cells,
    render=render,
)
