"""The types that data travels in.

Axis alphabet, here and everywhere: S seeds, R restarts, K clusters, M = S*R*K ensemble members,
N trajectories, T time, B batch, A action size, U unique observations.

`Trajectories` is what an algorithm sees. `Dataset` adds what only scoring may see (labels, the true
policies' likelihoods) and what only people read (spec, provenance).
"""

import dataclasses
import itertools
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
    terminated: jax.Array  # [N] bool: the MDP ended the episode; else a limit cut it
    final_observations: Observations  # [N, ...], the successor of the last step
    num_actions: int = struct.field(pytree_node=False, default=0)  # number of discrete actions; 0: continuous
    # [A][F]: the categories that each discrete action combines, one from each of F parts; (): each is its own number
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
    policy_names: tuple[str, ...] = ()  # names of the labels 0..k*-1, where known; a second `a` becomes `a (2)`

    def __post_init__(self) -> None:
        names: list[str] = []  # unique, since files and tables tell policies apart by them
        for name in self.policy_names:
            others = (f"{name} ({count})" for count in itertools.count(2))
            free = (other for other in others if other not in {*names, *self.policy_names})
            names.append(next(free) if name in names else name)
        object.__setattr__(self, "policy_names", tuple(names))


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
        """How a reader guessed the labels; None if they are given or exact, or if there are none.

        Readers note it in `provenance.parameters["labels"]`, which ends in "(exact)" where nothing was guessed.
        """
        how = self.provenance.parameters.get("labels")
        guessed = self.labels is not None and isinstance(how, str) and not how.endswith("(exact)")
        return how if guessed else None


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
