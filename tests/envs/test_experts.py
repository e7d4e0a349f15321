"""The nine experts against independently written rules, and the dynamics they act in."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trajclust_envs import ENVIRONMENTS, Takeball, TakeballPermuted, expert_policy, rollout
from trajclust_envs.gridworld import MOVES

UP, DOWN, LEFT, RIGHT, STAY = range(5)
DELTAS = {UP: (-1, 0), DOWN: (1, 0), LEFT: (0, -1), RIGHT: (0, 1), STAY: (0, 0)}
BALLS = [(1, 7), (3, 5), (5, 3), (7, 1)]
NUM = 500
CELLS = [(row, column) for row in range(1, 8) for column in range(1, 8)]

ENVS = {name: ENVIRONMENTS[name]() for name in ("Diagonal-v0", "Takeball-v0", "TakeballPermuted-v0")}
EXPERTS = [(name, index) for name, env in ENVS.items() for index in range(len(env.experts))]


def diagonal_rule(expert, row, column):
    if column == 7 and row == 7:
        return RIGHT  # the goal: the episode is over
    if column == 7:
        return DOWN
    if row == 7:
        return RIGHT
    goes_right = [True, False, row > column, (row + column) % 2 == 0, (row + column) % 2 != 0]
    return RIGHT if goes_right[expert] else DOWN


def takeball_rule(expert, row, column, there, place):
    to_row, to_column = place if there else (7, 7)
    if column != to_column:
        return RIGHT if to_column > column else LEFT
    if row != to_row:
        return DOWN if to_row > row else UP
    return STAY


def all_states(env):
    """Codes of all states with the agent inside the border, and `(row, column, ball bits, permutation)` of each."""
    permuted = isinstance(env, Takeball)
    bits, permutations = (range(16), range(len(env.permutations))) if permuted else ([0], [0])
    described = [(r, c, b, p) for p in permutations for b in bits for r, c in CELLS]
    ids = np.array([r * 9 + c + 81 * (b + 16 * p) for r, c, b, p in described], np.int32)
    return ids, described


@pytest.mark.parametrize("name", ENVS)
def test_experts_follow_their_rules_in_all_states(name):
    env = ENVS[name]
    ids, described = all_states(env)
    params = env.default_params

    @jax.jit
    def actions(index):
        act = lambda i: env.expert_action(index, None, None, env.state_from_id(i), params)
        return jax.vmap(act)(jnp.asarray(ids))

    for expert in range(len(env.experts)):
        if name == "Diagonal-v0":
            expected = [diagonal_rule(expert, r, c) for r, c, _, _ in described]
        else:
            places = [[BALLS[place] for place in permutation] for permutation in env.permutations]
            expected = [takeball_rule(expert, r, c, b >> expert & 1, places[p][expert]) for r, c, b, p in described]
        ours = actions(jnp.int32(expert))
        assert ours.dtype == jnp.int32
        np.testing.assert_array_equal(ours, expected)


def test_there_are_nine_experts_with_names():
    assert [len(ENVS[name].experts) for name in ("Diagonal-v0", "Takeball-v0")] == [5, 4]
    for env in ENVS.values():
        assert len({expert.name for expert in env.experts}) == len(env.experts)


def paths(env, data):
    """The cell at each step and after it, `[N, T, 2]` each, from the observations."""
    agent = data.table[..., 1].reshape(len(data.table), -1).argmax(1)
    cells = np.stack([agent // 9, agent % 9], -1)
    before, after = cells[data.observations], cells[np.roll(data.observations, -1, axis=1)]
    after[np.arange(len(after)), data.lengths - 1] = cells[data.final_observations]
    return before, after


@pytest.mark.parametrize(("name", "expert"), EXPERTS)
def test_without_noise_the_path_is_the_rule(name, expert):
    env = ENVS[name]
    params = env.default_params.replace(noise=0.0, start_low=jnp.array([2, 3]), start_high=jnp.array([2, 3]))
    data = rollout(env, expert_policy(env, expert), jax.random.key(0), NUM, params)
    assert data.terminated.all()
    for n in range(0, NUM, 20):
        # each ball's place, read off the episode's first observation
        first = data.table[data.observations[n, 0]]
        places = [tuple(np.argwhere(first[..., 3 + ball])[0]) for ball in range(first.shape[-1] - 3)]
        position, balls, actions = (2, 3), [True] * len(places), []
        while position != (7, 7):
            if places:
                action = takeball_rule(expert, *position, balls[expert], places[expert])
            else:
                action = diagonal_rule(expert, *position)
            actions.append(action)
            position = (position[0] + DELTAS[action][0], position[1] + DELTAS[action][1])
            balls = [there and place != position for there, place in zip(balls, places, strict=True)]
        assert data.actions[n, : data.lengths[n]].tolist() == actions
        final = data.table[data.final_observations[n]]
        assert final[..., 3:].any((0, 1)).tolist() == balls
    if name != "TakeballPermuted-v0":
        assert len(np.unique(data.lengths)) == 1


def test_the_intended_action_is_recorded():
    env = ENVS["Diagonal-v0"]
    params = env.default_params.replace(noise=1.0)
    data = rollout(env, expert_policy(env, 2), jax.random.key(0), NUM, params)
    before, after = paths(env, data)
    valid = np.arange(40) < data.lengths[:, None]
    expected = [diagonal_rule(2, row, column) for row, column in before[valid]]
    np.testing.assert_array_equal(data.actions[valid], expected)
    inside = valid & np.all((before > 1) & (before < 7), axis=-1)  # where no wall hides what was executed
    followed = np.all(after[inside] == before[inside] + MOVES[data.actions[inside]], axis=-1)
    assert abs(followed.mean() - 1 / 5) < 4 * np.sqrt(0.16 / inside.sum())


@pytest.mark.parametrize("noise", [0.3, 0.0, 1.0])
def test_executed_actions_have_the_noise_of_the_paper(noise):
    env, num = ENVS["Diagonal-v0"], 20_000
    params = env.default_params.replace(noise=noise)
    state = env.state_from_id(jnp.int32(4 * 9 + 4))
    step = jax.jit(jax.vmap(lambda key, action: env.step_env(key, state, action, params)[1].position, (0, None)))
    for action in range(5):
        moved = np.asarray(step(jax.random.split(jax.random.key(action), num), jnp.int32(action))) - 4
        executed = np.array([np.all(moved == delta, axis=1).mean() for delta in DELTAS.values()])
        np.testing.assert_allclose(executed.sum(), 1)
        expected = np.full(5, noise / 5) + (1 - noise) * np.eye(5)[action]
        assert (np.abs(executed - expected) <= 4.5 * np.sqrt(expected * (1 - expected) / num) + 1e-9).all()


def test_actions_under_noise_have_that_rate_along_episodes():
    env = ENVS["Takeball-v0"]
    data = rollout(env, expert_policy(env, 1), jax.random.key(1), NUM)
    before, after = paths(env, data)
    inside = (np.arange(40) < data.lengths[:, None]) & np.all((before > 1) & (before < 7), axis=-1)
    followed = np.all(after[inside] == before[inside] + MOVES[data.actions[inside]], axis=-1)
    assert abs(followed.mean() - 0.76) < 4 * np.sqrt(0.76 * 0.24 / inside.sum())


@pytest.mark.parametrize("env", [Takeball(), TakeballPermuted()], ids=lambda env: env.name)
def test_standing_on_a_ball_takes_that_ball_alone(env):
    params = env.default_params.replace(noise=0.0)
    step = jax.jit(env.step_env)
    for permutation in range(len(env.permutations)):
        for ball in range(4):
            row, column = BALLS[env.permutations[permutation][ball]]
            beside = column - 1 if column > 1 else column + 1
            for bits in (0b1111, 0b1111 ^ 1 << (ball + 1) % 4):
                state = env.state_from_id(jnp.int32(row * 9 + beside + 81 * (bits + 16 * permutation)))
                obs, after, *_ = step(jax.random.key(0), state, jnp.int32(RIGHT if beside < column else LEFT), params)
                expected = [bool(bits >> i & 1) and i != ball for i in range(4)]
                assert after.balls.tolist() == expected
                assert after.permutation == permutation
                assert np.asarray(obs)[..., 3:].any((0, 1)).tolist() == expected


def test_a_ball_under_the_start_is_taken_at_once():
    env = ENVS["Takeball-v0"]
    params = env.default_params.replace(start_low=jnp.array([3, 5]), start_high=jnp.array([3, 5]))
    obs, state = env.reset(jax.random.key(0), params)
    assert state.balls.tolist() == [True, False, True, True]
    assert np.asarray(obs)[..., 3:].sum((0, 1)).tolist() == [1, 0, 1, 1]


def test_the_permutation_is_uniform_and_independent_of_the_start():
    env, each = ENVS["TakeballPermuted-v0"], 200
    num = 24 * 9 * each
    reset = jax.jit(jax.vmap(lambda key: env.reset_env(key, env.default_params)[1]))
    state = reset(jax.random.split(jax.random.key(0), num))
    start = (np.asarray(state.position) - 1) @ [3, 1]
    counts = np.bincount(9 * np.asarray(state.permutation) + start, minlength=216)
    statistic = ((counts - each) ** 2 / each).sum()
    assert abs(statistic - 215) < 4 * np.sqrt(2 * 215)  # chi-square with 215 degrees of freedom
    places = np.asarray(jax.vmap(lambda s: env.places(s, env.default_params))(jax.tree.map(lambda x: x[:500], state)))
    assert all(sorted(map(tuple, rows)) == sorted(BALLS) for rows in places.tolist())
    assert len({str(rows) for rows in places.tolist()}) == 24
