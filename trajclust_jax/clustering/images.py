"""Observations that are images: networks see the features of a small CNN in place of pixels.

The CNN is trained once for a dataset, and its features are computed once for each distinct frame. It predicts actions
from the features of the frame and a learned embedding of the trajectory: features keep what ANY of the policies needs,
and the embedding says, like a latent of CAAE, which of them acted. Everything after it works as with other
observations.

Two choices decide whether clusters are found. Features are positions only: where in the frame each channel is active
(Finn et al. 2016, "Deep Spatial Autoencoders for Visuomotor Learning"). Unrestricted features would recognise the
trajectory that a frame is from, and with it the policy, so that one policy would fit all. And predictions are linear in
the features: EM's first M-steps are short, and policies that had to learn relations between positions would all learn
the mixture.
"""

import functools
import weakref
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct

from trajclust_jax.data import Codebook, Trajectories
from trajclust_jax.data.transforms import CLIP, Inputs, action_scaling, input_transform
from trajclust_jax.networks import MLP

FEATURES, CHANNELS = 64, 32
STEPS, BATCH, LEARNING_RATE = 700, 128, 2e-3  # of the CNN's training, by Adam
EMBEDDING = 8  # dimensions of the embedding that says which policy acted in a trajectory
EMBEDDING_SCALE = 10.0  # factor on its parameters: a trajectory is drawn seldom, and Adam's steps are small
_SMALLEST, _LARGEST = 16, 96  # pixels along a side: an axis below holds channels, and larger frames are shrunk
_GRID = 16  # cells that the first convolution leaves along the longer side
_SAMPLE = 2**22  # pixels that statistics are taken from
_BLOCK = 2**20  # pixels at a time where nothing is trained
_KEY = 0x696D6167


class FrameNetwork(nn.Module):
    """Frames `[B, H, W, C]` float32 to features `[B, F]` of each channel's mean row and column.

    The convolution is a matrix product of patches: on a CPU, its gradient is faster than that of XLA's own.
    """

    @nn.compact
    def __call__(self, frames: jax.Array) -> jax.Array:
        stride = max(2, round(max(frames.shape[1:3]) / _GRID))
        x = nn.relu(nn.Dense(CHANNELS)(_patches(frames, stride)))
        x = nn.Dense(CHANNELS)(x)
        weight = nn.softmax(x.reshape(len(x), -1, CHANNELS), axis=1).reshape(x.shape)
        row = jnp.einsum("bijc,i->bc", weight, jnp.linspace(-1, 1, x.shape[1]))
        column = jnp.einsum("bijc,j->bc", weight, jnp.linspace(-1, 1, x.shape[2]))
        return nn.Dense(FEATURES)(MLP((128,))(jnp.concatenate([row, column], axis=-1)))


class ActionPredictor(nn.Module):
    """Frames, and embeddings `[B, E]` of their trajectories, to logits or means of actions `[B, A]`."""

    action_size: int

    @nn.compact
    def __call__(self, frames: jax.Array, embeddings: jax.Array) -> jax.Array:
        features = nn.relu(FrameNetwork(name="frame")(frames))
        terms = nn.Dense(self.action_size * (1 + EMBEDDING))(features).reshape(len(frames), -1, self.action_size)
        return terms[:, 0] + jnp.einsum("bea,be->ba", terms[:, 1:], embeddings)


@struct.dataclass
class ImageInputs:
    """How an image becomes a network's input: the CNN's features, standardised."""

    params: Any  # of `FrameNetwork`
    mean: jax.Array  # [H, W, C] float32: of each pixel, in frames as the CNN sees them
    std: jax.Array  # [] float32: of all pixels, around their means
    shift: jax.Array  # [F] float32
    scale: jax.Array  # [F] float32

    @property
    def size(self) -> int:
        """F."""
        return self.shift.shape[-1]

    def __call__(self, observations: np.ndarray) -> np.ndarray:
        """`[batch, *shape]` -> `[batch, F]` float32."""
        features = _features(self.params, self.mean, self.std, np.asarray(observations))
        return ((features - self.shift) / self.scale).clip(-CLIP, CLIP)


