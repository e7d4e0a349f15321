"""Table 13 of the C^4 paper: the share of the training's time that clusterings take; and what the penalty costs.

    trajclust run c4/table13 --preset cpu --datasets hopper-medium-expert --methods td3_bc

Gradient steps without and with the plug-in, and clusterings, are measured in one run.
"""

import dataclasses

from trajclust_experiments.cells.cell import Cell
from trajclust_experiments.cells.cost import CostCell
from trajclust_experiments.papers import c4
from trajclust_experiments.rendering import columns
from trajclust_experiments.rendering.columns import Column, Entry
from trajclust_experiments.rendering.markdown import provenance
from trajclust_experiments.tables import Preset, Records, Table

SIZES = (1_000, 10_000, 0)  # transitions; 0: all, about a million, of MANY trajectories a policy
MANY = 1_000
# By task, of about a thousand and about a million transitions.
PUBLISHED = {
    "ant": (0.010, 0.187),
    "halfcheetah": (0.009, 0.153),
    "hopper": (0.012, 0.144),
    "walker2d": (0.012, 0.138),
}


def cells(preset: Preset, datasets, methods, seeds) -> list[Cell]:
    """A cell a dataset, learner and size."""
    chosen: list[Cell] = []
    for dataset in datasets:
        for method in methods:
            for size in SIZES:
                cell = c4.of_kind(CostCell, c4.variant_cell(preset, dataset, method, seeds[:1], size))
                large = size == 0 and preset is not c4.PRESETS["smoke"]
                chosen.append(dataclasses.replace(cell, size=MANY) if large else cell)
    return chosen


def _published(entry: Entry) -> str:
    thousand, million = PUBLISHED[entry.record["cell"]["dataset"].partition("-")[0]]
    return f"{thousand:.1%} at 1,000, {million:.1%} at a million"


def _score(name: str, shown: str, times: float = 1.0):
    return lambda entry: format(times * entry.record["scores"][name][0], shown)


COLUMNS = [
    columns.task(),
    columns.method("learner", lambda entry: c4.title_of(entry.record)),
    Column("transitions", lambda entry: f"{entry.record['transitions']:,}"),
    Column("ms a gradient step, base", _score("base_seconds", ".2f", 1e3)),
    Column("with C^4", _score("update_seconds", ".2f", 1e3)),
    Column("times the base's", _score("times_base", ".2f")),
    Column("ms a clustering", _score("clustering_seconds", ".1f", 1e3)),
    Column("share of the training", _score("share", ".1%")),
    Column("paper", _published),
]


def render(records: Records):
    place = lambda entry: (entry.record["cell"]["dataset"], entry.record["cell"]["method"], entry.record["transitions"])
    notes = [
        *provenance(records),
        "The least of 20 measurements, taken in turn; a clustering every 200 gradient steps.",
    ]
    shown = sorted(map(Entry, records), key=place)
    return columns.table("C^4 paper, Table 13: the cost of clustering", COLUMNS, shown, notes), {}


TABLE = Table(
    name="c4/table13",
    summary="the share of time that clusterings take, and what the penalty costs",
    datasets=c4.DATASETS,
    methods=("td3_bc_c4", "cql_c4"),
    presets=c4.PRESETS,
    cells=cells,
    render=render,
)
