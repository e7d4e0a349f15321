"""Trajectory encoder and decoder of the PG-Kmeans paper (B.5 and Table 2), in flax.

    encoder   (o_t, a_t) -> FC 128-128 -> GRU 64 over prefixes -> FC 128 -> 2-head attention pooling -> latent
    decoder   (z, o_t)   -> FC 128-32-32 -> distribution of a_t

The first layer of each is linear in its two inputs, so that what an observation contributes to it is computed once
for each distinct observation (`data.apply`). Where observations and actions are few, so is the rest of the
encoder before the GRU: once for each (observation, action) pair.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from trajclust_jax.data import Codebook, Observations, apply
from trajclust_jax.networks.planner import EXTRACTORS, Placed
from trajclust_jax.networks.policies import GRU, MLP, policy_head


class AttentionPooling(nn.Module):
    """Weighted sums of a sequence, one a head: `softmax(Q (K Y)^T) (V Y)` with learned queries Q (B.5).

    `[n, T, F]` and lengths `[n]` -> `[n, heads * size]`; steps from `lengths[n]` on have no weight.
    """

    heads: int = 2
    size: int = 8

    @nn.compact
    def __call__(self, sequence: jax.Array, lengths: jax.Array) -> jax.Array:
        width = self.heads * self.size
        query = self.param("query", nn.initializers.lecun_normal(), (self.heads, self.size))
        keys_values = nn.Dense(2 * width, use_bias=False, name="keys_values")(sequence)
        keys, values = jnp.split(keys_values.reshape(*sequence.shape[:2], 2 * self.heads, self.size), 2, axis=2)
        scores = jnp.einsum("nths,hs->nth", keys, query)
        real = jnp.arange(sequence.shape[1]) < lengths[:, None]
        # A finite mask: an empty filler's weights are uniform, not NaN.
        weights = nn.softmax(jnp.where(real[..., None], scores, jnp.finfo(scores.dtype).min), axis=1)
        return jnp.einsum("nth,nths->nhs", weights, values).reshape(-1, width)


class TrajectoryEncoder(nn.Module):
    """A trajectory's (observation, action) steps to `output_size` numbers."""

    discrete: bool
    action_size: int
    output_size: int
    features: tuple[int, int] = (128, 128)
    hidden_size: int = 64
    prefix_size: int = 128

    def setup(self) -> None:
        self.observation = nn.Dense(self.features[0])
        self.action = nn.Dense(self.features[0], use_bias=False)
        self.step = MLP(self.features[1:])
        self.input_gates = nn.Dense(3 * self.hidden_size)
        self.gru = GRU(self.hidden_size)
        self.prefix = MLP((self.prefix_size,))
        self.attention = AttentionPooling()
        self.output = nn.Dense(self.output_size)

    def gates(self, observations: Observations, actions: jax.Array) -> jax.Array:
        """The GRU's input gates at every step, `[n, T, 3H]`."""
        finish = lambda first: self.input_gates(self.step(nn.relu(first)))
        coded = isinstance(observations, Codebook)
        if coded and self.discrete and len(observations.table) * self.action_size <= actions.size:
            first = self.observation(observations.table)[:, None] + self.action(jnp.eye(self.action_size))  # [U, A, F]
            pairs = finish(first.reshape(-1, first.shape[-1]))
            gates = pairs[observations.ids * self.action_size + actions]
        else:
            acted = self.action(jax.nn.one_hot(actions, self.action_size) if self.discrete else actions)
            gates = finish(apply(self.observation, observations) + acted)
        return jax.lax.optimization_barrier(gates)  # see `HistoryPolicy.scorer`

    def __call__(self, observations: Observations, actions: jax.Array, lengths: jax.Array) -> jax.Array:
        """`[n, T]` steps of which the first `lengths [n]` are real -> `[n, output_size]` float32."""
        hidden = self.gru(self.gates(observations, actions).swapaxes(0, 1)).swapaxes(0, 1)
        return self.output(self.attention(self.prefix(hidden), lengths))


class TrajectoryDecoder(nn.Module):
    """A latent and an observation to the distribution of the action."""

    discrete: bool
    action_size: int
    features: tuple[int, ...] = (128, 32, 32)
    action_parts: tuple[tuple[int, ...], ...] = ()

    def setup(self) -> None:
        self.observation = nn.Dense(self.features[0])
        self.latent = nn.Dense(self.features[0], use_bias=False)
        self.mlp = MLP(self.features[1:])
        self.head = policy_head(self.discrete, self.action_size, self.action_parts)

    def __call__(self, latents: jax.Array, observations: Observations) -> Any:
        """Latents `[n, d]` and observations `[n, T]` -> distributions `[n, T]`."""
        observed = jax.lax.optimization_barrier(apply(self.observation, observations))
        return self.head(self.mlp(nn.relu(observed + self.latent(latents)[:, None])))


class TrajectoryAutoencoder(nn.Module):
    """Encoder and decoder. A `stochastic` encoder gives mean and log variance, `[n, 2d]`; else latents `[n, d]`."""

    discrete: bool
    action_size: int
    latent_size: int = 8
    stochastic: bool = False
    extractor: str | None = None  # a name in EXTRACTORS: of the features that encoder and decoder share
    action_parts: tuple[tuple[int, ...], ...] = ()  # of discrete actions that are combinations

    def setup(self) -> None:
        self.extract = EXTRACTORS[self.extractor]() if self.extractor else None
        output_size = self.latent_size * (2 if self.stochastic else 1)
        self.encoder = TrajectoryEncoder(self.discrete, self.action_size, output_size)
        self.decoder = TrajectoryDecoder(self.discrete, self.action_size, action_parts=self.action_parts)

    def observe(self, observations: Observations | Placed) -> Observations:
        """Observations as encoder and decoder see them."""
        return self.extract(observations) if self.extract else observations

    def encode(self, observations: Observations, actions: jax.Array, lengths: jax.Array) -> jax.Array:
        """See `TrajectoryEncoder`."""
        return self.encoder(observations, actions, lengths)

    def decode(self, latents: jax.Array, observations: Observations) -> Any:
        """See `TrajectoryDecoder`."""
        return self.decoder(latents, observations)

    def __call__(self, observations: Observations | Placed, actions: jax.Array, lengths: jax.Array) -> Any:
        """The distribution of every action given its trajectory's latent (the mean of a stochastic one)."""
        observations = self.observe(observations)
        return self.decode(self.encode(observations, actions, lengths)[:, : self.latent_size], observations)
