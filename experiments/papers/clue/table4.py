"""Table 4 of the CLUE paper: CLUE beside other offline imitation, with 1 and 10 expert trajectories.

    trajclust run clue/table4 --preset cpu --datasets hopper-medium-expert --methods clue_1 sqil_1 oril_1 bc_expert_1

SQIL and ORIL are on TD3+BC, as in the paper; IQ-Learn and the DICE family are quoted, not built.
"""

from trajclust_experiments.cells.cell import Cell
from trajclust_experiments.papers.clue import (
    IMITATION,
    ROWS,
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

DATASETS = tuple(f"{task}-medium-expert" for task in ("halfcheetah", "hopper", "walker2d"))
METHODS = tuple(f"{way}_{k}" for way in ("sqil", "oril", "bc_expert", "clue") for k in (1, 10))
_NAMES = ("sqil", "IQ-Learn", "oril", "ValueDICE", "DemoDICE", "SMODICE", "clue")
_PAPER = {
    1: {
        "halfcheetah-medium-expert": (6.7, 2.0, 48.7, 1.0, 66.2, 80.9, 90.0),
        "hopper-medium-expert": (13.6, 9.1, 25.1, 27.3, 103.7, 82.4, 96.5),
        "walker2d-medium-expert": (18.8, 7.7, 11.6, 37.3, 87.3, 94.8, 109.3),
    },
    10: {
        "halfcheetah-medium-expert": (11.4, 2.9, 46.6, 25.2, 67.1, 89.4, 91.0),
        "hopper-medium-expert": (19.6, 19.3, 18.9, 28.4, 96.9, 89.3, 102.3),
        "walker2d-medium-expert": (12.5, 24.5, 6.5, 40.1, 103.5, 107.5, 110.7),
    },
}
PUBLISHED = {
    (dataset, name, k): f"{value}"
    for k, rows in _PAPER.items()
    for dataset, values in rows.items()
    for name, value in zip(_NAMES, values, strict=True)
}


def cells(preset: Preset, datasets, methods, seeds) -> list[Cell]:
    """A cell a dataset, way and number of expert trajectories."""
    return learned_cells(preset, datasets, methods, seeds, "demonstrations")


def render(records: Records):
    found = {(r["cell"]["dataset"], way_of(r), number_of_experts(r)): r for r in records}
    names = dict.fromkeys((*_NAMES, "bc_expert"))
    places = [(dataset, name, k) for dataset in DATASETS for k in (1, 10) for name in names]
    rows = [
        Row(found.get(place), *place, PUBLISHED.get(place, "-"))
        for place in places
        if place in found or place in PUBLISHED
    ]
    notes = [
        *provenance(records),
        "Scores as in Table 3. The paper's are means, on D4RL's data with a million gradient steps; its rows of medium "
        "and medium-replay data are left out here.",
        *(
            f"K = {k}, {line}"
            for k in (1, 10)
            for other in ("bc_expert", "sqil", "oril")
            for line in against(records, "clue", other, k)
        ),
    ]
    shown = [found[place] for place in places if place in found]
    text = columns.table("CLUE paper, Table 4: offline imitation", ROWS, rows, notes)
    return text, {"scores": bars(shown, "normalised score")}


TABLE = Table(
    name="clue/table4",
    summary="CLUE beside SQIL, ORIL and cloning of the expert; published numbers of the DICE family",
    datasets=DATASETS,
    methods=METHODS,
    presets=IMITATION,
    cells=cells,
    render=render,
)
