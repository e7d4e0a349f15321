"""Clustering methods."""

from trajclust_jax.clustering.policy_mixture import PGKmeans
from trajclust_jax.clustering.sorl import Sorl
from trajclust_jax.clustering.types import Clustering

__all__ = ["Clustering", "PGKmeans", "Sorl"]
