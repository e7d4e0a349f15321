"""Policies of maps: one that plans (`networks.planner`), and networks on features of the map.

Policies cannot memorise raw maps that are new in every episode. These see an observation split into the map and the
agent's cell. The planner learns what walls, goals or special cells are worth to a cluster's policy and computes the
way. The others learn features of a cell from the map around it (`networks.EXTRACTORS`), and read them where the agent
is.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from trajclust_jax.clustering.policies.data import Arrangement, StepChunks, StepData, flat
from trajclust_jax.clustering.policies.history import HistoryPolicy, TrajectoryPolicy, training_horizon
from trajclust_jax.clustering.policies.markov import MarkovScorer
from trajclust_jax.clustering.policies.member import Member
from trajclust_jax.clustering.policies.network import StepValue, embedded
from trajclust_jax.clustering.preprocessing import Preprocessing
from trajclust_jax.data import Codebook, Trajectories
from trajclust_jax.devices import OnHost
from trajclust_jax.networks import EXTRACTORS, MOVES, Placed, Planner, ensemblize

FEATURE_FLOATS = 400  # working memory of an extractor of features, for each cell of a map


@struct.dataclass
class PlacedChunks(StepChunks):
    """Steps at places on maps. A trajectory has a slot for each stretch of steps on one map, at most J."""

    places: jax.Array | OnHost  # [C, n, T] int32, slot * H * W + cell
    map_rows: jax.Array  # [C, n, J] int32: the slots' rows of `MapData.maps`

    STEPS: ClassVar[tuple[str, ...]] = ("actions", "places")


@struct.dataclass
class MapData(StepData):
    """Data whose observations are split into map and position."""

    chunks: PlacedChunks
    maps: jax.Array  # [U, P, H, W] uint8: the distinct maps, planes without the agent's
    kernel: jax.Array  # [A, 4] float32: how often each action moved up, down, left, right

    @property
    def example(self) -> Placed:
        """See `MixtureData`."""
        return self.observed(jnp.zeros(1, jnp.int32), 1)

    def observed(self, positions: jax.Array, horizon: int, start: jax.Array | None = None) -> Placed:
        """See `StepData`."""
        places = self.steps(self.chunks.places, positions, horizon, start)
        return self._placed(flat(self.chunks.map_rows)[positions], places)

    def observed_in(self, chunk: PlacedChunks) -> Placed:
        """See `StepData`."""
        return self._placed(chunk.map_rows, chunk.places)

    def _placed(self, rows: jax.Array, places: jax.Array) -> Placed:
        num, slots = rows.shape
        size = self.maps[0, 0].size
        columns = jnp.arange(num)[:, None] * slots + places // size
        return Placed(jnp.asarray(self.maps)[rows.reshape(-1)], columns, places % size, self.kernel)


def agent_plane(trajectories: Trajectories) -> int:
    """The plane of grid observations `[H, W, C]` that has a single 1 in each observation and changes within episodes.

    Raises:
        ValueError: observations that are no such grids.
    """
    shape = trajectories.observation_shape
    if len(shape) != 3 or not trajectories.discrete:
        raise ValueError("planners and extractors need maps [H, W, planes] as observations and discrete actions")
    flat, rows = _observed(trajectories)
    within = np.diff(np.nonzero(np.asarray(trajectories.mask))[0], prepend=-1) == 0  # steps that follow another one
    for plane in range(shape[-1]):
        cells = flat[..., plane].reshape(len(flat), -1)
        single = ((cells == 0) | (cells == 1)).all() and (cells.sum(1) == 1).all()
        if single and np.diff(cells.argmax(1)[rows], prepend=0)[within].any():
            return plane
    raise ValueError("planners and extractors need a plane that marks the agent's cell: exactly one 1, which moves")


def _observed(trajectories: Trajectories) -> tuple[np.ndarray, np.ndarray]:
    """Observations `[U, H, W, C]`, and the row of every real step, trajectory by trajectory."""
    observations, mask = trajectories.observations, np.asarray(trajectories.mask)
    if isinstance(observations, Codebook):
        return np.asarray(observations.table), np.asarray(observations.ids)[mask]
    flat = np.asarray(observations)[mask]
    return flat, np.arange(len(flat))


def split_maps(
    trajectories: Trajectories, agent: int | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Splits grid observations: maps `[U, P, H, W]`, slots' rows `[N, J]`, slot and cell `[N, T]` of each step.

    `agent` is the plane that marks the agent's cell, where it is known.

    Raises:
        ValueError: see `agent_plane`.
    """
    agent, mask = agent_plane(trajectories) if agent is None else agent, np.asarray(trajectories.mask)
    flat, rows = _observed(trajectories)
    cell_of_row = flat[..., agent].reshape(len(flat), -1).argmax(1)
    rest = np.ascontiguousarray(np.delete(flat, agent, axis=-1).transpose(0, 3, 1, 2).astype(np.uint8))
    keys = rest.reshape(len(rest), -1).view(np.dtype((np.void, rest[0].size)))[:, 0]
    _, first, map_of_row = np.unique(keys, return_index=True, return_inverse=True)

    map_ids, cells = np.full(mask.shape, -1), np.zeros(mask.shape, np.int32)
    map_ids[mask], cells[mask] = map_of_row[rows], cell_of_row[rows]
    changed = np.ones(mask.shape, bool)
    changed[:, 1:] = map_ids[:, 1:] != map_ids[:, :-1]
    changed &= mask
    slots = np.cumsum(changed, axis=1) - 1  # a map that comes back gets another slot
    table = np.zeros((len(mask), slots.max() + 1), np.int32)
    n, t = np.nonzero(changed)
    table[n, slots[n, t]] = map_ids[n, t]
    return rest[first], table, np.where(mask, slots, 0), cells


