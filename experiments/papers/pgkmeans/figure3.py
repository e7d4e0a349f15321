"""Figure 3 of the PG-Kmeans paper: CAAE's NMI against its loss on Extra and Pathfollowing.

    trajclust run pgkmeans/figure3 --preset cpu

The paper reads from it that the loss does not tell a good clustering, so that best-of-N makes no sense for CAAE.
Each point is a seed after an iteration of the main phase; the last ones are filled.
"""

from typing import Any, NamedTuple

import numpy as np

from trajclust_experiments.papers import pgkmeans
from trajclust_experiments.rendering import columns
from trajclust_experiments.rendering.columns import Column
from trajclust_experiments.rendering.figures import captioned, panels
from trajclust_experiments.rendering.markdown import provenance
from trajclust_experiments.rendering.stored import grouped
from trajclust_experiments.tables import Records, Table
from trajclust_jax.lazy import lazy

plotting = lazy("trajclust_envs.plotting")
stats = lazy("scipy.stats")


class _Line(NamedTuple):
    record: dict[str, Any]
    loss: np.ndarray  # [iterations, S]
    nmi: np.ndarray  # [iterations, S]


def _rank_correlation(loss: np.ndarray, nmi: np.ndarray) -> str:
    if loss.size < 3 or np.ptp(loss) == 0 or np.ptp(nmi) == 0:
        return "-"
    return f"{stats.spearmanr(loss, nmi).statistic:+.2f}"


COLUMNS = [
    columns.task(),
    Column("rank correlation of final loss and NMI", lambda line: _rank_correlation(line.loss[-1], line.nmi[-1])),
    Column("of all points", lambda line: _rank_correlation(line.loss.ravel(), line.nmi.ravel())),
    columns.num_seeds(),
    Column("points", lambda line: str(line.loss.size)),
]


def render(records: Records):
    lines = []
    found = grouped(records)
    figure, axes = panels(found, 3.0)
    for ax, methods in zip(axes, found.values(), strict=True):
        (record,) = methods["caae"]
        main = [entry for entry in record["history"] if entry["phase"] == "main" and entry["iteration"] > 0]
        loss = -np.array([entry["objective"] for entry in main], float)[..., 0]
        nmi = np.array([entry["nmi"] for entry in main], float)[..., 0]
        lines.append(_Line(record, loss, nmi))
        for seed in range(loss.shape[1]):
            color = plotting.PALETTE[seed % len(plotting.PALETTE)]
            ax.plot(loss[:, seed], nmi[:, seed], "-o", mfc="none", ms=3, lw=0.4, color=color)
            ax.plot(loss[-1, seed], nmi[-1, seed], "o", ms=6, color=color)
        ax.set(xlabel="loss, nats a step")
        ax.locator_params(axis="x", nbins=4)
    axes[0].set_ylabel("NMI")
    notes = [
        *provenance(records),
        "Spearman's; -1: the lowest loss has the highest NMI. The paper only says: no significant correlation.",
    ]
    title = "PG-Kmeans paper, Figure 3: CAAE's NMI against its loss"
    caption = "CAAE's NMI against its loss over the training: a line a seed, a filled dot at its end."
    return columns.table(title, COLUMNS, lines, notes), {"nmi-against-loss": captioned(figure, caption)}


TABLE = Table(
    name="pgkmeans/figure3",
    summary="CAAE's NMI against its loss",
    datasets=pgkmeans.GRID_DATASETS,
    methods=("caae",),
    presets=pgkmeans.PRESETS,
    cells=pgkmeans.cells,
    render=render,
)
