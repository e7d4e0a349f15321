"""`trajclust train`: what it writes, what it learns from clusters, one clear line for whatever is wrong."""

import dataclasses
import importlib.util
import json
import shutil
import sys
import warnings

import gymnasium
import numpy as np
import pandas as pd
import pytest
from wandb_reader import read_runs

from trajclust_experiments.cells import evaluation
from trajclust_experiments.cells.evaluation import make_gymnasium
from trajclust_experiments.commands import train
from trajclust_experiments.models import load_policy
from trajclust_experiments.progress import Progress
from trajclust_jax.checkpoint import load_tree
from trajclust_jax.data import DataError, build_dataset, dense, from_episodes, load, load_minari, make, save_npz
from trajclust_jax.learners import BC, C4, Clustered, Offline

SMALL = ("--set", "updates=40", "block=10", "batch_size=16", "actor_features=[8]")


def plane(path, environment=None, seed=0):
    """Two policies of the plane: one goes right and is rewarded, the other goes up."""
    rng = np.random.default_rng(seed)
    episodes, labels = [], np.arange(10) % 2
    for label in labels:
        actions = np.tile([[0.9, 0.0], [0.0, 0.9]][label], (12, 1)) + 0.05 * rng.normal(size=(12, 2))
        positions = np.concatenate([[[-1, -1]], -1 + np.cumsum(0.1 * actions, 0)])
        rewards = np.full(12, 1.0 - label)
        episodes.append((positions.astype(np.float32), actions.astype(np.float32), rewards.astype(np.float32), False))
    parameters = {} if environment is None else {"environment": environment}
    dataset = build_dataset(from_episodes(episodes), labels, name="plane", source="plane", parameters=parameters)
    save_npz(dataset, path)
    return dataset


def _check_tracked(folder, summary):
    """A run a seed, against gradient steps; and one with the figure, the scores and the summary."""
    whole, *runs = read_runs(folder)
    assert [run.name for run in (whole, *runs)] == ["plane-bc", "plane-bc-seed0", "plane-bc-seed1"]
    assert {(run.project, run.group) for run in (whole, *runs)} == {("mine", f"plane-bc-{summary['id']}")}
    for seed, run in enumerate(runs):
        steps = [row["gradient_steps"] for row in run.history]
        assert steps == sorted(set(steps))
        assert steps[-1] == 40
        assert run.summary["final/last_return"] == summary["scores"]["last_return"][seed]
        assert not run.summary["health/diverged"]
    assert whole.history[0]["learning-curve/width"] > 100
    assert whole.history[0]["table/nrows"] == 2
    assert [files for _, files in whole.artifacts.values() if files == ["record.json"]]


def test_the_settings_of_an_environment_hold_where_it_is_not_installed(trajclust, tmp_path):
    """And are told; those of its rewards do not hold for a relabeller's."""
    plane(tmp_path / "plane.npz", "AntMaze_UMaze-v99")
    code, _, err = trajclust(
        "train", "plane.npz", "--learner", "iql", "--seeds", 1, *SMALL, "expectile=0.8", "--out", "a"
    )
    assert code == 0, err
    assert "iql's settings for AntMaze_UMaze-v99: temperature=10.0 reward_shift=-1.0; --set gives others" in err
    settings = json.loads((tmp_path / "a/summary.json").read_text())["settings"]
    assert (settings["reward_shift"], settings["learner"]["expectile"]) == (-1, 0.8)
    relabelled = ("--relabel", "indicator", "--expert", "best:1", "--out", "b")
    code, _, err = trajclust("train", "plane.npz", "--learner", "iql", "--seeds", 1, *relabelled, *SMALL)
    assert code == 0, err
    settings = json.loads((tmp_path / "b/summary.json").read_text())["settings"]
    assert (settings["reward_shift"], settings["learner"]["temperature"]) == (0, 10)
    dense = plane(tmp_path / "plane.npz", "AntMaze_UMazeDense-v99")
    trajectories = dense.trajectories.replace(rewards=0.5 * np.asarray(dense.trajectories.rewards))
    parameters = dense.provenance.parameters
    save_npz(build_dataset(trajectories, name="plane", source="plane", parameters=parameters), tmp_path / "plane.npz")
    code, _, err = trajclust("train", "plane.npz", "--learner", "iql", "--seeds", 1, *SMALL, "--out", "c")
    assert code == 0, err
    assert json.loads((tmp_path / "c/summary.json").read_text())["settings"]["reward_shift"] == 0


