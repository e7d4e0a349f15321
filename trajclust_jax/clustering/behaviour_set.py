"""LBRAC-v's behaviour set: K policies in one network; vector quantisation tells which of them made a trajectory.

Zhang and Kashima, "Behavior Estimation from Multi-Source Data for Offline Reinforcement Learning", AAAI 2023.

    W [N, d], E [K, d]: embeddings of trajectories and of policies ("codes")
    for each gradient step, on transitions (s, a) of trajectories m:
        z_m       = arg max_j cos(E_j, W_m)                                              (Eq. 3)
        minimise  -log b(a | s, E_z) - log b(a | s, W_m)                                 (L_rec, Eq. 4)
                  + alpha (1 - cos(W_m, E_z))                                            (L_com, Eq. 5)
    a trajectory's cluster is z_m

With `extra_clusters` there are more codes than policies, which PG-Kmeans' Algorithm 4 merges after the training: with
as many codes as policies one code may learn two of them, while two codes share another.

Each of L_rec's terms has its own gradient, E's through the first and W's through the second, so that no
straight-through estimator is needed. L_Q (Eq. 6), which the learner adds (`learners.lbrac_v`), shares no parameter with
these two and cannot change an assignment: the clusterer leaves it out.

The network sees only an embedding's direction, and Adam moves each of its components by about the learning rate,
whatever the gradient: in a step a direction turns by the learning rate divided by the embedding's scale. In the release
that is 1e-3 (5e-5 / .05), so slow that the shared network has learned to do without the codes before they differ; here
it is .1.
"""

import dataclasses
import logging
from typing import Any, ClassVar

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct

from trajclust_jax.clustering.clusterer import Clusterer
from trajclust_jax.clustering.merging import merge_clusters
from trajclust_jax.clustering.preprocessing import Preprocessing
from trajclust_jax.clustering.types import Clustering, lone
from trajclust_jax.data import Trajectories, dense, transitions
from trajclust_jax.data.transforms import CLIP, ActionScaling, action_scaling, input_transform
from trajclust_jax.networks import EmbeddedActor, direction, member_keys, squashed_log_prob
from trajclust_jax.training import Info, Phase
from trajclust_jax.validation import check_above, check_at_least

