"""What named arrays mean: read in one way, whichever file format holds them."""

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from trajclust_jax.data.dataset import OFFSETS
from trajclust_jax.data.episodes import (
    Offsets,
    cast_actions,
    column_offsets,
    count_actions,
    narrow,
    rounding,
    split_episodes,
)
from trajclust_jax.data.types import Codebook, DataError, Trajectories
from trajclust_jax.data.validation import check_flags, check_int32, check_numeric, check_successors

CODEBOOK = ("observation_table", "observation_ids", "final_observation_ids")
# Flags at the last step of an episode: the MDP ended it; a limit cut it; either of the two.
TERMINATED = ("terminals", "terminations", "terminateds", "terminated")
CUT = ("timeouts", "truncations", "truncateds", "truncated")
ENDED = ("dones", "episode_terminals")
FLAGS = (*TERMINATED, *CUT, *ENDED)
FINAL, SUCCESSORS = ("final_observations", "final_observation"), "next_observations"
FIELDS = (
    *CODEBOOK,
    *("observations", *FINAL, SUCCESSORS),
    *("actions", "rewards", "num_actions", "action_parts", "lengths", "episode_length", *FLAGS),
    *("labels", "label", "policy_names", "true_log_likelihoods", "metadata"),
)
_BLOCK = 2**16  # steps at a time


class Reading(NamedTuple):
    """What was read from named arrays."""

    trajectories: Trajectories
    labels: np.ndarray | None  # [N], as the file has them
    policy_names: tuple[str, ...]
    parameters: dict[str, Any]  # how they were read, for the provenance


