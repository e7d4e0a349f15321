"""PG-Kmeans as an algorithm: known answers, Theorem 5.1, independence of what must not matter."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trajclust_jax.clustering import PGKmeans
from trajclust_jax.clustering.pg_kmeans import by_first_member
from trajclust_jax.data import from_episodes, make
from trajclust_jax.metrics import batch_scores, nmi
from trajclust_jax.training import fit

QUICK = {
    "restarts": 2,
    "iterations": 4,
    "steps": 3,
    "patience": 0,
    "polish_iterations": 2,
    "polish_first_steps": 6,
    "polish_steps": 3,
}
GRU = pytest.param("gru", marks=pytest.mark.slow)  # takes longest to compile, and has nothing of EM that others lack


def quick(num_clusters, policy, **settings):
    return PGKmeans.default(num_clusters, policy, **{**QUICK, **settings})


def assert_same(a, b, objective_tolerance=0.0):
    np.testing.assert_array_equal(a.assignments, b.assignments)
    np.testing.assert_allclose(a.objective, b.objective, rtol=objective_tolerance)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("smoothing", [1e-3, 1.0])
def test_theorem_5_1_the_objective_never_falls_and_em_ends(random_data, seed, smoothing):
    """Tabular M-steps are exact, so that J (with its prior) rises until no assignment changes, in finite time."""
    trajectories = random_data(n=60, t=12, rows=5, num_actions=3, seed=seed)
    settings = {"restarts": 4, "extra_clusters": 0, "iterations": 500, "polish_iterations": 0}
    method = PGKmeans.default(4, "tabular", **settings, policy_settings=(("smoothing", smoothing),))
    outcome = fit(method, trajectories, 3)
    objective = np.array([entry["objective"] for entry in outcome.history[1:]])  # [iterations, S, R]
    steps = np.diff(objective, axis=0)
    assert (steps >= -1e-6 * np.abs(objective[:-1])).all(), steps.min()
    assert len(outcome.history) - 1 < 500
    changed = np.array([entry["changed"] for entry in outcome.history])
    assert (changed[-1] == 0).all()


@pytest.mark.parametrize("policy", ["tabular", "mlp", pytest.param("gru", marks=pytest.mark.slow)])
def test_policies_that_disagree_are_told_apart(conflict, policy):
    trajectories, labels = conflict(k=3, n=60)
    settings = {"iterations": 15, "restarts": 4, "steps": 15, "polish_first_steps": 60}
    outcome = fit(quick(3, policy, **settings), trajectories, 1)
    assert nmi(labels, np.asarray(outcome.result.assignments[0])) == pytest.approx(1)


def test_the_result_is_consistent(conflict):
    trajectories, _ = conflict(k=2, n=30)
    outcome = fit(quick(2, "mlp"), trajectories, 2)
    result = outcome.result
    assert result.posterior.shape == result.log_likelihoods.shape == (2, 30, 2)
    assert result.restart_assignments.shape == (2, 2, 30)
    np.testing.assert_allclose(result.posterior.sum(-1), 1, rtol=1e-5)
    for s in range(2):
        best = int(result.restart[s])
        assert result.restart_objectives[s, best] == result.restart_objectives[s].max() == result.objective[s]
        np.testing.assert_array_equal(result.restart_assignments[s, best], result.assignments[s])
        np.testing.assert_array_equal(result.log_likelihoods[s].argmax(-1), result.assignments[s])
        np.testing.assert_allclose(result.log_likelihoods[s].max(-1).sum(), result.objective[s], rtol=1e-4)


@pytest.mark.parametrize(("name", "size", "gap"), [("diagonal", 150, 0.01), ("takeball", 400, 0.02)])
def test_small_gridworlds_reach_their_ceilings(name, size, gap):
    dataset = make(name, size, 0)
    outcome = fit(PGKmeans.default(dataset.num_policies, "tabular"), dataset.trajectories, 6)
    ceiling = nmi(dataset.labels, dataset.true_log_likelihoods.argmax(1))
    found = [nmi(dataset.labels, assignments) for assignments in np.asarray(outcome.result.assignments)]
    assert np.mean(found) > ceiling - gap, found


@pytest.mark.parametrize("policy", ["tabular", "mlp", GRU])
def test_vmapped_equals_lone(policy):
    """Seed 3 of ten (GRU: of five, they take long) equals seed 3 alone."""
    trajectories = make("diagonal", 12 if policy == "gru" else 30, 0).trajectories
    method = quick(5, policy, reconsidered=0.2 if policy == "mlp" else 0.0)
    many = fit(method, trajectories, 5 if policy == "gru" else 10).result
    alone = fit(method, trajectories, [3]).result
    assert_same(jax.tree.map(lambda x: x[3], many), jax.tree.map(lambda x: x[0], alone), objective_tolerance=1e-4)


def test_a_restart_does_not_depend_on_the_others():
    trajectories = make("diagonal", 30, 0).trajectories
    two = fit(quick(5, "mlp", restarts=2, reconsidered=0.2), trajectories, 1).result
    four = fit(quick(5, "mlp", restarts=4, reconsidered=0.2), trajectories, 1).result
    np.testing.assert_array_equal(two.restart_assignments[0], four.restart_assignments[0, :2])


def test_seeds_reproduce_bit_for_bit():
    trajectories = make("diagonal", 30, 0).trajectories
    first, second = (fit(quick(5, "mlp"), trajectories, 2).result for _ in range(2))
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(first.assignments[0], first.assignments[1])


@pytest.mark.parametrize("labels", ["shuffled", "removed"])
def test_labels_change_nothing_but_the_scores(labels):
    dataset = make("diagonal", 30, 0)
    truth = fit(quick(5, "mlp"), dataset.trajectories, 1, score=lambda a: batch_scores(dataset.labels, a))
    score = None
    if labels == "shuffled":
        shuffled = np.random.default_rng(0).permutation(dataset.labels)
        score = lambda a: batch_scores(shuffled, a)
    other = fit(quick(5, "mlp"), dataset.trajectories, 1, score=score)
    for a, b in zip(jax.tree.leaves(truth.result), jax.tree.leaves(other.result), strict=True):
        np.testing.assert_array_equal(a, b)
    names = ("objective", "changed", "used_clusters")
    assert [[e[n] for n in names] for e in truth.history] == [[e[n] for n in names] for e in other.history]
    assert truth.history[-1].get("nmi") != other.history[-1].get("nmi")


def test_chunks_and_padding_change_nothing():
    """The E-step's memory budget and the padded length are not part of the algorithm."""
    trajectories = make("diagonal", 30, 0).trajectories
    method = quick(5, "tabular")
    expected = fit(method, trajectories, 1).result
    small = dataclasses.replace(method, policy_settings=(("memory_budget", 10_000),))
    assert_same(fit(small, trajectories, 1).result, expected, objective_tolerance=1e-6)
    pad = lambda x: np.pad(np.asarray(x), [(0, 0), (0, 7)], constant_values=1)
    longer = trajectories.replace(
        observations=trajectories.observations.replace(ids=pad(trajectories.observations.ids)),
        actions=pad(trajectories.actions),
        rewards=pad(trajectories.rewards),
    )
    assert_same(fit(method, longer, 1).result, expected)


