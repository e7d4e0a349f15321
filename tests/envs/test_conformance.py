"""What every registered environment promises, to gymnax and to gymnasium."""

import chex
import gymnasium
import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from trajclust_envs import ENVIRONMENTS, Diagonal, Gates, GridWorld, Navigation
from trajclust_envs.gridworld import DOWN, LEFT, RIGHT, STAY, border_walls
from trajclust_envs.gym_wrapper import make_gym

KEY = jax.random.key(0)
GRIDS = [name for name, environment in ENVIRONMENTS.items() if issubclass(environment, GridWorld)]


@pytest.fixture(scope="module")
def made():
    """Environments by name, each made once: a new one compiles anew."""
    return {name: gymnax.make(name)[0] for name in ENVIRONMENTS}


@pytest.fixture(scope="module", params=ENVIRONMENTS)
def env(request, made):
    return made[request.param]


@pytest.fixture(scope="module", params=GRIDS)
def grid(request, made):
    return made[request.param]


@pytest.fixture(scope="module")
def diagonal():
    return Diagonal()


def walk(env, key, params, steps=60):
    """Random actions: everything `env.step` returned, stacked over time."""

    def step(state, key):
        key_action, key_step = jax.random.split(key)
        action = env.action_space(params).sample(key_action)
        out = env.step(key_step, state, action, params)
        return out[1], (action, *out)

    _, state = env.reset(key, params)
    return jax.lax.scan(step, state, jax.random.split(key, steps))[1]


_walk = jax.jit(walk, static_argnums=0)
_walks = jax.jit(jax.vmap(walk, (None, 0, 0)), static_argnums=0)
_observe = jax.jit(lambda env, state, params: env.observe(None, state, None, params), static_argnums=0)


def turned(maps):
    """In the opposite order."""
    return jax.tree.map(lambda x: x[::-1], maps)


def variations(params):
    """The parameters with one leaf changed, by name."""
    changed = {
        "max_steps_in_episode": 7,
        "noise": 0.0,
        "start_low": jnp.array([3, 3], jnp.int32),
        "start_high": jnp.array([1, 1], jnp.int32),
        "ball_places": jnp.array([[1, 1], [2, 2], [3, 3], [4, 4]], jnp.int32),
        "specials": jnp.array([[2, 1], [2, 2]], jnp.int32),
        "wall_share": 0.1,
        "min_free": 42,
        "speed": 0.2,
        "width": 0.5,
    }
    if hasattr(params, "walls"):
        changed |= {
            "walls": params.walls.at[2, 2].set(True).at[4, 4].set(True),
            "goal": jnp.array([2, 4], jnp.int32),
        }
        if (params.start_low == params.start_high).all():  # a block of one cell: it becomes four
            changed |= {"start_low": params.start_low, "start_high": jnp.array([2, 2], jnp.int32)}
    elif hasattr(params, "width"):
        changed["start_high"] = 0.5
    else:
        changed |= {"start_low": -2.0, "start_high": 0.0}
    if hasattr(params, "pool"):
        changed["pool"] = params.pool.replace(layouts=turned(params.pool.layouts))
    assert set(vars(params)) <= set(changed)
    variants = {name: params.replace(**{name: changed[name]}) for name in vars(params)}
    leaves = lambda name, params: jax.tree.leaves(vars(params)[name])
    same = [
        name
        for name, variant in variants.items()
        if all(map(np.array_equal, leaves(name, variant), leaves(name, params)))
    ]
    assert same in ([], ["start_low"])
    return {name: variant for name, variant in variants.items() if name not in same}


def without_walls(env):
    """Parameters without random walls and noise."""
    params = env.default_params.replace(noise=0.0)
    return params.replace(wall_share=0.0) if hasattr(params, "wall_share") else params.replace(walls=border_walls())


def stack(rows):
    return jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(leaf) for leaf in leaves]), *rows)


def test_make_gives_the_registered_environment(env):
    made, params = gymnax.make(env.name)
    assert type(made) is ENVIRONMENTS[env.name]
    assert jax.tree.structure(params) == jax.tree.structure(env.default_params)


def test_grids_have_five_actions(grid):
    assert grid.num_actions == grid.action_space(grid.default_params).n == 5


