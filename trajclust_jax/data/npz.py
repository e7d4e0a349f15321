"""Datasets as .npz files, without pickle."""

import json
import math
import os
import struct
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trajclust_jax.data import metadata
from trajclust_jax.data.dataset import build_dataset
from trajclust_jax.data.fields import CODEBOOK, FIELDS, Lazy, assemble, read_fields
from trajclust_jax.data.files import check_file, check_size, written_whole
from trajclust_jax.data.types import Codebook, DataError, Dataset, Provenance, Spec
from trajclust_jax.data.validation import located, told

_ADVICE = "copy or write the file again"


class _PickledError(DataError):
    """An array of objects."""


def save_npz(dataset: Dataset, path: str | os.PathLike) -> None:
    """Writes the dataset to one file, whole or not at all; its folder is made if need be.

    The arrays are those of `Trajectories` under their names (a codebook: `observation_table`, `observation_ids`,
    `final_observation_ids`), `num_actions`; `action_parts`, `labels` and `true_log_likelihoods` where there are any;
    `metadata`, a JSON string.

    Raises:
        DataError: for a provenance that is not JSON, or a fingerprint that is not the content's.
        OSError: if the file cannot be written.
    """
    path = Path(path)
    with located(path):
        described = json.dumps(metadata.describe(dataset))
    trajectories = dataset.trajectories
    observations, final = trajectories.observations, trajectories.final_observations
    if isinstance(observations, Codebook):
        arrays = dict(zip(CODEBOOK, (observations.table, observations.ids, final.ids), strict=True))
    else:
        arrays = {"observations": observations, "final_observations": final}
    arrays |= {name: getattr(trajectories, name) for name in ("actions", "rewards", "lengths", "terminated")}
    arrays |= {"num_actions": trajectories.num_actions, "metadata": described}
    if trajectories.action_parts:
        arrays["action_parts"] = np.asarray(trajectories.action_parts, np.int64)
    optional = {"labels": dataset.labels, "true_log_likelihoods": dataset.true_log_likelihoods}
    arrays |= {name: array for name, array in optional.items() if array is not None}

    with written_whole(path) as temporary, open(temporary, "wb") as file:
        with zipfile.ZipFile(file, "w") as archive:
            for name, array in arrays.items():
                member = zipfile.ZipInfo(f"{name}.npy")  # without today's date: equal data, equal bytes
                with archive.open(member, "w", force_zip64=True) as stream:
                    np.lib.format.write_array(stream, np.asarray(array), allow_pickle=False)
        file.flush()
        os.fsync(file.fileno())


def load_npz(path: str | os.PathLike) -> Dataset:
    """Reads a dataset: what `save_npz` wrote, exactly as it was and with its checksums verified, or any arrays that
    `read_fields` understands (padded with `lengths`; flat with flags or `episode_length`). They may have
    `true_log_likelihoods [N, k*]`, a column for each label in sorted order.

    Only the arrays that are needed are loaded, and none is ever unpickled.

    Raises:
        DataError: one line naming the file and the field.
    """
    path = Path(path)
    with located(path):
        check_file(path)
        if not zipfile.is_zipfile(path):
            raise DataError("is not a .npz file, or is cut short: write it again")
        with told("the archive", _ADVICE), zipfile.ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            present = [name for name in FIELDS if name in members]
            fields = Lazy(present, lambda name: _read(path, archive, members[name], name))
            described = _described(fields)
            if described is not None:
                return _ours(fields, described)
            reading = read_fields(fields)
            return build_dataset(
                reading.trajectories,
                reading.labels,
                name=path.stem,
                source=path.name,
                policy_names=reading.policy_names,
                parameters=reading.parameters,
                true_log_likelihoods=fields.get("true_log_likelihoods"),
            )


def stated_by(path: str | os.PathLike) -> tuple[Spec, Provenance] | None:
    """What `save_npz` stated about a file that it wrote; None of any other file. The data are not read."""
    try:
        with open(path, "rb") as file:  # which NumPy leaves open where it is damaged
            described = _described(np.load(file, allow_pickle=False))
        return None if described is None else metadata.restore(described)
    except Exception:  # no archive, a damaged one, or another format's
        return None


def _read(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str) -> np.ndarray:
    """An array of the archive, its checksum verified."""
    with told(name, _ADVICE), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of headers that are damaged or old
        check_size(name, member.file_size, min(member.compress_size, path.stat().st_size))
        with archive.open(member) as stream:
            _check_declared(name, stream, member.file_size)
        if member.compress_type == zipfile.ZIP_STORED:
            return _read_plain(path, member)
        with archive.open(member) as stream:
            array = np.lib.format.read_array(stream, allow_pickle=False)
            stream.read()  # to the end: only there the checksum is compared
            return array


def _check_declared(name: str, stream: Any, size: int) -> None:
    """Refuses an array whose shape does not fit its `size` bytes, before memory is taken for it."""
    major, _ = np.lib.format.read_magic(stream)
    read_header = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
    shape, _, dtype = read_header(stream)
    if dtype.hasobject:
        raise _PickledError(f"{name} is pickled, which is never read: write it again as numbers or text")
    declared = stream.tell() + dtype.itemsize * math.prod(shape)
    if declared != size:
        raise DataError(f"{name} has {size} bytes, but {declared} by its shape {shape}: write the file again")


def _read_plain(path: Path, member: zipfile.ZipInfo) -> np.ndarray:
    """An array that lies uncompressed in the archive, read in one piece."""
    with open(path, "rb") as file:
        file.seek(member.header_offset + 26)
        name_length, extra_length = struct.unpack("<HH", file.read(4))
        start = file.seek(name_length + extra_length, os.SEEK_CUR)
        array = np.lib.format.read_array(file, allow_pickle=False)
        file.seek(start)
        checksum = zlib.crc32(file.read(member.file_size - array.nbytes))
    if zlib.crc32(array.ravel("K").view(np.uint8), checksum) != member.CRC:
        raise ValueError("its checksum is wrong")
    return array


def _described(fields: Mapping[str, np.ndarray]) -> Any:
    """What `save_npz` stated about this file, or None if another program wrote it."""
    try:
        described = str(fields["metadata"])
    except (KeyError, _PickledError):  # another program's metadata are not needed
        return None
    try:
        described = json.loads(described)
        stated = described["format"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    if stated != metadata.FORMAT:
        raise DataError(f"metadata states format {stated!r}, this version reads {metadata.FORMAT!r}: convert the file")
    return described


def _ours(fields: Mapping[str, np.ndarray], described: Any) -> Dataset:
    """The dataset that `save_npz` was given."""
    spec, provenance = metadata.restore(described)
    dataset = Dataset(assemble(fields), fields.get("labels"), spec, provenance, fields.get("true_log_likelihoods"))
    metadata.check(dataset, described)
    return dataset
