"""Training SAC by acting: MuJoCo steps on the host, gradient steps in jitted blocks on the device.

A killed training goes on from its last checkpoint. Episodes under way are not part of it: they begin anew, so that a
resumed training is as good as an undisturbed one, but not the same to the bit.
"""

import csv
import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from trajclust_envs.mujoco import TASKS, GaussianPolicy, load_policies, make_env, run_episodes, save_policies
from trajclust_jax.checkpoint import Checkpointer
from trajclust_jax.learners.learner import LearnerState
from trajclust_jax.learners.replay import Replay
from trajclust_jax.learners.sac import SAC
from trajclust_jax.learners.sampling import Batch
from trajclust_jax.networks import LOG_STD_BOUNDS, TanhGaussianActor, sample_squashed


@dataclasses.dataclass(frozen=True)
class Online:
    """How experience is gathered."""

    steps: int = 1_000_000
    """Environment steps in all."""
    random_steps: int = 10_000
    """The first so many actions are uniform, and nothing is learned from fewer."""
    copies: int = 8
    """Copies of the environment."""
    block: int = 200
    """Environment steps between blocks of gradient steps."""
    updates_per_step: float = 1.0
    """Gradient steps for each environment step."""
    capacity: int = 1_000_000
    """Transitions kept."""
    evaluate_every: int = 25_000
    """Environment steps between snapshots, which are evaluated and kept."""
    episodes: int = 5
    """Episodes of an evaluation, without the policy's noise."""
    checkpoint_every: int = 50_000
    """Environment steps between checkpoints."""


class Snapshot(NamedTuple):
    """A policy of the training, and its evaluation."""

    step: int  # environment steps
    mean_return: float
    score: float  # D4RL's normalised score
    length: float  # mean steps an episode
    stochastic_return: float  # mean return of the training episodes since the last snapshot


def export(params: Any, scale: np.ndarray) -> GaussianPolicy:
    """An actor's parameters as a NumPy policy; `scale [A]` are the bounds of its actions."""
    weights, biases = (tuple(map(np.asarray, each)) for each in zip(*TanhGaussianActor.layers(params), strict=True))
    return GaussianPolicy(weights, biases, np.asarray(scale, np.float32), LOG_STD_BOUNDS)


def snapshot_path(folder: Path, step: int) -> Path:
    """Where the policy of a snapshot is kept."""
    return folder / "snapshots" / f"{step:08d}.npz"


