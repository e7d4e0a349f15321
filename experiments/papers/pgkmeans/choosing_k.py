"""Choosing K without labels (not in the paper): two criteria over a range of K, beside the true k*.

    trajclust run pgkmeans/choosing-k --preset cpu

PG-Kmeans runs for every K in one program; `clustering.model_selection` states the criteria and their reasons. The
permuted Takeball and 20 trajectories a policy show where they fail. MuJoCo's rows are what `trajclust cluster --k auto`
does.
"""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from trajclust_experiments.catalogue import CATALOGUE, CHOICE_OF_K
from trajclust_experiments.cells.cell import Cell
from trajclust_experiments.papers import pgkmeans
from trajclust_experiments.rendering import columns
from trajclust_experiments.rendering.columns import Column
from trajclust_experiments.rendering.figures import captioned, panels
from trajclust_experiments.rendering.markdown import provenance
from trajclust_experiments.tables import Preset, Records, Table
from trajclust_jax.data import REGISTRY
from trajclust_jax.lazy import lazy

plotting = lazy("trajclust_envs.plotting")

CRITERIA = {"held_out": "held-out", "integrated": "integrated"}
POLICIES = {"tabular": "tables", "mlp": "MLPs"}
SMALL = 20  # trajectories a policy of the rows with little data
COUNTS = tuple(range(1, 11))  # K, where networks are the policies
PRESETS = {
    name: dataclasses.replace(
        preset, settings={"choose_k": {"restarts": 2, "counts": (2, 3)}} if name == "smoke" else {}
    )
    for name, preset in pgkmeans.PRESETS.items()
}


def cells(preset: Preset, datasets, methods, seeds) -> list[Cell]:
    """One cell a dataset at the preset's size, and one with little data where data are discrete."""
    found = []
    for dataset in datasets:
        sizes, settings = sorted({min(SMALL, preset.size), preset.size}), {}
        if REGISTRY[dataset].long:
            sizes, networks = [preset.size], {"policy": "mlp", **CATALOGUE["pg_kmeans_mlp"].long_settings()}
            settings = {**networks, "counts": COUNTS, **CHOICE_OF_K, **preset.settings.get("choose_k", {})}
        for size in sizes:
            sized = dataclasses.replace(preset, size=size)
            found += pgkmeans.cells(sized, [dataset], methods, seeds, **settings)
    return [cell for cell in found if cell.method in methods]


class _Line(NamedTuple):
    record: dict[str, Any]
    criterion: str

    @property
    def true(self) -> int:
        """k*."""
        return REGISTRY[self.record["cell"]["dataset"]].num_policies

    @property
    def chosen(self) -> list[int]:
        """K, by seed."""
        return self.record["selection"]["chosen"][self.criterion]


def _at_true(line: _Line) -> str:
    counts = line.record["selection"]["counts"]
    if line.true not in counts:
        return "-"
    return f"{np.mean(np.array(line.record['scores']['nmi'])[:, counts.index(line.true)]):.3f}"


COLUMNS = [
    columns.task(),
    Column("trajectories a policy", lambda line: f"{line.record['cell']['size']:,}"),
    Column("policies", lambda line: POLICIES[line.record["cell"]["hyperparameters"]["policy"]]),
    Column("criterion", lambda line: CRITERIA[line.criterion]),
    Column("true k*", lambda line: str(line.true)),
    Column("chosen, by seed", lambda line: ", ".join(map(str, line.chosen))),
    Column("right", lambda line: f"{sum(k == line.true for k in line.chosen)} of {len(line.chosen)}"),
    Column("NMI at k*", _at_true),
    columns.seconds("seconds (compile + run), all K and seeds", "compile", "run"),
]


def render(records: Records):
    shown = [record for record in records if "selection" in record]
    place = lambda cell: (REGISTRY[cell["dataset"]].long, cell["dataset"], cell["size"])
    shown.sort(key=lambda record: place(record["cell"]))
    largest = {record["cell"]["dataset"]: record for record in shown}
    figure, axes = panels(largest, 3.0)
    for ax, (dataset, record) in zip(axes, largest.items(), strict=True):
        selection = record["selection"]
        first = 0 if 1 in selection["counts"] else selection["counts"].index(3)  # the least K that must be seen
        means = []
        for color, (name, title) in zip(plotting.PALETTE, CRITERIA.items(), strict=False):
            if name not in selection["chosen"]:
                continue
            values = np.array(selection[name])
            means.append(values.mean(0))
            spread = (values - values.mean(1, keepdims=True)).std(0)  # each seed holds out others, hard or easy ones
            ax.errorbar(selection["counts"], means[-1], spread, color=color, marker="o", ms=3, label=title)
        ax.axvline(REGISTRY[dataset].num_policies, color="black", lw=1, ls=":", label="true k*")
        top, low = np.max(means), np.min([each[first:] for each in means])
        ax.set(xlabel="K", ylim=(low - 0.1 * (top - low), top + 0.1 * (top - low)))
        ax.legend(fontsize=6)
    axes[0].set_ylabel("nats a step")
    notes = [
        *provenance(shown),
        "The K chosen is the number of clusters that the chosen run uses: the run with the highest criterion; by the "
        "held-out one, of those within one standard error of the highest the one that uses fewest.",
        "Each seed holds out its own fifth of the trajectories.",
    ]
    lines = [_Line(record, name) for record in shown for name in CRITERIA if name in record["selection"]["chosen"]]
    caption = (
        "What is computed without labels to choose K, against K: means over seeds, and standard deviations of the "
        "difference to each seed's own mean over K; dotted: the true k*."
    )
    return columns.table("Choosing K without labels", COLUMNS, lines, notes), {"criteria": captioned(figure, caption)}


TABLE = Table(
    name="pgkmeans/choosing-k",
    summary="K chosen without labels, beside the true k*",
    datasets=(
        *("diagonal", "takeball", "takeball-permuted"),
        *("halfcheetah-medium-expert", "ant-medium-expert", "walker2d-medium-expert", "hopper-medium-expert"),
    ),
    methods=("choose_k",),
    presets=PRESETS,
    cells=cells,
    render=render,
)
