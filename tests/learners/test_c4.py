"""C^4: its penalty and sampler by hand, the learner that it leaves alone, one meaning of the weight, and its theory."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from learner_reference import SIZE, A, D, critics, episodes, moved_state, some_batch, wide

from trajclust_jax.clustering.gaussian import GaussianMixture, regress, squared_lengths
from trajclust_jax.learners import AWAC, C4, CQL, DR3, EMPO, IQL, SAC, TD3BC, BRACv, LayerNorm, Offline, plugged
from trajclust_jax.learners import c4 as parts
from trajclust_jax.learners.c4 import Pairs, decompose, measured
from trajclust_jax.learners.sampling import View
from trajclust_jax.training import fit

M = D + A
SMALL = {"features": (8, 8), "actor_features": (6,)}
FEW = {"updates": 6, "batch_size": 4, **SMALL}
CLUSTERING = {"recluster_every": 3, "em_iterations": 2, "clusters": 3}
KEY = jax.random.key(2)
KEYS = {IQL: None, CQL: tuple(jax.random.split(KEY))}  # as their updates give them; the others' is one key
LEARNERS = [TD3BC, *(pytest.param(x, marks=pytest.mark.slow) for x in (IQL, CQL, SAC, AWAC, BRACv))]


def sampler_state(unit=1.0):
    """What a batch carries of the sampler, as far as a loss looks."""
    m = 2 * M
    mixture = GaussianMixture(jnp.ones(1), jnp.zeros((1, m)), jnp.eye(m)[None])
    measured = dict.fromkeys(parts.MEASURED, jnp.float32(0))
    return parts.Clusters(
        mixture, jnp.array(True), jnp.zeros(1, jnp.int32), jnp.ones((1, 1)), jnp.float32(unit), jnp.float32(1), measured
    )


def paired_batch(unit=1.0):
    batch = some_batch()
    actions = jnp.tanh(jax.random.normal(jax.random.key(7), (SIZE, A)))
    paired = jnp.array([True, True, True, False, True, True])
    return batch._replace(next_actions=actions, paired=paired, sampler=sampler_state(unit))


def gradients(params, observations, actions):
    """`[2, B, M]` of critics in NumPy float64, by central differences."""
    inputs = np.concatenate([wide(observations), wide(actions)], -1)
    steps = 1e-5 * np.eye(M)
    value = lambda x: critics(params, x[:, :D], x[:, D:])
    return np.stack([(value(inputs + step) - value(inputs - step)) / 2e-5 for step in steps], -1)


def penalties(state, batch, beta):
    """`[2]`: Eq. 13 in NumPy float64."""
    counted = np.asarray(batch.paired)
    now = gradients(state.params["critics"], batch.observations, batch.actions)[:, counted]
    then = gradients(state.targets["critics"], batch.next_observations, batch.next_actions)[:, counted]
    found = []
    for g, following in zip(now, then, strict=True):
        covariance = np.cov(following.T, g.T)[:M, M:]
        found.append((covariance**2).sum() + beta * np.trace(covariance) ** 2)
    return np.array(found)


def test_the_penalty_is_eq_13s():
    agent = C4(TD3BC(A, **SMALL), weight=0.3, trace_weight=0.5)
    state, batch = moved_state(agent.init(jax.random.key(0), D)), paired_batch(unit=0.25)
    loss = lambda agent: agent.critic_loss(state.params["critics"], state.params, state.targets, batch, KEY)
    (whole, info), (base, _) = loss(agent), loss(TD3BC(A, **SMALL))
    wanted = 0.25 * penalties(state, batch, 0.5)
    np.testing.assert_allclose(info["critic/penalty"], wanted.mean(), rtol=1e-4)
    np.testing.assert_allclose(whole - base, 0.3 * wanted.sum(), rtol=1e-4)


def test_its_gradient_is_exact():
    """Double back-propagation against finite differences of the float64 penalty, in a random direction."""
    agent = C4(TD3BC(A, **SMALL), weight=1.0)
    state, batch = moved_state(agent.init(jax.random.key(0), D)), paired_batch()
    loss = lambda critics, agent: agent.critic_loss(critics, state.params, state.targets, batch, KEY)[0]
    of = lambda agent: jax.grad(loss)(state.params["critics"], agent)
    found = jax.tree.map(lambda x, y: x - y, of(agent), of(TD3BC(A, **SMALL)))
    rng = np.random.default_rng(0)
    direction = jax.tree.map(lambda x: rng.normal(size=x.shape), found)

    def penalty(size):
        moved = jax.tree.map(lambda x, d: np.float64(x) + size * d, state.params["critics"], direction)
        return penalties(state.replace(params={**state.params, "critics": moved}), batch, 0.0).sum()

    along = sum(jax.tree.leaves(jax.tree.map(lambda g, d: (np.float64(g) * d).sum(), found, direction)))
    np.testing.assert_allclose(along, (penalty(1e-4) - penalty(-1e-4)) / 2e-4, rtol=1e-3)


@pytest.mark.parametrize("algorithm", LEARNERS)
def test_one_cluster_and_weight_0_are_the_learner_bit_for_bit(algorithm):
    more = {"behaviour_updates": 6} if algorithm is BRACv else {}
    base = algorithm(A, **FEW, **more)
    found = [
        fit(Offline(learner, block=3), episodes(), 2)
        for learner in (base, C4(base, weight=0.0, clusters=1, recluster_every=2))
    ]
    jax.tree.map(np.testing.assert_array_equal, found[0].result, found[1].result)
    assert found[1].history[-1]["clusters/variance"][0] > 0  # and yet it looked


@pytest.mark.parametrize("algorithm", LEARNERS)
def test_it_wraps_every_learner(algorithm):
    """Seeds side by side are lone ones; clusters are found again; all is finite."""
    more = {"behaviour_updates": 6} if algorithm is BRACv else {}
    learner = C4(algorithm(A, **FEW, **more), weight=0.5, **CLUSTERING)
    assert isinstance(learner, C4)
    assert isinstance(learner, algorithm)
    both = fit(Offline(learner, block=6), episodes(), 2)
    lone = fit(Offline(learner, block=6), episodes(), [1])
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x[1], y[0], rtol=1e-4, atol=1e-5), both.result.actor, lone.result.actor
    )
    last = both.history[-1]
    assert np.isfinite(last["critic/penalty"]).all()
    assert all(1 <= count <= 3 for count in last["clusters/effective"])
    state = moved_state(learner.init(jax.random.key(0), D))
    key = KEYS.get(algorithm, KEY)
    loss, info = learner.critic_loss(state.params["critics"], state.params, state.targets, paired_batch(), key)
    assert np.isfinite(loss)
    assert info["critic/penalty"] > 0


def test_resumed_in_the_midst_it_ends_alike(tmp_path):
    learner = C4(TD3BC(A, **{**FEW, "updates": 8}), **CLUSTERING)
    whole = fit(Offline(learner, block=2), episodes(), 1)

    def stop(event):
        if event.iteration == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(Offline(learner, block=2), episodes(), 1, callbacks=[stop], checkpoint_dir=tmp_path, checkpoint_seconds=0)
    resumed = fit(Offline(learner, block=2), episodes(), 1, checkpoint_dir=tmp_path)
    assert resumed.resumed
    jax.tree.map(np.testing.assert_array_equal, whole.result, resumed.result)


def test_rewards_times_10_change_nothing():
    """Values and rewards 10 times as large: the loss 100 times, and the penalty's share of it is the same."""
    agent = C4(TD3BC(A, **SMALL), weight=0.3, **CLUSTERING)
    offline = Offline(agent, block=1)
    trajectories = episodes()
    shares, units = [], []
    for times in (1.0, 10.0):
        scaled = trajectories.replace(rewards=np.float32(times) * trajectories.rewards)
        data = jax.tree.map(jnp.asarray, offline.prepare(scaled, 1))
        view = View(data, data.first, data.count, data.scaling)
        state = moved_state(agent.init(jax.random.key(0), D))
        last = lambda critics, times=times: {
            "params": {
                name: jax.tree.map(lambda x, name=name: x * times if name == "Dense_2" else x, layer)
                for name, layer in critics["params"].items()
            }
        }
        state = state.replace(
            params={**state.params, "critics": last(state.params["critics"])},
            targets={**state.targets, "critics": last(state.targets["critics"])},
        )
        sampler = agent.sampler.renew(agent.sampler.init(view), agent, state, view, 0)
        batch = view.batch(jnp.arange(20))._replace(sampler=sampler)
        info = agent.critic_loss(state.params["critics"], state.params, state.targets, batch, KEY)[1]
        shares.append(float(info["critic/penalty"] / info["critic/loss"]))
        units.append(float(sampler.unit))
        assert info["critic/penalty"] > 0
    np.testing.assert_allclose(shares[0], shares[1], rtol=1e-3)
    np.testing.assert_allclose(units[0], 100 * units[1], rtol=1e-3)


