"""CAAE, DEC and VAE + k-means: known answers, the papers' formulas, independence of what must not matter."""

import dataclasses
import functools

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trajclust_jax.clustering import CAAE, DEC, VAEKmeans
from trajclust_jax.clustering.representation.dec import _kl, _sharpened
from trajclust_jax.data import Trajectories
from trajclust_jax.metrics import nmi
from trajclust_jax.training import fit

KEY = jax.random.key(0)
QUICK = {
    CAAE: CAAE(2, steps=4, batch_size=8, warmup_iterations=2, iterations=2),
    DEC: DEC(2, steps=4, batch_size=8, pretrain_iterations=2, iterations=2),
    VAEKmeans: VAEKmeans(2, steps=4, batch_size=8, iterations=2),
}


@pytest.fixture
def two_lengths(random_data):
    """Trajectories of 3 and of 6 steps: two buckets."""
    trajectories = random_data(n=20, t=6)
    return trajectories.replace(lengths=np.where(np.arange(20) < 12, 3, 6).astype(np.int32))


@pytest.fixture
def told_apart(conflict):
    """Two policies that disagree on one observation, and the truth."""
    trajectories, labels = conflict(k=2, n=60)
    return trajectories.replace(lengths=np.full(60, 8, np.int32)), labels


# --- data ---------------------------------------------------------------------------------------------


def test_buckets_share_out_the_trajectories(random_data):
    trajectories = random_data(n=50, t=20)
    lengths = np.asarray(trajectories.lengths)
    data = CAAE(2).prepare(trajectories)
    assert [bucket.first for bucket in data.buckets] == [0, *np.cumsum([b.size for b in data.buckets])[:-1]]
    assert sum(bucket.size for bucket in data.buckets) == 50
    ordered = np.sort(lengths)
    for index, bucket in enumerate(data.buckets):
        mine = ordered[bucket.first : bucket.first + bucket.size]
        assert mine[-1] == bucket.horizon
        assert (data.bucket_of(bucket.first + np.arange(bucket.size)) == index).all()
    assert data.buckets[-1].horizon == lengths.max()
    assert data.buckets[0].horizon < lengths.max()
    assert data.bucket_of(53) == len(data.buckets) - 1, "fillers"


@pytest.mark.parametrize("method", QUICK.values(), ids=lambda method: type(method).__name__)
def test_decoders_share_what_actions_have_in_common(random_data, method):
    data = method.prepare(random_data().replace(action_parts=((0, 0), (0, 1), (1, 0), (1, 7))))
    params = method.new_network(KEY, jax.device_put(data))
    assert params["params"]["decoder"]["head"]["Dense_0"]["kernel"].shape[-1] == 5


def test_equal_lengths_are_one_bucket(random_data):
    trajectories = random_data(n=5, t=3).replace(lengths=np.full(5, 3, np.int32))
    assert CAAE(2).prepare(trajectories).buckets == ((0, 5, 3),)


@pytest.mark.parametrize("budget", [2**27, 200_000])
def test_everything_comes_back_in_the_datasets_order(random_data, budget):
    trajectories = random_data(n=50, t=20)
    data = jax.device_put(CAAE(2, memory_budget=budget).prepare(trajectories))
    assert (data.data.chunks.lengths.shape[0] == 1) == (budget == 2**27)

    def sums(batch):
        real = jnp.arange(batch.actions.shape[1]) < batch.lengths[:, None]
        return (
            batch.lengths,
            jnp.where(real, batch.actions, 0).sum(1),
            jnp.where(real, batch.observations.ids, 0).sum(1),
        )

    lengths, actions, ids = jax.jit(lambda: data.map_all(sums))()
    mask = np.asarray(trajectories.mask)
    np.testing.assert_array_equal(lengths, trajectories.lengths)
    np.testing.assert_array_equal(actions, np.where(mask, trajectories.actions, 0).sum(1))
    np.testing.assert_array_equal(ids, np.where(mask, trajectories.observations.ids, 0).sum(1))


