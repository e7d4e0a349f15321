"""Datasets in the layout of D4RL (version 2): one .hdf5 file of flat arrays.

D4RL's `*-medium-expert-v2` are the episodes of its `medium` file, cut at the last finished one, and then those of
`expert`: with the medium file, or its length, the label of every episode is exact. Where the files of the two policies
hold their weights (`metadata/policy/*`), the true policies' likelihoods are known too.
"""

import dataclasses
import json
import numbers
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trajclust_jax.data.dataset import build_dataset, transitions
from trajclust_jax.data.fields import episode_ends
from trajclust_jax.data.files import written_whole
from trajclust_jax.data.hdf5 import fields_of, opened, read_file, stored
from trajclust_jax.data.types import DataError, Dataset, Trajectories, dense
from trajclust_jax.data.validation import located
from trajclust_jax.lazy import lazy

mujoco = lazy("trajclust_envs.mujoco")

# By the beginning of a file's name; `trajclust_envs.mujoco` has these tasks.
ENVIRONMENTS = {"halfcheetah": "HalfCheetah-v4", "hopper": "Hopper-v4", "walker2d": "Walker2d-v4", "ant": "Ant-v4"}

_PROVENANCE = "provenance"  # in files that `save_hdf5` wrote: the provenance, as JSON
_PAIR = re.compile(r"medium([-_])expert")
_ANTMAZE = re.compile(r"ant[-_]?maze", re.IGNORECASE)
_LOG_STD_BOUNDS = (-20.0, 2.0)  # of the networks that made D4RL
_LEAST_SHARE = 0.1  # share of the returns' variance that a boundary must explain
_LEAST_RATIO = 20.0  # explained over unexplained variance, times the episodes: shuffled ones reach 10 by chance


def load_hdf5(path: str | os.PathLike, medium: str | os.PathLike | int | None = None) -> Dataset:
    """Reads D4RL's flat arrays, any others that `read_fields` understands, and files of robomimic and d3rlpy 2.

    Flat arrays are read once, in blocks, into their padded form. In robomimic's demonstrations (`data/demo_*`) and
    d3rlpy's episodes, the parts of an observation are concatenated in the sorted order of their names. AntMaze's goals
    (`infos/goal`) are appended to the observations.

    Labels are the file's own; else, where the name says `medium-expert` (or `medium_expert`), 0 for medium and 1 for
    expert, by the boundary between them:

    - exact, with `medium`; without it, the medium file beside this one is used, if there is one;
    - else the boundary that best separates the episodes' returns (the paper's B.1 splits by returns, too), a guess
      (`Dataset.label_guess`). Where it explains little of their variance, as in shuffled episodes, there are no labels.

    `provenance.parameters["labels"]` says which of these it was, `["ends"]` which arrays marked the ends of episodes.

    Args:
        path: the file.
        medium: D4RL's medium file, or the number of its steps up to the last episode end.

    Raises:
        DataError: one line naming the file and the field.
    """
    path = Path(path)
    with located(path):
        maze = _ANTMAZE.match(path.name)
        with opened(path) as file:
            trajectories, labels, names, parameters = read_file(file, _with_goals(file) if maze else {})
            parameters = {**_stored_parameters(file), **parameters}
        if labels is None and (medium is not None or _PAIR.search(path.name)):
            medium = next(iter(_siblings(path, "medium")), None) if medium is None else medium
            labels, parameters["labels"] = _pair_labels(trajectories, medium)
            names = ("medium", "expert") if labels is not None else ()
        if maze:
            parameters["environment"] = "AntMaze"
        for task, environment in ENVIRONMENTS.items():
            if re.match(rf"{task}(?![A-Za-z0-9])", path.name):
                parameters.setdefault("environment", environment)
        likelihoods = None
        if names == ("medium", "expert"):
            sizes = int(np.prod(trajectories.observation_shape)), trajectories.action_size
            policies = [_policy(sibling, *sizes) for sibling in _siblings(path, *names)]
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


