"""Files as users bring them: collected by hand-written policies, in the formats that readers know.

Each function writes `size` episodes of each policy into a folder, in turn policy by policy, and gives what `data.load`
reads. Labels are in the files (Minari: a dataset a policy), to score by; the policies' likelihoods where a format has a
place for them.
"""

import contextlib
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trajclust_jax.lazy import lazy

gym = lazy("gymnasium")
minari = lazy("minari")
collector = lazy("minari.data_collector")
h5py = lazy("h5py")

MINARI = "MINARI_DATASETS_PATH"
Policy = Callable[[np.ndarray], Any]  # of an observation
_RANDOM = 0.1  # of discrete actions, so many are drawn from all


def cartpole(folder: Path, size: int, seed: int) -> str:
    """CartPole-v1 in D4RL's layout (.hdf5): one policy heeds the pole's angle, the other where the cart is, too."""
    env, rng = gym.make("CartPole-v1"), np.random.default_rng(seed)
    angle = lambda o: int(o[2] + 0.2 * o[3] > 0)
    centre = lambda o: int(o[2] + 0.5 * o[3] + 0.05 * o[0] + 0.1 * o[1] > 0)
    policies = (angle, centre)
    noisy = lambda policy: lambda o: int(rng.integers(2)) if rng.random() < _RANDOM else policy(o)
    episodes = [_episode(env, noisy(policies[n % 2]), seed + n) for n in range(2 * size)]
    steps = {name: np.concatenate([episode[name] for episode in episodes]) for name in episodes[0]}
    steps["observations"] = np.concatenate([episode["observations"][:-1] for episode in episodes])
    path = folder / "cartpole.hdf5"
    with h5py.File(path, "w") as file:
        for name in ("observations", "actions", "rewards", "terminals", "timeouts"):
            file[name] = steps[name]
        file["labels"] = np.array(["angle", "centre"] * size, "S")
    return str(path)


def pendulum(folder: Path, size: int, seed: int) -> str:
    """Pendulum-v1 as two Minari datasets: one swings up and balances, the other spins; normal noise."""
    env, rng = gym.make("Pendulum-v1"), np.random.default_rng(seed)
    balance = lambda o: 2 * np.sign(o[2]) if o[0] < 0.8 else -8 * o[1] - 2 * o[2]
    spin = lambda o: 1.5 * np.sign(o[2])
    ids = []
    for index, (name, policy) in enumerate((("balance", balance), ("spin", spin))):
        noisy = lambda o, policy=policy: np.clip([policy(o) + 0.3 * rng.normal()], -2, 2).astype(np.float32)
        episodes = [_episode(env, noisy, seed + index * size + n) for n in range(size)]
        ids.append(_minari(f"pendulum/{name}-v0", episodes, env.observation_space, env.action_space))
    return " + ".join(ids)


def point_mass(folder: Path, size: int, seed: int) -> str:
    """A point that goes to places, straight or in one of two spirals, in 20 to 400 steps, padded (.npz)."""
    rng = np.random.default_rng(seed)
    turns, noise = np.array([0.7, -0.7, 0.0]), 0.3
    labels = np.tile(np.arange(3), size)
    lengths = rng.integers(20, 401, len(labels))
    horizon = lengths.max()
    observations = np.zeros((len(labels), horizon, 4), np.float32)  # where it is, and where it goes
    actions = np.zeros((len(labels), horizon, 2), np.float32)
    likely = np.zeros((len(labels), 3))
    position, place = rng.uniform(-1, 1, (2, len(labels), 2))
    for t in range(horizon):
        real = t < lengths
        reached = np.linalg.norm(place - position, axis=1) < 0.05
        place = np.where(reached[:, None], rng.uniform(-1, 1, place.shape), place)
        way = place - position
        way /= np.linalg.norm(way, axis=1, keepdims=True)
        means = np.stack([_rotated(way, turn) for turn in turns], 1)  # [N, 3, 2]
        acted = means[np.arange(len(labels)), labels] + noise * rng.normal(size=way.shape)
        squares = ((acted[:, None] - means) ** 2).sum(-1) / noise**2
        likely += np.where(real[:, None], -squares / 2 - np.log(2 * np.pi * noise**2), 0)
        observations[:, t], actions[:, t] = np.concatenate([position, place], 1), acted
        position = position + 0.05 * acted
    path = folder / "point-mass.npz"
    named = np.array(["left", "right", "straight"])[labels]
    given = {"observations": observations, "actions": actions, "lengths": lengths, "labels": named}
    np.savez(path, **given, true_log_likelihoods=likely.astype(np.float32))
    return str(path)


