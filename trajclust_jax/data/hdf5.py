"""HDF5 files: opening them, their arrays, and layouts with a group or numbered arrays for each episode."""

import contextlib
import re
from collections import ChainMap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from trajclust_jax.data.episodes import Episode, Offsets, column_offsets, count_actions, from_episodes
from trajclust_jax.data.fields import FIELDS, Lazy, Reading, offset_parameters, plain_actions, read_fields, read_labels
from trajclust_jax.data.files import check_file, check_size
from trajclust_jax.data.spaces import flatten_parts
from trajclust_jax.data.types import DataError
from trajclust_jax.data.validation import check_flags, check_numeric, located, told

_ADVICE = "is it a whole .hdf5 file? Copy it again"
_CAUSES = (  # why a file cannot be opened: words in HDF5's message, and what they mean
    ("unable to lock file", "is locked by a program that writes it: let it end or close the file"),
    ("already open", "was not closed by the program that wrote it: let it end, or run h5clear -s on a copy"),
    ("file signature not found", "cannot be read (no HDF5 signature): is it an .hdf5 file? Copy it again"),
    ("truncated file", "cannot be read (it is cut short): copy it again"),
)
_DEMO = re.compile(r"\D*(\d+)")


class StoredArray:
    """An array of an open file, read when it is sliced; errors then name it."""

    def __init__(self, name: str, dataset: Any):
        self.name, self._dataset = name, dataset
        self.shape, self.dtype, self.ndim = dataset.shape, dataset.dtype, len(dataset.shape)

    def __getitem__(self, index: Any) -> Any:
        with told(self.name, _ADVICE):
            return self._dataset[index]

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[()], dtype)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The open file; any error that its content causes becomes a one-line DataError.

    Raises:
        DataError: if it cannot be opened or read.
    """
    import h5py

    check_file(path)
    with told("the content", _ADVICE):
        try:
            file = h5py.File(path, "r")
        except OSError as error:
            for words, meaning in _CAUSES:
                if words in str(error):
                    raise DataError(meaning) from error
            raise
        with file:
            yield file


def stands_alone(path: Path) -> bool:
    """Whether no link, virtual array or external storage of an HDF5 file leads to another file; True of files in other
    formats, False of those with damaged parts, which may lead anywhere."""
    import h5py

    def elsewhere(_: str, item: Any) -> bool | None:  # None goes on to the next
        if isinstance(item, h5py.Dataset):
            virtual = item.is_virtual and any(source.file_name != "." for source in item.virtual_sources())
            return bool(virtual or item.external) or None
        return isinstance(item, h5py.ExternalLink) or None

    if not h5py.is_hdf5(path):
        return True
    try:
        with h5py.File(path, "r") as file:
            return not (file.visititems_links(elsewhere) or file.visititems(elsewhere))
    except (OSError, RuntimeError, KeyError):
        return False


def fields_of(file: Any) -> Lazy:
    """The known arrays of a file, or of a group in it, each checked when it is first used."""
    return Lazy([name for name in FIELDS if name in file.keys()], lambda name: stored(file, name))  # noqa: SIM118


def stored(group: Any, name: str) -> StoredArray:
    """An array of a file or a group, not read yet.

    Raises:
        DataError: if it is no array, was never written, or is compressed by a filter that is not installed.
    """
    import h5py

    where = f"{group.name}/{name}".lstrip("/")
    with told(where, _ADVICE):
        try:
            dataset = group[name]
        except KeyError:
            if isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise
            raise DataError(f"{where} is a link to nothing: copy what it links to, too") from None
        if not isinstance(dataset, h5py.Dataset):
            raise DataError(f"{where} is a group: give an array")
        if dataset.shape is None:
            raise DataError(f"{where} has no values: write it again")
        _check_filters(where, dataset)
        _check_written(where, dataset, Path(group.file.filename))
        return StoredArray(where, dataset)


def read_file(file: Any, instead: Mapping[str, np.ndarray]) -> Reading:
    """Trajectories and labels of a file: from its arrays by `read_fields`, or episode by episode (robomimic, d3rlpy 2).

    Args:
        file: an open file.
        instead: arrays to take instead of the file's.

    Raises:
        DataError: one line naming the field.
    """
    for episodes, how in ((_robomimic(file), "data/demo_*"), (_d3rlpy(file), "num_episodes")):
        if episodes:
            return _read_episodes(episodes, how, fields_of(file))
    return read_fields(ChainMap(instead, fields_of(file)))


class _Stored(NamedTuple):
    """An episode in a file: arrays `[t, ...]`."""

    observations: dict[str, StoredArray]  # the parts of an observation, [t, ...] or [t + 1, ...]
    next_observations: dict[str, StoredArray]  # the parts of the next one; may be empty
    actions: StoredArray
    rewards: StoredArray | None
    terminated: np.ndarray  # [t] or a scalar: the last value says whether the MDP ended the episode


def _robomimic(file: Any) -> list[_Stored]:
    """The episodes of robomimic's layout, `data/demo_0`, `data/demo_1`, ..., if the file has it."""
    import h5py

    data = file.get("data")
    if not isinstance(data, h5py.Group):
        return []
    demos = [name for name in data if _DEMO.fullmatch(name)]
    demos = sorted(demos, key=lambda name: int(_DEMO.fullmatch(name)[1]))
    episodes = [_demo(data, name) for name in demos]
    _check_same_parts({f"data/{name}/obs": each.observations for name, each in zip(demos, episodes, strict=True)})
    return episodes


