"""The policy classes of a mixture: how a cluster's policy is trained (M-step) and how it scores (E-step).

They share one interface, so that the EM loop in `mixture` is written once:

    check(trajectories)                               ValueError for data that the class can't model
    prepare(trajectories, num_members) -> data        host-side, once
    init(key, data) -> Member                         one member, unbatched
    fit(members, assignments, data, key, num_steps, decay)   M-step of one restart's K members
    scorer(params, data) -> (chunk -> [R, K, n])      E-step on one chunk of trajectories

A family is a module: `counted` (Markov, discrete actions over a codebook: exact sums of counts), `markov` (any other
Markov policy: minibatches of transitions), `history` (a GRU over the observations so far: minibatches of trajectories),
`maps` (observations that are maps).

The learning rate of an M-step's gradient steps falls linearly to `1 - decay` of itself.
An M-step's `assignments` are hard, `[N']` int32 (K itself: in no cluster, not trained on), or soft, `[N', K]` float32:
how much each trajectory counts in each cluster. An E-step sums log-probabilities over steps; `scorer(params, data, of)`
sums `of(log_prob)` instead.

Trajectories are held in order of length, in C chunks of n, so that the memory of an E-step is bounded by
`memory_budget`, not by N. Counted and history policies run a chunk up to its own longest trajectory.
"""

from typing import Any, Literal

from trajclust_jax.clustering.policies.counted import CountedData, CountedPolicy, TabularPolicy, is_countable
from trajclust_jax.clustering.policies.data import Chunks, CodedData, DenseData, MixtureData, StepData
from trajclust_jax.clustering.policies.history import HistoryPolicy
from trajclust_jax.clustering.policies.maps import HistoryMapPolicy, MarkovMapPolicy, PlanningPolicy
from trajclust_jax.clustering.policies.markov import TransitionPolicy, at_position
from trajclust_jax.clustering.policies.member import Member, harden, is_hard, membership
from trajclust_jax.clustering.policies.network import NetworkPolicy, draw
from trajclust_jax.data import Trajectories

PolicyKind = Literal["tabular", "mlp", "gru", "planner"]


def policy_for(kind: PolicyKind, trajectories: Trajectories, **settings: Any) -> Any:
    """The policy class for `kind` on this data.

    An MLP on a codebook with discrete actions is scored and trained through its sufficient statistics. With a setting
    `extractor`, "mlp" and "gru" see features of the map where the agent is.

    Raises:
        ValueError: for an extractor with a kind that cannot use one.
    """
    if "extractor" in settings:
        classes = {"mlp": MarkovMapPolicy, "gru": HistoryMapPolicy}
    else:
        counted = CountedPolicy if is_countable(trajectories) else TransitionPolicy
        classes = {"tabular": TabularPolicy, "mlp": counted, "gru": HistoryPolicy, "planner": PlanningPolicy}
    if kind not in classes:
        raise ValueError(f"an extractor serves {' and '.join(classes)} policies, not {kind}")
    return classes[kind](**settings)


__all__ = [
    "Chunks",
    "CodedData",
    "CountedData",
    "CountedPolicy",
    "DenseData",
    "HistoryMapPolicy",
    "HistoryPolicy",
    "MarkovMapPolicy",
    "Member",
    "MixtureData",
    "NetworkPolicy",
    "PlanningPolicy",
    "PolicyKind",
    "StepData",
    "TabularPolicy",
    "TransitionPolicy",
    "at_position",
    "draw",
    "harden",
    "is_countable",
    "is_hard",
    "membership",
    "policy_for",
]
