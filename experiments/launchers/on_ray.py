"""A sweep on Ray: its scheduler places cells by the CPUs and GPUs they ask for, and runs them again where a worker or a
node died. All nodes need this package and the results folder.
"""

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

from trajclust_experiments.launchers.task import Outcome, Task, perform
from trajclust_experiments.usage import UsageError
from trajclust_jax.lazy import lazy

ray = lazy("ray")

RETRIES = 5  # of a cell whose worker or node died
PAUSE_SECONDS = 2.0  # before a cell that another process computes is asked for again
STORE_BYTES = 200 * 2**20  # of the object store of a cluster that is started here: tasks are small

Report = Callable[[Task, Outcome], None]


def launch(
    tasks: Sequence[Task],
    folder: str,
    track: str,
    report: Report,
    *,
    address: str | None = None,
    cpus: float = 1.0,
    gpus: float | None = None,
    memory_bytes: Callable[[Task], int | None] = lambda task: None,
) -> None:
    """Performs all tasks and reports each outcome once.

    Args:
        address: of a cluster that runs (`auto` finds this machine's); None starts one here.
        cpus: that a cell asks for.
        gpus: as `cpus`; None asks for a whole one where the cluster has any.
        memory_bytes: that a task asks for; None: none.

    Raises:
        UsageError: without Ray, or where the cluster cannot be reached.
    """
    with _connected(address):
        if gpus is None:
            gpus = 1.0 if ray.cluster_resources().get("GPU") else 0.0
        work = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=RETRIES)(perform)
        folder = os.path.abspath(folder)

        def begin(task: Task) -> Any:
            return work.options(memory=memory_bytes(task)).remote(task, folder, track)

        running = {begin(task): task for task in tasks}
        try:
            while running:
                (ready,), _ = ray.wait(list(running), num_returns=1)
                task = running.pop(ready)
                try:
                    outcome = ray.get(ready)
                except ray.exceptions.RayError as error:
                    reason = " ".join(str(error).split())[:300]
                    outcome = Outcome("failed", 0.0, f"{type(error).__name__}: {reason}")
                if outcome.state in ("elsewhere", "interrupted"):
                    time.sleep(PAUSE_SECONDS)
                    running[begin(task)] = task
                else:
                    report(task, outcome)
        except BaseException:
            for reference in running:  # as Ctrl-C: each writes its checkpoint
                ray.cancel(reference)
            raise


@contextlib.contextmanager
def _connected(address: str | None) -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    # Workers of a cluster that runs do not inherit it.
    tracking = {name: value for name, value in os.environ.items() if name.startswith("WANDB_")}
    quiet |= {"runtime_env": {"env_vars": tracking}} if tracking else {}
    if address is None:
        quiet |= {"include_dashboard": False, "object_store_memory": STORE_BYTES}
        # Ray waits for the workers that it starts beforehand, and for ever where one of them dies.
        quiet |= {"_system_config": {"prestart_worker_first_driver": False}}
    try:
        ray.init(address=address, **quiet)
    except ImportError:
        raise UsageError("--launcher ray needs Ray: pip install -c constraints.txt -e '.[ray]'") from None
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UsageError(f"--address {address}: {' '.join(str(error).split())[:300]}") from None
    try:
        yield
    finally:
        ray.shutdown()
