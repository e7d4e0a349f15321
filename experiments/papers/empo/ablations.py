"""EMPO on the navigation task without each of its parts, and as its equations are printed.

    trajclust run empo/ablations --preset cpu

- Eq. 14 minimised, as it is printed; tau_Q and N_Q as printed, too slow for episodes of 750 steps.
- No improvement: the learned behaviours themselves act. In minibatches, each epoch a pass, as Figure 4 has them.
- Any cluster everywhere: of EMPO's own policies, acting without the classifier.
"""

from typing import Any, NamedTuple

import numpy as np

from trajclust_experiments.cells.cell import Cell
from trajclust_experiments.papers.empo import PRESETS, PRINTED, navigation_cell, route_counts
from trajclust_experiments.rendering import columns
from trajclust_experiments.rendering.columns import Column
from trajclust_experiments.rendering.intervals import interval_column
from trajclust_experiments.rendering.markdown import provenance, spread
from trajclust_experiments.tables import Preset, Records, Table

FEWER = 4  # seeds of what is not the whole method
VARIANTS: dict[str, dict[str, Any]] = {
    "EMPO": {},
    "Eq. 14 as printed": {"printed_sign": True},
    "tau_Q and N_Q as printed": {"target_rate": 0.005, "critic_updates": PRINTED["critic_updates"]},
    "improved in minibatches": {"full_batch": False},
    "hardly improved (one epoch)": {"epochs": 1},
}


def cells(preset: Preset, datasets, methods, seeds) -> list[Cell]:
    """A cell a variant; the whole method is Table 1's, and the others have fewer seeds."""
    return [
        navigation_cell(preset, method, seeds[:FEWER] if variant else seeds, dataset, **variant)
        for dataset in datasets
        for method in methods
        for variant in _variants(preset)
    ]


def _variants(preset: Preset) -> list[dict[str, Any]]:
    if preset is not PRESETS["smoke"]:
        return list(VARIANTS.values())
    return [{**each, **({"critic_updates": 200} if "critic_updates" in each else {})} for each in VARIANTS.values()]


class _Line(NamedTuple):
    record: dict[str, Any]
    name: str
    returns: np.ndarray  # [S]
    routes: str


def _lines(records: Records) -> list[_Line]:
    found: dict[str, dict[str, Any]] = {}
    for record in records:
        found[_name(record["config"]["learner"])] = record
    lines = []
    for name in VARIANTS:
        if name not in found:
            continue
        record = found[name]
        routes = ", ".join(f"{count} {route}" for route, count in route_counts(record).items() if count)
        lines.append(_Line(record, name, np.array(record["scores"]["return"]), routes))
        if name == "EMPO":
            free = np.array(record["scores"]["unrestricted_return"])
            lines.append(_Line(record, "any cluster everywhere", free, "-"))
    return lines


def _name(settings: dict[str, Any]) -> str:
    """The variant with these settings of the learner."""
    fitting = [
        name for name, variant in VARIANTS.items() if variant and _has(settings, variant, ignoring="critic_updates")
    ]
    return fitting[0] if fitting else "EMPO"


def _has(settings: dict[str, Any], variant: dict[str, Any], ignoring: str) -> bool:
    return all(settings[name] == value for name, value in variant.items() if name != ignoring)


COLUMNS = [
    Column("variant", lambda line: line.name),
    Column("return", lambda line: spread(line.returns, 0)),
    interval_column(lambda line: line.returns, 0),
    Column("lowest seed", lambda line: f"{line.returns.min():.0f}"),
    Column("routes", lambda line: line.routes),
    Column("bias of Q", lambda line: spread(line.record["scores"]["bias"], 1)),
    columns.num_seeds(),
]


def render(records: Records):
    notes = [*provenance(records), "As Table 1; bias of Q: its mean distance from the sample returns, unscaled."]
    return columns.table("EMPO without its parts", COLUMNS, _lines(records), notes), {}


TABLE = Table(
    name="empo/ablations",
    summary="EMPO on the navigation task without each of its parts",
    datasets=("navigation",),
    methods=("empo",),
    presets=PRESETS,
    cells=cells,
    render=render,
)
