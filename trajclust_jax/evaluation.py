"""Returns of trained policies: all seeds, swept settings and clusters act in one call, each for several episodes."""

import contextlib
import functools
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from trajclust_jax.data.spaces import ObservationReader
from trajclust_jax.data.types import DataError
from trajclust_jax.lazy import lazy
from trajclust_jax.learners.offline import TrainedPolicy

mujoco = lazy("trajclust_envs.mujoco")
vector = lazy("gymnasium.vector")

COPIES = 128  # of an environment that step side by side, at most
LONGEST = 100_000  # steps of an episode: an environment without a time limit may never end one


class Acting(Protocol):
    """Acts by an actor's parameters, without noise; hashable. Every learner does."""

    def act(self, actor: Any, observations: jax.Array) -> jax.Array:
        """`[n, D] -> [n, A]` in [-1, 1]; of one that is DISCRETE, one-hot."""


def mujoco_returns(task: str, learner: Acting, policy: TrainedPolicy, num_episodes: int, seed: int) -> np.ndarray:
    """`[*axes, E]` float64: undiscounted returns of all policies without their noise, in MuJoCo.

    Every policy meets the same E first states. One policy call a step serves all policies and episodes.

    Args:
        task: a key of `envs.mujoco.TASKS`.
        policy: what `fit` returned, with its axes: seeds, swept settings, clusters.
        seed: of the episodes.
    """
    axes = policy.scaling.mean.shape[:-1]
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[len(axes) :]), policy)
    members = flat.scaling.mean.shape[0]
    together = max(1, COPIES // members)
    columns = []
    for first in range(0, num_episodes, together):
        numbers = list(range(first, min(first + together, num_episodes)))
        acting = lambda observations, normal: np.asarray(
            act(learner, flat, observations.reshape(members, -1, observations.shape[-1]))
        ).reshape(normal.shape)
        episodes = mujoco.run_episodes(task, acting, numbers * members, seed, copies=len(numbers) * members)
        episode_returns = [episode.rewards.sum(dtype=np.float64) for episode in episodes]
        columns.append(np.reshape(episode_returns, (members, len(numbers))))
    return np.concatenate(columns, axis=1).reshape(*axes, num_episodes)


def gymnasium_returns(
    make: Callable[[], Any], learner: Acting, policy: TrainedPolicy, num_episodes: int, seed: int
) -> np.ndarray:
    """`[*axes, E]` float64: as `mujoco_returns`, in any Gymnasium environment.

    Observations are read as `data.spaces` reads those of datasets; continuous actions are kept within the space's
    bounds. One policy call a step serves all policies and episodes: an environment whose episode is over begins its
    policy's next one at once.

    Args:
        make: gives a new environment.
        policy, num_episodes, seed: as `mujoco_returns` has them.

    Raises:
        DataError: for an episode of more than LONGEST steps.
    """
    axes = policy.scaling.mean.shape[:-1]
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[len(axes) :]), policy)
    members, size = flat.scaling.mean.shape
    together = min(max(1, COPIES // members), num_episodes)
    starts = [int(np.random.default_rng((seed, number)).integers(2**31)) for number in range(num_episodes)]
    member, number = np.divmod(np.arange(members * together), together)  # [C] each: the policy and its episode
    begun = np.full(members, together)
    steps = np.zeros(members * together, int)
    totals = np.zeros((members, num_episodes))
    copies = vector.SyncVectorEnv(
        [lambda: _Copy(make())] * len(number), copy=False, autoreset_mode=vector.AutoresetMode.DISABLED
    )
    with contextlib.closing(copies):
        reader = ObservationReader(copies.single_observation_space)
        seen, _ = copies.reset(seed=[starts[n] for n in number])
        while (running := number < num_episodes).any():
            observations = np.asarray(reader(seen), np.float32).reshape(members, together, size)
            actions = np.asarray(act(learner, flat, observations))
            seen, rewards, terminated, truncated, _ = copies.step(_taken(actions, copies.single_action_space))
            totals[member[running], number[running]] += rewards[running]
            steps += 1
            over = running & (terminated | truncated)
            if (steps[running & ~over] >= LONGEST).any():
                raise DataError(f"an episode has not ended after {LONGEST:,} steps: give the environment a time limit")
            if over.any():
                for copy in np.flatnonzero(over):
                    number[copy], steps[copy] = begun[member[copy]], 0
                    begun[member[copy]] += 1
                next_starts = [starts[n] if n < num_episodes else None for n in number]
                seen, _ = copies.reset(seed=next_starts, options={"reset_mask": over})
    return totals.reshape(*axes, num_episodes)


class _Copy:
    """An environment as `SyncVectorEnv` steps it among others: all of them or none.

    Reset without a seed it rests: steps change and cost nothing. Its infos are left out: their arrays could not be
    stacked where shapes differ. Discrete actions are plain ints.
    """

    render_mode = None

    def __init__(self, env: Any):
        self.env, self.metadata = env, {}  # its own, which SyncVectorEnv writes to
        self.observation_space, self.action_space = env.observation_space, env.action_space
        self._resting, self._seen = True, None

    def reset(self, *, seed: int | None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        del options  # that SyncVectorEnv was given
        self._resting = seed is None
        if not self._resting:
            self._seen, _ = self.env.reset(seed=seed)
        return self._seen, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if self._resting:
            return self._seen, 0.0, False, False, {}
        action = int(action) if hasattr(self.action_space, "n") else action
        self._seen, reward, terminated, truncated, _ = self.env.step(action)
        return self._seen, float(reward), terminated, truncated, {}

    def close(self) -> None:
        self.env.close()


def _taken(actions: np.ndarray, space: Any) -> np.ndarray:
    """Actions of policies `[M, n, ...]` as copies of the environment take them, `[M * n, ...]`."""
    if hasattr(space, "n"):
        return actions.reshape(-1) + space.start
    return np.clip(actions.reshape(-1, *space.shape), space.low, space.high).astype(space.dtype)


def gymnax_returns(
    env: Any, learner: Acting, policy: TrainedPolicy, num_episodes: int, key: jax.Array, params: Any = None
) -> np.ndarray:
    """`[*axes, E]` float32: as `mujoco_returns`, in an environment of gymnax's API, in one jitted call.

    `params.max_steps_in_episode` must be a concrete int; the key is consumed.
    """
    params = env.default_params if params is None else params
    axes = policy.scaling.mean.shape[:-1]
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[len(axes) :]), policy)
    rewards = _run(env, learner, int(params.max_steps_in_episode), num_episodes, False, flat, key, params)[1]
    return np.asarray(rewards.sum(0)).reshape(*axes, num_episodes)


class Episodes(NamedTuple):
    """Episodes of policies `[*axes]`, padded with zeros."""

    observations: np.ndarray  # [*axes, E, T + 1, ...], from the first one to the one after the last step
    rewards: np.ndarray  # [*axes, E, T]
    lengths: np.ndarray  # [*axes, E] int: steps; one observation more


def gymnax_episodes(env: Any, learner: Acting, policy: TrainedPolicy, num_episodes: int, key: jax.Array) -> Episodes:
    """The episodes whose returns `gymnax_returns` gives for the same key."""
    params = env.default_params
    axes = policy.scaling.mean.shape[:-1]
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[len(axes) :]), policy)
    run = _run(env, learner, int(params.max_steps_in_episode), num_episodes, True, flat, key, params)
    first, *steps = (np.asarray(x) for x in run)  # [T, M, E, ...]
    rewards, running, seen = (np.moveaxis(x, 0, 2) for x in steps)
    observations = np.concatenate([first[:, :, None], seen], axis=2)
    found = (observations, rewards, running.sum(-1))
    return Episodes(*(x.reshape(*axes, *x.shape[1:]) for x in found))


