"""Datasets as .npz files, without pickle."""

import contextlib
import json
import os
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trajclust_jax.data import metadata
from trajclust_jax.data.episodes import cast_actions, count_actions, narrow, split_fields
from trajclust_jax.data.types import Codebook, DataError, Dataset, Trajectories, build_dataset
from trajclust_jax.data.validation import located

_CODEBOOK = ("observation_table", "observation_ids", "final_observation_ids")
_PADDED = ("observations", "actions", "rewards", "lengths", "terminated", "final_observations")
_FLAT = ("terminals", "dones", "timeouts", "next_observations")
_EPISODES = ("terminations", "truncations", "episode_length", "final_observation", "label", "policy_names")
_STATED = ("num_actions", "action_parts", "labels", "true_log_likelihoods", "metadata")
_FIELDS = (*_CODEBOOK, *_PADDED, *_FLAT, *_EPISODES, *_STATED)


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
        arrays = dict(zip(_CODEBOOK, (observations.table, observations.ids, final.ids), strict=True))
    else:
        arrays = {"observations": observations, "final_observations": final}
    arrays |= {name: getattr(trajectories, name) for name in ("actions", "rewards", "lengths", "terminated")}
    arrays |= {"num_actions": trajectories.num_actions, "metadata": described}
    if trajectories.action_parts:
        arrays["action_parts"] = np.asarray(trajectories.action_parts, np.int64)
    optional = {"labels": dataset.labels, "true_log_likelihoods": dataset.true_log_likelihoods}
    arrays |= {name: array for name, array in optional.items() if array is not None}

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            with zipfile.ZipFile(file, "w") as archive:
                for name, array in arrays.items():
                    member = zipfile.ZipInfo(f"{name}.npy")  # without today's date: equal data, equal bytes
                    with archive.open(member, "w", force_zip64=True) as stream:
                        np.lib.format.write_array(stream, np.asarray(array), allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def load_npz(path: str | os.PathLike) -> Dataset:
    """Reads a dataset. Four layouts are understood:

    - what `save_npz` writes: returned exactly as it was, its fingerprint verified;
    - padded: `observations [N, T, ...]`, `actions`, `lengths [N]`, and optionally `rewards` (else 0), `terminated`
      (else False) and `final_observations` (else the last observation is repeated), or the codebook arrays;
    - flat, like D4RL (see `split_episodes`): `observations [P, ...]`, `actions`, `terminals` (or `dones`) or
      `timeouts`, and optionally `rewards` (else 0) and `next_observations`;
    - flat, with Gymnasium's words: `observations [P, ...]`, `actions`, `terminations`, `truncations`,
      `episode_length [N]`, and optionally `rewards`, `final_observation [N, ...]`, `label [N]` and `policy_names`.

    All but the first may have `labels [N]`, one for each trajectory. Integer actions without an action axis are
    discrete, `num_actions` of them or else `max + 1`.

    Raises:
        DataError: one line naming the file and the field. Pickled data is never read.
    """
    path = Path(path)
    with located(path):
        fields = _read(path)
        described = _described(fields)
        if described is not None:
            return _ours(fields, described)
        labels, names = fields.get("labels", fields.get("label")), ()
        if "lengths" in fields:
            trajectories = _assemble(_complete(fields))
        elif "episode_length" in fields:
            trajectories = _of_episodes(fields)
        else:
            trajectories = split_fields(fields, _num_actions(fields))
        if labels is not None and labels.dtype.kind in "SU":
            names = tuple(map(str, np.unique(labels.astype(str))))
        elif labels is not None and labels.dtype.kind in "iu" and "policy_names" in fields:
            given = fields["policy_names"].astype(str).ravel()
            present = np.unique(labels)
            names = (
                tuple(map(str, given[present])) if len(present) and 0 <= present[0] <= present[-1] < len(given) else ()
            )
        return build_dataset(trajectories, labels, name=path.stem, source=path.name, policy_names=names)


def _read(path: Path) -> dict[str, np.ndarray]:
    """The known arrays of the file."""
    if not path.is_file():
        raise DataError("is a folder, not a file" if path.is_dir() else "no such file")
    if not zipfile.is_zipfile(path):
        raise DataError("is not a .npz file, or is cut short: write it again")
    fields = {}
    name = "the archive"
    try:
        with np.load(path, allow_pickle=False) as archive:
            present = [name for name in _FIELDS if name in archive]
            ours = False
            if "metadata" in present:
                name = "metadata"
                ours = _described({name: archive[name]}) is not None
            for name in present:
                fields[name] = _read_plain(path, archive.zip, name) if ours else archive[name]
    except Exception as error:  # whatever zip, zlib or the array header say of a damaged file
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(f"{name} cannot be read ({reason}): write the file again, without object arrays") from None
    for name, array in fields.items():
        if not isinstance(array, np.ndarray):  # NumPy hands out raw bytes for a member that is no array
            raise DataError(f"{name} is not an array: write the file again with np.savez")
    return fields


def _of_episodes(fields: Mapping[str, np.ndarray]) -> Trajectories:
    """Flat arrays in Gymnasium's words, cut where the lengths say."""
    _need(fields, "observations", "actions", "terminations", "truncations")
    lengths = fields["episode_length"]
    ends = np.zeros(np.shape(fields["observations"])[:1], bool)
    marked = [np.asarray(fields[name]) != 0 for name in ("terminations", "truncations")]
    if lengths.ndim != 1 or lengths.dtype.kind not in "iu" or not len(lengths) or lengths.min() < 1:
        raise DataError(f"episode_length is {lengths.dtype}{list(lengths.shape)}: give whole numbers [N] of at least 1")
    if lengths.sum() != len(ends) or any(each.shape != ends.shape for each in marked):
        raise DataError(
            f"episode_length sums to {lengths.sum()}, but there are {len(ends)} steps, {len(marked[0])} terminations "
            f"and {len(marked[1])} truncations: make them equal"
        )
    ends[np.cumsum(lengths) - 1] = True
    early = np.flatnonzero((marked[0] | marked[1]) & ~ends)
    if len(early):
        raise DataError(f"terminations or truncations mark an end at step {early[0]}, within an episode: correct one")
    named = {name: fields[name] for name in ("observations", "actions", "rewards") if name in fields}
    named |= {"terminals": marked[0], "timeouts": ends & ~marked[0]}
    trajectories = split_fields(named, _num_actions(fields))
    if "final_observation" in fields:
        trajectories = trajectories.replace(final_observations=narrow(fields["final_observation"]))
    return trajectories


def _read_plain(path: Path, archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """An array that lies uncompressed in the archive, read in one piece; the content's fingerprint is its checksum."""
    member = archive.getinfo(f"{name}.npy")
    if member.compress_type != zipfile.ZIP_STORED:
        raise ValueError("is compressed")
    with open(path, "rb") as file:
        file.seek(member.header_offset + 26)
        name_length, extra_length = struct.unpack("<HH", file.read(4))
        file.seek(name_length + extra_length, os.SEEK_CUR)
        return np.lib.format.read_array(file, allow_pickle=False)


def _described(fields: Mapping[str, np.ndarray]) -> Any:
    """What `save_npz` said of this file, or None where another program wrote it."""
    try:
        described = json.loads(str(fields["metadata"]))
        stated = described["format"]
    except (KeyError, TypeError, ValueError):
        return None
    if stated != metadata.FORMAT:
        raise DataError(f"metadata states format {stated!r}, this version reads {metadata.FORMAT!r}: convert the file")
    return described


def _ours(fields: Mapping[str, np.ndarray], described: Any) -> Dataset:
    """The dataset that `save_npz` was given."""
    spec, provenance = metadata.restore(described)
    dataset = Dataset(_assemble(fields), fields.get("labels"), spec, provenance, fields.get("true_log_likelihoods"))
    metadata.check(dataset)
    return dataset


def _assemble(fields: Mapping[str, np.ndarray]) -> Trajectories:
    """Trajectories of padded arrays, as they are."""
    coded = "observation_table" in fields
    observations = _CODEBOOK if coded else ("observations", "final_observations")
    _need(fields, *observations, "actions", "rewards", "lengths", "terminated", "num_actions")
    if coded:
        table, ids, final_ids = (fields[name] for name in _CODEBOOK)
        steps, final = Codebook(table, ids), Codebook(table, final_ids)
    else:
        steps, final = fields["observations"], fields["final_observations"]
    return Trajectories(
        observations=steps,
        actions=fields["actions"],
        rewards=fields["rewards"],
        lengths=fields["lengths"],
        terminated=fields["terminated"],
        final_observations=final,
        num_actions=_num_actions(fields),
        action_parts=_action_parts(fields),
    )


def _complete(fields: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Somebody's padded arrays in our dtypes, with defaults for the missing ones and zeros on padding."""
    steps, final = ("observations", "final_observations")
    if "observation_table" in fields:
        steps, final = _CODEBOOK[1:]
    _need(fields, steps, "actions", "lengths")
    fields = {name: narrow(array) for name, array in fields.items()}
    lengths, shape = fields["lengths"], fields[steps].shape[:2]
    if lengths.dtype.kind not in "iu" or lengths.ndim != 1 or shape[:1] != lengths.shape or len(shape) != 2:
        raise DataError(
            f"lengths is {lengths.dtype}{list(lengths.shape)}, but {steps} has leading axes {list(shape)}: "
            "give whole numbers [N] and padded arrays [N, T, ...]"
        )
    if 0 in shape:
        raise DataError(f"{steps} has shape {fields[steps].shape}: give at least one trajectory of one step")
    fields["lengths"] = lengths.astype(np.int32)
    mask = np.arange(shape[1]) < lengths[:, None]

    fields.setdefault("rewards", np.zeros(shape, np.float32))
    fields.setdefault("terminated", np.zeros(shape[:1], bool))
    last = np.clip(fields["lengths"] - 1, 0, shape[1] - 1)  # bad lengths are for validation to name
    fields.setdefault(final, fields[steps][np.arange(shape[0]), last])
    for name in (steps, "actions", "rewards"):
        if fields[name].shape[:2] == shape:
            fields[name][~mask] = 0

    actions, flags = fields["actions"], fields["terminated"]
    if "num_actions" not in fields:
        fields["num_actions"] = np.array(count_actions(actions) if actions.ndim == 2 else 0)
    fields["actions"] = cast_actions(actions, _num_actions(fields))
    if fields["rewards"].dtype.kind in "biuf":
        fields["rewards"] = fields["rewards"].astype(np.float32)
    if flags.dtype.kind in "iuf" and np.isin(flags, (0, 1)).all():
        fields["terminated"] = flags.astype(bool)
    return fields


def _num_actions(fields: Mapping[str, np.ndarray]) -> int:
    """As stated in the file, else 0."""
    stated = fields.get("num_actions", np.array(0))
    if stated.size != 1 or stated.dtype.kind not in "iu":
        raise DataError(f"num_actions is {stated.dtype}{list(stated.shape)}: give one whole number")
    return int(stated.item())


def _action_parts(fields: Mapping[str, np.ndarray]) -> tuple[tuple[int, ...], ...]:
    """As stated in the file, else ()."""
    stated = fields.get("action_parts", np.zeros((0, 1), int))
    if stated.ndim != 2 or stated.dtype.kind not in "iu":
        raise DataError(f"action_parts is {stated.dtype}{list(stated.shape)}: give whole numbers [A, F]")
    return tuple(map(tuple, stated.tolist()))


def _need(fields: Mapping[str, np.ndarray], *names: str) -> None:
    for name in names:
        if name not in fields:
            raise DataError(f"{name} is missing: add this array")
