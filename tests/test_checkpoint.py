"""Checkpoints: bit for bit, whatever was killed or damaged."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from trajclust_jax.checkpoint import Checkpointer, CheckpointError, load_tree, save_tree

ROOT = Path(__file__).parents[1]


class Pair(NamedTuple):
    b: jax.Array  # not in alphabetical order
    a: jax.Array


def make_state(step=0):
    """All that a state may hold, different at each step."""
    key = jax.random.fold_in(jax.random.key(7), step)
    params = {"w": jax.random.normal(key, (5, 3)), "b": jnp.full((3,), jnp.nan, jnp.bfloat16)}
    return {
        "key": key,
        "keys": jax.random.split(jax.random.key(step, impl="rbg"), (2, 3)),
        "params": params,
        "opt": optax.adam(1e-3).init(params),
        "pair": Pair(jnp.int32(step), jnp.float32(0.1) * step),
        "layers": (jnp.arange(4, dtype=jnp.uint8), [jnp.zeros((2, 0)), jnp.array(True)]),
        "numpy": np.arange(3, dtype=np.int64) + 2**40 * step,
        "none": None,
        "empty": (),
    }


def assert_same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert type(x) is type(y)
        assert (x.dtype, x.shape) == (y.dtype, y.shape)
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


def target(_meta=None):
    return make_state()


def abstract(_meta=None):
    """Shapes and dtypes only; NumPy's leaf stays, since jax would make it int32."""
    state = make_state()
    return {**jax.eval_shape(lambda: {**state, "numpy": None}), "numpy": state["numpy"]}


@pytest.mark.parametrize("make_target", [target, abstract])
def test_a_state_comes_back_bit_for_bit(tmp_path, make_target):
    meta = {"phase": "merge", "iteration": 3, "lr": 0.1, "shape": (1, 2)}
    with Checkpointer(tmp_path / "run") as checkpointer:
        checkpointer.save(3, make_state(3), meta)
    with Checkpointer(tmp_path / "run") as checkpointer:
        state, restored_meta = checkpointer.restore_latest(make_target)
    assert_same(state, make_state(3))
    assert restored_meta == {**meta, "shape": [1, 2]}
    step = jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)
    assert step(state["params"])["w"].shape == (5, 3)  # Orbax's arrays can be donated
    assert_same(state["opt"], make_state(3)["opt"])


def test_nothing_there_is_none_and_creates_nothing(tmp_path):
    with Checkpointer(tmp_path / "run") as checkpointer:
        assert checkpointer.restore_latest(target) is None
    assert not (tmp_path / "run").exists()


