"""A sweep on Slurm through submitit: one job array, a cell an element.

Slurm pre-empts with a signal and some time: the running iteration ends, the checkpoint is written, and the element is
queued again, where it goes on.
"""

import contextlib
import math
import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from trajclust_experiments.launchers.task import Task, perform
from trajclust_experiments.usage import UsageError
from trajclust_jax.lazy import lazy

submitit = lazy("submitit")
submitit_slurm = lazy("submitit.slurm.slurm")

NOTICE_SECONDS = 120  # before the time limit, or a pre-emption, that Slurm sends its signal
_ASKING = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM)


class CellJob:
    """What an element of the array runs; submitit pickles it."""

    def __call__(self, task: Task, folder: str, track: str) -> str:
        """The outcome's state; what failed is told in the results folder, and by the job's own exit code."""
        with _graceful() as asked:
            outcome = perform(task, folder, track)
        if asked and outcome.state == "interrupted":
            submitits = signal.getsignal(_preemption())
            if callable(submitits):
                submitits(asked[0], None)  # calls `checkpoint`, queues the job again, and exits
        if outcome.state == "failed":
            raise RuntimeError(outcome.reason)
        return outcome.state

    def checkpoint(self, task: Task, folder: str, track: str) -> Any:
        """What submitit queues again: the same; its state is in the results folder."""
        return submitit.helpers.DelayedSubmission(self, task, folder, track)


@contextlib.contextmanager
def _graceful() -> Iterator[list[int]]:
    """Signals of a pre-emption act as Ctrl-C does: the running iteration ends, and its state is kept."""
    asked: list[int] = []

    def note(number: int, frame: Any) -> None:
        asked.append(number)
        signal.raise_signal(signal.SIGINT)

    kept = {number: signal.signal(number, note) for number in _ASKING}
    kept[signal.SIGINT] = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield asked
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


def _preemption() -> int:
    """The signal that submitit's own handler is bound to."""
    return submitit.core.job_environment.JobEnvironment._usr_sig()


def options(
    *, minutes: int, partition: str | None, jobs: int, cpus: int, gpus: float | None, memory_gb: int | None
) -> dict[str, Any]:
    """What an array asks of Slurm, `jobs` elements at a time, the rest for each; None leaves it to Slurm.

    GPUs are whole ones: of a part of one, the whole.
    """
    asked = {
        "time": minutes,
        "partition": partition,
        "array_parallelism": jobs,
        "cpus_per_task": cpus,
        "gpus_per_node": None if gpus is None else math.ceil(gpus),
        "mem": None if memory_gb is None else f"{memory_gb}GB",
        "signal_delay_s": NOTICE_SECONDS,
    }
    return {name: value for name, value in asked.items() if value is not None}


def launch(
    tasks: Sequence[Task], folder: str, track: str, asked: dict[str, Any], cluster: str | None = None
) -> list[Any]:
    """Submits one array and returns its jobs; it does not wait for them.

    Args:
        asked: see `options`.
        cluster: "local" runs the jobs on this machine, without Slurm.

    Raises:
        UsageError: without submitit, or without Slurm.
    """
    try:
        executor = submitit.AutoExecutor(Path(folder).absolute() / "slurm", cluster=cluster or "slurm")
    except ImportError:
        raise UsageError("--launcher slurm needs submitit: pip install -c constraints.txt -e '.[slurm]'") from None
    except RuntimeError as error:
        raise UsageError(f"--launcher slurm: {error}; --dry-run shows the script") from None
    executor.update_parameters(name="trajclust", **{f"slurm_{name}": value for name, value in asked.items()})
    place = str(Path(folder).absolute())
    return executor.map_array(CellJob(), tasks, [place] * len(tasks), [track] * len(tasks))


def script(count: int, folder: str, asked: dict[str, Any]) -> str:
    """The sbatch script of an array of `count` cells; for `asked` see `options`.

    Raises:
        UsageError: without submitit.
    """
    place = Path(folder).absolute() / "slurm"
    command = shlex.join([sys.executable, "-u", "-m", "submitit.core._submit", str(place)])
    try:
        make = submitit_slurm._make_sbatch_string
    except ImportError:
        raise UsageError("--launcher slurm needs submitit: pip install -c constraints.txt -e '.[slurm]'") from None
    return make(command, place, "trajclust", map_count=count, **asked)
