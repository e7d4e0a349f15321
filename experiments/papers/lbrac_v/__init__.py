"""What the LBRAC-v paper's tables share: its tasks, learners, cells, scales and published numbers.

Zhang and Kashima, "Behavior Estimation from Multi-Source Data for Offline Reinforcement Learning", AAAI 2023. The text
that we have does not hold its appendix, and so none of the numbers of its Tables 3 to 5.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Self

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
    f"{task}-{kind}"
    for task in ("hopper", "halfcheetah", "walker2d")
    for kind in ("medium-expert", "medium-replay", "medium")
)
GATES = tuple(f"gates-{k}" for k in range(1, 9))
HETEROGENEOUS = tuple(
    name for task in ("hopper", "halfcheetah", "walker2d") for name in REGISTRY if name.startswith(f"{task}-hetero")
)

# Variants of learners: title, learner, and what differs from the catalogue's entry.
VARIANTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    # LBRAC-v's critics learn while its behaviours do, and have layer normalisation.
    "brac_v_warm": ("BRAC-v, critics as LBRAC-v's", "brac_v", {"layer_norm": True}),
    "lbrac_v_released": (
        "LBRAC-v, release, penalty 1",
        "lbrac_v",
        {"scale": 0.05, "behaviour_rate": 5e-5, "moves_behaviours": True, "penalty": 1.0},
    ),
    "lbrac_v_penalty_1": ("LBRAC-v, penalty 1", "lbrac_v", {"penalty": 1.0}),
    "lbrac_v_nearest": ("LBRAC-v, nearest behaviour, penalty 1", "lbrac_v", {"penalty": 1.0, "nearest": True}),
    "lbrac_v_labels": ("LBRAC-v, true labels, penalty 1", "lbrac_v", {"penalty": 1.0}),
}

# Table 1: normalised scores, some with their std.
_NAMES = ("bc", "f_brc", "mopp", "plas", "brac_v", "cql", "bcq", "mopo", "lbrac_v")
PUBLISHED = {
    dataset: dict(zip(_NAMES, scores.split(), strict=True))
    for dataset, scores in {
        "halfcheetah-medium": "36.1 41.3±0.3 44.7±2.6 42.2 46.3 44.4 40.7 42.3±1.6 52.14±0.11",
        "halfcheetah-medium-replay": "38.4 43.2±1.5 43.1±4.3 43.9 47.7 46.2 38.2 53.1±2.0 48.41±0.14",
        "halfcheetah-medium-expert": "35.8 93.3±10.2 106.2±5.1 96.6 41.9 62.4 64.7 63.3±38.8 94.22±1.00",
        "walker2d-medium": "6.6 78.8±1.0 80.7±1.0 66.9 81.1 79.2 53.1 17.8±19.3 82.40±1.30",
        "walker2d-medium-replay": "11.3 41.8±7.9 18.5±8.4 30.2 0.9 26.7 15.0 39.0±9.6 76.18±4.47",
        "walker2d-medium-expert": "6.4 105.2±3.9 92.9±14.1 89.6 81.6 111.0 57.5 44.6±12.9 109.65±0.23",
        "hopper-medium": "29.0 99.4±0.3 31.8±1.3 36.9 31.1 58.0 54.5 28.0±12.4 100.50±0.57",
        "hopper-medium-replay": "11.8 35.6±1.0 32.3±5.9 27.9 0.6 48.6 33.1 67.5±24.7 81.89±12.77",
        "hopper-medium-expert": "111.9 112.4±0.3 95.4±28 111.0 0.8 98.7 110.9 23.7±6.0 98.08±6.39",
    }.items()
}


@dataclasses.dataclass(frozen=True)
class Scale(Preset):
    """A preset, and what is otherwise on the tasks of several behaviours."""

    on_gates: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)  # settings by learner
    gates_episodes: int = 240  # in all, whatever k: each behaviour gives as many
    gates_seeds: int | None = None  # in place of the preset's
    on_heterogeneous: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    transitions: int = 1_000_000  # of a heterogeneous set, in all

    def seeded(self, seeds: int | None) -> tuple[Self, tuple[int, ...]]:
        """See `Preset`: those asked for are Gates', too."""
        own, numbers = super().seeded(seeds)
        return own if seeds is None else dataclasses.replace(own, gates_seeds=None), numbers