SEEN = 10  # draws of a trajectory's transitions, below which its embedding is hardly moved from where it began
SCORED = 4096  # transitions whose likelihoods are computed at a time
SCALE = 0.005
"""Initial scale of the embeddings: a learning rate of 5e-4 then turns them by a tenth in a step."""

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class BehaviourModel:
    """The behaviour set's network, embeddings and losses, written for one run; learners share it.

    Its parameters are `{"network", "codes" [K, d], "trajectories" [N, d]}`. A code of length 0 is unused and stays so:
    runs with different numbers of codes can share one program (`trimmed`).
    """

    action_size: int
    features: tuple[int, ...] = (200, 200, 200)
    codes: int = 5
    """K: rows of E."""
    embedding_size: int = 8
    """d."""
    scale: float = SCALE
    """Initial embeddings are uniform in [-scale, scale] in each component."""
    commitment: float = 0.1
    """alpha of Eq. 7."""
    cosine: bool = True
    """Codes and trajectories are compared by direction (cosine), as in the release; else by inner products, as Eqs. 3
    and 5 are printed, which favour long embeddings."""

    @property
    def actor(self) -> EmbeddedActor:
        return EmbeddedActor(self.action_size, self.features)

    def init(self, key: jax.Array, observation: jax.Array, num_trajectories: int) -> dict[str, Any]:
        """New parameters; those of a code depend on its index alone. The key is consumed."""
        key_network, key_codes, key_trajectories = jax.random.split(key, 3)
        none = jnp.zeros((len(observation), self.embedding_size))
        return {
            "network": self.actor.init(key_network, observation, none),
            "codes": self.embeddings(key_codes, self.codes),
            "trajectories": self.embeddings(key_trajectories, num_trajectories),
        }

    def embeddings(self, key: jax.Array, count: int) -> jax.Array:
        """`[count, d]`, random; the key is consumed."""
        draw = lambda key: jax.random.uniform(key, (self.embedding_size,), minval=-self.scale, maxval=self.scale)
        return jax.vmap(draw)(member_keys(key, count))

    def policy(self, params: dict[str, Any], observations: jax.Array, embeddings: jax.Array) -> Any:
        """The policies of embeddings `[..., B, d]` at `[B, D]`, before their tanh."""
        return self.actor.apply(params["network"], observations, embeddings)

    def compared(self, embeddings: jax.Array) -> jax.Array:
        """Embeddings as Eqs. 3 and 5 compare them."""
        return direction(embeddings) if self.cosine else embeddings

    def trimmed(self, params: dict[str, Any], k: jax.Array | int) -> dict[str, Any]:
        """The parameters with the first `k` codes in use, which may be a traced number."""
        used = (jnp.arange(self.codes) < k)[:, None]
        return {**params, "codes": jnp.where(used, params["codes"], 0)}

    def unused_kept(self, before: jax.Array, after: jax.Array) -> jax.Array:
        """Codes `[K, d]` after a gradient step, in which Adam may have moved an unused one by what it remembers."""
        return jnp.where((before != 0).any(-1, keepdims=True), after, before)

    def matched(self, codes: jax.Array, embeddings: jax.Array) -> jax.Array:
        """`[..., n]` int32: of the codes `[..., K, d]` in use, that closest to each embedding `[..., n, d]` (Eq. 3)."""
        used = (codes != 0).any(-1)[..., None, :]
        similarity = jnp.einsum("...nd,...kd->...nk", self.compared(embeddings), self.compared(codes))
        return jnp.where(used, similarity, -jnp.inf).argmax(-1).astype(jnp.int32)

    def loss(self, params: dict[str, Any], batch: Any, code: jax.Array) -> tuple[jax.Array, Info]:
        """L_rec + alpha L_com of `batch.observations [B, D]`, `actions [B, A]` and `trajectory [B]` with codes `[B]`.

        Their mean over transitions (Eqs. 4, 5 and 7).
        """
        own, chosen = params["trajectories"][batch.trajectory], params["codes"][code]
        policies = self.policy(params, batch.observations, jnp.stack([chosen, own]))
        log_probs = squashed_log_prob(policies, batch.actions)  # [2, B]
        chex.assert_shape(log_probs, (2, *code.shape))
        distance = 1 - (self.compared(own) * self.compared(chosen)).sum(-1)
        loss = -log_probs.sum(0).mean() + self.commitment * distance.mean()
        return loss, self.told(log_probs[0]) | {"behaviour/distance": distance.mean()}

    def loss_of_codes(self, params: dict[str, Any], batch: Any, code: jax.Array) -> tuple[jax.Array, Info]:
        """L_rec's first term alone, for batches whose codes are known."""
        policies = self.policy(params, batch.observations, params["codes"][code])
        log_probs = squashed_log_prob(policies, batch.actions)
        chex.assert_shape(log_probs, code.shape)
        return -log_probs.mean(), self.told(log_probs)

    def told(self, log_probs: jax.Array) -> Info:
        """What training reports about the codes' log-likelihoods `[B]`."""
        return {"behaviour/loss": -log_probs.mean()}


@struct.dataclass
class Steps:
    """P transitions of N trajectories, in order, as the network sees them."""

    observations: jax.Array  # [P, D]
    actions: jax.Array  # [P, A] in [-1, 1]
    trajectory: jax.Array  # [P] int32
    lengths: jax.Array  # [N] int32
    log_volume: jax.Array  # [] float32: see `ActionScaling`

    def rows(self, rows: jax.Array) -> "Steps":
        """Some of the transitions."""
        return self.replace(**{name: getattr(self, name)[rows] for name in ("observations", "actions", "trajectory")})


@struct.dataclass
class State:
    """State of one run."""

    params: dict[str, Any]
    optimizer: Any
    assignments: jax.Array  # [N] int32
    converged: jax.Array  # [] bool, False: only the budget ends a training
    key: jax.Array


