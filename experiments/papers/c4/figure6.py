"""Figure 6 of the C^4 paper: TD3+BC with layer normalisation, DR3 and C^4 over the training.

    trajclust run c4/figure6 --preset cpu --datasets hopper-medium-expert

The cells are Table 1's.
"""

from trajclust_experiments.papers import c4

TABLE = c4.over_training("c4/figure6", "Figure 6: TD3+BC", "td3_bc")
