"""The planner against value iteration written out in NumPy float64, and its gradient against finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import correlate

from trajclust_jax.networks import MOVES, Placed, Planner
from trajclust_jax.networks.planner import ConvolvedFeatures, PlannedFeatures, Terms, action_values, fixed_point

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


# --- features of maps ---------------------------------------------------------------------------------


@pytest.fixture
def placed():
    """Four steps of two trajectories on three maps of two planes."""
    rng = np.random.default_rng(1)
    return Placed(
        maps=jnp.asarray(rng.integers(0, 2, (MAPS, 2, HEIGHT, WIDTH)), jnp.uint8),
        columns=jnp.array([[0, 0, 1, 1], [2, 2, 2, 0]], jnp.int32),
        cells=jnp.asarray(rng.integers(0, HEIGHT * WIDTH, (2, 4)), jnp.int32),
        kernel=jnp.asarray(rng.dirichlet(np.ones(5), ACTIONS)[:, :4], jnp.float32),
    )


def planes_here(placed):
    maps = np.asarray(placed.maps).reshape(MAPS, 2, -1)
    return np.stack([maps[m, :, c] for m, c in zip(placed.columns.ravel(), placed.cells.ravel(), strict=True)])


def test_planned_features_are_the_log_policies_of_each_plan(placed):
    module = PlannedFeatures(plans=3, sweeps=6)
    params = module.init(jax.random.key(0), placed)
    features = np.asarray(module.apply(params, placed)).reshape(8, -1)
    for plan in range(3):
        own = {"params": jax.tree.map(lambda x, p=plan: x[p], params["params"]["plans"])}
        logits = np.asarray(Planner(sweeps=6).apply(own, placed.maps, placed.kernel))
        expected = logits[:, placed.cells.ravel(), placed.columns.ravel()].T
        np.testing.assert_allclose(features[:, plan * ACTIONS : (plan + 1) * ACTIONS], expected, rtol=1e-5, atol=1e-6)
    assert np.ptp(features[:, :ACTIONS] - features[:, ACTIONS : 2 * ACTIONS]) > 1e-3, "plans differ"
    np.testing.assert_array_equal(features[:, 3 * ACTIONS :], planes_here(placed))


def test_convolved_features_are_convolutions(placed):
    """Against SciPy's correlation in float64; residual after the first layer."""
    module = ConvolvedFeatures(layers=2, channels=3)
    params = module.init(jax.random.key(0), placed)
    features = np.asarray(module.apply(params, placed)).reshape(8, -1)
    weights = jax.tree.map(lambda x: np.asarray(x, np.float64), params["params"])
    for step, (m, cell) in enumerate(zip(placed.columns.ravel(), placed.cells.ravel(), strict=True)):
        x = np.asarray(placed.maps[m], np.float64)
        for layer in range(2):
            kernel = weights[f"kernel_{layer}"].reshape(3, 3, 3, -1)  # [out, row, column, in]
            y = [sum(correlate(x[i], k[..., i], mode="constant") for i in range(len(x))) for k in kernel]
            y = np.maximum(np.stack(y) + weights[f"bias_{layer}"][..., None], 0)
            x = x + y if layer else y
        expected = np.concatenate([x.reshape(3, -1)[:, cell], x.mean((1, 2))])
        np.testing.assert_allclose(features[step, :6], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(features[:, 6:], planes_here(placed))
