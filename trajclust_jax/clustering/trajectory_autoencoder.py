"""Clustering by representation: CAAE, DEC and VAE + k-means on one trajectory encoder and decoder.

Hu, Wang and Du, "Policy-Based Trajectory Clustering in Offline RL", Section 5.2 and appendix B.5. The encoder maps a
trajectory to a latent z; the decoder sees z and ONE observation and predicts its action, so that z is left with what
the observations do not tell: the policy.

    CAAE   autoencoder ("warmup"); codes by k-means; autoencoder + distance to the nearest code, codes learned ("main")
    DEC    autoencoder ("pretrain"); centroids by k-means; KL(sharpened || soft assignment) ("refine")
    VAE    variational autoencoder ("train"); k-means on posterior means ("cluster")

Everything is written for one seed; `training.fit` maps it over S seeds. An iteration is `steps` gradient steps. A
gradient step's trajectories are of similar length: they come from one bucket, drawn in proportion to its size by a
key that all seeds share, so that a step runs over that bucket's horizon and not over the longest trajectory's.

Long trajectories are seen through windows (`window`; ours): the encoder sees a random window, the decoder as many
steps from anywhere in the same trajectory. A latent that had to tell the window itself would hold where in a movement
it lies; what it knows of other steps is the policy. A trajectory's latent is the mean over windows spread over it.
"""

import dataclasses
from collections.abc import Callable
from functools import cached_property, partial
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct

from trajclust_jax.clustering.images import ImageInputs, fitted_inputs
from trajclust_jax.clustering.kmeans import kmeans, posterior, squared_distances
from trajclust_jax.clustering.maps import FEATURE_FLOATS, check_maps, prepare_maps
from trajclust_jax.clustering.policies import MixtureData, prepare
from trajclust_jax.clustering.types import Clustering, lone
from trajclust_jax.data import Codebook, Observations, Trajectories
from trajclust_jax.data.transforms import ACTIONS_VERSION, Inputs
from trajclust_jax.networks import Placed, TrajectoryAutoencoder
from trajclust_jax.training import Info, Phase

QUANTILES = (0.5, 0.9, 1.0)  # of the lengths: the horizons of the buckets
_BUCKETS = 0x6275636B  # the key from which every run draws the bucket of a gradient step

_WINDOWS = 0x77696E64  # what the keys of windows are folded from

_may_be_zero = partial(dataclasses.field, metadata={"may_be_zero": True})


class Steps(NamedTuple):
    """Steps of n trajectories, of which the first `lengths` are real."""

    observations: Observations | Placed  # [n, T]
    actions: jax.Array  # [n, T] or [n, T, A]
    lengths: jax.Array  # [n] int32, 0 for a filler


class Batch(NamedTuple):
    """n trajectories, cropped to T steps, or a window of T steps of each."""

    position: jax.Array  # [n] int32 place in order of length
    observations: Observations | Placed  # [n, T]
    actions: jax.Array  # [n, T] or [n, T, A]
    lengths: jax.Array  # [n] int32, 0 for a filler
    decoded: Steps | None = None  # what the decoder sees, if not the same


class Bucket(NamedTuple):
    """Trajectories of similar length: a range in order of length, and its longest."""

    first: int
    size: int
    horizon: int


