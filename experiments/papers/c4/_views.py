"""Pictures of the clusters of gradient pairs, for Figures 12 and 13."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from trajclust_experiments.catalogue import title
from trajclust_experiments.cells.cell import Cell
from trajclust_experiments.cells.views import ViewCell
from trajclust_experiments.papers import c4
from trajclust_experiments.rendering import columns
from trajclust_experiments.rendering.columns import Column
from trajclust_experiments.rendering.figures import captioned, new_figure
from trajclust_experiments.rendering.markdown import provenance, spread
from trajclust_experiments.tables import Preset, Records, Table
from trajclust_jax.lazy import lazy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

plotting = lazy("trajclust_envs.plotting")


@dataclasses.dataclass(frozen=True)
class _Line:
    """A snapshot of a record."""

    record: dict[str, Any]
    place: int

    def score(self, name: str) -> np.ndarray:
        """`[S]`."""
        return np.array(self.record["scores"][name], float)[:, self.place]


_COLUMNS = [
    columns.task(),
    columns.method("learner", lambda line: c4.title_of(line.record)),
    Column("gradient steps", lambda line: f"{line.record['views'][line.place]['gradient_steps']:,}"),
    Column("clusters in use", lambda line: spread(line.score("used"), 1)),
    Column("share of the largest", lambda line: spread(line.score("largest"), 2)),
    Column("NMI with the policies", lambda line: spread(line.score("nmi"), 2)),
    columns.num_seeds(),
]


def cells(preset: Preset, datasets: Sequence[str], methods: Sequence[str], seeds: Sequence[int]) -> list[Cell]:
    """A cell a dataset and method, on reduced data."""
    found = [c4.variant_cell(preset, dataset, method, seeds) for dataset in datasets for method in methods]
    return [c4.of_kind(ViewCell, cell) for cell in found]


def _figure(record: dict[str, Any]) -> "Figure":
    """A column a snapshot: coloured by cluster, and by the policy whose transition it is."""
    views = record["views"]
    figure = new_figure(2.2 * len(views), 4.6)
    for place, view in enumerate(views):
        for row, (name, palette) in enumerate({"cluster": plotting.PALETTE, "policy": plotting.PALETTE[::-1]}.items()):
            ax = figure.add_subplot(2, len(views), 1 + place + row * len(views))
            ax.scatter(view["x"], view["y"], s=4, c=[palette[number % len(palette)] for number in view[name]])
            ax.set(xticks=[], yticks=[])
            if row == 0:
                ax.set_title(f"{view['gradient_steps']:,} gradient steps", fontsize=7)
            if place == 0:
                ax.set_ylabel(f"by {name}", fontsize=7)
    return captioned(
        figure,
        "Pairs of gradients [g', g] of the same transitions over the training, in the plane by t-SNE: coloured by "
        "their cluster (above) and by the policy that made the transition (below). The first seed.",
    )


def over_training(name: str, heading: str, learner: str) -> Table:
    """Clusters of a learner with C^4 over its training."""

    def render(records: Records):
        shown = [_Line(record, place) for record in c4.in_order(records) for place in range(len(record["views"]))]
        notes = [
            *provenance(records),
            *c4.drawn(records),
            "Of the same transitions each time, at most 4,096; a cluster in use has a hundredth of them or more. NMI: "
            "of the likeliest clusters with the policies that made the transitions, which no training sees.",
        ]
        figures = {f"clusters-{record['cell']['dataset']}": _figure(record) for record in records}
        return columns.table(f"C^4 paper, {heading}: clusters over the training", _COLUMNS, shown, notes), figures

    summary = f"the clusters of {title(learner)} with C^4 over the training, in the plane"
    return Table(name, summary, c4.DATASETS, (f"{learner}_c4",), c4.PRESETS, cells, render)
