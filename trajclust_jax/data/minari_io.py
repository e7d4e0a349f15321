"""Datasets in Minari's storage, labels as episode metadata."""

import contextlib
import json
import math
import os
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from trajclust_jax.data import metadata
from trajclust_jax.data.cache import user_path
from trajclust_jax.data.codebook import encode
from trajclust_jax.data.dataset import build_dataset
from trajclust_jax.data.episodes import Episode, Offsets, column_offsets, from_episodes
from trajclust_jax.data.fields import offset_parameters
from trajclust_jax.data.files import check_size
from trajclust_jax.data.spaces import ActionReader, CombinationReader, ObservationReader, join_actions, numbers
from trajclust_jax.data.types import Codebook, DataError, Dataset
from trajclust_jax.data.validation import located, told

_ROOT = "MINARI_DATASETS_PATH"
_LONGEST = 10_000  # steps that an evaluated episode may have: some data were recorded as one episode of a million


def save_minari(dataset: Dataset, dataset_id: str, root: str | os.PathLike | None = None) -> Path:
    """Writes the dataset as Minari dataset `dataset_id`, whole or not at all, and returns its folder.

    Each episode's metadata has `label` (int) and `policy` (its name), where known. Observations are stored
    without loss, one for each step; our own metadata makes `load_minari` give back the same dataset.

    Args:
        dataset: what to write.
        dataset_id: `(namespace/)name-v0`.
        root: the folder of all datasets; else `MINARI_DATASETS_PATH`, else Minari's own default in the home folder.

    Raises:
        DataError: for a malformed or an existing id, without a root, or a dataset that `metadata.describe` rejects.
    """
    namespace = check_minari_target(dataset_id, root)
    minari, root = _import(), _root(root)
    folder = root / dataset_id
    with located(dataset_id):
        described = _describe(dataset)

    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root, prefix=".writing-") as temporary:
        with _quiet(temporary):
            written = minari.create_dataset_from_buffers(
                dataset_id,
                _buffers(dataset),
                observation_space=_observation_space(dataset),
                action_space=_action_space(dataset),
                algorithm_name="mixture of policies",
                description=f"{dataset.spec.name}, written by trajclust-jax",
                data_format="hdf5",
                jpeg_encoding=False,  # JPEG loses
            )
            written.storage.update_metadata({"trajclust": described})
            if dataset.labels is not None or dataset.true_log_likelihoods is not None:
                written.storage.update_episode_metadata(_episode_metadata(dataset))
        folder.parent.mkdir(parents=True, exist_ok=True)
        os.rename(Path(temporary) / dataset_id, folder)
    if namespace is not None:
        with _quiet(root):
            if namespace not in minari.namespace.list_local_namespaces():
                minari.namespace.create_namespace(namespace)
    return folder


def check_minari_target(dataset_id: str, root: str | os.PathLike | None = None) -> str | None:
    """The namespace of an id that `save_minari` can write.

    Raises:
        DataError: for a malformed or an existing id, or without a root.
    """
    with located(dataset_id):
        root = _root(root)
        if root is None:
            raise DataError(f"there is no home folder to write to: set {_ROOT} to a folder")
        try:
            namespace, _, _ = _import().dataset.minari_dataset.parse_dataset_id(dataset_id)
        except (ValueError, TypeError):  # a TypeError where the version is missing
            raise DataError("is not a Minari id: write it like namespace/name-v0, or a file name in .npz") from None
        if (root / dataset_id).exists():
            raise DataError(f"exists in {root}: choose another version, or delete it")
    return namespace