def _demo(data: Any, name: str) -> _Stored:
    import h5py

    demo, where = data[name], f"data/{name}"
    if not isinstance(demo, h5py.Group):
        raise DataError(f"{where} is an array: give a group with obs and actions")
    for needed in ("obs", "actions"):
        if needed not in demo:
            raise DataError(f"{where}/{needed} is missing: add it (robomimic's dataset_states_to_obs makes obs)")
    actions = _steps(demo, "actions")
    dones = np.zeros(1, bool)
    if "dones" in demo:
        dones = check_flags(f"{where}/dones", np.asarray(stored(demo, "dones")), len(actions))
    rewards = stored(demo, "rewards") if "rewards" in demo else None
    return _Stored(_parts(demo, "obs"), _parts(demo, "next_obs"), actions, rewards, dones)


def _parts(group: Any, name: str) -> dict[str, StoredArray]:
    """The parts of an observation: a group's arrays by their sorted names, or an array by itself."""
    import h5py

    if name not in group:
        return {}
    if isinstance(group[name], h5py.Group):
        if not len(group[name]):
            raise DataError(f"{group.name}/{name} is empty: add the parts of an observation")
        return {part: _steps(group[name], part) for part in sorted(group[name])}
    return {"": _steps(group, name)}


def _steps(group: Any, name: str) -> StoredArray:
    """An array `[t, ...]` of numbers, not read yet."""
    array = stored(group, name)
    check_numeric(array.name, array)
    if not array.ndim:
        raise DataError(f"{array.name} is a single value: give one for every step, [t, ...]")
    return array


def _d3rlpy(file: Any) -> list[_Stored]:
    """The episodes of a replay buffer of d3rlpy 2: `observations_0`, `actions_0`, `terminated_0`, ..."""
    if "num_episodes" not in file:
        return []
    number = np.asarray(stored(file, "num_episodes"))
    if number.shape != () or number.dtype.kind not in "iu" or not 1 <= number <= len(file):
        raise DataError(f"num_episodes is {_word(number)}: give the number of episodes in the file")
    if f"actions_{number}" in file:
        raise DataError(f"num_episodes is {number}, but there is actions_{number}: write the buffer again")
    episodes = []
    for n in range(int(number)):
        names = [f"observations_{n}"] if f"observations_{n}" in file else []
        while not names or names[-1].count("_") == 2:  # a tuple's parts
            name = f"observations_{n}_{len(names)}"
            if name not in file:
                break
            names.append(name)
        for name in (*(names or [f"observations_{n}"]), f"actions_{n}", f"rewards_{n}", f"terminated_{n}"):
            if name not in file:
                raise DataError(f"{name} is missing, and num_episodes is {number}: write the buffer again")
        terminated = np.asarray(stored(file, f"terminated_{n}"))
        if terminated.size != 1 or not np.isin(terminated, (0, 1)).all():
            raise DataError(f"terminated_{n} is {_word(terminated)}: give True or False")
        observations = {name if len(names) > 1 else "": _steps(file, name) for name in names}
        actions, rewards = _steps(file, f"actions_{n}"), _steps(file, f"rewards_{n}")
        episodes.append(_Stored(observations, {}, actions, rewards, terminated))
    # Their names have the episode's number.
    numbered = [dict(enumerate(each.observations.values())) for each in episodes]
    _check_same_parts({f"observations_{n}": parts for n, parts in enumerate(numbered)})
    return episodes


def _check_same_parts(observations: Mapping[str, Mapping[Any, StoredArray]]) -> None:
    """Refuses episodes whose observations have other parts than the first one's: concatenated, they may be as wide.

    Args:
        observations: the parts of each episode, by where it is.
    """
    first, wanted = next(((where, _shapes(parts)) for where, parts in observations.items()), ("", {}))
    for where, parts in observations.items():
        if (found := _shapes(parts)) != wanted:
            said = [", ".join(f"{name} {list(shape)}".strip() for name, shape in x.items()) for x in (found, wanted)]
            raise DataError(f"{where} has {said[0]}, but {first} has {said[1]}: make them equal")


def _shapes(parts: Mapping[Any, StoredArray]) -> dict[Any, tuple[int, ...]]:
    """The shape of each part at one step."""
    return {name: part.shape[1:] or (1,) for name, part in parts.items()}


