"""PointMaze-v0: walk through a maze to the goal, which alone has a reward; a sparse task that takes minutes.

The point, its behaviours and their likelihoods are Navigation's; walls and rewards are ours. It stands in for D4RL's
mazes where CLUE's sparse setting is tried.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment, spaces

from trajclust_envs.navigation import SPEED, Navigation
from trajclust_envs.plane import Plane

SIZE = 10.0  # of the square
START, GOAL = (1.0, 1.0), (9.0, 8.5)
REACHED = 1.8  # the goal is reached at less than this distance: it fills the corridor
TURNED = 0.5  # and a corner at less than this one
GO_ON = 0.6  # the share of episodes in which a behaviour goes on from a corner; in the others it turns round there
# Both ends of each wall: two walls, open at one end, make three corridors.
WALLS = np.array([[[0, 3], [7, 3]], [[3, 7], [10, 7]]], np.float32)
# The corners of each behaviour's way: the first keeps to the inner side of the corridors, the second to the outer one.
CORNERS = (
    ((8.0, 1.0), (8.0, 4.5), (2.0, 4.5), (2.0, 9.0)),
    ((1.0, 2.2), (9.0, 2.2), (9.0, 5.5), (1.0, 5.5), (1.0, 8.0)),
)


@struct.dataclass
class EnvState(environment.EnvState):
    """The maze's state."""

    position: jax.Array  # [2] float32
    progress: jax.Array  # [B] int32: how many of its targets, one after the other, each behaviour would have reached
    turn: jax.Array  # [B] int32: the place on its way, from 1, where each behaviour turns round; the last is the goal


@struct.dataclass
class EnvParams(environment.EnvParams):
    """The maze's parameters."""

    max_steps_in_episode: int = 300
    start_high: float = 0.1  # episodes start up to so far from START, in both coordinates


class PointMaze(Navigation):
    """The maze with its behaviours, of which few arrive: at every corner each may turn round, and then goes to and fro
    between there and the start.

    A step that arrives has reward 1 and ends the episode, every other 0. A move that would cross a wall goes on along
    one of the axes, if that does not, too.
    """

    goal = GOAL

    def __init__(self):
        super().__init__(CORNERS)
        self.way = np.concatenate([np.full((len(CORNERS), 1, 2), START, np.float32), self.targets], axis=1)  # [B, L, 2]

    @property
    def default_params(self) -> EnvParams:
        return EnvParams()

    def reset_env(self, key: jax.Array, params: EnvParams) -> tuple[jax.Array, EnvState]:
        """Starts an episode in the lower left corner; the key is consumed."""
        key_start, key_turn = jax.random.split(key)
        position = jnp.array(START) + jax.random.uniform(key_start, (2,), maxval=params.start_high)
        goes_on = jax.random.uniform(key_turn, (len(self.last), int(self.last.max()))) < GO_ON
        turn = 1 + jnp.minimum(jnp.cumprod(goes_on, axis=1).sum(1), self.last).astype(jnp.int32)
        return position, EnvState(jnp.int32(0), position, jnp.zeros_like(self.last), turn)

    def step_env(
        self, key: jax.Array, state: EnvState, action: jax.Array, params: EnvParams
    ) -> tuple[jax.Array, EnvState, jax.Array, jax.Array, dict[str, Any]]:
        """One move, the action clipped to its bounds. Returns observation, state, reward, terminated and info."""
        del key
        position = moved(state.position, jnp.clip(action, -SPEED, SPEED))
        progress = self._progress(state, position)
        state = state.replace(time=state.time + 1, position=position, progress=progress)
        observation, state = self._apply_transition_gradient_policy(position, state)
        terminated = self.is_terminated(state, params)
        return (
            observation,
            state,
            terminated.astype(jnp.float32),
            terminated,
            {"discount": self.discount(state, params)},
        )

    def is_terminated(self, state: EnvState, params: EnvParams) -> jax.Array:
        """Whether the goal is reached."""
        del params
        return jnp.linalg.norm(state.position - jnp.array(GOAL)) < REACHED

    # --- behaviours ----------------------------------------------------------------------------

    @property
    def expert_names(self) -> tuple[str, ...]:
        return ("inner", "outer")

    def _target(self, state: EnvState) -> jax.Array:
        """`[B, 2]`: where each behaviour goes now."""
        number = (state.progress + 1) % (2 * state.turn)
        number = jnp.minimum(number, 2 * state.turn - number)  # 1, 2, ... to the turn, and back to 0
        return jnp.take_along_axis(jnp.asarray(self.way), number[:, None, None], axis=1)[:, 0]

    def _progress(self, state: EnvState, position: jax.Array) -> jax.Array:
        return state.progress + (jnp.linalg.norm(position - self._target(state), axis=-1) < TURNED)

    # --- descriptions --------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return "PointMaze-v0"

    @property
    def plane(self) -> Plane:
        """What is drawn."""
        return Plane(-0.3, SIZE + 0.3, np.arange(0, SIZE + 1, 2), np.array(GOAL), walls=tuple(WALLS))

    def observation_space(self, params: EnvParams | None = None) -> spaces.Box:
        del params
        return spaces.Box(0.0, SIZE, (2,), jnp.float32)

    def state_space(self, params: EnvParams | None = None) -> spaces.Dict:
        whole = super().state_space(params).spaces
        counts = spaces.Box(0, 2**31 - 1, self.last.shape, jnp.int32)
        return spaces.Dict({**whole, "position": self.observation_space(params), "progress": counts, "turn": counts})


def moved(position: jax.Array, move: jax.Array) -> jax.Array:
    """`[2]`: where a move `[2]` from a position `[2]` ends, in the square and on this side of the walls.

    The whole move if no wall is in its way, else its part along x, else along y, else none.
    """
    tried = jnp.clip(position + move * jnp.array([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]), 0, SIZE)
    free = ~jax.vmap(lambda end: crossed(position, end, jnp.asarray(WALLS)).any())(tried)
    return tried[jnp.argmax(free.at[-1].set(True))]


def crossed(begin: jax.Array, end: jax.Array, walls: jax.Array) -> jax.Array:
    """`[W]` bool: whether the segment from `begin [2]` to `end [2]` meets each wall `[W, 2, 2]`; parallel ones do
    not."""
    cross = lambda one, other: one[..., 0] * other[..., 1] - one[..., 1] * other[..., 0]
    along, wall, apart = end - begin, walls[:, 1] - walls[:, 0], walls[:, 0] - begin
    area = cross(along, wall)
    safe = jnp.where(area == 0, 1, area)
    on_move, on_wall = cross(apart, wall) / safe, cross(apart, along) / safe
    return (area != 0) & (on_move >= 0) & (on_move <= 1) & (on_wall >= 0) & (on_wall <= 1)
