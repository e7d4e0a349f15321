"""The policy classes of a mixture: E-steps and M-steps against plain NumPy."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trajclust_jax.clustering.policies import (
    CountedPolicy,
    HistoryPolicy,
    TabularPolicy,
    TransitionPolicy,
    policy_for,
)
from trajclust_jax.clustering.policies.network import sorted_by_cluster
from trajclust_jax.data import Codebook, Trajectories
from trajclust_jax.data.transforms import action_scaling, input_transform
from trajclust_jax.devices import traced_for
from trajclust_jax.networks import ensemblize, member_keys

R, K = 2, 3
SMALL = 200  # bytes: several chunks even for 30 trajectories


@pytest.fixture(params=["cpu", "cuda"])
def _in_both_forms(request):
    """Counts and lookups, and the products in their place on an accelerator."""
    with traced_for(request.param):
        yield


in_both_forms = pytest.mark.usefixtures("_in_both_forms")


def prepare(policies, trajectories, num_members=R * K):
    return jax.device_put(policies.prepare(trajectories, num_members))


def _members(policies, data, seed=0):
    return ensemblize(lambda key: policies.init(key, data), 2)(member_keys(jax.random.key(seed), R, K))


def _log_likelihoods(policies, data, params):
    """`[R, K, N]` in the dataset's order."""
    scores = jax.lax.map(policies.scorer(params, data), data.chunks)  # [C, R, K, n]
    return np.asarray(jnp.moveaxis(scores, 0, 2).reshape(R, K, -1)[..., data.rank])


def _reference(network_params, policies, data, trajectories, transform=None):
    """`[R, K, N]`: every trajectory on its own through the whole network."""
    network, transform = policies.network(data), transform or input_transform(trajectories)
    scaling = action_scaling(trajectories) or (lambda actions: actions)
    observations = trajectories.observations
    table = np.asarray(observations.table) if isinstance(observations, Codebook) else None
    out = np.zeros((R, K, trajectories.num_trajectories))
    for n, length in enumerate(np.asarray(trajectories.lengths)):
        steps = table[observations.ids[n, :length]] if table is not None else np.asarray(observations)[n, :length]
        inputs, actions = transform(steps), scaling(np.asarray(trajectories.actions)[n, :length])
        for r in range(R):
            for k in range(K):
                params = jax.tree.map(lambda x, r=r, k=k: x[r, k], network_params)
                out[r, k, n] = network.apply(params, inputs).log_prob(actions).sum()
    return out


@pytest.mark.parametrize("budget", [SMALL, 10**9])
@pytest.mark.parametrize("kind", ["counted", "transitions", "history", "history dense"])
def test_scores_equal_running_every_trajectory_alone(random_data, dense, kind, budget):
    trajectories = random_data(n=11, t=5)
    if kind in ("transitions", "history dense"):
        trajectories = dense(trajectories)
    cls = {"counted": CountedPolicy, "transitions": TransitionPolicy}.get(kind, HistoryPolicy)
    policies = cls(memory_budget=budget)
    data = prepare(policies, trajectories)
    assert (data.chunks.lengths.shape[0] > 1) == (budget == SMALL)
    params = _members(policies, data).params
    expected = _reference(params, policies, data, trajectories)
    np.testing.assert_allclose(_log_likelihoods(policies, data, params), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["counted", "transitions", "history"])
def test_policies_share_what_actions_have_in_common(random_data, dense, kind):
    """Of four actions that are combinations, 2 + 3 values of parts have a logit."""
    trajectories = random_data(n=11, t=5).replace(action_parts=((0, 0), (0, 1), (1, 0), (1, 7)))
    trajectories = dense(trajectories) if kind == "transitions" else trajectories
    policies = {"counted": CountedPolicy, "transitions": TransitionPolicy, "history": HistoryPolicy}[kind]()
    data = prepare(policies, trajectories)
    params = _members(policies, data).params
    assert params["params"]["head"]["Dense_0"]["kernel"].shape[-1] == 5
    expected = _reference(params, policies, data, trajectories)
    np.testing.assert_allclose(_log_likelihoods(policies, data, params), expected, rtol=1e-4, atol=1e-4)


