"""Weights & Biases tracking: one run a seed, written from the host between steps.

wandb is imported only where tracking is asked for. Offline runs need no account; `wandb sync` uploads them later.
Tracking never ends a training: what W&B refuses is a warning, after which the training goes on untracked.
"""

import contextlib
import hashlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np

from trajclust_jax.records import plain

Mode = Literal["off", "offline", "online"]

_LONGEST_TAG, _LONGEST_GROUP = 64, 128  # characters that W&B takes
_log = logging.getLogger(__name__)


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

    def page(self, name: str, header: Sequence[str], rows: Sequence[Sequence[str]], figures: Sequence[Path]) -> None:
        """Logs a table and its figures, by their files' stems."""

    def finish(self, exit_code: int = 0) -> None:
        """Ends all runs. Later calls do nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, exception_type: type | None, *rest: object) -> None:
        self.finish(exit_code=0 if exception_type is None else 1)


def run_id(group: str, cell: str, seed: int) -> str:
    """The id of a seed's run: a resumed job finds its own runs again."""
    return hashlib.sha256(f"{group}\n{cell}\n{seed}".encode("utf-8", "surrogateescape")).hexdigest()[:16]


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
    job_type: str = "train",
) -> Tracker:
    """A tracker for all seeds of one cell. `group` names the cell; `run_ids` has one id a seed, see `run_id`.

    `directory` gets the folder `wandb/`. A job that runs again under the same ids continues its runs. Long tags are
    shortened, so that they stay distinct; bytes of names that are no UTF-8 are spelled out.
    Raises TrackingError for wrong arguments and online without a usable key; it never asks at the terminal.
    """
    if mode == "off":
        return Tracker()
    if mode not in ("offline", "online"):
        raise TrackingError(f"tracking mode {mode!r}: give off, offline or online")
    if len(run_ids) != len(seeds):
        raise TrackingError(f"{len(run_ids)} run ids for {len(seeds)} seeds: give one a seed")
    return _WandbTracker(mode, project, Path(directory), group, tags, config or {}, seeds, run_ids, job_type)


def log_table(
    mode: Mode,
    name: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    figures: Sequence[Path],
    *,
    directory: str | os.PathLike,
    project: str = "trajclust",
    tags: Sequence[str] = (),
) -> None:
    """A run of job type `table` with a table, and its figures by their files' stems; the same run for the same name.

    Raises TrackingError as `make_tracker` does; what else goes wrong is a warning.
    """
    config = {"table": name, "rows": len(rows)}
    given = {"group": "tables", "tags": tags, "config": config, "seeds": [0], "run_ids": [run_id("table", name, 0)]}
    tracker = make_tracker(mode, project=project, directory=directory, job_type="table", **given)
    with tracker:
        tracker.page(name, header, rows, figures)


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
        job_type: str,
    ):
        self._seeds = list(seeds)
        self._runs: list[Any] = []
        with self._attempt("did not start"):
            import wandb

            wandb.setup(wandb.Settings(silent=True))
            if mode == "online":
                _check_key(wandb)
            directory.mkdir(parents=True, exist_ok=True)  # else wandb writes to /tmp
            for seed, id in zip(seeds, run_ids, strict=True):
                run = wandb.init(
                    project=project,
                    dir=directory,
                    group=_short(_clean(group), _LONGEST_GROUP),
                    name=f"seed{seed}" if job_type == "train" else _clean(config["table"]),
                    job_type=job_type,
                    id=id,
                    tags=[_short(_clean(tag), _LONGEST_TAG) for tag in (*tags, f"seed:{seed}")],
                    config=_clean({**plain(dict(config)), "seed": int(seed)}),
                    mode=mode,
                    resume="allow",
                    reinit="create_new",  # all seeds advance in one program, so their runs live side by side
                    settings=wandb.Settings(console="off", x_disable_stats=True, silent=True),
                )
                self._runs.append(run)

    @contextlib.contextmanager
    def _attempt(self, what: str) -> Iterator[None]:
        """Goes on without tracking where W&B, the disk or the network fails inside."""
        try:
            yield
        except TrackingError:
            raise
        except Exception as error:
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            _log.warning("W&B %s, the training goes on untracked: %s", what, reason)
            with contextlib.suppress(Exception):
                self._close(exit_code=1)
        except BaseException:
            self._close(exit_code=1)
            raise

    def _close(self, exit_code: int) -> None:
        """Ends all runs; one that fails must not leave the others open."""
        runs, self._runs = self._runs, []
        with contextlib.ExitStack() as stack:
            for run in reversed(runs):
                stack.callback(run.finish, exit_code=exit_code)

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
        with self._attempt("took no metrics"):
            for run, row in zip(self._runs, rows, strict=False):
                run.log(row, step=int(iteration))

    def summary(self, seed: int, values: Mapping[str, Any]) -> None:
        with self._attempt("took no summary"):
            if self._runs:
                self._runs[self._seeds.index(seed)].summary.update(plain(dict(values)))

    def page(self, name: str, header: Sequence[str], rows: Sequence[Sequence[str]], figures: Sequence[Path]) -> None:
        with self._attempt("took no table"):
            import wandb

            shown = {path.stem: wandb.Image(str(path)) for path in figures}
            cells = wandb.Table(columns=list(header), data=[list(row) for row in rows])
            for run in self._runs:
                run.log({"table": cells, **shown})

    def finish(self, exit_code: int = 0) -> None:
        with self._attempt("did not finish"):
            self._close(exit_code)


def _check_key(wandb: Any) -> None:
    """Raises TrackingError without a usable key: wandb.init would ask at a terminal, in the middle of a batch."""
    try:
        found, reason = wandb.login(prompt=False, verify=False), ""
    except Exception as error:  # a key that cannot be one
        found, reason = False, f" ({' '.join(str(error).split())})"
    if not found:
        raise TrackingError(
            f"W&B has no API key for online tracking{reason}: run `wandb login`, set WANDB_API_KEY, or track offline"
        )


def _clean(value: Any) -> Any:
    """JSON values without what UTF-8 cannot hold: bytes of file names that were none."""
    if isinstance(value, dict):
        return {_clean(key): _clean(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_clean(item) for item in value]
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def _short(text: str, most: int) -> str:
    """At most so many characters, and other than those of every other text."""
    if len(text) <= most:
        return text
    return f"{text[: most - 9]}~{hashlib.sha256(text.encode()).hexdigest()[:8]}"


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
