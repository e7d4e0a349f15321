"""D4RL's layout: exact labels, behaviour policies, damaged files, memory, the cache."""

import os
import subprocess
import sys

import distrax
import h5py
import jax.numpy as jnp
import numpy as np
import pytest

from trajclust_jax.data import DataError, build_dataset, cache, from_episodes, load, loading, save_hdf5
from trajclust_jax.data.d4rl import load_hdf5, return_boundary

LENGTHS = (4, 6, 3, 5, 2, 7)  # three episodes of medium, three of expert
SIZE, ACTIONS = 3, 2


def arrays(lengths, seed=0, rewards=None):
    """Flat arrays of episodes that end by turns in a terminal state and at a limit."""
    rng, steps = np.random.default_rng(seed), sum(lengths)
    ends = np.zeros(steps, bool)
    ends[np.cumsum(lengths) - 1] = True
    odd = np.zeros(steps, bool)
    odd[np.cumsum(lengths)[::2] - 1] = True
    observations = rng.normal(size=(steps, SIZE)).astype(np.float32)
    final = rng.normal(size=(steps, SIZE)).astype(np.float32)
    return {
        "observations": observations,
        "next_observations": np.where(ends[:, None], final, np.roll(observations, -1, 0)),
        "actions": np.tanh(rng.normal(size=(steps, ACTIONS))).astype(np.float32),
        "rewards": (rng.normal(size=steps) if rewards is None else np.repeat(rewards, lengths)).astype(np.float32),
        "terminals": ends & odd,
        "timeouts": ends & ~odd,
        "infos/action_log_probs": rng.normal(size=steps),
        "infos/qpos": rng.normal(size=(steps, 4)),
    }


def write(path, content, policy=None):
    with h5py.File(path, "w") as file:
        for name, array in {**content, **(policy or {})}.items():
            file[name] = array
    return str(path)


def weights(seed):
    """A behaviour policy as D4RL stores it: matrices as PyTorch has them, [outputs, inputs]."""
    rng, sizes = np.random.default_rng(seed), {"fc0": (8, SIZE), "fc1": (8, 8)}
    sizes |= {"last_fc": (ACTIONS, 8), "last_fc_log_std": (ACTIONS, 8)}
    stored = {f"metadata/policy/{name}/weight": rng.normal(0, 0.5, size) for name, size in sizes.items()}
    return stored | {f"metadata/policy/{name}/bias": rng.normal(0, 0.5, size[0]) for name, size in sizes.items()}


def test_labels_are_exact_with_the_medium_file(tmp_path):
    pair = write(tmp_path / "hopper_medium_expert-v2.hdf5", arrays(LENGTHS))
    unfinished = arrays((*LENGTHS[:3], 9))  # medium's last episode was never finished
    unfinished["terminals"][-1] = unfinished["timeouts"][-1] = False
    medium = write(tmp_path / "elsewhere.hdf5", unfinished)
    for source in (f"{pair}:medium={medium}", f"{pair}:medium={sum(LENGTHS[:3])}"):
        data = load(source)
        np.testing.assert_array_equal(data.labels, [0, 0, 0, 1, 1, 1])
        assert data.spec.policy_names == ("medium", "expert")
        assert data.provenance.parameters["labels"].endswith("(exact)")
    os.rename(medium, tmp_path / "hopper_medium-v2.hdf5")
    assert load(pair).provenance.parameters == {
        "labels": "the last episode end of hopper_medium-v2.hdf5 (exact)",
        "environment": "Hopper-v4",  # by the file's name
        "ends": "terminals, timeouts",
    }
    for wrong in (5, sum(LENGTHS)):
        with pytest.raises(DataError, match=f"no episode ends after {wrong} steps"):
            load(f"{pair}:medium={wrong}")


def test_labels_by_returns_where_nothing_else_is_known(tmp_path):
    content = arrays(LENGTHS, rewards=(1.0, 0.5, 1.2, 3.0, 9.0, 2.5))
    data = load(write(tmp_path / "hopper-medium-expert-v2.hdf5", content))
    np.testing.assert_array_equal(data.labels, [0, 0, 0, 1, 1, 1])
    assert data.provenance.parameters["labels"] == "returns (heuristic)"
    assert load(write(tmp_path / "hopper-medium-v2.hdf5", content)).labels is None


