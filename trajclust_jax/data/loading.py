"""One function for every source of data."""

import json
from pathlib import Path
from typing import Any

from trajclust_jax.data.cache import cached
from trajclust_jax.data.d4rl import files_of, load_hdf5
from trajclust_jax.data.files import check_name
from trajclust_jax.data.minari_io import load_minari, minari_folder
from trajclust_jax.data.npz import load_npz
from trajclust_jax.data.registry import REGISTRY, make
from trajclust_jax.data.types import DataError, Dataset
from trajclust_jax.data.validation import located


def load(source: str) -> Dataset:
    """A dataset by registry name (`takeball` or `takeball:size=1000,seed=0`), file, or Minari folder or id.

    `FILE.hdf5:medium=OTHER` gives D4RL's medium file, or its number of steps, for exact labels of a medium-expert file.
    `ID + ID` mixes Minari datasets. Large files are kept as .npz in the cache folder (`TRAJCLUST_CACHE`, by default
    `~/.cache/trajclust`; nowhere if it is empty or there is no home folder), under a fingerprint of their paths, sizes
    and times, and read from there.

    Raises:
        DataError: for a source that is none of these, or that its reader rejects.
    """
    source = str(source)
    with located(f"{source[:80]}..." if len(source) > 80 else source):
        check_name(source)
    name, _, options = source.partition(":")
    if name in REGISTRY:
        return make(name, **_options(source, options))
    if source.lower().endswith(".npz"):
        return load_npz(source)
    file, _, medium = source.partition(":medium=")
    if file.lower().endswith((".hdf5", ".h5")):
        given: Any = int(medium) if medium.isdecimal() and len(medium) < 20 else medium or None
        files = [path for path in files_of(file, given) if path.is_file()]
        return cached(source, files, lambda: load_hdf5(file, given))
    parts = [part.strip() for part in source.split(" + ")]
    folders = [minari_folder(part) for part in parts]
    if None in folders and (folder := minari_folder(source.strip())):  # a folder whose own name has a plus
        parts, folders = [source.strip()], [folder]
    if None not in folders or len(folders) > 1:
        files = [file for folder in filter(None, folders) for file in sorted((folder / "data").rglob("*"))]
        files = [file for file in files if file.is_file()]
        return cached(source, files, lambda: load_minari(*parts))
    what = "a folder without a Minari dataset" if Path(source).is_dir() else "unknown"
    raise DataError(
        f"{source!r} is {what}: give {', '.join(REGISTRY)} (with options such as takeball:size=1000,seed=0), "
        "a .npz or .hdf5 file, or a Minari folder or id (in MINARI_DATASETS_PATH)"
    )


def _options(source: str, text: str) -> dict[str, Any]:
    options = {}
    for item in filter(None, text.split(",")):
        key, _, value = item.partition("=")
        if key in options:
            raise DataError(f"{source!r} has {key} twice: give it once")
        try:
            options[key] = json.loads(value)
        except ValueError:
            options[key] = None
        numbers = (int, float) if key == "noise" else (int,)
        if key not in ("size", "seed", "noise") or type(options[key]) not in numbers:
            raise DataError(f"{source!r} has option {item!r}: give size, seed or noise as numbers, size=1000,seed=0")
    return options
