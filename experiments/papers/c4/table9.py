"""Table 9 of the C^4 paper: learners on all the data; DOGE, TSRL, BPPO and A2PR are not run.

trajclust run c4/table9 --preset cpu --datasets hopper-medium-expert
"""

from trajclust_experiments.cells.cell import Cell
from trajclust_experiments.papers import c4
from trajclust_experiments.papers.c4 import Line
from trajclust_experiments.tables import Preset, Records, Table

METHODS = ("bc", "td3_bc_base", "iql", "cql_base", "cql_c4")
PUBLISHED = {
    dataset: dict(zip(METHODS, scores, strict=True))
    for dataset, scores in {
        "hopper-medium": (52.9, 59.3, 66.3, 58.5, 85.9),
        "hopper-medium-expert": (52.5, 98.0, 91.5, 105.4, 89.4),
        "halfcheetah-medium": (42.6, 48.3, 47.4, 41.0, 48.5),
        "halfcheetah-medium-expert": (55.2, 90.7, 86.7, 91.6, 91.6),
        "walker2d-medium": (75.3, 83.7, 78.3, 72.5, 81.8),
        "walker2d-medium-expert": (107.5, 110.1, 109.6, 108.8, 108.6),
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
    return c4.page("C^4 paper, Table 9: learners on all the data", header, records), {}


TABLE = Table(
    name="c4/table9",
    summary="scores of learners on all the data",
    datasets=tuple(PUBLISHED),
    methods=METHODS,
    presets=c4.PRESETS,
    cells=cells,
    render=render,
)
