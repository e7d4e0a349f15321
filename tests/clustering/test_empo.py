"""EMPO's clustering: all phases against NumPy, momentum, the heuristics, the classifier."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, rel_entr

from trajclust_jax.clustering import EmpoEM, Sorl
from trajclust_jax.clustering.empo import kl_loss
from trajclust_jax.clustering.empo_grid import EmpoGrid
from trajclust_jax.clustering.policies import CountedPolicy
from trajclust_jax.data import Trajectories
from trajclust_jax.metrics import nmi
from trajclust_jax.training import fit


def test_all_phases_equal_numpy(random_data):
    """Algorithm 1 in float64 on tables, whose M-steps are exact: bias, pre-training, three E-steps with momentum."""
    trajectories = random_data(n=12, t=5)
    method = EmpoEM.default(3, "tabular", bias_epochs=2, pretrain_epochs=1, iterations=3, momentum=0.7)
    prepared = jax.device_put(method.prepare(trajectories))
    state, rank, log_pi = None, prepared.data.rank, None

    def m_step(weights):
        counts = np.zeros((3, 6, 4))
        for n, length in enumerate(trajectories.lengths):
            for t in range(length):
                counts[:, trajectories.observations.ids[n, t], trajectories.actions[n, t]] += weights[n]
        smoothed = counts + 1e-2
        return np.log(smoothed / smoothed.sum(-1, keepdims=True))

    def log_likelihoods(log_pi):
        ids, actions = trajectories.observations.ids, trajectories.actions
        steps = [(ids[n, :length], actions[n, :length]) for n, length in enumerate(trajectories.lengths)]
        return np.array([log_pi[:, seen, taken].sum(1) for seen, taken in steps])

    softmax = lambda scores: np.exp(log_softmax(scores, axis=1))
    for index, phase in enumerate(method.phases()):
        state, info = phase.start(jax.random.key(index), prepared, state)
        if phase.name == "bias":
            average = np.eye(3)[np.asarray(info["assignments"][0])]
        elif phase.name == "pretrain":
            average = np.full((12, 3), 1 / 3)
        else:  # Q^(1), of the pre-trained policies
            average = 0.7 * average + 0.3 * softmax(log_likelihoods(log_pi))
        np.testing.assert_allclose(state.assignments[0][rank], average, atol=1e-4)
        for iteration in range(phase.budget):
            state, info = phase.step(state, prepared, np.int32(iteration))
            log_pi = m_step(average)
            if phase.name == "em":
                average = 0.7 * average + 0.3 * softmax(log_likelihoods(log_pi))
            np.testing.assert_allclose(state.assignments[0][rank], average, atol=1e-4)
    result = method.result(state, prepared)
    np.testing.assert_allclose(result.posterior, softmax(log_likelihoods(log_pi)), atol=1e-4)  # without momentum
    np.testing.assert_array_equal(result.assignments, result.posterior.argmax(1))


def test_without_heuristics_it_is_sorl_but_for_its_start(random_data):
    """mu = 0, and Q = 1 / K at first in place of a random partition: from the same state, the same step."""
    trajectories = random_data(n=12, t=5)
    plain = EmpoEM.default(3, "tabular", bias_epochs=0, pretrain_epochs=0, momentum=0.0, iterations=2)
    sorl = Sorl.default(3, "tabular", iterations=2, tolerance=0.0, patience=9)
    prepared = jax.device_put(plain.prepare(trajectories))
    (em,) = plain.phases()
    start, _ = sorl.phases()[0].start(jax.random.key(0), prepared, None)
    state, _ = em.start(jax.random.key(0), prepared, None)
    np.testing.assert_allclose(state.assignments.sum(-1), 1, atol=1e-6)
    ours, _ = em.step(state.replace(assignments=start.assignments), prepared, jnp.int32(0))
    theirs, _ = sorl.phases()[0].step(start, prepared, jnp.int32(0))
    np.testing.assert_allclose(ours.assignments, theirs.assignments, atol=1e-6)


def test_momentum_leaves_a_known_weight_on_the_wrong_cluster(conflict):
    """After k E-steps of posteriors that are 0 and 1: (1 - 1 / K) mu^k is left of what was shared out evenly."""
    trajectories, labels = conflict(k=2, n=40)
    method = EmpoEM(2, bias_epochs=3, pretrain_epochs=0, iterations=6, least_steps=300)
    prepared = jax.device_put(method.prepare(trajectories))
    bias = method.phases()[0]
    em = dataclasses.replace(method, least_steps=1).phases()[1]  # policies stay nearly as they are
    state, _ = bias.start(jax.random.key(0), prepared, None)
    truth = np.eye(2)[labels][prepared.data.order]  # the right groups: the policies lock at once
    state = state.replace(assignments=state.assignments.at[0, : len(labels)].set(truth))
    for iteration in range(3):
        state, _ = bias.step(state, prepared, jnp.int32(iteration))
    state, _ = em.start(jax.random.key(1), prepared, state)
    for k in range(1, 6):
        wrong = np.asarray(state.assignments[0, : len(labels)])[truth == 0]
        np.testing.assert_allclose(wrong, 0.5 * 0.9**k, rtol=0.05)
        state, _ = em.step(state, prepared, jnp.int32(k - 1))


@pytest.mark.parametrize("policy", ["tabular", "mlp"])
def test_policies_that_disagree_are_told_apart(conflict, policy):
    trajectories, labels = conflict(k=2, n=40)
    method = EmpoEM.default(2, policy, bias_epochs=3, iterations=15, least_steps=25 if policy == "tabular" else 50)
    result = fit(method, trajectories, 2).result
    assert max(nmi(labels, np.asarray(found)) for found in result.assignments) == pytest.approx(1)


def test_a_centred_first_e_step_shares_trajectories_out():
    """One policy that is better than the other everywhere claims everything, but not more than its mean."""
    trajectories, _ = walks()
    used = {}
    for centred in (False, True):
        method = EmpoEM(
            2, bias_epochs=0, pretrain_epochs=1, iterations=1, least_steps=40, centred=centred, momentum=0.0
        )
        prepared = jax.device_put(method.prepare(trajectories))
        pretrain, em = method.phases()
        state, _ = pretrain.start(jax.random.key(0), prepared, None)
        state, _ = pretrain.step(state, prepared, jnp.int32(0))
        head = state.members.params["params"]["head"]
        vague = {**head, "std": {**head["std"], "bias": head["std"]["bias"].at[0, 0].add(2.0)}}
        params = {"params": {**state.members.params["params"], "head": vague}}
        state = state.replace(members=state.members.replace(params=params))
        _, info = em.start(jax.random.key(1), prepared, state)
        used[centred] = int(info["used_clusters"][0])
    assert used == {False: 1, True: 2}


def walks(n=20, t=30, seed=0):
    """Two behaviours in the plane: one goes up and one down, from around 0, and later right of it and left of it."""
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1], n)
    side = np.where(labels == 0, 1.0, -1.0)[:, None]
    place = side * (np.arange(t) >= t // 2)
    observations = np.stack([place + 0.2 * rng.standard_normal((2 * n, t)), rng.standard_normal((2 * n, t))], -1)
    actions = np.stack([0 * side + rng.standard_normal((2 * n, t)), side + 0.3 * rng.standard_normal((2 * n, t))], -1)
    return Trajectories(
        observations=observations.astype(np.float32),
        actions=actions.astype(np.float32),
        rewards=np.zeros((2 * n, t), np.float32),
        lengths=np.full(2 * n, t, np.int32),
        terminated=np.zeros(2 * n, bool),
        final_observations=observations[:, -1].astype(np.float32),
    ), labels


def test_the_classifier_knows_where_the_clusters_have_been():
    trajectories, labels = walks()
    method = EmpoEM(2, pretrain_epochs=1, iterations=25, least_steps=40)
    result = fit(method, trajectories, 1).result
    found = np.asarray(result.assignments[0])
    assert nmi(labels, found) == pytest.approx(1)
    prepared = method.prepare(trajectories)
    inputs = jnp.asarray(prepared.data.chunks.inputs).reshape(-1, 2)
    slots = np.repeat(np.asarray(found)[np.asarray(prepared.data.order)], trajectories.max_length)
    params = jax.tree.map(lambda x: x[0], result.classifier)
    probabilities = np.asarray(method.classify(params, inputs[: len(slots)]))
    own = probabilities[np.arange(len(slots)), slots].reshape(-1, trajectories.max_length)
    half = trajectories.max_length // 2
    assert np.abs(own[:, :half].mean() - 0.5) < 0.05  # both have been there
    assert own[:, half:].mean() > 0.85  # momentum still has a share on the wrong cluster


def test_on_counts_the_classifier_learns_shares_of_visits(random_data, monkeypatch):
    """Which trajectories have been at a row of the codebook, each by its Q and as often as it was there."""
    trajectories = random_data(n=12, t=5)
    settings = (("features", (16,)), ("learning_rate", 3e-2))
    method = EmpoEM(3, restarts=1, policy_settings=settings)
    prepared = jax.device_put(method.prepare(trajectories))
    state, _ = method.phases()[0].start(jax.random.key(0), prepared, None)
    own = np.random.default_rng(0).dirichlet(np.ones(3), 12).astype(np.float32)
    calls, counts = [], CountedPolicy.counts
    monkeypatch.setattr(CountedPolicy, "counts", lambda *given: calls.append(given) or counts(*given))
    jax.eval_shape(lambda: method._epoch(state, prepared, jnp.int32(0)))
    assert len(calls) == 1  # for policies and classifier
    count = lambda soft: prepared.policies.counts(soft, 3, prepared.data)
    train = jax.jit(lambda member, soft: method._classify(member, count(soft), state.key, prepared, jnp.int32(400)))
    found = train(jax.tree.map(lambda x: x[0], state.classifier), prepared.data.slots(jnp.asarray(own)))
    visits = np.zeros((6, 3))
    for n, length in enumerate(trajectories.lengths):
        np.add.at(visits, trajectories.observations.ids[n, :length], own[n])
    shares = method.classify(found.params, prepared.data.table)
    np.testing.assert_allclose(shares, visits / visits.sum(1, keepdims=True), atol=5e-3)


def test_the_classifiers_loss_is_kl():
    rng = np.random.default_rng(0)
    logits, target = rng.standard_normal((7, 3)), rng.dirichlet(np.ones(3), 7)
    target[0] = [1, 0, 0]
    expected = rel_entr(target, np.exp(log_softmax(logits, axis=1))).sum(1).mean()
    np.testing.assert_allclose(kl_loss(jnp.array(logits), jnp.array(target)), expected, rtol=1e-5)
    gradient = jax.grad(kl_loss)(jnp.array(logits), jnp.array(target))
    np.testing.assert_allclose(gradient, (np.exp(log_softmax(logits, axis=1)) - target) / 7, atol=1e-6)


def test_vmapped_equals_lone_and_seeds_reproduce():
    trajectories, _ = walks(6, 10)
    method = EmpoEM(2, bias_epochs=1, pretrain_epochs=1, iterations=3, least_steps=5, restarts=2)
    three, again = (fit(method, trajectories, 3) for _ in range(2))
    for a, b in zip(jax.tree.leaves(three.result), jax.tree.leaves(again.result), strict=True):
        np.testing.assert_array_equal(a, b)
    lone = fit(method, trajectories, [2])
    for a, b in zip(jax.tree.leaves(three.result), jax.tree.leaves(lone.result), strict=True):
        np.testing.assert_allclose(a[2], b[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("n", [1, 2])
def test_a_trajectory_or_two(n):
    trajectories, _ = walks(1, 4)
    one = jax.tree.map(lambda x: x[:n], trajectories)
    result = fit(EmpoEM(3, bias_epochs=1, pretrain_epochs=1, iterations=2), one, 1).result
    assert np.isfinite(result.posterior).all()
    np.testing.assert_allclose(result.posterior.sum(-1), 1, rtol=1e-5)


def test_settings_are_checked():
    for settings in ({"momentum": 1.5}, {"bias_epochs": -1}, {"iterations": 0}, {"policy": "planner"}):
        with pytest.raises(ValueError, match=r"must be|unknown"):
            EmpoEM(2, **settings)


def test_a_grids_runs_are_those_of_its_settings(conflict):
    """A run that has all heuristics is the method's own; one without some stands still in their epochs."""
    trajectories, _ = conflict(k=2, n=12)
    small = {"iterations": 3, "policy_settings": (("features", (4,)),)}
    grid = EmpoGrid.over(2, ((2, 3, 0.5), (1, 0, 0.0), (0, 3, 0.9)), **small)
    method = EmpoEM(2, bias_epochs=2, pretrain_epochs=3, momentum=0.5, **small)
    together, alone = fit(grid, trajectories, 2).result, fit(method, trajectories, 2).result
    np.testing.assert_array_equal(together.restart_assignments[:, 0], alone.assignments)
    np.testing.assert_allclose(together.restart_objectives[:, 0], alone.objective, rtol=1e-4)
    prepared, state = jax.device_put(grid.prepare(trajectories, 1)), None
    moved = {}
    for index, phase in enumerate(grid.phases()):
        state, _ = phase.start(jax.random.key(index), prepared, state)
        moved[phase.name] = []
        for iteration in range(phase.budget):
            before, averaged = state.members.params, state.assignments
            state, _ = phase.step(state, prepared, jnp.int32(iteration))
            same = jax.tree.map(lambda a, b: np.asarray((a == b).reshape(3, -1).all(1)), before, state.members.params)
            moved[phase.name].append((~np.array(jax.tree.leaves(same)).all(0)).tolist())
    assert moved["bias"] == [[True, True, False], [True, False, False]]
    assert moved["pretrain"] == [[True, False, True]] * 3
    assert moved["em"] == [[True] * 3] * 3
    posterior = grid._soft_e_step(state.members, prepared)[1]
    np.testing.assert_allclose(state.assignments[1], posterior[1], atol=1e-4)  # no momentum
    np.testing.assert_allclose(state.assignments[2], 0.9 * averaged[2] + 0.1 * posterior[2], atol=1e-4)


def test_a_grids_settings_are_checked():
    with pytest.raises(ValueError, match="momentum"):
        EmpoGrid.over(2, ((1, 1, 1.5),))
    with pytest.raises(ValueError, match="the grid has 1 settings"):
        EmpoGrid(2, restarts=2, settings=((1, 1, 0.5),))
