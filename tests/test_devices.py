"""Several devices give what one gives. The number of devices is fixed when a process starts: each run is one."""

import json
import os
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

from trajclust_jax.clustering import CAAE, EmpoEM, PGKmeans
from trajclust_jax.data import make
from trajclust_jax.devices import OnHost, layout, shared, shared_rows, spread, within
from trajclust_jax.training import fit

FIT = """
import json, sys
import jax, numpy as np
import trajclust_jax.devices
from trajclust_jax.clustering import CAAE, PGKmeans
from trajclust_jax.compile_cache import enable
from trajclust_jax.data import make
from trajclust_jax.learners import CQL, IQL, Offline
from trajclust_jax.training import fit

folder, what, *host = sys.argv[1:]
if host:
    jax.distributed.initialize(host[0], 2, int(host[1]))
enable()
trajclust_jax.devices.LEAST_ROWS = 16
told = {"devices": len(jax.devices())}

def interrupt(event):
    if what == "stop" and event.phase == "polish" and event.iteration == 2:
        raise SystemExit(3)

def tell(method, trajectories, seeds, **options):
    found = fit(method, trajectories, seeds, **options)
    told["resumed"] = found.resumed
    arrays = jax.tree.leaves(found.result)
    told["placed"] = len(arrays[0].sharding.device_set)
    clustered = {} if not hasattr(found.result, "assignments") else {
        "assignments": np.asarray(found.result.assignments).tolist(),
        "objective": np.asarray(found.result.objective).tolist(),
    }
    numbers = [name for name in found.history[-1] if name not in ("phase", "iteration", "objective", "changed")]
    return clustered | {name: found.history[-1][name] for name in numbers}

quick = dict(iterations=4, polish_iterations=3, polish_first_steps=20, polish_steps=10)
if what == "all":
    takeball, navigation = make("takeball", 20, 0).trajectories, make("navigation", 1000, 0).trajectories
    told["pg_kmeans"] = tell(PGKmeans.default(5, "mlp", restarts=3, **quick), takeball, 5)
    told["rows"] = tell(PGKmeans.default(1, "mlp", extra_clusters=1, restarts=1, **quick), navigation, 2)
    told["caae"] = tell(CAAE(4, warmup_iterations=1, iterations=1, steps=3), takeball, 3)
    for learner in (IQL, CQL):
        told[learner.__name__] = tell(Offline(learner(2, updates=40), block=20), navigation, 3)
else:
    trajectories = make("takeball", 40, 0).trajectories
    method = PGKmeans.default(4, "tabular", restarts=2, **quick)
    told["pg_kmeans"] = tell(
        method, trajectories, 3, checkpoint_dir=folder or None, checkpoint_seconds=0.0, callbacks=[interrupt]
    )
print(json.dumps(told))
"""


def _start(devices, folder="", what="pg_kmeans", *host):
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
    flags += " --xla_cpu_multi_thread_eigen=false"
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", "-c", FIT, str(folder), what, *host],
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _result(process):
    out, error = process.communicate()
    assert process.returncode == 0, error
    return json.loads(out.splitlines()[-1])


def _same(many, one):
    assert many.keys() == one.keys()
    for name in one:
        compare = np.testing.assert_array_equal if name == "assignments" else close
        compare(many[name], one[name])


def close(many, one):
    np.testing.assert_allclose(np.array(many, float), np.array(one, float), rtol=3e-5)


def test_devices_share_the_seeds_and_a_resume_may_have_another_number(tmp_path):
    """Three seeds: on two devices a fourth fills up."""
    one, four = _result(_start(1)), _result(_start(4))
    assert (one["placed"], four["placed"]) == (1, 4)
    _same(four["pg_kmeans"], one["pg_kmeans"])
    stopped = _start(4, tmp_path, "stop")
    stopped.communicate()
    assert stopped.returncode == 3
    two = _result(_start(2, tmp_path))
    assert two["resumed"]
    _same(two["pg_kmeans"], one["pg_kmeans"])


@pytest.mark.slow
def test_eight_devices_are_as_one():
    """Three restarts of seven clusters with five seeds, minibatches shared out, CAAE, IQL and CQL."""
    one, eight = (_result(_start(count, what="all")) for count in (1, 8))
    assert (one.pop("devices"), eight.pop("devices")) == (1, 8)
    for name in ("pg_kmeans", "rows", "caae", "IQL", "CQL"):
        _same(eight[name], one[name])