def test_no_labels_where_no_boundary_shows(tmp_path):
    """Shuffled episodes: the best boundary explains little, and is none."""
    rng = np.random.default_rng(0)
    for returns in (rng.permutation(np.arange(40) % 2) * 100.0, np.ones(40), np.repeat([100.0, 0.0], 20)):
        content = arrays((5,) * 40, rewards=returns / 5)
        data = load(write(tmp_path / "hopper-medium-expert-v2.hdf5", content))
        assert data.labels is None
        assert data.label_guess is None
        assert data.provenance.parameters["labels"].startswith("none: returns show no boundary")
    data = load(write(tmp_path / "hopper-medium-expert-v2.hdf5", arrays((5,) * 40, rewards=np.repeat([0, 9], 20))))
    assert data.label_guess == "returns (heuristic)"


def test_return_boundary_against_all_splits():
    rng = np.random.default_rng(0)
    for _ in range(20):
        returns = rng.normal(size=12) + 2 * (np.arange(12) >= rng.integers(1, 12))
        costs = [returns[:b].var() * b + returns[b:].var() * (12 - b) for b in range(1, 12)]
        boundary, share = return_boundary(returns)
        assert boundary == np.argmin(costs) + 1
        np.testing.assert_allclose(share, 1 - min(costs) / (12 * returns.var()))
    with pytest.raises(DataError, match="one episode"):
        return_boundary(np.ones(1))


def test_transitions_and_features(tmp_path):
    content = arrays(LENGTHS)
    data = load(write(tmp_path / "a.hdf5", content)).trajectories
    ends = np.cumsum(LENGTHS) - 1
    np.testing.assert_array_equal(data.lengths, LENGTHS)
    np.testing.assert_array_equal(data.terminated, [True, False] * 3)
    np.testing.assert_array_equal(data.final_observations, content["next_observations"][ends])
    np.testing.assert_array_equal(data.observations[np.asarray(data.mask)], content["observations"])
    assert data.observation_shape == (SIZE,)  # and not the behaviour policy's likelihood beside it


def test_own_labels(tmp_path):
    data = load(write(tmp_path / "a.hdf5", {**arrays(LENGTHS), "labels": np.array([0, 1, 2, 0, 1, 2])}))
    np.testing.assert_array_equal(data.labels, [0, 1, 2, 0, 1, 2])


def test_behaviour_policies_give_the_oracle(tmp_path):
    content = arrays(LENGTHS)
    pair = write(tmp_path / "ant-medium-expert-v2.hdf5", content)
    policies = [weights(1), weights(2)]
    write(tmp_path / "ant-medium-v2.hdf5", arrays(LENGTHS[:3]), policies[0])
    assert load(pair).true_log_likelihoods is None  # one of two is not enough
    write(tmp_path / "ant-expert-v2.hdf5", arrays(LENGTHS[3:]), policies[1])
    found = load(pair).true_log_likelihoods
    starts = np.cumsum(LENGTHS) - LENGTHS
    for k, policy in enumerate(policies):
        get = lambda name, kind, policy=policy: policy[f"metadata/policy/{name}/{kind}"]
        x = content["observations"].astype(np.float64)
        for name in ("fc0", "fc1"):
            x = np.maximum(x @ get(name, "weight").T + get(name, "bias"), 0)
        mean, log_std = (x @ get(name, "weight").T + get(name, "bias") for name in ("last_fc", "last_fc_log_std"))
        base = distrax.Independent(distrax.Normal(jnp.array(mean), jnp.exp(jnp.clip(log_std, -20, 2))), 1)
        reference = distrax.Transformed(base, distrax.Block(distrax.Tanh(), 1)).log_prob(jnp.array(content["actions"]))
        np.testing.assert_allclose(found[:, k], np.add.reduceat(reference, starts), rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("fc0/weight", lambda x: x[:, :-1], "metadata/policy/fc0 has weight"),
        ("fc1/bias", lambda x: x[:-1], "metadata/policy/fc1 has weight"),
        ("last_fc/weight", lambda x: np.where(x == x.max(), np.nan, x), "last_fc/weight is not all finite"),
        ("last_fc_log_std/bias", lambda x: x.astype("S4"), "last_fc_log_std/bias is not all finite"),
        ("fc1/weight", lambda x: x[0, 0], "metadata/policy/fc1 has weight"),
    ],
)
def test_damaged_behaviour_policies_are_refused(tmp_path, name, change, words):
    pair = write(tmp_path / "ant-medium-expert-v2.hdf5", arrays(LENGTHS))
    policy = weights(2)
    policy[f"metadata/policy/{name}"] = change(policy[f"metadata/policy/{name}"])
    write(tmp_path / "ant-medium-v2.hdf5", arrays(LENGTHS[:3]), weights(1))
    write(tmp_path / "ant-expert-v2.hdf5", arrays(LENGTHS[3:]), policy)
    with pytest.raises(DataError, match=rf"ant-expert-v2\.hdf5: .*{words}"):
        load(pair)


