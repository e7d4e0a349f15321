"""Checkpoints that survive a kill at any moment, on top of Orbax.

A checkpoint is one folder that Orbax writes whole or not at all, then sealed with the sha256 of all its files.
The seal is the commit mark: a checkpoint without one was being written when the process died, and one that does
not match it was damaged since. Orbax alone restores flipped bytes silently, and stumbles (tracebacks from
background threads) over truncated files; with the seal it only ever reads files that are as they were written.
"""

import contextlib
import errno
import functools
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np


@contextlib.contextmanager
def _root_logging_kept() -> Iterator[None]:
    """absl, through which Orbax logs, gives the root logger a handler where it has none: take that back.

    Otherwise a later `logging.basicConfig(...)` of the user would do nothing.
    """
    configured = bool(logging.root.handlers)
    try:
        yield
    finally:
        if not configured:
            for handler in list(logging.root.handlers):
                logging.root.removeHandler(handler)


@functools.cache
def _orbax() -> Any:
    """Orbax, which is imported when the first checkpoint is written or looked for.

    It logs dozens of lines a save, warns that read-only is read-only, and prints the tracebacks of its threads; what
    matters, it raises. Only its own lines are dropped, not what others log through absl.
    """
    with _root_logging_kept():
        import orbax.checkpoint
    logging.getLogger("absl").addFilter(lambda r: "orbax" not in r.pathname)
    return orbax.checkpoint


