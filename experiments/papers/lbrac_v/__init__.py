"""What the LBRAC-v paper's tables share: its tasks, learners, cells, scales and published numbers.

Zhang and Kashima, "Behavior Estimation from Multi-Source Data for Offline Reinforcement Learning", AAAI 2023. The text
that we have does not hold its appendix, and so none of the numbers of its Tables 3 to 5.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trajclust_experiments.catalogue import CATALOGUE, title
from trajclust_experiments.cells.behaviours import LABELS, HeterogeneousCell, swept
from trajclust_experiments.presets import LEARNING
from trajclust_experiments.tables import Preset
from trajclust_jax.clustering.suited import SHORT_CONTINUOUS
from trajclust_jax.data import REGISTRY

TITLE = "LBRAC-v"
COUNTS = (1, 5, 10, 15, 20)  # K
D4RL = tuple(
    f"{task}-{kind}" for task in ("hopper", "halfcheetah", "walker2d") for kind in ("medium-expert", "medium-replay")
)
GATES = tuple(f"gates-{k}" for k in range(1, 9))
HETEROGENEOUS = tuple(
    name for task in ("hopper", "halfcheetah", "walker2d") for name in REGISTRY if name.startswith(f"{task}-hetero")
)

# Variants of LBRAC-v: what differs from the catalogue's entry.
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "lbrac_v_released": (
        "LBRAC-v, release",
        {"scale": 0.05, "behaviour_rate": 5e-5, "moves_behaviours": True, "penalty": 1.0},
    ),
    "lbrac_v_penalty_1": ("LBRAC-v, penalty 1", {"penalty": 1.0}),
    "lbrac_v_nearest": ("LBRAC-v, nearest behaviour, penalty 1", {"penalty": 1.0, "nearest": True}),
    "lbrac_v_labels": ("LBRAC-v, true labels, penalty 1", {"penalty": 1.0}),
}

# Table 1: normalised scores, of LBRAC-v with their std.
PUBLISHED: dict[str, dict[str, tuple[float, float] | float]] = {
    "halfcheetah-medium-replay": {"bc": 38.4, "plas": 43.9, "brac_v": 47.7, "cql": 46.2, "bcq": 38.2},
    "halfcheetah-medium-expert": {"bc": 35.8, "plas": 96.6, "brac_v": 41.9, "cql": 62.4, "bcq": 64.7},
    "walker2d-medium-replay": {"bc": 11.3, "plas": 30.2, "brac_v": 0.9, "cql": 26.7, "bcq": 15.0},
    "walker2d-medium-expert": {"bc": 6.4, "plas": 89.6, "brac_v": 81.6, "cql": 111.0, "bcq": 57.5},
    "hopper-medium-replay": {"bc": 11.8, "plas": 27.9, "brac_v": 0.6, "cql": 48.6, "bcq": 33.1},
    "hopper-medium-expert": {"bc": 111.9, "plas": 111.0, "brac_v": 0.8, "cql": 98.7, "bcq": 110.9},
}
for _name, _value in {
    "halfcheetah-medium-replay": (48.41, 0.14),
    "halfcheetah-medium-expert": (94.22, 1.00),
    "walker2d-medium-replay": (76.18, 4.47),
    "walker2d-medium-expert": (109.65, 0.23),
    "hopper-medium-replay": (81.89, 12.77),
    "hopper-medium-expert": (98.08, 6.39),
}.items():
    PUBLISHED[_name]["lbrac_v"] = _value

_SMOKE, _CPU, _PAPER = (LEARNING[name] for name in ("smoke", "cpu", "paper"))
PRESETS = {
    "smoke": dataclasses.replace(_SMOKE, seeds=2),
    "cpu": dataclasses.replace(
        _CPU,
        summary="a fifth of the paper's gradient steps, of heterogeneous sets 20,000 a stage, 3 seeds; on Gates 10",
    ),
    "paper": dataclasses.replace(_PAPER, summary="the paper's 500,000 + 500,000 gradient steps, 5 seeds", seeds=5),
}
GATES_EPISODES = 240  # in all, whatever k: each behaviour gives as many
STAGES = ("updates", "behaviour_updates")  # gradient steps of each
HETEROGENEOUS_STEPS = 20_000  # of a stage at preset cpu
TRANSITIONS = {"smoke": 500, "cpu": 200_000, "paper": 1_000_000}  # of a heterogeneous set, in all


def named(name: str) -> tuple[str, dict[str, Any]]:
    """A learner's or a variant's entry in the catalogue, and what it changes."""
    return ("lbrac_v", VARIANTS[name][1]) if name in VARIANTS else (name, {})


def title_of(name: str) -> str:
    """A learner's or a variant's title."""
    return VARIANTS[name][0] if name in VARIANTS else title(name)


def scale_of(preset: Preset) -> str:
    """Which of PRESETS it is."""
    return next(name for name, each in PRESETS.items() if each.summary == preset.summary)


def size_of(preset: Preset, dataset: str) -> int:
    """Trajectories of each policy, or steps: so many that k policies together have as many as one."""
    scale = scale_of(preset)
    if dataset in GATES:
        return max(1, (GATES_EPISODES if scale != "smoke" else 16) // REGISTRY[dataset].num_policies)
    if dataset in HETEROGENEOUS:
        return TRANSITIONS[scale] // REGISTRY[dataset].num_policies
    return preset.long_size


def suited(method: str, dataset: str) -> dict[str, Any]:
    """A clusterer's settings for a dataset with continuous actions."""
    entry = CATALOGUE[method]
    if REGISTRY[dataset].long:
        return entry.long_settings()
    return dict(SHORT_CONTINUOUS.get((entry.algorithm, entry.policy), {}))


