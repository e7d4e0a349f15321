"""Records and leases: whole or not at all, one holder at a time, whatever is killed when."""

import contextlib
import datetime
import errno
import io
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from trajclust_jax import records
from trajclust_jax.records import Lease, RecordError, Results, canonical, cell_id, comparable, environment, plain

ROOT = Path(__file__).parents[1]
SPAWN = multiprocessing.get_context("spawn")
ID = "0123456789abcdef"
RECORD = {
    "method": "pg_kmeans",
    "scores": {"nmi": np.array([0.5, 0.25], np.float32), "best": np.float64(1 / 3), "n": np.int64(2)},
    "labels": (1, 2, 3),
    "curve": np.array([[1.0, np.nan], [np.inf, 2.0]]),
    "timing": {"wall": 1.5},
    "environment": {"cpu_count": 2},
}


@contextlib.contextmanager
def _processes(*targets):
    """Runs `(function, *arguments)` in processes of their own; all must end well."""
    started = [SPAWN.Process(target=function, args=arguments) for function, *arguments in targets]
    for process in started:
        process.start()
    try:
        yield started
        for process in started:
            process.join(60)
    finally:
        for process in started:
            process.kill()
            process.join()
    assert [process.exitcode for process in started] == [0] * len(started)


# Identities


def test_an_id_depends_on_values_only():
    identity = {"method": "em", "k": 4, "lr": 1e-3, "seeds": (0, 1)}
    same = {"seeds": [np.int32(0), 1], "lr": np.float64(0.001), "k": np.int64(4), "method": "em"}
    assert cell_id(identity) == cell_id(same) == "0c0e7536df0d4694"  # written down: no release may change it
    for change in ({"k": 5}, {"lr": 1e-4}, {"seeds": (1, 0)}, {"method": "EM"}, {"extra": None}, {"k": 4.0}):
        assert cell_id({**identity, **change}) != cell_id(identity)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), np.float32("nan"), [1.0, {"a": np.array([np.nan])}]])
def test_an_identity_has_no_nan(value):
    with pytest.raises(ValueError, match="finite number"):
        cell_id({"lr": value})


def test_plain_gives_json_or_says_what_does_not_fit():
    given = {"a": np.bool_(True), 5: np.arange(3), "p": Path("x/y"), "n": None, "deep": [({"z": np.float32(0.5)},)]}
    wanted = {"a": True, "5": [0, 1, 2], "p": "x/y", "n": None, "deep": [[{"z": 0.5}]]}
    assert plain(given) == wanted
    assert canonical(given) == json.dumps(wanted, sort_keys=True, separators=(",", ":"))
    with pytest.raises(TypeError, match="a set cannot be stored"):
        plain({"s": {1}})


# Records


def test_a_record_reads_back_exactly(tmp_path):
    results = Results(tmp_path / "new" / "results")
    assert results.read(ID) is None
    assert results.all() == []
    assert not results.folder.exists()  # looking creates nothing
    path = results.write(ID, RECORD)
    assert path == tmp_path / "new" / "results" / "cells" / f"{ID}.json"
    record = results.read(ID)
    assert record["scores"] == {"nmi": [0.5, 0.25], "best": 1 / 3, "n": 2}
    assert record["curve"] == [[1.0, None], [None, 2.0]]
    assert results.write(ID, record) == path  # a record that was read can be written again
    assert results.read(ID) == record
    results.write("f" * 16, {"other": 1})
    assert results.ids() == [ID, "f" * 16]
    assert [r.get("other") for r in results.all()] == [None, 1]
    assert sorted(os.listdir(path.parent)) == [f"{ID}.json", "f" * 16 + ".json"]


