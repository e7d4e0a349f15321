"""SQIL with TD3+BC: a baseline of CLUE (its section 5.2 and appendix 8.4).

Reddy, Dragan and Levine, "SQIL: Imitation Learning via Reinforcement Learning with Sparse Rewards", 2019: rewards are 1
on the expert's transitions and 0 on all others, and each minibatch has as many of either.
"""

import dataclasses
import logging
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from trajclust_jax.data import Trajectories
from trajclust_jax.learners.sampling import Sampler, View
from trajclust_jax.learners.td3_bc import TD3BC

log = logging.getLogger(__name__)


class Halves(NamedTuple):
    """A view's rows, those with a reward first."""

    rows: jax.Array  # [P] int32; others than the view's come last
    rewarded: jax.Array  # [] int32: how many have a reward


class Balanced:
    """Half of a minibatch from the transitions whose reward is above 0, half from the others."""

    period = 0

    def init(self, view: View) -> Halves:
        rewards = jnp.asarray(view.data.batch.rewards)
        rows = jnp.arange(len(rewards))
        inside = (rows >= view.first) & (rows < view.first + view.count)
        rewarded = inside & (rewards > 0)
        order = jnp.argsort(jnp.where(rewarded, 0, jnp.where(inside, 1, 2)), stable=True)
        return Halves(order.astype(jnp.int32), rewarded.sum(dtype=jnp.int32))

    def renew(self, state: Halves, learner: Any, learner_state: Any, view: View, step: jax.Array) -> Halves:
        return state

    def rows(self, state: Halves, key: jax.Array, size: int, view: View) -> jax.Array:
        draw = lambda key, number, count: jax.random.randint(key, (number,), 0, jnp.maximum(count, 1))
        key_own, key_others = jax.random.split(key)
        own = draw(key_own, size // 2, state.rewarded)
        others = state.rewarded + draw(key_others, size - size // 2, view.count - state.rewarded)
        return state.rows[jnp.concatenate([own, jnp.minimum(others, view.count - 1)])]


@dataclasses.dataclass(frozen=True)
class SQIL(TD3BC):
    """Settings, TD3+BC's. It learns from rewards that `relabelling.Indicator` gives."""

    @property
    def sampler(self) -> Sampler:
        return Balanced()

    def advise(self, trajectories: Trajectories) -> None:
        """Warns of rewards that are not an expert's and others'."""
        rewards, mask = np.asarray(trajectories.rewards), np.asarray(trajectories.mask)
        remedy = "relabel with 1 on the expert's steps, 0 elsewhere (--relabel indicator)"
        rewarded = (rewards > 0)[mask]
        graded = np.where(mask, rewards, -np.inf).max(1) > np.where(mask & (rewards > 0), rewards, np.inf).min(1)
        if rewarded.all() or not rewarded.any():
            log.warning("SQIL: rewards tell no expert from others: %s", remedy)
        elif graded.any():  # several rewards above 0 in a trajectory are of a task
            taken = f"{rewarded.sum()} of {rewarded.size} steps, those with a reward above 0,"
            log.warning("SQIL: %s are taken for the expert's: %s", taken, remedy)
