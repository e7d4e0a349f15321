"""Datasets: how they are made and cut, their returns and transitions, and the fingerprint of their content."""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from trajclust_jax.data.codebook import compress
from trajclust_jax.data.types import Codebook, DataError, Dataset, Provenance, Spec, Trajectories, Transitions
from trajclust_jax.data.validation import check_seed, validate, validate_labels, validate_likelihoods

OFFSETS = ("observation_offsets", "action_offsets")  # in a provenance's parameters: by a column's number


def build_dataset(
    trajectories: Trajectories,
    labels: Any = None,
    *,
    name: str,
    source: str,
    policy_names: tuple[str, ...] = (),
    parameters: dict[str, Any] | None = None,
    seed: int | None = None,
    true_log_likelihoods: np.ndarray | None = None,
) -> Dataset:
    """Validates, compresses repeated observations to a codebook and fingerprints.

    Names of policies are those of the labels that are there, in their order, or of all integers up to the largest.

    Raises:
        DataError: on anything `validate`, `validate_labels` or `validate_likelihoods` rejects.
    """
    validate(trajectories)
    if labels is not None:
        given = np.asarray(labels)
        labels = validate_labels(given, trajectories.num_trajectories)
        present = np.unique(given) if given.dtype.kind in "iu" else given[:0]
        if len(present) and len(policy_names) > present[-1]:  # labels are numbered anew without gaps
            policy_names = tuple(policy_names[label] for label in present)
    if true_log_likelihoods is not None:
        num_policies = None if labels is None else int(labels.max()) + 1
        validate_likelihoods(true_log_likelihoods, trajectories.num_trajectories, num_policies)
    trajectories = compress(trajectories)
    provenance = Provenance(source, dict(parameters or {}), seed, fingerprint(trajectories, labels))
    return Dataset(trajectories, labels, Spec(name, policy_names), provenance, true_log_likelihoods)


def subset(dataset: Dataset, rows: np.ndarray, parameters: dict[str, Any], seed: int | None = None) -> Dataset:
    """The trajectories `rows` of a dataset, in that order; `parameters` are added to those of its provenance."""
    trajectories = dataset.trajectories
    coded = isinstance(trajectories.observations, Codebook)

    def take(observations):
        return observations.replace(ids=np.asarray(observations.ids)[rows]) if coded else np.asarray(observations)[rows]

    fields = {
        name: np.asarray(getattr(trajectories, name))[rows] for name in ("actions", "rewards", "lengths", "terminated")
    }
    likelihoods = dataset.true_log_likelihoods
    return build_dataset(
        trajectories.replace(
            observations=take(trajectories.observations),
            final_observations=take(trajectories.final_observations),
            **fields,
        ),
        None if dataset.labels is None else dataset.labels[rows],
        name=dataset.spec.name,
        source=dataset.provenance.source,
        policy_names=dataset.spec.policy_names,
        parameters={**dataset.provenance.parameters, **parameters},
        seed=seed,
        true_log_likelihoods=None if likelihoods is None else likelihoods[rows],
    )


def reduced(dataset: Dataset, transitions: int, seed: int) -> Dataset:
    """At least `transitions` transitions of a dataset: whole trajectories, drawn by the seed until there are enough.

    The indices of those drawn are in the provenance ("reduced"). A larger draw by the same seed contains a smaller one.
    The result keeps the dataset's order.

    Raises:
        DataError: for fewer than 1 transition, more than there are, or a seed out of range.
    """
    lengths = np.asarray(dataset.trajectories.lengths)
    if not 1 <= transitions <= lengths.sum():
        raise DataError(f"transitions is {transitions}: give 1 to {lengths.sum()}, which {dataset.spec.name} has")
    check_seed(seed, "draw")
    order = np.random.default_rng(seed).permutation(len(lengths))
    count = int(np.searchsorted(np.cumsum(lengths[order]), transitions)) + 1
    rows = np.sort(order[:count])
    drawn = {"transitions": int(lengths[rows].sum()), "draw": seed, "trajectories": rows.tolist()}
    return subset(dataset, rows, {"reduced": drawn}, dataset.provenance.seed)


def offsets_of(dataset: Dataset) -> dict[str, dict[str, float]]:
    """What its columns were read less, of those that 32 bits would round away; by kind and column number."""
    return {name: dataset.provenance.parameters[name] for name in OFFSETS if name in dataset.provenance.parameters}