def test_arrays_are_kept_under_the_records_checksum(tmp_path):
    results = Results(tmp_path)
    arrays = {"assignments": np.arange(6, dtype=np.int32).reshape(2, 3), "weights": np.float32([0.1, np.nan])}
    results.write("kept", {"id": "kept"}, arrays)
    results.write("bare", {"id": "bare"})
    found = results.arrays("kept")
    assert {name: (x.dtype, x.shape) for name, x in found.items()} == {n: (x.dtype, x.shape) for n, x in arrays.items()}
    np.testing.assert_array_equal(found["assignments"], arrays["assignments"])
    assert results.arrays("bare") is None
    assert results.arrays("absent") is None
    assert results.ids() == ["bare", "kept"]
    path = tmp_path / "cells" / "kept.npz"
    whole = path.read_bytes()
    other = io.BytesIO()
    np.savez(other, assignments=arrays["assignments"] + 1, weights=arrays["weights"])
    for damaged in (whole[:-30], b"", b"no archive", other.getvalue()):
        path.write_bytes(damaged)
        with pytest.raises(RecordError, match=r"kept\.npz: damaged .*delete it"):
            results.arrays("kept")
    path.unlink()
    assert results.arrays("kept") is None


def test_a_record_can_be_read_by_people(tmp_path):
    path = Results(tmp_path).write(ID, RECORD)
    lines = path.read_text().splitlines()
    assert '    "nmi": [0.5, 0.25],' in lines
    assert lines[lines.index('  "curve": [') + 1] == "    [1.0, null],"
    assert lines[-2].startswith('  "checksum": "')


def test_two_runs_compare_without_machine_and_time(tmp_path):
    results = Results(tmp_path)
    results.write("a", RECORD)
    results.write("b", {**RECORD, "timing": {"wall": 9.0}, "environment": {"cpu_count": 64}})
    results.write("c", {**RECORD, "method": "caae"})
    a, b, c = map(comparable, results.all())
    assert a == b != c
    assert "checksum" not in a
    assert comparable({"cells": [{"timing": 1, "x": 2}]}) == {"cells": [{"x": 2}]}


