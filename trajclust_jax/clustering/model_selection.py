"""How many policies? Choosing K without labels.

PG-Kmeans runs for every K of a range at once: the range is one more axis beside seeds and restarts. All runs hold as
many policies as the largest K, and a run for K uses the first K. Each seed holds out a random fifth of the
trajectories. Two criteria are computed from the same runs, in nats a step, higher is better:

- `held_out`: the log-likelihood of the held-out trajectories and their clusters,
  sum over n of max_k [log w_k + log P(tau_n | theta_k)], w the clusters' shares of the training data. J alone
  (Eq. 3, reported beside it) cannot choose: a trajectory takes the best of K policies, so that J hardly stops growing
  with K. The first term charges for the choice, as a code would have to (the classification likelihood of Biernacki and
  Govaert, 1997): splitting a cluster of n trajectories in two costs up to n log 2, which a better fit must outweigh.
- `integrated`: the integrated complete-data likelihood (Biernacki, Celeux and Govaert, 2010) of the clustering of all
  trajectories, exact for tabular policies with Jeffreys priors (1/2 for every action and every cluster):
  log of P(actions, clusters | policies, shares) integrated over both. BIC approximates it for many steps at every
  observation, but most observations are rare. It needs discrete actions over a codebook; the clusters that networks
  found are scored by tables all the same.

The rules: by `integrated`, the run with the highest value; by `held_out`, of the runs within one standard error of the
highest (Breiman et al., 1984; of the difference, over held-out trajectories), the one with the fewest clusters. Only
clusters that a run uses count: a run for K = 7 that leaves two empty has found five. Either way it is the K that the
data support: trajectories that several policies could have made may belong to any of them, and experts that behave
alike are one.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from trajclust_jax.clustering.mixture import Prepared, State
from trajclust_jax.clustering.pg_kmeans import PGKmeans
from trajclust_jax.clustering.policies import PolicyKind
from trajclust_jax.clustering.preprocessing import Preprocessing
from trajclust_jax.clustering.types import Clustering
from trajclust_jax.data import Codebook, Trajectories
from trajclust_jax.lazy import lazy
from trajclust_jax.networks import member_keys
from trajclust_jax.training import Info, Phase, fit
from trajclust_jax.validation import check_inner_share

special = lazy("scipy.special")

Criterion = Literal["held_out", "integrated"]
PRIOR = 0.5  # Jeffreys: pseudo-counts of every action and of every cluster


@struct.dataclass
class RangeState:
    """State of one seed: G runs of PG-Kmeans, one for each K."""

    runs: State  # [G, R, ...]
    trained: jax.Array  # [N'] bool: the others are held out
    converged: jax.Array  # [] bool


@struct.dataclass
class RangeResult:
    """Clusterings for every K, trained without the held-out trajectories, which are assigned nevertheless."""

    clusterings: Clustering  # [G, ...]; clusters beyond K have log-likelihood -inf and posterior 0
    trained: jax.Array  # [N] bool


@dataclasses.dataclass(frozen=True)
class PGKmeansRange(PGKmeans):
    """PG-Kmeans for every K in `counts`, `num_clusters` being the largest, in one program."""

    counts: tuple[int, ...] = ()
    """The numbers of clusters to try, G of them, increasing."""
    held_out: float = 0.2
    """The share of trajectories that no policy is trained on."""

    @classmethod
    def over(cls, counts: Sequence[int], policy: PolicyKind = "tabular", **overrides: Any) -> "PGKmeansRange":
        """The settings that work for a policy class, for these numbers of clusters."""
        counts = tuple(int(k) for k in counts)
        return cls.default(max(counts), policy, counts=counts, **overrides)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.counts or list(self.counts) != sorted(set(self.counts)) or self.counts[0] < 1:
            raise ValueError(f"counts is {self.counts}: give increasing numbers from 1")
        if self.counts[-1] != self.num_clusters:
            raise ValueError(f"num_clusters is {self.num_clusters}: it must be the last of counts {self.counts}")
        check_inner_share(self, "held_out")

    def prepare(
        self, trajectories: Trajectories, num_seeds: int = 1, preprocessing: Preprocessing | None = None
    ) -> Prepared:
        """PG-Kmeans' data; its chunks are cut for all members of the range."""
        if self.num_held_out(trajectories.num_trajectories) == trajectories.num_trajectories:
            raise ValueError("one trajectory cannot be split in two: give at least 2")
        return super().prepare(trajectories, num_seeds * len(self.counts), preprocessing)

    def num_held_out(self, num_trajectories: int) -> int:
        """How many trajectories are held out, at least one."""
        return max(1, round(self.held_out * num_trajectories))

    def phases(self) -> tuple[Phase, ...]:
        """PG-Kmeans' phases, each over the range."""
        return tuple(
            phase._replace(start=self._start_range(phase.start), step=phase.step and self._step_range(phase.step))
            for phase in super().phases()
        )

    def result(self, state: RangeState, prepared: Prepared) -> RangeResult:
        """The best restart for every K."""
        one = lambda prepared, run: PGKmeans.result(self, run, prepared)
        clusterings = self._over_range(one, prepared, state.trained, state.runs)
        return RangeResult(clusterings, state.trained[prepared.data.rank])

    def _start_range(self, start: Callable) -> Callable:
        def over_range(key: jax.Array, prepared: Prepared, previous: RangeState | None) -> tuple[RangeState, Info]:
            key, key_split = jax.random.split(key)
            trained = self._split(key_split, prepared) if previous is None else previous.trained
            one = lambda prepared, key, previous: start(key, prepared, previous)
            keys, runs = member_keys(key, len(self.counts)), None if previous is None else previous.runs
            runs, info = self._over_range(one, prepared, trained, keys, runs)
            return RangeState(runs, trained, jnp.bool_(False)), info

        return over_range

    def _step_range(self, step: Callable) -> Callable:
        def over_range(state: RangeState, prepared: Prepared, iteration: jax.Array) -> tuple[RangeState, Info]:
            one = lambda prepared, run: step(run, prepared, iteration)
            runs, info = self._over_range(one, prepared, state.trained, state.runs)
            return RangeState(runs, state.trained, runs.converged.all()), info

        return over_range

    def _over_range(self, fn: Callable, prepared: Prepared, trained: jax.Array, *args: Any) -> Any:
        """`fn(prepared, *args)` for every K: `args` have a leading axis [G]."""
        data = prepared.data
        data = data.replace(num_steps=jnp.where(trained, data.lengths, 0).sum().astype(jnp.float32))
        one = lambda unused, *args: fn(Prepared(data, prepared.policies, unused, trained), *args)
        return jax.vmap(one)(jnp.array([self.num_clusters - k for k in self.counts]), *args)

    def _split(self, key: jax.Array, prepared: Prepared) -> jax.Array:
        """`[N']` bool: who is trained on; drawn in the dataset's order, the key is consumed."""
        data = prepared.data
        held_out = jax.random.permutation(key, data.num_trajectories)[: self.num_held_out(data.num_trajectories)]
        trained = jnp.ones(data.num_trajectories, bool).at[held_out].set(False)
        return data.slots(trained)


