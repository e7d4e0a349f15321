"""Pathfollowing-v0: steer a ball to a goal in the plane, straight or along one of two paths.

Hu, Wang and Du, "Policy-Based Trajectory Clustering in Offline RL", section 6.1 and appendix B.2. The paper leaves
open the dynamics; a step is `position += 0.1 clip(action, -1, 1) + 0.05 N(0, I)`, and 50 of them are an episode.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment, spaces

from trajclust_envs import ppo
from trajclust_envs.plane import Plane

BOUND = 10.0  # of the observation space: ten standard deviations beyond what 50 steps reach
OFF_PATH = 5.0  # weight of the distance to an expert's path
GOAL = np.array([1, 1], np.float32)
# The corners of each expert's path; the first expert has none.
PATHS = np.array([[[-1, -1], [-1, 1], [1, 1]], [[-1, -1], [1, -1], [1, 1]]], np.float32)


@struct.dataclass
class EnvState(environment.EnvState):
    """Pathfollowing's state."""

    position: jax.Array  # [2] float32


@struct.dataclass
class EnvParams(environment.EnvParams):
    """Pathfollowing's parameters; every leaf may be traced or vmapped."""

    max_steps_in_episode: int = 50
    speed: float = 0.1
    noise: float = 0.05  # standard deviation of what is added to every move
    start_low: float = -1.5  # of both coordinates
    start_high: float = -0.5


class Pathfollowing(environment.Environment[EnvState, EnvParams]):
    """The plane with its three experts, trained by PPO. The reward is 0, and only the time limit ends an episode."""

    expert_names: ClassVar[tuple[str, ...]] = ("straight", "up first", "right first")

    @property
    def default_params(self) -> EnvParams:
        return EnvParams()

    def reset_env(self, key: jax.Array, params: EnvParams) -> tuple[jax.Array, EnvState]:
        """Starts an episode, the position uniform in the start square; the key is consumed."""
        position = jax.random.uniform(key, (2,), minval=params.start_low, maxval=params.start_high)
        return position, EnvState(time=jnp.int32(0), position=position)

    def step_env(
        self, key: jax.Array, state: EnvState, action: jax.Array, params: EnvParams
    ) -> tuple[jax.Array, EnvState, jax.Array, jax.Array, dict[str, Any]]:
        """One move. Returns observation, state, reward (0), terminated (False) and info; the key is consumed."""
        move = params.speed * jnp.clip(action, -1, 1) + params.noise * jax.random.normal(key, (2,))
        state = EnvState(time=state.time + 1, position=state.position + move)
        observation, state = self._apply_transition_gradient_policy(state.position, state)
        terminated = self.is_terminated(state, params)
        return observation, state, jnp.float32(0.0), terminated, {"discount": self.discount(state, params)}

    def observe(self, key: jax.Array, state: EnvState, action: Any, params: EnvParams) -> jax.Array:
        """`[2]` float32: the position."""
        del key, action, params
        return state.position

    def is_terminated(self, state: EnvState, params: EnvParams) -> jax.Array:
        """Never."""
        del state, params
        return jnp.bool_(False)

    # --- experts -------------------------------------------------------------------------------

    def expert_context(self, state: EnvState, params: EnvParams) -> None:
        """Nothing is worked out ahead."""
        del state, params

    def expert_input(self, context: None, state: EnvState) -> jax.Array:
        """`[2]`: the position."""
        del context
        return state.position

    def expert_reward(self, index: jax.Array, before: EnvState, after: EnvState, params: EnvParams) -> jax.Array:
        """Minus the distance to the goal and, for experts 1 and 2, 5 times that to their path (B.2)."""
        del before, params
        to_goal = jnp.linalg.norm(after.position - GOAL)
        to_paths = jax.vmap(distance_to_path, (None, 0))(after.position, PATHS)
        return -to_goal - OFF_PATH * jnp.concatenate([jnp.zeros(1), to_paths])[index]

    def expert_plan(self, state: EnvState, params: EnvParams) -> Any:
        """The three actors' parameters."""
        del state, params
        return jax.tree.map(jnp.asarray, ppo.load_weights("pathfollowing"))

    def _policy(self, weights, state):
        return ppo.actor_for(self).apply(weights, self.expert_input(None, state))

    def expert_action(
        self, index: jax.Array, key: jax.Array, observation: Any, state: EnvState, params: EnvParams, plan: Any = None
    ) -> jax.Array:
        """The intended action `[2]` of expert `index`, not clipped; the key is consumed."""
        plan = self.expert_plan(state, params) if plan is None else plan
        return self._policy(jax.tree.map(lambda x: x[index], plan), state).sample(seed=key)

    def expert_log_probs(
        self, observation: Any, state: EnvState, action: jax.Array, params: EnvParams, plan: Any = None
    ) -> jax.Array:
        """`[3]` float32: log-density of the intended action under each expert."""
        plan = self.expert_plan(state, params) if plan is None else plan
        return jax.vmap(lambda weights: self._policy(weights, state).log_prob(action))(plan)

    # --- descriptions --------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return "Pathfollowing-v0"

    @property
    def plane(self) -> Plane:
        """What is drawn."""
        return Plane(-1.7, 1.5, np.arange(-1.5, 1.5), GOAL, tuple(PATHS))

    def action_space(self, params: EnvParams | None = None) -> spaces.Box:
        del params
        return spaces.Box(-1.0, 1.0, (2,), jnp.float32)

    def observation_space(self, params: EnvParams | None = None) -> spaces.Box:
        del params
        return spaces.Box(-BOUND, BOUND, (2,), jnp.float32)

    def state_space(self, params: EnvParams | None = None) -> spaces.Dict:
        return spaces.Dict({"time": spaces.Discrete(2**31 - 1), "position": self.observation_space(params)})

    def render(self, state: EnvState, params: EnvParams | None = None):
        """Draws a state with matplotlib; returns `(figure, axes)` as gymnax's own environments do."""
        from trajclust_envs.plotting import draw_position

        del params
        return draw_position(state.position, self.plane)


def distance_to_path(point: jax.Array, path: jax.Array) -> jax.Array:
    """`[]`: the distance of `point [2]` to the polyline through `path [P, 2]`."""
    begin, along = path[:-1], path[1:] - path[:-1]
    share = jnp.clip(((point - begin) * along).sum(-1) / (along**2).sum(-1), 0, 1)
    return jnp.linalg.norm(point - begin - share[:, None] * along, axis=-1).min()
