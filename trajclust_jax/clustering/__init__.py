"""Clustering methods."""

from trajclust_jax.clustering.behaviour_set import BehaviourSet
from trajclust_jax.clustering.cloning import Cloning
from trajclust_jax.clustering.clusterer import Clusterer
from trajclust_jax.clustering.empo import EmpoEM
from trajclust_jax.clustering.pg_kmeans import PGKmeans
from trajclust_jax.clustering.representation import CAAE, DEC, VAEKmeans
from trajclust_jax.clustering.sorl import Sorl
from trajclust_jax.clustering.suited import suited_method
from trajclust_jax.clustering.summary_kmeans import SummaryKmeans
from trajclust_jax.clustering.types import Clustering

__all__ = [
    "CAAE",
    "DEC",
    "BehaviourSet",
    "Cloning",
    "Clusterer",
    "Clustering",
    "EmpoEM",
    "PGKmeans",
    "Sorl",
    "SummaryKmeans",
    "VAEKmeans",
    "suited_method",
]