def test_continuous_actions_and_normalised_observations_score_like_numpy():
    rng = np.random.default_rng(0)
    n, t = 7, 6
    trajectories = Trajectories(
        observations=(5 + 3 * rng.normal(size=(n, t, 4))).astype(np.float32),
        actions=rng.normal(size=(n, t, 2)).astype(np.float32),
        rewards=np.zeros((n, t), np.float32),
        lengths=rng.integers(1, t + 1, n).astype(np.int32),
        terminated=np.zeros(n, bool),
        final_observations=np.zeros((n, 4), np.float32),
    )
    real = trajectories.observations[np.asarray(trajectories.mask)]
    transform = input_transform(trajectories)
    np.testing.assert_allclose(transform(real), (real - real.mean(0)) / real.std(0), atol=1e-4)
    for cls in (TransitionPolicy, HistoryPolicy):
        policies = cls(memory_budget=SMALL)
        data = prepare(policies, trajectories)
        params = _members(policies, data).params
        expected = _reference(params, policies, data, trajectories)
        np.testing.assert_allclose(_log_likelihoods(policies, data, params), expected, rtol=1e-4, atol=1e-4)


@in_both_forms
def test_counts_equal_a_loop(random_data):
    trajectories = random_data()
    policies = TabularPolicy(memory_budget=SMALL)
    data = prepare(policies, trajectories)
    assignments = np.random.default_rng(1).integers(0, K, trajectories.num_trajectories)
    expected = np.zeros((6, 4, K))
    for n, length in enumerate(trajectories.lengths):
        for t in range(length):
            expected[trajectories.observations.ids[n, t], trajectories.actions[n, t], assignments[n]] += 1
    slots = np.zeros(data.num_slots, np.int32)
    slots[: len(assignments)] = assignments[data.order]
    counts = policies.counts(jnp.asarray(slots), K, data)
    np.testing.assert_array_equal(counts, expected.reshape(-1, K))
    # The closed-form M-step: smoothed relative frequencies.
    members = ensemblize(lambda key: policies.init(key, data), 1)(member_keys(jax.random.key(0), K))
    fitted = policies.fit(members, jnp.asarray(slots), data, jax.random.key(0), 0)
    smoothed = np.moveaxis(expected, -1, 0) + policies.smoothing
    np.testing.assert_allclose(np.exp(fitted.params), smoothed / smoothed.sum(-1, keepdims=True), rtol=1e-5)


@in_both_forms
def test_the_sufficient_statistics_equal_the_dense_path_at_5000_trajectories(random_data, dense):
    trajectories = random_data(n=5000, t=12, rows=20)
    counted = CountedPolicy()
    data = prepare(counted, trajectories)
    params = _members(counted, data).params
    exact = _log_likelihoods(counted, data, params)
    transitions = TransitionPolicy()
    dense_data = prepare(transitions, dense(trajectories))
    np.testing.assert_allclose(_log_likelihoods(transitions, dense_data, params), exact, rtol=1e-4, atol=1e-4)


def test_a_counted_gradient_step_is_the_gradient_over_all_transitions(random_data):
    trajectories = random_data(n=9)
    policies = CountedPolicy()
    data = prepare(policies, trajectories, K)
    member = jax.tree.map(lambda x: x[0, 0], _members(policies, data))
    mask = np.asarray(trajectories.mask)
    ids, actions = np.asarray(trajectories.observations.ids)[mask], np.asarray(trajectories.actions)[mask]

    def mean_loss(params):
        return -policies.network(data).apply(params, data.table[ids]).log_prob(actions).mean()

    first = policies.update(mean_loss, member, jnp.bool_(True))
    second = policies.update(mean_loss, first, jnp.bool_(True), 0.5)  # the rate falls to 0 in the step after the last
    one = jax.tree.map(lambda x: x[None], member)
    fit = lambda *steps: policies.fit(one, jnp.zeros(data.num_slots, jnp.int32), data, jax.random.key(0), *steps).params
    for fitted, expected in ((fit(1), first.params), (fit(2, 1.0), second.params)):
        for a, b in zip(jax.tree.leaves(fitted), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a[0], b, atol=2e-6)


