"""Observations and actions of several parts (Gymnasium's Dict, Tuple, MultiDiscrete, ...) as plain arrays."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from trajclust_jax.data.types import DataError, Trajectories

GOALS = ("achieved_goal", "desired_goal")  # Gymnasium-Robotics' convention
MAX_JOINT = 2**12  # combinations of discrete parts that are coded as one action each
_MAX_ONE_HOT = 2**14  # columns of one discrete part
_EXACT = 2**24  # whole numbers up to here are exact in float32


# --- arrays ----------------------------------------------------------------------------------------------


def flatten_parts(parts: Mapping[str, np.ndarray]) -> np.ndarray:
    """Parts `[t, ...]` concatenated in their order, `[t, D]` float32 (float64 if float32 cannot hold a part's dtype).

    If there are parts `achieved_goal` and `desired_goal` of one shape, desired - achieved is appended: a
    goal-conditioned policy acts on it, and a network would have to learn to compute it.

    Raises:
        DataError: without parts, or for a part that is no array of real numbers or not as long as the others.
    """
    if not parts:
        raise DataError("observations has no part of numbers: add one")
    arrays = {name: numbers(f"part {name!r}", part) for name, part in parts.items()}
    steps = len(next(iter(arrays.values())))
    dtype = np.float32 if all(np.can_cast(array.dtype, np.float32) for array in arrays.values()) else np.float64
    for name, array in arrays.items():
        if len(array) != steps:
            raise DataError(f"part {name!r} has {len(array)} steps, but others {steps}: make them equal")
    columns = list(arrays.values())
    if goals_differ({name: array.shape for name, array in arrays.items()}):
        columns.append(np.subtract(*(arrays[name] for name in reversed(GOALS)), dtype=np.float64))
    return np.concatenate([flat(array.astype(dtype)) for array in columns], axis=1)


def goals_differ(shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether parts of these shapes have two goals whose difference `flatten_parts` appends."""
    achieved, desired = (shapes.get(name) for name in GOALS)
    return achieved is not None and achieved == desired


def numbers(name: str, values: Any) -> np.ndarray:
    """`values` as an array `[t, ...]`.

    Raises:
        DataError: if they are not real numbers, or only a single one.
    """
    array = np.asarray(values)
    if array.dtype.kind not in "biuf" or array.ndim == 0:
        raise DataError(f"{name} is {array.dtype}{list(array.shape)}: give an array of real numbers for each step")
    return array


def join_actions(trajectories: Trajectories) -> Trajectories:
    """Trajectories whose actions `[N, T, F]` are F discrete parts, each combination that occurs coded as one action.

    The actions become `[N, T]` int32, numbered in the sorted order of the combinations, which are `action_parts`. Those
    of a single part (F = 1) whose values are 0, ..., A - 1 keep their numbers, and are plain discrete actions.

    Raises:
        DataError: for more than `MAX_JOINT` combinations, or numbers too large to be exact in float32.
    """
    mask = np.asarray(trajectories.mask)
    if np.abs(np.asarray(trajectories.actions)[mask]).max() >= _EXACT:
        raise DataError(f"actions has discrete parts of {_EXACT} or more: number their values from 0")
    combinations, numbered = np.unique(np.asarray(trajectories.actions)[mask], axis=0, return_inverse=True)
    if len(combinations) > MAX_JOINT:
        raise DataError(
            f"actions has {len(combinations)} combinations of its {combinations.shape[1]} discrete parts, more than "
            f"{MAX_JOINT}: leave out parts that do not matter, or store them as a Box of numbers"
        )
    actions = np.zeros(mask.shape, np.int32)
    actions[mask] = numbered.reshape(-1)
    parts = tuple(map(tuple, combinations.astype(int).tolist()))
    if parts == numbered_parts(len(parts)):
        parts = ()
    return trajectories.replace(actions=actions, num_actions=len(combinations), action_parts=parts)


def numbered_parts(num_actions: int) -> tuple[tuple[int], ...]:
    """The `action_parts` that plain discrete actions would have: each is the value of a single part."""
    return tuple((number,) for number in range(num_actions))


def renumbered(
    trajectories: Trajectories, num_actions: int, action_parts: tuple[tuple[int, ...], ...], others: str
) -> Trajectories:
    """Trajectories with discrete actions, numbered as other data number theirs.

    Every dataset numbers the combinations of parts, or the values of a single part, that it has.

    Args:
        num_actions, action_parts: of the other data.
        others: what that is, for the error.

    Raises:
        DataError: for an action that the other data does not have.
    """
    parts = trajectories.action_parts or numbered_parts(trajectories.num_actions)
    numbers = {part: number for number, part in enumerate(action_parts or numbered_parts(num_actions))}
    actions, mask = np.asarray(trajectories.actions), np.asarray(trajectories.mask)
    unknown = [parts[action] for action in np.unique(actions[mask]).tolist() if parts[action] not in numbers]
    if unknown:
        what = f"the combination {list(unknown[0])}" if len(unknown[0]) > 1 else f"the value {unknown[0][0]}"
        raise DataError(f"actions: {what} is new to {others}")
    actions = np.array([numbers.get(part, 0) for part in parts], np.int32)[np.where(mask, actions, 0)]
    return trajectories.replace(actions=actions, num_actions=num_actions, action_parts=action_parts)


# --- Gymnasium's spaces ----------------------------------------------------------------------------------


class ObservationReader:
    """Observations of a space as arrays `[t, *shape]`: those of Dict and Tuple by `flatten_parts`, others unchanged.

    Parts come in the sorted order of a Dict's keys; a Discrete one becomes one-hot numbers. Parts that are no numbers,
    such as Text, are `left_out`.

    Raises:
        DataError: for a space without any numbers; on call, for values that are no numbers or outside a discrete part.
    """

    def __init__(self, space: Any):
        leaves = list(_leaves("observations", space))
        self.leaves = [leaf for leaf in leaves if leaf.numeric]
        self.left_out = [leaf.name for leaf in leaves if not leaf.numeric]
        if not self.leaves:
            raise DataError(f"observations has space {type(space).__name__}: flatten it to numbers")
        examples = {leaf.name: self._column(leaf, leaf.example) for leaf in self.leaves}
        self.shape = self._flatten(examples).shape[1:]
        self.goals = goals_differ({name: example.shape for name, example in examples.items()})

    def __call__(self, values: Any) -> np.ndarray:
        return self._flatten({leaf.name: self._column(leaf, leaf.of(values)) for leaf in self.leaves})

    def _column(self, leaf: "_Leaf", array: np.ndarray) -> np.ndarray:
        return leaf.one_hot(array) if leaf.path and leaf.kind == "Discrete" else array

    def _flatten(self, columns: dict[str, np.ndarray]) -> np.ndarray:
        return flatten_parts(columns) if self.leaves[0].path else columns[""]


class ActionReader:
    """Actions of a space as arrays, of one of three kinds:

    - `discrete`: of a Discrete space, `[t]`, from 0;
    - `joint`: of discrete parts (MultiDiscrete, MultiBinary, Dict and Tuple of such, a Box of one whole number),
      `[t, F]` whole numbers as in the data, for `join_actions`;
    - `continuous`: of Boxes, `[t, A]`, concatenated. Discrete parts beside them (`mixed`) become one-hot numbers.

    Raises:
        DataError: for a part of another space; on call, for values that are no numbers or outside a discrete part.
    """

    def __init__(self, space: Any):
        self.leaves = list(_leaves("actions", space))
        if not self.leaves:
            raise DataError("actions has an empty space: store them as numbers")
        for leaf in self.leaves:
            if not leaf.numeric:
                raise DataError(f"{leaf.described} has space {leaf.kind}: store it as numbers")
        boxes = [leaf.kind == "Box" for leaf in self.leaves]
        whole = all(leaf.is_whole for leaf in self.leaves) and (len(boxes) == 1 or not all(boxes))
        plain = self.leaves[0].kind == "Discrete" and not self.leaves[0].path
        self.kind = "discrete" if plain else "joint" if whole else "continuous"
        self.mixed = self.kind == "continuous" and not all(boxes)
        self.num_actions = int(space.n) if plain else 0
        self.shape = self._flatten([leaf.example for leaf in self.leaves]).shape[1:]

    def __call__(self, values: Any) -> np.ndarray:
        return self._flatten([leaf.of(values) for leaf in self.leaves])

    def _flatten(self, arrays: list[np.ndarray]) -> np.ndarray:
        pairs = list(zip(self.leaves, arrays, strict=True))
        if self.kind == "discrete":
            return self.leaves[0].whole(arrays[0])[:, 0] - self.leaves[0].low
        if self.kind == "joint":
            return np.concatenate([leaf.whole(array) for leaf, array in pairs], axis=1)
        return np.concatenate([flat(array) if leaf.kind == "Box" else leaf.one_hot(array) for leaf, array in pairs], 1)


class CombinationReader:
    """An `ActionReader` of numbers that `join_actions` gave, read as the combinations that they stand for."""

    kind, mixed, num_actions = "joint", False, 0

    def __init__(self, space: Any, action_parts: Any):
        self._number = ActionReader(space)
        self._parts = np.array(action_parts, np.int64)  # [A, F]
        self.shape = self._parts.shape[1:]

    def __call__(self, values: Any) -> np.ndarray:
        return self._parts[self._number(values)]


@dataclass(frozen=True)
class _Leaf:
    """A space that is not made of other spaces, and the keys that lead to it."""

    field: str  # observations or actions
    path: tuple[Any, ...]
    space: Any

    @property
    def name(self) -> str:
        return "/".join(map(str, self.path))

    @property
    def described(self) -> str:
        return f"{self.field} part {self.name!r}" if self.path else self.field

    @property
    def kind(self) -> str:
        return type(self.space).__name__

    @property
    def numeric(self) -> bool:
        return self.kind in ("Box", "Discrete", "MultiBinary", "MultiDiscrete")

    @property
    def is_whole(self) -> bool:
        """Whether it is discrete, as is a Box of a single number of an integer dtype."""
        return self.kind != "Box" or (self.space.dtype.kind in "iu" and math.prod(self.space.shape) == 1)

    @property
    def low(self) -> np.ndarray:
        """`[F]` int64: the lowest value of each number of a discrete space."""
        return np.broadcast_to(getattr(self.space, "start", 0), self.space.shape).reshape(-1).astype(np.int64)

    @property
    def count(self) -> np.ndarray:
        """`[F]` int64: how many values each number of a discrete space has."""
        count = {"Discrete": "n", "MultiDiscrete": "nvec"}.get(self.kind)
        return np.broadcast_to(getattr(self.space, count) if count else 2, self.space.shape).reshape(-1)

    @property
    def example(self) -> np.ndarray:
        """One step of it, `[1, ...]`."""
        return np.broadcast_to(getattr(self.space, "start", 0), (1, *self.space.shape)).astype(self.space.dtype)

    def of(self, values: Any) -> np.ndarray:
        """Its array `[t, ...]` among an episode's values."""
        for key in self.path:
            values = values[key]
        return numbers(self.described, values)

    def whole(self, array: np.ndarray) -> np.ndarray:
        """`[t, F]` int64: the whole numbers of a discrete space, or of a Box."""
        array = flat(array)
        bad = array != np.floor(array)
        if self.kind != "Box":
            if array.shape[1] != len(self.low):
                raise DataError(
                    f"{self.described} has {array.shape[1]} numbers a step, but its space {len(self.low)}: correct one"
                )
            bad |= (array < self.low) | (array >= self.low + self.count)
        if bad.any():
            step, column = np.argwhere(bad)[0]
            value = array[step, column]
            raise DataError(f"{self.described} at step {step} is {value}, outside {self.space}: correct one")
        return array.astype(np.int64)

    def one_hot(self, array: np.ndarray) -> np.ndarray:
        """`[t, D]` float32: a one-hot vector for each number of a discrete space, concatenated."""
        width = int(self.count.sum())
        if width > _MAX_ONE_HOT:
            raise DataError(f"{self.described} has {width} values, more than {_MAX_ONE_HOT} as columns: leave it out")
        columns = np.zeros((len(array), width), np.float32)
        np.put_along_axis(columns, self.whole(array) - self.low + np.cumsum(self.count) - self.count, 1, axis=1)
        return columns


def flat(array: np.ndarray) -> np.ndarray:
    """`[t, ...]` as `[t, D]`."""
    return array.reshape(len(array), math.prod(array.shape[1:]))


def _leaves(field: str, space: Any, path: tuple[Any, ...] = ()) -> Iterator[_Leaf]:
    """The spaces that Dict (by its keys in sorted order) and Tuple are made of; another space itself."""
    from gymnasium.spaces import Dict, Tuple

    if not isinstance(space, Dict | Tuple):
        yield _Leaf(field, path, space)
        return
    for key, part in sorted(space.spaces.items()) if isinstance(space, Dict) else enumerate(space.spaces):
        yield from _leaves(field, part, (*path, key))
