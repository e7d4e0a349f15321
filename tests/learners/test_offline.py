"""Contracts of every learner, and datasets whose answers are known."""

import dataclasses
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trajclust_experiments.catalogue import entries
from trajclust_experiments.commands.printing import pairs
from trajclust_experiments.commands.train import parsed_settings
from trajclust_jax.data import DataError, from_episodes, make, transitions
from trajclust_jax.data.codebook import encode
from trajclust_jax.evaluation import act
from trajclust_jax.learners import BC, IQL, Clustered, Offline
from trajclust_jax.learners.sampling import View
from trajclust_jax.training import Evaluate, _key, fit

# EMPO, which finds clusters itself, has its own tests.
LEARNERS = {name: entry for name, entry in entries("learner").items() if name != "empo"}
TINY = {"batch_size": 32, "actor_features": (16, 16)}


def tiny(name, action_size=2, updates=20, **settings):
    """A small training of a named learner."""
    algorithm = LEARNERS[name].algorithm
    more = {"features": (16, 16)} if hasattr(algorithm, "features") else {}
    more |= {"num_actions": 3} if hasattr(algorithm, "num_actions") else {}
    more |= {"behaviour_updates": updates} if hasattr(algorithm, "behaviour_updates") else {}
    return LEARNERS[name].build(action_size, **{**TINY, "updates": updates, "block": updates // 2, **more, **settings})


def one_step(observations, actions, rewards, terminated=True):
    """An episode a transition."""
    episodes = []
    for observation, action, reward in zip(observations, actions, rewards, strict=True):
        pair = np.float32([observation, np.add(observation, 1e-6)])  # what follows is known, and as good as the same
        episodes.append((pair, np.atleast_2d(action).astype(np.float32), np.float32([reward]), terminated))
    return from_episodes(episodes)


def some_data(count=12, seed=0):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 9, count)
    return from_episodes(
        [
            (
                rng.normal(size=(t + 1, 3)).astype(np.float32),
                np.tanh(rng.normal(size=(t, 2))).astype(np.float32),
                rng.normal(size=t).astype(np.float32),
                bool(n % 2),
            )
            for n, t in enumerate(lengths)
        ]
    )


def actions_of(outcome, learner, observations):
    """`[*axes, n, A]`."""
    policy = outcome.result
    axes = policy.scaling.mean.shape[:-1]
    shape = (*axes, *np.shape(observations))
    return np.asarray(act(learner, policy, jnp.broadcast_to(jnp.asarray(observations, jnp.float32), shape)))


def assert_close(a, b, **tolerance):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, **tolerance)


# --- contracts -------------------------------------------------------------------------------------


ALGORITHMS = {entry.algorithm: name for name, entry in reversed(LEARNERS.items())}  # a name of each


def _slow(values, *slow):
    """Parameters, of which the slow ones are run on demand."""
    return [pytest.param(each, marks=[pytest.mark.slow] if each in slow else []) for each in values]


@pytest.mark.parametrize(
    "name", _slow(sorted(ALGORITHMS.values()), "awac", "bcq", "brac_v", "cql", "lbrac_v", "plas", "sqil")
)
def test_learns_alone_as_among_others(name):
    method, data = tiny(name), some_data()
    together, alone = fit(method, data, [3, 5]), fit(method, data, [5])
    assert_close(jax.tree.map(lambda x: x[1:], together.result), alone.result, atol=2e-5)
    begun = method.learner.policy(method.phases()[0].start(_key(5, 0), method.prepare(data, 1), None)[0].learner.params)
    moved = jax.tree.map(lambda a, b: np.abs(a[0] - b).max(), alone.result.actor, begun)
    assert max(map(float, jax.tree.leaves(moved))) > 1e-3
    last = together.history[-1]
    assert all(np.isfinite(last[key]).all() for key in last if "/" in key)


