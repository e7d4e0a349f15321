"""Every loss of every learner against NumPy in float64, on a fixed batch."""

import dataclasses
import itertools

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from learner_reference import (
    SIZE,
    A,
    D,
    bellman,
    critic,
    critics,
    dense,
    deterministic,
    gaussian,
    hidden,
    moved_state,
    normal_log_prob,
    some_batch,
    squashed,
    wide,
)
from scipy.special import logsumexp

from trajclust_jax.learners import (
    AWAC,
    BC,
    BCQ,
    CQL,
    IQL,
    PLAS,
    SAC,
    TD3BC,
    BRACv,
    DiscreteBC,
    DiscreteCQL,
    DiscreteIQL,
)
from trajclust_jax.networks import sample_squashed

SMALL = {"features": (8, 8), "actor_features": (6,)}
BATCH, KEY = some_batch(), jax.random.key(2)
OBSERVATIONS, FOLLOWING = BATCH.observations, BATCH.next_observations


def begun(agent):
    return moved_state(agent.init(jax.random.key(0), D))


def close(pair, expected):
    np.testing.assert_allclose(pair[0], expected, rtol=2e-4)


@pytest.mark.parametrize("stochastic", [False, True])
def test_bc(stochastic):
    agent = BC(A, actor_features=(6,), stochastic=stochastic)
    actor = begun(agent).params["actor"]
    if stochastic:
        expected = -normal_log_prob(BATCH.actions, *gaussian(actor, OBSERVATIONS)).mean()
    else:
        expected = ((deterministic(actor, OBSERVATIONS) - wide(BATCH.actions)) ** 2).mean()
    close(agent.actor_loss(actor, BATCH), expected)


def chosen(params, observations, actions):
    """Log-probability `[...]` of one-hot actions under `CategoricalActor`."""
    layers = params["params"]
    last = len(layers) - 1
    logits = dense(
        hidden(observations, {f"Dense_{i}": layers[f"Dense_{i}"] for i in range(last)}), layers[f"Dense_{last}"]
    )
    return (wide(actions) * (logits - logsumexp(logits, axis=-1, keepdims=True))).sum(-1)


ONE_OF_FOUR = BATCH._replace(actions=jnp.eye(4)[jnp.arange(SIZE) % 4])


def test_discrete_bc():
    agent = DiscreteBC(4, actor_features=(6,))
    actor = begun(agent).params["actor"]
    close(agent.actor_loss(actor, ONE_OF_FOUR), -chosen(actor, OBSERVATIONS, ONE_OF_FOUR.actions).mean())
    every = np.stack([chosen(actor, OBSERVATIONS, np.eye(4)[[a] * SIZE]) for a in range(4)], -1)
    assert (agent.act(actor, OBSERVATIONS).argmax(-1) == every.argmax(-1)).all()


def test_discrete_cql():
    """The sum over actions is exact; the target's action is the online critics'."""
    agent = DiscreteCQL(4, features=(8, 8), conservatism=0.5)
    state = begun(agent)
    params, targets = state.params, state.targets
    every = lambda params, observations: np.stack(
        [critics(params, observations, np.eye(4)[[a] * SIZE]) for a in range(4)], -1
    )  # [2, B, 4]
    best = every(params["critics"], FOLLOWING).mean(0).argmax(-1)
    following = critics(targets["critics"], FOLLOWING, np.eye(4)[best]).min(0)
    of_data = critics(params["critics"], OBSERVATIONS, ONE_OF_FOUR.actions)
    conservative = (logsumexp(every(params["critics"], OBSERVATIONS), axis=-1) - of_data).mean(1).sum()
    expected = bellman(agent, params["critics"], ONE_OF_FOUR, following) + 0.5 * conservative
    close(agent.critic_loss(params["critics"], params, targets, ONE_OF_FOUR, None), expected)
    acted = agent.act(agent.policy(params), FOLLOWING)
    assert (acted == np.eye(4)[best]).all()


def test_a_column_of_rewards_is_refused():
    """Beside targets [B] it would make [B, B]."""
    agent = IQL(A, **SMALL)
    state = begun(agent)
    column = BATCH._replace(rewards=BATCH.rewards[:, None])
    with pytest.raises(AssertionError, match="shape"):
        agent.critic_loss(state.params["critics"], state.params, state.targets, column, None)


