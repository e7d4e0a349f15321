"""What the methods on a trajectory autoencoder share: data, network, gradient steps, the plain autoencoder."""

import dataclasses
from collections.abc import Callable
from functools import cached_property, partial
from typing import Any, ClassVar, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct

from trajclust_jax.clustering.clusterer import Clusterer, SupportPolicies
from trajclust_jax.clustering.kmeans import Asked, Found, kmeans_before, squared_distances
from trajclust_jax.clustering.policies import MarkovMapPolicy, PlanningPolicy, TransitionPolicy
from trajclust_jax.clustering.policies.data import prepare
from trajclust_jax.clustering.policies.maps import FEATURE_FLOATS, check_maps, map_preprocessing, prepare_maps
from trajclust_jax.clustering.preprocessing import Preprocessing
from trajclust_jax.clustering.representation.data import Batch, Bucket, EncoderData
from trajclust_jax.clustering.types import Clustering
from trajclust_jax.data import Trajectories
from trajclust_jax.data.transforms import ACTIONS_VERSION
from trajclust_jax.devices import shared_rows
from trajclust_jax.networks import TrajectoryAutoencoder
from trajclust_jax.training import Info, Phase
from trajclust_jax.validation import check_above, check_at_least

QUANTILES = (0.5, 0.9, 1.0)  # of the lengths: the horizons of the buckets
_WINDOWS = 0x77696E64  # the windows' keys are folded from this

may_be_zero = partial(dataclasses.field, metadata={"may_be_zero": True})


@struct.dataclass
class State:
    """State of one seed."""

    params: dict[str, Any]  # "network", and once there are codes or centroids "centres" [K, d]
    optimizer: Any
    latents: jax.Array  # [N, d] of `params`, in the dataset's order; zeros while there are no centres
    converged: jax.Array  # [] bool
    key: jax.Array


class Loss(NamedTuple):
    """Of every trajectory in a batch, `[n]`: what is minimised, and the reconstruction's part of it."""

    total: jax.Array
    reconstruction: jax.Array  # - sum over steps of log P(a_t | z, o_t)


