"""Gates-v0: walk down a corridor whose walls have narrow openings, each behaviour through one of its own.

A heterogeneous task where behaviours agree between the walls and differ at them, and where the mean of any of them
meets a wall: a policy that is held to their mixture fails, one that is held to any of them does not. It stands beside
the MuJoCo tasks of Zhang and Kashima, "Behavior Estimation from Multi-Source Data for Offline Reinforcement Learning".
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment, spaces
from jax.scipy.stats import norm

from trajclust_envs.plane import Plane

SECTION = 8  # steps from one wall to the next
SPEED = 1.1  # of a step across the corridor, where the action is 1
NOISE = 0.01  # standard deviation of a behaviour's actions
WIDTH = 0.045  # of an opening, to either side of its middle
EDGE = 1.2  # the corridor's own walls, which are only leant on
# Middles of the openings; of any number of them from the front the mean lies at least .083 off all of them.
OPENINGS = 0.125 * np.array([1, -5, 5, 7, -7, -3, 3, -1], np.float32)


@struct.dataclass
class EnvState(environment.EnvState):
    """Gates' state."""

    position: jax.Array  # [] float32: across the corridor


@struct.dataclass
class EnvParams(environment.EnvParams):
    """Gates' parameters; every leaf may be traced or vmapped."""

    max_steps_in_episode: int = 80
    width: float = WIDTH
    start_high: float = 0.05  # the position starts uniform within so much of the middle


class Gates(environment.Environment[EnvState, EnvParams]):
    """The corridor with its behaviours; experts of other environments are behaviours here.

    A step is worth 1, and 0 where it meets a wall, which ends the episode. A behaviour walks in the middle, goes to its
    opening in the step that meets the wall, and returns with the next one: where it has to choose, no state tells which
    behaviour it is.

    Args:
        behaviours: how many there are, with the first openings.
    """

    def __init__(self, behaviours: int = len(OPENINGS)):
        super().__init__()
        if not 1 <= behaviours <= len(OPENINGS):
            raise ValueError(f"behaviours is {behaviours}: there are 1 to {len(OPENINGS)}")
        self.behaviours = behaviours

    @property
    def default_params(self) -> EnvParams:
        return EnvParams()

    def reset_env(self, key: jax.Array, params: EnvParams) -> tuple[jax.Array, EnvState]:
        """Starts an episode near the middle, just behind a wall; the key is consumed."""
        position = jax.random.uniform(key, (), minval=-params.start_high, maxval=params.start_high)
        state = EnvState(time=jnp.int32(0), position=position)
        return self.observe(key, state, None, params), state

    def step_env(
        self, key: jax.Array, state: EnvState, action: jax.Array, params: EnvParams
    ) -> tuple[jax.Array, EnvState, jax.Array, jax.Array, dict[str, Any]]:
        """One move, the action clipped to its bounds. Returns observation, state, reward, terminated and info."""
        position = jnp.clip(state.position + SPEED * jnp.clip(action[0], -1, 1), -EDGE, EDGE)
        state = EnvState(time=state.time + 1, position=position)
        observation, state = self._apply_transition_gradient_policy(self.observe(key, state, action, params), state)
        terminated = self.is_terminated(state, params)
        reward = jnp.where(terminated, 0.0, 1.0)
        return observation, state, reward, terminated, {"discount": self.discount(state, params)}

    def observe(self, key: jax.Array, state: EnvState, action: Any, params: EnvParams) -> jax.Array:
        """`[3]` float32: the position, and where between two walls the agent is, as a point of the unit circle."""
        del key, action, params
        angle = 2 * jnp.pi * (state.time % SECTION) / SECTION
        return jnp.stack([state.position, jnp.cos(angle), jnp.sin(angle)])

    def is_terminated(self, state: EnvState, params: EnvParams) -> jax.Array:
        """Whether the agent is at a wall, and in none of its openings (those without a behaviour are open, too)."""
        at_wall = (state.time > 0) & (state.time % SECTION == 0)
        return at_wall & (jnp.abs(state.position - OPENINGS) > params.width).all()

    # --- behaviours ----------------------------------------------------------------------------

    @property
    def expert_names(self) -> tuple[str, ...]:
        return tuple(f"opening {index + 1}" for index in range(self.behaviours))

    def _means(self, state: EnvState) -> jax.Array:
        """`[B]`: the behaviours' actions without noise."""
        before_wall = state.time % SECTION == SECTION - 1
        target = jnp.where(before_wall, OPENINGS[: self.behaviours], 0.0)
        return (target - state.position) / SPEED

    def expert_plan(self, state: EnvState, params: EnvParams) -> None:
        """Nothing is worked out ahead."""
        del state, params

    def expert_action(
        self, index: jax.Array, key: jax.Array, observation: Any, state: EnvState, params: EnvParams, plan: Any = None
    ) -> jax.Array:
        """The intended action `[1]` of behaviour `index`, not clipped; the key is consumed."""
        del observation, params, plan
        return self._means(state)[index][None] + NOISE * jax.random.normal(key, (1,))

    def expert_log_probs(
        self, observation: Any, state: EnvState, action: jax.Array, params: EnvParams, plan: Any = None
    ) -> jax.Array:
        """`[B]` float32: log-density of the intended action under each behaviour."""
        del observation, params, plan
        return norm.logpdf(action[0], self._means(state), NOISE)

    # --- descriptions --------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return "Gates-v0"

    @property
    def plane(self) -> Plane:
        """What is drawn: a section of the corridor from left to right, and the wall at its end."""
        edges = np.sort(np.concatenate([[-EDGE, EDGE], OPENINGS - WIDTH, OPENINGS + WIDTH]))
        walls = tuple(np.array([[1.0, low], [1.0, high]]) for low, high in edges.reshape(-1, 2))
        return Plane(-EDGE, EDGE, np.linspace(-1, 1, SECTION + 1), None, walls)

    def place(self, state: EnvState) -> np.ndarray:
        """`[2]`: the state in the plane that is drawn."""
        return np.array([2 * float(state.time % SECTION) / SECTION - 1, float(state.position)])

    def action_space(self, params: EnvParams | None = None) -> spaces.Box:
        del params
        return spaces.Box(-1.0, 1.0, (1,), jnp.float32)

    def observation_space(self, params: EnvParams | None = None) -> spaces.Box:
        del params
        return spaces.Box(-EDGE, EDGE, (3,), jnp.float32)

    def state_space(self, params: EnvParams | None = None) -> spaces.Dict:
        del params
        position = spaces.Box(-EDGE, EDGE, (), jnp.float32)
        return spaces.Dict({"time": spaces.Discrete(2**31 - 1), "position": position})

    def render(self, state: EnvState, params: EnvParams | None = None):
        """Draws a state with matplotlib; returns `(figure, axes)` as gymnax's own environments do."""
        from trajclust_envs.plotting import draw_position

        del params
        return draw_position(self.place(state), self.plane)
