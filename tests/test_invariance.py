"""What must not change a clustering: units, offsets, dtypes, order, padding, constant columns, and the file format."""

import h5py
import numpy as np
import pytest

from trajclust_jax.clustering import CAAE, DEC, BehaviourSet, PGKmeans, Sorl, SummaryKmeans, VAEKmeans
from trajclust_jax.data import Trajectories, build_dataset, load, save_minari
from trajclust_jax.metrics import nmi
from trajclust_jax.training import fit

N, T = 24, 20
LABELS = np.arange(N) % 2
ENCODER = {"batch_size": 16, "steps": 50}
METHODS = {
    "pg_kmeans": PGKmeans.default(2, restarts=2, iterations=8, polish_iterations=1, polish_first_steps=60),
    "sorl": Sorl.default(2, restarts=3, iterations=20),
    "caae": CAAE(2, warmup_iterations=6, iterations=2, **ENCODER),
    "mean": SummaryKmeans(2, "mean"),
    "behaviour_set": BehaviourSet(2, features=(16, 16, 16), batch_size=64, steps=300, iterations=3),
    "pg_kmeans_gru": PGKmeans.default(2, "gru", restarts=3, iterations=10, polish_iterations=2),
    "dec": DEC(2, pretrain_iterations=8, iterations=2, **ENCODER),
    "vae": VAEKmeans(2, iterations=8, **ENCODER),
}


def data(dtype=np.float32):
    """Two linear policies, whose actions have different means as well, so that every method can find them."""
    rng = np.random.default_rng(0)
    observations = (rng.normal(size=(N, T, 3)) * 200).astype(dtype)
    gains = rng.normal(size=(2, 3, 2)) / 200
    actions = np.einsum("ntd,nda->nta", observations.astype(float), gains[LABELS]) + (2 * LABELS - 1)[:, None, None]
    actions += 0.1 * rng.normal(size=actions.shape)
    return Trajectories(
        observations=observations,
        actions=actions.astype(np.float32),
        rewards=np.zeros((N, T), np.float32),
        lengths=np.full(N, T, np.int32),
        terminated=np.zeros(N, bool),
        final_observations=observations[:, -1],
    )


def acting(change):
    return lambda given: given.replace(actions=change(given.actions).astype(np.float32))


def observing(change):
    return lambda given: given.replace(
        observations=change(given.observations), final_observations=change(given.final_observations)
    )


def with_constant(array):
    return np.concatenate([array, np.full((*array.shape[:-1], 1), 7, array.dtype)], -1)


def padded(given):
    """Longer arrays, garbage on padding."""

    def longer(array):
        filler = np.full((N, 3, *array.shape[2:]), np.nan, array.dtype)
        return np.concatenate([array, filler], 1)

    return given.replace(**{name: longer(getattr(given, name)) for name in ("observations", "actions", "rewards")})


TRANSFORMATIONS = {
    "actions times .01": acting(lambda x: x * 0.01),
    "actions times 1000": acting(lambda x: x * 1000),
    "actions in units of their own": acting(lambda x: x * [1e-3, 500] + [40, -3]),
    "a constant action": acting(with_constant),
    "observations times 1e-5": observing(lambda x: x * np.float32(1e-5)),
    "observations times 1e5, moved": observing(lambda x: x * np.float32(1e5) + np.float32(3e7)),
    "a constant observation": observing(with_constant),
    "observations of 16 bits": observing(lambda x: x.astype(np.float16)),
    "padding": padded,
}
RESHAPING = ("a constant observation",)  # another program to compile


def always(name, change):
    """Whether a case is not a slow one."""
    return name in ("pg_kmeans", "mean") or (name == "sorl" and change == "actions in units of their own")


def found(method, trajectories):
    return np.asarray(fit(method, trajectories, 1).result.assignments[0])


@pytest.mark.parametrize(
    ("name", "change"),
    [
        pytest.param(name, change, marks=[] if always(name, change) else [pytest.mark.slow])
        for name in METHODS
        for change in ("nothing", *TRANSFORMATIONS, "order")
        if change not in RESHAPING or name in ("pg_kmeans", "mean")
    ],
)
def test_clusters_are_the_same(name, change):
    trajectories, rows = data(), np.arange(N)
    if change == "order":
        rows = np.random.default_rng(1).permutation(N)
        names = ("observations", "actions", "final_observations")
        trajectories = trajectories.replace(**{each: getattr(trajectories, each)[rows] for each in names})
    elif change != "nothing":
        trajectories = TRANSFORMATIONS[change](trajectories)
    assert nmi(LABELS[rows], found(METHODS[name], trajectories)) == pytest.approx(1)


def write(form, folder, dtype):
    """The data in a file (or Minari's folder) of this form, every float of this dtype; its source for `load`."""
    given = data(np.float16)  # values that every dtype holds
    observations = given.observations.astype(dtype)
    actions, rewards = given.actions.astype(np.float16).astype(dtype), given.rewards.astype(dtype)
    flat = lambda array: array.reshape(N * T, *array.shape[2:])
    ends = np.tile(np.arange(T) == T - 1, N)
    if form == "minari":
        kept = observations.astype(np.dtype(dtype).newbyteorder("="))
        changed = given.replace(observations=kept, final_observations=kept[:, -1], actions=actions.astype(np.float32))
        return str(save_minari(build_dataset(changed, name="toy", source="tests"), "toy-v0", folder))
    arrays = {"observations": flat(observations), "actions": flat(actions), "rewards": flat(rewards)}
    if form == "padded":
        arrays = {"observations": observations, "actions": actions, "rewards": rewards, "lengths": given.lengths}
    elif form == "gymnasium":
        arrays |= {"terminations": np.zeros(N * T, bool), "truncations": ends}
    else:
        arrays |= {"terminals": np.zeros(N * T, bool), "timeouts": ends}
    if form == "hdf5":
        with h5py.File(folder / "data.hdf5", "w") as file:
            for each, array in arrays.items():
                file.create_dataset(each, data=array)
        return str(folder / "data.hdf5")
    np.savez(folder / "data.npz", **arrays)
    return str(folder / "data.npz")


@pytest.mark.parametrize("form", ["padded", "flat", "gymnasium", "hdf5", "minari"])
@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8", ">f4"])
def test_every_format_is_read_alike(form, dtype, tmp_path, monkeypatch):
    monkeypatch.setenv("TRAJCLUST_CACHE", "")
    if form == "minari" and dtype == "<f8":
        pytest.skip("trajectories have at most 32 bits, so none of 64 can be written")
    read, expected = load(write(form, tmp_path, dtype)).trajectories, data(np.float16)
    assert read.actions.dtype == np.float32
    assert read.observations.dtype.isnative
    np.testing.assert_array_equal(read.observations, expected.observations)
    np.testing.assert_array_equal(read.actions, expected.actions.astype(np.float16))
    np.testing.assert_array_equal(read.lengths, expected.lengths)
    np.testing.assert_array_equal(read.terminated, expected.terminated)
    assert nmi(LABELS, found(METHODS["mean"], read)) == pytest.approx(1)
