"""`trajclust sweep`: the missing cells of tables, as tasks of an engine."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from trajclust_experiments import costs
from trajclust_experiments.cells.learners import side_by_side
from trajclust_experiments.cells.runner import key
from trajclust_experiments.commands.expected import print_cells
from trajclust_experiments.commands.given import parsed
from trajclust_experiments.commands.printing import print_json
from trajclust_experiments.commands.run import check_results, results_in, track_table
from trajclust_experiments.launchers import local, on_ray, slurm
from trajclust_experiments.launchers.task import Outcome, Task, failed_log
from trajclust_experiments.progress import Progress
from trajclust_experiments.rendering.markdown import write_text
from trajclust_experiments.rendering.stored import readable, record_of, with_stored
from trajclust_experiments.rendering.tables import write_table
from trajclust_experiments.sweeps import Sweep, missing
from trajclust_experiments.tables import get_table
from trajclust_experiments.usage import UsageError
from trajclust_jax.lazy import lazy
from trajclust_jax.records import Results

yaml = lazy("yaml")


def sweep(
    tables: tuple[str, ...],
    preset: str,
    datasets: tuple[str, ...],
    methods: tuple[str, ...],
    seeds: int | None,
    set: tuple[str, ...],
    only: tuple[str, ...],
    launcher: str,
    jobs: int | None,
    dry_run: bool,
    write_wandb: Path | None,
    results: Path | None,
    track: str,
    json: bool,
    **engine: Any,
) -> int:
    """Computes what is missing and writes the tables; arguments as the command has them. Returns 1 if a cell failed.

    Raises:
        UsageError: for names that are not there, settings that no cell has, fewer jobs or seeds than one.
        DataError: for a results folder that cannot be written.
    """
    for name, value in {"jobs": jobs, **engine}.items():
        if isinstance(value, int | float) and value <= 0:
            raise UsageError(f"--{name.replace('_', '-')} is {value}: it must be above 0")
    asked = Sweep(tables, preset, datasets, methods, seeds, crossed(set))
    stored, progress = results_in(results), Progress()
    tasks = _only(asked.tasks(), only)
    if not dry_run and write_wandb is None:
        check_results(stored)
    records = readable(stored, progress.warn)
    left = _side_by_side(missing(tasks, records), tasks, records)
    if write_wandb is not None:
        if write_wandb.exists() and "\nprogram: trajclust\n" not in write_wandb.read_text(errors="replace"):
            raise UsageError(f"--write-wandb {write_wandb} is another file: remove it, or name another")
        write_text(write_wandb, wandb_sweep(asked, tasks, set, stored, track))
        print(f"{write_wandb}: {len(tasks)} cells; start it with `wandb sweep {write_wandb}`, then agents")
        return 0
    jobs = local.default_jobs() if jobs is None and launcher == "local" else jobs
    expected = dict(zip(left, costs.of_cells([task.cell for task in left], records, local.device_kind()), strict=True))
    text = f": {costs.together(list(expected.values()), jobs or 1)}" if left else ""
    progress.note(f"{len(tasks)} cells, {len(left)} of them missing{text}")
    array = slurm.options(
        minutes=engine["minutes"],
        partition=engine["partition"],
        jobs=jobs or len(left) or 1,
        cpus=engine["cpus_per_cell"],
        gpus=engine["gpus_per_cell"],
        memory_gb=engine["memory_gb"],
    )
    if dry_run:
        print_cells(tasks, {task.cell: cost for task, cost in expected.items()}, json)
        if launcher == "slurm" and left and not json:  # an array of no job has no script
            print(slurm.script(len(left), str(stored.folder), array))
        return 0
    asked.save(stored)
    if launcher == "slurm":
        found = slurm.launch(left, str(stored.folder), track, array) if left else []
        print(f"{len(found)} jobs submitted{f' ({found[0].job_id} ...)' if found else ''}; trajclust status shows them")
        return 0
    if launcher == "ray":
        names = {"address": "address", "cpus": "cpus_per_cell", "gpus": "gpus_per_cell"}
        options = {name: engine[option] for name, option in names.items()}
        given = engine["memory_gb"] and engine["memory_gb"] * 2**30
        memory = lambda task: given or costs.host_bytes(expected[task])
        launch = lambda report: on_ray.launch(left, str(stored.folder), track, report, memory_bytes=memory, **options)
    else:
        launch = lambda report: local.launch(left, str(stored.folder), track, jobs, report)
    failed = _launched(left, launch, progress) if left else {}
    done = [task for task in left if task not in failed]
    comparison = costs.compared([(task.cell, expected[task]) for task in done], readable(stored))
    if comparison:
        progress.note(comparison)
    files = _write(asked, stored, progress, track)
    if json:
        described = [{"table": t.table, "cell": t.cell.title, "reason": o.reason} for t, o in failed.items()]
        print_json({"cells": len(tasks), "computed": len(left) - len(failed), "failed": described, "files": files})
    else:
        for task, outcome in failed.items():
            print(f"failed: {task.table} {task.cell.title}: {outcome.reason}; {failed_log(stored.folder, task.cell)}")
        print("Files: " + ", ".join(files))
    return int(bool(failed))


def _side_by_side(left: Sequence[Task], tasks: Sequence[Task], records: Sequence[dict[str, Any]]) -> list[Task]:
    """The tasks that are left, those that one program can train side by side told so."""
    cells = [task.cell for task in tasks]
    told = dict(zip(cells, side_by_side(cells, lambda cell: record_of(cell, records) is not None), strict=True))
    return [task._replace(cell=told[task.cell]) for task in left]


def _only(tasks: list[Task], only: tuple[str, ...]) -> list[Task]:
    """The tasks with these keys; all without any."""
    found = {key(task.cell): task for task in tasks}
    for name in only:
        if name not in found:
            raise UsageError(f"--only {name}: no cell of this sweep has that key; --dry-run lists them")
    return [found[name] for name in only] if only else tasks


def wandb_sweep(asked: Sweep, tasks: Sequence[Task], settings: tuple[str, ...], stored: Results, track: str) -> str:
    """The YAML of a W&B sweep: a grid over the cells' keys, each of which an agent computes by this very command."""
    command = ["trajclust", "sweep", *asked.tables, "--preset", asked.preset]
    for option, values in {"datasets": asked.datasets, "methods": asked.methods, "set": settings}.items():
        command += [f"--{option}", *values] if values else []
    command += [] if asked.seeds is None else ["--seeds", str(asked.seeds)]
    command += ["--results", str(stored.folder.absolute()), "--jobs", "1"]
    command += ["--track", "online" if track == "off" else track]
    described = {
        "name": f"{' '.join(asked.tables)} {asked.preset}",
        **({"project": project} if (project := os.environ.get("WANDB_PROJECT")) else {}),
        "program": "trajclust",
        "method": "grid",
        "parameters": {"only": {"values": [key(task.cell) for task in tasks]}},
        "command": [*command, "${args}"],
    }
    return yaml.safe_dump(described, sort_keys=False)


def _launched(left: list[Task], launch: Callable[[local.Report], None], progress: Progress) -> dict[Task, Outcome]:
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

        launch(report)
    return failed


def _write(asked: Sweep, stored: Results, progress: Progress, track: str) -> list[str]:
    """Every table as far as it has records."""
    records, files = readable(stored, progress.warn), []
    for name in asked.tables:
        table = get_table(name)
        shown = with_stored(table, asked.preset, [], records)
        if shown:
            text, written = write_table(table, shown, stored.folder / name / asked.preset)
            track_table(track, f"{name} {asked.preset}", text, written, stored)
            files += written
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
        try:
            found[name] = tuple(map(parsed, _parts(text)))
        except ValueError:
            raise UsageError(f"--set {pair}: give numbers, true, false, null, lists [256,256] or words") from None
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