def test_relative_folders_scalars_and_reuse_after_close(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpointer = Checkpointer("a/b", keep=1)
    checkpointer.save(0, {"x": 1.5, "n": 2}, {})
    checkpointer.close()
    state, _ = checkpointer.restore_latest(lambda _: {"x": 0.0, "n": jax.ShapeDtypeStruct((), jnp.int32)})
    assert_same(state, {"x": jnp.asarray(1.5), "n": jnp.asarray(2)})
    checkpointer.close()
    with pytest.raises(ValueError, match="keep"):
        Checkpointer("c", keep=0)
    with pytest.raises(TypeError, match="JSON"):
        checkpointer.save(1, {"x": 1.5}, {"x": jnp.ones(3)})
    checkpointer.close()


def test_the_newest_save_wins_whatever_its_step(tmp_path):
    with Checkpointer(tmp_path) as checkpointer:
        for step, value in ((5, 1), (5, 2), (9, 3), (0, 4)):  # the same step again; a new phase counts from 0
            checkpointer.save(step, {"x": jnp.int32(value)}, {"value": value})
            state, meta = checkpointer.restore_latest(lambda _: {"x": jnp.int32(0)})
            assert int(state["x"]) == meta["value"] == value
        assert len(list(tmp_path.iterdir())) == 2


def test_the_target_may_depend_on_the_phase(tmp_path):
    with Checkpointer(tmp_path) as checkpointer:
        for phase, k in (("em", 6), ("merge", 4)):
            checkpointer.save(k, {"policies": jnp.ones((k, 2))}, {"phase": phase})
            sizes = {"em": 6, "merge": 4}
            state, meta = checkpointer.restore_latest(
                lambda m, sizes=sizes: {"policies": jnp.ones((sizes[m["phase"]], 2))}
            )
            assert state["policies"].shape == (k, 2)
            assert meta == {"phase": phase}


def test_another_programs_state_is_refused_and_kept(tmp_path):
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(0, {"a": {"w": jnp.ones((5, 3))}, "n": jnp.int32(1)}, {})
        for wrong, message in (
            ({"a": {"w": jnp.ones((5, 4))}, "n": jnp.int32(0)}, r"`a/w` is float32\[5, 3\].*wants float32\[5, 4\]"),
            ({"a": {"w": jnp.ones((5, 3))}, "n": jnp.float32(0)}, r"`n` is int32\[\].*wants float32\[\]"),
            ({"a": {"w": jnp.ones((5, 3))}}, r"`n` is int32\[\].*wants nothing"),
            ({"a": {"w": jnp.ones((5, 3)), "b": 1.0}, "n": jnp.int32(0)}, r"`a/b` is nothing"),
        ):
            with pytest.raises(CheckpointError, match=message):
                checkpointer.restore_latest(lambda _, wrong=wrong: wrong)
        with pytest.raises(KeyError, match="mine"):  # an error of the caller's is not damage
            checkpointer.restore_latest(lambda meta: meta["mine"])
        assert checkpointer.restore_latest(lambda _: {"a": {"w": jnp.ones((5, 3))}, "n": 0}) is not None


def _files(folder):
    return sorted(path for path in Path(folder).rglob("*") if path.is_file())


@pytest.mark.parametrize("damage", ["truncate", "flip", "delete"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path, caplog, damage, recwarn):
    with Checkpointer(tmp_path / "good") as checkpointer:
        for step in (1, 2):
            checkpointer.save(step, make_state(step), {"step": step})
    files = [path.relative_to(tmp_path / "good") for path in _files(tmp_path / "good" / "1")]
    assert len(files) > 8
    for file in files:
        folder = tmp_path / "bad"
        shutil.copytree(tmp_path / "good", folder)
        content = (folder / file).read_bytes()
        if damage == "delete":
            (folder / file).unlink()
        elif damage == "truncate":
            (folder / file).write_bytes(content[:-1] if content else b"x")
        else:
            middle = len(content) // 2
            (folder / file).write_bytes(
                content[:middle] + bytes([(content + b"\0")[middle] ^ 64]) + content[middle + 1 :]
            )
        caplog.clear()
        with Checkpointer(folder) as checkpointer:
            state, meta = checkpointer.restore_latest(target)
        assert meta == {"step": 1}
        assert_same(state, make_state(1))
        (message,) = [r.getMessage() for r in caplog.records if r.name == "trajclust_jax.checkpoint"]
        assert message.startswith(f"skipping checkpoint {folder / '1'}:")
        if file.name != "_CHECKPOINT_METADATA":  # Orbax looks at it on opening the folder, and says so
            assert [r for r in caplog.records if r.name == "absl"] == []
        shutil.rmtree(folder)
    assert not recwarn.list


def test_a_damaged_checkpoint_is_removed_by_the_next_save(tmp_path):
    with Checkpointer(tmp_path) as checkpointer:
        for step in (1, 2):
            checkpointer.save(step, {"x": jnp.int32(step)}, {"step": step})
    (tmp_path / "1" / "meta" / "metadata").write_text("{")
    with Checkpointer(tmp_path) as checkpointer:
        assert checkpointer.restore_latest(lambda _: {"x": 0})[1] == {"step": 1}
        checkpointer.save(2, {"x": jnp.int32(3)}, {"step": 2})
        assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "2"]
        for number in ("0", "2"):
            (tmp_path / number / "sha256").unlink()
        assert checkpointer.restore_latest(lambda _: {"x": 0}) is None  # nothing usable
        checkpointer.save(0, {"x": jnp.int32(9)}, {"step": 0})
        assert sorted(path.name for path in tmp_path.iterdir()) == ["3"]


def test_a_reader_does_not_disturb_the_writer(tmp_path):
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, {"x": jnp.int32(1)}, {})
    unfinished = tmp_path / "1.orbax-checkpoint-tmp"
    unfinished.mkdir()
    before = sorted(tmp_path.rglob("*"))
    with Checkpointer(tmp_path, read_only=True) as reader:
        assert int(reader.restore_latest(lambda _: {"x": 0})[0]["x"]) == 1
        with pytest.raises(CheckpointError, match="read-only"):
            reader.save(2, {"x": jnp.int32(2)}, {})
    assert int(load_tree(tmp_path)["x"]) == 1
    assert sorted(tmp_path.rglob("*")) == before
    with Checkpointer(tmp_path) as checkpointer:  # the next writer cleans up
        checkpointer.save(2, {"x": jnp.int32(2)}, {})
    assert not unfinished.exists()


def test_clear_leaves_nothing(tmp_path):
    with Checkpointer(tmp_path / "run") as checkpointer:
        checkpointer.clear()
        checkpointer.save(1, {"x": jnp.int32(1)}, {})
        checkpointer.clear()
        assert not list(tmp_path.iterdir())
        assert checkpointer.restore_latest(lambda _: {"x": 0}) is None
        checkpointer.save(0, {"x": jnp.int32(2)}, {})
        assert int(checkpointer.restore_latest(lambda _: {"x": 0})[0]["x"]) == 2


def test_trees(tmp_path):
    path = tmp_path / "models" / "final"
    with pytest.raises(CheckpointError, match="no readable tree"):
        load_tree(path)
    for step in (1, 2):  # the second replaces the first
        save_tree(path, make_state(step))
        assert_same(load_tree(path, make_state()), make_state(step))
    loose = load_tree(path)
    state = make_state(2)
    wanted = {**state, "pair": state["pair"]._asdict(), "layers": list(state["layers"])}
    adam, rest = state["opt"]
    wanted["opt"] = [adam._asdict(), None if not jax.tree.leaves(rest) else rest]
    assert_same({**loose, "opt": 0.0 * jnp.ones(())}, {**wanted, "opt": 0.0 * jnp.ones(())})
    assert_same(loose["opt"], wanted["opt"])
    with pytest.raises(CheckpointError, match=r"`key` is key<fry>\[\].*wants nothing"):
        load_tree(path, {"w": jnp.ones(3)})
    _files(path)[0].write_text("?")
    with pytest.raises(CheckpointError, match=f"{path}: no readable tree"):
        load_tree(path)