def test_td3_bc():
    agent = TD3BC(A, **SMALL)
    state = begun(agent)
    noise = np.clip(0.2 * wide(jax.random.normal(KEY, (SIZE, A))), -0.5, 0.5)
    actions = np.clip(deterministic(state.targets["actor"], FOLLOWING) + noise, -1, 1)
    following = critics(state.targets["critics"], FOLLOWING, actions).min(0)
    expected = bellman(agent, state.params["critics"], BATCH, following)
    close(agent.critic_loss(state.params["critics"], state.params, state.targets, BATCH, KEY), expected)

    actions = deterministic(state.params["actor"], OBSERVATIONS)
    values = critics(state.params["critics"], OBSERVATIONS, actions)[0]
    cloning = ((actions - wide(BATCH.actions)) ** 2).mean()
    expected = -2.5 / np.abs(values).mean() * values.mean() + cloning
    close(agent.actor_loss(state.params["actor"], state.params, BATCH), expected)


def test_td3_bc_moves_the_actor_every_second_time():
    agent = TD3BC(A, **SMALL)
    state = begun(agent)
    update = jax.jit(agent.update)
    after = [state]
    for step in range(3):
        after.append(update(after[-1], BATCH, jnp.int32(step))[0])
    same = lambda a, b, part: all(map(np.array_equal, jax.tree.leaves(a.params[part]), jax.tree.leaves(b.params[part])))
    assert [same(a, b, "actor") for a, b in itertools.pairwise(after)] == [True, False, True]
    assert not any(same(a, b, "critics") for a, b in itertools.pairwise(after))
    target = [jax.tree.leaves(each.targets)[0] for each in after]
    assert [np.array_equal(a, b) for a, b in itertools.pairwise(target)] == [True, False, True]


@pytest.mark.parametrize("discrete", [False, True])
def test_iql(discrete):
    agent, batch = (DiscreteIQL(4, **SMALL), ONE_OF_FOUR) if discrete else (IQL(A, **SMALL), BATCH)
    state = begun(agent)
    params, targets = state.params, state.targets
    of_data = critics(targets["critics"], OBSERVATIONS, batch.actions).min(0)
    advantage = of_data - critic(params["value"], OBSERVATIONS)
    expected = (np.where(advantage > 0, 0.7, 0.3) * advantage**2).mean()
    close(agent.value_loss(params["value"], targets, batch), expected)

    following = critic(params["value"], FOLLOWING)
    expected = bellman(agent, params["critics"], batch, following)
    close(agent.critic_loss(params["critics"], params, targets, batch, None), expected)

    weight = np.minimum(np.exp(3 * advantage), 100)
    actor = params["actor"]
    of_gaussian = lambda: normal_log_prob(batch.actions, *gaussian(actor, OBSERVATIONS))
    log_prob = chosen(actor, OBSERVATIONS, batch.actions) if discrete else of_gaussian()
    close(agent.actor_loss(actor, params, targets, batch, KEY), -(weight * log_prob).mean())


def test_iql_begins_orthogonal_where_asked():
    """Columns (rows of a wide layer) of length sqrt 2, at right angles, in every layer of every part."""
    for orthogonal in (False, True):
        params = IQL(A, orthogonal=orthogonal, **SMALL).init(jax.random.key(0), D).params
        first = {**params, "critics": jax.tree.map(lambda x: x[0], params["critics"])}
        kernels = [wide(leaf) for leaf in jax.tree.leaves(first) if leaf.ndim == 2]
        small = [kernel.T if len(kernel) > len(kernel.T) else kernel for kernel in kernels]
        found = [np.allclose(rows @ rows.T, 2 * np.eye(len(rows)), atol=1e-5) for rows in small]
        assert len(found) == 8
        assert all(found) if orthogonal else not any(found)


def test_iql_caps_weights_and_decays_the_actors_rate():
    agent = IQL(A, temperature=1e4, updates=100, **SMALL)
    state = begun(agent)
    _, info = agent.actor_loss(state.params["actor"], state.params, state.targets, BATCH, KEY)
    assert 0 < info["actor/weight"] <= 100
    assert agent.rate("critics", 50) == agent.learning_rate
    rates = [float(agent.rate("actor", jnp.int32(step))) for step in (0, 50, 100, 200)]
    np.testing.assert_allclose(rates, [3e-4, 1.5e-4, 0, 0], atol=1e-10)


def test_iql_dropout_acts_in_training_alone():
    agent = IQL(A, dropout=0.5, **SMALL)
    state = begun(agent)
    losses = [
        float(agent.actor_loss(state.params["actor"], state.params, state.targets, BATCH, jax.random.key(seed))[0])
        for seed in range(2)
    ]
    assert losses[0] != losses[1]
    expected = gaussian(state.params["actor"], OBSERVATIONS)[0]
    np.testing.assert_allclose(agent.act(state.params["actor"], OBSERVATIONS), expected, rtol=1e-4)


