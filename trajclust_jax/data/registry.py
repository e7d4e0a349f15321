"""Datasets that the suite makes itself, by name, size and seed."""

import dataclasses
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from trajclust_jax.data.cache import cached
from trajclust_jax.data.d4rl import ENVIRONMENTS, files_of, load_hdf5
from trajclust_jax.data.dataset import build_dataset, subset
from trajclust_jax.data.mujoco import AGENTS, MIXTURES, has_agents, heterogeneous, rolled_out
from trajclust_jax.data.types import Codebook, DataError, Dataset, Observations, Trajectories
from trajclust_jax.data.validation import check_seed
from trajclust_jax.lazy import lazy

envs = lazy("trajclust_envs")

_MOST = 10**7  # trajectories a policy: more do not fit in memory


@dataclasses.dataclass(frozen=True)
class Entry:
    """A registered dataset: `build(name, size, seed, **options)` makes `size` trajectories a policy."""

    title: str
    summary: str
    environment: str
    num_policies: int
    build: Callable[..., Dataset]
    options: tuple[str, ...] = ()  # that `build` takes
    long: bool = False  # trajectories of a thousand steps, not of a few dozen
    continuous: bool = False  # continuous actions
    unit: str = "trajectories"  # of the size: trajectories or steps a policy

    @property
    def default_size(self) -> int:
        """The default size, of each policy, in `unit`."""
        if self.unit == "steps":
            return 100_000
        return 50 if self.long else 1000


def _expert_episodes(env_id: str, name: str, size: int, seed: int, unit: str, **options: Any) -> Dataset:
    """`size` episodes of each of the environment's experts, expert by expert; `options` choose the experts.

    One jitted call collects all of them. If the `unit` is steps: whole episodes of each, at least `size` steps in all.
    """
    env = envs.make(env_id, **options)
    keys = jax.random.split(jax.random.key(seed), len(env.expert_names))
    count = size if unit == "trajectories" else -(-size // env.fewest_steps)
    parts = envs.expert_rollouts(env, keys, count)
    if unit == "steps":
        parts = envs.first_steps(parts, size)
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
        np.repeat(np.arange(len(parts), dtype=np.int32), [len(part.lengths) for part in parts]),
        name=name,
        source=name,
        policy_names=env.expert_names,
        parameters={"environment": env_id, "size": size, **options},
        seed=seed,
        true_log_likelihoods=concatenate("log_likelihoods"),
    )


def _observations(env: Any, parts: "list[envs.Rollout]") -> tuple[Observations, Observations]:
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


def expert_entry(
    env_id: str,
    num_policies: int,
    summary: str,
    title: str | None = None,
    *,
    long: bool = False,
    continuous: bool = False,
    unit: str = "trajectories",
    **options: Any,
) -> Entry:
    """The experts of an environment, `num_policies` of them; `options` are its constructor's."""
    build = partial(_expert_episodes, env_id, unit=unit, **options)
    return Entry(title or env_id.rpartition("-")[0], summary, env_id, num_policies, build, (), long, continuous, unit)


REGISTRY: dict[str, Entry] = {
    "diagonal": expert_entry("Diagonal-v0", 5, "5 ways to walk from the top left to the bottom right"),
    "takeball": expert_entry("Takeball-v0", 4, "4 experts that each take one ball first"),
    "takeball-permuted": expert_entry(
        "TakeballPermuted-v0",
        4,
        "balls permuted each episode: two equally good clusterings (paper, A.3)",
        "Takeball, permuted",
    ),
    "extra": expert_entry(
        "Extra-v0",
        3,
        "3 experts that visit, ignore or avoid two cells, on a fresh map each episode",
        "Extra, fresh maps, PPO",
        experts="ppo",
    ),
    "extra-vi": expert_entry(
        "Extra-v0", 3, "as extra, experts by value iteration (softmax)", "Extra, fresh maps", experts="softmax"
    ),
    "extra-vi-ways": expert_entry(
        "Extra-v0",
        3,
        "as extra-vi, observed as lengths of ways, made by hand: a reference",
        "Extra, hand-made ways",
        experts="softmax",
        observes="ways",
    ),
    "extra-greedy": expert_entry(
        "Extra-v0",
        3,
        "as extra, experts by value iteration (best action)",
        "Extra, fresh maps, greedy",
        experts="greedy",
    ),
    "extrafixed": expert_entry(
        "ExtraFixed-v0", 3, "the three kinds of expert of extra, on one map", "Extra, one map, PPO", experts="ppo"
    ),
    "extrafixed-vi": expert_entry(
        "ExtraFixed-v0",
        3,
        "as extrafixed, experts by value iteration (softmax)",
        "Extra, one map",
        experts="softmax",
    ),
    "pathfollowing": expert_entry(
        "Pathfollowing-v0", 3, "3 ways of steering a ball to the goal, continuous", continuous=True
    ),
    "navigation": expert_entry(
        "Navigation-v0",
        2,
        "2 ways to a far goal that are best joined to one, continuous; its size is in steps",
        long=True,
        continuous=True,
        unit="steps",
    ),
    "pointmaze": expert_entry(
        "PointMaze-v0",
        2,
        "2 ways through a maze, of which few episodes arrive: a sparse reward, continuous",
        "Point maze",
        long=True,
        continuous=True,
    ),
}