@dataclasses.dataclass(frozen=True)
class BehaviourSet(Clusterer):
    """The behaviour set as a clusterer of trajectories with continuous actions.

    `released` has the settings of the authors' code.
    """

    num_clusters: int
    """K: codes, after merging."""
    extra_clusters: int = 0
    """Codes beyond K during the training; 0: as in the paper, none is merged."""
    features: tuple[int, ...] = (64, 64, 64)
    """Hidden layers: two shared by all policies, then the embedding, then the rest. With the paper's layers of 200, one
    of two seeds found none of five policies on Hopper; with narrow layers all of three seeds found them."""
    embedding_size: int = 8
    """d."""
    scale: float = SCALE
    """Initial scale of the embeddings."""
    commitment: float = 0.1
    """alpha, of L_com."""
    cosine: bool = True
    """Embeddings are compared by direction (cosine); else by inner products, as printed."""
    learning_rate: float = 5e-4
    """Adam's learning rate."""
    batch_size: int = 256
    """Transitions of a gradient step."""
    steps: int = 500
    """Gradient steps an iteration; trajectories are assigned after each iteration."""
    iterations: int = 20
    """Iterations of the training."""

    VERSION: ClassVar[int] = 1
    ACTIONS_VERSION: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_at_least(self, 1, "num_clusters", "embedding_size", "batch_size", "steps", "iterations")
        check_above(self, 0, "scale", "learning_rate")
        check_at_least(self, 0, "commitment", "extra_clusters")

    @classmethod
    def released(cls, num_clusters: int, **settings: Any) -> "BehaviourSet":
        """Layers of 200, embeddings within .05 and a rate of 5e-5, for 500,000 gradient steps."""
        released = {"features": (200, 200, 200), "scale": 0.05, "learning_rate": 5e-5, "iterations": 1_000}
        return cls(num_clusters, **{**released, **settings})

    def check(self, trajectories: Trajectories) -> None:
        """Raises ValueError for discrete actions, and for images."""
        if trajectories.discrete:
            raise ValueError("a behaviour set needs continuous actions: its policies are Gaussians")
        if np.asarray(dense_rows(trajectories)).dtype == np.uint8:
            raise ValueError("a behaviour set needs observations of real numbers, not of bytes")

    def model_of(self, action_size: int) -> BehaviourModel:
        """Network, embeddings and losses."""
        shared = ("features", "embedding_size", "scale", "commitment", "cosine")
        given = {name: getattr(self, name) for name in shared}
        return BehaviourModel(action_size, codes=self.num_clusters + self.extra_clusters, **given)

    def preprocessing(self, trajectories: Trajectories) -> Preprocessing:
        """Observations standardised; of actions, for the policies' tanh, the range of each dimension to [-1, 1].

        Values more than `CLIP` stds from a dimension's mean are not part of its range.
        """
        scaling = action_scaling(trajectories)
        columns, far = scaling.columns, CLIP * scaling.scale
        mean, actions = scaling.shift[columns], np.asarray(trajectories.actions)[np.asarray(trajectories.mask)]
        low = np.maximum(actions.min(0)[columns], mean - far)
        high = np.minimum(actions.max(0)[columns], mean + far)
        shift = scaling.shift.copy()
        shift[columns] = (low + high) / 2
        half = np.where(high > low, (high - low) / 2, scaling.scale).astype(np.float32)
        return Preprocessing(input_transform(trajectories), ActionScaling(columns, shift, half))

    def prepare(
        self, trajectories: Trajectories, num_seeds: int = 1, preprocessing: Preprocessing | None = None
    ) -> Steps:
        """All transitions (host-side, once); warns of trajectories that the training will hardly see."""
        del num_seeds
        self.check(trajectories)
        if preprocessing is None:
            self._warn_of_rare(np.asarray(trajectories.lengths))
        seen = self.preprocessing(trajectories) if preprocessing is None else preprocessing
        flat = transitions(trajectories)
        return Steps(
            np.asarray(seen.inputs(np.asarray(dense(flat.observations))), np.float32),
            np.clip(seen.actions(np.asarray(flat.actions)), -1, 1),
            flat.trajectory,
            np.asarray(trajectories.lengths, np.int32),
            np.float32(np.log(seen.actions.scale).sum()),
        )

    def _warn_of_rare(self, lengths: np.ndarray) -> None:
        draws = lengths * (self.iterations * self.steps * self.batch_size / lengths.sum())
        rare = int((draws < SEEN).sum())
        if rare:
            log.warning(
                "behaviour set: %d of %d trajectories will be drawn from fewer than %d times, and their clusters are "
                "chance: raise iterations, or leave them out",
                *(rare, len(lengths), SEEN),
            )

    def phases(self) -> tuple[Phase, ...]:
        """Training; with extra codes, merging."""
        train = Phase("train", self._start, self._step, self.iterations, light_start=True)
        return (train, Phase("merge", self._merge, None, 0)) if self.extra_clusters else (train,)

    @property
    def _optimizer(self) -> optax.GradientTransformation:
        return optax.adam(self.learning_rate)

    def _start(self, key: jax.Array, data: Steps, previous: None) -> tuple[State, Info]:
        """Random embeddings and a new network."""
        del previous
        key, key_init = jax.random.split(key)
        params = self.model_of(data.actions.shape[1]).init(key_init, data.observations[:1], len(data.lengths))
        return self._seen(State(params, self._optimizer.init(params), None, jnp.bool_(False), key), data, {})

    def _step(self, state: State, data: Steps, iteration: jax.Array) -> tuple[State, Info]:
        """`steps` gradient steps."""
        model = self.model_of(data.actions.shape[1])

        def descend(carry, number):
            params, optimizer = carry
            key = jax.random.fold_in(state.key, iteration * self.steps + number)
            batch = data.rows(jax.random.randint(key, (self.batch_size,), 0, len(data.actions)))
            code = model.matched(params["codes"], params["trajectories"][batch.trajectory])
            gradients, info = jax.grad(model.loss, has_aux=True)(params, batch, code)
            updates, optimizer = self._optimizer.update(gradients, optimizer, params)
            return (optax.apply_updates(params, updates), optimizer), info

        (params, optimizer), infos = jax.lax.scan(descend, (state.params, state.optimizer), jnp.arange(self.steps))
        return self._seen(state.replace(params=params, optimizer=optimizer), data, jax.tree.map(jnp.mean, infos))

    def _seen(self, state: State, data: Steps, means: Info) -> tuple[State, Info]:
        """The state with its assignments, and what the loop reports, `[1]` each (one restart)."""
        model = self.model_of(data.actions.shape[1])
        assignments = model.matched(state.params["codes"], state.params["trajectories"])
        changed = jnp.int32(0) if state.assignments is None else (assignments != state.assignments).sum()
        told = {"behaviour/loss": jnp.float32(jnp.inf), "behaviour/distance": jnp.float32(jnp.inf), **means}
        objective = -told["behaviour/loss"] - data.log_volume
        return self._told(state.replace(assignments=assignments), objective, told["behaviour/distance"], changed)

    def _told(self, state: State, objective: jax.Array, distance: jax.Array, changed: jax.Array) -> tuple[State, Info]:
        """A state, and what the loop reports of it, `[1]` each (one restart)."""
        info = {
            "objective": objective[None],
            "distance": distance[None],
            "changed": changed[None],
            "used_clusters": self._used(state).sum()[None],
            "assignments": state.assignments[None],
        }
        return state, info

    def _used(self, state: State) -> jax.Array:
        """`[K]` bool: the codes that have trajectories."""
        return jnp.zeros(len(state.params["codes"]), bool).at[state.assignments].set(True)

    def _merge(self, key: jax.Array, data: Steps, previous: State) -> tuple[State, Info]:
        """The K codes that merging by likelihoods leaves; each trajectory goes to the likeliest of them."""
        del key
        params, used = previous.params, self._used(previous)
        scores = self._log_likelihoods(params, data)  # [N, K + extra]
        member = jax.nn.one_hot(previous.assignments, len(used))
        totals = jnp.einsum("nj,ni->ji", member, scores, precision="highest")
        totals = jnp.where(jnp.diag(~used), -jnp.inf, totals)  # codes without trajectories go first
        kept = merge_clusters(totals, self.num_clusters)[1]
        in_use = used[kept]  # fewer than K may have had trajectories
        scores = jnp.where(in_use, scores[:, kept], -jnp.inf)
        assignments = scores.argmax(1).astype(jnp.int32)
        codes = jnp.where(in_use[:, None], params["codes"][kept], 0)
        model = self.model_of(data.actions.shape[1])
        near = (model.compared(params["trajectories"]) * model.compared(codes)[assignments]).sum(-1)
        state = previous.replace(params={**params, "codes": codes}, assignments=assignments)
        objective = scores.max(1).sum() / data.lengths.sum()
        return self._told(state, objective, 1 - near.mean(), (kept[assignments] != previous.assignments).sum())

    def result(self, state: State, data: Steps) -> Clustering:
        """The codes of all trajectories; log-likelihoods and posterior are of the codes' policies, latents are W's
        directions.
        """
        log_likelihoods = self._log_likelihoods(state.params, data)
        own = jnp.take_along_axis(log_likelihoods, state.assignments[:, None], axis=1)
        return lone(
            state.assignments,
            jax.nn.softmax(log_likelihoods),
            own.sum(),
            {**state.params, "used": self._used(state)},
            log_likelihoods=log_likelihoods,
            latents=direction(state.params["trajectories"]),
            separation=_separation(log_likelihoods, state.assignments, self._used(state), data.lengths),
        )

    def _log_likelihoods(self, params: dict[str, Any], data: Steps) -> jax.Array:
        """`[N, K]`: of each trajectory's actions under each code's policy, in the data's unit.

        -inf of codes out of use.
        """
        model, count, num_codes = self.model_of(data.actions.shape[1]), len(data.actions), len(params["codes"])
        size = min(SCORED, count)

        def add(totals, first):
            rows = first + jnp.arange(size)
            steps = data.rows(jnp.minimum(rows, count - 1))
            codes = jnp.broadcast_to(params["codes"][:, None], (num_codes, size, self.embedding_size))
            found = squashed_log_prob(model.policy(params, steps.observations, codes), steps.actions)  # [K, size]
            found = jnp.where(rows < count, found - data.log_volume, 0)
            return totals.at[steps.trajectory].add(found.T), None

        zeros = jnp.zeros((len(data.lengths), num_codes))
        totals = jax.lax.scan(add, zeros, jnp.arange(0, count, size))[0]
        return jnp.where((params["codes"] != 0).any(-1), totals, -jnp.inf)

    def assign(self, model: dict[str, Any], data: Steps) -> Clustering:
        """The likeliest of the codes that had trajectories, as new trajectories have no embedding."""
        log_likelihoods = jnp.where(model["used"], self._log_likelihoods(model, data), -jnp.inf)
        return lone(
            log_likelihoods.argmax(1).astype(jnp.int32),
            jax.nn.softmax(log_likelihoods),
            log_likelihoods.max(1).sum(),
            model,
            log_likelihoods=log_likelihoods,
        )


def _separation(log_likelihoods: jax.Array, assignments: jax.Array, used: jax.Array, lengths: jax.Array) -> jax.Array:
    """`[]`: see `Grouping.separation`; NaN where one cluster alone is used."""
    found = jnp.where(used, log_likelihoods, 0)
    own = jnp.take_along_axis(found, assignments[:, None], axis=1)[:, 0]
    others = (found.sum(1) - own) / (used.sum() - 1)
    return jnp.where(used.sum() > 1, jnp.median((own - others) / lengths), jnp.nan)


def dense_rows(trajectories: Trajectories) -> Any:
    """A codebook's table, or the dense observations."""
    return getattr(trajectories.observations, "table", trajectories.observations)
