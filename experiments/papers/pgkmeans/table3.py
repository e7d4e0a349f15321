"""Table 3 of the PG-Kmeans paper, rows Diagonal and Takeball: a single run against best of 5.

    trajclust run pgkmeans/table3 --preset cpu

Both columns come from the same records: every restart of a best-of-5 cell is a single run, scored after merging
(the paper's single run) and after the polish that the paper does not have.
"""

import numpy as np

from experiments.methods import METHODS, ORACLE
from experiments.papers.pgkmeans import common
from experiments.tables import Records, Table
from trajclust_jax.metrics import bootstrap_interval

PUBLISHED = {"diagonal": ("0.892 ± 0.032", "0.920 ± 0.001"), "takeball": ("0.996 ± 0.002", "0.997 ± 0.000")}


def render(records: Records):
    rows = []
    grouped = common.by_cell(records)
    figure, axes = common.panels(grouped, 3.2)
    for ax, (dataset, methods) in zip(axes, grouped.items(), strict=True):
        columns, labels = [], []
        for name in METHODS:
            for record in methods.get(name, []):
                merged = common.last_of_phase(record, "merge", "nmi").ravel()
                restarts = len(merged) // len(record["cell"]["seeds"])
                polished = common.last_of_phase(record, "polish", "nmi").ravel()
                best = np.array(record["scores"]["nmi"])
                single, of_five = PUBLISHED[dataset]
                rows.append(
                    [
                        common.TITLES[dataset],
                        common.method_title(name),
                        _interval(merged),
                        _interval(polished),
                        single,
                        _interval(best),
                        of_five,
                        f"{methods[ORACLE][0]['scores']['nmi']:.3f}",
                        f"{len(merged)}, {len(best)} of {restarts}",
                    ]
                )
                columns += [merged, polished, best]
                short = common.method_title(name).split(", ")[1]
                labels += [f"{short}\nmerged", f"{short}\npolished", f"{short}\nbest of {restarts}"]
        ax.boxplot(columns, tick_labels=labels, whis=(0, 100))
        ax.tick_params(axis="x", labelsize=6)
    axes[0].set_ylabel("NMI")
    header = ["task", "method", "single run, merged", "single run, polished", "paper, single run"]
    header += ["best of restarts by J", "paper, best of 5", "oracle", "runs (single, best of)"]
    notes = [
        *common.provenance_lines(records),
        "- Ours and the paper's: mean with a 95% confidence interval (ours by bootstrap over runs, half its width).",
    ]
    text = "# PG-Kmeans paper, Table 3 (GridWorld rows): single run against best of 5\n\n"
    return text + common.markdown_table(header, rows) + "\n\n" + "\n".join(notes) + "\n", {"single-and-best": figure}


def _interval(values: np.ndarray) -> str:
    low, high = bootstrap_interval(values, np.random.default_rng(0))
    return f"{values.mean():.3f} ± {(high - low) / 2:.3f}"


TABLE = Table(
    name="pgkmeans/table3",
    summary="single-run against best-of-5 PG-Kmeans",
    datasets=common.DATASETS,
    methods=("pg_kmeans_tabular", "pg_kmeans_mlp", "pg_kmeans_gru"),
    presets=common.PRESETS,
    cells=common.cells,
    render=render,
)
