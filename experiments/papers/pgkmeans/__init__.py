"""What the PG-Kmeans paper's tables share: its tasks and numbers, settings, cells, and a figure.

Hu, Wang and Du, "Policy-Based Trajectory Clustering in Offline RL".
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from trajclust_experiments import catalogue
from trajclust_experiments.catalogue import CATALOGUE
from trajclust_experiments.cells.cell import Cell
from trajclust_experiments.cells.methods import MethodCell, OracleCell
from trajclust_experiments.rendering.figures import captioned, panels
from trajclust_experiments.rendering.intervals import draw_mean
from trajclust_experiments.rendering.stored import Grouped, of_methods, oracle_nmi
from trajclust_experiments.tables import Preset
from trajclust_jax.data import REGISTRY
from trajclust_jax.lazy import lazy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

plotting = lazy("trajclust_envs.plotting")

TITLE = "PG-Kmeans and CAAE"
GRID_DATASETS = ("diagonal", "takeball", "pathfollowing", "extra-vi", "extrafixed-vi")
_LONG = ("halfcheetah", "ant", "walker2d", "hopper")
_PAIRS = ("medium-expert", "medium-replay", "late-expert")
_MUJOCO = tuple(f"{task}-{pair}" for pair in _PAIRS for task in _LONG if f"{task}-{pair}" in REGISTRY)
DATASETS = (*GRID_DATASETS, *_MUJOCO)
PAPER_DATASETS = tuple(name for name in DATASETS if name not in _MUJOCO or name.endswith("medium-expert"))
# The paper's task that a dataset is of.
TASKS = {name: name.removesuffix("-medium-expert") for name in PAPER_DATASETS} | {
    "extra-vi": "extra",
    "extrafixed-vi": "extra",
}

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

_BRIEF = {"iterations": 2, "steps": 10}  # of networks that see maps, whose gradient steps take a second
_QUICK = {"iterations": 6, "polish_iterations": 2, "polish_first_steps": 60, "polish_steps": 20}
PRESETS = {
    "smoke": Preset(
        "does everything run? Seconds to a minute a cell; the numbers mean nothing",
        size=60,
        long_size=6,
        seeds=2,
        settings={
            "pg_kmeans_mlp": _QUICK,
            **{f"cloning_{view}": _BRIEF for view in ("conv", "planner")},
            **{f"caae_{view}": {**_BRIEF, "warmup_iterations": 2} for view in ("conv", "planner")},
            "pg_kmeans_gru": {"iterations": 2, "polish_iterations": 1, "polish_first_steps": 4, "restarts": 2},
            **{name: {"iterations": 2} for name in ("behaviour_set", "behaviour_set_released")},
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
    chosen: list[Cell] = []
    for dataset in datasets:
        entry = REGISTRY[dataset]
        size = preset.long_size if entry.long else preset.size
        chosen.append(OracleCell(dataset, size))
        for method in methods:
            if (dataset, method) in LEFT_OUT:
                continue
            usual = CATALOGUE[method].long_settings() if entry.long else SETTINGS.get((dataset, method), {})
            merged = {**usual, **preset.settings.get(method, {}), **settings}
            chosen.append(MethodCell(dataset, size, method, tuple(seeds), tuple(sorted(merged.items()))))
    return chosen


def method_title(name: str, dataset: str = "") -> str:
    """A method's title, with what is not its default on a dataset."""
    settings = SETTINGS.get((dataset, name), {})
    special = ", ".join(f"{setting.replace('_', ' ')} {value}" for setting, value in settings.items())
    return catalogue.title(name) + (f" ({special})" if special else "")


def published(dataset: str, method: str) -> tuple[float, float] | None:
    """The paper's mean and std of NMI for a dataset's task and a method's family, or None."""
    return PUBLISHED.get(CATALOGUE[method].family, {}).get(TASKS.get(dataset))


def nmi_bars(found: Grouped) -> "Figure":
    """Mean NMI over seeds with 95% bootstrap intervals, the oracle's ceiling as a line, published values as rings."""
    tallest = max(len(of_methods(methods)) for methods in found.values())
    figure, axes = panels(found, 2.6, height=1.3 + 0.34 * tallest)
    for ax, methods in zip(axes, found.values(), strict=True):
        shown = of_methods(methods)
        for position, (name, record) in enumerate(shown):
            values = np.array(record["scores"]["nmi"])
            draw_mean(ax, position, values, _color(CATALOGUE[name]))
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
    return captioned(
        figure,
        "NMI with the true policies on each task: means over seeds with 95% bootstrap intervals, a dot a seed, the "
        "oracle's dashed, published ones as circles.",
    )


def _color(entry: catalogue.MethodEntry) -> str:
    if entry.kind == "ceiling":
        return "#9A9A9A"
    return plotting.PALETTE[0 if entry.family == "pg_kmeans" else 1]