def test_train_evaluates_where_the_data_is_from(trajclust, tmp_path, caplog):
    plane(tmp_path / "plane.npz", "Pathfollowing-v0")
    code, out, err = trajclust(
        *("train", "plane.npz", "--learner", "bc", "--seeds", 2, "--episodes", 3, "--evaluate-every", 20),
        *("--json", "--track", "offline", "--project", "mine", *SMALL),
    )
    assert code == 0, err
    summary = json.loads(out)
    assert summary["environment"] == "Pathfollowing-v0"
    _check_tracked(tmp_path / "runs", summary)
    assert np.shape(summary["scores"]["last_return"]) == (2,)
    assert "last_score" not in summary["scores"]  # D4RL normalises nothing here
    assert {path.name for path in (tmp_path / "runs/train").iterdir()} == train.OUTPUTS - {"assignments.csv"}
    frame = pd.read_csv(tmp_path / "runs/train/evaluations.csv")
    assert list(frame) == ["updates", "seed", "episode", "return"]
    assert sorted(set(frame["updates"])) == [20, 40]
    assert len(frame) == 2 * 2 * 3
    assert (frame["return"] == 0).all()  # the plane has no rewards
    losses = pd.read_csv(tmp_path / "runs/train/losses.csv")
    assert list(losses["updates"]) == [10, 10, 20, 20, 30, 30, 40, 40]
    assert losses["actor/loss"].iloc[-2] < losses["actor/loss"].iloc[0]
    policy = load_tree(tmp_path / "runs/train/policy")
    assert policy["scaling"]["mean"].shape == (2, 2)
    with pytest.raises(DataError, match="no result of trajclust train there"):
        load_policy(tmp_path)
    with pytest.raises(ValueError, match="observations have a NaN"):
        load_policy(tmp_path / "runs/train").predict([np.nan, 0])
    told = json.loads((tmp_path / "runs/train/summary.json").read_text())
    (tmp_path / "runs/train/summary.json").write_text(json.dumps({**told, "version": [0, 0]}))
    load_policy(tmp_path / "runs/train")
    assert "policies that another version of BC trained" in caplog.text
    again = trajclust("train", "plane.npz", "--learner", "bc", "--seeds", 2, *SMALL)
    assert again[0] == 0
    assert "last return, by seed: 0.0, 0.0" in again[1]
    assert "every return is 0: no reward was met in Pathfollowing-v0, or it gives none" in again[1]


