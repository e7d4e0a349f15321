"""Table 8 of the PG-Kmeans paper: the best normalised return over the policies of k clusters.

    trajclust run pgkmeans/table8 --preset cpu --datasets hopper

k clusters from the beginning to the end, nothing merged; one run a seed.
"""

import dataclasses
from typing import Any

import numpy as np

from trajclust_experiments.catalogue import CATALOGUE
from trajclust_experiments.cells.cell import Cell
from trajclust_experiments.cells.learners import CentreCell
from trajclust_experiments.papers import pgkmeans
from trajclust_experiments.papers.pgkmeans import table4
from trajclust_experiments.rendering import columns
from trajclust_experiments.rendering.columns import Column, Entry
from trajclust_experiments.rendering.figures import captioned, panels
from trajclust_experiments.rendering.markdown import provenance
from trajclust_experiments.rendering.scores import updates
from trajclust_experiments.tables import Preset, Records, Table
from trajclust_jax.lazy import lazy

plotting = lazy("trajclust_envs.plotting")

COUNTS = (3, 4, 5, 6, 7, 8, 10, 12, 15)
PUBLISHED = {  # by k as above
    "halfcheetah": (40.47, 42.13, 45.75, 32.58, 69.79, 68.47, 28.76, 88.95, 49.59),
    "hopper": (44.42, 45.56, 46.47, 111.24, 80.84, 69.85, 93.44, 24.07, 101.33),
    "ant": (22.27, 116.91, 111.94, 61.97, 103.52, 130.80, 47.78, 67.38, 67.80),
    "walker2d": (107.44, 8.69, 109.84, 62.74, 103.32, 1.29, 98.26, 6.33, -0.09),
}
PRESETS = {
    **table4.PRESETS,
    "cpu": dataclasses.replace(
        table4.PRESETS["cpu"],
        summary="50 trajectories a policy, 3 seeds; policies of 800 gradient steps",
        long_size=50,
        size=50,
        settings={"centres_single": {"polish_steps": CATALOGUE["centres_single"].long_settings()["polish_steps"]}},
    ),
    "paper": dataclasses.replace(table4.PRESETS["paper"], summary="1,000 trajectories a policy, 10 seeds"),
}


def cells(preset: Preset, datasets, methods, seeds) -> list[Cell]:
    """A cell a dataset and k."""
    chosen: list[Cell] = []
    usual = table4.clustering_settings(preset, "centres_single", **table4.ACTING)
    usual |= {"extra_clusters": 0, "reconsidered": 0.0}  # a fight of 15 policies costs 15 times the steps
    for dataset in datasets:
        for method in methods:
            for count in COUNTS:
                settings = tuple(sorted({**usual, "num_clusters": count}.items()))
                chosen.append(CentreCell(dataset, preset.long_size, method, tuple(seeds), settings))
    return chosen


def _count(record: dict[str, Any]) -> int:
    return record["cell"]["hyperparameters"]["num_clusters"]


def _paper(entry: Entry) -> float:
    return PUBLISHED[pgkmeans.TASKS[entry.record["cell"]["dataset"]]][COUNTS.index(_count(entry.record))]


def _data(entry: Entry) -> str:
    return "; ".join(f"{policy} {value:.1f}" for policy, value in entry.record["policies"].items())


COLUMNS = [
    columns.task(),
    Column("k", lambda entry: str(_count(entry.record))),
    columns.score("best_score", "best of k policies", digits=1),
    columns.published(_paper)[0],
    Column("policy of the best data", lambda entry: f"{np.mean(entry.record['scores']['chosen_score']):.1f}"),
    Column("the data", _data),
    Column("gradient steps", lambda entry: f"{updates(entry.record):,}"),
    columns.num_seeds(),
]


def render(records: Records):
    by_dataset: dict[str, list[dict[str, Any]]] = {}
    for record in sorted(records, key=_count):
        by_dataset.setdefault(record["cell"]["dataset"], []).append(record)
    by_dataset = {dataset: by_dataset[dataset] for dataset in table4.DATASETS if dataset in by_dataset}
    figure, axes = panels(by_dataset, 2.6)
    for ax, (dataset, found) in zip(axes, by_dataset.items(), strict=True):
        best = [np.array(record["scores"]["best_score"]) for record in found]
        mean, std = [values.mean() for values in best], [values.std() for values in best]
        ax.errorbar(list(map(_count, found)), mean, std, color=plotting.PALETTE[0], marker="o", label="ours")
        ax.plot(COUNTS, PUBLISHED[pgkmeans.TASKS[dataset]], "s--", color="gray", mfc="none", label="published")
        for policy, value in found[0]["policies"].items():
            ax.axhline(value, color="black", linewidth=1, linestyle=":")
            ax.text(COUNTS[0], value, policy, fontsize=6, va="bottom")
        ax.set(xlabel="clusters k", xticks=COUNTS)
        ax.legend(fontsize=6)
    axes[0].set_ylabel("normalised score of the best policy")
    notes = [
        *provenance(records),
        "Mean ± std over seeds of D4RL-normalised scores, 10 episodes a policy, without its noise. The paper's runs "
        "marked as not fully trained or collapsed are among its numbers. The best of k is chosen by the episodes that "
        "it is scored on, which flatters large k.",
        "Policy of the best data: of the cluster whose trajectories have the highest mean return; chosen without "
        "evaluating any.",
    ]
    lines = [Entry(record) for found in by_dataset.values() for record in found]
    title = "PG-Kmeans paper, Table 8: the best of k policies"
    caption = (
        "Normalised score of the best of k clusters' policies, ours (mean and standard deviation over seeds) and "
        "published; dotted: the policies of the data."
    )
    return columns.table(title, COLUMNS, lines, notes), {"score-against-k": captioned(figure, caption)}


TABLE = Table(
    name="pgkmeans/table8",
    summary="the best return over the policies of 3 to 15 clusters",
    datasets=table4.DATASETS,
    methods=("centres_single",),
    presets=PRESETS,
    cells=cells,
    render=render,
)