# --- formulas -----------------------------------------------------------------------------------------


def _state(method, trajectories, **params):
    """Prepared data, and a fresh state of one seed, with the given parameters beside the network's."""
    data = jax.device_put(method.prepare(trajectories))
    state, _ = jax.jit(lambda key: method.fresh(key, data, None))(jax.random.key(0))
    return data, state.replace(params={**state.params, **params})


def _batch(data):
    return data.batch(jnp.arange(data.num_trajectories), data.buckets[-1].horizon)


@pytest.mark.parametrize("regularisation", [True, False])
def test_equation_4(random_data, regularisation):
    """Against NumPy float64, from the latents and the action probabilities."""
    codes = np.random.default_rng(0).normal(size=(3, 8)) * 0.3
    method = CAAE(3, alpha=0.7, regularisation=regularisation)
    data, state = _state(method, random_data(n=6), centres=jnp.array(codes, jnp.float32))
    batch = _batch(data)
    loss = jax.jit(lambda params: method._loss(params, batch, None, data))(state.params)
    network = method.network(data)
    given = batch.observations, batch.actions, batch.lengths
    z = np.asarray(network.apply(state.params["network"], *given, method="encode"), np.float64)
    log_probs = np.log(np.asarray(network.apply(state.params["network"], *given).probs, np.float64))
    for n in range(6):
        steps = range(int(batch.lengths[n]))
        recon = -sum(log_probs[n, t, batch.actions[n, t]] for t in steps)
        nearest = min(((z[n] - code) ** 2).sum() for code in codes)
        repulsion = sum(min(1, ((a - b) ** 2).sum()) for a in codes for b in codes) / 9
        np.testing.assert_allclose(loss.reconstruction[n], recon, rtol=1e-5)
        np.testing.assert_allclose(loss.total[n], recon + 0.7 * nearest - regularisation * repulsion, rtol=1e-5)


def test_codes_are_decoded_to_policies(random_data):
    """The result's log-likelihoods: sums of the decoder's log-probabilities, a code in the latent's place."""
    trajectories = random_data(n=6)
    codes = jnp.array(np.random.default_rng(0).normal(size=(3, 8)), jnp.float32)
    method = CAAE(3)
    data, state = _state(method, trajectories, centres=codes)
    found = np.asarray(method.result(state, data).log_likelihoods)
    batch, network = _batch(data), method.network(data)
    for k, code in enumerate(codes):
        latents = jnp.broadcast_to(code, (6, 8))
        policy = network.apply(state.params["network"], latents, batch.observations, method="decode")
        log_probs = np.asarray(policy.log_prob(batch.actions), np.float64)
        expected = [log_probs[n, : batch.lengths[n]].sum() for n in range(6)]
        np.testing.assert_allclose(found[data.data.order, k], expected, rtol=1e-5)


def test_dec_formulas():
    """Q, P and KL of Xie et al. by hand: two points, two centroids on a line."""
    params = {"centres": jnp.array([[0.0], [3.0]])}
    soft = DEC(2)._soft(params, jnp.array([[0.0], [1.0]]))
    np.testing.assert_allclose(
        soft, [[10 / 11, 1 / 11], [(1 / 2) / (1 / 2 + 1 / 5), (1 / 5) / (1 / 2 + 1 / 5)]], rtol=1e-6
    )
    q = np.asarray(soft, np.float64)
    p = q**2 / q.sum(0)
    p /= p.sum(1, keepdims=True)
    np.testing.assert_allclose(_sharpened(soft), p, rtol=1e-5)
    np.testing.assert_allclose(_kl(jnp.array(p), soft), (p * np.log(p / q)).sum(1), rtol=1e-4)
    assert (_kl(soft, soft) == 0).all()
    assert np.isfinite(jax.grad(lambda s: _kl(jnp.array([[1.0, 0.0]]), s).sum())(soft[:1])).all()