@pytest.mark.slow
def test_two_hosts_are_as_one_also_when_one_of_them_is_told_to_stop(tmp_path):
    one = _result(_start(1))

    def both(what):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        return [_start(2, tmp_path, what, address, str(index)) for index in range(2)]

    for process in both("stop"):
        process.communicate()
    for process in both("pg_kmeans"):
        found = _result(process)
        assert (found["resumed"], found["devices"]) == (True, 4)
        _same(found["pg_kmeans"], one["pg_kmeans"])
    resumed_alone = _result(_start(1, tmp_path))
    assert resumed_alone["resumed"]
    _same(resumed_alone["pg_kmeans"], one["pg_kmeans"])


@pytest.mark.parametrize(
    ("seeds", "members", "devices", "shape"),
    [
        (10, (1, 1), 8, (5, 1, 1, 1)),  # two seeds a device: of eight three would idle
        (3, (1, 1), 2, (2, 1, 1, 1)),
        (8, (5, 4), 8, (8, 1, 1, 1)),
        (1, (5, 4), 8, (1, 2, 4, 1)),
        (5, (3, 7), 8, (1, 1, 7, 1)),
        (1, (1, 1), 8, (1, 1, 1, 8)),
        (2, (1, 2), 8, (2, 1, 2, 2)),
        (1, (1, 1000), 256, (1, 1, 250, 1)),
    ],
)
def test_layout_leaves_the_busiest_device_the_fewest_networks(seeds, members, devices, shape, monkeypatch):
    monkeypatch.setattr(jax, "devices", lambda: jax.local_devices()[:1] * devices)
    found = layout(seeds, members)
    assert found.mesh.devices.shape == shape
    assert found.slots == -(-seeds // shape[0]) * shape[0]


def test_last_seed_fills_up(monkeypatch):
    monkeypatch.setattr(jax, "devices", lambda: jax.local_devices()[:1] * 2)
    found = layout(3)
    filled = found.filled({"x": np.arange(3)})
    np.testing.assert_array_equal(filled["x"], [0, 1, 2, 2])
    np.testing.assert_array_equal(found.local(filled)["x"], [0, 1, 2])


def test_without_a_mesh_nothing_is_shared_out():
    drawn = np.arange(3)
    assert shared(drawn, "outer") is drawn
    assert shared_rows(drawn) is drawn
    assert not spread()


QUICK = {"restarts": 2, "iterations": 2, "polish_iterations": 2, "polish_first_steps": 5, "polish_steps": 5}
ON_HOST = {
    "tabular": lambda: PGKmeans.default(4, "tabular", **QUICK),
    "mlp": lambda: PGKmeans.default(4, "mlp", **QUICK),
    "gru": lambda: PGKmeans.default(4, "gru", **QUICK),
    "some steps": lambda: PGKmeans.default(2, "mlp", **QUICK, policy_settings=(("scored_steps", 10),)),
    "empo": lambda: EmpoEM(2, iterations=2, pretrain_epochs=1, bias_epochs=0, least_steps=3),
    "caae": lambda: CAAE(4, warmup_iterations=1, iterations=1, steps=3),
    "windows": lambda: CAAE(2, warmup_iterations=1, iterations=1, steps=3, window=16),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "some steps" else pytest.mark.slow) for name in ON_HOST]
)
def test_data_on_the_host_gives_the_same_to_the_bit(name):
    continuous = name in ("some steps", "empo", "windows")
    trajectories = make(*(("navigation", 1000) if continuous else ("takeball", 20)), 0).trajectories
    method = ON_HOST[name]()
    on_device, on_host = (fit(method, trajectories, 2, device_bytes=limit) for limit in (None, 1e3))
    jax.tree.map(np.testing.assert_array_equal, on_host.result, on_device.result)
    assert on_host.history == on_device.history


def test_data_within_the_limit_stays_on_the_device(monkeypatch):
    data = PGKmeans.default(4, "tabular").prepare(make("takeball", 20, 0).trajectories)
    assert within(data, None) is within(data, 1e9) is data
    assert isinstance(within(data, 1e3).data.chunks.cells, OnHost)
    for wrong in ("4GB", "-1", "nan"):
        monkeypatch.setenv("TRAJCLUST_DEVICE_GB", wrong)
        with pytest.raises(ValueError, match=f"TRAJCLUST_DEVICE_GB is '{wrong}': give gigabytes"):
            fit(PGKmeans.default(4, "tabular"), None, 1)
    with pytest.raises(ValueError, match="4e-06 GB of a device, and 1e-06 GB are allowed"):
        within({"x": np.zeros(1_000, np.float32)}, 1e3)
