"""Datasets in the layout of D4RL (version 2): one .hdf5 file of flat arrays.

D4RL's `*-medium-expert-v2` are the episodes of its `medium` file, cut at the last finished one, and then those of
`expert`: with the medium file, or its length, the label of every episode is exact. Where the files of the two policies
hold their weights (`metadata/policy/*`), the true policies' likelihoods are known too.
"""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from trajclust_envs.mujoco import TASKS, GaussianPolicy
from trajclust_jax.data.episodes import split_fields
from trajclust_jax.data.types import DataError, Dataset, Trajectories, build_dataset
from trajclust_jax.data.validation import located

# infos/action_log_probs are not among them: the behaviour policy's own likelihood would give the label away.
_FIELDS = ("observations", "actions", "rewards", "terminals", "timeouts", "next_observations")
_PAIR = re.compile(r"medium([-_])expert")
_LOG_STD_BOUNDS = (-20.0, 2.0)  # of the networks that made D4RL


def load_hdf5(path: str | os.PathLike, medium: str | os.PathLike | int | None = None) -> Dataset:
    """Reads flat arrays `observations [P, ...]`, `actions`, `rewards`, `terminals`, `timeouts` (see `split_episodes`).

    Arrays are read once, in blocks, into their padded form. Labels are the file's own `labels [N]`; else, where the
    name says `medium-expert` (or `medium_expert`), 0 for medium and 1 for expert, by the boundary between them:

    - exact, with `medium`; without it, the medium file beside this one is used, if there is one;
    - else the boundary that separates the episodes' returns best (the paper's B.1 splits by returns, too).

    `provenance.parameters["labels"]` says which.

    Args:
        path: the file.
        medium: D4RL's medium file, or the number of its steps up to the last episode end.

    Raises:
        DataError: one line naming the file and the field.
    """
    path = Path(path)
    with located(path):
        with _opened(path) as file:
            fields = {name: _array(file, name) for name in (*_FIELDS, "labels") if name in file}
            labels = fields.pop("labels", None)
            flags = [fields[name][()] for name in ("terminals", "timeouts") if name in fields]
            if flags and flags[0].size and not any(each.any() for each in flags):
                raise DataError("terminals and timeouts mark no end of an episode: mark where episodes end")
            trajectories = split_fields(fields)
            labels, parameters = (None if labels is None else labels[()]), {}
        if labels is not None:
            names = tuple(map(str, np.unique(labels.astype(str)))) if labels.dtype.kind in "SUO" else ()
        elif medium is not None or _PAIR.search(path.name):
            medium = next(iter(_siblings(path, "medium")), None) if medium is None else medium
            labels, parameters["labels"] = _pair_labels(trajectories, medium)
            names = ("medium", "expert")
        else:
            names = ()
        for task in (task for name, task in TASKS.items() if path.name.startswith(name)):
            parameters["environment"] = task.env_id
        likelihoods = None
        if names == ("medium", "expert"):
            policies = [_policy(sibling) for sibling in _siblings(path, *names)]
            if len(policies) == 2 and None not in policies:
                likelihoods = policy_log_likelihoods(trajectories, policies)
        return build_dataset(
            trajectories,
            labels,
            name=path.stem,
            source=path.name,
            policy_names=names,
            parameters=parameters,
            true_log_likelihoods=likelihoods,
        )


def files_of(path: str | os.PathLike, medium: str | os.PathLike | int | None = None) -> list[Path]:
    """The files that `load_hdf5` reads."""
    path = Path(path)
    return [path, *_siblings(path, "medium", "expert"), *([Path(medium)] if isinstance(medium, str) else [])]


def _siblings(path: Path, *names: str) -> list[Path]:
    """Of D4RL's medium and expert files that belong to a medium-expert file, those that lie beside it."""
    if not _PAIR.search(path.name):
        return []
    return [each for name in names if (each := path.with_name(_PAIR.sub(name, path.name))).is_file()]