def cell(
    preset: Preset, dataset: str, method: str, seeds: Sequence[int], clusters: str | None = None, **more: Any
) -> HeterogeneousCell:
    """A learner or a variant on a dataset; on Gates at the catalogue's scale for it, 20 episodes an evaluation."""
    entry, variant = named(method)
    gates = dataset in GATES
    of_preset = {} if gates and scale_of(preset) != "smoke" else preset.settings.get(entry, {})
    if dataset in HETEROGENEOUS and scale_of(preset) == "cpu":
        of_preset = {name: HETEROGENEOUS_STEPS if name in STAGES else each for name, each in of_preset.items()}
    if gates and scale_of(preset) == "cpu" and len(seeds) == preset.seeds:
        seeds = range(10)
    k = {"k": REGISTRY[dataset].num_policies} if entry == "lbrac_v" and dataset not in D4RL else {}
    settings = {**k, **of_preset, **variant, **more}
    clusters = LABELS if method == "lbrac_v_labels" else clusters
    cluster_settings = {} if clusters in (None, LABELS) else suited(clusters, dataset)
    return HeterogeneousCell(
        dataset,
        size_of(preset, dataset),
        entry,
        tuple(seeds),
        tuple(sorted(settings.items())),
        clusters=clusters,
        cluster_settings=tuple(sorted(cluster_settings.items())),
        episodes=20 if gates else 10,
    )


def name_of(record: Mapping[str, Any]) -> str:
    """A learner's or a variant's name, from its record."""
    described = record["cell"]
    if described["method"] != "lbrac_v":
        return described["method"]
    learner = record["config"]["learner"]
    if described.get("clusters") == LABELS:
        return "lbrac_v_labels"
    if learner["moves_behaviours"]:
        return "lbrac_v_released"
    if learner["nearest"]:
        return "lbrac_v_nearest"
    return "lbrac_v_penalty_1" if described["dataset"] in GATES and learner["penalty"] == 1.0 else "lbrac_v"


def by_k(record: Mapping[str, Any], name: str) -> list[tuple[int, np.ndarray]]:
    """Of a sweep over K each K with a score `[S]`."""
    values = np.array(record["scores"][name], float)
    return [(row["k"], values[:, place]) for place, row in enumerate(swept(record["config"]))]
