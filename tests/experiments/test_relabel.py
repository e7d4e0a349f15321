"""`trajclust relabel` and `trajclust train --relabel`: what they write, and one clear line for whatever is wrong."""

import importlib.util
import json
from types import SimpleNamespace

import numpy as np
import pytest
from relabelling_data import some_data

from trajclust_experiments.catalogue import CATALOGUE, entries
from trajclust_experiments.commands import train
from trajclust_experiments.commands.relabel import OUTPUTS, Asked
from trajclust_experiments.models import load_policy, load_relabeller
from trajclust_experiments.progress import Progress
from trajclust_jax.data import DataError, build_dataset, dense, from_episodes, load, returns, save_npz, transitions
from trajclust_jax.relabelling import of_demonstrations, with_rewards

SHORT = ("updates=4", "batch_size=8", "features=[8]")
LEARN = ("--learner", "bc", "--seeds", 1, "--set", "updates=4", "batch_size=8", "actor_features=[8]")


@pytest.fixture
def files(tmp_path):
    """Data of two policies and a demonstration of the first."""
    data, demonstration = some_data(), some_data(1, seed=9)
    save_npz(build_dataset(data, np.arange(6) % 2, name="some", source="some"), tmp_path / "some.npz")
    save_npz(build_dataset(demonstration, name="demo", source="demo"), tmp_path / "demo.npz")
    return data, demonstration


def test_relabel_writes_a_dataset_and_its_model(trajclust, tmp_path, files):
    data, demonstration = files
    code, out, err = trajclust(
        *("relabel", "some.npz", "--expert", "demo.npz", "--out", "new.hdf5", "--json", "--set", *SHORT)
    )
    assert code == 0, err
    summary = json.loads(out)
    assert {path.name for path in (tmp_path / "new.hdf5-relabeller").iterdir()} == OUTPUTS
    relabeller, model = load_relabeller(tmp_path / "new.hdf5-relabeller")
    both = of_demonstrations(data, demonstration)
    rewards = relabeller.rewards(model, both)[0, 0]
    assert summary["rewards"]["mean"] == pytest.approx(rewards.mean(), rel=1e-5)
    assert set(summary["auc"]) == {"label 0", "label 1"}
    made = load("new.hdf5")
    np.testing.assert_allclose(
        transitions(made.trajectories).rewards, transitions(with_rewards(data, rewards, 1000.0)).rewards, rtol=1e-5
    )
    assert np.ptp(returns(made.trajectories)) == pytest.approx(1000, rel=1e-4)
    said = made.provenance.parameters["relabelled"]
    assert (said["id"], said["made_from"]) == (summary["id"], "some")
    assert summary["offsets"] == {}
    assert said["expert_fingerprint"] == load("demo.npz").provenance.fingerprint
    assert made.provenance.fingerprint == summary["fingerprint"]
    again = trajclust("relabel", "some.npz", "--expert", "demo.npz", "--out", "new.hdf5", "--set", *SHORT)
    assert again[0] == 0, "the same command may write its file anew"
    assert load("new.hdf5").provenance.fingerprint == summary["fingerprint"]
    with pytest.raises(DataError, match="no model of trajclust relabel there"):
        load_relabeller(tmp_path)


def test_train_by_new_rewards(trajclust, tmp_path, files):
    """One program after the other; the data's own rewards enter nowhere."""
    policies = []
    for name in ("some.npz", "shuffled.npz"):
        if name == "shuffled.npz":
            other = load("some.npz").trajectories
            rewards = np.random.default_rng(1).permuted(np.asarray(other.rewards))
            save_npz(build_dataset(other.replace(rewards=rewards), name="some", source="some"), tmp_path / name)
        code, out, err = trajclust(
            *("train", name, "--relabel", "clue", "--expert", "demo.npz", "--set-relabel", *SHORT, "--json"),
            *("--learner", "td3_bc", *LEARN[2:], "features=[8]"),
        )
        assert code == 0, err
        assert json.loads(out)["relabelled"]["method"] == "clue"
        assert json.loads(out)["data_return"] is None, "of other rewards than those that policies are evaluated by"
        policies.append(load_policy(tmp_path / "runs/train").policy)
    assert not list((tmp_path / "runs").glob(".*")), "no checkpoints are left"
    for a, b in zip(*(np.ravel(p.actor["params"]["Dense_0"]["kernel"]) for p in policies), strict=True):
        assert a == b


