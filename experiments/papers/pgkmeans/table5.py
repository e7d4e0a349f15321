"""Table 5 of the PG-Kmeans paper: CAAE with k = 4 to 8 codes, whatever the number of policies.

trajclust run pgkmeans/table5 --preset cpu
"""

from typing import Any

import numpy as np

from trajclust_experiments.cells.cell import Cell
from trajclust_experiments.papers import pgkmeans
from trajclust_experiments.rendering import columns
from trajclust_experiments.rendering.columns import Column, Entry
from trajclust_experiments.rendering.figures import captioned, panels
from trajclust_experiments.rendering.markdown import provenance
from trajclust_experiments.rendering.stored import grouped, of_methods, oracle_nmi
from trajclust_experiments.tables import Preset, Records, Table
from trajclust_jax.data import REGISTRY
from trajclust_jax.lazy import lazy

plotting = lazy("trajclust_envs.plotting")

CODES = (4, 5, 6, 7, 8)
PUBLISHED = {  # NMI over 10 seeds, k = 4 to 8
    "ant": (0.88, 0.87, 0.83, 0.81, 0.79),
    "halfcheetah": (0.90, 0.85, 0.81, 0.80, 0.75),
    "hopper": (0.66, 0.55, 0.50, 0.47, 0.46),
    "walker2d": (0.79, 0.74, 0.71, 0.69, 0.64),
    "diagonal": (None, 0.82, 0.87, 0.80, 0.83),
    "takeball": (1.00, 0.95, 0.90, 0.88, 0.85),
    "pathfollowing": (0.18, 0.22, 0.27, 0.34, 0.35),
    "extra": (0.38, 0.34, 0.43, 0.36, 0.37),
}


def cells(preset: Preset, datasets, methods, seeds) -> list[Cell]:
    """One cell a number of codes; k* itself is the method's default, so that Table 1's record serves."""
    chosen = []
    for dataset in datasets:
        for codes in CODES:
            more = {} if codes == REGISTRY[dataset].num_policies else {"num_clusters": codes}
            chosen += pgkmeans.cells(preset, (dataset,), methods, seeds, **more)
    return list(dict.fromkeys(chosen))


def _codes(record: dict[str, Any]) -> int:
    return record["cell"]["hyperparameters"]["num_clusters"]


def _title(entry: Entry) -> str:
    codes, true = _codes(entry.record), REGISTRY[entry.record["cell"]["dataset"]].num_policies
    return f"{codes}" + (" (k*)" if codes == true else "")


def _paper(entry: Entry) -> float | None:
    return PUBLISHED[pgkmeans.TASKS[entry.record["cell"]["dataset"]]][CODES.index(_codes(entry.record))]


COLUMNS = [
    columns.task(),
    Column("k", _title),
    columns.score("nmi", "NMI"),
    *columns.published(_paper),
    columns.score("ari", "adjusted Rand"),
    Column("used codes", lambda entry: f"{np.mean(entry.record['health']['used_clusters']):.1f}"),
    columns.num_seeds(),
]


def render(records: Records):
    lines = []
    found = grouped(records)
    figure, axes = panels(found, 2.6)
    for ax, (dataset, methods) in zip(axes, found.items(), strict=True):
        shown = sorted((record for _, record in of_methods(methods)), key=_codes)
        lines += map(Entry, shown)
        values = [record["scores"]["nmi"] for record in shown]
        mean, std = list(map(np.mean, values)), list(map(np.std, values))
        ax.errorbar(list(map(_codes, shown)), mean, std, color=plotting.PALETTE[0], marker="o", label="ours")
        paper = zip(CODES, PUBLISHED[pgkmeans.TASKS[dataset]], strict=True)
        published = [(codes, value) for codes, value in paper if value is not None]
        ax.plot(*zip(*published, strict=True), "s--", color="gray", mfc="none", label="published")
        ceiling = oracle_nmi(methods)
        ax.axhline(ceiling, color="black", linewidth=1, linestyle=":", label=f"oracle {ceiling:.3f}")
        ax.set(xlabel="codes k", ylim=(0, 1.05), xticks=CODES)
        ax.legend(fontsize=6)
    axes[0].set_ylabel("NMI")
    notes = [*provenance(records), "Mean ± std over seeds; the paper gives means over 10 seeds."]
    title = "PG-Kmeans paper, Table 5: CAAE against the number of codes"
    caption = (
        "CAAE's NMI against its number of codes, ours (mean and standard deviation over seeds) and published; the "
        "oracle's is dotted."
    )
    return columns.table(title, COLUMNS, lines, notes), {"nmi-against-codes": captioned(figure, caption)}


TABLE = Table(
    name="pgkmeans/table5",
    summary="CAAE with 4 to 8 codes",
    datasets=pgkmeans.PAPER_DATASETS,
    methods=("caae",),
    presets=pgkmeans.PRESETS,
    cells=cells,
    render=render,
)