def test_the_evidence_lower_bound(random_data):
    """The divergence against distrax; the reconstruction is that of a sample, another for another key."""
    method = VAEKmeans(2, kl_weight=0.5)
    data, state = _state(method, random_data(n=6))
    batch = _batch(data)
    loss = method._loss(state.params, batch, jax.random.key(1), data)
    mean, log_variance = jnp.split(method.encode(state.params, batch, data), 2, axis=-1)
    normal = distrax.Normal(mean, jnp.exp(log_variance / 2))
    divergence = normal.kl_divergence(distrax.Normal(0.0, 1.0)).sum(-1)
    np.testing.assert_allclose(loss.total - loss.reconstruction, 0.5 * divergence, rtol=1e-4, atol=1e-5)
    other = method._loss(state.params, batch, jax.random.key(2), data)
    assert (loss.reconstruction != other.reconstruction).any()


def test_dec_refinement_approaches_its_target_and_leaves_the_decoder(two_lengths):
    method = dataclasses.replace(QUICK[DEC], steps=20)
    data, fresh = _state(method, two_lengths)
    key, refine = jax.random.key(1), method.phases()[1]
    asked = jax.jit(refine.host.ask)(key, data, fresh)
    found = refine.host.solve(jax.device_get(asked))
    start, _ = jax.jit(refine.start)(key, data, fresh, asked, found)
    end, _ = jax.jit(method._refine)(start, data, jnp.int32(0))
    before, after = (method._soft(state.params, state.latents) for state in (start, end))
    target = _sharpened(before)
    assert _kl(target, after).sum() < _kl(target, before).sum()
    decoder = lambda state: jax.tree.leaves(state.params["network"]["params"]["decoder"])
    assert all((a == b).all() for a, b in zip(decoder(start), decoder(end), strict=True))
    assert (start.params["centres"] != end.params["centres"]).any()


# --- as algorithms ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [CAAE, pytest.param(DEC, marks=pytest.mark.slow)])
def test_policies_that_disagree_are_told_apart(told_apart, kind):
    trajectories, labels = told_apart
    settings = {"warmup_iterations": 6} if kind is CAAE else {"pretrain_iterations": 6}
    method = kind(2, steps=25, batch_size=32, iterations=4, **settings)
    outcome = fit(method, trajectories, 1)
    result = outcome.result
    assert nmi(labels, np.asarray(result.assignments[0])) == pytest.approx(1)
    np.testing.assert_array_equal(result.posterior.argmax(-1), result.assignments)
    np.testing.assert_array_equal(result.restart_assignments[:, 0], result.assignments)
    assert result.latents.shape == (1, 60, 8)
    assert outcome.history[-1]["used_clusters"] == [[2]]
    begun = next(entry for entry in outcome.history if entry["phase"] in ("main", "refine") and entry["iteration"] == 1)
    assert outcome.history[-1]["objective"] >= begun["objective"]


def test_mapped_over_seeds_a_gradient_step_runs_one_bucket(two_lengths):
    """The bucket is the same for all seeds: the switch is not turned into both branches and a selection."""
    method = QUICK[CAAE]
    data = jax.device_put(method.prepare(two_lengths))
    assert len(data.buckets) == 2
    states = jax.eval_shape(lambda: jax.vmap(lambda key: method.fresh(key, data, None)[0])(jax.random.split(KEY, 3)))
    autoencode = jax.vmap(lambda state, i: method.autoencode(state, data, i, 0.1), (0, None))
    assert jax.jit(autoencode).lower(states, jnp.int32(0)).as_text().count("stablehlo.case") == 1


