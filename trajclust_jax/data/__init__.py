"""Trajectory data: types, readers, writers and registered datasets."""

from trajclust_jax.data.codebook import compress
from trajclust_jax.data.d4rl import load_hdf5, save_hdf5
from trajclust_jax.data.dataset import (
    build_dataset,
    fingerprint,
    offsets_of,
    rebased,
    reduced,
    returns,
    steps_fingerprint,
    subset,
    transitions,
)
from trajclust_jax.data.episodes import from_episodes, split_episodes
from trajclust_jax.data.inspection import ill_scaled, other_units, suspicious
from trajclust_jax.data.loading import load
from trajclust_jax.data.minari_io import check_minari_target, load_minari, save_minari
from trajclust_jax.data.npz import load_npz, save_npz, stated_by
from trajclust_jax.data.registry import REGISTRY, make
from trajclust_jax.data.synthetic import bandit_dataset, colouring_dataset
from trajclust_jax.data.types import (
    Codebook,
    DataError,
    Dataset,
    Observations,
    Provenance,
    Spec,
    Trajectories,
    Transitions,
    apply,
    dense,
)
from trajclust_jax.data.validation import check_seed, validate, validate_labels

__all__ = [
    "REGISTRY",
    "Codebook",
    "DataError",
    "Dataset",
    "Observations",
    "Provenance",
    "Spec",
    "Trajectories",
    "Transitions",
    "apply",
    "bandit_dataset",
    "build_dataset",
    "check_minari_target",
    "check_seed",
    "colouring_dataset",
    "compress",
    "dense",
    "fingerprint",
    "from_episodes",
    "ill_scaled",
    "load",
    "load_hdf5",
    "load_minari",
    "load_npz",
    "make",
    "offsets_of",
    "other_units",
    "rebased",
    "reduced",
    "returns",
    "save_hdf5",
    "save_minari",
    "save_npz",
    "split_episodes",
    "stated_by",
    "steps_fingerprint",
    "subset",
    "suspicious",
    "transitions",
    "validate",
    "validate_labels",
]
