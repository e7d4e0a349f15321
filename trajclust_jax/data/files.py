"""Files: checks before one is read, and writing one whole or not at all."""

import contextlib
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path

from trajclust_jax.data.types import DataError

_SMALL = 2**28  # bytes: an array may always take as much, however little it takes in the file
_EXPANSION = 200  # a larger array may take at most so many times what it takes in the file
_LFS = b"version https://git-lfs.github.com/spec/"


def check_name(source: str) -> None:
    """Refuses a path that no file system accepts.

    Raises:
        DataError: for a part of over 255 bytes, or a NUL.
    """
    longest = max(source.split("/"), key=len)
    if len(os.fsencode(longest)) > 255:
        raise DataError(f"{longest[:40]!r}... is a name of {len(longest)} characters: files have at most 255 bytes")
    if "\0" in source:
        raise DataError(f"{source!r} has a zero character in it: correct the name")


def check_file(path: Path) -> None:
    """Refuses a path that is not a readable file with some content.

    Raises:
        DataError: one line that says what is there instead.
    """
    check_name(str(path))
    if path.is_dir():
        raise DataError("is a folder, not a file")
    if path.is_symlink() and not path.exists():
        raise DataError(f"is a link to {os.readlink(path)}, which does not exist: mend the link")
    if not path.exists():
        raise DataError("no such file")
    if not path.is_file():
        raise DataError("is a device or a pipe, not a file: copy its content to one")
    try:
        with open(path, "rb") as file:
            start = file.read(len(_LFS))
    except OSError as error:
        raise DataError(f"cannot be opened: {error.strerror or error}") from None
    if not start:
        raise DataError("is empty: write or copy it again")
    if start == _LFS:
        raise DataError("is a pointer of git-lfs, not the file itself: `git lfs pull` brings it")


def check_size(name: str, declared: int, stored: int) -> None:
    """Refuses an array that would take absurdly more memory than it takes in the file, or more than there is.

    Args:
        name: the array's.
        declared: its bytes by its shape.
        stored: its bytes in the file.

    Raises:
        DataError: naming the array and both sizes.
    """
    sizes = f"{name} takes {_bytes(declared)} by its shape"
    if declared > max(_SMALL, _EXPANSION * stored):
        raise DataError(f"{sizes}, but {_bytes(stored)} in the file: is it whole? Write it again, uncompressed")
    if declared > (available := available_memory()):
        raise DataError(f"{sizes}, and {_bytes(int(available))} of memory are free: split the file")


def available_memory() -> float:
    """Bytes of memory that could still be used; infinity where the system does not say."""
    try:
        free = re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
        return int(free[1]) * 2**10 if free else math.inf
    except OSError:
        return math.inf


def _bytes(number: int) -> str:
    """A size in a suitable unit."""
    power = min(4, max(0, (number.bit_length() - 1) // 10))
    return f"{number / 2 ** (10 * power):.3g} {('bytes', 'KiB', 'MiB', 'GiB', 'TiB')[power]}"


@contextlib.contextmanager
def written_whole(path: str | os.PathLike) -> Iterator[Path]:
    """A temporary file beside `path`, which replaces `path` at the end; after an error it is removed.

    The folder is made if need be; a link stays, and what it points at is replaced. An OSError names `path`.
    """
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name[:50]}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException as error:
        if isinstance(error, OSError) and error.errno is not None:
            error.filename = str(path)  # the error of a full disk names no file
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
