"""Storing repeated observations once each (host-side, exact to the bit)."""

import numpy as np

from trajclust_jax.data.types import Codebook, Trajectories

MAX_SHARE = 1 / 4  # a codebook pays where U <= MAX_SHARE * (steps + final observations)
_BLOCKS, _BLOCK = 64, 1024  # the sample that tells continuous data apart, in runs of consecutive rows
_GIVE_UP = 0.95  # distinct share of that sample above which no codebook is tried


def compress(trajectories: Trajectories) -> Trajectories:
    """Trajectories whose repeated observations are stored once each, in a `Codebook`.

    Dense observations `[N, T, ...]` with `[N, ...]` final ones become codebooks that share one table `[U, ...]`
    of their own dtype, numbered by first appearance on real steps (ids int32, 0 on padding), if U is at most
    `MAX_SHARE` of their number; else the trajectories are returned as they are. An existing codebook loses its
    unused rows, and equal rows become one; with nothing to do, the same object is returned. Rows are equal
    when their bytes are: -0.0 and 0.0 stay apart.
    """
    if isinstance(trajectories.observations, Codebook):
        return _tidy(trajectories)
    if _looks_distinct(trajectories):
        return trajectories
    return encode(trajectories, MAX_SHARE) or trajectories


def encode(trajectories: Trajectories, max_share: float = 1.0) -> Trajectories | None:
    """The codebook form of dense trajectories, or None (early) where U is above `max_share` of the observations."""
    observations, final = np.asarray(trajectories.observations), np.asarray(trajectories.final_observations)
    mask = _mask(trajectories)
    steps = np.flatnonzero(mask)
    rows = observations.reshape(mask.size, *observations.shape[2:])
    known: dict[bytes, int] = {}
    limit = max_share * (len(steps) + len(final))
    numbers = np.empty(len(steps), np.int32)
    for start in range(0, len(steps), _BLOCK):  # in blocks: a small copy at a time, and an early end
        numbers[start : start + _BLOCK] = _number(rows[steps[start : start + _BLOCK]], known)
        if len(known) > limit:
            return None
    final_ids = np.array(_number(final, known), np.int32)
    if len(known) > limit:
        return None
    table = np.frombuffer(bytearray().join(known), observations.dtype).reshape(-1, *observations.shape[2:])
    ids = np.zeros(mask.shape, np.int32)
    ids[mask] = numbers
    return trajectories.replace(observations=Codebook(table, ids), final_observations=Codebook(table, final_ids))


def recoded(trajectories: Trajectories, table: np.ndarray) -> Trajectories:
    """The codebook form whose table begins with the rows of `table [U, ...]`, followed by the rows that are new.

    Rows are compared in `table`'s dtype, whatever the dtype of these trajectories, if that changes no value.

    Raises:
        ValueError: if `table` has equal rows, or if its dtype cannot represent the observations.
    """
    coded = encode(trajectories) if not isinstance(trajectories.observations, Codebook) else trajectories
    rows = np.asarray(coded.observations.table)
    with np.errstate(invalid="ignore", over="ignore"):
        same = rows.astype(table.dtype)
    if not np.array_equal(same, rows):
        raise ValueError(f"observations are {rows.dtype} with values that {table.dtype} has not: not those trained on")
    known: dict[bytes, int] = {}
    if _number(table, known) != list(range(len(table))):
        raise ValueError("the codebook trained on has equal rows: compress the trajectories before training")
    numbers = np.array(_number(same, known), np.int32)
    whole = np.frombuffer(bytearray().join(known), table.dtype).reshape(-1, *table.shape[1:])
    placed = lambda ids: Codebook(whole, numbers[np.asarray(ids)])
    return coded.replace(
        observations=placed(coded.observations.ids), final_observations=placed(coded.final_observations.ids)
    )


def _number(rows: np.ndarray, known: dict[bytes, int]) -> list[int]:
    """The number of each row by its bytes; new rows enter `known` in order. A dict is exact: nothing can collide."""
    data, width = rows.tobytes(), rows.nbytes // len(rows)
    return [known.setdefault(data[i : i + width], len(known)) for i in range(0, len(data), width)]


def _looks_distinct(trajectories: Trajectories) -> bool:
    """Whether a sample has almost no repeated rows, so that continuous data are recognised at little cost.

    The sample is made of runs of consecutive steps, to find repeats within an episode, spread over all steps, to find
    repeats between episodes.
    """
    mask = _mask(trajectories)
    steps = np.flatnonzero(mask)
    if len(steps) <= _BLOCKS * _BLOCK:
        return False
    observations = np.asarray(trajectories.observations)
    starts = np.linspace(0, len(steps) - _BLOCK, _BLOCKS).astype(np.int64)
    sample = steps[(starts[:, None] + np.arange(_BLOCK)).ravel()]
    known: dict[bytes, int] = {}
    _number(observations.reshape(mask.size, *observations.shape[2:])[sample], known)
    return len(known) > _GIVE_UP * len(sample)


def _tidy(trajectories: Trajectories) -> Trajectories:
    """A codebook without unused or repeated rows, the others in their order, and with ids 0 on padding."""
    mask = _mask(trajectories)
    table = np.asarray(trajectories.observations.table)
    ids, final_ids = np.asarray(trajectories.observations.ids), np.asarray(trajectories.final_observations.ids)
    used = np.zeros(len(table), bool)
    used[ids[mask]] = True
    used[final_ids] = True
    known: dict[bytes, int] = {}
    renumber = np.zeros(len(table), np.int32)
    renumber[used] = _number(table[used], known)
    if len(known) == len(table) and not ids[~mask].any():
        return trajectories
    _, first = np.unique(renumber[used], return_index=True)
    table = table[used][first]
    tidy_ids = np.zeros(ids.shape, np.int32)
    tidy_ids[mask] = renumber[ids[mask]]
    return trajectories.replace(
        observations=Codebook(table, tidy_ids), final_observations=Codebook(table, renumber[final_ids])
    )


def _mask(trajectories: Trajectories) -> np.ndarray:
    return np.arange(trajectories.max_length) < np.asarray(trajectories.lengths)[:, None]
