"""Datasets in Minari's storage, labels as episode metadata."""

import math
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from trajclust_jax.data import metadata
from trajclust_jax.data.codebook import encode
from trajclust_jax.data.episodes import Episode, from_episodes
from trajclust_jax.data.types import Codebook, DataError, Dataset, build_dataset
from trajclust_jax.data.validation import located

_ROOT = "MINARI_DATASETS_PATH"


def save_minari(dataset: Dataset, dataset_id: str, root: str | os.PathLike | None = None) -> Path:
    """Writes the dataset as Minari dataset `dataset_id`, whole or not at all, and returns its folder.

    Each episode's metadata has `label` (int) and `policy` (its name), where known. Observations are stored
    without loss, one for each step; our own metadata makes `load_minari` give back the same dataset.

    Args:
        dataset: what to write.
        dataset_id: `(namespace/)name-v0`.
        root: the folder of all datasets; else `MINARI_DATASETS_PATH`, else Minari's own default.

    Raises:
        DataError: for a malformed or an existing id, or a dataset that `metadata.describe` rejects.
    """
    minari, root = _import(), _root(root)
    namespace = check_minari_target(dataset_id, root)
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
        DataError: for a malformed or an existing id.
    """
    with located(dataset_id):
        try:
            namespace, _, _ = _import().dataset.minari_dataset.parse_dataset_id(dataset_id)
        except (ValueError, TypeError):  # a TypeError where the version is missing
            raise DataError("is not a Minari id: write it like namespace/name-v0, or a file name in .npz") from None
        if (_root(root) / dataset_id).exists():
            raise DataError(f"exists in {_root(root)}: choose another version, or delete it")
    return namespace


def load_minari(*sources: str | os.PathLike, root: str | os.PathLike | None = None) -> Dataset:
    """Reads a Minari dataset: one that `save_minari` wrote, or any of Box, Discrete, Dict and Tuple observations.

    Observations of several parts (Dict, its keys in sorted order; Tuple) are flattened and laid side by side
    as float32, a Discrete part as one-hot numbers. Labels come from the episodes' `label`, else from their `policy`, if
    all have one. Nothing is downloaded.

    Several datasets are mixed into one: its labels say which dataset an episode is from (and which of its own labels
    it has, if all of the datasets have some), and the policies are named after the datasets.

    Args:
        sources: ids below `root`, or folders of datasets.
        root: as in `save_minari`.

    Raises:
        DataError: one line naming the dataset and what is wrong.
    """
    parts = [_Part(source, root) for source in sources]
    where = " + ".join(map(str, sources))
    for part in parts[1:]:
        if part.shape != parts[0].shape:
            raise DataError(f"{part.source}: has {part.described}, but {sources[0]} has {parts[0].described}")
    with located(where):
        lengths = [length for part in parts for length in part.lengths]
        chained = (episode for part in parts for episode in part.episodes())
        if len(parts) == 1 and parts[0].ours is not None:
            return _ours(parts[0].ours, list(chained), parts[0].labels, parts[0].details)
        trajectories = from_episodes(chained, parts[0].num_actions, lengths=lengths)
        if len(parts) == 1:
            name = parts[0].stored.spec.dataset_id
            return build_dataset(trajectories, parts[0].labels, name=name, source=name, policy_names=parts[0].names)
        labels, names = [], []
        for part in parts:
            known = part.labels is not None and all(each.labels is not None for each in parts)
            own = np.unique(part.labels, return_inverse=True)[1] if known else np.zeros(len(part.lengths), int)
            labels += (own + len(names)).tolist()
            dataset_id = part.stored.spec.dataset_id
            kinds = range(own.max() + 1)
            named = part.names if len(part.names) == len(kinds) else [str(kind) for kind in kinds]
            names += [f"{dataset_id}: {named[kind]}" for kind in kinds] if len(kinds) > 1 else [dataset_id]
        return build_dataset(
            trajectories,
            labels,
            name=where,
            source=where,
            policy_names=tuple(names),
            parameters={"datasets": [part.stored.spec.dataset_id for part in parts]},
        )


class _Part:
    """A stored dataset: what is known before its episodes are read."""

    def __init__(self, source: str | os.PathLike, root: str | os.PathLike | None):
        minari = _import()
        self.source = source
        with located(source):
            folder = minari_folder(source, root)
            if folder is None:
                raise DataError(f"no Minari dataset in this folder, nor of this id in {_root(root)}: check the name")
            with self._told(), _quiet():
                self.stored = minari.MinariDataset(folder / "data")
                self.ours = self.stored.storage.metadata.get("trajclust")
                self.space = self.stored.observation_space
                self.num_actions, self.start = _read_actions(self.stored.action_space)
                self.details = list(self.stored.storage.get_episode_metadata(self.stored.episode_indices))
                self.lengths = [int(detail["total_steps"]) for detail in self.details]
                self.shape = _flat_shape(self.space), self.num_actions, self.stored.action_space.shape
            self.labels, self.names = _read_labels(self.details)
        actions = f"{self.num_actions} actions" if self.num_actions else f"actions of {self.shape[2]}"
        self.described = f"observations of {self.shape[0]} and {actions}"

    def episodes(self) -> Iterator[Episode]:
        """The episodes, read one at a time."""
        with self._told():
            for episode in self.stored.iterate_episodes():
                actions = episode.actions - self.start if self.start else episode.actions
                terminated = len(episode.terminations) > 0 and bool(episode.terminations[-1])
                yield _flatten(self.space, episode.observations), actions, episode.rewards, terminated

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except DataError:
            raise
        except (OSError, ValueError, TypeError, KeyError, AssertionError, AttributeError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise DataError(f"cannot be read ({reason}): write or download it again") from None


def minari_folder(dataset_id_or_folder: str | os.PathLike, root: str | os.PathLike | None = None) -> Path | None:
    """The folder of a stored dataset, given by itself or by id, or None."""
    for folder in (Path(dataset_id_or_folder), _root(root) / dataset_id_or_folder):
        if (folder / "data" / "metadata.json").is_file():
            return folder
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
    }


def _ours(described: dict[str, Any], episodes: list[Episode], labels: Any, details: list[dict[str, Any]]) -> Dataset:
    """The dataset that `save_minari` was given."""
    spec, provenance = metadata.restore(described)
    try:
        dtype = np.dtype(described["observation_dtype"])
        episodes = [(observations.astype(dtype), *rest) for observations, *rest in episodes]
        trajectories = from_episodes(episodes, described["num_actions"], described["max_length"])
        if described["codebook"]:
            trajectories = encode(trajectories)
    except (KeyError, TypeError) as error:
        raise DataError(f"metadata is damaged ({error!r}): write the dataset again") from None
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


def _read_actions(space: Any) -> tuple[int, int]:
    """The number of discrete actions (0: continuous) and the first of them."""
    from gymnasium.spaces import Box, Discrete

    if not isinstance(space, Box | Discrete):
        raise DataError(f"actions has space {type(space).__name__}: only Box and Discrete are read, flatten it")
    return (int(space.n), int(space.start)) if isinstance(space, Discrete) else (0, 0)


def _parts(space: Any) -> dict[Any, Any] | None:
    """The spaces that a Dict (by its keys in sorted order) or a Tuple is made of; None for another space."""
    from gymnasium.spaces import Dict, Tuple

    if isinstance(space, Dict):
        return dict(sorted(space.spaces.items()))
    return dict(enumerate(space.spaces)) if isinstance(space, Tuple) else None


def _flat_shape(space: Any) -> tuple[int, ...]:
    """The shape of one observation as `_flatten` gives it."""
    from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete

    parts = _parts(space)
    if parts is not None:
        return (sum(math.prod(_part_shape(part)) for part in parts.values()),)
    if not isinstance(space, Box | Discrete | MultiBinary | MultiDiscrete):
        raise DataError(f"observations has space {type(space).__name__}: flatten it to numbers")
    return space.shape


def _part_shape(space: Any) -> tuple[int, ...]:
    from gymnasium.spaces import Discrete

    return (int(space.n),) if isinstance(space, Discrete) else _flat_shape(space)


def _flatten(space: Any, observations: Any) -> np.ndarray:
    """An episode's observations `[t + 1, ...]`; those of several parts `[t + 1, D]` float32, parts side by side."""
    from gymnasium.spaces import Discrete

    parts = _parts(space)
    if parts is None:
        return observations
    columns = []
    for key, part in parts.items():
        column = _flatten(part, observations[key])
        if isinstance(part, Discrete):
            column = np.eye(int(part.n), dtype=np.float32)[np.asarray(column) - int(part.start)]
        columns.append(np.asarray(column, np.float32).reshape(len(column), -1))
    return np.concatenate(columns, axis=1)


def _read_labels(details: list[dict[str, Any]]) -> tuple[list[Any] | None, tuple[str, ...]]:
    """One label for each episode, or None, and the policies' names in the order of the labels."""
    named = bool(details) and all("policy" in detail for detail in details)
    if details and all("label" in detail for detail in details):
        labels = [detail["label"] for detail in details]
        name_of = {label: str(detail["policy"]) for label, detail in zip(labels, details, strict=True)} if named else {}
        return labels, tuple(name_of[label] for label in sorted(name_of))
    if named:
        labels = [str(detail["policy"]) for detail in details]
        return labels, tuple(sorted(set(labels)))
    return None, ()


def _root(root: str | os.PathLike | None) -> Path:
    return Path(root or os.environ.get(_ROOT) or Path.home() / ".minari" / "datasets")


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
