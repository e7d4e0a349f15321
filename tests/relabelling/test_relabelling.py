"""CLUE, ORIL and the plain rewards: losses against NumPy in float64, seeds and experts side by side, resuming."""

import dataclasses

import jax
import numpy as np
import pytest
from relabelling_data import A, D, some_data

from trajclust_jax.data import DataError, build_dataset, returns, transitions
from trajclust_jax.metrics import auc
from trajclust_jax.relabelling import (
    CLUE,
    ORIL,
    OTR,
    Constant,
    ExpertData,
    Indicator,
    Relabelled,
    expert_auc,
    of_clusters,
    of_demonstrations,
    of_trajectories,
    relabelled_dataset,
    relabeller,
    with_rewards,
)
from trajclust_jax.relabelling import clue as module
from trajclust_jax.relabelling.clue import temperature_by_spread

B = 10
SMALL = {"features": (8, 6), "batch_size": 8, "updates": 4, "block": 2}
AGENT = CLUE(**SMALL, calibration=0.3, beta=0.4)


def wide(x):
    return np.asarray(x, np.float64)


def dense(layer, x):
    return x @ wide(layer["kernel"]) + wide(layer["bias"])


def mlp(params, *inputs):
    x = np.concatenate([wide(each) for each in inputs], -1)
    for name in sorted(params):
        x = np.maximum(dense(params[name], x), 0)
    return x


def encoded(params, observations, actions):
    hidden = mlp(params["params"]["encoder"], observations, actions)
    log_std = np.clip(dense(params["params"]["log_std"], hidden), -4, 15)
    return dense(params["params"]["mean"], hidden), np.exp(log_std)


@pytest.fixture(scope="module")
def batches():
    rng = np.random.default_rng(1)
    draw = lambda *shape: rng.standard_normal(shape).astype(np.float32)
    return (draw(B, D), np.tanh(draw(B, A))), (draw(B, D) + 1, np.tanh(draw(B, A)))


@pytest.fixture(scope="module")
def params():
    steps = AGENT.prepare(of_trajectories(some_data(), [0]), 1)
    return AGENT.init(jax.random.key(2), steps)


def test_clue_loss(batches, params):
    batch, expert = batches
    key = jax.random.key(3)
    mean, std = encoded(params, *batch)
    latents = mean + std * wide(jax.random.normal(key, (B, 2 * A)))
    decoded = np.tanh(dense(params["params"]["action"], mlp(params["params"]["decoder"], batch[0], latents)))
    error = ((decoded - batch[1]) ** 2).mean()
    kl = -0.5 * (1 + np.log(std**2) - mean**2 - std**2).mean()
    expert_mean, expert_std = encoded(params, *expert)
    calibration = ((expert_mean**2).sum(1) + (expert_std**2).sum(1)).mean()
    loss, info = AGENT.loss(params, batch, expert, key)
    np.testing.assert_allclose(info["cvae/error"], error, rtol=1e-4)
    np.testing.assert_allclose(info["cvae/kl"], kl, rtol=1e-3)
    np.testing.assert_allclose(info["cvae/calibration"], calibration, rtol=1e-4)
    np.testing.assert_allclose(loss, error + 0.4 * kl + 0.3 * calibration, rtol=1e-4)
    plain, _ = dataclasses.replace(AGENT, calibration=0.0).loss(params, batch, expert, key)
    np.testing.assert_allclose(plain, error + 0.4 * kl, rtol=1e-4)


@pytest.mark.parametrize("prior", [0.0, 0.3])
def test_oril_loss(batches, prior):
    agent = ORIL(**SMALL, prior=prior)
    params = agent.init(jax.random.key(2), agent.prepare(of_trajectories(some_data(), [0]), 1))
    batch, expert = batches
    logits = lambda inputs: dense(params["params"]["Dense_2"], mlp({k: params["params"][k] for k in NAMES}, *inputs))
    share = lambda x: 1 / (1 + np.exp(-x))
    own, others = share(logits(expert)), share(logits(batch))
    expected = -((prior or 1) * np.log(own)).mean() - np.log(1 - others).mean() + prior * np.log(1 - own).mean()
    loss, _ = agent.loss(params, batch, expert, jax.random.key(0))
    np.testing.assert_allclose(loss, expected, rtol=1e-4)


