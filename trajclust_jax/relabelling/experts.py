"""Trajectories to give new rewards, and the experts by whom: CLUE's three settings.

Experts are sets of steps: of successful trajectories (sparse rewards), of demonstrations that are no part of the data
(imitation), of a clustering's trajectories or classes of transitions (skills, a set a cluster).
"""

import dataclasses
import functools
import hashlib
import logging
import operator
from collections.abc import Iterator

import numpy as np

from trajclust_jax.data.dataset import returns, spread_of_returns, transitions
from trajclust_jax.data.inspection import other_units
from trajclust_jax.data.preparation import normalisation
from trajclust_jax.data.spaces import renumbered
from trajclust_jax.data.types import DataError, Trajectories, Transitions, dense

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class ExpertData:
    """Trajectories with E sets of expert steps, numbered as in `transitions` of `pooled`."""

    trajectories: Trajectories
    experts: tuple[np.ndarray, ...] = ()  # E times [R] int64: steps, each set sorted
    demonstrations: Trajectories | None = None  # of an expert, no part of the data

    @functools.cached_property
    def pooled(self) -> Trajectories:
        """The trajectories, and after them the demonstrations."""
        return self.trajectories if self.demonstrations is None else joined(self.trajectories, self.demonstrations)

    @functools.cached_property
    def flat(self) -> Transitions:
        """The transitions of `pooled`."""
        return transitions(self.pooled)

    @property
    def num_steps(self) -> int:
        """P, of the trajectories alone."""
        return int(np.asarray(self.trajectories.lengths).sum())

    def check(self) -> None:
        """Raises DataError where there is no expert, or one that has no step or all of them."""
        if not self.experts:
            raise DataError("expert: there is none; give at least one trajectory")
        for number, steps in enumerate(self.experts):
            named = "expert" if len(self.experts) == 1 else f"expert {number}"
            if not len(steps):
                raise DataError(f"{named} has no step: give at least one trajectory")
            if len(steps) == len(self.flat.rewards):
                raise DataError(f"{named} is all of the data: there is nothing to tell it from")

    def members(self) -> np.ndarray:
        """`[E, P + Q]` bool: the steps of `pooled` that are an expert's."""
        found = np.zeros((len(self.experts), len(self.flat.rewards)), bool)
        for row, steps in zip(found, self.experts, strict=True):
            row[steps] = True
        return found


def of_trajectories(trajectories: Trajectories, chosen: np.ndarray) -> ExpertData:
    """The trajectories `chosen [n]` are the expert's.

    Raises:
        DataError: for none, or all of them.
    """
    return _checked(ExpertData(trajectories, (_steps_of(trajectories, chosen),)))


def of_demonstrations(trajectories: Trajectories, demonstrations: Trajectories) -> ExpertData:
    """Demonstrations that are no part of the data. Warns of columns far from the data's.

    Raises:
        DataError: where they are of another environment, or are the data.
    """
    actions = lambda of: "discrete" if of.discrete else [of.action_size]
    for what, ours, theirs in (
        ("observations", list(trajectories.observation_shape), list(demonstrations.observation_shape)),
        ("actions", actions(trajectories), actions(demonstrations)),
    ):
        if ours != theirs:
            raise DataError(f"expert: {what} are {theirs}, the data's {ours}: give an expert of the same environment")
    if trajectories.discrete:
        own = trajectories.num_actions, trajectories.action_parts
        try:
            demonstrations = renumbered(demonstrations, *own, "the data, which never have it: leave its trajectory out")
        except DataError as error:
            raise DataError(f"expert: {error}") from None
    known, given = set(_episodes(trajectories)), list(_episodes(demonstrations))
    if known <= set(given):
        raise DataError("expert holds all of the data: there is nothing to tell it from")
    count = int(np.asarray(trajectories.lengths).sum())
    steps = count + np.arange(int(np.asarray(demonstrations.lengths).sum()))
    found = _checked(ExpertData(trajectories, (steps,), demonstrations))
    shared = sum(episode in known for episode in given)
    if shared:
        log.warning(
            "expert: %d of its %d trajectories are also in the data, where they count as not the expert's; if they are "
            "the same episodes, remove them from the data",
            *(shared, len(given)),
        )
    _warn_of_other_units(found.flat, count)
    return found


def _warn_of_other_units(flat: Transitions, count: int) -> None:
    """Of demonstrations, the steps from `count` on, columns that are far from those of the others."""
    columns = {"observations": dense(flat.observations), "actions": flat.actions}
    for name, values in columns.items():
        values = np.asarray(values)
        if values.dtype.kind != "f":
            continue
        values = values.reshape(len(values), -1)
        own = values[count:]
        far = other_units(own.mean(0, np.float64), own.std(0, np.float64), *normalisation(values[:count]))
        if far.any():
            log.warning(
                "expert: %d of %d columns of %s are far from the data's: are they in the same unit?",
                *(far.sum(), len(far), name),
            )


