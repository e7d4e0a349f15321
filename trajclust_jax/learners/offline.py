"""Offline training: any learner on recorded trajectories, as a method for `training.fit`.

A step of the method is a `lax.scan` of gradient steps on data that stays on the device, minibatch indices drawn inside.
Beside the seeds, two axes train at once: settings that are swept, and the clusters of a clustering, each with its own
learner on its own trajectories.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from trajclust_jax.clustering.preprocessing import Preprocessing
from trajclust_jax.data import DataError, Trajectories, Transitions, dense, returns, transitions
from trajclust_jax.data.preparation import (
    DataTransform,
    Frames,
    ScaleReturns,
    Scaling,
    ShiftRewards,
    action_bound,
    best_share,
    framed,
    known_successors,
    n_steps,
    next_actions,
    normalisation,
    returns_to_go,
)
from trajclust_jax.data.transforms import CLIP, ActionScaling, Inputs
from trajclust_jax.devices import INNER, OUTER, shared, shared_rows
from trajclust_jax.documented import documented
from trajclust_jax.learners.learner import Learner, LearnerState, Stage
from trajclust_jax.learners.sampling import Batch, OfflineData, Uniform, View
from trajclust_jax.networks import member_keys
from trajclust_jax.training import Info, Phase
from trajclust_jax.validation import check_above

BATCHES = 0x62617463  # keeps the keys of minibatches apart from those of gradient steps, which are never so many


class Clustered(NamedTuple):
    """Trajectories and the cluster of each, for one learner a cluster."""

    trajectories: Trajectories
    assignments: np.ndarray  # [N] int, 0..num_clusters-1; others belong nowhere
    num_clusters: int
    numbers: tuple[int, ...] = ()  # what users call the clusters, for errors; (): 0, 1, ...


@struct.dataclass
class OfflineState:
    """State of one run; `learner` has the axes of swept settings and clusters, where there are."""

    learner: LearnerState
    converged: jax.Array  # [] bool, False: the budget alone ends a training


@struct.dataclass
class TrainedPolicy:
    """What is kept of a training: what `learner.act` needs, and the scaling it was trained with."""

    actor: Any  # what `learner.policy` gives: one network, or a pytree of several
    scaling: Scaling


@dataclasses.dataclass(frozen=True)
class _OfBefore:
    """A phase's start or step of what is trained before the learner, on its own data."""

    run: Callable

    def __call__(self, state_or_key: Any, data: OfflineData, last: Any) -> tuple[Any, Info]:
        """`start(key, data, previous)`, or `step(state, data, iteration)`."""
        return self.run(state_or_key, data.before, last)


