"""One function for every source of data."""

import json
from pathlib import Path
from typing import Any

from trajclust_jax.data.d4rl import load_hdf5
from trajclust_jax.data.minari_io import load_minari, minari_folder
from trajclust_jax.data.npz import load_npz
from trajclust_jax.data.registry import REGISTRY, make
from trajclust_jax.data.types import DataError, Dataset


def load(source: str) -> Dataset:
    """A dataset by registry name (`takeball` or `takeball:size=1000,seed=0`), file, or Minari folder or id.

    Raises:
        DataError: for a source that is none of these, or that its reader rejects.
    """
    source = str(source)
    name, _, options = source.partition(":")
    if name in REGISTRY:
        return make(name, **_options(source, options))
    if source.endswith(".npz"):
        return load_npz(source)
    if source.endswith((".hdf5", ".h5")):
        return load_hdf5(source)
    if minari_folder(source) is not None:
        return load_minari(source)
    what = "a folder without a Minari dataset" if Path(source).is_dir() else "unknown"
    raise DataError(
        f"{source!r} is {what}: give {', '.join(REGISTRY)} (with options such as takeball:size=1000,seed=0), "
        "a .npz or .hdf5 file, or a Minari folder or id (in MINARI_DATASETS_PATH)"
    )


def _options(source: str, text: str) -> dict[str, Any]:
    options = {}
    for item in filter(None, text.split(",")):
        key, _, value = item.partition("=")
        try:
            options[key] = json.loads(value)
        except ValueError:
            options[key] = None
        if key not in ("size", "seed") or type(options[key]) is not int:
            raise DataError(f"{source!r} has option {item!r}: give size and seed as whole numbers, size=1000,seed=0")
    return options
