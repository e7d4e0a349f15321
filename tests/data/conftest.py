"""Small random trajectories for the tests of the data layer."""

import numpy as np
import pytest

from trajclust_jax.data import Codebook, Trajectories


@pytest.fixture
def discrete():
    """Maker of trajectories over a codebook of `rows` uint8 images; `padding` fills what must not matter."""

    def make(n=12, t=7, rows=5, seed=0, padding=0):
        rng = np.random.default_rng(seed)
        table = np.arange(rows, dtype=np.uint8)[:, None, None, None] + np.zeros((1, 3, 3, 2), np.uint8)
        lengths = rng.integers(1, t + 1, n).astype(np.int32)
        lengths[0] = t  # the shape says T, some trajectory should too
        pad = np.arange(t) >= lengths[:, None]
        ids, actions = rng.integers(0, rows, (n, t)).astype(np.int32), rng.integers(0, 4, (n, t)).astype(np.int32)
        rewards = rng.normal(size=(n, t)).astype(np.float32)
        ids[pad], actions[pad], rewards[pad] = padding, padding, padding
        return Trajectories(
            observations=Codebook(table, ids),
            actions=actions,
            rewards=rewards,
            lengths=lengths,
            terminated=rng.random(n) < 0.5,
            final_observations=Codebook(table, rng.integers(0, rows, n).astype(np.int32)),
            num_actions=4,
        )

    return make


@pytest.fixture
def continuous():
    """Maker of dense float32 trajectories with continuous actions."""

    def make(n=6, t=5, seed=0, padding=0.0):
        rng = np.random.default_rng(seed)
        lengths = rng.integers(1, t + 1, n).astype(np.int32)
        lengths[0] = t
        pad = np.arange(t) >= lengths[:, None]
        arrays = [rng.normal(size=(n, t, *shape)).astype(np.float32) for shape in ((3,), (2,), ())]
        for array in arrays:
            array[pad] = padding
        return Trajectories(
            *arrays[:2],
            rewards=arrays[2],
            lengths=lengths,
            terminated=rng.random(n) < 0.5,
            final_observations=rng.normal(size=(n, 3)).astype(np.float32),
        )

    return make


@pytest.fixture
def expand():
    """The dense form of trajectories over a codebook."""

    def expanded(trajectories):
        observations, final = trajectories.observations, trajectories.final_observations
        return trajectories.replace(
            observations=observations.table[observations.ids], final_observations=final.table[final.ids]
        )

    return expanded


@pytest.fixture
def same():
    """Asserts that two datasets are equal in every array, dtype and word; rows of a codebook may be renumbered."""

    def flat(trajectories):
        mask = np.asarray(trajectories.mask)

        def dense(observations):
            coded = isinstance(observations, Codebook)
            return observations.table[observations.ids] if coded else np.asarray(observations)

        fields = {name: np.asarray(getattr(trajectories, name)) for name in ("lengths", "terminated")}
        fields |= {name: np.asarray(getattr(trajectories, name))[mask] for name in ("actions", "rewards")}
        fields["observations"] = dense(trajectories.observations)[mask]
        fields["final_observations"] = dense(trajectories.final_observations)
        return fields

    def check(one, other):
        first, second = flat(one.trajectories), flat(other.trajectories)
        first |= {"labels": one.labels, "likelihoods": one.true_log_likelihoods}
        second |= {"labels": other.labels, "likelihoods": other.true_log_likelihoods}
        for name, array in first.items():
            if array is None:
                assert second[name] is None
                continue
            np.testing.assert_array_equal(array, second[name], err_msg=name)
            assert array.dtype == second[name].dtype, name
        assert one.trajectories.num_actions == other.trajectories.num_actions
        assert one.trajectories.action_parts == other.trajectories.action_parts
        assert one.trajectories.max_length == other.trajectories.max_length
        assert type(one.trajectories.observations) is type(other.trajectories.observations)
        assert (one.spec, one.provenance) == (other.spec, other.provenance)

    return check