@documented
@dataclasses.dataclass(frozen=True)
class Offline:
    """A learner's training from trajectories.

    `fit` takes `Trajectories`, or `Clustered` for a learner a cluster; an empty cluster stays as it began.
    """

    learner: Learner
    """What is trained."""
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
    """The largest absolute value of each action dimension; empty: found in the data, at least 1."""

    VERSION = 1  # raise it when results change

    def __post_init__(self) -> None:
        self.learner.check()
        if any(not bound > 0 for bound in self.bounds):
            raise ValueError(f"bounds are {self.bounds}: they must be above 0")
        for stage in self.learner.stages():
            if self.block < 1 or stage.updates % self._block(stage):
                raise ValueError(f"block is {self.block}: it must divide {stage.updates} updates")
        if self.reward_range is not None:
            check_above(self, 0, "reward_range")
        if not self.reward_scale:
            raise ValueError("reward_scale is 0: all rewards would be equal")
        if not 0 < self.best <= 1:
            raise ValueError(f"best is {self.best}: give a share above 0, at most 1")
        if len({len(values) for _, values in self.sweep}) > 1:
            raise ValueError("sweep: every setting needs the same number of values")
        for name, values in self.sweep:
            number = isinstance(getattr(self.learner, name, None), float) or name in self.learner.SWEPT
            if not number or name in self.learner.FIXED:
                raise ValueError(f"sweep: {name} is no setting of {type(self.learner).__name__} that can be swept")
            for value in values:
                dataclasses.replace(self.learner, **{name: value}).check()

    def check(self, trajectories: Trajectories) -> None:
        """Raises ValueError for data that the learner cannot learn from."""
        if trajectories.discrete != self.learner.DISCRETE:
            kinds = ["continuous", "discrete"]
            needs, found = kinds[self.learner.DISCRETE], kinds[trajectories.discrete]
            raise ValueError(f"{type(self.learner).__name__} learns from {needs} actions, and these are {found}")
        if trajectories.discrete and trajectories.action_size != self.learner.action_size:
            raise ValueError(f"the data have {trajectories.action_size} actions, not {self.learner.action_size}")
        if self.bounds and not trajectories.discrete and len(self.bounds) != trajectories.action_size:
            raise ValueError(
                f"there are {len(self.bounds)} bounds, and actions have {trajectories.action_size} numbers"
            )
        if (self.learner.BOOTSTRAPS or self.best < 1) and not np.any(np.asarray(trajectories.rewards)):
            raise ValueError("every reward is 0: there is nothing to learn but the actions (bc does)")

    def learned_from(self, data: Trajectories | Clustered) -> list[np.ndarray]:
        """Of each cluster (of all trajectories, where there are none) the numbers of those that are trained on."""
        found = returns(data.trajectories if isinstance(data, Clustered) else data)
        groups = [np.arange(len(found))]
        if isinstance(data, Clustered):
            groups = [np.flatnonzero(np.asarray(data.assignments) == k) for k in range(data.num_clusters)]
        return [best_share(group, found, self.best) for group in groups]

    def prepare(self, data: Trajectories | Clustered, num_seeds: int) -> OfflineData:
        """Transitions, cluster by cluster, scaled (host-side).

        For learners that bootstrap, a step that was cut off leaves when its successor is not known: readers repeat the
        observation there.

        Raises:
            ValueError: what `check` says.
            DataError: if no trajectory is in any cluster, or nothing is left of those in one.
        """
        clustered = isinstance(data, Clustered)
        trajectories = data.trajectories if clustered else data
        self.check(trajectories)
        groups = self.learned_from(data)
        if not any(map(len, groups)):
            raise DataError("assignments: no trajectory is in any cluster")
        for transform in self.transforms():
            trajectories = transform(trajectories)
        self.learner.advise(trajectories)
        frames, trajectories = framed(trajectories)
        everything, known, bound = self._transitions(transitions(trajectories), frames)
        begins = np.concatenate([[0], np.cumsum(np.asarray(trajectories.lengths))])
        parts, scalings = [], []
        for group in groups:
            rows = np.concatenate([np.arange(begins[n], begins[n + 1]) for n in group] or [np.zeros(0, int)])
            rows = rows[known[rows]]
            batch = jax.tree.map(lambda x, rows=rows: x[rows], everything)
            scaling = self._scaling(batch.observations, frames, bound)
            parts.append(batch if frames is not None else batch.observed(scaling.observations))
            scalings.append(scaling)
        count = np.array([len(part.rewards) for part in parts], np.int32)
        lacking = [k for k, group in enumerate(groups) if len(group) and not count[k]]
        if lacking:
            remedy = "give final_observations"
            if clustered:
                numbers = ", ".join(str(data.numbers[k] if data.numbers else k) for k in lacking)
                remedy += f", or leave out cluster {numbers}"
            raise DataError(f"no step has a known successor: {remedy}")
        first = np.concatenate([[0], np.cumsum(count)[:-1]]).astype(np.int32)
        batch = jax.tree.map(lambda *columns: np.concatenate(columns), *parts)
        if not clustered:
            before = self._prepared_before(trajectories, frames, scalings[0], num_seeds)
            return OfflineData(batch, first[0], count[0], scalings[0], frames, before, trajectories.num_trajectories)
        if self.learner.before() is not None:
            raise DataError(f"{type(self.learner).__name__} finds clusters itself: train it on all trajectories")
        scaling = jax.tree.map(lambda *x: np.stack(x), *scalings)
        return OfflineData(batch, first, count, scaling, frames, None, trajectories.num_trajectories)

    def _prepared_before(
        self, trajectories: Trajectories, frames: Frames | None, scaling: Scaling, num_seeds: int
    ) -> Any:
        """The data of what is trained before the learner, seen as the learner sees it."""
        before = self.learner.before()
        if before is None:
            return None
        if frames is not None:
            raise DataError(f"{type(self.learner).__name__} needs observations of real numbers, not of integers")
        columns = lambda x: np.arange(len(x), dtype=np.int32)
        furthest = np.float32(CLIP) if self.normalise else np.finfo(np.float32).max  # CLIP is in standard deviations
        inputs = Inputs(columns(scaling.mean), scaling.mean, scaling.std, furthest)
        actions = ActionScaling(columns(scaling.bound), np.zeros_like(scaling.bound), scaling.bound)
        return before.prepare(trajectories, num_seeds, Preprocessing(inputs, actions))

    def _block(self, stage: Stage) -> int:
        """Updates of a stage in a step of `fit`."""
        return 1 if stage.whole else self.block

    def updates_a_step(self, phase: str) -> int:
        """Gradient steps, or epochs, that a step of `fit` in a phase has."""
        return next((self._block(stage) for stage in self.learner.stages() if stage.name == phase), 1)

    def gradient_steps(self, phase: str, iteration: int) -> int:
        """Gradient steps until then, of the stages before too; iterations of what is trained `before`, epochs of stages
        that count those."""
        stages = self.learner.stages()
        names = [stage.name for stage in stages]
        done = sum(stage.updates for stage in stages[: names.index(phase)]) if phase in names else 0
        return done + iteration * self.updates_a_step(phase)

    def transforms(self) -> tuple[DataTransform, ...]:
        """What happens to the rewards, in order."""
        ranged = () if self.reward_range is None else (ScaleReturns(self.reward_range),)
        return (*ranged, ShiftRewards(self.reward_scale, self.reward_shift))

    def _transitions(self, flat: Transitions, frames: Frames | None) -> tuple[Batch, np.ndarray, np.ndarray]:
        """All P transitions, observations not yet scaled; `[P]` bool: those that can be learned from; bounds `[A]`."""
        coded = frames is not None
        steps = lambda x: x.ids if coded else np.asarray(dense(x), np.float32).reshape(len(flat.rewards), -1)
        observations, successors = steps(flat.observations), steps(flat.next_observations)
        if self.learner.DISCRETE:
            bound = np.ones(self.learner.action_size)
            actions = np.eye(self.learner.action_size, dtype=np.float32)[np.asarray(flat.actions)]
        else:
            actions = np.asarray(flat.actions, np.float32)
            bound = action_bound(actions, flat.trajectory, self.bounds)
            actions = np.clip(actions / bound, -1, 1)
        known = np.ones(len(flat.rewards), bool)
        if self.learner.BOOTSTRAPS:
            known = known_successors(flat.truncated, observations, successors, frames)
        asked = {}
        if "n_steps" in self.learner.ASKS:
            ahead = n_steps(flat, self.learner.n_steps, self.learner.discount)
            asked |= {"n_step_rewards": ahead.rewards, "n_step_discount": ahead.discount}
            asked["n_step_observations"] = successors[ahead.last]
            known = known & known[ahead.last]
        ends = flat.terminated | flat.truncated
        if {"next_actions", "pairs"} & set(self.learner.ASKS):
            asked["next_actions"] = next_actions(actions, ends)
        if "next_actions" in self.learner.ASKS:
            known = known & ~flat.truncated
        if "pairs" in self.learner.ASKS:
            asked["paired"] = ~ends
        if "returns" in self.learner.ASKS:
            asked["returns"] = returns_to_go(flat, self.learner.discount)
        rest = {"terminated": flat.terminated, "trajectory": flat.trajectory, **asked}
        return Batch(observations, actions, flat.rewards, successors, **rest), known, bound

    def _scaling(self, observations: np.ndarray, frames: Frames | None, bound: np.ndarray) -> Scaling:
        """Of the observations that one learner sees."""
        size = (observations if frames is None else frames.steps).shape[1]
        mean, std = np.zeros(size), np.ones(size)
        if self.normalise and len(observations):
            mean, std = normalisation(observations, frames)
        return Scaling(*(np.asarray(x, np.float32) for x in (mean, std, bound)))

    def members(self, data: Trajectories | Clustered) -> tuple[int, int]:
        """Swept values and clusters: see `training`."""
        swept = [len(values) for _, values in self.sweep[:1]]
        return math.prod(swept), data.num_clusters if isinstance(data, Clustered) else 1

    def phases(self) -> tuple[Phase, ...]:
        """What comes before the learner, and its stages."""
        before = self.learner.before()
        earlier = () if before is None else before.phases()
        of_before = tuple(
            phase._replace(start=_OfBefore(phase.start), step=phase.step and _OfBefore(phase.step)) for phase in earlier
        )
        return *of_before, *(self._phase(index, stage) for index, stage in enumerate(self.learner.stages()))

    def _phase(self, index: int, stage: Stage) -> Phase:
        def start(key: jax.Array, data: OfflineData, previous: OfflineState | None) -> tuple[OfflineState, Info]:
            """One run; the key is consumed."""
            before = self.learner.before()
            if previous is not None and (index > 0 or before is None):
                begun = stage.begin(previous.learner)
                return previous.replace(learner=begun.replace(key=self._keys(key, data))), {}

            def init(key, first, count, scaling):
                state = self.learner.init(key, scaling.mean.shape[-1], data.num_trajectories)
                return state.replace(sampler=self.learner.sampler.init(View(data, first, count, scaling)))

            init = self._over_learners(init, data)
            state = init(self._keys(key, data), data.first, data.count, data.scaling)
            if before is not None:
                found = before.result(previous, data.before)
                inform = lambda state: self.learner.informed(state, found)
                state = jax.vmap(inform)(state) if self.sweep else inform(state)
            return OfflineState(state, jnp.array(False)), {}

        def step(state: OfflineState, data: OfflineData, iteration: jax.Array) -> tuple[OfflineState, Info]:
            """`block` gradient steps of one run; infos are means over them."""
            block = self._block(stage)
            steps = iteration * block + jnp.arange(block)

            def train(state, first, count, scaling, settings):
                learner, view = dataclasses.replace(self.learner, **settings), View(data, first, count, scaling)
                update, sampler = learner.stages()[index].update, Uniform() if stage.uniform else learner.sampler

                def renewed(current, step):
                    return current.replace(sampler=sampler.renew(current.sampler, learner, current, view, step))

                def body(current, step):
                    if stage.whole:
                        return update(current, view, step)
                    key = jax.random.fold_in(jax.random.fold_in(current.key, BATCHES), step)
                    rows = shared_rows(sampler.rows(current.sampler, key, learner.batch_size, view))
                    return update(current, view.batch(rows)._replace(sampler=current.sampler), step)

                trained, infos = _scanned(body, state, steps, renewed, sampler.period)
                trained = jax.tree.map(lambda a, b: jnp.where(count > 0, a, b), trained, state)
                mean = lambda name: jnp.nanmean if name.startswith(learner.PAUSING) else jnp.mean
                means = {name: mean(name)(values, 0) for name, values in infos.items()}
                return trained, jax.tree.map(lambda x: jnp.where(count > 0, x, jnp.nan), means)

            settings = {name: jnp.array(values) for name, values in self.sweep}
            train = self._over_learners(train, data, 0)
            along = (*(OUTER for _ in self.sweep[:1]), *(INNER for _ in data.count.shape))
            before = shared(state.learner, *along)
            trained, info = train(before, data.first, data.count, data.scaling, settings)
            return state.replace(learner=trained), info

        return Phase(stage.name, start, step, stage.updates // self._block(stage), light_start=True)

    def _over_learners(self, fn: Callable, data: OfflineData, *more: int) -> Callable:
        """`fn(state or key, first, count, scaling, ...)` of one learner for all of a run: clusters, swept values.

        What comes after these has the swept values' axis alone.
        """
        if data.count.ndim:
            fn = jax.vmap(fn, (0, 0, 0, 0, *(None for _ in more)))
        return jax.vmap(fn, (0, None, None, None, *more)) if self.sweep else fn

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
        return TrainedPolicy(self.learner.policy(state.learner.params), scaling)


def _scanned(body: Callable, state: LearnerState, steps: jax.Array, renewed: Callable, period: int) -> tuple[Any, Info]:
    """`lax.scan` of gradient steps, numbered `steps [B]`; the sampler is `renewed(state, step)` every `period` of them,
    or, where that is 0, before the first."""
    if not period:
        return jax.lax.scan(body, renewed(state, steps[0]), steps)

    def between_renewals(current, steps):
        due = steps[0] % period == 0  # the same for all runs: no branch is taken for naught
        begun = jax.lax.cond(due, lambda: renewed(current, steps[0]), lambda: current)
        return jax.lax.scan(body, begun, steps)

    trained, infos = jax.lax.scan(between_renewals, state, steps.reshape(-1, math.gcd(len(steps), period)))
    return trained, jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), infos)
