"""ORIL: rewards by a discriminator of the expert's steps from all others.

Zolna et al., "Offline Learning from Demonstrations and Unlabeled Experience", 2020; a baseline of CLUE.

for each gradient step:
    minimise  -E_expert[log D(s, a)] - E_all[log(1 - D(s, a))]
r(s, a) = D(s, a)
"""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from trajclust_jax.networks import Critic
from trajclust_jax.relabelling.relabeller import Steps, TrainedRelabeller
from trajclust_jax.training import Info
from trajclust_jax.validation import check_share


@dataclasses.dataclass(frozen=True)
class ORIL(TrainedRelabeller):
    """Settings. Learners see the demonstrations, too, as in the paper's experiments."""

    batch_size: int = 256
    learning_rate: float = 3e-4
    features: tuple[int, ...] = (256, 256)
    prior: float = 0.0
    """eta, the share of expert steps that is expected among all (positive-unlabelled learning, Eq. 4 of ORIL):
    E_all[log(1 - D)] without so much of the expert's. 0: none is expected, the plain discriminator."""

    WITH_DEMONSTRATIONS: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_share(self, "prior")

    @property
    def network(self) -> Critic:
        return Critic(self.features)

    def init(self, key: jax.Array, steps: Steps) -> Any:
        return self.network.init(key, steps.observations[:1], steps.actions[:1])

    def loss(self, params: Any, batch: Any, expert: Any, key: jax.Array) -> tuple[jax.Array, Info]:
        """Cross-entropy; the expert's share of it is `prior` where one is given."""
        del key
        own, others = self.network.apply(params, *expert), self.network.apply(params, *batch)
        positive, negative = jax.nn.softplus(-own).mean(), jax.nn.softplus(others).mean()
        loss = (self.prior or 1.0) * positive + negative - self.prior * jax.nn.softplus(own).mean()
        return loss, {"discriminator/loss": loss, "discriminator/expert": jax.nn.sigmoid(own).mean()}

    def score(
        self, params: Any, centre: jax.Array, observations: jax.Array, actions: jax.Array, key: jax.Array
    ) -> jax.Array:
        """`[B]` in (0, 1): D."""
        del centre, key
        return jax.nn.sigmoid(self.network.apply(params, observations, actions)).astype(jnp.float32)