NAMES = ("Dense_0", "Dense_1")


@pytest.fixture(scope="module")
def clustered():
    """Two experts, with different numbers of steps."""
    return of_clusters(some_data(), np.array([0, 1, 0, 1, 2, 2]), [0, 1])


def test_rewards_are_eq_6(clustered, monkeypatch):
    """Each expert's centre is the mean of its own steps' means; chunks of any size give the same."""
    agent = dataclasses.replace(AGENT, sampled=False, temperature=2.0)
    found = agent.relabel(clustered, (0, 4))
    flat = transitions(clustered.trajectories)
    observations, actions = wide(flat.observations), wide(flat.actions)
    scaled = (observations - observations.mean(0)) / (observations.std(0) + 1e-3)
    bound = np.maximum(np.abs(actions).max(0), 1)
    assert found.rewards.shape == (2, 2, len(actions))
    for s in range(2):
        for e in range(2):
            params = jax.tree.map(lambda x, s=s, e=e: x[s, e], found.model.params)
            mean, _ = encoded(params, scaled, actions / bound)
            centre = mean[clustered.experts[e]].mean(0)
            np.testing.assert_allclose(found.model.centre[s, e], centre, atol=1e-5)
            expected = np.exp(-2.0 * ((centre - mean) ** 2).sum(1))
            np.testing.assert_allclose(found.rewards[s, e], expected, rtol=1e-4)
    monkeypatch.setattr(relabeller, "CHUNK", 4)
    monkeypatch.setattr(module, "CHUNK", 4)
    again = dataclasses.replace(agent, updates=8)  # a program of its own
    np.testing.assert_allclose(again.rewards(found.model, clustered), found.rewards, rtol=1e-5)
    steps = jax.device_put(again.prepare(clustered, 1))
    params = jax.tree.map(lambda x: x[0, 1], found.model.params)
    centre = again.centre(params, steps, steps.first[1], steps.count[1])
    np.testing.assert_allclose(centre, found.model.centre[0, 1], atol=1e-5)


def test_sampled_rewards_are_those_of_the_models_seed(clustered):
    found = AGENT.relabel(clustered, (0,))
    assert (found.rewards >= 0).all()
    assert (found.rewards <= 1).all()
    np.testing.assert_array_equal(AGENT.rewards(found.model, clustered), found.rewards)
    other = found.model.replace(seed=found.model.seed + 1)
    assert (AGENT.rewards(other, clustered) != found.rewards).any()
    new = some_data(2, seed=8)
    without = AGENT.rewards(found.model, ExpertData(new))
    assert without.shape == (1, 2, int(np.asarray(new.lengths).sum()))
    mean = dataclasses.replace(AGENT, sampled=False).rewards(found.model, clustered)
    assert np.abs(mean - found.rewards).max() > 0.01


def test_expected_rewards_are_the_means_of_draws(clustered):
    """Beside 20,000 draws of z in NumPy."""
    agent = dataclasses.replace(AGENT, expected=True, temperature=3.0)
    found = agent.relabel(clustered, (0,))
    flat, rng = transitions(clustered.trajectories), np.random.default_rng(0)
    observations, actions = wide(flat.observations), wide(flat.actions)
    scaled = (observations - observations.mean(0)) / (observations.std(0) + 1e-3)
    params = jax.tree.map(lambda x: x[0, 1], found.model.params)
    mean, std = encoded(params, scaled, actions / np.maximum(np.abs(actions).max(0), 1))
    distances = [((found.model.centre[0, 1] - rng.normal(mean, std)) ** 2).sum(1) for _ in range(20_000)]
    drawn = np.exp(-3 * np.array(distances))
    error = drawn.std(0) / np.sqrt(len(drawn))
    assert (np.abs(found.rewards[0, 1] - drawn.mean(0)) < 5 * error + 1e-6).all()
    for settings in ({"temperature": None}, {"sampled": False}):
        with pytest.raises(ValueError, match="expected needs draws"):
            dataclasses.replace(agent, **settings)