NEEDS_OTT = pytest.mark.skipif(importlib.util.find_spec("ott") is None, reason="an extra")
UNSEEN = "which networks cannot cope with"


@pytest.mark.parametrize(
    ("method", "settings", "remedy"),
    [
        pytest.param("otr", (), "give --set normalise=true, or shift and scale them", marks=NEEDS_OTT),
        pytest.param(
            "otr", ("--set", "normalise=true"), f"below 0.01, {UNSEEN}: shift and scale them", marks=NEEDS_OTT
        ),
        ("clue", ("--set", *SHORT), f"below 0.01, {UNSEEN}: shift and scale them"),
        ("indicator", (), None),
    ],
)
def test_units_that_a_relabeller_cannot_cope_with(trajclust, tmp_path, files, method, settings, remedy):
    small = files[0].replace(
        observations=1e-4 * dense(files[0].observations), final_observations=1e-4 * dense(files[0].final_observations)
    )
    save_npz(build_dataset(small, name="small", source="small"), tmp_path / "small.npz")
    for name, told in (("some.npz", False), ("small.npz", remedy is not None)):
        out = f"{name}.hdf5"
        code, _, err = trajclust("relabel", name, "--expert", "best:1", "--method", method, "--out", out, *settings)
        assert code == 0, err
        assert ("3 of 3 columns of observations (0, 1, 2) are far from 0" in err) == told
        assert not told or remedy in err


def test_an_expert_a_cluster(trajclust, tmp_path, files):
    """Two learners on the same steps, by rewards of their own."""
    assert trajclust("cluster", "some.npz", "--k", 2, "--method", "length_kmeans", "--out", "c")[0] == 0
    code, out, err = trajclust(
        *("train", "some.npz", "--relabel", "indicator", "--expert", "cluster:all", "--clusters", "c", "--json", *LEARN)
    )
    assert code == 0, err
    assert json.loads(out)["clusters"] == [0, 1]
    policy = load_policy(tmp_path / "runs/train").policy
    assert policy.scaling.mean.shape == (1, 2, 3)
    np.testing.assert_array_equal(policy.scaling.mean[0, 0], policy.scaling.mean[0, 1])


def test_an_expert_is_read_less_the_datas_offsets(tmp_path):
    """Of a clock that 32 bits would round away: ten seconds later are ten, whatever its own file begins with."""
    rng, ends = np.random.default_rng(0), np.arange(60) % 10 == 9
    for name, begin in (("some", 1.7e9), ("demo", 1.7e9 + 10)):
        clock = begin + 0.01 * np.arange(60) if name == "some" else begin + 0.02 * np.arange(60)
        steps = {"observations": clock[:, None], "actions": rng.uniform(-1, 1, (60, 1)), "rewards": rng.normal(size=60)}
        np.savez(tmp_path / f"{name}.npz", **steps, terminals=ends)
    asked = Asked("clue", str(tmp_path / "demo.npz"), None, (), 0)
    data, _ = asked.expert_data(load(tmp_path / "some.npz"))
    clock = np.asarray(data.flat.observations)[:, 0]
    np.testing.assert_allclose(clock[60:] - clock[0], 10 + 0.02 * np.arange(60), atol=1e-4)