def _read_episodes(stored_episodes: list[_Stored], how: str, fields: Mapping[str, Any]) -> Reading:
    """Trajectories of episodes, read one at a time; where the final observation is unknown, the last one is
    repeated."""
    columns = [np.asarray(plain_actions(episode.actions, 1)) for episode in stored_episodes]
    discrete = all(actions.ndim == 1 for actions in columns)
    num_actions = max(map(count_actions, columns)) if discrete else 0

    def episodes() -> Iterator[Episode]:
        for episode, actions in zip(stored_episodes, columns, strict=True):
            observations = _observed(episode.observations)
            if len(observations) == len(actions):
                if episode.next_observations and _shapes(episode.next_observations) != _shapes(episode.observations):
                    where = episode.actions.name.rpartition("/")[0]
                    raise DataError(f"{where}/next_obs has other parts than obs: make them equal")
                final = _observed(episode.next_observations) if episode.next_observations else observations
                observations = np.concatenate([observations, final[-1:]])
            rewards = np.zeros(len(actions), np.float32) if episode.rewards is None else np.asarray(episode.rewards)
            if rewards.dtype.kind not in "biuf" or rewards.size != len(actions):
                raise DataError(f"{episode.rewards.name} is {rewards.dtype}{list(rewards.shape)}: give [t] numbers")
            terminated = episode.terminated.ravel()
            yield observations, actions, rewards.reshape(-1), len(terminated) > 0 and bool(terminated[-1])

    offsets = Offsets(
        column_offsets(lambda: (observations for observations, *_ in episodes())),
        None if discrete else column_offsets(lambda: columns),
    )
    lengths = [len(actions) for actions in columns]
    trajectories = from_episodes(episodes(), num_actions, lengths=lengths, offsets=offsets)
    return Reading(trajectories, *read_labels(fields), {"ends": how, **offset_parameters(offsets)})


def _word(array: np.ndarray) -> str:
    """A single value as it is, an array by its dtype and shape."""
    return str(array) if array.ndim == 0 else f"{array.dtype}{list(array.shape)}"


def _observed(parts: Mapping[str, StoredArray]) -> np.ndarray:
    """An observation's parts `[t, ...]` concatenated, `[t, D]`; an array that is in no group unchanged."""
    if "" in parts:
        return np.asarray(parts[""])
    with located(next(iter(parts.values())).name.rpartition("/")[0] or "observations"):
        return flatten_parts(parts)


def _check_filters(name: str, dataset: Any) -> None:
    """Refuses an array that is compressed by a filter which is not installed."""
    import h5py

    properties = dataset.id.get_create_plist()
    for index in range(properties.get_nfilters()):
        code, _, _, title = properties.get_filter(index)
        if not h5py.h5z.filter_avail(code):
            with contextlib.suppress(ImportError):
                import hdf5plugin  # noqa: F401 - brings most filters, where it is installed
        if not h5py.h5z.filter_avail(code):
            raise DataError(
                f"{name} is compressed by the HDF5 filter {code} ({title.decode(errors='replace')}), which is not "
                "installed: pip install hdf5plugin, or write the file with gzip"
            )


def _check_written(name: str, dataset: Any, path: Path) -> None:
    """Refuses arrays that were never written, or whose external files are missing: HDF5 would read them as zeros."""

    if dataset.is_virtual:
        _check_sources(name, dataset, path)
        return
    for file_name, offset, size in dataset.external or ():
        other = path.parent / file_name
        if not other.is_file() or other.stat().st_size < offset + min(size, dataset.nbytes):
            raise DataError(f"{name} lies in {file_name}, which is missing or cut short: copy it, too")
    if dataset.external or not dataset.size:
        return
    size = dataset.id.get_storage_size()
    if size == 0:
        raise DataError(f"{name} was declared, but never written: write it again")
    check_size(name, dataset.nbytes, size)
    if dataset.chunks is not None:
        chunks = np.prod(-(-np.array(dataset.shape) // np.array(dataset.chunks)))
        if dataset.id.get_num_chunks() < chunks and name.rpartition("/")[2] in ("observations", "actions"):
            raise DataError(f"{name} was written only in part: write it again")


def _check_sources(name: str, dataset: Any, path: Path) -> None:
    """Refuses an incomplete virtual array: its source files lack data, or part of it has no source."""
    import h5py

    mapped = 0
    for source in dataset.virtual_sources():
        count = source.vspace.get_select_npoints()
        mapped += count
        other = path if source.file_name == "." else path.parent / source.file_name
        if not other.is_file():
            raise DataError(f"{name} is virtual, and its source {source.file_name} is missing: copy it, too")
        with h5py.File(other, "r") as file:
            if source.dset_name not in file:
                raise DataError(f"{name} is virtual, and {source.file_name} has no {source.dset_name}: copy it, too")
            array = file[source.dset_name]
            _check_written(f"{name} ({source.file_name})", array, other)
            if source.src_space.get_select_type() == h5py.h5s.SEL_ALL:
                missing = array.size < count
            else:
                last = source.src_space.get_select_bounds()[1]
                missing = len(last) != len(array.shape) or any(np.array(last) >= array.shape)
            if missing:
                raise DataError(f"{name} is virtual, and maps more than {source.file_name} has: copy it again")
    if mapped < dataset.size:
        raise DataError(f"{name} is virtual, and no file gives {dataset.size - mapped} of its numbers: write it again")
