"""Table 5 of the PG-Kmeans paper: CAAE with k = 4 to 8 codes, whatever the number of policies.

trajclust run pgkmeans/table5 --preset cpu
"""

import numpy as np

from trajclust_envs.plotting import PALETTE
from trajclust_experiments.papers.pgkmeans import common
from trajclust_experiments.rendering import document, provenance, spread
from trajclust_experiments.runner import Cell
from trajclust_experiments.tables import Preset, Records, Table
from trajclust_jax.data import REGISTRY

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
            chosen += common.cells(preset, (dataset,), methods, seeds, **more)
    return list(dict.fromkeys(chosen))


def render(records: Records):
    rows = []
    grouped = common.by_cell(records)
    figure, axes = common.panels(grouped, 2.6)
    for ax, (dataset, methods) in zip(axes, grouped.items(), strict=True):
        found = {record["cell"]["hyperparameters"]["num_clusters"]: record for _, record in common.of_methods(methods)}
        paper = dict(zip(CODES, PUBLISHED[common.TASKS.get(dataset, dataset)], strict=True))
        for codes in CODES:
            if codes not in found:
                continue
            scores = found[codes]["scores"]
            mean, published = np.mean(scores["nmi"]), paper[codes]
            used = found[codes]["health"]["used_clusters"]
            rows.append(
                [
                    common.TITLES[dataset],
                    f"{codes}" + (" (k*)" if codes == REGISTRY[dataset].num_policies else ""),
                    spread(scores["nmi"]),
                    "-" if published is None else f"{published:.2f}",
                    "" if published is None else f"{mean - published:+.3f}",
                    spread(scores["ari"]),
                    f"{np.mean(used):.1f}",
                    str(len(scores["nmi"])),
                ]
            )
        known = [codes for codes in CODES if codes in found]
        values = [found[codes]["scores"]["nmi"] for codes in known]
        ax.errorbar(
            known, list(map(np.mean, values)), list(map(np.std, values)), color=PALETTE[0], marker="o", label="ours"
        )
        published = [(codes, value) for codes, value in paper.items() if value is not None]
        ax.plot(*zip(*published, strict=True), "s--", color="gray", mfc="none", label="published")
        ceiling = common.oracle_nmi(methods)
        ax.axhline(ceiling, color="black", linewidth=1, linestyle=":", label=f"oracle {ceiling:.3f}")
        ax.set(xlabel="codes k", ylim=(0, 1.05), xticks=CODES)
        ax.legend(fontsize=6)
    axes[0].set_ylabel("NMI")
    header = ["task", "k", "NMI", "paper", "difference", "adjusted Rand", "used codes", "seeds"]
    notes = [*provenance(records), "Mean ± std over seeds; the paper gives means over 10 seeds."]
    title = "PG-Kmeans paper, Table 5: CAAE against the number of codes"
    return document(title, header, rows, notes), {"nmi-against-codes": figure}


TABLE = Table(
    name="pgkmeans/table5",
    summary="CAAE with 4 to 8 codes",
    datasets=common.PAPER_DATASETS,
    methods=("caae",),
    presets=common.PRESETS,
    cells=cells,
    render=render,
)
