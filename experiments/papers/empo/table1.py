"""Table 1 of the EMPO paper: returns on the navigation task.

    trajclust run empo/table1 --preset cpu

The two behaviours conflict on two lines. The best way joins them; it costs 299 steps at full speed. The text of the
paper that we have does not hold the table's numbers: its claim is that EMPO alone takes the best way.
"""

from typing import Any

import numpy as np

from trajclust_experiments.papers import empo
from trajclust_experiments.papers.empo import METHODS, PRESETS, in_order, name_of, route_counts, title_of
from trajclust_experiments.rendering import columns
from trajclust_experiments.rendering.columns import Column, Entry
from trajclust_experiments.rendering.comparisons import comparison_figures
from trajclust_experiments.rendering.figures import captioned, panels
from trajclust_experiments.rendering.intervals import difference_interval, draw_mean, interval_column
from trajclust_experiments.rendering.markdown import provenance, spread
from trajclust_experiments.tables import Records, Standing, Table
from trajclust_jax.lazy import lazy

envs = lazy("trajclust_envs")
plotting = lazy("trajclust_envs.plotting")


def _scores(entry: Entry) -> dict[str, Any]:
    return entry.record["scores"]


def _routes(entry: Entry) -> str:
    return ", ".join(f"{count} {name}" for name, count in route_counts(entry.record).items() if count)


COLUMNS = [
    columns.method("policies", lambda entry: title_of(entry.record)),
    columns.score("return", "return", digits=0),
    interval_column(lambda entry: _scores(entry)["return"], 0),
    Column("goal reached", lambda entry: f"{np.mean(_scores(entry)['reached']):.0%}"),
    Column("steps under penalty", lambda entry: spread(_scores(entry)["penalty_steps"], 0)),
    Column("routes", _routes),
    columns.score("ri", "Rand index"),
    columns.score("bias", "bias of Q", digits=1),
    columns.num_seeds(),
    columns.seconds("seconds, all seeds (compile + run)", "compile", "run"),
]


def bounds(record: dict[str, Any]) -> str:
    """What can be reached, in a line."""
    ways = envs.Ways()
    data = "; ".join(f"{name} {value:.0f}" for name, value in record["behaviours"].items())
    return (
        f"At full speed the best way that the data hold costs {-ways.best:.0f}, the better behaviour "
        f"{-ways.best_lone:.0f}. Mean returns of the data: {data}."
    )


def render(records: Records):
    shown = in_order(records)
    figure, axes = panels(["navigation"] if shown else [], 3.6)
    for ax in axes:
        for position, record in enumerate(shown):
            values = np.array(record["scores"]["return"])
            draw_mean(ax, position, values, plotting.PALETTE[name_of(record) == "empo"])
            ax.plot(values, np.full(len(values), position), ".", color="black", ms=3, zorder=4)
        ax.axvline(envs.Ways().best, color="black", linewidth=1, linestyle="--", zorder=1)
        ax.set_yticks(range(len(shown)), [title_of(record) for record in shown], fontsize=7)
        ax.set_xlabel("return (dashed: the best way at full speed)", fontsize=7)
        ax.set_ylim(len(shown) - 0.4, -0.6)
    notes = [
        *provenance(records),
        "10 episodes a seed without the policies' noise; mean ± std and bootstrap interval over seeds. Routes: short "
        "is the best joining of both behaviours, by its waypoints; penalty reaches the goal through the penalty area; "
        "detour on another way; lost not at all.",
        *(bounds(record) for record in shown[:1]),
        *_above(shown),
    ]
    title = "EMPO paper, Table 1: returns on the navigation task"
    caption = (
        "Returns on the navigation task, a dot a seed, with 95% bootstrap intervals of their means; dashed: the best "
        "way that the data hold, at full speed."
    )
    ours = {title_of(record): {"Navigation": np.array(record["scores"]["return"])} for record in shown}
    reference = next((title_of(record) for record in shown if name_of(record) == "empo"), None)
    figures = {"returns": captioned(figure, caption), **comparison_figures(ours, "return", reference)}
    return columns.table(title, COLUMNS, map(Entry, shown), notes), figures


def standings(records: Records) -> list[Standing]:
    """Returns, beside that of the best way that the data hold."""
    mean = lambda record: float(np.mean(record["scores"]["return"]))
    best = float(envs.Ways().best)
    return [Standing("navigation", title_of(record), mean(record), None, best) for record in in_order(records)]


def _above(records: Records) -> list[str]:
    """EMPO against each of the others, a line each."""
    found = {name_of(record): np.array(record["scores"]["return"]) for record in records}
    if "empo" not in found:
        return []
    lines, ours = [], found["empo"]
    for name, values in found.items():
        if name == "empo":
            continue
        low, high = difference_interval(ours, values)
        title = next(title_of(record) for record in records if name_of(record) == name)
        lines.append(f"EMPO above {title}: {ours.mean() - values.mean():+.0f} ({low:+.0f} to {high:+.0f}).")
    return lines


TABLE = Table(
    name="empo/table1",
    summary="returns of EMPO and others on the navigation task",
    datasets=("navigation",),
    methods=METHODS,
    presets=PRESETS,
    cells=empo.navigation_cells,
    render=render,
    standings=standings,
)
