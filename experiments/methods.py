"""The methods that tables and `trajclust cluster` know by name."""

import dataclasses
from collections.abc import Callable
from typing import Any

from trajclust_jax.clustering import PGKmeans

ORACLE = "oracle"


@dataclasses.dataclass(frozen=True)
class MethodEntry:
    """A named method: `build(num_clusters, **settings)` gives the algorithm with its default settings."""

    title: str
    summary: str
    build: Callable[..., Any]


def _pg_kmeans(policy: str) -> Callable[..., PGKmeans]:
    return lambda num_clusters, **settings: PGKmeans.default(num_clusters, policy, **settings)


METHODS: dict[str, MethodEntry] = {
    "pg_kmeans_tabular": MethodEntry(
        "PG-Kmeans, tabular", "hard EM, one probability for each (observation, action)", _pg_kmeans("tabular")
    ),
    "pg_kmeans_mlp": MethodEntry("PG-Kmeans, MLP", "hard EM, Markov policies (FC 128-128)", _pg_kmeans("mlp")),
    "pg_kmeans_gru": MethodEntry("PG-Kmeans, GRU", "hard EM, policies of the observations so far", _pg_kmeans("gru")),
    "pg_kmeans_planner": MethodEntry(
        "PG-Kmeans, planner", "hard EM, policies that plan on the map they observe", _pg_kmeans("planner")
    ),
}


def select(names: tuple[str, ...], available: tuple[str, ...], what: str) -> tuple[str, ...]:
    """The available names that equal one of `names` or begin with it and `_`; all of them for no names.

    Raises:
        ValueError: for a name that selects nothing.
    """
    for name in names:
        if not any(_matches(name, each) for each in available):
            raise ValueError(f"unknown {what} {name!r}: choose from {', '.join(available)}")
    return tuple(each for each in available if not names or any(_matches(name, each) for name in names))


def _matches(name: str, candidate: str) -> bool:
    return candidate == name or candidate.startswith(f"{name}_")