@struct.dataclass
class EncoderData:
    """Trajectories in order of length, in chunks for what is done on all of them and in buckets for training."""

    data: MixtureData
    buckets: tuple[Bucket, ...] = struct.field(pytree_node=False)
    window: int = struct.field(pytree_node=False, default=0)  # W; 0: whole trajectories
    windows: int = struct.field(pytree_node=False, default=1)  # of a trajectory, for its latent

    def batch(self, positions: jax.Array, horizon: int) -> Batch:
        """The first `horizon` steps of the trajectories at `positions [n]` in order of length."""
        data = self.data
        actions = data.steps(data.chunks.actions, positions, horizon)
        return Batch(positions, data.observed(positions, horizon), actions, data.lengths[positions])

    def at(self, positions: jax.Array, t: jax.Array, lengths: jax.Array) -> Steps:
        """The steps `t [n, W]` of the trajectories at `positions [n]`, `lengths [n]` of them real."""
        data, chunks = self.data, self.data.chunks
        source = data.at(chunks.ids if data.coded else chunks.inputs, positions, t)
        observed = Codebook(data.table, source) if data.coded else source
        return Steps(observed, data.at(chunks.actions, positions, t), lengths)

    def windowed(self, positions: jax.Array, share: jax.Array) -> Steps:
        """One window of each trajectory, `share [n]` (0 to 1) of the way from its first to its last one."""
        lengths = self.data.lengths[positions]
        first = (share * jnp.maximum(lengths - self.window, 0)).round().astype(jnp.int32)
        t = jnp.minimum(first[:, None] + jnp.arange(self.window), self.data.chunks.actions.shape[2] - 1)
        return self.at(positions, t, jnp.minimum(lengths, self.window))

    def draw(self, key: jax.Array, positions: jax.Array, horizon: int) -> Batch:
        """What a gradient step sees of the trajectories at `positions [n]`; the key is consumed."""
        if not self.window:
            return self.batch(positions, horizon)
        key_window, key_decoded = jax.random.split(key)
        window = self.windowed(positions, jax.random.uniform(key_window, positions.shape))
        lengths = self.data.lengths[positions]
        t = (jax.random.uniform(key_decoded, (len(positions), self.window)) * lengths[:, None]).astype(jnp.int32)
        return Batch(positions, *window, self.at(positions, t, jnp.minimum(lengths, self.window)))

    @property
    def num_trajectories(self) -> int:
        return self.data.num_trajectories

    def bucket_of(self, position: jax.Array) -> jax.Array:
        """The index of the bucket that holds a place in order of length; fillers count to the last one."""
        ends = jnp.array([bucket.first + bucket.size for bucket in self.buckets[:-1]], jnp.int32)
        return jnp.searchsorted(ends, position, side="right")

    def draw_bucket(self, number: jax.Array) -> jax.Array:
        """The index of a gradient step's bucket: the bucket of a random trajectory.

        The same draw for all seeds: mapped over them, a switch on it stays a switch and does not run every branch.
        """
        key = jax.random.fold_in(jax.random.key(_BUCKETS), number)
        return self.bucket_of(jax.random.randint(key, (), 0, self.num_trajectories))

    def map_all(self, fn: Callable[[Batch], Any]) -> Any:
        """`fn(batch) -> [n, ...]` of all trajectories, chunk by chunk: `[N, ...]` in the dataset's order."""
        num_chunks, size = self.data.chunks.lengths.shape
        branches = [partial(self.batch, horizon=bucket.horizon) for bucket in self.buckets]

        def one(chunk):
            positions = chunk * size + jnp.arange(size)
            bucket = self.bucket_of(positions[-1])
            return jax.lax.switch(bucket, [lambda p, take=take: fn(take(p)) for take in branches], positions)

        out = jax.lax.map(one, jnp.arange(num_chunks))
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[self.data.rank], out)


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
class _Autoencoder:
    """What the three methods share: data, network, gradient steps, the plain autoencoder."""

    num_clusters: int
    """k: codes or centroids."""
    latent_size: int = 8
    """d: dimensions of a trajectory's latent."""
    batch_size: int = 64
    """Trajectories a gradient step."""
    learning_rate: float = 1e-3
    """Adam's (B.6)."""
    gradient_clip: float = 10.0
    """Largest global norm of a gradient."""
    steps: int = 100
    """Gradient steps an iteration; progress and checkpoints come after each iteration."""
    extractor: str | None = None
    """`conv` or `planner`: encoder and decoder see features of the map where the agent is, learned with them."""
    window: int = _may_be_zero(default=0)
    """Steps of a trajectory that the encoder sees at a time, and the decoder; 0: whole trajectories."""
    windows: int = 8
    """Windows, evenly spread, whose mean latent is a trajectory's."""
    memory_budget: int = 128 * 2**20
    """Bytes of working memory where all trajectories are encoded."""

    VERSION: ClassVar[int] = 1  # of the algorithm: part of a cell's identity; raise it when results change
    ACTIONS_VERSION: ClassVar[int] = ACTIONS_VERSION
    STOCHASTIC: ClassVar[bool] = False  # the encoder gives a mean and a log variance

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value, may_be_zero = getattr(self, field.name), field.metadata.get("may_be_zero", False)
            if isinstance(value, (int, float)) and (value < 0 or (value == 0 and not may_be_zero)):
                raise ValueError(f"{field.name} is {value}: it must be {'at least' if may_be_zero else 'above'} 0")

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

    def inputs(self, trajectories: Trajectories) -> Inputs | ImageInputs:
        """How an observation becomes the network's input; a saved model needs it beside its parameters."""
        return fitted_inputs(trajectories)

    def prepare(self, trajectories: Trajectories, num_seeds: int = 1) -> EncoderData:
        """Trajectories in order of length, and their buckets (host-side, once)."""
        self._check_size(trajectories)
        lengths = np.sort(np.asarray(trajectories.lengths))
        floats = 700 * int(lengths[-1]) * num_seeds  # gates, states and layers of one trajectory
        if self.extractor is None:
            data = prepare(trajectories, 4 * floats, self.memory_budget)
        else:
            data = prepare_maps(trajectories, FEATURE_FLOATS * num_seeds, self.memory_budget, floats)
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
        """An iteration of the autoencoder without centres, `shrinkage * |z|^2` added to its loss.

        The decoder sees latents with normal noise of standard deviation `noise`.
        """

        def loss(params, batch, key):
            latents = self.encode(params, batch, data)
            blurred = latents + noise * jax.random.normal(key, latents.shape) if noise else latents
            reconstruction = self.reconstruction(params, blurred, batch, data)
            return Loss(reconstruction + shrinkage * (latents**2).sum(-1), reconstruction)

        return self.train(state, data, iteration, loss)

    def centred(self, key: jax.Array, data: EncoderData, previous: State) -> tuple[State, Info]:
        """Start of a phase with centres: the trained network, and the k-means centres of its latents."""
        key, key_centres = jax.random.split(key)
        latents = self.encode_all(previous.params, data)
        centres, _ = kmeans(key_centres, latents, self.num_clusters)
        return self.begin(key, {**previous.params, "centres": centres}, latents)

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
        total = -jnp.where(real, distribution.log_prob(shown.actions), 0).sum(1)
        return total / jnp.maximum(shown.lengths, 1) if data.window else total

    def begin(self, key: jax.Array, params: dict[str, Any], latents: jax.Array) -> tuple[State, Info]:
        """A phase's first state, with a new optimiser, and what is known by then; the key is kept."""
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
            positions = bucket.first + jax.random.randint(key_draw, (self.batch_size,), 0, bucket.size)
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

    def assign(self, params: dict[str, Any], latents: jax.Array) -> jax.Array:
        """`[N]` int32: the nearest centre of each latent."""
        return squared_distances(latents, params["centres"]).argmin(-1).astype(jnp.int32)

    def found(self, params: dict[str, Any], latents: jax.Array, before: jax.Array | None) -> Info:
        """What the training loop shows of an assignment, `[1]` each (one restart); `before [N]`: the one until now."""
        assignments = self.assign(params, latents)
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
        """`train` where there are centres: all trajectories are encoded and assigned again after it."""
        before = self.assign(state.params, state.latents)
        state, info = self.train(state, data, iteration, loss)
        state = state.replace(latents=self.encode_all(state.params, data))
        return state, info | self.found(state.params, state.latents, before)


