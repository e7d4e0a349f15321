"""Bad data are refused, in one line each, before anything is computed from them."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from trajclust_jax.data.types import Codebook, DataError, Observations, Trajectories

_MAX_PADDED = 2**31  # bytes of observations that may be mostly padding
_MANY_ACTIONS = 2**12  # discrete actions; more of them must mostly occur: every policy has an output for each
_ACTIONS_PER_DISTINCT = 16


def check_seed(seed: int, name: str = "seed") -> None:
    """Raises DataError for a seed that does not fit in 32 bits."""
    if not 0 <= seed < 2**32:
        raise DataError(f"{name} is {seed}: give 0 to {2**32 - 1}")


def validate(trajectories: Trajectories) -> None:
    """Checks shapes, dtypes and values; only real steps count, padding may hold anything.

    Observations may be bool, or integers or floats of at most 32 bits (JAX would narrow wider ones silently);
    the other fields have exactly the dtypes of `Trajectories`.

    Raises:
        DataError: one line with the field, the first bad index and what to do.
    """
    lengths = np.asarray(trajectories.lengths)
    _check(lengths.ndim == 1, f"lengths has shape {lengths.shape}: give [N]")
    _check(len(lengths) > 0, "lengths is empty (N = 0): give at least one trajectory")
    _check_dtype("lengths", lengths, np.int32)
    n = len(lengths)

    rewards = np.asarray(trajectories.rewards)
    _check(rewards.ndim == 2, f"rewards has shape {rewards.shape}: give [N, T]")
    _check_dtype("rewards", rewards, np.float32)
    _check(len(rewards) == n, f"rewards has {len(rewards)} trajectories, but lengths has {n}: make them equal")
    t = rewards.shape[1]
    _refuse("lengths", lengths < 1, lambda i: f"is {lengths[i]} (an empty episode): drop it")
    _refuse("lengths", lengths > t, lambda i: f"is {lengths[i]}, but T = {t}: shorten it or pad the arrays")
    mask = np.arange(t) < lengths[:, None]
    _check_finite("rewards", rewards, mask)

    terminated = np.asarray(trajectories.terminated)
    _check_dtype("terminated", terminated, np.bool_)
    _check_lead("terminated", terminated, (n,))
    _check(terminated.ndim == 1, f"terminated has shape {terminated.shape}: give [N]")

    _check_actions(np.asarray(trajectories.actions), mask, trajectories.num_actions)
    _check_parts(trajectories.action_parts, trajectories.num_actions)
    _check_observations(trajectories.observations, trajectories.final_observations, mask)


def validate_labels(labels: Any, num_trajectories: int) -> np.ndarray:
    """Labels `[N]` as int32 in 0..k-1. Strings, and integers with gaps, are numbered in sorted order.

    Raises:
        DataError: for another shape, and for negative, fractional or other values.
    """
    labels = np.asarray(labels)
    _check(labels.ndim == 1, f"labels has shape {labels.shape}: give one label per trajectory, [N]")
    _check(
        len(labels) == num_trajectories,
        f"labels has {len(labels)} entries, but there are {num_trajectories} trajectories: give one per trajectory",
    )
    if labels.dtype == object:
        text = np.array([isinstance(label, str) for label in labels], bool)
        _refuse("labels", ~text, lambda i: f"is {labels[i]!r}: give integers or strings")
        labels = labels.astype(str)
    kind = labels.dtype.kind
    _check(kind in "biufSUT", f"labels has dtype {labels.dtype}: give integers or strings")
    if kind == "f":
        _refuse("labels", labels != np.floor(labels), lambda i: f"is {labels[i]}: give whole numbers")
    if kind in "if":
        _refuse("labels", ~np.isfinite(labels), lambda i: f"is {labels[i]}: give whole numbers")
        _refuse("labels", labels < 0, lambda i: f"is {labels[i]:g}: give labels from 0, or drop unlabelled episodes")
    return np.unique(labels, return_inverse=True)[1].reshape(-1).astype(np.int32)


def check_flat(
    observations: np.ndarray,
    actions: np.ndarray,
    rewards: np.ndarray,
    terminals: np.ndarray,
    timeouts: np.ndarray | None = None,
    next_observations: np.ndarray | None = None,
    num_actions: int = 0,
) -> None:
    """Checks shapes and dtypes of flat arrays of P steps, as `split_episodes` takes them; `check_steps` checks values.

    `terminals` and `timeouts` may have any numeric dtype but hold only 0 and 1.

    Raises:
        DataError: one line with the field, the first bad index and what to do.
    """
    fields = {"observations": observations, "actions": actions, "rewards": rewards, "terminals": terminals}
    optional = {"timeouts": timeouts, "next_observations": next_observations}
    fields |= {name: array for name, array in optional.items() if array is not None}
    steps = len(observations) if observations.ndim else 0
    _check(steps > 0, "observations is empty: give at least one step")
    _check(0 not in observations.shape, f"observations has shape {observations.shape}: an observation needs values")
    for name, array in fields.items():
        check_numeric(name, array)
        _check(array.ndim > 0 and len(array) == steps, f"{name} has shape {array.shape}, but there are {steps} steps")
    _check(rewards.ndim == 1, f"rewards has shape {rewards.shape}: give one value per step, [P]")
    if next_observations is not None:
        _check(
            next_observations.shape == observations.shape,
            f"next_observations has shape {next_observations.shape}, but observations {observations.shape}: "
            "make them equal",
        )
    for name in ("terminals", "timeouts"):
        if name in fields:
            check_flags(name, fields[name], steps)
    if num_actions > 0:
        _check(actions.ndim == 1, f"actions has shape {actions.shape}: discrete actions are [P]")
    else:
        _check(
            actions.ndim == 2 and actions.shape[1] > 0,
            f"actions has shape {actions.shape}: give [P, A], or num_actions for discrete actions",
        )


def check_flags(name: str, flags: np.ndarray, num_steps: int, axis: str = "step") -> np.ndarray:
    """Flags `[P]` of any numeric dtype that hold only 0 and 1, as bool; `axis` is what each is of.

    Raises:
        DataError: for another shape, dtype or value.
    """
    check_numeric(name, flags)
    _check(flags.shape[:1] == (num_steps,), f"{name} has shape {flags.shape}, but there are {num_steps} steps")
    _check(flags.ndim == 1, f"{name} has shape {flags.shape}: give one value per step, [P]")
    _refuse(name, (flags != 0) & (flags != 1), lambda i: f"is {flags[i]}: give 0 or 1", axis)
    return flags.astype(bool)


def check_int32(name: str, array: np.ndarray, *axes: str) -> np.ndarray:
    """Integers as int32.

    Raises:
        DataError: for the first one that does not fit.
    """
    small = array.astype(np.int32)
    _refuse(name, small != array, lambda i: f"is {array[i]}: it does not fit in 32 bits, correct it", *axes)
    return small


def validate_likelihoods(likelihoods: Any, num_trajectories: int, num_policies: int | None = None) -> np.ndarray:
    """The true policies' log-likelihoods of trajectories, unchanged: `[N, k]`, k at least k*.

    Raises:
        DataError: for another shape or dtype, for NaN and infinity, and for a trajectory that no policy can have made.
    """
    likelihoods = np.asarray(likelihoods)
    name, wanted = "true_log_likelihoods", num_policies or 1
    _check(likelihoods.dtype.kind == "f", f"{name} has dtype {likelihoods.dtype}: give floats")
    _check(
        likelihoods.ndim == 2 and len(likelihoods) == num_trajectories and likelihoods.shape[1] >= wanted,
        f"{name} has shape {likelihoods.shape}: give [N, k*] with N = {num_trajectories} and k* = {wanted} or more",
    )
    bad = np.isnan(likelihoods) | (likelihoods == np.inf)
    _refuse(name, bad, lambda i: f"is {likelihoods[i]}: compute it again, or leave them out", "trajectory", "policy")
    impossible = ~np.isfinite(likelihoods).any(1)
    _refuse(name, impossible, lambda i: "is -inf for every policy: compute it again, or leave them out")
    return likelihoods


def check_padding(lengths: Any, step_bytes: int) -> None:
    """Refuses data that are small on disk but would not fit in memory: many episodes, padded to a very long one.

    Raises:
        DataError: naming the longest episode.
    """
    lengths = np.asarray(lengths, np.int64)
    padded = len(lengths) * int(lengths.max()) * step_bytes
    if padded > max(_MAX_PADDED, 8 * int(lengths.sum()) * step_bytes):
        longest = int(lengths.argmax())
        raise DataError(
            f"episode {longest} has {lengths[longest]} steps, others {int(np.median(lengths))}: padded to it, "
            f"{len(lengths)} episodes take {padded / 2**30:.0f} GiB. Is an end of it not marked? Split or drop it"
        )


def check_steps(name: str, block: np.ndarray, steps: np.ndarray, num_actions: int = 0) -> np.ndarray:
    """Checks and returns `block`: the values of a flat array at the steps numbered `steps`.

    Raises:
        DataError: for numbers wider than 32 bits or not finite, and for invalid discrete actions.
    """
    at = lambda index: f"step {steps[index[0]]}"
    if name == "actions" and num_actions > 0:
        _check_discrete(block, np.ones(len(block), bool), num_actions, at)
    else:
        _check_narrow(name, block)
        if block.dtype.kind not in "biu":
            bad = ~_finite_rows(block, 1)
            _refuse(name, bad, lambda i: "is NaN or infinite as float32: repair or drop this episode", at)
    return block


def check_successors(
    next_observations: np.ndarray, following: np.ndarray, inside: np.ndarray, tolerance: np.ndarray | None, at: Any
) -> None:
    """Checks that next observations are the observations that follow.

    Args:
        next_observations: `[*lead, ...]`. NaN is unknown.
        following: of the same shape, the observations one step later.
        inside: `[*lead]` bool: whether an episode goes on there.
        tolerance: `[...]`, by how much they may differ; None: not at all.
        at: says which step an index of `inside` is.

    Raises:
        DataError: for the first step where they differ.
    """
    if tolerance is None:
        bad = next_observations != following
    else:
        with np.errstate(over="ignore", invalid="ignore"):  # differences of huge numbers; padding may be infinite
            bad = np.abs(next_observations - following) > tolerance.astype(np.float32)
    _refuse(
        "next_observations",
        bad.reshape(*inside.shape, math.prod(bad.shape[inside.ndim :])).any(-1) & inside,
        lambda _: (
            "is not the observation of the next step, though no end of an episode is marked there: mark it "
            "(timeouts), or put the steps in order; or leave next_observations out, if observations is right"
        ),
        at,
    )


@contextmanager
def located(where: Any) -> Iterator[None]:
    """Puts `where` (a file, an id) before the message of a DataError raised inside."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{where}: {error}") from None


