"""Datasets that the suite makes itself, by name, size and seed."""

import dataclasses
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import jax
import numpy as np

import envs
from trajclust_jax.data.types import Codebook, DataError, Dataset, Observations, Trajectories, build_dataset


@dataclasses.dataclass(frozen=True)
class Entry:
    """A registered dataset: `build(name, size, seed)` makes `size` trajectories a policy."""

    summary: str
    environment: str
    num_policies: int
    build: Callable[[str, int, int], Dataset]


@cache
def _environment(env_id: str, **options: Any) -> Any:
    """The environment, made once: every new object compiles its own programs."""
    return envs.ENVIRONMENTS[env_id](**options)


def _expert_episodes(env_id: str, name: str, size: int, seed: int, **options: Any) -> Dataset:
    """`size` episodes of each of the environment's experts, expert by expert; `options` choose the experts."""
    env = _environment(env_id, **options)
    keys = jax.random.split(jax.random.key(seed), len(env.expert_names))
    parts = [envs.expert_rollout(env, index, key, size) for index, key in enumerate(keys)]
    observations, final_observations = _observations(env, parts)

    def concatenate(field):
        return np.concatenate([getattr(part, field) for part in parts])

    trajectories = Trajectories(
        observations=observations,
        actions=concatenate("actions"),
        rewards=concatenate("rewards"),
        lengths=concatenate("lengths"),
        terminated=concatenate("terminated"),
        final_observations=final_observations,
        num_actions=getattr(env.action_space(env.default_params), "n", 0),
    )
    return build_dataset(
        trajectories,
        np.repeat(np.arange(len(parts), dtype=np.int32), size),
        name=name,
        source=name,
        policy_names=env.expert_names,
        parameters={"environment": env_id, "size": size, **options},
        seed=seed,
        true_log_likelihoods=concatenate("log_likelihoods"),
    )


def _observations(env: Any, parts: list[envs.Rollout]) -> tuple[Observations, Observations]:
    """Observations and final ones of all parts: a codebook where they have tables, else dense."""
    observed, final = ([getattr(part, name) for part in parts] for name in ("observations", "final_observations"))
    if parts[0].table is not None:
        offsets = np.cumsum([0] + [len(part.table) for part in parts[:-1]]).astype(np.int32)
        table = np.concatenate([part.table for part in parts])
        rows = lambda ids: np.concatenate([part + offset for part, offset in zip(ids, offsets, strict=True)])
        return Codebook(table, rows(observed)), Codebook(table, rows(final))
    observed, final = np.concatenate(observed), np.concatenate(final)
    if jax.tree.leaves(parts[0].scenes):  # codes until here: the maps are by far the largest array
        scenes = jax.tree.map(lambda *x: np.concatenate(x), *(part.scenes for part in parts))
        draw = partial(envs.draw_observations, env, scenes=scenes)
        return draw(observed), draw(final)
    return observed, final


def _entry(env_id: str, summary: str, **options: Any) -> Entry:
    """The experts of an environment; `options` are its constructor's."""
    num_policies = len(_environment(env_id, **options).expert_names)
    return Entry(summary, env_id, num_policies, partial(_expert_episodes, env_id, **options))


REGISTRY: dict[str, Entry] = {
    "diagonal": _entry("Diagonal-v0", "5 ways to walk from the top left to the bottom right"),
    "takeball": _entry("Takeball-v0", "4 experts that each take one ball first"),
    "takeball-permuted": _entry(
        "TakeballPermuted-v0", "balls permuted each episode: two equally good clusterings (paper, A.3)"
    ),
    "extra": _entry(
        "Extra-v0", "3 experts that visit, ignore or avoid two cells, on a fresh map each episode", experts="ppo"
    ),
    "extra-vi": _entry("Extra-v0", "as extra, experts by value iteration (softmax)", experts="softmax"),
    "extra-vi-ways": _entry(
        "Extra-v0",
        "as extra-vi, observed as lengths of ways, made by hand: a reference",
        experts="softmax",
        observes="ways",
    ),
    "extra-greedy": _entry("Extra-v0", "as extra, experts by value iteration (best action)", experts="greedy"),
    "extrafixed": _entry("ExtraFixed-v0", "the three kinds of expert of extra, on one map", experts="ppo"),
    "extrafixed-vi": _entry("ExtraFixed-v0", "as extrafixed, experts by value iteration (softmax)", experts="softmax"),
    "pathfollowing": _entry("Pathfollowing-v0", "3 ways of steering a ball to the goal, continuous"),
}


def make(name: str, size: int = 1000, seed: int = 0) -> Dataset:
    """Builds a registered dataset of `size` trajectories a policy; equal arguments give equal content.

    Raises:
        DataError: for an unknown name or a size below 1.
    """
    if name not in REGISTRY:
        raise DataError(f"unknown dataset {name!r}: choose one of {', '.join(REGISTRY)}")
    if size < 1:
        raise DataError(f"size is {size}: at least 1 trajectory a policy is needed")
    return REGISTRY[name].build(name, size, seed)