def of_best(trajectories: Trajectories, count: int) -> ExpertData:
    """The `count` trajectories with the highest returns; of equal ones the first, which is warned of.

    Raises:
        DataError: for a count below 1, or of all trajectories; returns that are all equal.
    """
    found = returns(trajectories)
    if count < 1:
        raise DataError(f"expert best:{count}: give at least 1")
    if len(found) <= count:
        raise DataError(f"expert best:{count} holds all of the data: there is nothing to tell it from")
    if not spread_of_returns(trajectories):
        raise DataError("expert best: all returns are equal, and do not tell which is best")
    order = np.argsort(-found, kind="stable")
    least = found[order[count - 1]]
    if (found[order[count:]] == least).any():
        log.warning("expert best:%d: %d have a return of %g; the first are taken", count, (found == least).sum(), least)
    return of_trajectories(trajectories, np.sort(order[:count]))


def of_successes(trajectories: Trajectories, count: int | None = None) -> ExpertData:
    """The trajectories that meet the reward of a sparse task: the `count` that do so soonest, or all.

    Rewards are sparse where they have two values, such as 0 and, at the goal, 1. Of equally soon ones the first are
    taken, which is warned of.

    Raises:
        DataError: for rewards that are not sparse, a count below 1, no success, or most trajectories at the goal from
            their first step on: theirs is the reward of all steps but mistakes.
    """
    rewards, mask = np.asarray(trajectories.rewards), np.asarray(trajectories.mask)
    values = np.unique(rewards[mask])
    if len(values) > 2:
        raise DataError(f"expert success: rewards have {len(values)} values, a sparse task's two: give best:K")
    if len(values) < 2:
        raise DataError(f"expert success: every reward is {values[0]:g}, so no trajectory succeeded")
    if count is not None and count < 1:
        raise DataError(f"expert success:{count}: give at least 1")
    met = (rewards == values[1]) & mask
    soonest = np.where(met.any(1), met.argmax(1), np.iinfo(np.int64).max)
    if 2 * (soonest == 0).sum() > len(soonest):
        raise DataError(f"expert success: most begin with the reward {values[1]:g}, which is no goal's: give best:K")
    order = np.argsort(soonest, kind="stable")[: int(met.any(1).sum())]
    if count is not None and count > len(order):
        log.warning("expert success:%d: only %d trajectories succeeded, and all are taken", count, len(order))
    elif count is not None and (soonest[order[count:]] == soonest[order[count - 1]]).any():
        last = soonest[order[count - 1]]
        log.warning(
            "expert success:%d: %d succeed after %d steps; the first are taken", count, (soonest == last).sum(), last
        )
    return of_trajectories(trajectories, np.sort(order[:count]))


def of_clusters(trajectories: Trajectories, assignments: np.ndarray, clusters: list[int]) -> ExpertData:
    """A set for each of these clusters: all steps of its trajectories.

    Args:
        assignments: `[N]` int, the cluster of each trajectory.

    Raises:
        DataError: for an empty cluster, or one with all trajectories.
    """
    sets = (_steps_of(trajectories, np.flatnonzero(np.asarray(assignments) == k)) for k in clusters)
    return _checked(ExpertData(trajectories, tuple(sets)))


def of_classes(trajectories: Trajectories, classes: np.ndarray, chosen: list[int]) -> ExpertData:
    """A set for each of the chosen classes of steps.

    Args:
        classes: `[P]` int, the class of each step.
    """
    return _checked(ExpertData(trajectories, tuple(np.flatnonzero(np.asarray(classes) == k) for k in chosen)))


def _checked(data: ExpertData) -> ExpertData:
    data.check()
    return data


def joined(*several: Trajectories) -> Trajectories:
    """The trajectories of all, one after the other; observations are dense."""
    horizon = max(each.max_length for each in several)

    def padded(steps):
        steps = np.asarray(steps)
        return np.pad(steps, ((0, 0), (0, horizon - steps.shape[1]), *((0, 0) for _ in steps.shape[2:])))

    every = lambda field, change: np.concatenate([change(field(each)) for each in several])
    return several[0].replace(
        observations=every(lambda each: dense(each.observations), padded),
        final_observations=every(lambda each: dense(each.final_observations), np.asarray),
        **{name: every(operator.attrgetter(name), padded) for name in ("actions", "rewards")},
        **{name: every(operator.attrgetter(name), np.asarray) for name in ("lengths", "terminated")},
    )


def _steps_of(trajectories: Trajectories, chosen: np.ndarray) -> np.ndarray:
    lengths = np.asarray(trajectories.lengths)
    inside = np.zeros(len(lengths), bool)
    inside[chosen] = True
    return np.flatnonzero(np.repeat(inside, lengths))


def _episodes(trajectories: Trajectories) -> Iterator[bytes]:
    """Of each trajectory what tells it from others: its observations and actions."""
    flat = transitions(trajectories)
    parts = [np.asarray(part).reshape(len(flat.actions), -1) for part in (dense(flat.observations), flat.actions)]
    ends = np.cumsum(np.asarray(trajectories.lengths))[:-1]
    for steps in zip(*(np.split(part, ends) for part in parts), strict=True):
        yield hashlib.sha256(b"".join(part.astype(np.float32).tobytes() for part in steps)).digest()
