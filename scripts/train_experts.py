"""Trains the policies behind the MuJoCo datasets by SAC and writes what the package ships.

    python scripts/train_experts.py hopper halfcheetah           each into envs/weights/TASK.npz, .csv and .json
    python scripts/train_experts.py hopper --agents 5 --out het  heterogeneous-5: five agents, equally long

One training gives all policies of a task: `expert`, its best snapshot by evaluation among the last quarter; `medium`,
of those before the first with half of the expert's normalised score the one nearest a third of it; `late`, some 8 to
20 % of the steps before the expert and as good: two checkpoints of one training, the hard pair; and `replay-1` to
`replay-4`, from before `medium`. TASK.csv is the learning curve, TASK.json says what the policies are worth. A killed
training goes on where it was when the same command is given.

An hour a task and CPU core, more or less; trainings side by side need a core each.
"""

import dataclasses
import functools
import json
import time
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import pandas as pd
import tyro
from rich.console import Console

import trajclust_envs as envs
from trajclust_envs.mujoco import TASKS, GaussianPolicy, make_env, run_episodes, save_policies
from trajclust_experiments.rendering.markdown import write_text
from trajclust_jax.learners import SAC
from trajclust_jax.learners.online import Online, Snapshot, snapshot_policy, train_online


class Recipe(NamedTuple):
    """How the shipped policies of a task were trained."""

    steps: int  # of the environment
    every: int  # steps between two snapshots
    seed: int = 0
    layer_norm: bool = False  # in the critics


RECIPES = {
    "halfcheetah": Recipe(1_000_000, 25_000),
    "hopper": Recipe(600_000, 15_000),
    "walker2d": Recipe(500_000, 25_000, seed=1),  # seed 0 has a score of 19 after 400,000 steps
    "ant": Recipe(600_000, 25_000, layer_norm=True),  # without it a score of 30, standing still, after 330,000 steps
}
REPLAYS = 4


@dataclasses.dataclass(frozen=True)
class Train:
    """What to train."""

    tasks: Annotated[tuple[str, ...], tyro.conf.Positional]
    """halfcheetah, hopper, walker2d, ant."""
    seed: int | None = None
    """Of the training, instead of the task's own; agent i of several has seed + i."""
    agents: int = 1
    """More than one: a heterogeneous-k set, the last policies of so many agents, as TASK-heterogeneous.npz."""
    steps: int | None = None
    """Environment steps of each training, instead of the task's own number."""
    out: Path = Path(envs.__file__).parent / "weights"
    """Folder of the results."""
    work: Path = Path("runs/experts")
    """Folder of checkpoints and snapshots."""


def choose(snapshots: list[Snapshot]) -> dict[str, Snapshot]:
    """The snapshots of a training that are shipped, by name."""
    last = snapshots[-1].step
    expert = max((s for s in snapshots if s.step > 0.75 * last), key=lambda s: s.score)
    earlier = [s for s in snapshots if s.step < expert.step]
    if not earlier:
        raise SystemExit(f"train_experts: {len(snapshots)} snapshots are too few to choose from: give more --steps")
    half = next((i for i, s in enumerate(earlier) if s.score >= expert.score / 2), len(earlier))  # later ones: dips
    medium = min(earlier[: max(half, 1)], key=lambda s: abs(s.score - expert.score / 3))
    later = [s for s in earlier if 0.8 <= s.step / expert.step <= 0.92] or earlier
    late = min(later, key=lambda s: abs(s.score - expert.score))  # as good, so that returns do not tell the two apart
    before = [s for s in snapshots if s.step < medium.step] or [medium]
    rows = np.linspace(0, len(before) - 1, REPLAYS).round().astype(int)
    return {
        "medium": medium,
        "expert": expert,
        "late": late,
        **{f"replay-{number}": before[row] for number, row in enumerate(rows, start=1)},
    }


def main(arguments: list[str] | None = None) -> None:
    """Entry point."""
    config, console = tyro.cli(Train, args=arguments, description=__doc__), Console(stderr=True, highlight=False)
    unknown = [task for task in config.tasks if task not in TASKS]
    if unknown or not config.tasks:
        raise SystemExit(f"train_experts: tasks are {', '.join(TASKS)}, not {', '.join(unknown) or 'none'}")
    config.out.mkdir(parents=True, exist_ok=True)
    for task in config.tasks:
        recipe = RECIPES[task]
        steps = recipe.steps if config.steps is None else config.steps
        first = recipe.seed if config.seed is None else config.seed
        settings = Online(steps=steps, evaluate_every=max(200, min(recipe.every, steps // 20 // 200 * 200)))
        env = make_env(task)
        agent = SAC(env.action_space.shape[0], batch_size=128, actor_features=(128, 128), layer_norm=recipe.layer_norm)
        trained = []
        for seed in range(first, first + config.agents):
            folder, began = config.work / f"{task}-{seed}", time.perf_counter()
            report = functools.partial(_print, console, f"{task} seed {seed}", began)
            trained.append((folder, train_online(task, agent, settings, seed, folder, report)))
        if config.agents > 1:
            name = f"{task}-heterogeneous"
            chosen = {f"agent-{i}": (folder, snapshots[-1]) for i, (folder, snapshots) in enumerate(trained, start=1)}
            curves = {each: pd.read_csv(folder / "curve.csv") for each, (folder, _) in chosen.items()}
            curve = pd.concat(curves, names=["agent"]).droplevel(1).reset_index()
        else:
            [(folder, snapshots)], name = trained, task
            chosen = {each: (folder, snapshot) for each, snapshot in choose(snapshots).items()}
            curve = pd.read_csv(folder / "curve.csv")
        write_text(config.out / f"{name}.csv", curve.to_csv(index=False, lineterminator="\n"))
        policies = {each: snapshot_policy(folder, snapshot.step) for each, (folder, snapshot) in chosen.items()}
        save_policies(config.out / f"{name}.npz", policies)
        console.print(f"{name}: {agent}, {settings}", soft_wrap=True)
        described = {}
        for each, policy in policies.items():
            described[each] = {"step": chosen[each][1].step, **measured(task, policy)}
            console.print(f"  {each}: {described[each]}", soft_wrap=True)
        record = {"seed": first, "agents": config.agents, "steps": steps, "policies": described}
        write_text(config.out / f"{name}.json", json.dumps(record, indent=1) + "\n")


def measured(task: str, policy: GaussianPolicy) -> dict[str, float]:
    """Return and D4RL-normalised score of 20 new episodes of sampled actions.

    The evaluations for which a snapshot was chosen flatter it.
    """
    episodes = run_episodes(task, policy.sample, 20, seed=10**6)
    returns = [episode.rewards.sum(dtype=np.float64) for episode in episodes]
    values = {"return": np.mean(returns), "std": np.std(returns), "score": TASKS[task].normalised(returns).mean()}
    return {name: round(float(value), 1) for name, value in values.items()}


def _print(console: Console, title: str, began: float, snapshot: Snapshot) -> None:
    console.print(
        f"{title}: step {snapshot.step}, return {snapshot.mean_return:.0f} (score {snapshot.score:.1f}), "
        f"training {snapshot.stochastic_return:.0f}, {time.perf_counter() - began:.0f} s"
    )


if __name__ == "__main__":
    main()
