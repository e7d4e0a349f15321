"""Result records: one JSON file a cell, written whole or not at all, and the leases that keep cells apart.

    folder/cells/<id>.json     a finished cell, with a checksum
    folder/cells/<id>.npz      arrays that it keeps for others, where it has some; their checksum is in the record
    folder/cells/<id>.lease    the process that computes it now
    folder/work/<id>/          its checkpoints

Importing this costs nothing: jax is only loaded by `environment`, NumPy where there are arrays.
"""

import contextlib
import datetime
import errno
import fcntl
import hashlib
import importlib.metadata
import io
import json
import math
import os
import platform
import re
import socket
import threading
import time
import uuid
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from trajclust_jax import __version__

if TYPE_CHECKING:
    import numpy as np

SCHEMA = 1  # of a record's keys; raise it when a reader of the old ones must not read the new ones
_VERSIONS_OF = ("jax", "jaxlib", "flax", "optax", "numpy")
_ID = r"[A-Za-z0-9][A-Za-z0-9_.-]*"
_NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP)  # what file systems without hard links say
_LEFTOVER_SECONDS = 3600.0  # a temporary file this old belongs to a process that was killed


class RecordError(RuntimeError):
    """A record that cannot be trusted. The message is one line: the file, and what to do."""


def plain(value: Any, *, finite: bool = False) -> Any:
    """`value` as plain JSON: NumPy and jax values become numbers and lists, tuples lists, keys strings.

    JSON has no NaN and no infinity: they become null, or with `finite=True` raise ValueError.
    Raises TypeError for what has no place in JSON.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if math.isfinite(value):
            return float(value)
        if finite:
            raise ValueError(f"{value} has no canonical form: give a finite number")
        return None
    if isinstance(value, dict):
        return {str(key): plain(item, finite=finite) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, finite=finite) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):  # NumPy arrays and scalars, jax arrays
        return plain(value.tolist(), finite=finite)
    raise TypeError(f"a {type(value).__name__} cannot be stored as JSON: {value!r}")


def tuples(value: Any) -> Any:
    """A JSON value with its lists as tuples, as settings have them."""
    return tuple(map(tuples, value)) if isinstance(value, list) else value


def canonical(value: Any) -> str:
    """The one JSON text of a value: sorted keys, floats by repr. Raises ValueError for NaN and infinities."""
    return json.dumps(plain(value, finite=True), sort_keys=True, separators=(",", ":"), allow_nan=False)


def cell_id(identity: dict[str, Any]) -> str:
    """16 hex digits that name a cell: the same for equal identities, on every machine."""
    return _sha256(identity)[:16]


def comparable(record: dict[str, Any]) -> dict[str, Any]:
    """What two runs of one cell must agree on: all but checksum, schema and every `timing` and `environment`."""

    def strip(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: strip(item) for key, item in value.items() if key not in ("timing", "environment")}
        return [strip(item) for item in value] if isinstance(value, list) else value

    return strip({key: value for key, value in record.items() if key not in ("checksum", "schema")})


def environment() -> dict[str, Any]:
    """When a record was made (UTC, ISO 8601), on what machine, with which libraries and flags of the compiler."""
    import jax

    devices = jax.devices()
    versions = {name: importlib.metadata.version(name) for name in _VERSIONS_OF}
    return {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": {"kind": devices[0].device_kind, "platform": devices[0].platform, "count": len(devices)},
        "cpu_count": len(os.sched_getaffinity(0)),  # the cores that this process may use
        "python": platform.python_version(),
        "versions": {**versions, "trajclust_jax": __version__},
        "xla_flags": os.environ.get("XLA_FLAGS", ""),  # some round otherwise
    }


class Results:
    """The results folder. Several processes, on several hosts, may use one at the same time."""

    def __init__(self, folder: str | os.PathLike):
        self.folder = Path(folder)
        self.cells = self.folder / "cells"

    def write(self, id: str, record: dict[str, Any], arrays: "Mapping[str, np.ndarray] | None" = None) -> Path:
        """Stores a finished cell, replacing an earlier record. A reader sees the old or the new one, never a part."""
        self.cells.mkdir(parents=True, exist_ok=True)
        _sweep(self.cells)
        if arrays:
            import numpy as np

            content = io.BytesIO()
            np.savez_compressed(content, **arrays)
            _write_whole(self._path(id, "npz"), content.getvalue())
            record = {**record, "arrays": _digest(arrays)}
        body = plain({"schema": SCHEMA, **{key: value for key, value in record.items() if key != "checksum"}})
        path = self._path(id, "json")
        _write_whole(path, (_pretty({**body, "checksum": _sha256(body)}) + "\n").encode())
        return path

    def read(self, id: str) -> dict[str, Any] | None:
        """The record of a cell; None where it is not finished.

        Raises RecordError where it is damaged, is of another schema or cell, or cannot be read.
        """
        path = self._path(id, "json")
        try:
            record = json.loads(path.read_bytes())
            body = {key: value for key, value in record.items() if key != "checksum"}
            sound = record.get("checksum") == _sha256(body)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RecordError(f"{path}: cannot be read ({error.strerror})") from None
        except (ValueError, AttributeError, RecursionError):  # not JSON, not UTF-8, not an object
            sound = False
        if not sound:
            raise RecordError(f"{path}: damaged record (its checksum does not match); delete it to compute it again")
        if record.get("schema", 1) != SCHEMA:  # the first records have no number
            raise RecordError(
                f"{path}: a record of schema {record['schema']}, this version reads {SCHEMA}; "
                "update trajclust, or move it away to compute it again"
            )
        if record.get("id", id) != id:
            raise RecordError(f"{path}: the record of cell {record['id']}; give the file that name")
        return record

    def arrays(self, id: str) -> "dict[str, np.ndarray] | None":
        """What a finished cell keeps beside its record; None where it keeps nothing, or its file is gone.

        Raises RecordError where the file is not the one that was written with the record.
        """
        import numpy as np

        record, path = self.read(id), self._path(id, "npz")
        if record is None or "arrays" not in record or not path.exists():
            return None
        try:
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as stored:
                arrays = dict(stored)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error):
            arrays = {}
        if _digest(arrays) != record["arrays"]:
            raise RecordError(f"{path}: damaged (its checksum does not match); delete it to compute it again")
        return arrays

    def ids(self) -> list[str]:
        """The finished cells, sorted. Files that no cell can be named like, such as copies, are not among them."""
        return sorted(path.stem for path in self.cells.glob("[!.]*.json") if re.fullmatch(_ID, path.stem))

    def all(self, skip: Callable[[str], None] | None = None) -> list[dict[str, Any]]:
        """All records, sorted by id.

        `skip` is told, in one line each, of those that cannot be read; without it they raise RecordError.
        """
        found = []
        for id in self.ids():
            try:
                record = self.read(id)
            except RecordError as error:
                if skip is None:
                    raise
                skip(str(error))
            else:
                found += [] if record is None else [record]
        return found

    def work(self, id: str) -> Path:
        """Where the cell keeps its checkpoints. Not created here."""
        return self.folder / "work" / _checked(id)

    def lease(self, id: str, *, heartbeat: float = 5.0, stale_after: float = 60.0) -> "Lease | None":
        """The right to compute a cell; None while another live process has it. See `Lease`."""
        self.cells.mkdir(parents=True, exist_ok=True)
        return Lease.acquire(self._path(id, "lease"), heartbeat=heartbeat, stale_after=stale_after)

    def held(self, id: str, fresh: float = 60.0) -> bool:
        """Whether a process computes a cell: it lives, or, on another machine, its lease was touched lately."""
        path = self._path(id, "lease")
        seen = _look(path)
        if seen is None:
            return False
        lives = _holder_lives(seen)
        return time.time() - seen.mtime_ns / 1e9 < fresh if lives is None else lives

    def _path(self, id: str, suffix: str) -> Path:
        return self.cells / f"{_checked(id)}.{suffix}"


class _Seen(NamedTuple):
    """A lease file at one moment. Two that are equal show the same file without a heartbeat between."""

    inode: int
    mtime_ns: int
    content: bytes


class Lease:
    """The sole right to something, held by a file that this process keeps fresh.

    A lease is stale when whoever asks for it again and again saw its file unchanged for `stale_after` seconds or, seen
    from the same machine, when its process is gone; then the next one who asks takes it. Clocks play no part: those of
    two hosts may differ. A holder that slept through that (a suspended laptop) finds `lost` True and must throw its
    work away.

    Two things make taking over safe. Where the file system has locks, deciding and taking is one critical section.
    Where it has none, a stale file is renamed away, and given back if it turns out not to be the one judged stale;
    then three processes within the same milliseconds could still make two believe they hold it, until `lost` tells.
    """

    def __init__(self, path: Path, content: bytes, heartbeat: float):
        self._path, self._content, self._heartbeat = path, content, heartbeat
        self._taken, self._stop = False, threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"lease {path.name}", daemon=True)
        self._thread.start()

    @classmethod
    def acquire(cls, path: Path, *, heartbeat: float = 5.0, stale_after: float = 60.0) -> Self | None:
        """The lease, or None while another live process, or another holder in this one, has it."""
        if not 0 < heartbeat < stale_after:
            raise ValueError(f"heartbeat must lie between 0 and stale_after, got {heartbeat} and {stale_after}")
        token, pid = uuid.uuid4().hex, os.getpid()
        holder = {"token": token, "pid": pid, "started": process_started(pid), "host": _host(), "time": time.time()}
        content = json.dumps(holder).encode()
        # Where it can, the file appears under its name complete, by a link, so nobody sees an empty lease.
        claim = path.with_name(f".{path.name}.{token}.tmp")
        claim.write_bytes(content)
        try:
            with _critical_section(path.parent) as entered:
                held = entered and _claim(claim, path, stale_after)
        finally:
            claim.unlink(missing_ok=True)
        return cls(path, content, heartbeat) if held else None

    @classmethod
    def watch(cls, path: Path, *, heartbeat: float = 5.0, stale_after: float = 60.0) -> Self | None:
        """As `acquire`, for who asks once: where nothing tells whether the holder lives, its file is watched.

        That takes up to `stale_after` seconds, of which a heartbeat or a living process of this machine ends the rest.
        """
        found, end = None, time.monotonic() + 2 * stale_after
        while (lease := cls.acquire(path, heartbeat=heartbeat, stale_after=stale_after)) is None:
            seen = _look(path)
            if time.monotonic() > end or (seen is not None and (_holder_lives(seen) or found not in (None, seen))):
                return None
            found = seen
            time.sleep(heartbeat / 10)
        return lease

    @property
    def lost(self) -> bool:
        """True if another process took the lease, or someone removed its file."""
        if not self._taken and not self._stop.is_set():
            with contextlib.suppress(OSError):  # a passing trouble of a network disk does not end a run
                self._taken = not self._is_mine()
        return self._taken

    def release(self) -> None:
        """Gives the lease back. Does nothing where it was lost, or released before."""
        if self._stop.is_set():
            return
        self._stop.set()
        self._thread.join()
        with _critical_section(self._path.parent):
            if self._is_mine():
                self._path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()

    def _is_mine(self) -> bool:
        seen = _look(self._path)
        return seen is not None and seen.content == self._content

    def _beat(self) -> None:
        while not self._stop.wait(self._heartbeat):
            # Any other OSError may be a passing trouble of a network disk: the next beat tries again.
            with contextlib.suppress(OSError):
                try:
                    # Touching the open file, not the name: never keeps another's lease alive.
                    with open(self._path, "rb") as file:
                        if file.read() != self._content:
                            self._taken = True
                            return
                        os.utime(file.fileno())
                except FileNotFoundError:
                    self._taken = True
                    return


def _claim(claim: Path, path: Path, stale_after: float) -> bool:
    if _link(claim, path):
        return True
    seen = _look(path)
    if seen is None:  # released just now
        return _link(claim, path)
    if not _is_stale(path, seen, stale_after):
        return False
    aside = claim.with_suffix(".aside.tmp")
    try:
        os.rename(path, aside)
    except FileNotFoundError:
        return _link(claim, path)
    judged = _look(aside) == seen
    if not judged:  # it came alive, or is a newer holder's
        _link(aside, path)
    os.unlink(aside)
    return judged and _link(claim, path)


def _link(source: Path, path: Path) -> bool:
    """Creates `path` with the source's content, only if it does not exist; at once where the file system has links.

    Elsewhere (FAT, many disks in a cloud) others may see it empty for a moment, and leave it to its holder.
    """
    try:
        try:
            os.link(source, path)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            with open(path, "xb") as file:
                file.write(source.read_bytes())
    except FileExistsError:
        return False
    return True


def _look(path: Path) -> _Seen | None:
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            return _Seen(status.st_ino, status.st_mtime_ns, file.read())
    except FileNotFoundError:
        return None


_watched: dict[Path, tuple[_Seen, float]] = {}  # others' leases as this process last saw them, and since when


def _is_stale(path: Path, seen: _Seen, stale_after: float) -> bool:
    lives = _holder_lives(seen)
    if lives is False:
        return True
    known, since = _watched.get(path, (None, 0.0))
    if known != seen:
        since = time.monotonic()
        _watched[path] = (seen, since)
    return time.monotonic() - since > stale_after


def _holder_lives(seen: _Seen) -> bool | None:
    """Whether the process that wrote a lease still runs; None where that cannot be known from here."""
    try:
        holder = json.loads(seen.content)
        host, pid, started = holder["host"], holder["pid"], holder["started"]
        if host != _host():
            return None
        now = process_started(pid)
    except (ValueError, TypeError, KeyError, OverflowError):  # not written by this code
        return None
    return now is not None and not (now and started and now != started)


@contextlib.contextmanager
def _critical_section(folder: Path, patience: float = 5.0) -> Iterator[bool]:
    """One process at a time, freed by the kernel when it dies. Yields False if it stayed busy."""
    with open(folder / ".lock", "a") as file:
        deadline = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    yield False
                    return
                time.sleep(0.002)
            except OSError:  # a file system without locks
                break
            else:
                break
        try:
            yield True
        finally:
            with contextlib.suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_UN)  # closing is not enough if a fork inherited the file


def process_started(pid: int) -> str | None:
    """When a process started, to tell it from a later one of the same number; "" if unknown, None if it is gone."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass  # alive, and another user's
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    state, started = fields[0], fields[19]
    return None if state in "ZX" else started


