"""DEC: soft assignments of latents, sharpened (Xie et al., "Unsupervised Deep Embedding for Clustering", 2016)."""

import dataclasses
from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp

from trajclust_jax.clustering.kmeans import squared_distances
from trajclust_jax.clustering.representation.autoencoder import Autoencoder, Loss, State, may_be_zero
from trajclust_jax.clustering.representation.data import EncoderData
from trajclust_jax.clustering.types import Clustering, lone
from trajclust_jax.training import Info, Phase


@dataclasses.dataclass(frozen=True)
class DEC(Autoencoder):
    """Deep Embedded Clustering (Xie et al., 2016) on trajectories, with CAAE's encoder and decoder.

    Refinement trains encoder and centroids by KL(P || Q): Q is a Student-t kernel's soft assignment (their Eq. 1), P
    its sharpened form (Eq. 3), computed from all trajectories at the beginning of every iteration. The trajectory
    autoencoder replaces their stacked one, pre-trained layer by layer, and Adam their SGD (B.6).
    """

    pretrain_iterations: int = 20
    """Iterations of the autoencoder before k-means sets the centroids."""
    shrinkage: float = may_be_zero(default=0.0)
    """Weight of |z|^2 in pre-training; Xie et al. have none."""
    iterations: int = 10
    """Largest number of refinement iterations."""
    tolerance: float = may_be_zero(default=1e-3)
    """Refinement ends when no more than this share of the assignments changes in an iteration (their 0.1 %)."""

    def phases(self) -> tuple[Phase, ...]:
        """Pre-training and refinement."""
        autoencode = partial(self.autoencode, shrinkage=self.shrinkage)
        pretrain = Phase("pretrain", self.fresh, autoencode, self.pretrain_iterations, light_start=True)
        return pretrain, self.with_centres("refine", self._refine, self.iterations)

    def result(self, state: State, data: EncoderData) -> Clustering:
        """The nearest centroid of each trajectory; objective minus KL(P || Q), posterior Q."""
        soft = self._soft(state.params, state.latents)
        return lone(
            self.nearest(state.params, state.latents),
            soft,
            -_kl(_sharpened(soft), soft).sum(),
            state.params,
            latents=state.latents,
        )

    def _refine(self, state: State, data: EncoderData, iteration: jax.Array) -> tuple[State, Info]:
        target = _sharpened(self._soft(state.params, state.latents))[data.data.order]  # in order of length

        def loss(params, batch, key):
            del key
            latents = self.encode(params, batch, data)
            reconstruction = self.reconstruction(jax.lax.stop_gradient(params), latents, batch, data)
            return Loss(_kl(target[batch.position], self._soft(params, latents)), reconstruction)

        state, info = self.improve(state, data, iteration, loss)
        settled = info["changed"][0] <= self.tolerance * data.num_trajectories
        return state.replace(converged=settled), info

    def _soft(self, params: dict[str, Any], latents: jax.Array) -> jax.Array:
        """Q `[n, K]`: a Student-t kernel of one degree of freedom around each centroid (their Eq. 1)."""
        kernel = 1 / (1 + squared_distances(latents, params["centres"]))
        return kernel / kernel.sum(-1, keepdims=True)


def _sharpened(soft: jax.Array) -> jax.Array:
    """P `[N, K]`: Q squared over the clusters' soft sizes, normalised (Xie et al., Eq. 3); a constant to gradients."""
    weight = soft**2 / soft.sum(0)
    return jax.lax.stop_gradient(weight / weight.sum(1, keepdims=True))


def _kl(target: jax.Array, soft: jax.Array) -> jax.Array:
    """KL(P || Q) `[n]` of rows `[n, K]` (Xie et al., Eq. 2). Q is never 0; P may be by underflow."""
    chex.assert_equal_shape([target, soft])
    return (jax.scipy.special.xlogy(target, target) - target * jnp.log(soft)).sum(-1)