def rebased(dataset: Dataset, offsets: Mapping[str, Mapping[str, float]]) -> Trajectories:
    """The dataset's trajectories as if its columns had been read less `offsets`, those of another dataset (host-side).

    Args:
        offsets: as `offsets_of` gives them.
    """
    trajectories, own = dataset.trajectories, offsets_of(dataset)

    def moved(values: Any, name: str) -> Any:
        if isinstance(values, Codebook):
            return Codebook(moved(values.table, name), values.ids)
        here, there = own.get(name, {}), offsets.get(name, {})
        change = {int(c): here.get(c, 0) - there.get(c, 0) for c in {*here, *there}}
        change = {column: by for column, by in change.items() if by}
        if not change:
            return values
        size = trajectories.action_size if name == "action_offsets" else int(np.prod(trajectories.observation_shape))
        flat = np.array(values, np.result_type(values, np.float32)).reshape(-1, size)
        for column, by in change.items():
            flat[:, column] = flat[:, column].astype(np.float64) + by
        return flat.astype(np.float32).reshape(np.shape(values))

    observations, actions = OFFSETS
    return trajectories.replace(
        observations=moved(trajectories.observations, observations),
        final_observations=moved(trajectories.final_observations, observations),
        actions=moved(trajectories.actions, actions),
    )


def returns(trajectories: Trajectories) -> np.ndarray:
    """`[N]` float64: each trajectory's sum of rewards (host-side)."""
    return np.where(np.asarray(trajectories.mask), np.asarray(trajectories.rewards, np.float64), 0).sum(1)


def spread_of_returns(trajectories: Trajectories) -> float:
    """By how much the best return exceeds the worst (host-side).

    0 where that may be the rounding of rewards to float32, such as of 1 / T at each of T steps.
    """
    size = np.where(np.asarray(trajectories.mask), np.abs(np.asarray(trajectories.rewards, np.float64)), 0).sum(1).max()
    spread = float(np.ptp(returns(trajectories)))
    return spread if spread > np.finfo(np.float32).eps * size else 0.0


def transitions(trajectories: Trajectories) -> Transitions:
    """The flat transition view (host-side; NumPy arrays)."""
    mask = np.asarray(trajectories.mask)
    n, t = np.nonzero(mask)
    lengths = np.asarray(trajectories.lengths)
    last = t == lengths[n] - 1
    terminated = last & np.asarray(trajectories.terminated)[n]

    def successors(steps, final):
        steps, final = np.asarray(steps), np.asarray(final)
        next_observations = steps[n, np.minimum(t + 1, mask.shape[1] - 1)]
        return np.where(last.reshape(-1, *[1] * (next_observations.ndim - 1)), final[n], next_observations)

    observations, final = trajectories.observations, trajectories.final_observations
    if isinstance(observations, Codebook):
        flat = Codebook(observations.table, np.asarray(observations.ids)[n, t])
        next_observations = Codebook(observations.table, successors(observations.ids, final.ids))
    else:
        flat, next_observations = np.asarray(observations)[n, t], successors(observations, final)
    return Transitions(
        observations=flat,
        actions=np.asarray(trajectories.actions)[n, t],
        rewards=np.asarray(trajectories.rewards)[n, t],
        next_observations=next_observations,
        terminated=terminated,
        truncated=last & ~terminated,
        trajectory=n.astype(np.int32),
    )


def steps_fingerprint(trajectories: Trajectories) -> str:
    """`fingerprint` whatever rewards and labels are given."""
    return fingerprint(trajectories.replace(rewards=np.zeros(np.shape(trajectories.rewards), np.float32)))


def fingerprint(trajectories: Trajectories, labels: np.ndarray | None = None) -> str:
    """sha256 (hex) of the real steps and the labels; padding and a codebook's row order do not enter."""
    mask = np.arange(trajectories.max_length) < np.asarray(trajectories.lengths)[:, None]
    full = mask.all(1)
    digest = hashlib.sha256()

    def add(name, array):
        array = np.ascontiguousarray(array)
        digest.update(f"{name} {array.dtype.str} {array.shape};".encode())
        digest.update(array.data if array.size else b"")

    def add_steps(name, array):  # the bytes of `array[mask]`, without a copy of what may fill most of the memory
        array = np.asarray(array)
        digest.update(f"{name} {array.dtype.str} {(int(mask.sum()), *array.shape[2:])};".encode())
        for start in range(0, len(array), 64):
            rows = slice(start, start + 64)
            digest.update(np.ascontiguousarray(array[rows] if full[rows].all() else array[rows][mask[rows]]))

    observations, final = trajectories.observations, trajectories.final_observations
    if isinstance(observations, Codebook):
        ids = np.concatenate([np.asarray(observations.ids)[mask], np.asarray(final.ids)])
        _, first, inverse = np.unique(ids, return_index=True, return_inverse=True)
        order = np.argsort(first)  # rows numbered by first appearance
        add("table", np.asarray(observations.table)[ids[first[order]]])
        add("ids", np.argsort(order)[inverse].astype(np.int32))
    else:
        add_steps("observations", observations)
        add("final_observations", np.asarray(final))
    add_steps("actions", trajectories.actions)
    add_steps("rewards", trajectories.rewards)
    add("lengths", np.asarray(trajectories.lengths))
    add("terminated", np.asarray(trajectories.terminated))
    add("labels", np.zeros(0, np.int32) if labels is None else labels)
    digest.update(str(trajectories.num_actions).encode())
    if trajectories.action_parts:
        add("action_parts", np.asarray(trajectories.action_parts, np.int64))
    return digest.hexdigest()
