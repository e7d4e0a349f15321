"""`trajclust assign`: a saved clustering is a model for trajectories that it was not trained on."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest

from trajclust_experiments.commands.assign import assign_dataset
from trajclust_experiments.commands.cluster import cluster_dataset
from trajclust_experiments.models import load_clustering
from trajclust_experiments.progress import Progress
from trajclust_jax.clustering.support import Support
from trajclust_jax.data import (
    DataError,
    Trajectories,
    build_dataset,
    dense,
    load,
    make,
    save_npz,
    subset,
)
from trajclust_jax.metrics import nmi

EM = {"iterations": 3, "restarts": 2}
POLISHED = EM | {"polish_iterations": 1, "polish_first_steps": 5, "polish_steps": 5}
ENCODER = {"steps": 3, "batch_size": 8}
SHORT = {
    "pg_kmeans_tabular": EM,
    "pg_kmeans_mlp": POLISHED,
    "pg_kmeans_gru": POLISHED,
    "pg_kmeans_planner": EM | {"steps": 2},
    "sorl": {"iterations": 2},
    "sorl_sum": {"iterations": 2},
    "empo_mlp": {"bias_epochs": 1, "pretrain_epochs": 1, "iterations": 2, "least_steps": 2},
    "empo_gru": {"bias_epochs": 1, "pretrain_epochs": 1, "iterations": 1, "least_steps": 2},
    "caae": ENCODER | {"warmup_iterations": 2, "iterations": 2},
    "caae_conv": ENCODER | {"warmup_iterations": 1, "iterations": 1},
    "dec": ENCODER | {"pretrain_iterations": 1, "iterations": 1},
    "vae_kmeans": ENCODER | {"iterations": 2},
    "return_kmeans": {},
    "length_kmeans": {},
    "mean_kmeans": {},
}
QUIET = Progress(quiet=True)


@pytest.fixture(autouse=True)
def comparison(monkeypatch):
    """What held-out actions say of a clustering, without looking at them."""
    said = Support(1.0, 0.1, 1.0, 0.1, agreement=1.0)
    monkeypatch.setattr("trajclust_jax.clustering.support.support", lambda *_, **__: said)


def walks(n=24, unit=1.0, offset=0.0):
    """Two linear policies with continuous actions, lengths 6 to 12, rewards; actions in another unit."""
    rng = np.random.default_rng(0)
    labels, lengths = np.arange(n) % 2, rng.integers(6, 13, n)
    observations = rng.normal(size=(n, 13, 3)).astype(np.float32)
    gains = np.array([[[1, 0], [0, 1], [1, 1]], [[-1, 0], [0, -1], [1, -1]]], float)
    actions = np.einsum("ntd,nda->nta", observations[:, :12], gains[labels]) + 0.1 * rng.normal(size=(n, 12, 2))
    trajectories = Trajectories(
        observations=observations[:, :12],
        actions=(unit * actions + offset).astype(np.float32),
        rewards=rng.normal(size=(n, 12)).astype(np.float32),
        lengths=lengths.astype(np.int32),
        terminated=np.zeros(n, bool),
        final_observations=observations[:, 12],
    )
    return build_dataset(trajectories, labels, name="walks", source="walks")


def clustered(dataset, method, out, k=2, **settings):
    return cluster_dataset(dataset, method, k, 0, out, "off", QUIET, **{**SHORT.get(method, {}), **settings})


FAST = {"grid": ("pg_kmeans_tabular", "mean_kmeans"), "walks": ("pg_kmeans_mlp", "empo_mlp", "caae", "return_kmeans")}


def _marked(name, data):
    return pytest.param(name, data, marks=[] if name in FAST[data] else [pytest.mark.slow])


@pytest.mark.parametrize(
    ("method", "data"),
    [
        *(_marked(name, "grid") for name in SHORT if name != "return_kmeans"),
        *(_marked(name, "walks") for name in ("pg_kmeans_mlp", "empo_mlp", "caae", "return_kmeans", "mean_kmeans")),
    ],
)
def test_new_trajectories_are_seen_as_those_trained_on(tmp_path, method, data):
    """Those trained on get their clusters back; a few of them, whose statistics are others, the same ones."""
    dataset = walks() if data == "walks" else make("takeball", 5)
    found = clustered(dataset, method, tmp_path / "c")
    model = load_clustering(tmp_path / "c")
    again = model.assign(dataset.trajectories)
    assert again.assignments.tolist() == found["assignments"]
    np.testing.assert_allclose(again.posterior, found["posterior"], atol=1e-5)
    few = np.array([3, 7, 8])
    alone = model.assign(subset(dataset, few, {}).trajectories)
    assert alone.assignments.tolist() == again.assignments[few].tolist()
    np.testing.assert_allclose(alone.posterior, again.posterior[few], atol=1e-4)
    if again.log_likelihoods is not None:
        np.testing.assert_allclose(alone.log_likelihoods, again.log_likelihoods[few], rtol=1e-4, atol=1e-3)
    if method.startswith("empo"):
        _knows_where_clusters_have_been(model, dataset.trajectories)


def _knows_where_clusters_have_been(model, trajectories):
    """The classifier that was trained says of observations in the data's unit what it says of them as it saw them."""
    shown, shape = dense(trajectories.observations), trajectories.observation_shape
    shares = model.classify(shown)
    assert shares.shape == (*np.asarray(trajectories.mask).shape, 2)
    np.testing.assert_allclose(shares.sum(-1), 1, rtol=1e-5)
    assert np.ptp(shares[..., 0]) > 1e-3  # it is a function of where it is
    data = model.method.prepare(trajectories, 1, model.preprocessing).data
    if coded := hasattr(data, "table"):
        given, seen = trajectories.observations.table, data.table
    else:
        given, seen = np.asarray(shown)[data.order, 0], data.chunks.inputs[0][:, 0]
    found, wanted = model.classify(given), model.method.classify(model.classifier, np.asarray(seen, np.float32))
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    if coded:
        np.testing.assert_allclose(model.classify(trajectories.observations), shares, atol=1e-6)
    np.testing.assert_allclose(model.classify(np.asarray(shown)[1, 2].reshape(-1)), shares[1, 2], atol=1e-6)
    with pytest.raises(DataError, match=f"give \\[..., {shape[0]}"):
        model.classify(np.zeros((4, 7)))


