"""Neural networks: feature extractors, policy heads, ensembles."""

from trajclust_jax.networks.actor_critic import (
    LOG_STD_BOUNDS,
    ORTHOGONAL,
    STANDARD,
    CategoricalActor,
    Critic,
    DeterministicActor,
    GaussianActor,
    Heads,
    TanhGaussianActor,
    sample_squashed,
    squashed_log_prob,
)
from trajclust_jax.networks.cvae import CVAE, divergence
from trajclust_jax.networks.embedded import EmbeddedActor, EmbeddedCritic, direction
from trajclust_jax.networks.ensemble import chosen, ensemblize, ensemblize_wide, member_keys
from trajclust_jax.networks.planner import EXTRACTORS, MOVES, Placed, Planner
from trajclust_jax.networks.policies import (
    GRU,
    MIN_STD,
    MLP,
    CategoricalHead,
    GaussianHead,
    PolicyNetwork,
    gru_step,
)
from trajclust_jax.networks.trajectory import TrajectoryAutoencoder

__all__ = [
    "CVAE",
    "EXTRACTORS",
    "GRU",
    "LOG_STD_BOUNDS",
    "MIN_STD",
    "MLP",
    "MOVES",
    "ORTHOGONAL",
    "STANDARD",
    "CategoricalActor",
    "CategoricalHead",
    "Critic",
    "DeterministicActor",
    "EmbeddedActor",
    "EmbeddedCritic",
    "GaussianActor",
    "GaussianHead",
    "Heads",
    "Placed",
    "Planner",
    "PolicyNetwork",
    "TanhGaussianActor",
    "TrajectoryAutoencoder",
    "chosen",
    "direction",
    "divergence",
    "ensemblize",
    "ensemblize_wide",
    "gru_step",
    "member_keys",
    "sample_squashed",
    "squashed_log_prob",
]