def looks_like_images(trajectories: Trajectories) -> bool:
    """Whether observations are `[H, W]`, `[H, W, C]` or `[C, H, W]`, H and W at least 16 and C less, with values 0 to
    255, or whole numbers of 16 bits, such as depths in millimetres.

    Maps of zeros and ones are no images.
    """
    shape = trajectories.observation_shape
    large = [size >= _SMALLEST for size in shape]
    if large not in ([True, True], [True, True, False], [False, True, True]):
        return False
    frames, rows = _frames(trajectories)
    if frames.dtype == bool:
        return False
    most = 2**16 - 1 if frames.dtype.kind in "iu" else 255
    binary, rows, size = True, np.unique(rows), _block_size(frames)
    for start in range(0, len(rows), size):  # of real steps alone: padding may hold anything
        block = frames[rows[start : start + size]]
        if not (block.min() >= 0 and block.max() <= most):
            return False
        binary = binary and bool(((block == 0) | (block == 1)).all())
    return not binary


def describe_inputs(trajectories: Trajectories) -> str:
    """What policies see, in words: `images [64, 64]: the 64 features of a CNN`."""
    shape = list(trajectories.observation_shape)
    if looks_like_images(trajectories):
        return f"images {shape}: the {FEATURES} features of a CNN"
    return f"observations {shape}"


_latest: tuple[tuple[weakref.ref, ...], Inputs | ImageInputs] | None = None


def fitted_inputs(trajectories: Trajectories) -> Inputs | ImageInputs:
    """How observations become a network's input: a CNN trained on images, `input_transform` for all others.

    For the same arrays as in the last call the CNN is not trained again.
    """
    global _latest
    if not looks_like_images(trajectories):
        return input_transform(trajectories)
    arrays = jax.tree.leaves(trajectories)
    alive = [] if _latest is None else [reference() for reference in _latest[0]]
    if list(map(id, alive)) != list(map(id, arrays)):
        _latest = tuple(map(weakref.ref, arrays)), train_inputs(trajectories)
    return _latest[1]


