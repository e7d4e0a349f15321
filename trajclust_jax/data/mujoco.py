"""Labelled datasets like D4RL's, made on the spot by the policies that come with the package."""

import functools
import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np

from trajclust_jax.data.d4rl import ENVIRONMENTS, policy_log_likelihoods
from trajclust_jax.data.dataset import build_dataset
from trajclust_jax.data.episodes import from_episodes
from trajclust_jax.data.types import DataError, Dataset
from trajclust_jax.lazy import lazy

mujoco = lazy("trajclust_envs.mujoco")

_TOGETHER = 16  # episodes rolled out at a time
_LONGEST = 1000  # steps of an episode

# By the end of a dataset's name: the policies of each label. Replay are checkpoints from before medium.
MIXTURES = {
    "medium-expert": {"medium": ("medium",), "expert": ("expert",)},
    "medium-replay": {"medium": ("medium",), "replay": ("replay-1", "replay-2", "replay-3", "replay-4")},
    "late-expert": {"late": ("late",), "expert": ("expert",)},  # two checkpoints of one training
    "medium": {"medium": ("medium",)},
}
AGENTS = 5  # of a heterogeneous set, which `scripts/train_experts.py TASK --agents 5` trains


def has_agents(task: str) -> bool:
    """Whether a task's heterogeneous set comes with the package."""
    found = importlib.util.find_spec("trajclust_envs")  # which does not import it
    folder = Path(found.submodule_search_locations[0])
    return (folder / "weights" / f"{task}-heterogeneous.npz").is_file()


def heterogeneous(task: str, k: int, name: str, size: int, seed: int) -> Dataset:
    """LBRAC-v's heterogeneous-k: whole episodes of each of the first k agents until each has `size` steps."""
    shipped = mujoco.shipped_policies(f"{task}-heterogeneous")
    agents = {f"agent {i}": shipped[f"agent-{i}"] for i in range(1, k + 1)}
    episodes, counts = [], []
    for label, policy in enumerate(agents.values()):
        key = int(np.random.SeedSequence((seed, label)).generate_state(1)[0])
        steps = first = 0
        while steps < size:  # an episode depends on its number alone; none is rolled out in vain
            numbers = range(first, first + min(_TOGETHER, -(-(size - steps) // _LONGEST)))
            for episode in mujoco.run_episodes(task, policy.sample, numbers, key):
                episodes.append((episode.observations, episode.actions, episode.rewards, episode.terminated))
                steps += len(episode.rewards)
            first = numbers.stop
        counts.append(first)
    trajectories = from_episodes(episodes)
    return build_dataset(
        trajectories,
        np.repeat(np.arange(k, dtype=np.int32), counts),
        name=name,
        source=name,
        policy_names=tuple(agents),
        parameters={"environment": ENVIRONMENTS[task], "task": task, "size": size},
        seed=seed,
        true_log_likelihoods=policy_log_likelihoods(trajectories, list(agents.values())).astype(np.float32),
    )


def rolled_out(task: str, mixture: str, name: str, size: int, seed: int, noise: float | None = None) -> Dataset:
    """`size` episodes of each label of a mixture, label by label; a label with several policies uses them in turn.

    Actions are sampled from the policies, as D4RL's were; with `noise`, they are the policies' modes plus normal noise
    of that standard deviation, clipped to the bounds.

    Raises:
        DataError: for a noise below 0, or one that is no number.
    """
    if noise is not None and not 0 <= noise < np.inf:
        raise DataError(f"noise is {noise}: at least 0 is needed")
    shipped = mujoco.shipped_policies(task)
    labels = MIXTURES[mixture]
    episodes = []
    for label, names in enumerate(labels.values()):
        counts = [len(range(i, size, len(names))) for i in range(len(names))]
        for number, (policy, count) in enumerate(zip(names, counts, strict=True)):
            act = _behaviour(shipped[policy], noise)
            key = int(np.random.SeedSequence((seed, label, number)).generate_state(1)[0])
            episodes += [
                (e.observations, e.actions, e.rewards, e.terminated) for e in mujoco.run_episodes(task, act, count, key)
            ]
    trajectories = from_episodes(episodes)
    columns = []
    for names in labels.values():  # of a label of several policies: each is as likely as any
        scorers = [_Scorer(shipped[policy], noise) for policy in names]
        scores = policy_log_likelihoods(trajectories, scorers).astype(np.float64)
        columns.append(np.logaddexp.reduce(scores, axis=1) - np.log(len(names)))
    return build_dataset(
        trajectories,
        np.repeat(np.arange(len(labels), dtype=np.int32), size),
        name=name,
        source=name,
        policy_names=tuple(labels),
        parameters={"environment": ENVIRONMENTS[task], "task": task, "size": size, "noise": noise},
        seed=seed,
        true_log_likelihoods=np.stack(columns, axis=1).astype(np.float32),
    )


def _behaviour(policy: "mujoco.GaussianPolicy", noise: float | None) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    if noise is None:
        return policy.sample
    return lambda observations, normal: np.clip(
        policy.mode(observations) + np.float32(noise) * normal, -policy.scale, policy.scale
    )


class _Scorer:
    """A behaviour's log-density; without noise, as if there were a little."""

    def __init__(self, policy: "mujoco.GaussianPolicy", noise: float | None):
        self.log_prob = (
            policy.log_prob
            if noise is None
            else functools.partial(mujoco.noisy_log_prob, policy, noise=max(noise, 1e-3))
        )
