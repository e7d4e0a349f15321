"""A variational autoencoder of actions (BCQ's), which PLAS has too."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from trajclust_jax.networks.dense import Dense
from trajclust_jax.networks.policies import MLP

VAE_LOG_STD_BOUNDS = (-4.0, 15.0)


class ActionVAE(nn.Module):
    """`[..., D], [..., A], [..., L] -> [..., A]` in (-1, 1) and `[...]`: actions decoded from latents of the encoder,
    drawn by standard normal numbers, and the mean over latents of KL(encoder || N(0, I)).

    L is twice the number of action dimensions.
    """

    action_size: int
    features: tuple[int, ...] = (750, 750)

    @property
    def latent_size(self) -> int:
        """L."""
        return 2 * self.action_size

    def setup(self) -> None:
        self.encoder, self.encoded = MLP(self.features), Dense(2 * self.latent_size)
        self.decoder, self.decoded = MLP(self.features), Dense(self.action_size)

    def encode(self, observations: jax.Array, actions: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Mean and std `[..., L]`."""
        x = self.encoded(self.encoder(jnp.concatenate([observations, actions], axis=-1)))
        mean, log_std = jnp.split(x, 2, axis=-1)
        return mean, jnp.exp(jnp.clip(log_std, *VAE_LOG_STD_BOUNDS))

    def decode(self, observations: jax.Array, latents: jax.Array) -> jax.Array:
        """`[..., A]` in (-1, 1)."""
        return jnp.tanh(self.decoded(self.decoder(jnp.concatenate([observations, latents], axis=-1))))

    def __call__(self, observations: jax.Array, actions: jax.Array, noise: jax.Array) -> tuple[jax.Array, jax.Array]:
        mean, std = self.encode(observations, actions)
        divergence = (mean**2 + std**2 - 1) / 2 - jnp.log(std)
        return self.decode(observations, mean + std * noise), divergence.mean(-1)
