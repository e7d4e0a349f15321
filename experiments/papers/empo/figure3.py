"""Figure 3 of the EMPO paper: one way of each learner's policies on the navigation task.

    trajclust run empo/figure3 --preset cpu

Of every learner the episode whose return is the median of all its episodes.
"""

from typing import Any

import numpy as np

from trajclust_experiments.papers import empo
from trajclust_experiments.papers.empo import METHODS, PRESETS, in_order, title_of
from trajclust_experiments.papers.empo.figure5 import ways_figure
from trajclust_experiments.rendering import columns
from trajclust_experiments.rendering.columns import Column, Entry
from trajclust_experiments.rendering.figures import captioned
from trajclust_experiments.rendering.markdown import provenance
from trajclust_experiments.tables import Records, Table


def _median(record: dict[str, Any]) -> tuple[int, int]:
    """Seed's place and episode."""
    found = np.array(record["episode_returns"])
    middle = np.argsort(found, axis=None, kind="stable")[found.size // 2]
    return tuple(int(place) for place in np.unravel_index(middle, found.shape))


def _of_median(name: str) -> Any:
    def value(entry: Entry) -> Any:
        seed, episode = _median(entry.record)
        return entry.record[name][seed][episode]

    return value


COLUMNS = [
    columns.method("policies", lambda entry: title_of(entry.record)),
    Column("return", lambda entry: f"{_of_median('episode_returns')(entry):.0f}"),
    Column("route", _of_median("routes")),
]


def render(records: Records):
    shown = in_order(records)
    notes = [*provenance(records), "The episode with the median return of all seeds' episodes."]
    figure = ways_figure(shown, lambda record: [_of_median("paths")(Entry(record))])
    text = columns.table("EMPO paper, Figure 3: one way of each", COLUMNS, map(Entry, shown), notes)
    return text, {
        "ways": captioned(
            figure, "Each learner's episode with the median return; the box is the penalty area, the star the goal."
        )
    }


TABLE = Table(
    name="empo/figure3",
    summary="one way of each learner's policies on the navigation task",
    datasets=("navigation",),
    methods=METHODS,
    presets=PRESETS,
    cells=empo.navigation_cells,
    render=render,
)
