"""The 9 x 9 grid worlds of the PG-Kmeans paper (appendix B.1), in gymnax's API.

An agent walks on a grid with a border wall. At every step, with probability `noise`, a uniformly
drawn action is executed in place of the intended one. The episode terminates on the goal cell and
is truncated after `max_steps_in_episode` steps. The reward is 0 throughout (section 6.1).

All parameters live in `EnvParams`, which is traced: changing noise, walls, goal, start block or ball
places does not recompile. A state has an integer code (`state_id`), so that a collected step costs
four bytes and the observation maps are drawn once for each distinct state.
"""

from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment, spaces

GRID_SIZE = 9
UP, DOWN, LEFT, RIGHT, STAY = range(5)
ACTION_NAMES = ("up", "down", "left", "right", "stay")
MOVES = np.array([[-1, 0], [1, 0], [0, -1], [0, 1], [0, 0]], np.int32)
OFFSETS = tuple(int(move @ [GRID_SIZE, 1]) for move in MOVES)  # the same in a flat grid; the border stops its wrapping


def border_walls() -> jax.Array:
    """`[9, 9]` bool: True on the border, False on the 7 x 7 free cells."""
    return jnp.ones((GRID_SIZE, GRID_SIZE), bool).at[1:-1, 1:-1].set(False)


@struct.dataclass
class EnvState(environment.EnvState):
    """State of a grid world without objects."""

    position: jax.Array  # [2] int32, (row, column)


@struct.dataclass
class EnvParams(environment.EnvParams):
    """Parameters of a grid world; every leaf may be traced or vmapped."""

    max_steps_in_episode: int = 40
    noise: float = 0.3  # probability that a uniform action replaces the intended one
    walls: jax.Array = struct.field(default_factory=border_walls)  # [9, 9] bool
    goal: jax.Array = struct.field(default_factory=lambda: jnp.array([7, 7], jnp.int32))  # [2]
    start_low: jax.Array = struct.field(default_factory=lambda: jnp.array([1, 1], jnp.int32))  # [2]
    start_high: jax.Array = struct.field(default_factory=lambda: jnp.array([3, 3], jnp.int32))  # [2], inclusive


class Expert(NamedTuple):
    """A rule-based policy: `act(state, params) -> action`, a pure function of the state."""

    name: str
    act: Any


