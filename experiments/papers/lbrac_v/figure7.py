"""Figure 7 of the LBRAC-v paper: the behaviour set alone, W by its principal components; and how pure its codes are.

    trajclust run lbrac_v/figure7 --preset cpu --datasets hopper-medium-expert

The settings that work and those of the release beside each other, more codes that are merged to k*, and PG-Kmeans.
"""

import dataclasses

from trajclust_experiments.cells.behaviours import BehaviourSetCell
from trajclust_experiments.cells.cell import Cell
from trajclust_experiments.cells.methods import MethodCell
from trajclust_experiments.papers.lbrac_v import D4RL, HETEROGENEOUS, PRESETS, Scale, size_of, suited
from trajclust_experiments.papers.lbrac_v._maps import map_figure
from trajclust_experiments.rendering import columns
from trajclust_experiments.rendering.columns import Column, Entry
from trajclust_experiments.rendering.markdown import provenance
from trajclust_experiments.tables import Records, Table
from trajclust_jax.data import REGISTRY

COUNTS = {  # K beside k*, of behaviour sets
    "behaviour_set": (1, 10, 20),
    "behaviour_set_released": (1, 10, 20),
    "behaviour_set_merged": (),
}
_TINY = {"iterations": 2, "steps": 20}
PRESETS_HERE = {
    "smoke": dataclasses.replace(PRESETS["smoke"], settings=dict.fromkeys(COUNTS, _TINY)),
    # The release's 500,000 gradient steps are two hours: 40,000 of them, where it has been seen that little moves.
    "cpu": dataclasses.replace(PRESETS["cpu"], seeds=10, settings={"behaviour_set_released": {"iterations": 80}}),
    "paper": dataclasses.replace(PRESETS["paper"], settings={}),
}


def cells(preset: Scale, datasets, methods, seeds) -> list[Cell]:
    """A cell a dataset, clusterer and, of behaviour sets, K."""
    chosen: list[Cell] = []
    for dataset in datasets:
        entry = REGISTRY[dataset]
        size = min(size_of(preset, dataset), 50) if dataset in D4RL else size_of(preset, dataset)
        for method in methods:
            if method not in COUNTS:
                settings = tuple(sorted(suited(method, dataset).items()))
                chosen.append(MethodCell(dataset, size, method, tuple(seeds), settings))
                continue
            for k in sorted({entry.num_policies, *COUNTS[method]}):
                given = {**preset.settings.get(method, {}), "num_clusters": k}
                chosen.append(BehaviourSetCell(dataset, size, method, tuple(seeds), tuple(sorted(given.items()))))
    return chosen


COLUMNS = [
    columns.task(),
    columns.method(),
    Column("K", lambda entry: str(entry.record["cell"]["hyperparameters"]["num_clusters"])),
    columns.score("nmi", "NMI"),
    columns.score("homogeneity", "homogeneity"),
    columns.score("ari", "adjusted Rand"),
    columns.score("used_clusters", "used codes", digits=1),
    columns.seeds(),
    columns.seconds("seconds, all seeds (compile + run)", "compile", "run"),
]


def render(records: Records):
    figures = {}
    for record in records:
        if "maps" in record:
            described = record["cell"]
            key = f"embeddings-{described['dataset']}-{described['method']}"
            figures.setdefault(key, []).extend((f"K = {each['k']}", each, record["map_of"]) for each in record["maps"])
    text = columns.table("LBRAC-v paper, Figure 7", COLUMNS, map(Entry, records), provenance(records))
    return text, {key: map_figure(shown) for key, shown in figures.items()}


TABLE = Table(
    name="lbrac_v/figure7",
    summary="the behaviour set alone: embeddings, NMI and homogeneity for several K",
    datasets=(*D4RL, "gates-5", *HETEROGENEOUS),
    methods=(*COUNTS, "pg_kmeans_mlp"),
    presets=PRESETS_HERE,
    cells=cells,
    render=render,
)
