"""Table 4 of the LBRAC-v paper: LBRAC-v for every K on the data of medium, expert and replay policies.

trajclust run lbrac_v/table4 --preset cpu --datasets hopper-medium-expert
"""

from trajclust_experiments.cells.cell import Cell
from trajclust_experiments.papers.lbrac_v import D4RL, PRESETS, Scale
from trajclust_experiments.papers.lbrac_v._results import COLUMNS, lines, sweep_cell
from trajclust_experiments.rendering import columns
from trajclust_experiments.rendering.markdown import provenance
from trajclust_experiments.tables import Records, Table


def cells(preset: Scale, datasets, methods, seeds) -> list[Cell]:
    """A cell a dataset: all K in one program."""
    return [sweep_cell(preset, dataset, seeds) for dataset in datasets if methods]


def render(records: Records):
    notes = [
        *provenance(records),
        "All K of a dataset are one program, with codes out of use. The text of the paper that we have does not hold "
        "its numbers.",
    ]
    shown = [line for record in records for line in lines(record)]
    return columns.table("LBRAC-v paper, Table 4", COLUMNS, shown, notes), {}


TABLE = Table(
    name="lbrac_v/table4",
    summary="LBRAC-v for every K",
    datasets=D4RL,
    methods=("lbrac_v",),
    presets=PRESETS,
    cells=cells,
    render=render,
)