@pytest.mark.parametrize("name", _slow(sorted(ALGORITHMS.values()), "brac_v", "cql", "plas", "sqil"))
def test_resumes_exactly(name, tmp_path):
    method, data = tiny(name, updates=40, block=10), some_data()

    def stop(event):
        if event.phase == "train" and event.iteration == 2:
            raise RuntimeError("killed")

    whole = fit(method, data, 2)
    with pytest.raises(RuntimeError, match="killed"):
        fit(method, data, 2, callbacks=[stop], checkpoint_dir=tmp_path, checkpoint_seconds=0)
    resumed = fit(method, data, 2, checkpoint_dir=tmp_path, checkpoint_seconds=0)
    assert resumed.resumed
    assert_close(whole.result, resumed.result, rtol=0, atol=0)
    assert resumed.history == whole.history


@pytest.mark.parametrize("name", _slow(sorted(ALGORITHMS.values()), "bcq", "brac_v", "plas", "sqil"))
def test_a_step_is_traced_once(name):
    method, data, count = tiny(name), some_data(), 0

    @dataclasses.dataclass(frozen=True)
    class Counted(type(method.learner)):
        def update(self, state, batch, step):
            nonlocal count
            count += 1
            return super().update(state, batch, step)

    counted = dataclasses.replace(method, learner=Counted(**dataclasses.asdict(method.learner)), block=2)
    fit(counted, data, 3)
    assert count == 1


def test_evaluations_are_recorded_and_timed_apart():
    seen = []

    def measure(result, iteration):
        time.sleep(1.0)
        seen.append(jax.tree.leaves(result.actor)[0].shape)
        return {"return": np.arange(2.0)}

    outcome = fit(tiny("brac_v", block=5), some_data(), 2, evaluate=Evaluate(measure, 3))
    assert len(seen) == 2  # after iterations 3 and 4 of the last phase
    found = [(e["phase"], e["iteration"]) for e in outcome.history if "return" in e]
    assert found == [("train", 3), ("train", 4)]
    assert outcome.history[-1]["return"] == [0.0, 1.0]
    assert outcome.evaluate_seconds >= 2.0
    assert outcome.run_seconds < outcome.evaluate_seconds


# --- data ------------------------------------------------------------------------------------------


def test_transitions_are_scaled_cluster_by_cluster():
    data, method = some_data(), Offline(BC(2), block=1000)
    assignments = np.array([2, 0] * 6)
    prepared = method.prepare(Clustered(data, assignments, 3), 1)
    flat = transitions(data)
    assert prepared.count.tolist() == [int((assignments[flat.trajectory] == k).sum()) for k in range(3)]
    assert prepared.count[1] == 0
    for k in (0, 2):
        rows = assignments[flat.trajectory] == k
        part = slice(prepared.first[k], prepared.first[k] + prepared.count[k])
        observations = np.asarray(flat.observations)[rows]
        mean, std = observations.mean(0, dtype=np.float64), observations.std(0, dtype=np.float64) + 1e-3
        np.testing.assert_allclose(prepared.batch.observations[part], (observations - mean) / std, atol=1e-5)
        following = (np.asarray(flat.next_observations)[rows] - mean) / std
        np.testing.assert_allclose(prepared.batch.next_observations[part], following, atol=1e-5)
        np.testing.assert_array_equal(prepared.batch.terminated[part], flat.terminated[rows])
        np.testing.assert_array_equal(prepared.batch.rewards[part], flat.rewards[rows])
    assert np.isfinite(prepared.scaling.std).all()
    assert (prepared.scaling.std > 0).all()


