"""Cutting experience into padded trajectories: the one place that knows where episodes end."""

from collections.abc import Mapping, Sequence

import numpy as np

from trajclust_jax.data.types import DataError, Trajectories
from trajclust_jax.data.validation import check_flat, validate

Episode = tuple[np.ndarray, np.ndarray, np.ndarray, bool]  # observations [t+1, ...], actions, rewards, terminated


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
) -> Trajectories:
    """Splits flat arrays of P consecutive steps, as D4RL stores them, into padded trajectories (NumPy).

    An episode ends at a step with `terminals` (the MDP ended it) or `timeouts` (a limit cut it); at a step
    with both it is terminated. Steps after the last end count as one more cut episode, unless
    `drop_incomplete`; without any end the whole data is one trajectory.

    The final observation comes from `next_observations`. Without them nobody recorded it, and the last
    observation is repeated: harmless for a terminated episode, an approximation for a cut one.

    Args:
        observations: `[P, ...]`; 64-bit numbers are narrowed to 32 bits.
        actions: `[P]` whole numbers where `num_actions > 0`, else `[P, A]`.
        rewards: `[P]`.
        terminals: `[P]` of 0 and 1.
        timeouts: `[P]` of 0 and 1, or None: no limit cut anything.
        next_observations: `[P, ...]`, or None.
        num_actions: the number of discrete actions, 0 for continuous ones.
        drop_incomplete: drop the steps after the last end.

    Raises:
        DataError: on anything `check_flat` rejects, or if dropping leaves nothing.
    """
    observations, actions, rewards = narrow(observations), narrow(actions), narrow(rewards)
    terminals = np.asarray(terminals)
    timeouts = None if timeouts is None else np.asarray(timeouts)
    next_observations = None if next_observations is None else narrow(next_observations)
    check_flat(observations, actions, rewards, terminals, timeouts, next_observations, num_actions)

    terminals = terminals.astype(bool)
    last = np.flatnonzero(terminals if timeouts is None else terminals | timeouts.astype(bool))
    steps = len(rewards)
    if not drop_incomplete and (len(last) == 0 or last[-1] < steps - 1):
        last = np.append(last, steps - 1)
    if len(last) == 0:
        raise DataError("terminals and timeouts mark no end of an episode: keep the data with drop_incomplete=False")
    kept = slice(last[-1] + 1)
    return _pad_all(
        observations[kept],
        actions[kept],
        rewards[kept],
        lengths=np.diff(last, prepend=-1),
        terminated=terminals[last],
        final_observations=(observations if next_observations is None else next_observations)[last],
        num_actions=num_actions,
    )


def split_fields(fields: Mapping[str, np.ndarray], num_actions: int = 0) -> Trajectories:
    """`split_episodes` of named arrays as files hold them.

    `observations` and `actions` are needed, and `terminals` (or `dones`) or `timeouts`; `rewards` (else 0) and
    `next_observations` are optional. Actions `[P]` of an integer dtype are discrete, `max + 1` of them unless
    `num_actions` is given.
    """
    for name in ("observations", "actions"):
        if name not in fields:
            raise DataError(f"{name} is missing: add this array")
    terminals = fields.get("terminals", fields.get("dones"))
    if terminals is None and "timeouts" not in fields:
        raise DataError("terminals is missing: add terminals (or dones) or timeouts, or lengths for padded arrays")
    observations, actions = fields["observations"], np.asarray(fields["actions"])
    if num_actions == 0 and actions.ndim == 1:
        num_actions = count_actions(actions)
    steps = np.shape(observations)[:1]
    return split_episodes(
        observations,
        actions,
        fields.get("rewards", np.zeros(steps, np.float32)),
        np.zeros(steps, bool) if terminals is None else terminals,
        fields.get("timeouts"),
        fields.get("next_observations"),
        num_actions,
    )


def from_episodes(episodes: Sequence[Episode], num_actions: int = 0, max_length: int | None = None) -> Trajectories:
    """Pads a list of `(observations [t+1, ...], actions [t] or [t, A], rewards [t], terminated)` (NumPy).

    The last observation of each is its final one. T is the longest t, or `max_length` where that is longer.

    Raises:
        DataError: if the arrays of an episode do not fit each other or another episode's, or the result is not valid.
    """
    if not episodes:
        raise DataError("episodes is empty (N = 0): give at least one")
    columns = [[narrow(episode[i]) for episode in episodes] for i in range(3)]
    observations, actions, rewards = columns
    for n in range(len(episodes)):
        shapes = observations[n].shape, actions[n].shape, rewards[n].shape
        length = shapes[2][0] if shapes[2] else 0
        if length == 0:
            raise DataError(f"rewards at episode {n} has shape {shapes[2]} (an empty episode): drop it")
        if shapes[0][:1] != (length + 1,) or shapes[1][:1] != (length,):
            raise DataError(
                f"observations at episode {n} has shape {shapes[0]}, actions {shapes[1]}, rewards {shapes[2]}: "
                "give t + 1 observations for t actions and rewards"
            )
        for name, column in zip(("observations", "actions", "rewards"), columns, strict=True):
            if column[n].shape[1:] != column[0].shape[1:]:
                raise DataError(
                    f"{name} at episode {n} has steps of shape {column[n].shape[1:]}, but those before have "
                    f"{column[0].shape[1:]}: make them equal"
                )
    trajectories = _pad_all(
        np.concatenate([array[:-1] for array in observations]),
        np.concatenate(actions),
        np.concatenate(rewards),
        lengths=np.array([len(array) for array in rewards]),
        terminated=np.array([bool(episode[3]) for episode in episodes]),
        final_observations=np.stack([array[-1] for array in observations]),
        num_actions=num_actions,
        max_length=max_length,
    )
    validate(trajectories)
    return trajectories


def narrow(array: np.ndarray) -> np.ndarray:
    """The array with 64-bit numbers in 32 bits, as JAX would have them; integers that do not fit are left alone."""
    array = np.asarray(array)
    if array.dtype.kind == "f" and array.dtype.itemsize > 4:
        with np.errstate(over="ignore"):  # becomes inf, which validation names
            return array.astype(np.float32)
    if array.dtype.kind in "iu" and array.dtype.itemsize > 4:
        small = array.astype(np.int32)
        return small if np.array_equal(small, array) else array
    return array


def cast_actions(actions: np.ndarray, num_actions: int) -> np.ndarray:
    """float32 continuous actions, int32 discrete ones; what is no int32 number is left for validation to name."""
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


def _pad_all(
    observations: np.ndarray,
    actions: np.ndarray,
    rewards: np.ndarray,
    *,
    lengths: np.ndarray,
    terminated: np.ndarray,
    final_observations: np.ndarray,
    num_actions: int,
    max_length: int | None = None,
) -> Trajectories:
    """Trajectories of consecutive steps `[P, ...]`, P = lengths.sum()."""
    mask = np.arange(max(int(lengths.max()), max_length or 0)) < lengths[:, None]

    def pad(flat: np.ndarray) -> np.ndarray:
        padded = np.zeros((*mask.shape, *flat.shape[1:]), flat.dtype)
        padded[mask] = flat  # the mask's True entries, row by row, are the steps in order
        return padded

    return Trajectories(
        observations=pad(observations),
        actions=pad(cast_actions(actions, num_actions)),
        rewards=pad(rewards.astype(np.float32)),
        lengths=lengths.astype(np.int32),
        terminated=terminated,
        final_observations=final_observations,
        num_actions=num_actions,
    )
