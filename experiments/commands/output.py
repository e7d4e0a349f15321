"""A command's output folder: it appears whole at the end, and a killed run goes on from what lies beside or in it.

A folder that does not exist yet is made beside its place, in `.<out>.work`, and renamed. One that exists stays the
folder it is, since a mount point cannot be replaced, a link must go on to point at it, and a shell may stand in it: the
work is done in its subfolder `.trajclust.work`, and the results are moved up from there.
"""

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from trajclust_jax.data import DataError
from trajclust_jax.records import Lease

_INSIDE = ".trajclust.work"
_OF_DISKS = "lost+found"  # what an empty disk that is mounted there may hold
# Subfolders of the work folder: results that are being written, that are whole, and whose earlier ones are gone.
_NEW, _WHOLE, _CLEARED = "new", "whole", "cleared"


def resolve_out(out: Path) -> Path:
    """The folder that `out` means: links followed, `~` and `.` resolved."""
    return Path(os.path.realpath(os.path.expanduser(out)))


def check_out(out: Path, outputs: set[str]) -> None:
    """Raises DataError unless `out` can be written: it is new, empty, or an earlier run's, which holds `outputs`."""
    folder = resolve_out(out)
    check_writable(folder, f"--out {out}")
    names = {path.name for path in folder.iterdir()} - {_INSIDE, _OF_DISKS} if folder.exists() else set()
    interrupted = any((work_folder(folder) / name).exists() for name in (_WHOLE, _CLEARED))
    if names and not (names <= outputs and ("summary.json" in names or interrupted)):
        raise DataError(f"--out {out} holds other files: give a new folder")


def check_unread(target: str | os.PathLike, named: str, *sources: str | os.PathLike | None) -> None:
    """Raises DataError where what will be written at `target` replaces a file that the command reads, or its folder.

    `sources` are paths, or datasets as `load` takes them.
    """
    place = os.path.realpath(os.path.expanduser(target))
    for source in filter(None, map(str, (source for source in sources if source is not None))):
        for part in (source, *re.split(r" \+ |:medium=", source)):
            path = os.path.realpath(os.path.expanduser(part))
            if (path == place or path.startswith(os.path.join(place, ""))) and os.path.exists(path):
                raise DataError(f"{named} would replace {part}, which is read: give another place")


def check_writable(folder: Path, named: str) -> None:
    """Raises DataError unless new files can be made in a folder, or it itself in those above it that exist."""
    try:
        if folder.exists() and not folder.is_dir():
            raise DataError(f"{named} is a file: give a folder")
        there = Path(os.path.abspath(folder))
        while not there.exists():
            there = there.parent
    except OSError as error:  # such as a name that is too long
        raise DataError(f"{named} cannot be written: {error.strerror}") from None
    if not there.is_dir():
        raise DataError(f"{named} cannot be written: {there} is a file")
    if not os.access(there, os.R_OK | os.W_OK | os.X_OK):
        raise DataError(f"{named} cannot be written: {there} allows no new files; give another place")


@contextlib.contextmanager
def staged(out: Path, outputs: set[str]) -> Iterator[Path]:
    """Gives a work folder; what its folder `new` holds at the end becomes the content of `out`.

    A process killed anywhere on the way loses nothing: the next one for this `out` goes on in the same work folder, and
    first puts in place what was already whole.

    Raises:
        DataError: where `out` cannot be written, holds other files than `outputs`, or another process is writing it.
    """
    check_out(out, outputs)
    folder = resolve_out(out)
    work = work_folder(folder)
    try:
        work.mkdir(parents=True, exist_ok=True)
        lease = Lease.watch(work / "lease")
    except OSError as error:
        raise DataError(f"--out {out} cannot be written: {error.strerror}") from None
    if lease is None:
        raise DataError(f"--out {out}: another process is writing it; wait for it or give another folder")
    with lease:
        _put_in_place(work, folder, outputs)
        check_out(out, outputs)  # what was put in place may be another command's
        shutil.rmtree(work / _NEW, ignore_errors=True)
        yield work
        (work / _NEW).rename(work / _WHOLE)
        _put_in_place(work, folder, outputs)
    shutil.rmtree(work, ignore_errors=True)


def work_folder(folder: Path) -> Path:
    """Where the work for a resolved `out` is done, until that is whole."""
    return folder / _INSIDE if folder.is_dir() else folder.with_name(f".{folder.name}.work")


def _put_in_place(work: Path, folder: Path, outputs: set[str]) -> None:
    """Whole results replace `outputs` in `folder`, from wherever an earlier process was killed on the way.

    summary.json goes first and comes last: a folder that has one is whole.
    """
    whole, cleared = work / _WHOLE, work / _CLEARED
    if whole.exists() and not folder.exists():
        whole.rename(folder)
    elif whole.exists():
        for name in sorted(outputs, key=lambda name: name != "summary.json"):
            path = folder / name
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
        whole.rename(cleared)
    if cleared.exists():
        for path in sorted(cleared.iterdir(), key=lambda path: path.name == "summary.json"):
            path.rename(folder / path.name)
        cleared.rmdir()
