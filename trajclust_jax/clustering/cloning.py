"""The practical ceiling: policies cloned from the TRUE labels classify the trajectories.

What a policy class cannot tell apart with the labels, no clustering with that class can tell apart without them. Beside
the oracle, which knows the true policies, it separates what is lost by the policy class and the amount of data from
what is lost by the search for clusters. It is a measurement, not a method: no clustering algorithm sees labels.
"""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from trajclust_jax.clustering.clusterer import Algorithm
from trajclust_jax.clustering.mixture import Prepared
from trajclust_jax.clustering.policies import Chunks, Member, PolicyKind, policy_for
from trajclust_jax.clustering.types import Grouping
from trajclust_jax.data import Trajectories
from trajclust_jax.data.transforms import ACTIONS_VERSION
from trajclust_jax.networks import ensemblize, member_keys
from trajclust_jax.training import Info, Phase


@struct.dataclass
class State:
    """Three sets of policies of one seed: of all trajectories, and of all but each half of them."""

    members: Member  # [3, K, ...]
    half: jax.Array  # [N'] int32, 0 or 1
    objective: jax.Array  # [] float32: log-likelihood of all trajectories under their label's policy, of the first set
    scores: jax.Array  # [2, N', K] float32: by policies that did not see the trajectory, and by those that did
    converged: jax.Array  # [] bool
    key: jax.Array


@struct.dataclass(kw_only=True)
class Cloned(Grouping):
    """Trajectories classified by policies that were cloned without them; `params` are policies cloned from all of them.

    The objective is the log-likelihood of the trajectories under their labels' policies, cloned from all of them.
    """

    in_sample: jax.Array  # [N] int32: the classification by policies that saw the trajectory


@dataclasses.dataclass(frozen=True)
class Cloning(Algorithm):
    """Behaviour cloning from labels, scored on held-out halves; `labelled(labels)` gives what `training.fit` trains."""

    num_clusters: int
    """k*: the number of true policies."""
    policy: PolicyKind = "mlp"
    """Policy class, as in PG-Kmeans."""
    iterations: int = 10
    """Iterations, after each of which the trajectories are classified."""
    steps: int = 60
    """Gradient steps an iteration."""
    policy_settings: tuple[tuple[str, Any], ...] = ()
    """Further settings of the policy class."""

    VERSION: ClassVar[int] = 1
    ACTIONS_VERSION: ClassVar[int] = ACTIONS_VERSION

    def check(self, trajectories: Trajectories) -> None:
        """Raises ValueError if the policy class does not fit this data."""
        policy_for(self.policy, trajectories, **dict(self.policy_settings)).check(trajectories)

    def labelled(self, labels: np.ndarray) -> "LabelledCloning":
        """The measurement on trajectories with these labels `[N]`."""
        return LabelledCloning(self, np.asarray(labels, np.int32))


class LabelledCloning:
    """A `Cloning` with its labels; has the functions of `training.Method`."""

    def __init__(self, settings: Cloning, labels: np.ndarray):
        self.settings, self.labels = settings, labels

    def prepare(self, trajectories: Trajectories, num_seeds: int = 1) -> Prepared:
        """The policy class for this data, and the data."""
        policies = policy_for(self.settings.policy, trajectories, **dict(self.settings.policy_settings))
        return Prepared(policies.prepare(trajectories, num_seeds * 3 * self.settings.num_clusters), policies)

    def phases(self) -> tuple[Phase, ...]:
        """One: cloning."""
        return (Phase("cloning", self._start, self._step, self.settings.iterations, light_start=True),)

    def result(self, state: State, prepared: Prepared) -> Cloned:
        """The classifications after the last iteration."""
        data = prepared.data
        scores = data.in_data_unit(state.scores, data.lengths[:, None])[:, data.rank]
        assignments = scores.argmax(-1).astype(jnp.int32)
        return Cloned(
            assignments=assignments[0],
            in_sample=assignments[1],
            posterior=jax.nn.softmax(scores[0]),
            objective=data.in_data_unit(state.objective, data.num_steps),
            params=jax.tree.map(lambda x: x[0], state.members.params),
            log_likelihoods=scores[0],
        )

    def _start(self, key: jax.Array, prepared: Prepared, previous: None) -> tuple[State, Info]:
        del previous
        data, num_clusters = prepared.data, self.settings.num_clusters
        key, key_members, key_half = jax.random.split(key, 3)
        members = ensemblize(lambda key: prepared.policies.init(key, data), 2)(
            member_keys(key_members, 3, num_clusters)
        )
        half = data.slots(jax.random.bernoulli(key_half, shape=(data.num_trajectories,)).astype(jnp.int32))
        scores = jnp.zeros((2, data.num_slots, num_clusters))
        state = State(members, half, jnp.float32(-jnp.inf), scores, jnp.bool_(False), key)
        return state, self._info(state, prepared)

    def _step(self, state: State, prepared: Prepared, iteration: jax.Array) -> tuple[State, Info]:
        data, policies, num_clusters = prepared.data, prepared.policies, self.settings.num_clusters
        labels = data.slots(jnp.asarray(self.labels))
        nobody = num_clusters  # a cluster that is not trained
        given = jnp.stack([labels, *(jnp.where(state.half == half, nobody, labels) for half in (0, 1))])
        keys = member_keys(jax.random.fold_in(state.key, iteration), 3)
        m_step = lambda members, given, key: policies.fit(members, given, data, key, self.settings.steps)
        members = ensemblize(m_step, 1)(state.members, given, keys)

        score = policies.scorer(members.params, data)

        def one_chunk(inputs: tuple[Chunks, jax.Array]):
            chunk, half = inputs
            all_sets = score(chunk)  # [3, K, n]
            held_out = jnp.where(half == 0, all_sets[1], all_sets[2])
            return held_out.T, all_sets[0].T

        halves = state.half.reshape(data.chunks.lengths.shape)
        scores = jnp.stack([x.reshape(-1, num_clusters) for x in jax.lax.map(one_chunk, (data.chunks, halves))])
        own = jnp.take_along_axis(scores[1], labels[:, None], axis=1)[:, 0]
        state = state.replace(members=members, scores=scores, objective=jnp.where(data.lengths > 0, own, 0).sum())
        return state, self._info(state, prepared)

    def _info(self, state: State, prepared: Prepared) -> Info:
        """`[2]` each: held-out and in-sample."""
        objective = prepared.data.in_data_unit(state.objective / prepared.data.num_steps, 1.0)
        assignments = state.scores[:, prepared.data.rank].argmax(-1).astype(jnp.int32)
        return {"objective": jnp.stack([objective, objective]), "assignments": assignments}
