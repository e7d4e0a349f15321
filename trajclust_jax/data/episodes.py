"""Cutting experience into padded trajectories: the one place that knows where episodes end."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from trajclust_jax.data.types import DataError, Trajectories
from trajclust_jax.data.validation import check_flat, check_padding, check_steps, check_successors, validate

_BLOCK_BYTES = 2**26  # of a file's array that are in memory at a time, beside the result
_FAR = 16  # columns nearer to 0 than this many times their range lose next to nothing in float32
_QUARTERS = 0.25, 0.75  # shares of a column's values below the two ends of its inner range
_SAMPLE = 256  # rows of a block from which inner ranges are taken ...
_SAMPLES = 2**22  # ... and numbers of all blocks
_ROUNDING = 2.0**-19  # of a column's largest value: what float32 loses (2**-24), or a sum of a few of its numbers
_LOST = 0.1  # share of a column's distinct values that float32 must lose before the column gets an offset

Episode = tuple[np.ndarray, np.ndarray, np.ndarray, bool]  # observations [t+1, ...], actions, rewards, terminated


class Offsets(NamedTuple):
    """What is subtracted from columns before they are narrowed, as `column_offsets` gives it; None: nothing."""

    observations: np.ndarray | None = None
    actions: np.ndarray | None = None


_NO_OFFSETS = Offsets()


def split_episodes(
    observations: np.ndarray,
    actions: np.ndarray,
    rewards: np.ndarray,
    terminals: np.ndarray,
    timeouts: np.ndarray | None = None,
    next_observations: np.ndarray | None = None,
    num_actions: int = 0,
    *,
    drop_incomplete: bool = False,
    offsets: Offsets = _NO_OFFSETS,
) -> Trajectories:
    """Splits flat arrays of P consecutive steps, as D4RL stores them, into padded trajectories (NumPy).

    An episode ends at a step with `terminals` (the MDP ended it) or `timeouts` (a limit cut it); at a step
    with both it is terminated. Steps after the last end count as one more cut episode, unless
    `drop_incomplete`; without any end the whole data is one trajectory.

    The final observation comes from `next_observations`; within an episode they must be the observations of the next
    steps, else an end is not marked. Without them it is unknown, and the last observation is repeated: harmless for a
    terminated episode, an approximation for a cut one.

    Args:
        observations: `[P, ...]`; 64-bit numbers are narrowed to 32 bits. This and the other arrays of numbers may be
            arrays in a file (h5py): they are read once, a block at a time.
        actions: `[P]` whole numbers where `num_actions > 0`, else `[P, A]`.
        rewards: `[P]`.
        terminals: `[P]` of 0 and 1.
        timeouts: `[P]` of 0 and 1, or None if no limit cut an episode.
        next_observations: `[P, ...]`, or None.
        num_actions: the number of discrete actions, 0 for continuous ones.
        drop_incomplete: drop the steps after the last end.
        offsets: of observations and continuous actions.

    Raises:
        DataError: on anything `check_flat`, `check_steps` or `check_successors` rejects, or if dropping leaves nothing.
    """
    terminals = np.asarray(terminals)
    timeouts = None if timeouts is None else np.asarray(timeouts)
    check_flat(observations, actions, rewards, terminals, timeouts, next_observations, num_actions)

    terminals = terminals.astype(bool)
    last = np.flatnonzero(terminals if timeouts is None else terminals | timeouts.astype(bool))
    steps = len(rewards)
    if not drop_incomplete and (len(last) == 0 or last[-1] < steps - 1):
        last = np.append(last, steps - 1)
    if len(last) == 0:
        raise DataError("terminals and timeouts mark no end of an episode: keep the data with drop_incomplete=False")
    lengths = np.diff(last, prepend=-1)
    check_padding(lengths, observations.dtype.itemsize * math.prod(observations.shape[1:]))
    observed = _pad("observations", observations, lengths, offsets=offsets.observations)
    final = observed[np.arange(len(last)), lengths - 1]
    if next_observations is not None:
        final = _final_observations(next_observations, observed, lengths, offsets.observations)
    return Trajectories(
        observations=observed,
        actions=_pad("actions", actions, lengths, num_actions, offsets.actions),
        rewards=_pad("rewards", rewards, lengths).astype(np.float32),
        lengths=lengths.astype(np.int32),
        terminated=terminals[last],
        final_observations=final,
        num_actions=num_actions,
    )


def _blocks(
    name: str, flat: np.ndarray, num_steps: int, num_actions: int = 0, offsets: np.ndarray | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The first steps of `flat [P, ...]` in blocks, narrowed and checked: the steps' numbers and values."""
    size = max(1, _BLOCK_BYTES // max(1, flat.dtype.itemsize * math.prod(flat.shape[1:])))
    for start in range(0, num_steps, size):
        rows = np.arange(start, min(start + size, num_steps))
        block = narrow(flat[rows[0] : rows[-1] + 1], offsets)
        if name == "actions":
            block = cast_actions(block, num_actions)
        yield rows, check_steps(name, block, rows, num_actions)


def _pad(
    name: str, flat: np.ndarray, lengths: np.ndarray, num_actions: int = 0, offsets: np.ndarray | None = None
) -> np.ndarray:
    """Consecutive steps `[P, ...]` as `[N, T, ...]`."""
    starts = np.cumsum(lengths) - lengths
    padded = None
    for rows, block in _blocks(name, flat, int(lengths.sum()), num_actions, offsets):
        if padded is None:
            padded = np.zeros((len(lengths), int(lengths.max()), *flat.shape[1:]), block.dtype)
        trajectory = np.searchsorted(starts, rows, side="right") - 1
        padded[trajectory, rows - starts[trajectory]] = block
    return padded


def _final_observations(
    next_observations: np.ndarray, observed: np.ndarray, lengths: np.ndarray, offsets: np.ndarray | None
) -> np.ndarray:
    """`[N, ...]`: the next observations `[P, ...]` at the last steps; the others must be those `observed [N, T, ...]`
    one step later."""
    starts, final = np.cumsum(lengths) - lengths, np.zeros_like(observed[:, 0])
    tolerance = rounding(observed, offsets)
    for rows, block in _blocks("next_observations", next_observations, int(lengths.sum()), offsets=offsets):
        if block.dtype != observed.dtype:
            raise DataError(f"next_observations is {block.dtype}, but observations {observed.dtype}: make them equal")
        trajectory = np.searchsorted(starts, rows, side="right") - 1
        following = rows - starts[trajectory] + 1
        inside = following < lengths[trajectory]
        final[trajectory[~inside]] = block[~inside]
        there = observed[trajectory, np.minimum(following, observed.shape[1] - 1)]
        check_successors(block, there, inside, tolerance, lambda index, rows=rows: f"step {rows[index[0]]}")
    return final


def rounding(observed: np.ndarray, offsets: np.ndarray | None) -> np.ndarray | None:
    """How much float32 may change each column of `observed [N, T, ...]`, from which `offsets` were subtracted; `[...]`,
    or None where whole numbers change by nothing."""
    if observed.dtype.kind != "f":
        return None
    size = np.maximum(observed.max((0, 1)), -observed.min((0, 1))).astype(np.float64)
    return _ROUNDING * (size if offsets is None else size + np.abs(offsets.astype(np.float64)))


def from_episodes(
    episodes: Iterable[Episode],
    num_actions: int = 0,
    max_length: int | None = None,
    lengths: Sequence[int] | None = None,
    offsets: Offsets = _NO_OFFSETS,
) -> Trajectories:
    """Pads episodes `(observations [t+1, ...], actions [t] or [t, A], rewards [t], terminated)` (NumPy).

    The last observation of each is its final one. T is the longest t, or `max_length` where that is longer. With
    `lengths`, episodes are taken from an iterator one at a time; else they must be a sequence. `offsets` are of
    observations and continuous actions.

    Raises:
        DataError: if the arrays of an episode do not fit each other or another episode's, or the result is not valid.
    """
    if lengths is None:
        lengths = [np.shape(episode[2])[0] if np.ndim(episode[2]) else 0 for episode in episodes]
    if len(lengths) == 0:
        raise DataError("episodes is empty (N = 0): give at least one")
    shape = len(lengths), max(*lengths, max_length or 0)
    columns: dict[str, np.ndarray] = {}
    terminated = np.zeros(len(lengths), bool)
    for n, (length, episode) in enumerate(zip(lengths, episodes, strict=True)):
        observations, actions = narrow(episode[0], offsets.observations), narrow(episode[1], offsets.actions)
        rewards = narrow(episode[2])
        terminated[n] = bool(episode[3])
        if length == 0:
            raise DataError(f"rewards at episode {n} has shape {rewards.shape} (an empty episode): drop it")
        if observations.shape[:1] != (length + 1,) or actions.shape[:1] != (length,) or rewards.shape[:1] != (length,):
            raise DataError(
                f"observations at episode {n} has shape {observations.shape}, actions {actions.shape}, rewards "
                f"{rewards.shape}: give t + 1 observations for t = {length} actions and rewards"
            )
        parts = {"observations": observations[:-1], "final_observations": observations[-1]}
        parts |= {"actions": cast_actions(actions, num_actions), "rewards": rewards.astype(np.float32)}
        for name, part in parts.items():
            step = part.shape if name == "final_observations" else part.shape[1:]
            lead = shape[:1] if name == "final_observations" else shape
            if name not in columns:
                check_padding(lengths, part.dtype.itemsize * math.prod(step))
                columns[name] = np.zeros((*lead, *step), part.dtype)
            column = columns[name]
            if step != column.shape[len(lead) :]:
                raise DataError(
                    f"{name} at episode {n} has steps of shape {step}, but those before have "
                    f"{column.shape[len(lead) :]}: make them equal"
                )
            if not np.can_cast(part.dtype, column.dtype):
                raise DataError(f"{name} at episode {n} has dtype {part.dtype}, but those before have {column.dtype}")
            if name == "final_observations":
                column[n] = part
            else:
                column[n, :length] = part
    trajectories = Trajectories(
        **columns, lengths=np.array(lengths, np.int32), terminated=terminated, num_actions=num_actions
    )
    validate(trajectories)
    return trajectories


def narrow(array: np.ndarray, offsets: np.ndarray | None = None) -> np.ndarray:
    """The array minus the offsets of its last axes, with 64-bit numbers narrowed to 32 bits, as in JAX.

    Integers that do not fit are left alone. The byte order becomes the machine's.
    """
    array = np.asarray(array)
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if offsets is not None and array.shape[array.ndim - offsets.ndim :] == offsets.shape:
        array = _signed(array) - offsets
    if array.dtype.kind == "f" and array.dtype.itemsize > 4:
        with np.errstate(over="ignore"):  # becomes inf, which validation reports
            return array.astype(np.float32)
    if array.dtype.kind in "iu" and array.dtype.itemsize > 4:
        small = array.astype(np.int32)
        return small if np.array_equal(small, array) else array
    return array


def column_offsets(blocks: Callable[[], Iterable[np.ndarray]]) -> np.ndarray | None:
    """Offsets of the columns that lose distinct values in float32, such as Unix time.

    Such a column lies far from 0 compared with its range, or with the range of its middle half where some values are
    no readings (0, -9999). Minus a value within that range, its values stay distinct.

    Args:
        blocks: iterates over observations or actions in parts `[n, ...]`, each time it is called; float32 and narrower
            ones are not read to the end.

    Returns:
        `[...]` of their dtype, of whole numbers int64, 0 for columns that need none; None if no column needs one.
    """
    bounds, sample, sampled = [], [], 0
    for block in blocks():
        if block.dtype.kind not in "iuf" or block.dtype.itemsize < 4 or block.dtype.newbyteorder("=") == np.float32:
            return None
        if not len(block):
            continue
        bounds.append((block.min(0), block.max(0)))
        if sampled < _SAMPLES:
            sample.append(block[:: -(-len(block) // _SAMPLE)])
            sampled += sample[-1].size
    if len({each[0].shape for each in bounds}) != 1:  # none, or shapes that differ, which validation reports
        return None
    low, high = _signed(np.min([each[0] for each in bounds], 0)), _signed(np.max([each[1] for each in bounds], 0))
    if "u" in (low.dtype.kind, high.dtype.kind):  # beyond int64, which validation reports
        return None
    far = _far_from_0(low, high)
    inner = np.quantile(_signed(np.concatenate(sample)), _QUARTERS, axis=0, method="nearest")
    low, high = np.where(far, low, inner[0]), np.where(far, high, inner[1])
    far |= _far_from_0(low, high)
    if not far.any():
        return None
    middle = low + (high - low) // 2  # a round number where low is one
    columns = np.concatenate([block[:, far] for block in blocks()])
    offsets = np.zeros_like(low)
    for column, values in zip(np.argwhere(far), columns.T, strict=True):
        values = _signed(np.unique(values))
        kept, centred = (len(np.unique(x.astype(np.float32))) for x in (values, values - middle[tuple(column)]))
        if kept < (1 - _LOST) * len(values) and centred > kept:
            offsets[tuple(column)] = middle[tuple(column)]
    return offsets if offsets.any() else None


def _signed(array: np.ndarray) -> np.ndarray:
    """Whole numbers as int64, in which differences of unsigned or large ones do not wrap around; those that do not fit
    and others are left alone."""
    if array.dtype.kind not in "iu":
        return array
    wide = array.astype(np.int64)
    return wide if np.array_equal(wide, array) else array


def _far_from_0(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Whether columns `[...]` lie far from 0 compared with their range, which is not empty."""
    low, high = low.astype(np.float64), high.astype(np.float64)
    with np.errstate(all="ignore"):  # validation reports what is not finite
        return (np.maximum(abs(low), abs(high)) > _FAR * (high - low)) & (high > low)


def cast_actions(actions: np.ndarray, num_actions: int) -> np.ndarray:
    """float32 continuous actions, int32 discrete ones; values that do not fit int32 stay, and validation reports
    them."""
    actions = np.asarray(actions)
    if actions.dtype.kind not in "biuf":
        return actions
    if num_actions == 0:
        return actions.astype(np.float32)
    with np.errstate(invalid="ignore"):
        whole = actions.astype(np.int32)
    return whole if np.array_equal(whole, actions) else actions


def count_actions(actions: np.ndarray) -> int:
    """`max + 1` of integer actions, 0 where they are not integers (or there are none)."""
    return int(actions.max()) + 1 if actions.dtype.kind in "biu" and actions.size else 0