@dataclasses.dataclass(frozen=True)
class Selection:
    """The outcome of `select_num_clusters`: `[S, G]` over seeds and numbers of clusters, in nats a step."""

    counts: tuple[int, ...]  # G of them
    seeds: tuple[int, ...]
    held_out: np.ndarray  # log-likelihood of held-out trajectories and their clusters
    held_out_error: np.ndarray  # the standard error of its difference to the highest; 0 there
    integrated: np.ndarray | None  # log-likelihood of all, policies integrated out; None where there is no codebook
    objective: np.ndarray  # J of Eq. 3 on the held-out trajectories
    train_objective: np.ndarray  # J on the others
    used_clusters: np.ndarray  # not empty, of all trajectories
    clusterings: Clustering  # [S, G, ...]
    run_seconds: float
    compile_seconds: float

    def chosen(self, criterion: Criterion = "held_out") -> np.ndarray:
        """`[S]`: the fewest clusters that a run with the highest criterion uses (`held_out`: within one standard
        error)."""
        values = getattr(self, criterion)
        error = self.held_out_error if criterion == "held_out" else 0.0
        best = values >= values.max(1, keepdims=True) - error
        return np.where(best, self.used_clusters, max(self.counts)).min(1)

    def to_dict(self) -> dict[str, Any]:
        """All but the clusterings, for a record."""
        fields = {name: value for name, value in vars(self).items() if name != "clusterings"}
        names = [name for name in ("held_out", "integrated") if fields[name] is not None]
        return {**fields, "chosen": {name: self.chosen(name) for name in names}}