@pytest.mark.parametrize("kind", ["counted", "transitions", "history"])
def test_each_member_learns_its_own_cluster_and_an_empty_one_stays(conflict, dense, kind):
    """Two clusters that disagree on one observation; a third is empty."""
    trajectories, labels = conflict(k=2, n=30)
    if kind == "transitions":
        trajectories = dense(trajectories)
    cls = {"counted": CountedPolicy, "transitions": TransitionPolicy, "history": HistoryPolicy}[kind]
    policies = cls(learning_rate=1e-2)
    data = prepare(policies, trajectories, K)
    slots = np.zeros(data.num_slots, np.int32)
    slots[: len(labels)] = labels[data.order]
    before = jax.tree.map(lambda x: x[0], _members(policies, data))
    fitted = jax.jit(policies.fit, static_argnums=())(before, jnp.asarray(slots), data, jax.random.key(1), 60)
    start = np.eye(3, dtype=np.float32)[[2]]  # every trajectory begins in the state of conflict
    for k in range(2):
        params = jax.tree.map(lambda x, k=k: x[k], fitted.params)
        probabilities = np.exp(policies.network(data).apply(params, start).logits[0])
        assert probabilities[k] > 0.9, (kind, k, probabilities)
    for new, old in zip(jax.tree.leaves(fitted.params), jax.tree.leaves(before.params), strict=True):
        np.testing.assert_array_equal(new[2], old[2])


@in_both_forms
def test_soft_counts_equal_a_loop_and_weights_of_0_and_1_equal_assignments(random_data):
    trajectories = random_data()
    n = trajectories.num_trajectories
    policies = TabularPolicy(memory_budget=SMALL)
    data = prepare(policies, trajectories)
    weights = np.random.default_rng(1).random((n, K)).astype(np.float32)
    expected = np.zeros((6, 4, K))
    for i, length in enumerate(trajectories.lengths):
        for t in range(length):
            expected[trajectories.observations.ids[i, t], trajectories.actions[i, t]] += weights[i]
    slots = np.ones((data.num_slots, K), np.float32)  # fillers weigh nothing, whatever they hold
    slots[:n] = weights[data.order]
    found = policies.counts(jnp.asarray(slots), K, data)
    np.testing.assert_allclose(found, expected.reshape(-1, K), rtol=1e-5)
    hard = jnp.asarray(np.arange(data.num_slots) % (K + 1))  # K: in no cluster
    soft = jnp.asarray(np.eye(K + 1, K, dtype=np.float32)[hard])
    np.testing.assert_array_equal(policies.counts(hard, K, data), policies.counts(soft, K, data))


@pytest.mark.parametrize("kind", ["counted", "transitions", "history"])
def test_soft_members_learn_what_they_weigh(conflict, dense, kind):
    """Member 0 weighs one policy's trajectories 1 and the others' .05; member 1 the other way round."""
    trajectories, labels = conflict(k=2, n=30)
    if kind == "transitions":
        trajectories = dense(trajectories)
    cls = {"counted": CountedPolicy, "transitions": TransitionPolicy, "history": HistoryPolicy}[kind]
    policies = cls(learning_rate=1e-2)
    data = prepare(policies, trajectories, 2)
    slots = np.zeros((data.num_slots, 2), np.float32)
    slots[: len(labels)] = np.where(np.eye(2)[labels[data.order]], 1.0, 0.05)
    before = jax.tree.map(lambda x: x[0, :2], _members(policies, data))
    fitted = jax.jit(policies.fit)(before, jnp.asarray(slots), data, jax.random.key(1), 60)
    start = np.eye(3, dtype=np.float32)[[2]]
    for k in range(2):
        params = jax.tree.map(lambda x, k=k: x[k], fitted.params)
        probabilities = np.exp(policies.network(data).apply(params, start).logits[0])
        assert probabilities[k] > 0.8, (kind, k, probabilities)


