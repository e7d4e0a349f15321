"""The behaviour set: losses against NumPy in float64, look-up, codes out of use, what it finds and what it refuses."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from learner_reference import embedded, normal_log_prob, unit, wide

from trajclust_jax.clustering import BehaviourSet
from trajclust_jax.clustering.behaviour_set import BehaviourModel, State, Steps
from trajclust_jax.clustering.health import diagnose
from trajclust_jax.data import from_episodes, make
from trajclust_jax.metrics import nmi
from trajclust_jax.training import fit

B, D, A, N, K = 7, 3, 2, 5, 4
MODEL = BehaviourModel(A, (6, 6, 5), codes=K, embedding_size=3, scale=1.0, commitment=0.3)


def log_probs(params, observations, actions, embeddings, depth=3):
    mean, log_std = np.split(embedded(params["network"], observations, embeddings, depth), 2, -1)
    inner = np.arctanh(np.clip(wide(actions), -0.999, 0.999))
    return normal_log_prob(inner, mean, np.clip(log_std, -10, 10)) - np.log(1 - np.tanh(inner) ** 2).sum(-1)


@pytest.fixture(scope="module")
def params():
    begun = MODEL.init(jax.random.key(0), jnp.zeros((1, D)), N)
    moved = lambda x: x + 0.2 * jax.random.normal(jax.random.fold_in(jax.random.key(1), x.size), x.shape)
    return {**begun, "network": jax.tree.map(moved, begun["network"])}


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    actions = np.tanh(rng.normal(size=(B, A))).astype(np.float32)
    actions[0, 0] = 1.0  # at the bound
    trajectory = rng.integers(0, N, B).astype(np.int32)
    lengths = np.bincount(trajectory, minlength=N).astype(np.int32)
    return Steps(rng.normal(size=(B, D)).astype(np.float32), actions, trajectory, lengths, np.float32(0))


@pytest.mark.parametrize("cosine", [True, False])
def test_losses(params, batch, cosine):
    model = dataclasses.replace(MODEL, cosine=cosine)
    compared = unit if cosine else wide
    similarity = compared(params["trajectories"]) @ compared(params["codes"]).T
    code = similarity.argmax(1)[batch.trajectory]
    found = model.matched(params["codes"], params["trajectories"])
    np.testing.assert_array_equal(found, similarity.argmax(1))
    own, chosen = wide(params["trajectories"])[batch.trajectory], wide(params["codes"])[code]
    given = params, batch.observations, batch.actions
    of_codes = log_probs(*given, chosen)
    distance = 1 - (compared(own) * compared(chosen)).sum(-1)
    loss, info = model.loss(params, batch, jnp.array(code))
    np.testing.assert_allclose(loss, (-of_codes - log_probs(*given, own) + 0.3 * distance).mean(), rtol=2e-4)
    np.testing.assert_allclose(info["behaviour/loss"], -of_codes.mean(), rtol=2e-4)
    loss, _ = model.loss_of_codes(params, batch, jnp.array(code))
    np.testing.assert_allclose(loss, -of_codes.mean(), rtol=2e-4)


def test_both_kinds_of_embedding_have_gradients(params, batch):
    """Those of trajectories that are in the batch, and those of their codes: there is no straight-through estimator."""
    code = MODEL.matched(params["codes"], params["trajectories"][batch.trajectory])
    gradients = jax.grad(lambda params: MODEL.loss(params, batch, code)[0])(params)
    moved = lambda x: np.flatnonzero(np.abs(np.asarray(x)).max(1) > 1e-8).tolist()
    assert moved(gradients["trajectories"]) == np.unique(batch.trajectory).tolist()
    assert moved(gradients["codes"]) == np.unique(code).tolist()


@pytest.mark.parametrize("k", [1, 2, K])
def test_codes_out_of_use_match_nothing_and_stay_so(params, batch, k):
    trimmed = MODEL.trimmed(params, jnp.int32(k))
    code = MODEL.matched(trimmed["codes"], trimmed["trajectories"])
    expected = (unit(params["trajectories"]) @ unit(params["codes"][:k]).T).argmax(1)
    np.testing.assert_array_equal(code, expected)
    gradients = jax.grad(lambda params: MODEL.loss(params, batch, code[batch.trajectory])[0])(trimmed)
    assert np.isfinite(gradients["codes"]).all()
    assert not np.asarray(gradients["codes"])[k:].any()


def test_a_code_begins_alike_however_many_there_are(params):
    fewer = dataclasses.replace(MODEL, codes=2).init(jax.random.key(0), jnp.zeros((1, D)), N)
    np.testing.assert_array_equal(fewer["codes"], params["codes"][:2])
    np.testing.assert_array_equal(fewer["trajectories"], params["trajectories"])


SMALL = {"features": (32, 32, 32), "batch_size": 64, "steps": 500, "iterations": 4}


@pytest.fixture(scope="module")
def dataset():
    return make("pathfollowing", size=12, seed=0)


@pytest.fixture(scope="module")
def outcome(dataset):
    return fit(BehaviourSet(3, **SMALL), dataset.trajectories, [0, 1])


def test_finds_the_policies(dataset, outcome):
    result = jax.device_get(outcome.result)
    scores = [nmi(dataset.labels, each) for each in result.assignments]
    assert max(scores) > 0.85, scores
    assert outcome.history[-1]["used_clusters"] == [[3.0], [3.0]]
    for seed in range(2):
        one = jax.tree.map(lambda x, seed=seed: x[seed], result)
        np.testing.assert_array_equal(
            one.assignments, (one.latents @ unit(one.params["codes"]).T.astype(np.float32)).argmax(1)
        )
        np.testing.assert_allclose(one.posterior.sum(1), 1, atol=1e-5)
        apart = [
            (row[code] - np.delete(row, code).mean()) / length
            for row, code, length in zip(
                wide(one.log_likelihoods), one.assignments, np.asarray(dataset.trajectories.lengths), strict=True
            )
        ]
        np.testing.assert_allclose(one.separation, np.median(apart), rtol=1e-4)
        assert diagnose(one)[1] == []


def test_a_network_that_does_without_its_codes_is_told(dataset):
    """As the release's scale and rate have it, whatever the embeddings look like."""
    released = BehaviourSet.released(3, **{**SMALL, "iterations": 1})
    one = jax.tree.map(lambda x: np.asarray(x[0]), fit(released, dataset.trajectories, 1).result)
    assert nmi(dataset.labels, one.assignments) < 0.5
    assert "collapsed: a trajectory is" in " ".join(diagnose(one)[1])


