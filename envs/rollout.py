"""Collecting episodes: one jitted call for all of them."""

import operator
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnax.environments.environment import Environment
from jax.tree_util import Partial

Policy = Callable[[jax.Array, Any, Any, Any], jax.Array]  # (key, observation, state, params) -> action
BLOCK = 256  # episodes that are collected, or whose observations are drawn, at a time


class Rollout(NamedTuple):
    """N padded episodes as NumPy arrays.

    Where the environment codes its states (`state_id`), observations are stored once each in `table`
    and `observations` / `final_observations` are int32 row numbers. Where a code also needs its episode's `scene`,
    which few episodes share, they are the codes: `draw_observations` makes the observations. Elsewhere they are the
    observations themselves, and `table` and `scenes` are empty. Padded steps hold zeros.
    """

    observations: np.ndarray  # [N, T] int32 rows of table or codes, or [N, T, ...]
    table: np.ndarray | None  # [U, ...]
    actions: np.ndarray  # [N, T] int32 or [N, T, A] float32: the INTENDED action
    rewards: np.ndarray  # [N, T] float32
    lengths: np.ndarray  # [N] int32
    terminated: np.ndarray  # [N] bool, False where the time limit cut the episode
    final_observations: np.ndarray  # [N] int32 rows of table, or [N, ...]
    log_likelihoods: np.ndarray  # [N, K] float32: of the actions under each policy that `score` knows (K = 0 without)
    scenes: Any = ()  # pytree of [N, ...]


def first_steps(rollouts: Sequence[Rollout], count: int) -> list[Rollout]:
    """Of each rollout the first episodes that have `count` steps together; all padded to the longest of them."""
    numbers = [1 + int(np.searchsorted(np.cumsum(each.lengths), count)) for each in rollouts]
    horizon = max(each.lengths[:n].max() for each, n in zip(rollouts, numbers, strict=True))

    def first(each: Rollout, n: int) -> Rollout:
        steps = {name: getattr(each, name)[:n, :horizon] for name in ("observations", "actions", "rewards")}
        ends = ("lengths", "terminated", "final_observations", "log_likelihoods")
        scenes = jax.tree.map(lambda x: x[:n], each.scenes)
        return each._replace(**steps, **{name: getattr(each, name)[:n] for name in ends}, scenes=scenes)

    return [first(each, n) for each, n in zip(rollouts, numbers, strict=True)]


def expert_policy(env: Environment, index: int) -> Policy:
    """Expert `index` as a rollout policy; all experts of an environment share one compiled program.

    Raises:
        IndexError: for an index that no expert has.
    """
    if not 0 <= index < len(env.expert_names):
        raise IndexError(f"{env.name} has experts 0 to {len(env.expert_names) - 1}, not {index}")
    return Partial(env.expert_action, jnp.int32(index))


def expert_rollout(env: Environment, index: int, key: jax.Array, num_episodes: int, params: Any = None) -> Rollout:
    """Episodes of expert `index`, their actions scored under all experts; the key is consumed."""
    policy, score, plan = expert_policy(env, index), Partial(env.expert_log_probs), Partial(env.expert_plan)
    return rollout(env, policy, key, num_episodes, params, score, plan)


def expert_rollouts(env: Environment, keys: jax.Array, num_episodes: int, params: Any = None) -> list[Rollout]:
    """Episodes of every expert, each by its own of the `keys [K]`, which are consumed: one jitted call for all.

    To the bit what `expert_rollout` gives of each.

    Raises:
        ValueError: for another number of keys than there are experts.
    """
    if len(keys) != len(env.expert_names):
        raise ValueError(f"{env.name} has {len(env.expert_names)} experts: give as many keys, not {len(keys)}")
    params = env.default_params if params is None else params
    policies, score = Partial(env.expert_action, jnp.arange(len(keys))), Partial(env.expert_log_probs)
    plan, steps = Partial(env.expert_plan), int(params.max_steps_in_episode)
    collected = _collect_each(env, num_episodes, steps, policies, score, plan, keys, params)
    collected = jax.tree.map(np.asarray, collected)
    return [_as_rollout(env, jax.tree.map(operator.itemgetter(k), collected), params) for k in range(len(keys))]


def rollout(
    env: Environment,
    policy: Policy,
    key: jax.Array,
    num_episodes: int,
    params: Any = None,
    score: Any = None,
    plan: Any = None,
) -> Rollout:
    """Runs `num_episodes` episodes of `policy(key, observation, state, params)`; the key is consumed.

    `params.max_steps_in_episode` gives T and must be a concrete int. A policy with parameters is a
    `jax.tree_util.Partial` of a function and its arrays: other arrays do not recompile. `score(observation,
    state, action, params)`, a `Partial` too, gives the action's log-probabilities `[K]` under K policies; they
    are summed over each episode. `plan(state, params)`, a `Partial` as well, is worked out once an episode from its
    first state; policy and score then get its result as a further argument.
    """
    params = env.default_params if params is None else params
    policy = policy if isinstance(policy, Partial) else Partial(policy)
    score = Partial(_no_scores) if score is None else score
    steps = _collect(env, num_episodes, int(params.max_steps_in_episode), policy, score, plan, key, params)
    return _as_rollout(env, jax.tree.map(np.asarray, steps), params)


