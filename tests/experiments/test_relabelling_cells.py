"""Cells of relabelled rewards: what a record says, and whose rewards each seed learns from."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from trajclust_experiments.cells.learners import LearnerCell
from trajclust_experiments.cells.relabelling import (
    SHOWN,
    RelabelledCell,
    RewardCell,
    demonstrations,
    expert_data,
    judged,
)
from trajclust_experiments.cells.runner import run_cells
from trajclust_experiments.cells.skills import SkillCell, classes_of, spread_out
from trajclust_experiments.papers.clue import IMITATION, learned_cell, way_of
from trajclust_experiments.papers.clue.figure3 import APART, different
from trajclust_experiments.rendering.stored import committed, record_of
from trajclust_experiments.tables import get_table, table_names
from trajclust_jax.data import make, returns, transitions
from trajclust_jax.data.codebook import encode
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
    text, figures = get_table("clue/figure2").render([record])
    assert "| Point maze | CLUE, means of z |" in text
    assert "spreads trajectories most" in text
    assert set(figures) == {"latents", "rewards", "temperatures"}
    flat = transitions(make("pointmaze", 20).trajectories)
    share = np.mean(np.array(record["steps"]["true"]) == 1)
    assert share == pytest.approx(np.mean(flat.rewards == 1), abs=0.02), "some of all steps"
    assert len(record["steps"]["new"]) == len(record["steps"]["groups"]) <= SHOWN
    (panel,) = figures["rewards"].axes
    assert sum(len(line.get_xdata()) for line in panel.lines) == len(record["steps"]["true"])
    before = {name: value for name, value in record.items() if name != "steps"}
    assert set(get_table("clue/figure2").render([before])[1]) == {"latents", "temperatures"}, "of an older record"


def test_the_experts_trajectories_alone():
    """Also of data whose observations are stored once each."""
    dataset = make("pointmaze", 20)
    coded = dataclasses.replace(dataset, trajectories=encode(dataset.trajectories))
    cell = learned(relabeller=None, relabeller_settings=())
    found, again = (transitions(cell._data(each, None, {})[0]) for each in (dataset, coded))
    assert 0 < len(found.rewards) < len(transitions(dataset.trajectories).rewards)
    np.testing.assert_array_equal(found.observations, again.observations)
    np.testing.assert_array_equal(found.next_observations, again.next_observations)


def test_a_seeds_range_of_returns_is_the_relabellers():
    """The learner's own, of IQL on Hopper, would be that of all seeds' rewards together."""
    hopper = lambda way: learned_cell(IMITATION["cpu"], "hopper-medium-expert", way, (0, 1), "demonstrations:1")
    for way, given in {"clue": 1000, "scaled": 60, "otr": 1000}.items():
        assert hopper(way).build_relabeller().returns_range == given
        assert hopper(way).build().reward_range is None
    assert hopper("iql").build().reward_range == hopper("indicator").build().reward_range == 1000


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
    assert way_of(alone) == "bc_expert"
    acted = [{**each, "cell": {**each["cell"], "method": "iql"}} for each in (trained, plain)]
    text, figures = get_table("clue/table1").render([*acted, alone])
    assert "| Point maze | CLUE |" in text
    assert "| AntMaze umaze (not here) | CLUE | 1 | not run |  | 92.1 ± 3.9 |" in text
    assert set(figures) == {"arrived"}
    text, _ = get_table("clue/table6").render([{**acted[0], "cell": {**acted[0]["cell"], "expert": "success:1"}}])
    assert "| 1 | 5 |" in text
    assert "| 61.0 | 2 |" in text  # the mean of Table 6's column c = 5


@pytest.mark.slow
@pytest.mark.parametrize("method", ["transitions", "return_kmeans"])
def test_skills(method, tmp_path):
    """Each part of the data is an expert; what learners do is compared by pairs."""
    dataset = "pathfollowing" if method == "transitions" else "pointmaze"
    sizes = (("actor_features", (8,)), ("batch_size", 8), ("block", 2), ("features", (8,)), ("updates", 4))
    cell = SkillCell(dataset, 10, "iql", (0,), sizes, clusters=method, relabeller_settings=SHORT, skills=2, episodes=2)
    (record,) = computed([cell], tmp_path)
    for name in ("distances", "divergences"):
        matrix = np.array(record[name])
        assert matrix.shape == (2, 2)
        np.testing.assert_allclose(np.diag(matrix), 0, atol=1e-4)
        assert (matrix[~np.eye(2, dtype=bool)] > 0).all()
    text, figures = get_table("clue/figure3").render([record])
    assert text.count("| 2 |") >= 1
    assert len(figures) == 1


def test_skills_that_differ():
    """The largest set counts: the first skill may be near all others."""
    near = [(0, 1), (0, 2), (0, 3), (2, 3)]
    distances = 1 - np.eye(4)
    for one, other in near:
        distances[one, other] = distances[other, one] = APART
    assert different(distances) == 2  # 1 and 2, or 1 and 3
    assert different(np.zeros((3, 3))) == 1
    assert different(1 - np.eye(8)) == 8


def test_classes_that_are_spread_out():
    centres = np.array([[0.0], [1.0], [10.0], [4.0]])
    classes = np.array([1, 1, 1, 0, 2, 3])
    assert spread_out(classes, centres, 3) == [1, 2, 3]
    assert spread_out(classes, centres, 9) == [1, 2, 3, 0]
    labels, found = classes_of(make("pathfollowing", 2).trajectories, 5)
    assert labels.shape == (300,)
    assert found.shape == (5, 6)


def test_a_table_that_another_holds_is_found_by_its_name():
    for held, name in (("figure7", "figure2"), ("table5", "table1"), ("figure10", "figure3")):
        with pytest.raises(ValueError, match=f"clue/{held} is part of clue/{name}: give that"):
            get_table(f"clue/{held}")
    with pytest.raises(ValueError, match="unknown table 'clue/figure99': choose one of clue/table1, clue/table3"):
        get_table("clue/figure99")


@pytest.mark.parametrize("name", [name for name in table_names() if name.startswith("clue/")])
def test_tables_have_cells_that_can_be_told_apart(name):
    table = get_table(name)
    for preset in table.presets.values():
        cells = table.cells(preset, table.datasets, table.methods, tuple(range(preset.seeds)))
        assert len({str(cell.essential()) for cell in cells}) == len(cells) > 0
    text, _ = table.render([])
    assert text.startswith("# ")


def test_amounts_of_data():
    """Of all the data the cells are Table 1's; lines go by amount and way."""
    few, whole = get_table("clue/figure6"), get_table("clue/table1")
    chosen = lambda table: table.cells(table.presets["cpu"], table.datasets, ("iql", "clue_1"), tuple(range(10)))
    sizes = [cell.size for cell in chosen(few)]
    assert sizes == sorted([10, 20, 30, 40, 50, 200] * 2)
    assert chosen(few)[-2:] == chosen(whole)
    stored = committed().all()
    records = [record_of(cell, stored) for cell in chosen(whole)]
    small = [{**r, "cell": {**r["cell"], "size": 10}} for r in records]
    text, figures = few.render([*records, *small])
    lines = [line for line in text.splitlines() if line.startswith("| Point maze")]
    assert [line.split(" | ")[1:3] for line in lines[:2]] == [["10", "IQL, true rewards"], ["10", "CLUE"]]
    (ax,) = figures["scores"].axes
    assert [list(line.get_xdata()) for line in ax.lines] == [[10, 200], [10, 200]]


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