def test_a_table_knows_nothing_of_new_observations(tmp_path):
    """A step at an observation that no trajectory had in training has probability 1 / A, whatever the cluster."""

    def one_step(values, actions):
        n = len(values)
        trajectories = Trajectories(
            observations=np.array(values, np.float32)[:, None, None],
            actions=np.array(actions, np.int32)[:, None],
            rewards=np.zeros((n, 1), np.float32),
            lengths=np.ones(n, np.int32),
            terminated=np.ones(n, bool),
            final_observations=np.zeros((n, 1), np.float32),
            num_actions=4,
        )
        return build_dataset(trajectories, None, name="steps", source="steps")

    dataset = one_step([1.0, 1, 1, 1, 2, 2, 2, 2], [0, 1, 0, 1, 2, 2, 3, 3])
    save_npz(dataset, tmp_path / "steps.npz")
    clustered(load(tmp_path / "steps.npz"), "pg_kmeans_tabular", tmp_path / "c")
    model = load_clustering(tmp_path / "c")
    new = model.assign(one_step([5.0, 1.0, 7.0], [0, 0, 3]).trajectories)
    np.testing.assert_allclose(new.log_likelihoods[[0, 2]], np.log(1 / 4), rtol=1e-5)
    assert new.log_likelihoods[1].max() > np.log(1 / 4)