def test_a_plug_in_on_reduced_data(trajclust, tmp_path):
    """Its settings are given as the learner's; what was drawn is told; the policy is read back."""
    plane(tmp_path / "plane.npz")
    plugged = ("--learner", "td3_bc", "--plugin", "c4", "--transitions", 30, "--draw", 4, "--seeds", 1, "--json")
    settings = ("features=[8]", "clusters=2", "weight=0.5", "recluster_every=20", "em_iterations=1")
    code, out, err = trajclust("train", "plane.npz", *plugged, *SMALL, *settings)
    assert code == 0, err
    summary = json.loads(out)
    assert (summary["plugin"], summary["settings"]["learner"]["clusters"]) == ("c4", 2)
    assert summary["reduced"]["transitions"] == 36
    assert len(summary["reduced"]["trajectories"]) == 3
    losses = pd.read_csv(tmp_path / "runs/train/losses.csv")
    assert (losses["clusters/effective"] <= 2).all()
    assert (losses["critic/penalty"] > 0).all()
    learner = load_policy(tmp_path / "runs/train").learner
    assert isinstance(learner, C4)
    assert learner.weight == 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--plugin", "c5"), "unknown plug-in 'c5': choose one of c4, dr3, layer_norm"),
        (("--plugin", "c4+dr3+c4"), "--plugin: c4 is given twice"),
        (("--learner", "bc", "--plugin", "c4"), "--learner bc --plugin c4: bc has no critics of its own"),
        (("--plugin", "c4", "--set", "weight=-1"), "--plugin c4: weight is -1.0: it must be at least 0"),
        (("--set", "weight=1"), "no setting 'weight'"),
        (("--transitions", 1000), "transitions is 1000: give 1 to 120, which plane has"),
        (("--transitions", 10, "--draw", -1), "draw is -1: give 0 to 4294967295"),
        (("--transitions", 10, "--clusters", "runs/none"), "a clustering is of all trajectories"),
    ],
)
def test_plug_ins_and_draws_that_are_none(trajclust, tmp_path, arguments, message):
    plane(tmp_path / "plane.npz")
    learner = () if "--learner" in arguments else ("--learner", "td3_bc")
    code, out, err = trajclust("train", "plane.npz", *learner, *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_a_learner_that_finds_clusters_says_which(trajclust, tmp_path):
    """`--learner empo`: the data's own bounds of the actions, evaluations of the improvement's epochs."""
    steps = ("critic_updates=20", "value_updates=20", "features=[8]", "bias_epochs=1", "pretrain_epochs=1")
    code, out, err = trajclust(
        *("train", "navigation:size=400", "--learner", "empo", "--seeds", 2, "--episodes", 2, "--json", *SMALL, *steps),
        *("em_epochs=2", "epochs=10", "k=3"),
    )
    assert code == 0, err
    summary, folder = json.loads(out), tmp_path / "runs/train"
    assert summary["settings"]["bounds"] == pytest.approx([0.2, 0.2])
    found = pd.read_csv(folder / "assignments.csv", index_col="trajectory")
    assert list(found) == ["seed 0", "seed 1"]
    trained = load_policy(folder)
    np.testing.assert_array_equal(found.to_numpy().T, trained.learner.assignments(trained.policy.actor))
    assert found.isin([0, 1, 2]).all(axis=None)
    evaluated = pd.read_csv(folder / "evaluations.csv")
    assert sorted(set(evaluated["updates"])) == list(range(1, 11)), "epochs"
    losses = pd.read_csv(folder / "losses.csv")
    assert losses[losses["phase"] == "improve"]["updates"].max() == 10
    assert losses[losses["phase"] == "critic"]["updates"].max() == 20


def test_policies_of_combinations_answer_with_their_parts(trajclust, tmp_path):
    """What an environment of several discrete parts is stepped with, not our number of the combination."""
    parts = np.array([[0, 20], [0, 30], [2, 20]])
    actions = np.random.default_rng(0).integers(0, 3, (4, 5))
    observations = parts[actions].astype(np.float32)  # that they are cloned from
    np.savez(tmp_path / "data.npz", observations=observations, actions=actions, lengths=[5] * 4, action_parts=parts)
    given = ("train", str(tmp_path / "data.npz"), "--learner", "bc", "--seeds", 2, "--set", "updates=300")
    code, _, err = trajclust(*given, "actor_features=[16]", "learning_rate=.01")
    assert code == 0, err
    trained = load_policy(tmp_path / "runs/train")
    found = trained.predict(parts.astype(np.float32), seed=1)
    assert found.tolist() == parts.tolist()
    assert found.dtype == np.int32
    assert trained.predict(parts[0].astype(np.float32)).tolist() == [0, 20]
    assert trained.predict(np.stack([parts, parts]).astype(np.float32)).shape == (2, 3, 2)


def test_clusters_are_told_of_what_was_learned_from():
    """LBRAC-v on each cluster of another clustering: a column a learner, empty where it saw nothing."""
    found = np.array([[[0, 1, 1], [1, 0, 0]]])  # a seed, two learners, three trajectories
    groups = Offline(BC(2), best=0.5).learned_from(Clustered(_returning(3.0, 1.0, 2.0), np.array([0, 1, 0]), 2))
    assert [group.tolist() for group in groups] == [[0], [1]]
    shown = train._assignments(found, [7], [2, 5], groups)
    assert shown.to_csv() == "trajectory,seed 7 cluster 2,seed 7 cluster 5\n0,0,\n1,,0\n2,,\n"
    groups = Offline(BC(2)).learned_from(_returning(3.0, 1.0, 2.0))
    assert train._assignments(found[:, 0], [7], None, groups).to_csv() == "trajectory,seed 7\n0,0\n1,1\n2,1\n"


def _returning(*values):
    """Trajectories of a step each."""
    states, actions = np.zeros((2, 1), np.float32), np.zeros((1, 2), np.float32)
    return from_episodes([(states, actions, np.array([value]), True) for value in values])


def test_train_in_mujoco_gives_scores(trajclust, tmp_path):
    code, out, err = trajclust(
        *("train", "hopper-medium-expert:size=2", "--learner", "td3_bc", "--seeds", 2, "--episodes", 3, "--json"),
        *(*SMALL, "features=[8]"),
    )
    assert code == 0, err
    scores = json.loads(out)["scores"]
    assert set(scores) == {"last_return", "best_return", "last_score", "best_score"}
    expected = 100 * (scores["last_return"][0] + 20.272305) / (3234.3 + 20.272305)
    assert scores["last_score"][0] == pytest.approx(expected)
    found = load_policy(tmp_path / "runs/train")
    learner, policy = found.learner, found.policy
    episode_returns = evaluation.returns_of(learner, "Hopper-v4", policy, 3, 4)  # as after the fourth block
    assert episode_returns.tolist() == _returns(tmp_path / "runs/train/evaluations.csv", (2, 3))
    assert len(np.unique(episode_returns)) == 6


def _returns(path, shape):
    """Of the last evaluation."""
    return pd.read_csv(path)["return"].to_numpy()[-np.prod(shape) :].reshape(shape).tolist()


def test_a_training_that_diverges_says_so(trajclust, tmp_path):
    plane(tmp_path / "plane.npz", "Pathfollowing-v0")
    code, out, _ = trajclust(
        *("train", "plane.npz", "--learner", "bc", "--seeds", 2, "--episodes", 2, *SMALL, "learning_rate=1e38")
    )
    assert code == 1
    assert "last return, by seed: " in out
    assert "diverged: seeds [0, 1] have policies that are not finite" in out
    assert {path.name for path in (tmp_path / "runs/train").iterdir()} == train.OUTPUTS - {"assignments.csv"}


def test_rewards_that_no_loss_can_hold_are_told(trajclust, tmp_path):
    """A critic's loss overflows while the policy stays finite."""
    dataset = plane(tmp_path / "plane.npz")
    rewards = np.asarray(dataset.trajectories.rewards) + 0.01 * np.arange(12, dtype=np.float32)
    rewards[0, [2, 5]] = 1e20
    save_npz(build_dataset(dataset.trajectories.replace(rewards=rewards), name="far", source="far"), tmp_path / "f.npz")
    code, _, err = trajclust("train", "f.npz", "--learner", "iql", "--seeds", 2, *SMALL)
    assert code == 0, err
    assert "warning: rewards: 1e+20 appears 2 times, far outside" in err
    assert "warning: losses of seeds [0, 1] are not finite, first critic/loss after 10 updates: do not trust" in err
    summary = json.loads((tmp_path / "runs/train/summary.json").read_text())
    assert summary["losses_not_finite"] == [0, 1]
    relabelled = ("--relabel", "indicator", "--expert", "best:1", *SMALL)  # whose expert the old rewards choose
    code, _, err = trajclust("train", "f.npz", "--learner", "iql", "--seeds", 1, *relabelled)
    assert code == 0, err
    assert "warning: rewards: 1e+20 appears 2 times" in err
    assert "losses of seeds" not in err
    assert json.loads((tmp_path / "runs/train/summary.json").read_text())["losses_not_finite"] == []


def test_units_of_observations_are_warned_of_where_nothing_normalises(trajclust, tmp_path):
    dataset = plane(tmp_path / "plane.npz")
    far = dataset.trajectories.replace(
        observations=dense(dataset.trajectories.observations) + np.float32(1e3),
        final_observations=dense(dataset.trajectories.final_observations) + np.float32(1e3),
    )
    save_npz(build_dataset(far, name="far", source="far"), tmp_path / "far.npz")
    told = "warning: 2 of 2 columns of observations (0, 1) are far from 0 beside their spread, or this is outside"
    otr = ("--relabel", "otr", "--expert", "best:1")
    cases = {
        ("plane.npz", "--learner", "iql", *SMALL): [],
        ("far.npz", "--learner", "iql", *SMALL): ["--set"],
        ("far.npz", "--learner", "iql", *SMALL, "normalise=true"): [],
    }
    if importlib.util.find_spec("ott") is not None:  # an extra
        cases |= {
            ("far.npz", "--learner", "iql", *otr, *SMALL, "normalise=true"): ["--set-relabel"],
            ("far.npz", "--learner", "iql", *otr, "--set-relabel", "normalise=true", *SMALL, "normalise=true"): [],
        }
    for arguments, remedies in cases.items():
        code, _, err = trajclust("train", *arguments, "--seeds", 1)
        assert code == 0, err
        assert err.count(told) == len(remedies)
        assert all(f"give {option} normalise=true, or shift and scale them" in err for option in remedies)


def test_returns_that_are_not_finite_are_told(trajclust, tmp_path, monkeypatch):
    """As MuJoCo gives them for such policies."""
    plane(tmp_path / "plane.npz", "Pathfollowing-v0")
    monkeypatch.setattr(evaluation, "returns_of", lambda _, __, ___, episodes, ____: np.full((2, episodes), np.nan))
    code, out, _ = trajclust("train", "plane.npz", "--learner", "bc", "--seeds", 2, *SMALL)
    assert code == 0
    assert "best return, by seed: not finite, not finite" in out
    assert "every return is 0" not in out
    assert json.loads((tmp_path / "runs/train/summary.json").read_text())["scores"]["last_return"] == [None, None]


@pytest.mark.parametrize(("which", "numbers"), [("all", [0, 1]), ("best", None), ("1", [1])])
def test_train_on_clusters(trajclust, tmp_path, which, numbers):
    dataset = plane(tmp_path / "plane.npz")
    assert trajclust("cluster", "plane.npz", "--method", "return_kmeans", "--k", 2, "--out", "c")[0] == 0
    found = pd.read_csv(tmp_path / "c/assignments.csv")["cluster"].to_numpy()
    rewarded = int(found[dataset.labels == 0][0])
    code, out, err = trajclust(
        *("train", "plane.npz", "--learner", "bc", "--clusters", "c", "--cluster", which, "--seeds", 1, "--json"),
        *("--set", "updates=600", "block=300", "actor_features=[16]", "learning_rate=0.003"),
    )
    assert code == 0, err
    summary = json.loads(out)
    assert summary["clusters"] == (numbers or [rewarded])
    assert "scores" not in summary
    policy, trained = load_tree(tmp_path / "runs/train/policy"), load_policy(tmp_path / "runs/train")
    for k, cluster in enumerate(summary["clusters"]):
        # the last layer's bias is what the policy does at the cluster's mean position, more or less
        actor = {
            name: {n: x[0, k] for n, x in layer.items()} for name, layer in policy["actor"]["params"]["MLP_0"].items()
        }
        last = {n: x[0, k] for n, x in policy["actor"]["params"]["Dense_0"].items()}
        hidden = np.maximum(np.zeros(2) @ actor["Dense_0"]["kernel"] + actor["Dense_0"]["bias"], 0)
        action = np.tanh(hidden @ last["kernel"] + last["bias"])
        np.testing.assert_allclose(action, [0.9, 0.0] if cluster == rewarded else [0.0, 0.9], atol=0.25)
        mean, bound = trained.policy.scaling.mean[0, k], trained.policy.scaling.bound[0, k]
        np.testing.assert_allclose(trained.predict(mean, cluster=cluster), bound * action, rtol=1e-4, atol=1e-6)
        late = np.add(mean, [0, 1e9], dtype=np.float64)  # data that were read less an offset, as a file has them
        found = dataclasses.replace(trained, offsets={1: 1e9}).predict(late, cluster=cluster)
        np.testing.assert_allclose(found, trained.predict(mean, cluster=cluster), atol=1e-5)
    with pytest.raises(ValueError, match="cluster 7 was not learned from: give one of"):
        trained.predict(mean, cluster=7)
    assert (tmp_path / "runs/train/learning-curve.png").stat().st_size > 5000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--learner", "sarsa"), "unknown learner 'sarsa': choose one of bc"),
        (("--set", "expectil=0.9"), "--learner iql: no setting 'expectil': choose from"),
        (("--set", "expectile"), "--set expectile: give name=value"),
        (("--set", "expectile=high"), "expectile is 'high': give a number"),
        (("--set", "expectile=<.9>"), "--set expectile=<.9>: give name=value"),
        (("--set", "updates=1000", "block=7"), "block is 7: it must divide 1000 updates"),
        (("--seeds", 0), "--seeds is 0"),
        (
            ("--environment", "Hopper-v4"),
            "Hopper-v4 has 11 observations and 3 actions, the dataset 2 observations and 2 actions",
        ),
        (("--cluster", "best"), "--cluster best: of which clustering?"),
        (("--set", "sweep=[]"), "--set sweep: sweeps are for Python"),
        (("--set", "updates=1.5"), "updates is 1.5: give a whole number"),
        (("--environment", "Hopper-v9"), "--environment Hopper-v9: no environment Hopper-v9 ("),
        (("--environment", "nowhere:Mine"), "ModuleNotFoundError: No module named 'nowhere'"),
        (("--environment", "builtins:dict"), "TypeError: it makes a dict, which is no single gymnasium.Env"),
        (("--clusters", "nowhere"), "--clusters nowhere: no result of trajclust cluster there"),
        (("--out", "plane.npz"), "--out plane.npz is a file"),
    ],
)
def test_bad_input_is_one_line(trajclust, tmp_path, arguments, message):
    plane(tmp_path / "plane.npz")
    code, _, err = trajclust("train", "plane.npz", *arguments)
    assert code == 2
    assert err.count("\n") == 1
    assert message in err
    assert not (tmp_path / "runs").exists()


