"""Figure 5 of the C^4 paper: CQL with layer normalisation, DR3 and C^4 over the training.

    trajclust run c4/figure5 --preset cpu --datasets hopper-medium-expert

The cells are Table 1's.
"""

from trajclust_experiments.papers import c4

TABLE = c4.over_training("c4/figure5", "Figure 5: CQL", "cql")
