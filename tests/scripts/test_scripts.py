"""Scripts run: what is not run rots."""

import importlib.util
import json

import benchmark
import numpy as np
import pytest
import train_gridworld_experts
import update_docs
from flax.traverse_util import flatten_dict

from trajclust_envs import ENVIRONMENTS
from trajclust_envs.ppo import load_weights
from trajclust_jax.clustering.policies import CountedPolicy
from trajclust_jax.data import make
from trajclust_jax.devices import traced_for


@pytest.mark.slow
def test_the_benchmark_compares_equals(capsys):
    tiny = ("--size", "4", "--restarts", "1", "--clusters", "2", "--num-envs", "8", "--env-steps", "5")
    benchmark.main([*tiny, "--learners", "IQL", "--updates", "2", "--repeats", "1", "--json"])
    record = json.loads(capsys.readouterr().out)
    more = ("torch", "navix", "ott")  # which add rows where they are installed
    torch, navix, ott = (importlib.util.find_spec(name) is not None for name in more)
    assert len(record["rows"]) == len(ENVIRONMENTS) + 22 + 3 * torch + navix + ott
    assert all(row["ours"] > 0 and row["reference"] > 0 and row["ratio"] > 0 for row in record["rows"])
    assert record["facts"]["e_step_largest_difference"] < 1e-4
    assert record["facts"]["m_step_largest_difference"] < 1e-5
    assert update_docs.benchmark(record).count("|") > 50


def test_an_accelerators_products_are_timed_beside_a_cpus_form():
    config = benchmark.Benchmark(clusters=2, repeats=1)
    with traced_for("cuda"):
        rows = benchmark.product_rows(CountedPolicy(), make("diagonal", 4, 0).trajectories, config, runs=3)
    assert [row.reference_name for row in rows] == ["lookups", "scattered sums"]
    assert all(row.ours > 0 and row.reference > 0 for row in rows)


def test_the_benchmarks_table_prints(capsys, monkeypatch):
    rows = [benchmark.Row("a path", 0.002, "its reference", 0.4, 200.0, "s", 1.5, 10**6)]
    facts = {"members": 2}
    monkeypatch.setattr(benchmark, "run", lambda config: (rows, facts))
    benchmark.main([])
    out = capsys.readouterr().out
    assert "a path" in out
    assert "2 ms" in out
    assert "200.00" in out


@pytest.mark.parametrize(
    ("value", "unit", "text"), [(0.5, "s", "500 ms"), (3e6, "steps/s", "3 Msteps/s"), (2e9, "FLOP/s", "2 GFLOP/s")]
)
def test_units(value, unit, text):
    assert benchmark.readable(value, unit) == text


def test_experts_are_trained_and_written(tmp_path):
    train_gridworld_experts.main(["--names", "pathfollowing", "--updates", "2", "--out", str(tmp_path)])
    rows = (tmp_path / "pathfollowing.csv").read_text().splitlines()
    assert rows[0] == "update,straight,up first,right first"
    assert len(rows) == 3
    with np.load(tmp_path / "pathfollowing.npz") as arrays:
        shipped = load_weights("pathfollowing")["params"]
        assert {name.removeprefix("params/") for name in arrays.files} == set(flatten_dict(shipped, sep="/"))
        assert not np.array_equal(arrays["params/Dense_0/kernel"], shipped["Dense_0"]["kernel"])
