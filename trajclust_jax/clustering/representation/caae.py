"""CAAE: an autoencoder whose latents are attracted to learned codes (Hu, Wang and Du, Section 5.2)."""

import dataclasses
from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp

from trajclust_jax.clustering.kmeans import squared_distances
from trajclust_jax.clustering.representation.autoencoder import Autoencoder, Loss, State, may_be_zero
from trajclust_jax.clustering.representation.data import Batch, EncoderData
from trajclust_jax.clustering.types import Clustering, lone
from trajclust_jax.training import Info, Phase


@dataclasses.dataclass(frozen=True)
class CAAE(Autoencoder):
    """Centroid-Attracted Autoencoder: Eq. 4, a trajectory's cluster being its nearest code.

    The paper starts from a random codebook, with which all trajectories are usually soon attracted to one code. By
    default the autoencoder is therefore first trained without codes, its latents weakly attracted to the origin, and
    the codes start as the k-means centres of these latents.
    """

    alpha: float = may_be_zero(default=1.0)
    """Weight of the squared distance to the nearest code (B.6)."""
    regularisation: bool = may_be_zero(default=True)
    """Codes closer than 1 repel each other (C.2.1)."""
    warmup_iterations: int = may_be_zero(default=20)
    """Iterations without codes before k-means sets them; 0: the paper's plain version, random normal codes."""
    shrinkage: float = may_be_zero(default=0.1)
    """Weight of |z|^2 in the warm-up: what the decoder does not need leaves the latent, and k-means finds the rest."""
    noise: float = may_be_zero(default=0.5)
    """Standard deviation of noise that is added to the decoder's latents in the warm-up: differences that hardly help
    the decoder are not worth keeping, so that a policy's trajectories come to lie together."""
    iterations: int = 8
    """Iterations with codes."""

    def phases(self) -> tuple[Phase, ...]:
        """Warm-up and main; without a warm-up main alone."""
        if not self.warmup_iterations:
            return (Phase("main", self._plain, self._attract, self.iterations),)
        autoencode = partial(self.autoencode, shrinkage=self.shrinkage, noise=self.noise)
        warmup = Phase("warmup", self.fresh, autoencode, self.warmup_iterations, light_start=True)
        return warmup, self.with_centres("main", self._attract, self.iterations)

    def result(self, state: State, data: EncoderData) -> Clustering:
        """The nearest code of each trajectory; the objective is minus Eq. 4, the posterior that of N(mu_j, I).

        The decoder makes a policy of each code; log-likelihoods are under these policies.
        """
        params, codes = state.params, state.params["centres"]

        def read(batch):
            batch = self.seen(params, batch, data)
            steps = batch.lengths if data.window else 1
            decode = lambda code: self.reconstruction(params, jnp.tile(code, (len(batch.lengths), 1)), batch, data)
            losses = self._losses(params, self.read(params, batch, data), batch, data)
            log_likelihoods = -jax.lax.map(lambda code: steps * decode(code), codes).T
            return losses.total, data.data.in_data_unit(log_likelihoods, batch.lengths[:, None])

        losses, log_likelihoods = data.map_all(read)
        return lone(
            self.nearest(params, state.latents),
            jax.nn.softmax(-squared_distances(state.latents, codes) / 2),
            -losses.sum(),
            params,
            latents=state.latents,
            log_likelihoods=log_likelihoods,
        )

    def _plain(self, key: jax.Array, data: EncoderData, previous: None) -> tuple[State, Info]:
        """A new network and random codes."""
        key, key_codes = jax.random.split(key)
        state, _ = self.fresh(key, data, previous)
        codes = jax.random.normal(key_codes, (self.num_clusters, self.latent_size))
        params = {**state.params, "centres": codes}
        return self.begin(state.key, params, self.encode_all(params, data))

    def _attract(self, state: State, data: EncoderData, iteration: jax.Array) -> tuple[State, Info]:
        return self.improve(state, data, iteration, partial(self._loss, data=data))

    def _loss(self, params: dict[str, Any], batch: Batch, key: jax.Array | None, data: EncoderData) -> Loss:
        """Eq. 4 for every trajectory. Its last term, which is printed once for all, is counted for each trajectory."""
        del key
        return self._losses(params, self.encode(params, batch, data), batch, data)

    def _losses(self, params: dict[str, Any], latents: jax.Array, batch: Batch, data: EncoderData) -> Loss:
        codes = params["centres"]
        reconstruction = self.reconstruction(params, latents, batch, data)
        attraction = squared_distances(latents, codes).min(-1)
        chex.assert_equal_shape([reconstruction, attraction, batch.lengths])
        total = reconstruction + self.alpha * attraction
        if self.regularisation:
            total -= jnp.minimum(squared_distances(codes, codes), 1).mean()  # 1 / m^2 sum over i, j
        return Loss(total, reconstruction)
