"""Gymnasium's MuJoCo locomotion, version 4 (D4RL's models and rewards), and policies on it as plain NumPy.

Nothing here is JAX: MuJoCo steps on the CPU. `run_episodes` steps several copies of an environment in turn, with one
policy call for all of them.
"""

import dataclasses
import warnings
from collections.abc import Callable, Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

BOUND = 1 - 1e-6  # squashed actions are taken as inside it: the log-density at +-1 is infinite
LOG_STD_BOUNDS = (-5.0, 2.0)


class Task(NamedTuple):
    """An environment, with D4RL's reference returns (v2) of a random and an expert policy."""

    env_id: str
    random_return: float
    expert_return: float

    def normalised(self, returns: Any) -> np.ndarray:
        """D4RL's normalised score of undiscounted returns: 0 is random, 100 the reference expert."""
        return 100 * (np.asarray(returns, float) - self.random_return) / (self.expert_return - self.random_return)


TASKS = {
    "halfcheetah": Task("HalfCheetah-v4", -280.178953, 12135.0),
    "hopper": Task("Hopper-v4", -20.272305, 3234.3),
    "walker2d": Task("Walker2d-v4", 1.629008, 4592.3),
    "ant": Task("Ant-v4", -325.6, 3879.7),  # 27 observations: without the contact forces
}


def make_env(task: str) -> Any:
    """A Gymnasium environment with its time limit of 1,000 steps.

    Raises:
        KeyError: for a task that is not in TASKS.
    """
    import gymnasium
    import mujoco

    level, gymnasium.logger.min_level = gymnasium.logger.min_level, gymnasium.logger.ERROR
    warn = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(lambda text: None)  # of old attributes in Gymnasium's models: into a file of its own
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # version 5 exists; its rewards are not D4RL's
            return gymnasium.make(TASKS[task].env_id, disable_env_checker=True)
    finally:
        mujoco.set_mju_user_warning(warn)
        gymnasium.logger.min_level = level