def move_frequencies(trajectories: Trajectories, cells: np.ndarray, width: int) -> np.ndarray:
    """`[A, 4]` float32: how often each action moved up, down, left and right, over all trajectories.

    Walls are included: a blocked move counts as none. That only scales a row, and the policy learns its own scale.
    """
    mask = np.asarray(trajectories.mask)
    following = mask[:, 1:]
    steps = (cells[:, 1:] - cells[:, :-1])[following]
    actions = np.asarray(trajectories.actions)[:, : mask.shape[1] - 1][following]
    offsets = [row * width + column for row, column in MOVES]
    counts = np.array(
        [[((actions == a) & (steps == offset)).sum() for offset in offsets] for a in range(trajectories.num_actions)]
    )
    return (counts / np.maximum(np.bincount(actions, minlength=len(counts))[:, None], 1)).astype(np.float32)


def check_maps(trajectories: Trajectories, extractor: str | None) -> None:
    """Raises ValueError for observations that `split_maps` can't take apart, and for an unknown extractor."""
    if extractor not in (None, *EXTRACTORS):
        raise ValueError(f"unknown extractor {extractor!r}: choose one of {', '.join(EXTRACTORS)}")
    agent_plane(trajectories)


def map_preprocessing(trajectories: Trajectories) -> Preprocessing:
    """What policies and encoders of maps need, fitted to these trajectories."""
    agent = agent_plane(trajectories)
    maps, _, _, cells = split_maps(trajectories, agent)
    return Preprocessing(agent=agent, moves=move_frequencies(trajectories, cells, maps.shape[-1]))


def prepare_maps(
    trajectories: Trajectories,
    cell_floats: int,
    memory_budget: int,
    preprocessing: Preprocessing | None = None,
    floats: int = 0,
) -> MapData:
    """Maps, slots and places of all steps, in chunks of at most `memory_budget` bytes of E-step work.

    That work is `cell_floats` for each cell of a trajectory's maps, and `floats` for the trajectory.
    """
    maps, rows, slots, cells = split_maps(trajectories, preprocessing and preprocessing.agent)
    size = maps[0, 0].size
    arranged = Arrangement.of(trajectories, None, 4 * (rows.shape[1] * size * cell_floats + floats), memory_budget)
    chunks = PlacedChunks(
        **arranged.chunk_fields,
        actions=arranged.actions,
        scale=None,
        places=arranged.steps((slots * size + cells).astype(np.int32)),
        map_rows=arranged.chunked(rows),
    )
    kernel = move_frequencies(trajectories, cells, maps.shape[-1]) if preprocessing is None else preprocessing.moves
    return MapData(chunks=chunks, horizon=arranged.horizon, maps=maps, kernel=kernel, **arranged.data_fields)


