"""Compiled programs are kept on disk for the next process: JAX's persistent compilation cache, safe to leave on.

JAX writes an entry in place, and only once: what a kill cut short, or a disk damaged, is warned of for ever. Here
entries are written whole or not at all, have a digest, and are compiled and written anew where it does not match.
"""

import contextlib
import hashlib
import logging
import os
import platform
import tempfile
from pathlib import Path

import jax
import jaxlib
from jax._src import compilation_cache
from jax._src.compilation_cache_interface import CacheInterface

from trajclust_jax.data.cache import cache_folder, user_path

log = logging.getLogger(__name__)
LIMIT = 2**30  # bytes; what was not used for longest goes first
_ALLOWED, _HELD = Path("/proc/sys/vm/max_map_count"), Path("/proc/self/maps")  # Linux's
_MOST_MAPS = 10_000  # of programs that take 2.5 GB
_DIGEST = hashlib.sha256().digest_size


class _Entries(CacheInterface):
    """A folder of compiled programs, shared by any number of processes. What goes wrong with it is a slow start."""

    def __init__(self, folder: str):
        self._path = Path(folder)

    def get(self, key: str) -> bytes | None:
        """An entry, or None where there is none, or no sound one."""
        path = self._path / key
        try:
            kept = path.read_bytes()
        except OSError:
            return None
        if hashlib.sha256(kept[_DIGEST:]).digest() != kept[:_DIGEST]:
            log.warning("compiling again what was kept in a damaged file, %s", path)
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        return kept[_DIGEST:]

    def put(self, key: str, value: bytes) -> None:
        """Keeps an entry; a full disk or a folder that cannot be written keeps none."""
        written = None
        try:
            with tempfile.NamedTemporaryFile(dir=self._path, delete=False) as file:
                written = Path(file.name)
                file.write(hashlib.sha256(value).digest() + value)
            written.replace(self._path / key)
        except OSError as error:
            log.debug("a compiled program is not kept: %s", error)
            if written is not None:
                with contextlib.suppress(OSError):
                    written.unlink()


def enable(folder: Path | None = None) -> Path | None:
    """Keeps what this process compiles, and takes what others have kept; to be called before the first compilation.

    `TRAJCLUST_COMPILE_CACHE=off` turns it off. A cache that JAX has been told of (`JAX_COMPILATION_CACHE_DIR`) is left
    alone.

    Args:
        folder: where; by default `$TRAJCLUST_COMPILE_CACHE`, or `compiled` in the cache folder. Programs are machine
            code: each kind of machine and version of JAX has a folder of its own in it, which its owner alone can open.

    Returns:
        Where programs are kept, or None.
    """
    chosen = os.environ.get("TRAJCLUST_COMPILE_CACHE", "")
    if chosen == "off" or jax.config.jax_compilation_cache_dir is not None:
        return None
    if folder is None:
        folder = user_path(chosen) if chosen else cache_folder()
        if folder is None:
            return None
        folder = folder if chosen else folder / "compiled"
    folder = folder / hashlib.sha256("\n".join(_machine()).encode()).hexdigest()[:16]
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _discard(folder)
    except OSError as error:
        log.warning("compiled programs are not kept for the next time: %s", error)
        return None
    compilation_cache.get_file_cache = lambda path: (_Entries(path), path)
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    return folder


def _discard(folder: Path) -> None:
    """Deletes the entries that were not used for longest, until those that are left take less than LIMIT."""
    entries, total = [], 0
    for path in folder.iterdir():
        with contextlib.suppress(OSError):  # another process may discard it, too
            entries.append((path.stat().st_mtime, path.stat().st_size, path))
    for _, size, path in sorted(entries, reverse=True):
        total += size
        if total > LIMIT:
            with contextlib.suppress(OSError):
                path.unlink()


def release() -> None:
    """Forgets this process's compiled programs once they take gigabytes, which their number of memory maps tells.

    Jitted functions keep their programs, a score of maps each: 100 MB a cell of a long sweep. Of half as many maps as
    Linux allows a process, too, for XLA aborts where it is refused one. What is needed again comes from the folder.
    """
    try:
        allowed, held = int(_ALLOWED.read_bytes()), _HELD.read_bytes().count(b"\n")
    except OSError:  # another system than Linux
        return
    if held > min(allowed / 2, _MOST_MAPS):
        log.debug("forgetting compiled programs: %d of %d memory maps are held", held, allowed)
        jax.clear_caches()


def _machine() -> list[str]:
    """What machine code is for: JAX's key of a program does not name the processor's instructions."""
    flags = platform.processor()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        flags = next((line for line in lines if line.startswith(("flags", "Features"))), flags)
    return [jax.__version__, jaxlib.__version__, platform.machine(), flags]