def test_clusters_of_other_data_and_clusters_that_are_not_there(trajclust, tmp_path):
    plane(tmp_path / "plane.npz")
    plane(tmp_path / "other.npz", seed=1)
    assert trajclust("cluster", "other.npz", "--method", "return_kmeans", "--k", 2, "--out", "c")[0] == 0
    code, _, err = trajclust("train", "plane.npz", "--clusters", "c")
    assert (code, "a clustering of other trajectories" in err) == (2, True)
    code, _, err = trajclust("train", "other.npz", "--clusters", "c", "--cluster", 2)
    assert (code, "give best, all or one of 0, 1" in err) == (2, True)


def test_the_order_of_rows_means_nothing(trajclust, tmp_path):
    """assignments.csv sorted in a spreadsheet gives every trajectory its own cluster; filtered, it is refused."""
    dataset = plane(tmp_path / "plane.npz")
    assert trajclust("cluster", "plane.npz", "--method", "return_kmeans", "--k", 2, "--out", "c")[0] == 0
    path = tmp_path / "c" / "assignments.csv"
    expected = train.chosen_clusters(tmp_path / "c", "best", dataset)
    frame = pd.read_csv(path)
    frame.sort_values(["cluster", "return"]).to_csv(path, index=False)
    found = train.chosen_clusters(tmp_path / "c", "best", dataset)
    assert found[0].tolist() == expected[0].tolist() == (-dataset.labels).tolist()  # the rewarded ones, and -1
    assert found[1] == expected[1]
    frame[frame["return"] > 0].to_csv(path, index=False)
    code, _, err = trajclust("train", "plane.npz", "--clusters", "c")
    assert (code, "5 of 10 trajectories are missing (1, 3, 5, ...)" in err) == (2, True)


