"""Figure 3 of the PG-Kmeans paper: CAAE's NMI against its loss on Extra and Pathfollowing.

    trajclust run pgkmeans/figure3 --preset cpu

The paper reads from it that the loss does not tell a good clustering, so that best-of-N makes no sense for CAAE.
Each point is a seed after an iteration of the main phase; the last ones are filled.
"""

import numpy as np
from scipy.stats import spearmanr

from trajclust_envs.plotting import PALETTE
from trajclust_experiments.papers.pgkmeans import common
from trajclust_experiments.rendering import document, provenance
from trajclust_experiments.tables import Records, Table


def render(records: Records):
    rows = []
    grouped = common.by_cell(records)
    figure, axes = common.panels(grouped, 3.0)
    for ax, (dataset, methods) in zip(axes, grouped.items(), strict=True):
        (record,) = methods["caae"]
        main = [entry for entry in record["history"] if entry["phase"] == "main" and entry["iteration"] > 0]
        loss = -np.array([entry["objective"] for entry in main], float)[..., 0]  # [iterations, S]
        nmi = np.array([entry["nmi"] for entry in main], float)[..., 0]
        for seed in range(loss.shape[1]):
            color = PALETTE[seed % len(PALETTE)]
            ax.plot(loss[:, seed], nmi[:, seed], "-o", mfc="none", ms=3, lw=0.4, color=color)
            ax.plot(loss[-1, seed], nmi[-1, seed], "o", ms=6, color=color)
        ax.set(xlabel="loss, nats a step")
        ax.locator_params(axis="x", nbins=4)
        final = spearmanr(loss[-1], nmi[-1]).statistic if loss.shape[1] > 2 else np.nan
        rows.append(
            [
                common.TITLES[dataset],
                f"{final:+.2f}" if np.isfinite(final) else "-",
                f"{spearmanr(loss.ravel(), nmi.ravel()).statistic:+.2f}",
                str(loss.shape[1]),
                str(loss.size),
            ]
        )
    axes[0].set_ylabel("NMI")
    header = ["task", "rank correlation of final loss and NMI", "of all points", "seeds", "points"]
    notes = [
        *provenance(records),
        "Spearman's; -1: the lowest loss has the highest NMI. The paper only says: no significant correlation.",
    ]
    title = "PG-Kmeans paper, Figure 3: CAAE's NMI against its loss"
    return document(title, header, rows, notes), {"nmi-against-loss": figure}


TABLE = Table(
    name="pgkmeans/figure3",
    summary="CAAE's NMI against its loss",
    datasets=common.GRID_DATASETS,
    methods=("caae",),
    presets=common.PRESETS,
    cells=common.cells,
    render=render,
)
