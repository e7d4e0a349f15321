"""Images become the features of a CNN; maps and numbers stay as they are."""

import numpy as np
import pytest

from trajclust_jax.checkpoint import load_tree, save_tree
from trajclust_jax.clustering import images
from trajclust_jax.clustering.images import describe_inputs, fitted_inputs, looks_like_images
from trajclust_jax.clustering.policies.data import prepare
from trajclust_jax.data import from_episodes
from trajclust_jax.data.codebook import encode
from trajclust_jax.data.transforms import Inputs


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(images, "STEPS", 300)
    monkeypatch.setattr(images, "_latest", None)


def frames_of(shape, dtype=np.uint8, low=0, high=256, seed=0):
    return np.random.default_rng(seed).integers(low, high, (2, 5, *shape)).astype(dtype)


def with_frames(frames, actions=None):
    """Two trajectories of 4 steps."""
    actions = np.zeros((2, 4), np.int32) if actions is None else actions
    return from_episodes([(f, a, np.zeros(4, np.float32), False) for f, a in zip(frames, actions, strict=True)], 2)


def squares(count=20, steps=20, size=24):
    """Trajectories whose frames are a bright square each; where it is decides the action, and its `places`."""
    rng = np.random.default_rng(0)
    places = rng.integers(0, size - 4, (count, steps + 1, 2))
    frames = np.full((count, steps + 1, size, size), 20, np.uint8)
    for n, t in np.ndindex(count, steps + 1):
        row, column = places[n, t]
        frames[n, t, row : row + 4, column : column + 4] = 250
    actions = (places[:, :-1] / (size / 2) - 1).astype(np.float32)
    actions[::2] = actions[::2, :, ::-1]  # two policies
    rewards = np.zeros(steps, np.float32)
    trajectories = from_episodes([(f, a, rewards, False) for f, a in zip(frames, actions, strict=True)])
    return trajectories, places[:, :-1].reshape(-1, 2)


@pytest.mark.parametrize("shape", [(16, 16), (20, 16, 3), (3, 16, 20)])
def test_what_looks_like_images(shape):
    assert looks_like_images(with_frames(frames_of(shape)))
    assert looks_like_images(with_frames(frames_of(shape, np.float32) / np.float32(255)))
    assert looks_like_images(encode(with_frames(frames_of(shape))))
    assert looks_like_images(with_frames(frames_of(shape, np.uint16, high=2**16)))  # depths in millimetres
    assert describe_inputs(with_frames(frames_of(shape))) == f"images {list(shape)}: the 64 features of a CNN"


@pytest.mark.parametrize("shape", [(256,), (16, 15), (15, 15, 3), (3, 16, 3), (16, 16, 16), (16, 3, 16)])
def test_other_shapes_are_no_images(shape):
    assert not looks_like_images(with_frames(frames_of(shape)))
    assert describe_inputs(with_frames(frames_of(shape))) == f"observations {list(shape)}"


def test_maps_and_other_numbers_are_no_images():
    assert not looks_like_images(with_frames(frames_of((16, 16, 3), high=2)))
    assert not looks_like_images(with_frames(frames_of((16, 16), np.float32, low=-1)))
    assert not looks_like_images(with_frames(frames_of((16, 16), np.float32, high=300)))
    assert not looks_like_images(with_frames(frames_of((16, 16), np.int32, high=2**17)))
    assert isinstance(fitted_inputs(with_frames(frames_of((16, 16), high=2))), Inputs)


def test_padding_decides_nothing():
    frames = frames_of((16, 16), np.float32)
    trajectories = with_frames(frames)
    short = trajectories.replace(lengths=np.array([4, 2], np.int32))
    short.observations[1, 2:] = np.nan
    assert looks_like_images(short)


def test_features_say_where_things_are(quick, tmp_path):
    trajectories, places = squares()
    inputs = fitted_inputs(trajectories)
    flat = np.asarray(trajectories.observations).reshape(-1, 24, 24)
    features = inputs(flat)
    assert (features.shape, features.dtype) == ((len(flat), inputs.size), np.float32)
    np.testing.assert_allclose(features.std(0), 1, atol=0.2)
    design = np.c_[features, np.ones(len(features))]
    half = np.arange(len(flat)) % 2 == 0
    found = design[~half] @ np.linalg.lstsq(design[half], places[half], rcond=None)[0]
    assert (1 - ((found - places[~half]) ** 2).mean(0) / places[~half].var(0) > 0.95).all()
    save_tree(tmp_path / "inputs", inputs)
    restored = images.ImageInputs(**load_tree(tmp_path / "inputs"))
    np.testing.assert_array_equal(restored(flat), features)


def test_a_data_set_is_trained_on_once(quick, monkeypatch):
    trained = []
    monkeypatch.setattr(images, "train_inputs", lambda trajectories: trained.append(trajectories) or len(trained))
    trajectories = with_frames(frames_of((16, 16)))
    assert [fitted_inputs(trajectories), fitted_inputs(trajectories), fitted_inputs(trajectories.replace())] == [1] * 3
    assert fitted_inputs(trajectories.replace(actions=np.ones((2, 4), np.int32))) == 2  # other policies
    assert fitted_inputs(encode(trajectories)) == 3


@pytest.mark.slow
def test_channels_first_and_codebooks_change_nothing(quick):
    images.STEPS = 3
    frames = frames_of((18, 16, 3))
    data = with_frames(frames)
    wanted = fitted_inputs(data)(frames[0])
    moved = np.moveaxis(frames, -1, 2)
    np.testing.assert_allclose(fitted_inputs(with_frames(moved))(moved[0]), wanted, atol=1e-3)
    np.testing.assert_allclose(fitted_inputs(encode(data))(frames[0]), wanted, atol=1e-3)
    for each in (data, encode(data)):
        prepared = prepare(each, 1, 2**20)
        assert prepared.example.shape == (1, 64)
        assert prepared.inputs_at(np.zeros(2, int), np.arange(2)).shape == (2, 64)


@pytest.mark.parametrize("shape", [(100, 130), (210, 160, 3)])
def test_large_frames_are_shrunk(shape):
    frames = frames_of(shape)[0]
    shrunk = images._shrunk(frames)
    assert max(shrunk.shape[1:3]) <= 96
    factor = 2 if shape == (100, 130) else 3
    np.testing.assert_allclose(
        shrunk[0, 0, 0, 0], frames[0, :factor, :factor].reshape(factor**2, -1)[:, 0].mean(), 1e-5
    )
