"""A policy class that plans on the map it observes, for `policy_mixture`; see `networks.planner`.

Raw maps that are fresh in every episode defeat a policy that has to remember them. This one sees which cells are
walls, goals or special, learns what they are worth to a cluster's policy, and computes the way.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from trajclust_jax.clustering.policies import (
    Chunks,
    Member,
    MixtureData,
    StepValue,
    TrajectoryPolicy,
    prepare,
)
from trajclust_jax.data import Codebook, Trajectories
from trajclust_jax.networks import MOVES, Planner, ensemblize


@struct.dataclass
class PlanningData(MixtureData):
    """`MixtureData` whose observations are taken apart into map and position.

    `table` holds the U distinct maps `[U, P, H, W]` uint8 (planes without the agent's); a chunk's `ids [C, n, T]`
    are places `slot * H * W + cell`, and `inputs [C, n, J]` int32 the rows of the maps in a trajectory's J slots.
    """

    kernel: jax.Array  # [A, 4] float32: how often each action moved up, down, left, right


def agent_plane(trajectories: Trajectories) -> int:
    """The plane of grid observations `[H, W, C]` that has a single 1 in every one and changes within episodes.

    Raises:
        ValueError: observations that are no such grids.
    """
    shape = trajectories.observation_shape
    if len(shape) != 3 or not trajectories.discrete:
        raise ValueError("a planning policy needs maps [H, W, planes] as observations and discrete actions")
    flat, rows = _observed(trajectories)
    within = np.diff(np.nonzero(np.asarray(trajectories.mask))[0], prepend=-1) == 0  # steps that follow another one
    for plane in range(shape[-1]):
        cells = flat[..., plane].reshape(len(flat), -1)
        single = ((cells == 0) | (cells == 1)).all() and (cells.sum(1) == 1).all()
        if single and np.diff(cells.argmax(1)[rows], prepend=0)[within].any():
            return plane
    raise ValueError("a planning policy needs a plane that marks the agent's cell: exactly one 1, which moves")


def _observed(trajectories: Trajectories) -> tuple[np.ndarray, np.ndarray]:
    """Observations `[U, H, W, C]`, and the row of every real step, trajectory by trajectory."""
    observations, mask = trajectories.observations, np.asarray(trajectories.mask)
    if isinstance(observations, Codebook):
        return np.asarray(observations.table), np.asarray(observations.ids)[mask]
    flat = np.asarray(observations)[mask]
    return flat, np.arange(len(flat))


def split_maps(trajectories: Trajectories) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Takes grid observations apart: maps `[U, P, H, W]`, slots' rows `[N, J]`, slot and cell `[N, T]` of each step.

    Raises:
        ValueError: see `agent_plane`.
    """
    agent, mask = agent_plane(trajectories), np.asarray(trajectories.mask)
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

    It has the walls in it: a blocked move counts as none. That scales a row, and the policy learns its own scale.
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


@dataclasses.dataclass(frozen=True)
class PlanningPolicy(TrajectoryPolicy):
    """A `Planner` for each cluster: Markov, its gradients from minibatches of its own cluster's trajectories."""

    learning_rate: float = 1e-2
    layers: int = 3
    sweeps: int = 20
    hidden: int = 16

    @property
    def planner(self) -> Planner:
        return Planner(self.layers, self.sweeps, self.hidden)

    def check(self, trajectories: Trajectories) -> None:
        """Raises ValueError for observations that `split_maps` can't take apart."""
        agent_plane(trajectories)

    def prepare(self, trajectories: Trajectories, num_members: int) -> PlanningData:
        """Maps, slots and places; see `PlanningData`."""
        maps, rows, slots, cells = split_maps(trajectories)
        size = maps[0, 0].size
        places = Codebook(np.zeros((1, 1), np.uint8), (slots * size + cells).astype(np.int32))
        coded = trajectories.replace(observations=places, final_observations=places.replace(ids=places.ids[:, 0]))
        floats = rows.shape[1] * size * (self.hidden + 4 * trajectories.num_actions)
        data = prepare(coded, 4 * floats * num_members, self.memory_budget)
        chunks = data.chunks
        ordered = np.zeros((data.num_slots, rows.shape[1]), np.int32)
        ordered[: len(rows)] = rows[data.order]
        fields = {field.name: getattr(data, field.name) for field in dataclasses.fields(data)}
        fields["table"] = maps
        fields["chunks"] = chunks.replace(inputs=ordered.reshape(*chunks.lengths.shape, -1))
        return PlanningData(**fields, kernel=move_frequencies(trajectories, cells, maps.shape[-1]))

    def init(self, key: jax.Array, data: PlanningData) -> Member:
        """A fresh policy and its optimiser (unbatched); the key is consumed."""
        params = self.planner.init(key, jnp.zeros((1, *data.table.shape[1:]), jnp.uint8), data.kernel)
        return Member(params, self.optimizer.init(params))

    def log_probs(self, params: Any, positions: jax.Array, data: PlanningData) -> jax.Array:
        """See `TrajectoryPolicy`."""
        chunks = data.chunks
        rows = chunks.inputs.reshape(data.num_slots, -1)[positions]
        places, actions = data.steps(chunks.ids)[positions], data.steps(chunks.actions)[positions]
        return self.on_maps(params, rows, places, actions, data)

    def on_maps(self, params: Any, rows: jax.Array, places: jax.Array, actions: jax.Array, data: PlanningData):
        """`[n, T]` log-probabilities of actions on the trajectories' maps `rows [n, J]`, at their `places [n, T]`."""
        num, slots = rows.shape
        logits = self.planner.apply(params, data.table[rows.reshape(-1)], data.kernel)  # [A, HW, n * J]
        size = logits.shape[1]
        column = jnp.arange(num)[:, None] * slots + places // size
        return logits[actions, places % size, column]

    def scorer(
        self, params: Any, data: PlanningData, of: StepValue = lambda log_prob: log_prob
    ) -> Callable[[Chunks], jax.Array]:
        """Log-likelihoods `[R, K, n]` of a chunk: each map is planned on once, however long its trajectory stays."""

        def score(chunk: Chunks) -> jax.Array:
            mask = jnp.arange(chunk.ids.shape[1]) < chunk.lengths[:, None]

            def member(params):
                log_probs = self.on_maps(params, chunk.inputs, chunk.ids, chunk.actions, data)
                return jnp.where(mask, of(log_probs), 0).sum(1)

            return ensemblize(member, 2)(params)

        return score