@pytest.mark.parametrize("policy", ["tabular", "mlp", GRU])
@pytest.mark.parametrize(("n", "k", "extra"), [(1, 1, 0), (3, 3, 2)])
def test_few_trajectories_many_clusters(conflict, policy, n, k, extra):
    """One trajectory; as many clusters as trajectories, and more before merging: no NaN anywhere."""
    trajectories, _ = conflict(n=n)
    method = quick(k, policy, extra_clusters=extra, iterations=2, polish_iterations=1, polish_first_steps=2)
    with jax.debug_nans(True):
        result = fit(method, trajectories, 2).result
    assert np.isfinite(result.objective).all()
    assert np.isfinite(result.log_likelihoods).all()
    assert ((result.assignments >= 0) & (result.assignments < k)).all()


@pytest.mark.parametrize("policy", ["tabular", "mlp", GRU])
def test_identical_trajectories_of_one_step(policy):
    trajectories = jax.tree.map(lambda x: x, make("diagonal", 2, 0).trajectories)
    same = trajectories.replace(
        observations=trajectories.observations.replace(ids=np.zeros((10, 1), np.int32)),
        actions=np.zeros((10, 1), np.int32),
        rewards=np.zeros((10, 1), np.float32),
        lengths=np.ones(10, np.int32),
    )
    result = fit(quick(2, policy), same, 1).result
    assert len(np.unique(result.assignments)) == 1, "what is identical stays together"


