"""A sweep on this machine: a pool of processes, its cores and devices shared out among them."""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from trajclust_experiments.launchers.task import Outcome, Task, died_during, perform

TRIES = 3  # of a cell in whose time a process died
PAUSE_SECONDS = 2.0, 60.0  # before a cell that another process computes is asked for again: at first, and in the end
LINGER_SECONDS = 60.0  # that a worker has to end when the launcher is gone
SENDING_SECONDS = 5.0  # that a worker has to send its last outcome once it was asked to end

Report = Callable[[Task, Outcome], None]


def launch(tasks: Sequence[Task], folder: str, track: str, jobs: int, report: Report) -> None:
    """Performs all tasks, `jobs` at a time, and reports each outcome once.

    A process that dies takes no cell with it: the others are tried again in a new pool, from their checkpoints. A
    signal that ends the launcher ends its processes after their running iterations.
    """
    left, tries, pause = list(tasks), Counter[int](), PAUSE_SECONDS[0]
    while left:
        elsewhere, broken, again = [], [], []
        for task, outcome in _round(left, folder, track, min(jobs, len(left))):
            if outcome is None:
                broken.append(task)
            elif outcome.state in ("elsewhere", "interrupted"):
                elsewhere.append(task)
            else:
                report(task, outcome)
        for task in broken:  # by now all processes of that pool have ended
            tries[id(task)] += died_during(Path(folder), task.cell)
            if tries[id(task)] < TRIES:
                again.append(task)
            else:
                reason = f"its process died {TRIES} times: out of memory? Give fewer --jobs"
                report(task, Outcome("failed", 0.0, reason))
        left = [*again, *elsewhere]
        if len(elsewhere) == len(left) and left:
            time.sleep(pause)
            pause = min(2 * pause, PAUSE_SECONDS[1])


def _round(tasks: Sequence[Task], folder: str, track: str, jobs: int) -> Iterator[tuple[Task, Outcome | None]]:
    """Each task once, as they end; None for those of a pool that broke."""
    context = multiprocessing.get_context("spawn")
    slots = context.SimpleQueue()
    for slot in _slots(jobs):
        slots.put(slot)
    pool = ProcessPoolExecutor(jobs, context, _begin, (slots, os.getpid()))
    try:
        futures: dict[Future, Task] = {pool.submit(_perform, task, folder, track): task for task in tasks}
        for future in as_completed(futures):
            try:
                yield futures[future], future.result()
            except BrokenProcessPool:
                yield futures[future], None
    except BaseException:
        _stop(pool)
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _stop(pool: ProcessPoolExecutor) -> None:
    """Asks the workers to end as Ctrl-C would: each writes its checkpoint."""
    for process in list((pool._processes or {}).values()):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGTERM)


# --- what a worker has ----------------------------------------------------------------------------------


def _slots(jobs: int) -> list[dict[str, Any]]:
    """Cores of each worker, and its device where there are accelerators."""
    cores = sorted(os.sched_getaffinity(0))
    share = max(1, len(cores) // jobs)
    own = lambda job: [cores[(job * share + i) % len(cores)] for i in range(share)]
    slots: list[dict[str, Any]] = [{"cores": own(job), "environment": {}} for job in range(jobs)]
    devices = _gpus()
    together = -(-jobs // len(devices)) if devices else 1
    for job, slot in enumerate(slots):
        if devices:
            slot["environment"]["CUDA_VISIBLE_DEVICES"] = devices[job % len(devices)]
        # JAX takes three quarters of a device's memory, for each process that shares it.
        if together > 1 and "XLA_PYTHON_CLIENT_MEM_FRACTION" not in os.environ:
            slot["environment"]["XLA_PYTHON_CLIENT_MEM_FRACTION"] = f"{0.9 / together:.3f}"
    return slots


def _gpus() -> list[str]:
    """Names of the GPUs that this process may use, as CUDA_VISIBLE_DEVICES has them."""
    if not {"cuda", "gpu"} & set(os.environ.get("JAX_PLATFORMS", "cuda").split(",")):
        return []
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name for name in given.split(",") if name]
    try:
        found = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return []
    count = sum(line.startswith("GPU ") for line in found.stdout.splitlines())
    return [str(number) for number in range(count)] if found.returncode == 0 else []


def device_kind() -> str:
    """JAX's name of this machine's devices, found without JAX, which would take hold of them."""
    if not _gpus():
        return "cpu"
    listed = subprocess.run(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True)
    return listed.stdout.splitlines()[0].strip() if listed.stdout else "gpu"


def default_jobs() -> int:
    """A process a GPU; without one, a process a core."""
    return len(_gpus()) or len(os.sched_getaffinity(0))


_stopping, _orphaned = threading.Event(), threading.Event()


def _begin(slots: Any, launcher: int) -> None:
    """A worker's start: its share of the machine; it ends where the launcher does."""
    slot = slots.get()
    os.sched_setaffinity(0, slot["cores"])
    os.environ.update(slot["environment"])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _asked_to_end)
    threading.Thread(target=_watch, args=(launcher,), daemon=True).start()


def _perform(task: Task, folder: str, track: str) -> Outcome:
    try:
        return Outcome("interrupted", 0.0) if _stopping.is_set() else perform(task, folder, track)
    except KeyboardInterrupt:  # in its first or last lines
        return Outcome("interrupted", 0.0)
    finally:
        if _orphaned.is_set():
            os._exit(1)
        if _stopping.is_set():
            _end_soon()


def _end_soon() -> None:
    """Ends this worker however it waits: a process that was killed while it took a task keeps the queue locked."""
    timer = threading.Timer(SENDING_SECONDS, os._exit, (1,))
    timer.daemon = True
    timer.start()


def _asked_to_end(number: int, frame: Any) -> None:
    _stopping.set()
    while frame is not None:
        if frame.f_code is perform.__code__:
            raise KeyboardInterrupt
        frame = frame.f_back
    if _orphaned.is_set():
        os._exit(1)
    _end_soon()


def _watch(launcher: int) -> None:
    while os.getppid() == launcher:
        time.sleep(0.5)
    _orphaned.set()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(LINGER_SECONDS)
    os._exit(1)
