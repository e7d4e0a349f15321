"""What the PG-Kmeans paper's tables share: presets, cells, and the figures drawn from records.

Hu, Wang and Du, "Policy-Based Trajectory Clustering in Offline RL".
"""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import trajclust_experiments as experiments
from trajclust_envs.plotting import PALETTE
from trajclust_experiments.methods import CEILINGS, METHODS, ORACLE, long_settings, method_entry
from trajclust_experiments.rendering import new_figure
from trajclust_experiments.runner import Cell
from trajclust_experiments.tables import Preset
from trajclust_jax.data import REGISTRY
from trajclust_jax.metrics import bootstrap_interval
from trajclust_jax.records import Results

TITLES = {
    "diagonal": "Diagonal",
    "takeball": "Takeball",
    "pathfollowing": "Pathfollowing",
    "extra-vi": "Extra, fresh maps",
    "extrafixed-vi": "Extra, one map",
}
_LONG = {"halfcheetah": "HalfCheetah", "ant": "Ant", "walker2d": "Walker2d", "hopper": "Hopper"}
_PAIRS = {"medium-expert": "", "medium-replay": ", medium and replay", "late-expert": ", late and expert"}
_MUJOCO = {f"{task}-{pair}": title + more for pair, more in _PAIRS.items() for task, title in _LONG.items()}
TITLES |= {name: title for name, title in _MUJOCO.items() if name in REGISTRY}  # those whose policies are shipped
DATASETS = tuple(TITLES)
# Those of tables of our own: the paper's deprecated variant; a reference for what is learned from maps.
TITLES |= {"takeball-permuted": "Takeball, permuted", "extra-vi-ways": "Extra, hand-made ways"}
# The paper's task of a dataset, where its name differs.
TASKS = {"extra-vi": "extra", "extrafixed-vi": "extra"} | {f"{task}-medium-expert": task for task in _LONG}

GRID_DATASETS = tuple(name for name in DATASETS if not REGISTRY[name].long)
PAPER_DATASETS = tuple(name for name in DATASETS if name not in _MUJOCO or name.endswith("medium-expert"))

# The paper's Table 1: mean and std of NMI over at least 10 seeds, by method and task; "-": none for the GridWorlds.
PUBLISHED = {
    "pg_kmeans": {
        "halfcheetah": (0.99, 0.00),
        "ant": (0.92, 0.00),
        "walker2d": (0.94, 0.01),
        "hopper": (0.99, 0.00),
        "diagonal": (0.92, 0.00),
        "takeball": (1.00, 0.00),
        "pathfollowing": (0.12, 0.11),
        "extra": (0.02, 0.01),
    },
    "caae": {
        "halfcheetah": (0.99, 0.00),
        "ant": (0.96, 0.01),
        "walker2d": (0.88, 0.10),
        "hopper": (0.99, 0.01),
        "diagonal": (0.87, 0.05),
        "takeball": (1.00, 0.00),
        "pathfollowing": (0.15, 0.02),
        "extra": (0.43, 0.22),
    },
    "vae": {
        "halfcheetah": (0.00, 0.00),
        "ant": (0.01, 0.01),
        "walker2d": (0.00, 0.00),
        "hopper": (0.00, 0.00),
        "diagonal": (0.10, 0.02),
        "takeball": (0.00, 0.00),
        "pathfollowing": (0.03, 0.05),
        "extra": (0.04, 0.05),
    },
    "return": {
        "halfcheetah": (0.97, 0.00),
        "ant": (0.05, 0.00),
        "walker2d": (0.23, 0.00),
        "hopper": (0.86, 0.00),
    },
    "dec": {
        "halfcheetah": (0.95, 0.01),
        "ant": (0.39, 0.17),
        "walker2d": (0.77, 0.12),
        "hopper": (0.00, 0.00),
        "diagonal": (0.28, 0.02),
        "takeball": (0.05, 0.10),
        "pathfollowing": (0.26, 0.10),
        "extra": (0.28, 0.36),
    },
    "sorl": {
        "halfcheetah": (0.12, 0.33),
        "ant": (0.00, 0.00),
        "walker2d": (0.08, 0.24),
        "hopper": (0.84, 0.26),
        "diagonal": (0.18, 0.05),
        "takeball": (0.54, 0.13),
        "pathfollowing": (0.14, 0.05),
        "extra": (0.00, 0.00),
    },
}