def _as_rollout(env: Environment, collected: tuple[Any, Any], params: Any) -> Rollout:
    """What `_collect` gives, as NumPy arrays; each distinct observation is drawn once, where a state codes it."""
    scenes, (observed, final, actions, rewards, valid, terminated, log_likelihoods) = collected
    table = None
    if hasattr(env, "state_id") and not jax.tree.leaves(scenes):
        codes = np.concatenate([observed[valid], final])
        unique, rows = np.unique(codes, return_inverse=True)
        padded = np.resize(unique, 1 << (len(unique) - 1).bit_length())  # few sizes, so few compiled programs
        table = np.asarray(_draw(env, jnp.asarray(padded), params))[: len(unique)]
        # States that look alike (where a ball stood that is gone) share a row.
        _, first, merged = np.unique(table.reshape(len(table), -1), axis=0, return_index=True, return_inverse=True)
        table, rows = table[first], merged[rows]
        rows, final = rows[: -len(valid)], rows[-len(valid) :].astype(np.int32)
        observed = np.zeros(observed.shape, np.int32)
        observed[valid] = rows
    lengths = valid.sum(1, dtype=np.int32)
    return Rollout(observed, table, actions, rewards, lengths, terminated, final, log_likelihoods, scenes)


def draw_observations(env: Environment, codes: np.ndarray, scenes: Any, params: Any = None) -> np.ndarray:
    """The observations `[N, ..., *shape]` of state codes `[N, ...]` in scenes `[N, ...]`, drawn block by block."""
    params = env.default_params if params is None else params
    shape, dtype = env.observation_space(params).shape, env.observation_space(params).dtype
    observations = np.empty((*codes.shape, *shape), dtype)
    for start in range(0, len(codes), BLOCK):
        block = slice(start, start + BLOCK)
        pad = lambda x, block=block: np.resize(x[block], (BLOCK, *x.shape[1:]))  # one compiled program
        drawn = _draw_scenes(env, pad(codes.reshape(len(codes), -1)), jax.tree.map(pad, scenes), params)
        observations[block] = np.asarray(drawn)[: len(codes[block])].reshape(observations[block].shape)
    return observations


def _no_scores(observation, state, action, params, plan=None):
    return jnp.zeros((0,), jnp.float32)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _collect(env, num_episodes, max_steps, policy, score, plan, key, params):
    """Scenes `[N, ...]`, and arrays `[N, T, ...]` and `[N, ...]` of `num_episodes` episodes."""
    coded = hasattr(env, "state_id")
    record = (lambda obs, state: env.state_id(state)) if coded else (lambda obs, state: obs)

    def episode(key):
        key_reset, key_steps = jax.random.split(key)
        obs, state = env.reset_env(key_reset, params)
        scene = env.scene(state) if coded else ()
        planned = () if plan is None else (plan(state, params),)

        def step(carry, key):
            obs, state, running, terminated = carry
            key_policy, key_env = jax.random.split(key)
            action = policy(key_policy, obs, state, params, *planned)
            next_obs, next_state, reward, ends, _ = env.step_env(key_env, state, action, params)
            out = (record(obs, state), action, reward, score(obs, state, action, params, *planned))
            out = (*jax.tree.map(lambda x: jnp.where(running, x, 0), out), running)
            obs, state, terminated = jax.tree.map(
                lambda new, old: jnp.where(running, new, old), (next_obs, next_state, ends), (obs, state, terminated)
            )
            running &= ~(ends | env.is_truncated(next_state, params))
            return (obs, state, running, terminated), out

        carry = (obs, state, jnp.bool_(True), jnp.bool_(False))
        (obs, state, _, terminated), steps = jax.lax.scan(step, carry, jax.random.split(key_steps, max_steps))
        observed, actions, rewards, scores, valid = steps
        return scene, (observed, record(obs, state), actions, rewards, valid, terminated, scores.sum(0))

    keys = jax.random.split(key, num_episodes)
    if plan is None:
        return jax.vmap(episode)(keys)
    return jax.lax.map(episode, keys, batch_size=min(num_episodes, BLOCK))  # plans may be large: a block's at a time


@partial(jax.jit, static_argnums=(0, 1, 2))
def _collect_each(env, num_episodes, max_steps, policies, score, plan, keys, params):
    """`_collect` of K policies, the leading axis of their arrays, each by its own key; `[K, ...]` on every array.

    One after the other, each by the program of a lone one: to the bit the same episodes.
    """
    one = lambda each: _collect(env, num_episodes, max_steps, each[0], score, plan, each[1], params)
    return jax.lax.map(one, (policies, keys))


@partial(jax.jit, static_argnums=0)
def _draw(env, state_ids, params):
    """The observations `[U, ...]` of state codes `[U]`."""
    key = jax.random.key(0)  # coded environments observe without randomness
    return jax.vmap(lambda i: env.observe(key, env.state_from_id(i), None, params))(state_ids)


@partial(jax.jit, static_argnums=0)
def _draw_scenes(env, codes, scenes, params):
    """The observations `[n, T, ...]` of state codes `[n, T]` in scenes `[n, ...]`."""
    draw = lambda code, scene: env.observe(None, env.state_from_id(code, scene), None, params)
    return jax.vmap(jax.vmap(draw, (0, None)))(codes, scenes)
