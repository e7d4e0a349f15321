"""Table 11 of the C^4 paper: how many of 20 clusters are effective, on reduced and on all data.

    trajclust run c4/table11 --preset cpu --datasets hopper-medium-expert --methods td3_bc

A cluster is effective that has 1 % of the transitions or more; the paper does not say what it counts.
"""

from trajclust_experiments.cells.cell import Cell
from trajclust_experiments.papers import c4
from trajclust_experiments.papers.c4 import Line
from trajclust_experiments.rendering import columns
from trajclust_experiments.rendering.columns import Column
from trajclust_experiments.tables import Preset, Records, Table

CLUSTERS = 20
PUBLISHED = {"ant": (6, 3), "halfcheetah": (4, 2), "hopper": (4, 2), "walker2d": (5, 3)}  # at 10,000, at a million


def cells(preset: Preset, datasets, methods, seeds) -> list[Cell]:
    """Two cells a dataset and learner."""
    return [
        c4.variant_cell(preset, dataset, method, seeds, size, clusters=CLUSTERS)
        for dataset in datasets
        for method in methods
        for size in (c4.REDUCED, 0)
    ]


def _reduced(line: Line) -> bool:
    return "transitions" in line.record["cell"]


def _published(line: Line) -> str:
    reduced, whole = PUBLISHED[line.record["cell"]["dataset"].partition("-")[0]]
    return str(reduced if _reduced(line) else whole)


COLUMNS = [
    columns.task(),
    columns.method("learner", lambda line: c4.title_of(line.record)),
    Column("transitions", lambda line: f"{line.record['cell']['transitions']:,}" if _reduced(line) else "all"),
    Column("effective clusters", lambda line: f"{c4.last(line.record, 'clusters/effective'):.1f}"),
    Column("at first", lambda line: f"{c4.course(line.record, 'clusters/effective')[0].mean():.1f}"),
    Column("paper (CQL)", _published),
    columns.num_seeds(),
]


def render(records: Records):
    return c4.page("C^4 paper, Table 11: effective clusters of 20", COLUMNS, records), {}


TABLE = Table(
    name="c4/table11",
    summary="how many of 20 clusters are effective",
    datasets=c4.DATASETS,
    methods=("td3_bc_c4", "cql_c4"),
    presets=c4.PRESETS,
    cells=cells,
    render=render,
)