class _OfMaps:
    """What the policies of maps share: which data they fit."""

    def check(self, trajectories: Trajectories) -> None:
        """Raises ValueError for observations that `split_maps` can't take apart, and for an unknown extractor."""
        check_maps(trajectories, self.extractor)

    def preprocessing(self, trajectories: Trajectories) -> Preprocessing:
        """How the class sees trajectories, fitted to these."""
        return map_preprocessing(trajectories)


@dataclasses.dataclass(frozen=True)
class PlanningPolicy(_OfMaps, TrajectoryPolicy):
    """A `Planner` for each cluster: Markov, its gradients from minibatches of its own cluster's trajectories."""

    learning_rate: float = 1e-2
    layers: int = 3
    sweeps: int = 20
    hidden: int = 16

    @property
    def planner(self) -> Planner:
        return Planner(self.layers, self.sweeps, self.hidden)

    def prepare(
        self, trajectories: Trajectories, num_members: int, preprocessing: Preprocessing | None = None
    ) -> MapData:
        """Maps, slots and places; see `MapData`."""
        return prepare_maps(
            trajectories,
            num_members * (self.hidden + 4 * trajectories.num_actions),
            self.memory_budget,
            preprocessing,
        )

    def init(self, key: jax.Array, data: MapData) -> Member:
        """A fresh policy and its optimiser (unbatched); the key is consumed."""
        params = self.planner.init(key, data.example.maps, data.kernel)
        return Member(params, self.optimizer.init(params))

    def log_probs(self, params: Any, positions: jax.Array, data: MapData, start: None = None) -> jax.Array:
        """See `TrajectoryPolicy`."""
        del start
        actions = data.steps(data.chunks.actions, positions, data.horizon)
        return self.placed_log_probs(params, data.observed(positions, data.horizon), actions)

    def placed_log_probs(self, params: Any, placed: Placed, actions: jax.Array) -> jax.Array:
        """`[n, T]` log-probabilities of actions `[n, T]` on placed observations."""
        logits = self.planner.apply(params, placed.maps, placed.kernel)  # [A, HW, M]
        return logits[actions, placed.cells, placed.columns]

    def scorer(
        self, params: Any, data: MapData, of: StepValue = lambda log_prob: log_prob
    ) -> Callable[[PlacedChunks], jax.Array]:
        """Log-likelihoods `[R, K, n]` of a chunk: each map is planned on once, however long its trajectory stays."""

        def score(chunk: PlacedChunks) -> jax.Array:
            chunk = chunk.fetched()
            mask = jnp.arange(chunk.places.shape[1]) < chunk.lengths[:, None]

            def member(params):
                log_probs = self.placed_log_probs(params, data.observed_in(chunk), chunk.actions)
                chex.assert_equal_shape([mask, log_probs])
                return jnp.where(mask, of(log_probs), 0).sum(1)

            return ensemblize(member, 2)(params)

        return score


@dataclasses.dataclass(frozen=True)
class MarkovMapPolicy(_OfMaps, MarkovScorer, TrajectoryPolicy):
    """An MLP on features of the map where the agent is."""

    extractor: str = "conv"  # a name in `networks.EXTRACTORS`

    def prepare(
        self, trajectories: Trajectories, num_members: int, preprocessing: Preprocessing | None = None
    ) -> MapData:
        """Maps, slots and places; see `MapData`."""
        return prepare_maps(trajectories, num_members * FEATURE_FLOATS, self.memory_budget, preprocessing)

    def log_probs(self, params: Any, positions: jax.Array, data: MapData, start: None = None) -> jax.Array:
        """See `TrajectoryPolicy`."""
        del start
        network = self.network(data)
        features = embedded(network, params, data.observed(positions, data.horizon))
        actions = data.steps(data.chunks.actions, positions, data.horizon)
        return network.apply(params, features, method="read_out").log_prob(actions)


@dataclasses.dataclass(frozen=True)
class HistoryMapPolicy(_OfMaps, HistoryPolicy):
    """A GRU over features of the map where the agent has been so far."""

    extractor: str = "conv"  # a name in `networks.EXTRACTORS`

    def prepare(
        self, trajectories: Trajectories, num_members: int, preprocessing: Preprocessing | None = None
    ) -> MapData:
        """Maps, slots and places; see `MapData`."""
        data = prepare_maps(trajectories, num_members * FEATURE_FLOATS, self.memory_budget, preprocessing)
        return data.replace(horizon=training_horizon(trajectories, self.horizon_quantile))