class Lazy(Mapping[str, Any]):
    """Named arrays, each read when it is first used; the others are never loaded."""

    def __init__(self, names: Iterable[str], read: Callable[[str], Any]):
        self._names, self._read, self._found = tuple(names), read, {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._names:
            raise KeyError(name)
        if name not in self._found:
            self._found[name] = self._read(name)
        return self._found[name]

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def read_fields(fields: Mapping[str, Any]) -> Reading:
    """Trajectories and labels from named arrays, in memory or in a file (h5py). Two layouts are understood:

    - padded, recognised by `lengths [N]`: `observations [N, T, ...]` or the codebook arrays, `actions`, and optionally
      `rewards` (else 0), flags (see `episode_ends`) of each trajectory `[N]` or of its steps `[N, T]` (else no end is
      the MDP's), and `final_observations [N, ...]` or `next_observations [N, T, ...]` (else the last observation is
      repeated);
    - flat: `observations [P, ...]`, `actions`, and optionally `rewards [P]` (else 0) and `next_observations [P, ...]`
      or `final_observations [N, ...]` (else the last observation is repeated). Episodes end where `episode_length [N]`
      says, and flags are `[N]` or `[P]`; else they end at the flags `[P]`.

    Actions are discrete where their dtype is integer and a step has one number, `[P]` or `[P, 1]`; there are
    `num_actions` of them, by default `max + 1`. Labels are `labels` or `label`, one for each trajectory. The policies'
    names are text labels, or `policy_names`.

    Raises:
        DataError: one line naming the field.
    """
    trajectories, parameters = _padded(fields) if "lengths" in fields else _flat(fields)
    labels, names = read_labels(fields)
    return Reading(trajectories, labels, names, parameters)


def read_labels(fields: Mapping[str, Any]) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """The labels as stored, or None, and the policies' names in the labels' order, where known."""
    name = next((name for name in ("labels", "label") if name in fields), None)
    if name is None:
        return None, ()
    labels = text(_one_value(fields[name]))
    if labels.dtype.kind == "U":
        return labels, tuple(map(str, np.unique(labels)))
    if labels.dtype.kind in "iu" and "policy_names" in fields:
        with contextlib.suppress(DataError):  # such as pickled names: the labels then have none
            given, present = text(fields["policy_names"]).ravel(), np.unique(labels)
            if len(present) and 0 <= present[0] <= present[-1] < len(given):
                return labels, tuple(map(str, given[present]))
    return labels, ()


def text(array: Any) -> np.ndarray:
    """Bytes as text, invalid ones escaped; any other array unchanged."""
    array = np.asarray(array)
    if array.dtype.kind == "S" or (array.dtype.kind == "O" and all(isinstance(x, bytes | str) for x in array.flat)):
        decoded = [x.decode("utf-8", "backslashreplace") if isinstance(x, bytes) else x for x in array.ravel().tolist()]
        return np.array(decoded, str).reshape(array.shape)
    return array


def episode_ends(fields: Mapping[str, Any], num_steps: int) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Where flags say that episodes end.

    `dones` and `episode_terminals` mark every end. Beside flags of terminations, the ends without such a flag are cuts;
    beside flags of cuts, or alone, they are terminations.

    Args:
        fields: named arrays; flags `[P]` of 0 and 1.
        num_steps: P.

    Returns:
        `[P]` bool, terminated; `[P]` bool, cut; the names of the flags that mark any step.

    Raises:
        DataError: for malformed flags.
    """
    flags = {name: check_flags(name, _one_value(fields[name]), num_steps) for name in FLAGS if name in fields}
    terminated, cut, ended = (
        np.logical_or.reduce([np.zeros(num_steps, bool), *(flags[name] for name in names if name in flags)])
        for names in (TERMINATED, CUT, ENDED)
    )
    if any(name in flags for name in TERMINATED):
        cut |= ended & ~terminated
    else:
        terminated = ended & ~cut
    return terminated, cut, tuple(name for name, marks in flags.items() if marks.any())


def _terminated(flags: Mapping[str, Any], lengths: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Which episodes of known lengths `[N]` the MDP ended, `[N]` bool; and the names of the flags that mark any step.

    Args:
        flags: of each episode `[N]`, or of all their P steps `[P]`.
        lengths: P is their sum.

    Raises:
        DataError: for malformed flags, and for a mark within an episode.
    """
    last, spread = np.cumsum(lengths) - 1, {}
    for name, marks in ((name, _one_value(marks)) for name, marks in flags.items()):
        spread[name] = marks
        if marks.shape == lengths.shape:
            spread[name] = np.zeros(last[-1] + 1, bool)
            spread[name][last] = check_flags(name, marks, len(lengths), "trajectory")
    terminated, cut, marked = episode_ends(spread, last[-1] + 1)
    early = np.setdiff1d(np.flatnonzero(terminated | cut), last)
    if len(early):
        episode = int(np.searchsorted(last, early[0]))
        step = early[0] - last[episode] + lengths[episode] - 1
        raise DataError(
            f"{' or '.join(marked)} mark an end at step {step} of episode {episode}, within it: correct one, or its "
            f"length, {lengths[episode]}"
        )
    return terminated[last], marked


def _real_marks(name: str, marks: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Flags `[N, T, ...]` of the real steps, `[P, ...]`.

    Raises:
        DataError: for flags that mark padding alone, such as the step after the last one.
    """
    real, beyond = marks[mask], marks[~mask] == 1
    if beyond.any() and not (real != 0).any():
        n, t = np.argwhere((marks == 1) & ~mask.reshape(*mask.shape, *(1,) * (marks.ndim - 2)))[0][:2]
        raise DataError(
            f"{name} marks no real step, but padding: the first one at trajectory {n}, step {t}, whose length is "
            f"{mask[n].sum()}. Mark the last step, length - 1; if no end is meant, give zeros"
        )
    return real


def assemble(fields: Mapping[str, Any]) -> Trajectories:
    """Trajectories from padded arrays, unchanged."""
    coded = "observation_table" in fields
    observations = CODEBOOK if coded else ("observations", "final_observations")
    _need(fields, *observations, "actions", "rewards", "lengths", "terminated", "num_actions")
    if coded:
        table, ids, final_ids = (fields[name] for name in CODEBOOK)
        steps, final = Codebook(table, ids), Codebook(table, final_ids)
    else:
        steps, final = fields["observations"], fields["final_observations"]
    return Trajectories(
        observations=steps,
        actions=fields["actions"],
        rewards=fields["rewards"],
        lengths=fields["lengths"],
        terminated=fields["terminated"],
        final_observations=final,
        num_actions=_num_actions(fields),
        action_parts=_action_parts(fields),
    )


def plain_actions(actions: Any, lead: int, num_actions: int = 0) -> Any:
    """Discrete actions (of an integer dtype, or with `num_actions`) without an axis of size 1 after `lead` leading
    axes."""
    discrete = actions.dtype.kind in "biu" or num_actions > 0
    if discrete and actions.ndim == lead + 1 and actions.shape[-1] == 1:
        return np.asarray(actions)[..., 0]
    return actions


def offset_parameters(offsets: Offsets) -> dict[str, Any]:
    """The offset of each column that has one, by the column's number, for the provenance."""
    flat = {name: values.ravel() for name, values in zip(OFFSETS, offsets, strict=True) if values is not None}
    return {name: {str(c): values[c].item() for c in np.flatnonzero(values)} for name, values in flat.items()}


def _padded(given: Mapping[str, Any]) -> tuple[Trajectories, dict[str, Any]]:
    """Padded arrays from elsewhere in our dtypes, with defaults for missing ones and zeros on padding."""
    coded = "observation_table" in given
    steps, final = CODEBOOK[1:] if coded else ("observations", "final_observations")
    observed = "observation_table" if coded else steps
    _need(given, steps, "actions", "lengths")
    names = (observed, steps, final, "actions", "rewards", "lengths", "num_actions", "action_parts")
    arrays = {name: np.asarray(given[name]) for name in names if name in given}
    if not coded and (name := next((name for name in (*FINAL, SUCCESSORS) if name in given), None)):
        arrays[SUCCESSORS if name == SUCCESSORS else final] = np.asarray(given[name])
    for name, array in arrays.items():
        check_numeric(name, array)
        if array.ndim == 0 and name != "num_actions":
            raise DataError(f"{name} is a single value: give an array of one for each trajectory")
    lengths, shape = narrow(_one_value(arrays["lengths"])), arrays[steps].shape[:2]
    if lengths.dtype.kind not in "iu" or lengths.ndim != 1 or shape[:1] != lengths.shape or len(shape) != 2:
        raise DataError(
            f"lengths is {lengths.dtype}{list(lengths.shape)}, but {steps} has leading axes {list(shape)}: "
            "give whole numbers [N] and padded arrays [N, T, ...], or call them episode_length where steps follow one "
            "another, [P, ...]"
        )
    if 0 in shape:
        raise DataError(f"{steps} has shape {arrays[steps].shape}: give at least one trajectory of one step")
    lengths = check_int32("lengths", lengths, "trajectory")
    mask = np.arange(shape[1]) < lengths[:, None]
    sensible = ((lengths >= 1) & (lengths <= shape[1])).all()  # validation reports others

    table = arrays[observed]
    real = lambda array: (row[steps] for row, steps in zip(array, mask, strict=True))
    actions = plain_actions(arrays["actions"], 2, num_actions := _num_actions(arrays))
    continuous = num_actions == 0 and actions.ndim > 2 and actions.shape[:2] == shape
    offsets = Offsets(
        column_offsets(lambda: [table] if coded else real(table)),
        column_offsets(lambda: real(actions)) if continuous else None,
    )
    of = {"actions": offsets.actions, **dict.fromkeys((observed, final, SUCCESSORS), offsets.observations)}
    for name, offset in of.items():
        if offset is not None and name in arrays and arrays[name].shape == (*shape, *offset.shape):
            arrays[name] = arrays[name].copy()
            arrays[name][~mask] = offset  # minus it, padding fits in what the real steps do
    fields = {name: narrow(array, of.get(name)) for name, array in arrays.items()}
    fields["lengths"] = lengths
    if coded:
        ids = [name for name in (steps, final) if name in fields and fields[name].dtype.kind in "iu"]
        fields |= {name: check_int32(name, fields[name], *("trajectory", "step")[: fields[name].ndim]) for name in ids}
    fields.setdefault("rewards", np.zeros(shape, np.float32))
    flags = {name: np.asarray(given[name]) for name in FLAGS if name in given and sensible}
    flags |= {name: _real_marks(name, marks, mask) for name, marks in flags.items() if marks.shape[:2] == shape}
    fields["terminated"], marked = _terminated(flags, lengths) if flags else (np.zeros(shape[:1], bool), ())
    last = np.clip(lengths - 1, 0, shape[1] - 1)
    successors = fields.pop(SUCCESSORS, None)
    if successors is not None and successors.shape != fields[steps].shape:
        raise DataError(
            f"{SUCCESSORS} has shape {successors.shape}, but {steps} {fields[steps].shape}: make them equal"
        )
    if final not in fields:
        fields[final] = (fields[steps] if successors is None else successors)[np.arange(shape[0]), last]
    for name in (steps, "actions", "rewards"):
        if fields[name].shape[:2] == shape:
            fields[name][~mask] = 0
    if successors is not None:
        _check_padded(successors, fields[steps], mask, offsets.observations)

    actions = plain_actions(fields["actions"], 2, num_actions)
    if num_actions == 0 and actions.ndim == 2:
        num_actions = count_actions(actions)
    fields |= {"actions": cast_actions(actions, num_actions), "num_actions": np.array(num_actions)}
    if fields["rewards"].shape == (*shape, 1):
        fields["rewards"] = fields["rewards"][..., 0]
    fields["rewards"] = fields["rewards"].astype(np.float32)
    return assemble(fields), {"ends": ", ".join(("lengths", *marked)), **offset_parameters(offsets)}


def _check_padded(successors: np.ndarray, observed: np.ndarray, mask: np.ndarray, offsets: np.ndarray | None) -> None:
    """Checks next observations `[N, T, ...]` beside `observed`, some trajectories at a time."""
    tolerance = rounding(observed, offsets)
    size = max(1, _block_size(observed[0]) // mask.shape[1])
    for start in range(0, len(mask), size):
        rows = slice(start, start + size)
        check_successors(
            successors[rows, :-1],
            observed[rows, 1:],
            mask[rows, 1:],
            tolerance,
            lambda index, start=start: f"trajectory {start + index[0]}, step {index[1]}",
        )


def _flat(fields: Mapping[str, Any]) -> tuple[Trajectories, dict[str, Any]]:
    """Arrays of consecutive steps, cut into episodes."""
    _need(fields, "observations", "actions")
    observations = fields["observations"]
    num_steps = observations.shape[0] if observations.ndim else 0
    if num_steps == 0:
        raise DataError("observations is empty: give at least one step")
    if "episode_length" in fields:
        lengths = _episode_lengths(fields["episode_length"], num_steps)
        ended, marked = _terminated({name: fields[name] for name in FLAGS if name in fields}, lengths)
        terminated, cut = np.zeros((2, num_steps), bool)
        terminated[np.cumsum(lengths) - 1], cut[np.cumsum(lengths) - 1] = ended, ~ended
        marked = ("episode_length", *marked)
    else:
        terminated, cut, marked = episode_ends(fields, num_steps)
    if not marked:
        present = [name for name in FLAGS if name in fields]
        if not present:
            raise DataError("terminals is missing: add terminals (or dones) or timeouts, or lengths for padded arrays")
        raise DataError(
            f"{' and '.join(present)} mark no end of an episode: add terminals, timeouts or dones where episodes end"
        )
    num_actions = _num_actions(fields)
    actions = plain_actions(fields["actions"], 1, num_actions)
    if num_actions == 0 and actions.ndim == 1:
        num_actions = count_actions(np.asarray(actions))
    offsets = Offsets(_flat_offsets(observations), None if actions.ndim < 2 else _flat_offsets(actions))
    trajectories = split_episodes(
        observations,
        actions,
        _one_value(fields["rewards"]) if "rewards" in fields else np.zeros(num_steps, np.float32),
        terminated,
        cut,
        fields.get(SUCCESSORS),
        num_actions,
        offsets=offsets,
    )
    name = next((name for name in FINAL if name in fields), None)
    if name is not None and SUCCESSORS not in fields:
        final = np.asarray(fields[name])
        check_numeric(name, final)
        if offsets.observations is not None and final.shape[1:] != offsets.observations.shape:
            raise DataError(f"{name} has shape {final.shape}: give rows like those of observations")
        trajectories = trajectories.replace(final_observations=narrow(final, offsets.observations))
    return trajectories, {"ends": ", ".join(marked), **offset_parameters(offsets)}


def _flat_offsets(steps: Any) -> np.ndarray | None:
    """`column_offsets` of flat observations or actions `[P, ...]`, read a block at a time."""
    size = _block_size(steps)
    return column_offsets(lambda: (steps[start : start + size] for start in range(0, steps.shape[0], size)))


def _block_size(steps: Any) -> int:
    """How many of the steps `[P, ...]` to take at a time: fewer of images."""
    return max(1, _BLOCK // max(1, math.prod(steps.shape[1:]) // 64))


def _episode_lengths(lengths: Any, num_steps: int) -> np.ndarray:
    lengths = _one_value(lengths)
    if lengths.ndim != 1 or lengths.dtype.kind not in "iu" or not len(lengths) or lengths.min() < 1:
        raise DataError(f"episode_length is {lengths.dtype}{list(lengths.shape)}: give whole numbers [N] of at least 1")
    lengths = check_int32("episode_length", lengths, "trajectory").astype(np.int64)
    if lengths.sum() != num_steps:
        raise DataError(f"episode_length sums to {lengths.sum()}, but there are {num_steps} steps: make them equal")
    return lengths


def _one_value(array: Any) -> np.ndarray:
    """`[P]` of `[P, 1]`; any other array unchanged, in memory."""
    array = np.asarray(array)
    return array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array


def _num_actions(fields: Mapping[str, Any]) -> int:
    """As stated in the file, else 0."""
    stated = np.asarray(fields.get("num_actions", 0))
    if stated.size != 1 or stated.dtype.kind not in "iu":
        raise DataError(f"num_actions is {stated.dtype}{list(stated.shape)}: give one whole number")
    return int(stated.item())


def _action_parts(fields: Mapping[str, Any]) -> tuple[tuple[int, ...], ...]:
    """As stated in the file, else ()."""
    stated = np.asarray(fields.get("action_parts", np.zeros((0, 1), int)))
    if stated.ndim != 2 or stated.dtype.kind not in "iu":
        raise DataError(f"action_parts is {stated.dtype}{list(stated.shape)}: give whole numbers [A, F]")
    return tuple(map(tuple, stated.tolist()))


def _need(fields: Mapping[str, Any], *names: str) -> None:
    for name in names:
        if name not in fields:
            raise DataError(f"{name} is missing: add this array")
