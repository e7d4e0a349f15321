"""Neural networks: feature extractors, policy heads, ensembles."""

from trajclust_jax.networks.ensemble import ensemblize, member_keys
from trajclust_jax.networks.planner import EXTRACTORS, MOVES, Placed, Planner
from trajclust_jax.networks.policies import (
    GRU,
    MLP,
    CategoricalHead,
    GaussianHead,
    PolicyNetwork,
    gru_step,
)
from trajclust_jax.networks.trajectory import TrajectoryAutoencoder

__all__ = [
    "EXTRACTORS",
    "GRU",
    "MLP",
    "MOVES",
    "CategoricalHead",
    "GaussianHead",
    "Placed",
    "Planner",
    "PolicyNetwork",
    "TrajectoryAutoencoder",
    "ensemblize",
    "gru_step",
    "member_keys",
]