_log = logging.getLogger(__name__)
_SEAL = "sha256"
_OVERHEAD_BYTES = 2**18  # of a checkpoint beside its arrays: indices, metadata, history


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be written or used. The message is one line: which, why, what to do."""


class Checkpointer:
    """The last `keep` checkpoints of one run, in a folder of its own. One process at a time writes there: of several
    hosts' with one program, whichever is told to, by itself.

    State is a pytree of jax or NumPy arrays; typed PRNG keys are fine, Python scalars come back as jax arrays.
    With `read_only`, the folder may be another's, who is writing: nothing is created or cleaned up.
    """

    def __init__(self, directory: str | os.PathLike, keep: int = 2, *, read_only: bool = False):
        if keep < 1:
            raise ValueError(f"keep must be at least 1, got {keep}")
        self.directory = Path(os.path.abspath(directory))
        self.keep = keep
        self.read_only = read_only
        self._open_manager: Any = None
        self._damaged: set[int] = set()

    @_root_logging_kept()
    def save(self, step: int, state: Any, meta: dict[str, Any]) -> None:
        """Writes a checkpoint. It is then the newest, also where its step was saved before or lies before others.

        `meta` is JSON (tuples come back as lists). Once this returns, the checkpoint survives a kill.
        Raises CheckpointError where Orbax refuses to save, TypeError where `meta` is not JSON, OSError (ENOSPC) where
        the disk has no room for it.
        """
        if self.read_only:
            raise CheckpointError(f"{self.directory}: opened read-only")
        self._check_room(state)
        # Orbax wants growing numbers, and a step saved again must not lose its old folder before the new one is whole:
        # folders count saves, and the newest wins.
        number = max(self._manager.all_steps(), default=-1) + 1
        content = {"step": int(step), "leaves": _describe(state), "meta": json.loads(json.dumps(meta))}
        if jax.process_count() > 1:  # of several hosts Orbax stores NumPy's arrays alone
            content["numpy"], state = True, _as_numpy(state)
        args = _orbax().args
        args = args.Composite(state=args.StandardSave(_storable(state)), meta=args.JsonSave(content))
        if not self._manager.save(number, args=args):
            raise CheckpointError(f"{self.directory}: Orbax did not save checkpoint {number} (step {step})")
        _seal(self.directory / str(number))
        self._prune()

    @_root_logging_kept()
    def restore_latest(self, make_target: Callable[[dict[str, Any]], Any]) -> tuple[Any, dict[str, Any]] | None:
        """The newest usable checkpoint as `(state, meta)`, or None where there is none.

        `make_target(meta)` gives a pytree of arrays or ShapeDtypeStructs with the structure, shapes and dtypes of
        the state: they may depend on the phase that meta names. Its shardings are used; leaves without one go to
        the default device. Damaged and unfinished checkpoints are skipped; the next save removes them.
        Raises CheckpointError where a sound checkpoint does not fit the target: that is another program's state.
        """
        return self._restore_latest(lambda _, content: make_target(content["meta"]))

    def clear(self) -> None:
        """Deletes all checkpoints and the folder. A kill meanwhile never brings an older checkpoint back."""
        self.close()
        self._damaged.clear()
        condemned = self.directory.with_name(f".{self.directory.name}.deleted")
        shutil.rmtree(condemned, ignore_errors=True)  # of a process killed right here
        with contextlib.suppress(FileNotFoundError):
            self.directory.rename(condemned)
        shutil.rmtree(condemned, ignore_errors=True)

    @_root_logging_kept()
    def close(self) -> None:
        """Waits for Orbax's background work. The next call of any method opens the folder again."""
        if self._open_manager is not None:
            self._open_manager.close()
            self._open_manager = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def _manager(self) -> Any:
        if self._open_manager is None:
            alone = _orbax().options.MultiprocessingOptions()
            if jax.process_count() > 1:  # Orbax would wait for the other hosts
                mine = jax.process_index()
                alone = _orbax().options.MultiprocessingOptions(
                    primary_host=mine, active_processes={mine}, barrier_sync_key_prefix=f"{mine}"
                )
            handlers = {
                "state": _orbax().StandardCheckpointHandler(multiprocessing_options=alone),
                "meta": _orbax().JsonCheckpointHandler(multiprocessing_options=alone),
            }
            self._open_manager = _orbax().CheckpointManager(
                self.directory,
                item_handlers=handlers,
                options=_orbax().CheckpointManagerOptions(
                    max_to_keep=None,  # Orbax would delete old ones before the new one is sealed
                    create=False,
                    multiprocessing_options=alone,
                    enable_async_checkpointing=False,
                    cleanup_tmp_directories=not self.read_only,
                    read_only=self.read_only,
                ),
            )
        return self._open_manager

    def _restore_latest(self, make_target: Callable[[int, dict[str, Any]], Any]) -> tuple[Any, dict[str, Any]] | None:
        if not self.directory.is_dir():
            return None
        for number in sorted(self._manager.all_steps(), reverse=True):
            folder = self.directory / str(number)
            if not _is_sealed(folder):
                _log.warning("skipping checkpoint %s: damaged, or its writing was interrupted", folder)
                self._damaged.add(number)
                continue
            content = self._restore_item(number, "meta", _orbax().args.JsonRestore())
            target = _placed(make_target(number, content))
            _check_fits(target, content["leaves"], folder)
            wanted = _as_numpy(target) if content.get("numpy") or jax.process_count() > 1 else target
            stored = self._restore_item(number, "state", _orbax().args.StandardRestore(_storable(wanted)))
            return _as_target(_with_empty_leaves(stored, target), target), content["meta"]
        return None

    def _restore_item(self, number: int, name: str, args: Any) -> Any:
        return self._manager.restore(number, args=_orbax().args.Composite(**{name: args}))[name]

    def _stored_target(self, number: int, content: dict[str, Any]) -> Any:
        """A target like the stored tree, as far as Orbax remembers it: tuples are lists, named fields dicts."""
        described = content["leaves"]
        key_dtypes = {str(d): d for d in map(_key_dtype, ("threefry2x32", "rbg", "unsafe_rbg"))}

        def leaf(path: Any, stored: Any) -> Any:
            if (name := _name(path)) not in described:
                return stored  # a None of the tree itself
            dtype, _, shape = described[name].partition("[")
            shape = tuple(json.loads(f"[{shape}"))
            if getattr(stored, "sharding", None) is None and dtype not in key_dtypes:
                return np.empty(shape, dtype)  # it was NumPy's
            return jax.ShapeDtypeStruct(shape, key_dtypes.get(dtype, dtype))

        tree = self._manager.item_metadata(number)["state"].tree
        return jax.tree_util.tree_map_with_path(leaf, tree, is_leaf=lambda x: x is None or hasattr(x, "sharding"))

    def _check_room(self, state: Any) -> None:
        """Before Orbax starts, whose threads fill the terminal with tracebacks on a full disk."""
        self.directory.mkdir(parents=True, exist_ok=True)
        needed = _OVERHEAD_BYTES + sum(leaf.nbytes for leaf in jax.tree.leaves(_as_arrays(state)))
        if shutil.disk_usage(self.directory).free < needed:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.directory))

    def _prune(self) -> None:
        numbers = sorted(self._manager.all_steps())
        usable = [n for n in numbers if n not in self._damaged and (self.directory / str(n) / _SEAL).exists()]
        for number in set(numbers).difference(usable[-self.keep :]):
            self._manager.delete(number)
        self._damaged.clear()


def save_tree(path: str | os.PathLike, tree: Any) -> None:
    """Writes one pytree of arrays to the folder `path`, replacing the tree that is there once the new one is whole."""
    with Checkpointer(path, keep=1) as checkpointer:
        checkpointer.save(0, tree, {})


