"""Table 3 of the CLUE paper: imitation of 1, 5 and 10 expert trajectories on locomotion, by CLUE and OTR.

    trajclust run clue/table3 --preset cpu --datasets hopper-medium-expert --methods iql clue otr

The expert's trajectories are no part of the data, whose rewards are not read but by IQL. Beside the paper's ways those
that say what its rewards are worth: 1 on the expert's steps alone, 1 everywhere, means in place of draws of z, the
temperature that spreads trajectories most, the expectation over draws, and these with returns whose range is 60 in
place of 1,000.
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

KS = (1, 5, 10)
_TASKS = ("halfcheetah", "hopper", "walker2d")
DATASETS = (
    *(f"{task}-medium-expert" for task in _TASKS),
    *(f"{task}-medium-replay" for task in _TASKS),
    *(f"{task}-medium" for task in _TASKS),
    "ant-medium-expert",
)
METHODS = (
    "iql",
    *(f"{way}_{k}" for way in ("otr", "clue") for k in KS),
    *("means_1", "spread_1", "expected_1", "scaled_1", "indicator_1", "constant_1"),
)
# IQL; OTR with K = 1, 5, 10; CLUE with K = 1, 5, 10: mean and std.
_PAPER = {
    "halfcheetah-medium": (47.4, 0.2, 43.3, 0.2, 43.3, 0.2, 43.1, 0.3, 45.6, 0.3, 45.2, 0.2, 45.7, 0.2),
    "halfcheetah-medium-replay": (44.2, 1.2, 41.3, 0.6, 41.9, 0.3, 41.6, 0.3, 43.5, 0.5, 43.2, 0.4, 43.2, 0.5),
    "halfcheetah-medium-expert": (86.7, 5.3, 89.6, 3.0, 89.9, 1.9, 87.9, 3.4, 90.0, 2.4, 91.9, 1.4, 91.0, 2.5),
    "hopper-medium": (66.2, 5.7, 78.7, 5.5, 79.5, 5.3, 80.0, 5.2, 78.3, 5.4, 79.1, 3.5, 79.9, 6.0),
    "hopper-medium-replay": (94.7, 8.6, 84.8, 2.6, 85.4, 1.7, 84.4, 1.8, 94.3, 6.0, 93.3, 4.5, 93.7, 4.1),
    "hopper-medium-expert": (91.5, 14.3, 93.2, 20.6, 90.4, 21.5, 96.6, 21.5, 96.5, 14.7, 104.0, 5.4, 102.3, 7.7),
    "walker2d-medium": (78.3, 8.7, 79.4, 1.4, 79.8, 1.4, 79.2, 1.3, 80.7, 1.5, 79.6, 0.7, 81.7, 1.2),
    "walker2d-medium-replay": (73.8, 7.1, 66.0, 6.7, 71.0, 5.0, 71.8, 3.8, 76.3, 2.8, 75.1, 1.3, 75.3, 4.6),
    "walker2d-medium-expert": (109.6, 1.0, 109.3, 0.8, 109.4, 0.4, 109.6, 0.5, 109.3, 2.1, 109.9, 0.3, 110.7, 0.2),
}
_PLACES = [("iql", None), *((way, k) for way in ("otr", "clue") for k in KS)]
PUBLISHED = {
    (dataset, *place): f"{values[2 * i]} ± {values[2 * i + 1]}"
    for dataset, values in _PAPER.items()
    for i, place in enumerate(_PLACES)
}


def cells(preset: Preset, datasets, methods, seeds) -> list[Cell]:
    """A cell a dataset, way and number of expert trajectories."""
    return learned_cells(preset, datasets, methods, seeds, "demonstrations")


def render(records: Records):
    found = {(r["cell"]["dataset"], way_of(r), number_of_experts(r)): r for r in records}
    places = [(d, *place) for d in dict.fromkeys((*DATASETS, *_PAPER)) for place in _order(d, found)]
    rows = [Row(found.get(place), *place, PUBLISHED.get(place, "-")) for place in places]
    notes = [
        *provenance(records),
        SCORES,
        "AUC: a step (trajectory) of the data's better policy is rewarded more than another one; rank correlation: "
        "of returns by the new rewards with true ones.",
        "Paper: D4RL's data, a million gradient steps; our medium-replay are a mixture of medium and what was before "
        "it. trajclust train FILE --relabel clue --expert FILE does it on users' own.",
        *(line for other in ("iql", "otr", "constant") for line in against(records, "clue", other)),
    ]
    shown = [found[place] for place in places if place in found]
    text = columns.table("CLUE paper, Table 3: imitation on locomotion", ROWS, rows, notes)
    return text, {"scores": bars(shown, "normalised score")}


def _order(dataset: str, found: dict) -> list[tuple[str, int | None]]:
    """The published places of a dataset, and after them what else was run."""
    more = [place[1:] for place in found if place[0] == dataset and place[1:] not in _PLACES]
    published = _PLACES if dataset in _PAPER else [place[1:] for place in found if place[0] == dataset]
    return list(dict.fromkeys([*published, *more]))


TABLE = Table(
    name="clue/table3",
    summary="imitation of a few expert trajectories on locomotion: CLUE, OTR, IQL on true rewards",
    datasets=DATASETS,
    methods=METHODS,
    presets=IMITATION,
    cells=cells,
    render=render,
)
