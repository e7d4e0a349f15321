"""The episode splitter against a plain loop, and the padding of lists of episodes."""

import numpy as np
import pytest

from trajclust_jax.data import DataError, from_episodes, split_episodes, transitions, validate


def loop(observations, actions, rewards, terminals, timeouts, next_observations, drop_incomplete):
    """Episodes as lists, one step at a time."""
    episodes, start = [], 0
    steps = len(rewards)
    for p in range(steps):
        ended = terminals[p] or (timeouts is not None and timeouts[p])
        if ended or (p == steps - 1 and not drop_incomplete):
            final = observations[p] if next_observations is None else next_observations[p]
            part = slice(start, p + 1)
            episodes.append((observations[part], actions[part], rewards[part], bool(terminals[p]), final))
            start = p + 1
    return episodes


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("with_timeouts", [True, False])
@pytest.mark.parametrize("with_next", [True, False])
@pytest.mark.parametrize("drop_incomplete", [True, False])
@pytest.mark.parametrize("discrete", [True, False])
def test_against_a_loop(seed, with_timeouts, with_next, drop_incomplete, discrete):
    rng = np.random.default_rng(seed)
    steps = 200
    observations = rng.normal(size=(steps, 3)).astype(np.float32)
    actions = rng.integers(0, 5, steps) if discrete else rng.normal(size=(steps, 2))
    rewards = rng.normal(size=steps)
    terminals = rng.random(steps) < 0.1
    timeouts = (rng.random(steps) < 0.1) if with_timeouts else None  # often on a terminal step, too
    terminals[-3:] = False
    if with_timeouts:
        timeouts[-3:] = False  # a trailing fragment
    following = None
    if with_next:
        ends = terminals | (timeouts if with_timeouts else False)
        following = np.roll(observations, -1, 0)
        following[ends] = rng.normal(size=(ends.sum(), 3))

    data = split_episodes(
        observations,
        actions,
        rewards,
        terminals,
        timeouts,
        following,
        num_actions=5 if discrete else 0,
        drop_incomplete=drop_incomplete,
    )
    validate(data)
    expected = loop(observations, actions, rewards, terminals, timeouts, following, drop_incomplete)
    assert data.num_trajectories == len(expected)
    assert data.max_length == max(len(episode[2]) for episode in expected)
    for n, (obs, act, rew, ended, final) in enumerate(expected):
        length = data.lengths[n]
        assert length == len(rew)
        np.testing.assert_array_equal(data.observations[n, :length], obs)
        np.testing.assert_array_equal(data.actions[n, :length], act.astype(data.actions.dtype))
        np.testing.assert_array_equal(data.rewards[n, :length], rew.astype(np.float32))
        np.testing.assert_array_equal(data.final_observations[n], final)
        assert data.terminated[n] == ended
        for padded in (data.observations, data.actions, data.rewards):
            assert not padded[n, length:].any()


def encoded(lengths, ends):
    """Flat arrays whose every number is its step's index; `ends` holds 'terminal', 'timeout', 'both' or 'none'."""
    index = np.arange(sum(lengths), dtype=np.float32)
    last = np.cumsum(lengths) - 1
    terminals, timeouts = np.zeros(len(index), bool), np.zeros(len(index), bool)
    for p, end in zip(last, ends, strict=True):
        terminals[p], timeouts[p] = end in ("terminal", "both"), end in ("timeout", "both")
    return index, last, terminals, timeouts


def test_transitions_encode_their_index_and_never_cross():
    lengths, ends = [3, 1, 4, 2, 5], ["terminal", "timeout", "both", "terminal", "none"]
    index, last, terminals, timeouts = encoded(lengths, ends)
    following = index[:, None] + 1
    following[last] = index[last, None] + 1000
    data = split_episodes(index[:, None], index[:, None], index, terminals, timeouts, next_observations=following)
    flat = transitions(data)
    np.testing.assert_array_equal(flat.observations[:, 0], index)
    np.testing.assert_array_equal(flat.actions[:, 0], index)
    np.testing.assert_array_equal(flat.rewards, index)
    np.testing.assert_array_equal(flat.trajectory, np.repeat(np.arange(5), lengths))
    expected = index + 1
    expected[last] = index[last] + 1000  # the episode's own successor, not the next episode's first
    np.testing.assert_array_equal(flat.next_observations[:, 0], expected)
    np.testing.assert_array_equal(np.flatnonzero(flat.terminated), last[[0, 2, 3]])
    np.testing.assert_array_equal(np.flatnonzero(flat.truncated), last[[1, 4]])


