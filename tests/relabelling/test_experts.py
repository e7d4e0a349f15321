"""Which steps are an expert's, and what is none."""

import jax
import numpy as np
import pytest
from relabelling_data import some_data

from trajclust_jax.data import DataError, from_episodes, returns, transitions
from trajclust_jax.data.preparation import ScaleReturns
from trajclust_jax.relabelling import (
    ExpertData,
    of_best,
    of_classes,
    of_clusters,
    of_demonstrations,
    of_successes,
    of_trajectories,
)

DATA = some_data()
TRAJECTORY = transitions(DATA).trajectory


def sparse():
    """Goals at step 3, never, at step 1; rewards of 0 and 1."""
    episodes = []
    for goal in (3, None, 1):
        rewards = np.zeros(5, np.float32)
        if goal is not None:
            rewards[goal] = 1
        episodes.append((np.zeros((6, 2), np.float32), np.zeros((5, 1), np.float32), rewards, False))
    return from_episodes(episodes)


def whose(data, number=0):
    return np.unique(data.flat.trajectory[data.experts[number]]).tolist()


def test_the_best_trajectories(caplog):
    order = np.argsort(-returns(DATA))
    assert whose(of_best(DATA, 2)) == sorted(order[:2].tolist())
    assert not caplog.text
    assert whose(of_best(sparse(), 1)) == [0]
    assert caplog.messages == ["expert best:1: 2 have a return of 1; the first are taken"]
    for count, text in ((0, "give at least 1"), (6, "holds all of the data")):
        with pytest.raises(DataError, match=text):
            of_best(DATA, count)
    with pytest.raises(DataError, match="all returns are equal"):
        of_best(DATA.replace(rewards=np.zeros_like(DATA.rewards)), 1)


def test_returns_that_differ_by_rounding_are_equal():
    """1 / T at each of T steps is 1 in all, but in float32: neither is one the best, nor are rewards blown up."""
    data = from_episodes([(np.zeros((t + 1, 1)), np.zeros((t, 1)), np.full(t, 1 / t), False) for t in (3, 7, 11, 1000)])
    assert np.ptp(returns(data)) > 0
    with pytest.raises(DataError, match="all returns are equal"):
        of_best(data, 1)
    assert ScaleReturns(1000.0)(data) is data
    better = data.replace(rewards=np.float32(data.rewards) * np.float32([[1], [1], [1], [1 + 1e-6]]))
    assert whose(of_best(better, 1)) == [3]


def test_the_successful_trajectories(caplog):
    assert whose(of_successes(sparse())) == [0, 2]
    assert whose(of_successes(sparse(), 1)) == [2], "the soonest"
    assert not caplog.text
    assert whose(of_successes(sparse(), 5)) == [0, 2]
    assert "only 2 trajectories succeeded" in caplog.text
    with pytest.raises(DataError, match="a sparse task's two: give best:K"):
        of_successes(DATA)
    with pytest.raises(DataError, match="every reward is 0, so no trajectory succeeded"):
        of_successes(sparse().replace(rewards=np.zeros((3, 5), np.float32)))
    crashes = sparse().replace(rewards=0 - np.eye(3, 5, 2, dtype=np.float32))
    with pytest.raises(DataError, match="most begin with the reward 0, which is no goal's"):
        of_successes(crashes, 1)
    at_once = crashes.replace(rewards=np.float32([[-1, 0, 0, 0, 0], [0, 0, -1, 0, 0], [0, 0, 0, 0, -1]]))
    with pytest.raises(DataError, match="most begin with the reward 0, which is no goal's"):
        of_successes(at_once, 1)  # one crashes at its first step
    caplog.clear()
    together = sparse().replace(rewards=np.eye(3, 5, 2, dtype=np.float32)[[0, 0, 1]])
    assert whose(of_successes(together, 1)) == [0]
    assert caplog.messages == ["expert success:1: 2 succeed after 2 steps; the first are taken"]
    caplog.clear()
    assert whose(of_successes(together, 2)) == [0, 1]
    assert not caplog.text
    with pytest.raises(DataError, match="success:0: give at least 1"):
        of_successes(sparse(), 0)


def test_demonstrations_come_after_the_data():
    demonstration = some_data(2, seed=7)
    data = of_demonstrations(DATA, demonstration)
    assert whose(data) == [6, 7]
    assert data.pooled.num_trajectories == 8
    np.testing.assert_array_equal(data.flat.observations[: data.num_steps], transitions(DATA).observations)
    np.testing.assert_array_equal(data.flat.actions[data.experts[0]], transitions(demonstration).actions)
    np.testing.assert_array_equal(
        data.flat.next_observations[data.experts[0]], transitions(demonstration).next_observations
    )