@_root_logging_kept()
def load_tree(path: str | os.PathLike, target: Any = None) -> Any:
    """Reads what `save_tree` wrote, as `target` is structured (see `Checkpointer.restore_latest`).

    Without a target the tree comes back as nested dicts and lists. Raises CheckpointError where there is no tree, it
    is damaged, or it does not fit the target.
    """
    with Checkpointer(path, read_only=True) as checkpointer:
        make_target = checkpointer._stored_target if target is None else lambda *_: target
        restored = checkpointer._restore_latest(make_target)
    if restored is None:
        raise CheckpointError(f"{checkpointer.directory}: no readable tree there; give the folder that was saved to")
    return restored[0]


def _seal(folder: Path) -> None:
    """Marks a checkpoint as complete."""
    temporary = folder / f".{_SEAL}"
    with open(temporary, "w") as file:
        file.write(_digest(folder))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(folder / _SEAL)


def _is_sealed(folder: Path) -> bool:
    seal = folder / _SEAL
    return seal.is_file() and seal.read_bytes() == _digest(folder).encode()


def _digest(folder: Path) -> str:
    """sha256 over the names and contents of all files but the seal."""
    total = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name not in (_SEAL, f".{_SEAL}")):
        with open(path, "rb") as file:
            total.update(f"{hashlib.file_digest(file, 'sha256').hexdigest()} {path.relative_to(folder)}\n".encode())
    return total.hexdigest()


def _name(path: Any) -> str:
    """`params/layer/0/bias`: the same whether a level is a tuple, a named tuple or what Orbax makes of it."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _describe(tree: Any) -> dict[str, str]:
    """What each leaf is, by path: `float32[5, 4]`."""
    leaves = jax.tree_util.tree_leaves_with_path(_as_arrays(tree))
    return {_name(path): f"{x.dtype}{list(x.shape)}" for path, x in leaves}


def _as_arrays(tree: Any) -> Any:
    return jax.tree.map(lambda x: x if hasattr(x, "dtype") else jnp.asarray(x), tree)


def _key_dtype(implementation: str) -> Any:
    return jax.eval_shape(lambda: jax.random.key(0, impl=implementation)).dtype


def _placed(target: Any) -> Any:
    """Every leaf but NumPy's with a sharding, else Orbax asks for the devices that the state was saved from."""
    default = jnp.zeros(()).sharding

    def place(x: Any) -> Any:
        if isinstance(x, np.ndarray):
            return x
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=getattr(x, "sharding", None) or default)

    return jax.tree.map(place, _as_arrays(target))


def _storable(tree: Any) -> Any:
    """Orbax refuses arrays without elements. Their shape says all, so they are left out."""
    return jax.tree.map(lambda x: x if x.size else None, _as_arrays(tree))


def _as_numpy(tree: Any) -> Any:
    """NumPy's arrays, or their shapes, of the same values; keys as their data."""

    data = lambda tree: jax.tree.map(lambda x: jax.random.key_data(x) if _is_key(x) else x, tree)
    if any(isinstance(x, jax.ShapeDtypeStruct) for x in jax.tree.leaves(tree)):
        return jax.tree.map(lambda x: np.empty(x.shape, x.dtype), jax.eval_shape(data, tree))
    return jax.tree.map(np.asarray, data(_as_arrays(tree)))


def _as_target(tree: Any, target: Any) -> Any:
    """What was stored as NumPy's arrays as the target has it."""

    def one(x: Any, like: Any) -> Any:
        if not isinstance(x, np.ndarray) or isinstance(like, np.ndarray):
            return x
        if _is_key(like):
            return jax.device_put(jax.random.wrap_key_data(x, impl=like.dtype._impl), like.sharding)
        return jax.device_put(x, like.sharding)

    return jax.tree.map(one, tree, target)


def _is_key(x: Any) -> bool:
    return jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)


def _with_empty_leaves(stored: Any, target: Any) -> Any:
    leaves, structure = jax.tree.flatten(target)
    remaining = iter(jax.tree.leaves(stored))
    return structure.unflatten(next(remaining) if x.size else jnp.zeros(x.shape, x.dtype) for x in leaves)


def _check_fits(target: Any, stored: dict[str, str], folder: Path) -> None:
    """Raises CheckpointError naming the first leaf that differs: Orbax casts without a word."""
    wanted = _describe(target)
    for name in sorted(wanted.keys() | stored.keys()):
        has, wants = stored.get(name, "nothing"), wanted.get(name, "nothing")
        if has != wants:
            raise CheckpointError(f"{folder}: `{name}` is {has}, this program wants {wants}; delete it to start anew")
