"""Fresh maps (not a table of the paper): what it takes to tell policies apart on maps that are never seen twice.

    trajclust run pgkmeans/extra --preset cpu

PG-Kmeans falls to .02 there and CAAE to .43 in the paper's Table 1. Each row is a pair: what the networks see of an
observation, and who uses it; policies cloned from the TRUE labels show what that view could give, and the oracle what
the true policies could. `Hand-made ways` are shortest ways computed for each map by a program that knows the task: a
reference for the views that are learned.
"""

import numpy as np

from trajclust_experiments.papers.pgkmeans import common
from trajclust_experiments.rendering import document, provenance, spread
from trajclust_experiments.runner import Cell
from trajclust_experiments.tables import Preset, Records, Table

RAW = {
    "pg_kmeans_mlp": "cloning_mlp",
    "caae": "cloning_mlp",
}  # a method's ceiling: cloning with what it sees
EXTRACTED = {
    "pg_kmeans_planner": "cloning_planner",
    "caae_conv": "cloning_conv",
    "caae_planner": "cloning_planner",
}
VIEWS = {"cloning_mlp": "raw maps", "cloning_conv": "convolutions", "cloning_planner": "plans"}
METHODS = (*RAW, *EXTRACTED, *VIEWS)


def cells(preset: Preset, datasets, methods, seeds) -> list[Cell]:
    """All views of maps; hand-made ways are seen as they are."""
    chosen = []
    for dataset in datasets:
        seen = [name for name in methods if dataset == "extra-vi" or name in RAW or name == "cloning_mlp"]
        chosen += common.cells(preset, (dataset,), seen, seeds)
    return chosen


def render(records: Records):
    rows = []
    for dataset, methods in common.by_cell(records).items():
        found = dict(common.of_methods(methods))
        for name in sorted(found, key=METHODS.index):
            record, above = found[name], found.get((RAW | EXTRACTED).get(name))
            nmi, paper = record["scores"]["nmi"], common.published(dataset, name)
            share = np.mean(nmi) / np.mean(above["scores"]["nmi"]) if above else None
            timing = record["timing"]
            rows.append(
                [
                    "hand-made ways" if dataset.endswith("-ways") else VIEWS[(RAW | EXTRACTED).get(name, name)],
                    common.method_title(name, dataset),
                    spread(nmi),
                    "{:.2f} ± {:.2f}".format(*paper) if paper else "-",
                    f"{np.mean(nmi) - paper[0]:+.3f}" if paper else "",
                    f"{share:.0%}" if share is not None else "-",
                    f"{np.mean(nmi) / common.oracle_nmi(methods):.0%}",
                    f"{_nats_a_step(record):.3f}",
                    f"{len(nmi)}",
                    f"{timing['compile_seconds']:.0f} + {timing['run_seconds']:.0f}",
                ]
            )
    header = ["networks see", "method", "NMI", "paper", "difference", "of cloning with the same view", "of the oracle"]
    header += ["- log P(actions), nats a step"]
    header += ["seeds", "seconds, all seeds (compile + run)"]
    notes = [
        *provenance(records),
        "Cloning from true labels is a ceiling, not a method: each half of the trajectories is classified by policies "
        "cloned from the other half with its labels.",
        "Log-likelihoods are of the data trained on; a decoder knows a trajectory's latent besides the map.",
        "Plans: value iteration on the observed map, its reward learned with the rest (`networks.planner`).",
    ]
    return document("Extra on fresh maps: what the networks see", header, rows, notes), {}


def _nats_a_step(record) -> float:
    """Minus the log-likelihood of actions: under their clusters' policies, or CAAE's decoder, which sees latents."""
    if "reconstruction" in record["history"][-1]:
        return np.mean(record["history"][-1]["reconstruction"])
    return -np.mean(record["scores"]["objective"]) / record["num_steps"]


TABLE = Table(
    name="pgkmeans/extra",
    summary="fresh maps: raw, convolved, planned on, and made by hand, beside what each view could give",
    datasets=("extra-vi", "extra-vi-ways"),
    methods=METHODS,
    presets=common.PRESETS,
    cells=cells,
    render=render,
)