def test_spaces_hold_what_comes_out(env):
    params, num = env.default_params, 1 + len(variations(env.default_params))
    keys = jax.random.split(KEY, num)
    action, obs, state, reward, terminated, truncated, info = _walks(env, keys, stack([params] * num))
    space = env.observation_space(params)
    assert obs.shape[2:] == info["final_observation"].shape[2:] == space.shape
    assert obs.dtype == info["final_observation"].dtype == space.dtype
    assert space.contains(obs)
    assert space.contains(info["final_observation"])
    assert env.action_space(params).contains(action).all()
    assert env.state_space(params).contains(state).all()
    assert set(env.state_space(params).spaces) == set(vars(state))
    assert reward.dtype == jnp.float32
    assert reward.any() == (type(env) in (Gates, Navigation))  # the others give none, or not so soon
    for flag in (terminated, truncated, info["terminated"], info["truncated"]):
        assert flag.dtype == bool
    np.testing.assert_array_equal(info["terminated"], terminated)
    np.testing.assert_array_equal(info["truncated"], truncated)
    np.testing.assert_array_equal(info["discount"], 1.0 - terminated)
    assert truncated.any() == (params.max_steps_in_episode <= 60)
    assert (state.time < params.max_steps_in_episode).all()


def test_one_agent_one_goal_and_never_an_agent_in_a_wall(grid):
    num = 1 + len(variations(grid.default_params))
    obs = _walks(grid, jax.random.split(KEY, num), stack([grid.default_params] * num))[1]
    assert obs.dtype == jnp.uint8
    wall, agent, goal = (np.asarray(obs[..., plane]) for plane in range(3))
    assert (agent.sum((-2, -1)) == 1).all()
    assert (goal.sum((-2, -1)) == 1).all()
    assert not (wall & agent).any()


def test_reset_and_step_have_one_signature(env):
    params = env.default_params
    action = jax.eval_shape(env.action_space(params).sample, KEY)
    reset = jax.eval_shape(env.reset_env, KEY, params)
    assert jax.eval_shape(env.step_env, KEY, reset[1], action, params)[:2] == reset
    out = jax.eval_shape(env.step, KEY, reset[1], action, params)
    assert len(out) == 6
    assert reset == out[:2]


def test_same_key_same_result(env):
    first, again, other = (_walk(env, jax.random.key(seed), env.default_params) for seed in (0, 0, 1))
    chex.assert_trees_all_equal(first, again)
    assert not np.array_equal(first[1], other[1])


def near_end(env, params, position, time):
    _, state = env.reset(KEY, params)
    return env.visit(state.replace(position=jnp.array(position, jnp.int32), time=jnp.int32(time)), params)


@pytest.mark.parametrize(
    ("position", "time", "action", "terminated", "truncated"),
    [
        ([5, 6], 10, RIGHT, False, False),
        ([7, 6], 10, RIGHT, True, False),
        ([6, 7], 10, DOWN, True, False),
        ([5, 6], 39, RIGHT, False, True),  # cut by the limit: not terminated
        ([7, 6], 39, RIGHT, True, True),  # both at once
        ([7, 6], 38, STAY, False, False),
    ],
)
def test_terminated_is_not_truncated(grid, position, time, action, terminated, truncated):
    env, params = grid, without_walls(grid)
    state = near_end(env, params, position, time)
    obs, after, _, ends, cut, info = env.step(KEY, state, action, params)
    assert (bool(ends), bool(cut)) == (terminated, truncated)
    # the successor, before any reset
    position = state.position + jnp.array({RIGHT: (0, 1), DOWN: (1, 0), STAY: (0, 0)}[action])
    expected = env.visit(state.replace(position=position, time=state.time + 1), params)
    np.testing.assert_array_equal(info["final_observation"], _observe(env, expected, params))
    assert info["discount"] == 1.0 - terminated
    if terminated or truncated:  # a new episode has begun
        assert after.time == 0
        assert ((after.position >= params.start_low) & (after.position <= params.start_high)).all()
        assert not np.array_equal(obs, info["final_observation"])
        np.testing.assert_array_equal(obs, _observe(env, after, params))
    else:
        chex.assert_trees_all_equal(after, expected)
        np.testing.assert_array_equal(obs, info["final_observation"])


def test_start_block_is_uniform(grid):
    params = grid.default_params
    _, state = jax.jit(jax.vmap(grid.reset_env, (0, None)))(jax.random.split(KEY, 9000), params)
    counts = np.zeros((9, 9))
    np.add.at(counts, tuple(np.asarray(state.position).T), 1)
    (top, left), (bottom, right) = np.asarray(params.start_low), np.asarray(params.start_high)
    block = counts[top : bottom + 1, left : right + 1]
    share = 1 / block.size
    assert (np.abs(block - 9000 * share) <= 4 * np.sqrt(9000 * share * (1 - share))).all()
    assert block.sum() == 9000
    assert not state.time.any()


