"""EMPO's clustering over a grid of its three heuristics, all settings and seeds in one program (Tables 3 and 5)."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from trajclust_jax.clustering.empo import EmpoEM, EmpoState
from trajclust_jax.clustering.mixture import Prepared
from trajclust_jax.clustering.types import Clustering
from trajclust_jax.training import Info, Phase


@dataclasses.dataclass(frozen=True)
class EmpoGrid(EmpoEM):
    """One run per setting, in place of restarts; `bias_epochs`, `pretrain_epochs`, `momentum` are the largest values.

    Its result's `restart_assignments [G, N]` are the settings' clusterings, by the final policies' own posteriors. No
    classifier is trained.
    """

    settings: tuple[tuple[int, int, float], ...] = ()
    """G settings: N_b, N_p and mu."""

    VERSION: ClassVar[int] = 1

    @classmethod
    def over(cls, num_clusters: int, settings: tuple[tuple[int, int, float], ...], **overrides: Any) -> "EmpoGrid":
        """The grid of these settings."""
        columns = zip(*settings, strict=True)
        largest = dict(zip(("bias_epochs", "pretrain_epochs", "momentum"), map(max, columns), strict=True))
        return cls(num_clusters, settings=settings, restarts=len(settings), **largest, **overrides)

    def __post_init__(self) -> None:
        super().__post_init__()
        for bias, pretrain, momentum in self.settings:
            dataclasses.replace(self.lone, bias_epochs=bias, pretrain_epochs=pretrain, momentum=momentum)
        if len(self.settings) != self.restarts:
            raise ValueError(f"restarts is {self.restarts}: the grid has {len(self.settings)} settings")

    @property
    def lone(self) -> EmpoEM:
        """The method of one run, with the largest values of the heuristics."""
        names = {field.name for field in dataclasses.fields(EmpoEM)}
        given = {name: getattr(self, name) for name in names}
        return EmpoEM(**{**given, "restarts": 1})

    def phases(self) -> tuple[Phase, ...]:
        """As in `EmpoEM`; in epochs beyond its own a run is frozen."""
        bias = Phase("bias", self._start, self._gated(0), max(self.bias_epochs, 1), light_start=True)
        pretrain = Phase("pretrain", self._spread, self._gated(1), max(self.pretrain_epochs, 1), light_start=True)
        return bias, pretrain, Phase("em", self._first_e_step, self._em_step, self.iterations)

    def _gated(self, heuristic: int) -> Any:
        epochs = jnp.array([setting[heuristic] for setting in self.settings])

        def train(state: EmpoState, prepared: Prepared, iteration: jax.Array) -> tuple[EmpoState, Info]:
            state, info = self._train(state.replace(settled=iteration >= epochs), prepared, iteration)
            return state.replace(settled=jnp.zeros_like(state.settled)), info

        return train

    def _start(self, key: jax.Array, prepared: Prepared, previous: None) -> tuple[EmpoState, Info]:
        state, info = super()._start(key, prepared, previous)
        return state.replace(classifier=None), info

    def _averaged(self, posterior: jax.Array, before: jax.Array) -> jax.Array:
        """Eq. 5, each run with its own momentum."""
        momentum = jnp.array([setting[2] for setting in self.settings])[:, None, None]
        return momentum * before + (1 - momentum) * posterior

    def assign(self, model: Any, data: Prepared) -> Clustering:
        raise NotImplementedError("a grid has as many models as settings: cluster with one of them")
