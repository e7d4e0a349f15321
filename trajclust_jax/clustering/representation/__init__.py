"""Clustering by representation: CAAE, DEC and VAE + k-means on one trajectory encoder and decoder.

Hu, Wang and Du, "Policy-Based Trajectory Clustering in Offline RL", Section 5.2 and appendix B.5. The encoder maps a
trajectory to a latent z; the decoder sees z and ONE observation and predicts its action, so that z is left with what
the observations do not tell: the policy.

    CAAE   autoencoder ("warmup"); codes by k-means; autoencoder + distance to the nearest code, codes learned ("main")
    DEC    autoencoder ("pretrain"); centroids by k-means; KL(sharpened || soft assignment) ("refine")
    VAE    variational autoencoder ("train"); k-means on posterior means ("cluster")

Everything is written for one seed; `training.fit` maps it over S seeds. An iteration is `steps` gradient steps. A
gradient step's trajectories are of similar length: they come from one bucket, drawn in proportion to its size by a
key that all seeds share, so that a step runs over that bucket's horizon and not over the longest trajectory's.

Long trajectories are seen through windows (`window`; ours): the encoder sees a random window, the decoder as many steps
from anywhere in the same trajectory. A latent that had to reconstruct its own window would encode its place in a
movement; what helps with other steps is the policy. A trajectory's latent is the mean over windows spread over it.
"""

from trajclust_jax.clustering.representation.caae import CAAE
from trajclust_jax.clustering.representation.dec import DEC
from trajclust_jax.clustering.representation.vae_kmeans import VAEKmeans

__all__ = ["CAAE", "DEC", "VAEKmeans"]
