"""Beyond the LBRAC-v paper: its learner on clusters that others found, and on the true labels.

    trajclust run lbrac_v/clusters --preset cpu --datasets gates-5

Is it the estimate of the behaviours that decides, or the learner?
"""

from trajclust_experiments import catalogue
from trajclust_experiments.cells.cell import Cell
from trajclust_experiments.papers import lbrac_v
from trajclust_experiments.papers.lbrac_v import D4RL, GATES, HETEROGENEOUS, PRESETS, Scale
from trajclust_experiments.rendering import columns
from trajclust_experiments.rendering.columns import Column, Entry
from trajclust_experiments.rendering.markdown import provenance, spread
from trajclust_experiments.tables import Records, Table
from trajclust_jax.data import REGISTRY

OTHERS = ("pg_kmeans_mlp", "caae", "empo_mlp")
METHODS = ("own", *OTHERS, "labels")


def cells(preset: Scale, datasets, methods, seeds) -> list[Cell]:
    """A cell a dataset and clusterer whose clusters LBRAC-v is given; `own`: those that it finds."""
    chosen: list[Cell] = []
    for dataset in datasets:
        k = REGISTRY[dataset].num_policies
        for method in methods:
            clusters = None if method == "own" else method
            chosen.append(lbrac_v.cell(preset, dataset, "lbrac_v", seeds, clusters, k=k))
    return chosen


def _clusters(entry: Entry) -> str:
    name = entry.record["cell"].get("clusters")
    return {None: "its own", "labels": "true labels"}.get(name) or catalogue.title(name)


def _nmi(entry: Entry) -> str:
    record = entry.record
    return f"{record['clustering']['nmi']:.2f}" if "clustering" in record else spread(record["scores"]["nmi"], 2)


COLUMNS = [
    columns.task(),
    Column("clusters", _clusters),
    Column("NMI", _nmi),
    columns.score("relative", "relative return", digits=2),
    columns.score("last_score", "score", digits=1),
    columns.num_seeds(),
    columns.seconds("seconds, all seeds (compile + run)", "compile", "run"),
]


def render(records: Records):
    notes = [*provenance(records), "Clusters of others are those of one seed, for all seeds of the learner; K = k*."]
    return columns.table("LBRAC-v on clusters of others", COLUMNS, map(Entry, records), notes), {}


TABLE = Table(
    name="lbrac_v/clusters",
    summary="LBRAC-v on clusters that others found, and on the true labels",
    datasets=(*(name for name in GATES if name != "gates-1"), *D4RL, *HETEROGENEOUS),
    methods=METHODS,
    presets=PRESETS,
    cells=cells,
    render=render,
)
