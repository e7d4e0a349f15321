"""Weights & Biases tracking, written from the host between steps.

A cell is a group of runs: one a seed, of job type `train`, with the curves, and one of job type `cell`, with the
machine's metrics, the scores of all seeds, the record, and its figures; a table is a run of job type `table`. wandb's
own variables are honoured: WANDB_PROJECT, _ENTITY, _DIR, _MODE, _RUN_GROUP, _TAGS, _NAME.

wandb is imported only where tracking is asked for. Offline runs need no account; `wandb sync` uploads them later.
Tracking never ends a training: what W&B refuses is a warning, after which the training goes on untracked.
"""

import contextlib
import hashlib
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import numpy as np

from trajclust_jax.records import plain

Mode = Literal["off", "offline", "online"]

_LONGEST_TAG, _LONGEST_GROUP = 64, 128  # characters that W&B takes
_log = logging.getLogger(__name__)


class TrackingError(RuntimeError):
    """Tracking that cannot start. The message is one line: what is wrong and what to do."""


class Tracker:
    """Tracks nothing: what `off` gives, and the interface of the real one."""

    def log(self, iteration: int, metrics: Mapping[str, Any], gradient_steps: int | None = None) -> None:
        """Logs one outer iteration. Each metric has a leading seed axis.

        A `[S]` metric is logged as it is. An `[S, R]` one gives each run `<name>/best` (the largest, if the name ends
        in `objective`) or else `<name>/mean` and, of several restarts, `<name>/r0`, `<name>/r1`, ... One with more axes
        gives `<name>/mean`, `<name>/min` and `<name>/max`. With `gradient_steps` W&B draws all metrics against them.
        """

    def summary(self, seed: int, values: Mapping[str, Any]) -> None:
        """Sets the final values of one seed's run."""

    def page(
        self, header: Sequence[str], rows: Sequence[Sequence[Any]], figures: Iterable[Path], record: Path | None = None
    ) -> None:
        """Logs a table, figures by their files' stems, and a record's file as an artifact.

        A generator of `figures` draws them only where they are logged; where it fails, that is a warning.
        """

    def finish(self, exit_code: int = 0) -> None:
        """Ends all runs. Later calls do nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, exception_type: type | None, *rest: object) -> None:
        self.finish(exit_code=0 if exception_type is None else 1)


def run_id(name: str, cell: str, seed: int | str) -> str:
    """The id of a seed's run, or of the cell's: a resumed job finds its own runs again."""
    return hashlib.sha256(f"{name}\n{cell}\n{seed}".encode("utf-8", "surrogateescape")).hexdigest()[:16]


class _Planned(NamedTuple):
    """A run that is to be."""

    id: str
    name: str
    tags: Sequence[str]
    config: Mapping[str, Any]


def make_tracker(
    mode: Mode,
    *,
    name: str,
    id: str,
    seeds: Sequence[int],
    directory: str | os.PathLike,
    tags: Sequence[str] = (),
    config: Mapping[str, Any] | None = None,
) -> Tracker:
    """A run for each seed of one cell, called `name` (DATASET-METHOD) with `-seedN`, in the group `name` with its `id`.

    `directory` gets the folder `wandb/`. A job that runs again under the same name and id continues its runs. Long tags
    are shortened, so that they stay distinct; bytes of names that are no UTF-8 are spelled out.
    Raises TrackingError for wrong arguments and online without a usable key; it never asks at the terminal.
    """
    called = os.environ.get("WANDB_NAME") or name
    of_seed = lambda seed: ((*tags, f"seed:{seed}"), {**(config or {}), "seed": int(seed)})
    runs = [_Planned(run_id(name, id, seed), f"{called}-seed{seed}", *of_seed(seed)) for seed in seeds]
    return _tracker(mode, directory, f"{name}-{id}", runs, "train")


def track_cell(
    mode: Mode,
    *,
    name: str,
    id: str,
    directory: str | os.PathLike,
    tags: Sequence[str] = (),
    config: Mapping[str, Any] | None = None,
) -> Tracker:
    """The run of a cell as a whole, with the machine's metrics while it is open; `page` is for its end.

    Arguments and errors are `make_tracker`'s.
    """
    run = _Planned(run_id(name, id, "cell"), os.environ.get("WANDB_NAME") or name, tags, config or {})
    return _tracker(mode, directory, f"{name}-{id}", [run], "cell")


def log_table(
    mode: Mode,
    name: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    figures: Sequence[Path],
    *,
    directory: str | os.PathLike,
    tags: Sequence[str] = (),
) -> None:
    """A run of job type `table` with a table, and its figures by their files' stems; the same run for the same name.

    Raises TrackingError as `make_tracker` does; what else goes wrong is a warning.
    """
    run = _Planned(run_id("table", name, 0), name, tags, {"table": name, "rows": len(rows)})
    with _tracker(mode, directory, "tables", [run], "table") as tracker:
        tracker.page(header, rows, figures)


def _tracker(mode: Mode, directory: str | os.PathLike, group: str, runs: Sequence[_Planned], job_type: str) -> Tracker:
    if mode not in ("off", "offline", "online"):
        raise TrackingError(f"tracking mode {mode!r}: give off, offline or online")
    asked = os.environ.get("WANDB_MODE")
    if mode == "off" or asked == "disabled":
        return Tracker()
    if asked in ("offline", "dryrun"):  # on machines without a network
        mode = "offline"
    place = Path(os.environ.get("WANDB_DIR") or directory)
    return _WandbTracker(mode, place, os.environ.get("WANDB_RUN_GROUP") or group, runs, job_type)


class _WandbTracker(Tracker):
    def __init__(self, mode: str, directory: Path, group: str, planned: Sequence[_Planned], job_type: str):
        self._seeds = [run.config.get("seed") for run in planned]
        self._runs: list[Any] = []
        self._against_steps = False
        tagged = [tag.strip() for tag in os.environ.get("WANDB_TAGS", "").split(",") if tag.strip()]
        with self._attempt("did not start"):
            import wandb

            wandb.setup(wandb.Settings(silent=True))
            if mode == "online":
                _check_key(wandb)
            directory.mkdir(parents=True, exist_ok=True)  # else wandb writes to /tmp
            for one in planned:
                run = wandb.init(
                    project=os.environ.get("WANDB_PROJECT") or "trajclust",
                    dir=directory,
                    group=_short(_clean(group), _LONGEST_GROUP),
                    name=_clean(one.name),
                    job_type=job_type,
                    id=one.id,
                    tags=[_short(_clean(tag), _LONGEST_TAG) for tag in dict.fromkeys((*one.tags, *tagged))],
                    config=_clean(plain(dict(one.config))),
                    mode=mode,
                    resume="allow",
                    reinit="create_new",  # all seeds advance in one program, so their runs live side by side
                    # of the machine's metrics one copy is enough
                    settings=wandb.Settings(console="off", x_disable_stats=job_type != "cell", silent=True),
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

    def log(self, iteration: int, metrics: Mapping[str, Any], gradient_steps: int | None = None) -> None:
        axis = {} if gradient_steps is None else {"gradient_steps": int(gradient_steps)}
        rows: list[dict[str, float]] = [dict(axis) for _ in self._seeds]
        for name, values in metrics.items():
            values = np.asarray(values)
            if values.ndim == 0 or len(values) != len(self._seeds):
                raise ValueError(
                    f"metric {name}: shape {values.shape}, its first axis must be {len(self._seeds)} seeds"
                )
            for row, value in zip(rows, values, strict=True):
                row.update(_scalars(name, value))
        with self._attempt("took no metrics"):
            if axis and not self._against_steps:
                self._against_steps = True
                for run in self._runs:
                    run.define_metric("gradient_steps", hidden=True)
                    run.define_metric("*", step_metric="gradient_steps")
            for run, row in zip(self._runs, rows, strict=False):
                run.log(row, step=int(iteration))

    def summary(self, seed: int, values: Mapping[str, Any]) -> None:
        with self._attempt("took no summary"):
            if self._runs:
                self._runs[self._seeds.index(seed)].summary.update(plain(dict(values)))

    def page(
        self, header: Sequence[str], rows: Sequence[Sequence[Any]], figures: Iterable[Path], record: Path | None = None
    ) -> None:
        if not self._runs:
            return
        with self._attempt("took no table"):
            import wandb

            shown = {path.stem: wandb.Image(str(path)) for path in figures}
            cells = wandb.Table(columns=list(header), data=[list(row) for row in rows])
            for run in self._runs:
                run.log({"table": cells, **shown})
                if record is not None:
                    artifact = wandb.Artifact(f"record-{run.id}", type="record")
                    artifact.add_file(str(record), name="record.json")
                    run.log_artifact(artifact)

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
    restarts = {f"{name}/r{r}": x for r, x in enumerate(value)} if len(value) > 1 else {}
    return {key: x.item() for key, x in (total | restarts).items()}
