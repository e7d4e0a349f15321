"""`trajclust report`: pages of every table that has records."""

from pathlib import Path

from trajclust_experiments.commands.output import check_writable
from trajclust_experiments.commands.printing import print_json
from trajclust_experiments.commands.run import results_in
from trajclust_experiments.progress import Progress
from trajclust_experiments.rendering.report import FILES, INDEX, write_report
from trajclust_experiments.usage import UsageError


def report(results: Path | None, out: Path, json: bool) -> None:
    """Writes the report of a results folder, and prints what was written.

    Raises:
        UsageError: for a folder without records.
    """
    stored = results_in(results)
    if not stored.ids():
        raise UsageError(f"{stored.folder} holds no records: run a table first, e.g. trajclust run pgkmeans/table1")
    check_writable(out, f"--out {out}")
    page = out / INDEX
    if not (page.is_file() and b"trajclust" in page.read_bytes().lower()):
        foreign = [name for name in FILES if (out / name).exists()]
        if foreign:
            raise UsageError(f"--out {out} has a {foreign[0]} that is no report of trajclust: give a new folder")
    written = write_report(stored, out, Progress().warn)
    if json:
        return print_json({"out": str(out), "page": str(page), "tables": written})
    for entry in written:
        print(f"{entry['table']} ({entry['preset']}): {entry['files'][0]}")
    print(f"Report: {page}")
    return None
