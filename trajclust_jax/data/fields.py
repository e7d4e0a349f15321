"""What named arrays mean: read in one way, whichever file format holds them."""

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from trajclust_jax.data.episodes import cast_actions, column_offsets, count_actions, narrow, split_episodes
from trajclust_jax.data.types import Codebook, DataError, Trajectories
from trajclust_jax.data.validation import check_flags, check_int32, check_numeric

CODEBOOK = ("observation_table", "observation_ids", "final_observation_ids")
# Flags at the last step of an episode: the MDP ended it; a limit cut it; either of the two.
TERMINATED = ("terminals", "terminations", "terminateds")
CUT = ("timeouts", "truncations", "truncateds", "truncated")
ENDED = ("dones", "episode_terminals")
FIELDS = (
    *CODEBOOK,
    *("observations", "final_observations", "final_observation", "next_observations"),
    *("actions", "rewards", "num_actions", "action_parts", "lengths", "episode_length", "terminated"),
    *(*TERMINATED, *CUT, *ENDED),
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
      `rewards` (else 0), `terminated [N]` (else False) and `final_observations [N, ...]` (else the last observation is
      repeated);
    - flat: `observations [P, ...]`, `actions`, and optionally `rewards [P]` (else 0) and `next_observations [P, ...]`
      or `final_observation [N, ...]` (else the last observation is repeated). Episodes end where `episode_length [N]`
      says, else at the flags `[P]` (see `episode_ends`).

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
    """Where the flags of a flat file say that episodes end.

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
    terminations = (*TERMINATED, *(("terminated",) if "truncated" in fields else ()))  # Gymnasium's step has both
    flags = {
        name: check_flags(name, _one_value(fields[name]), num_steps)
        for name in (*terminations, *CUT, *ENDED)
        if name in fields
    }
    terminated, cut, ended = (
        np.logical_or.reduce([np.zeros(num_steps, bool), *(flags[name] for name in names if name in flags)])
        for names in (terminations, CUT, ENDED)
    )
    if any(name in flags for name in terminations):
        cut |= ended & ~terminated
    else:
        terminated = ended & ~cut
    return terminated, cut, tuple(name for name, marks in flags.items() if marks.any())


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


def offset_parameters(offsets: np.ndarray | None) -> dict[str, Any]:
    """The offset of each observation column that has one, by the column's number, for the provenance."""
    if offsets is None:
        return {}
    flat = offsets.ravel()
    return {"observation_offsets": {str(column): flat[column].item() for column in np.flatnonzero(flat)}}


def _padded(given: Mapping[str, Any]) -> tuple[Trajectories, dict[str, Any]]:
    """Padded arrays from elsewhere in our dtypes, with defaults for missing ones and zeros on padding."""
    coded = "observation_table" in given
    steps, final = CODEBOOK[1:] if coded else ("observations", "final_observations")
    observed = "observation_table" if coded else steps
    _need(given, steps, "actions", "lengths")
    names = (observed, steps, final, "actions", "rewards", "lengths", "terminated", "num_actions", "action_parts")
    arrays = {name: np.asarray(given[name]) for name in names if name in given}
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

    table = arrays[observed]
    real_rows = lambda: [table] if coded else (row[real] for row, real in zip(table, mask, strict=True))
    offsets = column_offsets(real_rows)
    fields = {name: narrow(array, offsets if name in (observed, final) else None) for name, array in arrays.items()}
    fields["lengths"] = lengths
    if coded:
        ids = [name for name in (steps, final) if name in fields and fields[name].dtype.kind in "iu"]
        fields |= {name: check_int32(name, fields[name], *("trajectory", "step")[: fields[name].ndim]) for name in ids}
    fields.setdefault("rewards", np.zeros(shape, np.float32))
    fields.setdefault("terminated", np.zeros(shape[:1], bool))
    last = np.clip(lengths - 1, 0, shape[1] - 1)  # validation reports bad lengths
    fields.setdefault(final, fields[steps][np.arange(shape[0]), last])
    for name in (steps, "actions", "rewards"):
        if fields[name].shape[:2] == shape:
            fields[name][~mask] = 0

    num_actions = _num_actions(fields)
    actions = plain_actions(fields["actions"], 2, num_actions)
    if num_actions == 0 and actions.ndim == 2:
        num_actions = count_actions(actions)
    fields |= {"actions": cast_actions(actions, num_actions), "num_actions": np.array(num_actions)}
    if fields["rewards"].shape == (*shape, 1):
        fields["rewards"] = fields["rewards"][..., 0]
    fields["rewards"] = fields["rewards"].astype(np.float32)
    flags = fields["terminated"]
    if flags.dtype.kind in "iuf" and np.isin(flags, (0, 1)).all():
        fields["terminated"] = flags.astype(bool)
    return assemble(fields), {"ends": "lengths", **offset_parameters(offsets)}


def _flat(fields: Mapping[str, Any]) -> tuple[Trajectories, dict[str, Any]]:
    """Arrays of consecutive steps, cut into episodes."""
    _need(fields, "observations", "actions")
    observations = fields["observations"]
    num_steps = observations.shape[0] if observations.ndim else 0
    if num_steps == 0:
        raise DataError("observations is empty: give at least one step")
    terminated, cut, marked = episode_ends(fields, num_steps)
    if "episode_length" in fields:
        ends = np.zeros(num_steps, bool)
        ends[np.cumsum(_episode_lengths(fields["episode_length"], num_steps)) - 1] = True
        early = np.flatnonzero((terminated | cut) & ~ends)
        if len(early):
            raise DataError(f"{' or '.join(marked)} mark an end at step {early[0]}, within an episode: correct one")
        cut, marked = ends & ~terminated, ("episode_length", *marked)
    if not marked:
        present = [name for name in (*TERMINATED, *CUT, *ENDED) if name in fields]
        if not present:
            raise DataError("terminals is missing: add terminals (or dones) or timeouts, or lengths for padded arrays")
        raise DataError(
            f"{' and '.join(present)} mark no end of an episode: add terminals, timeouts or dones where episodes end"
        )
    num_actions = _num_actions(fields)
    actions = plain_actions(fields["actions"], 1, num_actions)
    if num_actions == 0 and actions.ndim == 1:
        num_actions = count_actions(np.asarray(actions))
    offsets = _flat_offsets(observations)
    trajectories = split_episodes(
        observations,
        actions,
        _one_value(fields["rewards"]) if "rewards" in fields else np.zeros(num_steps, np.float32),
        terminated,
        cut,
        fields.get("next_observations"),
        num_actions,
        offsets=offsets,
    )
    if "final_observation" in fields and "next_observations" not in fields:
        final = np.asarray(fields["final_observation"])
        check_numeric("final_observation", final)
        if offsets is not None and final.shape[1:] != offsets.shape:
            raise DataError(f"final_observation has shape {final.shape}: give rows like those of observations")
        trajectories = trajectories.replace(final_observations=narrow(final, offsets))
    return trajectories, {"ends": ", ".join(marked), **offset_parameters(offsets)}


def _flat_offsets(observations: Any) -> np.ndarray | None:
    """`column_offsets` of flat observations `[P, ...]`, read a block at a time."""
    size = max(1, _BLOCK // max(1, math.prod(observations.shape[1:]) // 64))
    return column_offsets(
        lambda: (observations[start : start + size] for start in range(0, observations.shape[0], size))
    )


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
