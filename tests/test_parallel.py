"""Several devices give what one gives. The number of devices is fixed when a process starts: each run is one."""

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from trajclust_jax.parallel import seed_mesh

FIT = """
import json, sys
import jax, numpy as np
from trajclust_jax.clustering import CAAE, PGKmeans
from trajclust_jax.compile_cache import enable
from trajclust_jax.data import make
from trajclust_jax.training import fit

enable()
folder = sys.argv[1] or None
def interrupt(event):
    if folder and event.phase == "polish" and event.iteration == 2:
        raise SystemExit(3)

trajectories = make("takeball", 40, 0).trajectories
quick = dict(restarts=2, iterations=4, polish_iterations=3, polish_first_steps=20, polish_steps=10)
found = fit(
    PGKmeans.default(4, "tabular", **quick), trajectories, 4, checkpoint_dir=folder, checkpoint_seconds=0.0,
    callbacks=[interrupt] if sys.argv[2] == "stop" else [],
)
placed = len(found.result.posterior.sharding.device_set)
caae = []
if sys.argv[2] == "caae":  # rounding grows with every step: few of them
    caae = fit(CAAE(4, warmup_iterations=1, iterations=1, steps=3), trajectories, 2).history[1::2]
print(json.dumps({
    "devices": len(jax.devices()), "placed": placed, "resumed": found.resumed,
    "assignments": np.asarray(found.result.assignments).tolist(),
    "objective": np.asarray(found.result.objective).tolist(),
    "caae": [entry["objective"] for entry in caae],
}))
"""


def _fit(devices, folder="", what="pg_kmeans"):
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
    flags += " --xla_cpu_multi_thread_eigen=false"
    return subprocess.run(
        [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", "-c", FIT, str(folder), what],
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )


def _result(done):
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_devices_share_the_seeds_and_a_resume_may_have_another_number(tmp_path):
    one, four = _result(_fit(1)), _result(_fit(4))
    assert (one["placed"], four["placed"]) == (1, 4)
    np.testing.assert_array_equal(four["assignments"], one["assignments"])
    np.testing.assert_allclose(four["objective"], one["objective"], rtol=1e-4)
    assert _fit(4, tmp_path, "stop").returncode == 3
    two = _result(_fit(2, tmp_path))
    assert (two["resumed"], two["placed"]) == (True, 2)
    np.testing.assert_array_equal(two["assignments"], one["assignments"])


@pytest.mark.slow
def test_devices_share_the_seeds_of_an_autoencoder():
    one, four = (_result(_fit(count, what="caae")) for count in (1, 4))
    assert len(one["caae"]) == 2
    np.testing.assert_allclose(four["caae"], one["caae"], rtol=1e-4)


@pytest.mark.parametrize(("seeds", "devices", "used"), [(10, 8, 5), (5, 2, 1), (8, 8, 8), (1, 4, 1), (3, 4, 3)])
def test_mesh_is_the_largest_that_divides_the_seeds(seeds, devices, used, monkeypatch):
    monkeypatch.setattr(jax, "local_devices", lambda: jax.devices()[:1] * devices)
    assert seed_mesh(seeds).size == used