def test_a_clustering_is_of_its_trajectories_whatever_labels_it_was_scored_by(trajclust, tmp_path):
    dataset = plane(tmp_path / "plane.npz")
    (tmp_path / "true.txt").write_text("\n".join("ab" * 5))
    arguments = ("cluster", "plane.npz", "--method", "return_kmeans", "--k", 2, "--labels", "true.txt", "--out", "c")
    assert trajclust(*arguments)[0] == 0
    assert train.chosen_clusters(tmp_path / "c", "all", dataset)[1] == [0, 1]


def test_no_best_cluster_without_returns(trajclust, tmp_path):
    rng = np.random.default_rng(0)
    arrays = {"observations": rng.normal(size=(8, 3, 2)), "actions": rng.uniform(-1, 1, (8, 3, 1))}
    np.savez(tmp_path / "r.npz", **{name: x.astype(np.float32) for name, x in arrays.items()}, lengths=np.full(8, 3))
    assert trajclust("cluster", "r.npz", "--method", "mean_kmeans", "--k", 2, "--out", "c")[0] == 0
    code, _, err = trajclust("train", "r.npz", "--clusters", "c", "--cluster", "best")
    assert (code, "--cluster best: the mean returns of clusters 0, 1 are equal; give all or a number" in err) == (
        2,
        True,
    )
    apart = lambda by: evaluation.best_clusters(np.array([0, 0, 1]), 1 + np.array([0, by, by]))
    assert (apart(1.5e-8), apart(1e-6)) == ([0, 1], [1]), "float32's rounding of rewards is no difference"


