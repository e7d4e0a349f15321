"""Extra's maps, its dynamics, and its experts against independent planning."""

import functools
import importlib
from collections import deque
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trajclust_envs import Extra, ExtraFixed, draw_observations, expert_rollout, extra
from trajclust_envs.gridworld import DOWN, GRID_SIZE, RIGHT, STAY, UP, border_walls, distances
from trajclust_envs.value_iteration import Rewards, value_iteration

START, GOAL = (1, 1), (7, 7)
STEPS = ((-1, 0), (1, 0), (0, -1), (0, 1), (0, 0))
BORDER = np.asarray(border_walls())
ENV, FIXED = Extra("softmax"), ExtraFixed("ppo")
ENVS = {(env.name, env.kind): env for env in (ENV, FIXED, Extra("ppo"), ExtraFixed("greedy"))}
KEY, NUM = jax.random.key(0), 300


@functools.cache
def episodes(name, kind):
    """NUM episodes of each expert."""
    return [expert_rollout(ENVS[name, kind], index, key, NUM) for index, key in enumerate(jax.random.split(KEY, 3))]


def ways(free, source):
    """Breadth-first search: moves to `source`, infinite where there is no way."""
    length = np.full((9, 9), np.inf)
    length[tuple(source)] = 0
    queue = deque([tuple(source)])
    while queue:
        row, column = queue.popleft()
        for d_row, d_column in STEPS[:4]:
            cell = (row + d_row, column + d_column)
            if free[cell] and np.isinf(length[cell]):
                length[cell] = length[row, column] + 1
                queue.append(cell)
    return length


@pytest.fixture(scope="module")
def maps():
    """2,000 random maps."""
    params = ENV.default_params
    draw = lambda key: extra.random_layout(key, params.walls, jnp.array(START), params.goal, 0.2, 28)
    walls, specials = jax.jit(jax.vmap(draw))(jax.random.split(KEY, 2000))
    return SimpleNamespace(free=~np.asarray(walls), specials=np.asarray(specials))


def test_every_map_is_whole(maps):
    assert not (maps.free & BORDER).any()
    assert (maps.free.sum((1, 2)) >= 28).all()
    for free in maps.free[:300]:
        np.testing.assert_array_equal(np.isfinite(ways(free, GOAL)), free)  # nothing is cut off
        assert free[START]
    assert len(np.unique(maps.free.reshape(len(maps.free), -1), axis=0)) > 1990
    for cell in (START, GOAL):
        assert not (maps.specials == cell).all(-1).any()
    assert (maps.specials[:, 0] != maps.specials[:, 1]).any(-1).all()
    index = np.arange(len(maps.free))[:, None]
    assert maps.free[index, maps.specials[..., 0], maps.specials[..., 1]].all()


def test_walls_have_their_share_and_special_cells_are_uniform(maps):
    centre = maps.free[:, 3:6, 3:6]  # free with probability 0.8, a little less for what is cut off
    assert 0.77 < centre.mean() < 0.8 + 4 * np.sqrt(0.16 / centre.size)
    # Each special cell's place among the candidates of its map, in reading order, is uniform on (0, 1).
    candidates = maps.free.copy()
    candidates[:, [START[0], GOAL[0]], [START[1], GOAL[1]]] = False
    rank = candidates.reshape(len(candidates), -1).cumsum(1)
    for special in range(2):
        code = maps.specials[:, special] @ [9, 1]
        place = (rank[np.arange(len(rank)), code] - 0.5) / rank[:, -1]
        assert abs(place.mean() - 0.5) < 4 / np.sqrt(12 * len(place))
        counts = np.histogram(place, 5, (0, 1))[0]
        assert ((counts - 400) ** 2 / 400).sum() < 4 + 4 * np.sqrt(8)
    order = (
        rank[np.arange(len(rank)), maps.specials[:, 0] @ [9, 1]]
        < rank[np.arange(len(rank)), maps.specials[:, 1] @ [9, 1]]
    )
    assert abs(order.mean() - 0.5) < 4 * np.sqrt(0.25 / len(order))


@pytest.mark.parametrize(("share", "min_free", "least"), [(0.2, 40, 40), (1.0, 28, 49), (0.0, 49, 49), (0.5, 49, 49)])
def test_rejection_is_bounded_and_falls_back_to_the_open_map(share, min_free, least):
    params = ENV.default_params.replace(wall_share=share, min_free=min_free)
    _, state = ENV.reset(KEY, params)
    free = ~np.asarray(state.layout.walls)
    assert free.sum() >= least
    assert not (free & BORDER).any()