def train_online(
    task: str, agent: SAC, settings: Online, seed: int, folder: Path, report: Callable[[Snapshot], None]
) -> list[Snapshot]:
    """Trains one agent on a task and returns its snapshots; their policies are in `folder/snapshots`.

    `folder/curve.csv` has the evaluations, `folder/checkpoint` what a killed training goes on from.

    Raises:
        ValueError: if the block is no multiple of the copies, or does not divide the capacity.
    """
    if settings.block % settings.copies or settings.capacity % settings.block:
        raise ValueError(
            f"block is {settings.block}: it must be a multiple of {settings.copies} copies and divide the capacity"
        )
    (folder / "snapshots").mkdir(parents=True, exist_ok=True)
    actors = _Actors(task, settings.copies, seed)
    key_act, key_init = jax.random.split(jax.random.key(seed))
    sizes = actors.now.shape[1], agent.action_size
    begin = lambda: (agent.init(key_init, sizes[0]), Replay.empty(settings.capacity, *sizes))
    num_updates = round(settings.block * settings.updates_per_step)
    with Checkpointer(folder / "checkpoint") as checkpointer:
        found = checkpointer.restore_latest(lambda meta: jax.eval_shape(begin))
        (state, replay), meta = found or (jax.jit(begin)(), {"step": 0, "episodes": 0, "snapshots": []})
        step, snapshots = meta["step"], [Snapshot(*row) for row in meta["snapshots"]]
        actors.begin(meta["episodes"])
        while step < settings.steps:
            random = step < settings.random_steps
            steps = range(step, step + settings.block, settings.copies)
            act = lambda now, at: _act(agent, state.params["actor"], now, jax.random.fold_in(key_act, at), random)  # noqa: B023
            block = jax.tree.map(lambda *x: np.concatenate(x), *(actors.step(act, at) for at in steps))
            done = max(0, step - settings.random_steps) // settings.block * num_updates
            state, replay = _learn(agent, 0 if random else num_updates, state, replay, block, np.int32(done))
            step += settings.block
            if step % settings.evaluate_every < settings.block:
                policy = export(jax.device_get(state.params["actor"]), actors.scale)
                save_policies(snapshot_path(folder, step), {"policy": policy})
                snapshots.append(_evaluate(task, policy, settings.episodes, step, actors.finished))
                actors.finished.clear()
                report(snapshots[-1])
            if step % settings.checkpoint_every < settings.block or step >= settings.steps:
                meta = {"step": step, "episodes": actors.episodes, "snapshots": snapshots}
                checkpointer.save(step, (state, replay), meta)
    with (folder / "curve.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Snapshot._fields)
        writer.writerows((s.step, *(round(value, 2) for value in s[1:])) for s in snapshots)
    return snapshots


class _Actors:
    """Copies of an environment that go from episode to episode."""

    def __init__(self, task: str, copies: int, seed: int):
        self.environments, self.seed = [make_env(task) for _ in range(copies)], seed
        self.scale = self.environments[0].action_space.high.astype(np.float32)
        self.now = np.zeros((copies, *self.environments[0].observation_space.shape), np.float32)
        self.returns = np.zeros(copies)
        self.episodes = 0  # begun
        self.finished: list[float] = []  # their returns, since someone cleared the list

    def begin(self, episodes: int) -> None:
        """New episodes everywhere, after so many before."""
        self.episodes = episodes
        for n in range(len(self.environments)):
            self._reset(n)

    def step(self, act: Callable[[np.ndarray, int], jax.Array], at: int) -> Batch:
        """One step of every copy."""
        actions, before, after = np.asarray(act(self.now, at)), self.now.copy(), self.now.copy()
        rewards, terminated = np.zeros(len(before), np.float32), np.zeros(len(before), bool)
        for n, env in enumerate(self.environments):
            after[n], rewards[n], terminated[n], truncated, _ = env.step(self.scale * actions[n])
            self.returns[n] += rewards[n]
            if terminated[n] or truncated:
                self.finished.append(self.returns[n])
                self._reset(n)
            else:
                self.now[n] = after[n]
        return Batch(before, actions, rewards, after, terminated)

    def _reset(self, n: int) -> None:
        seed = int(np.random.default_rng((self.seed, self.episodes)).integers(2**31))
        self.now[n], self.returns[n] = self.environments[n].reset(seed=seed)[0], 0
        self.episodes += 1


def _evaluate(task: str, policy: GaussianPolicy, episodes: int, step: int, finished: list[float]) -> Snapshot:
    act = lambda observations, _: policy.mode(observations)
    rewards = [episode.rewards for episode in run_episodes(task, act, episodes, seed=step)]
    mean = float(np.mean([each.sum(dtype=np.float64) for each in rewards]))
    length = float(np.mean([len(each) for each in rewards]))
    training = float(np.mean(finished)) if finished else float("nan")
    return Snapshot(step, mean, float(TASKS[task].normalised(mean)), length, training)


@functools.partial(jax.jit, static_argnums=0)
def _act(agent: SAC, actor: Any, observations: jax.Array, key: jax.Array, random: jax.Array) -> jax.Array:
    """Actions in (-1, 1), uniform if `random`; the key is consumed."""
    key_policy, key_uniform = jax.random.split(key)
    actions, _ = sample_squashed(key_policy, agent.actor.apply(actor, observations))
    return jnp.where(random, jax.random.uniform(key_uniform, actions.shape, minval=-1, maxval=1), actions)


@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=(2, 3))
def _learn(
    agent: SAC, count: int, state: LearnerState, replay: Replay, block: Batch, done: jax.Array
) -> tuple[LearnerState, Replay]:
    """Adds a block of experience, then `count` gradient steps on all there is, after `done` others."""
    replay = replay.add(block)

    def update(i, state):
        step = done + i  # 0x62 is a step's number, too; it stays, for the shipped policies were trained so
        batch = replay.sample(jax.random.fold_in(jax.random.fold_in(state.key, 0x62), step), agent.batch_size)
        return agent.update(state, batch, step)[0]

    return jax.lax.fori_loop(0, count, update, state), replay


def snapshot_policy(folder: Path, step: int) -> GaussianPolicy:
    """The policy of a snapshot."""
    return load_policies(snapshot_path(folder, step))["policy"]