def test_a_settled_restart_is_frozen(conflict):
    trajectories, _ = conflict(k=2, n=30)
    outcome = fit(quick(2, "tabular", iterations=30, restarts=4), trajectories, 3)
    em = [entry for entry in outcome.history if entry["phase"] == "em"][1:]
    for s in range(3):
        for r in range(4):
            changed = [entry["changed"][s][r] for entry in em]
            objective = [entry["objective"][s][r] for entry in em]
            still = changed.index(0)
            assert not any(changed[still:])
            assert len(set(objective[still:])) == 1


def test_a_diverged_restart_is_never_chosen(conflict):
    trajectories, _ = conflict(n=8)
    method = quick(2, "tabular", restarts=3)
    prepared = jax.device_put(method.prepare(trajectories))
    state, _ = method.phases()[0].start(jax.random.key(0), prepared, None)
    state = state.replace(objective=np.array([-2.0, np.nan, -3.0], np.float32))
    assert method.result(state, prepared).restart == 0


@pytest.mark.parametrize("policy", ["mlp", GRU])
def test_continuous_actions(opposed, policy):
    trajectories, labels = opposed(n=24, t=10, size=3)
    method = quick(2, policy, restarts=3, iterations=10, steps=15, polish_first_steps=40, polish_steps=10)
    outcome = fit(method, trajectories, 1)
    assert nmi(labels, np.asarray(outcome.result.assignments[0])) == pytest.approx(1)


@pytest.mark.parametrize(
    "settings",
    [
        {"num_clusters": 0},
        {"num_clusters": 2, "restarts": 0},
        {"num_clusters": 2, "policy": "cnn"},
        {"num_clusters": 2, "merging": "worst"},
        {"num_clusters": 2, "iterations": 0},
        {"num_clusters": 2, "tolerance": -1.0},
    ],
)
def test_bad_settings_are_refused(settings):
    with pytest.raises(ValueError, match=r"unknown (policy|merging)|must be at least"):
        PGKmeans(**settings)


def test_pooled_restarts_begin_alike_and_are_centred(opposed):
    trajectories, labels = opposed(n=40, t=8)
    method = PGKmeans(2, extra_clusters=0, restarts=3, pooled_restarts=2, pooled_steps=50, iterations=6)
    prepared = jax.device_put(method.prepare(trajectories))
    state, _ = method._start(jax.random.key(0), prepared, None)
    for leaf in jax.tree.leaves(state.members.params):
        np.testing.assert_array_equal(leaf[1], leaf[2])  # both pooled restarts
        np.testing.assert_array_equal(leaf[1, 0], leaf[1, 1])  # both clusters of one
    assert any((leaf[0, 0] != leaf[0, 1]).any() for leaf in jax.tree.leaves(state.members.params))
    stepped, _ = method._em_step(state, prepared, jnp.int32(0))
    score = prepared.policies.scorer(stepped.members.params, prepared.data)
    scores = np.asarray(jax.lax.map(score, prepared.data.chunks))[0]  # [R, K, n]
    lengths = np.asarray(prepared.data.lengths)
    centred = scores - scores.sum(-1, keepdims=True) / lengths.sum() * lengths
    wanted = np.concatenate([scores[:1].argmax(1), centred[1:].argmax(1)])
    np.testing.assert_array_equal(stepped.assignments, wanted)
    found = fit(method, trajectories, 1).result
    assert nmi(labels, np.asarray(found.assignments[0])) == pytest.approx(1)
    with pytest.raises(ValueError, match="there are 3 restarts"):
        PGKmeans(2, restarts=3, pooled_restarts=4)