def save_hdf5(dataset: Dataset, path: str | os.PathLike) -> None:
    """Writes the dataset in D4RL's layout, whole or not at all; its folder is made if need be.

    Flat arrays of steps: observations, next observations, actions, rewards, terminals, timeouts; for discrete actions
    `num_actions` (and `action_parts`); with labels, each trajectory's policy by name or number; and the provenance, as
    JSON.

    Raises:
        OSError: if the file cannot be written.
    """
    import h5py

    trajectories = dataset.trajectories
    steps = transitions(trajectories)
    arrays = {
        "observations": dense(steps.observations),
        "next_observations": dense(steps.next_observations),
        "actions": steps.actions,
        "rewards": steps.rewards,
        "terminals": steps.terminated,
        "timeouts": steps.truncated,
    }
    if trajectories.discrete:
        arrays["num_actions"] = np.int64(trajectories.num_actions)
    if trajectories.action_parts:
        arrays["action_parts"] = np.asarray(trajectories.action_parts, np.int64)
    if dataset.labels is not None:
        names = np.array([name.encode() for name in dataset.spec.policy_names])
        arrays["labels"] = names[dataset.labels] if len(names) else dataset.labels
    with written_whole(path) as temporary, h5py.File(temporary, "w") as file:
        for name, array in arrays.items():
            file[name] = np.asarray(array)
        file[_PROVENANCE] = json.dumps(dataclasses.asdict(dataset.provenance))


def _stored_parameters(file: Any) -> dict[str, Any]:
    """The provenance's parameters, if `save_hdf5` wrote the file."""
    if _PROVENANCE not in file:
        return {}
    try:
        parameters = json.loads(file[_PROVENANCE][()])["parameters"]
        return {name: value for name, value in parameters.items() if name not in ("labels", "ends")}
    except (ValueError, TypeError, KeyError, AttributeError):
        raise DataError(f"{_PROVENANCE} is damaged: write the file again, or delete it there") from None


def _with_goals(file: Any) -> dict[str, np.ndarray]:
    """AntMaze's observations with the goal appended, if the file has it."""
    if "infos/goal" not in file:
        return {}
    goals = np.asarray(stored(file, "infos/goal"))
    fields, joined = fields_of(file), {}
    for name in ("observations", "next_observations"):
        if name in fields:
            observations = np.asarray(fields[name])
            if observations.ndim != 2 or goals.ndim != 2 or len(goals) != len(observations):
                raise DataError(
                    f"infos/goal is {list(goals.shape)}, but {name} {list(observations.shape)}: give [P, 2]"
                )
            joined[name] = np.concatenate([observations, goals.astype(observations.dtype)], axis=1)
    return joined


def files_of(path: str | os.PathLike, medium: str | os.PathLike | int | None = None) -> list[Path]:
    """The files that `load_hdf5` reads."""
    path = Path(path)
    return [path, *_siblings(path, "medium", "expert"), *([Path(medium)] if isinstance(medium, str) else [])]


def _siblings(path: Path, *names: str) -> list[Path]:
    """Those of D4RL's medium and expert files of a medium-expert file that are in its folder."""
    if not _PAIR.search(path.name):
        return []
    return [each for name in names if (each := path.with_name(_PAIR.sub(name, path.name))).is_file()]


def return_boundary(returns: np.ndarray) -> tuple[int, float]:
    """The boundary that leaves the least variance of returns `[N]` within its two sides, as the number of episodes
    before it, and the share of the variance that it explains.

    Raises:
        DataError: for a single episode.
    """
    if len(returns) < 2:
        raise DataError("holds one episode: medium and expert cannot be told apart")
    returns = np.asarray(returns, np.float64)
    sums = np.cumsum(returns)
    first = np.arange(1, len(returns))
    means = sums[:-1] / first, (sums[-1] - sums[:-1]) / (len(returns) - first)
    between = first * (len(returns) - first) * (means[1] - means[0]) ** 2 / len(returns)
    best = int(np.argmax(between))
    total = ((returns - returns.mean()) ** 2).sum()
    return best + 1, float(between[best] / total) if total > 0 else 0.0