def test_an_expert_of_another_environment_or_the_data_itself():
    with pytest.raises(DataError, match=r"observations are \[2\], the data's \[3\]: give an expert of the same"):
        of_demonstrations(DATA, sparse())
    other = DATA.replace(rewards=np.zeros_like(DATA.rewards))
    with pytest.raises(DataError, match="expert holds all of the data"):
        of_demonstrations(DATA, other)
    with pytest.raises(DataError, match=r"actions are \[1\], the data's \[2\]"):
        of_demonstrations(DATA, DATA.replace(actions=DATA.actions[..., :1]))


def test_an_expert_in_another_unit(caplog):
    """Is warned of; other combinations of categories, which have the same numbers, are refused."""
    demonstration = some_data(2, seed=7)
    of_demonstrations(DATA, demonstration)
    assert not caplog.text
    of_demonstrations(DATA, demonstration.replace(observations=demonstration.observations + np.float32([0, 50, 0])))
    assert caplog.messages == [
        "expert: 1 of 3 columns of observations are far from the data's: are they in the same unit?"
    ]
    of_demonstrations(DATA, demonstration.replace(actions=100 * demonstration.actions))
    of_demonstrations(DATA.replace(actions=100 * DATA.actions), demonstration)
    told = "expert: 2 of 2 columns of actions are far from the data's: are they in the same unit?"
    assert caplog.messages[1:] == [told, told]
    caplog.clear()
    still = demonstration.observations * np.float32([0.01, 0.001, 0])  # in columns of its own
    of_demonstrations(DATA, demonstration.replace(observations=still, actions=0.05 * demonstration.actions))
    assert not caplog.text, "an expert may balance where others fall"
    discrete = DATA.replace(actions=(DATA.actions[..., 0] > 0).astype(np.int32), num_actions=2)
    for own, other in ((((0, 0), (1, 1)), ((0, 1), (1, 0))), (((10,), (20,)), ((20,), (30,))), ((), ((20,), (30,)))):
        with pytest.raises(DataError, match=r"expert: actions: the (value|combination) .* is new to the data"):
            of_demonstrations(discrete.replace(action_parts=own), discrete.replace(action_parts=other))


def test_a_discrete_expert_numbers_its_actions_as_the_data():
    """It need not take every action that the data has."""
    actions = (DATA.actions[..., 0] > 0).astype(np.int32)
    discrete = DATA.replace(actions=actions, num_actions=3)
    found = of_demonstrations(discrete, discrete.replace(observations=DATA.observations + 1, num_actions=2))
    assert (found.pooled.num_actions, found.demonstrations.num_actions) == (3, 3)
    parts = ((0, 0), (0, 1), (1, 1))
    own = discrete.replace(observations=DATA.observations + 1, num_actions=2, action_parts=((0, 1), (1, 1)))
    found = of_demonstrations(discrete.replace(action_parts=parts), own)
    mask = np.asarray(DATA.mask)
    np.testing.assert_array_equal(found.demonstrations.actions[mask], actions[mask] + 1)


def test_an_expert_that_is_among_the_data_is_told(caplog):
    one = lambda each: jax.tree.map(lambda x: np.asarray(x)[:1], each)
    of_demonstrations(DATA, one(DATA))
    assert caplog.messages == [
        "expert: 1 of its 1 trajectories are also in the data, where they count as not the expert's; if they are the "
        "same episodes, remove them from the data"
    ]
    with pytest.raises(DataError, match="expert best:1 holds all of the data"):
        of_best(one(DATA), 1)


def test_clusters_and_classes():
    data = of_clusters(DATA, np.array([0, 2, 0, 1, 1, 2]), [2, 0])
    assert [whose(data, number) for number in range(2)] == [[1, 5], [0, 2]]
    with pytest.raises(DataError, match="expert 1 has no step"):
        of_clusters(DATA, np.array([0, 2, 0, 1, 1, 2]), [2, 3])
    classes = np.arange(len(TRAJECTORY)) % 3
    data = of_classes(DATA, classes, [1])
    np.testing.assert_array_equal(data.members()[0], classes == 1)
    with pytest.raises(DataError, match="expert: there is none"):
        ExpertData(DATA).check()
    with pytest.raises(DataError, match="no step"):
        of_trajectories(DATA, [])
