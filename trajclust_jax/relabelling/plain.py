"""Rewards without any model: the baselines that say what a learned reward is worth."""

import dataclasses
from typing import Any, ClassVar

import numpy as np

from trajclust_jax.relabelling.experts import ExpertData
from trajclust_jax.relabelling.relabeller import Relabelled, Relabeller


@dataclasses.dataclass(frozen=True)
class Indicator(Relabeller):
    """1 on the expert's steps and 0 on all others (SQIL's rewards, and UDS's of unlabelled data)."""

    returns_range: float | None = None

    WITH_DEMONSTRATIONS: ClassVar[bool] = True  # nothing else has a reward

    def relabel(self, data: ExpertData, seeds: tuple[int, ...], **options: Any) -> Relabelled:
        self.check(data)
        rewards = data.members().astype(np.float32)
        return Relabelled(np.broadcast_to(rewards, (len(seeds), *rewards.shape)))


@dataclasses.dataclass(frozen=True)
class Constant(Relabeller):
    """1 on every step: what staying alive is worth, for it is most of the reward on tasks that end by a fall."""

    returns_range: float | None = None

    NEEDS_EXPERT: ClassVar[bool] = False

    def relabel(self, data: ExpertData, seeds: tuple[int, ...], **options: Any) -> Relabelled:
        return Relabelled(np.ones((len(seeds), max(1, len(data.experts)), data.num_steps), np.float32))
