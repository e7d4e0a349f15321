"""Offline training: any learner on recorded trajectories, as a method for `training.fit`.

A step of the method is a `lax.scan` of gradient steps on data that stays on the device, minibatch indices drawn inside.
Beside the seeds, two axes train at once: settings that are swept, and the clusters of a clustering, each with its own
learner on its own trajectories.
"""

import dataclasses
import logging
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from trajclust_jax.data import Codebook, DataError, Trajectories, dense, returns, transitions
from trajclust_jax.learners.learner import ActorCritic, Learner, LearnerState, Stage
from trajclust_jax.learners.replay import Batch
from trajclust_jax.networks import member_keys
from trajclust_jax.training import Info, Phase

BATCHES = 0x62617463  # keeps the keys of minibatches apart from those of gradient steps, which are never so many
STD_FLOOR = 1e-3  # added to every std, as in TD3+BC's code
FAR = 10.0  # times what 99 % of the actions stay within: beyond it an action is taken for a mistake
_BLOCK = 2**20  # numbers in float64 at a time

log = logging.getLogger(__name__)


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
class Frames:
    """Observations of integers, in their dtype, each stored once; rows from U on are those of `final`."""

    steps: jax.Array  # [U, D]
    final: jax.Array | None  # [N, D], or None where `steps` has them too

    def at(self, rows: Any, numpy: Any = jnp) -> Any:
        """Rows `[n]` as `[n, D]`; host-side with `numpy=np`."""
        if self.final is None:
            return self.steps[rows]
        count = len(self.steps)
        final = self.final[numpy.maximum(rows - count, 0)]
        return numpy.where((rows < count)[:, None], self.steps[numpy.minimum(rows, count - 1)], final)


@struct.dataclass
class OfflineData:
    """Transitions on the device. With clusters the transitions of each are together, and the others have an axis K.

    Integer observations, images above all, take a fourth of the memory that scaled ones would, and successors none:
    the batch has their rows in `frames`, and a gradient step scales what it draws.
    """

    batch: Batch  # leaves [P, ...], scaled; observations are rows [P] int32 where there are frames
    first: jax.Array  # [] or [K] int32: where a cluster's transitions begin
    count: jax.Array  # [] or [K] int32: how many they are
    scaling: Scaling
    frames: Frames | None = None

    def drawn(self, rows: jax.Array, scaling: Scaling) -> Batch:
        """The transitions `rows [B]`, scaled."""
        batch = jax.tree.map(lambda x: x[rows], self.batch)
        if self.frames is None:
            return batch
        scaled = lambda ids: scaling.observations(self.frames.at(ids).astype(jnp.float32))
        return batch._replace(
            observations=scaled(batch.observations), next_observations=scaled(batch.next_observations)
        )


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

    bounds: tuple[float, ...] = ()
    """The largest absolute value of each action dimension, at least 1; empty: found in the data."""

    VERSION = 1  # raise it when results change

    def __post_init__(self) -> None:
        self.learner.check()
        if any(not bound > 0 for bound in self.bounds):
            raise ValueError(f"bounds are {self.bounds}: they must be above 0")
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
        frames, trajectories = _framed(trajectories)
        flat = transitions(trajectories)
        if frames is None:
            observations, following = (
                np.asarray(dense(x), np.float32).reshape(len(flat.rewards), -1)
                for x in (flat.observations, flat.next_observations)
            )
            values = lambda rows: rows
        else:
            observations, following = flat.observations.ids, flat.next_observations.ids
            values = lambda rows: frames.at(rows, np)
        actions = np.asarray(flat.actions, np.float32)
        bound = _bound(actions, flat.trajectory, self.bounds)
        known = np.ones(len(flat.rewards), bool)
        if isinstance(self.learner, ActorCritic):
            cut = np.flatnonzero(flat.truncated)
            known[cut] = (values(following[cut]) != values(observations[cut])).any(1)
        begins = np.concatenate([[0], np.cumsum(np.asarray(trajectories.lengths))])
        rewards = self._rewards(flat.rewards, gained)
        parts, scalings = [], []
        for group in groups:
            rows = np.concatenate([np.arange(begins[n], begins[n + 1]) for n in group] or [np.zeros(0, int)])
            rows = rows[known[rows]]
            size = (observations if frames is None else frames.steps).shape[1]
            mean, std = np.zeros(size), np.ones(size)
            if self.normalise and len(rows):
                mean, std = _moments(observations[rows], frames)
                std = std + STD_FLOOR
            scaling = Scaling(*(np.asarray(x, np.float32) for x in (mean, std, bound)))
            scalings.append(scaling)
            scaled = scaling.observations if frames is None else lambda rows: rows
            parts.append(
                Batch(
                    scaled(observations[rows]),
                    np.clip(actions[rows] / bound, -1, 1),
                    rewards[rows],
                    scaled(following[rows]),
                    flat.terminated[rows],
                )
            )
        count = np.array([len(part.rewards) for part in parts], np.int32)
        if not count.any():
            raise DataError("final_observations: of no step it is known what followed")
        first = np.concatenate([[0], np.cumsum(count)[:-1]]).astype(np.int32)
        batch = Batch(*(np.concatenate(column) for column in zip(*parts, strict=True)))
        if not clustered:
            return OfflineData(batch, first[0], count[0], scalings[0], frames)
        return OfflineData(batch, first, count, jax.tree.map(lambda *x: np.stack(x), *scalings), frames)

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
            init = lambda key: self.learner.init(key, data.scaling.mean.shape[-1])
            for _ in self._axes(data):
                init = jax.vmap(init)
            return OfflineState(init(self._keys(key, data)), jnp.array(False)), {}

        def step(state: OfflineState, data: OfflineData, iteration: jax.Array) -> tuple[OfflineState, Info]:
            """`block` gradient steps of one run; infos are means over them."""
            steps = iteration * self.block + jnp.arange(self.block)

            def train(settings, learner_state, first, count, scaling):
                learner = dataclasses.replace(self.learner, **settings)
                update = learner.stages()[index].update

                def body(current, step):
                    key = jax.random.fold_in(jax.random.fold_in(current.key, BATCHES), step)
                    rows = first + jax.random.randint(key, (learner.batch_size,), 0, jnp.maximum(count, 1))
                    return update(current, data.drawn(rows, scaling), step)

                trained, infos = jax.lax.scan(body, learner_state, steps)
                trained = jax.tree.map(lambda a, b: jnp.where(count > 0, a, b), trained, learner_state)
                mean = lambda name: jnp.nanmean if name.startswith(learner.PAUSING) else jnp.mean
                means = {name: mean(name)(values, 0) for name, values in infos.items()}
                return trained, jax.tree.map(lambda x: jnp.where(count > 0, x, jnp.nan), means)

            if data.count.ndim:
                train = jax.vmap(train, (None, 0, 0, 0, 0))
            settings = {name: jnp.array(values) for name, values in self.sweep}
            if settings:
                train = jax.vmap(train, (0, 0, None, None, None))
            trained, info = train(settings, state.learner, data.first, data.count, data.scaling)
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


