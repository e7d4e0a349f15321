"""Figure 13 of the C^4 paper: TD3+BC's clusters of gradient pairs over the training, in the plane.

    trajclust run c4/figure13 --preset cpu --datasets hopper-medium-expert

Beside the clusters, ours: the policies that made the transitions.
"""

from trajclust_experiments.papers.c4 import _views

TABLE = _views.over_training("c4/figure13", "Figure 13: TD3+BC", "td3_bc")