def test_the_fixed_map_is_the_random_map_of_key_17():
    params = FIXED.default_params
    layout = extra.random_layout(jax.random.key(17), border_walls(), jnp.array(START), params.goal, 0.2, 28)
    np.testing.assert_array_equal(params.walls, layout.walls)
    np.testing.assert_array_equal(params.specials, layout.specials)
    assert [extra.FIXED_MAP.split()[row][column] for row, column in layout.specials.tolist()] == ["1", "2"]


def test_each_episode_has_its_own_map():
    step = jax.jit(ENV.step)
    params = ENV.default_params.replace(max_steps_in_episode=2)
    _, state = ENV.reset(KEY, params)
    _, same, *_ = step(KEY, state, STAY, params)
    _, fresh, _, _, truncated, _ = step(KEY, same, STAY, params)
    assert truncated
    np.testing.assert_array_equal(same.layout.walls, state.layout.walls)
    assert not np.array_equal(fresh.layout.walls, state.layout.walls)
    assert not fresh.visited.any()


def test_a_visit_sets_its_flag_for_good_and_clears_its_plane():
    params = FIXED.default_params.replace(noise=0.0, walls=border_walls(), specials=jnp.array([[3, 3], [3, 4]]))
    step = jax.jit(FIXED.step_env)
    state = FIXED.state_from_id(jnp.int32(3 * 9 + 2))
    seen = []
    for action in (RIGHT, RIGHT, RIGHT, DOWN):
        obs, state, *_ = step(KEY, state, jnp.int32(action), params)
        seen.append(state.visited.tolist())
        assert np.asarray(obs)[..., 3:].any((0, 1)).tolist() == [not flag for flag in seen[-1]]
    assert seen == [[True, False], [True, True], [True, True], [True, True]]


@pytest.mark.parametrize("env", [ENV, FIXED], ids=lambda env: env.name)
def test_state_codes_are_inverted(env):
    _, first = env.reset(KEY)
    scene = env.scene(first)
    ids = jnp.arange(324)
    states = jax.vmap(lambda i: env.state_from_id(i, scene))(ids)
    np.testing.assert_array_equal(jax.vmap(env.state_id)(states), ids)
    assert jax.tree.map(lambda x: (x.dtype, x.shape), env.state_from_id(jnp.int32(0), scene)) == jax.tree.map(
        lambda x: (x.dtype, x.shape), first
    )


def test_recorded_codes_and_scenes_are_the_observations(monkeypatch):
    data = episodes("Extra-v0", "softmax")[0]
    assert data.table is None
    assert data.observations.shape == (NUM, 40)
    monkeypatch.setattr(
        importlib.import_module("trajclust_envs.rollout"), "BLOCK", 4
    )  # one whole block and one in part
    scenes = jax.tree.map(lambda x: x[:6], data.scenes)
    drawn, final = (draw_observations(ENV, x[:6], scenes) for x in (data.observations, data.final_observations))
    assert (drawn.dtype, drawn.shape, final.shape) == (np.uint8, (6, 40, 9, 9, 5), (6, 9, 9, 5))
    reset, step = jax.jit(ENV.reset_env), jax.jit(ENV.step_env)
    plan_of = jax.jit(ENV.expert_plan)
    for n, key in enumerate(jax.random.split(jax.random.split(KEY, 3)[0], NUM)[:6]):
        key_reset, key_steps = jax.random.split(key)
        obs, state = reset(key_reset, ENV.default_params)
        plan = plan_of(state, ENV.default_params)
        scores = np.zeros(3)
        for t, key_step in enumerate(jax.random.split(key_steps, 40)[: data.lengths[n]]):
            np.testing.assert_array_equal(drawn[n, t], obs)
            action = jnp.int32(data.actions[n, t])
            scores += np.asarray(plan)[:, int(ENV.state_id(state)), int(action)]
            obs, state, *_ = step(jax.random.split(key_step)[1], state, action, ENV.default_params)
        np.testing.assert_array_equal(final[n], obs)
        np.testing.assert_allclose(data.log_likelihoods[n], scores, rtol=1e-4, atol=1e-3)


def test_distances_are_those_of_a_search(maps):
    measure = jax.jit(jax.vmap(distances))
    found = np.asarray(measure(jnp.asarray(maps.free[:50]), jnp.asarray(maps.specials[:50, 0])))
    for free, special, length in zip(maps.free, maps.specials[:, 0], found, strict=False):
        np.testing.assert_array_equal(length, ways(free, special))


def test_flood_reaches_what_a_search_reaches():
    """On dense mazes, where the ways are long and many cells are cut off."""
    free = np.random.default_rng(0).random((100, 9, 9)) < 0.6
    free &= ~BORDER
    free[:, 4, 4] = True
    reached = jax.jit(jax.vmap(lambda x: extra.flood(x, jnp.array([4, 4]))))(jnp.asarray(free))
    np.testing.assert_array_equal(reached, [np.isfinite(ways(x, (4, 4))) for x in free])