@functools.partial(jax.jit, static_argnums=0)
def act(learner: Acting, policy: TrainedPolicy, observations: jax.Array) -> jax.Array:
    """`[*axes, n, D] -> [*axes, n, A]`: each policy on its own observations, from the environment and for it.

    Discrete actions are `[*axes, n]` int32.
    """

    def one(policy, observations):
        scaling = policy.scaling
        actions = learner.act(policy.actor, scaling.observations(observations))
        if getattr(learner, "DISCRETE", False):
            return actions.argmax(-1).astype(jnp.int32)
        return scaling.actions(actions)

    for _ in policy.scaling.mean.shape[:-1]:
        one = jax.vmap(one)
    return one(policy, observations)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def _run(env, learner, max_steps, num_episodes, seen, policy, key, params):
    """First observations `[M, E, ...]`; of each step `[T, M, E]` rewards, whether the episode still ran, and, where
    they are to be `seen`, the observations after it `[T, M, E, ...]`."""
    members = policy.scaling.mean.shape[0]
    key_reset, key_steps = jax.random.split(key)
    every = lambda keys: jnp.broadcast_to(keys, (members, num_episodes))  # the same luck for every policy
    observations, states = _each(env.reset_env, (0, None))(every(jax.random.split(key_reset, num_episodes)), params)

    def step(carry, key):
        observations, states, running = carry
        flat = observations.reshape(members, num_episodes, -1)
        actions = act(learner, policy, flat)
        keys = every(jax.random.split(key, num_episodes))
        observations, states, rewards, ends, _ = _each(env.step_env, (0, 0, 0, None))(keys, states, actions, params)
        rewards = jnp.where(running, rewards, 0)
        after = jax.vmap(jax.vmap(lambda on, x: jnp.where(on, x, 0)))(running, observations) if seen else ()
        ends |= _each(env.is_truncated, (0, None))(states, params)
        return (observations, states, running & ~ends), (rewards, running, after)

    running = jnp.ones((members, num_episodes), bool)
    keys = jax.random.split(key_steps, max_steps)
    return observations, *jax.lax.scan(step, (observations, states, running), keys)[1]


def _each(fn, in_axes):
    """`fn` of every policy's every episode."""
    return jax.vmap(jax.vmap(fn, in_axes), in_axes)