def test_rewards_are_scaled_by_the_range_of_returns():
    data = one_step(np.zeros((3, 1)), np.zeros((3, 1)), [1.0, 2.0, 5.0])
    prepared = Offline(BC(1), reward_range=1000.0, reward_shift=-1.0).prepare(data, 1)
    np.testing.assert_allclose(prepared.batch.rewards, [249, 499, 1249])
    halves = Clustered(data, np.array([0, 0, 1]), 2)  # the range is that of all the data
    assert Offline(BC(1), reward_range=1000.0).prepare(halves, 1).batch.rewards.tolist() == [250, 500, 1250]
    prepared = Offline(BC(1), reward_scale=10.0, reward_shift=-5.0).prepare(data, 1)
    assert prepared.batch.rewards.tolist() == [5, 15, 45]
    same = one_step(np.zeros((2, 1)), np.zeros((2, 1)), [3.0, 3.0])  # no range: as it is
    np.testing.assert_allclose(Offline(BC(1), reward_range=1000.0).prepare(same, 1).batch.rewards, [3, 3])


def test_the_best_trajectories_of_each_cluster():
    data = one_step(np.arange(20)[:, None], np.zeros((20, 1)), np.arange(20) % 10)
    method = Offline(BC(1), best=0.2, normalise=False)
    assert method.prepare(data, 1).batch.observations[:, 0].tolist() == [8, 9, 18, 19]
    halves = Clustered(data, np.repeat([0, 1], 10), 2)
    assert method.prepare(halves, 1).batch.observations[:, 0].tolist() == [8, 9, 18, 19]
    assert Offline(BC(1), best=0.01).prepare(halves, 1).count.tolist() == [1, 1]


def test_actions_beyond_one_are_scaled_and_come_back():
    data = one_step(np.zeros((2, 1)), np.array([[4.0, 0.5], [-2.0, 0.5]]), [0.0, 0.0])
    method = LEARNERS["bc"].build(2, updates=600, actor_features=(16,), learning_rate=3e-3)
    assert method.prepare(data, 1).scaling.bound.tolist() == [4, 1]
    found = actions_of(fit(method, data, 1), method.learner, np.zeros((1, 1)))
    np.testing.assert_allclose(found[0, 0], [1.0, 0.5], atol=0.05)


def test_a_cluster_of_which_nothing_can_be_learned():
    """It would keep the policy that it began with: steps that were cut off have no successor."""
    data = one_step(np.arange(4.0)[:, None], np.zeros((4, 1)), np.ones(4))
    data = data.replace(terminated=np.array([True, True, False, False]), final_observations=data.observations[:, 0])
    clustered = Clustered(data, np.array([0, 0, 1, 1]), 2)
    with pytest.raises(DataError, match=r"no step has a known successor: .* leave out cluster 1"):
        Offline(IQL(1)).prepare(clustered, 1)
    with pytest.raises(DataError, match="or leave out cluster 7"):
        Offline(IQL(1)).prepare(clustered._replace(numbers=(4, 7)), 1)
    assert Offline(BC(1)).prepare(clustered, 1).count.tolist() == [2, 2]
    assert Offline(IQL(1)).prepare(Clustered(data, np.array([0, 0, -1, -1]), 2), 1).count.tolist() == [2, 0]


def test_a_mistaken_action_decides_no_bound(caplog):
    actions = np.tile([[2.0, 0.5]], (40, 1))
    actions[7, 0] = 1e6
    data = one_step(np.zeros((40, 1)), actions, np.zeros(40))
    prepared = Offline(BC(2)).prepare(data, 1)
    assert prepared.scaling.bound.tolist() == [2, 1]
    assert prepared.batch.actions[6:9, 0].tolist() == [1, 1, 1]
    assert "trajectory 7 has 1e+06 in dimension 0" in caplog.text
    caplog.clear()
    stated = Offline(BC(2), bounds=(4.0, 0.4)).prepare(data, 1)
    np.testing.assert_allclose(stated.scaling.bound, [4, 0.4])
    assert stated.batch.actions[6:9, 0].tolist() == [0.5, 1, 0.5]
    assert "clipped to 4" in caplog.text
    with pytest.raises(ValueError, match="bounds are"):
        Offline(BC(2), bounds=(0.0,))
    assert LEARNERS["bc"].build(2, bounds=(4, 0.4)).bounds == (4, 0.4)
    assert LEARNERS["lbrac_v"].build(2, given=(0, 1)).learner.given == (0, 1)
    with pytest.raises(ValueError, match="there are 1 bounds, and actions have 2 numbers"):
        Offline(BC(2), bounds=(4.0,)).prepare(data, 1)