def test_actions_less_an_offset_are_not_learned_from(trajclust, tmp_path):
    dataset = plane(tmp_path / "plane.npz")
    offset = dataclasses.replace(dataset.provenance, parameters={"action_offsets": {"0": 5e6}})
    save_npz(dataclasses.replace(dataset, provenance=offset), tmp_path / "plane.npz")
    code, _, err = trajclust("train", "plane.npz")
    assert code == 2
    assert "actions were read less an offset" in err


def test_small_actions_without_bounds_are_warned_of(tmp_path, monkeypatch):
    """Policies' reach 1 where no environment, dataset or user says what actions may be."""
    monkeypatch.setattr(train, "fit", lambda *_, **__: 1 / 0)
    dataset, told, progress = plane(tmp_path / "plane.npz"), [], Progress()
    trajectories = dataset.trajectories.replace(actions=np.float32(0.01) * dataset.trajectories.actions)
    small = dataclasses.replace(dataset, trajectories=trajectories)
    monkeypatch.setattr(progress, "warn", told.append)
    for given, settings in ((small, {}), (dataset, {}), (small, {"bounds": [0.01, 0.01]})):
        with pytest.raises(ZeroDivisionError):
            train.train_on_dataset(given, "bc", [0], tmp_path / "out", "off", progress, settings=settings)
    assert ["give --set bounds=[...]" in line for line in told] == [True]


