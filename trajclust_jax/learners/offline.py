"""Offline training: any learner on recorded trajectories, as a method for `training.fit`.

A step of the method is a `lax.scan` of gradient steps on data that stays on the device, minibatch indices drawn inside.
Beside the seeds, two axes train at once: settings that are swept, and the clusters of a clustering, each with its own
learner on its own trajectories.
"""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from trajclust_jax.data import DataError, Trajectories, dense, returns, transitions
from trajclust_jax.learners.learner import ActorCritic, Learner, LearnerState, Stage
from trajclust_jax.learners.replay import Batch
from trajclust_jax.networks import member_keys
from trajclust_jax.training import Info, Phase

BATCHES = 0x62617463  # keeps the keys of minibatches apart from those of gradient steps, which are never so many
STD_FLOOR = 1e-3  # added to every std, as in TD3+BC's code


class Clustered(NamedTuple):
    """Trajectories and the cluster of each, for one learner a cluster."""

    trajectories: Trajectories
    assignments: np.ndarray  # [N] int, 0..num_clusters-1; others belong nowhere
    num_clusters: int


@struct.dataclass
class Scaling:
    """From an environment's observations to a network's, and from its actions back: the same in training and after."""

    mean: jax.Array  # [..., D]
    std: jax.Array  # [..., D]
    bound: jax.Array  # [..., A]: actions are in [-bound, bound]

    def observations(self, observations: jax.Array) -> jax.Array:
        """`[..., n, D]`, normalised."""
        return (observations - self.mean[..., None, :]) / self.std[..., None, :]

    def actions(self, actions: jax.Array) -> jax.Array:
        """`[..., n, A]` in [-1, 1], as the environment takes them."""
        return actions * self.bound[..., None, :]


@struct.dataclass
class OfflineData:
    """Transitions on the device. With clusters the transitions of each are together, and the others have an axis K."""

    batch: Batch  # leaves [P, ...], scaled
    first: jax.Array  # [] or [K] int32: where a cluster's transitions begin
    count: jax.Array  # [] or [K] int32: how many they are
    scaling: Scaling


@struct.dataclass
class OfflineState:
    """State of one run; `learner` has the axes of swept settings and clusters, where there are."""

    learner: LearnerState
    converged: jax.Array  # [] bool, False: the budget alone ends a training


@struct.dataclass
class TrainedPolicy:
    """What is kept of a training: the actor, and the scaling it was trained with."""

    actor: Any
    scaling: Scaling


