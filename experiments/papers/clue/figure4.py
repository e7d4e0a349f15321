"""Figure 4 of the CLUE paper: what the calibration is worth.

    trajclust run clue/figure4 --preset cpu --datasets hopper

The paper's bars are on locomotion and AntMaze; the maze's ablation is in `clue/table1`.
"""

from trajclust_experiments.cells.cell import Cell
from trajclust_experiments.papers.clue import (
    IMITATION,
    ROWS,
    SCORES,
    Row,
    against,
    bars,
    learned_cells,
    number_of_experts,
    way_of,
)
from trajclust_experiments.rendering import columns
from trajclust_experiments.rendering.markdown import provenance
from trajclust_experiments.tables import Preset, Records, Table

DATASETS = tuple(f"{task}-medium-expert" for task in ("halfcheetah", "hopper", "walker2d", "ant"))
METHODS = ("clue", "uncalibrated")


def cells(preset: Preset, datasets, methods, seeds) -> list[Cell]:
    """With one expert trajectory; CLUE's are Table 3's cells."""
    return learned_cells(preset, datasets, methods, seeds, "demonstrations")


def render(records: Records):
    rows = [Row(r, r["cell"]["dataset"], way_of(r), number_of_experts(r)) for r in records]
    notes = [*provenance(records), SCORES, *against(records, "clue", "uncalibrated")]
    text = columns.table("CLUE paper, Figure 4: without the calibration", ROWS, rows, notes)
    return text, {"scores": bars(records, "normalised score")}


TABLE = Table(
    name="clue/figure4",
    summary="CLUE with and without its calibration",
    datasets=DATASETS,
    methods=METHODS,
    presets=IMITATION,
    cells=cells,
    render=render,
)
