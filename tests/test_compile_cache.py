"""Compiled programs on disk: kept, taken, made anew where damaged, and never in the way."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from trajclust_jax import compile_cache

COMPILE = """
import logging, sys
logging.basicConfig(level=logging.WARNING)
from trajclust_jax.compile_cache import enable
print(enable())
import jax, jax.numpy as jnp
from jax import monitoring
found = []
monitoring.register_event_listener(lambda name, **_: found.append(name))
print(float(jax.jit(lambda x: jnp.tanh(x @ x.T).sum())(jnp.eye(3))))
print(found.count("/jax/compilation_cache/cache_hits"), found.count("/jax/compilation_cache/cache_misses"))
"""


def start(folder, **environment):
    given = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    given |= {"TRAJCLUST_COMPILE_CACHE": str(folder), **environment}
    return subprocess.Popen(
        [sys.executable, "-c", COMPILE], env=given, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def run(folder, **environment):
    """Folder, result, hits and misses of a process, and what it warned of."""
    process = start(folder, **environment)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    kept, value, counts = out.splitlines()
    return kept, float(value), *map(int, counts.split()), err


def test_the_next_process_compiles_nothing(tmp_path):
    kept, value, hits, misses, _ = run(tmp_path)
    assert hits == 0
    assert misses > 0
    assert Path(kept).parent == tmp_path
    assert len(list(Path(kept).iterdir())) == misses  # nothing half written is left
    assert Path(kept).stat().st_mode & 0o77 == 0  # machine code: nobody else may write it
    assert run(tmp_path) == (kept, value, misses, 0, "")


def test_damaged_entries_are_compiled_again(tmp_path):
    kept, value, _, misses, _ = run(tmp_path)
    for i, path in enumerate(sorted(Path(kept).iterdir())):
        whole = path.read_bytes()
        middle = len(whole) // 2
        flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
        path.write_bytes([whole[:middle], flipped, b"", whole[:32] + b"something else"][i % 4])
    again = run(tmp_path)
    assert again[:4] == (kept, value, 0, misses)
    assert again[4].count("WARNING") == misses >= 4
    assert run(tmp_path)[1:4] == (value, misses, 0)


def test_several_processes_at_once(tmp_path):
    processes = [start(tmp_path) for _ in range(3)]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert all(process.returncode == 0 for process in processes)
    assert len({out.splitlines()[1] for out, _ in outputs}) == 1
    assert not any(err for _, err in outputs)
    assert run(tmp_path)[3] == 0


def test_where_it_is_off(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    assert run("off")[0] == "None"
    kept, *_, err = run(file / "folder")
    assert kept == "None"
    assert err.count("\n") == 1  # one line, and the work goes on
    own = tmp_path / "own"
    assert run(tmp_path / "ours", JAX_COMPILATION_CACHE_DIR=str(own))[0] == "None"
    assert not (tmp_path / "ours").exists()
    assert run("", TRAJCLUST_CACHE="")[0] == "None"
    assert Path(run("", TRAJCLUST_CACHE=str(tmp_path))[0]).parent == tmp_path / "compiled"


def test_what_was_not_used_for_longest_is_deleted(tmp_path, monkeypatch):
    for age in range(5):
        path = tmp_path / str(age)
        path.write_bytes(bytes(100))
        os.utime(path, (1000 - age, 1000 - age))
    monkeypatch.setattr(compile_cache, "LIMIT", 250)
    compile_cache._discard(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1"]


def test_a_full_disk_keeps_nothing(tmp_path, monkeypatch):
    entries = compile_cache._Entries(str(tmp_path))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    entries.put("key", b"program")
    assert entries.get("key") is None
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="counts what Linux counts")
def test_a_process_near_its_last_memory_map_forgets_programs(tmp_path, monkeypatch):
    held = lambda: Path("/proc/self/maps").read_bytes().count(b"\n")
    functions = [jax.jit(lambda x, i=i: jnp.sort(x @ x.T)[i]) for i in range(5)]
    before = held()
    for function in functions:
        function(jnp.eye(5))
    assert held() > before

    # What this process holds by now depends on the tests before this one: the bounds are set around it.
    allowed = tmp_path / "max_map_count"
    monkeypatch.setattr(compile_cache, "_ALLOWED", allowed)
    monkeypatch.setattr(compile_cache, "_MOST_MAPS", 4 * held())
    allowed.write_text(f"{4 * held()}\n")
    compile_cache.release()  # far from both
    assert all(function._cache_size() == 1 for function in functions)

    with monkeypatch.context() as patch:
        patch.setattr(compile_cache, "_MOST_MAPS", held() - 1)
        compile_cache.release()  # of gigabytes
    assert all(function._cache_size() == 0 for function in functions)
    for function in functions:
        function(jnp.eye(5))

    allowed.unlink()
    compile_cache.release()  # another system
    assert all(function._cache_size() == 1 for function in functions)

    full = held()
    allowed.write_text(f"{full}\n")
    compile_cache.release()
    assert held() < full
    assert functions[0](jnp.eye(5)).shape == (5,)
