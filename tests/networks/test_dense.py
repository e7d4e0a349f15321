"""The dense layer against NumPy in float64 and flax's own."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trajclust_jax.learners import IQL
from trajclust_jax.networks.dense import Dense, orthogonal, product


@pytest.mark.parametrize("leading", [(), (7,), (3, 7)])
def test_product_and_its_gradients(leading):
    rng = np.random.default_rng(0)
    x, kernel, weight = rng.normal(size=(*leading, 4)), rng.normal(size=(4, 5)), rng.normal(size=(*leading, 5))
    loss = lambda x, kernel: (product(x, kernel) * weight).sum()
    value, (of_x, of_kernel) = jax.value_and_grad(loss, (0, 1))(jnp.float32(x), jnp.float32(kernel))
    np.testing.assert_allclose(value, (x @ kernel * weight).sum(), rtol=1e-5)
    np.testing.assert_allclose(of_x, weight @ kernel.T, rtol=1e-5, atol=1e-6)
    rows, gradients = x.reshape(-1, 4), weight.reshape(-1, 5)
    np.testing.assert_allclose(of_kernel, rows.T @ gradients, rtol=1e-5, atol=1e-6)


def test_parameters_and_results_are_flaxs():
    x = jax.random.normal(jax.random.key(0), (6, 3))
    ours, theirs = Dense(4, name="layer"), nn.Dense(4, name="layer")
    params = ours.init(jax.random.key(1), x)
    jax.tree.map(np.testing.assert_array_equal, params, theirs.init(jax.random.key(1), x))
    np.testing.assert_allclose(ours.apply(params, x), theirs.apply(params, x), rtol=1e-6)


def test_each_critics_values_are_a_lone_ones():
    learner = IQL(action_size=2, features=(16, 16))
    critics = learner.init(jax.random.key(0), 3).params["critics"]
    observations, actions = (jax.random.normal(jax.random.key(i), (4, 5, d)) for i, d in ((1, 3), (2, 2)))
    values = learner.values(critics, observations, actions)
    assert values.shape == (2, 4, 5)
    for i in range(2):
        alone = learner.critic.apply(jax.tree.map(lambda x, i=i: x[i], critics), observations, actions)
        np.testing.assert_allclose(values[i], alone, rtol=1e-5, atol=1e-6)


def test_orthogonal_matrices_of_an_ensemble_are_decomposed_one_at_a_time():
    """Batched, two such decompositions on two cores can wait for each other for ever."""
    keys = jax.random.split(jax.random.key(0), 6).reshape(2, 3)
    draw = jax.vmap(jax.vmap(lambda key: orthogonal(2**0.5)(key, (8, 24))))
    matrices = draw(keys)
    lone = [nn.initializers.orthogonal(2**0.5)(key, (8, 24)) for key in keys.reshape(-1)]
    np.testing.assert_array_equal(matrices.reshape(6, 8, 24), lone)
    np.testing.assert_allclose(matrices @ matrices.mT, np.broadcast_to(2 * np.eye(8), (2, 3, 8, 8)), atol=1e-5)
    assert re.findall(r"lapack_sgeqrf_ffi.*?-> \(tensor<([\dx]*)", jax.jit(draw).lower(keys).as_text()) == ["24x8x"]
