"""The types that data travels in.

Axis alphabet, here and everywhere: S seeds, R restarts, K clusters, M = S*R*K ensemble members,
N trajectories, T time, B batch, A action size, U unique observations.

`Trajectories` is what an algorithm sees. `Dataset` adds what only scoring may see (labels, the true
policies' likelihoods) and what only people read (spec, provenance).
"""

import dataclasses
import hashlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct


class DataError(ValueError):
    """Bad input data. The message is one line: the field, the first bad index, what to do."""


@struct.dataclass
class Codebook:
    """Observations stored once each: `dense = table[ids]`."""

    table: jax.Array  # [U, ...]
    ids: jax.Array  # [N, T] (or [N] for final observations) int32


Observations = jax.Array | Codebook


@struct.dataclass
class Trajectories:
    """N padded trajectories: the only data that a clustering algorithm receives.

    Padded steps (t >= lengths[n]) never influence a result.
    """

    observations: Observations  # [N, T, ...]
    actions: jax.Array  # [N, T] int32, or [N, T, A] float32
    rewards: jax.Array  # [N, T] float32
    lengths: jax.Array  # [N] int32, at least 1
    terminated: jax.Array  # [N] bool: the last step ended by the MDP; else cut by a limit
    final_observations: Observations  # [N, ...], the successor of the last step
    num_actions: int = struct.field(pytree_node=False, default=0)  # discrete actions; 0 where continuous
    # [A][F]: the parts of each discrete action where it is a combination of F categories; (): a plain one
    action_parts: tuple[tuple[int, ...], ...] = struct.field(pytree_node=False, default=())

    @property
    def num_trajectories(self) -> int:
        return self.lengths.shape[0]

    @property
    def max_length(self) -> int:
        return self.rewards.shape[1]

    @property
    def discrete(self) -> bool:
        return self.num_actions > 0

    @property
    def action_size(self) -> int:
        """A: the number of discrete actions, or the dimension of a continuous one."""
        return self.num_actions if self.discrete else self.actions.shape[-1]

    @property
    def observation_shape(self) -> tuple[int, ...]:
        observations = self.observations
        if isinstance(observations, Codebook):
            return observations.table.shape[1:]
        return observations.shape[2:]

    @property
    def mask(self) -> jax.Array:
        """`[N, T]` bool: True on real steps."""
        return jnp.arange(self.max_length) < jnp.asarray(self.lengths)[:, None]


@struct.dataclass
class Transitions:
    """The flat view of `Trajectories`: P = lengths.sum() transitions, none across an episode's end."""

    observations: Observations  # [P, ...]
    actions: jax.Array  # [P] or [P, A]
    rewards: jax.Array  # [P]
    next_observations: Observations  # [P, ...]
    terminated: jax.Array  # [P] bool: bootstrap is cut here
    truncated: jax.Array  # [P] bool: a limit cut the episode here; bootstrap goes on
    trajectory: jax.Array  # [P] int32, the trajectory of each transition


@dataclasses.dataclass(frozen=True)
class Spec:
    """What the arrays mean."""

    name: str
    policy_names: tuple[str, ...] = ()  # names of the labels 0..k*-1, where known


