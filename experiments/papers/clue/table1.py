"""Tables 1, 2 and 5 of the CLUE paper: sparse rewards, replaced by those of the trajectories that succeed.

    trajclust run clue/table1 --preset cpu

The paper's tasks, AntMaze and Adroit, need D4RL's files, which do not come with the package; what is run is a maze of
our own. `trajclust train FILE --relabel clue --expert success:1` trains on users' files.
"""

from trajclust_experiments.cells.cell import Cell
from trajclust_experiments.papers.clue import (
    MAZE,
    ROWS,
    WAYS,
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

DATASET = "pointmaze"
METHODS = (
    *("bc", "bc_expert_10", "iql", "indicator_10", "otr_10", "clue_1", "clue_10"),
    *("uncalibrated_10", "means_10"),
)
# IQL, OTR and CLUE: of Table 1 (K = 1), Table 2 (K = 1), and Table 5 (a tenth of the data; K = 1 and K = 10).
_ANTMAZE = {
    "umaze": ("88.7", "81.6 ± 7.3", "92.1 ± 3.9"),
    "umaze-diverse": ("67.5", "70.4 ± 8.9", "68.0 ± 11.2"),
    "medium-play": ("72.9", "73.9 ± 6.0", "75.3 ± 6.3"),
    "medium-diverse": ("72.1", "72.5 ± 6.9", "74.6 ± 7.5"),
    "large-play": ("43.2", "49.7 ± 6.9", "55.8 ± 7.7"),
    "large-diverse": ("46.9", "48.1 ± 7.9", "49.9 ± 6.9"),
}
_ADROIT = {
    "door-cloned": ("1.6", "0.01 ± 0.01", "0.02 ± 0.01"),
    "door-human": ("4.3", "5.9 ± 2.7", "7.7 ± 3.9"),
    "hammer-cloned": ("2.1", "0.9 ± 0.3", "1.4 ± 1.0"),
    "hammer-human": ("1.4", "1.8 ± 1.4", "1.9 ± 1.2"),
    "pen-cloned": ("37.3", "46.9 ± 20.9", "59.4 ± 21.1"),
    "pen-human": ("71.5", "66.8 ± 21.2", "82.9 ± 20.2"),
    "relocate-cloned": ("-0.2", "-0.24 ± 0.03", "-0.23 ± 0.02"),
    "relocate-human": ("0.1", "0.1 ± 0.1", "0.2 ± 0.3"),
}
_TENTH = {
    "umaze": ("73.7 ± 7.6", "71.4 ± 8.5", "75.4 ± 6.1", "75.1 ± 8.3", "82.5 ± 5.1"),
    "umaze-diverse": ("21.6 ± 9.8", "33.0 ± 8.5", "45.4 ± 10.4", "30.8 ± 13.5 (K = 2)", "58.6 ± 9.5 (K = 2)"),
    "medium-play": ("23.0 ± 8.9", "38.7 ± 11.1", "30.5 ± 13.9", "37.3 ± 10.0", "36.6 ± 12.7"),
    "medium-diverse": ("54.9 ± 7.8", "60.9 ± 8.7", "64.4 ± 8.9", "59.2 ± 9.2", "57.8 ± 8.6"),
    "large-play": ("5.8 ± 3.8", "15.0 ± 8.4", "12.0 ± 6.5", "13.9 ± 5.8", "29.4 ± 8.4"),
    "large-diverse": ("7.0 ± 3.6", "3.3 ± 3.6", "0.9 ± 1.5", "9.0 ± 5.9", "9.7 ± 4.5"),
}
_PLACES = (("iql", None), ("otr", 1), ("clue", 1), ("otr", 10), ("clue", 10))


def _quoted(of: str, numbers: dict[str, tuple[str, ...]]) -> list[Row]:
    return [
        Row(None, f"{of} {task} (not here)", *place, value)
        for task, values in numbers.items()
        for place, value in zip(_PLACES, values, strict=False)
    ]


def cells(preset: Preset, datasets, methods, seeds) -> list[Cell]:
    """A cell a way and number of successful trajectories."""
    return learned_cells(preset, datasets, methods, seeds, "success")


def render(records: Records):
    found = {(way_of(r), number_of_experts(r)): r for r in records}
    order = list(WAYS)
    places = sorted(found, key=lambda place: (order.index(place[0]), place[1] or 0))
    rows = [Row(found[place], DATASET, *place) for place in places]
    rows += [*_quoted("AntMaze", _ANTMAZE), *_quoted("Adroit", _ADROIT), *_quoted("a tenth of AntMaze", _TENTH)]
    notes = [
        *provenance(records),
        "Score: of the maze the episodes that arrive, in percent, of 10 a seed without the policies' noise.",
        "AUC: a step (trajectory) of trajectories that arrive is rewarded more than another one.",
        "Ours: CLUE has the c, of 1 to 10, whose rewards spread trajectories most.",
        "Rows that are not run need D4RL's AntMaze and Adroit files. Table 1's numbers of CLUE are mostly those of "
        "the best c of Table 6.",
        *(
            line
            for other in ("iql", "otr", "uncalibrated", "bc_expert")
            for line in against(records, "clue", other, 10)
        ),
    ]
    text = columns.table("CLUE paper, Tables 1, 2 and 5: sparse rewards", ROWS, rows, notes)
    return text, {"arrived": bars([found[place] for place in places], "episodes that arrive, %")}


TABLE = Table(
    name="clue/table1",
    summary="sparse rewards replaced by CLUE's: a maze of ours; published numbers of AntMaze and Adroit",
    datasets=(DATASET,),
    methods=METHODS,
    presets=MAZE,
    cells=cells,
    render=render,
    holds=("clue/table2", "clue/table5"),
)
