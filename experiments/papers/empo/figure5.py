"""Figure 5 of the EMPO paper: the ways that each learner's policies take on the navigation task, all of them.

trajclust run empo/figure5 --preset cpu
"""

from typing import Any

import numpy as np

from trajclust_experiments.papers import empo
from trajclust_experiments.papers.empo import METHODS, PRESETS, in_order, plane, route_counts, title_of
from trajclust_experiments.rendering import columns
from trajclust_experiments.rendering.columns import Column, Entry
from trajclust_experiments.rendering.figures import captioned, new_figure
from trajclust_experiments.rendering.markdown import provenance
from trajclust_experiments.tables import Records, Table
from trajclust_jax.lazy import lazy

plotting = lazy("trajclust_envs.plotting")

COLUMNS = [
    columns.method("policies", lambda entry: title_of(entry.record)),
    *(
        Column(name, lambda entry, name=name: str(route_counts(entry.record)[name]))
        for name in ("short", "penalty", "detour", "lost")
    ),
    columns.num_seeds(),
]


def ways_figure(records: Records, paths_of: Any) -> Any:
    """A panel a record with the paths that `paths_of` takes of it."""
    figure = new_figure(2.1 * max(1, len(records)), 2.3)
    axes = figure.subplots(1, max(1, len(records)), squeeze=False)[0]
    for ax, record in zip(axes, records, strict=False):
        paths = paths_of(record)
        lengths = np.array([len(path) for path in paths])
        padded = np.zeros((len(paths), lengths.max(), 2))
        for row, path in zip(padded, paths, strict=True):
            row[: len(path)] = path
        shown = {"names": [""], "plane": plane(), "max_per_group": len(paths), "ax": ax}
        plotting.draw_paths(padded, lengths, np.zeros(len(paths), int), **shown)
        ax.get_legend().remove()
        ax.set_title(title_of(record), fontsize=8)
    return figure


def _all(record: dict[str, Any]) -> list[list[list[float]]]:
    return [path for seed in record["paths"] for path in seed]


def render(records: Records):
    shown = in_order(records)
    notes = [*provenance(records), "Every episode of every seed; the box is the penalty area, the star the goal."]
    text = columns.table("EMPO paper, Figure 5: the ways taken", COLUMNS, map(Entry, shown), notes)
    return text, {
        "ways": captioned(
            ways_figure(shown, _all), "Every episode of every seed; the box is the penalty area, the star the goal."
        )
    }


TABLE = Table(
    name="empo/figure5",
    summary="the ways that policies take on the navigation task",
    datasets=("navigation",),
    methods=METHODS,
    presets=PRESETS,
    cells=empo.navigation_cells,
    render=render,
)
