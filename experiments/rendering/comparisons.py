"""Learners over several tasks, as Agarwal et al. compare them: intervals, performance profiles, improvement.

"Deep Reinforcement Learning at the Edge of the Statistical Precipice" (2021), sections 4.1 to 4.3. Bands and bars are
95% percentile intervals of the stratified bootstrap: seeds are drawn within tasks. The same scores give the same
figures.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from trajclust_experiments.rendering.figures import caption_of, captioned, new_figure
from trajclust_jax.lazy import lazy
from trajclust_jax.metrics import interquartile_mean, probability_of_improvement, stratified_bootstrap

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

plotting = lazy("trajclust_envs.plotting")

Scores = Mapping[str, Mapping[str, np.ndarray]]  # [S] by learner and task
LEVELS = 101  # of a score, of a profile
DRAWS = 500  # of the bootstrap: a figure's width is no finer


def comparison_figures(scores: Scores, measure: str, reference: str | None = None) -> "dict[str, Figure]":
    """Three figures by stem, each where there is something to compare: `intervals`, `profiles`, `improvement`.

    Aggregates are of the same tasks for all: those that most learners share (see `shared_tasks`). An improvement is
    over the reference, on the tasks that the two share. Where a run diverged (a score that is not finite) the learner
    has not run on the task; captions say so.

    Args:
        scores: `[S]` by the titles of learner and task; numbers of seeds may differ.
        measure: what a score is, for axes.
        reference: a learner's title; where it has no scores there is no improvement to show.
    """
    finite = {
        learner: {task: values for task, values in found.items() if np.isfinite(values).all()}
        for learner, found in scores.items()
    }
    learners, tasks = shared_tasks(finite)
    figures = {}
    if len(learners) > 1:
        shared = {learner: [finite[learner][task] for task in tasks] for learner in learners}
        of = f"{measure} on {'; '.join(tasks)}, of the {len(learners)} that have run on {'all' if tasks[1:] else 'it'}"
        figures["intervals"] = _intervals(shared, measure, of, len(tasks))
        figures["profiles"] = _profiles(shared, measure, of)
    pairs = {
        learner: [task for task in found if task in finite.get(reference, {})]
        for learner, found in finite.items()
        if learner != reference
    }
    pairs = {learner: tasks for learner, tasks in pairs.items() if tasks}
    if pairs:
        figures["improvement"] = _improvement(finite, pairs, reference, measure)
    diverged = [f"{name} on {task}" for name, found in scores.items() for task in found if task not in finite[name]]
    if diverged:
        for figure in figures.values():
            captioned(figure, f"{caption_of(figure)} Left out, as a run diverged: {'; '.join(diverged)}.")
    return figures


def shared_tasks(scores: Scores) -> tuple[list[str], list[str]]:
    """Learners and tasks such that each learner has scores of all the tasks: as many scores as can be.

    Of the sets of tasks that a learner has, or two share, that with the most learners times tasks; of equals the
    larger.
    """
    having = [frozenset(found) for found in scores.values()]
    candidates = dict.fromkeys(one & other for one in having for other in having)
    count = lambda tasks: sum(tasks <= other for other in having)
    best = max(candidates, key=lambda tasks: (len(tasks) * count(tasks) * (count(tasks) > 1), len(tasks)), default=None)
    if not best:
        return [], []
    learners = [learner for learner, found in scores.items() if best <= set(found)]
    return learners, [task for task in scores[learners[0]] if task in best]


def _bootstrapped(values: Sequence[np.ndarray], statistic: Callable) -> tuple:
    """The statistic itself, and its interval."""
    low, high = stratified_bootstrap(values, statistic, np.random.default_rng(0), num=DRAWS)
    return statistic(np.concatenate(values)), low, high


def _aggregates(sizes: Sequence[int]) -> dict[str, Callable[[np.ndarray], float]]:
    """Of all scores in one vector, `sizes` of each task."""
    of_tasks = lambda values: [part.mean() for part in np.split(values, np.cumsum(sizes)[:-1])]
    return {
        "interquartile mean": interquartile_mean,
        "mean": lambda values: float(np.mean(of_tasks(values))),
        "median of tasks": lambda values: float(np.median(of_tasks(values))),
    }


def _draw_interval(ax: "Axes", position: float, middle: float, low: float, high: float) -> None:
    """An interval as a bar, with a line across it at its middle."""
    ax.barh(position, high - low, left=low, height=0.5, color=plotting.PALETTE[0], alpha=0.5)
    ax.plot([middle, middle], [position - 0.25, position + 0.25], color="black", lw=1.5)


def _intervals(shared: Mapping[str, Sequence[np.ndarray]], measure: str, of: str, num_tasks: int) -> "Figure":
    names = list(_aggregates([1]))[: 3 if num_tasks > 1 else 2]  # of one task the median is its mean
    figure = new_figure(1.8 + 2.4 * len(names), 0.9 + 0.3 * len(shared))
    for ax, name in zip(figure.subplots(1, len(names), sharey=True, squeeze=False)[0], names, strict=True):
        for position, values in enumerate(shared.values()):
            sizes = list(map(len, values))
            _draw_interval(ax, position, *_bootstrapped(values, _aggregates(sizes)[name]))
        ax.set_title(name, fontsize=9)
        ax.locator_params(axis="x", nbins=5)
        ax.tick_params(labelsize=7)
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(axis="x", alpha=0.3)
    ax.set_yticks(range(len(shared)), list(shared), fontsize=7)
    ax.set_ylim(len(shared) - 0.4, -0.6)
    figure.supxlabel(measure, fontsize=8)
    return captioned(figure, f"Aggregates over seeds and tasks, with 95% stratified bootstrap intervals: {of}.")


def _profiles(shared: Mapping[str, Sequence[np.ndarray]], measure: str, of: str) -> "Figure":
    every = np.concatenate([part for values in shared.values() for part in values])
    levels = np.linspace(every.min(), every.max(), LEVELS)
    figure = new_figure(6.4, 3.4)
    ax = figure.subplots()
    styles = ("-", "--", ":", "-.")
    for index, (learner, values) in enumerate(shared.items()):
        weights = np.concatenate([np.full(len(part), 1 / len(part) / len(values)) for part in values])
        share = lambda scores, weights=weights: weights @ (scores[:, None] > levels)
        middle, low, high = _bootstrapped(values, share)
        color, style = plotting.PALETTE[index % len(plotting.PALETTE)], styles[index // len(plotting.PALETTE) % 4]
        ax.plot(levels, middle, style, color=color, lw=1.5, label=learner)
        ax.fill_between(levels, low, high, color=color, alpha=0.12, lw=0)
    ax.set_xlabel(f"{measure}, $\\tau$", fontsize=8)
    ax.set_ylabel("share of runs above $\\tau$", fontsize=8)
    ax.set_ylim(-0.02, 1.02)
    ax.tick_params(labelsize=7)
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize=7, frameon=False)
    return captioned(figure, f"Performance profiles, the share of runs above each level, with 95% bands: {of}.")


def _improvement(scores: Scores, pairs: Mapping[str, Sequence[str]], reference: str, measure: str) -> "Figure":
    figure = new_figure(5.4, 0.9 + 0.3 * len(pairs))
    ax = figure.subplots()
    for position, (learner, tasks) in enumerate(pairs.items()):
        both = [scores[name][task] for name in (learner, reference) for task in tasks]
        cuts = np.cumsum(list(map(len, both)))[:-1]

        def better(values, cuts=cuts, tasks=tasks):
            parts = np.split(values, cuts)
            return probability_of_improvement(parts[: len(tasks)], parts[len(tasks) :])

        _draw_interval(ax, position, *_bootstrapped(both, better))
    labels = [f"{learner} ({len(tasks)} task{'s' if len(tasks) > 1 else ''})" for learner, tasks in pairs.items()]
    ax.set_yticks(range(len(pairs)), labels, fontsize=7)
    ax.set(xlim=(-0.02, 1.02), ylim=(len(pairs) - 0.4, -0.6))
    ax.axvline(0.5, color="black", lw=1, ls="--")
    ax.set_xlabel(f"P(a run is better than one of {reference})", fontsize=8)
    ax.tick_params(axis="x", labelsize=7)
    ax.spines[["top", "right"]].set_visible(False)
    return captioned(
        figure,
        f"The probability that a run has a higher {measure} than one of {reference}, mean over the tasks that both "
        "have, with 95% stratified bootstrap intervals.",
    )
