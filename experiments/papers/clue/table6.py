"""Tables 6 and 7 of the CLUE paper: the temperature c, with 1 and 10 expert trajectories, on the maze.

    trajclust run clue/table6 --preset cpu

Beside it a choice of c that reads no true rewards: the one whose rewards spread trajectories most.
"""

from typing import NamedTuple

import numpy as np

from trajclust_experiments.cells.cell import Cell
from trajclust_experiments.papers.clue import MAZE, final, learned_cell, number_of_experts, temperature_of
from trajclust_experiments.rendering import columns
from trajclust_experiments.rendering.columns import Column
from trajclust_experiments.rendering.intervals import interval_column
from trajclust_experiments.rendering.markdown import provenance, spread
from trajclust_experiments.tables import Preset, Records, Table

TEMPERATURES = (1.0, 3.0, 5.0, 10.0, None)  # None: chosen by the spread
# Of AntMaze's six tasks (umaze, umaze-diverse, medium-play, medium-diverse, large-play, large-diverse), by K and c.
PUBLISHED = {
    1: {
        1.0: (89.4, 43.08, 60.4, 57.8, 34.16, 27.04),
        3.0: (91.84, 43.16, 65.2, 63.24, 46.88, 43.16),
        5.0: (91.96, 42.36, 68.04, 66.04, 52.72, 44.88),
        10.0: (91.2, 68.0, 73.64, 72.92, 55.8, 47.11),
    },
    10: {
        1.0: (87.88, 45.64, 58.72, 60.36, 48.24, 36.32),
        3.0: (91.08, 41.04, 68.24, 62.12, 51.56, 48.64),
        5.0: (91.16, 39.52, 69.92, 63.56, 48.4, 51.16),
        10.0: (91.92, 71.68, 76.48, 69.2, 51.87, 53.68),
    },
}


def cells(preset: Preset, datasets, methods, seeds) -> list[Cell]:
    """A cell a temperature and number of experts."""
    return [
        learned_cell(preset, dataset, "clue", seeds, f"success:{method.rpartition('_')[2]}", temperature=c)
        for dataset in datasets
        for method in methods
        for c in TEMPERATURES
    ]


class _Line(NamedTuple):
    record: dict
    experts: int
    temperature: float | None


COLUMNS = [
    Column("K", lambda line: str(line.experts)),
    Column("c", lambda line: "by the spread" if line.temperature is None else f"{line.temperature:g}"),
    Column("arrived, %", lambda line: spread(final(line.record), 1)),
    interval_column(lambda line: final(line.record), 1),
    Column("spread over trajectories", lambda line: f"{np.mean(line.record['relabelling']['spread']):.3f}"),
    Column("AUC of trajectories", lambda line: f"{np.mean(line.record['relabelling']['trajectory_auc']):.2f}"),
    Column("paper, AntMaze", lambda line: _paper(line)),
    columns.num_seeds(),
]


def _paper(line: _Line) -> str:
    values = PUBLISHED.get(line.experts, {}).get(line.temperature)
    return "-" if values is None else f"{np.mean(values):.1f}"


def render(records: Records):
    lines = [_Line(record, number_of_experts(record), temperature_of(record)) for record in records]
    lines.sort(key=lambda line: (line.experts, line.temperature is None, line.temperature or 0))
    notes = [
        *provenance(records),
        "Arrived: as in Table 1. Paper: the mean of its six AntMaze tasks, from Tables 6 and 7.",
    ]
    return columns.table("CLUE paper, Tables 6 and 7: the temperature", COLUMNS, lines, notes), {}


TABLE = Table(
    name="clue/table6",
    summary="CLUE's temperature c on the maze, and a choice of it without true rewards",
    datasets=("pointmaze",),
    methods=("clue_1", "clue_10"),
    presets=MAZE,
    cells=cells,
    render=render,
    holds=("clue/table7",),
)