def test_learners_of_continuous_actions_refuse_discrete_ones(trajclust):
    code, _, err = trajclust("train", "diagonal:size=2", "--learner", "td3_bc")
    assert code == 2
    assert "these are discrete: choose one of bc, bc_10, iql, cql" in err
    assert "every reward is 0" in trajclust("train", "diagonal:size=2", "--learner", "iql")[2]  # of a grid world


def test_train_on_a_grid_world(trajclust, tmp_path):
    """Its environment steps inside jit; what the policies do there is what they `predict`."""
    given = ("train", "diagonal:size=20,seed=1", "--learner", "bc", "--seeds", 2, "--episodes", 2, "--json")
    code, out, err = trajclust(*given, *SMALL)
    assert code == 0, err
    summary = json.loads(out)
    assert (summary["environment"], summary["discrete"]) == ("Diagonal-v0", True)
    trained = load_policy(tmp_path / "runs/train")
    observations = np.asarray(dense(make("diagonal", 20, 1).trajectories.observations))[:3, 0]  # [3, 9, 9, C]
    alone = trained.predict(observations, seed=1)
    assert alone.shape == (3,)
    assert alone.dtype == np.int32
    assert trained.predict(observations[2], seed=1) == alone[2]
    both = trained.predict(np.stack([observations, observations]))
    assert both.shape == (2, 3)
    assert (both[1] == alone).all()
    assert (trained.predict(observations.reshape(3, -1), seed=1) == alone).all()
    for wrong, reason in (
        ({"observations": observations[..., :2]}, "observations are"),
        ({"observations": observations, "seed": 7}, "seed 7 was not trained: there are 0, 1"),
        ({"observations": observations, "cluster": 0}, "the policies are of no clusters"),
    ):
        with pytest.raises(ValueError, match=reason):
            trained.predict(**wrong)


def _cartpole(path):
    """Episodes of two policies: one balances the pole, one acts at random."""
    rng, env, episodes = np.random.default_rng(0), gymnasium.make("CartPole-v1"), []
    for n in range(12):
        observations, actions, over = [env.reset(seed=n)[0]], [], False
        while not over and len(actions) < 60:
            x = observations[-1]
            balancing = int(x[2] + 0.3 * x[3] + 0.02 * x[1] > 0)
            actions.append(balancing if n % 2 else int(rng.integers(2)))
            after, _, over, _, _ = env.step(actions[-1])
            observations.append(after)
        episodes.append((np.array(observations), np.array(actions), np.ones(len(actions)), over))
    stated = {"environment": "CartPole-v1", "reference_returns": [10.0, 60.0]}
    save_npz(build_dataset(from_episodes(episodes, 2), name="pole", source="pole", parameters=stated), path)


OWN = """
import gymnasium

class Pole(gymnasium.Wrapper):
    def __init__(self, reward=2.0):
        super().__init__(gymnasium.make("CartPole-v1"))
        self.reward = reward

    def step(self, action):
        assert action in (0, 1) and isinstance(action, int)
        observation, _, terminated, truncated, info = self.env.step(action)
        return observation, self.reward, terminated, truncated, info
"""