# What differs from a method's default on a task: what it needs, found at 1,000 trajectories a policy, or what it costs.
# An E-step on fresh maps evaluates every network on every step's map: one short run is to show that it finds nothing.
SETTINGS: dict[tuple[str, str], dict[str, Any]] = {
    ("pathfollowing", "pg_kmeans_mlp"): {"steps": 200},
    ("extra-vi", "pg_kmeans_mlp"): {"restarts": 1, "iterations": 10, "polish_iterations": 0},
}

# Cells that are not run, and why; what a method itself refuses, its records say.
_MARKOV = "not run: the experts are Markov, and a GRU costs half an hour or more on 2 cores"
_ONE_MAP = "not run: planning is for maps that are fresh; one map an MLP remembers"
LEFT_OUT: dict[tuple[str, str], str] = {
    **{(name, "pg_kmeans_gru"): _MARKOV for name in ("pathfollowing", "extra-vi", "extrafixed-vi", *_MUJOCO)},
    **{(name, "pg_kmeans_planner"): _ONE_MAP for name in ("diagonal", "takeball", "extrafixed-vi")},
    **{(name, "cloning_planner"): _ONE_MAP for name in ("diagonal", "takeball", "extrafixed-vi")},
}

PANELS_A_ROW = 5  # of a figure with a panel a dataset

_QUICK = {"iterations": 6, "polish_iterations": 2, "polish_first_steps": 60, "polish_steps": 20}
PRESETS = {
    "smoke": Preset(
        "seconds: does everything run? The numbers mean nothing",
        size=60,
        long_size=6,
        seeds=2,
        settings={
            "pg_kmeans_mlp": _QUICK,
            "pg_kmeans_gru": {"iterations": 2, "polish_iterations": 1, "polish_first_steps": 4, "restarts": 2},
        },
    ),
    "cpu": Preset(
        "minutes on 2 CPU cores: 1,000 trajectories a policy (MuJoCo: 50), 5 seeds", size=1000, long_size=50, seeds=5
    ),
    "paper": Preset(
        "the paper's scale: 20,000 trajectories a policy (MuJoCo: 1,000), 10 seeds",
        size=20_000,
        long_size=1000,
        seeds=10,
    ),
}


def cells(
    preset: Preset, datasets: Sequence[str], methods: Sequence[str], seeds: Sequence[int], **settings: Any
) -> list[Cell]:
    """One cell a dataset and method; the oracle, which costs nothing, first for each dataset."""
    chosen = []
    for dataset in datasets:
        entry = REGISTRY[dataset]
        size = preset.long_size if entry.long else preset.size
        chosen.append(Cell(dataset, size, ORACLE, ()))
        for method in methods:
            if (dataset, method) in LEFT_OUT:
                continue
            usual = long_settings(method) if entry.long else SETTINGS.get((dataset, method), {})
            merged = {**usual, **preset.settings.get(method, {}), **settings}
            chosen.append(Cell(dataset, size, method, tuple(seeds), tuple(sorted(merged.items()))))
    return chosen


def stored_records() -> Results:
    """The records that come with the project (of a clone; an installed package has none)."""
    return Results(Path(experiments.__file__).parent / "records")


def by_cell(records: Sequence[dict[str, Any]]) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Records by dataset and method."""
    grouped: dict[str, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        grouped[record["cell"]["dataset"]][record["cell"]["method"]].append(record)
    return grouped


def answered(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without those of methods that have no answer on their data."""
    return [record for record in records if "not_applicable" not in record]


def method_title(name: str, dataset: str = "") -> str:
    """A method's title, with what is not its default on a dataset."""
    settings = SETTINGS.get((dataset, name), {})
    special = ", ".join(f"{setting.replace('_', ' ')} {value}" for setting, value in settings.items())
    return method_entry(name).title + (f" ({special})" if special else "")