# --- experts ---------------------------------------------------------------------------------------


def reference_values(free, specials, noise, special, discount=0.99):
    """Value iteration by dictionaries and loops, to convergence; `[2, 2, 9, 9, 5]`, zero in walls."""
    cells = [tuple(cell) for cell in np.argwhere(free)]
    flags = [(a, b) for a in range(2) for b in range(2)]
    values = {(f, cell): 0.0 for f in flags for cell in cells}

    def arrive(flag, cell, step):
        there = (cell[0] + step[0], cell[1] + step[1])
        there = there if free[there] else cell
        after = tuple(int(flag[i] or there == tuple(specials[i])) for i in range(2))
        left = 14 - sum(there)
        reward = special * (sum(after) - sum(flag)) - 0.3 - 0.3 * left + 10 * (left == 0)
        return reward, (after, there), left == 0

    moves = {(*state, a): arrive(*state, step) for state in values for a, step in enumerate(STEPS)}
    for _ in range(400):
        worth = {k: r + (0 if end else discount * values[s]) for k, (r, s, end) in moves.items()}
        chance = {state: noise / 5 * sum(worth[*state, a] for a in range(5)) for state in values}
        best = {state: (1 - noise) * max(worth[*state, a] for a in range(5)) + chance[state] for state in values}
        change = max(abs(best[state] - values[state]) for state in values)
        values = best
        if change < 1e-9:
            break
    out = np.zeros((2, 2, 9, 9, 5))
    for flag, cell in values:
        for a in range(5):
            out[*flag, *cell, a] = (1 - noise) * worth[flag, cell, a] + chance[flag, cell]
    return out


@pytest.mark.parametrize("special", [10.0, -10.0])
def test_value_iteration_equals_a_slow_one(maps, special):
    free, specials = maps.free[0], maps.specials[0]
    solve = jax.jit(lambda *args: value_iteration(*args, jnp.float32(0.3), Rewards(jnp.float32(special))))
    ours = np.asarray(solve(jnp.asarray(~free), jnp.array(GOAL), jnp.asarray(specials)))
    theirs = reference_values(free, specials, 0.3, special)
    reachable = free.copy()
    reachable[GOAL] = False  # no action is taken there
    np.testing.assert_allclose(ours[:, :, reachable], theirs[:, :, reachable], atol=2e-3)


def test_value_iteration_by_hand():
    """Without noise, two cells from the goal with no special cell near: one step of -0.3 - 0.3, then 10 - 0.3."""
    args = (border_walls(), jnp.array(GOAL), jnp.array([[1, 7], [7, 1]]), 0.0)
    values = np.asarray(value_iteration(*args, Rewards(0.0)))
    np.testing.assert_allclose(values[:, :, 7, 6, RIGHT], 9.7, rtol=1e-6)
    np.testing.assert_allclose(values[:, :, 7, 5, RIGHT], -0.6 + 0.99 * 9.7, rtol=1e-6)
    np.testing.assert_allclose(values[:, :, 7, 6, STAY], -0.6 + 0.99 * 9.7, rtol=1e-6)
    paid = np.asarray(value_iteration(*args, Rewards(100.0)))
    way = sum(0.99**t * (-0.3 - 0.3 * (5 - t)) for t in range(5)) + 0.99**5 * 9.7  # six steps down from the cell
    np.testing.assert_allclose(paid[0, 1, 2, 7, UP], 100 - 0.3 - 0.3 * 6 + 0.99 * way, rtol=1e-5)


def test_planning_inputs_tell_the_ways(maps):
    free, specials = maps.free[1], maps.specials[1]
    inputs = jax.jit(extra.planning_inputs)(jnp.asarray(~free), jnp.array(GOAL), jnp.asarray(specials))
    assert inputs.shape == (324, 34)
    assert np.isfinite(inputs).all()
    inputs = np.asarray(inputs).reshape(2, 2, 9, 9, 34)
    to_goal, to_first, to_second = (ways(free, cell) for cell in (GOAL, *specials))
    around = free.copy()
    around[tuple(specials.T)] = False
    around = np.minimum(ways(around, GOAL), extra.FAR)
    own = inputs[..., 24:29] * 10
    np.testing.assert_allclose(own[..., 0][:, :, free], np.broadcast_to(to_goal[free], (2, 2, free.sum())), rtol=1e-5)
    np.testing.assert_allclose(own[0, 0, free, 1], to_first[free], rtol=1e-5)
    np.testing.assert_allclose(own[1, 0, free, 2], to_second[free], rtol=1e-5)
    assert not own[1, :, :, :, 1].any()  # the first is visited: no way leads to it
    np.testing.assert_allclose(own[0, 0, free, 3], around[free], rtol=1e-5)
    np.testing.assert_allclose(own[1, 1, free, 3], to_goal[free], rtol=1e-5)  # nothing left to go around
    down = inputs[0, 0, :, :, 6:12]  # the second action's: four changes, blocked, special
    for row, column in np.argwhere(free):
        below = (row + 1, column)
        assert down[row, column, 4] == (not free[below])
        assert down[row, column, 5] == (below in map(tuple, specials.tolist()))
        assert down[row, column, 0] == (to_goal[below] - to_goal[row, column] if free[below] else 0)


