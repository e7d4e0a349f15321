"""Many policies, or many Q, in one network that an embedding tells which of them it is (LBRAC-v, Figure 3)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from trajclust_jax.lazy import lazy
from trajclust_jax.networks.actor_critic import STANDARD
from trajclust_jax.networks.dense import Dense

distrax = lazy("distrax")

BEFORE = 2  # hidden layers that all members share before the embedding comes in
SMALLEST = 1e-12  # squared length below which an embedding has no direction
EMBEDDED_LOG_STD_BOUNDS = (-10.0, 10.0)


def direction(embeddings: jax.Array) -> jax.Array:
    """`[..., d]` at length 1; zeros stay zeros."""
    squared = (embeddings**2).sum(-1, keepdims=True)
    return embeddings * jax.lax.rsqrt(jnp.maximum(squared, SMALLEST))


class Embedded(nn.Module):
    """`[B, D], [..., B, d] -> [..., B, features[-1]]`: hidden layers, the embedding's direction after `BEFORE` of them.

    What comes before it is computed once for all embeddings of a row.
    """

    features: tuple[int, ...]

    @nn.compact
    def __call__(self, inputs: jax.Array, embeddings: jax.Array) -> jax.Array:
        x = inputs
        for size in self.features[:BEFORE]:
            x = nn.relu(Dense(size, kernel_init=STANDARD)(x))
        x = nn.LayerNorm()(x)
        x = jnp.broadcast_to(x, (*embeddings.shape[:-1], x.shape[-1]))
        x = jnp.concatenate([x, direction(embeddings)], axis=-1)
        for size in self.features[BEFORE:]:
            x = nn.relu(Dense(size, kernel_init=STANDARD)(x))
        return x


class EmbeddedActor(nn.Module):
    """`[B, D], [..., B, d] -> ` policies as `TanhGaussianActor` has them, `[..., B, A]`."""

    action_size: int
    features: tuple[int, ...] = (200, 200, 200)
    log_std_bounds: tuple[float, float] = EMBEDDED_LOG_STD_BOUNDS

    @nn.compact
    def __call__(self, observations: jax.Array, embeddings: jax.Array) -> "distrax.Independent":
        x = Embedded(self.features)(observations, embeddings)
        mean, log_std = jnp.split(Dense(2 * self.action_size)(x), 2, axis=-1)
        return distrax.Independent(distrax.Normal(mean, jnp.exp(jnp.clip(log_std, *self.log_std_bounds))), 1)


class EmbeddedCritic(nn.Module):
    """`[B, D], [B, A], [..., B, d] -> [..., B]`: Q of each embedding's policy."""

    features: tuple[int, ...] = (300, 300, 300)

    @nn.compact
    def __call__(self, observations: jax.Array, actions: jax.Array, embeddings: jax.Array) -> Any:
        x = Embedded(self.features)(jnp.concatenate([observations, actions], axis=-1), embeddings)
        return Dense(1)(x)[..., 0]
