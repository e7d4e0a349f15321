"""Runs cells: a finished cell is never computed again, further seeds of one are computed alone, a killed one goes on
from its checkpoint, and processes on one results folder share the cells out by leases.

Several hosts with one program (`devices`) compute each cell together: the first decides, keeps and writes.
"""

import contextlib
import dataclasses
import json
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from trajclust_experiments.cells.cell import Cell, Finished, Job, record_id, seed_table
from trajclust_experiments.cells.joining import can_be_joined, joined
from trajclust_experiments.progress import Progress
from trajclust_jax.compile_cache import release
from trajclust_jax.data import Dataset
from trajclust_jax.devices import anywhere, from_lead, leads
from trajclust_jax.records import Lease, RecordError, Results, cell_id, environment
from trajclust_jax.training import Event

BEAT_SECONDS = 2.0  # between two notes of how far a cell is

Draw = Callable[[Mapping[str, Any], Path], Iterable[Path]]  # (record, folder to draw it in) -> files


class LeaseLost(RuntimeError):
    """Another process took the cell over, for instance while this one was suspended."""


def run_cells(
    cells: Sequence[Cell],
    results: Results,
    *,
    preset: str,
    track: str = "off",
    tags: Sequence[str] = (),
    progress: Progress | None = None,
    begins: Callable[[Cell], None] = lambda cell: None,
    draw: Draw = lambda record, folder: (),
    poll_seconds: float = 2.0,
) -> list[dict[str, Any]]:
    """Computes what is missing and returns the cells' records, in their order.

    A cell that another live process holds is left to it, and waited for at the end. `begins` is told of each cell that
    is computed here, those that others need too, before it is. What `draw` gives is shown where runs are tracked.
    """
    run = Run(results, preset, track, tags, progress or Progress(quiet=True), begins, draw)
    records: dict[Cell, dict[str, Any]] = {}
    told = None
    while len(records) < len(set(cells)):
        waiting = []
        for cell in cells:
            if cell in records:
                continue
            record = run.record(cell)
            if record is None:
                waiting.append(cell)
            else:
                records[cell] = record
        if waiting:
            if waiting != told:
                run.progress.note(f"waiting for another process: {', '.join(cell.title for cell in waiting)}")
                told = waiting
            time.sleep(poll_seconds)
    return [records[cell] for cell in cells]


def key(cell: Cell) -> str:
    """16 hex digits that name a cell before its dataset is there: an id without the data's fingerprint."""
    return cell_id({"kind": type(cell).__name__, **cell.essential(), "seeds": list(cell.seeds)})


