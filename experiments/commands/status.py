"""`trajclust status`: which cells of the sweeps in a results folder are done, running, failed, waiting."""

import datetime
import json as json_module
import time
from pathlib import Path
from typing import Any

from rich.live import Live
from rich.table import Table as Grid
from rich.text import Text

from trajclust_experiments.cells.runner import key, progress_file
from trajclust_experiments.commands.printing import print_json
from trajclust_experiments.commands.run import results_in
from trajclust_experiments.launchers.task import failed_log
from trajclust_experiments.progress import Progress
from trajclust_experiments.rendering.stored import readable, record_of
from trajclust_experiments.sweeps import saved
from trajclust_experiments.usage import UsageError
from trajclust_jax.records import Results

REFRESH_SECONDS = 2.0
LINES = 3  # of a failure's log
STATES = ("done", "running", "failed", "waiting")


def status(results: Path | None, watch: bool, json: bool) -> int:
    """Prints where the cells are; arguments as the command has them. Returns 1 where one has failed.

    Raises:
        UsageError: no such folder.
    """
    if results is not None and not results.is_dir():
        raise UsageError(f"--results {results} is no folder: give that of a run or a sweep")
    stored, progress = results_in(results), Progress()
    if not watch:
        found = state_of(stored, progress)
        print_json(found) if json else _print(found)
        return int(any(cell["state"] == "failed" for cell in found["cells"]))
    quiet, ids = Progress(quiet=True), None
    with Live(refresh_per_second=1, screen=False) as live:
        while True:
            if ids != stored.ids():  # reading all records takes longer than the pause between two looks
                ids, records = stored.ids(), readable(stored, quiet.warn)
            found = state_of(stored, quiet, records)
            live.update(_grid(found))
            if not any(cell["state"] in ("running", "waiting") for cell in found["cells"]):
                return int(any(cell["state"] == "failed" for cell in found["cells"]))
            time.sleep(REFRESH_SECONDS)


def state_of(stored: Results, progress: Progress, records: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """Every cell that a sweep asked for, or that is running, with its state; and the counts by table.

    `records` are the stored ones, where they have been read.
    """
    records = readable(stored, progress.warn) if records is None else records
    running = _running(stored)
    cells: dict[str, dict[str, Any]] = {}
    for tasks in saved(stored, progress.warn):
        for task in tasks:
            name = key(task.cell)
            if name in cells:
                continue
            entry = {"key": name, "table": task.table, "preset": task.preset, "cell": task.cell.title}
            failed = failed_log(stored.folder, task.cell)
            if record_of(task.cell, records) is not None:
                entry["state"] = "done"
            elif name in running:
                entry |= {"state": "running", **running[name]}
            elif failed.exists():
                lines = failed.read_text(errors="replace").strip().splitlines()[-LINES:]
                entry |= {"state": "failed", "log": str(failed), "lines": lines}
            else:
                entry["state"] = "waiting"
            cells[name] = entry
    for name, note in running.items():  # of plain runs
        cells.setdefault(name, {"key": name, "table": "", "cell": note["title"], "state": "running", **note})
    found = list(cells.values())
    counts: dict[str, dict[str, int]] = {}
    for cell in found:
        of_table = counts.setdefault(cell["table"], dict.fromkeys(STATES, 0))
        of_table[cell["state"]] += 1
    return {"tables": counts, "cells": found}


def _running(stored: Results) -> dict[str, dict[str, Any]]:
    """By key: how far the cells are that a live process computes."""
    found = {}
    for path in (stored.folder / "work").glob("[!.]*.json"):
        try:
            note = json_module.loads(path.read_text())
        except (OSError, ValueError):
            continue
        if progress_file(stored, path.stem) == path and stored.held(path.stem):
            found[note["key"]] = note | {"expected_end": _expected_end(note)}
    return found


def _expected_end(note: dict[str, Any]) -> str | None:
    """When a cell will be done if its iterations go on as fast as so far; None before it can be said."""
    first = note.get("first")
    if note["total"] is None or first is None or note["done"] <= first:
        return None
    left = (note["total"] - note["done"]) * (note["time"] - note["since"]) / (note["done"] - first)
    return datetime.datetime.fromtimestamp(note["time"] + left).isoformat(timespec="seconds")


def _grid(found: dict[str, Any]) -> Grid:
    grid = Grid(box=None, pad_edge=False)
    for name in ("state", "table", "cell"):
        grid.add_column(name)
    styles = {"done": "green", "running": "cyan", "failed": "red", "waiting": "dim"}
    for name, counts in found["tables"].items():
        shown = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
        grid.add_row(Text("table", style="bold"), Text(name or "plain runs"), Text(shown))
    for cell in found["cells"]:
        if cell["state"] in ("running", "failed"):
            grid.add_row(Text(cell["state"], style=styles[cell["state"]]), Text(cell["table"]), Text(_line(cell)))
    return grid


def _line(cell: dict[str, Any]) -> str:
    """A running or failed cell, in a line."""
    if cell["state"] == "failed":
        return f"{cell['cell']}: {cell['lines'][-1] if cell['lines'] else 'no log'} ({cell['log']})"
    since = datetime.datetime.fromtimestamp(cell["since"]).strftime("%H:%M")
    end = cell["expected_end"]
    until = f", expected end {end[11:16]}" if end else ""
    where = f"{cell['phase']} {cell['iteration']}/{cell['budget']}"
    return f"{cell['cell']}: {where}, since {since} on {cell['host']} (process {cell['pid']}){until}"


def _print(found: dict[str, Any]) -> None:
    """The same as plain text."""
    if not found["cells"]:
        print("nothing was swept here, and nothing runs: trajclust sweep TABLE")
    for name, counts in found["tables"].items():
        shown = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
        print(f"{name or 'plain runs'}: {shown}")
    for cell in found["cells"]:
        if cell["state"] in ("running", "failed"):
            print(f"  {cell['state']}: {cell['table']} {_line(cell)}")
