"""SQIL's minibatches: half from the transitions that have a reward."""

import dataclasses

import jax
import numpy as np
import pytest

from trajclust_jax.data import from_episodes
from trajclust_jax.learners import C4, SQIL, Clustered, Offline, View


def some_data():
    """Six episodes of four steps; every step of the second and the fifth has a reward."""
    rng = np.random.default_rng(0)
    draw = lambda *shape: rng.standard_normal(shape).astype(np.float32)
    return from_episodes([(draw(5, 2), np.tanh(draw(4, 1)), np.full(4, float(n in (1, 4))), True) for n in range(6)])


def views():
    """Of a learner on everything, and of two on three episodes each."""
    offline, data = Offline(SQIL(1, updates=2), block=2), some_data()
    whole = jax.device_put(offline.prepare(data, 1))
    yield View(whole, whole.first, whole.count, whole.scaling), {1, 4}
    apart = jax.device_put(offline.prepare(Clustered(data, np.array([0, 0, 0, 1, 1, 1]), 2), 1))
    for k in range(2):
        yield View(apart, apart.first[k], apart.count[k], None), {1, 4} & set(range(3 * k, 3 * k + 3))


def test_half_of_a_minibatch_is_rewarded():
    sampler = SQIL(1).sampler
    for view, rewarded in views():
        state = sampler.init(view)
        rows = np.asarray(sampler.rows(state, jax.random.key(0), 400, view))
        assert ((rows >= view.first) & (rows < view.first + view.count)).all()
        trajectory, rewards = (np.asarray(getattr(view.data.batch, name))[rows] for name in ("trajectory", "rewards"))
        assert (rewards[:200] == 1).all()
        assert (rewards[200:] == 0).all()
        assert set(trajectory[:200]) == rewarded
        everyone = set(np.asarray(view.data.batch.trajectory)[int(view.first) : int(view.first + view.count)])
        assert set(trajectory[200:]) == everyone - rewarded
        assert len(set(rows)) == int(view.count)  # every transition is drawn


def test_rewards_that_tell_nothing_are_warned_of(caplog):
    learner, data = SQIL(1), some_data()
    learner.advise(data)
    assert not caplog.text
    learner.advise(data.replace(rewards=np.ones_like(data.rewards)))
    assert "rewards tell no expert from others" in caplog.text
    caplog.clear()
    rewards = np.array(data.rewards)
    rewards[1, 0] = 0.3
    learner.advise(data.replace(rewards=rewards))
    assert "those with a reward above 0, are taken for the expert's" in caplog.text
    caplog.clear()
    rewards[1] = 3 * np.array(data.rewards)[1]
    learner.advise(data.replace(rewards=rewards))
    assert not caplog.text, "of two experts, each scaled by itself"
    Offline(learner, reward_shift=-1.0).prepare(data, 1)
    assert "rewards tell no expert from others" in caplog.text, "shifted, none is above 0"
    view, _ = next(views())
    nothing = dataclasses.replace(view.data, batch=view.data.batch._replace(rewards=0 * view.data.batch.rewards))
    rows = learner.sampler.rows(learner.sampler.init(view._replace(data=nothing)), jax.random.key(0), 50, view)
    assert ((rows >= 0) & (rows < view.count)).all()


def test_minibatches_of_clusters_are_none_of_its_own():
    with pytest.raises(ValueError, match="this learner has minibatches of its own"):
        Offline(C4(SQIL(1)))
