"""PPO: advantages worked by hand, a probe whose best policies are known, weights on disk."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from gymnax.environments import environment, spaces

import trajclust_envs as envs
from trajclust_envs import ppo


@pytest.mark.parametrize("cut", ["terminated", "truncated"])
def test_advantages_by_hand(cut):
    rewards, values, following = [1.0, 2.0, 4.0], [0.5, 1.0, 1.5], [1.0, 1.5, 8.0]
    ends = cut == "terminated"
    last = 4.0 + (0 if ends else 0.9 * 8.0) - 1.5  # a limit does not end the MDP: its successor counts
    middle = 2.0 + 0.9 * 1.5 - 1.0 + 0.9 * 0.8 * last
    first = 1.0 + 0.9 * 1.0 - 0.5 + 0.9 * 0.8 * middle
    pad = lambda x: jnp.array([*x, 0.0, 0.0])
    terminated = jnp.array([False, False, ends, False, False])
    ours = ppo.advantages(pad(rewards), pad(values), pad(following), terminated, 0.9, 0.8)
    np.testing.assert_allclose(ours, [first, middle, last, 0, 0], rtol=1e-6)


@struct.dataclass
class EnvState(environment.EnvState):
    side: jax.Array  # [] float32, -1 or 1
    right: jax.Array  # [] bool: the first action was on that side


class Side(environment.Environment):
    """One step that counts. Expert 0 is paid for going to the side that it sees, expert 1 for the other.

    Every later step pays much for the opposite: an episode is over then, so nothing of it may be learned.
    """

    expert_names = ("same", "other")

    @property
    def default_params(self):
        return environment.EnvParams(max_steps_in_episode=3)

    def reset_env(self, key, params):
        side = jnp.where(jax.random.bernoulli(key), 1.0, -1.0)
        return side, EnvState(jnp.int32(0), side, jnp.bool_(False))

    def step_env(self, key, state, action, params):
        state = state.replace(time=state.time + 1, right=(action == 1) == (state.side > 0))
        return state.side, state, jnp.float32(0), jnp.bool_(True), {}

    def is_terminated(self, state, params):
        return state.time > 0

    def action_space(self, params=None):
        return spaces.Discrete(2)

    def expert_context(self, state, params):
        return ()

    def expert_input(self, context, state):
        return state.side[None]

    def expert_reward(self, index, before, after, params):
        paid = jnp.where(after.right == (index == 0), 1.0, 0.0)
        return jnp.where(before.time == 0, paid, 100 * (1 - paid))


def test_both_experts_of_a_probe_are_learned_in_one_program():
    env = Side()
    config = ppo.PPO(updates=30, episodes=32, minibatches=2, reward_scale=1.0, learning_rate=1e-2, features=(8,))
    params, curves = ppo.train(env, env.default_params, config, jax.random.key(0))
    assert curves.shape == (2, 30)
    assert (curves[:, -5:] > 0.9).all()
    assert (curves[:, :2] < 0.9).all()
    actor = ppo.actor_for(env, (8,))
    logits = jax.vmap(lambda p: actor.apply(p, jnp.array([[-1.0], [1.0]])).logits)(params)
    np.testing.assert_array_equal(logits.argmax(-1), [[0, 1], [1, 0]])


def test_weights_are_kept_as_half_floats(tmp_path, monkeypatch):
    shipped = ppo.load_weights("pathfollowing")
    assert all(leaf.dtype == np.float32 and len(leaf) == 3 for leaf in jax.tree.leaves(shipped))
    ppo.save_weights(tmp_path / "again.npz", shipped)
    with np.load(tmp_path / "again.npz") as again:
        assert {array.dtype.name for array in map(again.get, again.files)} == {"float16"}
        assert sum(again[name].size for name in again.files) == sum(leaf.size for leaf in jax.tree.leaves(shipped))
    np.testing.assert_array_equal(shipped["params"]["log_std"].astype(np.float16), shipped["params"]["log_std"])


def test_shipped_weights_are_small():
    folder = Path(envs.__file__).parent / "weights"
    gridworlds = [folder / f"{name}.npz" for name in ("extra", "extrafixed", "pathfollowing")]
    assert sum(file.stat().st_size for file in gridworlds) < 2**20
    assert sum(file.stat().st_size for file in folder.glob("*.npz")) < 4 * 2**20, "and 3 MB of MuJoCo policies"