def published(dataset: str, method: str) -> tuple[float, float] | None:
    """The paper's mean and std of NMI for a dataset's task and a method's family, or None."""
    for family, values in PUBLISHED.items():
        if method.startswith(family):
            return values.get(TASKS.get(dataset, dataset))
    return None


def oracle_nmi(methods: dict[str, list[dict[str, Any]]]) -> float:
    """The oracle's NMI on one dataset; NaN where its record is missing."""
    return methods[ORACLE][0]["scores"]["nmi"] if ORACLE in methods else float("nan")


def of_methods(methods: dict[str, list[dict[str, Any]]]) -> list[tuple[str, dict[str, Any]]]:
    """The records of one dataset that have scores, with their methods' names: methods in order, then ceilings."""
    names = [name for name in (*METHODS, *CEILINGS) if name in methods]
    return [(name, record) for name in names for record in methods[name] if "not_applicable" not in record]


def last_of_phase(record: dict[str, Any], phase: str, name: str) -> np.ndarray | None:
    """`[S, R]`: a metric at the end of a phase, for every restart; None if the phase was not run."""
    entries = [entry for entry in record["history"] if entry["phase"] == phase]
    return np.array(entries[-1][name], float) if entries else None


def panels(grouped: dict[str, Any], width: float, height: float = 3.2) -> tuple[Figure, list[Axes]]:
    """A figure with one titled panel of `width` by `height` inches a dataset, at most `PANELS_A_ROW` side by side."""
    rows = -(-len(grouped) // PANELS_A_ROW)
    columns = -(-len(grouped) // rows)
    figure = new_figure(1.2 + width * columns, height * rows)
    axes = list(figure.subplots(rows, columns, squeeze=False).ravel())
    for ax, dataset in zip(axes, grouped, strict=False):
        ax.set_title(TITLES[dataset], fontsize=9)
        ax.spines[["top", "right"]].set_visible(False)
    for ax in axes[len(grouped) :]:
        ax.set_axis_off()
    return figure, axes[: len(grouped)]


def nmi_bars(grouped: dict[str, dict[str, list[dict[str, Any]]]]) -> Figure:
    """Mean NMI over seeds with 95% bootstrap intervals, the oracle's ceiling as a line, published values as rings."""
    tallest = max(len(of_methods(methods)) for methods in grouped.values())
    figure, axes = panels(grouped, 2.6, height=1.3 + 0.34 * tallest)
    for ax, methods in zip(axes, grouped.values(), strict=True):
        shown = of_methods(methods)
        for position, (name, record) in enumerate(shown):
            values = np.array(record["scores"]["nmi"])
            low, high = bootstrap_interval(values, np.random.default_rng(0))
            mean = values.mean()
            color = "#9A9A9A" if name in CEILINGS else PALETTE[0 if name.startswith("pg_kmeans") else 1]
            ax.barh(position, mean, height=0.6, color=color, zorder=2)
            ax.errorbar(mean, position, xerr=[[mean - low], [high - mean]], color="black", capsize=3, lw=1, zorder=3)
            ax.plot(values, np.linspace(-0.15, 0.15, len(values)) + position, ".", color="black", ms=3, zorder=4)
            paper = published(record["cell"]["dataset"], name)
            if paper is not None:
                ax.plot(paper[0], position, "o", mfc="none", mec="black", ms=8, zorder=5)
        ceiling = oracle_nmi(methods)
        if np.isfinite(ceiling):
            ax.axvline(ceiling, color="black", linewidth=1, linestyle="--", zorder=1)
        ax.set_xlabel(f"NMI (oracle {ceiling:.3f})" if np.isfinite(ceiling) else "NMI", fontsize=8)
        ax.set(xlim=(0, 1.05), ylim=(max(len(shown), 1) - 0.4, -0.6))
        ax.set_yticks(range(len(shown)), [method_title(name) for name, _ in shown], fontsize=7)
    figure.suptitle("o: published    dashed: oracle    grey: cloned from true labels", fontsize=7)
    return figure