@contextmanager
def told(what: str, advice: str) -> Iterator[None]:
    """Any error inside, such as a damaged file's, becomes a one-line DataError: that `what` cannot be read, and why."""
    try:
        yield
    except DataError:
        raise
    except MemoryError:
        raise DataError(f"{what} needs more memory than there is: split it") from None
    except ImportError as error:
        raise DataError(f"needs a package that is missing: {_line(error)}") from error
    except Exception as error:
        reason = f"missing: {error.args[0]}" if type(error) is KeyError and error.args else _line(error)
        raise DataError(f"{what} cannot be read ({_line(reason)}): {advice}") from error


def _line(error: Any) -> str:
    """What an error says, as one printable line of at most 200 characters."""
    text = " ".join((str(error) or type(error).__name__).split())
    return "".join(char if char.isprintable() else "?" for char in text[:200])


def _check_actions(actions: np.ndarray, mask: np.ndarray, num_actions: int) -> None:
    check_numeric("actions", actions)
    _check_lead("actions", actions, mask.shape)
    _check(num_actions >= 0, f"num_actions is {num_actions}: give 0 for continuous actions")
    if num_actions > 0:
        _check(actions.ndim == 2, f"actions has shape {actions.shape}: discrete actions are [N, T]")
        _check_discrete(actions, mask, num_actions)
        _check_dtype("actions", actions, np.int32)
        if num_actions > _MANY_ACTIONS:
            distinct = len(np.unique(actions[mask]))
            _check(
                num_actions <= _ACTIONS_PER_DISTINCT * distinct,
                f"actions: by the largest or num_actions there are {num_actions}, but only {distinct} of them occur: "
                "number them from 0 without gaps, or correct the largest",
            )
    else:
        _check(
            actions.ndim == 3 and actions.shape[2] > 0,
            f"actions has shape {actions.shape}: give [N, T, A], or num_actions for discrete actions",
        )
        _check_dtype("actions", actions, np.float32)
        _check_finite("actions", actions, mask)


