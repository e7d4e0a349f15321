"""Table 12 of the C^4 paper: the weight of the penalty. The paper's is of penultimate features, not of values
whose standard deviation is 1: its column is its own scale.

    trajclust run c4/table12 --preset cpu --datasets hopper-medium-expert --methods td3_bc

All values are one program.
"""

from trajclust_experiments.cells.cell import Cell
from trajclust_experiments.papers import c4
from trajclust_experiments.tables import Preset, Records, Table

VALUES = (0.0, 0.05, 0.1, 0.3, 0.5, 1.0)
PUBLISHED = {
    "halfcheetah-medium": (30.1, 38.9, 44.1, 46.3, 45.0, 40.3),
    "hopper-medium": (55.6, 68.6, 75.0, 69.2, 69.6, 62.8),
    "walker2d-medium": (55.3, 57.9, 61.1, 65.9, 65.2, 63.7),
    "halfcheetah-medium-expert": (39.9, 52.2, 46.9, 42.1, 27.4, 27.0),
    "hopper-medium-expert": (65.0, 74.2, 81.3, 70.8, 67.6, 63.5),
    "walker2d-medium-expert": (63.6, 95.9, 96.3, 89.9, 87.9, 79.2),
}


def cells(preset: Preset, datasets, methods, seeds) -> list[Cell]:
    """A cell a dataset and learner."""
    return [
        c4.swept_cell(preset, dataset, method, seeds, "weight", VALUES) for dataset in datasets for method in methods
    ]


def render(records: Records):
    text = c4.page(
        "C^4 paper, Table 12: the weight of the penalty",
        c4.sweep_columns("weight", PUBLISHED, float),
        records,
        c4.settings_in(records),
    )
    return text, {"scores": c4.sweep_figure(records, "weight", float)}


TABLE = Table(
    name="c4/table12",
    summary="scores against the weight of the penalty",
    datasets=c4.DATASETS,
    methods=("td3_bc_c4", "cql_c4"),
    presets=c4.PRESETS,
    cells=cells,
    render=render,
)