def select_num_clusters(
    method: PGKmeansRange, trajectories: Trajectories, seeds: Sequence[int] | int = 5, **fit_settings: Any
) -> Selection:
    """Runs PG-Kmeans for every number of clusters and scores the runs without labels.

    Args:
        method: the numbers of clusters to try, the share to hold out, and PG-Kmeans' settings.
        trajectories: the data.
        seeds: the seeds, or their number; each has its own split.
        fit_settings: of `training.fit`: callbacks, checkpoints.
    """
    counts = method.counts
    outcome = fit(method, trajectories, seeds, **fit_settings)
    result = jax.tree.map(np.asarray, outcome.result)
    lengths = np.asarray(trajectories.lengths)
    score = _tabular_score(trajectories)
    rows = []
    for s in range(len(outcome.seeds)):
        codes = []  # for each K, log-likelihoods of held-out trajectories and their clusters
        for g, k in enumerate(counts):
            assignments = result.clusterings.assignments[s, g]
            log_likelihoods = result.clusterings.log_likelihoods[s, g, :, :k].astype(np.float64)
            trained = result.trained[s]
            sizes = np.bincount(assignments[trained], minlength=k)
            log_shares = np.log((sizes + PRIOR) / (sizes.sum() + k * PRIOR))
            test, test_steps = log_likelihoods[~trained], lengths[~trained].sum()
            codes.append((test + log_shares).max(1))
            rows.append(
                {
                    "held_out": codes[-1].sum() / test_steps,
                    "integrated": score(assignments, k) / lengths.sum() if score else np.nan,
                    "objective": test.max(1).sum() / test_steps,
                    "train_objective": log_likelihoods[trained].max(1).sum() / lengths[trained].sum(),
                    "used_clusters": len(np.unique(assignments)),
                }
            )
        behind = max(codes, key=np.sum) - codes  # [G, held out]
        for row, difference in zip(rows[-len(counts) :], behind, strict=True):
            row["held_out_error"] = difference.std() * np.sqrt(len(difference)) / test_steps
    table = {name: np.array([row[name] for row in rows]).reshape(-1, len(counts)) for name in rows[0]}
    if score is None:
        table["integrated"] = None
    return Selection(
        counts=counts,
        seeds=outcome.seeds,
        **table,
        clusterings=result.clusterings,
        run_seconds=outcome.run_seconds,
        compile_seconds=outcome.compile_seconds,
    )


def _tabular_score(trajectories: Trajectories) -> Callable[[np.ndarray, int], float] | None:
    """`score(assignments, K)`: log P(actions, clusters), everything else integrated out; None without a codebook."""
    if not (trajectories.discrete and isinstance(trajectories.observations, Codebook)):
        return None
    who, when = np.nonzero(np.asarray(trajectories.mask))
    ids, actions = (np.asarray(x)[who, when] for x in (trajectories.observations.ids, trajectories.actions))
    num_observations, num_actions = len(trajectories.observations.table), trajectories.num_actions
    cells = ids.astype(np.int64) * num_actions + actions

    def score(assignments: np.ndarray, num_clusters: int) -> float:
        shape = (num_clusters * num_observations, num_actions)
        counts = np.bincount(assignments[who] * (num_observations * num_actions) + cells, minlength=np.prod(shape))
        sizes = np.bincount(assignments, minlength=num_clusters)
        return _dirichlet_multinomial(counts.reshape(shape)) + _dirichlet_multinomial(sizes[None])

    return score


def _dirichlet_multinomial(counts: np.ndarray) -> float:
    """Log-probability of sequences with these counts `[rows, categories]`, each row's probabilities integrated out."""
    total, categories = counts.sum(1), counts.shape[1]
    rows = special.gammaln(categories * PRIOR) - special.gammaln(total + categories * PRIOR)
    return float(rows.sum() + (special.gammaln(counts + PRIOR) - special.gammaln(PRIOR)).sum())