class GridWorld(environment.Environment[EnvState, EnvParams]):
    """Base of the grid worlds. Subclasses add walls, objects and experts by overriding the hooks below.

    Hooks: `initial_state`, `visit` (what entering a cell does), `walls`, `places`, `planes` and `present` (objects, a
    plane each), `state_id` / `state_from_id`, `next_episode` and the experts'. All methods are unbatched.
    """

    experts: ClassVar[tuple[Expert, ...]] = ()
    num_object_maps: ClassVar[int] = 0

    @property
    def default_params(self) -> EnvParams:
        return EnvParams()

    # --- hooks ---------------------------------------------------------------------------------

    def initial_state(self, key: jax.Array, position: jax.Array, params: EnvParams) -> EnvState:
        """The state at the start of an episode on `position`; the key is consumed."""
        del key, params
        return EnvState(time=jnp.int32(0), position=position)

    def visit(self, state: EnvState, params: EnvParams) -> EnvState:
        """What standing on `state.position` changes. Nothing here."""
        del params
        return state

    def walls(self, state: EnvState, params: EnvParams) -> jax.Array:
        """`[9, 9]` bool: where nobody can go."""
        del state
        return params.walls

    def places(self, state: EnvState, params: EnvParams) -> jax.Array:
        """`[num_object_maps, 2]` int32: the cells of the objects, also of those that are gone."""
        del state, params
        return jnp.zeros((0, 2), jnp.int32)

    def planes(self, state: EnvState, params: EnvParams) -> jax.Array:
        """`[num_object_maps, 9, 9]` bool: the maps of `places`."""
        return jax.vmap(cell_map)(self.places(state, params))

    def present(self, state: EnvState) -> jax.Array:
        """`[num_object_maps]` bool: which objects are still there."""
        del state
        return jnp.zeros((0,), bool)

    def state_id(self, state: EnvState) -> jax.Array:
        """An int32 code of the state, its time apart: `row * 9 + column`."""
        return state.position[0] * GRID_SIZE + state.position[1]

    def scene(self, state: EnvState) -> Any:
        """What all states of the episode share and their codes leave out. Nothing here."""
        del state
        return ()

    def state_from_id(self, state_id: jax.Array, scene: Any = ()) -> EnvState:
        """The state of a code in its scene (time 0): the inverse of `state_id` and `scene`."""
        del scene
        return EnvState(time=jnp.int32(0), position=_position_from_id(state_id))

    @property
    def expert_names(self) -> tuple[str, ...]:
        """A name an expert, in the order of their indices."""
        return tuple(expert.name for expert in self.experts)

    def expert_plan(self, state: EnvState, params: EnvParams) -> Any:
        """What all experts work out once an episode, from its first state. Nothing here."""
        del state, params

    def expert_action(
        self, index: jax.Array, key: Any, observation: Any, state: EnvState, params: EnvParams, plan: Any = None
    ) -> jax.Array:
        """The intended action (int32) of expert `index`; a rollout policy once `index` is bound."""
        del key, observation, plan
        return jax.lax.switch(index, [expert.act for expert in self.experts], state, params)

    def expert_log_probs(
        self, observation: Any, state: EnvState, action: jax.Array, params: EnvParams, plan: Any = None
    ) -> jax.Array:
        """`[K]` float32: log-probability of the intended action under each (deterministic) expert, 0 or -inf."""
        del observation, plan
        choices = jnp.stack([expert.act(state, params) for expert in self.experts])
        return jnp.where(choices == action, 0.0, -jnp.inf)

    def next_episode(self, key: jax.Array, params: EnvParams) -> EnvState:
        """What an automatic reset starts, drawn at every `step` in case it ends the episode; the key is consumed."""
        return self.reset_env(key, params)[1]

    # --- gymnax's API --------------------------------------------------------------------------

    @partial(jax.jit, static_argnames=("self",))
    def step(self, key: jax.Array, state: EnvState, action: jax.Array, params: EnvParams | None = None):
        """gymnax's auto-resetting step, with its keys and results.

        The observation is made from the state that was chosen; gymnax makes both and chooses between the maps.
        """
        params = self.default_params if params is None else params
        key_step, key_reset = jax.random.split(key)
        final_observation, after, reward, terminated, info = self.step_env(key_step, state, action, params)
        truncated = self.is_truncated(after, params)
        fresh = self.next_episode(key_reset, params)
        state = jax.tree.map(lambda new, old: jnp.where(terminated | truncated, new, old), fresh, after)
        info |= {"terminated": terminated, "truncated": truncated, "final_observation": final_observation}
        return self.observe(None, state, action, params), state, reward, terminated, truncated, info

    def reset_env(self, key: jax.Array, params: EnvParams) -> tuple[jax.Array, EnvState]:
        """Starts an episode, the position uniform in the start block; the key is consumed."""
        key_position, key_state = jax.random.split(key)
        position = draw_integers(key_position, params.start_low, params.start_high)
        state = self.visit(self.initial_state(key_state, position, params), params)
        return self.observe(None, state, None, params), state  # observing draws nothing

    def step_env(
        self, key: jax.Array, state: EnvState, action: jax.Array, params: EnvParams
    ) -> tuple[jax.Array, EnvState, jax.Array, jax.Array, dict[str, Any]]:
        """One move. Returns observation, state, reward (0), terminated and info; the key is consumed."""
        replace, choice = jax.random.uniform(key, (2,))  # one draw serves both decisions
        random_action = jnp.minimum((choice * self.num_actions).astype(jnp.int32), self.num_actions - 1)
        executed = jnp.where(replace < params.noise, random_action, action)
        target = state.position + jnp.asarray(MOVES)[executed]
        blocked = self.walls(state, params)[target[0], target[1]]
        position = jnp.where(blocked, state.position, target)
        state = self.visit(state.replace(time=state.time + 1, position=position), params)
        observation, state = self._apply_transition_gradient_policy(self.observe(None, state, action, params), state)
        terminated = self.is_terminated(state, params)
        return observation, state, jnp.float32(0.0), terminated, {"discount": self.discount(state, params)}

    def observe(self, key: jax.Array, state: EnvState, action: Any, params: EnvParams) -> jax.Array:
        """`[9, 9, 3 + num_object_maps]` uint8: wall, agent and goal maps, then one map an object."""
        del key, action
        maps = jnp.stack([self.walls(state, params), cell_map(state.position), cell_map(params.goal)])
        objects = self.planes(state, params) & self.present(state)[:, None, None]
        return jnp.concatenate([maps, objects]).astype(jnp.uint8).transpose(1, 2, 0)

    def is_terminated(self, state: EnvState, params: EnvParams) -> jax.Array:
        """True on the goal cell."""
        return jnp.all(state.position == params.goal)

    @property
    def name(self) -> str:
        return f"{type(self).__name__}-v0"

    @property
    def num_actions(self) -> int:
        return len(ACTION_NAMES)

    def action_space(self, params: EnvParams | None = None) -> spaces.Discrete:
        del params
        return spaces.Discrete(self.num_actions)

    def observation_space(self, params: EnvParams | None = None) -> spaces.Box:
        del params
        return spaces.Box(0, 1, (GRID_SIZE, GRID_SIZE, 3 + self.num_object_maps), jnp.uint8)

    def state_space(self, params: EnvParams | None = None) -> spaces.Dict:
        del params
        cells = spaces.Box(0, GRID_SIZE - 1, (2,), jnp.int32)
        return spaces.Dict({"time": spaces.Discrete(2**31 - 1), "position": cells})

    def render(self, state: EnvState, params: EnvParams | None = None):
        """Draws a state with matplotlib; returns `(figure, axes)` as gymnax's own environments do."""
        from trajclust_envs.plotting import draw_state

        return draw_state(self, state, self.default_params if params is None else params)