@pytest.mark.parametrize("cls", [TabularPolicy, TransitionPolicy, HistoryPolicy])
def test_scores_of_other_values_of_a_step(random_data, dense, cls):
    """Summing 1 a step counts the steps."""
    trajectories = random_data(n=7)
    policies = cls(memory_budget=SMALL)
    data = prepare(policies, dense(trajectories) if cls is TransitionPolicy else trajectories)
    params = _members(policies, data).params
    scores = jax.lax.map(policies.scorer(params, data, of=jnp.ones_like), data.chunks)
    scores = jnp.moveaxis(scores, 0, 2).reshape(R, K, -1)[..., data.rank]
    np.testing.assert_array_equal(scores, np.broadcast_to(trajectories.lengths, (R, K, 7)))


@pytest.mark.parametrize("smoothing", [0.0, -1.0, float("nan")])
def test_counts_without_smoothing_are_refused(smoothing):
    with pytest.raises(ValueError, match="smoothing is"):
        TabularPolicy(smoothing=smoothing)


def test_sorting_by_cluster_leaves_fillers_last():
    lengths = jnp.array([3, 1, 0, 2, 5, 0])
    order, first, sizes = sorted_by_cluster(jnp.array([1, 0, 0, 1, 0, 1]), 3, lengths)
    assert order.tolist() == [1, 4, 0, 3, 2, 5]
    assert first.tolist() == [0, 2, 4]
    assert sizes.tolist() == [2, 2, 0]


def test_columns_that_are_always_zero_are_dropped_and_maps_stay_as_they_are(random_data):
    trajectories = random_data()
    table = np.concatenate([np.zeros((6, 3), np.uint8), trajectories.observations.table], axis=1)
    trajectories = trajectories.replace(observations=trajectories.observations.replace(table=table))
    transform = input_transform(trajectories)
    assert transform.columns.tolist() == [3, 4, 5, 6, 7, 8]
    np.testing.assert_array_equal(transform(table), np.eye(6))


def test_integer_observations_stay_distinct(random_data):
    trajectories = random_data(rows=81, n=200)
    trajectories = trajectories.replace(
        observations=trajectories.observations.replace(table=np.arange(81, dtype=np.int32)[:, None])
    )
    inputs = input_transform(trajectories)(trajectories.observations.table)
    assert len(np.unique(inputs)) == 81
    assert abs(inputs).max() < 3


def test_counts_that_would_not_be_exact_are_refused(random_data, monkeypatch):
    trajectories = random_data(n=3)
    monkeypatch.setattr(np, "bincount", lambda *a, **k: np.array([2**24]))
    with pytest.raises(ValueError, match="float32 counts"):
        TabularPolicy().prepare(trajectories, 1)


def test_the_policy_class_follows_the_data(random_data, dense):
    coded, raw = random_data(), dense(random_data())
    assert isinstance(policy_for("mlp", coded), CountedPolicy)
    assert isinstance(policy_for("mlp", raw), TransitionPolicy)
    assert isinstance(policy_for("gru", raw), HistoryPolicy)
    assert isinstance(policy_for("tabular", coded), TabularPolicy)
    with pytest.raises(ValueError, match="tabular"):
        policy_for("tabular", raw).check(raw)


@pytest.mark.parametrize("cls", [CountedPolicy, HistoryPolicy, TransitionPolicy])
def test_padding_changes_nothing(random_data, dense, cls):
    trajectories = random_data(n=8)
    if cls is TransitionPolicy:
        trajectories = dense(trajectories)
    pad = ~np.asarray(trajectories.mask)

    def scores(trajectories):
        policies = cls()
        data = prepare(policies, trajectories)
        members = _members(policies, data)
        fit = lambda m, key: policies.fit(m, jnp.zeros(data.num_slots, jnp.int32), data, key, 3)
        members = ensemblize(fit, 1)(members, member_keys(jax.random.key(1), R))
        return _log_likelihoods(policies, data, members.params)

    other = dataclasses.replace(trajectories, actions=np.where(pad, 3, trajectories.actions))
    if cls is TransitionPolicy:
        observations = np.where(pad[..., None], np.float32(7), trajectories.observations)
        other = other.replace(observations=observations)
        trajectories = trajectories.replace(observations=trajectories.observations.astype(np.float32))
    np.testing.assert_array_equal(scores(trajectories), scores(other))


