"""A conditional variational autoencoder of actions: BCQ's, SPOT's and CLUE's."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from trajclust_jax.networks.dense import Dense
from trajclust_jax.networks.policies import MLP

CVAE_LOG_STD = (-4.0, 15.0)


class CVAE(nn.Module):
    """Latents `[..., Z]` of actions `[..., A]` in [-1, 1], given observations `[..., D]`.

    The layout of BCQ (Fujimoto, Meger and Precup, 2019), which SPOT (Wu et al., "Supported Policy Optimization for
    Offline Reinforcement Learning", 2022) has, too: hidden layers with ReLU in encoder and decoder, the log std of the
    latents clipped, a tanh on the decoded action.
    """

    action_size: int
    latent_size: int
    features: tuple[int, ...] = (128, 128)

    def setup(self) -> None:
        self.encoder, self.decoder = MLP(self.features), MLP(self.features)
        self.mean, self.log_std = Dense(self.latent_size), Dense(self.latent_size)
        self.action = Dense(self.action_size)

    def encode(self, observations: jax.Array, actions: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Mean and std `[..., Z]` of q(z | s, a)."""
        hidden = self.encoder(jnp.concatenate([observations, actions], axis=-1))
        return self.mean(hidden), jnp.exp(jnp.clip(self.log_std(hidden), *CVAE_LOG_STD))

    def decode(self, observations: jax.Array, latents: jax.Array) -> jax.Array:
        """`[..., A]` in (-1, 1)."""
        return jnp.tanh(self.action(self.decoder(jnp.concatenate([observations, latents], axis=-1))))

    def __call__(
        self, observations: jax.Array, actions: jax.Array, noise: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """The actions decoded from latents that standard normal `noise [..., Z]` draws; mean and std."""
        mean, std = self.encode(observations, actions)
        return self.decode(observations, mean + std * noise), mean, std


def divergence(mean: jax.Array, std: jax.Array) -> jax.Array:
    """`[..., Z]`: KL(N(mean, std) || N(0, 1)) of each latent."""
    return 0.5 * (mean**2 + std**2 - 1 - 2 * jnp.log(std))
