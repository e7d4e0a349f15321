"""Diagonal-v0: from the top-left block to the bottom-right corner, by five ways of walking.

Hu, Wang and Du, "Policy-Based Trajectory Clustering in Offline RL", appendix B.2.
"""

import jax
import jax.numpy as jnp

from trajclust_envs.gridworld import DOWN, RIGHT, EnvParams, EnvState, Expert, GridWorld


def _walker(prefers_right):
    """Right where `prefers_right(row, column)`, else down; along a wall, the other one of the two."""

    def act(state: EnvState, params: EnvParams) -> jax.Array:
        row, column = state.position
        right = prefers_right(row, column)
        right = jnp.where(params.walls[row, column + 1], False, right)
        right = jnp.where(params.walls[row + 1, column], True, right)
        return jnp.where(right, RIGHT, DOWN).astype(jnp.int32)

    return act


class Diagonal(GridWorld):
    """The base grid world with its five experts; 3 observation maps."""

    experts = (
        Expert("right first", _walker(lambda row, column: True)),
        Expert("down first", _walker(lambda row, column: False)),
        Expert("diagonal", _walker(lambda row, column: row > column)),
        Expert("zigzag even", _walker(lambda row, column: (row + column) % 2 == 0)),
        Expert("zigzag odd", _walker(lambda row, column: (row + column) % 2 == 1)),
    )
