"""Figure 12 of the C^4 paper: CQL's clusters of gradient pairs over the training, in the plane.

    trajclust run c4/figure12 --preset cpu --datasets hopper-medium-expert

Beside the clusters, ours: the policies that made the transitions.
"""

from trajclust_experiments.papers.c4 import _views

TABLE = _views.over_training("c4/figure12", "Figure 12: CQL", "cql")