# --- the sampler -------------------------------------------------------------------------------------------


def test_minibatches_are_of_one_cluster_and_over_all_draws_alike():
    """Three clusters of 2, 3 and 5 transitions of 10, the pool in another order."""
    of = np.repeat([0, 1, 2], [2, 3, 5])
    rows = np.random.default_rng(0).permutation(10)
    state = dataclasses.replace(
        sampler_state(), rows=jnp.int32(rows), cumulative=jnp.cumsum(jax.nn.one_hot(of, 3).T, axis=1)
    )
    sampler = parts.OneCluster(3, True, 10, 200, None)
    keys = jax.random.split(jax.random.key(0), 4000)
    drawn = np.asarray(jax.vmap(lambda key: sampler.rows(state, key, 6, None))(keys))
    cluster = np.empty(10, int)
    cluster[rows] = of
    assert (cluster[drawn] == cluster[drawn[:, :1]]).all()
    np.testing.assert_allclose(np.bincount(drawn.ravel(), minlength=10) / drawn.size, 0.1, atol=0.015)


def test_few_are_left_out_and_their_transitions_go_to_others():
    soft = np.zeros((400, 3), np.float32)
    soft[:200, 0], soft[200:398, 1], soft[398:399, 2], soft[399] = 1, 1, 1, (0.2, 0.0, 0.8)
    found = np.asarray(parts._without_few(jnp.asarray(soft)))
    assert (found[:, 2] == 0).all()
    np.testing.assert_allclose(found.sum(1), 1)
    np.testing.assert_array_equal(found[:398], soft[:398])
    np.testing.assert_array_equal(found[398:], [[1, 0, 0], [1, 0, 0]])