def test_experts_and_seeds_learn_alone_as_among_others(clustered):
    together = AGENT.relabel(clustered, (3, 5))
    first = of_clusters(clustered.trajectories, np.array([0, 1, 0, 1, 2, 2]), [0])
    alone = AGENT.relabel(first, (5,))
    for a, b in zip(jax.tree.leaves(together.model.params), jax.tree.leaves(alone.model.params), strict=True):
        np.testing.assert_allclose(a[1, 0], b[0, 0], atol=1e-5)
    np.testing.assert_allclose(together.rewards[1, 0], alone.rewards[0, 0], rtol=1e-3)
    assert (together.rewards[0] != together.rewards[1]).any()


def test_resumes_exactly(clustered, tmp_path):
    def stop(event):
        if event.iteration == 2:
            raise RuntimeError("killed")

    agent = dataclasses.replace(AGENT, updates=6)
    whole = agent.relabel(clustered, (0, 1))
    kept = {"checkpoint_dir": str(tmp_path), "checkpoint_seconds": 0}
    with pytest.raises(RuntimeError, match="killed"):
        agent.relabel(clustered, (0, 1), callbacks=[stop], **kept)
    resumed = agent.relabel(clustered, (0, 1), **kept)
    assert resumed.outcome.resumed
    assert resumed.outcome.history == whole.outcome.history
    np.testing.assert_array_equal(resumed.rewards, whole.rewards)


def test_true_rewards_are_never_read():
    """In imitation: other rewards, of data and demonstration, give the same to the bit."""
    data, demonstration = some_data(), some_data(1, seed=9)
    rng = np.random.default_rng(0)
    shuffled = lambda each: each.replace(rewards=rng.permuted(np.asarray(each.rewards)))
    for agent in (AGENT, ORIL(**SMALL), Indicator(), Constant()):
        one = agent.relabel(of_demonstrations(data, demonstration), (0,))
        other = agent.relabel(of_demonstrations(shuffled(data), shuffled(demonstration)), (0,))
        np.testing.assert_array_equal(one.rewards, other.rewards)


def test_padding_is_never_read(clustered):
    data = clustered.trajectories
    beyond = ~np.asarray(data.mask)
    spoilt = data.replace(
        observations=np.where(beyond[..., None], np.nan, data.observations),
        actions=np.where(beyond[..., None], np.nan, data.actions),
        rewards=np.where(beyond, np.nan, data.rewards),
    )
    one = AGENT.relabel(clustered, (0,))
    other = AGENT.relabel(dataclasses.replace(clustered, trajectories=spoilt), (0,))
    np.testing.assert_array_equal(one.rewards, other.rewards)


@pytest.mark.parametrize(("calibration", "least", "most"), [(0.3, 0.8, 1.0), (0.0, 0.4, 0.6)])
def test_calibration_tells_the_expert(calibration, least, most):
    """Steps of the policy that made the expert's trajectories are rewarded more; without calibration they are not."""
    data = some_data(40)
    agent = CLUE(features=(32, 32), learning_rate=3e-3, updates=300, block=300, batch_size=64, calibration=calibration)
    rewards = agent.relabel(of_trajectories(data, [0, 2, 4, 6]), (0,)).rewards[0, 0]
    assert least < auc(rewards, transitions(data).trajectory % 2 == 0) < most


def test_the_temperature_that_spreads_trajectories_most():
    """Two trajectories at distances 0 and d: the spread of exp(-c d) from 1 grows with c; at 0.3 and 3 it falls."""
    trajectory = np.array([0, 0, 1, 1])
    assert temperature_by_spread(np.array([0, 0, 0.1, 0.1]), trajectory) == 10
    assert temperature_by_spread(np.array([0.3, 0.3, 3, 3]), trajectory) == 1
    agent = dataclasses.replace(AGENT, temperature=None)
    scores = np.array([[0, 0, 0.1, 0.1], [0.3, 0.3, 3, 3]], np.float32)
    expected = np.exp(-np.array([[10.0], [1.0]]) * scores)
    np.testing.assert_allclose(agent.rewards_of(scores, trajectory), expected, rtol=1e-5)