def test_no_end_is_one_trajectory():
    index, _, terminals, timeouts = encoded([7], ["none"])
    data = split_episodes(index[:, None], index[:, None], index, terminals, timeouts)
    assert data.num_trajectories == 1
    assert not data.terminated[0]
    np.testing.assert_array_equal(data.final_observations, [[6.0]])
    with pytest.raises(DataError, match="mark no end"):
        split_episodes(index[:, None], index[:, None], index, terminals, timeouts, drop_incomplete=True)


def test_flags_of_any_dtype_and_wide_numbers():
    index, _, terminals, timeouts = encoded([2, 2], ["terminal", "timeout"])
    data = split_episodes(
        index[:, None].astype(np.float64),
        index.astype(np.int64),
        index,
        terminals.astype(np.float32),
        timeouts * 1,
        None,
        4,
    )
    validate(data)
    assert data.observations.dtype == np.float32
    assert data.actions.dtype == np.int32


def test_whole_floats_are_discrete_actions_and_fractions_are_not():
    index, _, terminals, _ = encoded([4], ["terminal"])
    assert split_episodes(index[:, None], index, index, terminals, num_actions=4).actions.dtype == np.int32
    with pytest.raises(DataError, match=r"actions at step 1 is 1.25"):
        split_episodes(index[:, None], index * 1.25, index, terminals, num_actions=4)


def test_a_number_too_large_for_float32_is_named():
    index, _, terminals, _ = encoded([4], ["terminal"])
    wide = index[:, None].astype(np.float64)
    wide[2] = 1e300
    with pytest.raises(DataError, match="observations at step 2 is NaN or infinite"):
        split_episodes(wide, index[:, None], index, terminals)


def test_input_is_not_shared():
    index, _, terminals, _ = encoded([2, 2], ["terminal", "terminal"])
    observations = index[:, None].copy()
    data = split_episodes(observations, index[:, None], index, terminals)
    observations[:] = -1
    np.testing.assert_array_equal(data.observations.ravel(), index)


def episodes_of(trajectories):
    return [
        (
            np.concatenate([trajectories.observations[n, :length], trajectories.final_observations[n : n + 1]]),
            trajectories.actions[n, :length],
            trajectories.rewards[n, :length],
            trajectories.terminated[n],
        )
        for n, length in enumerate(trajectories.lengths)
    ]


def test_from_episodes(continuous):
    data = continuous()
    again = from_episodes(episodes_of(data))
    for name in ("observations", "actions", "rewards", "lengths", "terminated", "final_observations"):
        np.testing.assert_array_equal(getattr(again, name), getattr(data, name))
    assert from_episodes(episodes_of(data), max_length=9).max_length == 9
    assert from_episodes(episodes_of(data), max_length=1).max_length == data.max_length


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda o, a, r: (o[:-1], a, r), r"observations at episode 2"),
        (lambda o, a, r: (o, a[1:], r), r"observations at episode 2"),
        (lambda o, a, r: (o[:1], a[:0], r[:0]), r"rewards at episode 2 has shape \(0,\) \(an empty episode\)"),
        (lambda o, a, r: (o[:, :2], a, r), r"observations at episode 2 has steps of shape \(2,\)"),
        (lambda o, a, r: (o * np.nan, a, r), r"observations at trajectory 2, step 0"),
    ],
)
def test_bad_episodes(continuous, change, words):
    episodes = episodes_of(continuous())
    episodes[2] = (*change(*episodes[2][:3]), True)
    with pytest.raises(DataError, match=words):
        from_episodes(episodes)


def test_no_episodes():
    with pytest.raises(DataError, match="N = 0"):
        from_episodes([])