def endless():
    """A thousand short episodes, and one whose end was never marked."""
    steps = 70_000
    content = {"observations": np.zeros((steps, 200), np.float32), "actions": np.zeros((steps, 1), np.float32)}
    return content | {"rewards": np.zeros(steps), "terminals": np.arange(steps) < 1000}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.pop("observations"), "observations is missing"),
        (lambda c: c.pop("actions"), "actions is missing"),
        (lambda c: (c.pop("terminals"), c.pop("timeouts")), "terminals is missing"),
        (lambda c: c["observations"].__setitem__((11, 1), np.nan), "observations at step 11 is NaN"),
        (lambda c: c["next_observations"].__setitem__((3, 1), np.inf), "next_observations at step 3 is NaN"),
        (lambda c: c["next_observations"].__setitem__((1, 0), np.nan), "next_observations at step 1 is NaN"),
        (lambda c: c.update(rewards=np.zeros(5)), r"rewards has shape \(5,\)"),
        (lambda c: c.update(actions=np.array([b"x"] * sum(LENGTHS))), "actions has dtype"),
        (lambda c: c.update(terminals=c["terminals"] * 3), "terminals at step 3 is 3"),
        (lambda c: c.update(terminals=c["terminals"] * 0, timeouts=c["timeouts"] * 0), "mark no end of an episode"),
        (lambda c: (c.clear(), c.update(endless())), "episode 1000 has 69000 steps.*Is an end of it not marked"),
        (lambda c: c.update({name: array[:0] for name, array in c.items()}), "observations is empty"),
        (lambda c: c.update(labels=np.zeros(3)), "labels has 3 entries"),
    ],
)
def test_bad_files_are_refused_in_one_line(tmp_path, change, words):
    content = arrays(LENGTHS)
    change(content)
    with pytest.raises(DataError, match=rf"a\.hdf5: .*{words}") as caught:
        load(write(tmp_path / "a.hdf5", content))
    assert "\n" not in str(caught.value)