def _check_parts(action_parts: Any, num_actions: int) -> None:
    whole = isinstance(action_parts, tuple) and all(
        isinstance(parts, tuple) and len(parts) == len(action_parts[0]) and all(type(part) is int for part in parts)
        for parts in action_parts
    )
    _check(
        not action_parts or (whole and len(action_parts) == num_actions and len(action_parts[0]) > 0),
        f"action_parts is {str(action_parts)[:40]}: give a tuple of whole numbers, all of one length, for each of "
        f"the {num_actions} discrete actions, or ()",
    )


def _check_discrete(actions: np.ndarray, mask: np.ndarray, num_actions: int, *axes: Any) -> None:
    axes = axes or ("trajectory", "step")
    if actions.dtype.kind == "f":
        fractional = (actions != np.floor(actions)) | ~np.isfinite(actions)
        _refuse("actions", fractional & mask, lambda i: f"is {actions[i]}: discrete actions are integers", *axes)
    _refuse(
        "actions",
        ((actions < 0) | (actions >= num_actions)) & mask,
        lambda i: f"is {actions[i]}, outside 0..{num_actions - 1}: number discrete ones from 0, store others as floats",
        *axes,
    )


def _check_observations(observations: Observations, final: Observations, mask: np.ndarray) -> None:
    coded = isinstance(observations, Codebook)
    _check(
        coded == isinstance(final, Codebook),
        "final_observations must be a Codebook where observations is one, and only there",
    )
    if not coded:
        observations, final = np.asarray(observations), np.asarray(final)
        for name, array in (("observations", observations), ("final_observations", final)):
            _check_narrow(name, array)
        _check_lead("observations", observations, mask.shape)
        _check_lead("final_observations", final, mask.shape[:1])
        _check(
            final.shape[1:] == observations.shape[2:] and final.dtype == observations.dtype,
            f"final_observations has rows {final.dtype}{list(final.shape[1:])}, but observations "
            f"{observations.dtype}{list(observations.shape[2:])}: make them equal",
        )
        _check(0 not in observations.shape, f"observations has shape {observations.shape}: an observation needs values")
        _check_finite("observations", observations, mask)
        _check_finite("final_observations", final, mask.any(1))
        return

    table = np.asarray(observations.table)
    _check(
        final.table is observations.table or np.array_equal(table, np.asarray(final.table)),
        "final_observations has another codebook table than observations: share one",
    )
    _check_narrow("observations.table", table)
    _check(table.ndim > 0 and table.size > 0, f"observations.table has shape {table.shape}: give [U, ...]")
    bad_rows = ~_finite_rows(table, 1) if table.dtype.kind not in "biu" else np.zeros(len(table), bool)
    for name, codes, real in (("observations", observations, mask), ("final_observations", final, mask.any(1))):
        ids = np.asarray(codes.ids)
        _check(ids.shape == real.shape, f"{name}.ids has shape {ids.shape}: give {real.shape}")
        _check_dtype(f"{name}.ids", ids, np.int32)
        axes = ("trajectory", "step")[: ids.ndim]
        outside = ((ids < 0) | (ids >= len(table))) & real
        _refuse(
            f"{name}.ids", outside, lambda i, ids=ids: f"is {ids[i]}, outside the {len(table)} rows of table", *axes
        )
        if bad_rows.any():
            bad = bad_rows[np.where(real, ids, 0)] & real
            _refuse(name, bad, lambda i: "is NaN or infinite as float32: repair or drop this episode", *axes)


