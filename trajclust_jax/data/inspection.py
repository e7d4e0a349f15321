"""Suspicious values, and units that learners cannot cope with, in data that are otherwise valid."""

from collections.abc import Collection, Iterator

import numpy as np

from trajclust_jax.data.types import Codebook, Trajectories

_FAR = 10.0  # times the range of the other values
_ALONE = 1e6  # the same of a value that appears once, as the largest of a heavy tail does
_FEW = 8  # distinct other values: a column with fewer holds states such as 0 and 1, not measurements
_SPREADS = 1e-2, 1e3  # standard deviations that networks cope with; MuJoCo's are 0.04 to 15
_OFFSET = 25.0  # times the largest deviation from the mean; MuJoCo's means are less than 10 of them from 0
_ROUNDED = 25e3  # the same of what float32 hardly holds
_NAMED = 3  # columns that a line names
_PARTS = "observations", "actions", "rewards"
_ELSEWHERE = 5.0  # stds of other data, by which a mean is off in another unit
_WIDER, _NARROWER = 10.0, 30.0  # ratios of stds in another unit: an expert's may well be a tenth
_COMMON = 3.0  # between the largest and the smallest of such ratios


def suspicious(trajectories: Trajectories, parts: Collection[str] = _PARTS) -> list[str]:
    """One line for each value that seems to mean 'no reading', such as -9999, 32767 or 1e20 beside values near 1.

    That is an extreme value which repeats exactly and lies far outside the range of its column's other values, or which
    lies absurdly far outside. The columns are those of observation vectors and of continuous actions, and the rewards;
    images have none. Padding does not count.

    Args:
        parts: whose columns are looked at.
    """
    lines = []
    for name, values, counts in _columns(trajectories, parts):
        remedy = "replace it" if name == "rewards" else "replace it or drop the column"
        for value, count, (low, high) in _sentinels(values, counts):
            times = "once" if count == 1 else f"{count} times"
            lines.append(
                f"{name}: {value:g} appears {times}, far outside {low:.3g}..{high:.3g} of the others. "
                f"If it means 'no reading', {remedy}"
            )
    return lines


def other_units(mean: np.ndarray, std: np.ndarray, others_mean: np.ndarray, others_std: np.ndarray) -> np.ndarray:
    """`[D]` bool: columns that seem to have another unit than the same ones of other data.

    Their mean is far away, or their std many times as large. A std that is many times smaller is a sign only where most
    columns have it, two at least, and about the same ratio of stds: some may stand still.

    Args:
        mean, std, others_mean, others_std: `[D]`, of columns of both.
    """
    far = (np.abs(mean - others_mean) > _ELSEWHERE * others_std) | (std > _WIDER * others_std)
    narrow = (_NARROWER * std < others_std) & (std > 0)
    ratios = (std / np.maximum(others_std, np.finfo(np.float32).tiny))[narrow]
    common = 2 * len(ratios) > len(narrow) > 1 and ratios.max() < _COMMON * ratios.min()
    return far | narrow if common else far


def ill_scaled(trajectories: Trajectories, normalised: bool) -> str | None:
    """One line that names the columns of observation vectors whose unit or offset hides them from a network.

    These are far from 0 beside their spread, or their spread is tiny or huge; where observations are `normalised` to
    mean 0 and std 1, those alone that the floor of the std (`preparation.normalisation`) or float32's rounding hides.
    Flags and rare events, such as contacts, are none, nor are constants near 0. None without any; images have none.
    """
    found, (least, most) = [], _SPREADS
    for column, values, counts in _observations(trajectories):
        mean = np.average(values, weights=counts)
        deviations = np.abs(values - mean)
        spread, reach = np.sqrt(np.average(deviations**2, weights=counts)), deviations.max()
        tiny = spread < least and reach < 10 * least  # rare events reach further
        far = abs(mean) > (_ROUNDED if normalised else _OFFSET) * reach
        if reach == 0:  # a constant tells nothing, but must not drown what does
            tiny, far = False, abs(mean) > most and not normalised
        if tiny or far or (spread > most and not normalised):
            found.append(column)
    if not found:
        return None
    named = ", ".join(map(str, found[:_NAMED])) + (", ..." if len(found) > _NAMED else "")
    bounds = f"below {least:g}" if normalised else f"outside {least:g}..{most:g}"
    return (
        f"{len(found)} of {trajectories.observation_shape[0]} columns of observations ({named}) are far from 0 beside "
        f"their spread, or this is {bounds}, which networks cannot cope with"
    )


def _columns(trajectories: Trajectories, parts: Collection[str]) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Name, values `[n]` float64 and their counts `[n]` of every column of the parts."""
    if "observations" in parts:
        for column, values, counts in _observations(trajectories):
            yield f"observations column {column}", values, counts
    mask = _real(trajectories)
    ones = np.ones(int(mask.sum()), np.int64)
    if "actions" in parts and not trajectories.discrete:
        for column in range(trajectories.action_size):
            values = np.asarray(trajectories.actions)[..., column][mask]
            yield f"actions column {column}", values.astype(np.float64), ones
    if "rewards" in parts:
        yield "rewards", np.asarray(trajectories.rewards)[mask].astype(np.float64), ones


def _observations(trajectories: Trajectories) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Number, values `[n]` float64 and their counts `[n]` of every column of observation vectors."""
    mask, observations = _real(trajectories), trajectories.observations
    if len(trajectories.observation_shape) != 1:
        return
    ones = np.ones(int(mask.sum()), np.int64)
    for column in range(trajectories.observation_shape[0]):
        if isinstance(observations, Codebook):
            values, ids = np.asarray(observations.table)[:, column], np.asarray(observations.ids)[mask]
            counts = np.bincount(ids, minlength=len(values))
            values, counts = values[counts > 0], counts[counts > 0]
        else:
            values, counts = np.asarray(observations)[..., column][mask], ones
        yield column, values.astype(np.float64), counts


def _real(trajectories: Trajectories) -> np.ndarray:
    """`[N, T]` bool: the steps that are no padding."""
    return np.arange(trajectories.max_length) < np.asarray(trajectories.lengths)[:, None]


def _sentinels(values: np.ndarray, counts: np.ndarray) -> Iterator[tuple[float, int, tuple[float, float]]]:
    """The values that lie far outside the others, the number of times they appear, and the others' range."""
    while True:
        extremes = values.min(), values.max()
        inner = values[(values != extremes[0]) & (values != extremes[1])]
        if len(np.unique(inner[: 64 * _FEW])) < _FEW:
            return
        low, high = inner.min(), inner.max()
        found = []
        for value in extremes:
            count = int(counts[values == value].sum())
            if max(low - value, value - high) > (_FAR if count > 1 else _ALONE) * (high - low):
                found.append(value)
                yield float(value), count, (float(low), float(high))
        if not found:
            return
        kept = ~np.isin(values, found)
        values, counts = values[kept], counts[kept]