@pytest.mark.parametrize("coded", [False, True])
def test_integer_observations_stay_as_they_are_until_they_are_drawn(coded):
    """A batch of uint8 frames is that of the same frames in float32."""
    rng = np.random.default_rng(0)
    shown = rng.integers(0, 256, (9 if coded else 60, 4, 3)).astype(np.uint8)
    lengths, begin, episodes = [3, 5, 8, 2], 0, []
    for t in lengths:
        frames = shown[(begin + np.arange(t + 1)) % len(shown)]
        begin += 7
        actions, rewards = np.tanh(rng.normal(size=(t, 2))).astype(np.float32), rng.normal(size=t).astype(np.float32)
        episodes.append((frames, actions, rewards, False))
    episodes[-1][0][-1] = episodes[-1][0][-2]  # what followed is not known
    whole = from_episodes([(frames.astype(np.float32), *rest) for frames, *rest in episodes])
    kept = from_episodes(episodes)
    kept = encode(kept) if coded else kept
    assignments = np.array([1, 0, 1, 0])
    method = tiny("iql")
    wanted, found = (method.prepare(Clustered(data, assignments, 2), 1) for data in (whole, kept))
    assert found.frames.steps.dtype == np.uint8
    assert found.frames.steps.base is not None or coded  # no copy
    assert found.count.tolist() == wanted.count.tolist()
    assert found.count.sum() == sum(lengths) - 1
    assert_close(found.scaling, wanted.scaling, rtol=1e-6)
    for k in (0, 1):
        rows = found.first[k] + jnp.arange(found.count[k])
        scaling = jax.tree.map(lambda x, k=k: jnp.asarray(x)[k], found.scaling)
        view = View(found, found.first[k], found.count[k], scaling)
        assert_close(view.batch(rows), jax.tree.map(lambda x, rows=rows: x[rows], wanted.batch), atol=1e-5)
    assert_close(fit(method, kept, 2).result, fit(method, whole, 2).result, atol=1e-4)