@dataclasses.dataclass(frozen=True)
class GaussianPolicy:
    """SAC's actor: an MLP with ReLU to mean and log std of a Gaussian, squashed by tanh into the actions' bounds."""

    weights: tuple[np.ndarray, ...]  # [D, H], ..., [H, 2A]
    biases: tuple[np.ndarray, ...]
    scale: np.ndarray  # [A]: an action is scale * tanh(u)
    log_std_bounds: tuple[float, float] = LOG_STD_BOUNDS

    def __call__(self, observations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Observations `[n, D]` to mean and std `[n, A]` before the tanh."""
        x = np.asarray(observations, np.float32)
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            x = np.maximum(x @ weight + bias, 0)
        mean, log_std = np.split(x @ self.weights[-1] + self.biases[-1], 2, axis=-1)
        return mean, np.exp(np.clip(log_std, *self.log_std_bounds))

    def sample(self, observations: np.ndarray, normal: np.ndarray) -> np.ndarray:
        """Actions `[n, A]` from standard normal numbers `[n, A]`."""
        mean, std = self(observations)
        return self.scale * np.tanh(mean + std * normal)

    def mode(self, observations: np.ndarray) -> np.ndarray:
        """The policy without its noise: `scale * tanh(mean)`."""
        return self.scale * np.tanh(self(observations)[0])

    def log_prob(self, observations: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """`[n]` log-density of actions, which are taken as inside their bounds by 1e-6."""
        mean, std = (x.astype(np.float64) for x in self(observations))
        squashed = np.clip(actions / self.scale, -BOUND, BOUND).astype(np.float64)
        gaussian = -0.5 * (((np.arctanh(squashed) - mean) / std) ** 2 + np.log(2 * np.pi)) - np.log(std)
        return (gaussian - np.log1p(-(squashed**2)) - np.log(self.scale)).sum(-1)


def noisy_log_prob(policy: GaussianPolicy, observations: np.ndarray, actions: np.ndarray, noise: float) -> np.ndarray:
    """`[n]` log-density of `mode + noise * normal`, clipped to the bounds: a clipped action has the tail's mass."""
    from scipy.stats import norm

    mean = policy.mode(observations).astype(np.float64)
    above = np.where(actions >= policy.scale, norm.logsf(actions, mean, noise), norm.logpdf(actions, mean, noise))
    return np.where(actions <= -policy.scale, norm.logcdf(actions, mean, noise), above).sum(-1)


class Episode(NamedTuple):
    """One episode; the recorded action is the executed one."""

    observations: np.ndarray  # [t + 1, D] float32, the last one the successor of the last step
    actions: np.ndarray  # [t, A] float32
    rewards: np.ndarray  # [t] float32
    terminated: bool


Act = Callable[[np.ndarray, np.ndarray], np.ndarray]  # (observations [n, D], normal numbers [n, A]) -> actions [n, A]


def run_episodes(task: str, act: Act, episodes: int | Sequence[int], seed: int, copies: int = 16) -> Iterator[Episode]:
    """So many episodes of a policy, or those of the given numbers, in order.

    An episode depends on `seed` and its number alone, up to rounding. `act` gets the running episodes' observations
    (finished ones go on with their last, so that its shapes are fixed) and normal numbers from each episode's own
    generator.
    """
    episodes = range(episodes) if isinstance(episodes, int) else episodes
    if not episodes:
        return
    copies = min(copies, len(episodes))
    environments = [make_env(task) for _ in range(copies)]
    action_size = environments[0].action_space.shape[0]
    for first in range(0, len(episodes), copies):
        numbers = episodes[first : first + copies]
        generators = [np.random.default_rng((seed, number)) for number in numbers]
        running = environments[: len(numbers)]
        seeds = [int(generator.integers(2**31)) for generator in generators]
        now = np.stack([env.reset(seed=each)[0] for env, each in zip(running, seeds, strict=True)]).astype(np.float32)
        steps: list[list[tuple]] = [[] for _ in running]
        terminated, over = [False] * len(running), [False] * len(running)
        while not all(over):
            normal = np.stack([generator.standard_normal(action_size) for generator in generators]).astype(np.float32)
            actions = act(now, normal)
            for n, env in enumerate(running):
                if over[n]:
                    continue
                after, reward, terminated[n], truncated, _ = env.step(actions[n])
                steps[n].append((now[n].copy(), actions[n], reward))
                now[n] = after
                over[n] = terminated[n] or truncated
        for n, episode in enumerate(steps):
            observations, taken, rewards = (np.array(column, np.float32) for column in zip(*episode, strict=True))
            yield Episode(np.concatenate([observations, now[n : n + 1]]), taken, rewards, bool(terminated[n]))


def save_policies(path: Path, policies: dict[str, GaussianPolicy]) -> None:
    """Policies of one task to one .npz, weights as float16."""
    arrays = {}
    for name, policy in policies.items():
        arrays[f"{name}/scale"] = policy.scale
        for i, (weight, bias) in enumerate(zip(policy.weights, policy.biases, strict=True)):
            arrays[f"{name}/w{i}"], arrays[f"{name}/b{i}"] = weight.astype(np.float16), bias.astype(np.float16)
    np.savez_compressed(path, **arrays)


def load_policies(path: Any) -> dict[str, GaussianPolicy]:
    """What `save_policies` wrote, computing in float32."""
    with np.load(path, allow_pickle=False) as arrays:
        names = dict.fromkeys(key.partition("/")[0] for key in arrays.files)
        policies = {}
        for name in names:
            depth = sum(key.startswith(f"{name}/w") for key in arrays.files)
            weights, biases = (
                tuple(arrays[f"{name}/{kind}{i}"].astype(np.float32) for i in range(depth)) for kind in "wb"
            )
            policies[name] = GaussianPolicy(weights, biases, arrays[f"{name}/scale"])
        return policies


def shipped_tasks() -> tuple[str, ...]:
    """The tasks whose trained policies come with the package."""
    folder = resources.files("trajclust_envs").joinpath("weights")
    return tuple(task for task in TASKS if folder.joinpath(f"{task}.npz").is_file())


def shipped_policies(task: str) -> dict[str, GaussianPolicy]:
    """The policies that come with the package."""
    with resources.files("trajclust_envs").joinpath("weights", f"{task}.npz").open("rb") as file:
        return load_policies(file)
