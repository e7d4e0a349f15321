"""Cells of relabelled rewards: what a record says, and whose rewards each seed learns from."""

import dataclasses

import numpy as np
import pytest

from trajclust_experiments.cells.relabelling import RelabelledCell, RewardCell, demonstrations, expert_data, judged
from trajclust_experiments.cells.runner import run_cells
from trajclust_jax.data import make, returns, transitions
from trajclust_jax.records import Results

SHORT = (("batch_size", 8), ("block", 2), ("features", (8, 8)), ("updates", 4))
LEARN = (("actor_features", (8,)), ("batch_size", 8), ("block", 2), ("updates", 4))


def learned(**fields):
    whole = {"relabeller_settings": SHORT, "expert": "success", "episodes": 2, "evaluate_every": 2, **fields}
    return RelabelledCell("pointmaze", 20, "bc", (0, 1), LEARN, **whole)


def computed(cells, folder):
    results = Results(folder)
    found = run_cells(cells, results, preset="smoke")
    assert run_cells(cells, results, preset="smoke") == found  # nothing is computed again
    return found


def test_records_of_rewards(tmp_path):
    cell = RewardCell("pointmaze", 20, "clue", (0, 1), relabeller_settings=SHORT, expert="success")
    (record,) = computed([cell], tmp_path)
    assert np.shape(record["scores"]["auc"]) == np.shape(record["means"]["auc"]) == (2,)
    assert list(record["temperatures"]) == [str(c) for c in range(1, 11)]
    assert np.shape(record["latents"]["points"]) == (len(record["latents"]["groups"]), 2)
    by_c = {c: each["auc"] for c, each in record["temperatures"].items()}
    np.testing.assert_allclose(by_c["5"], record["scores"]["auc"], atol=1e-3)  # c = 5 is the default


@pytest.mark.slow
def test_records_of_learners(tmp_path):
    plainly = {"relabeller_settings": ()}
    cells = [learned(), learned(relabeller="indicator", **plainly), learned(relabeller=None, **plainly)]
    trained, plain, alone = computed(cells, tmp_path)
    for record in (trained, plain, alone):
        assert np.shape(record["scores"]["last_return"]) == (2,)
    assert len(trained["relabelling"]["auc"]) == 2
    assert plain["relabelling"]["auc"] == [1.0, 1.0]
    assert "relabelling" not in alone
    assert [each["cell"]["relabeller"] for each in (trained, plain, alone)] == ["clue", "indicator", None]


def test_identities_tell_cells_apart():
    cells = [
        learned(),
        learned(relabeller="indicator", relabeller_settings=()),
        learned(relabeller_settings=(*SHORT, ("temperature", 3.0))),
        learned(expert="best:1"),
    ]
    described = [str(cell.essential()) for cell in cells]
    assert len(set(described)) == len(cells)
    named = learned(relabeller_settings=(*SHORT, ("temperature", 5.0)))
    assert named.essential() == cells[0].essential(), "a default that is given is no other cell"
    assert RewardCell("pointmaze", 20, "otr", (0,)).essential()["relabeller"] == "otr"
    assert dataclasses.replace(cells[0], seeds=(3,)).essential() == cells[0].essential()


def test_demonstrations_are_the_experts_and_not_in_the_data():
    shown = demonstrations("hopper-medium-expert", 1)
    assert returns(shown) > 2500
    dataset = make("hopper-medium-expert", 2)
    data = expert_data(dataset, "hopper-medium-expert", "demonstrations:1")
    assert data.pooled.num_trajectories == 5
    assert not np.isin(transitions(shown).observations[0], dataset.trajectories.observations).all()


def test_judged():
    dataset = make("pointmaze", 20)
    flat = transitions(dataset.trajectories)
    arrived = np.asarray(dataset.trajectories.terminated)[flat.trajectory]
    found = judged(dataset, np.stack([arrived, np.ones(len(arrived))]).astype(np.float32))
    assert (found["auc"], found["trajectory_auc"]) == ([1.0, 0.5], [1.0, 0.5])
    assert found["rank_correlation"][0] > 0.9
    assert found["step_correlation"][1] is None
    assert found["std"][1] == 0
