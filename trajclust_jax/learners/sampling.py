"""Minibatches of recorded transitions, and how they are drawn.

A learner names its `Sampler`; `Offline` draws by it. Uniform ones are here; a sampler of another kind (one cluster at a
time, weighted) is a class with the same three functions.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from flax import struct

from trajclust_jax.data.preparation import Frames, Scaling


class Batch(NamedTuple):
    """B transitions. `terminated` cuts the bootstrap; a time limit does not.

    The trajectory is there where transitions were recorded, and the sampler's state where one drew them; what stands
    between, where a learner asks for it (`ASKS`).
    """

    observations: jax.Array  # [B, D]
    actions: jax.Array  # [B, A]
    rewards: jax.Array  # [B]
    next_observations: jax.Array  # [B, D]
    terminated: jax.Array  # [B] bool
    trajectory: jax.Array | None = None  # [B] int32: its place in the data
    next_actions: jax.Array | None = None  # [B, A]: as recorded; zeros after a trajectory's last step
    paired: jax.Array | None = None  # [B] bool, of "pairs": the next action was recorded. "next_actions" leave out cuts
    n_step_rewards: jax.Array | None = None  # [B]: discounted sum of up to n rewards
    n_step_observations: jax.Array | None = None  # [B, D]: what followed the last of them
    n_step_discount: jax.Array | None = None  # [B]: of its value; 0 after a terminal step
    returns: jax.Array | None = None  # [B]: discounted sum of the rewards from this step to the trajectory's end
    sampler: Any = None  # the state of the sampler that drew it, for losses that depend on the draw

    def observed(self, change: Callable[[Any], Any]) -> "Batch":
        """With every kind of observation changed."""
        given = {name: getattr(self, name) for name in self._fields if name.endswith("observations")}
        return self._replace(**{name: change(value) for name, value in given.items() if value is not None})


@struct.dataclass
class OfflineData:
    """Transitions on the device. With clusters the transitions of each are together, and the others have an axis K.

    Integer observations, images above all, take a fourth of the memory that scaled ones would, and successors none:
    the batch has their rows in `frames`, and a gradient step scales what it draws.
    """

    batch: Batch  # leaves [P, ...], scaled; observations are rows [P] int32 where there are frames
    first: jax.Array  # [] or [K] int32: where a cluster's transitions begin
    count: jax.Array  # [] or [K] int32: how many they are
    scaling: Scaling
    frames: Frames | None = None
    before: Any = None  # the data of what is trained before the learner
    num_trajectories: int = struct.field(pytree_node=False, default=1)  # N, those without a transition here included


class View(NamedTuple):
    """The transitions of one learner."""

    data: OfflineData
    first: jax.Array  # [] int32
    count: jax.Array  # [] int32
    scaling: Scaling  # without axes

    def batch(self, rows: jax.Array) -> Batch:
        """The transitions `rows [B]` of all data, scaled."""
        batch, frames = jax.tree.map(lambda x: x[rows], self.data.batch), self.data.frames
        if frames is None:
            return batch
        return batch.observed(lambda ids: self.scaling.observations(frames.at(ids).astype(jnp.float32)))


class Sampler(Protocol):
    """Draws minibatches for one learner; a hashable object without arrays, whose state is a pytree of its own."""

    period: int  # gradient steps between two renewals; 0: once a block

    def init(self, view: View) -> Any:
        """The state that a training begins with."""

    def renew(self, state: Any, learner: Any, learner_state: Any, view: View, step: jax.Array) -> Any:
        """The state for the coming period (or block) of gradient steps, the first of which is the `step`-th."""

    def rows(self, state: Any, key: jax.Array, size: int, view: View) -> jax.Array:
        """`[size]` int32 in `[view.first, view.first + view.count)`; the key is consumed."""


class Uniform:
    """All transitions alike, with repetition."""

    period = 0

    def init(self, view: View) -> tuple[()]:
        return ()

    def renew(self, state: tuple[()], learner: Any, learner_state: Any, view: View, step: jax.Array) -> tuple[()]:
        return state

    def rows(self, state: tuple[()], key: jax.Array, size: int, view: View) -> jax.Array:
        return view.first + jax.random.randint(key, (size,), 0, jnp.maximum(view.count, 1))
