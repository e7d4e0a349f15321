"""Cells for tests of sweeps, in a module that the workers' processes can import."""

import dataclasses
import os
import signal
import time
from pathlib import Path
from typing import Any

from trajclust_experiments.cells.cell import Cell


@dataclasses.dataclass(frozen=True)
class Toy(Cell):
    """Does what `method` says on a tiny dataset; `place` is a folder for notes of what happened."""

    place: str = ""

    def essential(self) -> dict[str, Any]:
        return {"dataset": self.dataset, "method": self.method, "size": self.size, "data_seed": self.data_seed}

    def compute(self, dataset, job) -> dict[str, Any]:
        begun = Path(self.place) / f"{self.method}-{self.data_seed}"
        first = not begun.exists()
        begun.touch()
        print(f"computing {self.method}", flush=True)
        if self.method == "fails":
            raise ValueError("no luck here")
        if self.method == "dies" or (self.method == "dies-once" and first):
            os.kill(os.getpid(), signal.SIGKILL)
        if self.method.startswith("short"):
            time.sleep(0.5)
        if self.method == "slow":
            for _ in range(600):
                time.sleep(0.1)
                job.guard()
        return {
            "scores": {"value": [self.data_seed]},
            "cores": len(os.sched_getaffinity(0)),
            "timing": {"run_seconds": 0.0, "compile_seconds": 0.0},
        }


def toys(place: Path, *methods: str) -> list[Toy]:
    """A cell each, told apart by the data's seed."""
    return [Toy("diagonal", 2, method, (), (), seed, str(place)) for seed, method in enumerate(methods)]