@dataclasses.dataclass(frozen=True)
class Autoencoder(Clusterer):
    """What the three methods share: data, network, gradient steps, the plain autoencoder."""

    num_clusters: int
    """k: codes or centroids."""
    latent_size: int = 8
    """d: dimensions of a trajectory's latent."""
    batch_size: int = 64
    """Trajectories a gradient step."""
    learning_rate: float = 1e-3
    """Adam's learning rate (B.6)."""
    gradient_clip: float = 10.0
    """Largest global norm of a gradient."""
    steps: int = 100
    """Gradient steps an iteration; progress and checkpoints come after each iteration."""
    extractor: str | None = None
    """`conv` or `planner`: encoder and decoder see features of the map where the agent is, learned with them."""
    window: int = may_be_zero(default=0)
    """Steps of a trajectory that the encoder and the decoder each see at a time; 0: whole trajectories."""
    windows: int = 8
    """Number of evenly spread windows whose mean latent is a trajectory's."""
    memory_budget: int = 128 * 2**20
    """Bytes of working memory when all trajectories are encoded."""

    VERSION: ClassVar[int] = 1  # of the algorithm: part of a cell's identity; raise it when results change
    ACTIONS_VERSION: ClassVar[int] = ACTIONS_VERSION
    STOCHASTIC: ClassVar[bool] = False  # the encoder gives a mean and a log variance

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if isinstance(getattr(self, field.name), (int, float)):
                check = check_at_least if field.metadata.get("may_be_zero", False) else check_above
                check(self, 0, field.name)

    # --- prepare, phases, result: what is the same for all ----------------------------------------

    def check(self, trajectories: Trajectories) -> None:
        """Raises ValueError if there are fewer trajectories than clusters, or no maps for an extractor."""
        self._check_size(trajectories)
        if self.extractor is not None and self.window:
            raise ValueError("windows are for long trajectories, an extractor for maps: give one of them")
        if self.extractor is not None:
            check_maps(trajectories, self.extractor)

    def _check_size(self, trajectories: Trajectories) -> None:
        if trajectories.num_trajectories < self.num_clusters:
            raise ValueError(f"{trajectories.num_trajectories} trajectories cannot make {self.num_clusters} clusters")

    def support_policies(self) -> SupportPolicies:
        """Markov policies that see observations as encoder and decoder do."""
        if self.extractor is None:
            return TransitionPolicy()
        return PlanningPolicy() if self.extractor == "planner" else MarkovMapPolicy(extractor=self.extractor)

    def preprocessing(self, trajectories: Trajectories) -> Preprocessing:
        """See `Clusterer`."""
        return Preprocessing.of(trajectories) if self.extractor is None else map_preprocessing(trajectories)

    def prepare(
        self, trajectories: Trajectories, num_seeds: int = 1, preprocessing: Preprocessing | None = None
    ) -> EncoderData:
        """Trajectories in order of length, and their buckets (host-side, once)."""
        if preprocessing is None:
            self._check_size(trajectories)
        lengths = np.sort(np.asarray(trajectories.lengths))
        floats = 700 * int(lengths[-1]) * num_seeds  # gates, states and layers of one trajectory
        if self.extractor is None:
            data = prepare(trajectories, 4 * floats, self.memory_budget, preprocessing)
        else:
            cells = FEATURE_FLOATS * num_seeds
            data = prepare_maps(trajectories, cells, self.memory_budget, preprocessing, floats)
        quantiles = QUANTILES[-1:] if self.window else QUANTILES
        horizons = np.unique(np.quantile(lengths, quantiles, method="higher"))
        ends = np.searchsorted(lengths, horizons, side="right")
        sizes = np.diff(ends, prepend=0)
        buckets = zip((ends - sizes).tolist(), sizes.tolist(), horizons.tolist(), strict=True)
        return EncoderData(data, tuple(Bucket(*each) for each in buckets), self.window, self.windows)

    def fresh(self, key: jax.Array, data: EncoderData, previous: None) -> tuple[State, Info]:
        """Start of a first phase: a new network."""
        del previous
        key, key_network = jax.random.split(key)
        latents = jnp.zeros((data.num_trajectories, self.latent_size))
        return self.begin(key, {"network": self.new_network(key_network, data)}, latents)

    def autoencode(
        self, state: State, data: EncoderData, iteration: jax.Array, shrinkage: float, noise: float = 0.0
    ) -> tuple[State, Info]:
        """An iteration of the autoencoder without centres, with `shrinkage * |z|^2` added to its loss.

        The decoder sees latents with normal noise of standard deviation `noise`.
        """

        def loss(params, batch, key):
            latents = self.encode(params, batch, data)
            blurred = latents + noise * jax.random.normal(key, latents.shape) if noise else latents
            reconstruction = self.reconstruction(params, blurred, batch, data)
            return Loss(reconstruction + shrinkage * (latents**2).sum(-1), reconstruction)

        return self.train(state, data, iteration, loss)

    def with_centres(self, name: str, step: Callable[..., tuple[State, Info]] | None, budget: int) -> Phase:
        """A phase that starts with the trained network, and the k-means centres of its latents."""
        latents_of = lambda data, previous: self.encode_all(previous.params, data)
        return Phase(name, self.centred, step, budget, host=kmeans_before(latents_of, self.num_clusters))

    def centred(
        self, key: jax.Array, data: EncoderData, previous: State, asked: Asked, found: Found
    ) -> tuple[State, Info]:
        """Start of such a phase."""
        key, _ = jax.random.split(key)  # the other half is for k-means
        return self.begin(key, {**previous.params, "centres": found.centres}, asked.points)

    def assign(self, model: dict[str, Any], data: EncoderData) -> Clustering:
        """The nearest centre of other trajectories' latents; `model` is `State.params`."""
        latents = self.encode_all(model, data)
        return self.result(State(model, None, latents, jnp.bool_(True), jax.random.key(0)), data)

    # --- pieces ------------------------------------------------------------------------------------

    def network(self, data: EncoderData) -> TrajectoryAutoencoder:
        sizes = data.data.discrete, data.data.action_size, self.latent_size
        return TrajectoryAutoencoder(*sizes, self.STOCHASTIC, self.extractor, data.data.action_parts)

    @cached_property
    def optimizer(self) -> optax.GradientTransformation:
        return optax.chain(optax.clip_by_global_norm(self.gradient_clip), optax.adam(self.learning_rate))

    def new_network(self, key: jax.Array, data: EncoderData) -> Any:
        """Parameters of the network; the key is consumed."""
        first = data.batch(jnp.zeros(1, jnp.int32), 1)
        return self.network(data).init(key, first.observations, first.actions, jnp.ones(1, jnp.int32))

    def seen(self, params: dict[str, Any], batch: Batch, data: EncoderData) -> Batch:
        """The batch with observations as encoder and decoder see them: the extractor's, if there is one."""
        observed = self.network(data).apply(params["network"], batch.observations, method="observe")
        return batch._replace(observations=observed)

    def encode(self, params: dict[str, Any], batch: Batch, data: EncoderData) -> jax.Array:
        """Latents `[n, d]` (a stochastic encoder: mean and log variance `[n, 2d]`)."""
        given = batch.observations, batch.actions, batch.lengths
        return self.network(data).apply(params["network"], *given, method="encode")

    def read(self, params: dict[str, Any], batch: Batch, data: EncoderData) -> jax.Array:
        """Latents of whole trajectories, as `encode` gives them; of windows, the mean."""
        if not data.window:
            return self.encode(params, batch, data)
        shares = (jnp.arange(data.windows) + 0.5) / data.windows

        def one(share):
            steps = data.windowed(batch.position, jnp.full(batch.position.shape, share))
            return self.encode(params, Batch(batch.position, *steps), data)

        return jax.lax.map(one, shares).mean(0)

    def encode_all(self, params: dict[str, Any], data: EncoderData) -> jax.Array:
        """Latents (means) `[N, d]` of all trajectories."""
        encode = lambda batch: self.read(params, self.seen(params, batch, data), data)[:, : self.latent_size]
        return data.map_all(encode)

    def reconstruction(self, params: dict[str, Any], latents: jax.Array, batch: Batch, data: EncoderData) -> jax.Array:
        """`[n]`: minus the log-likelihood of each trajectory's actions given its latent (B.5); of windows, a step's."""
        shown = batch if batch.decoded is None else batch.decoded
        distribution = self.network(data).apply(params["network"], latents, shown.observations, method="decode")
        real = jnp.arange(shown.actions.shape[1]) < shown.lengths[:, None]
        log_probs = distribution.log_prob(shown.actions)
        chex.assert_equal_shape([real, log_probs])
        total = -jnp.where(real, log_probs, 0).sum(1)
        return total / jnp.maximum(shown.lengths, 1) if data.window else total

    def begin(self, key: jax.Array, params: dict[str, Any], latents: jax.Array) -> tuple[State, Info]:
        """A phase's first state, with a new optimiser, and what is known so far; the key is kept."""
        unknown = jnp.full(1, -jnp.inf)
        info = {"objective": unknown, "reconstruction": -unknown}
        if "centres" in params:
            info |= self.found(params, latents, None)
        return State(params, self.optimizer.init(params), latents, jnp.bool_(False), key), info

    def train(
        self, state: State, data: EncoderData, iteration: jax.Array, loss: Callable[[Any, Batch, jax.Array], Loss]
    ) -> tuple[State, Info]:
        """`steps` Adam steps on `loss(params, batch, key)`, averaged over a batch.

        Reports minus the loss and the reconstruction, in nats a step and averaged over the iteration's batches.
        """

        def update(bucket, carry, key):
            params, optimizer, totals = carry
            key_draw, key_loss = jax.random.split(key)
            drawn = jax.random.randint(key_draw, (self.batch_size,), 0, bucket.size)
            positions = bucket.first + shared_rows(drawn, bucket.horizon)
            batch = data.draw(jax.random.fold_in(key, _WINDOWS), positions, bucket.horizon)

            def mean(params):
                losses = jax.tree.map(jnp.mean, loss(params, self.seen(params, batch, data), key_loss))
                return losses.total, losses

            gradients, losses = jax.grad(mean, has_aux=True)(params)
            updates, optimizer = self.optimizer.update(gradients, optimizer, params)
            return optax.apply_updates(params, updates), optimizer, jax.tree.map(jnp.add, totals, losses)

        branches = [partial(update, bucket) for bucket in data.buckets]

        def step(i, carry):
            number = iteration * self.steps + i
            return jax.lax.switch(data.draw_bucket(number), branches, carry, jax.random.fold_in(state.key, number))

        carry = state.params, state.optimizer, Loss(jnp.float32(0), jnp.float32(0))
        params, optimizer, totals = jax.lax.fori_loop(0, self.steps, step, carry)
        per_step = 1 / self.steps if data.window else data.num_trajectories / (self.steps * data.data.num_steps)
        info = {
            "objective": -totals.total[None] * per_step,
            "reconstruction": totals.reconstruction[None] * per_step,
        }
        return state.replace(params=params, optimizer=optimizer), info

    def nearest(self, params: dict[str, Any], latents: jax.Array) -> jax.Array:
        """`[N]` int32: the nearest centre of each latent."""
        return squared_distances(latents, params["centres"]).argmin(-1).astype(jnp.int32)

    def found(self, params: dict[str, Any], latents: jax.Array, before: jax.Array | None) -> Info:
        """What the training loop reports about an assignment, `[1]` each (one restart); `before [N]`: the previous
        one."""
        assignments = self.nearest(params, latents)
        changed = jnp.int32(0) if before is None else (assignments != before).sum()
        return {
            "changed": changed[None],
            "used_clusters": jnp.zeros(self.num_clusters, bool).at[assignments].set(True).sum()[None],
            "spread": latents.var(0).sum()[None],
            "assignments": assignments[None],
        }

    def improve(
        self, state: State, data: EncoderData, iteration: jax.Array, loss: Callable[[Any, Batch, jax.Array], Loss]
    ) -> tuple[State, Info]:
        """`train` with centres, after which all trajectories are encoded and assigned again."""
        before = self.nearest(state.params, state.latents)
        state, info = self.train(state, data, iteration, loss)
        state = state.replace(latents=self.encode_all(state.params, data))
        return state, info | self.found(state.params, state.latents, before)
