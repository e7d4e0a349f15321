"""`trajclust run`: a table's missing cells, then the table of all that is finished."""

import os
from pathlib import Path
from typing import Any

import jax

from trajclust_experiments import costs
from trajclust_experiments.cells.runner import run_cells
from trajclust_experiments.commands.expected import Schedule, print_cells
from trajclust_experiments.commands.output import check_writable
from trajclust_experiments.commands.printing import print_json, print_markdown
from trajclust_experiments.launchers.local import device_kind
from trajclust_experiments.launchers.task import Task
from trajclust_experiments.progress import Progress
from trajclust_experiments.rendering.markdown import table_of
from trajclust_experiments.rendering.overview import record_figures
from trajclust_experiments.rendering.stored import readable, record_of, with_stored
from trajclust_experiments.rendering.tables import write_table
from trajclust_experiments.tables import get_table, select
from trajclust_experiments.usage import UsageError
from trajclust_jax.devices import leads
from trajclust_jax.records import Results
from trajclust_jax.tracking import log_table


def run_table(
    table: str,
    preset: str,
    datasets: tuple[str, ...],
    methods: tuple[str, ...],
    seeds: int | None,
    dry_run: bool,
    results: Path | None,
    track: str,
    hosts: str | None,
    json: bool,
) -> None:
    """Computes what is missing of a table, and writes and prints the table; arguments as the command has them.

    Raises:
        UsageError: for names that are not there, or fewer seeds than one.
        DataError: for a results folder that cannot be written.
    """
    try:
        found = get_table(table)
        datasets = select(datasets, found.datasets, "dataset")
        methods = select(methods, found.methods, "method")
    except ValueError as error:
        raise UsageError(str(error)) from None
    if preset not in found.presets:
        raise UsageError(f"unknown preset {preset!r}: choose one of {', '.join(found.presets)}")
    scale, numbers = found.presets[preset].seeded(seeds)
    cells, stored = found.cells(scale, datasets, methods, numbers), results_in(results)
    if not dry_run:
        join(hosts)
        check_results(stored)
    progress, track = Progress(quiet=not leads()), track if leads() else "off"
    there = readable(stored, progress.warn if dry_run else None)
    left = [cell for cell in dict.fromkeys(cells) if record_of(cell, there) is None]
    expected = dict(zip(left, costs.of_cells(left, there, device_kind()), strict=True))
    text = f": {costs.together(list(expected.values()), 1)}" if left else ""
    progress.note(f"{len(set(cells))} cells, {len(left)} of them missing{text}")
    if dry_run:
        return print_cells([Task(table, preset, cell) for cell in dict.fromkeys(cells)], expected, json)
    shared = {"preset": preset, "track": track, "tags": [f"table:{table}"], "progress": progress}
    records = run_cells(cells, stored, begins=Schedule(expected, progress.note).begins, draw=record_figures, **shared)
    if not leads():
        return None
    shown = with_stored(found, preset, records, readable(stored, progress.warn))
    text, files = write_table(found, shown, stored.folder / table / preset)
    track_table(track, f"{table} {preset}", text, files, stored)
    if json:
        scores = [{"id": r["id"], **r["cell"], "scores": r["scores"], "timing": r["timing"]} for r in records]
        return print_json({"table": table, "files": [str(file) for file in files], "records": scores})
    print_markdown(text)
    print("Files: " + ", ".join(str(file) for file in files))
    return None


def join(hosts: str | None) -> None:
    """Makes this process one of several with one program; `hosts` as the command has it, None: it is alone.

    Raises:
        UsageError: for hosts that cannot be read, or are not there.
    """
    if hosts is None:
        return
    arguments: dict[str, Any] = {}
    if hosts != "auto":
        try:
            address, number, index = hosts.split(",")
            arguments = {"coordinator_address": address, "num_processes": int(number), "process_id": int(index)}
            if ":" not in address or not 0 <= int(index) < int(number):
                raise ValueError
        except ValueError:
            raise UsageError(f"--hosts is {hosts!r}: give auto, or COORDINATOR:PORT,NUMBER,INDEX") from None
    try:
        jax.distributed.initialize(**arguments, heartbeat_timeout_seconds=30)
    except (RuntimeError, ValueError) as error:
        raise UsageError(f"--hosts {hosts}: {' '.join(str(error).split())[:300]}") from None


def track_table(track: str, name: str, text: str, files: list[Path], stored: Results) -> None:
    """A table as W&B shows it, with its figures, where runs are tracked."""
    if track != "off":
        header, rows = table_of(text)
        log_table(track, name, header, rows, files[1:], directory=stored.folder, tags=[f"table:{name.split()[0]}"])


def results_in(folder: Path | None) -> Results:
    """The results folder; by default `$TRAJCLUST_RESULTS`, else `results`."""
    return Results(os.environ.get("TRAJCLUST_RESULTS", "results") if folder is None else folder)


def check_results(stored: Results) -> None:
    """Raises DataError unless the results folder can be written, by the process that writes it."""
    if leads():
        check_writable(stored.folder, f"--results {stored.folder}")
