"""CLUE: rewards by the distance to an expert in a calibrated latent space.

Liu, Zu, He and Wang, "CLUE: Calibrated Latent Guidance for Offline Reinforcement Learning".

for each gradient step:
    of all steps         minimise  (a - a')^2 + beta KL(q(z | s, a) || N(0, 1)),  a' decoded from s, z      (Eq. 5)
    of the expert's      minimise  w (||mu(s, a)||^2 + ||sigma(s, a)||^2)                                   (Eq. 7)
z_e = the mean of mu over the expert's steps
r(s, a) = exp(-c ||z_e - z||^2),  z ~ q(z | s, a)                                                           (Eq. 6)
"""

import dataclasses
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from trajclust_jax.data.dataset import transitions
from trajclust_jax.networks import CVAE, divergence
from trajclust_jax.relabelling.experts import ExpertData
from trajclust_jax.relabelling.relabeller import CHUNK, Relabelled, Steps, TrainedRelabeller
from trajclust_jax.training import Info
from trajclust_jax.validation import check_above, check_at_least

TEMPERATURES = tuple(float(c) for c in range(1, 11))  # the paper's Tables 6 and 7


@dataclasses.dataclass(frozen=True)
class CLUE(TrainedRelabeller):
    """Settings; the defaults are Table 8's for locomotion.

    Antmaze: 512 units, batches of 256, 100,000 updates at 1e-3, calibration .8. Adroit: 100,000 updates.

    What the paper leaves to SPOT's code is as there: the errors' mean over actions' dimensions, the KL's mean over
    latents' dimensions, `beta`, twice as many latents as action dimensions.
    """

    calibration: float = 0.1
    """w of Eq. 7; 0 is the ablation of Figure 4."""
    beta: float = 0.5
    """Weight of the KL divergence."""
    temperature: float | None = 5.0
    """c of Eq. 6, which the paper does not state: the best of its Tables 6 and 7 differ by task. None: of
    `TEMPERATURES` the one that spreads trajectories most, see `temperature_by_spread`."""
    sampled: bool = True
    """Rewards by a draw of z, as printed; else by its mean, which tells experts better and is almost flat."""
    expected: bool = False
    """Rewards by the expectation of Eq. 6 over z, around which those of draws are noise. Ours."""
    latents_per_action: int = 2
    """The size of the latent, times that of an action."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 0, "calibration", "beta")
        check_at_least(self, 1, "latents_per_action")
        if self.temperature is not None:
            check_above(self, 0, "temperature")
        if self.expected and not (self.sampled and self.temperature is not None):
            raise ValueError("expected needs draws of z (sampled=true) and a temperature, which is not null")

    def network(self, action_size: int) -> CVAE:
        return CVAE(action_size, self.latents_per_action * action_size, self.features)

    def init(self, key: jax.Array, steps: Steps) -> Any:
        observation, action = steps.observations[:1], steps.actions[:1]
        network = self.network(action.shape[-1])
        return network.init(key, observation, action, jnp.zeros((1, network.latent_size)))

    def loss(self, params: Any, batch: Any, expert: Any, key: jax.Array) -> tuple[jax.Array, Info]:
        """Eqs. 5 and 7; the key is consumed by one draw of each z (L = 1)."""
        observations, actions = batch
        chex.assert_rank([observations, actions, *expert], 2)
        network = self.network(actions.shape[-1])
        noise = jax.random.normal(key, (len(actions), network.latent_size))
        decoded, mean, std = network.apply(params, observations, actions, noise)
        chex.assert_equal_shape([decoded, actions])
        error = ((decoded - actions) ** 2).mean()
        kl = divergence(mean, std).mean()
        expert_mean, expert_std = network.apply(params, *expert, method="encode")
        calibration = (expert_mean**2 + expert_std**2).sum(-1).mean()
        loss = error + self.beta * kl + self.calibration * calibration
        return loss, {"cvae/loss": loss, "cvae/error": error, "cvae/kl": kl, "cvae/calibration": calibration}

    def centre(self, params: Any, steps: Steps, first: jax.Array, count: jax.Array) -> jax.Array:
        """z_e `[Z]`: the mean of mu over the expert's steps, summed in chunks."""
        network = self.network(steps.actions.shape[-1])
        size = min(CHUNK, len(steps.rows))

        def add(number, total):
            places = number * size + jnp.arange(size)
            rows = steps.rows[first + jnp.minimum(places, count - 1)]
            mean, _ = network.apply(params, steps.observations[rows], steps.actions[rows], method="encode")
            return total + jnp.where((places < count)[:, None], mean, 0).sum(0) / count

        return jax.lax.fori_loop(0, -(-count // size), add, jnp.zeros(network.latent_size))

    def score(
        self, params: Any, centre: jax.Array, observations: jax.Array, actions: jax.Array, key: jax.Array
    ) -> jax.Array:
        """`[B]`: ||z_e - z||^2; of the expectation the distance whose reward it is."""
        mean, std = self.network(actions.shape[-1]).apply(params, observations, actions, method="encode")
        if self.expected:  # of exp(-c (e - z)^2) with z ~ N(mu, sigma^2): exp(-c (e - mu)^2 / v) / sqrt(v)
            chex.assert_equal(mean.shape[-1], centre.shape[-1])
            widened = 1 + 2 * self.temperature * std**2
            return ((centre - mean) ** 2 / widened + jnp.log(widened) / (2 * self.temperature)).sum(-1)
        latents = mean + std * jax.random.normal(key, mean.shape) if self.sampled else mean
        chex.assert_equal(latents.shape[-1], centre.shape[-1])
        return ((centre - latents) ** 2).sum(-1)

    def rewards_of(self, scores: np.ndarray, trajectory: np.ndarray) -> np.ndarray:
        """Eq. 6."""
        if self.temperature is not None:
            return np.exp(-np.float32(self.temperature) * scores)
        chosen = np.array([temperature_by_spread(each, trajectory) for each in scores], np.float32)
        return np.exp(-chosen[:, None] * scores)

    def chosen(self, found: Relabelled, data: ExpertData) -> dict[str, list[Any]]:
        """c, where the spread chooses it."""
        if self.temperature is not None:
            return {}
        trajectory = transitions(self.rewarded(data)).trajectory
        return {"temperature": [temperature_by_spread(each, trajectory) for each in self.scores(found.model, data)[0]]}


def temperature_by_spread(distances: np.ndarray, trajectory: np.ndarray) -> float:
    """Of `TEMPERATURES` the one whose rewards spread trajectories most: a choice of c without true rewards.

    The spread is the standard deviation, over trajectories, of their mean rewards: where c is too low all rewards are
    near 1, where it is too high all near 0. (Ours; the paper does not say how to choose.)

    Args:
        distances: `[P]` squared distances to the expert.
        trajectory: `[P]` int, the trajectory of each step.
    """
    spreads = [trajectory_means(np.exp(-np.float32(c) * distances), trajectory).std() for c in TEMPERATURES]
    return TEMPERATURES[int(np.argmax(spreads))]


def trajectory_means(rewards: np.ndarray, trajectory: np.ndarray) -> np.ndarray:
    """`[N]` float64: the mean of steps' rewards `[P]` over each trajectory."""
    return np.bincount(trajectory, rewards) / np.bincount(trajectory)
