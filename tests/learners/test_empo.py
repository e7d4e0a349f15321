"""EMPO's learner: every loss against NumPy in float64, its stages, acting, resuming in each."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trajclust_jax.clustering import PGKmeans
from trajclust_jax.data import DataError, from_episodes
from trajclust_jax.data.codebook import encode
from trajclust_jax.data.dataset import transitions
from trajclust_jax.data.preparation import returns_to_go
from trajclust_jax.learners import EMPO, Batch, Clustered, Offline
from trajclust_jax.learners import empo as module
from trajclust_jax.networks import MIN_STD
from trajclust_jax.training import fit

D, A, B, K = 3, 2, 12, 2
SMALL = {"features": (8, 8), "actor_features": (6, 6)}
AGENT = EMPO(A, k=K, discount=0.9, expectile=0.8, **SMALL)


def wide(x):
    return np.asarray(x, np.float64)


def dense(layer, x):
    return x @ wide(layer["kernel"]) + wide(layer["bias"])


def mlp(params, x):
    for name in sorted(params):
        x = np.maximum(dense(params[name], x), 0)
    return x


def heads(params, *inputs):
    layers = params["params"]
    return dense(layers["Dense_0"], mlp(layers["MLP_0"], np.concatenate([wide(x) for x in inputs], -1)))


def gaussian(params, k, x):
    layers = jax.tree.map(lambda leaf: leaf[k], params)["params"]
    hidden = mlp(layers["mlp"], wide(x))
    return dense(layers["head"]["mean"], hidden), MIN_STD + np.logaddexp(dense(layers["head"]["std"], hidden), 0)


def log_prob(x, mean, std):
    return (-0.5 * ((x - mean) / std) ** 2 - np.log(std) - 0.5 * np.log(2 * np.pi)).sum(-1)


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.array(rng.standard_normal(shape), jnp.float32)
    return Batch(
        draw(B, D),
        jnp.tanh(draw(B, A)),
        draw(B),
        draw(B, D),
        jnp.arange(B) % 4 == 3,
        trajectory=jnp.arange(B, dtype=jnp.int32) // 3,
        next_actions=jnp.tanh(draw(B, A)),
        n_step_rewards=draw(B),
        n_step_observations=draw(B, D),
        n_step_discount=jnp.array(rng.choice([0, 0.9**3], B), jnp.float32),
        returns=draw(B),
    )


@pytest.fixture(scope="module")
def state():
    """A state as after the clustering: policies beside the behaviours, targets beside what they follow."""
    begun = AGENT.init(jax.random.key(0), D)
    moved = lambda tree, seed: jax.tree.map(
        lambda x: x + 0.2 * jax.random.normal(jax.random.fold_in(jax.random.key(seed), x.size), x.shape), tree
    )
    params = {name: moved(value, 1) for name, value in begun.params.items()}
    known = {
        "behaviours": moved(params["policies"], 2),
        "classifier": AGENT.classifier.init(jax.random.key(3), jnp.zeros((1, D))),
        "clusters": jnp.array([0, 1, 1, 0], jnp.int32),
    }
    targets = {name: moved(value, 4) for name, value in begun.targets.items()}
    return begun.replace(params=params | known, targets=targets)


def own(values, batch):
    return values[np.arange(B), np.array([0, 1, 1, 0])[np.asarray(batch.trajectory)]]


def test_critic_loss(batch, state):
    value = own(heads(state.params["critic"], batch.observations, batch.actions), batch)
    following = own(heads(state.targets["critic"], batch.next_observations, batch.next_actions), batch)
    target = wide(batch.rewards) + 0.9 * np.where(batch.terminated, 0, following)
    loss, info = AGENT.critic_loss(state.params["critic"], state.params, state.targets, batch)
    np.testing.assert_allclose(loss, ((value - target) ** 2).mean(), rtol=1e-4)
    np.testing.assert_allclose(info["critic/bias"], (value - wide(batch.returns)).mean(), rtol=1e-3)


def test_value_loss(batch, state):
    value = own(heads(state.params["value"], batch.observations), batch)
    loss, _ = AGENT.value_loss(state.params["value"], state.params, batch)
    np.testing.assert_allclose(loss, ((value - wide(batch.returns)) ** 2).mean(), rtol=1e-4)


def surrogate(policies, state, batch, key):
    """Eq. 14 of each transition."""
    cluster = np.array([0, 1, 1, 0])[np.asarray(batch.trajectory)]
    noise = wide(jax.random.normal(key, (B, A)))
    each = lambda params: [
        np.stack(x)
        for x in zip(*[gaussian(params, k, batch.observations[i]) for i, k in enumerate(cluster)], strict=True)
    ]
    mean, std = each(state.params["behaviours"])
    drawn = mean + std * noise
    ratio = np.exp(log_prob(drawn, *each(policies)) - log_prob(drawn, mean, std))
    q = own(heads(state.params["critic"], batch.observations, np.clip(drawn, -1, 1)), batch)
    advantage = q - own(heads(state.params["value"], batch.observations), batch)
    return np.minimum(ratio * advantage, np.clip(ratio, 0.8, 1.2) * advantage)


@pytest.mark.parametrize("printed", [False, True])
def test_policy_loss(batch, state, printed):
    agent, key = dataclasses.replace(AGENT, printed_sign=printed), jax.random.key(7)
    weight = jnp.arange(B) / 100.0
    gain = surrogate(state.params["policies"], state, batch, key)
    assert (np.abs(gain) > 0).all()
    expected = (gain * wide(weight)).sum()
    loss, info = agent.policy_loss(state.params["policies"], state.params, batch, key, weight)
    np.testing.assert_allclose(loss, expected if printed else -expected, rtol=2e-3)
    np.testing.assert_allclose(info["policy/gain"], expected, rtol=2e-3)
    _, info = agent.policy_loss(state.params["behaviours"], state.params, batch, key, weight)
    assert info["policy/clipped"] == 0, "as long as policies are the behaviours, every ratio is 1"


def test_high_loss(batch, state):
    value = lambda x: heads(state.params["high_value"], x)[:, 0]
    q = own(heads(state.params["high_critic"], batch.observations), batch)
    target = wide(batch.n_step_rewards) + wide(batch.n_step_discount) * value(batch.n_step_observations)
    difference = own(heads(state.targets["high_critic"], batch.observations), batch) - value(batch.observations)
    expectile = np.where(difference >= 0, 0.8, 0.2) * difference**2
    high = state.params["high_critic"], state.params["high_value"]
    loss, info = AGENT.high_loss(high, state.params, state.targets, batch)
    np.testing.assert_allclose(info["high/critic"], ((q - target) ** 2).mean(), rtol=1e-4)
    np.testing.assert_allclose(loss, ((q - target) ** 2).mean() + expectile.mean(), rtol=1e-4)


def test_targets_move_at_their_periods(batch, state):
    agent = dataclasses.replace(AGENT, critic_period=2, target_rate=0.25, high_period=3)
    for step in range(6):
        after, _ = agent.update_critic(state, batch, jnp.int32(step))
        mixed = jax.tree.map(lambda new, old: 0.25 * new + 0.75 * old, after.params["critic"], state.targets["critic"])
        expected = mixed if step % 2 else state.targets["critic"]
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), after.targets["critic"], expected)
        after, _ = agent.update(state, batch, jnp.int32(step))
        expected = after.params["high_critic"] if step % 3 == 2 else state.targets["high_critic"]
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), after.targets["high_critic"], expected)


def test_returns_to_go():
    trajectories = some_data()
    flat = transitions(trajectories)
    found, expected = returns_to_go(flat, 0.9), []
    for n, length in enumerate(trajectories.lengths):
        rewards = wide(trajectories.rewards[n, :length])
        expected += [(rewards[t:] * 0.9 ** np.arange(length - t)).sum() for t in range(length)]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def some_data(count=12, seed=0):
    """Episodes in the plane; every second one pushes the other way."""
    rng = np.random.default_rng(seed)
    episodes = []
    for n in range(count):
        length = int(rng.integers(6, 12))
        observations = rng.standard_normal((length + 1, D)).astype(np.float32)
        side = 0.5 if n % 2 else -0.5
        actions = np.clip(side + 0.2 * rng.standard_normal((length, A)), -1, 1).astype(np.float32)
        episodes.append((observations, actions, rng.standard_normal(length).astype(np.float32), bool(n % 3)))
    return from_episodes(episodes)


TINY = {
    "bias_epochs": 1,
    "pretrain_epochs": 1,
    "em_epochs": 2,
    "least_steps": 3,
    "critic_updates": 4,
    "value_updates": 4,
    "epochs": 3,
    "updates": 6,
    "batch_size": 8,
    "target_rate": 1.0,
}


def tiny(**settings):
    return Offline(EMPO(A, **{**TINY, **SMALL, **settings}), block=2)


@pytest.mark.slow
def test_an_epoch_is_one_step_on_everything(monkeypatch):
    """In chunks of any size but for the draws: with one behaviour that hardly draws, the gradient is the same."""
    method, data = tiny(), some_data()
    outcome = fit(method, data, 1)
    names = [entry["phase"] for entry in outcome.history]
    assert list(dict.fromkeys(names)) == ["bias", "pretrain", "em", "critic", "value", "choose", "improve"]
    assert names.count("improve") == 1 + 3
    assert names.count("choose") == 1 + 3  # 6 updates in blocks of 2
    prepared = jax.device_put(method.prepare(data, 1))
    count = int(prepared.count)
    assert count < len(transitions(data).rewards), "where a limit cut an episode no next action is known"
    for size in (4, 4096):
        monkeypatch.setattr(module, "CHUNK", size)
        state, seen = None, []
        for phase in method.phases():
            state, _ = phase.start(jax.random.key(0), prepared, state)
            if phase.name == "improve":
                noiseless = jax.tree.map(lambda x: x, state.learner.params["behaviours"])
                noiseless["params"]["head"]["std"]["bias"] = -1e9 * jnp.ones((K, A))
                params = {**state.learner.params, "behaviours": noiseless, "policies": noiseless}
                state = state.replace(learner=state.learner.replace(params=params))
            for iteration in range(phase.budget):
                state, info = phase.step(state, prepared, jnp.int32(iteration))
                seen.append(info)
            if phase.name == "improve":
                break
        assert float(info["policy/clipped"]) <= 1
        if size == 4:
            gain = info["policy/gain"]
    np.testing.assert_allclose(gain, info["policy/gain"], rtol=0.2)


@pytest.mark.parametrize(
    "phase", [*(pytest.param(name, marks=pytest.mark.slow) for name in ("bias", "em", "critic", "choose")), "improve"]
)
def test_resumes_exactly(phase, tmp_path):
    method, data = tiny(), some_data()

    def stop(event):
        if (event.phase, event.iteration) == (phase, min(1, event.budget)):
            raise RuntimeError("killed")

    whole = fit(method, data, 2)
    with pytest.raises(RuntimeError, match="killed"):
        fit(method, data, 2, callbacks=[stop], checkpoint_dir=tmp_path, checkpoint_seconds=0)
    resumed = fit(method, data, 2, checkpoint_dir=tmp_path, checkpoint_seconds=0)
    assert resumed.history == whole.history
    for a, b in zip(jax.tree.leaves(whole.result), jax.tree.leaves(resumed.result), strict=True):
        np.testing.assert_array_equal(a, b)


def test_learns_alone_as_among_others():
    together, alone = fit(tiny(), some_data(), [3, 5]), fit(tiny(), some_data(), [5])
    for a, b in zip(jax.tree.leaves(together.result), jax.tree.leaves(alone.result), strict=True):
        np.testing.assert_allclose(a[1], b[0], atol=2e-4)


def test_acting_takes_the_best_cluster_that_has_been_there(state):
    actor = AGENT.policy(state.params)
    observations = jax.random.normal(jax.random.key(5), (50, D))
    likely = np.asarray(jax.nn.softmax(AGENT.classifier.apply(actor["classifier"], observations).logits))
    values = np.asarray(heads(actor["high_critic"], observations))
    for bound in (1.0, 1.5, 1e9):
        agent = dataclasses.replace(AGENT, restriction=bound)
        allowed = likely >= likely.max(1, keepdims=True) / bound
        expected = np.where(allowed, values, -np.inf).argmax(1)
        np.testing.assert_array_equal(agent.chosen(actor, observations), expected)
        means = np.stack([gaussian(actor["policies"], k, observations)[0] for k in range(K)])
        np.testing.assert_allclose(
            agent.act(actor, observations), np.clip(means[expected, np.arange(50)], -1, 1), atol=1e-4
        )
    one = agent.act(actor, observations[0])
    np.testing.assert_allclose(one, agent.act(actor, observations)[0], atol=1e-6)


def test_a_target_too_slow_for_the_episodes_is_warned_of(caplog):
    tiny(target_rate=0.005).prepare(some_data(), 1)
    assert "raise either" in caplog.text
    caplog.clear()
    tiny(critic_updates=100).prepare(some_data(), 1)
    assert not caplog.text


def test_the_clustering_sees_what_the_learner_sees():
    """In the data's own unit, too, where nothing is normalised."""
    data = some_data()
    far = data.replace(
        **{name: 30 * np.asarray(getattr(data, name)) for name in ("observations", "final_observations")}
    )
    for normalise in (True, False):
        prepared = dataclasses.replace(tiny(critic_updates=100), normalise=normalise).prepare(far, 1)
        seen = [x for x in map(np.asarray, jax.tree.leaves(prepared.before)) if x.ndim == 4 and x.shape[-1] == D]
        np.testing.assert_allclose(np.abs(seen[0]).max(), np.abs(prepared.batch.observations).max(), rtol=1e-5)