def _check_finite(name: str, array: np.ndarray, mask: np.ndarray, axes=("trajectory", "step")) -> None:
    """`mask` covers the leading axes of `array`."""
    if array.dtype.kind in "biu":
        return
    bad = ~_finite_rows(array, mask.ndim) & mask
    _refuse(name, bad, lambda i: "is NaN or infinite as float32: repair or drop this episode", *axes[: mask.ndim])


def _finite_rows(array: np.ndarray, lead: int) -> np.ndarray:
    """`[*lead axes]` bool: every value of the row is finite."""
    return np.isfinite(array).reshape(*array.shape[:lead], -1).all(-1)


def check_numeric(name: str, array: np.ndarray) -> None:
    """Raises a DataError for an array that is not of bools, integers or floats."""
    _check(array.dtype.kind in "biuf", f"{name} has dtype {array.dtype}: give an array of real numbers")


def _check_narrow(name: str, array: np.ndarray) -> None:
    check_numeric(name, array)
    first = "subtract an offset, then " if array.dtype.kind in "iu" else ""  # what 32 bits cannot hold, such as times
    _check(
        array.dtype.itemsize <= 4,
        f"{name} has dtype {array.dtype}: {first}cast it to 32 bits or fewer, such as .astype(np.float32)",
    )


def _check_dtype(name: str, array: np.ndarray, dtype: Any) -> None:
    wanted = np.dtype(dtype).name
    _check(array.dtype == dtype, f"{name} has dtype {array.dtype}: cast it with .astype(np.{wanted})")


def _check_lead(name: str, array: np.ndarray, lead: tuple[int, ...]) -> None:
    wanted = ", ".join(f"{axis} = {size}" for axis, size in zip("NT", lead, strict=False))
    _check(array.shape[: len(lead)] == lead, f"{name} has shape {array.shape}: its leading axes must be {wanted}")


def _refuse(name: str, bad: np.ndarray, what: Any, *axes: Any) -> None:
    """Raises for the first True of `bad`; `what(index)` says what is wrong there and what to do.

    `axes` are the names of its axes, or one function that describes an index."""
    if bad.any():
        index = np.unravel_index(int(bad.argmax()), bad.shape)
        if axes and callable(axes[0]):
            where = axes[0](index)
        else:
            where = ", ".join(f"{axis} {i}" for axis, i in zip(axes or ("trajectory",), index, strict=True))
        raise DataError(f"{name} at {where} {what(index)}")


def _check(condition: Any, message: str) -> None:
    if not condition:
        raise DataError(message)