def test_awac():
    agent = AWAC(A, **SMALL)
    state = begun(agent)
    params = state.params

    def drawn(observations):
        mean, log_std = gaussian(params["actor"], observations, bounded=False)
        normal = agent.actor.apply(params["actor"], observations).sample(seed=KEY)  # JAX's luck
        assert np.abs(wide(normal) - mean).max() < 5 * np.exp(log_std).max()
        return np.clip(wide(normal), -1, 1)

    following = critics(state.targets["critics"], FOLLOWING, drawn(FOLLOWING)).min(0)
    expected = bellman(agent, params["critics"], BATCH, following)
    close(agent.critic_loss(params["critics"], params, state.targets, BATCH, KEY), expected)

    of_data = critics(params["critics"], OBSERVATIONS, BATCH.actions).min(0)
    advantage = of_data - critics(params["critics"], OBSERVATIONS, drawn(OBSERVATIONS)).min(0)
    weight = np.minimum(np.exp(3 * advantage), 100)
    log_prob = normal_log_prob(BATCH.actions, *gaussian(params["actor"], OBSERVATIONS, bounded=False))
    close(agent.actor_loss(params["actor"], params, BATCH, KEY), -(weight * log_prob).mean())


def of_policy(agent, actor, observations, key):
    """JAX's sample, its log-density in float64 by the plain formula."""
    policy = agent.actor.apply(actor, observations)
    inner = wide(policy.sample(seed=key))
    log_prob = normal_log_prob(inner, *squashed(actor, observations)) - np.log(1 - np.tanh(inner) ** 2).sum(-1)
    return np.tanh(inner), log_prob


@pytest.mark.parametrize("gap", [None, 0.8])
def test_cql(gap):
    agent = CQL(A, num_actions=4, gap=gap, **SMALL)
    state = begun(agent)
    params = state.params
    actions, _ = of_policy(agent, params["actor"], FOLLOWING, KEY)
    following = critics(state.targets["critics"], FOLLOWING, actions).min(0)  # without the entropy
    td_error = bellman(agent, params["critics"], BATCH, following)
    whole = agent.critic_loss(params["critics"], params, state.targets, BATCH, (KEY, KEY))

    key_uniform, *keys = jax.random.split(KEY, 3)
    uniform = wide(jax.random.uniform(key_uniform, (4, SIZE, A), minval=-1, maxval=1))
    terms = [(each, np.full(SIZE, A * np.log(0.5))) for each in uniform]
    for source, key in zip((OBSERVATIONS, FOLLOWING), keys, strict=True):
        terms += [of_policy(agent, params["actor"], source, k) for k in jax.random.split(key, 4)]
    # all are valued at the current observation
    scores = np.stack([critics(params["critics"], OBSERVATIONS, a) - log_prob for a, log_prob in terms], 1)
    of_data = critics(params["critics"], OBSERVATIONS, BATCH.actions)
    differences = (logsumexp(scores, axis=1) - of_data).mean(1)
    assert scores.shape == (2, 12, SIZE)
    expected = 5 * differences.sum()
    if gap is not None:
        multiplier = np.exp(float(params["log_multiplier"]))
        expected = multiplier * 5 * (differences - gap).sum()
        pair = agent.multiplier_loss(params["log_multiplier"], jnp.float32(differences.mean()))
        close(pair, -multiplier * 5 * (differences.mean() - gap))
    close(agent.conservative_loss(params["critics"], params, BATCH, KEY), expected)
    close(whole, td_error + expected)


def test_cql_without_conservatism_is_sac():
    """A whole update is SAC's, on CQL's actor; with conservatism the critics' alone is not."""

    @dataclasses.dataclass(frozen=True)
    class Plain(SAC):
        actor = CQL.actor

    agent, plain = CQL(A, backup_entropy=True, **SMALL), Plain(A, **SMALL)
    state = begun(agent)
    without = dataclasses.replace(agent, conservatism=0.0)
    expected, updated, other = (each.update(state, BATCH, jnp.int32(0)) for each in (plain, without, agent))
    for part, params in expected[0].params.items():
        np.testing.assert_allclose(_flat(updated[0].params[part]), _flat(params), atol=1e-7)
        assert np.allclose(_flat(other[0].params[part]), _flat(params), atol=1e-7) == (part != "critics")
        assert not np.allclose(_flat(params), _flat(state.params[part]), atol=1e-5)
    steps = [updated[1], other[1]]
    assert float(steps[0]["critic/conservative"]) == 0
    assert float(steps[1]["critic/conservative"]) > 0
    assert float(steps[0]["critic/loss"]) == float(steps[1]["critic/loss"])  # the Bellman error alone


