"""Scales at which learners are trained, for every table that has them."""

from trajclust_experiments.catalogue import entries
from trajclust_experiments.tables import Preset
from trajclust_jax.learners.learner import ActorCritic

_TINY = {"updates": 200, "block": 100, "batch_size": 32, "actor_features": (32, 32)}
_TINY_CRITICS = {**_TINY, "features": (32, 32)}
_SHORT = {"updates": 100_000}

LEARNING = {
    "smoke": Preset(
        "seconds: does everything run? The numbers mean nothing",
        size=6,
        long_size=6,
        seeds=2,
        settings={
            **{
                name: _TINY_CRITICS if issubclass(entry.algorithm, ActorCritic) else _TINY
                for name, entry in entries("learner").items()
            },
            "brac_v": {**_TINY_CRITICS, "behaviour_updates": 200},
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
            "brac_v": {**_SHORT, "behaviour_updates": 100_000},
        },
    ),
    "paper": Preset(
        "1,000 trajectories a policy, a million gradient steps, 10 seeds", size=1000, long_size=1000, seeds=10
    ),
}
