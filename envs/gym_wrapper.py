"""The environments as ordinary `gymnasium.Env`s: NumPy in, NumPy out."""

from functools import partial
from typing import Any

import gymnasium
import gymnax
import jax
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnax.environments.environment import Environment
from gymnax.environments.spaces import gymnax_space_to_gym_space
from gymnax.wrappers.gym import GymnaxToGymWrapper
from matplotlib.backends.backend_agg import FigureCanvasAgg


def make_gym(env: str | Environment, params: Any = None, render_mode: str | None = None) -> gymnasium.Env:
    """A gymnax environment, or the id of one, as a `gymnasium.Env` that passes gymnasium's `check_env`.

    `render_mode` is None or, where the environment has a `render`, "rgb_array". Other parameters can be set
    at a reset: `reset(options={"env_params": params})`.
    """
    spec = EnvSpec(
        f"gymnax/{env if isinstance(env, str) else env.name}",
        entry_point="trajclust_envs.gym_wrapper:make_gym",
        kwargs={"env": env, "params": params, "render_mode": render_mode},
    )
    wrapped = GymEnv(gymnax.make(env)[0] if isinstance(env, str) else env, params, render_mode)
    wrapped.spec = spec
    return wrapped


class GymEnv(GymnaxToGymWrapper):
    """gymnax's wrapper made to follow gymnasium's rules.

    An episode ends on its real final observation, and `render` shows that state: nothing resets by itself, and a
    step after the end is an error. The spaces are objects that can be seeded. Without a seed, episodes are random.
    """

    action_space = observation_space = None  # plain attributes in place of the base class's properties

    def __init__(self, env: Environment, params: Any = None, render_mode: str | None = None):
        # Not the base class's constructor: that one copies the environment, which then compiles programs of its own,
        # and writes into gymnasium.Env's metadata, which belong to everybody.
        self._env = env
        self.env_params = env.default_params if params is None else params
        self.metadata = {
            "name": env.name,
            "render_modes": ["rgb_array"] if hasattr(env, "render") else [],
            "render_fps": 8,
        }
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode must be None or in {self.metadata['render_modes']}, not {render_mode!r}")
        self.render_mode = render_mode
        self._ended = True
        self._set_spaces()

    def _set_spaces(self):
        self.action_space = gymnax_space_to_gym_space(self._env.action_space(self.env_params))
        self.observation_space = gymnax_space_to_gym_space(self._env.observation_space(self.env_params))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        gymnasium.Env.reset(self, seed=seed)
        observation, info = super().reset(seed=int(self.np_random.integers(2**31)), options=options)
        if options and "env_params" in options:
            self._set_spaces()
        self._ended = False
        return jax.tree.map(np.array, observation), info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if self._ended:
            raise gymnasium.error.ResetNeeded("the episode is over or has not begun: call reset()")
        self.key, key = jax.random.split(self.key)
        out = _transition(self._env, key, self.env_state, np.asarray(action), self.env_params)
        self.env_state = out[1]
        observation, reward, terminated, truncated, info = jax.tree.map(np.array, (out[0], *out[2:]))
        self._ended = bool(terminated | truncated)
        return observation, float(reward), bool(terminated), bool(truncated), info

    def render(self) -> np.ndarray | None:
        if self.render_mode is None:
            return None
        figure, _ = self._env.render(self.env_state, self.env_params)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()


@partial(jax.jit, static_argnums=0)
def _transition(env, key, state, action, params):
    """`env.step` without the automatic reset."""
    observation, state, reward, terminated, info = env.step_env(key, state, action, params)
    return observation, state, reward, terminated, env.is_truncated(state, params), info