def test_trajectories_that_are_hardly_seen_are_told(caplog):
    ones = [(np.zeros((n + 1, 2), np.float32), np.full((n, 1), 0.1 * n), np.zeros(n), False) for n in (1, 2, 400)]
    data = from_episodes(ones)
    BehaviourSet(2, batch_size=20, steps=10, iterations=11).prepare(data)
    (told,) = caplog.messages
    assert told.startswith("behaviour set: 1 of 3 trajectories will be drawn from fewer than 10 times, and their")
    caplog.clear()
    BehaviourSet(2, batch_size=20, steps=10, iterations=30).prepare(data)
    assert not caplog.messages


def test_likelihoods_are_the_codes_policies(dataset, outcome):
    """Of one trajectory by hand, in the data's unit."""
    method, trajectories, n = BehaviourSet(3, **SMALL), dataset.trajectories, 5
    one = jax.tree.map(lambda x: np.asarray(x[0]), outcome.result)
    seen = method.preprocessing(trajectories)
    steps = slice(0, int(trajectories.lengths[n]))
    inputs = seen.inputs(np.asarray(trajectories.observations[n, steps]))
    everything = np.asarray(trajectories.actions)[np.asarray(trajectories.mask)]
    low, high = everything.min(0), everything.max(0)
    bound = (high - low) / 2
    actions = (np.asarray(trajectories.actions[n, steps]) - (low + high) / 2) / bound
    for k in range(3):
        codes = np.broadcast_to(one.params["codes"][k], (len(actions), 8))
        expected = log_probs(one.params, inputs, actions, codes).sum() - len(actions) * np.log(bound).sum()
        np.testing.assert_allclose(one.log_likelihoods[n, k], expected, rtol=1e-3)


def test_assigns_what_is_new(dataset, outcome):
    method = BehaviourSet(3, **SMALL)
    one = jax.tree.map(lambda x: np.asarray(x[0]), outcome.result)
    others = make("pathfollowing", size=6, seed=5)
    data = method.prepare(others.trajectories, 1, method.preprocessing(dataset.trajectories))
    assign = jax.jit(method.assign)
    found = assign(method.model(one), data)
    assert nmi(others.labels, np.asarray(found.assignments)) > nmi(dataset.labels, one.assignments) - 0.25
    dead = {**one.params, "used": np.array([True, False, True])}
    assert not (np.asarray(assign(dead, data).assignments) == 1).any()


def least_loss(scores, num_clusters):
    """Clusters that are left of those with trajectories, `scores[j, i]` those of j's under i."""
    scores, left = scores.copy(), [j for j in range(len(scores)) if scores[j].any()]
    while len(left) > num_clusters:
        j, i = min(
            ((j, i) for j in left for i in left if j != i), key=lambda pair: scores[pair[0], pair[0]] - scores[pair]
        )
        scores[i] += scores[j]
        left.remove(j)
    return left