def test_discrete_actions_and_empty_data_are_refused():
    with pytest.raises(ValueError, match="continuous"):
        fit(tiny("iql"), make("diagonal", 2).trajectories, 1)
    unrewarded = one_step(np.zeros((2, 1)), np.zeros((2, 2)), [0.0, 0.0])
    for name in ("iql", "bc_10"):
        with pytest.raises(ValueError, match="every reward is 0"):
            fit(tiny(name), unrewarded, 1)
    with pytest.raises(DataError, match="no trajectory is in any cluster"):
        fit(tiny("bc"), Clustered(some_data(), np.full(12, -1), 2), 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"best": 0.0}, "share"),
        ({"block": 7}, "divide 1000000 updates"),
        ({"block": 0}, "divide 1000000 updates"),
        ({"sweep": (("learning_rate", (1.0,)), ("expectile", (0.6, 0.7)))}, "same number"),
        ({"sweep": (("batch_size", (1, 2)),)}, "batch_size is no setting of IQL that can be swept"),
        ({"sweep": (("dropout", (0.1, 0.2)),)}, "dropout is no setting of IQL that can be swept"),
        ({"sweep": (("expectile", (0.7, 1.5)),)}, "expectile is 1.5"),
    ],
)
def test_bad_trainings(settings, message):
    with pytest.raises(ValueError, match=message):
        Offline(IQL(1), **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"expectil": 0.9}, "no setting 'expectil'"),
        ({"expectile": 1.0}, "expectile is 1.0: it must be between 0 and 1"),
        ({"expectile": "high"}, "expectile is 'high': give a number"),
        ({"updates": 0}, "0 updates, at least 1"),
        ({"updates": 1.5}, "updates is 1.5: give a whole number"),
        ({"updates": 99_999}, "99999 updates: give a multiple of 100"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"features": (256, 0)}, "give a list of sizes"),
        ({"layer_norm": 1}, "give true or false"),
        ({"learning_rate": -1.0}, "learning_rate is -1.0: it must be above 0"),
        ({"discount": 2}, "discount is 2.0: it must be between 0 and 1"),
        ({"reward_range": -5}, "reward_range is -5.0: it must be above 0"),
        ({"reward_range": "wide"}, "reward_range is 'wide': give a number"),
        ({"bounds": ["wide"]}, r"give a list of numbers \[1,0.5\]"),
        ({"bounds": [0.5, 0]}, "they must be above 0"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        LEARNERS["iql"].build(1, **settings)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("td3_bc", {"actor_every": 0}, "actor_every is 0: it must be above 0"),
        ("awac", {"temperature": 0}, "temperature is 0.0: it must be above 0"),
        ("cql", {"num_actions": 0}, "num_actions is 0: it must be above 0"),
        ("cql", {"gap": True}, "gap is True: give a number"),
        ("cql", {"conservatism": -1}, "conservatism is -1.0: it must be at least 0"),
        ("td3_bc", {"noise_clip": -0.5}, "noise_clip is -0.5: it must be at least 0"),
        ("iql", {"dropout": 1}, "dropout is 1.0: it must be at least 0 and below 1"),
        ("iql", {"dropout": -1}, "dropout is -1.0: it must be at least 0 and below 1"),
        ("iql", {"reward_scale": 0}, "reward_scale is 0: all rewards would be equal"),
        ("iql", {"learning_rate": float("nan")}, "learning_rate is nan: give a finite number"),
        ("iql", {"bounds": [float("inf")]}, "give a list of numbers"),
        ("iql", {"temperature": -3}, "temperature is -3.0: it must be at least 0"),
        ("brac_v", {"penalty": -1}, "penalty is -1.0: it must be at least 0"),
        ("brac_v", {"actor_rate": 0}, "actor_rate is 0.0: it must be above 0"),
        ("brac_v", {"updates": 1234}, "1234 updates: give a multiple of 100"),
    ],
)
def test_bad_settings_of_one_learner(name, settings, message):
    with pytest.raises(ValueError, match=message):
        LEARNERS[name].build(1, **settings)


def test_the_multiplier_follows_the_gap():
    """With a gap that differences exceed, CQL's multiplier grows; with one that they never reach, it shrinks."""
    for gap, sign in ((-10.0, 1), (100.0, -1)):
        history = fit(tiny("cql", gap=gap), some_data(), 1).history
        values = [entry["critic/multiplier"][0] for entry in history if "critic/multiplier" in entry]
        assert sign * (values[-1] - values[0]) > 0


@pytest.mark.parametrize("name", LEARNERS)
def test_listed_settings_are_those_of_the_learner(name):
    listed = parsed_settings(tuple(pairs(LEARNERS[name].defaults()).split()))
    assert LEARNERS[name].build(1, **listed) == LEARNERS[name].build(1)


def test_settings_come_in_their_types():
    method = LEARNERS["iql"].build(1, updates=1e5, expectile=0.9, discount=1, features=[8, 8])
    assert (method.learner.updates, method.block) == (100_000, 1000)
    assert isinstance(method.learner.updates, int)
    assert LEARNERS["bc"].build(1, updates=300).block == 300
    assert LEARNERS["bc"].build(1, updates=2300).block == 100


def test_what_follows_a_cut_must_be_known():
    """Readers repeat the last observation where nobody recorded what came next: no bootstrapping from there."""
    states = np.float32([[0], [1], [2], [3]])
    cut = lambda states: from_episodes([(states, np.zeros((3, 1), np.float32), np.ones(3, np.float32), False)])
    known, repeated = cut(states), cut(np.minimum(states, 2))
    assert tiny("iql", 1).prepare(known, 1).count == 3
    assert tiny("iql", 1).prepare(repeated, 1).count == 2
    assert tiny("bc", 1).prepare(repeated, 1).count == 3
    with pytest.raises(DataError, match="no step has a known successor: give final_observations"):
        tiny("iql", 1).prepare(from_episodes([(states[[0, 0]], np.zeros((1, 1)), np.ones(1), False)]), 1)