def return_boundary(returns: np.ndarray) -> int:
    """The number of episodes before the boundary that leaves the least variance of returns `[N]` on its two sides.

    Raises:
        DataError: for a single episode.
    """
    if len(returns) < 2:
        raise DataError("holds one episode: medium and expert cannot be told apart")
    sums = np.cumsum(returns, dtype=np.float64)
    first = np.arange(1, len(returns))
    means = sums[:-1] / first, (sums[-1] - sums[:-1]) / (len(returns) - first)
    return int(np.argmax(first * (len(returns) - first) * (means[1] - means[0]) ** 2)) + 1


def policy_log_likelihoods(trajectories: Trajectories, policies: Sequence[Any]) -> np.ndarray:
    """`[N, k]` float32: log-density of each trajectory's actions under policies with `log_prob(observations, actions)`.

    Observations are dense; a few hundred trajectories at a time bound the memory.
    """
    lengths = np.asarray(trajectories.lengths)
    mask = np.arange(trajectories.max_length) < lengths[:, None]
    result = np.zeros((len(lengths), len(policies)), np.float32)
    for start in range(0, len(lengths), 64):
        rows = slice(start, start + 64)
        real = mask[rows]
        observations, actions = (np.asarray(x)[rows][real] for x in (trajectories.observations, trajectories.actions))
        starts = np.cumsum(real.sum(1)) - real.sum(1)
        for k, policy in enumerate(policies):
            result[rows, k] = np.add.reduceat(policy.log_prob(observations, actions), starts)
    return result


def _pair_labels(trajectories: Trajectories, medium: str | os.PathLike | int | None) -> tuple[np.ndarray, str]:
    """Labels of a medium-expert file, and what they rest on."""
    ends = np.cumsum(np.asarray(trajectories.lengths))
    if medium is None:
        boundary, how = (
            return_boundary(np.asarray(trajectories.rewards).sum(1, dtype=np.float64)),
            "returns (heuristic)",
        )
    else:
        steps, how = medium, f"{medium} steps of medium (exact)"
        if not isinstance(medium, int):
            steps, how = _finished_steps(Path(medium)), f"the last episode end of {Path(medium).name} (exact)"
        boundary = int(np.searchsorted(ends, steps)) + 1
        if steps not in ends[:-1]:
            raise DataError(
                f"no episode ends after {steps} steps, the length of medium: is it the medium of this file?"
            )
    return (np.arange(len(ends)) >= boundary).astype(np.int32), how


def _finished_steps(path: Path) -> int:
    """Steps of a D4RL file up to its last episode end."""
    with located(path), _opened(path) as file:
        ends = [np.flatnonzero(_array(file, name)[()]) for name in ("terminals", "timeouts") if name in file]
        last = max((int(each[-1]) for each in ends if len(each)), default=-1)
        if last < 0:
            raise DataError("terminals and timeouts mark no end of an episode")
        return last + 1


def _policy(path: Path) -> GaussianPolicy | None:
    """The behaviour policy in a D4RL file, or None where it holds no weights."""
    with located(path), _opened(path) as file:
        stored = file.get("metadata/policy")
        names = ("fc0", "fc1", "last_fc", "last_fc_log_std")
        if stored is None or any(f"{name}/{kind}" not in stored for name in names for kind in ("weight", "bias")):
            return None
        weight, bias = (
            [np.asarray(stored[f"{name}/{kind}"], np.float32) for name in names] for kind in ("weight", "bias")
        )
        weights = *(each.T for each in weight[:2]), np.concatenate([each.T for each in weight[2:]], 1)
        action_size = len(bias[2])
        return GaussianPolicy(
            weights, (*bias[:2], np.concatenate(bias[2:])), np.ones(action_size, np.float32), _LOG_STD_BOUNDS
        )


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The file; what HDF5 says of a damaged one becomes one line."""
    import h5py

    if not path.is_file():
        raise DataError("is a folder, not a file" if path.is_dir() else "no such file")
    try:
        with h5py.File(path) as file:
            yield file
    except (OSError, TypeError, KeyError, RuntimeError) as error:  # cut short, or not HDF5
        reason = str(error).splitlines()[0]
        raise DataError(f"cannot be read ({reason}): is it a whole .hdf5 file? Copy it again") from None


def _array(file: Any, name: str) -> Any:
    """An array of the file, not read yet."""
    import h5py

    if not isinstance(file[name], h5py.Dataset):
        raise DataError(f"{name} is a group: give an array")
    return file[name]