def test_the_command_writes_what_cluster_writes(trajclust, tmp_path):
    dataset = walks(40)
    for name, rows in {"old.npz": np.arange(20), "new.npz": np.arange(20, 40)}.items():
        save_npz(subset(dataset, rows, {}), tmp_path / name)
    settings = ("--restarts", 2, "--iterations", 3)
    code, out, err = trajclust("cluster", "old.npz", "--k", 2, "--method", "mean_kmeans", "--out", "c")
    assert code == 0, err
    code, out, err = trajclust("cluster", "old.npz", "--k", 2, *settings, "--out", "c")
    assert code == 0, err
    code, out, err = trajclust("assign", "new.npz", "--model", "c", "--out", "n", "--split", "npz")
    assert code == 0, err
    assert "against the labels: nmi 1.000" in out
    assert out.splitlines()[1].split()[:3] == ["0", "10", "50.0%"]
    there = {path.name for path in (tmp_path / "n").iterdir()}
    tables = {"assignments.csv", "clusters.csv", "posterior.npz", "summary.json"}
    assert there == {*tables, "overview.png", "embedding.png", "clusters"}
    assert list(pd.read_csv(tmp_path / "n" / "assignments.csv")) == list(pd.read_csv(tmp_path / "c/assignments.csv"))
    summary = json.loads((tmp_path / "n" / "summary.json").read_text())
    assert summary["model_id"] == json.loads((tmp_path / "c" / "summary.json").read_text())["id"]
    assert summary["warnings"] == []
    for arguments, message in {  # nothing that is read, and no other model, is replaced
        ("assign", "new.npz", "--model", "c", "--out", "c"): "--out c would replace c, which is read",
        ("assign", "new.npz", "--model", "c", "--out", "m"): "--out m holds other files",
        ("cluster", "n/clusters/cluster-0.npz", "--k", 2, "--out", "./n"): "would replace n/clusters/cluster-0.npz",
        (
            "cluster",
            "new.npz",
            "--k",
            2,
            "--labels",
            "n/assignments.csv",
            "--out",
            "n",
        ): "would replace n/assignments.csv",
        ("data", "convert", "new.npz", tmp_path / "new.npz"): "would replace new.npz, which is read",
        ("relabel", "new.npz", "--expert", "new.npz", "--out", "new.npz"): "would replace new.npz, which is read",
    }.items():
        (tmp_path / "m" / "model").mkdir(parents=True, exist_ok=True)
        (tmp_path / "m" / "summary.json").touch()
        code, out, err = trajclust(*arguments)
        assert code == 2, err
        assert message in err
    small = ("--learner", "bc", "--seeds", 1, "--set", "updates=20", "block=10", "actor_features=[8]")
    code, out, err = trajclust("train", "new.npz", *small, "--clusters", "n", "--out", "t")
    assert code == 0, err


def test_another_unit_is_told(trajclust, tmp_path):
    save_npz(walks(), tmp_path / "old.npz")
    save_npz(walks(unit=100.0), tmp_path / "new.npz")
    clustered(load(tmp_path / "old.npz"), "pg_kmeans_mlp", tmp_path / "c")
    code, out, err = trajclust("assign", "new.npz", "--model", "c")
    assert code == 0, err
    assert "warning: 2 of 2 columns of actions are far from those that the model was trained on" in out


def test_actions_that_no_policy_explains_are_told(trajclust, tmp_path):
    """Columns that were swapped are neither far nor constant."""
    old = walks(40)
    save_npz(subset(old, np.arange(20), {}), tmp_path / "old.npz")
    new = subset(old, np.arange(20, 40), {})
    swapped = new.trajectories.replace(actions=new.trajectories.actions[..., ::-1])
    save_npz(build_dataset(swapped, None, name="new", source="new"), tmp_path / "new.npz")
    clustered(load(tmp_path / "old.npz"), "pg_kmeans_mlp", tmp_path / "c", polish_iterations=3, polish_steps=100)
    code, out, err = trajclust("assign", "new.npz", "--model", "c")
    assert code == 0, err
    assert "actions of 20 of 20 trajectories are less likely under every cluster's policy" in out
    model, right = load_clustering(tmp_path / "c"), new.trajectories
    assert model.doubts(right, model.assign(right)) == []


def test_columns_that_were_constant_are_told(tmp_path):
    old = walks()
    given = old.trajectories
    flat = lambda observations: observations * np.float32([1, 1, 0])
    still = given.replace(
        observations=flat(given.observations),
        final_observations=flat(given.final_observations),
        actions=given.actions * np.float32([1, 0]),
    )
    clustered(build_dataset(still, None, name="still", source="still"), "mean_kmeans", tmp_path / "c")
    model = load_clustering(tmp_path / "c")
    assert model.doubts(still) == []
    assert model.doubts(given) == [
        "1 columns of observations were zero in the data trained on: the model does not look at them",
        "1 columns of actions were constant in the data trained on: the model does not look at them",
    ]