def test_no_parameter_recompiles_and_every_parameter_acts(env):
    base = _walk(env, KEY, env.default_params)
    programs = _walk._cache_size()
    for name, params in variations(env.default_params).items():
        assert not np.array_equal(_walk(env, KEY, params)[1], base[1]), name
    assert _walk._cache_size() == programs


def test_parameters_can_be_stacked(env):
    rows = [env.default_params, *variations(env.default_params).values()]
    batch = _walks(env, jnp.stack([KEY] * len(rows)), stack(rows))
    for index, params in enumerate(rows):
        chex.assert_trees_all_equal(jax.tree.map(lambda x, i=index: x[i], batch), _walk(env, KEY, params))


def test_walls_block_and_limit_cuts(diagonal):
    params = diagonal.default_params.replace(noise=0.0)
    params = params.replace(walls=params.walls.at[4, 4].set(True))
    for position, action in (([4, 5], LEFT), ([4, 3], RIGHT), ([3, 4], DOWN), ([1, 1], LEFT)):
        _, state, *_ = diagonal.step(KEY, near_end(diagonal, params, position, 0), action, params)
        np.testing.assert_array_equal(state.position, position)
        assert state.time == 1


def test_gymnasium_checker_is_silent(env):
    check_env(make_gym(env, render_mode="rgb_array"))


def test_gymnasium_episode(diagonal):
    wrapped = make_gym(diagonal, diagonal.default_params.replace(noise=0.0), render_mode="rgb_array")
    first, _ = wrapped.reset(seed=3)
    again, _ = wrapped.reset(seed=3)
    np.testing.assert_array_equal(first, again)
    assert type(first) is np.ndarray
    frames = [wrapped.render()]
    terminated = truncated = False
    steps = 0
    while not (terminated or truncated):
        agent = np.argwhere(first[..., 1])[0]
        obs, reward, terminated, truncated, info = wrapped.step(np.int64(RIGHT if agent[1] < 7 else DOWN))
        assert (type(obs), type(reward), type(terminated), type(truncated)) == (np.ndarray, float, bool, bool)
        assert all(type(value) is np.ndarray for value in info.values())
        frames.append(wrapped.render())
        first, steps = obs, steps + 1
    assert (terminated, truncated) == (True, False)
    np.testing.assert_array_equal(np.argwhere(obs[..., 1])[0], [7, 7])  # the real end, not the next start
    assert np.abs(frames[-1].astype(int) - frames[-2]).sum() > 0  # and it is what render shows
    assert wrapped._env is diagonal
    with pytest.raises(gymnasium.error.ResetNeeded):
        wrapped.step(0)


def test_gymnasium_truncation_parameters_and_seeding(diagonal):
    wrapped = make_gym(diagonal)
    with pytest.raises(gymnasium.error.ResetNeeded):
        wrapped.step(STAY)
    params = diagonal.default_params.replace(max_steps_in_episode=2)
    wrapped.reset(options={"env_params": params})
    assert wrapped.step(STAY)[2:4] == (False, False)
    assert wrapped.step(STAY)[2:4] == (False, True)
    wrapped.action_space.seed(0)
    actions = [int(wrapped.action_space.sample()) for _ in range(20)]
    wrapped.action_space.seed(0)
    assert [int(wrapped.action_space.sample()) for _ in range(20)] == actions
    assert len(set(actions)) > 1
    starts = {wrapped.reset()[0].tobytes() for _ in range(20)}
    assert len(starts) > 1
    assert wrapped.render() is None


def test_gymnasium_wraps_gymnax_environments_and_leaves_gymnasium_alone():
    before = dict(gymnasium.Env.metadata)
    wrapped = make_gym("CartPole-v1")
    obs, _ = wrapped.reset(seed=0)
    assert obs in wrapped.observation_space
    obs, reward, *_ = wrapped.step(1)
    assert obs in wrapped.observation_space
    assert reward == 1.0
    assert gymnasium.Env.metadata == before
    with pytest.raises(ValueError, match="render_mode"):
        make_gym("Diagonal-v0", render_mode="human")
