"""Datasets from the PG-Kmeans paper's theory: graphs to colour (A.2, Algorithm 2) and an ambiguous bandit (A.3)."""

from collections.abc import Iterable
from typing import Literal

import numpy as np

from trajclust_jax.data.dataset import build_dataset
from trajclust_jax.data.types import Codebook, DataError, Dataset, Trajectories

StateRule = Literal["fresh", "printed"]


def colouring_dataset(
    edges: Iterable[tuple[int, int]], num_nodes: int | None = None, *, rule: StateRule = "fresh"
) -> Dataset:
    """One trajectory a node: those of two nodes conflict if and only if an edge joins them (Theorem A.2).

    So the assignments with D(W) = 0 (`clustering.conflict`) are the proper colourings, and clustering with K policies
    is K-colouring. There are no labels.

    Algorithm 2 gives edge (i, j), i < j, a state that is in neither trajectory yet, where i acts 0 and j acts 1.
    `printed` takes the smallest state that is not in t_i and not in t_j, to the letter. Such a state may already serve
    another edge (m, p), and then i conflicts with p and m with j, edges or not: the path 2-0-1-3 is 2-colourable, its
    dataset is not. `fresh` takes the smallest state that is in no trajectory: |E| states instead of the 2d that the
    paper states, and the reduction holds.

    Padding to the common horizon H = max(1, maximum degree) is one more state where everyone acts 0: no conflict.

    Args:
        edges: pairs of nodes, each edge once or more, in any direction.
        num_nodes: nodes are 0 to `num_nodes` - 1; by default up to the largest in `edges`.

    Raises:
        DataError: no nodes, an edge from a node to itself, a node out of range.
    """
    pairs = sorted({(min(edge), max(edge)) for edge in edges})
    num_nodes = max((j for _, j in pairs), default=-1) + 1 if num_nodes is None else num_nodes
    if num_nodes < 1:
        raise DataError(f"num_nodes is {num_nodes}: give at least one node")
    for i, j in pairs:
        if i == j or i < 0 or j >= num_nodes:
            raise DataError(f"edge ({i}, {j}): give two different nodes in 0..{num_nodes - 1}")
    steps: list[dict[int, int]] = [{} for _ in range(num_nodes)]  # t_i: state -> action
    for number, (i, j) in enumerate(pairs):  # in the order of Algorithm 2's two loops
        state = number
        if rule == "printed":
            state = next(s for s in range(number + 1) if s not in steps[i] and s not in steps[j])
        steps[i][state], steps[j][state] = 0, 1
    horizon = max(1, *(len(t) for t in steps))
    padding = len(pairs)
    ids, actions = np.full((num_nodes, horizon), padding, np.int32), np.zeros((num_nodes, horizon), np.int32)
    for node, t in enumerate(steps):
        ids[node, : len(t)], actions[node, : len(t)] = list(t.keys()), list(t.values())
    return build_dataset(
        _episodes(np.eye(padding + 1, dtype=np.uint8), ids, actions, np.full(num_nodes, padding, np.int32)),
        name="colouring",
        source="colouring",
        parameters={"edges": [list(pair) for pair in pairs], "num_nodes": num_nodes, "rule": rule},
    )


BANDIT_POLICIES = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.int32)  # [policy, state]: A.3's four policies, in order


def bandit_dataset(size: int = 1000, seed: int = 0, policies: tuple[int, int] = (0, 3)) -> Dataset:
    """A.3's contextual bandit: two equally likely states, two actions, one step; `size` trajectories a policy.

    Policies 0 and 3 together make all four possible trajectories, and so do policies 1 and 2. Grouped by action, or by
    whether state and action agree, the data form two clusters without a conflict, and the two clusterings are
    independent of each other. Labels are the policies that made the data; the data cannot tell them.

    Raises:
        DataError: a size below 1, policies other than two of the four.
    """
    if size < 1:
        raise DataError(f"size is {size}: at least 1 trajectory a policy is needed")
    if len(set(policies)) != 2 or not set(policies) <= set(range(4)):
        raise DataError(f"policies are {policies}: give two different ones of 0 to 3")
    states = np.random.default_rng(seed).integers(0, 2, (2 * size, 1)).astype(np.int32)
    tables = BANDIT_POLICIES[list(policies)]  # [2, state]
    labels = np.repeat(np.arange(2, dtype=np.int32), size)
    actions = tables[labels[:, None], states]
    with np.errstate(divide="ignore"):
        log_likelihoods = np.log((tables[:, states[:, 0]] == actions[:, 0]).T.astype(np.float32))
    return build_dataset(
        _episodes(np.eye(2, dtype=np.uint8), states, actions, states[:, 0]),
        labels,
        name="bandit",
        source="bandit",
        policy_names=tuple(f"policy {index + 1}" for index in policies),
        parameters={"size": size, "policies": list(policies)},
        seed=seed,
        true_log_likelihoods=log_likelihoods,
    )


def _episodes(table: np.ndarray, ids: np.ndarray, actions: np.ndarray, final_ids: np.ndarray) -> Trajectories:
    """Full-length episodes `[N, T]` of two actions without rewards."""
    return Trajectories(
        observations=Codebook(table, ids),
        actions=actions.astype(np.int32),
        rewards=np.zeros(ids.shape, np.float32),
        lengths=np.full(len(ids), ids.shape[1], np.int32),
        terminated=np.ones(len(ids), bool),
        final_observations=Codebook(table, final_ids),
        num_actions=2,
    )
