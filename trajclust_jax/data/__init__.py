from trajclust_jax.data.registry import REGISTRY, make
from trajclust_jax.data.types import *
from trajclust_jax.data.types import Codebook, Trajectories, DataError
