"""Table 8 of the PG-Kmeans paper: the best normalised return over the policies of k clusters.

    trajclust run pgkmeans/table8 --preset cpu --datasets hopper

k clusters from the beginning to the end, nothing merged; one run a seed.
"""

import dataclasses

import numpy as np

from trajclust_envs.plotting import PALETTE
from trajclust_experiments.learner_cells import CentreCell
from trajclust_experiments.methods import long_settings
from trajclust_experiments.papers.pgkmeans import common, table4
from trajclust_experiments.rendering import document, provenance, spread
from trajclust_experiments.runner import Cell
from trajclust_experiments.tables import Preset, Records, Table

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
        settings={"centres_single": {"polish_steps": long_settings("pg_kmeans_mlp")["polish_steps"]}},
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


def render(records: Records):
    grouped: dict[str, dict[int, dict]] = {}
    for record in records:
        cell = record["cell"]
        grouped.setdefault(cell["dataset"], {})[cell["hyperparameters"]["num_clusters"]] = record
    figure, axes = common.panels(grouped, 2.6)
    rows = []
    for ax, (dataset, found) in zip(axes, grouped.items(), strict=True):
        published = PUBLISHED[common.TASKS[dataset]]
        known = [count for count in COUNTS if count in found]
        best = [np.array(found[count]["scores"]["best_score"]) for count in known]
        for count, values in zip(known, best, strict=True):
            record = found[count]
            rows.append(
                [
                    common.TITLES[dataset],
                    str(count),
                    spread(values, 1),
                    f"{published[COUNTS.index(count)]:.2f}",
                    f"{np.mean(record['scores']['chosen_score']):.1f}",
                    "; ".join(f"{policy} {value:.1f}" for policy, value in record["policies"].items()),
                    f"{table4.updates(record):,}",
                    str(len(values)),
                ]
            )
        ax.errorbar(
            known, [v.mean() for v in best], [v.std() for v in best], color=PALETTE[0], marker="o", label="ours"
        )
        ax.plot(COUNTS, published, "s--", color="gray", mfc="none", label="published")
        for policy, value in next(iter(found.values()))["policies"].items():
            ax.axhline(value, color="black", linewidth=1, linestyle=":")
            ax.text(COUNTS[0], value, policy, fontsize=6, va="bottom")
        ax.set(xlabel="clusters k", xticks=COUNTS)
        ax.legend(fontsize=6)
    axes[0].set_ylabel("normalised score of the best policy")
    header = [
        "task",
        "k",
        "best of k policies",
        "paper",
        "policy of the best data",
        "the data",
        "gradient steps",
        "seeds",
    ]
    notes = [
        *provenance(records),
        "Mean ± std over seeds of D4RL-normalised scores, 10 episodes a policy, without its noise. The paper's runs "
        "marked as not fully trained or collapsed are among its numbers. The best of k is chosen by the episodes that "
        "it is scored on, which flatters large k.",
        "Policy of the best data: of the cluster whose trajectories have the highest mean return; chosen without "
        "evaluating any.",
    ]
    return document("PG-Kmeans paper, Table 8: the best of k policies", header, rows, notes), {
        "score-against-k": figure
    }


TABLE = Table(
    name="pgkmeans/table8",
    summary="the best return over the policies of 3 to 15 clusters",
    datasets=table4.DATASETS,
    methods=("centres_single",),
    presets=PRESETS,
    cells=cells,
    render=render,
)