@pytest.mark.parametrize("kind", [pytest.param(CAAE, marks=pytest.mark.slow), VAEKmeans])
def test_vmapped_equals_lone_and_padding_changes_nothing(two_lengths, kind):
    """Seed 3 of five equals seed 3 alone, on data padded by seven steps that lie."""
    method = QUICK[kind]
    trajectories = two_lengths.replace(lengths=np.full(20, 4, np.int32))
    pad = lambda x: np.pad(np.asarray(x), [(0, 0), (0, 7)], constant_values=1)
    padded = trajectories.replace(
        observations=trajectories.observations.replace(ids=pad(trajectories.observations.ids)),
        actions=pad(trajectories.actions),
        rewards=pad(trajectories.rewards),
    )
    many, alone = fit(method, trajectories, 5).result, fit(method, padded, [3]).result
    np.testing.assert_allclose(many.latents[3], alone.latents[0], rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(many.assignments[3], alone.assignments[0])
    np.testing.assert_allclose(many.objective[3], alone.objective[0], rtol=1e-3)
    assert (many.latents[3] != many.latents[2]).any()


class Stop(Exception):
    pass


@pytest.mark.slow
def test_a_stopped_fit_resumes_bit_for_bit(tmp_path, told_apart):
    trajectories, _ = told_apart

    def stop(event):
        if event.total == 4:  # an iteration with codes
            raise Stop

    seen = []
    expected = fit(QUICK[CAAE], trajectories, 2, callbacks=[seen.append])
    assert [(e.phase, e.iteration) for e in seen] == [(p, i) for p in ("warmup", "main") for i in range(3)]
    with pytest.raises(Stop):
        fit(QUICK[CAAE], trajectories, 2, checkpoint_dir=str(tmp_path), checkpoint_seconds=0, callbacks=[stop])
    resumed = fit(QUICK[CAAE], trajectories, 2, checkpoint_dir=str(tmp_path))
    assert resumed.resumed
    assert resumed.history == expected.history
    for a, b in zip(jax.tree.leaves(resumed.result), jax.tree.leaves(expected.result), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("kind", [CAAE, pytest.param(DEC, marks=pytest.mark.slow)])
def test_one_trajectory_of_one_step(random_data, kind):
    trajectories = random_data(n=1, t=1)
    method = dataclasses.replace(QUICK[kind], num_clusters=1, steps=1, batch_size=2)
    with jax.debug_nans(True):
        result = fit(method, trajectories, 1).result
    assert np.isfinite(result.objective).all()
    assert (result.assignments == 0).all()
    with pytest.raises(ValueError, match="1 trajectories cannot make 2"):
        QUICK[kind].check(trajectories)


def test_unused_codes_are_reported(random_data):
    """Identical trajectories: one code is used, however many there are; the plain version starts without warm-up."""
    trajectories = random_data(n=1, t=4)
    same = jax.tree.map(lambda x: np.repeat(np.asarray(x), 9, axis=0) if len(x) == 1 else x, trajectories)
    method = CAAE(3, steps=2, batch_size=4, warmup_iterations=0, iterations=1)
    assert [phase.name for phase in method.phases()] == ["main"]
    outcome = fit(method, same, 1)
    assert outcome.history[-1]["used_clusters"] == [[1]]
    assert outcome.history[-1]["spread"][0][0] == pytest.approx(0, abs=1e-6)


@pytest.mark.slow
def test_continuous_actions_of_dense_observations(opposed):
    trajectories, labels = opposed()
    outcome = fit(CAAE(2, steps=50, warmup_iterations=6, iterations=3), trajectories, 1)
    assert nmi(labels, np.asarray(outcome.result.assignments[0])) == pytest.approx(1)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (CAAE, {"num_clusters": 0}),
        (CAAE, {"num_clusters": 2, "iterations": 0}),
        (CAAE, {"num_clusters": 2, "alpha": -1.0}),
        (CAAE, {"num_clusters": 2, "learning_rate": 0.0}),
        (DEC, {"num_clusters": 2, "pretrain_iterations": 0}),
        (VAEKmeans, {"num_clusters": 2, "kl_weight": -0.1}),
    ],
)
def test_bad_settings_are_refused(kind, settings):
    with pytest.raises(ValueError, match=r"it must be (at least|above) 0"):
        kind(**settings)


# --- windows ------------------------------------------------------------------------------------------


