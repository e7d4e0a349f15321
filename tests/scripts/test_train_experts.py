"""The choice of snapshots, and a whole training in miniature."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import train_experts

import trajclust_envs as envs
from trajclust_envs.mujoco import load_policies, shipped_tasks
from trajclust_jax.learners.online import Snapshot


def test_chosen_snapshots():
    scores = [0, 5, 12, 20, 26, 33, 41, 60, 75, 90, 96, 93]
    snapshots = [Snapshot(1000 * (i + 1), 0.0, score, 1000.0, 0.0) for i, score in enumerate(scores)]
    chosen = {name: snapshot.step for name, snapshot in train_experts.choose(snapshots).items()}
    assert chosen == {
        "expert": 11000,  # the best of the last quarter
        "medium": 6000,  # 33 is nearest a third of 96
        "late": 10000,
        "replay-1": 1000,
        "replay-2": 2000,
        "replay-3": 4000,
        "replay-4": 5000,
    }


def test_miniature(tmp_path, capsys):
    out, work = tmp_path / "out", tmp_path / "work"
    train_experts.main(["hopper", "--steps", "10600", "--out", str(out), "--work", str(work)])
    policies = load_policies(out / "hopper.npz")
    assert set(policies) == {"medium", "expert", "late", "replay-1", "replay-2", "replay-3", "replay-4"}
    assert policies["expert"].mode(np.zeros((1, 11), np.float32)).shape == (1, 3)
    assert (out / "hopper.csv").read_text().startswith("step,mean_return,score")
    record = json.loads((out / "hopper.json").read_text())
    assert (record["seed"], record["steps"]) == (0, 10600)
    again = train_experts.measured("hopper", policies["medium"])  # of what was read back: float16
    assert record["policies"]["medium"] | again == record["policies"]["medium"]
    assert "expert: {'step'" in capsys.readouterr().err

    train_experts.main(["hopper", "--agents", "2", "--steps", "10600", "--out", str(out), "--work", str(work)])
    assert "hopper seed 0" not in capsys.readouterr().err  # it goes on where it was: at its end
    agents = load_policies(out / "hopper-heterogeneous.npz")
    assert set(agents) == {"agent-1", "agent-2"}
    one, two = (agents[name].mode(np.ones((1, 11), np.float32)) for name in agents)
    assert np.abs(one - two).max() > 1e-3
    curves = pd.read_csv(out / "hopper-heterogeneous.csv")
    assert set(curves["agent"]) == set(agents)
    first = curves[curves["agent"] == "agent-1"].drop(columns="agent")
    pd.testing.assert_frame_equal(first, pd.read_csv(out / "hopper.csv"))


@pytest.mark.parametrize("task", shipped_tasks())
def test_shipped_policies_are_the_chosen_ones_and_good(task):
    folder = Path(envs.__file__).parent / "weights"
    record = json.loads((folder / f"{task}.json").read_text())
    curve = pd.read_csv(folder / f"{task}.csv").itertuples()
    chosen = train_experts.choose([Snapshot(row.step, row.mean_return, row.score, row.length, 0.0) for row in curve])
    assert {name: snapshot.step for name, snapshot in chosen.items()} == {
        name: policy["step"] for name, policy in record["policies"].items()
    }
    assert record["policies"]["expert"]["score"] >= 70
    assert 25 <= record["policies"]["medium"]["score"] <= 55


@pytest.mark.parametrize("task", ["hopper", "halfcheetah"])
def test_shipped_agents_are_the_last_of_equal_trainings(task):
    folder = Path(envs.__file__).parent / "weights"
    record = json.loads((folder / f"{task}-heterogeneous.json").read_text())
    agents = load_policies(folder / f"{task}-heterogeneous.npz")
    assert list(agents) == list(record["policies"]) == [f"agent-{i}" for i in range(1, record["agents"] + 1)]
    last = pd.read_csv(folder / f"{task}-heterogeneous.csv").groupby("agent")["step"].max()
    assert set(last) == {record["steps"]} == {policy["step"] for policy in record["policies"].values()}


@pytest.mark.parametrize("arguments", [["cheetah"], []])
def test_unknown_task(arguments):
    with pytest.raises(SystemExit) as error:
        train_experts.main(arguments)
    assert error.value.code != 0