def policy_log_likelihoods(trajectories: Trajectories, policies: Sequence[Any]) -> np.ndarray:
    """`[N, k]` float32: log-density of each trajectory's actions under policies with `log_prob(observations, actions)`.

    Observations are made dense for a few hundred trajectories at a time, which bounds the memory.
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


def _pair_labels(trajectories: Trajectories, medium: str | os.PathLike | int | None) -> tuple[np.ndarray | None, str]:
    """Labels of a medium-expert file, and how they were found; None where there is no clear boundary."""
    ends = np.cumsum(np.asarray(trajectories.lengths, np.int64))
    if medium is None:
        returns, how = np.asarray(trajectories.rewards).sum(1, dtype=np.float64), "returns (heuristic)"
        boundary, share = return_boundary(returns)
        clear = share >= _LEAST_SHARE and share * (len(ends) - 2) >= _LEAST_RATIO * (1 - share)
        if not clear or returns[boundary:].mean() <= returns[:boundary].mean():
            return None, f"none: returns show no boundary of medium and expert (the best explains {share:.0%} of them)"
    else:
        steps, how = medium, f"{medium} steps of medium (exact)"
        if not isinstance(medium, numbers.Integral):
            steps, how = _finished_steps(medium), f"the last episode end of {Path(medium).name} (exact)"
        boundary = int(np.searchsorted(ends, steps)) + 1
        if steps not in ends[:-1]:
            raise DataError(
                f"no episode ends after {steps} steps, the length of medium: is it the medium of this file?"
            )
    return (np.arange(len(ends)) >= boundary).astype(np.int32), how


def _finished_steps(medium: str | os.PathLike) -> int:
    """Steps of a D4RL file up to its last episode end."""
    path = Path(medium)
    if not path.exists():
        raise DataError(f"medium={str(medium)[:80]} is neither a number of steps nor a file: correct it")
    with located(path), opened(path) as file:
        fields = fields_of(file)
        terminated, cut, _ = episode_ends(fields, len(fields["observations"]) if "observations" in fields else 0)
        ends = np.flatnonzero(terminated | cut)
        if not len(ends):
            raise DataError("its flags mark no end of an episode")
        return int(ends[-1]) + 1


def _policy(path: Path, observation_size: int, action_size: int) -> "mujoco.GaussianPolicy | None":
    """The behaviour policy in a D4RL file, or None where it holds no weights.

    Raises:
        DataError: for weights that are not finite, or of shapes that fit neither each other nor the data.
    """
    sizes = {"last_fc": action_size, "last_fc_log_std": action_size}
    with located(path), opened(path) as file:
        group = file.get("metadata/policy")
        names = ("fc0", "fc1", *sizes)
        if group is None or any(f"{name}/{kind}" not in group for name in names for kind in ("weight", "bias")):
            return None
        weight, bias, inputs = [], [], observation_size
        for name in names:
            w, b = (np.asarray(stored(group, f"{name}/{kind}")) for kind in ("weight", "bias"))
            outputs = sizes.get(name, len(b) if b.ndim else 0)
            if w.shape != (outputs, inputs) or b.shape != (outputs,) or not outputs:
                raise DataError(
                    f"metadata/policy/{name} has weight {list(w.shape)} and bias {list(b.shape)}: give "
                    f"[{outputs}, {inputs}] and [{outputs}], or remove metadata/policy"
                )
            for kind, array in (("weight", w), ("bias", b)):
                if array.dtype.kind != "f" or not np.isfinite(array).all():
                    raise DataError(
                        f"metadata/policy/{name}/{kind} is not all finite floats: copy the file again, or remove "
                        "metadata/policy"
                    )
            weight.append(w.astype(np.float32).T)
            bias.append(b.astype(np.float32))
            inputs = inputs if name == "last_fc" else outputs
        weights = *weight[:2], np.concatenate(weight[2:], 1)
        return mujoco.GaussianPolicy(
            weights, (*bias[:2], np.concatenate(bias[2:])), np.ones(action_size, np.float32), _LOG_STD_BOUNDS
        )