def _run(code, *arguments, **environment):
    """What a process of its own prints, errors included."""
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", code, *map(str, arguments)],
        env={**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_what_many_devices_saved_one_device_reads(tmp_path):
    """As a laptop reads a cluster's model."""
    code = """
import sys, jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from trajclust_jax.checkpoint import Checkpointer, save_tree
mesh = NamedSharding(Mesh(np.array(jax.devices()), ("seed",)), PartitionSpec("seed"))
assert len(jax.devices()) == 4
tree = jax.device_put({"w": jnp.arange(8.0), "key": jax.random.split(jax.random.key(1), 4)}, mesh)
save_tree(sys.argv[1], tree)
with Checkpointer(sys.argv[2]) as checkpointer:
    checkpointer.save(0, tree, {})
    restored, _ = checkpointer.restore_latest(lambda _: tree)
assert restored["w"].sharding == mesh and restored["key"].sharding == tree["key"].sharding
"""
    flags = "--xla_force_host_platform_device_count=4"
    assert _run(code, tmp_path / "tree", tmp_path / "run", XLA_FLAGS=flags) == ""
    wanted = {"w": jnp.arange(8.0), "key": jax.random.split(jax.random.key(1), 4)}
    assert_same(load_tree(tmp_path / "tree"), wanted)
    assert_same(load_tree(tmp_path / "tree", wanted), wanted)
    with Checkpointer(tmp_path / "run") as checkpointer:
        state, _ = checkpointer.restore_latest(lambda _: jax.eval_shape(lambda: wanted))
    assert_same(state, wanted)


def test_orbax_is_silent_and_leaves_the_users_logging_alone(tmp_path):
    code = """
import logging, sys
import jax.numpy as jnp
from trajclust_jax.checkpoint import Checkpointer, load_tree
assert not logging.root.handlers
def use(folder):
    with Checkpointer(folder) as checkpointer:
        checkpointer.save(0, {"x": jnp.ones(3)}, {})
        assert checkpointer.restore_latest(lambda _: {"x": jnp.ones(3)})
        load_tree(folder)
        checkpointer.clear()
use(sys.argv[1] + "/a")
assert not logging.root.handlers
logging.basicConfig(level=logging.DEBUG, format="%(name)s %(message)s", stream=sys.stdout)
logging.getLogger("jax").setLevel(logging.WARNING)
use(sys.argv[1] + "/b")
from absl import logging as absl_logging
absl_logging.info("the user's own")
"""
    lines = _run(code, tmp_path).splitlines()
    assert [line for line in lines if not line.startswith("asyncio")] == ["absl the user's own"]


def small_state(step):
    return {"w": jnp.asarray(np.random.default_rng(step).normal(size=(64, 64))), "key": jax.random.key(step)}


def _live(folder, last, report):
    """Checks that no save was lost, then saves for ever, reporting each step once it is saved."""
    checkpointer = Checkpointer(folder)
    restored = checkpointer.restore_latest(lambda _: small_state(0))
    step = restored[1]["step"] if restored else -1
    assert step in (last, last + 1), (step, last)  # + 1: killed between the save and its report
    if restored:
        assert_same(restored[0], small_state(step))
    while True:
        step += 1
        checkpointer.save(step, small_state(step), {"step": step})
        os.write(report, f"{step}\n".encode())


def live_and_die(folder, times):
    """Runs in a process that has started no threads: forks lives that need not import everything again."""
    last = -1
    for _ in range(times):
        ours, theirs = os.pipe()
        child = os.fork()
        if not child:
            try:
                _live(folder, last, theirs)
            finally:
                traceback.print_exc()
                os._exit(1)
        os.close(theirs)
        said = os.read(ours, 1000)  # a first save, or nothing where the child failed
        time.sleep(0.3 * random.random())
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        said += os.read(ours, 100_000)
        os.close(ours)
        if os.WTERMSIG(status) != signal.SIGKILL or not said:
            sys.exit(1)
        last = int(said.split()[-1])
    print(last)


def test_a_run_that_is_killed_again_and_again_loses_nothing(tmp_path):
    """SIGKILL at random moments of a loop that does nothing but save; each life checks and continues the last."""
    output = _run("import sys, test_checkpoint as t; t.live_and_die(sys.argv[1], 8)", tmp_path)
    last = int(output.splitlines()[-1])
    assert last >= 8
    with Checkpointer(tmp_path) as checkpointer:
        state, meta = checkpointer.restore_latest(lambda _: small_state(0))
    assert meta["step"] in (last, last + 1)
    assert_same(state, small_state(meta["step"]))
