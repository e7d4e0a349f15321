"""LBRAC-v: every loss against NumPy in float64, its stages, K swept in one program, clusters given, resuming."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from learner_reference import A, D, embedded, moved, some_batch, unit, wide

from trajclust_jax.data import from_episodes, returns
from trajclust_jax.learners import C4, DR3, LayerNorm, LBRACv, Offline
from trajclust_jax.learners.sampling import View
from trajclust_jax.training import fit

N, K = 4, 3
SMALL = {"features": (8, 8, 7), "actor_features": (6, 6, 5), "k": K, "embedding_size": 3, "scale": 1.0}
AGENT = LBRACv(A, discount=0.9, penalty=0.7, value_penalty=0.5, **SMALL)
BATCH = some_batch()._replace(trajectory=jnp.array([0, 1, 2, 3, 0, 2], jnp.int32))
KEY = jax.random.key(5)


@pytest.fixture(scope="module")
def state():
    begun = AGENT.init(jax.random.key(0), D, N)
    return begun.replace(params=moved(begun.params), targets=moved(begun.targets, 10))


def code(actor):
    return (unit(actor["trajectories"]) @ unit(actor["codes"]).T).argmax(1)[np.asarray(BATCH.trajectory)]


def policy(actor, observations, embeddings):
    """Mean and log std."""
    embeddings = np.broadcast_to(wide(embeddings), (len(observations), 3))
    mean, log_std = np.split(embedded(actor["network"], observations, embeddings, 3), 2, -1)
    return mean, np.clip(log_std, -10, 10)


def values(critics, observations, actions, embeddings):
    """`[2, B]`; embeddings `[2, ...]`."""
    inputs = np.concatenate([wide(observations), wide(actions)], -1)
    one = lambda i: jax.tree.map(lambda x: x[i], critics["network"])
    rows = lambda i: np.broadcast_to(wide(embeddings[i]), (len(inputs), 3))
    return np.stack([embedded(one(i), inputs, rows(i), 3)[:, 0] for i in range(2)])


def kl(one, other):
    (m1, s1), (m2, s2) = one, other
    return (s2 - s1 + (np.exp(2 * s1) + (m1 - m2) ** 2) / (2 * np.exp(2 * s2)) - 0.5).sum(-1)


def drawn(parameters, key):
    mean, log_std = parameters
    return np.tanh(mean + np.exp(log_std) * wide(jax.random.normal(key, mean.shape)))


def squared_error(found, following):
    target = wide(BATCH.rewards) + 0.9 * np.where(BATCH.terminated, 0, following)
    return ((found - target) ** 2).mean(1).sum()


def held_to(agent, actor, observations):
    """KL of pi to the sample's own behaviour, or to the nearest one."""
    pi = policy(actor, observations, actor["own"])
    each = np.stack([kl(pi, policy(actor, observations, actor["codes"][k])) for k in range(K)])
    return each.min(0) if agent.nearest else each[code(actor), np.arange(len(observations))]


@pytest.mark.parametrize("nearest", [False, True])
def test_losses_of_the_policy(state, nearest):
    agent = dataclasses.replace(AGENT, nearest=nearest)
    actor, critics, targets = state.params["actor"], state.params["critics"], state.targets["critics"]
    pi = policy(actor, BATCH.next_observations, actor["own"])
    following = values(targets, BATCH.next_observations, drawn(pi, KEY), targets["own"]).min(0)
    following = following - 0.5 * 0.7 * held_to(agent, actor, BATCH.next_observations)
    expected = squared_error(values(critics, BATCH.observations, BATCH.actions, critics["own"]), following)
    loss, _ = agent.critic_loss(critics, state.params, state.targets, BATCH, KEY)
    np.testing.assert_allclose(loss, expected, rtol=5e-4)

    pi = policy(actor, BATCH.observations, actor["own"])
    value = values(critics, BATCH.observations, drawn(pi, KEY), critics["own"]).min(0)
    expected = 0.7 * held_to(agent, actor, BATCH.observations).mean() - value.mean()
    loss, _ = agent.actor_loss(actor, state.params, BATCH, KEY)
    np.testing.assert_allclose(loss, expected, rtol=5e-4)


