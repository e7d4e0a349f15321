"""Navigation-v0: walk over a square to the goal, round a penalty area or through it, by way of subgoals.

Park, Cho and Sung, "EMPO: A Clustering-Based On-Policy Algorithm for Offline Reinforcement Learning", appendix A.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment, spaces
from jax.scipy.stats import norm
from scipy.sparse import coo_array
from scipy.sparse.csgraph import dijkstra

from trajclust_envs.plane import Plane

SIZE = 30.0  # of the square
SPEED = 0.2  # the largest move of a step in each coordinate
NOISE = 0.1  # standard deviation, of a behaviour's actions before they are clipped
REACHED = 0.1  # a goal or a subgoal is reached at less than this distance
GOAL = (SIZE, SIZE)
PENALTY = ((15.0, 0.0), (30.0, 10.0))  # lower left and upper right corner of the penalty area

Subgoals = tuple[tuple[float, float], ...]
SUBGOALS: tuple[Subgoals, ...] = (
    ((0, 30), (10, 30), (10, 0), (20, 0), (20, 30)),
    ((10, 0), (10, 15), (20, 15), (20, 0), (30, 0)),
)

# The shortest way that the data hold, on the first subgoals of behaviour 1 and the last of behaviour 0; a route takes
# it where it passes these points in order. Returns do not tell: along the left and the upper edge is as long.
WAYPOINTS = ((5.0, 0.0), (10.0, 7.0), (15.0, 15.0), (20.0, 22.0))
PASSED = 1.0  # a waypoint is passed at less than this distance


@struct.dataclass
class EnvState(environment.EnvState):
    """Navigation's state."""

    position: jax.Array  # [2] float32
    progress: jax.Array  # [B] int32: how many of its subgoals, in order, each behaviour would have reached


@struct.dataclass
class EnvParams(environment.EnvParams):
    """Navigation's parameters."""

    max_steps_in_episode: int = 1000
    start_high: float = 0.1  # both coordinates start uniform in [0, start_high]


