"""Returns of policies where their data is from, and what a training's record says of them."""

import functools
import importlib
import json
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Self

import jax
import numpy as np

from trajclust_jax.data import DataError, Dataset, Trajectories
from trajclust_jax.data.d4rl import ENVIRONMENTS
from trajclust_jax.data.spaces import ObservationReader
from trajclust_jax.evaluation import Acting, gymnasium_returns, gymnax_returns, mujoco_returns
from trajclust_jax.lazy import lazy
from trajclust_jax.learners import Offline, TrainedPolicy
from trajclust_jax.training import Evaluate, Fit

envs = lazy("trajclust_envs")
mujoco = lazy("trajclust_envs.mujoco")

_MUJOCO = {environment: task for task, environment in ENVIRONMENTS.items()}
# D4RL's returns of a random and an expert policy, where Gymnasium-Robotics has D4RL's rewards, ends and 200 steps. Pen
# has other ends, Door a reward of another sign; its mazes and its kitchen are other tasks than D4RL's.
_REFERENCES = {
    "AdroitHandHammer-v1": (-274.856578, 12794.134825156867),
    "AdroitHandRelocate-v1": (-6.425911, 4233.877797728884),
}


class Spaces(NamedTuple):
    """What an environment shows and takes."""

    observations: int  # numbers
    actions: int  # numbers, or of discrete ones how many there are
    discrete: bool
    low: np.ndarray | None = None  # of continuous actions
    high: np.ndarray | None = None

    @property
    def described(self) -> str:
        """In words."""
        return f"{self.observations} observations and {self.actions} {'discrete ' if self.discrete else ''}actions"

    @classmethod
    def of(cls, trajectories: Trajectories) -> Self:
        """Of data."""
        return cls(int(np.prod(trajectories.observation_shape)), trajectories.action_size, trajectories.discrete)

    def match(self, other: "Spaces") -> bool:
        """Whether policies of one act in the other."""
        return self[:3] == other[:3]


@functools.lru_cache(maxsize=8)
def spaces_of(name: str) -> Spaces:
    """What the environment of this name shows and takes.

    Args:
        name: one of our own, an id that Gymnasium makes, with options behind it as JSON where it has some
            (`PointMaze_UMaze-v3{"continuing_task": false}`), or `module:Class`, a Gymnasium environment of one's own.

    Raises:
        DataError: where there is none of that name, or its spaces are none that policies act in.
    """
    if name in envs.ENVIRONMENTS:
        env = envs.make(name)
        seen, taken = env.observation_space(env.default_params).shape, env.action_space(env.default_params)
    else:
        env = mujoco.make_env(_MUJOCO[name]) if name in _MUJOCO else make_gymnasium(name)
        seen, taken = ObservationReader(env.observation_space).shape, env.action_space
        env.close()
    kind = type(taken).__name__  # of Gymnasium or gymnax; a MultiBinary has an n, too
    if kind not in ("Box", "Discrete"):
        raise DataError(f"{name} takes actions of {kind}: policies act in Box and Discrete")
    if kind == "Discrete":
        return Spaces(int(np.prod(seen)), int(taken.n), True)
    return Spaces(int(np.prod(seen)), int(np.prod(taken.shape)), False, taken.low, taken.high)


def make_gymnasium(name: str) -> Any:
    """A Gymnasium environment by what `spaces_of` takes for its name.

    Raises:
        DataError: where there is none.
    """
    import gymnasium

    name, brace, options = name.partition("{")
    module, _, attribute = name.partition(":")
    try:
        kwargs = json.loads(brace + options) if brace else {}
        if attribute.isidentifier():
            if "" not in sys.path:
                sys.path.insert(0, "")  # a module of the folder that the command was called in
            env = getattr(importlib.import_module(module), attribute)(**kwargs)
            if not isinstance(env, gymnasium.Env):  # a VectorEnv is none: evaluation makes its own copies
                raise TypeError(f"it makes a {type(env).__name__}, which is no single gymnasium.Env")
            return env
        with warnings.catch_warnings():  # that there is a newer version
            warnings.simplefilter("ignore")
            return gymnasium.make(name, **kwargs)
    except Exception as error:  # whatever an environment's own code raises
        reason = " ".join(str(error).split())[:200]
        raise DataError(
            f"no environment {name} ({type(error).__name__}: {reason}): give one of {', '.join(environment_names())}, "
            "an id that Gymnasium makes, or module:Class"
        ) from None


def environment_names() -> tuple[str, ...]:
    """The environments that come with the package: MuJoCo of version 4, and our own."""
    return (*_MUJOCO, *envs.ENVIRONMENTS)


