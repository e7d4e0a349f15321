"""Standardised observations and actions for networks: columns of mean 0 and std 1 over the real steps (B.6).

Results then do not depend on a column's unit and offset. Statistics are float64 sums over blocks: a float16 column does
not overflow, and the data are not copied. Values far outside a column's other values (a failed reading, a corrupt
action) are left out of them.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import struct

from trajclust_jax.data.types import Codebook, Trajectories

ACTIONS_VERSION = 2  # of how continuous actions are scaled; raise it when results change
CLIP = 10.0  # standardised values are clipped to +-10 standard deviations
_ROUNDING = 2.0**-21  # of a column's largest value: one that varies by less is constant but for float32's rounding
_EXACT = 2.0**-50  # the same for integers, whose rounding is float64's
_TAIL = 0.05  # share of a column's values at either end; the range between is its middle
_FAR = 100.0  # a value so many widths of the middle away from it is an outlier ...
_RARE = 0.01  # ... unless more than this share of the values (and more than one) lies there
_BLOCK = 2**22  # numbers in float64 at a time

Blocks = Callable[[], Iterator[tuple[np.ndarray, np.ndarray]]]  # rows [p, D], and how often each counts [p]


class Columns(NamedTuple):
    """Statistics of columns `[D]`, float64."""

    mean: np.ndarray
    std: np.ndarray
    constant: np.ndarray  # bool: one value, but for rounding

    @property
    def scale(self) -> np.ndarray:
        """What to divide by: the std; for constant columns a number that keeps their rounding errors small."""
        return np.where(self.constant, np.maximum(np.abs(self.mean), 1.0), self.std)


@struct.dataclass
class Inputs:
    """How an observation becomes a network's input: `clip((flat[columns] - shift) / scale)`."""

    columns: np.ndarray  # [D] int32: the columns that are not constantly zero
    shift: np.ndarray  # [D] float32; float64 for integers of 32 bits
    scale: np.ndarray  # [D] float32
    clip: np.ndarray  # [] float32; infinite if nothing is standardised

    @property
    def size(self) -> int:
        """D."""
        return self.columns.shape[-1]

    def __call__(self, observations: np.ndarray) -> np.ndarray:
        """`[batch, *shape]` -> `[batch, D]` float32; uint8, a quarter of the memory, if nothing is standardised."""
        flat = observations.reshape(observations.shape[0], -1)[:, self.columns]
        if np.isinf(self.clip):
            with np.errstate(invalid="ignore"):  # padding may hold NaN
                return flat.astype(np.uint8)
        return _standardised(flat, self.shift, self.scale).clip(-self.clip, self.clip)


@struct.dataclass
class ActionScaling:
    """How continuous actions become what policies model: `clip((actions[columns] - shift[columns]) / scale)`.

    Constant dimensions say nothing about a policy and are left out.
    """

    columns: np.ndarray  # [A'] int32: the dimensions that vary (the first one, where none does)
    shift: np.ndarray  # [A] float32
    scale: np.ndarray  # [A'] float32

    def __call__(self, actions: np.ndarray) -> np.ndarray:
        """`[..., A]` in the data's unit -> `[..., A']` float32."""
        return _standardised(actions[..., self.columns], self.shift[self.columns], self.scale).clip(-CLIP, CLIP)

    def undo(self, actions: jnp.ndarray) -> jnp.ndarray:
        """`[..., A']` -> `[..., A]` in the data's unit; constant dimensions have their constant."""
        whole = jnp.broadcast_to(jnp.asarray(self.shift), (*actions.shape[:-1], len(self.shift)))
        return whole.at[..., self.columns].add(actions * self.scale)

    @property
    def log_volume(self) -> jnp.ndarray:
        """`[]` float32, log |d data / d modelled|: by how much a step's log-density is lower in the data's unit."""
        return jnp.log(self.scale).sum()


def input_transform(trajectories: Trajectories) -> Inputs:
    """Observations are standardised with the dataset's statistics (B.6); maps of zeros and ones stay as they are.

    Columns that are zero in every observation are dropped: their weights would have zero gradient and never
    act, and on one-hot maps they are five of six columns.
    """
    observations, mask = trajectories.observations, np.asarray(trajectories.mask)
    if isinstance(observations, Codebook):
        table = np.asarray(observations.table)
        counts = np.bincount(np.asarray(observations.ids)[mask], minlength=len(table))
        blocks, final = lambda: _table_blocks(table, counts), []  # the table has the final ones, too
    else:
        blocks = lambda: _step_blocks(np.asarray(observations), mask)
        final = [np.asarray(trajectories.final_observations).reshape(len(mask), -1)]
    dtype = next(blocks())[0].dtype
    binary, used = _binary(chain((rows for rows, _ in blocks()), final))
    used = np.flatnonzero(used) if used.any() else np.arange(1)
    if binary:
        return Inputs(used, np.zeros(len(used), np.float32), np.ones(len(used), np.float32), np.float32(np.inf))
    columns = column_statistics(blocks, _ROUNDING if dtype.kind == "f" else _EXACT)
    shift = columns.mean[used].astype(np.result_type(dtype, np.float32))
    return Inputs(used, shift, _float32(columns.scale[used]), np.float32(CLIP))


