"""Scales at which learners are trained, for every table that has them."""

from collections.abc import Sequence
from typing import Any

from trajclust_experiments.catalogue import entries
from trajclust_experiments.cells.cell import Cell
from trajclust_experiments.cells.learners import LearnerCell
from trajclust_experiments.tables import Preset
from trajclust_jax.learners.learner import ActorCritic

_TINY = {"updates": 200, "block": 100, "batch_size": 32, "actor_features": (32, 32)}
_TINY_CRITICS = {**_TINY, "features": (32, 32)}
_SHORT = {"updates": 100_000}
_TWO_STAGES = tuple(name for name, entry in entries("learner").items() if "behaviour_updates" in entry.names())
_TINY_EMPO = {
    **_TINY_CRITICS,
    **dict.fromkeys(("critic_updates", "value_updates"), 200),
    **{"bias_epochs": 1, "pretrain_epochs": 1, "em_epochs": 2, "epochs": 2},
}
_SHORT_EMPO = {  # a fifteenth of the critic's gradient steps: its target moves ten times as far
    **{"critic_updates": 100_000, "target_rate": 0.05, "value_updates": 30_000, "updates": 50_000, "epochs": 50},
    **{"pretrain_epochs": 5, "em_epochs": 25, "least_steps": 500},
}

LEARNING = {
    "smoke": Preset(
        "does everything run? Seconds to a minute a cell; the numbers mean nothing",
        size=6,
        long_size=6,
        seeds=2,
        settings={
            **{
                name: _TINY_CRITICS if issubclass(entry.algorithm, ActorCritic) else _TINY
                for name, entry in entries("learner").items()
            },
            **{name: {**_TINY_CRITICS, "behaviour_updates": 200} for name in _TWO_STAGES},
            "empo": _TINY_EMPO,
        },
    ),
    "cpu": Preset(
        "hours on 2 CPU cores: 200 trajectories a policy, 100,000 gradient steps (CQL 20,000), 3 seeds",
        size=200,
        long_size=200,
        seeds=3,
        settings={
            **dict.fromkeys(entries("learner"), _SHORT),
            **{name: {"updates": 20_000} for name in ("cql", "cql_corl")},
            **{name: {**_SHORT, "behaviour_updates": 100_000} for name in _TWO_STAGES},
            "empo": _SHORT_EMPO,
        },
    ),
    "paper": Preset(
        "1,000 trajectories a policy, a million gradient steps, 10 seeds", size=1000, long_size=1000, seeds=10
    ),
}


def learner_cells(
    preset: Preset, datasets: Sequence[str], methods: Sequence[str], seeds: Sequence[int], **more: Any
) -> list[Cell]:
    """A cell a dataset and learner, at one of these scales but for `more` settings."""
    settings = lambda method: tuple(sorted({**preset.settings.get(method, {}), **more}.items()))
    return [
        LearnerCell(dataset, preset.long_size, method, tuple(seeds), settings(method))
        for dataset in datasets
        for method in methods
    ]