def test_losses_of_the_behaviours(state):
    actor, critics, targets = state.params["actor"], state.params["critics"], state.targets["critics"]
    chosen = code(actor)
    actions = drawn(policy(actor, BATCH.next_observations, wide(actor["codes"])[chosen]), KEY)
    following = values(targets, BATCH.next_observations, actions, targets["codes"][:, chosen]).min(0)
    found = values(critics, BATCH.observations, BATCH.actions, critics["codes"][:, chosen])
    loss, _ = AGENT.behaviour_critic_loss(critics, state.params, state.targets, BATCH, KEY)
    np.testing.assert_allclose(loss, squared_error(found, following), rtol=5e-4)
    both, _ = AGENT.actor_and_behaviour_loss(actor, state.params, BATCH, KEY)
    alone = AGENT.actor_loss(actor, state.params, BATCH, KEY)[0] + AGENT.behaviour_loss(actor, BATCH)[0]
    np.testing.assert_allclose(both, alone, rtol=1e-5)


def test_whom_the_penalty_moves(state):
    """Not the codes, unless the release's way is asked for."""
    of_penalty = lambda agent: jax.grad(
        lambda actor: (
            agent.actor_and_behaviour_loss(actor, state.params, BATCH, KEY)[0] - agent.behaviour_loss(actor, BATCH)[0]
        )
    )(state.params["actor"])
    assert np.abs(of_penalty(AGENT)["codes"]).max() < 1e-5
    assert np.abs(of_penalty(AGENT)["own"]).max() > 1e-3
    released = dataclasses.replace(AGENT, moves_behaviours=True)
    assert np.abs(of_penalty(released)["codes"]).max() > 1e-3


def some_data(count=12, seed=0):
    """Episodes of two policies; those of the second have better returns."""
    rng = np.random.default_rng(seed)
    episodes = []
    for n in range(count):
        length = int(rng.integers(3, 9))
        observations = rng.standard_normal((length + 1, D)).astype(np.float32)
        side = 0.5 if n % 2 else -0.5
        actions = np.clip(side + 0.1 * rng.standard_normal((length, A)), -1, 1).astype(np.float32)
        episodes.append((observations, actions, np.full(length, side, np.float32), bool(n % 3)))
    return from_episodes(episodes)


TINY = {"batch_size": 16, "updates": 8, "behaviour_updates": 8}


def tiny(**settings):
    return Offline(LBRACv(A, **{**SMALL, **TINY, **settings}), block=4)


def test_begins_at_the_best_code_that_has_trajectories(state):
    """By hand; of clusters that are given the third has none, and none of its percentiles."""
    data = some_data()
    given = tuple(n % 2 for n in range(12))
    method = tiny(given=given)
    prepared = method.prepare(data, 1)
    view = View(prepared, prepared.first, prepared.count, prepared.scaling)
    after, info = method.learner.begin_at_best(state, view, jnp.int32(0))
    assert (int(info["begin/code"]), int(info["begin/used_codes"])) == (1, 2)
    np.testing.assert_array_equal(after.params["actor"]["own"], state.params["actor"]["codes"][1])
    for critics, before in ((after.params["critics"], state.params), (after.targets["critics"], state.targets)):
        np.testing.assert_array_equal(critics["own"], before["critics"]["codes"][:, 1])
    means = [returns(data)[np.array(given) == k].mean() for k in range(2)]
    assert means[1] > means[0]
    np.testing.assert_array_equal(after.params["actor"]["codes"], state.params["actor"]["codes"])
    nearest = tiny(given=given, nearest=True).learner  # what no trajectory trained is no behaviour to be near to
    codes = nearest.begin_at_best(state, view, jnp.int32(0))[0].params["actor"]["codes"]
    np.testing.assert_array_equal(codes[:2], state.params["actor"]["codes"][:2])
    assert not np.asarray(codes[2:]).any()


