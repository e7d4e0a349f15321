"""The NumPy reference computes what the suite's own policies do."""

import jax
import jax.numpy as jnp
import numpy as np
import numpy_references
import optax

from trajclust_jax.networks import MIN_STD


def test_a_gradient_step_equals_jax_and_optax():
    rng = np.random.default_rng(0)
    inputs, actions = rng.standard_normal((60, 5), np.float32), rng.standard_normal((60, 3), np.float32)
    mixture = numpy_references.Mixture(inputs, actions, 1, 1, 32, 1e-3, MIN_STD)
    (member,) = mixture.members
    params = [jnp.array(p) for p in member.params]

    def log_probs(params, rows):
        hidden = inputs[rows]
        for i in range(0, 6, 2):
            hidden = hidden @ params[i] + params[i + 1]
            hidden = jax.nn.relu(hidden) if i < 4 else hidden
        mean, raw = jnp.split(hidden, 2, axis=1)
        return jax.scipy.stats.norm.logpdf(actions[rows], mean, MIN_STD + jax.nn.softplus(raw)).sum(1)

    optimizer = optax.adam(1e-3)
    state, drawn = optimizer.init(params), np.random.default_rng(1)
    mixture.rng = np.random.default_rng(1)
    for _ in range(3):
        rows = drawn.integers(60, size=32)
        gradients = jax.grad(lambda params, rows=rows: -log_probs(params, rows).mean())(params)
        updates, state = optimizer.update(gradients, state)
        params = optax.apply_updates(params, updates)
        mixture.improve(1)
    for ours, reference in zip(member.params, params, strict=True):
        np.testing.assert_allclose(ours, reference, atol=2e-5)
    every = np.arange(60)
    value, _ = mixture.log_prob(member.forward(inputs)[-1], every)
    np.testing.assert_allclose(value, log_probs(params, every), rtol=1e-3)
