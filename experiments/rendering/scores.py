"""Normalised returns of trained policies: columns, a figure, and what is published of them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from trajclust_experiments.rendering import columns
from trajclust_experiments.rendering.columns import Column
from trajclust_experiments.rendering.comparisons import comparison_figures
from trajclust_experiments.rendering.figures import captioned, panels
from trajclust_experiments.rendering.intervals import draw_mean, interval_column
from trajclust_experiments.rendering.markdown import spread
from trajclust_experiments.tables import Standing
from trajclust_jax.lazy import lazy
from trajclust_jax.metrics import interquartile_mean

if TYPE_CHECKING:
    from matplotlib.figure import Figure

plotting = lazy("trajclust_envs.plotting")

# CORL's last scores on D4RL's medium-expert data, by learner and dataset.
CORL = {
    "bc": {"halfcheetah-medium-expert": 55.9, "walker2d-medium-expert": 99.0, "hopper-medium-expert": 52.3},
    "bc_10": {"halfcheetah-medium-expert": 90.1, "walker2d-medium-expert": 108.7, "hopper-medium-expert": 111.2},
    "awac": {"halfcheetah-medium-expert": 93.6, "walker2d-medium-expert": 49.4, "hopper-medium-expert": 52.7},
    "cql_corl": {"halfcheetah-medium-expert": 95.6, "walker2d-medium-expert": 109.6, "hopper-medium-expert": 99.3},
}
NOTES = [
    "Scores are D4RL-normalised, of 10 episodes a seed without the policies' noise: mean ± std and bootstrap interval "
    "over seeds, after the last gradient step; best evaluation: the highest of each seed's, which flatters.",
]


class Scored(NamedTuple):
    """A line of such a table."""

    record: dict[str, Any]
    title: str
    paper: float | None
    from_clusters: bool = False


def score_columns() -> list[Column]:
    """Columns for `Scored` entries."""
    policies = lambda entry: "; ".join(f"{name} {value:.1f}" for name, value in entry.record["policies"].items())
    return [
        columns.task(),
        columns.method("policies", lambda entry: entry.title),
        Column("score", lambda entry: spread(shown_score(entry.record), 1)),
        interval_column(lambda entry: shown_score(entry.record), 1),
        Column("interquartile mean", lambda entry: _middle(shown_score(entry.record))),
        Column("best evaluation", lambda entry: f"{np.mean(entry.record['scores']['best_score']):.1f}"),
        columns.published(lambda entry: entry.paper, digits=1)[0],
        Column("the data", policies),
        Column("gradient steps", lambda entry: f"{updates(entry.record):,}"),
        columns.num_seeds(),
        columns.seconds("seconds, all seeds (compile + run)", "compile", "run"),
    ]


def updates(record: dict[str, Any]) -> int:
    """Gradient steps of each policy: a learner's, or those of a clustering's last phase, whose policies begin anew."""
    if "config" not in record:
        chosen = record["cell"]["hyperparameters"]
        return chosen["polish_first_steps"] + (chosen["polish_iterations"] - 1) * chosen["polish_steps"]
    chosen = record["config"]["learner"]
    return chosen["updates"] + chosen.get("behaviour_updates", 0)


def evaluated(record: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Gradient steps `[I]` of the policy at a training's evaluations, and scores `[I, S]`, of a sweep `[I, S, C]`;
    returns where there are no scores."""
    found = [entry for entry in record["history"] if "return" in entry]
    steps = np.array([entry["iteration"] * record["config"]["block"] for entry in found])
    return steps, np.array([entry["score"] if "score" in entry else np.mean(entry["return"], -1) for entry in found])


def shown_score(record: dict[str, Any]) -> np.ndarray:
    """`[S]`: the last evaluation of a learner; of a clustering the policy of the cluster with the best data."""
    return np.array(record["scores"]["chosen_score" if "chosen_score" in record["scores"] else "last_score"])


def _middle(values: np.ndarray) -> str:
    return f"{interquartile_mean(values):.1f}" if len(values) > 3 else "-"


def standings(entries: Sequence[Scored], methods: Sequence[str]) -> list[Standing]:
    """For the summary, in the order of `methods`: beside the score of the best policy in the data."""
    place = lambda entry: methods.index(entry.record["cell"]["method"])
    return [
        Standing(
            entry.record["cell"]["dataset"],
            entry.title,
            float(shown_score(entry.record).mean()),
            entry.paper,
            max(entry.record["policies"].values()),
        )
        for entry in sorted(entries, key=place)
    ]


def score_figures(entries: Sequence[Scored], reference: str) -> "dict[str, Figure]":
    """By stem: `score_figure`, and learners over tasks, beside the one with the title `reference`."""
    scores: dict[str, dict[str, np.ndarray]] = {}
    for entry in entries:
        task = columns.dataset_title(entry.record["cell"]["dataset"])
        scores.setdefault(entry.title, {})[task] = shown_score(entry.record)
    return {"scores": score_figure(entries), **comparison_figures(scores, "normalised score", reference)}


def score_figure(entries: Sequence[Scored]) -> "Figure":
    """A panel a dataset: bars with intervals, published scores as circles, those of the data as lines."""
    by_dataset: dict[str, list[Scored]] = {}
    for entry in entries:
        by_dataset.setdefault(entry.record["cell"]["dataset"], []).append(entry)
    figure, axes = panels(by_dataset, 3.4)
    for ax, shown in zip(axes, by_dataset.values(), strict=True):
        for position, entry in enumerate(shown):
            color = plotting.PALETTE[0 if entry.from_clusters else 1]
            draw_mean(ax, position, shown_score(entry.record), color)
            if entry.paper is not None:
                ax.plot(entry.paper, position, "o", mfc="none", mec="black", ms=8, zorder=4)
        for policy, value in shown[0].record["policies"].items():
            ax.axvline(value, color="black", linewidth=1, linestyle="--", zorder=1)
            ax.text(value, len(shown) - 0.45, f"{policy} ", fontsize=6, ha="right", zorder=4)
        ax.set_yticks(range(len(shown)), [entry.title for entry in shown], fontsize=6)
        ax.set_xlabel("normalised score (circle: published)", fontsize=7)
        ax.set_ylim(len(shown) - 0.4, -0.6)
    return captioned(
        figure,
        "Normalised scores of each task's learners: means over seeds with 95% bootstrap intervals, beside those of the "
        "policies in the data (dashed) and published ones (circles).",
    )
