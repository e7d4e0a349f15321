"""The trajectory encoder and decoder against NumPy float64, and its shortcuts against the long way."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trajclust_jax.data import Codebook
from trajclust_jax.networks import TrajectoryAutoencoder

N, T, U, D, A = 5, 7, 4, 6, 3


@pytest.fixture(scope="module")
def given():
    """Codebook observations, actions, lengths, and a network with non-zero biases."""
    rng = np.random.default_rng(0)
    observations = Codebook(rng.normal(size=(U, D)).astype(np.float32), rng.integers(0, U, (N, T)))
    actions, lengths = rng.integers(0, A, (N, T)), np.array([7, 1, 4, 6, 2])
    network = TrajectoryAutoencoder(discrete=True, action_size=A)
    params = network.init(jax.random.key(0), observations, actions, lengths)
    params = jax.tree.map(lambda x: x + 0.05, params)
    return network, params, observations, actions, lengths


def test_architecture_is_table_2(given):
    sizes = {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape
        for path, leaf in jax.tree_util.tree_leaves_with_path(given[1]["params"])
        if "bias" not in jax.tree_util.keystr(path)
    }
    assert sizes == {
        "encoder/observation/kernel": (D, 128),  # with the next: FC 128 on (o, a)
        "encoder/action/kernel": (A, 128),
        "encoder/step/Dense_0/kernel": (128, 128),
        "encoder/input_gates/kernel": (128, 3 * 64),
        "encoder/gru/recurrent_kernel": (64, 3 * 64),
        "encoder/prefix/Dense_0/kernel": (64, 128),
        "encoder/attention/query": (2, 8),
        "encoder/attention/keys_values/kernel": (128, 2 * 2 * 8),
        "encoder/output/kernel": (2 * 8, 8),
        "decoder/observation/kernel": (D, 128),  # with the next: FC 128 on (z, o)
        "decoder/latent/kernel": (8, 128),
        "decoder/mlp/Dense_0/kernel": (128, 32),
        "decoder/mlp/Dense_1/kernel": (32, 32),
        "decoder/head/Dense_0/kernel": (32, A),
    }


def _relu(x):
    return np.maximum(x, 0)


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def _softmax(x):
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


def _latent(p, x, actions):
    """One trajectory's latent: observations `[t, D]` and actions `[t]` of its real steps, float64."""
    first = x @ p["observation"]["kernel"] + p["observation"]["bias"] + p["action"]["kernel"][actions]
    step = _relu(_relu(first) @ p["step"]["Dense_0"]["kernel"] + p["step"]["Dense_0"]["bias"])
    hidden, prefixes = np.zeros(64), []
    for gate in step @ p["input_gates"]["kernel"] + p["input_gates"]["bias"]:
        reset_in, update_in, candidate_in = np.split(gate, 3)
        reset_h, update_h, candidate_h = np.split(hidden @ p["gru"]["recurrent_kernel"], 3)
        reset, update = _sigmoid(reset_in + reset_h), _sigmoid(update_in + update_h)
        candidate = np.tanh(candidate_in + reset * (candidate_h + p["gru"]["recurrent_bias"]))
        hidden = (1 - update) * candidate + update * hidden
        prefixes.append(_relu(hidden @ p["prefix"]["Dense_0"]["kernel"] + p["prefix"]["Dense_0"]["bias"]))
    both = np.stack(prefixes) @ p["attention"]["keys_values"]["kernel"]  # keys of head 1, of head 2, values
    pooled = []
    for head in range(2):
        keys, values = both[:, 8 * head : 8 * head + 8], both[:, 16 + 8 * head : 24 + 8 * head]
        pooled.append(_softmax(keys @ p["attention"]["query"][head]) @ values)
    return np.concatenate(pooled) @ p["output"]["kernel"] + p["output"]["bias"]


def test_equals_numpy_float64(given):
    network, params, observations, actions, lengths = given
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params["params"])
    table = np.asarray(observations.table, np.float64)
    latents = network.apply(params, observations, actions, lengths, method="encode")
    logits = network.apply(params, observations, actions, lengths).logits
    for n, length in enumerate(lengths):
        ids = observations.ids[n]
        expected = _latent(p["encoder"], table[ids[:length]], actions[n, :length])
        np.testing.assert_allclose(latents[n], expected, rtol=1e-4, atol=1e-5)
        d = p["decoder"]
        x = _relu(table[ids] @ d["observation"]["kernel"] + d["observation"]["bias"] + expected @ d["latent"]["kernel"])
        for layer in ("Dense_0", "Dense_1"):
            x = _relu(x @ d["mlp"][layer]["kernel"] + d["mlp"][layer]["bias"])
        x = np.log(_softmax(x @ d["head"]["Dense_0"]["kernel"] + d["head"]["Dense_0"]["bias"]))
        np.testing.assert_allclose(logits[n], x, rtol=1e-4, atol=1e-5)


def test_every_way_through_the_first_layers_gives_the_same(given):
    """Pairs of the table (U * A = 12 <= 35 steps), the table alone (few steps), dense observations."""
    network, params, observations, actions, lengths = given
    encode = lambda observations, rows: network.apply(
        params, observations, actions[rows], lengths[rows], method="encode"
    )
    pairs = encode(observations, slice(None))
    dense = encode(observations.table[observations.ids], slice(None))
    np.testing.assert_allclose(pairs, dense, rtol=1e-5, atol=1e-6)
    for n in range(N):
        few = encode(Codebook(observations.table, observations.ids[n : n + 1]), slice(n, n + 1))
        np.testing.assert_allclose(few[0], dense[n], rtol=1e-5, atol=1e-6)


def test_what_follows_a_trajectorys_end_changes_nothing(given):
    network, params, observations, actions, lengths = given
    expected = network.apply(params, observations, actions, lengths, method="encode")
    rng = np.random.default_rng(1)
    pad = np.arange(T) >= lengths[:, None]
    other = Codebook(observations.table, np.where(pad, rng.integers(0, U, (N, T)), observations.ids))
    others = np.where(pad, rng.integers(0, A, (N, T)), actions)
    np.testing.assert_array_equal(network.apply(params, other, others, lengths, method="encode"), expected)
    short = slice(None, 4)  # the third trajectory has 4 steps
    cropped = Codebook(observations.table, observations.ids[2:3, short])
    alone = network.apply(params, cropped, actions[2:3, short], lengths[2:3], method="encode")
    np.testing.assert_allclose(alone[0], expected[2], rtol=1e-5, atol=1e-6)


def test_an_empty_filler_is_finite(given):
    network, params, observations, actions, _ = given
    latents = network.apply(params, observations, actions, np.zeros(N, int), method="encode")
    assert np.isfinite(latents).all()


def test_continuous_actions_and_a_stochastic_encoder():
    network = TrajectoryAutoencoder(discrete=False, action_size=2, latent_size=3, stochastic=True)
    observations, actions = jnp.ones((N, T, D)), jnp.ones((N, T, 2))
    params = network.init(jax.random.key(0), observations, actions, jnp.full(N, T))
    assert network.apply(params, observations, actions, jnp.full(N, T), method="encode").shape == (N, 6)
    assert network.apply(params, observations, actions, jnp.full(N, T)).log_prob(actions).shape == (N, T)
