"""Table 4 of the PG-Kmeans paper: normalised returns of its centres' policies and of offline learners.

    trajclust run pgkmeans/table4 --preset cpu --datasets hopper

The paper evaluates the policies of the two clusters that are not empty and has the learners' numbers from CORL, on
D4RL's data. Ours are all on the data the caption names. Besides, BC on that of PG-Kmeans' two clusters whose
trajectories have the higher mean return: what one does with a clustering.
"""

from typing import Any

import numpy as np

from trajclust_envs.plotting import PALETTE
from trajclust_experiments.learner_cells import CentreCell, LearnerCell
from trajclust_experiments.learners import LEARNERS
from trajclust_experiments.methods import CENTRES, long_settings
from trajclust_experiments.papers.pgkmeans import common
from trajclust_experiments.rendering import document, provenance, spread
from trajclust_experiments.runner import Cell
from trajclust_experiments.tables import Preset, Records, Table
from trajclust_jax.learners.learner import ActorCritic
from trajclust_jax.metrics import (
    bootstrap_interval,
    interquartile_mean,
    probability_of_improvement,
    stratified_bootstrap,
)

PUBLISHED = {
    "centres_single": {"halfcheetah": 56.5, "ant": 76.3, "walker2d": 44.3, "hopper": 42.48},
    "centres": {"halfcheetah": 83.4, "ant": 130.4, "walker2d": 104.5, "hopper": 87.2},
    "bc": {"halfcheetah": 55.9, "walker2d": 99.0, "hopper": 52.3},
    "bc_10": {"halfcheetah": 90.1, "walker2d": 108.7, "hopper": 111.2},
    "awac": {"halfcheetah": 93.6, "walker2d": 49.4, "hopper": 52.7},
    "cql_corl": {"halfcheetah": 95.6, "walker2d": 109.6, "hopper": 99.3},
}
ON_CLUSTER = "bc_on_cluster"
METHODS = ("centres_single", "centres", "bc", ON_CLUSTER, "bc_10", "awac", "cql_corl")
DATASETS = tuple(name for name in common.PAPER_DATASETS if name.endswith("medium-expert"))

_TINY = {"updates": 200, "block": 100, "batch_size": 32, "actor_features": (32, 32)}
_TINY_CRITICS = {**_TINY, "features": (32, 32)}
_SHORT = {"updates": 100_000}
PRESETS = {
    "smoke": Preset(
        "seconds: does everything run? The numbers mean nothing",
        size=6,
        long_size=6,
        seeds=2,
        settings={
            **{
                name: _TINY_CRITICS if issubclass(entry.algorithm, ActorCritic) else _TINY
                for name, entry in LEARNERS.items()
            },
            "brac_v": {**_TINY_CRITICS, "behaviour_updates": 200},
            "centres": {"iterations": 2, "polish_iterations": 1, "polish_first_steps": 20, "polish_steps": 10},
            "centres_single": {"iterations": 2, "polish_iterations": 1, "polish_first_steps": 20, "polish_steps": 10},
        },
    ),
    "cpu": Preset(
        "hours on 2 CPU cores: 200 trajectories a policy, 100,000 gradient steps (CQL 20,000), 3 seeds",
        size=200,
        long_size=200,
        seeds=3,
        settings={
            **dict.fromkeys(LEARNERS, _SHORT),
            **{name: {"updates": 20_000} for name in ("cql", "cql_corl")},
            "brac_v": {**_SHORT, "behaviour_updates": 100_000},
        },
    ),
    "paper": Preset(
        "1,000 trajectories a policy, a million gradient steps, 10 seeds", size=1000, long_size=1000, seeds=10
    ),
}


# Policies that are to act are trained for longer than those that only tell trajectories apart.
ACTING = {"polish_steps": 5_000}


def clustering_settings(preset: Preset, method: str, **settings: Any) -> dict[str, Any]:
    """PG-Kmeans' settings on long data, but for `settings`; `method` is a name in CENTRES."""
    settings = {**long_settings("pg_kmeans_mlp"), **settings, **preset.settings.get(method, {})}
    return settings | ({"restarts": 1} if method == "centres_single" else {})


def cells(preset: Preset, datasets, methods, seeds) -> list[Cell]:
    """A cell a dataset and method."""
    chosen: list[Cell] = []
    for dataset in datasets:
        for method in methods:
            learner = "bc" if method == ON_CLUSTER else method
            settings = preset.settings.get(learner, {})
            if method in CENTRES:
                settings = clustering_settings(preset, method, **ACTING)
            place = (dataset, preset.long_size, learner, tuple(seeds), tuple(sorted(settings.items())))
            if method in CENTRES:
                chosen.append(CentreCell(*place))
            else:
                found = {}
                if method == ON_CLUSTER:
                    chosen_by = tuple(clustering_settings(preset, "centres").items())
                    found = {"clusters": "pg_kmeans_mlp", "cluster_settings": chosen_by}
                chosen.append(LearnerCell(*place, **found))
    return chosen


def name_of(record: dict) -> str:
    """A record's column."""
    return ON_CLUSTER if record["cell"].get("clusters") else record["cell"]["method"]


def title(name: str) -> str:
    """A column's title."""
    if name == ON_CLUSTER:
        return "BC on PG-Kmeans' better cluster"
    return LEARNERS[name].title if name in LEARNERS else CENTRES[name].title


