"""Time and memory of clustering against N, K and S x R, each size in a process of its own.

    python scripts/measure_scale.py             # the small sizes, a minute
    python scripts/measure_scale.py --largest   # up to 10^6 trajectories of 100 steps; half an hour; goes on

Data are trajectories of 100 steps: discrete (400 observations, 5 actions; PG-Kmeans' MLPs, by counts) and continuous
(4 numbers observed, 2 acted; PG-Kmeans' MLPs, E-steps on all steps). Told are seconds of an EM iteration once it is
compiled, the most memory that the process held, and what a device needs. Results are kept in
experiments/records/scale.json; docs/scale.md shows them.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from trajclust_jax.clustering import PGKmeans
from trajclust_jax.data import Codebook, Trajectories
from trajclust_jax.records import environment
from trajclust_jax.training import fit

KEPT = Path(__file__).parents[1] / "experiments" / "records" / "scale.json"
STEPS, ITERATIONS = 100, 3


def cases(largest: bool) -> list[dict[str, Any]]:
    """What is measured: one of N, K, S and R goes up at a time."""
    usual = {"kind": "discrete", "n": 1_000, "k": 4, "seeds": 1, "restarts": 1, "device_gb": None}
    numbers = (1_000, 10_000, 100_000, 1_000_000) if largest else (1_000, 10_000)
    found = [{**usual, "kind": kind, "n": n} for kind in ("discrete", "continuous") for n in numbers]
    if largest:  # the same with the data in the host's memory
        found += [{**usual, "kind": "continuous", "n": n, "device_gb": 0.1} for n in numbers[2:]]
    found += [{**usual, "n": 10_000, "k": k} for k in ((2, 10, 100, 1_000) if largest else (2, 10))]
    runs = ((1, 1), (1, 5), (10, 5), (40, 5)) if largest else ((1, 1), (2, 5))
    return found + [{**usual, "n": 10_000, "seeds": seeds, "restarts": restarts} for seeds, restarts in runs]


def data(kind: str, n: int) -> Trajectories:
    """N trajectories of four policies, whose steps are independent: clustering is easy, and costs what it costs."""
    rng, size = np.random.default_rng(0), (n, STEPS)
    policy = rng.integers(4, size=n)
    common = {"rewards": np.zeros(size, np.float32), "lengths": np.full(n, STEPS, np.int32)}
    common |= {"terminated": np.zeros(n, bool)}
    if kind == "discrete":
        table = rng.standard_normal((400, 6)).astype(np.float32)
        ids = rng.integers(400, size=size, dtype=np.int32)
        preferred = rng.integers(5, size=(4, 400), dtype=np.int32)[policy[:, None], ids]
        actions = np.where(rng.random(size, np.float32) < 0.7, preferred, rng.integers(5, size=size, dtype=np.int32))
        observations, final = Codebook(table, ids), Codebook(table, ids[:, -1])
        return Trajectories(observations, actions, final_observations=final, num_actions=5, **common)
    observations = rng.standard_normal((*size, 4), np.float32)
    actions = observations[..., :2] * (policy[:, None, None] - 1.5).astype(np.float32)
    actions += 0.3 * rng.standard_normal(actions.shape, np.float32)
    return Trajectories(observations, actions, final_observations=observations[:, -1], num_actions=0, **common)


def measured(case: dict[str, Any]) -> dict[str, Any]:
    """Of one case, in this process."""
    trajectories = data(case["kind"], case["n"])
    held = sum(np.asarray(x).nbytes for x in jax.tree.leaves(trajectories))
    settings = {"restarts": case["restarts"], "extra_clusters": 0, "iterations": ITERATIONS, "polish_iterations": 0}
    method, times = PGKmeans.default(case["k"], "mlp", **settings, patience=ITERATIONS), []
    limit = None if case["device_gb"] is None else case["device_gb"] * 1e9
    found = fit(
        method,
        trajectories,
        case["seeds"],
        device_bytes=limit,
        callbacks=[lambda event: times.append((time.perf_counter(), time.process_time()))],
    )
    wall, cpu = np.diff(np.array(times), axis=0)[1:].min(0)  # the second iteration, or the third
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 2**10
    return {
        "seconds": float(wall),
        "cpu_seconds": float(cpu),
        "compile_seconds": found.compile_seconds,
        "data_bytes": int(held),
        "peak_bytes": int(peak),
        "device_bytes": int(found.device_bytes),
        "device_peak_bytes": int((jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--largest", action="store_true", help="the large sizes, too")
    parser.add_argument("--case", help="measure this one (JSON) and print it")
    options = parser.parse_args()
    if options.case:
        print(json.dumps(measured(json.loads(options.case))))
        return
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {"cases": []}
    here = [case for case in kept["cases"] if case["environment"]["device"] == environment()["device"]]
    known = [{name: case[name] for name in case if name not in ("found", "environment")} for case in here]
    for case in cases(options.largest):
        if case in known:
            continue
        command = [sys.executable, __file__, "--case", json.dumps(case)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{case}: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else done.returncode}")
        found = json.loads(done.stdout.splitlines()[-1])
        print(json.dumps({**case, **found}), flush=True)
        kept["cases"].append({**case, "found": found, "environment": environment()})
        KEPT.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