def load_minari(*sources: str | os.PathLike, root: str | os.PathLike | None = None) -> Dataset:
    """Reads a Minari dataset: one that `save_minari` wrote, or any other whose spaces `spaces` can read.

    Observations of several parts are concatenated (`ObservationReader`). Actions of discrete parts become one discrete
    action for each combination that occurs (`join_actions`); discrete parts beside continuous ones become one-hot
    numbers (`ActionReader`). Where an episode has as many observations as actions, its final observation was not
    recorded, and the last one is repeated. `provenance.parameters` say what was converted. Labels come from the
    episodes' `label`, else from their `policy`, if all have one. Nothing is downloaded.

    Several datasets are mixed into one: its labels say which dataset an episode is from (and which of its own labels
    it has, if all of the datasets have some), and the policies are named after the datasets.

    Args:
        sources: ids below `root`, or folders of datasets; a leading `~` is the home folder.
        root: as in `save_minari`.

    Raises:
        DataError: one line naming the dataset and what is wrong.
    """
    parts = [_Part(source, root, mixed=len(sources) > 1) for source in sources]
    first, where = parts[0], " + ".join(map(str, sources))
    for part in parts[1:]:
        if part.shape != first.shape:
            raise DataError(f"{part.source}: has {part.described}, but {sources[0]} has {first.described}")
    with located(where), _told():
        lengths = [length for part in parts for length in part.lengths]
        chained = (episode for part in parts for episode in part.episodes())
        if len(parts) == 1 and first.ours is not None:
            return _ours(first.ours, chained, lengths, first.labels, first.details)
        of_all = lambda field: column_offsets(lambda: (each[field] for part in parts for each in part.episodes()))
        offsets = Offsets(of_all(0), of_all(1) if first.acted.kind == "continuous" else None)
        trajectories = from_episodes(chained, first.acted.num_actions, lengths=lengths, offsets=offsets)
        if first.acted.kind == "joint":
            trajectories = join_actions(trajectories)
        read_as = {key: value for part in parts for key, value in part.read_as().items()} | offset_parameters(offsets)
        for key in ("environment", "reference_returns"):  # of one mixture there is one
            if any(part.read_as().get(key) != read_as.get(key) for part in parts):
                read_as.pop(key, None)
        if len(parts) == 1:
            described = {"name": first.name, "source": first.name, "policy_names": first.policies}
            return build_dataset(trajectories, first.labels, **described, parameters=read_as)
        labels, names = [], []
        for part in parts:
            known = part.labels is not None and all(each.labels is not None for each in parts)
            own = np.unique(part.labels, return_inverse=True)[1] if known else np.zeros(len(part.lengths), int)
            labels += (own + len(names)).tolist()
            kinds = range(own.max() + 1)
            named = part.policies if len(part.policies) == len(kinds) else [str(kind) for kind in kinds]
            names += [f"{part.name}: {named[kind]}" for kind in kinds] if len(kinds) > 1 else [part.name]
        return build_dataset(
            trajectories,
            labels,
            name=where,
            source=where,
            policy_names=tuple(names),
            parameters={"datasets": [part.name for part in parts], **read_as},
        )