@dataclasses.dataclass(frozen=True)
class Offline:
    """A learner's training from trajectories.

    `fit` takes `Trajectories`, or `Clustered` for a learner a cluster; an empty cluster stays as it began.
    """

    learner: Learner
    block: int = 1_000
    """Gradient steps a step of `fit`; they divide the learner's updates."""
    normalise: bool = True
    """Observations have mean 0 and std 1 over each cluster's transitions."""
    reward_range: float | None = None
    """Rewards are scaled so that the best return of all the data exceeds the worst by so much."""
    reward_scale: float = 1.0
    """Times every reward."""
    reward_shift: float = 0.0
    """Added to every reward after that (antmaze: -1)."""
    best: float = 1.0
    """The share of trajectories with the highest (undiscounted) returns, of each cluster, that is trained on."""
    sweep: tuple[tuple[str, tuple[float, ...]], ...] = ()
    """Settings of the learner with several values each, trained side by side: the first values together, the second
    ones together, and so on. Only numbers that enter computations: rates, weights, temperatures."""

    VERSION = 1  # raise it when results change

    def __post_init__(self) -> None:
        self.learner.check()
        for stage in self.learner.stages():
            if self.block < 1 or stage.updates % self.block:
                raise ValueError(f"block is {self.block}: it must divide {stage.updates} updates")
        if self.reward_range is not None and not self.reward_range > 0:
            raise ValueError(f"reward_range is {self.reward_range}: it must be above 0")
        if not 0 < self.best <= 1:
            raise ValueError(f"best is {self.best}: give a share above 0, at most 1")
        if len({len(values) for _, values in self.sweep}) > 1:
            raise ValueError("sweep: every setting needs the same number of values")
        for name, values in self.sweep:
            if not isinstance(getattr(self.learner, name, None), float) or name in self.learner.FIXED:
                raise ValueError(f"sweep: {name} is no setting of {type(self.learner).__name__} that can be swept")
            for value in values:
                dataclasses.replace(self.learner, **{name: value}).check()

    def check(self, trajectories: Trajectories) -> None:
        """Raises ValueError for data that the learner cannot learn from."""
        if trajectories.discrete:
            raise ValueError("offline learners need continuous actions")
        if (isinstance(self.learner, ActorCritic) or self.best < 1) and not np.any(np.asarray(trajectories.rewards)):
            raise ValueError("every reward is 0: there is nothing to learn but the actions (bc does)")

    def prepare(self, data: Trajectories | Clustered, num_seeds: int) -> OfflineData:
        """Transitions, cluster by cluster, scaled (host-side).

        For learners that bootstrap, a step that was cut off leaves when its successor is not known: readers repeat the
        observation there.

        Raises:
            ValueError: what `check` says.
            DataError: if no trajectory is in any cluster, or nothing is left of them.
        """
        clustered = isinstance(data, Clustered)
        trajectories = data.trajectories if clustered else data
        self.check(trajectories)
        gained = returns(trajectories)
        groups = [np.arange(len(gained))]
        if clustered:
            groups = [np.flatnonzero(np.asarray(data.assignments) == k) for k in range(data.num_clusters)]
        groups = [_best(group, gained, self.best) for group in groups]
        if not any(map(len, groups)):
            raise DataError("assignments: no trajectory is in any cluster")
        flat = transitions(trajectories)
        observations, following = (
            np.asarray(dense(x), np.float32).reshape(len(flat.rewards), -1)
            for x in (flat.observations, flat.next_observations)
        )
        actions = np.asarray(flat.actions, np.float32)
        bound = np.maximum(np.abs(actions).max(0), 1)  # what is within [-1, 1] has that bound
        known = np.ones(len(flat.rewards), bool)
        if isinstance(self.learner, ActorCritic):
            known = ~(flat.truncated & (following == observations).all(1))
        begins = np.concatenate([[0], np.cumsum(np.asarray(trajectories.lengths))])
        rewards = self._rewards(flat.rewards, gained)
        parts, scalings = [], []
        for group in groups:
            rows = np.concatenate([np.arange(begins[n], begins[n + 1]) for n in group] or [np.zeros(0, int)])
            rows = rows[known[rows]]
            mean, std = np.zeros(observations.shape[1]), np.ones(observations.shape[1])
            if self.normalise and len(rows):
                mean, std = observations[rows].mean(0, np.float64), observations[rows].std(0, np.float64) + STD_FLOOR
            scaling = Scaling(*(np.asarray(x, np.float32) for x in (mean, std, bound)))
            scalings.append(scaling)
            parts.append(
                Batch(
                    scaling.observations(observations[rows]),
                    actions[rows] / bound,
                    rewards[rows],
                    scaling.observations(following[rows]),
                    flat.terminated[rows],
                )
            )
        count = np.array([len(part.rewards) for part in parts], np.int32)
        if not count.any():
            raise DataError("final_observations: of no step it is known what followed")
        first = np.concatenate([[0], np.cumsum(count)[:-1]]).astype(np.int32)
        batch = Batch(*(np.concatenate(column) for column in zip(*parts, strict=True)))
        if not clustered:
            return OfflineData(batch, first[0], count[0], scalings[0])
        return OfflineData(batch, first, count, jax.tree.map(lambda *x: np.stack(x), *scalings))

    def _rewards(self, rewards: np.ndarray, gained: np.ndarray) -> np.ndarray:
        if self.reward_range is not None and np.ptp(gained) > 0:
            rewards = rewards * (self.reward_range / np.ptp(gained))
        return (self.reward_scale * rewards + self.reward_shift).astype(np.float32)

    def phases(self) -> tuple[Phase, ...]:
        """The learner's stages."""
        return tuple(self._phase(index, stage) for index, stage in enumerate(self.learner.stages()))

    def _phase(self, index: int, stage: Stage) -> Phase:
        def start(key: jax.Array, data: OfflineData, previous: OfflineState | None) -> tuple[OfflineState, Info]:
            """One run; the key is consumed."""
            if previous is not None:
                begun = stage.begin(previous.learner)
                return previous.replace(learner=begun.replace(key=self._keys(key, data))), {}
            init = lambda key: self.learner.init(key, data.batch.observations.shape[-1])
            for _ in self._axes(data):
                init = jax.vmap(init)
            return OfflineState(init(self._keys(key, data)), jnp.array(False)), {}

        def step(state: OfflineState, data: OfflineData, iteration: jax.Array) -> tuple[OfflineState, Info]:
            """`block` gradient steps of one run; infos are means over them."""
            steps = iteration * self.block + jnp.arange(self.block)

            def train(settings, learner_state, first, count):
                learner = dataclasses.replace(self.learner, **settings)
                update = learner.stages()[index].update

                def body(current, step):
                    key = jax.random.fold_in(jax.random.fold_in(current.key, BATCHES), step)
                    rows = first + jax.random.randint(key, (learner.batch_size,), 0, jnp.maximum(count, 1))
                    return update(current, jax.tree.map(lambda x: x[rows], data.batch), step)

                trained, infos = jax.lax.scan(body, learner_state, steps)
                trained = jax.tree.map(lambda a, b: jnp.where(count > 0, a, b), trained, learner_state)
                mean = lambda name: jnp.nanmean if name.startswith(learner.PAUSING) else jnp.mean
                means = {name: mean(name)(values, 0) for name, values in infos.items()}
                return trained, jax.tree.map(lambda x: jnp.where(count > 0, x, jnp.nan), means)

            if data.count.ndim:
                train = jax.vmap(train, (None, 0, 0, 0))
            settings = {name: jnp.array(values) for name, values in self.sweep}
            if settings:
                train = jax.vmap(train, (0, 0, None, None))
            trained, info = train(settings, state.learner, data.first, data.count)
            return state.replace(learner=trained), info

        return Phase(stage.name, start, step, stage.updates // self.block, light_start=True)

    def _axes(self, data: OfflineData) -> tuple[int, ...]:
        """Sizes of the axes within a run: swept values, clusters."""
        return (*(len(values) for _, values in self.sweep[:1]), *data.count.shape)

    def _keys(self, key: jax.Array, data: OfflineData) -> jax.Array:
        """A key for each learner of a run, the same for all swept values; the key is consumed."""
        keys = member_keys(key, *data.count.shape)
        return jnp.broadcast_to(keys, self._axes(data)) if self.sweep else keys

    def result(self, state: OfflineState, data: OfflineData) -> TrainedPolicy:
        """The actors, with their scaling; axes as in the state."""
        scaling = data.scaling
        if self.sweep:
            count = len(self.sweep[0][1])
            scaling = jax.tree.map(lambda x: jnp.broadcast_to(x, (count, *x.shape)), scaling)
        return TrainedPolicy(state.learner.params["actor"], scaling)


def _best(group: np.ndarray, gained: np.ndarray, share: float) -> np.ndarray:
    """Of the trajectories `group` the given share with the highest returns, at least one, in the data's order."""
    count = max(math.floor(share * len(group)), min(1, len(group)))
    return np.sort(group[np.argsort(-gained[group], kind="stable")[:count]])
