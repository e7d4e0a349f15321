"""Table 6 of the C^4 paper: CQL with and without C^4 on all the data.

trajclust run c4/table6 --preset cpu --datasets hopper-medium-expert
"""

from trajclust_experiments.cells.cell import Cell
from trajclust_experiments.papers import c4
from trajclust_experiments.papers.c4 import Line
from trajclust_experiments.tables import Preset, Records, Table

METHODS = ("cql_base", "cql_c4")
PUBLISHED = {
    dataset: dict(zip(METHODS, scores, strict=True))
    for dataset, scores in {
        "hopper-medium": (58.5, 85.9),
        "hopper-medium-expert": (105.4, 89.4),
        "halfcheetah-medium": (41.0, 48.5),
        "halfcheetah-medium-expert": (91.6, 91.6),
        "walker2d-medium": (72.5, 81.8),
        "walker2d-medium-expert": (108.8, 108.6),
    }.items()
}


def cells(preset: Preset, datasets, methods, seeds) -> list[Cell]:
    """A cell a dataset and learner, on all the data."""
    chosen: list[Cell] = []
    for dataset in datasets:
        for method in methods:
            make = c4.plain_cell if method in ("bc", "iql") else c4.variant_cell
            chosen.append(make(preset, dataset, method, seeds, 0))
    return chosen


def published(line: Line) -> float | None:
    """The paper's score."""
    return PUBLISHED.get(line.record["cell"]["dataset"], {}).get(c4.method_of(line.record))


def render(records: Records):
    header = [*c4.score_columns(published), *c4.measure_columns()]
    return c4.page("C^4 paper, Table 6: CQL on all the data", header, records), {}


TABLE = Table(
    name="c4/table6",
    summary="CQL with and without C^4 on all the data",
    datasets=tuple(PUBLISHED),
    methods=METHODS,
    presets=c4.PRESETS,
    cells=cells,
    render=render,
)
