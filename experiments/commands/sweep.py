"""`trajclust sweep`: the missing cells of tables, as tasks of an engine."""

import json as json_module
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from trajclust_experiments.commands import UsageError
from trajclust_experiments.commands.printing import print_json
from trajclust_experiments.commands.run import results_in
from trajclust_experiments.launchers import local
from trajclust_experiments.launchers.task import Outcome, Task, failed_log
from trajclust_experiments.progress import Progress
from trajclust_experiments.rendering.stored import readable, with_stored
from trajclust_experiments.rendering.tables import write_table
from trajclust_experiments.sweeps import Sweep, missing
from trajclust_experiments.tables import get_table
from trajclust_jax.records import Results


def sweep(
    tables: tuple[str, ...],
    preset: str,
    datasets: tuple[str, ...],
    methods: tuple[str, ...],
    seeds: int | None,
    set: tuple[str, ...],
    launcher: str,
    jobs: int | None,
    dry_run: bool,
    results: Path | None,
    track: str,
    json: bool,
) -> int:
    """Computes what is missing and writes the tables; arguments as the command has them. Returns 1 if a cell failed.

    Raises:
        UsageError: for names that are not there, settings that no cell has, fewer jobs or seeds than one.
    """
    if jobs is not None and jobs < 1:
        raise UsageError(f"--jobs is {jobs}: at least 1 is needed")
    asked = Sweep(tables, preset, datasets, methods, seeds, crossed(set))
    stored, progress = results_in(results), Progress()
    tasks = asked.tasks()
    left = missing(tasks, readable(stored, progress.warn))
    jobs = local.default_jobs() if jobs is None else jobs
    progress.note(f"{len(tasks)} cells, {len(left)} of them missing; {min(jobs, max(1, len(left)))} at a time")
    if dry_run:
        for task in tasks:
            print(f"{'missing' if task in left else 'stored '}  {task.table}  {task.cell.title}")
        return 0
    asked.save(stored)
    failed = _launched(left, stored, track, jobs, progress) if left else {}
    files = _write(asked, stored, progress)
    if json:
        described = [{"table": t.table, "cell": t.cell.title, "reason": o.reason} for t, o in failed.items()]
        print_json({"cells": len(tasks), "computed": len(left) - len(failed), "failed": described, "files": files})
    else:
        for task, outcome in failed.items():
            print(f"failed: {task.table} {task.cell.title}: {outcome.reason}; {failed_log(stored.folder, task.cell)}")
        print("Files: " + ", ".join(files))
    return int(bool(failed))


def _launched(left: list[Task], stored: Results, track: str, jobs: int, progress: Progress) -> dict[Task, Outcome]:
    """Performs tasks, showing how many are done; those that failed."""
    failed: dict[Task, Outcome] = {}
    columns = (TextColumn("{task.description}"), BarColumn(20), MofNCompleteColumn(), TimeElapsedColumn())
    with Bars(*columns, console=progress.console, disable=not progress.console.is_terminal) as bars:
        bar, count = bars.add_task("cells", total=len(left)), 0

        def report(task: Task, outcome: Outcome) -> None:
            nonlocal count
            count += 1
            bars.advance(bar)
            where = f"[{count}/{len(left)}] {task.table} {task.cell.title}"
            if outcome.state == "failed":
                failed[task] = outcome
                progress.warn(f"{where} failed: {outcome.reason}")
            else:
                progress.note(f"{where}: done in {outcome.seconds:.0f} s")

        local.launch(left, str(stored.folder), track, jobs, report)
    return failed


def _write(asked: Sweep, stored: Results, progress: Progress) -> list[str]:
    """Every table as far as it has records."""
    records, files = readable(stored, progress.warn), []
    for name in asked.tables:
        table = get_table(name)
        shown = with_stored(table, asked.preset, [], records)
        if shown:
            files += write_table(table, shown, stored.folder / name / asked.preset)[1]
    return [str(file) for file in files]


def crossed(pairs: tuple[str, ...]) -> tuple[tuple[str, tuple[Any, ...]], ...]:
    """`name=v1,v2` as names with their values; a value is JSON, or a word. Lists have brackets.

    Raises:
        UsageError: for what is no pair, or a name that is given twice.
    """
    found: dict[str, tuple[Any, ...]] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name or not text:
            raise UsageError(f"--set {pair}: give name=value, or several values with commas between them")
        if name in found:
            raise UsageError(f"--set {name} is given twice: give all its values after one, {name}=A,B")
        found[name] = tuple(_value(part) for part in _parts(text))
    return tuple(found.items())


def _parts(text: str) -> list[str]:
    """Split at commas outside brackets."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "[(") - (character in "])")
        if character == "," and not depth:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def _value(text: str) -> Any:
    try:
        value = json_module.loads(text)
    except ValueError:
        return text
    return _tuples(value)


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