def draw_integers(key: jax.Array, low: jax.Array, high: jax.Array) -> jax.Array:
    """Uniform int32 in low..high, both included, of their shape; the key is consumed.

    `jax.random.randint` hashes three times as often to be exact for large ranges; here they are tiny.
    """
    span = high - low + 1
    drawn = (jax.random.uniform(key, jnp.shape(span)) * span).astype(jnp.int32)
    return low + jnp.minimum(drawn, span - 1)  # the product may round up to span


def cell_map(cell: jax.Array) -> jax.Array:
    """`[9, 9]` bool with True on one cell `(row, column)`; all False for a cell off the grid."""
    line = jnp.arange(GRID_SIZE)
    return (line == cell[0])[:, None] & (line == cell[1])[None, :]


def distances(free: jax.Array, source: jax.Array) -> jax.Array:
    """`[9, 9]` float32: moves from each free cell to `source [2]`, infinite where there is no way.

    The source counts as free; the border of `free [9, 9]` (bool) must be False.
    """
    free = free.ravel()

    def spread(carry):
        known, _ = carry
        near = jnp.stack([jnp.roll(known, offset) for offset in OFFSETS[:4]]).min(0) + 1
        return jnp.where(free, jnp.minimum(known, near), known), known

    known = jnp.where(cell_map(source).ravel(), 0.0, jnp.inf)
    grows = lambda carry: jnp.any(carry[0] != carry[1])
    known, _ = jax.lax.while_loop(grows, spread, (known, jnp.full_like(known, jnp.nan)))
    return known.reshape(GRID_SIZE, GRID_SIZE)


def _position_from_id(state_id: jax.Array) -> jax.Array:
    return jnp.stack([state_id // GRID_SIZE, state_id % GRID_SIZE]).astype(jnp.int32)
