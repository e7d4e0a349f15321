"""Merging clusters of an over-parameterised mixture (appendix B.4.2)."""

from typing import Literal

import jax
import jax.numpy as jnp

MergeRule = Literal["least_loss", "printed"]


def merge_clusters(
    scores: jax.Array, num_clusters: int, rule: MergeRule = "least_loss", active: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """Merges K clusters greedily down to `num_clusters` (unbatched): K - `num_clusters` times, among the `active` ones.

    `scores[j, i] = sum of log P(tau | theta_i) over cluster j's trajectories`, float32 `[K, K]`. Merging j into i
    discards policy j and loses `scores[j, j] - scores[j, i]` of the objective; `least_loss` takes the pair that
    loses least. `printed` is Algorithm 4 to the letter: the pair i != j with the SMALLEST
    `sum_{tau in D_j} log P(tau | theta_i)`. That sum is smallest for the worst fitting pair (and for large
    clusters), so that it merges what should stay apart: Takeball falls from .995 to about .55. It is kept, by
    name, to show that.

    Args:
        active: `[K]` bool, the clusters in use (all if None); the others take no part.

    Returns:
        target `[K]` int32 in 0..num_clusters-1, the new cluster of each old one, and kept `[num_clusters]` int32,
        the old cluster whose policy each new one keeps. With fewer active ones, targets are the first numbers and
        the rest of kept is 0.
    """
    size = scores.shape[0]

    def merge_one(_, carry):
        scores, active, target = carry
        pairs = active[:, None] & active[None, :] & ~jnp.eye(size, dtype=bool)
        loss = jnp.diagonal(scores)[:, None] - scores if rule == "least_loss" else scores
        source, into = jnp.divmod(jnp.argmin(jnp.where(pairs, loss, jnp.inf)), size)
        scores = scores.at[into].add(scores[source])
        return scores, active.at[source].set(False), jnp.where(target == source, into, target)

    carry = (scores, jnp.ones(size, bool) if active is None else active, jnp.arange(size))
    _, active, target = jax.lax.fori_loop(0, size - num_clusters, merge_one, carry)
    kept = jnp.flatnonzero(active, size=num_clusters).astype(jnp.int32)
    return (jnp.cumsum(active) - 1)[target].astype(jnp.int32), kept
