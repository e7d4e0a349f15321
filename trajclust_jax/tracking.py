"""Weights & Biases tracking: one run a seed, written from the host between steps.

wandb is imported only where tracking is asked for. Offline runs need no account; `wandb sync` uploads them later.
"""

import contextlib
import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np

from trajclust_jax.records import plain

Mode = Literal["off", "offline", "online"]


class TrackingError(RuntimeError):
    """Tracking that cannot start. The message is one line: what is wrong and what to do."""


class Tracker:
    """Tracks nothing: what `off` gives, and the interface of the real one."""

    def log(self, iteration: int, metrics: Mapping[str, Any]) -> None:
        """Logs one outer iteration. Each metric has a leading seed axis.

        A `[S]` metric is logged as it is. An `[S, R]` one gives each run `<name>/r0`, `<name>/r1`, ... and
        `<name>/best` (the largest, if the name ends in `objective`) or else `<name>/mean`. One with more axes gives
        `<name>/mean`, `<name>/min` and `<name>/max`.
        """

    def summary(self, seed: int, values: Mapping[str, Any]) -> None:
        """Sets the final values of one seed's run."""

    def finish(self, exit_code: int = 0) -> None:
        """Ends all runs. Later calls do nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, exception_type: type | None, *rest: object) -> None:
        self.finish(exit_code=0 if exception_type is None else 1)


def run_id(group: str, cell: str, seed: int) -> str:
    """The id of a seed's run: a resumed job finds its own runs again."""
    return hashlib.sha256(f"{group}\n{cell}\n{seed}".encode()).hexdigest()[:16]


def make_tracker(
    mode: Mode,
    *,
    project: str = "trajclust",
    directory: str | os.PathLike,
    group: str,
    tags: Sequence[str] = (),
    config: Mapping[str, Any] | None = None,
    seeds: Sequence[int],
    run_ids: Sequence[str],
) -> Tracker:
    """A tracker for all seeds of one cell. `group` names the cell; `run_ids` has one id a seed, see `run_id`.

    `directory` gets the folder `wandb/`. A job that runs again under the same ids continues its runs.
    Raises TrackingError where W&B cannot start, such as online without a key; it never asks at the terminal.
    """
    if mode == "off":
        return Tracker()
    if mode not in ("offline", "online"):
        raise TrackingError(f"tracking mode {mode!r}: give off, offline or online")
    if len(run_ids) != len(seeds):
        raise TrackingError(f"{len(run_ids)} run ids for {len(seeds)} seeds: give one a seed")
    return _WandbTracker(mode, project, Path(directory), group, tags, config or {}, seeds, run_ids)


class _WandbTracker(Tracker):
    def __init__(
        self,
        mode: str,
        project: str,
        directory: Path,
        group: str,
        tags: Sequence[str],
        config: Mapping[str, Any],
        seeds: Sequence[int],
        run_ids: Sequence[str],
    ):
        import wandb

        wandb.setup(wandb.Settings(silent=True))
        # wandb.init would ask for a key at a terminal, in the middle of a batch of runs.
        if mode == "online" and not wandb.login(prompt=False, verify=False):
            raise TrackingError(
                "W&B has no API key for online tracking: run `wandb login`, set WANDB_API_KEY, or track offline"
            )
        directory.mkdir(parents=True, exist_ok=True)  # else wandb writes to /tmp
        self._seeds = list(seeds)
        self._runs: list[Any] = []
        try:
            for seed, id in zip(seeds, run_ids, strict=True):
                run = wandb.init(
                    project=project,
                    dir=directory,
                    group=group,
                    name=f"seed{seed}",
                    id=id,
                    tags=[*tags, f"seed:{seed}"],
                    config={**plain(dict(config)), "seed": int(seed)},
                    mode=mode,
                    resume="allow",
                    reinit="create_new",  # all seeds advance in one program, so their runs live side by side
                    settings=wandb.Settings(console="off", x_disable_stats=True, silent=True),
                )
                self._runs.append(run)
        except wandb.Error as error:
            self.finish(exit_code=1)
            raise TrackingError(f"W&B did not start: {' '.join(str(error).split())}") from error
        except BaseException:
            self.finish(exit_code=1)
            raise

    def log(self, iteration: int, metrics: Mapping[str, Any]) -> None:
        rows: list[dict[str, float]] = [{} for _ in self._seeds]
        for name, values in metrics.items():
            values = np.asarray(values)
            if values.ndim == 0 or len(values) != len(self._seeds):
                raise ValueError(
                    f"metric {name}: shape {values.shape}, its first axis must be {len(self._seeds)} seeds"
                )
            for row, value in zip(rows, values, strict=True):
                row.update(_scalars(name, value))
        for run, row in zip(self._runs, rows, strict=False):
            run.log(row, step=int(iteration))

    def summary(self, seed: int, values: Mapping[str, Any]) -> None:
        if self._runs:
            self._runs[self._seeds.index(seed)].summary.update(plain(dict(values)))

    def finish(self, exit_code: int = 0) -> None:
        runs, self._runs = self._runs, []
        with contextlib.ExitStack() as stack:  # one that fails must not leave the others open
            for run in reversed(runs):
                stack.callback(run.finish, exit_code=exit_code)


def _scalars(name: str, value: np.ndarray) -> dict[str, float]:
    """What one seed's run shows of a metric, `value` being without the seed axis."""
    if value.ndim == 0:
        return {name: value.item()}
    if value.size == 0:
        return {}
    if value.ndim > 1:
        return {f"{name}/{f.__name__}": f(value).item() for f in (np.mean, np.min, np.max)}
    # fmax passes over the NaN of a restart that diverged
    total = {f"{name}/best": np.fmax.reduce(value)} if name.endswith("objective") else {f"{name}/mean": value.mean()}
    restarts = {f"{name}/r{r}": x for r, x in enumerate(value)}
    return {key: x.item() for key, x in (total | restarts).items()}