def test_in_a_paired_polish_restarts_that_agree_have_equal_objectives(opposed):
    trajectories, labels = opposed(n=40, t=8)
    method = PGKmeans(2, restarts=3, polish_iterations=2, paired_polish=True)
    prepared = jax.device_put(method.prepare(trajectories))
    state, _ = method._start(jax.random.key(0), prepared, None)
    other = np.where(np.arange(40) < 5, 0, labels)
    given = jax.vmap(prepared.data.slots)(jnp.array([labels, 1 - labels, other], jnp.int32))
    start, _ = method._restart(jax.random.key(1), prepared, state.replace(assignments=given))
    one, _ = method._polish_step(start, prepared, jnp.int32(0))
    alike = jax.tree.map(lambda x: np.array_equal(x[0], x[1]) and not np.array_equal(x[0], x[2]), one.members.params)
    assert all(jax.tree.leaves(alike))
    assert one.objective[0] == one.objective[1] > one.objective[2]
    np.testing.assert_array_equal(one.assignments[0], one.assignments[1])


def test_clusters_are_numbered_by_their_first_members():
    np.testing.assert_array_equal(by_first_member(jnp.array([2, 0, 2, 3]), 4), [0, 1, 0, 2])  # cluster 1 is empty
    np.testing.assert_array_equal(by_first_member(jnp.array([0, 1, 1]), 2), [0, 1, 1])


def strays(seed=0, size=15):
    """Two policies of one number x: A does -0.8 x and lives in [-1, 1], B does 0.2 and lives in [0, 4].

    One trajectory of A strays to [2, 4] and does 0.9 there: A's other trajectories say nothing of these places.
    """
    rng = np.random.default_rng(seed)
    episodes, labels = [], np.arange(2 * size) % 2
    for n, label in enumerate(labels):
        stray = n == 0
        x = rng.uniform(*((2, 4) if stray else (-1, 1) if label == 0 else (0, 4)), (41, 1)).astype(np.float32)
        mean = 0.9 + 0 * x if stray else -0.8 * x if label == 0 else 0.2 + 0 * x
        actions = (mean[:-1] + 0.05 * rng.normal(size=(40, 1))).astype(np.float32)
        episodes.append((x, actions, np.zeros(40, np.float32), False))
    return from_episodes(episodes), labels


def test_a_trajectory_that_strays_is_reconsidered():
    trajectories, labels = strays()
    settings = {"restarts": 2, "iterations": 10, "steps": 50, "first_steps": 50, "polish_first_steps": 300}
    settings |= {"polish_iterations": 3, "polish_steps": 50, "paired_polish": True, "reconsidered": 0.1}
    outcome = fit(PGKmeans.default(2, "mlp", **settings), trajectories, 2, score=partial(batch_scores, labels))
    accuracy = {entry["phase"]: np.array(entry["accuracy"]) for entry in outcome.history}  # at each phase's end
    assert list(accuracy) == ["em", "merge", "polish", "reconsider"]
    assert accuracy["polish"].min() == pytest.approx(29 / 30)
    np.testing.assert_array_equal(accuracy["reconsider"], 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reconsidered": 1.5}, "reconsidered is 1.5: it must be at most 1"),
        ({"reconsidered": -0.1}, "reconsidered is -0.1: it must be at least 0"),
        ({"reconsidered": 0.1, "polish_iterations": 0}, "and 0 without a polish"),
    ],
)
def test_what_can_be_reconsidered(settings, message):
    with pytest.raises(ValueError, match=message):
        PGKmeans.default(2, "mlp", **settings)