@pytest.mark.parametrize(("own", "wanted"), [(60.0, None), (None, 1000.0)])
def test_the_relabellers_range_of_returns_holds(tmp_path, monkeypatch, own, wanted):
    """Not that which IQL has on Hopper; returns of such rewards are not drawn beside the environment's."""
    zeros = lambda *shape: np.zeros(shape, np.float32)
    parameters = {"environment": "Hopper-v4", "relabelled": {"settings": {"returns_range": own}}}
    data = from_episodes([(zeros(3, 11), zeros(2, 3), np.full(2, n), False) for n in range(3)])
    dataset = build_dataset(data, name="some", source="some", parameters=parameters)
    offered = []
    monkeypatch.setattr(train, "fit", lambda offline, *_, **__: offered.append(offline) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train.train_on_dataset(dataset, "iql", [0], tmp_path / "out", "off", Progress())
    assert offered[0].reward_range == wanted
    history = [{"phase": "train", "iteration": 1, "actor/loss": [1.0], "return": [[1.0, 2.0]]}]
    outcome, summary = SimpleNamespace(history=history, seeds=(0,)), {"environment": "Hopper-v4", "clusters": None}
    for told, count in ((None, 2), ({"mean": 1.0, "best": 2.0}, 4)):
        drawn = train.learning_curve(offered[0], outcome, {**summary, "reference_returns": None, "data_return": told})
        assert len(drawn.axes[0].lines) == count


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("some.npz",), "clue needs an expert: give --expert FILE, best:1, success:1 or cluster:K"),
        (("some.npz", "--expert", "some.npz"), "expert holds all of the data: there is nothing to tell it from"),
        (("some.npz", "--expert", "pathfollowing:size=1"), "observations are [2], the data's [3]: give an expert of"),
        (("some.npz", "--expert", "best:9"), "expert best:9 holds all of the data"),
        (("some.npz", "--expert", "best:some"), "give a number of trajectories, such as best:1"),
        (("some.npz", "--expert", "success:1"), "a sparse task's two: give best:K"),
        (("some.npz", "--expert", "cluster:1"), "of which clustering? Give its folder with --clusters"),
        (("some.npz", "--expert", "nowhere.npz"), "nowhere.npz"),
        (("some.npz", "--expert", "best:1", "--method", "magic"), "unknown relabeller 'magic': choose one of clue"),
        (("some.npz", "--expert", "best:1", "--set", "temperature=-1"), "temperature is -1.0: it must be above 0"),
        (("some.npz", "--expert", "best:1", "--set", "heat=1"), "no setting 'heat'"),
        (("some.npz", "--expert", "best:1", "--set", "temperature=inf"), "temperature is 'inf': give a number"),
        (("some.npz", "--expert", "best:1", "--set", "temperature=Infinity"), "give a number, or null"),
        (("some.npz", "--expert", "best:1", "--set", "beta=1", "beta=2"), "--set beta is given twice: give it once"),
        (("some.npz", "--expert", "best:1", "--seed", str(2**32)), "--seed is 4294967296: give 0 to 4294967295"),
        (("some.npz", "--expert", "Best:1"), "--expert Best:1: did you mean best:1?"),
        (("some.npz", "--expert", "best:1", "--out", "new.csv"), "give a file name that ends in .hdf5 or .npz"),
        (("some.npz", "--expert", "best:1", "--out", "demo.npz"), "--out demo.npz is another file: give a new name"),
        (("takeball:size=1", "--expert", "best:1"), "all returns are equal"),
        (("some.npz", "--expert", "best:1", "--clusters", "c"), "--clusters needs --expert cluster:K, whose clusters"),
    ],
)
def test_what_cannot_be_relabelled(trajclust, files, arguments, text):
    code, out, err = trajclust("relabel", *arguments)
    assert (code, out) == (2, "")
    assert text in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--expert", "best:1"), "--expert and --set-relabel are for a relabeller: name one with --relabel"),
        (("--relabel", "clue", "--expert", "best:1", "--clusters", "c"), "--clusters needs --expert cluster:K"),
        (
            ("--relabel", "clue", "--expert", "cluster:1", "--clusters", "c", "--cluster", "1"),
            "give --expert cluster:K, or cluster:all",
        ),
    ],
)
def test_what_cannot_be_trained(trajclust, files, arguments, text):
    code, _, err = trajclust("train", "some.npz", *arguments)
    assert code == 2
    assert text in err


def test_each_file_has_a_model_of_its_own(trajclust, files, tmp_path):
    """Another file of the same stem is neither this one's nor replaced."""
    given = ("relabel", "some.npz", "--expert", "demo.npz", "--method", "indicator", "--out")
    code, _, err = trajclust(*given, "new.hdf5")
    assert code == 0, err
    (tmp_path / "new.npz").write_text("mine")
    code, _, err = trajclust(*given, "new.npz")
    assert (code, "--out new.npz is another file: give a new name" in err) == (2, True)
    assert (tmp_path / "new.npz").read_text() == "mine"


def test_rewards_that_tell_nothing_are_told(trajclust, files):
    given = ("some.npz", "--expert", "demo.npz", "--set", *SHORT, "learning_rate=1e30")
    code, _, err = trajclust("relabel", *given)
    assert (code, "clue gave rewards that are not finite: lower the learning_rate (--set)" in err) == (2, True)
    given = ("some.npz", "--expert", "demo.npz", "--set", *SHORT, "temperature=1e6")
    code, _, err = trajclust("relabel", *given)
    assert code == 0, err
    assert "clue gave every step the same reward, the expert's among them: look at its settings (--set)" in err
    assert "chance" not in err


