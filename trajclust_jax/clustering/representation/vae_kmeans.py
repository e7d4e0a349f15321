"""A variational autoencoder on trajectories, then k-means."""

import dataclasses
from functools import partial
from typing import Any, ClassVar

import chex
import jax
import jax.numpy as jnp

from trajclust_jax.clustering.kmeans import inner_variance, posterior, responsibilities
from trajclust_jax.clustering.representation.autoencoder import Autoencoder, Loss, State, may_be_zero
from trajclust_jax.clustering.representation.data import Batch, EncoderData
from trajclust_jax.clustering.types import Clustering, lone
from trajclust_jax.training import Info, Phase


@dataclasses.dataclass(frozen=True)
class VAEKmeans(Autoencoder):
    """A variational autoencoder (Kingma and Welling, 2013) on trajectories, then k-means on its posterior means."""

    kl_weight: float = may_be_zero(default=1.0)
    """Weight of KL(q(z | tau) || N(0, I)); 1 is the evidence lower bound."""
    iterations: int = 28
    """Iterations of training."""

    STOCHASTIC: ClassVar[bool] = True

    def phases(self) -> tuple[Phase, ...]:
        """Training and clustering."""
        train = Phase("train", self.fresh, self._train, self.iterations, light_start=True)
        return train, self.with_centres("cluster", None, 0)

    def result(self, state: State, data: EncoderData) -> Clustering:
        """The nearest k-means centre of each posterior mean; the objective is the evidence lower bound (one sample)."""

        def loss(batch):
            key = jax.random.fold_in(state.key, batch.position[0])
            batch = self.seen(state.params, batch, data)
            return self._losses(state.params, self.read(state.params, batch, data), batch, key, data).total

        losses = data.map_all(loss)
        assignments = self.nearest(state.params, state.latents)
        soft = posterior(state.latents, state.params["centres"], assignments)
        return lone(assignments, soft, -losses.sum(), state.params, latents=state.latents)

    def model(self, clustering: Clustering) -> dict[str, Any]:
        """Parameters, and the clusters' inner variance."""
        variance = inner_variance(clustering.latents, clustering.params["centres"], clustering.assignments)
        return {"params": clustering.params, "variance": variance}

    def assign(self, model: dict[str, Any], data: EncoderData) -> Clustering:
        """See `Autoencoder`; the posterior uses the clusters' variance in the training data."""
        found, centres = super().assign(model["params"], data), model["params"]["centres"]
        return found.replace(posterior=responsibilities(found.latents, centres, model["variance"]))

    def _train(self, state: State, data: EncoderData, iteration: jax.Array) -> tuple[State, Info]:
        return self.train(state, data, iteration, partial(self._loss, data=data))

    def _loss(self, params: dict[str, Any], batch: Batch, key: jax.Array, data: EncoderData) -> Loss:
        """Minus the evidence lower bound, the expectation by one reparametrised sample; the key is consumed."""
        return self._losses(params, self.encode(params, batch, data), batch, key, data)

    def _losses(self, params, encoded: jax.Array, batch: Batch, key: jax.Array, data: EncoderData) -> Loss:
        mean, log_variance = jnp.split(encoded, 2, axis=-1)
        latents = mean + jnp.exp(log_variance / 2) * jax.random.normal(key, mean.shape)
        reconstruction = self.reconstruction(params, latents, batch, data)
        divergence = (jnp.exp(log_variance) + mean**2 - 1 - log_variance).sum(-1) / 2
        chex.assert_equal_shape([reconstruction, divergence, batch.lengths])
        return Loss(reconstruction + self.kl_weight * divergence, reconstruction)