def test_what_it_cannot_learn_from_is_refused():
    with pytest.raises(DataError, match="finds clusters itself"):
        tiny().prepare(Clustered(some_data(), np.zeros(12, int), 1), 1)
    images = some_data().replace(
        observations=np.zeros((12, 11, D), np.uint8), final_observations=np.zeros((12, D), np.uint8)
    )
    with pytest.raises(DataError, match="real numbers"):
        tiny().prepare(images, 1)
    assert tiny().prepare(encode(some_data()), 1).before is not None, "real numbers that are stored once each"
    with pytest.raises(ValueError, match="can be swept"):
        Offline(EMPO(A, **{**TINY, **SMALL}), block=2, sweep=(("discount", (0.9, 0.99)),))
    for settings in ({"k": 0}, {"expectile": 1.0}, {"restriction": 0.5}, {"clip": 0.0}):
        with pytest.raises(ValueError, match="must be"):
            tiny(**settings)


@pytest.mark.slow
def test_pg_kmeans_clusters_in_place_of_its_own(monkeypatch):
    """Its clusters, its policies, and a classifier that is trained on them afterwards."""
    quick = {"iterations": 2, "polish_iterations": 1, "polish_first_steps": 3, "first_steps": 2, "steps": 2}
    monkeypatch.setattr(module, "LONG_CONTINUOUS", {(PGKmeans, "mlp"): quick})
    monkeypatch.setattr(module, "ACTING_STEPS", 3)
    method, data = tiny(clusterer="pg_kmeans", classifier_updates=400, learning_rate=1e-2), some_data()
    outcome = fit(method, data, 2)
    names = list(dict.fromkeys(entry["phase"] for entry in outcome.history))
    assert names[-5:] == ["classify", "critic", "value", "choose", "improve"]
    assert "em" in names
    actor = jax.tree.map(lambda x: x[0], outcome.result.actor)
    assert actor["clusters"].shape == (data.num_trajectories,)
    losses = [entry["classifier/loss"][0] for entry in outcome.history if "classifier/loss" in entry]
    assert losses[-1] < losses[0]
    with pytest.raises(ValueError, match="unknown clusterer"):
        tiny(clusterer="kmeans")
