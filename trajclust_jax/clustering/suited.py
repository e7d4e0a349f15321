"""The settings that work for given data, chosen by the kind of actions and the length of trajectories.

Defaults are for short trajectories with discrete actions. For other data this table has what differs, and why:

- Long trajectories. With likelihoods summed over a thousand steps, EM stays where it began: E-steps use 100 fresh
  random steps of each trajectory (except where trajectories are counts, whose cost does not depend on length). An
  encoder of a thousand steps is slow and remembers positions: it sees windows, and its likelihood is per step, not
  summed.
- Continuous actions. A mean and a std are learned more slowly than the probabilities of a few actions: all M-steps, the
  first one included, are longer.

`suited` is the only such rule; `trajclust cluster` and Python users both call it.
"""

from typing import Any

import numpy as np

from trajclust_jax.clustering.clusterer import Clusterer
from trajclust_jax.clustering.empo import EmpoEM
from trajclust_jax.clustering.pg_kmeans import PGKmeans
from trajclust_jax.clustering.policies import is_countable
from trajclust_jax.clustering.representation import CAAE, DEC, VAEKmeans
from trajclust_jax.clustering.sorl import Sorl
from trajclust_jax.data import Trajectories

LONG_STEPS = 200  # data are long if a trajectory has so many
LONG_STEPS_ENCODED = 101  # for encoders, which read a trajectory step by step

_SAMPLED = {"policy_settings": (("scored_steps", 100),)}
_WINDOWED_GRU = {"first_steps": 30, "steps": 30, "policy_settings": (("window", 32),)}
_WINDOWS = {"window": 32}
_LIGHT = {"alpha": 0.01}  # latents of two policies of one training begin .02 apart: 1, and .1, pull them to one code
# Where likelihoods are per step, a discrete action says little about its policy, compared with what a latent costs.
_FAINT = {"warmup_iterations": 16, "shrinkage": 0.003, "noise": 0.1}

# What matters is gradient steps, not epochs: with so many, a third of the paper's epochs suffice.
_EPOCHS = {"pretrain_epochs": 5, "iterations": 25, "least_steps": 500}

_Settings = dict[tuple[type, str | None], dict[str, Any]]  # by algorithm and policy class (None: it has none)

LONG_CONTINUOUS: _Settings = {
    (PGKmeans, "mlp"): {
        "first_steps": 50,
        "steps": 50,
        "iterations": 15,
        "polish_first_steps": 300,
        "polish_steps": 100,
        "paired_polish": True,
        "reconsidered": 0.05,
        **_SAMPLED,
    },
    (PGKmeans, "gru"): _WINDOWED_GRU,
    # Soft EM from random clusters needs policies that are nearly trained: with 50 steps it often found nothing.
    (Sorl, "mlp"): {"first_steps": 400, "steps": 50, **_SAMPLED},
    (Sorl, "gru"): {"first_steps": 50, "steps": 50, "policy_settings": (("window", 32),)},
    (EmpoEM, "mlp"): {**_EPOCHS, **_SAMPLED},
    (EmpoEM, "gru"): {**_EPOCHS, "policy_settings": (("window", 32),)},
    (CAAE, None): {**_WINDOWS, **_LIGHT, "warmup_iterations": 8, "iterations": 3},
    (DEC, None): {**_WINDOWS, "pretrain_iterations": 8},
    (VAEKmeans, None): {**_WINDOWS, "iterations": 11, "kl_weight": 0.03},  # the likelihood is per step, not summed
}
LONG_DISCRETE: _Settings = {
    (PGKmeans, "mlp"): _SAMPLED,
    (PGKmeans, "gru"): _WINDOWED_GRU,
    (Sorl, "mlp"): _SAMPLED,
    (Sorl, "gru"): {"policy_settings": (("window", 32),)},
    (EmpoEM, "mlp"): LONG_CONTINUOUS[EmpoEM, "mlp"],
    (EmpoEM, "gru"): LONG_CONTINUOUS[EmpoEM, "gru"],
    (CAAE, None): {**LONG_CONTINUOUS[CAAE, None], **_FAINT},
    (DEC, None): LONG_CONTINUOUS[DEC, None],
    (VAEKmeans, None): {**LONG_CONTINUOUS[VAEKmeans, None], "kl_weight": 0.003},
}
_COUNTED = {(EmpoEM, "mlp"): {**_EPOCHS, "least_steps": 25}}  # each gradient step sees everything
LONG_COUNTED: _Settings = {**{key: value for key, value in LONG_DISCRETE.items() if key[1] != "mlp"}, **_COUNTED}
SHORT_CONTINUOUS: _Settings = {
    (PGKmeans, "mlp"): {"first_steps": 20, "steps": 100},
    (Sorl, "mlp"): {"first_steps": 20, "steps": 100},
    (EmpoEM, "mlp"): _EPOCHS,
    (EmpoEM, "gru"): _EPOCHS,
}
SHORT_DISCRETE: _Settings = {(EmpoEM, "mlp"): _EPOCHS, (EmpoEM, "gru"): _EPOCHS}
SHORT_COUNTED: _Settings = {**SHORT_DISCRETE, **_COUNTED}


def suited(algorithm: type[Clusterer], trajectories: Trajectories, policy: str | None = None) -> dict[str, Any]:
    """The settings in which an algorithm should differ from its defaults on this data.

    Args:
        algorithm: a clusterer's class.
        trajectories: the data.
        policy: the policy class, for mixtures of policies; `mlp` by default.
    """
    policy = policy or algorithm.POLICY
    long = int(np.max(np.asarray(trajectories.lengths))) >= (LONG_STEPS if policy else LONG_STEPS_ENCODED)
    if not trajectories.discrete:
        table = LONG_CONTINUOUS if long else SHORT_CONTINUOUS
    elif is_countable(trajectories):
        table = LONG_COUNTED if long else SHORT_COUNTED
    else:
        table = LONG_DISCRETE if long else SHORT_DISCRETE
    return dict(table.get((algorithm, policy), {}))


def suited_method(
    algorithm: type[Clusterer], num_clusters: int, trajectories: Trajectories, **settings: Any
) -> Clusterer:
    """An algorithm with the settings that work for this data; `settings` override them.

    `suited_method(PGKmeans, 3, trajectories)` is what `trajclust cluster --k 3` trains.
    """
    return algorithm.default(num_clusters, **{**suited(algorithm, trajectories, settings.get("policy")), **settings})