def _scale(name: str, **more: Any) -> Scale:
    return Scale(**{**vars(LEARNING[name]), **more})


_TINY, _SHORT = LEARNING["smoke"].settings, LEARNING["cpu"].settings
_STEPS = ("updates", "behaviour_updates")  # gradient steps of each stage
_SHORTER = {
    learner: {name: 20_000 if name in _STEPS else value for name, value in settings.items()}
    for learner, settings in _SHORT.items()
}
PRESETS = {
    "smoke": _scale("smoke", on_gates=_TINY, gates_episodes=16, on_heterogeneous=_TINY, transitions=500),
    "cpu": _scale(
        "cpu",
        summary="a fifth of the paper's gradient steps, of LBRAC-v and heterogeneous sets 20,000 a stage, 3 seeds; "
        "on Gates 10",
        settings={**_SHORT, "lbrac_v": _SHORTER["lbrac_v"]},
        gates_seeds=10,
        on_heterogeneous=_SHORTER,
        transitions=200_000,
    ),
    "paper": _scale("paper", summary="the paper's 500,000 + 500,000 gradient steps, 5 seeds", seeds=5),
}


def named(name: str) -> tuple[str, dict[str, Any]]:
    """A learner's or a variant's entry in the catalogue, and what it changes."""
    return VARIANTS[name][1:] if name in VARIANTS else (name, {})


def title_of(name: str) -> str:
    """A learner's or a variant's title."""
    return VARIANTS[name][0] if name in VARIANTS else title(name)


def size_of(preset: Scale, dataset: str) -> int:
    """Trajectories of each policy, or steps: so many that k policies together have as many as one."""
    if dataset in GATES:
        return max(1, preset.gates_episodes // REGISTRY[dataset].num_policies)
    if dataset in HETEROGENEOUS:
        return preset.transitions // REGISTRY[dataset].num_policies
    return preset.long_size


def suited(method: str, dataset: str) -> dict[str, Any]:
    """A clusterer's settings for a dataset with continuous actions."""
    entry = CATALOGUE[method]
    if REGISTRY[dataset].long:
        return entry.long_settings()
    return dict(SHORT_CONTINUOUS.get((entry.algorithm, entry.policy), {}))


def cell(
    preset: Scale, dataset: str, method: str, seeds: Sequence[int], clusters: str | None = None, **more: Any
) -> HeterogeneousCell:
    """A learner or a variant on a dataset; on Gates at the catalogue's scale for it, 20 episodes an evaluation."""
    entry, variant = named(method)
    gates = dataset in GATES
    settings = preset.on_gates if gates else preset.on_heterogeneous if dataset in HETEROGENEOUS else preset.settings
    if gates and preset.gates_seeds and len(seeds) == preset.seeds:
        seeds = range(preset.gates_seeds)
    k = {"k": REGISTRY[dataset].num_policies} if entry == "lbrac_v" and dataset not in D4RL else {}
    chosen = {**k, **settings.get(entry, {}), **variant, **more}
    clusters = LABELS if method == "lbrac_v_labels" else clusters
    cluster_settings = {} if clusters in (None, LABELS) else suited(clusters, dataset)
    found = HeterogeneousCell(
        dataset,
        size_of(preset, dataset),
        entry,
        tuple(seeds),
        tuple(sorted(chosen.items())),
        clusters=clusters,
        cluster_settings=tuple(sorted(cluster_settings.items())),
        episodes=20 if gates else 10,
    )
    if method != "brac_v_warm":
        return found
    warm = {"warm_updates": found.build().learner.behaviour_updates}
    return dataclasses.replace(found, settings=tuple(sorted({**chosen, **warm}.items())))


def name_of(record: Mapping[str, Any]) -> str:
    """A learner's or a variant's name, from its record."""
    described, learner = record["cell"], record["config"]["learner"]
    if described["method"] == "brac_v" and learner["warm_updates"]:
        return "brac_v_warm"
    if described["method"] != "lbrac_v":
        return described["method"]
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
