"""What the CLUE paper's tables share: whose rewards which learner learns from, cells, rows, published numbers.

Liu, Zu, He and Wang, "CLUE: Calibrated Latent Guidance for Offline Reinforcement Learning".
"""

import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from trajclust_experiments.catalogue import CATALOGUE, entries
from trajclust_experiments.cells.cell import Cell
from trajclust_experiments.cells.evaluation import normaliser
from trajclust_experiments.cells.learners import LearnerCell
from trajclust_experiments.cells.relabelling import RelabelledCell, RewardCell
from trajclust_experiments.presets import LEARNING
from trajclust_experiments.rendering import columns
from trajclust_experiments.rendering.columns import Column
from trajclust_experiments.rendering.figures import captioned, panels
from trajclust_experiments.rendering.intervals import difference_interval, draw_curve, draw_mean, interval_text
from trajclust_experiments.rendering.markdown import provenance, spread
from trajclust_experiments.tables import Preset, Records
from trajclust_jax.data import REGISTRY
from trajclust_jax.lazy import lazy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

plotting = lazy("trajclust_envs.plotting")

TITLE = "CLUE"


class Way(NamedTuple):
    """Whose rewards, and who learns from them."""

    title: str
    relabeller: str | None  # None: the data's own rewards, or the expert's trajectories alone
    learner: str
    on_data: bool = False  # the data's own rewards
    relabelling: Mapping[str, Any] = MappingProxyType({})  # settings of the relabeller, beside the preset's


WAYS = {
    "iql": Way("IQL, true rewards", None, "iql", on_data=True),
    "otr": Way("OTR", "otr", "iql"),
    "clue": Way("CLUE", "clue", "iql"),
    "uncalibrated": Way("CLUE, not calibrated", "clue_uncalibrated", "iql"),
    "means": Way("CLUE, means of z", "clue_mean", "iql"),
    "spread": Way("CLUE, c by the spread", "clue_spread", "iql"),
    "expected": Way("CLUE, expected over z, c = 1", "clue_expected", "iql"),
    "scaled": Way(
        "CLUE, expected over z, c = 1, range 60", "clue_expected", "iql", relabelling={"returns_range": 60.0}
    ),
    "indicator": Way("IQL, 1 on the expert", "indicator", "iql"),
    "constant": Way("IQL, 1 everywhere", "constant", "iql"),
    "sqil": Way("SQIL", "indicator", "sqil"),
    "oril": Way("ORIL", "oril", "td3_bc"),
    "bc": Way("BC on everything", None, "bc", on_data=True),
    "bc_expert": Way("BC on the expert", None, "bc"),
}

_TINY = {"batch_size": 16, "features": (8, 8), "updates": 20, "block": 10}
_TINY_IQL = {"actor_features": (8,), "batch_size": 16, "block": 10, "features": (8,), "updates": 20}
# The maze: antmaze's settings of the CVAE (Table 8) and of IQL (its expectile, r - 1), in smaller networks, fewer steps
# and, of IQL, with a higher learning rate.
_MAZE_IQL = {
    **{"features": (64, 64), "actor_features": (64, 64), "batch_size": 128, "normalise": True},
    **{"expectile": 0.9, "learning_rate": 1e-3, "reward_shift": -1.0},
}
_MAZE_CVAE = {"calibration": 0.8, "learning_rate": 1e-3, "returns_range": None, "temperature": None}
_OF_BC = ("actor_features", "batch_size", "block", "learning_rate", "updates")
_MAZE_OTHERS = {"otr": {"returns_range": None, "alpha": 1.0, "beta": 1.0, "by_size": False}, "indicator": {}}


def _maze(summary: str, size: int, seeds: int, learner: Mapping[str, Any], cvae: Mapping[str, Any]) -> Preset:
    relabellers = {name: dict(cvae) for name in ("clue", "clue_uncalibrated", "clue_mean")}
    cloning = {name: value for name, value in learner.items() if name in _OF_BC}
    settings = {"iql": dict(learner), "bc": cloning, **relabellers, **_MAZE_OTHERS}
    settings["clue_uncalibrated"].pop("calibration")
    return Preset(summary, size=size, long_size=size, seeds=seeds, settings=settings)


MAZE = {
    "smoke": _maze(
        "seconds: does everything run? The numbers mean nothing", 20, 2, _TINY_IQL, _TINY | {"calibration": 0.8}
    ),
    "cpu": _maze(
        "an hour on one core: 200 trajectories a policy, 10,000 gradient steps, 10 seeds",
        *(200, 10, {**_MAZE_IQL, "updates": 10_000}, {**_MAZE_CVAE, "updates": 3_000}),
    ),
    "paper": _maze(
        "1,000 trajectories a policy, a million gradient steps, 10 seeds",
        *(1_000, 10, {**_MAZE_IQL, "updates": 1_000_000}, {**_MAZE_CVAE, "updates": 100_000}),
    ),
}


def _relabelling(preset: Preset, **settings: Mapping[str, Any]) -> Preset:
    return Preset(
        preset.summary,
        size=preset.size,
        long_size=preset.long_size,
        seeds=preset.seeds,
        settings={**preset.settings, **settings},
    )