def _numbered(n=9, t=40):
    """Continuous trajectories whose actions tell trajectory and step."""
    lengths = np.linspace(3, t, n).astype(np.int32)
    number = np.where(np.arange(t) < lengths[:, None], 1000 * np.arange(n)[:, None] + np.arange(t), -1)
    return Trajectories(
        observations=number[..., None].astype(np.float32),
        actions=number[..., None].astype(np.float32),
        rewards=np.zeros((n, t), np.float32),
        lengths=lengths,
        terminated=np.zeros(n, bool),
        final_observations=np.zeros((n, 1), np.float32),
    )


def test_windows_are_consecutive_steps_and_what_is_decoded_comes_from_anywhere():
    trajectories = _numbered()
    data = jax.device_put(CAAE(2, window=8).prepare(trajectories))
    positions = jnp.repeat(jnp.arange(9), 50)
    batch = data.draw(KEY, positions, 40)
    number = lambda actions: np.asarray(data.data.scaling.undo(actions))[..., 0].round()
    lengths = np.asarray(data.data.lengths)[positions]
    first, seen = set(), set()
    for row, length in enumerate(lengths):
        n = int(positions[row])
        real = number(batch.actions)[row, : batch.lengths[row]] - 1000 * n
        assert len(real) == min(length, 8)
        np.testing.assert_array_equal(np.diff(real), 1)
        assert 0 <= real[0] <= real[-1] < length
        decoded = number(batch.decoded.actions)[row, : batch.decoded.lengths[row]] - 1000 * n
        assert ((decoded >= 0) & (decoded < length)).all()
        if n == 8:
            first.add(real[0])
            seen |= set(decoded)
    assert len(first) > 15
    assert len(seen) == 40
    ends = [number(data.windowed(jnp.array([8]), jnp.array([share])).actions)[0, [0, -1]] for share in (0.0, 1.0)]
    np.testing.assert_array_equal(np.array(ends) - 8000, [[0, 7], [32, 39]])


def test_a_trajectorys_latent_is_the_mean_over_its_windows():
    trajectories = _numbered()
    method = CAAE(2, window=8, windows=3)
    data = jax.device_put(method.prepare(trajectories))
    state, _ = jax.jit(method.fresh, static_argnums=2)(KEY, data, None)
    found = jax.jit(method.encode_all)(state.params, data)
    inputs, network = method.preprocessing(trajectories).inputs, method.network(data)
    encode = jax.jit(functools.partial(network.apply, method="encode"))
    for n, length in enumerate(trajectories.lengths):
        latents = []
        for share in (1 / 6, 3 / 6, 5 / 6):
            start = int(np.round(share * max(length - 8, 0)))
            rows = slice(start, start + min(length, 8))
            observed = inputs(trajectories.observations[n, rows])[None]
            actions = data.data.scaling(trajectories.actions[n, rows])[None]
            given = observed, actions, np.array([min(length, 8)])
            latents.append(encode(state.params["network"], *given)[0])
        np.testing.assert_allclose(found[n], np.mean(latents, 0), atol=1e-4)


@pytest.mark.parametrize(
    "method",
    [
        pytest.param(CAAE(2, window=8, steps=40, warmup_iterations=5, iterations=2), marks=pytest.mark.slow),
        pytest.param(DEC(2, window=8, steps=40, pretrain_iterations=5, iterations=2), marks=pytest.mark.slow),
        pytest.param(VAEKmeans(2, window=8, steps=40, iterations=2), marks=pytest.mark.slow),
    ],
)
def test_methods_run_on_windows(opposed, method):
    trajectories, labels = opposed(t=60)
    result = jax.tree.map(lambda x: x[0], fit(method, trajectories, 1).result)
    assert np.isfinite(result.objective)
    if not isinstance(method, VAEKmeans):
        assert nmi(labels, np.asarray(result.assignments)) == pytest.approx(1)
    if isinstance(method, CAAE):  # codes as policies: whole trajectories are scored
        assert (np.asarray(result.log_likelihoods).argmax(1) == np.asarray(result.assignments)).all()


def test_windows_and_maps_exclude_each_other(random_data):
    with pytest.raises(ValueError, match="give one of them"):
        CAAE(2, window=8, extractor="conv").check(random_data())
