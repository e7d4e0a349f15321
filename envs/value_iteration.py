"""Exact value iteration on an Extra map: the optimal policies that its rewards ask for."""

import jax
import jax.numpy as jnp
from flax import struct

from trajclust_envs.gridworld import GRID_SIZE, OFFSETS, cell_map


@struct.dataclass
class Rewards:
    """What an expert of Extra is paid, on arrival in a cell (appendix B.2)."""

    special: float  # for each special cell, once
    goal: float = 10.0
    step: float = -0.3
    distance: float = -0.3  # for each unit of the Manhattan distance to the goal that is left

    def __call__(self, visits: jax.Array, position: jax.Array, goal: jax.Array) -> jax.Array:
        """The reward `[]` for arriving on `position [2]` with `visits []` special cells visited for the first time."""
        left = jnp.abs(position - goal).sum()
        return self.special * visits + self.goal * (left == 0) + self.step + self.distance * left


def value_iteration(
    walls: jax.Array,
    goal: jax.Array,
    specials: jax.Array,
    noise: jax.Array,
    rewards: Rewards,
    discount: float = 0.99,
    sweeps: int = 100,
) -> jax.Array:
    """Optimal action values `[2, 2, 9, 9, 5]` on one map, of the intended action, without a time limit.

    The first two axes say whether the first and the second special cell were visited, the next two are the
    agent's cell. Unbatched: vmap it over maps.

    Args:
        walls: `[9, 9]` bool, True on the border.
        goal: `[2]` int32; the episode ends there.
        specials: `[2, 2]` int32, two different cells.
        noise: probability that a uniform action replaces the intended one.
        rewards: what arriving pays.
        discount: of the next step's value.
        sweeps: synchronous updates of all states.
    """
    cells = jnp.stack(jnp.divmod(jnp.arange(GRID_SIZE**2), GRID_SIZE), axis=-1)
    arriving = jax.vmap(lambda cell: rewards(0, cell, goal))(cells)  # [81], no special cell
    walls, is_goal, first, second = (x.ravel() for x in (walls, *map(cell_map, (goal, *specials))))
    unvisited = jnp.array([1.0, 0.0])  # along an axis of flags: a visit pays once

    def reach(values):
        """`[5, 2, 2, 81]`: the value of executing each action."""
        arrived = arriving + discount * jnp.where(is_goal, 0.0, values)  # [2, 2, 81], by the flags before
        # Arriving on a special cell sets its flag, so what follows is the flag's second row.
        arrived = jnp.where(first, arrived[1:] + rewards.special * unvisited[:, None, None], arrived)
        arrived = jnp.where(second, arrived[:, 1:] + rewards.special * unvisited[:, None], arrived)
        shift = lambda x, offset: jnp.roll(x, -offset, axis=-1)  # what lies `offset` cells on; flat, as it is faster
        return jnp.stack([jnp.where(shift(walls, offset), arrived, shift(arrived, offset)) for offset in OFFSETS])

    def sweep(_, values):
        executed = reach(values)
        return (1 - noise) * executed.max(0) + noise * executed.mean(0)

    executed = reach(jax.lax.fori_loop(0, sweeps, sweep, jnp.zeros((2, 2, GRID_SIZE**2))))
    intended = (1 - noise) * executed + noise * executed.mean(0)
    return jnp.moveaxis(intended, 0, -1).reshape(2, 2, GRID_SIZE, GRID_SIZE, len(OFFSETS))