def visit_share(data):
    """`[2]`: how often each special cell is visited."""
    if data.table is None:
        bits = data.final_observations // GRID_SIZE**2
        return np.array([(bits // 2).mean(), (bits % 2).mean()])
    return 1 - data.table[data.final_observations][..., 3:].any((1, 2)).mean(0)


@pytest.mark.parametrize(("name", "kind"), ENVS)
def test_experts_do_what_their_rewards_ask(name, kind):
    made = episodes(name, kind)
    assert all(data.terminated.mean() > 0.98 for data in made)
    visited = np.array([visit_share(data) for data in made])
    visits, ignores, avoids = visited.mean(1)
    assert visits > ignores + 0.2
    assert avoids < ignores - 0.05
    assert avoids < 0.15
    if name == "ExtraFixed-v0":  # both are within reach; on random maps a detour may cost more than it pays
        assert (visited[0] > 0.8).all()


def test_unknown_experts_are_refused():
    with pytest.raises(ValueError, match="choose one of ppo, softmax, greedy"):
        Extra("best")


# --- automatic resets ---------------------------------------------------------------------------


def last_steps(params, keys):
    """States after an automatic reset, one for each key."""
    _, state = ENV.reset_env(KEY, params)
    last = state.replace(time=jnp.int32(params.max_steps_in_episode - 1))
    step = lambda key, params: ENV.step(key, last, jnp.int32(STAY), params)
    _, after, _, _, truncated, _ = jax.jit(jax.vmap(step, (0, None)))(keys, params)
    assert truncated.all()
    return after


def test_automatic_resets_take_maps_of_a_pool_that_is_like_those_drawn():
    params, keys = ENV.default_params, jax.random.split(jax.random.key(3), 2000)
    after = last_steps(params, keys)
    assert (np.asarray(after.position) == START).all()
    assert not after.visited.any()
    assert (np.asarray(after.time) == 0).all()
    code = lambda layout: {(w.tobytes(), s.tobytes()) for w, s in zip(*map(np.asarray, layout), strict=True)}
    assert code(after.layout) <= code(params.pool.layouts)
    assert len(code(after.layout)) > 1500  # of 4,096, by chance 1,590
    drawn = last_steps(params.replace(pool=None), keys).layout
    for pooled in (after.layout, params.pool.layouts):  # shares of walls and of special cells, within 5 standard errors
        for of in (lambda layout: np.asarray(layout.walls, float), special_shares):
            one, other = of(pooled), of(drawn)
            error = np.sqrt(one.var(0) / len(one) + other.var(0) / len(other))
            assert (np.abs(one.mean(0) - other.mean(0)) <= 5 * error + 1e-12).all()
        free = [np.bincount((~np.asarray(layout.walls)).sum((1, 2)), minlength=50) for layout in (pooled, drawn)]
        assert np.abs(np.cumsum(free[0]) / free[0].sum() - np.cumsum(free[1]) / free[1].sum()).max() < 0.05


def special_shares(layout):
    """`[n, 81]`: whether a cell is special."""
    cells = np.asarray(layout.specials) @ np.array([GRID_SIZE, 1])
    return (cells[:, :, None] == np.arange(GRID_SIZE**2)).any(1).astype(float)


@pytest.mark.parametrize("change", [{"wall_share": 0.0}, {"min_free": 40}, {"goal": jnp.array([1, 7])}])
def test_a_pool_that_was_drawn_for_other_parameters_is_not_used(change):
    params = ENV.default_params.replace(**change)
    keys = jax.random.split(KEY, 20)
    after, drawn = last_steps(params, keys), last_steps(params.replace(pool=None), keys)
    jax.tree.map(np.testing.assert_array_equal, after, drawn)


def test_a_pool_for_other_parameters_can_be_drawn():
    params = ENV.default_params.replace(wall_share=0.0)
    params = params.replace(pool=extra.draw_pool(KEY, params, 3))
    assert (np.asarray(last_steps(params, jax.random.split(KEY, 20)).layout.walls) == BORDER).all()
    block = params.replace(start_high=jnp.array([2, 2]))
    with pytest.raises(ValueError, match="one start cell"):
        extra.draw_pool(KEY, block, 3)
    assert len({tuple(cell) for cell in np.asarray(last_steps(block, jax.random.split(KEY, 40)).position)}) == 4
