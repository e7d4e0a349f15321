"""Figure 1 of the EMPO paper: the navigation task's two behaviours, where they conflict, and a clone of both.

    trajclust run empo/figure1 --preset cpu

Shaded: squares where both behaviours have been and went different ways. The paper's second panel is the clone's
policy; ours has its episodes.
"""

from typing import Any, NamedTuple

import numpy as np

from trajclust_experiments.cells.cell import Cell
from trajclust_experiments.cells.methods import ORACLE, OracleCell
from trajclust_experiments.papers.empo import PRESETS, navigation_cell, plane, route_counts
from trajclust_experiments.rendering import columns
from trajclust_experiments.rendering.columns import Column
from trajclust_experiments.rendering.figures import captioned, new_figure
from trajclust_experiments.rendering.markdown import provenance
from trajclust_experiments.tables import Preset, Records, Table
from trajclust_jax.lazy import lazy

plotting = lazy("trajclust_envs.plotting")
patches = lazy("matplotlib.patches")

CONFLICT = 0.5  # of directions: the cosine of the angle between them is below it


def cells(preset: Preset, datasets, methods, seeds) -> list[Cell]:
    """The data's own cell, and a learner's."""
    chosen: list[Cell] = []
    for dataset in datasets:
        chosen.append(OracleCell(dataset, preset.long_size))
        chosen += [navigation_cell(preset, method, seeds, dataset) for method in methods]
    return chosen


def disagreement(paths: list[list[list[float]]], groups: list[int]) -> dict[tuple[int, int], float]:
    """By square of side 1 (its lower left corner) where paths of two groups pass: the cosine of the angle between their
    mean directions, the smallest of all pairs."""
    moves: dict[tuple[int, int], dict[int, list[np.ndarray]]] = {}
    for path, group in zip(paths, groups, strict=True):
        points = np.array(path, float)
        steps = np.diff(points, axis=0)
        for middle, step in zip((points[1:] + points[:-1]) / 2, steps, strict=True):
            length = np.linalg.norm(step)
            if length > 0:
                square = tuple(int(x) for x in np.floor(middle))
                moves.setdefault(square, {}).setdefault(group, []).append(step / length)
    found = {}
    for square, by_group in moves.items():
        means = [np.mean(each, axis=0) for each in by_group.values()]
        means = [mean / max(np.linalg.norm(mean), 1e-9) for mean in means]
        pairs = [float(a @ b) for i, a in enumerate(means) for b in means[:i]]
        if pairs:
            found[square] = min(pairs)
    return found


class _Line(NamedTuple):
    record: dict[str, Any]
    shared: int
    conflicting: int
    clones: str


COLUMNS = [
    columns.task(),
    Column("squares where both have been", lambda line: str(line.shared)),
    Column("where they conflict", lambda line: str(line.conflicting)),
    Column("the clone's episodes", lambda line: line.clones),
]


def render(records: Records):
    data = next((record for record in records if record["cell"]["method"] == ORACLE), None)
    clone = next((record for record in records if record["cell"]["method"] == "bc"), None)
    if data is None or clone is None:
        return columns.table("EMPO paper, Figure 1: the navigation task", COLUMNS, [], provenance(records)), {}
    sample = data["sample"]
    found = disagreement(sample["paths"], sample["groups"])
    conflict = [square for square, cosine in found.items() if cosine < CONFLICT]
    panels = [
        (sample["paths"], sample["groups"], sample["names"]),
        ([path for seed in clone["paths"] for path in seed], None, ["BC"]),
    ]
    figure = new_figure(2.4 * len(panels), 2.6)
    for ax, (paths, groups, names) in zip(figure.subplots(1, len(panels)), panels, strict=True):
        groups = np.zeros(len(paths), int) if groups is None else np.array(groups)
        padded = np.zeros((len(paths), max(map(len, paths)), 2))
        for row, path in zip(padded, paths, strict=True):
            row[: len(path)] = path
        lengths = [len(path) for path in paths]
        plotting.draw_paths(padded, lengths, groups, names=names, plane=plane(), ax=ax)
        ax.get_legend().remove()
        ax.set_title(" and ".join(names), fontsize=8)
        for corner in conflict:
            ax.add_patch(patches.Rectangle(corner, 1, 1, color="black", alpha=0.25, linewidth=0, zorder=2))
    clones = ", ".join(f"{count} {route}" for route, count in route_counts(clone).items() if count)
    notes = [
        *provenance(records),
        "Squares have sides of 1. Conflict, shaded: mean directions at more than 60 degrees to each other.",
    ]
    lines = [_Line(data, len(found), len(conflict), clones)]
    caption = "The behaviours of the navigation task, where they conflict (grey), and the ways of a clone of both."
    return columns.table("EMPO paper, Figure 1: the navigation task", COLUMNS, lines, notes), {
        "task": captioned(figure, caption)
    }


TABLE = Table(
    name="empo/figure1",
    summary="the navigation task's behaviours, where they conflict, and a clone of both",
    datasets=("navigation",),
    methods=("bc",),
    presets=PRESETS,
    cells=cells,
    render=render,
)