def test_a_learner_on_other_rewards_does_not_stand_for_the_learner():
    """Nor the other way round: each finds its own record among all."""
    plain = LearnerCell("hopper-medium-expert", 20, "iql", (0, 1))
    relabelled = RelabelledCell(*dataclasses.astuple(plain)[:4], relabeller="constant", expert="best:1")
    skills = SkillCell(*dataclasses.astuple(plain)[:4])
    cells = [plain, relabelled, dataclasses.replace(relabelled, expert="best:2"), skills]
    said = [{**cell.essential(), "fingerprint": "0", "seeds": [0, 1]} for cell in cells]
    records = [{"id": str(number), "cell": each} for number, each in enumerate(said)]
    for number, cell in enumerate(cells):
        assert record_of(cell, records)["id"] == str(number)
        assert record_of(cell, records[:number] + records[number + 1 :]) is None


def test_every_kind_of_cell_finds_its_record():
    """Records say more than cells do; `own/data`'s, which ask the data, are among the committed ones."""
    dataset = SimpleNamespace(provenance=SimpleNamespace(fingerprint="0"))
    tables = [get_table(name) for name in table_names() if name != "own/data"]
    cells = [cell for t in tables for cell in t.cells(t.presets["smoke"], t.datasets, t.methods, (0,))]
    kinds = {type(cell): cell for cell in cells}
    assert len(kinds) > 9
    for cell in kinds.values():
        record = {"id": "0", "cell": cell.identity(dataset)}
        found = record_of(cell.of_seeds(tuple(record["cell"].get("seeds", ()))), [record])
        assert found is record, type(cell)


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