def test_an_expert_of_another_environment(tmp_path, caplog):
    """Is refused also where its shapes are the data's, or warned of where nothing is known of either; versions, options
    and kinds of reward may differ."""
    data, demonstration = some_data(), some_data(1, seed=9)
    of = lambda trajectories, name: build_dataset(
        trajectories, name="some", source="some", parameters={"environment": name} if name else {}
    )
    asked = Asked("clue", str(tmp_path / "demo.npz"), None, (), 0)
    for ours, theirs in (
        *(("HalfCheetah-v4", "HalfCheetah-v5"), ("HalfCheetah-v4", None), (None, "Walker2d-v5"), ("mine", "Mine")),
        ('PointMaze_UMaze-v3{"continuing_task": false}', "PointMaze_UMazeDense-v3"),
        ('my_module:Mine{"size": 3}', "my_module:Mine"),
    ):
        save_npz(of(demonstration, theirs), tmp_path / "demo.npz")
        asked.expert_data(of(data, ours))
    assert not caplog.messages
    for ours, theirs in (("HalfCheetah-v4", "Walker2d-v5"), ("PointMaze-v0", "Pathfollowing-v0")):
        save_npz(of(demonstration, theirs), tmp_path / "demo.npz")
        with pytest.raises(DataError, match=f"is of {theirs}, the data of {ours}: give one of the same environment"):
            asked.expert_data(of(data, ours))
    save_npz(of(demonstration, "PointMaze_Large-v3"), tmp_path / "demo.npz")
    asked.expert_data(of(data, "PointMaze_UMaze-v3"))
    (told,) = caplog.messages
    assert told.endswith("is of PointMaze_Large-v3, the data of PointMaze_UMaze-v3: are they the same environment?")


def test_what_the_data_chose_is_kept(trajclust, files, tmp_path):
    """c by the spread holds for other data, too; and a second relabelling says what was before it."""
    given = ("some.npz", "--expert", "demo.npz", "--method", "clue_spread", "--set", *SHORT, "--out", "new.npz")
    code, out, err = trajclust("relabel", *given)
    assert code == 0, err
    summary = json.loads((tmp_path / "new.npz-relabeller/summary.json").read_text())
    (chosen,) = summary["chosen"]["temperature"]
    assert f"chosen without true rewards: temperature {chosen:g}" in out
    assert load_relabeller(tmp_path / "new.npz-relabeller")[0].temperature == chosen
    code, _, err = trajclust("relabel", "new.npz", "--expert", "best:1", "--method", "indicator", "--out", "two.npz")
    assert code == 0, err
    said = load("two.npz").provenance.parameters["relabelled"]
    assert (said["method"], said["earlier"]["method"]) == ("indicator", "clue_spread")
    assert said["expert_auc"] == [1.0]


def test_rewards_that_do_not_tell_the_expert(trajclust, files):
    """By chance alone, as with latents that nothing trained: said, by the expert's steps, whatever the labels."""
    given = ("some.npz", "--expert", "best:1", "--json", "--set", *SHORT, "learning_rate=1e-9", "calibration=0")
    code, out, err = trajclust("relabel", *given)
    assert code == 0, err
    (told,) = json.loads(out)["expert_auc"]
    assert told < 0.55
    assert f"the expert's steps from others hardly better than chance (AUC {told:.2f})" in err
    for method in ("indicator", "constant"):
        code, _, err = trajclust("relabel", *given[:3], "--method", method, "--out", f"{method}.npz")
        assert code == 0, err
        assert "chance" not in err


def test_the_relabelled_data_takes_the_datas_clustering(trajclust, files):
    given = ("cluster", "some.npz", "--k", 2, "--method", "mean_kmeans", "--out", "c")
    code, _, err = trajclust(*given)
    assert code == 0, err
    code, _, err = trajclust("relabel", "some.npz", "--expert", "best:1", "--method", "indicator", "--out", "new.npz")
    assert code == 0, err
    small = ("--learner", "bc", "--seeds", 1, "--set", "updates=20", "block=10", "actor_features=[8]")
    code, _, err = trajclust("train", "new.npz", *small, "--clusters", "c", "--out", "t")
    assert code == 0, err


def test_every_relabeller_is_built_by_its_name():
    for name, entry in entries("relabeller").items():
        built = entry.build()
        assert isinstance(built, entry.algorithm), name
        assert entry.names() >= set(entry.settings)
    assert CATALOGUE["clue"].build(temperature=None, updates=1500).block == 500