def images(folder: Path, size: int, seed: int, moving: bool = False) -> str:
    """64 x 64 pictures of a square on its way to another one, along rows first or along columns first (.npz).

    The ground is black, or a `moving` texture that rolls by under the squares, from a place of its own each episode.
    """
    rng = np.random.default_rng(seed)
    labels, horizon, cells, width = np.tile(np.arange(2), size), 40, 16, 4
    frames = np.zeros((len(labels), horizon, 64, 64), np.uint8)
    actions = np.zeros((len(labels), horizon), np.int64)
    likely = np.zeros((len(labels), 2))
    moves = np.array([[-1, 0], [1, 0], [0, -1], [0, 1]])
    texture = rng.integers(0, 90, frames.shape[2:], np.uint8) if moving else None
    for n in range(len(labels)):
        position, place = rng.integers(0, cells, (2, 2))
        origin = rng.integers(0, 64, 2) if moving else None
        for t in range(horizon):
            if moving:
                frames[n, t] = np.roll(texture, np.add(origin, (t, 2 * t)), (0, 1))
            for (row, column), value in ((place, 120), (position, 255)):
                frames[n, t, width * row : width * (row + 1), width * column : width * (column + 1)] = value
            way = place - position
            first = [axis if way[axis] else 1 - axis for axis in (0, 1)]  # the axis that each policy moves along
            chosen = [2 * axis + int(way[axis] > 0) for axis in first]
            acted = rng.integers(4) if rng.random() < _RANDOM else chosen[labels[n]]
            likely[n] += np.log(np.where(np.array(chosen) == acted, 1 - 0.75 * _RANDOM, _RANDOM / 4))
            actions[n, t] = acted
            position = np.clip(position + moves[acted], 0, cells - 1)
            if (position == place).all():
                place = rng.integers(0, cells, 2)
    path = folder / f"images{'-moving' * moving}.npz"
    given = {"observations": frames, "actions": actions, "lengths": np.full(len(labels), horizon), "labels": labels}
    np.savez(path, **given, true_log_likelihoods=likely.astype(np.float32))
    return str(path)


def goals(folder: Path, size: int, seed: int) -> str:
    """Reaching goals, Gymnasium-Robotics' dictionaries in Minari: straight, or along one axis after the other."""
    rng = np.random.default_rng(seed)
    box = gym.spaces.Box(-10, 10, (2,), np.float32)
    whole = gym.spaces.Box(-10, 10, (4,), np.float32)
    space = gym.spaces.Dict({"observation": whole, "achieved_goal": box, "desired_goal": box})
    ids = []
    for name in ("straight", "axes"):
        episodes = []
        for _ in range(size):
            position, velocity = rng.uniform(-1, 1, 2), np.zeros(2)
            goal, seen, acted = rng.uniform(-1, 1, 2), [], []
            for _ in range(25):
                seen.append(np.concatenate([position, velocity]))
                way = goal - position
                if name == "axes":
                    way = np.where(np.arange(2) == np.abs(way).argmax(), way, 0)
                action = np.clip(4 * way - velocity + 0.2 * rng.normal(size=2), -1, 1)
                velocity = 0.8 * velocity + 0.2 * action
                position = position + 0.2 * velocity
                acted.append(action)
            states = np.array([*seen, np.concatenate([position, velocity])], np.float32)
            wanted = np.broadcast_to(goal.astype(np.float32), (len(states), 2))
            observed = {"observation": states, "achieved_goal": states[:, :2], "desired_goal": wanted}
            ends = np.arange(len(acted)) == len(acted) - 1
            episodes.append(
                {
                    "observations": observed,
                    "actions": np.array(acted, np.float32),
                    "rewards": -np.linalg.norm(observed["achieved_goal"][1:] - goal, axis=1),
                    "terminals": np.zeros(len(acted), bool),
                    "timeouts": ends,
                }
            )
        ids.append(_minari(f"goals/{name}-v0", episodes, space, gym.spaces.Box(-1, 1, (2,), np.float32)))
    return " + ".join(ids)


@contextlib.contextmanager
def minari_in(folder: str) -> Iterator[None]:
    """Minari datasets are written to and read from this folder."""
    before = os.environ.get(MINARI)
    os.environ[MINARI] = folder
    try:
        yield
    finally:
        os.environ.pop(MINARI) if before is None else os.environ.update({MINARI: before})


def _rotated(vectors: np.ndarray, angle: float) -> np.ndarray:
    cos, sin = np.cos(angle), np.sin(angle)
    return vectors @ np.array([[cos, sin], [-sin, cos]])


def _episode(env: "gym.Env", policy: Policy, seed: int) -> dict[str, np.ndarray]:
    """One episode; observations have one more row than the rest."""
    observation, _ = env.reset(seed=seed)
    observations, rows, over = [observation], [], False
    while not over:
        action = policy(observation)
        observation, reward, terminated, truncated, _ = env.step(action)
        observations.append(observation)
        rows.append((action, reward, terminated, truncated and not terminated))
        over = terminated or truncated
    names = ("actions", "rewards", "terminals", "timeouts")
    steps = {name: np.array(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}
    return {"observations": np.array(observations, np.float32), **steps}


def _minari(id: str, episodes: Sequence[dict], observation_space: "gym.Space", action_space: "gym.Space") -> str:
    buffers = [
        collector.EpisodeBuffer(
            observations=episode["observations"],
            actions=episode["actions"],
            rewards=list(episode["rewards"]),
            terminations=list(episode["terminals"]),
            truncations=list(episode["timeouts"]),
        )
        for episode in episodes
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an author, a permalink and the like that are not given
        minari.create_dataset_from_buffers(id, buffers, observation_space=observation_space, action_space=action_space)
    return id