class Navigation(environment.Environment[EnvState, EnvParams]):
    """The square with its behaviours; experts of other environments are behaviours here, with subgoals of their own.

    A step costs 1, in the penalty area 2, and none that ends at the goal, where the episode terminates.

    Args:
        subgoals: a list for each behaviour, which then goes on to the goal.
    """

    goal: ClassVar[tuple[float, float]] = GOAL

    def __init__(self, subgoals: tuple[Subgoals, ...] = SUBGOALS):
        super().__init__()
        self.subgoals = subgoals
        longest = max(map(len, subgoals))
        targets = [[*points, *[self.goal] * (1 + longest - len(points))] for points in subgoals]
        self.targets = np.array(targets, np.float32)
        self.last = np.array([len(points) for points in subgoals], np.int32)

    @property
    def default_params(self) -> EnvParams:
        return EnvParams()

    def reset_env(self, key: jax.Array, params: EnvParams) -> tuple[jax.Array, EnvState]:
        """Starts an episode in the lower left corner; the key is consumed."""
        position = jax.random.uniform(key, (2,), maxval=params.start_high)
        return position, EnvState(time=jnp.int32(0), position=position, progress=jnp.zeros_like(self.last))

    def step_env(
        self, key: jax.Array, state: EnvState, action: jax.Array, params: EnvParams
    ) -> tuple[jax.Array, EnvState, jax.Array, jax.Array, dict[str, Any]]:
        """One move, the action clipped to its bounds. Returns observation, state, reward, terminated and info."""
        del key
        position = jnp.clip(state.position + jnp.clip(action, -SPEED, SPEED), 0, SIZE)
        progress = self._progress(state, position)
        state = EnvState(time=state.time + 1, position=position, progress=progress)
        observation, state = self._apply_transition_gradient_policy(position, state)
        terminated = self.is_terminated(state, params)
        reward = jnp.where(terminated, 0.0, jnp.where(in_penalty_area(position), -2.0, -1.0))
        return observation, state, reward, terminated, {"discount": self.discount(state, params)}

    def observe(self, key: jax.Array, state: EnvState, action: Any, params: EnvParams) -> jax.Array:
        """`[2]` float32: the position."""
        del key, action, params
        return state.position

    def is_terminated(self, state: EnvState, params: EnvParams) -> jax.Array:
        """Whether the goal is reached."""
        del params
        return jnp.linalg.norm(state.position - jnp.array(GOAL)) < REACHED

    # --- behaviours ----------------------------------------------------------------------------

    @property
    def expert_names(self) -> tuple[str, ...]:
        return tuple(f"behaviour {index}" for index in range(len(self.subgoals)))

    @property
    def fewest_steps(self) -> int:
        """A behaviour cannot reach the goal by way of its subgoals in fewer."""
        corners = np.concatenate([np.zeros((len(self.last), 1, 2)), self.targets], axis=1)
        # The first corner may be missed by `start_high`, and every one by REACHED, before and after.
        spared = EnvParams().start_high + 2 * REACHED * (1 + self.last)
        return int(((np.abs(np.diff(corners, axis=1)).max(-1).sum(1) - spared) / SPEED).min())

    def _progress(self, state: EnvState, position: jax.Array) -> jax.Array:
        """`[B]`: after a step to `position`."""
        reached = jnp.linalg.norm(position - self._target(state), axis=-1) < REACHED
        return jnp.minimum(state.progress + reached, self.last)

    def _target(self, state: EnvState) -> jax.Array:
        """`[B, 2]`: where each behaviour goes now."""
        return jnp.take_along_axis(jnp.asarray(self.targets), state.progress[:, None, None], axis=1)[:, 0]

    def _means(self, state: EnvState) -> jax.Array:
        """`[B, 2]`: the behaviours' actions without noise."""
        return jnp.clip(self._target(state) - state.position, -SPEED, SPEED)

    def expert_plan(self, state: EnvState, params: EnvParams) -> None:
        """Nothing is worked out ahead."""
        del state, params

    def expert_action(
        self, index: jax.Array, key: jax.Array, observation: Any, state: EnvState, params: EnvParams, plan: Any = None
    ) -> jax.Array:
        """The action `[2]` of behaviour `index` (Eq. 15); the key is consumed."""
        del observation, params, plan
        return jnp.clip(self._means(state)[index] + NOISE * jax.random.normal(key, (2,)), -SPEED, SPEED)

    def expert_log_probs(
        self, observation: Any, state: EnvState, action: jax.Array, params: EnvParams, plan: Any = None
    ) -> jax.Array:
        """`[B]` float32: log-likelihood of the action under each behaviour.

        A clipped Gaussian has mass at the bounds: there it is a probability, between them a density.
        """
        del observation, params, plan
        mean = self._means(state)
        inside = norm.logpdf(action, mean, NOISE)
        above, below = norm.logsf(SPEED, mean, NOISE), norm.logcdf(-SPEED, mean, NOISE)
        return jnp.where(action >= SPEED, above, jnp.where(action <= -SPEED, below, inside)).sum(-1)

    # --- descriptions --------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return "Navigation-v0"

    @property
    def plane(self) -> Plane:
        """What is drawn."""
        return Plane(-1.0, SIZE + 1, np.arange(0, SIZE + 1, 5), np.array(GOAL), box=PENALTY)

    def action_space(self, params: EnvParams | None = None) -> spaces.Box:
        del params
        return spaces.Box(-SPEED, SPEED, (2,), jnp.float32)

    def observation_space(self, params: EnvParams | None = None) -> spaces.Box:
        del params
        return spaces.Box(0.0, SIZE, (2,), jnp.float32)

    def state_space(self, params: EnvParams | None = None) -> spaces.Dict:
        count = spaces.Discrete(2**31 - 1)
        progress = spaces.Box(0, int(self.last.max()), self.last.shape, jnp.int32)
        return spaces.Dict({"time": count, "position": self.observation_space(params), "progress": progress})

    def render(self, state: EnvState, params: EnvParams | None = None):
        """Draws a state with matplotlib; returns `(figure, axes)` as gymnax's own environments do."""
        from trajclust_envs.plotting import draw_position

        del params
        return draw_position(state.position, self.plane)


def in_penalty_area(positions: jax.Array) -> jax.Array:
    """`[..., 2] -> [...]` bool; the border is part of it."""
    low, high = jnp.array(PENALTY)
    return ((positions >= low) & (positions <= high)).all(-1)