def test_settings_are_swept_in_one_program():
    """K, weight and frequency, two values each."""
    learner = C4(TD3BC(A, **FEW), **{**CLUSTERING, "recluster_every": 1})
    settings = ("clusters_used", (1.0, 3.0)), ("weight", (0.1, 2.0)), ("recluster_wait", (2.0, 6.0))
    outcome = fit(Offline(learner, block=6, sweep=settings), episodes(), 1)
    assert outcome.history[-1]["clusters/effective"][0][0] == 1
    # every 2 steps, or at every second step that might: the same clusterings
    lone = dataclasses.replace(learner, clusters_used=1.0, weight=0.1, recluster_every=2)
    found = fit(Offline(lone, block=6), episodes(), 1)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x[0, 0], y[0], rtol=1e-4, atol=1e-5),
        outcome.result.actor,
        found.result.actor,
    )


@pytest.mark.slow
def test_a_sarsa_critic():
    """EMPO's, K behaviours: its other stages go on as they did, and with one of clusters and no weight all of it."""
    short = {"pretrain_epochs": 1, "bias_epochs": 1, "em_epochs": 2, "least_steps": 2, "epochs": 2, **SMALL}
    base = EMPO(A, k=2, updates=4, critic_updates=6, value_updates=4, batch_size=4, **short)
    found = {
        weight: fit(Offline(C4(base, weight=weight, clusters=1, recluster_every=2), block=2), episodes(), 1)
        for weight in (0.0, 0.5)
    }
    lone = fit(Offline(base, block=2), episodes(), 1)
    jax.tree.map(np.testing.assert_array_equal, lone.result, found[0.0].result)
    entries = [entry for entry in found[0.5].history if "critic/penalty" in entry]
    assert {entry["phase"] for entry in entries} == {"critic"}
    assert np.isfinite([entry["critic/penalty"] for entry in entries]).all()
    jax.tree.map(np.testing.assert_array_equal, lone.result.actor["clusters"], found[0.5].result.actor["clusters"])
    for refused in (DR3(base), LayerNorm(base), C4(base, cluster_by="features"), C4(base, cluster_by="sorl")):
        with pytest.raises(ValueError, match="learner"):
            Offline(refused)


