"""Choosing K without labels (not in the paper): two criteria over a range of K, beside the true k*.

    trajclust run pgkmeans/choosing-k --preset cpu

PG-Kmeans runs for every K in one program; `clustering.model_selection` states the criteria and their reasons. The
permuted Takeball and 20 trajectories a policy show where they fail.
"""

import dataclasses

import numpy as np

from trajclust_envs.plotting import PALETTE
from trajclust_experiments.papers.pgkmeans import common
from trajclust_experiments.rendering import document, provenance
from trajclust_experiments.runner import Cell
from trajclust_experiments.tables import Preset, Records, Table
from trajclust_jax.data import REGISTRY

CRITERIA = {"held_out": "held-out", "integrated": "integrated"}
SMALL = 20  # trajectories a policy of the rows with little data
PRESETS = {
    name: dataclasses.replace(
        preset, settings={"choose_k": {"restarts": 2, "counts": (2, 3)}} if name == "smoke" else {}
    )
    for name, preset in common.PRESETS.items()
}


def cells(preset: Preset, datasets, methods, seeds) -> list[Cell]:
    """One cell a dataset at the preset's size, and one with little data."""
    sizes = sorted({min(SMALL, preset.size), preset.size})
    return [
        cell
        for size in sizes
        for cell in common.cells(dataclasses.replace(preset, size=size), datasets, methods, seeds)
        if cell.method in methods
    ]


def render(records: Records):
    records = [record for record in records if "selection" in record]
    rows = []
    largest = {}
    for record in sorted(records, key=lambda record: (record["cell"]["dataset"], record["cell"]["size"])):
        dataset, selection = record["cell"]["dataset"], record["selection"]
        largest[dataset] = record
        true = REGISTRY[dataset].num_policies
        for name, title in CRITERIA.items():
            chosen = selection["chosen"][name]
            at_true = (
                np.array(record["scores"]["nmi"])[:, selection["counts"].index(true)]
                if true in selection["counts"]
                else []
            )
            rows.append(
                [
                    common.TITLES[dataset],
                    f"{record['cell']['size']:,}",
                    title,
                    str(true),
                    ", ".join(map(str, chosen)),
                    f"{sum(k == true for k in chosen)} of {len(chosen)}",
                    f"{np.mean(at_true):.3f}" if len(at_true) else "-",
                    f"{record['timing']['compile_seconds']:.0f} + {record['timing']['run_seconds']:.0f}",
                ]
            )
    figure, axes = common.panels(largest, 3.0)
    for ax, (dataset, record) in zip(axes, largest.items(), strict=True):
        selection = record["selection"]
        for color, (name, title) in zip(PALETTE, CRITERIA.items(), strict=False):
            values = np.array(selection[name])
            ax.errorbar(selection["counts"], values.mean(0), values.std(0), color=color, marker="o", ms=3, label=title)
        ax.axvline(REGISTRY[dataset].num_policies, color="black", lw=1, ls=":", label="true k*")
        top = max(np.array(selection[name]).mean(0).max() for name in CRITERIA)
        low = min(np.array(selection[name]).mean(0)[selection["counts"].index(3) :].min() for name in CRITERIA)
        ax.set(xlabel="K", ylim=(low - 0.1 * (top - low), top + 0.1 * (top - low)))
        ax.legend(fontsize=6)
    axes[0].set_ylabel("nats a step")
    header = ["task", "trajectories a policy", "criterion", "true k*", "chosen, by seed", "right", "NMI at k*"]
    header += ["seconds (compile + run), all K and seeds"]
    notes = [
        *provenance(records),
        "The K chosen is the number of clusters that the chosen run uses: the run with the highest criterion; by the "
        "held-out one, of those within one standard error of the highest the one that uses fewest.",
        "Tabular policies; each seed holds out its own fifth of the trajectories.",
    ]
    title = "Choosing K without labels"
    return document(title, header, rows, notes), {"criteria": figure}


TABLE = Table(
    name="pgkmeans/choosing-k",
    summary="K chosen without labels, beside the true k*",
    datasets=("diagonal", "takeball", "takeball-permuted"),
    methods=("choose_k",),
    presets=PRESETS,
    cells=cells,
    render=render,
)