# Imitation: learners at all learners' scales; a relabeller has its own, which takes a minute.
IMITATION = {
    **LEARNING,
    "smoke": _relabelling(
        LEARNING["smoke"],
        **{name: _TINY for name in entries("relabeller") if name.startswith("clue") or name == "oril"},
    ),
}


def learned_cell(
    preset: Preset, dataset: str, name: str, seeds: Sequence[int], expert: str, **relabelling: Any
) -> LearnerCell:
    """One of `WAYS` on a dataset at a preset's scale, with an expert as `cells.relabelling` has it."""
    way = WAYS[name]
    chosen = lambda given: tuple(sorted(given.items()))
    place = (dataset, preset.long_size, way.learner, tuple(seeds), chosen(preset.settings.get(way.learner, {})))
    if way.on_data and normaliser(REGISTRY[dataset].environment) is not None:
        return LearnerCell(*place)  # which other papers' tables have, too
    if way.on_data:
        return RelabelledCell(*place, relabeller=None, expert="")
    if way.relabeller is None:
        return RelabelledCell(*place, relabeller=None, expert=expert)
    own = {**preset.settings.get(way.relabeller, {}), **way.relabelling, **relabelling}
    return RelabelledCell(*place, relabeller=way.relabeller, relabeller_settings=chosen(own), expert=expert)


def learned_cells(
    preset: Preset, datasets: Sequence[str], methods: Sequence[str], seeds: Sequence[int], experts: str
) -> list[Cell]:
    """A cell a dataset and method: one of `WAYS`, or with a number of `experts` after it (`clue_10`), 1 by default."""
    split = [(method, "", "1") if method in WAYS else method.rpartition("_") for method in methods]
    cell = lambda dataset, way, _, count: learned_cell(preset, dataset, way, seeds, f"{experts}:{count}")
    return [cell(dataset, *each) for dataset in datasets for each in split]


def reward_cell(
    preset: Preset, dataset: str, relabeller: str, seeds: Sequence[int], expert: str, **settings: Any
) -> Cell:
    """What a relabeller's rewards are like."""
    own = tuple(sorted({**preset.settings.get(relabeller, {}), **settings}.items()))
    return RewardCell(dataset, preset.long_size, relabeller, tuple(seeds), relabeller_settings=own, expert=expert)


AMOUNTS = (0.05, 0.1, 0.15, 0.2, 0.25, 1.0)  # shares of a preset's data
LEAST = 5  # trajectories a policy: fewer, and none of the maze's may succeed


def amount_cells(
    preset: Preset, datasets: Sequence[str], methods: Sequence[str], seeds: Sequence[int], experts: str
) -> list[Cell]:
    """The cells of `learned_cells` for each amount of data, which is made for itself and is no part of a larger one."""
    cells: list[Cell] = []
    for size in sorted({max(LEAST, round(share * preset.long_size)) for share in AMOUNTS}):
        cells += learned_cells(dataclasses.replace(preset, long_size=size), datasets, methods, seeds, experts)
    return cells


def way_of(record: Mapping[str, Any]) -> str:
    """One of `WAYS`."""
    cell = record["cell"]
    on_data = not cell.get("expert")
    wanted = (cell.get("relabeller"), cell["method"], on_data)
    same = {name: way for name, way in WAYS.items() if (way.relabeller, way.learner, way.on_data) == wanted}
    given = cell.get("relabeller_settings", {}).items()
    own = (name for name, way in same.items() if way.relabelling.items() <= given)
    return max(own, key=lambda name: len(same[name].relabelling))


def number_of_experts(record: Mapping[str, Any]) -> int | None:
    """K, as the cell was asked for; None without an expert, or for all that succeed."""
    _, _, count = record["cell"].get("expert", "").partition(":")
    return int(count) if count else None


def temperature_of(record: Mapping[str, Any]) -> float | None:
    """c of a record's relabeller; None where the spread chooses it, or there is none."""
    described = record["cell"]
    relabeller = CATALOGUE[described["relabeller"]].build(**described["relabeller_settings"])
    return getattr(relabeller, "temperature", None)


SCORES = (
    "Scores are D4RL-normalised, of 10 episodes a seed without the policies' noise: mean ± std and bootstrap interval "
    "over seeds, after the last gradient step. Every seed learns by a relabelling of its own."
)


class Row(NamedTuple):
    """A line of a table: a record, or a published number of what was not run."""

    record: dict[str, Any] | None
    dataset: str
    way: str
    experts: int | None
    paper: str = "-"


def final(record: Mapping[str, Any]) -> np.ndarray:
    """`[S]`: normalised scores; where there are none, the share of episodes that arrive, in percent."""
    scores = record["scores"]
    return np.array(scores["last_score"]) if "last_score" in scores else 100 * np.array(scores["last_return"])


def _ours(text) -> Any:
    """A column's cell that is empty where nothing was run."""
    return lambda row: "" if row.record is None else text(row.record)


def _judged(name: str, digits: int = 2) -> Any:
    def text(record: Mapping[str, Any]) -> str:
        values = [value for value in record.get("relabelling", {}).get(name, []) if value is not None]
        return spread(values, digits) if values else ""

    return _ours(text)