@pytest.mark.slow
def test_features_in_place_of_gradients():
    learner = C4(TD3BC(A, **FEW), cluster_by="features", **CLUSTERING)
    last = fit(Offline(learner, block=6), episodes(), 1).history[-1]
    assert np.isfinite(last["critic/penalty"]).all()
    assert last["critic/penalty"][0] > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pg_kmeans", "sorl"])
def test_clusters_of_trajectories(name):
    """They are found before, and minibatches are of them."""
    learner = C4(TD3BC(A, **FEW), cluster_by=name, clusters=2, recluster_every=3)
    outcome = fit(Offline(learner, block=6), episodes(), 1)
    assert outcome.history[-1]["phase"] == "train"
    assert outcome.history[-1]["clusters/effective"][0] <= 2


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="clusters is 0"):
        Offline(C4(TD3BC(A), clusters=0))
    with pytest.raises(ValueError, match="weight is -1"):
        Offline(C4(TD3BC(A), weight=-1.0))
    with pytest.raises(ValueError, match="cluster_by 'age'"):
        Offline(C4(TD3BC(A), cluster_by="age"))
    with pytest.raises(ValueError, match="C4 takes a learner"):
        C4(3)
    for settings, text in (
        ({"clusters_used": 20.0}, "clusters_used is 20: give a whole number, at most 5"),
        ({"clusters_used": 1.5}, "clusters_used is 1.5: give a whole number"),
        ({"clusters_used": 2.0, "cluster_by": "sorl"}, "with sorl set clusters"),
        ({"recluster_wait": 0.5}, "recluster_wait is 0.5: give a whole number, at least 1"),
    ):
        with pytest.raises(ValueError, match=text):
            Offline(C4(TD3BC(A), **settings))
    with pytest.raises(ValueError, match="clusters_used is 20"):
        Offline(C4(TD3BC(A)), sweep=(("clusters_used", (1.0, 20.0)),))
    with pytest.raises(ValueError, match="C4: the learner has it already"):
        C4(LayerNorm(C4(TD3BC(A))))
    with pytest.raises(ValueError, match="layer_norm is false: leave the plug-in out"):
        Offline(LayerNorm(TD3BC(A), layer_norm=False))
    assert C4(LayerNorm(TD3BC(A))).layer_norm
    assert plugged(C4, TD3BC)(A) == C4(TD3BC(A))
    assert dataclasses.replace(C4(TD3BC(A)), weight=0.2) == C4(TD3BC(A), weight=0.2)


def test_divergences_are_from_what_clusters_do():
    """Two clusters whose actions are other linear functions of the observation: neutral where the policy's are as the
    data's, and by hand where they are not."""
    rng = np.random.default_rng(0)
    n = 400
    observations, slopes = rng.normal(size=(n, D)), rng.normal(size=(2, D, A))
    of = np.arange(n) % 2
    noise = 0.1 * rng.normal(size=(n, A))
    actions = np.einsum("nd,nda->na", observations, slopes[of]) + 0.3 + noise
    soft = np.eye(2)[of]
    found = regress(*(jnp.float32(x) for x in (observations, actions, soft)), 1e-6)
    np.testing.assert_allclose(found.coefficients[:, :D], slopes, atol=0.03)
    lengths = squared_lengths(found, jnp.float32(observations), jnp.float32(actions))
    np.testing.assert_allclose(lengths[np.arange(n), of].mean(), A, rtol=0.01)  # residuals' own covariance
    agent = C4(TD3BC(A, discount=0.9, **SMALL), kl_weight=0.5, pearson_weight=0.25)
    state = moved_state(agent.init(jax.random.key(0), D))
    known = dataclasses.replace(
        sampler_state(), behaviours=found, sigma=jnp.float32(2), cumulative=jnp.float32([[1, 3], [0, 1]])
    )
    batch = paired_batch()._replace(sampler=known)
    with_it, base = (
        learner.backup(state.params, state.targets, batch, KEY) for learner in (agent, TD3BC(A, discount=0.9, **SMALL))
    )
    np.testing.assert_array_equal(with_it.actions, base.actions)
    inverses = np.einsum("kab,kcb->kac", found.whitenings, found.whitenings)
    extended = np.concatenate([wide(batch.next_observations), np.ones((SIZE, 1))], 1)
    away = wide(base.actions)[:, None] - np.einsum("bd,kda->bka", extended, wide(found.coefficients))
    excess = np.clip(np.einsum("bka,kac,bkc->bk", away, inverses, away) - A, 0, parts.FARTHEST)
    wanted = 2 * 0.1 * (0.5 * excess / 2 + 0.25 * (np.exp(excess) - 1)) @ [0.75, 0.25]
    assert (wanted > 0).any()
    np.testing.assert_allclose(base.values - with_it.values, wanted, rtol=1e-2)
    assert not C4(TD3BC(A))._diverges