class Ways:
    """The behaviours' ways at full speed without noise, and the best joining of them.

    Where ways of two behaviours meet, one may change from one to the other: a shortest path over the steps of all ways
    (Dijkstra's algorithm) gives what is still to be paid from each of them.

    Args:
        subgoals: of each behaviour.
    """

    def __init__(self, subgoals: tuple[Subgoals, ...] = SUBGOALS):
        ways = [_walked(points) for points in subgoals]
        self.points = np.concatenate(ways)  # [P, 2]
        self.behaviour = np.repeat(np.arange(len(ways)), [len(way) for way in ways])  # [P]
        lasts = np.cumsum([len(way) for way in ways]) - 1
        steps = np.delete(np.arange(len(self.points)), lasts)  # each goes on to the next point
        cost = np.where(np.asarray(in_penalty_area(self.points[1:])), 2.0, 1.0)[steps]
        apart = np.linalg.norm(self.points[:, None] - self.points[None], axis=-1)
        one, other = np.nonzero((apart < SPEED / 2) & (self.behaviour[:, None] != self.behaviour[None]))
        free = np.full(len(one), 1e-9)  # 0 would be no edge
        edges = np.concatenate([steps + 1, other]), np.concatenate([steps, one])  # backwards, from the goal
        graph = coo_array((np.concatenate([cost, free]), edges), shape=(len(self.points),) * 2).tocsr()
        self.joined = dijkstra(graph, indices=lasts).min(0) - 1.0  # the step that arrives costs nothing
        self.lone = (
            dijkstra(coo_array((cost, (steps + 1, steps)), shape=graph.shape).tocsr(), indices=lasts).min(0) - 1.0
        )
        self.starts = np.append(0, lasts[:-1] + 1)

    @property
    def best(self) -> float:
        """The return of the best joining of the behaviours' ways."""
        return -round(float(self.joined[self.starts].min()), 3)

    @property
    def best_lone(self) -> float:
        """The return of the best behaviour."""
        return -round(float(self.lone[self.starts].min()), 3)

    def following(self, positions: np.ndarray, near: float = PASSED) -> np.ndarray:
        """`[n, B]`: what is to be paid from positions `[n, 2]` on by who follows each behaviour for a step, then the
        best joining; infinite where that behaviour's way is not `near`."""
        found = np.full((len(positions), self.behaviour.max() + 1), np.inf)
        apart = np.linalg.norm(np.asarray(positions)[:, None] - self.points[None], axis=-1)  # [n, P]
        after = np.append(self.joined[1:], 0.0) + 1.0 + np.append(np.asarray(in_penalty_area(self.points[1:])), False)
        for behaviour in range(found.shape[1]):
            own = np.flatnonzero(self.behaviour == behaviour)
            nearest = apart[:, own].argmin(1)
            close = apart[np.arange(len(positions)), own[nearest]] < near
            found[close, behaviour] = after[own[nearest[close]]]
        return found


def _walked(subgoals: Subgoals) -> np.ndarray:
    """`[P, 2]`: from the corner by way of the subgoals to the goal, each coordinate at full speed until it is there."""
    position, walked = np.zeros(2), [np.zeros(2)]
    for target in np.array([*subgoals, GOAL]):
        while np.abs(target - position).max() > 1e-6:
            position = position + np.clip(target - position, -SPEED, SPEED)
            walked.append(position)
    return np.array(walked)


def drawn_subgoals(num_behaviours: int, seed: int) -> tuple[Subgoals, ...]:
    """Subgoals of behaviours, drawn at random, of which some join to a better one.

    Each list has 2 to 4 subgoals at multiples of 10, each in line with the one before, as the paper's are. No way meets
    itself: a policy of the position alone could not walk it. Lists are drawn again until the best joining costs at most
    nine tenths of the best behaviour.
    """
    rng = np.random.default_rng((seed, num_behaviours))
    while True:
        lists: list[Subgoals] = []
        while len(lists) < num_behaviours:
            points = _drawn(rng)
            if points not in lists and not _meets_itself(_walked(points)):
                lists.append(points)
        ways = Ways(tuple(lists))
        if ways.best > 0.9 * ways.best_lone:
            return tuple(lists)


def _drawn(rng: np.random.Generator) -> Subgoals:
    """One list: moves along one coordinate and the other in turn, to one of 0, 10, 20, 30."""
    point, axis, points = [0.0, 0.0], int(rng.integers(2)), []
    for _ in range(int(rng.integers(2, 5))):
        point[axis] = float(rng.choice([x for x in (0.0, 10.0, 20.0, 30.0) if x != point[axis]]))
        points.append((point[0], point[1]))
        axis = 1 - axis
    return tuple(points)


def _meets_itself(way: np.ndarray) -> bool:
    """Whether a way comes within PASSED of where it was more than a few steps before."""
    steps = np.arange(len(way))
    later = steps[None] - steps[:, None] > 4 * PASSED / SPEED
    return bool((np.linalg.norm(way[:, None] - way[None], axis=-1)[later] < PASSED).any())


def routes(positions: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """How each episode went: "short", "penalty", "detour", or "lost" where it did not arrive.

    Args:
        positions: `[N, T, 2]`, the last one of an episode included.
        lengths: `[N]`, positions of each episode.
    """
    names = []
    for path, length in zip(np.asarray(positions), np.asarray(lengths), strict=True):
        path = path[:length]
        if np.linalg.norm(path[-1] - GOAL) >= REACHED:
            names.append("lost")
        elif _passes(path):
            names.append("short")
        else:
            names.append("penalty" if np.asarray(in_penalty_area(path)).any() else "detour")
    return np.array(names)


def _passes(path: np.ndarray) -> bool:
    """Whether a path passes all waypoints, in order."""
    for point in WAYPOINTS:
        near = np.flatnonzero(np.linalg.norm(path - point, axis=-1) < PASSED)
        if not len(near):
            return False
        path = path[near[0] :]
    return True
