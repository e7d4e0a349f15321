"""Datasets that the suite makes itself, by name, size and seed."""

import dataclasses
from collections.abc import Callable
from functools import partial

import jax
import numpy as np
from jax.tree_util import Partial

import envs
from trajclust_jax.data.types import Codebook, DataError, Dataset, Trajectories, build_dataset


@dataclasses.dataclass(frozen=True)
class Entry:
    """A registered dataset: `build(name, size, seed)` makes `size` trajectories a policy."""

    summary: str
    environment: str
    num_policies: int
    build: Callable[[str, int, int], Dataset]


def _gridworld(env_id: str, name: str, size: int, seed: int) -> Dataset:
    """`size` episodes of each of the environment's rule-based experts, expert by expert."""
    env = envs.ENVIRONMENTS[env_id]()
    keys = jax.random.split(jax.random.key(seed), len(env.experts))
    score = Partial(env.expert_log_probs)
    parts = [
        envs.rollout(env, envs.expert_policy(env, index), key, size, score=score) for index, key in enumerate(keys)
    ]
    offsets = np.cumsum([0] + [len(part.table) for part in parts[:-1]]).astype(np.int32)
    table = np.concatenate([part.table for part in parts])

    def concatenate(field):
        return np.concatenate([getattr(part, field) for part in parts])

    def ids(field):
        rows = [getattr(part, field) + offset for part, offset in zip(parts, offsets, strict=True)]
        return Codebook(table, np.concatenate(rows))

    trajectories = Trajectories(
        observations=ids("observations"),
        actions=concatenate("actions"),
        rewards=concatenate("rewards"),
        lengths=concatenate("lengths"),
        terminated=concatenate("terminated"),
        final_observations=ids("final_observations"),
        num_actions=env.num_actions,
    )
    return build_dataset(
        trajectories,
        np.repeat(np.arange(len(parts), dtype=np.int32), size),
        name=name,
        source=name,
        policy_names=tuple(expert.name for expert in env.experts),
        parameters={"environment": env_id, "size": size},
        seed=seed,
        true_log_likelihoods=concatenate("log_likelihoods"),
    )


def _entry(env_id: str, summary: str) -> Entry:
    return Entry(summary, env_id, len(envs.ENVIRONMENTS[env_id]().experts), partial(_gridworld, env_id))


REGISTRY: dict[str, Entry] = {
    "diagonal": _entry("Diagonal-v0", "5 ways to walk from the top left to the bottom right"),
    "takeball": _entry("Takeball-v0", "4 experts that each take one ball first"),
    "takeball-permuted": _entry(
        "TakeballPermuted-v0", "balls permuted each episode: two equally good clusterings (paper, A.3)"
    ),
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
