"""Policy networks against NumPy float64, and ensembles against loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from trajclust_jax.networks import CategoricalHead, PolicyNetwork, ensemblize, gru_step, member_keys
from trajclust_jax.networks.policies import MIN_STD


def _sizes(params):
    return {jax.tree_util.keystr(path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(params)}


def test_architecture_is_table_2():
    params = PolicyNetwork(5, discrete=True, recurrent=True).init(jax.random.key(0), jnp.zeros((1, 20)))["params"]
    sizes = _sizes(params)
    assert sizes["['mlp']['Dense_0']['kernel']"] == (20, 128)
    assert sizes["['mlp']['Dense_1']['kernel']"] == (128, 128)
    assert sizes["['gru']['recurrent_kernel']"] == (64, 3 * 64)
    assert sizes["['output']['Dense_0']['kernel']"] == (64, 128)
    assert sizes["['head']['Dense_0']['kernel']"] == (128, 5)


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_history_policy_equals_numpy_float64():
    network = PolicyNetwork(3, discrete=True, recurrent=True)
    inputs = jax.random.normal(jax.random.key(1), (6, 4))
    params = network.init(jax.random.key(0), inputs)
    params = jax.tree.map(lambda x: x + 0.1, params)  # biases too
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params["params"])
    x = np.asarray(inputs, np.float64)
    for layer in ("Dense_0", "Dense_1"):
        x = np.maximum(x @ p["mlp"][layer]["kernel"] + p["mlp"][layer]["bias"], 0)
    gates = x @ p["input_gates"]["kernel"] + p["input_gates"]["bias"]
    hidden, log_probs = np.zeros(64), []
    for gate in gates:
        reset_in, update_in, candidate_in = np.split(gate, 3)
        reset_h, update_h, candidate_h = np.split(hidden @ p["gru"]["recurrent_kernel"], 3)
        reset, update = _sigmoid(reset_in + reset_h), _sigmoid(update_in + update_h)
        candidate = np.tanh(candidate_in + reset * (candidate_h + p["gru"]["recurrent_bias"]))
        hidden = (1 - update) * candidate + update * hidden
        out = np.maximum(hidden @ p["output"]["Dense_0"]["kernel"] + p["output"]["Dense_0"]["bias"], 0)
        logits = out @ p["head"]["Dense_0"]["kernel"] + p["head"]["Dense_0"]["bias"]
        log_probs.append(logits - np.log(np.exp(logits).sum()))
    np.testing.assert_allclose(network.apply(params, inputs).logits, log_probs, atol=1e-4)


def test_gru_step_is_batched_like_its_single_form():
    kernel, bias = jax.random.normal(jax.random.key(0), (4, 12)), jnp.ones(4)
    hidden, gates = jax.random.normal(jax.random.key(1), (5, 4)), jax.random.normal(jax.random.key(2), (5, 12))
    single = jnp.stack([gru_step(kernel, bias, h, g) for h, g in zip(hidden, gates, strict=True)])
    np.testing.assert_allclose(gru_step(kernel, bias, hidden, gates), single, atol=1e-6)


def test_a_history_policy_sees_the_past_and_not_the_future():
    network = PolicyNetwork(3, discrete=True, recurrent=True)
    inputs = jax.random.normal(jax.random.key(1), (6, 4))
    params = network.init(jax.random.key(0), inputs)
    changed = network.apply(params, inputs.at[3].add(1.0)).logits
    same = network.apply(params, inputs).logits
    np.testing.assert_array_equal(changed[:3], same[:3])
    assert not np.allclose(changed[4:], same[4:], atol=1e-4)


@pytest.mark.parametrize("recurrent", [False, True])
def test_gaussian_head_is_a_diagonal_gaussian_with_a_floored_std(recurrent):
    network = PolicyNetwork(2, discrete=False, recurrent=recurrent)
    inputs = jax.random.normal(jax.random.key(1), (6, 4))
    params = network.init(jax.random.key(0), inputs)
    distribution = network.apply(params, inputs)
    mean, std = distribution.distribution.loc, distribution.distribution.scale
    assert mean.shape == std.shape == (6, 2)
    assert (std >= MIN_STD).all()
    actions = jax.random.normal(jax.random.key(2), (6, 2))
    expected = stats.norm(np.asarray(mean, np.float64), np.asarray(std, np.float64)).logpdf(actions).sum(1)
    np.testing.assert_allclose(distribution.log_prob(actions), expected, rtol=1e-5)
    # However sure the network is, the likelihood of its mean stays finite.
    sure = jax.tree.map(lambda x: x * 0 - 50.0, params)
    assert np.isfinite(network.apply(sure, inputs).log_prob(network.apply(sure, inputs).mean())).all()


def test_ensemblize_equals_a_loop_and_shares_what_it_is_told_to():
    weights = jax.random.normal(jax.random.key(0), (2, 3, 4))
    shared = jax.random.normal(jax.random.key(1), (4,))
    out = ensemblize(lambda w, x: w @ x, 2, (0, None))(weights, shared)
    expected = [[weights[r, k] @ shared for k in range(3)] for r in range(2)]
    np.testing.assert_allclose(out, expected, rtol=1e-6)


def test_member_keys_depend_on_the_member_alone():
    key = jax.random.key(3)
    small, large = jax.random.key_data(member_keys(key, 2, 3)), jax.random.key_data(member_keys(key, 5, 7))
    np.testing.assert_array_equal(small, large[:2, :3])
    assert len(np.unique(large.reshape(35, -1), axis=0)) == 35


PARTS = ((0, -3), (0, 5), (2, 5))  # three combinations of two parts with two values each


def _joint(params, inputs):
    """Log-probabilities `[..., 3]` over `PARTS` in float64: the sum of the parts' logits, normalised."""
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    logits = np.asarray(inputs, np.float64) @ p["kernel"] + p["bias"]  # values 0, 2 of the first, -3, 5 of the second
    sums = np.stack([logits[..., 0] + logits[..., 2], logits[..., 0] + logits[..., 3], logits[..., 1] + logits[..., 3]])
    return np.moveaxis(sums - np.log(np.exp(sums).sum(0)), 0, -1)


