"""A sweep: the cells of several tables, in a grid of settings, and which of them are still to be computed.

RESULTS/sweeps/<id>.json    what was asked for, so that `trajclust status` knows what is waiting
"""

import dataclasses
import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from trajclust_experiments.cells.cell import Cell
from trajclust_experiments.launchers.task import Task
from trajclust_experiments.rendering.stored import record_of
from trajclust_experiments.tables import get_table, select
from trajclust_experiments.usage import UsageError
from trajclust_jax.data.files import written_whole
from trajclust_jax.records import Results, cell_id, plain, tuples


@dataclasses.dataclass(frozen=True)
class Sweep:
    """What was asked for."""

    tables: tuple[str, ...]
    preset: str
    datasets: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    seeds: int | None = None
    settings: tuple[tuple[str, tuple[Any, ...]], ...] = ()  # crossed

    def tasks(self) -> list[Task]:
        """All cells, in order, each once.

        Raises:
            UsageError: for names that are not there, or settings that no cell has.
        """
        if not self.tables:
            raise UsageError("name at least one table; `trajclust list` shows them")
        found: dict[Cell, Task] = {}
        self._check_names()
        for name in self.tables:
            for cell in self._cells(name):
                for other in self._crossed(cell):
                    found.setdefault(other, Task(name, self.preset, other))
        if not found:
            raise UsageError(f"no cell of {', '.join(self.tables)} has all of {', '.join(dict(self.settings))}")
        return list(found.values())

    def _cells(self, name: str) -> list[Cell]:
        table = get_table(name)
        datasets, methods = _chosen(self.datasets, table.datasets), _chosen(self.methods, table.methods)
        if self.preset not in table.presets:
            raise UsageError(f"unknown preset {self.preset!r} of {name}: choose one of {', '.join(table.presets)}")
        scale, seeds = table.presets[self.preset].seeded(self.seeds)
        return table.cells(scale, datasets, methods, seeds)

    def _check_names(self) -> None:
        """Raises UsageError for a table that is not there, a dataset or method that none of the tables has."""
        try:
            tables = [get_table(name) for name in self.tables]
            for names, what in ((self.datasets, "dataset"), (self.methods, "method")):
                select(names, tuple(dict.fromkeys(x for table in tables for x in getattr(table, f"{what}s"))), what)
        except ValueError as error:
            raise UsageError(str(error)) from None

    def _crossed(self, cell: Cell) -> list[Cell]:
        """The cell with every combination of the settings; none where its algorithm lacks one of them."""
        if not self.settings:
            return [cell]
        names = [name for name, _ in self.settings]
        if not all(name in cell.hyperparameters() for name in names):
            return []
        found = []
        for values in itertools.product(*(values for _, values in self.settings)):
            merged = {**dict(cell.settings), **dict(zip(names, values, strict=True))}
            other = dataclasses.replace(cell, settings=tuple(sorted(merged.items())))
            try:
                other.essential()
            except (ValueError, TypeError) as error:
                raise UsageError(f"--set: {error}") from None
            found.append(other)
        return found

    def save(self, results: Results) -> Path:
        """Keeps what was asked for beside the records."""
        described = plain(dataclasses.asdict(self))
        path = results.folder / "sweeps" / f"{cell_id(described)}.json"
        with written_whole(path) as temporary:
            temporary.write_text(json.dumps(described, indent=1) + "\n")
        return path


def saved(results: Results, warn: Callable[[str], None]) -> list[list[Task]]:
    """The cells of each sweep that was asked for in a results folder, the latest last; `warn` gets a line for each file
    that is damaged, or whose tables are not there."""
    paths = sorted((results.folder / "sweeps").glob("[!.]*.json"), key=lambda path: path.lstat().st_mtime)
    found = []
    for path in paths:
        try:
            asked = {name: tuples(value) for name, value in json.loads(path.read_text("utf-8")).items()}
            found.append(Sweep(**asked).tasks())
        except (OSError, ValueError, TypeError, AttributeError, UsageError) as error:
            warn(f"{path}: no sweep of this version ({' '.join(str(error).split())}); delete it")
    return found


def missing(tasks: Sequence[Task], records: Sequence[dict[str, Any]]) -> list[Task]:
    """The tasks whose cells have no record with their seeds."""
    return [task for task in tasks if record_of(task.cell, records) is None]


def _chosen(names: tuple[str, ...], available: tuple[str, ...]) -> tuple[str, ...]:
    """Of one table's rows or columns; none where the names are of other tables."""
    try:
        return select(names, available, "name")
    except ValueError:
        kept = [name for name in names if any(each.startswith(name) for each in available)]
        return select(tuple(kept), available, "name") if kept else ()