ROWS = [
    Column("task", lambda row: columns.dataset_title(row.dataset)),
    Column("rewards and learner", lambda row: WAYS[row.way].title if row.way in WAYS else row.way),
    Column("K", lambda row: "" if row.experts is None else str(row.experts)),
    Column("score", lambda row: "not run" if row.record is None else spread(final(row.record), 1)),
    Column("95% interval", _ours(lambda record: interval_text(final(record), 1))),
    Column("paper", lambda row: row.paper),
    Column("AUC of steps", _judged("auc")),
    Column("AUC of trajectories", _judged("trajectory_auc")),
    Column("rank correlation", _judged("rank_correlation")),
    Column("gradient steps", _ours(lambda record: f"{record['config']['learner']['updates']:,}")),
    Column("seeds", _ours(lambda record: str(len(record["cell"]["seeds"])))),
    Column("seconds, rewards + learner", _ours(lambda record: "{:.0f} + {:.0f}".format(*_seconds(record)))),
]


def _seconds(record: Mapping[str, Any]) -> tuple[float, float]:
    return record["timing"].get("relabelling_seconds", 0.0), record["timing"]["run_seconds"]


def against(records: Records, name: str, other: str, experts: int | None = 1) -> list[str]:
    """One way beside another, a line a dataset: share of the mean, difference with a bootstrap interval."""
    found = {(r["cell"]["dataset"], way_of(r), number_of_experts(r)): final(r) for r in records}
    lines = []
    for dataset in dict.fromkeys(place[0] for place in found):
        ours = found.get((dataset, name, experts))
        theirs = found.get((dataset, other, None if WAYS[other].on_data else experts))
        if ours is None or theirs is None:
            continue
        low, high = difference_interval(ours, theirs)
        share = f"{ours.mean() / theirs.mean():.0%} of" if theirs.mean() > 0 else "against"
        where = columns.dataset_title(dataset)
        lines.append(
            f"{where}: {WAYS[name].title} has {share} {WAYS[other].title}, {ours.mean() - theirs.mean():+.1f} "
            f"({low:+.1f} to {high:+.1f})."
        )
    return lines


def bars(records: Records, label: str) -> "Figure":
    """A panel a dataset, a bar with its interval and seeds for each way."""
    by_dataset: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        by_dataset.setdefault(record["cell"]["dataset"], []).append(record)
    figure, axes = panels(by_dataset, 3.4)
    for ax, shown in zip(axes, by_dataset.values(), strict=True):
        titles = []
        for position, record in enumerate(shown):
            values, count = final(record), number_of_experts(record)
            draw_mean(ax, position, values, plotting.PALETTE[way_of(record) == "clue"])
            ax.plot(values, np.full(len(values), position), ".", color="black", ms=3, zorder=4)
            titles.append(WAYS[way_of(record)].title + ("" if count is None else f", K = {count}"))
        ax.set_yticks(range(len(shown)), titles, fontsize=6)
        ax.set_xlabel(label, fontsize=7)
        ax.set_ylim(len(shown) - 0.4, -0.6)
    what = f"{label[0].upper()}{label[1:]}"
    return captioned(
        figure, f"{what}: means over seeds with 95% bootstrap intervals, a dot a seed; CLUE's in another colour."
    )


def amounts(title: str, records: Records, label: str, *notes: str) -> tuple[str, dict[str, "Figure"]]:
    """The page of `amount_cells`: the table, and a panel a dataset of scores against trajectories, a line a way."""
    order, size = list(WAYS), lambda row: row.record["cell"]["size"]
    rows = [Row(record, record["cell"]["dataset"], way_of(record), number_of_experts(record)) for record in records]
    rows.sort(key=lambda row: (row.dataset, size(row), order.index(row.way)))
    shown = [column for column in ROWS if column.header != "paper"]
    shown.insert(1, Column("trajectories a policy", lambda row: str(size(row))))
    by_dataset: dict[str, dict[str, list[Row]]] = {}
    for row in rows:
        by_dataset.setdefault(row.dataset, {}).setdefault(row.way, []).append(row)
    figure, axes = panels(by_dataset, 3.0)
    for ax, by_way in zip(axes, by_dataset.values(), strict=True):
        for color, way in zip(plotting.PALETTE, sorted(by_way, key=order.index), strict=False):
            own = by_way[way]
            draw_curve(ax, [size(row) for row in own], [final(row.record) for row in own], color, WAYS[way].title)
        sizes = sorted({size(row) for own in by_way.values() for row in own})
        ax.set_xscale("log")
        ax.set_xticks(sizes, sizes, fontsize=6)
        ax.minorticks_off()
        ax.set_xlabel("trajectories a policy", fontsize=7)
        ax.legend(fontsize=5)
    if axes:
        axes[0].set_ylabel(label, fontsize=7)
    what = f"{label[0].upper()}{label[1:]}"
    caption = f"{what} against the amount of data: means over seeds with 95% bootstrap intervals."
    return columns.table(title, shown, rows, [*provenance(records), *notes]), {"scores": captioned(figure, caption)}