class _Part:
    """A stored dataset: what is known before its episodes are read."""

    def __init__(self, source: str | os.PathLike, root: str | os.PathLike | None, mixed: bool):
        self.source = source
        with located(source), _told():
            minari = _import()
            folder = minari_folder(source, root)
            if folder is None:
                place = _root(root) or f"{_ROOT}, which is not set"
                raise DataError(f"no Minari dataset in this folder, nor of this id in {place}: check the name")
            with _quiet(), _told("metadata.json"):
                described = json.loads((folder / "data" / "metadata.json").read_text("utf-8"))
                _check_metadata(described, folder / "data")
                self.stored = minari.MinariDataset(folder / "data")
                self.name, self.ours = _text(self.stored.id), described.get("trajclust")
                self.observed = ObservationReader(self.stored.observation_space)
                self.acted = ActionReader(self.stored.action_space)
                combinations = self.ours and self.ours.get("action_parts")
                if combinations and mixed:  # each dataset has numbers of its own for them
                    self.acted = CombinationReader(self.stored.action_space, combinations)
            with _quiet():
                _check_arrays(folder / "data" / "main_data.hdf5")
                self.details = list(self.stored.storage.get_episode_metadata(self.stored.episode_indices))
            self.lengths = [int(detail["total_steps"]) for detail in self.details]
            self.labels, self.policies = _read_labels(self.details)
        self.unfinished = 0  # episodes whose final observation was not recorded
        self.shape = self.observed.shape, self.acted.kind, self.acted.num_actions, self.acted.shape
        size = self.acted.num_actions or self.acted.shape[0]
        of_kind = {"discrete": "{} actions", "joint": "actions of {} discrete parts", "continuous": "{}-d actions"}
        self.described = f"observations of {self.observed.shape} and {of_kind[self.acted.kind].format(size)}"

    def episodes(self) -> Iterator[Episode]:
        """The episodes, read one at a time."""
        self.unfinished = 0
        for n, episode in enumerate(self.stored.iterate_episodes()):
            with located(f"episode {n}"):
                observations, actions = self.observed(episode.observations), self.acted(episode.actions)
                rewards, ends = numbers("rewards", episode.rewards), numbers("terminations", episode.terminations)
                if len(ends) and (len(ends) != len(rewards) or ends[-1] not in (0, 1)):
                    raise DataError(f"terminations is {ends.dtype}{list(ends.shape)}: give 0 or 1 for each step")
            if len(observations) == len(rewards):
                observations = np.concatenate([observations, observations[-1:]])
                self.unfinished += 1
            yield observations, actions, rewards, len(ends) > 0 and bool(ends[-1])

    def read_as(self) -> dict[str, Any]:
        """For the provenance: bounds of actions, and how data were converted that are not stored as in
        `Trajectories`."""
        from gymnasium.spaces import Box

        single, space = self.acted.shape == (1,), self.stored.action_space
        bounded = self.acted.kind == "continuous" and isinstance(space, Box) and space.is_bounded()
        notes = {
            "action_low": space.low.ravel().tolist() if bounded else None,
            "action_high": space.high.ravel().tolist() if bounded else None,
            "left_out": self.observed.left_out,
            "goal": "desired_goal - achieved_goal, behind the other parts" if self.observed.goals else "",
            "actions": {
                "joint": "whole numbers that occur, numbered" if single else "combinations that occur, numbered",
                "continuous": "discrete parts as one-hot numbers beside the others" if self.acted.mixed else "",
            }.get(self.acted.kind),
            "last_observation_repeated": self.unfinished,
            "environment": self._environment(),
            "reference_returns": self._reference_returns(),
        }
        return {key: note for key, note in notes.items() if note}

    def _environment(self) -> str | None:
        """The id of the environment to evaluate in, else of the recorded one, followed by its options as JSON (the time
        limit among them, if it is not the id's own); None if the dataset names none."""
        import gymnasium

        described = self.stored.storage.metadata
        with contextlib.suppress(Exception):  # there is none, or another program wrote it
            spec = json.loads(described.get("eval_env_spec") or described["env_spec"])
            options, limit = dict(spec["kwargs"]), spec.get("max_episode_steps")
            usual = gymnasium.registry.get(spec["id"])
            if limit is not None and limit <= _LONGEST and (usual is None or usual.max_episode_steps != limit):
                options["max_episode_steps"] = limit
            return f"{spec['id']}{json.dumps(options) if options else ''}"
        return None

    def _reference_returns(self) -> list[float] | None:
        """The returns of a random and of an expert policy there, by which Minari normalises; None where it has none."""
        stated = [self.stored.storage.metadata.get(name) for name in ("ref_min_score", "ref_max_score")]
        with contextlib.suppress(TypeError, ValueError):  # one is None, or another program wrote it
            low, high = map(float, stated)
            if math.isfinite(high - low) and low < high:
                return [low, high]
        return None


