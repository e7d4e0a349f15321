"""BCQ (Fujimoto, Meger and Precup, "Off-Policy Deep Reinforcement Learning without Exploration", 2019).

for each gradient step:
    VAE           reconstruct a from (s, z), z ~ N(mu, sigma)(s, a);  KL to N(0, I)
    critics       Q_i(s, a) -> r + gamma max over n of  lambda min_j Q'_j(s', a_n) + (1 - lambda) max_j Q'_j(s', a_n),
                      a_n = xi'(s', a),  a ~ VAE(s')
    perturbation  maximise  Q_1(s, xi(s, a)),  a ~ VAE(s)
    targets       Q' <- Q' + tau (Q - Q'),  xi' likewise

xi moves an action by at most `shift`. To act: of the VAE's actions, each moved by xi, the one with the highest Q_1.
"""

import dataclasses
from typing import Any

import chex
import jax
import jax.numpy as jnp

from trajclust_jax.learners.learner import ActorCritic, Backup, LearnerState, Part, gradient, step_keys
from trajclust_jax.learners.sampling import Batch
from trajclust_jax.networks import CVAE, DeterministicActor, divergence
from trajclust_jax.training import Info
from trajclust_jax.validation import check_above, check_share

LATENT_BOUND = 0.5  # latents that actions are decoded from are clipped to it
ACTING_KEY = 0x626371  # draws the latents that acting chooses from, the same ones at every step


@dataclasses.dataclass(frozen=True)
class BCQ(ActorCritic):
    """Settings; the defaults are those of the authors' code for continuous actions."""

    batch_size: int = 100
    learning_rate: float = 1e-3
    features: tuple[int, ...] = (400, 300)
    """Hidden layers of critics and perturbation."""
    actor_features: tuple[int, ...] = (750, 750)
    """Hidden layers of the VAE's encoder and decoder."""
    shift: float = 0.05
    """Phi: how far the perturbation moves an action at most."""
    pessimism: float = 0.75
    """lambda: the weight of the lesser target value."""
    choices: int = 10
    """n: actions that a target value is the best of."""
    acting_choices: int = 100
    """Actions that acting chooses from."""
    divergence: float = 0.5
    """Weight of the VAE's KL."""

    def check(self) -> None:
        super().check()
        check_above(self, 0, "choices", "acting_choices", "divergence")
        check_share(self, "shift", "pessimism")

    @property
    def vae(self) -> CVAE:
        return CVAE(self.action_size, 2 * self.action_size, tuple(self.actor_features))

    @property
    def perturbation(self) -> DeterministicActor:
        return DeterministicActor(self.action_size, tuple(self.features))

    def parts(self) -> dict[str, Part]:
        return {
            "vae": lambda key, observation, action: self.vae.init(
                key, observation, action, jnp.zeros((1, self.vae.latent_size))
            ),
            "actor": lambda key, observation, action: self.perturbation.init(
                key, jnp.concatenate([observation, action], axis=-1)
            ),
            "critics": self.init_critics,
        }

    def lagged(self) -> tuple[str, ...]:
        return "actor", "critics"

    def decoded(self, vae: Any, observations: jax.Array, noise: jax.Array) -> jax.Array:
        """Actions `[..., A]` at `[..., D]`, of latents `[..., Z]`: standard normal `noise` in bounds."""
        return self.vae.apply(vae, observations, jnp.clip(noise, -LATENT_BOUND, LATENT_BOUND), method="decode")

    def moved(self, actor: Any, observations: jax.Array, actions: jax.Array) -> jax.Array:
        """xi: actions `[..., A]` at `[..., D]`, moved."""
        change = self.perturbation.apply(actor, jnp.concatenate([observations, actions], axis=-1))
        return jnp.clip(actions + self.shift * change, -1, 1)

    def between(self, values: jax.Array) -> jax.Array:
        """`[...]`: of both critics' values `[2, ...]` the lesser one, lambda, and the greater one, the rest."""
        return self.pessimism * values.min(0) + (1 - self.pessimism) * values.max(0)

    def vae_loss(self, vae: Any, batch: Batch, key: jax.Array) -> tuple[jax.Array, Info]:
        """Squared error and KL; the key is consumed."""
        noise = jax.random.normal(key, (*batch.rewards.shape, self.vae.latent_size))
        actions, mean, std = self.vae.apply(vae, batch.observations, batch.actions, noise)
        chex.assert_equal_shape([actions, batch.actions])
        error = ((actions - batch.actions) ** 2).mean()
        loss = error + self.divergence * divergence(mean, std).mean()
        return loss, {"vae/loss": loss, "vae/error": error}

    def backup(self, params: dict[str, Any], targets: dict[str, Any], batch: Batch, key: jax.Array) -> Backup:
        """The best of n actions that the data might have at s'; the key is consumed."""
        shape = (self.choices, *batch.rewards.shape)
        observations = jnp.broadcast_to(batch.next_observations, (*shape, batch.next_observations.shape[-1]))
        noise = jax.random.normal(key, (*shape, self.vae.latent_size))
        actions = self.moved(targets["actor"], observations, self.decoded(params["vae"], observations, noise))
        values = self.values(targets["critics"], observations, actions)  # [2, n, B]
        value = self.between(values)
        best = value.argmax(0)
        return Backup(jnp.take_along_axis(actions, best[None, :, None], axis=0)[0], value.max(0))

    def actor_loss(self, actor: Any, params: dict[str, Any], batch: Batch, key: jax.Array) -> tuple[jax.Array, Info]:
        """Minus Q_1 of what the perturbation makes of the VAE's actions; the key is consumed."""
        noise = jax.random.normal(key, (*batch.rewards.shape, self.vae.latent_size))
        actions = self.moved(actor, batch.observations, self.decoded(params["vae"], batch.observations, noise))
        loss = -self.first_values(params["critics"], batch.observations, actions).mean()
        return loss, {"actor/loss": loss}

    def update(self, state: LearnerState, batch: Batch, step: jax.Array) -> tuple[LearnerState, Info]:
        """One gradient step of everything, from the same parameters."""
        key_vae, key_critic, key_actor = step_keys(state, step, 3)
        params = state.params
        vae, vae_info = gradient(self.vae_loss, params["vae"], batch, key_vae)
        critics, critic_info = gradient(self.critic_loss, params["critics"], params, state.targets, batch, key_critic)
        actor, actor_info = gradient(self.actor_loss, params["actor"], params, batch, key_actor)
        state = self.descend(state, {"vae": vae, "critics": critics, "actor": actor}, step)
        return self.lag(state), vae_info | critic_info | actor_info

    def policy(self, params: dict[str, Any]) -> dict[str, Any]:
        """VAE, perturbation, and both critics, whose first one chooses."""
        return {name: params[name] for name in ("vae", "actor", "critics")}

    def act(self, actor: dict[str, Any], observations: jax.Array) -> jax.Array:
        noise = jax.random.normal(jax.random.key(ACTING_KEY), (self.acting_choices, self.vae.latent_size))
        lead = observations.shape[:-1]
        noise = jnp.broadcast_to(
            noise.reshape(-1, *[1] * len(lead), noise.shape[-1]), (len(noise), *lead, noise.shape[-1])
        )
        repeated = jnp.broadcast_to(observations, (self.acting_choices, *observations.shape))
        actions = self.moved(actor["actor"], repeated, self.decoded(actor["vae"], repeated, noise))
        best = self.first_values(actor["critics"], repeated, actions).argmax(0)
        return jnp.take_along_axis(actions, best[None, ..., None], axis=0)[0]