def test_sampled_steps_are_real_and_stand_for_all(random_data, dense):
    trajectories = dense(random_data(n=11, t=6))
    lengths = np.asarray(trajectories.lengths)
    t = np.where(np.asarray(trajectories.mask), np.arange(6), 99)  # padding would be seen
    number = (np.arange(11)[:, None] * 10 + t).astype(np.float32)
    trajectories = trajectories.replace(
        observations=np.stack([number, -number], -1),
        final_observations=np.zeros((11, 2), np.float32),
        actions=np.stack([number], -1),
        num_actions=0,
    )
    policies = TransitionPolicy(memory_budget=SMALL, scored_steps=64)
    data = prepare(policies, trajectories)
    sampled = data.sampled(jax.random.key(0), 64)
    drawn = np.asarray(data.scaling.undo(sampled.chunks.actions)).reshape(-1, 64)[data.rank].round()
    for n, length in enumerate(lengths):
        assert set(drawn[n].tolist()) == set((10 * n + np.arange(length)).astype(float).tolist())
    scale, seen = (np.asarray(x).reshape(-1)[data.rank] for x in (sampled.chunks.scale, sampled.chunks.lengths))
    np.testing.assert_allclose(scale * seen, lengths)
    again = data.sampled(jax.random.key(1), 64)
    assert (np.asarray(again.chunks.actions) != np.asarray(sampled.chunks.actions)).any()
    # Of a trajectory whose steps are all alike, any sample gives the whole log-likelihood.
    alike = trajectories.replace(
        observations=np.repeat(np.asarray(trajectories.observations)[:, :1], 6, 1),
        actions=np.repeat(np.asarray(trajectories.actions)[:, :1], 6, 1),
    )
    data = prepare(policies, alike)
    params = _members(policies, data).params
    some = _log_likelihoods(policies, data.sampled(jax.random.key(0), 5), params)
    np.testing.assert_allclose(some, _log_likelihoods(policies, data, params), rtol=1e-4)


def test_a_history_policy_of_windows_forgets_at_their_ends(random_data, dense):
    trajectories = dense(random_data(n=9, t=11))
    policies = HistoryPolicy(memory_budget=SMALL, window=4)
    data = prepare(policies, trajectories)
    params = _members(policies, data).params
    found = _log_likelihoods(policies, data, params)
    expected = np.zeros_like(found)
    for start in (0, 4, 8):  # each window as a trajectory of its own
        lengths = np.clip(np.asarray(trajectories.lengths) - start, 0, 4)
        rows = np.flatnonzero(lengths)
        cut = trajectories.replace(lengths=lengths[rows].astype(np.int32))
        for name in ("observations", "actions", "rewards"):
            cut = cut.replace(**{name: np.asarray(getattr(trajectories, name))[rows, start : start + 4]})
        expected[..., rows] += _reference(params, policies, data, cut, input_transform(trajectories))[..., : len(rows)]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    starts = np.asarray(policies.starts(jax.random.key(0), jnp.array([1, 4, 5, 11] * 100))).reshape(100, 4)
    assert [sorted(set(column.tolist())) for column in starts.T] == [[0], [0], [0, 4], [0, 4, 8]]
    at = jnp.array([8] * 9)
    steps = data.steps(data.chunks.actions, jnp.arange(9), 4, at)
    ordered = np.asarray(trajectories.actions)[np.asarray(data.order)]
    long = np.asarray(trajectories.lengths)[np.asarray(data.order)] == 11
    np.testing.assert_array_equal(np.asarray(steps)[long, :3], ordered[long, 8:])