def _framed(trajectories: Trajectories) -> tuple[Frames | None, Trajectories]:
    """Integer observations as frames, and trajectories whose observations are rows of them; others as they are."""
    observations, final = trajectories.observations, trajectories.final_observations
    coded = isinstance(observations, Codebook)
    values = np.asarray(observations.table if coded else observations)
    if values.dtype.kind not in "biu":
        return None, trajectories
    size = math.prod(trajectories.observation_shape)
    frames = Frames(values.reshape(-1, size), None if coded else np.asarray(final).reshape(-1, size))
    if coded:
        return frames, trajectories
    rows, count = np.arange(len(frames.steps), dtype=np.int32), len(frames.final)
    table = np.zeros((0, size), np.uint8)  # the rows say it all
    return frames, trajectories.replace(
        observations=Codebook(table, rows.reshape(values.shape[:2])),
        final_observations=Codebook(table, len(rows) + np.arange(count, dtype=np.int32)),
    )


def _moments(observations: np.ndarray, frames: Frames | None) -> tuple[np.ndarray, np.ndarray]:
    """Mean and std `[D]` float64 of observations `[P, D]`, or of the frames `[P]`, in blocks."""
    if frames is None:
        return observations.mean(0, np.float64), observations.std(0, np.float64)
    size = max(1, _BLOCK // frames.steps.shape[1])
    blocks = [observations[start : start + size] for start in range(0, len(observations), size)]
    total = lambda of: sum(of(frames.at(rows, np).astype(np.float64)).sum(0) for rows in blocks) / len(observations)
    mean = total(lambda values: values)
    return mean, np.sqrt(total(lambda values: (values - mean) ** 2))


def _bound(actions: np.ndarray, trajectory: np.ndarray, given: Sequence[float]) -> np.ndarray:
    """`[A]` float32: within it are all actions `[P, A]`, or all but mistakes, which are clipped and warned of.

    What is within [-1, 1] has that bound.
    """
    sizes = np.abs(actions)
    usual = np.maximum(np.quantile(sizes, 0.99, axis=0, method="lower"), 1)
    far = sizes > FAR * usual
    found = np.maximum(np.where(far, 0, sizes).max(0), 1)
    bound = np.maximum(np.asarray(given, np.float32), 1) if len(given) else found
    if far.any():
        step, dimension = np.argwhere(far)[0]
        log.warning(
            "actions: trajectory %d has %g in dimension %d (%d such values); clipped to %g, repair or drop it",
            *(trajectory[step], actions[step, dimension], dimension, far.sum(), bound[dimension]),
        )
    return bound
