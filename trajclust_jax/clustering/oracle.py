"""The oracle: Bayes assignment under the true policies, the ceiling of every clustering.

Experts can behave alike: nobody can tell which of them made a trajectory that several could have made.
"""

import numpy as np

from trajclust_jax.metrics import nmi


def bayes_assignment(
    log_likelihoods: np.ndarray, log_prior: np.ndarray | None = None, rng: np.random.Generator | None = None
) -> np.ndarray:
    """`[N]` int32: the likeliest policy of each trajectory.

    Args:
        log_likelihoods: `[N, k*]`, log P(actions | policy); -inf where the policy cannot have made them.
        log_prior: `[k*]` log-probabilities of the policies; uniform if None.
        rng: breaks ties at random; the first policy wins if None.
    """
    scores = np.asarray(log_likelihoods, np.float64) + (0.0 if log_prior is None else log_prior)
    if rng is None:
        return scores.argmax(1).astype(np.int32)
    tied = _tied(scores)
    return np.where(tied, rng.random(scores.shape), -1.0).argmax(1).astype(np.int32)


def oracle(labels: np.ndarray, log_likelihoods: np.ndarray, num_draws: int = 20, seed: int = 0) -> dict[str, float]:
    """NMI of the Bayes assignment, and its ties.

    Returns:
        nmi: with ties to the first index.
        nmi_random_ties: the mean over `num_draws` random ways to break them.
        tied: the share of trajectories that more than one policy explains best.
    """
    counts = np.bincount(labels, minlength=log_likelihoods.shape[1])
    with np.errstate(divide="ignore"):  # a policy without trajectories has prior 0
        log_prior = np.log(counts / counts.sum())
    rng = np.random.default_rng(seed)
    draws = [nmi(labels, bayes_assignment(log_likelihoods, log_prior, rng)) for _ in range(num_draws)]
    tied = _tied(np.asarray(log_likelihoods, np.float64) + log_prior)
    return {
        "nmi": nmi(labels, bayes_assignment(log_likelihoods, log_prior)),
        "nmi_random_ties": float(np.mean(draws)),
        "tied": float((tied.sum(1) > 1).mean()),
    }


def _tied(scores: np.ndarray) -> np.ndarray:
    """`[N, K]` bool: the best policies of each trajectory, equal up to float32 rounding of their sums."""
    best = scores.max(1, keepdims=True)
    with np.errstate(invalid="ignore"):  # -inf - -inf: not among the best unless all are -inf
        return (scores == best) | (best - scores <= 1e-5 * np.abs(best))
