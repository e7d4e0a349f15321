"""Datasets in the layout of D4RL: one .hdf5 file of flat arrays."""

import os
from pathlib import Path

from trajclust_jax.data.episodes import split_fields
from trajclust_jax.data.types import DataError, Dataset, build_dataset
from trajclust_jax.data.validation import located

_FIELDS = ("observations", "actions", "rewards", "terminals", "timeouts", "next_observations")


def load_hdf5(path: str | os.PathLike) -> Dataset:
    """Reads flat arrays `observations [P, ...]`, `actions`, `rewards`, `terminals`, `timeouts` (see `split_episodes`).

    Raises:
        DataError: one line naming the file and the field.
    """
    import h5py

    path = Path(path)
    with located(path):
        if not path.is_file():
            raise DataError("is a folder, not a file" if path.is_dir() else "no such file")
        try:
            with h5py.File(path) as file:
                fields = {name: file[name][()] for name in _FIELDS if name in file}
        except (OSError, TypeError, KeyError) as error:  # cut short, or a group where an array should be
            reason = str(error).splitlines()[0]
            raise DataError(f"cannot be read ({reason}): is it a whole .hdf5 file? Copy it again") from None
        return build_dataset(split_fields(fields), name=path.stem, source=path.name)