def test_a_code_that_emptied_before_the_policy_begins_stays_unused():
    """Whatever Adam remembers of it; the others go on."""
    agent = tiny(nearest=True).learner
    state = agent.init(jax.random.key(0), D, N)
    state = state.replace(params={**state.params, "actor": {**state.params["actor"], "codes": 0.1 * jnp.eye(3)}})
    for step in range(3):
        state, _ = agent.update_behaviours(state, BATCH, jnp.int32(step))
    emptied = int(agent.code(state.params["actor"], BATCH.trajectory)[0])
    codes = state.params["actor"]["codes"].at[emptied].set(0)  # as `begin_at_best` does
    state = state.replace(params={**state.params, "actor": {**state.params["actor"], "codes": codes}})
    remembered = [x for x in jax.tree.leaves(state.optimizer) if x.shape == codes.shape]
    assert any(np.abs(x[emptied]).max() > 0 for x in remembered)
    for step in range(3):
        state, _ = agent.update(state, BATCH, jnp.int32(step))
    after = np.asarray(state.params["actor"]["codes"])
    assert not after[emptied].any()
    assert (after != np.asarray(codes)).any(-1).sum() >= 1


@pytest.mark.slow
def test_k_is_swept_in_one_program():
    """With codes out of use, each as it would be alone."""
    data = some_data()
    learner = LBRACv(A, **{**SMALL, **TINY, "room": 4})
    swept = fit(Offline(learner, block=4, sweep=(("k", (1, 2, 4)),)), data, 2)
    actor = swept.result.actor
    assert actor["codes"].shape == (2, 3, 4, 3)
    assert (np.asarray(actor["codes"]) != 0).any(-1).sum(-1).tolist() == [[1, 2, 4]] * 2
    clusters = np.asarray(learner.assignments(actor))
    assert clusters.shape == (2, 3, 12)
    assert clusters.max(-1).max(0)[0] == 0
    for place, k in enumerate((1, 2, 4)):
        alone = fit(tiny(k=k), data, 2)
        own = np.asarray(alone.result.actor["own"])
        np.testing.assert_allclose(np.asarray(actor["own"])[:, place], own, atol=2e-4)
    with pytest.raises(ValueError, match="at least k"):
        Offline(learner, block=4, sweep=(("k", (5,)),))


def test_clusters_that_are_given():
    given = tuple(n % 2 for n in range(12))
    outcome = fit(tiny(given=given, k=2), some_data(), 1)
    found = tiny(given=given, k=2).learner.assignments(outcome.result.actor)
    np.testing.assert_array_equal(found, [given])
    assert outcome.history[-1]["behaviour/loss"][0] < 10
    with pytest.raises(ValueError, match="given has 12 clusters, the data 5"):
        tiny(given=given, k=2).prepare(some_data(5), 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"given": (0, 3)}, "k is 3"),
        ({"room": 2}, "at least k"),
        ({"k": 0}, "must be"),
        ({"scale": 0.0}, "must be"),
        ({"behaviour_rate": 0.0}, "must be"),
        ({"layer_norm": True}, "which layer_norm and plug-ins of a learner do not change"),
    ],
)
def test_settings_that_make_no_sense(settings, message):
    with pytest.raises(ValueError, match=message):
        tiny(**settings)


@pytest.mark.parametrize("plug_in", [C4, DR3, LayerNorm])
def test_plug_ins_are_refused(plug_in):
    """They know critics whose parameters are one network's; layer normalisation would change nothing."""
    with pytest.raises(ValueError, match="plug-ins of a learner do not change"):
        Offline(plug_in(LBRACv(A)))


def test_stages():
    names = lambda **settings: [stage.name for stage in tiny(**settings).learner.stages()]
    assert names() == ["behaviours", "begin", "train"]
    assert names(warm_updates=4) == ["behaviours", "begin", "warm", "train"]