def test_extra_codes_are_merged(dataset):
    """The training is that of all codes; what is left of them, and whose trajectories, NumPy finds as well."""
    trajectories = dataset.trajectories
    apart = jax.device_get(fit(BehaviourSet(6, **SMALL), trajectories, [0]).result)
    outcome = fit(BehaviourSet(3, extra_clusters=3, **SMALL), trajectories, [0])
    merged = jax.tree.map(lambda x: np.asarray(x[0]), outcome.result)
    likelihoods, before = wide(apart.log_likelihoods[0]), apart.assignments[0]
    left = least_loss(np.eye(6)[before].T @ likelihoods, 3)
    np.testing.assert_array_equal(merged.params["codes"], apart.params["codes"][0][left])
    np.testing.assert_array_equal(merged.assignments, likelihoods[:, left].argmax(1))
    np.testing.assert_allclose(merged.log_likelihoods, likelihoods[:, left], rtol=1e-5, atol=1e-3)
    told = outcome.history[-1]
    assert told["phase"] == "merge"
    assert told["changed"] == [[(np.array(left)[merged.assignments] != before).sum()]]
    steps = np.asarray(trajectories.lengths).sum()
    np.testing.assert_allclose(told["objective"], [[likelihoods[:, left].max(1).sum() / steps]], rtol=1e-5)


def test_fewer_codes_with_trajectories_than_are_left(params, batch):
    """All stay as they are, and the others match nothing: neither what is there nor what is new."""
    method = BehaviourSet(3, extra_clusters=1, features=(6, 6, 5), embedding_size=3, scale=1.0)
    before, batch = jnp.array([2, 0, 2, 2, 0], jnp.int32), jax.tree.map(jnp.asarray, batch)
    state = State(params, None, before, jnp.bool_(False), jax.random.key(0))
    merged, told = method._merge(jax.random.key(1), batch, state)
    codes = params["codes"][jnp.array([0, 2, 3])]
    np.testing.assert_array_equal(merged.params["codes"], np.where([[True], [True], [False]], codes, 0))
    found = method.result(merged, batch)
    assert set(np.asarray(found.assignments)) <= {0, 1}
    np.testing.assert_array_equal(found.posterior[:, 2], 0)
    assert np.isfinite(told["objective"]).all()
    assert np.isfinite(told["distance"]).all()
    again = method.assign(found.params, batch)
    assert set(np.asarray(again.assignments)) <= {0, 1}
    assert np.isfinite(again.objective)


def test_learns_alone_as_among_others(dataset, outcome):
    alone = fit(BehaviourSet(3, **SMALL), dataset.trajectories, [1])
    for a, b in zip(jax.tree.leaves(outcome.result), jax.tree.leaves(alone.result), strict=True):
        np.testing.assert_allclose(a[1], b[0], atol=2e-3, rtol=2e-3)


def test_resumes_exactly(dataset, outcome, tmp_path):
    def stop(event):
        if event.iteration == 2:
            raise RuntimeError("killed")

    method = BehaviourSet(3, **SMALL)
    with pytest.raises(RuntimeError, match="killed"):
        fit(method, dataset.trajectories, [0, 1], callbacks=[stop], checkpoint_dir=tmp_path, checkpoint_seconds=0)
    resumed = fit(method, dataset.trajectories, [0, 1], checkpoint_dir=tmp_path, checkpoint_seconds=0)
    assert resumed.resumed
    assert resumed.history == outcome.history
    for a, b in zip(jax.tree.leaves(outcome.result), jax.tree.leaves(resumed.result), strict=True):
        np.testing.assert_array_equal(a, b)


def test_dead_codes_and_edges_are_told():
    """One trajectory of one step, three codes: two of them are used by nothing."""
    data = from_episodes([(np.ones((2, 2), np.float32), np.zeros((1, 1), np.float32), np.zeros(1, np.float32), False)])
    found = fit(BehaviourSet(3, features=(4, 4, 4), batch_size=2, steps=1, iterations=1), data, 1)
    one = jax.tree.map(lambda x: np.asarray(x[0]), found.result)
    assert found.history[-1]["used_clusters"] == [[1.0]]
    health, warnings = diagnose(one)
    assert health["used_clusters"] == 1
    assert "1 of 3 clusters are used" in warnings


def test_what_it_cannot_cluster_is_refused(dataset):
    with pytest.raises(ValueError, match="continuous actions"):
        BehaviourSet(3).prepare(make("takeball", 2).trajectories)
    bytes_ = np.zeros(dataset.trajectories.observations.shape, np.uint8)
    with pytest.raises(ValueError, match="not of bytes"):
        BehaviourSet(3).check(dataset.trajectories.replace(observations=bytes_))
    for settings in ({"num_clusters": 0}, {"scale": 0.0}, {"commitment": -1.0}, {"steps": 0}):
        with pytest.raises(ValueError, match="must be"):
            BehaviourSet(**{"num_clusters": 2, **settings})


def test_the_release():
    released = BehaviourSet.released(4, steps=10)
    assert (released.scale, released.learning_rate, released.iterations, released.steps) == (0.05, 5e-5, 1_000, 10)