@pytest.mark.parametrize("name", LEARNERS)
def test_every_learner_is_built_at_full_size(name):
    method = LEARNERS[name].build(6)
    assert sum(stage.updates for stage in method.learner.stages() if not stage.whole) == 1_000_000
    assert method.block == 1000
    assert [phase.budget for phase in method.phases()][-1] in (500, 1000)


def test_plas_takes_no_choices():
    for name in ("choices", "acting_choices"):
        with pytest.raises(ValueError, match="are BCQ's: this policy gives one action"):
            LEARNERS["plas"].build(1, **{name: 5})
    assert LEARNERS["bcq"].build(1, choices=5).learner.choices == 5


def test_settings_by_environment():
    assert LEARNERS["iql"].suited("Hopper-v4") == {"reward_range": 1000.0}
    assert LEARNERS["iql"].suited("Ant-v4") == LEARNERS["iql"].suited(None) == LEARNERS["bc"].suited("Hopper-v4") == {}
    assert LEARNERS["iql_corl"].suited("Hopper-v4") == {}
    iql = LEARNERS["iql"].suited
    assert iql("Hopper-v5") == iql('Hopper-v4{"max_episode_steps": 100}') == iql("Hopper-v4"), "of every version"
    of_mazes = {"expectile": 0.9, "temperature": 10.0, "reward_shift": -1.0}
    assert iql("AntMaze") == iql('AntMaze_UMaze-v4{"continuing_task": true}') == of_mazes
    assert LEARNERS["iql"].build(1, **iql("AdroitHandPen-v1")).learner.dropout == 0.1
    assert LEARNERS["bcq"].suited("Gates-v0")["updates"] == 5_000
    assert entries("learner")["empo"].suited("Navigation-v0")["discount"] == 0.999
    assert [LEARNERS[name].build(1).normalise for name in ("iql", "iql_corl")] == [False, True]


@pytest.mark.parametrize("name", ["bc_10", *sorted(ALGORITHMS.values())])
def test_one_transition_is_enough(name):
    """Nothing varies: no observation, no return, no reward."""
    data = one_step(np.ones((1, 3)), np.full((1, 2), 0.5), [2.0])
    outcome = fit(tiny(name, reward_range=1000.0), data, 1)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(outcome.result))


# --- axes ------------------------------------------------------------------------------------------


def test_clusters_train_as_if_alone_and_empty_ones_stay():
    data, method = some_data(), tiny("td3_bc")
    assignments = np.array([0, 2, 2] * 4)
    outcome = fit(method, Clustered(data, assignments, 3), [4])
    # the first cluster alone: its key is the same
    alone = fit(method, Clustered(data, np.where(assignments == 0, 0, -1), 1), [4])
    assert_close(jax.tree.map(lambda x: x[:, :1], outcome.result), alone.result, atol=2e-5)
    begun = method.phases()[0].start(_key(4, 0), method.prepare(Clustered(data, assignments, 3), 1), None)[0]
    empty = jax.tree.map(lambda x: x[1], begun.learner.params["actor"])
    assert_close(jax.tree.map(lambda x: x[0, 1], outcome.result.actor), empty, atol=1e-6)
    assert np.isnan(np.array(outcome.history[-1]["critic/loss"], float)).tolist() == [[False, True, False]]
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(outcome.result))