def train_inputs(trajectories: Trajectories) -> ImageInputs:
    """The CNN of a dataset; the same data give the same one."""
    frames, rows = _frames(trajectories)
    mask, scaling = np.asarray(trajectories.mask), action_scaling(trajectories)
    actions = np.asarray(trajectories.actions)[mask]
    actions = actions if scaling is None else scaling(actions)
    some = frames[rows[:: -(-len(rows) // max(64, _SAMPLE // frames[0].size))]]
    pixels = np.asarray(_shrunk(some))
    mean = pixels.mean(0)
    std = np.sqrt(((pixels - mean) ** 2).mean())
    std = np.where(std > 0, std, 1).astype(np.float32)
    network = ActionPredictor(trajectories.num_actions or actions.shape[-1])
    owner = np.nonzero(mask)[0].astype(np.int32)
    params = _train(network, len(mask), frames, rows, actions, owner, mean, std)
    features = _features(params, mean, std, some)
    scale = features.std(0)
    return ImageInputs(params, mean, std, features.mean(0), np.where(scale > 0, scale, 1).astype(np.float32))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _train(
    network: ActionPredictor,
    num_trajectories: int,
    frames: jax.Array,  # [U, *shape]
    rows: jax.Array,  # [P] int32: the frame of each step
    actions: jax.Array,  # [P] or [P, A]
    owner: jax.Array,  # [P] int32: the trajectory of each step
    mean: jax.Array,
    std: jax.Array,
) -> Any:
    """Parameters of a trained `FrameNetwork`."""
    optimizer = optax.adam(optax.cosine_decay_schedule(LEARNING_RATE, STEPS))
    key_params, key_steps = jax.random.split(jax.random.key(_KEY))
    embeddings = jnp.zeros((num_trajectories, EMBEDDING))
    params = network.init(key_params, _pixels(frames[:1], mean, std), embeddings[:1]), embeddings

    def loss(params: Any, drawn: jax.Array) -> jax.Array:
        of_network, embeddings = params
        pixels = _pixels(frames[rows[drawn]], mean, std)
        predicted = network.apply(of_network, pixels, EMBEDDING_SCALE * embeddings[owner[drawn]])
        chex.assert_rank(predicted, 2)
        if jnp.issubdtype(actions.dtype, jnp.integer):
            return optax.softmax_cross_entropy_with_integer_labels(predicted, actions[drawn]).mean()
        chex.assert_equal_shape([predicted, actions[drawn]])
        return optax.squared_error(predicted, actions[drawn]).sum(-1).mean()

    def step(i: jax.Array, carry: tuple[Any, Any]) -> tuple[Any, Any]:
        params, state = carry
        drawn = jax.random.randint(jax.random.fold_in(key_steps, i), (BATCH,), 0, len(rows))
        updates, state = optimizer.update(jax.grad(loss)(params, drawn), state)
        return optax.apply_updates(params, updates), state

    params, _ = jax.lax.fori_loop(0, STEPS, step, (params, optimizer.init(params)))
    return params[0]["params"]["frame"]


def _features(params: Any, mean: np.ndarray, std: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """`[batch, F]` float32, in blocks."""
    size = _block_size(frames)
    blocks = [frames[start : start + size] for start in range(0, len(frames), size)]
    return np.concatenate([np.asarray(_block_features(params, mean, std, block)) for block in blocks])


@jax.jit
def _block_features(params: Any, mean: jax.Array, std: jax.Array, frames: jax.Array) -> jax.Array:
    return FrameNetwork().apply({"params": params}, _pixels(frames, mean, std))


def _pixels(frames: jax.Array, mean: jax.Array, std: jax.Array) -> jax.Array:
    return (_shrunk(frames) - mean) / std


def _shrunk(frames: jax.Array) -> jax.Array:
    """`[B, *shape]` to `[B, H, W, C]` float32, H and W at most `_LARGEST`: means over blocks of pixels."""
    if frames.ndim == 3:
        frames = frames[..., None]
    elif frames.shape[1] < _SMALLEST:
        frames = jnp.moveaxis(frames, 1, -1)
    factor = -(-max(frames.shape[1:3]) // _LARGEST)
    rows, columns = (size // factor for size in frames.shape[1:3])
    whole = frames[:, : rows * factor, : columns * factor].astype(jnp.float32)
    return whole.reshape(len(frames), rows, factor, columns, factor, -1).mean((2, 4))


def _patches(frames: jax.Array, stride: int) -> jax.Array:
    """`[B, H, W, C]` to overlapping patches twice the stride wide, `[B, H', W', (2 * stride)^2 * C]`."""
    cells = [-(-size // stride) for size in frames.shape[1:3]]
    before = stride // 2
    fill = [(before, (count + 1) * stride - before - n) for count, n in zip(cells, frames.shape[1:3], strict=True)]
    frames = jnp.pad(frames, ((0, 0), *fill, (0, 0)))
    shifted = [
        frames[:, row : row + cells[0] * stride : stride, column : column + cells[1] * stride : stride]
        for row in range(2 * stride)
        for column in range(2 * stride)
    ]
    return jnp.concatenate(shifted, axis=-1)


def _frames(trajectories: Trajectories) -> tuple[np.ndarray, np.ndarray]:
    """Frames `[U, *shape]`, a codebook's or those of all steps, and the row of every real step `[P]` int32."""
    observations, mask = trajectories.observations, np.asarray(trajectories.mask)
    if isinstance(observations, Codebook):
        return np.asarray(observations.table), np.asarray(observations.ids)[mask]
    observations = np.asarray(observations)
    return observations.reshape(mask.size, *observations.shape[2:]), np.flatnonzero(mask).astype(np.int32)


def _block_size(frames: np.ndarray) -> int:
    return max(1, _BLOCK // frames[0].size)
