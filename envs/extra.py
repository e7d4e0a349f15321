"""Extra-v0 and ExtraFixed-v0: walk to the goal through random walls, past two special cells.

Hu, Wang and Du, "Policy-Based Trajectory Clustering in Offline RL", appendix B.1 and B.2. The paper leaves open
whether the random map is drawn once or for each episode: Extra draws one an episode, ExtraFixed has one for all.
Its three experts are paid +10, 0 or -10 for a special cell, and so visit, ignore or avoid both.
"""

import functools
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import spaces

from trajclust_envs import gridworld, ppo
from trajclust_envs.gridworld import GRID_SIZE, OFFSETS, GridWorld, cell_map, distances
from trajclust_envs.value_iteration import Rewards, value_iteration

NUM_SPECIALS = 2
POOL_SIZE = 4096  # maps for automatic resets, by default
MAX_ATTEMPTS = 100  # random maps drawn for an episode at most; each is accepted with probability .9
TEMPERATURE = 0.1  # of the value-iteration experts' softmax, in units of reward
SPECIAL_REWARDS = np.array([10.0, 0.0, -10.0], np.float32)  # an expert each
EXPERT_KINDS = ("ppo", "softmax", "greedy")
EXPERT_NAMES = ("visits", "ignores", "avoids")
FIXED_MAP = """
#########
#.#..##.#
#.....#.#
#.###...#
#.#...1.#
#2.#....#
#.......#
#.#...#.#
#########
"""  # `random_layout` of key 17: see `FixedParams`
FAR = 30.0  # stands for longer ways, and for none
_BITS = 2 ** np.arange(NUM_SPECIALS, dtype=np.int32)[::-1]


class Layout(NamedTuple):
    """A random map: what stays the same throughout an episode."""

    walls: jax.Array  # [9, 9] bool
    specials: jax.Array  # [2, 2] int32


