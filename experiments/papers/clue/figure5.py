"""Figures 5 and 6 of the CLUE paper on locomotion: little data.

    trajclust run clue/figure5 --preset cpu --datasets hopper-medium-expert --methods iql clue

The paper has 5 to 25 % of D4RL's data, in curves without numbers. `clue/figure6` is the maze's.
"""

from trajclust_experiments.cells.cell import Cell
from trajclust_experiments.papers.clue import IMITATION, SCORES, amount_cells, amounts
from trajclust_experiments.tables import Preset, Records, Table


def cells(preset: Preset, datasets, methods, seeds) -> list[Cell]:
    """A cell an amount of data, dataset and way, with one expert trajectory; all of the data are Table 3's."""
    return amount_cells(preset, datasets, methods, seeds, "demonstrations")


def render(records: Records):
    return amounts("CLUE paper, Figures 5 and 6: little data", records, "normalised score", SCORES)


TABLE = Table(
    name="clue/figure5",
    summary="imitation on locomotion against the amount of data: CLUE, OTR, ORIL, BC, IQL on true rewards",
    datasets=tuple(f"{task}-medium-expert" for task in ("halfcheetah", "hopper", "walker2d", "ant")),
    methods=("iql", "otr", "clue", "oril", "bc_expert"),
    presets=IMITATION,
    cells=cells,
    render=render,
)
