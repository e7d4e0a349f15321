"""Takeball-v0: take one of four balls, then walk to the goal; and its permuted, ambiguous variant.

Hu, Wang and Du, "Policy-Based Trajectory Clustering in Offline RL", appendix B.2 and A.3.
"""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import spaces

from trajclust_envs import gridworld
from trajclust_envs.gridworld import DOWN, GRID_SIZE, LEFT, RIGHT, STAY, UP, Expert, GridWorld

NUM_BALLS = 4
_BITS = 2 ** np.arange(NUM_BALLS, dtype=np.int32)


@struct.dataclass
class EnvState(gridworld.EnvState):
    """Takeball's state."""

    balls: jax.Array  # [4] bool, which balls are still there
    permutation: jax.Array  # [] int32, which of `permutations` puts ball i on place permutations[p, i]


@struct.dataclass
class EnvParams(gridworld.EnvParams):
    """Takeball's parameters. The anti-diagonal places keep the experts apart best (ceiling .995)."""

    ball_places: jax.Array = struct.field(
        default_factory=lambda: jnp.array([[1, 7], [3, 5], [5, 3], [7, 1]], jnp.int32)
    )  # [4, 2]


def _taker(ball: int):
    """To ball `ball` while it is there, then to the goal; horizontally first."""

    def act(state: EnvState, params: EnvParams, places: jax.Array) -> jax.Array:
        target = jnp.where(state.balls[ball], places[ball], params.goal)
        d_row, d_column = target - state.position
        vertical = jnp.where(d_row > 0, DOWN, jnp.where(d_row < 0, UP, STAY))
        return jnp.where(d_column > 0, RIGHT, jnp.where(d_column < 0, LEFT, vertical)).astype(jnp.int32)

    return act


class Takeball(GridWorld):
    """Four balls at fixed places; standing on a ball removes that ball. 7 observation maps."""

    num_object_maps = NUM_BALLS
    permutations = np.arange(NUM_BALLS, dtype=np.int32)[None]  # [1, 4]: ball i on place i

    @property
    def default_params(self) -> EnvParams:
        return EnvParams()

    @property
    def experts(self) -> tuple[Expert, ...]:
        def bind(act):
            return lambda state, params: act(state, params, self.places(state, params))

        return tuple(Expert(f"ball {ball + 1}", bind(_taker(ball))) for ball in range(NUM_BALLS))

    def places(self, state: EnvState, params: EnvParams) -> jax.Array:
        return self._of_balls(params.ball_places, state)

    def planes(self, state: EnvState, params: EnvParams) -> jax.Array:
        return self._of_balls(jax.vmap(gridworld.cell_map)(params.ball_places), state)  # drawn once, then looked up

    def _of_balls(self, of_places: jax.Array, state: EnvState) -> jax.Array:
        """Of the four places something each, `[4, ...]`, in the balls' order."""
        if len(self.permutations) == 1:  # known at compile time: nothing to look up
            return of_places[self.permutations[0]]
        return of_places[self.permutations][state.permutation]  # the first lookup is the same for all states

    def initial_state(self, key: jax.Array, position: jax.Array, params: EnvParams) -> EnvState:
        del params
        permutation = jnp.int32(0)
        if len(self.permutations) > 1:
            permutation = gridworld.draw_integers(key, jnp.int32(0), jnp.int32(len(self.permutations) - 1))
        balls = jnp.ones((NUM_BALLS,), bool)
        return EnvState(time=jnp.int32(0), position=position, balls=balls, permutation=permutation)

    def visit(self, state: EnvState, params: EnvParams) -> EnvState:
        on_ball = jnp.all(self.places(state, params) == state.position, axis=-1)
        return state.replace(balls=state.balls & ~on_ball)

    def present(self, state: EnvState) -> jax.Array:
        return state.balls

    def state_id(self, state: EnvState) -> jax.Array:
        """`row * 9 + column + 81 * (ball bits + 16 * permutation)`."""
        objects = jnp.sum(state.balls * _BITS) + 2**NUM_BALLS * state.permutation
        return super().state_id(state) + GRID_SIZE**2 * objects

    def state_from_id(self, state_id: jax.Array, scene: Any = ()) -> EnvState:
        del scene
        objects, cell = state_id // GRID_SIZE**2, state_id % GRID_SIZE**2
        return EnvState(
            time=jnp.int32(0),
            position=super().state_from_id(cell).position,
            balls=(objects % 2**NUM_BALLS // _BITS) % 2 == 1,
            permutation=(objects // 2**NUM_BALLS).astype(jnp.int32),
        )

    def state_space(self, params: EnvParams | None = None) -> spaces.Dict:
        base = super().state_space(params).spaces
        return spaces.Dict(
            {
                **base,
                "balls": spaces.Box(0, 1, (NUM_BALLS,), jnp.bool_),
                "permutation": spaces.Discrete(len(self.permutations)),
            }
        )


class TakeballPermuted(Takeball):
    """The paper's deprecated variant (A.3): each episode puts the balls on the four places in random order.

    Experts still go for the ball of their number, and the data has a second, simpler explanation: four
    policies that each go to a fixed place. Clusterings by place and by number are equally good.
    """

    permutations = np.array(list(itertools.permutations(range(NUM_BALLS))), np.int32)  # [24, 4]