def test_pooled_restarts_are_of_the_training_alone(tmp_path):
    """One restart's policies are kept, however many there were."""
    dataset = walks()
    found = clustered(dataset, "pg_kmeans_mlp", tmp_path / "c", pooled_restarts=2, pooled_steps=2)
    again = load_clustering(tmp_path / "c").assign(dataset.trajectories)
    assert again.assignments.tolist() == found["assignments"]


def test_what_a_model_does_not_take(tmp_path, trajclust):
    grid, continuous = make("takeball", 3), walks()
    clustered(grid, "mean_kmeans", tmp_path / "grid")
    clustered(continuous, "mean_kmeans", tmp_path / "walks")
    maps, plane = load_clustering(tmp_path / "grid"), load_clustering(tmp_path / "walks")
    given, walked = grid.trajectories, continuous.trajectories
    shown = np.asarray(dense(given.observations))
    cases = [
        (plane, walked.replace(observations=walked.observations[..., :2]), r"observations are \[2\].*trained on \[3\]"),
        (plane, walked.replace(actions=walked.actions[..., :1]), "actions have 1 numbers.*trained on 2"),
        (plane, given.replace(observations=walked.observations), "observations|discrete"),
        (maps, given.replace(observations=2.0 * shown), "other values than 0 and 1"),
        (maps, given.replace(actions=given.actions + 3, num_actions=9), "the value . is new"),
    ]
    for model, trajectories, message in cases:
        with pytest.raises(DataError, match=message):
            model.assign(trajectories)
    with pytest.raises(DataError, match="mean_kmeans: no classifier of observations is in this model"):
        plane.classify(walked.observations)
    code, _, err = trajclust("assign", "takeball:size=2", "--model", tmp_path)
    assert (code, len(err.splitlines())) == (2, 1)
    assert "no model of trajclust cluster there" in err
    summary = json.loads((tmp_path / "grid" / "summary.json").read_text())
    (tmp_path / "grid" / "summary.json").write_text(json.dumps(summary | {"version": [0, None]}))
    with pytest.raises(DataError, match="another version of mean_kmeans: cluster again"):
        load_clustering(tmp_path / "grid")


def test_combinations_of_categories_are_known_by_their_parts(tmp_path):
    """Every dataset numbers the combinations that it has; a model knows its own."""
    given = make("takeball", 3)
    parts = ((0, 0), (0, 1), (1, 0), (1, 1))
    trajectories = given.trajectories.replace(action_parts=parts)
    clustered(dataclasses.replace(given, trajectories=trajectories), "mean_kmeans", tmp_path / "c", k=3)
    model = load_clustering(tmp_path / "c")
    wanted = model.assign(trajectories).assignments
    turned = trajectories.replace(actions=3 - np.asarray(trajectories.actions), action_parts=parts[::-1])
    np.testing.assert_array_equal(model.assign(turned).assignments, wanted)
    new = trajectories.replace(action_parts=((0, 0), (0, 1), (1, 0), (2, 1)))
    with pytest.raises(DataError, match=r"the combination \[2, 1\] is new"):
        model.assign(new)


def test_values_of_a_single_part_are_known_by_themselves(tmp_path):
    """A file whose actions are 20 and 30 numbers them 0 and 1, a model of 10, 20 and 30 does not; a part whose values
    are 0, 1, ... has no names beside the numbers."""
    given = make("takeball", 3)
    count = given.trajectories.num_actions
    trajectories = given.trajectories.replace(action_parts=tuple((10 * value,) for value in range(count)))
    clustered(dataclasses.replace(given, trajectories=trajectories), "pg_kmeans_tabular", tmp_path / "c", k=3)
    model = load_clustering(tmp_path / "c")
    wanted = model.assign(trajectories)
    turned = trajectories.replace(
        actions=count - 1 - np.asarray(trajectories.actions), action_parts=trajectories.action_parts[::-1]
    )
    np.testing.assert_array_equal(model.assign(turned).log_likelihoods, wanted.log_likelihoods)
    lone = trajectories.replace(actions=0 * trajectories.actions, num_actions=1)
    for value in range(count):
        known = trajectories.replace(actions=np.full_like(trajectories.actions, value))
        np.testing.assert_array_equal(
            model.assign(lone.replace(action_parts=((10 * value,),))).log_likelihoods,
            model.assign(known).log_likelihoods,
        )
    with pytest.raises(DataError, match="the value 15 is new to the model"):
        model.assign(lone.replace(action_parts=((15,),)))
    with pytest.raises(DataError, match="the value 1 is new to the model"):
        model.assign(given.trajectories)  # 0, 1, ... of a part
    plain = dataclasses.replace(model, action_parts=())
    np.testing.assert_array_equal(
        plain.assign(lone.replace(action_parts=((2,),))).log_likelihoods,
        plain.assign(given.trajectories.replace(actions=np.full_like(trajectories.actions, 2))).log_likelihoods,
    )