def test_truncated_files(tmp_path):
    path = tmp_path / "a.hdf5"
    write(path, arrays((500,) * 4))
    content = path.read_bytes()
    for size in (0, 10, len(content) // 2, len(content) - 100):
        path.write_bytes(content[:size])
        with pytest.raises(DataError, match=r"a\.hdf5: .*(cannot be read|is empty)") as caught:
            load(path)
        assert "\n" not in str(caught.value)


def test_cache(tmp_path, monkeypatch, same):
    monkeypatch.setenv("TRAJCLUST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "CACHE_BYTES", 100)
    reads = []
    monkeypatch.setattr(loading, "load_hdf5", lambda *given: reads.append(given) or load_hdf5(*given))
    pair = write(tmp_path / "hopper-medium-expert-v2.hdf5", arrays(LENGTHS))
    first, second = load(pair), load(pair)
    same(first, second)
    assert len(reads) == 1
    write(tmp_path / "hopper-medium-v2.hdf5", arrays(LENGTHS[:2]))  # now labels are exact: another dataset
    np.testing.assert_array_equal(load(pair).labels, [0, 0, 1, 1, 1, 1])
    assert len(reads) == 2
    for kept in (tmp_path / "cache").iterdir():
        kept.write_bytes(b"damaged")
    load(pair)
    assert len(reads) == 3
    monkeypatch.setenv("TRAJCLUST_CACHE", "")
    load(pair)
    assert len(reads) == 4


def external_link(file, name, array):
    file[name] = h5py.ExternalLink("other.hdf5", name)


def virtual_array(file, name, array):
    layout = h5py.VirtualLayout(array.shape, array.dtype)
    layout[:] = h5py.VirtualSource("other.hdf5", name, array.shape)
    file.create_virtual_dataset(name, layout)


def external_storage(file, name, array):
    raw = os.path.join(os.path.dirname(file.filename), "rewards.raw")  # HDF5 looks for relative ones where it runs
    file.create_dataset(name, array.shape, array.dtype, external=[(raw, 0, array.nbytes)])


@pytest.mark.parametrize("lead", [external_link, virtual_array, external_storage])
def test_what_lies_in_other_files_is_not_cached(tmp_path, monkeypatch, lead):
    """These may change, and the file that leads to them does not."""
    monkeypatch.setenv("TRAJCLUST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "CACHE_BYTES", 100)
    content = arrays(LENGTHS)
    rewards = content.pop("rewards")
    path = write(tmp_path / "a.hdf5", content)
    for factor in (1, 2):
        write(tmp_path / "other.hdf5", {"rewards": factor * rewards})
        (factor * rewards).tofile(tmp_path / "rewards.raw")
        if factor == 1:
            with h5py.File(path, "a") as file:
                lead(file, "rewards", rewards)
        read = load(path).trajectories
        np.testing.assert_array_equal(np.asarray(read.rewards)[np.asarray(read.mask)], factor * rewards)
    assert not (tmp_path / "cache").exists()
    load(write(tmp_path / "alone.hdf5", content | {"rewards": rewards}))
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_a_damaged_part_that_nobody_reads_does_no_harm(tmp_path, monkeypatch):
    monkeypatch.setenv("TRAJCLUST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "CACHE_BYTES", 100)
    path = write(tmp_path / "a.hdf5", arrays(LENGTHS) | {"unused": np.arange(3)})
    with h5py.File(path, "r") as file:
        header = h5py.h5o.get_info(file["unused"].id).addr
    with open(path, "r+b") as file:
        file.seek(header)
        file.write(b"\xff" * 16)
    assert load(path).trajectories.lengths.tolist() == list(LENGTHS)


MEASURE = """
import resource, sys
from trajclust_jax.data import load
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
load(sys.argv[1])
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


def test_memory_stays_near_the_files_size(tmp_path):
    content = arrays((1000,) * 500)
    content["observations"] = np.random.default_rng(0).normal(size=(500_000, 40)).astype(np.float32)
    content["next_observations"] = np.roll(content["observations"], -1, 0)
    del content["infos/qpos"], content["infos/action_log_probs"]
    path = write(tmp_path / "a.hdf5", content)
    environment = {**os.environ, "TRAJCLUST_CACHE": ""}
    done = subprocess.run([sys.executable, "-c", MEASURE, path], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 1.5 * os.path.getsize(path)


def test_a_file_says_where_its_content_is_from(tmp_path):
    """Parameters come back, though not what is read off the file anew; damage is told in a line."""
    trajectories = from_episodes([(np.zeros((3, 2), np.float32), np.zeros((2, 1), np.float32), np.ones(2), True)])
    parameters = {"environment": "Hopper-v4", "relabelled": {"method": "clue"}, "labels": "guessed", "ends": "mine"}
    dataset = build_dataset(trajectories, name="some", source="somewhere", parameters=parameters)
    save_hdf5(dataset, tmp_path / "some.hdf5")
    found = load_hdf5(tmp_path / "some.hdf5").provenance.parameters
    assert found == {"ends": "terminals", **{k: parameters[k] for k in ("environment", "relabelled")}}
    with h5py.File(tmp_path / "some.hdf5", "r+") as file:
        del file["provenance"]
        file["provenance"] = "not JSON"
    with pytest.raises(DataError, match="provenance is damaged"):
        load_hdf5(tmp_path / "some.hdf5")
