"""The choice of snapshots, and a whole training in miniature."""

import numpy as np
import pytest
import train_experts

from envs.mujoco import load_policies
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
    assert "sampled return" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["cheetah"], []])
def test_unknown_task(arguments):
    with pytest.raises(SystemExit) as error:
        train_experts.main(arguments)
    assert error.value.code != 0