def _flat(params):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(params)])


def test_a_larger_difference_raises_the_multiplier():
    agent = CQL(A, gap=0.8)
    down = jax.grad(lambda log, difference: agent.multiplier_loss(log, difference)[0])
    assert float(down(jnp.float32(0.5), jnp.float32(2.0))) < 0 < float(down(jnp.float32(0.5), jnp.float32(0.1)))


def test_cql_rates():
    agent = CQL(A, actor_rate=3e-5)
    assert [agent.rate(part, 0) for part in ("actor", "log_alpha", "critics")] == [3e-5, 3e-5, 3e-4]


def test_brac_v():
    agent = BRACv(A, penalty=0.7, **SMALL)
    state = begun(agent)
    params = state.params

    def divergence(observations):
        (m1, s1), (m2, s2) = (squashed(params[part], observations) for part in ("actor", "behaviour"))
        return (s2 - s1 + (np.exp(2 * s1) + (m1 - m2) ** 2) / (2 * np.exp(2 * s2)) - 0.5).sum(-1)

    actions, _ = of_policy(agent, params["actor"], FOLLOWING, KEY)
    following = critics(state.targets["critics"], FOLLOWING, actions).min(0) - 0.7 * divergence(FOLLOWING)
    expected = bellman(agent, params["critics"], BATCH, following)
    close(agent.critic_loss(params["critics"], params, state.targets, BATCH, KEY), expected)

    actions, _ = of_policy(agent, params["actor"], OBSERVATIONS, KEY)
    values = critics(params["critics"], OBSERVATIONS, actions).min(0)
    expected = 0.7 * divergence(OBSERVATIONS).mean() - values.mean()
    close(agent.actor_loss(params["actor"], params, BATCH, KEY), expected)

    inner = np.arctanh(np.clip(wide(BATCH.actions), -0.999, 0.999))
    log_prob = normal_log_prob(inner, *squashed(params["behaviour"], OBSERVATIONS))
    log_prob -= np.log(1 - np.tanh(inner) ** 2).sum(-1)
    close(agent.behaviour_loss(params["behaviour"], BATCH), -log_prob.mean())


def test_brac_vs_divergence_is_that_of_squashed_policies():
    """Samples of the squashed policy and both squashed densities, as the paper's Eq. 9 has it."""
    agent = BRACv(A, **SMALL)
    params = begun(agent).params
    policy = agent.actor.apply(params["actor"], OBSERVATIONS)
    behaviour = agent.actor.apply(params["behaviour"], OBSERVATIONS)
    drawn, log_prob = jax.vmap(lambda key: sample_squashed(key, policy))(jax.random.split(KEY, 20_000))
    tanh = distrax.Transformed(behaviour, distrax.Block(distrax.Tanh(), 1))
    inside = jnp.clip(drawn, -1 + 1e-6, 1 - 1e-6)
    estimate = (log_prob - tanh.log_prob(inside)).mean(0)
    np.testing.assert_allclose(agent.divergence(policy, params, OBSERVATIONS, None), estimate, rtol=0.1)


def test_brac_v_clones_first():
    agent = BRACv(A, **SMALL)
    assert [stage.name for stage in agent.stages()] == ["behaviour", "train"]
    state = begun(agent)
    after, _ = agent.update_behaviour(state, BATCH, jnp.int32(0))
    changed = {
        part
        for part in state.params
        if not all(map(np.array_equal, jax.tree.leaves(state.params[part]), jax.tree.leaves(after.params[part])))
    }
    assert changed == {"behaviour"}
    begun_again = agent.stages()[1].begin(after).params
    assert all(map(np.array_equal, *map(jax.tree.leaves, (begun_again["actor"], after.params["behaviour"]))))


def vae(params, observations, actions, noise):
    """Decoded actions, and the mean KL of each."""
    layers = params["params"]
    x = hidden(np.concatenate([wide(observations), wide(actions)], -1), layers["encoder"])
    mean, log_std = dense(x, layers["mean"]), dense(x, layers["log_std"])
    std = np.exp(np.clip(log_std, -4, 15))
    divergence = ((mean**2 + std**2 - 1) / 2 - np.log(std)).mean(-1)
    return decoded(params, observations, mean + std * wide(noise)), divergence


def decoded(params, observations, latents):
    layers = params["params"]
    x = hidden(np.concatenate([wide(observations), latents], -1), layers["decoder"])
    return np.tanh(dense(x, layers["action"]))