def test_actions_of_parts_share_their_parts_logits():
    head, inputs = CategoricalHead(3, PARTS), jax.random.normal(jax.random.key(1), (6, 4))
    params = jax.tree.map(lambda x: x + 0.1, head.init(jax.random.key(0), inputs))
    assert params["params"]["Dense_0"]["kernel"].shape == (4, 4)
    expected = _joint(params["params"]["Dense_0"], inputs)
    np.testing.assert_allclose(head.apply(params, inputs).logits, expected, atol=1e-5)
    plain = CategoricalHead(3).init(jax.random.key(0), inputs)
    assert plain["params"]["Dense_0"]["kernel"].shape == (4, 3)


def test_where_all_combinations_occur_the_parts_are_independent():
    parts = tuple((first, second) for first in range(2) for second in range(3))
    head, inputs = CategoricalHead(6, parts), jax.random.normal(jax.random.key(1), (5, 4))
    params = head.init(jax.random.key(0), inputs)
    dense = params["params"]["Dense_0"]
    logits = inputs @ dense["kernel"] + dense["bias"]
    first, second = jax.nn.log_softmax(logits[:, :2]), jax.nn.log_softmax(logits[:, 2:])
    expected = (first[:, :, None] + second[:, None]).reshape(5, 6)
    np.testing.assert_allclose(head.apply(params, inputs).logits, expected, atol=1e-5)
    single, plain = CategoricalHead(3, ((10,), (20,), (15,))), CategoricalHead(3)
    params = plain.init(jax.random.key(0), inputs)
    np.testing.assert_array_equal(single.apply(params, inputs).logits, plain.apply(params, inputs).logits)


@pytest.mark.parametrize("recurrent", [False, True])
def test_policies_of_parts_have_their_head(recurrent):
    params = PolicyNetwork(3, True, recurrent, action_parts=PARTS).init(jax.random.key(0), jnp.zeros((1, 2)))
    assert _sizes(params["params"])["['head']['Dense_0']['kernel']"] == (128, 4)
