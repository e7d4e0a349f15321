"""A command's output folder: it appears whole at the end, and a killed run goes on from what lies beside it."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from trajclust_jax.data import DataError
from trajclust_jax.records import Lease


def check_out(out: Path, outputs: set[str]) -> None:
    """Raises DataError unless `out` can be written: it is new, empty, or an earlier run's, which holds `outputs`."""
    if out.exists() and not out.is_dir():
        raise DataError(f"--out {out} is a file: give a folder")
    names = {path.name for path in out.iterdir()} if out.is_dir() else set()
    if names and not ("summary.json" in names and names <= outputs):
        raise DataError(f"--out {out} holds other files: give a new folder")


@contextlib.contextmanager
def staged(out: Path) -> Iterator[Path]:
    """Gives `.<out>.work` beside `out`; what its folder `new` holds at the end becomes `out`.

    Raises:
        DataError: where it cannot be written, or another process is writing it.
    """
    out = Path(os.path.abspath(out))
    work = out.with_name(f".{out.name}.work")
    try:
        work.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"--out {out} cannot be written: {error.strerror}") from None
    lease = Lease.acquire(work / "lease")
    if lease is None:
        raise DataError(f"--out {out}: another process is writing it; wait for it or give another folder")
    with lease:
        _finish_interrupted_swap(work, out)
        yield work
        if out.exists():
            out.rename(work / "old")
        (work / "new").rename(out)
    shutil.rmtree(work)


def _finish_interrupted_swap(work: Path, out: Path) -> None:
    """A process killed while it put its results in place: the earlier ones come back, halves go."""
    if (work / "old").exists() and not out.exists():
        (work / "old").rename(out)
    for name in ("old", "new"):
        shutil.rmtree(work / name, ignore_errors=True)