def perturbed(agent, params, observations, actions):
    change = deterministic(params, np.concatenate([wide(observations), actions], -1))
    return np.clip(actions + agent.shift * change, -1, 1)


def test_bcq():
    agent = BCQ(A, choices=4, shift=0.2, **SMALL)
    state = begun(agent)
    params, targets = state.params, state.targets
    noise = jax.random.normal(KEY, (SIZE, 2 * A))
    actions, divergence = vae(params["vae"], OBSERVATIONS, BATCH.actions, noise)
    close(agent.vae_loss(params["vae"], BATCH, KEY), ((actions - BATCH.actions) ** 2).mean() + divergence.mean() / 2)

    latents = np.clip(wide(jax.random.normal(KEY, (4, SIZE, 2 * A))), -0.5, 0.5)
    each = []
    for n in range(4):
        actions = decoded(params["vae"], FOLLOWING, latents[n])
        actions = perturbed(agent, targets["actor"], FOLLOWING, actions)
        both = critics(targets["critics"], FOLLOWING, actions)
        each.append(0.75 * both.min(0) + 0.25 * both.max(0))
    expected = bellman(agent, params["critics"], BATCH, np.max(each, 0))
    close(agent.critic_loss(params["critics"], params, targets, BATCH, KEY), expected)

    actions = decoded(params["vae"], OBSERVATIONS, np.clip(wide(noise), -0.5, 0.5))
    actions = perturbed(agent, params["actor"], OBSERVATIONS, actions)
    expected = -critics(params["critics"], OBSERVATIONS, actions)[0].mean()
    close(agent.actor_loss(params["actor"], params, BATCH, KEY), expected)


def test_bcq_takes_the_best_of_its_actions():
    agent = BCQ(A, acting_choices=5, **SMALL)
    params = agent.policy(begun(agent).params)
    found = agent.act(params, OBSERVATIONS)
    noise = np.clip(wide(jax.random.normal(jax.random.key(0x626371), (5, 2 * A))), -0.5, 0.5)
    each = []
    for n in range(5):
        actions = decoded(params["vae"], OBSERVATIONS, np.tile(noise[n], (SIZE, 1)))
        each.append(perturbed(agent, params["actor"], OBSERVATIONS, actions))
    best = np.argmax([critics(params["critics"], OBSERVATIONS, actions)[0] for actions in each], 0)
    np.testing.assert_allclose(found, np.array(each)[best, np.arange(SIZE)], atol=1e-5)
    np.testing.assert_allclose(agent.act(params, OBSERVATIONS[0]), found[0], atol=1e-6)


@pytest.mark.parametrize("shift", [0.0, 0.2])
def test_plas(shift):
    agent = PLAS(A, shift=shift, **SMALL)
    state = begun(agent)
    params, targets = state.params, state.targets

    def chosen(actor, observations):
        actions = decoded(params["vae"], observations, 2 * deterministic(actor["latent"], observations))
        return perturbed(agent, actor["moved"], observations, actions) if shift else actions

    both = critics(targets["critics"], FOLLOWING, chosen(targets["actor"], FOLLOWING))
    expected = bellman(agent, params["critics"], BATCH, 0.75 * both.min(0) + 0.25 * both.max(0))
    close(agent.critic_loss(params["critics"], params, targets, BATCH, None), expected)
    actions = chosen(params["actor"], OBSERVATIONS)
    close(
        agent.actor_loss(params["actor"], params, BATCH, KEY),
        -critics(params["critics"], OBSERVATIONS, actions)[0].mean(),
    )
    np.testing.assert_allclose(agent.act(agent.policy(params), OBSERVATIONS), actions, atol=1e-5)
    assert [stage.name for stage in agent.stages()] == ["behaviour", "train"]


def test_brac_v_of_policy_regularisation_and_a_warm_start():
    agent = BRACv(A, penalty=0.7, value_penalty=0.0, warm_updates=10, **SMALL)
    state = begun(agent)
    actions, _ = of_policy(agent, state.params["actor"], FOLLOWING, KEY)
    following = critics(state.targets["critics"], FOLLOWING, actions).min(0)
    expected = bellman(agent, state.params["critics"], BATCH, following)
    close(agent.critic_loss(state.params["critics"], state.params, state.targets, BATCH, KEY), expected)
    assert [stage.name for stage in agent.stages()] == ["behaviour", "warm", "train"]
    after, _ = agent.update_critics(state, BATCH, jnp.int32(0))
    same = lambda part: all(map(np.array_equal, *map(jax.tree.leaves, (state.params[part], after.params[part]))))
    assert [part for part in state.params if not same(part)] == ["critics"]
