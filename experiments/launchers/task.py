"""A task: one cell, performed in a process of its own, what it prints kept until it has succeeded.

RESULTS/logs/<key>.log      what a cell prints while it is computed
RESULTS/failed/<key>.log    the same of one that failed, until a later try succeeds
"""

import contextlib
import functools
import os
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from trajclust_experiments.cells.cell import Cell
from trajclust_experiments.cells.runner import Run, key
from trajclust_experiments.progress import Progress
from trajclust_experiments.rendering.overview import record_figures
from trajclust_experiments.starting import ready
from trajclust_jax.records import Results, process_started

_ready = functools.cache(ready)  # as the command line is, once a process


class Task(NamedTuple):
    """A cell of a table at a preset."""

    table: str
    preset: str
    cell: Cell


class Outcome(NamedTuple):
    """What became of a task. Elsewhere: another process computes the cell, or one that it needs."""

    state: Literal["done", "elsewhere", "failed", "interrupted"]
    seconds: float
    reason: str = ""  # of a failure, in a line


def failed_log(folder: Path, cell: Cell) -> Path:
    """Where the log of a cell is if it failed."""
    return folder / "failed" / f"{key(cell)}.log"


def died_during(folder: Path, cell: Cell) -> bool:
    """Whether a process died while it computed a cell, whose log it left; the log becomes that of a failure."""
    logs = (folder / "logs").glob(f"{key(cell)}.*.log")
    left = [path for path in logs if process_started(int(path.stem.split(".")[1])) is None]
    for path in left:
        failed = failed_log(folder, cell)
        failed.parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, failed)
    return bool(left)


def perform(task: Task, folder: str, track: str = "off") -> Outcome:
    """Computes a task's cell, or finds its record. What it prints goes to a file."""
    began, results = time.monotonic(), Results(folder)
    _ready()
    log, failed = results.folder / "logs" / f"{key(task.cell)}.log", failed_log(results.folder, task.cell)
    log = log.with_name(f"{log.stem}.{os.getpid()}.log")  # another process may try the same cell
    log.parent.mkdir(parents=True, exist_ok=True)
    state, reason = "done", ""
    with _into(log):
        try:
            tags = [f"table:{task.table}"]
            run = Run(results, task.preset, track, tags, Progress(), draw=record_figures)
            if run.record(task.cell) is None:
                state = "elsewhere"
        except KeyboardInterrupt:
            state = "interrupted"
        except Exception as error:
            traceback.print_exc()
            text = " ".join(str(error).split())
            state, reason = "failed", f"{type(error).__name__}: {text[:300]}"
    if state == "failed":
        failed.parent.mkdir(parents=True, exist_ok=True)
        os.replace(log, failed)
    else:
        log.unlink(missing_ok=True)
        if state == "done":
            failed.unlink(missing_ok=True)
    return Outcome(state, time.monotonic() - began, reason)


@contextlib.contextmanager
def _into(path: Path) -> Iterator[None]:
    """Standard output and error, of libraries below Python too, go to a file."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    kept = [os.dup(number) for number in (1, 2)]
    try:
        with open(path, "wb") as file:
            for number in (1, 2):
                os.dup2(file.fileno(), number)
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        for number, old in zip((1, 2), kept, strict=True):
            os.dup2(old, number)
            os.close(old)
