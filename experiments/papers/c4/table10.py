"""Table 10 of the C^4 paper: the number of clusters K, by masks.

    trajclust run c4/table10 --preset cpu --datasets hopper-medium-expert --methods td3_bc

All values are one program.
"""

from trajclust_experiments.cells.cell import Cell
from trajclust_experiments.papers import c4
from trajclust_experiments.tables import Preset, Records, Table

VALUES = (1, 2, 3, 5, 7, 10, 20)
# The paper's are of a task, without saying which of its data.
PUBLISHED: dict[str, tuple[float, ...]] = {}


def cells(preset: Preset, datasets, methods, seeds) -> list[Cell]:
    """A cell a dataset and learner."""
    return [
        c4.swept_cell(preset, dataset, method, seeds, "clusters_used", VALUES, clusters=int(max(VALUES)))
        for dataset in datasets
        for method in methods
    ]


def render(records: Records):
    text = c4.page(
        "C^4 paper, Table 10: the number of clusters",
        c4.sweep_columns("K", PUBLISHED, float),
        records,
        c4.settings_in(records),
    )
    return text, {"scores": c4.sweep_figure(records, "K", float)}


TABLE = Table(
    name="c4/table10",
    summary="scores against the number of clusters K",
    datasets=c4.DATASETS,
    methods=("td3_bc_c4", "cql_c4"),
    presets=c4.PRESETS,
    cells=cells,
    render=render,
)