def _host() -> str:
    """Where process numbers mean the same: host name, boot and, in containers, process namespace."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts += [Path("/proc/sys/kernel/random/boot_id").read_text().strip(), os.readlink("/proc/self/ns/pid")]
    return " ".join(parts)


def _write_whole(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name itself must survive a power cut
    finally:
        os.close(folder)


def _sweep(folder: Path) -> None:
    """Removes what killed processes left behind."""
    for path in folder.glob(".*.tmp"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > _LEFTOVER_SECONDS:
                path.unlink()


def _pretty(value: Any, indent: str = "") -> str:
    """Indented JSON in which a list of numbers stays on one line, so that diffs can be read."""
    inner = indent + "  "
    if isinstance(value, dict) and value:
        rows = [f"{json.dumps(key)}: {_pretty(item, inner)}" for key, item in value.items()]
        return "{\n" + ",\n".join(inner + row for row in rows) + f"\n{indent}}}"
    if isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        return "[\n" + ",\n".join(inner + _pretty(item, inner) for item in value) + f"\n{indent}]"
    return json.dumps(value, allow_nan=False)


def _sha256(value: Any) -> str:
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def _digest(arrays: "Mapping[str, np.ndarray]") -> str:
    """Of names, dtypes, shapes and values: a file's compression does not enter."""
    import numpy as np

    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape};".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _checked(id: str) -> str:
    if not re.fullmatch(_ID, id):
        raise ValueError(f"cell id {id!r}: letters, digits, '_', '.' and '-' only")
    return id