def action_bounds(dataset: Dataset, environment_name: str | None) -> tuple[float, ...]:
    """The largest absolute value of each action: the environment's, else what the dataset states, else ().

    Also () for actions within [-1, 1] in an environment that takes such, or without one. `environment_name`: one that
    is there, or None.
    """
    trajectories, parameters = dataset.trajectories, dataset.provenance.parameters
    small = np.abs(np.asarray(trajectories.actions)[np.asarray(trajectories.mask)]).max() <= 1
    if small and environment_name is None:
        return ()
    low, high = parameters.get("action_low"), parameters.get("action_high")
    if environment_name is not None:
        low, high = spaces_of(environment_name)[3:]
    if low is None or high is None:
        return ()
    bounds = np.ravel(np.maximum(np.abs(low), np.abs(high)) * np.ones(trajectories.action_size))
    if not np.isfinite(bounds).all() or (small and (bounds >= 1).all()):
        return ()
    return tuple(bounds.tolist())


def evaluator(
    offline: Offline, name: str, episodes: int, every: int, references: Sequence[float] | None = None
) -> Evaluate:
    """Returns and, where there is a `normaliser`, scores of policies, after every so many gradient steps of the last
    phase; ten times where it counts epochs.

    Evaluations meet other first states each time, the policies of one evaluation the same ones.
    """

    last = offline.learner.stages()[-1]

    def measure(policy: TrainedPolicy, iteration: int) -> dict[str, np.ndarray]:
        episode_returns = returns_of(offline.learner, name, policy, episodes, iteration)
        normalised = normaliser(name, references)
        return {"return": episode_returns} | (
            {} if normalised is None else {"score": normalised(episode_returns).mean(-1)}
        )

    return Evaluate(measure, max(1, every // offline.block if not last.whole else last.updates // 10))


def evaluations(offline: Offline, outcome: Fit) -> tuple[np.ndarray, np.ndarray]:
    """Gradient steps (or epochs) `[V]` of the last phase and returns `[V, *axes, E]` of a fit's V evaluations."""
    found = [entry for entry in outcome.history if "return" in entry]
    steps = np.array([entry["iteration"] * offline.updates_a_step(entry["phase"]) for entry in found])
    return steps, np.array([entry["return"] for entry in found], float)


def best_cluster(assignments: np.ndarray, episode_returns: np.ndarray) -> int:
    """The cluster whose trajectories have the highest mean return; of several the first."""
    return best_clusters(assignments, episode_returns)[0]


def best_clusters(assignments: np.ndarray, episode_returns: np.ndarray) -> list[int]:
    """The clusters whose trajectories have the highest mean return: more than one where returns don't tell them apart.

    Means that differ by no more than the rounding of rewards to float32 are equal.
    """
    means = {k: episode_returns[assignments == k].mean() for k in np.unique(assignments).tolist()}
    rounding = np.finfo(np.float32).eps * np.abs(episode_returns).max()
    return [k for k, mean in means.items() if mean >= max(means.values()) - rounding]


def returns_of(learner: Acting, name: str, policy: TrainedPolicy, episodes: int, number: int) -> np.ndarray:
    """`[*axes, E]`: returns of policies in an environment; other first states for every `number`."""
    if name in _MUJOCO:
        return mujoco_returns(_MUJOCO[name], learner, policy, episodes, seed=10**6 + number)
    if name not in envs.ENVIRONMENTS:
        return gymnasium_returns(lambda: make_gymnasium(name), learner, policy, episodes, seed=10**6 + number)
    key = jax.random.fold_in(jax.random.key(0x6576), number)
    return gymnax_returns(envs.make(name), learner, policy, episodes, key)


def normaliser(
    environment_name: str | None, references: Sequence[float] | None = None
) -> Callable[[Any], np.ndarray] | None:
    """Normalisation of returns in an environment: 0 is a random policy's, 100 an expert's; None where none is known.

    D4RL's in MuJoCo, versions 2 to 4, and in those of Adroit's tasks that are D4RL's; else by `references`, the two
    returns as data from there state them.
    """
    name, _, version = (environment_name or "").rpartition("-v")
    known = _MUJOCO.get(f"{name}-v4") if version in ("2", "3", "4") else None
    if known is not None:
        return mujoco.TASKS[known].normalised
    references = _REFERENCES.get(environment_name, references)
    return None if references is None else mujoco.Task(environment_name, *references).normalised


def summarise(
    offline: Offline, outcome: Fit, environment_name: str | None, references: Sequence[float] | None = None
) -> dict[str, Any]:
    """Last and best evaluation of every seed (and cluster), and the seconds; per-episode returns are in the history.

    `diverged` has the seeds whose policies are not finite.
    """
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(outcome.result.actor)]
    finite = np.all([np.isfinite(leaf).reshape(len(leaf), -1).all(1) for leaf in leaves], 0)
    summary: dict[str, Any] = {
        "diverged": [seed for seed, sound in zip(outcome.seeds, finite, strict=True) if not sound],
        "timing": outcome.timing,
    }
    steps, episode_returns = evaluations(offline, outcome)
    if not len(steps):
        return summary
    means = episode_returns.mean(-1)  # [V, *axes]
    best = np.fmax.reduce(means)  # passes over evaluations that are not finite
    scores = {"last_return": means[-1], "best_return": best}
    normalised = normaliser(environment_name, references)
    if normalised is not None:
        scores |= {"last_score": normalised(means[-1]), "best_score": normalised(best)}
    return {**summary, "scores": {name: values.tolist() for name, values in scores.items()}}
