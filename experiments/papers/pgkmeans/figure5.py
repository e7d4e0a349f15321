"""Figure 5 of the PG-Kmeans paper: returns of the trajectories in each cluster.

trajclust run pgkmeans/figure5 --preset cpu --datasets hopper
"""

from typing import Any, NamedTuple

import numpy as np

from trajclust_experiments.papers.pgkmeans import table4
from trajclust_experiments.rendering import columns
from trajclust_experiments.rendering.columns import Column
from trajclust_experiments.rendering.figures import captioned, panels
from trajclust_experiments.rendering.markdown import provenance
from trajclust_experiments.tables import Records, Table
from trajclust_jax.lazy import lazy

plotting = lazy("trajclust_envs.plotting")


class _Line(NamedTuple):
    record: dict[str, Any]
    cluster: int
    returns: np.ndarray


COLUMNS = [
    columns.task(),
    Column("cluster", lambda line: str(line.cluster)),
    Column("trajectories", lambda line: str(len(line.returns))),
    Column("mean return", lambda line: f"{line.returns.mean():,.0f}"),
    Column("std", lambda line: f"{line.returns.std():,.0f}"),
    Column("lowest", lambda line: f"{line.returns.min():,.0f}"),
    Column("highest", lambda line: f"{line.returns.max():,.0f}"),
    Column("its policy's score", lambda line: f"{line.record['centre_scores'][0][line.cluster]:.1f}"),
]


def render(records: Records):
    by_dataset = {record["cell"]["dataset"]: record for record in records}
    figure, axes = panels(by_dataset, 2.8)
    lines = []
    for ax, record in zip(axes, by_dataset.values(), strict=True):
        clusters = [_Line(record, k, np.array(each)) for k, each in enumerate(record["cluster_returns"])]
        lines += [line for line in clusters if len(line.returns)]
        bins = np.histogram_bin_edges(np.concatenate([line.returns for line in clusters]), 30)
        for k, line in enumerate(clusters):
            ax.hist(
                line.returns, bins, color=plotting.PALETTE[k % len(plotting.PALETTE)], alpha=0.7, label=f"cluster {k}"
            )
        ax.set(xlabel="return", yscale="log")
        ax.legend(fontsize=6)
    axes[0].set_ylabel("trajectories")
    notes = [*provenance(records), "The first seed's clusters, best of 5 restarts by J."]
    title = "PG-Kmeans paper, Figure 5: returns by cluster"
    caption = "How many trajectories of each found cluster have which return."
    return columns.table(title, COLUMNS, lines, notes), {"returns": captioned(figure, caption)}


TABLE = Table(
    name="pgkmeans/figure5",
    summary="returns of the trajectories in each cluster",
    datasets=table4.DATASETS,
    methods=("centres",),
    presets=table4.PRESETS,
    cells=table4.cells,
    render=render,
)
