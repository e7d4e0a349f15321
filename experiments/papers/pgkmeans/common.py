"""What the PG-Kmeans paper's tables share: presets, cells, and the figures drawn from records.

Hu, Wang and Du, "Policy-Based Trajectory Clustering in Offline RL".
"""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import envs
import experiments
from envs.plotting import PALETTE, draw_trajectories
from experiments.methods import METHODS, ORACLE
from experiments.runner import Cell
from experiments.tables import Preset
from trajclust_jax.data import REGISTRY
from trajclust_jax.metrics import bootstrap_interval, mean_std
from trajclust_jax.records import Results

DATASETS = ("diagonal", "takeball")
TITLES = {"diagonal": "Diagonal", "takeball": "Takeball"}

_QUICK = {"iterations": 6, "polish_iterations": 2, "polish_first_steps": 60, "polish_steps": 20}
PRESETS = {
    "smoke": Preset(
        "seconds: does everything run? The numbers mean nothing",
        size=60,
        seeds=2,
        settings={
            "pg_kmeans_mlp": _QUICK,
            "pg_kmeans_gru": {"iterations": 2, "polish_iterations": 1, "polish_first_steps": 4, "restarts": 2},
        },
    ),
    "cpu": Preset("minutes on 2 CPU cores: 1,000 trajectories a policy, 5 seeds", size=1000, seeds=5),
    "paper": Preset("the paper's scale: 20,000 trajectories a policy, 10 seeds", size=20_000, seeds=10),
}


def cells(
    preset: Preset, datasets: Sequence[str], methods: Sequence[str], seeds: Sequence[int], **settings: Any
) -> list[Cell]:
    """One cell a dataset and method; the oracle, which costs nothing, first for each dataset."""
    chosen = []
    for dataset in datasets:
        chosen.append(Cell(dataset, preset.size, ORACLE, ()))
        for method in methods:
            merged = {**preset.settings.get(method, {}), **settings}
            chosen.append(Cell(dataset, preset.size, method, tuple(seeds), tuple(sorted(merged.items()))))
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


def method_title(name: str) -> str:
    return METHODS[name].title


def last_of_phase(record: dict[str, Any], phase: str, name: str) -> np.ndarray | None:
    """`[S, R]`: a metric at the end of a phase, for every restart; None if the phase was not run."""
    entries = [entry for entry in record["history"] if entry["phase"] == phase]
    return np.array(entries[-1][name], float) if entries else None


def provenance_lines(records: Sequence[dict[str, Any]]) -> list[str]:
    """What a reader must know of the numbers: preset, data, seeds, device, versions."""
    trained = [record for record in records if record["cell"]["method"] != ORACLE]
    presets = sorted({record["preset"] for record in records})
    sizes = sorted({record["cell"]["size"] for record in records})
    seeds = sorted({len(record["cell"]["seeds"]) for record in trained})
    devices = sorted(
        {
            f"{r['environment']['device']['count']} x {r['environment']['device']['kind']}"
            f" ({r['environment']['cpu_count']} cores)"
            for r in trained
        }
    )
    versions = sorted({r["environment"]["versions"]["jax"] for r in trained})
    lines = [
        f"- Preset {', '.join(presets)}: {', '.join(f'{size:,}' for size in sizes)} trajectories a policy, "
        f"{', '.join(map(str, seeds)) or 'no'} seeds.",
        f"- Device: {', '.join(devices) or 'none'}; jax {', '.join(versions) or '-'}.",
    ]
    if not any(r["environment"]["device"]["platform"] in ("gpu", "tpu", "cuda", "rocm") for r in trained):
        lines.append("- Not run on a GPU.")
    return lines


def spread(values: Sequence[float]) -> str:
    """`mean ± std` over seeds; the mean alone for one seed."""
    mean, std = mean_std(values)
    return f"{mean:.3f} ± {std:.3f}" if len(values) > 1 else f"{mean:.3f}"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def new_figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def panels(grouped: dict[str, Any], width: float) -> tuple[Figure, list[Axes]]:
    """A figure with one titled panel of `width` inches a dataset, side by side."""
    figure = new_figure(1.2 + width * len(grouped), 3.2)
    axes = list(figure.subplots(1, len(grouped), squeeze=False)[0])
    for ax, dataset in zip(axes, grouped, strict=True):
        ax.set_title(TITLES[dataset])
        ax.spines[["top", "right"]].set_visible(False)
    return figure, axes


def nmi_bars(grouped: dict[str, dict[str, list[dict[str, Any]]]], published: dict[str, float]) -> Figure:
    """Mean NMI over seeds with 95% bootstrap intervals, the oracle's ceiling and the published value as lines."""
    figure, axes = panels(grouped, 3.2)
    for ax, (dataset, methods) in zip(axes, grouped.items(), strict=True):
        names = [name for name in METHODS if name in methods]
        for position, name in enumerate(names):
            values = np.array(methods[name][0]["scores"]["nmi"])
            low, high = bootstrap_interval(values, np.random.default_rng(0))
            mean = values.mean()
            ax.bar(position, mean, width=0.6, color=PALETTE[position], zorder=2)
            ax.errorbar(position, mean, [[mean - low], [high - mean]], color="black", capsize=4, linewidth=1, zorder=3)
            ax.plot(
                np.linspace(-0.15, 0.15, len(values)) + position, values, ".", color="black", markersize=3, zorder=4
            )
        ceiling = methods[ORACLE][0]["scores"]["nmi"]
        ax.axhline(ceiling, color="black", linewidth=1, linestyle="--", label=f"oracle {ceiling:.3f}", zorder=1)
        if dataset in published:
            value = published[dataset]
            ax.axhline(value, color="gray", linewidth=1, linestyle=":", label=f"published {value:.2f}", zorder=1)
        ax.set(ylim=(0, 1.08), xlim=(-0.6, max(len(names), 1) - 0.4))
        ax.set_xticks(range(len(names)), [method_title(name).replace("PG-Kmeans, ", "PG-Kmeans\n") for name in names])
        ax.legend(loc="lower right", fontsize=7, framealpha=1)
    axes[0].set_ylabel("NMI")
    return figure


def sample_figure(record: dict[str, Any]) -> Figure:
    """The record's sample of trajectories in the grid, one panel a found cluster (or true policy)."""
    env = envs.ENVIRONMENTS[_environment_of(record)]()
    params, sample = env.default_params, record["sample"]
    horizon = max(map(len, sample["paths"]))
    cells, lengths = np.zeros((len(sample["paths"]), horizon, 2), int), []
    for row, path in zip(cells, sample["paths"], strict=True):
        row[: len(path)] = np.stack(np.divmod(path, 10), axis=-1)
        lengths.append(len(path))
    return draw_trajectories(
        cells,
        np.array(lengths),
        np.array(sample["groups"]),
        walls=params.walls,
        goal=params.goal,
        names=sample["names"],
        counts=sample["counts"],
        places=getattr(params, "ball_places", None),
    )


def _environment_of(record: dict[str, Any]) -> str:
    return REGISTRY[record["cell"]["dataset"]].environment