@dataclasses.dataclass(frozen=True)
class Run:
    """What all cells of a run share."""

    results: Results
    preset: str
    track: str
    tags: Sequence[str]
    progress: Progress
    begins: Callable[[Cell], None] = lambda cell: None
    draw: Draw = lambda record, folder: ()

    def record(self, cell: Cell, with_arrays: bool = False) -> dict[str, Any] | None:
        """The cell's record, computed if it is missing; None while another process computes it, or what it needs."""
        dataset, data_seconds = cell.load()
        described = cell.identity(dataset)
        id = record_id(described)
        record = self._finished(id, with_arrays)
        if from_lead(record is not None):
            self._clear(id)
            return from_lead(record)
        earlier = from_lead(self._of_fewer_seeds(cell, dataset, with_arrays))
        missing = _Missing(cell, dataset, data_seconds, id, described, earlier)
        needed = self._needed(missing.todo)
        if needed is None:
            return None
        lease = self.results.lease(id) if leads() else None
        if not from_lead(lease is not None):
            return None
        with lease or contextlib.nullcontext():
            # It may have been finished just before the lease was free.
            unfinished = from_lead(self._finished(id, with_arrays) is None)
            if unfinished and not self._compute(missing, needed, lease):
                return None
            if leads():  # its checkpoints, also those of a process killed right here
                shutil.rmtree(self.results.work(id), ignore_errors=True)
        return from_lead(self.results.read(id) if leads() else None)

    def _needed(self, cell: Cell) -> dict[Cell, Finished] | None:
        """The cells that this one reads, computed where they are missing; None while another process computes one."""
        needed = {}
        for other in cell.needs():
            record = self.record(other, with_arrays=True)
            if record is None:
                return None
            needed[other] = Finished(record, self.results.arrays(record["id"]))
        return needed

    def _compute(self, missing: "_Missing", needed: dict[Cell, Finished], lease: Lease | None) -> bool:
        """Computes what is missing of a cell and writes the record of all its seeds; False if the lease is lost."""
        cell, todo, id = missing.cell, missing.todo, missing.id
        work = self.results.work(id) if todo is cell else self.results.work(id) / f"from-seed-{todo.seeds[0]}"
        guard = _Guard(progress_file(self.results, id), cell, lease)
        job = Job(id, missing.described, self.results, work, self.track, self.tags, self.progress, guard, needed)
        with job.cell_tracker(cell) as shown:
            try:
                guard()
                self.begins(cell)
                began = time.process_time()
                body = todo.compute(missing.dataset, job)
                body["timing"]["cpu_seconds"] = time.process_time() - began  # since it was resumed, if it was
                guard()
            except LeaseLost:
                return False
            finally:
                guard.end()
            if leads():
                record, arrays = self._whole(missing, body)
                written = self.results.write(id, record, arrays)
                shown.page(*seed_table(cell.seeds, record["scores"]), self.draw(record, work), written)
        release()
        return True

    def _whole(self, missing: "_Missing", body: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any] | None]:
        """The record of all seeds, and its arrays: of those that were there and of a body just computed."""
        body["timing"]["data_seconds"], place = missing.data_seconds, environment()
        if missing.earlier is not None:
            arrays = self.results.arrays(missing.earlier["id"]) or {}
            body = joined(missing.earlier, arrays, body, seeds=missing.todo.seeds, environment=place)
        arrays, source = body.pop("arrays", None), missing.dataset.provenance
        data = {"source": source.source, "parameters": source.parameters}
        named = {"id": missing.id, "preset": self.preset, "cell": missing.described}
        return {**named, **body, "data": data, "environment": place}, arrays

    def _finished(self, id: str, with_arrays: bool) -> dict[str, Any] | None:
        """The record of a cell, where it and, if they are asked for, its arrays are stored."""
        record = self.results.read(id)
        return None if record is None or (with_arrays and self.results.arrays(id) is None) else record

    def _clear(self, id: str) -> None:
        """Removes the checkpoints of a finished cell, those of a process killed before it did so itself."""
        if not leads() or not self.results.work(id).exists():
            return
        with self.results.lease(id) or contextlib.nullcontext() as lease:
            if lease is not None:  # else the process that has it removes them
                shutil.rmtree(self.results.work(id), ignore_errors=True)

    def _of_fewer_seeds(self, cell: Cell, dataset: Dataset, with_arrays: bool) -> dict[str, Any] | None:
        """The record of the cell for the most of its first seeds, to which further ones can be added; None without."""
        for number in range(len(cell.seeds) - 1, 0, -1):
            fewer = cell.of_seeds(cell.seeds[:number])
            with contextlib.suppress(RecordError):  # a damaged one is as good as none
                record = self.results.read(record_id(fewer.identity(dataset)))
                if record is not None and can_be_joined(record):
                    has_arrays = self.results.arrays(record["id"]) is not None
                    return record if has_arrays or not with_arrays else None
        return None


@dataclasses.dataclass(frozen=True)
class _Missing:
    """A cell without a record."""

    cell: Cell
    dataset: Dataset
    data_seconds: float  # that the dataset took to make
    id: str
    described: dict[str, Any]  # the cell's identity
    earlier: dict[str, Any] | None  # its record for the first of its seeds

    @property
    def todo(self) -> Cell:
        """The cell, for those of its seeds that `earlier` lacks."""
        if self.earlier is None:
            return self.cell
        return self.cell.of_seeds(self.cell.seeds[len(self.earlier["cell"]["seeds"]) :])


def progress_file(results: Results, id: str) -> Path:
    """Where a cell that is being computed notes how far it is, as JSON."""
    return results.work(id).parent / f"{id}.json"


class _Guard:
    """Ends a computation whose lease is lost, and notes how far it is, for `trajclust status`."""

    def __init__(self, path: Path, cell: Cell, lease: Lease | None):
        self.path, self.title, self.lease = path, cell.title, lease
        self.told, self.first = float("-inf"), None
        self.note: dict[str, Any] = {"key": key(cell), "title": cell.title, "since": time.time()}
        self.note |= {"host": socket.gethostname(), "pid": os.getpid()}
        self.note |= {"phase": "starting", "iteration": 0, "budget": 0, "done": 0, "total": None}

    def __call__(self, event: Event | None = None, total: int | None = None) -> None:
        """A callback of `fit`, with the number of its iterations in all.

        Raises:
            LeaseLost: another process took the cell over.
        """
        if anywhere(self.lease is not None and self.lease.lost)[0]:
            raise LeaseLost(f"{self.title}: another process took over")
        if leads():
            self._take(event, total)

    def end(self) -> None:
        """Removes the note."""
        if leads():
            self.path.unlink(missing_ok=True)

    def _take(self, event: Event | None, total: int | None) -> None:
        now = time.monotonic()
        if event is not None:
            self.first = event.total if self.first is None else self.first
            self.note |= {"phase": event.phase, "iteration": event.iteration, "budget": event.budget}
            self.note |= {"done": event.total, "total": total, "first": self.first}
        if now - self.told < BEAT_SECONDS:
            return
        self.told = now
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        temporary.write_text(json.dumps({**self.note, "time": time.time()}))
        os.replace(temporary, self.path)
