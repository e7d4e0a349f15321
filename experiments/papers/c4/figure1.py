"""Figure 1 of the C^4 paper, right: the terms of the TD error's variance beside the score, over the training.

    trajclust run c4/figure1 --preset cpu --datasets hopper-medium-expert --methods td3_bc

A = tr Cov(g'), B = tr Cov(g), C = tr Cov(g', g) of the first critic's gradients, by their number and in units of the
variance of Q. The paper says that A and B help and C harms: the table has their rank correlations with the score over
all evaluations and seeds of a training. The cells are Table 1's. The figure's left half, cosines of the gradients of
the mean and the variance of the error, is not made.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from trajclust_experiments.papers import c4
from trajclust_experiments.papers.c4 import Line
from trajclust_experiments.rendering import columns
from trajclust_experiments.rendering.columns import Column
from trajclust_experiments.rendering.figures import captioned, panels
from trajclust_experiments.tables import Records, Table
from trajclust_jax.lazy import lazy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

plotting = lazy("trajclust_envs.plotting")
stats = lazy("scipy.stats")

TERMS = ("a", "b", "c")


def _terms(record) -> dict[str, np.ndarray]:
    """`[I, S]` each, at the evaluations; and the scores."""
    at = [entry for entry in record["history"] if "score" in entry and "clusters/variance" in entry]
    of = lambda name: np.array([entry[name] for entry in at], float)
    found = {term: of(f"clusters/{term}") / np.maximum(of("clusters/variance"), 1e-12) for term in TERMS}
    return {**found, "score": of("score")}


def _late(term: str):
    return lambda line: f"{_terms(line.record)[term][-1].mean():.3g}"


def _correlation(term: str):
    def text(line: Line) -> str:
        found = _terms(line.record)
        values, scores = found[term].ravel(), found["score"].ravel()
        if np.ptp(values) == 0 or np.ptp(scores) == 0:
            return "-"
        return f"{stats.spearmanr(values, scores).statistic:+.2f}"

    return text


COLUMNS = [
    columns.task(),
    columns.method("learner", lambda line: c4.title_of(line.record)),
    *(Column(f"{term.upper()} / var Q", _late(term)) for term in TERMS),
    *(Column(f"{term.upper()} with the score", _correlation(term)) for term in TERMS),
    columns.num_seeds(),
]


def _figure(shown: Sequence[Mapping[str, Any]]) -> "Figure":
    """A panel a record of one dataset."""
    figure, axes = panels([c4.title_of(record) for record in shown], 2.2)
    for ax, record in zip(axes, shown, strict=True):
        found, steps = _terms(record), c4.steps_of(record, "score")
        for color, term in zip(plotting.PALETTE, TERMS, strict=False):
            ax.plot(steps, found[term].mean(1), color=color, linewidth=1, label=term.upper())
        other = ax.twinx()
        other.plot(steps, found["score"].mean(1), color="black", linestyle="--", linewidth=1)
        ax.tick_params(labelsize=5)
        other.tick_params(labelsize=5)
        ax.set_xlabel("gradient steps (dashed: score)", fontsize=6)
        ax.legend(fontsize=5)
    caption = "Terms of the TD error's variance over the training, relative to that of Q, and the score (dashed)."
    return captioned(figure, caption)


def render(records: Records):
    by_dataset: dict[str, list[Mapping[str, Any]]] = {}
    for record in c4.in_order(records):
        by_dataset.setdefault(record["cell"]["dataset"], []).append(record)
    title = "C^4 paper, Figure 1: the terms of the TD error's variance beside the score"
    figures = {f"terms-{dataset}": _figure(shown) for dataset, shown in by_dataset.items()}
    return c4.page(title, COLUMNS, records), figures


TABLE = Table(
    name="c4/figure1",
    summary="the terms of the TD error's variance beside the score",
    datasets=c4.DATASETS,
    methods=c4.METHODS,
    presets=c4.PRESETS,
    cells=c4.cells,
    render=render,
)
