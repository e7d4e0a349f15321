"""Policies that plan on the map they observe: how observations are taken apart, scores, errors, learning."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trajclust_jax.clustering import CAAE, PGKmeans
from trajclust_jax.clustering.policies import PlanningPolicy, policy_for
from trajclust_jax.clustering.policies.maps import move_frequencies, split_maps
from trajclust_jax.data import Codebook, dense, make
from trajclust_jax.metrics import batch_scores
from trajclust_jax.training import fit

AGENT = 1  # the agent's plane in the grid worlds' observations


@pytest.fixture(scope="module")
def extra():
    return make("extra-vi", 30, 0)


@pytest.mark.parametrize("name", ["diagonal", "extra-vi"])
def test_maps_and_cells_make_the_observations_again(name):
    trajectories = make(name, 8, 0).trajectories
    maps, rows, slots, cells = split_maps(trajectories)
    observations = np.asarray(dense(trajectories.observations))
    for n, t in zip(*np.nonzero(trajectories.mask), strict=True):
        planes = np.insert(maps[rows[n, slots[n, t]]], AGENT, 0, axis=0)
        planes[AGENT].flat[cells[n, t]] = 1
        np.testing.assert_array_equal(planes.transpose(1, 2, 0), observations[n, t])


def test_moves_are_counted():
    trajectories = make("diagonal", 20, 0).trajectories
    _, _, _, cells = split_maps(trajectories)
    found = move_frequencies(trajectories, cells, 9)
    counts, totals = np.zeros((5, 4)), np.zeros(5)
    for n, length in enumerate(trajectories.lengths):
        for t in range(length - 1):
            action = trajectories.actions[n, t]
            moved = cells[n, t + 1] // 9 - cells[n, t] // 9, cells[n, t + 1] % 9 - cells[n, t] % 9
            totals[action] += 1
            if moved != (0, 0):
                counts[action, [(-1, 0), (1, 0), (0, -1), (0, 1)].index(moved)] += 1
    np.testing.assert_allclose(found, counts / np.maximum(totals, 1)[:, None], rtol=1e-6)


def test_scores_are_sums_over_real_steps(extra):
    """The shared, chunked score against the planner applied to each observation's own map."""
    trajectories = extra.trajectories
    policy = PlanningPolicy(layers=2, sweeps=6, memory_budget=2**20)
    data = policy.prepare(trajectories, 2)
    assert data.chunks.lengths.shape[0] > 1
    params = jax.vmap(lambda key: policy.init(key, data).params)(jax.random.split(jax.random.key(0), 2))
    score = jax.jit(policy.scorer(jax.tree.map(lambda x: x[None], params), data))
    chunks = [jax.tree.map(lambda x, c=c: x[c], data.chunks) for c in range(len(data.chunks.places))]
    scores = np.concatenate([score(chunk)[0] for chunk in chunks], 1)[:, data.rank]

    observations, plan = np.asarray(dense(trajectories.observations)), jax.jit(policy.planner.apply)
    for n in (0, 17, 40, 89):
        length = int(trajectories.lengths[n])
        maps = np.delete(observations[n], AGENT, axis=-1).transpose(0, 3, 1, 2)  # with those in padding
        cells = observations[n, :length, ..., AGENT].reshape(length, -1).argmax(1)
        for member in range(2):
            logits = plan(jax.tree.map(lambda x, m=member: x[m], params), maps, data.kernel)
            expected = sum(float(logits[a, cells[t], t]) for t, a in enumerate(trajectories.actions[n, :length]))
            np.testing.assert_allclose(scores[member, n], expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("extractor", "kind"),
    [
        ("conv", "mlp"),
        ("planner", "gru"),
        *(pytest.param(*p, marks=pytest.mark.slow) for p in (("conv", "gru"), ("planner", "mlp"))),
    ],
)
def test_networks_on_features_score_every_trajectory_alike(extra, kind, extractor):
    """Chunked, for several members at once, against the log-probabilities of one member that training uses."""
    policy = policy_for(kind, extra.trajectories, extractor=extractor, memory_budget=2**22)
    policy.check(extra.trajectories)
    data = policy.prepare(extra.trajectories, 2)
    assert data.chunks.lengths.shape[0] > 1
    params = jax.vmap(lambda key: policy.init(key, data).params)(jax.random.split(jax.random.key(0), 2))
    score = policy.scorer(jax.tree.map(lambda x: x[None], params), data)
    scores = np.concatenate(jax.lax.map(lambda chunk: score(chunk)[0].T, data.chunks))
    data = data.replace(horizon=data.chunks.places.shape[-1])
    positions = np.flatnonzero(data.lengths > 0)[::7]
    for member in range(2):
        one = jax.tree.map(lambda x, m=member: x[m], params)
        log_probs = np.asarray(policy.log_probs(one, jnp.asarray(positions), data), np.float64)
        real = np.arange(log_probs.shape[1]) < np.asarray(data.lengths)[positions][:, None]
        np.testing.assert_allclose(scores[positions, member], np.where(real, log_probs, 0).sum(1), rtol=1e-4)


