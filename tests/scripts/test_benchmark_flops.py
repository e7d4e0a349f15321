"""The benchmark's counts of floating-point operations, against what XLA says of the compiled products."""

import benchmark
import jax
import jax.numpy as jnp
import pytest

from trajclust_jax.learners import CQL, IQL, TD3BC, Batch


def test_flops_of_dense_layers():
    forward, train, inputs = benchmark.network_flops(4, (3, 5, 2))
    assert forward == 2 * 4 * (15 + 10)
    assert train == 3 * forward - 2 * 4 * 15
    assert inputs == 2 * forward


@pytest.mark.parametrize(("name", "low", "high"), [("IQL", 0.97, 1.2), ("TD3+BC", 0.97, 1.25), ("CQL", 0.97, 1.2)])
def test_flops_of_a_gradient_step(name, low, high):
    """XLA counts elementwise work, too, and both branches of TD3+BC's condition."""
    learner = {"IQL": IQL, "TD3+BC": TD3BC, "CQL": CQL}[name](6)
    batch = Batch(*map(jnp.zeros, ((256, 17), (256, 6), (256,), (256, 17))), jnp.zeros(256, bool))
    state = jax.eval_shape(lambda: learner.init(jax.random.key(0), 17))
    cost = jax.jit(learner.update).lower(state, batch, jnp.int32(1)).compile().cost_analysis()
    ours = benchmark.learner_flops(name, 256, 17, 6)
    assert low < cost["flops"] / ours < high
