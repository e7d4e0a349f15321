"""Damaged files: whatever is done to them, a reader gives a dataset or one line of refusal."""

import io
import time

import h5py
import numpy as np
import pytest

from trajclust_jax.data import DataError, Dataset, build_dataset, load, save_npz

INPUTS = 300
ODD_VALUES = [0, -1, 2, 2**31 - 2, 2**32 + 3, 2**63 - 1, -(2**63), 1e20, 1e300, np.nan, np.inf, -np.inf, 0.5]
ODD_DTYPES = ["?", "i1", "u8", ">i8", "f2", ">f4", "f8", "c8", "S3", "U2", "M8[s]", [("a", "i4"), ("b", "f4")]]


def flat(rng):
    """Arrays in D4RL's layout, or in Gymnasium's words."""
    steps, lengths = 24, np.array([5, 1, 8, 10])
    ends = np.isin(np.arange(steps), np.cumsum(lengths) - 1)
    arrays = {
        "observations": rng.normal(size=(steps, 3)),
        "actions": rng.integers(3, size=steps) if rng.random() < 0.5 else rng.normal(size=(steps, 2)),
        "rewards": rng.normal(size=steps),
        "labels": np.array([0, 1, 0, 1]) if rng.random() < 0.5 else np.array([b"x", b"y", b"x", b"x"]),
    }
    if rng.random() < 0.5:
        following = np.roll(arrays["observations"], -1, 0) + ends[:, None]
        return arrays | {"terminals": ends, "timeouts": ends, "next_observations": following}
    return arrays | {"terminations": ends, "truncations": ends, "episode_length": lengths, "policy_names": ["a", "b"]}


def padded(rng):
    lengths = np.array([3, 1, 4])
    return {
        "observations": rng.normal(size=(3, 4, 2)),
        "actions": rng.integers(3, size=(3, 4)),
        "lengths": lengths,
        "rewards": rng.normal(size=(3, 4)),
        "terminated": lengths > 2,
        "num_actions": np.array(3),
        "true_log_likelihoods": rng.normal(size=(3, 2)),
    }


def robomimic(rng):
    demos = {}
    for n, length in enumerate((3, 1, 4)):
        demos |= {
            f"data/demo_{n}/obs/a": rng.normal(size=(length, 2)),
            f"data/demo_{n}/obs/b": rng.normal(size=(length, 1, 2)),
            f"data/demo_{n}/actions": rng.normal(size=(length, 2)),
            f"data/demo_{n}/dones": np.arange(length) == length - 1,
        }
    return demos


def d3rlpy(rng):
    arrays = {"num_episodes": np.array(3)}
    for n, length in enumerate((3, 1, 4)):
        arrays |= {f"observations_{n}": rng.normal(size=(length, 2)), f"actions_{n}": rng.integers(3, size=(length, 1))}
        arrays |= {f"rewards_{n}": rng.normal(size=(length, 1)), f"terminated_{n}": np.array(True)}
    return arrays


def distort(rng, arrays):
    """One or two arrays with odd values, dtypes, shapes or ranks, absent, or in another's place."""
    arrays = {name: np.asarray(array) for name, array in arrays.items()}
    for _ in range(rng.integers(1, 3)):
        name = list(arrays)[rng.integers(len(arrays))]
        array, kind = arrays[name], rng.integers(7)
        with np.errstate(all="ignore"):
            if kind == 0 and array.size and array.dtype.kind in "biuf":
                value = ODD_VALUES[rng.integers(len(ODD_VALUES))]
                array = array.astype("f8" if isinstance(value, float) else "i8")
                array.flat[rng.integers(array.size)] = value
            elif kind == 1 and array.dtype.kind in "biuf":
                array = array.real.astype(ODD_DTYPES[rng.integers(len(ODD_DTYPES))])
            elif kind == 2:
                array = array[..., None] if rng.random() < 0.5 else array[None]
            elif kind == 3:
                array = array.reshape(-1)[rng.integers(array.size) :] if array.size else array
            elif kind == 4:
                array = array.reshape(-1)[0] if array.size else array
            elif kind == 5:
                array = arrays[list(arrays)[rng.integers(len(arrays))]]
            else:
                array = None
        arrays[name] = array
        arrays = {name: array for name, array in arrays.items() if array is not None} or {"observations": np.zeros(3)}
    return arrays


def npz(rng, arrays):
    buffer = io.BytesIO()
    (np.savez_compressed if rng.random() < 0.5 else np.savez)(buffer, **arrays)
    return buffer.getvalue()


def hdf5(rng, arrays):
    buffer, compressed = io.BytesIO(), rng.random() < 0.5
    with h5py.File(buffer, "w") as file:
        for name, array in arrays.items():
            array = array.astype("S") if array.dtype.kind == "U" else array
            if array.dtype.kind == "M":
                array = array.astype("i8")
            options = {"compression": "gzip", "chunks": True} if compressed and array.ndim and array.size else {}
            file.create_dataset(name, data=array, **options)
    return buffer.getvalue()


def damage(rng, content):
    """A few flipped bytes, or an end cut off, or a piece filled with one byte."""
    content, kind = bytearray(content), rng.integers(4)
    if kind == 0:
        return bytes(content[: rng.integers(len(content))])
    if kind == 1:
        start = rng.integers(len(content))
        content[start : start + rng.integers(1, 64)] = bytes([rng.integers(256)]) * 8
        return bytes(content)
    for at in rng.integers(len(content), size=rng.integers(1, 9)):
        content[at] ^= 1 << rng.integers(8)
    return bytes(content)


def inputs(suffix, tmp_path):
    """Contents of files, damaged in their bytes or in what their arrays say."""
    rng = np.random.default_rng(0)
    write, layouts = (npz, [flat, padded]) if suffix == "npz" else (hdf5, [flat, padded, robomimic, d3rlpy])
    source = load_source(rng, tmp_path)
    for number in range(INPUTS):
        arrays = layouts[number % len(layouts)](rng)
        if suffix == "npz" and number % 5 == 0:
            yield damage(rng, source)
        elif number % 2:
            yield damage(rng, write(rng, {name: np.asarray(array) for name, array in arrays.items()}))
        else:
            yield write(rng, distort(rng, arrays))


def load_source(rng, tmp_path):
    """The bytes of a file of ours."""
    path = tmp_path / "source.npz"
    path.write_bytes(npz(rng, {name: array for name, array in padded(rng).items() if name[0] != "t"}))
    trajectories = load(path).trajectories
    save_npz(
        build_dataset(trajectories, [0, 1, 0], name="x", source="x", true_log_likelihoods=rng.normal(size=(3, 2))), path
    )
    return path.read_bytes()


@pytest.mark.parametrize("suffix", ["npz", "hdf5"])
def test_damaged_files(tmp_path, suffix):
    path, refused = tmp_path / f"hopper-medium.{suffix}", []
    for content in inputs(suffix, tmp_path):
        path.write_bytes(content)
        began = time.monotonic()
        try:
            assert isinstance(load(path), Dataset)
        except DataError as error:
            refused.append(str(error))
        assert time.monotonic() - began < 5
    assert all(line.startswith(str(path)) and "\n" not in line for line in refused)
    assert INPUTS / 10 < len(refused) < INPUTS * 9 / 10  # the damage is neither too little nor too much
