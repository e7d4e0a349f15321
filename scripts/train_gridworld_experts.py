"""Trains the experts of Extra, ExtraFixed and Pathfollowing by PPO and writes what the package ships.

    python scripts/train_gridworld_experts.py                    all, into envs/weights
    python scripts/train_gridworld_experts.py --names extra      one of them

For each environment NAME.npz (the actors, float16) and NAME.csv (learning curves: an update's mean return a
column) are written. All three experts of an environment train in one program:
190, 65 and 30 CPU seconds on two cores.
"""

import csv
import dataclasses
import time
from pathlib import Path

import jax
import numpy as np
import tyro
from rich.console import Console

import trajclust_envs as envs
from trajclust_envs.ppo import PPO, save_weights, train

# The environment that trains, and its settings. Extra's experts that visit both special cells need much exploration
# at first: with an entropy weight of 0.01 they settle for one.
RUNS = {
    "extra": ("Extra-v0", PPO(updates=400, episodes=256, entropy=0.1, trace=0.98)),
    "extrafixed": ("ExtraFixed-v0", PPO(updates=300, episodes=128, entropy=0.1, trace=0.98)),
    "pathfollowing": ("Pathfollowing-v0", PPO(updates=200, entropy=0.0)),
}


@dataclasses.dataclass(frozen=True)
class Train:
    """What to train."""

    names: tuple[str, ...] = tuple(RUNS)
    """Which experts."""
    seed: int = 0
    out: Path = Path(envs.__file__).parent / "weights"
    """Folder of the results."""
    updates: int | None = None
    """Instead of the settings' own number, to try things."""


def main(arguments: list[str] | None = None) -> None:
    """Entry point."""
    config, console = tyro.cli(Train, args=arguments, description=__doc__), Console(stderr=True)
    config.out.mkdir(parents=True, exist_ok=True)
    for name in config.names:
        env_id, settings = RUNS[name]
        if config.updates is not None:
            settings = dataclasses.replace(settings, updates=config.updates)
        env = envs.make(env_id)
        began = time.perf_counter()
        params, curves = jax.block_until_ready(train(env, env.default_params, settings, jax.random.key(config.seed)))
        save_weights(config.out / f"{name}.npz", params)
        with (config.out / f"{name}.csv").open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("update", *env.expert_names))
            writer.writerows((number, *row) for number, row in enumerate(np.round(np.asarray(curves).T, 2)))
        means = ", ".join(
            f"{expert} {curve[-20:].mean():.2f}" for expert, curve in zip(env.expert_names, curves, strict=True)
        )
        console.print(f"{name}: seed {config.seed}, {settings}", highlight=False, soft_wrap=True)
        console.print(f"  {time.perf_counter() - began:.0f} s; mean return of the last updates: {means}")


if __name__ == "__main__":
    main()