def random_layout(
    key: jax.Array, walls: jax.Array, start: jax.Array, goal: jax.Array, wall_share: Any, min_free: Any
) -> Layout:
    """A map in which the start reaches the goal; the key is consumed.

    Each cell that is not one of `walls`, the start or the goal becomes a wall with probability `wall_share`, then
    every cell cut off from the goal does. Maps that cut off the start or leave fewer than `min_free` free cells
    are drawn again. The special cells are two different free cells, neither start nor goal.

    Args:
        walls: `[9, 9]` bool, the cells that are walls in every map: the border at least.
        start: `[2]` int32.
        goal: `[2]` int32.
        wall_share: probability of a wall.
        min_free: free cells, start and goal among them. Where MAX_ATTEMPTS maps fail, there are no random walls.
    """
    ends = cell_map(start) | cell_map(goal)
    key_walls, key_specials = jax.random.split(key)

    def accepted(free):
        return free[start[0], start[1]] & (free.sum() >= min_free)

    def attempt(carry):
        attempts, _ = carry
        drawn = jax.random.uniform(jax.random.fold_in(key_walls, attempts), walls.shape) < wall_share
        return attempts + 1, flood(ends | ~(walls | drawn), goal)

    rejected = lambda carry: ~accepted(carry[1]) & (carry[0] < MAX_ATTEMPTS)
    _, free = jax.lax.while_loop(rejected, attempt, (jnp.int32(0), jnp.zeros_like(walls)))
    free = jnp.where(accepted(free), free, ~walls)

    rank = jnp.cumsum((free & ~ends).ravel())  # the k-th candidate (from 0) is the first cell of rank k + 1
    count = rank[-1]
    first, second = (jax.random.uniform(key_specials, (2,)) * jnp.stack([count, count - 1])).astype(jnp.int32)
    second += second >= first  # uniform over the others
    chosen = jnp.argmax(rank > jnp.stack([first, second])[:, None], axis=1)
    return Layout(~free, jnp.stack([chosen // GRID_SIZE, chosen % GRID_SIZE], axis=-1).astype(jnp.int32))


def flood(free: jax.Array, source: jax.Array) -> jax.Array:
    """`[9, 9]` bool: the free cells connected to `source [2]`. The border of `free` must be False.

    A row of cells is the bits of one integer, which is five times faster than 81 numbers.
    """
    bits = 2 ** np.arange(GRID_SIZE, dtype=np.int32)
    free, source = ((cells * bits).sum(-1) for cells in (free, cell_map(source)))  # [9] int32

    def spread(carry):
        reached, _ = carry
        near = reached << 1 | reached >> 1 | jnp.roll(reached, 1) | jnp.roll(reached, -1)
        return reached | near & free, reached

    grows = lambda carry: jnp.any(carry[0] != carry[1])
    reached, _ = jax.lax.while_loop(grows, spread, (source, jnp.zeros_like(source)))
    return (reached[:, None] & bits) != 0


def planning_inputs(walls: jax.Array, goal: jax.Array, specials: jax.Array) -> jax.Array:
    """`[324, 34]` float32: what the PPO experts see in each state of one map, by `state_id`.

    Shortest ways to the goal, to the special cells left and to the goal around them, and how each move changes
    them, so that small networks are enough.
    """
    free, marks = ~walls, jax.vmap(cell_map)(specials)
    to_goal, to_first, to_second = (distances(free, target) for target in (goal, *specials))
    at = lambda grid, cell: grid[cell[0], cell[1]]
    between = jnp.stack([at(to_first, goal), at(to_second, goal), at(to_first, specials[1])])
    manhattan = jnp.abs(jnp.indices(walls.shape) - goal[:, None, None]).sum(0)
    flat = lambda x: x.reshape(*x.shape[:-2], -1)

    def inputs(left):
        """`[81, 34]` of the states in which the special cells `left [2]` are still there."""
        marked = jnp.any(marks & left[:, None, None], axis=0)
        ways = jnp.stack([to_goal, to_first, to_second, distances(free & ~marked, goal)])
        ways = flat(jnp.minimum(ways, FAR)) * jnp.array([1, left[0], left[1], 1])[:, None]  # [4, 81]
        fields = []
        for offset in OFFSETS[:4]:
            blocked, marked_there, ways_there = (jnp.roll(x, -offset, -1) for x in (flat(walls), flat(marked), ways))
            change = jnp.clip(jnp.where(blocked, 0, ways_there - ways), -2, 2)
            fields += [*change, blocked, marked_there]
        constant = jnp.broadcast_to(jnp.concatenate([left, between / 10])[:, None], (5, walls.size))
        return jnp.stack([*fields, *ways / 10, flat(manhattan) / 10, *constant], axis=-1)

    every = jnp.array([[True, True], [True, False], [False, True], [False, False]])  # `left`, in the order of codes
    return jax.vmap(inputs)(every).reshape(-1, 34)


def _fixed_walls() -> jax.Array:
    return jnp.array([[cell == "#" for cell in row] for row in FIXED_MAP.split()])


@struct.dataclass
class FixedState(gridworld.EnvState):
    """ExtraFixed's state."""

    visited: jax.Array  # [2] bool


@struct.dataclass
class FixedParams(gridworld.EnvParams):
    """ExtraFixed's parameters: the map is `walls` and `specials`.

    A map can make experts alike (one of keys 0 to 23 has an oracle NMI of 0). The default is, of the maps on which
    the value-iteration experts at temperature 0.3 visit both special cells in 90% of the episodes or more, ignore
    them in 20 to 80% and avoid them in 85% or more, the one with the highest oracle NMI.
    """

    walls: jax.Array = struct.field(default_factory=_fixed_walls)  # [9, 9] bool

    start_low: jax.Array = struct.field(default_factory=lambda: jnp.array([1, 1], jnp.int32))
    start_high: jax.Array = struct.field(default_factory=lambda: jnp.array([1, 1], jnp.int32))
    specials: jax.Array = struct.field(default_factory=lambda: jnp.array([[4, 6], [5, 1]], jnp.int32))  # [2, 2]


class ExtraFixed(GridWorld):
    """One random map for all episodes; a special cell's plane is cleared by its visit. 5 observation maps.

    `experts` names how they came about: by PPO ("ppo"), or from the exact action values of position and flags, noise
    included, without the time limit: their softmax at TEMPERATURE ("softmax") or the best action ("greedy"). PPO
    was trained on the default map; Extra's was on random ones.
    """

    num_object_maps = NUM_SPECIALS
    expert_names: ClassVar[tuple[str, ...]] = EXPERT_NAMES
    weights = "extrafixed"  # of the PPO experts

    def __init__(self, experts: str = "ppo"):
        if experts not in EXPERT_KINDS:
            raise ValueError(f"experts is {experts!r}: choose one of {', '.join(EXPERT_KINDS)}")
        self.kind = experts

    @property
    def default_params(self) -> FixedParams:
        return FixedParams()

    def places(self, state: FixedState, params: FixedParams) -> jax.Array:
        del state
        return params.specials

    def present(self, state: FixedState) -> jax.Array:
        return ~state.visited

    def initial_state(self, key: jax.Array, position: jax.Array, params: FixedParams) -> FixedState:
        del key, params
        return FixedState(time=jnp.int32(0), position=position, visited=jnp.zeros((NUM_SPECIALS,), bool))

    def visit(self, state: FixedState, params: FixedParams) -> FixedState:
        here = jnp.all(self.places(state, params) == state.position, axis=-1)
        return state.replace(visited=state.visited | here)

    def state_id(self, state: FixedState) -> jax.Array:
        """`row * 9 + column + 81 * (2 * first visited + second visited)`."""
        return super().state_id(state) + GRID_SIZE**2 * jnp.sum(state.visited * _BITS)

    def state_from_id(self, state_id: jax.Array, scene: Any = ()) -> FixedState:
        del scene
        visits, cell = state_id // GRID_SIZE**2, state_id % GRID_SIZE**2
        return FixedState(
            time=jnp.int32(0),
            position=super().state_from_id(cell).position,
            visited=(visits // _BITS) % 2 == 1,
        )

    def state_space(self, params: FixedParams | None = None) -> spaces.Dict:
        return spaces.Dict({**super().state_space(params).spaces, "visited": spaces.Box(0, 1, (2,), jnp.bool_)})

    # --- experts -------------------------------------------------------------------------------

    def expert_context(self, state: FixedState, params: FixedParams) -> jax.Array:
        """`[324, 34]`: the PPO experts' inputs in every state of this map."""
        return planning_inputs(self.walls(state, params), params.goal, self.places(state, params))

    def expert_input(self, context: jax.Array, state: FixedState) -> jax.Array:
        """`[34]`: those of one state."""
        return context[self.state_id(state)]

    def expert_reward(self, index: jax.Array, before: FixedState, after: FixedState, params: FixedParams) -> jax.Array:
        """What expert `index` is paid for a step (B.2)."""
        visits = (after.visited & ~before.visited).sum()
        return Rewards(jnp.asarray(SPECIAL_REWARDS)[index])(visits, after.position, params.goal)

    def expert_plan(self, state: FixedState, params: FixedParams) -> jax.Array:
        """`[3, 324, 5]` float32: each expert's log-probabilities in every state of this map, by `state_id`."""
        if self.kind == "ppo":
            inputs, actor = self.expert_context(state, params), ppo.actor_for(self)
            return jax.vmap(lambda weights: actor.apply(weights, inputs).logits)(ppo.load_weights(self.weights))
        walls, specials = self.walls(state, params), self.places(state, params)
        solve = lambda special: value_iteration(walls, params.goal, specials, params.noise, Rewards(special))
        values = jax.vmap(solve)(SPECIAL_REWARDS).reshape(len(SPECIAL_REWARDS), -1, self.num_actions)
        if self.kind == "greedy":
            return jnp.where(jnp.arange(self.num_actions) == values.argmax(-1, keepdims=True), 0.0, -jnp.inf)
        return jax.nn.log_softmax(values / TEMPERATURE)

    def expert_action(self, index, key, observation, state, params, plan=None) -> jax.Array:
        plan = self.expert_plan(state, params) if plan is None else plan
        return jax.random.categorical(key, plan[index, self.state_id(state)]).astype(jnp.int32)

    def expert_log_probs(self, observation, state, action, params, plan=None) -> jax.Array:
        """`[3]` float32: log-probability of the intended action under each expert."""
        plan = self.expert_plan(state, params) if plan is None else plan
        return plan[:, self.state_id(state), action]


@struct.dataclass
class EnvState(FixedState):
    """Extra's state: the episode's own map is part of it."""

    layout: Layout


@struct.dataclass
class Pool:
    """P maps drawn beforehand, and what they were drawn for."""

    layouts: Layout  # [P, ...]
    drawn_for: tuple[Any, ...]


@struct.dataclass
class EnvParams(gridworld.EnvParams):
    """Extra's parameters; `walls` are those of every map."""

    start_low: jax.Array = struct.field(default_factory=lambda: jnp.array([1, 1], jnp.int32))
    start_high: jax.Array = struct.field(default_factory=lambda: jnp.array([1, 1], jnp.int32))
    wall_share: float = 0.2  # probability of a random wall
    min_free: int = 28  # free cells of a map at least
    pool: Pool | None = None  # where automatic resets take their maps from; None: they draw them, which is slow

    @property
    def drawn_for(self) -> tuple[Any, ...]:
        """What a map's distribution depends on."""
        return self.start_low, self.start_high, self.goal, self.walls, self.wall_share, self.min_free


def draw_pool(key: jax.Array, params: EnvParams, size: int) -> Pool:
    """`size` random maps for parameters with one start cell; the key is consumed.

    Raises:
        ValueError: for a block of start cells: a map depends on where its episode begins.
    """
    if (np.asarray(params.start_low) != np.asarray(params.start_high)).any():
        raise ValueError("a pool of maps needs one start cell: start_low and start_high differ")
    draw = lambda key: random_layout(
        key, params.walls, params.start_low, params.goal, params.wall_share, params.min_free
    )
    return Pool(jax.jit(jax.vmap(draw))(jax.random.split(key, size)), params.drawn_for)


@functools.cache
def _default_params() -> EnvParams:
    with jax.ensure_compile_time_eval():  # also where a program that is being traced asks first
        params = EnvParams()
        return params.replace(pool=draw_pool(jax.random.key(0), params, POOL_SIZE))


class Extra(ExtraFixed):
    """A fresh random map each episode, kept in the state; else as ExtraFixed.

    The automatic reset of `step` takes one of the maps of `params.pool`, POOL_SIZE of them by default: drawing maps at
    every step, until the slowest of a batch has one, would take 50 times as long as the step itself. `reset` and
    rollouts draw their own. A pool that was drawn for other parameters is not used.

    `observes` is what an observation shows: the five maps, or `planning_inputs`, made by hand from the map ("ways"): a
    reference for what features that are learned from the maps could give.
    """

    weights = "extra"

    def __init__(self, experts: str = "ppo", observes: str = "maps"):
        super().__init__(experts)
        if observes not in ("maps", "ways"):
            raise ValueError(f"observes is {observes!r}: choose maps or ways")
        self.observes = observes

    def observe(self, key: jax.Array, state: EnvState, action: Any, params: EnvParams) -> jax.Array:
        """The maps `[9, 9, 5]` uint8, or ways `[34]` float32."""
        if self.observes == "maps":
            return super().observe(key, state, action, params)
        return self.expert_input(self.expert_context(state, params), state)

    def observation_space(self, params: EnvParams | None = None) -> spaces.Box:
        if self.observes == "maps":
            return super().observation_space(params)
        return spaces.Box(-10, 10, (34,), jnp.float32)

    @property
    def default_params(self) -> EnvParams:
        return _default_params()

    def next_episode(self, key: jax.Array, params: EnvParams) -> EnvState:
        if params.pool is None:
            return super().next_episode(key, params)
        now, then = jax.tree.leaves(params.drawn_for), jax.tree.leaves(params.pool.drawn_for)
        fits = jnp.all(jnp.array([jnp.all(jnp.equal(a, b)) for a, b in zip(now, then, strict=True)]))

        def pooled(key):
            number = jax.random.randint(key, (), 0, len(params.pool.layouts.walls))
            layout = jax.tree.map(lambda maps: maps[number], params.pool.layouts)
            return self._first(params.start_low, layout)

        # The parameters alone decide: of a batch of states only one of the two is computed.
        return jax.lax.cond(fits, pooled, lambda key: super(Extra, self).next_episode(key, params), key)

    def walls(self, state: EnvState, params: EnvParams) -> jax.Array:
        del params
        return state.layout.walls

    def places(self, state: EnvState, params: EnvParams) -> jax.Array:
        del params
        return state.layout.specials

    def initial_state(self, key: jax.Array, position: jax.Array, params: EnvParams) -> EnvState:
        layout = random_layout(key, params.walls, position, params.goal, params.wall_share, params.min_free)
        return self._first(position, layout)

    def _first(self, position: jax.Array, layout: Layout) -> EnvState:
        return EnvState(jnp.int32(0), position, jnp.zeros((NUM_SPECIALS,), bool), layout)

    def scene(self, state: EnvState) -> Layout:
        return state.layout

    def state_from_id(self, state_id: jax.Array, scene: Layout) -> EnvState:
        state = super().state_from_id(state_id)
        return EnvState(state.time, state.position, state.visited, scene)

    def state_space(self, params: EnvParams | None = None) -> spaces.Dict:
        walls = spaces.Box(0, 1, (GRID_SIZE, GRID_SIZE), jnp.bool_)
        specials = spaces.Box(0, GRID_SIZE - 1, (NUM_SPECIALS, 2), jnp.int32)
        layout = spaces.Dict({"walls": walls, "specials": specials})
        return spaces.Dict({**super().state_space(params).spaces, "layout": layout})
