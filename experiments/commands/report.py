"""`trajclust report`: pages of every table that has records."""

from pathlib import Path

from trajclust_experiments.commands.output import check_writable
from trajclust_experiments.commands.printing import print_json
from trajclust_experiments.commands.run import results_in
from trajclust_experiments.progress import Progress
from trajclust_experiments.rendering.report import INDEX, in_the_way, write_report
from trajclust_experiments.usage import UsageError


def report(results: Path | None, out: Path, json: bool) -> None:
    """Writes the report of a results folder, and prints what was written.

    Raises:
        UsageError: for a folder without records, an `out` with files that are no report's.
    """
    stored = results_in(results)
    if not stored.ids():
        raise UsageError(f"{stored.folder} holds no records: run a table first, e.g. trajclust run pgkmeans/table1")
    check_writable(out, f"--out {out}")
    foreign, page = in_the_way(out), out / INDEX
    if foreign is not None:
        raise UsageError(f"--out {out} has a {foreign} that is no report of trajclust: give a new folder")
    written = write_report(stored, out, Progress().warn)
    if json:
        return print_json({"out": str(out), "page": str(page), "tables": written})
    for entry in written:
        print(f"{entry['table']} ({entry['preset']}): {entry['files'][0]}")
    print(f"Report: {page}")
    return None
