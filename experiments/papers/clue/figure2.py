"""Figures 2 and 7 of the CLUE paper, in numbers: latents with and without calibration, rewards against true ones.

    trajclust run clue/figure2 --preset cpu --datasets hopper

Minutes instead of hours: whether rewards tell the expert's policy from another one is known before any learner is
trained. Labels and true rewards judge; no relabeller sees them.
"""

from typing import Any, NamedTuple

import numpy as np

from trajclust_experiments.catalogue import title
from trajclust_experiments.cells.cell import Cell
from trajclust_experiments.papers.clue import IMITATION, reward_cell, temperature_of
from trajclust_experiments.rendering import columns
from trajclust_experiments.rendering.columns import Column
from trajclust_experiments.rendering.figures import captioned, new_figure
from trajclust_experiments.rendering.markdown import provenance, spread
from trajclust_experiments.tables import Preset, Records, Table
from trajclust_jax.lazy import lazy
from trajclust_jax.metrics import rank_correlation

plotting = lazy("trajclust_envs.plotting")

DATASETS = tuple(f"{task}-medium-expert" for task in ("halfcheetah", "hopper", "walker2d", "ant"))
METHODS = ("clue", "clue_expected", "clue_uncalibrated", "oril", "otr")
SEEDS = 10
PRESETS = {
    "smoke": IMITATION["smoke"],
    "cpu": Preset(
        "an hour on one core: 50 trajectories a policy, the paper's settings, 10 seeds", 50, SEEDS, long_size=50
    ),
    "paper": Preset("1,000 trajectories a policy, 10 seeds", 1000, SEEDS, long_size=1000),
}


def cells(preset: Preset, datasets, methods, seeds) -> list[Cell]:
    """A cell a dataset and relabeller, one demonstration each."""
    return [reward_cell(preset, d, method, seeds, "demonstrations:1") for d in datasets for method in methods]


class _Line(NamedTuple):
    record: dict[str, Any]
    title: str
    judged: dict[str, Any]
    c: float | None = None


SMALLEST = "1"  # of the values of c that a record has: the expected rewards' own


def _lines(records: Records) -> list[_Line]:
    lines = []
    for record in records:
        name, c = title(record["cell"]["method"]), temperature_of(record)
        lines.append(_Line(record, name, record["scores"], c))
        if record["cell"]["method"] == "clue":
            lines.append(_Line(record, name, record["temperatures"][SMALLEST], float(SMALLEST)))
        if "means" in record:
            lines.append(_Line(record, f"{name}, means of z", record["means"], c))
    return lines


def _value(name: str, digits: int = 2):
    def text(line: _Line) -> str:
        values = [value for value in line.judged.get(name, []) if value is not None]
        return spread(values, digits) if values else "-"

    return text


COLUMNS = [
    columns.task(),
    Column("rewards", lambda line: line.title),
    Column("c", lambda line: "" if line.c is None else f"{line.c:g}"),
    Column("AUC of steps", _value("auc")),
    Column("AUC of trajectories", _value("trajectory_auc")),
    Column("rank correlation, returns", _value("rank_correlation")),
    Column("rank correlation, mean rewards", _value("mean_rank_correlation")),
    Column("correlation step by step", _value("step_correlation")),
    Column("rank correlation step by step", _value("step_rank_correlation")),
    Column("mean", _value("mean", 3)),
    Column("std", _value("std", 3)),
    columns.num_seeds(),
    columns.seconds("seconds, all seeds (compile + run)", "compile", "run"),
]


def render(records: Records):
    notes = [
        *provenance(records),
        "AUC: a step (trajectory) of the better policy is rewarded more than another one's, by one demonstration that "
        "is no part of the data. Rank correlations: of trajectories' summed or mean rewards with true returns.",
        *_calibration_pays(records),
        *_temperatures(records),
        *_within_policies(records),
    ]
    text = columns.table("CLUE's rewards before any learner: Figures 2 and 7", COLUMNS, _lines(records), notes)
    drawn = [record for record in records if "latents" in record]
    figures = {"latents": _latents(drawn)} if drawn else {}
    by_c = [record for record in records if record["cell"]["method"] == "clue"]
    figures |= {"temperatures": _against_c(by_c)} if by_c else {}
    kept = [record for record in records if "steps" in record]
    return text, figures | ({"rewards": _against_true(kept)} if kept else {})


def _calibration_pays(records: Records) -> list[str]:
    found = {(record["cell"]["dataset"], record["cell"]["method"]): record for record in records}
    lines = []
    for dataset, method in found:
        other = found.get((dataset, "clue_uncalibrated"))
        if method == "clue" and other is not None:
            ours, theirs = (np.mean(each["scores"]["auc"]) for each in (found[dataset, method], other))
            where = columns.dataset_title(dataset)
            lines.append(f"{where}: the calibration adds {ours - theirs:+.2f} to the AUC of steps by draws of z.")
    return lines


def _within_policies(records: Records) -> list[str]:
    """How rewards follow true ones among one policy's steps, where they cannot tell whose a step is."""
    by_dataset: dict[str, list[str]] = {}
    for record in records:
        if "steps" in record and record["cell"]["method"] in ("clue", "clue_expected", "oril", "otr"):
            true, new, groups = (np.array(record["steps"][name]) for name in ("true", "new", "groups"))
            found = [rank_correlation(new[groups == k], true[groups == k]) for k in range(groups.max() + 1)]
            told = " and ".join(f"{each:.2f}" for each in found)
            by_dataset.setdefault(record["cell"]["dataset"], []).append(f"{title(record['cell']['method'])} {told}")
    return [
        f"{columns.dataset_title(dataset)}: rank correlations step by step within each policy (of the steps drawn, "
        f"first seed): {'; '.join(told)}."
        for dataset, told in by_dataset.items()
    ]


