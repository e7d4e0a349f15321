"""The planner against value iteration written out in NumPy float64, and its gradient against finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trajclust_jax.networks import MOVES, Planner
from trajclust_jax.networks.planner import Terms, action_values, fixed_point

HEIGHT, WIDTH, MAPS, ACTIONS = 4, 5, 3, 5


def random_terms(seed: int = 0) -> Terms:
    rng = np.random.default_rng(seed)
    opened = rng.uniform(0, 1, (4, HEIGHT, WIDTH, MAPS))
    for move, (rows, columns) in enumerate(MOVES):  # nothing beyond the edge
        edge = {-1: 0, 1: -1}
        if rows:
            opened[move, edge[rows]] = 0
        if columns:
            opened[move, :, edge[columns]] = 0
    cells = HEIGHT * WIDTH
    kernel = rng.dirichlet(np.ones(5), ACTIONS)[:, :4]
    return Terms(
        jnp.asarray(rng.normal(size=(cells, MAPS)), jnp.float32),
        jnp.asarray(rng.uniform(0.3, 0.9, (cells, MAPS)), jnp.float32),
        jnp.asarray(opened.reshape(4, cells, MAPS), jnp.float32),
        jnp.asarray(kernel, jnp.float32),
    )


def reference(terms: Terms, sweeps: int) -> tuple[np.ndarray, np.ndarray]:
    """Values and action values by loops over cells."""
    arrival, discount, opened, kernel = (np.asarray(x, np.float64) for x in terms)
    values = np.zeros_like(arrival)
    for _ in range(sweeps + 1):
        here = (arrival + discount * values).reshape(HEIGHT, WIDTH, MAPS)
        q = np.zeros((ACTIONS, HEIGHT, WIDTH, MAPS))
        for row in range(HEIGHT):
            for column in range(WIDTH):
                q[:, row, column] = here[row, column]
                for move, (rows, columns) in enumerate(MOVES):
                    to = row + rows, column + columns
                    if 0 <= to[0] < HEIGHT and 0 <= to[1] < WIDTH:
                        share = opened[move].reshape(HEIGHT, WIDTH, MAPS)[row, column]
                        q[:, row, column] += kernel[:, move, None] * share * (here[to] - here[row, column])
        before, values = values, q.max(0).reshape(-1, MAPS)
    return before, q.reshape(ACTIONS, -1, MAPS)


def test_fixed_point_is_value_iteration():
    terms = random_terms()
    values, q = reference(terms, 60)
    found = fixed_point(jnp.zeros_like(terms.arrival), terms, WIDTH, 60)
    np.testing.assert_allclose(found, values, atol=1e-4)
    np.testing.assert_allclose(action_values(found, terms, WIDTH), q, atol=1e-4)


@pytest.mark.parametrize("name", Terms._fields)
def test_implicit_gradient_is_the_finite_difference(name):
    terms = random_terms(1)
    weights = jax.random.normal(jax.random.key(0), terms.arrival.shape)

    def objective(x):
        return (weights * fixed_point(jnp.zeros_like(terms.arrival), terms._replace(**{name: x}), WIDTH, 80)).sum()

    x = getattr(terms, name)
    direction = np.random.default_rng(2).normal(size=x.shape).astype(np.float32)
    if name == "open":
        direction *= np.asarray(x) > 0
    slope = (jax.grad(objective)(x) * direction).sum()

    def exact(step):
        values, _ = reference(terms._replace(**{name: np.asarray(x, np.float64) + step * direction}), 200)
        return (np.asarray(weights, np.float64) * values).sum()

    np.testing.assert_allclose(slope, (exact(1e-5) - exact(-1e-5)) / 2e-5, rtol=2e-3)


def test_policies_are_distributions_and_walls_matter():
    maps = np.random.default_rng(0).integers(0, 2, (6, 3, 7, 7)).astype(np.uint8)
    planner = Planner(layers=2, sweeps=10)
    kernel = jnp.asarray(random_terms().kernel)
    params = planner.init(jax.random.key(0), maps, kernel)
    logits = planner.apply(params, maps, kernel)
    assert logits.shape == (ACTIONS, 49, 6)
    np.testing.assert_allclose(jnp.exp(logits).sum(0), 1, atol=1e-5)
    assert np.abs(np.asarray(planner.apply(params, 1 - maps, kernel)) - np.asarray(logits)).max() > 1e-3
    lone = planner.apply(params, maps[2:3], kernel)
    np.testing.assert_allclose(lone[..., 0], logits[..., 2], atol=1e-5)