@pytest.mark.slow
def test_a_training_with_divergences():
    learner = C4(TD3BC(A, **FEW), kl_weight=0.1, **CLUSTERING)
    assert np.isfinite(fit(Offline(learner, block=6), episodes(), 1).history[-1]["critic/loss"]).all()
    with pytest.raises(ValueError, match="kl_weight is no setting"):
        Offline(learner, block=6, sweep=(("kl_weight", (0.1, 0.2)),))
    with pytest.raises(ValueError, match="kl_weight, pearson_weight: this learner values no action"):
        Offline(C4(EMPO(A), kl_weight=1.0))


# --- DR3 and layer normalisation ------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", [TD3BC, pytest.param(CQL, marks=pytest.mark.slow)])
def test_dr3_by_hand(algorithm):
    agent, base = DR3(algorithm(A, **SMALL), feature_weight=0.5), algorithm(A, **SMALL)
    state, batch, key = moved_state(agent.init(jax.random.key(0), D)), some_batch(), KEYS.get(algorithm, KEY)
    loss = lambda agent: agent.critic_loss(state.params["critics"], state.params, state.targets, batch, key)[0]
    actions = base.backup(state.params, state.targets, batch, key).actions

    def features(observations, actions):
        x, layers = np.concatenate([wide(observations), wide(actions)], -1), wide(state.params["critics"])["params"]
        return np.stack([_hidden(x, layers, member) for member in range(2)])

    products = features(batch.observations, batch.actions) * features(batch.next_observations, actions)
    wanted = np.where(np.asarray(batch.terminated), 0, products.sum(-1)).mean(-1).sum()
    np.testing.assert_allclose(loss(agent) - loss(base), 0.5 * wanted, rtol=1e-3)


def _hidden(x, layers, member):
    for name in ("Dense_0", "Dense_1"):
        x = np.maximum(x @ layers[name]["kernel"][member] + layers[name]["bias"][member], 0)
    return x


def test_layer_normalisation_is_the_learners_own():
    assert LayerNorm(TD3BC(A, **SMALL)).critic == TD3BC(A, layer_norm=True, **SMALL).critic
    assert "LayerNorm_0" in LayerNorm(CQL(A, **SMALL)).init(jax.random.key(0), D).params["critics"]["params"]


# --- theory -----------------------------------------------------------------------------------------------


def test_what_has_no_next_gradient_does_not_count_as_one():
    rng = np.random.default_rng(0)
    following, current = rng.normal(3, 1, (2, 40, 5)).astype(np.float32)
    paired = jnp.arange(40) % 4 > 0
    pairs = Pairs(jnp.where(paired[:, None], following, 0), jnp.array(current))
    soft, valid = jnp.ones((40, 1)), jnp.ones(40, bool)
    found = measured(decompose(pairs, soft * paired[:, None]), pairs, jnp.zeros(40), soft, valid, paired)
    np.testing.assert_allclose(found["clusters/a"], following[np.asarray(paired)].var(0).mean(), rtol=1e-5)
    np.testing.assert_allclose(found["clusters/b"], current.var(0).mean(), rtol=1e-5)