@dataclasses.dataclass(frozen=True)
class CAAE(_Autoencoder):
    """Centroid-Attracted Autoencoder: Eq. 4, a trajectory's cluster being its nearest code.

    The paper starts from a random codebook. Then all trajectories are soon attracted to one code, most often; so by
    default the autoencoder is trained first without codes, its latents attracted to the origin a little, and the codes
    start as the k-means centres of these latents.
    """

    alpha: float = _may_be_zero(default=1.0)
    """Weight of the squared distance to the nearest code (B.6)."""
    regularisation: bool = _may_be_zero(default=True)
    """Codes closer than 1 repel each other (C.2.1)."""
    warmup_iterations: int = _may_be_zero(default=20)
    """Iterations without codes before k-means sets them; 0: the paper's plain version, random normal codes."""
    shrinkage: float = _may_be_zero(default=0.1)
    """Weight of |z|^2 in the warm-up: what the decoder has no use for leaves the latent, and k-means finds the rest."""
    noise: float = _may_be_zero(default=0.5)
    """Standard deviation of what is added to the latents that the decoder sees in the warm-up: differences that hardly
    help the decoder are not worth keeping, so that a policy's trajectories come to lie together."""
    iterations: int = 8
    """Iterations with codes."""

    def phases(self) -> tuple[Phase, ...]:
        """Warm-up and main; without a warm-up main alone."""
        if not self.warmup_iterations:
            return (Phase("main", self._plain, self._attract, self.iterations),)
        autoencode = partial(self.autoencode, shrinkage=self.shrinkage, noise=self.noise)
        warmup = Phase("warmup", self.fresh, autoencode, self.warmup_iterations, light_start=True)
        return warmup, Phase("main", self.centred, self._attract, self.iterations)

    def result(self, state: State, data: EncoderData) -> Clustering:
        """The nearest code of each trajectory; the objective is minus Eq. 4, the posterior that of N(mu_j, I).

        The decoder makes a policy of each code: the log-likelihoods are theirs.
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
            self.assign(params, state.latents),
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
        """Eq. 4 of every trajectory. Its last term, printed once for all, is counted once a trajectory."""
        del key
        return self._losses(params, self.encode(params, batch, data), batch, data)

    def _losses(self, params: dict[str, Any], latents: jax.Array, batch: Batch, data: EncoderData) -> Loss:
        codes = params["centres"]
        reconstruction = self.reconstruction(params, latents, batch, data)
        total = reconstruction + self.alpha * squared_distances(latents, codes).min(-1)
        if self.regularisation:
            total -= jnp.minimum(squared_distances(codes, codes), 1).mean()  # 1 / m^2 sum over i, j
        return Loss(total, reconstruction)


@dataclasses.dataclass(frozen=True)
class DEC(_Autoencoder):
    """Deep Embedded Clustering (Xie et al., 2016) on trajectories, with CAAE's encoder and decoder.

    Refinement trains encoder and centroids by KL(P || Q): Q is a Student-t kernel's soft assignment (their Eq. 1), P
    its sharpened form (Eq. 3), computed from all trajectories at the beginning of every iteration. Their layer-wise
    pre-training of a stacked autoencoder is the trajectory autoencoder's here, their SGD Adam (B.6).
    """

    pretrain_iterations: int = 20
    """Iterations of the autoencoder before k-means sets the centroids."""
    shrinkage: float = _may_be_zero(default=0.0)
    """Weight of |z|^2 in pre-training; Xie et al. have none."""
    iterations: int = 10
    """At most so many iterations of refinement."""
    tolerance: float = _may_be_zero(default=1e-3)
    """Refinement ends when no more than this share of the assignments changes in an iteration (their 0.1 %)."""

    def phases(self) -> tuple[Phase, ...]:
        """Pre-training and refinement."""
        autoencode = partial(self.autoencode, shrinkage=self.shrinkage)
        pretrain = Phase("pretrain", self.fresh, autoencode, self.pretrain_iterations, light_start=True)
        return pretrain, Phase("refine", self.centred, self._refine, self.iterations)

    def result(self, state: State, data: EncoderData) -> Clustering:
        """The nearest centroid of each trajectory; objective minus KL(P || Q), posterior Q."""
        soft = self._soft(state.params, state.latents)
        return lone(
            self.assign(state.params, state.latents),
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
    return (jax.scipy.special.xlogy(target, target) - target * jnp.log(soft)).sum(-1)


@dataclasses.dataclass(frozen=True)
class VAEKmeans(_Autoencoder):
    """A variational autoencoder (Kingma and Welling, 2013) on trajectories, then k-means on its posterior means."""

    kl_weight: float = _may_be_zero(default=1.0)
    """Weight of KL(q(z | tau) || N(0, I)); 1 is the evidence lower bound."""
    iterations: int = 28
    """Iterations of training."""

    STOCHASTIC: ClassVar[bool] = True

    def phases(self) -> tuple[Phase, ...]:
        """Training and clustering."""
        train = Phase("train", self.fresh, self._train, self.iterations, light_start=True)
        return train, Phase("cluster", self.centred, None, 0)

    def result(self, state: State, data: EncoderData) -> Clustering:
        """The nearest k-means centre of each posterior mean; the objective is the evidence lower bound (one sample)."""

        def loss(batch):
            key = jax.random.fold_in(state.key, batch.position[0])
            batch = self.seen(state.params, batch, data)
            return self._losses(state.params, self.read(state.params, batch, data), batch, key, data).total

        losses = data.map_all(loss)
        assignments = self.assign(state.params, state.latents)
        responsibilities = posterior(state.latents, state.params["centres"], assignments)
        return lone(assignments, responsibilities, -losses.sum(), state.params, latents=state.latents)

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
        return Loss(reconstruction + self.kl_weight * divergence, reconstruction)
