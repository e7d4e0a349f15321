"""Large files that were read once are kept as .npz, and read from there the next time."""

import hashlib
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path

from trajclust_jax.data.hdf5 import stands_alone
from trajclust_jax.data.metadata import FORMAT
from trajclust_jax.data.npz import load_npz, save_npz
from trajclust_jax.data.types import DataError, Dataset

log = logging.getLogger(__name__)
CACHE_BYTES = 2**25  # smaller files are read in no time
_READING = 4  # raise it when a reader's result changes


def user_path(path: str | os.PathLike) -> Path | None:
    """The path with a leading `~` replaced; None where there is no such home, as in a container without a user."""
    expanded = os.path.expanduser(path)
    return None if str(expanded).startswith("~") else Path(expanded)


def cache_folder() -> Path | None:
    """`$TRAJCLUST_CACHE`, by default ~/.cache/trajclust; None if it is empty, or if there is no home folder."""
    given = os.environ.get("TRAJCLUST_CACHE", "~/.cache/trajclust")
    return user_path(given) if given else None


def cached(source: str, files: list[Path], read: Callable[[], Dataset]) -> Dataset:
    """The dataset that `read` reads from `files`; from the cache, if it was read before and the files have not
    changed. What is in other files, to which HDF5 files may lead, is read each time."""
    stats = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    folder = cache_folder()
    if folder is None or sum(size for _, size, _ in stats) < CACHE_BYTES:
        return read()
    key = hashlib.sha256(json.dumps([FORMAT, _READING, source, stats]).encode()).hexdigest()
    kept = folder / f"{key[:32]}.npz"
    if kept.is_file():
        try:
            return load_npz(kept)
        except DataError as error:
            log.warning("reading %s again: %s", source, error)
    dataset = read()
    if not all(stands_alone(file) for file in files):
        return dataset  # the key would not change with the other files
    try:
        save_npz(dataset, kept)
    except OSError as error:
        log.warning("cannot be cached: %s", error)
    return dataset
