"""What network policies share: the network, its optimiser, gradient steps on their own cluster's data."""

import dataclasses
from collections.abc import Callable
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import optax

from trajclust_jax.clustering.policies.data import MixtureData
from trajclust_jax.clustering.policies.member import Member, is_hard
from trajclust_jax.clustering.preprocessing import Preprocessing
from trajclust_jax.data import Observations, Trajectories, apply
from trajclust_jax.networks import Placed, PolicyNetwork

StepValue = Callable[[jax.Array], jax.Array]  # of a step's log-probability: what an E-step sums


@dataclasses.dataclass(frozen=True)
class NetworkPolicy:
    """What the network policies share: the network, its optimiser, a gradient step."""

    learning_rate: float = 1e-3  # Adam (B.6)
    memory_budget: int = 128 * 2**20  # bytes of working memory of one E-step chunk
    features: tuple[int, ...] = (128, 128)  # the hidden layers that see an observation

    recurrent = False
    extractor = None
    scored_steps = 0  # random steps of a trajectory that an E-step looks at; 0: all

    def network(self, data: MixtureData) -> PolicyNetwork:
        sizes = data.action_size, data.discrete, self.recurrent
        more = {"extractor": self.extractor, "action_parts": data.action_parts}
        return PolicyNetwork(*sizes, features=tuple(self.features), **more)

    def check(self, trajectories: Trajectories) -> None:
        """Raises ValueError for data that the class can't model: none here."""
        del trajectories

    def preprocessing(self, trajectories: Trajectories) -> Preprocessing:
        """How the class sees trajectories, fitted to these."""
        return Preprocessing.of(trajectories)

    def known(self, params: Any, data: MixtureData) -> Any:
        """Trained parameters `[K, ...]`, for data with observations that they were not trained on."""
        del data
        return params

    @cached_property
    def optimizer(self) -> optax.GradientTransformation:
        return optax.adam(self.learning_rate)

    def init(self, key: jax.Array, data: MixtureData) -> Member:
        """A fresh policy and its optimiser (unbatched); the key is consumed."""
        params = self.network(data).init(key, data.example)
        return Member(params, self.optimizer.init(params))

    def log_prior(self, params: Any) -> jax.Array:
        """Penalty added to the objective: none for a network."""
        del params
        return jnp.float32(0.0)

    def update(
        self, loss: Callable[[Any], jax.Array], member: Member, trains: jax.Array, scale: jax.Array | float = 1.0
    ) -> Member:
        """One Adam step on `loss(params)`, with `scale` times the learning rate.

        Where `trains` is False (an empty cluster) the policy stays, whatever the loss; Adam's moments decay.
        """
        gradients = jax.tree.map(lambda g: jnp.where(trains, g, 0), jax.grad(loss)(member.params))
        updates, optimizer = self.optimizer.update(gradients, member.optimizer, member.params)
        updates = jax.tree.map(lambda u: jnp.where(trains, scale * u, 0), updates)
        return Member(optax.apply_updates(member.params, updates), optimizer)


def sorted_by_cluster(
    assignments: jax.Array, num_clusters: int, lengths: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Trajectories grouped by cluster, fillers last: order `[N']`, first position and size of each cluster `[K]`.

    Soft assignments make one group of all trajectories, which every cluster draws from.
    """
    if not is_hard(assignments):
        count = jnp.full(num_clusters, (lengths > 0).sum(dtype=jnp.int32))
        return jnp.argsort(lengths == 0, stable=True), jnp.zeros_like(count), count
    assigned = jnp.where(lengths > 0, assignments, num_clusters)
    sizes = jnp.zeros(num_clusters + 1, jnp.int32).at[assigned].add(1)[:num_clusters]
    return jnp.argsort(assigned, stable=True), jnp.cumsum(sizes) - sizes, sizes


def draw(key: jax.Array, shape: tuple[int, ...], first: jax.Array, size: jax.Array) -> jax.Array:
    """Uniform int32 in `[first, first + size)`; `first` where the range is empty (clamped). Key consumed."""
    offset = jax.random.randint(key, shape, 0, jnp.maximum(size, 1))
    return first + offset


def embedded(network: PolicyNetwork, params: Any, observed: Observations | Placed) -> jax.Array:
    """`[n, T, E]`: the network's embeddings of observations; of a codebook, once for each row."""
    embed = lambda x: network.apply(params, x, method="embed")
    return embed(observed) if isinstance(observed, Placed) else apply(embed, observed)