def test_how_well_rewards_tell_the_expert():
    """By pairs of steps; an expert's steps that are no part of the data are rewarded for it."""
    data = some_data()
    for both in (of_demonstrations(data, some_data(1, seed=9)), of_trajectories(data, [2])):
        found = AGENT.relabel(both, (0,))
        rewards = AGENT.rewards(found.model, ExpertData(both.pooled))[0, 0]
        own = both.members()[0]
        above = np.sign(rewards[own][:, None] - rewards[~own])
        assert expert_auc(AGENT, found, both) == [pytest.approx((above.mean() + 1) / 2)]
    assert expert_auc(Indicator(), Indicator().relabel(both, (0,)), both) == [1]
    apart = of_demonstrations(data, some_data(1, seed=9))
    assert expert_auc(OTR(), Relabelled(np.zeros((1, 1, apart.num_steps))), apart) == [None]


def test_plain_rewards():
    data, demonstration = some_data(), some_data(1, seed=9)
    both = of_demonstrations(data, demonstration)
    found = Indicator().relabel(both, (0, 1)).rewards
    lengths = [int(np.asarray(each.lengths).sum()) for each in (data, demonstration)]
    np.testing.assert_array_equal(found, np.broadcast_to(np.repeat([0.0, 1.0], lengths), (2, 1, sum(lengths))))
    inside = Indicator().relabel(of_trajectories(data, [2]), (0,)).rewards[0, 0]
    np.testing.assert_array_equal(inside, transitions(data).trajectory == 2)
    assert (Constant().relabel(both, (0,)).rewards == np.ones((1, 1, lengths[0]))).all()


def test_a_datasets_new_rewards():
    """Scaled by the range of returns; provenance says how; demonstrations are joined where they are learned from."""
    data, demonstration = some_data(), some_data(2, seed=9)
    dataset = build_dataset(data, np.arange(6) % 2, name="some", source="some")
    both = of_demonstrations(data, demonstration)
    rewards = np.arange(both.num_steps, dtype=np.float32)
    made = relabelled_dataset(dataset, AGENT, both, rewards, {"relabelled": {"method": "clue"}})
    assert np.ptp(returns(made.trajectories)) == pytest.approx(1000, rel=1e-5)
    flat = transitions(made.trajectories).rewards
    np.testing.assert_allclose(flat / flat[1], rewards, rtol=1e-5)
    np.testing.assert_array_equal(made.labels, dataset.labels)
    assert made.provenance.parameters == {"relabelled": {"method": "clue"}}
    assert made.provenance.fingerprint != dataset.provenance.fingerprint
    plain = Indicator()
    joined = relabelled_dataset(dataset, plain, both, plain.relabel(both, (0,)).rewards[0, 0], {})
    assert joined.trajectories.num_trajectories == 8
    assert joined.labels is None
    np.testing.assert_array_equal(returns(joined.trajectories)[6:], demonstration.lengths)
    equal = with_rewards(data, np.zeros(both.num_steps), 1000.0)
    assert (np.asarray(equal.rewards) == 0).all()


def test_settings_and_data_that_make_no_sense():
    for settings in ({"updates": 3, "block": 2}, {"temperature": 0.0}, {"calibration": -1.0}, {"learning_rate": 0.0}):
        with pytest.raises(ValueError, match="must"):
            CLUE(**{**SMALL, **settings})
    with pytest.raises(ValueError, match="prior is 2"):
        ORIL(**SMALL, prior=2.0)
    data = some_data()
    discrete = data.replace(actions=np.zeros(data.rewards.shape, np.int32), num_actions=2)
    with pytest.raises(DataError, match="actions are discrete"):
        AGENT.relabel(of_trajectories(discrete, [0]), (0,))


def test_a_mistaken_action_is_told_by_its_trajectory(caplog):
    data = some_data(40)
    data.actions[33, 1, 0] = 1e6
    AGENT.prepare(of_trajectories(data, [0]), 1)
    assert "trajectory 33 has 1e+06 in dimension 0" in caplog.text
