"""The methods that tables and `trajclust cluster` know by name."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

from trajclust_jax.clustering import CAAE, DEC, Cloning, PGKmeans, Sorl, SummaryKmeans, VAEKmeans
from trajclust_jax.clustering import suited as rule
from trajclust_jax.clustering.model_selection import PGKmeansRange
from trajclust_jax.data import Trajectories

ORACLE = "oracle"
# What an algorithm gives: a clustering; with the labels, what a policy class could tell; clusterings for several K.
Kind = Literal["clusterer", "ceiling", "selection"]


@dataclasses.dataclass(frozen=True)
class MethodEntry:
    """A named method: `build(num_clusters, **settings)` gives the algorithm with its default settings."""

    title: str
    summary: str
    algorithm: type
    build: Callable[..., Any]
    policy: str | None = None  # the policy class of a mixture
    kind: Kind = "clusterer"

    def settings(self) -> set[str]:
        """The names of the algorithm's hyperparameters."""
        return {field.name for field in dataclasses.fields(self.algorithm)}


def _pg_kmeans(title: str, summary: str, policy: str) -> MethodEntry:
    build = lambda num_clusters, **settings: PGKmeans.default(num_clusters, policy, **settings)
    return MethodEntry(title, summary, PGKmeans, build, policy)


def _cloning(title: str, policy: str, **defaults: Any) -> MethodEntry:
    build = lambda num_clusters, **settings: Cloning(num_clusters, policy, **{**defaults, **settings})
    return MethodEntry(
        title, "a ceiling, not a method: policies cloned from the TRUE labels", Cloning, build, kind="ceiling"
    )


def _entry(title: str, summary: str, algorithm: type, **defaults: Any) -> MethodEntry:
    build = lambda num_clusters, **settings: algorithm(num_clusters, **{**defaults, **settings})
    return MethodEntry(title, summary, algorithm, build, algorithm.POLICY)


METHODS: dict[str, MethodEntry] = {
    "pg_kmeans_tabular": _pg_kmeans(
        "PG-Kmeans, tabular", "hard EM, one probability for each (observation, action)", "tabular"
    ),
    "pg_kmeans_mlp": _pg_kmeans("PG-Kmeans, MLP", "hard EM, Markov policies (FC 128-128)", "mlp"),
    "pg_kmeans_gru": _pg_kmeans("PG-Kmeans, GRU", "hard EM, policies of the observations so far", "gru"),
    "pg_kmeans_planner": _pg_kmeans("PG-Kmeans, planner", "hard EM, policies that plan on the observed map", "planner"),
    "caae": _entry("CAAE", "an autoencoder whose latents are attracted to codes", CAAE),
    "caae_plain": _entry("CAAE, plain", "as printed: no warm-up, random codes; collapses", CAAE, warmup_iterations=0),
    "caae_unregularised": _entry("CAAE, unregularised", "codes do not repel each other", CAAE, regularisation=False),
    "caae_conv": _entry("CAAE, convolutions", "encoder and decoder see convolved maps", CAAE, extractor="conv"),
    "caae_planner": _entry(
        "CAAE, planner", "encoder and decoder see plans on the observed map", CAAE, extractor="planner"
    ),
    "dec": _entry("DEC", "an autoencoder, then soft assignments sharpened", DEC),
    "vae_kmeans": _entry("VAE + k-means", "a variational autoencoder, k-means on its latents", VAEKmeans),
    "sorl": _entry("SORL", "soft EM; the E-step multiplies probabilities, as in SORL's paper", Sorl),
    "sorl_sum": _entry(
        "SORL, release", "soft EM; the E-step adds probabilities, as in SORL's code", Sorl, posterior="sum"
    ),
    "return_kmeans": _entry("Return + k-means", "k-means on sums of rewards", SummaryKmeans),
    "length_kmeans": _entry("Length + k-means", "k-means on numbers of steps", SummaryKmeans, of="length"),
    "mean_kmeans": _entry("Mean step + k-means", "k-means on mean observation and action", SummaryKmeans, of="mean"),
}

# CAAE's variants have settings of their own where the rule's would undo what they are.
_VARIANTS: dict[str, dict[str, Any]] = {"caae_plain": {"alpha": 1.0, "warmup_iterations": 0, "iterations": 11}}


def suited(name: str, trajectories: Trajectories, policy: str | None = None) -> dict[str, Any]:
    """A method's settings that differ from its defaults on this data: see `clustering.suited`."""
    settings = rule.suited(METHODS[name].algorithm, trajectories, policy or METHODS[name].policy)
    return {**settings, **_VARIANTS.get(name, {})} if settings else {}


def long_settings(name: str) -> dict[str, Any]:
    """`suited` on long trajectories with continuous actions."""
    entry = method_entry(name)
    settings = rule.LONG_CONTINUOUS.get((entry.algorithm, entry.policy), {})
    return {**settings, **_VARIANTS.get(name, {})} if settings else {}


# Ceilings see the labels. They stand beside methods in tables; `trajclust cluster` does not know them.
CEILINGS: dict[str, MethodEntry] = {
    "cloning_mlp": _cloning("Cloning from true labels, MLP", "mlp"),
    "cloning_conv": _cloning("Cloning from true labels, convolutions", "mlp", policy_settings=(("extractor", "conv"),)),
    "cloning_planner": _cloning("Cloning from true labels, planner", "planner"),
}


# Runs over a range of K, which give no clustering but a choice.
SELECTIONS: dict[str, MethodEntry] = {
    "choose_k": MethodEntry(
        "Choice of K",
        "PG-Kmeans for a range of K, scored without labels",
        PGKmeansRange,
        lambda num_clusters, counts=tuple(range(2, 10)), **settings: PGKmeansRange.over(counts, **settings),
        kind="selection",
    ),
}


# PG-Kmeans whose centres' policies are evaluated in the environment.
CENTRES: dict[str, MethodEntry] = {
    "centres_single": _pg_kmeans("PG-Kmeans' policies, single run", "the policies of one run's clusters", "mlp"),
    "centres": _pg_kmeans("PG-Kmeans' policies, best of 5", "the policies of the best restart's clusters", "mlp"),
}


def method_entry(name: str) -> MethodEntry:
    """A method, ceiling, selection or clustering by its centres by name."""
    return (METHODS | CEILINGS | SELECTIONS | CENTRES)[name]


def select(names: tuple[str, ...], available: tuple[str, ...], what: str) -> tuple[str, ...]:
    """The available ones of `names`; a name that none equals takes all that begin with it; no names: all of them.

    `hopper` is every task of Hopper's, `caae` that method alone, `caae_` its variants.

    Raises:
        ValueError: for a name that selects nothing.
    """
    chosen = set()
    for name in names:
        found = {name} if name in available else {each for each in available if name and each.startswith(name)}
        if not found:
            raise ValueError(f"unknown {what} {name!r}: choose from {', '.join(available)}")
        chosen |= found
    return tuple(each for each in available if not names or each in chosen)