def action_scaling(trajectories: Trajectories) -> ActionScaling | None:
    """The dataset's continuous actions, standardised; None for discrete ones."""
    if trajectories.discrete:
        return None
    columns = column_statistics(lambda: _step_blocks(np.asarray(trajectories.actions), np.asarray(trajectories.mask)))
    varying = np.flatnonzero(~columns.constant)
    varying = varying if len(varying) else np.arange(1)
    return ActionScaling(varying.astype(np.int32), _float32(columns.mean), _float32(columns.scale[varying]))


def column_statistics(blocks: Blocks, rounding: float = _ROUNDING) -> Columns:
    """Mean and std of every column without its outliers; `blocks()` goes through the rows anew each time.

    A column whose std is at most `rounding` times its largest value is constant.
    """
    low, high = _plausible(blocks)
    count = total = largest = 0.0
    for rows, weights in _float64(blocks):
        weight = _weight(rows, weights, low, high)
        count, total = count + weight.sum(0), total + np.einsum("pd,pd->d", weight, np.where(weight, rows, 0))
        largest = np.maximum(largest, np.abs(np.where(weight, rows, 0)).max(0))
    mean, squares = total / np.maximum(count, 1), 0.0
    for rows, weights in _float64(blocks):
        weight = _weight(rows, weights, low, high)
        squares = squares + np.einsum("pd,pd->d", weight, np.where(weight, rows - mean, 0) ** 2)
    std = np.sqrt(squares / np.maximum(count, 1))
    return Columns(mean, std, std <= rounding * largest)


def _plausible(blocks: Blocks) -> tuple[np.ndarray, np.ndarray]:
    """`[D]` each: the lowest and the highest value that enters a column's statistics."""
    stride = -(-sum(rows.size for rows, _ in blocks()) // _BLOCK)
    sampled = [(rows[::stride], weights[::stride]) for rows, weights in _float64(blocks)]
    sample, weights = map(np.concatenate, zip(*sampled, strict=True))
    total = weights.sum()
    order = sample.argsort(0)
    ordered, weight = np.take_along_axis(sample, order, 0), weights[order]
    below, tail = weight.cumsum(0), max(1.0, _TAIL * total)  # below: the value included

    def value(place):
        return np.take_along_axis(ordered, place.clip(0, len(ordered) - 1)[None], 0)[0]

    low, high = value((below <= tail).sum(0)), value((total - below + weight > tail).sum(0) - 1)
    width = np.maximum(high - low, 0)
    low, high = low - _FAR * width, high + _FAR * width
    far = weights @ ((sample < low) | (sample > high))
    everything = (width == 0) | (far > max(1.0, _RARE * total))
    return np.where(everything, -np.inf, low), np.where(everything, np.inf, high)


def _weight(rows: np.ndarray, weights: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """`[p, D]` float64: how often each value counts."""
    return ((rows >= low) & (rows <= high)) * weights[:, None]


def _binary(blocks: Iterable[np.ndarray]) -> tuple[bool, np.ndarray]:
    """Whether everything is 0 or 1, and `[D]` bool: the columns that are not all zero."""
    binary, used = True, False
    for rows in blocks:
        used = used | (rows != 0).any(0)
        binary = binary and bool(((rows == 0) | (rows == 1)).all())
    return binary, used


def _float64(blocks: Blocks) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for rows, weights in blocks():
        yield rows.astype(np.float64), weights.astype(np.float64)


def _table_blocks(table: np.ndarray, weights: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    flat = table.reshape(len(table), -1)
    size = max(1, _BLOCK // max(1, flat.shape[1]))
    for start in range(0, len(flat), size):
        yield flat[start : start + size], weights[start : start + size]


def _step_blocks(steps: np.ndarray, mask: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    size = max(1, _BLOCK // max(1, int(np.prod(steps.shape[1:]))))
    for start in range(0, len(steps), size):
        rows = slice(start, start + size)
        flat = steps[rows][mask[rows]]
        yield flat.reshape(len(flat), -1), np.ones(len(flat))


def _standardised(values: np.ndarray, shift: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """float32 `(values - shift) / scale`; integers of 32 bits keep their last digits, as NumPy makes them float64."""
    with np.errstate(over="ignore"):  # such large values are clipped
        return ((values - shift) / scale).astype(np.float32)


def _float32(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float32)