def _drawn_navigation(num_behaviours: int, name: str, size: int, seed: int) -> Dataset:
    """The seed draws the behaviours' subgoals, too."""
    subgoals = envs.drawn_subgoals(num_behaviours, seed)
    return _expert_episodes("Navigation-v0", name, size, seed, "steps", subgoals=subgoals)


for _count in range(1, 9):
    REGISTRY[f"gates-{_count}"] = expert_entry(
        "Gates-v0",
        _count,
        f"{_count} ways through the walls of a corridor, whose mean meets them, continuous",
        f"Gates, k = {_count}",
        continuous=True,
        behaviours=_count,
    )

for _count in range(2, 6):
    REGISTRY[f"navigation-drawn-{_count}"] = Entry(
        f"Navigation, {_count} ways drawn",
        f"{_count} ways whose subgoals the seed draws, some of which join to a better one",
        "Navigation-v0",
        _count,
        partial(_drawn_navigation, _count),
        long=True,
        continuous=True,
        unit="steps",
    )

_PAIRS = {  # of MuJoCo policies: what follows the task's title, and a summary
    "medium-expert": ("", "SAC at a third of its return and at convergence"),
    "medium-replay": (", medium and replay", "SAC at a third of its return, and what it was before"),
    "late-expert": (", late and expert", "two late checkpoints of one training, noise 0.1: the hard pair"),
    "medium": (", medium", "SAC at a third of its return, alone"),
}


def _medium_expert(task: str, name: str, size: int, seed: int, **options: Any) -> Dataset:
    """D4RL's own file, where the folder `TRAJCLUST_D4RL` has it; else rolled out by the shipped policies.

    From the file come `size` random episodes of each policy, or all if `size` is 1,000 or more.
    """
    folder = os.environ.get("TRAJCLUST_D4RL")
    files = (Path(folder) / f"{task}{gap}medium{gap}expert-v2.hdf5" for gap in "_-") if folder else ()
    file = next((file for file in files if file.is_file()), None)
    if file is None or options:
        return rolled_out(task, "medium-expert", name, size, seed, **options)
    whole = cached(str(file), files_of(file), lambda: load_hdf5(file))
    if size >= 1000:
        return whole
    rng, labels = np.random.default_rng(seed), whole.labels
    rows = [rng.permutation(np.flatnonzero(labels == label))[:size] for label in range(whole.num_policies)]
    return subset(whole, np.sort(np.concatenate(rows)), {"size": size}, seed)


def _build(task: str, mixture: str) -> Callable[..., Dataset]:
    if mixture == "medium-expert":
        return partial(_medium_expert, task)
    # sampled actions would tell late checkpoints apart by their spread
    return partial(rolled_out, task, mixture, **({"noise": 0.1} if mixture == "late-expert" else {}))


for _task, _environment in ENVIRONMENTS.items():
    for _mixture, (_more, _summary) in _PAIRS.items():
        REGISTRY[f"{_task}-{_mixture}"] = Entry(
            _environment.rpartition("-")[0] + _more,
            f"{_environment}: {_summary}",
            _environment,
            len(MIXTURES[_mixture]),
            _build(_task, _mixture),
            options=("noise",),
            long=True,
            continuous=True,
        )


for _task, _environment in ENVIRONMENTS.items():
    for _count in range(1, AGENTS + 1) if has_agents(_task) else ():
        REGISTRY[f"{_task}-heterogeneous-{_count}"] = Entry(
            f"{_environment.rpartition('-')[0]}, k = {_count}",
            f"{_environment}: {_count} SAC agents that were trained equally long; its size is in steps",
            _environment,
            _count,
            partial(heterogeneous, _task, _count),
            long=True,
            continuous=True,
            unit="steps",
        )


def make(name: str, size: int | None = None, seed: int = 0, **options: Any) -> Dataset:
    """Builds a registered dataset; equal arguments give equal content.

    Args:
        name: a key of REGISTRY.
        size: trajectories a policy; by default 1,000, and 50 on MuJoCo. For navigation, steps (whole trajectories until
            there are enough); by default 100,000.
        seed: seed of the rollouts.
        options: further options of this dataset, such as `noise` for MuJoCo (see `mujoco.rolled_out`).

    Raises:
        DataError: for an unknown name or option, or a size or seed out of bounds.
    """
    if name not in REGISTRY:
        raise DataError(f"unknown dataset {name!r}: choose one of {', '.join(REGISTRY)}")
    size = REGISTRY[name].default_size if size is None else size
    if size < 1:
        raise DataError(f"size is {size}: at least 1 trajectory a policy is needed")
    if size > _MOST:
        raise DataError(f"size is {size}: at most {_MOST} trajectories a policy are made")
    check_seed(seed)
    for option in options:
        if option not in REGISTRY[name].options:
            raise DataError(f"{name} has no option {option}")
    return REGISTRY[name].build(name, size, seed, **options)