@pytest.mark.parametrize("split", ["npz", "hdf5", "minari"])
def test_a_dataset_for_each_cluster(tmp_path, monkeypatch, split):
    dataset = walks(8)
    found = clustered(dataset, "length_kmeans", tmp_path / "c", split=split)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "c" / "clusters"))
    for k in (0, 1):
        source = f"cluster/{k}-v0" if split == "minari" else str(tmp_path / "c" / "clusters" / f"cluster-{k}.{split}")
        part, rows = load(source), np.flatnonzero(np.array(found["assignments"]) == k)
        assert part.trajectories.lengths.tolist() == dataset.trajectories.lengths[rows].tolist()
        mask = np.asarray(part.trajectories.mask)
        wanted = subset(dataset, rows, {}).trajectories
        for name in ("observations", "actions", "rewards"):
            whole, written = (np.asarray(getattr(each, name)) for each in (wanted, part.trajectories))
            np.testing.assert_array_equal(written[mask], whole[:, : mask.shape[1]][mask])
        np.testing.assert_array_equal(part.trajectories.final_observations, wanted.final_observations)


def test_k_is_chosen_by_held_out_trajectories(trajclust, tmp_path):
    arguments = ("cluster", "diagonal:size=100", "--policy", "tabular", "--k", "auto", "--k-max", 7)
    code, out, err = trajclust(*arguments, "--out", "c")
    assert code == 0, err
    assert out.startswith("k 5, by held-out trajectories under tabular policies (nats a step, 1: -0.")
    assert (tmp_path / "c" / "choice-of-k.png").exists()
    summary = json.loads((tmp_path / "c" / "summary.json").read_text())
    assert len(summary["clusters"]) == summary["choice_of_k"]["num_clusters"] == 5
    code, out, err = trajclust("cluster", "takeball:size=20", "--policy", "tabular", "--k", "auto", "--k-max", 2)
    assert code == 0, err
    assert "warning: k 2 is the largest that was tried" in out
    assert "with fewer than 50 a cluster" in out
    assert trajclust("cluster", "takeball:size=2", "--k", "auto", "--k-max", 9)[0] == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size", "method"),
    [
        ("diagonal", 1000, "pg_kmeans_tabular"),
        ("diagonal", 1000, "pg_kmeans_mlp"),
        ("takeball", 1000, "pg_kmeans_mlp"),
        ("hopper-medium-expert", 50, "pg_kmeans_mlp"),
    ],
)
def test_held_out_halves_are_told_apart_as_well(tmp_path, name, size, method):
    """Trained on one half and assigned the other: NMI within .01 of clustering the whole."""
    dataset = make(name, size)
    order = np.random.default_rng(0).permutation(dataset.trajectories.num_trajectories)
    halves = [np.sort(order[::2]), np.sort(order[1::2])]
    whole = cluster_dataset(dataset, method, dataset.num_policies, 0, tmp_path / "whole", "off", QUIET)
    for old, new in (halves, halves[::-1]):
        cluster_dataset(subset(dataset, old, {}), method, dataset.num_policies, 0, tmp_path / "c", "off", QUIET)
        found = assign_dataset(subset(dataset, new, {}), tmp_path / "c", tmp_path / "n", QUIET)
        wanted = nmi(dataset.labels[new], np.array(whole["assignments"])[new])
        assert found["scores"]["nmi"] >= wanted - 0.01
