"""Figure 5 of the PG-Kmeans paper: returns of the trajectories in each cluster.

trajclust run pgkmeans/figure5 --preset cpu --datasets hopper
"""

import numpy as np

from trajclust_envs.plotting import PALETTE
from trajclust_experiments.papers.pgkmeans import common, table4
from trajclust_experiments.rendering import document, provenance
from trajclust_experiments.tables import Records, Table


def render(records: Records):
    grouped = {record["cell"]["dataset"]: record for record in records}
    figure, axes = common.panels(grouped, 2.8)
    rows = []
    for ax, (dataset, record) in zip(axes, grouped.items(), strict=True):
        clusters = [np.array(each) for each in record["cluster_returns"]]
        bins = np.histogram_bin_edges(np.concatenate(clusters), 30)
        for k, gained in enumerate(clusters):
            ax.hist(gained, bins, color=PALETTE[k % len(PALETTE)], alpha=0.7, label=f"cluster {k}")
            if len(gained):
                numbers = [
                    f"{gained.mean():,.0f}",
                    f"{gained.std():,.0f}",
                    f"{gained.min():,.0f}",
                    f"{gained.max():,.0f}",
                ]
                score = f"{record['centre_scores'][0][k]:.1f}"
                rows.append([common.TITLES[dataset], str(k), str(len(gained)), *numbers, score])
        ax.set(xlabel="return", yscale="log")
        ax.legend(fontsize=6)
    axes[0].set_ylabel("trajectories")
    header = ["task", "cluster", "trajectories", "mean return", "std", "lowest", "highest", "its policy's score"]
    notes = [*provenance(records), "The first seed's clusters, best of 5 restarts by J."]
    return document("PG-Kmeans paper, Figure 5: returns by cluster", header, rows, notes), {"returns": figure}


TABLE = Table(
    name="pgkmeans/figure5",
    summary="returns of the trajectories in each cluster",
    datasets=table4.DATASETS,
    methods=("centres",),
    presets=table4.PRESETS,
    cells=table4.cells,
    render=render,
)