@dataclasses.dataclass(frozen=True)
class Provenance:
    """Where a dataset comes from. `fingerprint` is the sha256 of its content, labels included."""

    source: str  # a registry name, or a file's name
    parameters: dict[str, Any] = dataclasses.field(default_factory=dict)  # JSON values
    seed: int | None = None
    fingerprint: str = ""


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Trajectories with the ground truth that scores them. Clusterers take `.trajectories` only."""

    trajectories: Trajectories
    labels: np.ndarray | None  # [N] int32 in 0..k*-1: the true policy
    spec: Spec
    provenance: Provenance
    true_log_likelihoods: np.ndarray | None = None  # [N, k*] float32: log P(actions | true policy), may be -inf

    @property
    def num_policies(self) -> int | None:
        """k*, or None without labels."""
        return None if self.labels is None else int(self.labels.max()) + 1

    @property
    def label_guess(self) -> str | None:
        """What the labels rest on where a reader guessed them; None where they are given or exact, or there are none.

        Readers say it in `provenance.parameters["labels"]`, which ends in "(exact)" where it is no guess.
        """
        how = self.provenance.parameters.get("labels")
        guessed = self.labels is not None and isinstance(how, str) and not how.endswith("(exact)")
        return how if guessed else None


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

    Raises:
        DataError: on anything `validate`, `validate_labels` or `validate_likelihoods` rejects.
    """
    from trajclust_jax.data.codebook import compress
    from trajclust_jax.data.validation import validate, validate_labels, validate_likelihoods

    validate(trajectories)
    if labels is not None:
        labels = validate_labels(labels, trajectories.num_trajectories)
    if true_log_likelihoods is not None:
        num_policies = None if labels is None else int(labels.max()) + 1
        validate_likelihoods(true_log_likelihoods, trajectories.num_trajectories, num_policies)
    trajectories = compress(trajectories)
    provenance = Provenance(source, dict(parameters or {}), seed, fingerprint(trajectories, labels))
    return Dataset(trajectories, labels, Spec(name, policy_names), provenance, true_log_likelihoods)


def subset(dataset: Dataset, rows: np.ndarray, parameters: dict[str, Any], seed: int | None = None) -> Dataset:
    """The trajectories `rows` of a dataset, in that order; `parameters` join its provenance's."""
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


def dense(observations: Observations) -> jax.Array:
    """The observations themselves: `table[ids]` for a codebook."""
    return observations.table[observations.ids] if isinstance(observations, Codebook) else observations


def apply(fn: Callable[[jax.Array], Any], observations: Observations, lead: int = 2) -> Any:
    """`fn` of every observation, evaluated once for each distinct one: on the table, then gathered by ids.

    `fn` maps `[batch, ...]` to a pytree of `[batch, ...]`. Dense observations have `lead` leading axes (2 for
    `[N, T, ...]`, 1 for transitions), which are flattened for `fn`; the result has them again.
    """
    if isinstance(observations, Codebook):
        return jax.tree.map(lambda x: x[observations.ids], fn(observations.table))
    shape = observations.shape[:lead]
    out = fn(observations.reshape(-1, *observations.shape[lead:]))
    return jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:]), out)


def returns(trajectories: Trajectories) -> np.ndarray:
    """`[N]` float64: each trajectory's sum of rewards (host-side)."""
    return np.where(np.asarray(trajectories.mask), np.asarray(trajectories.rewards, np.float64), 0).sum(1)


def transitions(trajectories: Trajectories) -> Transitions:
    """The flat transition view (host-side; NumPy arrays)."""
    mask = np.asarray(trajectories.mask)
    n, t = np.nonzero(mask)
    lengths = np.asarray(trajectories.lengths)
    last = t == lengths[n] - 1
    terminated = last & np.asarray(trajectories.terminated)[n]

    def successors(steps, final):
        steps, final = np.asarray(steps), np.asarray(final)
        following = steps[n, np.minimum(t + 1, mask.shape[1] - 1)]
        return np.where(last.reshape(-1, *[1] * (following.ndim - 1)), final[n], following)

    observations, final = trajectories.observations, trajectories.final_observations
    if isinstance(observations, Codebook):
        flat = Codebook(observations.table, np.asarray(observations.ids)[n, t])
        following = Codebook(observations.table, successors(observations.ids, final.ids))
    else:
        flat, following = np.asarray(observations)[n, t], successors(observations, final)
    return Transitions(
        observations=flat,
        actions=np.asarray(trajectories.actions)[n, t],
        rewards=np.asarray(trajectories.rewards)[n, t],
        next_observations=following,
        terminated=terminated,
        truncated=last & ~terminated,
        trajectory=n.astype(np.int32),
    )


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