def test_theorem_2():
    """Eq. 9 to float precision on random soft clusters, against NumPy; the bound of Eq. 10 in each cluster."""
    rng = np.random.default_rng(0)
    n, k, m = 60, 4, 5
    centres = 3 * rng.normal(size=(k, 2 * m))
    y = centres[rng.integers(k, size=n)] + rng.normal(size=(n, 2 * m))
    soft = rng.dirichlet(np.full(k, 0.3), n)
    soft[:5] = 0
    found = parts.decompose(parts.Pairs(jnp.float32(y[:, :m]), jnp.float32(y[:, m:])), jnp.float32(soft))
    counted = y[5:]
    total = np.cov(counted[:, :m].T, counted[:, m:].T, bias=True)[:m, m:]
    np.testing.assert_allclose(found.total, total, atol=1e-4)
    within = np.stack([np.cov(y.T, aweights=soft[:, z], ddof=0) for z in range(k)])
    np.testing.assert_allclose(found.within, within[:, :m, m:], atol=1e-4)
    shares = soft.sum(0) / soft.sum()
    np.testing.assert_allclose(found.shares, shares, atol=1e-6)
    np.testing.assert_allclose(np.einsum("z,zij->ij", shares, found.within) + found.between, total, atol=1e-4)
    for covariance in within:
        largest = np.linalg.norm(covariance[:m, m:], 2)
        assert largest <= np.sqrt(np.trace(covariance[:m, :m]) * np.trace(covariance[m:, m:])) + 1e-9
        for _ in range(20):
            w, v = (x / np.linalg.norm(x) for x in rng.normal(size=(2, m)))
            assert abs(w @ covariance[:m, m:] @ v) <= largest + 1e-9


def test_proposition_1_and_corollary_2_on_a_quadratic_critic():
    """The TD error's variance over small displacements of x and x' against the quadratic form of the gradients."""
    rng = np.random.default_rng(1)
    m, gamma, size = 4, 0.9, 1e-4
    curved = rng.normal(size=(2, m, m))
    q = lambda which, x: 0.5 * np.einsum("...i,ij,...j->...", x, curved[which] + curved[which].T, x) / 2
    slope = lambda which, x: (curved[which] + curved[which].T) @ x / 2
    x, following = rng.normal(size=(2, m))
    mixing = rng.normal(size=(2 * m, 2 * m))
    drawn = size * rng.normal(size=(400_000, 2 * m)) @ mixing.T
    error = gamma * q(1, following + drawn[:, :m]) - q(0, x + drawn[:, m:])
    covariance = size**2 * mixing @ mixing.T  # [[S_2, N], [N^T, S_1]]
    g_next, g = slope(1, following), slope(0, x)
    wanted = gamma**2 * g_next @ covariance[:m, :m] @ g_next + g @ covariance[m:, m:] @ g
    wanted -= 2 * gamma * g_next @ covariance[:m, m:] @ g
    np.testing.assert_allclose(error.var(), wanted, rtol=1e-2)
    # one direction for both, uniform on the sphere: k^2 / m |gamma g' - g|^2
    drawn = rng.normal(size=(400_000, m))
    drawn *= size / np.linalg.norm(drawn, axis=1, keepdims=True)
    error = gamma * q(1, following + drawn) - q(0, x + drawn)
    np.testing.assert_allclose(error.var(), size**2 / m * ((gamma * g_next - g) ** 2).sum(), rtol=1e-2)


def test_lemma_3():
    """Pearson's and Kullback and Leibler's divergences from a mixture of Gaussians are at most the components' mean."""
    a = np.linspace(-12, 12, 20_001)
    step = a[1] - a[0]
    density = lambda mean, std: np.exp(-0.5 * ((a - mean) / std) ** 2) / (std * np.sqrt(2 * np.pi))
    pearson = lambda p, q: (p**2 / q).sum() * step - 1
    kullback = lambda p, q: (p * np.log(p / q)).sum() * step
    rng = np.random.default_rng(2)
    for _ in range(20):
        weights = rng.dirichlet(np.ones(3))
        policy = density(rng.normal(), 0.7)
        components = [density(rng.normal(), rng.uniform(0.7, 1.5)) for _ in range(3)]
        mixture = weights @ np.stack(components)
        for divergence in (pearson, kullback):
            apart = [divergence(policy, component) for component in components]
            assert divergence(policy, mixture) <= weights @ apart + 1e-9
