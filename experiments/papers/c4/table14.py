"""Table 14 of the C^4 paper: the gradient steps between two clusterings.

    trajclust run c4/table14 --preset cpu --datasets hopper-medium-expert --methods td3_bc

All values are one program.
"""

from trajclust_experiments.cells.cell import Cell
from trajclust_experiments.papers import c4
from trajclust_experiments.tables import Preset, Records, Table

VALUES = (20, 50, 100, 200, 500, 1000)
EVERY = 10  # divides them
PUBLISHED = {
    "halfcheetah-medium": (39.1, 36.7, 41.0, 46.3, 36.6, 22.7),
    "hopper-medium": (66.9, 65.0, 64.7, 69.2, 60.8, 61.4),
    "walker2d-medium": (58.9, 64.1, 66.5, 65.9, 57.8, 46.5),
    "halfcheetah-medium-expert": (27.6, 55.0, 63.6, 46.9, 44.3, 23.9),
    "hopper-medium-expert": (45.5, 79.7, 87.7, 81.3, 73.0, 61.6),
    "walker2d-medium-expert": (69.3, 74.1, 91.7, 96.3, 75.1, 74.9),
}


def _steps(wait: float) -> float:
    return EVERY * wait


def cells(preset: Preset, datasets, methods, seeds) -> list[Cell]:
    """A cell a dataset and learner."""
    waits = [each // EVERY for each in VALUES]
    return [
        c4.swept_cell(preset, dataset, method, seeds, "recluster_wait", waits, recluster_every=EVERY)
        for dataset in datasets
        for method in methods
    ]


def render(records: Records):
    text = c4.page(
        "C^4 paper, Table 14: the frequency of clustering",
        c4.sweep_columns("gradient steps", PUBLISHED, _steps),
        records,
        c4.settings_in(records),
    )
    return text, {"scores": c4.sweep_figure(records, "gradient steps", _steps)}


TABLE = Table(
    name="c4/table14",
    summary="scores against the gradient steps between two clusterings",
    datasets=c4.DATASETS,
    methods=("td3_bc_c4", "cql_c4"),
    presets=c4.PRESETS,
    cells=cells,
    render=render,
)
