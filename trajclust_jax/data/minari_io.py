"""Datasets in Minari's storage, labels as episode metadata."""

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
    minari = _import()
    with located(dataset_id):
        try:
            namespace, _, _ = minari.dataset.minari_dataset.parse_dataset_id(dataset_id)
        except (ValueError, TypeError):  # a TypeError where the version is missing
            raise DataError("is not a Minari id: write it like namespace/name-v0") from None
        root = _root(root)
        folder = root / dataset_id
        if folder.exists():
            raise DataError(f"exists in {root}: choose another version, or delete it")
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


def load_minari(dataset_id_or_folder: str | os.PathLike, root: str | os.PathLike | None = None) -> Dataset:
    """Reads a Minari dataset: one that `save_minari` wrote, or any with Box or Discrete spaces.

    Labels come from the episodes' `label`, else from their `policy`, if all have one. Nothing is downloaded.

    Args:
        dataset_id_or_folder: an id below `root`, or the dataset's folder.
        root: as in `save_minari`.

    Raises:
        DataError: one line naming the dataset and what is wrong.
    """
    minari = _import()
    with located(dataset_id_or_folder):
        folder = minari_folder(dataset_id_or_folder, root)
        if folder is None:
            raise DataError(f"no Minari dataset in this folder, nor of this id in {_root(root)}: check the name")
        try:
            with _quiet():
                stored = minari.MinariDataset(folder / "data")
                described = stored.storage.metadata.get("trajclust")
                num_actions, start = _read_spaces(stored)
                episodes = [_read_episode(episode, start) for episode in stored.iterate_episodes()]
                details = list(stored.storage.get_episode_metadata(stored.episode_indices))
        except DataError:
            raise
        except (OSError, ValueError, TypeError, KeyError, AssertionError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise DataError(f"cannot be read ({reason}): write or download it again") from None
        labels, names = _read_labels(details)
        if described is None:
            trajectories = from_episodes(episodes, num_actions)
            name = stored.spec.dataset_id
            return build_dataset(trajectories, labels, name=name, source=name, policy_names=names)
        return _ours(described, episodes, labels, details)


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
    metadata.check(dataset)
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


def _read_spaces(stored: Any) -> tuple[int, int]:
    """The number of discrete actions (0: continuous) and the first of them."""
    from gymnasium.spaces import Box, Discrete

    for name, space in (("observations", stored.observation_space), ("actions", stored.action_space)):
        if not isinstance(space, Box | Discrete):
            raise DataError(f"{name} has space {type(space).__name__}: only Box and Discrete are read, flatten it")
    space = stored.action_space
    return (int(space.n), int(space.start)) if isinstance(space, Discrete) else (0, 0)


def _read_episode(episode: Any, start: int) -> Episode:
    actions = episode.actions - start if start else episode.actions
    terminated = len(episode.terminations) > 0 and bool(episode.terminations[-1])
    return episode.observations, actions, episode.rewards, terminated


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