def _check_metadata(described: Any, folder: Path) -> None:
    """Refuses metadata on which Minari would fail without saying why, before memory of the stated size is taken.

    Raises:
        DataError: for a missing package, a space that Minari does not read, or more episodes than bytes.
    """
    from minari.dataset._storages import get_minari_storage
    from minari.serialization import deserialize_space

    def check_space(field: str, space: dict[str, Any]) -> None:
        if space["type"] not in deserialize_space.registry:
            raise DataError(f"{field} has space {space['type']!r}, which Minari does not read: leave it out")
        parts = space.get("subspaces", {})
        for name, part in parts.items() if isinstance(parts, dict) else enumerate(parts):
            check_space(f"{field} part {name!r}", part)

    get_minari_storage(described["data_format"])
    for field in ("observation_space", "action_space"):
        if field in described:
            check_space(field, json.loads(described[field]))
    stated, size = described["total_episodes"], sum(file.stat().st_size for file in folder.rglob("*"))
    if not isinstance(stated, int) or not 0 < stated <= size:
        raise DataError(f"total_episodes is {stated!r}, but there are {size} bytes: write or download it again")


def _check_arrays(file: Path) -> None:
    """Refuses arrays that were declared and never written, which would fill the memory with zeros.

    Raises:
        DataError: naming the array.
    """
    import h5py

    def check(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            check_size(name, item.nbytes, item.id.get_storage_size())

    if file.is_file():
        with h5py.File(file, "r") as stored:
            stored.visititems(check)


def minari_folder(dataset_id_or_folder: str | os.PathLike, root: str | os.PathLike | None = None) -> Path | None:
    """The folder of a stored dataset, given by itself or by id, or None.

    Raises:
        DataError: for a name that the file system refuses.
    """
    given, root = user_path(dataset_id_or_folder), _root(root)
    for folder in filter(None, (given, given and root and root / given)):
        try:
            if (folder / "data" / "metadata.json").is_file():
                return folder
        except OSError as error:
            raise DataError(f"{str(folder)[:80]}: {error.strerror}: check the name") from None
    return None


def _describe(dataset: Dataset) -> dict[str, Any]:
    trajectories = dataset.trajectories
    observations = trajectories.observations
    coded = isinstance(observations, Codebook)
    return metadata.describe(dataset) | {
        "codebook": coded,
        "observation_dtype": str((observations.table if coded else observations).dtype),
        "max_length": trajectories.max_length,
        "num_actions": trajectories.num_actions,
        "action_parts": trajectories.action_parts,
    }


def _ours(
    described: dict[str, Any],
    episodes: Iterable[Episode],
    lengths: list[int],
    labels: Any,
    details: list[dict[str, Any]],
) -> Dataset:
    """The dataset that `save_minari` was given; its episodes are read one at a time."""
    spec, provenance = metadata.restore(described)
    dtype = np.dtype(described["observation_dtype"])
    stored = ((observations.astype(dtype), *rest) for observations, *rest in episodes)
    trajectories = from_episodes(stored, described["num_actions"], described["max_length"], lengths)
    if described["codebook"]:
        trajectories = encode(trajectories)
    trajectories = trajectories.replace(action_parts=tuple(map(tuple, described.get("action_parts", ()))))
    likelihoods = None
    if all("true_log_likelihoods" in detail for detail in details):
        likelihoods = np.stack([detail["true_log_likelihoods"] for detail in details])
    labels = None if labels is None else np.asarray(labels, np.int32)
    dataset = Dataset(trajectories, labels, spec, provenance, likelihoods)
    metadata.check(dataset, described)
    return dataset


def _buffers(dataset: Dataset) -> Iterator[Any]:
    from minari.data_collector import EpisodeBuffer

    trajectories = dataset.trajectories
    coded = isinstance(trajectories.observations, Codebook)
    steps = np.asarray(trajectories.observations.ids if coded else trajectories.observations)
    final = np.asarray(trajectories.final_observations.ids if coded else trajectories.final_observations)
    actions, rewards, ended, lengths = (
        np.asarray(getattr(trajectories, name)) for name in ("actions", "rewards", "terminated", "lengths")
    )
    table = np.asarray(trajectories.observations.table) if coded else None
    for n, length in enumerate(lengths):
        observations = np.concatenate([steps[n, :length], final[n : n + 1]])
        observations = table[observations] if coded else observations
        last = np.arange(length) == length - 1
        yield EpisodeBuffer(
            observations=observations.astype(np.uint8) if observations.dtype.kind == "b" else observations,
            actions=actions[n, :length],
            rewards=rewards[n, :length],
            terminations=last & ended[n],
            truncations=last & ~ended[n],
        )


def _episode_metadata(dataset: Dataset) -> Iterator[dict[str, Any]]:
    names = dataset.spec.policy_names
    for n in range(dataset.trajectories.num_trajectories):
        details = {}
        if dataset.labels is not None:
            label = int(dataset.labels[n])
            details |= {"label": label, "policy": names[label] if label < len(names) else str(label)}
        if dataset.true_log_likelihoods is not None:
            details["true_log_likelihoods"] = np.asarray(dataset.true_log_likelihoods[n])
        yield details


def _observation_space(dataset: Dataset) -> Any:
    import gymnasium

    observations = dataset.trajectories.observations
    dtype = (observations.table if isinstance(observations, Codebook) else observations).dtype
    dtype = np.dtype(np.uint8) if dtype.kind == "b" else dtype  # a Box holds no bool
    low, high = (-np.inf, np.inf) if dtype.kind == "f" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    return gymnasium.spaces.Box(low, high, dataset.trajectories.observation_shape, dtype)


def _action_space(dataset: Dataset) -> Any:
    import gymnasium

    trajectories = dataset.trajectories
    if trajectories.discrete:
        return gymnasium.spaces.Discrete(trajectories.num_actions)
    return gymnasium.spaces.Box(-np.inf, np.inf, (trajectories.action_size,), np.float32)


def _read_labels(details: list[dict[str, Any]]) -> tuple[list[Any] | None, tuple[str, ...]]:
    """One label for each episode, or None, and the policies' names in the order of the labels."""
    named = bool(details) and all("policy" in detail for detail in details)
    policies = [_text(detail["policy"]) for detail in details] if named else []
    if details and all("label" in detail for detail in details):
        labels = [detail["label"] for detail in details]
        several = next((n for n, label in enumerate(labels) if np.ndim(label)), None)
        if several is not None:
            raise DataError(f"label of episode {several} is an array: give one number or text")
        labels = [_text(label) if isinstance(label, bytes | str) else label for label in labels]
        name_of = dict(zip(labels, policies, strict=True)) if named else {}
        return labels, tuple(name_of[label] for label in sorted(name_of))
    return (policies, tuple(sorted(set(policies)))) if named else (None, ())


def _text(value: Any) -> str:
    """A name as text that every file and terminal accepts: what is not UTF-8 is replaced."""
    raw = value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")
    return raw.decode("utf-8", "replace")


def _root(root: str | os.PathLike | None) -> Path | None:
    """The folder of all datasets, or None without a home folder."""
    return user_path(root or os.environ.get(_ROOT) or Path("~", ".minari", "datasets"))


def _told(what: str = "the data") -> AbstractContextManager[None]:
    """Errors of Minari, of its storages and of damaged files, as a DataError."""
    return told(what, "write or download it again")


def _import() -> Any:
    """minari takes seconds and may warn on import: only on first use."""
    with _quiet():
        import minari
    return minari


@contextmanager
def _quiet(root: str | os.PathLike | None = None) -> Iterator[None]:
    """Minari without its warnings of fields left empty, and with `root` as its folder."""
    before = os.environ.get(_ROOT)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if root is not None:
            os.environ[_ROOT] = str(root)
        try:
            yield
        finally:
            if root is not None:
                os.environ.pop(_ROOT, None)
                if before is not None:
                    os.environ[_ROOT] = before