def test_an_extractor_must_exist_and_fit(extra):
    with pytest.raises(ValueError, match="unknown extractor 'cnn'"):
        CAAE(3, extractor="cnn").check(extra.trajectories)
    with pytest.raises(ValueError, match="not tabular"):
        PGKmeans.default(3, "tabular", policy_settings=(("extractor", "conv"),)).check(extra.trajectories)
    with pytest.raises(ValueError, match="need maps"):
        CAAE(3, extractor="conv").check(make("pathfollowing", 4, 0).trajectories)


def test_an_autoencoder_sees_features_of_maps(extra):
    """Every trajectory's latent, chunk by chunk, is what it is alone."""
    latents = []
    for trajectories in (extra.trajectories, jax.tree.map(lambda x: x[40:41], extra.trajectories)):
        method = CAAE(1, extractor="conv", memory_budget=2**21)
        data = jax.device_put(method.prepare(trajectories))
        data = data.replace(data=data.data.replace(kernel=jnp.zeros((5, 4))))  # counted from the data: not the same
        params = {"network": jax.jit(method.new_network)(jax.random.key(0), data)}
        latents.append((np.asarray(jax.jit(method.encode_all)(params, data)), data.data.chunks.lengths.shape[0]))
    (together, num_chunks), (alone, _) = latents
    assert num_chunks > 1
    np.testing.assert_allclose(together[40], alone[0], rtol=1e-4, atol=1e-5)
    assert np.ptp(together, axis=0).max() > 1e-3


def test_padding_does_not_matter(extra):
    trajectories = extra.trajectories
    mask = np.asarray(trajectories.mask)
    observations = np.where(mask[..., None, None, None], np.asarray(dense(trajectories.observations)), 7)
    padded = trajectories.replace(
        observations=observations.astype(np.uint8), actions=np.where(mask, trajectories.actions, 3)
    )
    policy = PlanningPolicy()
    plain, other = policy.prepare(trajectories, 1), policy.prepare(padded, 1)
    np.testing.assert_array_equal(plain.chunks.places, other.chunks.places)
    np.testing.assert_array_equal(plain.chunks.actions, other.chunks.actions)
    np.testing.assert_array_equal(plain.maps, other.maps)
    np.testing.assert_array_equal(plain.kernel, other.kernel)


def test_observations_without_an_agent_are_refused(extra):
    observations = np.asarray(dense(extra.trajectories.observations))
    blind = extra.trajectories.replace(observations=np.delete(observations, AGENT, axis=-1))
    with pytest.raises(ValueError, match="marks the agent's cell"):
        PGKmeans.default(3, "planner").check(blind)
    flat = extra.trajectories.replace(observations=observations.reshape(*observations.shape[:2], -1))
    with pytest.raises(ValueError, match="need maps"):
        PGKmeans.default(3, "planner").check(flat)


@pytest.mark.slow
def test_planning_beats_remembering_on_fresh_maps():
    """40 episodes a policy: an MLP on raw maps knows nothing, a planner separates visiting from avoiding."""
    data = make("extra-vi", 40, 0)
    keep = data.labels != 1
    trajectories = jax.tree.map(lambda x: x[keep], data.trajectories)
    assert not isinstance(trajectories.observations, Codebook)
    method = PGKmeans.default(2, "planner", restarts=3, iterations=12, policy_settings=(("sweeps", 12),))
    found = fit(method, trajectories, [0]).result
    labels = (data.labels[keep] == 2).astype(np.int32)
    assert batch_scores(labels, np.asarray(found.assignments))["nmi"][0] > 0.4