@pytest.mark.parametrize("learner", ["iql", "cql"])
def test_any_environment_evaluates(trajclust, tmp_path, learner, monkeypatch):
    """By its Gymnasium id, and a class of one's own, whose rewards are as high as it is told."""
    _cartpole(tmp_path / "pole.npz")
    (tmp_path / "my_envs.py").write_text(OWN)
    monkeypatch.setattr(sys, "path", [*sys.path])
    found = {}
    for name in ("CartPole-v1", 'my_envs:Pole{"reward": 4}')[: 1 if learner == "cql" else 2]:
        given = ("train", "pole.npz", "--learner", learner, "--seeds", 2, "--episodes", 3, "--environment", name)
        code, out, err = trajclust(*given, "--evaluate-every", 40, "--json", *SMALL)
        assert code == 0, err
        found[name] = _returns(tmp_path / "runs/train/evaluations.csv", (2, 3))
        assert json.loads(out)["environment"] == name
        scores = json.loads(out)["scores"]
        if name == "CartPole-v1":  # where the data are from, as they say
            assert scores["last_score"] == pytest.approx([2 * (value - 10) for value in scores["last_return"]])
        else:
            assert "last_score" not in scores
    assert np.min(found["CartPole-v1"]) >= 8  # a pole falls no sooner
    if learner == "iql":
        assert np.array(found['my_envs:Pole{"reward": 4}']) == pytest.approx(4 * np.array(found["CartPole-v1"]))
    trained, env = load_policy(tmp_path / "runs/train"), gymnasium.make("CartPole-v1")
    start = int(np.random.default_rng((10**6 + 4, 0)).integers(2**31))  # as evaluations begin, after the last block
    observation, total, over = env.reset(seed=start)[0], 0.0, False
    while not over:
        action = int(trained.predict(observation, seed=1))
        observation, reward, terminated, truncated, _ = env.step(action)
        total, over = total + reward, terminated or truncated
    assert total == found["CartPole-v1"][1][0]
    _, _, err = trajclust("train", "pole.npz", "--learner", learner, "--environment", "Acrobot-v1")
    assert "Acrobot-v1 has 6 observations and 3 discrete actions, the dataset 4 observations and 2 discrete" in err


def test_minari_data_are_evaluated_where_they_are_from(tmp_path, monkeypatch):
    """In the environment that they name, with its options and its time limit."""
    minari = pytest.importorskip("minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    env = minari.DataCollector(gymnasium.make("CartPole-v1", sutton_barto_reward=True, max_episode_steps=9))
    for seed in range(3):
        env.reset(seed=seed)
        over = False
        while not over:
            _, _, terminated, truncated, _ = env.step(env.action_space.sample())
            over = terminated or truncated
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what a published dataset should say
        stored = env.create_dataset("own/pole-v0").storage
    env.close()
    env._tmp_dir.cleanup()  # which close leaves to the garbage collector, which warns
    stated = load(tmp_path / "own" / "pole-v0").provenance.parameters
    name = stated["environment"]
    assert "reference_returns" not in stated
    for low, high, expected in ((-1, 9.5, [-1.0, 9.5]), (None, 9.5, None), (9, 9, None), (0, float("inf"), None)):
        stored.update_metadata({"ref_min_score": low, "ref_max_score": high})
        assert load(tmp_path / "own" / "pole-v0").provenance.parameters.get("reference_returns") == expected
    stored.update_metadata({"ref_min_score": -1, "ref_max_score": 9.5})
    folders = [
        tmp_path / "own" / "pole-v0",
        shutil.copytree(tmp_path / "own" / "pole-v0", tmp_path / "own" / "copy-v0"),
    ]
    assert load_minari(*folders).provenance.parameters["reference_returns"] == [-1, 9.5]
    stored.update_metadata({"ref_min_score": 0})  # of a mixture whose parts differ nothing is known
    assert "reference_returns" not in load_minari(*folders).provenance.parameters
    assert name == 'CartPole-v1{"sutton_barto_reward": true, "max_episode_steps": 9}'
    found = make_gymnasium(name)
    assert found.unwrapped._sutton_barto_reward
    assert found.spec.max_episode_steps == 9


def test_returns_are_normalised_where_references_are_known():
    """By D4RL's numbers, whatever data state of D4RL's tasks; and options make another task."""
    by = lambda name, *references: (found := evaluation.normaliser(name, *references)) and found([0, 3234.3]).tolist()
    hopper = [100 * 20.272305 / (3234.3 + 20.272305), 100]
    assert by("Hopper-v4") == by("Hopper-v3", (0, 1)) == pytest.approx(hopper)
    assert by("AdroitHandRelocate-v1") == pytest.approx([100 * 6.425911 / 4240.303708728884, 76.42674], rel=1e-6)
    assert by("Hopper-v5", [0.0, 3234.3]) == [0, 100]
    for name in ("Hopper-v5", 'AdroitHandHammer-v1{"max_episode_steps": 625}', "AdroitHandDoor-v1", None):
        assert by(name) is None


def test_actions_of_no_policy_are_refused(tmp_path, monkeypatch):
    """A MultiBinary has an n, as a Discrete has."""
    (tmp_path / "switches.py").write_text(
        "import gymnasium as gym\n"
        "class Switches(gym.Env):\n"
        "    observation_space, action_space = gym.spaces.Box(-1, 1, (2,)), gym.spaces.MultiBinary(3)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DataError, match="takes actions of MultiBinary: policies act in Box and Discrete"):
        evaluation.spaces_of("switches:Switches")