def _temperatures(records: Records) -> list[str]:
    """The c that spreads trajectories most, beside the one whose rewards order them best."""
    lines = []
    for record in records:
        if record["cell"]["method"] != "clue":
            continue
        by_c = record["temperatures"]
        mean = lambda name, by_c=by_c: {c: np.mean([x or 0 for x in each[name]]) for c, each in by_c.items()}
        spreads, orders = mean("spread"), mean("rank_correlation")
        chosen, best = max(spreads, key=spreads.get), max(orders, key=orders.get)
        where = columns.dataset_title(record["cell"]["dataset"])
        lines.append(
            f"{where}: c = {chosen} spreads trajectories most, with rank correlation {orders[chosen]:.2f} of returns; "
            f"best in hindsight c = {best} with {orders[best]:.2f}."
        )
    return lines


def _against_c(records: Records):
    """A panel a score of the rewards, a line a dataset: against c."""
    shown = {
        "trajectory_auc": "AUC of trajectories",
        "rank_correlation": "rank correlation, returns",
        "step_correlation": "correlation step by step",
        "spread": "spread over trajectories",
    }
    figure = new_figure(2.6 * len(shown), 2.6)
    for ax, (name, label) in zip(figure.subplots(1, len(shown)), shown.items(), strict=True):
        for color, record in zip(plotting.PALETTE, records, strict=False):
            by_c = record["temperatures"]
            means = [np.mean([np.nan if x is None else x for x in each[name]]) for each in by_c.values()]
            where = columns.dataset_title(record["cell"]["dataset"])
            ax.plot([float(c) for c in by_c], means, "o-", ms=2, lw=1, color=color, label=where)
        ax.set_title(label, fontsize=8)
        ax.set_xlabel("c", fontsize=7)
        ax.tick_params(labelsize=6)
    figure.axes[0].legend(fontsize=6)
    return captioned(figure, "Rewards by draws of z, judged by labels and true rewards, against c: means over seeds.")


def _against_true(records: Records):
    """Figure 7: a row a dataset, a panel a relabeller; a dot a step, its true reward across, the new one up."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        rows.setdefault(record["cell"]["dataset"], []).append(record)
    width = max(map(len, rows.values()))
    figure = new_figure(2.1 * width, 2.2 * len(rows))
    for row, (dataset, own) in enumerate(rows.items()):
        for column, record in enumerate(own):
            ax = figure.add_subplot(len(rows), width, row * width + column + 1)
            steps = {name: np.array(record["steps"][name]) for name in ("true", "new", "groups")}
            for k, name in enumerate(record["steps"]["names"]):
                of_policy = steps["groups"] == k
                places = (steps["true"][of_policy], steps["new"][of_policy])
                ax.plot(*places, ".", ms=1.2, color=plotting.PALETTE[k % len(plotting.PALETTE)], label=name)
            correlation = _value("step_rank_correlation")(_Line(record, "", record["scores"]))
            ax.set_title(f"{title(record['cell']['method'])}\nrank correlation {correlation}", fontsize=6)
            ax.tick_params(labelsize=5)
            ax.yaxis.get_offset_text().set_fontsize(5)
            if column == 0:
                ax.set_ylabel(f"{columns.dataset_title(dataset)}\nnew reward", fontsize=6)
            if row == len(rows) - 1:
                ax.set_xlabel("true reward", fontsize=6)
    figure.axes[0].legend(fontsize=5, markerscale=3)
    return captioned(
        figure, "Rewards of steps against true ones: some steps of the first seed; rank correlations over all steps."
    )


def _latents(records: Records):
    """A panel a dataset and relabeller: latent means on two principal axes, the expert's mean as a cross."""
    per_row = 4
    rows = -(-len(records) // per_row)
    figure = new_figure(2.6 * min(per_row, len(records)), 2.8 * rows)
    for place, record in enumerate(records):
        ax = figure.add_subplot(rows, min(per_row, len(records)), place + 1)
        points, groups = (np.array(record["latents"][name]) for name in ("points", "groups"))
        for k, name in enumerate(record["latents"]["names"]):
            own = points[groups == k]
            color = "black" if k == groups.max() else plotting.PALETTE[k]
            ax.plot(*own.T, ".", ms=1.5, color=color, label=name)
        ax.plot(*record["latents"]["centre"], "x", color="black", ms=8)
        where, name = columns.dataset_title(record["cell"]["dataset"]), title(record["cell"]["method"])
        ax.set_title(f"{where}, {name}", fontsize=7)
        ax.tick_params(labelsize=5)
        if place == 0:
            ax.legend(fontsize=5, markerscale=3)
    caption = (
        "Latents of transitions on their two principal axes, by the policy that made them; a cross at "
        "the mean of the expert's."
    )
    return captioned(figure, caption)


TABLE = Table(
    name="clue/figure2",
    summary="CLUE's latents, and rewards judged before any learner is trained",
    datasets=DATASETS,
    methods=METHODS,
    presets=PRESETS,
    cells=cells,
    render=render,
    holds=("clue/figure7",),
)