def updates(record: dict) -> int:
    """Gradient steps of each policy: a learner's, or those of a clustering's last phase, whose policies begin anew."""
    if record["cell"]["method"] in CENTRES:
        chosen = record["cell"]["hyperparameters"]
        return chosen["polish_first_steps"] + (chosen["polish_iterations"] - 1) * chosen["polish_steps"]
    chosen = record["config"]["learner"]
    return chosen["updates"] + chosen.get("behaviour_updates", 0)


def shown_score(record: dict) -> np.ndarray:
    """`[S]`: the last evaluation of a learner; of a clustering the policy of the cluster with the best data."""
    return np.array(record["scores"]["chosen_score" if "chosen_score" in record["scores"] else "last_score"])


def score_rows(records: Records, names: tuple[str, ...], published: dict[str, dict[str, float]]):
    """Rows of dataset, method, last and best score, and a figure of the last ones."""
    grouped: dict[str, dict[str, dict]] = {}
    for record in records:
        grouped.setdefault(record["cell"]["dataset"], {})[name_of(record)] = record
    figure, axes = common.panels(grouped, 3.4)
    rows = []
    for ax, (dataset, found) in zip(axes, grouped.items(), strict=True):
        policies = next(iter(found.values()))["policies"]
        shown = [name for name in names if name in found]
        for position, name in enumerate(shown):
            record = found[name]
            values, best = shown_score(record), np.array(record["scores"]["best_score"])
            low, high = bootstrap_interval(values, np.random.default_rng(0))
            paper = published.get(name, {}).get(common.TASKS.get(dataset, dataset))
            seconds = record["timing"]
            rows.append(
                [
                    common.TITLES[dataset],
                    title(name),
                    spread(values, 1),
                    f"{low:.1f} to {high:.1f}",
                    f"{interquartile_mean(values):.1f}" if len(values) > 3 else "-",
                    f"{best.mean():.1f}",
                    "-" if paper is None else f"{paper:.1f}",
                    "; ".join(f"{policy} {value:.1f}" for policy, value in policies.items()),
                    f"{updates(record):,}",
                    str(len(values)),
                    f"{seconds['compile_seconds']:.0f} + {seconds['run_seconds']:.0f}",
                ]
            )
            color = PALETTE[0 if name == ON_CLUSTER or name in CENTRES else 1]
            ax.barh(position, values.mean(), height=0.6, color=color, zorder=2)
            error = [[values.mean() - low], [high - values.mean()]]
            ax.errorbar(values.mean(), position, xerr=error, color="black", capsize=3, lw=1, zorder=3)
            if paper is not None:
                ax.plot(paper, position, "o", mfc="none", mec="black", ms=8, zorder=4)
        for policy, value in policies.items():
            ax.axvline(value, color="black", linewidth=1, linestyle="--", zorder=1)
            ax.text(value, len(shown) - 0.45, f"{policy} ", fontsize=6, ha="right", zorder=4)
        ax.set_yticks(range(len(shown)), [title(name) for name in shown], fontsize=6)
        ax.set_xlabel("normalised score (circle: published)", fontsize=7)
        ax.set_ylim(len(shown) - 0.4, -0.6)
    return rows, figure


HEADER = ["task", "policies", "score", "95% interval", "interquartile mean", "best evaluation", "paper", "the data"]
HEADER += ["gradient steps", "seeds", "seconds, all seeds (compile + run)"]
NOTES = [
    "Scores are D4RL-normalised, of 10 episodes a seed without the policies' noise: mean ± std and bootstrap interval "
    "over seeds, after the last gradient step; best evaluation: the highest of each seed's, which flatters.",
]


def render(records: Records):
    rows, figure = score_rows(records, METHODS, PUBLISHED)
    notes = [
        *provenance(records),
        *NOTES,
        "PG-Kmeans' policies: score is that of the cluster whose trajectories have the highest mean return, best "
        "evaluation that of the best policy of all clusters, as in the paper.",
        "BC on the better cluster: all seeds learn from one clustering, whose luck is not in the intervals.",
        "The paper's numbers are of D4RL's data; its learners' are CORL's.",
        *_clustering_pays(records),
    ]
    return document("PG-Kmeans paper, Table 4: normalised returns", HEADER, rows, notes), {"scores": figure}


def _clustering_pays(records: Records) -> list[str]:
    """BC on the better cluster against BC on everything, a line a dataset that has both."""
    found = {(record["cell"]["dataset"], name_of(record)): shown_score(record) for record in records}
    lines = []
    for dataset in DATASETS:
        apart, together = found.get((dataset, ON_CLUSTER)), found.get((dataset, "bc"))
        if apart is None or together is None or len(apart) != len(together):
            continue
        low, high = stratified_bootstrap([apart, together], _difference_of_halves, np.random.default_rng(0))
        better = probability_of_improvement([apart], [together])
        lines.append(
            f"{common.TITLES[dataset]}: BC on the better cluster is {apart.mean() - together.mean():+.1f} above BC on "
            f"everything ({low:+.1f} to {high:+.1f}), and better with probability {better:.2f}."
        )
    return lines


def _difference_of_halves(values: np.ndarray) -> float:
    first, second = np.split(values, 2)
    return first.mean() - second.mean()


TABLE = Table(
    name="pgkmeans/table4",
    summary="normalised returns of PG-Kmeans' policies and of offline learners",
    datasets=DATASETS,
    methods=METHODS,
    presets=PRESETS,
    cells=cells,
    render=render,
)
