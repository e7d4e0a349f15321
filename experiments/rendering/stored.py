"""Stored records as tables want them: those that can be shown, those of a table, by dataset and method."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import trajclust_experiments as experiments
from trajclust_experiments.catalogue import entries
from trajclust_experiments.cells.cell import Cell, essential
from trajclust_experiments.cells.methods import ORACLE
from trajclust_experiments.tables import Table
from trajclust_jax.records import RecordError, Results, canonical

_WITH_DATA = frozenset({"fingerprint", "seeds", "suited", "maps"})  # what `identity`s add to `essential`s
Grouped = dict[str, dict[str, list[dict[str, Any]]]]  # by dataset and method


def committed() -> Results:
    """The records that come with the project (of a clone; an installed package has none)."""
    return Results(Path(experiments.__file__).parent / "records")


def readable(results: Results, skip: Callable[[str], None] | None = None) -> list[dict[str, Any]]:
    """The stored records that tables can show; `skip` is told of each other one, in a line.

    A record may have its checksum and yet be another program's, without what every record has.

    Raises:
        RecordError: for the first that cannot be shown, where there is no `skip`.
    """
    found = []
    for record in results.all(skip):
        lacking = _lacking(record, _EVERY_RECORD) or _short_of_scores(record)
        if lacking is None:
            found.append(record)
            continue
        line = f"{results.cells}: record {record.get('id')} has no sound {lacking}, as tables need it; move it away"
        if skip is None:
            raise RecordError(line)
        skip(line)
    return found


_NUMBER = (int, float)
_EVERY_RECORD = {
    "id": str,
    "preset": str,
    "cell": {"dataset": str, "method": str, "size": int},
    "scores": dict,
    "timing": {"data_seconds": _NUMBER, "compile_seconds": _NUMBER, "run_seconds": _NUMBER},
    "environment": {
        "device": {"kind": str, "platform": str, "count": int},
        "cpu_count": int,
        "python": str,
        "versions": {"jax": str},
    },
}


def _lacking(found: Any, wanted: Any, name: str = "") -> str | None:
    """The first entry that is not as `wanted`: a type, several, or a dict of such; None where all are there."""
    if not isinstance(wanted, dict):
        return None if isinstance(found, wanted) else name
    if not isinstance(found, dict):
        return name
    deeper = (_lacking(found.get(key), each, f"{name}.{key}".lstrip(".")) for key, each in wanted.items())
    return next(filter(None, deeper), None)


def _short_of_scores(record: dict[str, Any]) -> str | None:
    """The first score that has not a value a seed."""
    seeds = record["cell"].get("seeds", [])
    sound = lambda values: isinstance(values, list) and len(values) >= len(seeds)
    return next((f"scores.{name}" for name, values in record["scores"].items() if seeds and not sound(values)), None)


def stored_cells(table: Table, preset: str, records: Sequence[dict[str, Any]]) -> dict[Cell, dict[str, Any] | None]:
    """A table's cells at a preset, each with its stored record or None; of several seed sets the largest.

    Records of an older version of an algorithm do not count.
    """
    found, by_place = {}, defaultdict(list)
    for record in records:
        by_place[record["cell"]["dataset"], record["cell"]["method"]].append(record)
    for cell in table.cells(table.presets[preset], table.datasets, table.methods, (0,)):
        wanted = cell.essential()
        fitting = [record for record in by_place[cell.dataset, cell.method] if _fits(wanted, record)]
        found[cell] = max(fitting, key=lambda record: (num_seeds(record), record["id"]), default=None)
    return found


def _fits(wanted: dict[str, Any], record: dict[str, Any]) -> bool:
    """Whether a record's cell is the one that is wanted, of which it says more once the data is there."""
    has = essential(record["cell"])
    return wanted.items() <= has.items() and has.keys() - wanted.keys() <= _WITH_DATA


def record_of(cell: Cell, records: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """A cell's stored record, with its very seeds; None where there is none. The data's fingerprint is not asked."""
    wanted = cell.essential()
    for record in records:
        alike = (record["cell"]["dataset"], record["cell"]["method"]) == (cell.dataset, cell.method)
        if alike and tuple(record["cell"].get("seeds", ())) == cell.seeds and _fits(wanted, record):
            return record
    return None


def table_records(table: Table, preset: str, records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The stored records that a table shows at a preset.

    Empty unless something was trained: the oracle alone makes no table.
    """
    chosen = [record for record in stored_cells(table, preset, records).values() if record is not None]
    trained = {record["cell"]["dataset"] for record in chosen if record["cell"]["method"] != ORACLE}
    return [record for record in chosen if record["cell"]["dataset"] in trained]


def with_stored(
    table: Table, preset: str, records: Sequence[dict[str, Any]], stored: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """A run's records and those that earlier runs left of the same table and preset, in the table's order."""
    mine = {cell_key(record): record for record in records}
    shown = {cell_key(record): mine.pop(cell_key(record), record) for record in table_records(table, preset, stored)}
    return [*shown.values(), *mine.values()]


def cell_key(record: dict[str, Any]) -> str:
    """A record's cell, its seeds apart."""
    return canonical({name: value for name, value in record["cell"].items() if name != "seeds"})


def num_seeds(record: dict[str, Any]) -> int:
    """0 for what has none, as an oracle."""
    return len(record["cell"].get("seeds", ()))


def grouped(records: Sequence[dict[str, Any]]) -> Grouped:
    """Records by dataset and method."""
    found: Grouped = defaultdict(lambda: defaultdict(list))
    for record in records:
        found[record["cell"]["dataset"]][record["cell"]["method"]].append(record)
    return found


def answered(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without those of methods that have no answer on their data."""
    return [record for record in records if "not_applicable" not in record]


def of_methods(methods: dict[str, list[dict[str, Any]]]) -> list[tuple[str, dict[str, Any]]]:
    """The records of one dataset that have scores, with their methods' names: methods in order, then ceilings."""
    names = [name for name in (*entries("clusterer"), *entries("ceiling")) if name in methods]
    return [(name, record) for name in names for record in answered(methods[name])]


def oracle_nmi(methods: dict[str, list[dict[str, Any]]]) -> float:
    """The oracle's NMI on one dataset; NaN where its record is missing."""
    return methods[ORACLE][0]["scores"]["nmi"] if ORACLE in methods else float("nan")


def last_of_phase(record: dict[str, Any], phase: str, name: str) -> np.ndarray | None:
    """`[S, R]`: a metric at the end of a phase, for every restart; None if the phase was not run."""
    found = [entry for entry in record["history"] if entry["phase"] == phase]
    return np.array(found[-1][name], float) if found else None