def test_swept_settings_train_as_if_alone():
    data = some_data()
    swept = tiny("iql", sweep=(("expectile", (0.6, 0.9)), ("learning_rate", (1e-3, 3e-3))))
    outcome = fit(swept, data, [1])
    alone = fit(tiny("iql", expectile=0.9, learning_rate=3e-3), data, [1])
    assert_close(jax.tree.map(lambda x: x[:, 1], outcome.result), alone.result, atol=2e-5)
    first, second = (jax.tree.leaves(outcome.result.actor)[0][0, i] for i in range(2))
    assert np.abs(first - second).max() > 1e-3


def test_sweep_of_clusters():
    method = tiny("bc", sweep=(("learning_rate", (1e-3, 3e-3)),))
    outcome = fit(method, Clustered(some_data(), np.arange(12) % 2, 2), 3)
    assert actions_of(outcome, method.learner, np.zeros((5, 3))).shape == (3, 2, 2, 5, 2)


# --- known answers ---------------------------------------------------------------------------------


BETTER = {"td3_bc", "iql", "awac", "cql", "brac_v"}


@pytest.mark.parametrize("name", ["bc", "bc_gaussian", *sorted(BETTER)])
def test_a_bandit_of_two_modes(name):
    """Half the actions are -.5 and pay 0, half are .5 and pay 1: cloning mixes them, learning takes the better one."""
    rng = np.random.default_rng(0)
    good = np.arange(256) % 2
    actions = (good - 0.5 + 0.05 * rng.normal(size=256))[:, None]
    data = one_step(np.ones((256, 1)), actions, good)
    more = {"temperature": 10.0} if name == "iql" else {}
    # a conservatism of 5 weighs the modes' frequencies above these rewards
    more |= {"conservatism": 0.1, "actor_rate": 3e-3, "updates": 3000} if name == "cql" else {}
    more |= {"penalty": 0.1, "actor_rate": 3e-3} if name == "brac_v" else {}
    method = tiny(name, 1, **{"updates": 1500, "learning_rate": 3e-3, "batch_size": 64, **more})
    found = actions_of(fit(method, data, 1), method.learner, np.ones((1, 1))).item()
    if name in BETTER:
        assert 0.35 < found < 0.85
    else:
        assert abs(found) < 0.15


@pytest.mark.parametrize("name", ["td3_bc", "iql", "awac", "cql", "brac_v"])
@pytest.mark.parametrize("terminated", [False, True])
def test_a_time_out_does_not_cut_the_bootstrap(name, terminated):
    """One state, reward 1, every episode of one step: worth 1 where it ends, 1 / (1 - .8) = 5 where it is cut off."""
    rng = np.random.default_rng(0)
    data = one_step(np.ones((128, 1)), rng.uniform(-1, 1, (128, 1)), np.ones(128), terminated)
    more = {"cql": {"conservatism": 0.0}, "brac_v": {"penalty": 0.0, "behaviour_updates": 1000}}.get(name, {})
    method = tiny(name, 1, updates=2000, discount=0.8, target_rate=0.05, learning_rate=3e-3, **more)
    outcome = fit(method, data, 1)
    assert outcome.history[-1]["critic/value"][0] == pytest.approx(1.0 if terminated else 5.0, abs=0.25)


def test_a_conflict_of_two_clusters():
    """Two policies disagree in one of two states: cloned together they mix there, cloned apart they do not."""
    states = np.tile([[0.0], [1.0]], (64, 1))
    who = np.repeat([0, 1], 64)
    actions = np.where(states[:, 0] == 0, 0.5, np.where(who == 0, 0.8, -0.8))[:, None]
    data = one_step(states, actions, np.zeros(128))
    method = tiny("bc", 1, updates=1000, learning_rate=3e-3)
    mixed = actions_of(fit(method, data, 1), method.learner, [[0.0], [1.0]])
    np.testing.assert_allclose(mixed[0, :, 0], [0.5, 0.0], atol=0.1)
    apart = actions_of(fit(method, Clustered(data, who, 2), 1), method.learner, [[0.0], [1.0]])
    np.testing.assert_allclose(apart[0, :, :, 0], [[0.5, 0.8], [0.5, -0.8]], atol=0.05)
