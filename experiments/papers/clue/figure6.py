"""Figure 6 of the CLUE paper in the setting that its text names, sparse rewards: little data of the maze.

    trajclust run clue/figure6 --preset cpu

The paper's curves, which are on locomotion, have no numbers.
"""

from trajclust_experiments.cells.cell import Cell
from trajclust_experiments.papers.clue import MAZE, amount_cells, amounts
from trajclust_experiments.tables import Preset, Records, Table


def cells(preset: Preset, datasets, methods, seeds) -> list[Cell]:
    """A cell an amount of data and way, with one successful trajectory; all of the data are Table 1's."""
    return amount_cells(preset, datasets, methods, seeds, "success")


def render(records: Records):
    return amounts(
        "CLUE paper, Figure 6: little data of a maze",
        records,
        "episodes that arrive, %",
        "Score: the episodes that arrive, in percent, of 10 a seed without the policies' noise.",
    )


TABLE = Table(
    name="clue/figure6",
    summary="a maze's sparse rewards against the amount of data: CLUE, OTR, IQL on true rewards",
    datasets=("pointmaze",),
    methods=("iql", "otr_1", "clue_1"),
    presets=MAZE,
    cells=cells,
    render=render,
)