def test_every_damage_is_found(tmp_path):
    results = Results(tmp_path)
    path = results.write(ID, RECORD)
    good = path.read_bytes()
    damaged = [good[:n] for n in range(0, len(good) - 1, 7)]
    damaged += [good[:n] + bytes([good[n] ^ 1]) + good[n + 1 :] for n in range(0, len(good), 3)]
    damaged += [b"[]", b"null", b"{}", b"\xff\xfe", good.replace(b"0.25", b"NaN"), good + good]
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(RecordError, match="delete it") as caught:
            results.read(ID)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
    path.write_bytes(good[: len(good) // 2])
    with pytest.raises(RecordError):
        results.all()


def test_what_cannot_be_read_is_named_and_passed_over(tmp_path):
    results, told = Results(tmp_path), []
    good = results.write(ID, RECORD)
    results.write("b" * 16, {"schema": 2})
    results.write("c" * 16, {"id": ID})
    (results.cells / "damaged.json").write_bytes(b"\xff")
    (results.cells / "folder.json").mkdir()
    (results.cells / "a copy (1).json").write_bytes(good.read_bytes())
    assert results.all(told.append) == [results.read(ID)]
    assert len(told) == 4
    assert all("\n" not in line and str(results.cells) in line for line in told)
    for line, what in zip(told, ("schema 2", f"the record of cell {ID}", "delete it", "cannot be read"), strict=True):
        assert what in line
    with pytest.raises(RecordError, match="schema 2, this version reads 1"):
        results.all()


def test_records_have_the_number_of_their_schema_and_the_first_need_none(tmp_path):
    results = Results(tmp_path)
    path = results.write(ID, RECORD)
    assert json.loads(path.read_text())["schema"] == 1
    older = {name: value for name, value in results.read(ID).items() if name not in ("schema", "checksum")}
    path.write_text(json.dumps({**older, "checksum": records._sha256(older)}))
    assert comparable(results.read(ID)) == comparable(older)


def test_a_failed_write_leaves_the_old_record_and_no_litter(tmp_path, monkeypatch):
    results = Results(tmp_path)
    path = results.write(ID, {"value": 1})
    with pytest.raises(TypeError):
        results.write(ID, {"value": object()})
    monkeypatch.setattr(os, "fsync", lambda fd: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        results.write(ID, {"value": 2})
    assert results.read(ID)["value"] == 1
    assert os.listdir(path.parent) == [path.name]


def test_leftovers_of_killed_writers_are_swept(tmp_path):
    results = Results(tmp_path)
    results.write(ID, {})
    young, old = results.cells / ".a.json.1.tmp", results.cells / ".b.json.2.tmp"
    young.touch()
    old.touch()
    os.utime(old, (0, 0))
    results.write(ID, {})
    assert young.exists()
    assert not old.exists()
    assert results.ids() == [ID]


def test_ids_cannot_leave_the_folder(tmp_path):
    for bad in ("../x", "a/b", "", ".hidden", "a\n"):
        with pytest.raises(ValueError, match="cell id"):
            Results(tmp_path).read(bad)
    assert Results(tmp_path).work(ID) == tmp_path / "work" / ID


def _write_for_ever(folder, ready):
    results, i = Results(folder), 0
    while True:
        results.write(ID, {"i": i, "filling": [i] * (1 + 5000 * (i % 2))})
        i += 1
        ready.set()


def test_a_reader_never_sees_half_a_record(tmp_path):
    """Two writers, one reader, then the writers are killed wherever they are."""
    results, ready = Results(tmp_path), SPAWN.Event()
    writers = [SPAWN.Process(target=_write_for_ever, args=(tmp_path, ready)) for _ in range(2)]
    for writer in writers:
        writer.start()
    assert ready.wait(30)
    deadline, seen = time.monotonic() + 1.5, set()
    while time.monotonic() < deadline:
        record = results.read(ID)
        assert set(record["filling"]) == {record["i"]}
        seen.add(record["i"])
    for writer in writers:
        writer.kill()
        writer.join()
    assert len(seen) > 10
    assert results.read(ID) is not None


def test_the_environment_is_complete():
    block = environment()
    assert set(block["versions"]) == {"jax", "jaxlib", "flax", "optax", "numpy", "trajclust_jax"}
    assert block["device"]["count"] >= 1
    assert block["python"].startswith("3.")
    assert block["xla_flags"] == os.environ["XLA_FLAGS"]  # the tests' own
    age = datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(block["time"])
    assert abs(age.total_seconds()) < 60
    assert plain(block) == block


def test_importing_records_is_light():
    code = "import sys, trajclust_jax.records; assert not {'jax', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)


# Leases


def test_one_holder_until_release(tmp_path):
    results = Results(tmp_path)
    with results.lease(ID) as lease:
        assert results.lease(ID) is None
        assert results.lease("other") is not None
        assert not lease.lost
        holder = json.loads((results.cells / f"{ID}.lease").read_text())
        assert holder["pid"] == os.getpid()
        assert {"token", "host", "time"} <= set(holder)
    assert not lease.lost
    assert not (results.cells / f"{ID}.lease").exists()
    lease.release()  # twice is fine
    assert not list(results.cells.glob(".*.tmp"))


def test_an_error_inside_releases(tmp_path):
    results = Results(tmp_path)
    with pytest.raises(ZeroDivisionError), results.lease(ID):
        _ = 1 / 0
    with results.lease(ID) as lease:
        assert lease is not None


def test_heartbeats_must_be_faster_than_staleness(tmp_path):
    with pytest.raises(ValueError, match="heartbeat"):
        Results(tmp_path).lease(ID, heartbeat=5, stale_after=5)


def test_the_heartbeat_keeps_a_lease_and_its_end_loses_it(tmp_path):
    results, fast = Results(tmp_path), {"heartbeat": 0.05, "stale_after": 0.6}
    first = results.lease(ID, **fast)
    deadline = time.monotonic() + 1.2
    while time.monotonic() < deadline:
        assert results.lease(ID, **fast) is None
        time.sleep(0.05)
    first._stop.set()  # as if this process had been suspended
    first._thread.join()
    first._stop.clear()
    deadline = time.monotonic() + 5
    while (second := results.lease(ID, **fast)) is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert first.lost
    assert not second.lost
    first.release()  # must not take the second's
    assert results.lease(ID) is None
    assert not second.lost
    second.release()


def test_the_heartbeat_notices_a_loss_and_touches_no_other_lease(tmp_path):
    results = Results(tmp_path)
    lease = results.lease(ID, heartbeat=0.02)
    path = results.cells / f"{ID}.lease"
    path.unlink()
    path.write_text("{}")
    os.utime(path, (1e9, 1e9))
    lease._thread.join(5)
    assert not lease._thread.is_alive()
    assert lease.lost
    assert path.stat().st_mtime == 1e9
    lease.release()
    assert path.exists()


def _place(results, age=0.0, **change):
    """A lease file as another process would have left it."""
    results.cells.mkdir(exist_ok=True)
    path = results.cells / f"{ID}.lease"
    holder = {
        "token": "t",
        "pid": os.getpid(),
        "started": records.process_started(os.getpid()),
        "host": records._host(),
    }
    path.write_text(json.dumps({**holder, **change}))
    os.utime(path, (time.time() - age,) * 2)


def _dead_pid():
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


WATCHED = {"heartbeat": 0.01, "stale_after": 0.1}


@pytest.mark.parametrize(
    ("holder", "at_once"),
    [
        ({}, False),
        ({"started": "1"}, True),  # the number now belongs to another process
        ({"started": ""}, False),  # start unknown: alive is alive
        ({"pid": None}, True),  # gone
        ({"pid": None, "host": "elsewhere"}, False),  # process numbers mean nothing there
        ({"age": 1e6}, False),  # the clocks of two hosts may differ by anything
        ({"age": -1e6}, False),
        ({"pid": None, "host": "elsewhere", "age": 1e6}, False),
        ({"pid": 2**80}, False),  # no process number
    ],
)
def test_who_may_take_over_at_once_and_who_after_watching(tmp_path, holder, at_once):
    results = Results(tmp_path)
    _place(results, **{**holder, **({"pid": holder["pid"] or _dead_pid()} if "pid" in holder else {})})
    lease = results.lease(ID, **WATCHED)
    assert (lease is not None) == at_once
    if lease is None:
        os.utime(results.cells / f"{ID}.lease", (1e9, 1e9))  # a heartbeat: watching begins anew
        time.sleep(0.12)
        assert results.lease(ID, **WATCHED) is None
        time.sleep(0.12)
        lease = results.lease(ID, **WATCHED)
    lease.release()


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"pid": 1}', "\u20ac".encode(), b"\xff\xfe\x00", b"9" * 5000])
def test_a_foreign_file_counts_until_it_was_watched(tmp_path, content):
    results = Results(tmp_path)
    results.cells.mkdir()
    (results.cells / f"{ID}.lease").write_bytes(content)
    assert results.lease(ID, **WATCHED) is None
    time.sleep(0.12)
    with results.lease(ID, **WATCHED) as lease:
        assert lease is not None


def test_who_asks_once_watches(tmp_path):
    """A lease of another host: given where it does not change, refused at its first heartbeat; ours: at once."""
    results, path = Results(tmp_path), tmp_path / "cells" / f"{ID}.lease"
    _place(results, host="elsewhere", age=-1e6)
    with Lease.watch(path, heartbeat=0.05, stale_after=0.2) as lease:
        assert lease is not None
        assert Lease.watch(path) is None
    _place(results, host="elsewhere")
    timer = threading.Timer(0.1, os.utime, (path, (1e9, 1e9)))
    timer.start()
    assert Lease.watch(path, heartbeat=0.05, stale_after=30) is None
    timer.join()


@pytest.mark.parametrize("event", ["heartbeat", "newer holder"])
def test_a_lease_that_was_not_the_stale_one_is_given_back(tmp_path, monkeypatch, event):
    """Between judging a lease stale and renaming it away, it comes alive or changes hands."""
    results = Results(tmp_path)
    _place(results, pid=_dead_pid())
    judge, path = records._is_stale, results.cells / f"{ID}.lease"

    def late(*arguments):
        verdict = judge(*arguments)
        if event == "heartbeat":
            os.utime(path)
        else:
            path.unlink()
            _place(results, token="newer")
        return verdict

    monkeypatch.setattr(records, "_is_stale", late)
    assert results.lease(ID) is None
    assert json.loads(path.read_text())["token"] == ("t" if event == "heartbeat" else "newer")
    assert not list(results.cells.glob(".*.tmp"))


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_hard_links_has_leases_too(tmp_path, monkeypatch, number):
    def link(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", link)
    results = Results(tmp_path)
    with results.lease(ID) as lease:
        assert not lease.lost
        assert results.held(ID)
        assert results.lease(ID) is None
    _place(results, pid=_dead_pid())
    with results.lease(ID) as lease:
        assert not lease.lost
    assert [path.name for path in results.cells.iterdir()] == [".lock"]


def _race(folder, barrier, outcomes):
    for turn in range(5):
        barrier.wait(30)
        lease = Results(folder).lease(ID)
        outcomes.put((turn, lease is not None))
        barrier.wait(30)  # nobody lets go before all have tried
        if lease:
            lease.release()


def test_of_eight_exactly_one_gets_it(tmp_path):
    barrier, outcomes = SPAWN.Barrier(8), SPAWN.Queue()
    with _processes(*[(_race, tmp_path, barrier, outcomes)] * 8):
        got = [outcomes.get(timeout=30) for _ in range(8 * 5)]
    assert sorted(turn for turn, held in got if held) == list(range(5))


def _no_locks(*_):
    raise OSError("this file system has no locks")


def _cycle(folder, number, abandon, locks):
    """Takes and gives back, with a witness: a file that only one at a time can create."""
    if not locks:
        records.fcntl.flock = _no_locks
    choose, done, witness, dead = random.Random(number), 0, Path(folder) / "witness", _dead_pid()
    while done < 50:
        lease = Results(folder).lease(ID)
        if lease is None:
            time.sleep(choose.random() * 1e-3)
            continue
        os.close(os.open(witness, os.O_CREAT | os.O_EXCL))  # FileExistsError: two hold it
        time.sleep(choose.random() * 1e-3)
        os.unlink(witness)
        done += 1
        if abandon and choose.random() < 0.5:  # as if killed: all others now fight for it
            lease._stop.set()
            lease._path.write_text(json.dumps({**json.loads(lease._content), "pid": dead}))
        else:
            lease.release()


@pytest.mark.parametrize(("abandon", "locks"), [(True, True), (False, False)])
def test_never_two_holders_in_200_cycles_of_four_processes(tmp_path, abandon, locks):
    with _processes(*[(_cycle, tmp_path, number, abandon, locks) for number in range(4)]):
        pass
    assert not list((tmp_path / "cells").glob(".*.tmp"))


def _hold(folder, ready):
    lease = Results(folder).lease(ID)
    ready.put(lease is not None)
    time.sleep(600)


def test_the_lease_of_a_killed_process_is_free_at_once(tmp_path):
    results, ready = Results(tmp_path), SPAWN.Queue()
    holder = SPAWN.Process(target=_hold, args=(tmp_path, ready))
    holder.start()
    assert ready.get(timeout=30)
    assert results.lease(ID) is None
    os.kill(holder.pid, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while (lease := results.lease(ID)) is None:  # not reaped yet: a zombie is dead too
        assert time.monotonic() < deadline
        time.sleep(0.001)
    lease.release()
    holder.join()
    assert not list(results.cells.glob("*.lease"))
