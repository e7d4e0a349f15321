"""PLAS (Zhou, Bajracharya and Held, "PLAS: Latent Action Space for Offline Reinforcement Learning", 2020).

first, for `behaviour_updates` gradient steps:
    VAE       reconstruct a from (s, z), z ~ N(mu, sigma)(s, a);  KL to N(0, I)
then, for each gradient step, with pi(s) = decode(s, z(s)), z(s) within `latent_bound`:
    critics   Q_i(s, a) -> r + gamma (lambda min_j Q'_j(s', a') + (1 - lambda) max_j Q'_j(s', a')),  a' = pi'(s')
    actor     maximise  Q_1(s, pi(s))
    targets   Q' <- Q' + tau (Q - Q'),  pi' likewise

The paper's perturbation layer, which moves what is decoded, is there where `shift` is above 0.
"""

import dataclasses
from typing import Any

import jax

from trajclust_jax.learners.bcq import BCQ
from trajclust_jax.learners.learner import ActorCritic, Backup, LearnerState, Part, Stage, gradient, step_keys
from trajclust_jax.learners.sampling import Batch
from trajclust_jax.networks import DeterministicActor
from trajclust_jax.training import Info
from trajclust_jax.validation import check_above


@dataclasses.dataclass(frozen=True)
class PLAS(BCQ):
    """Settings; the defaults are those of the authors' code. VAE and values are BCQ's."""

    updates: int = 500_000
    learning_rate: float = 1e-3
    """Of the critics."""
    actor_rate: float = 1e-4
    """Of actor and VAE."""
    behaviour_updates: int = 500_000
    """Gradient steps of the VAE, before the others."""
    shift: float = 0.0
    """Phi: how far a perturbation moves what is decoded at most; 0: there is none."""
    latent_bound: float = 2.0
    """Of every number of the latents that the actor chooses."""

    def check(self) -> None:
        super().check()
        check_above(self, 0, "actor_rate", "latent_bound")
        if (self.choices, self.acting_choices) != (BCQ.choices, BCQ.acting_choices):
            raise ValueError("choices and acting_choices are BCQ's: this policy gives one action")

    @property
    def latent_actor(self) -> DeterministicActor:
        return DeterministicActor(self.vae.latent_size, tuple(self.features))

    def parts(self) -> dict[str, Part]:
        parts = super().parts()
        perturbation = parts.pop("actor")

        def actor(key, observation, action):
            key_latent, key_moved = jax.random.split(key)
            params = {"latent": self.latent_actor.init(key_latent, observation)}
            return params | ({"moved": perturbation(key_moved, observation, action)} if self.shift else {})

        return {**parts, "actor": actor}

    def stages(self) -> tuple[Stage, ...]:
        return (
            Stage("behaviour", self.update_vae, self.behaviour_updates, uniform=True),
            Stage("train", self.update, self.updates),
        )

    def rate(self, part: str, step: jax.Array) -> float:
        return self.learning_rate if part == "critics" else self.actor_rate

    def chosen(self, actor: Any, vae: Any, observations: jax.Array) -> jax.Array:
        """pi: `[..., D] -> [..., A]`."""
        latents = self.latent_bound * self.latent_actor.apply(actor["latent"], observations)
        actions = self.vae.apply(vae, observations, latents, method="decode")
        return self.moved(actor["moved"], observations, actions) if self.shift else actions

    def backup(self, params: dict[str, Any], targets: dict[str, Any], batch: Batch, key: jax.Array) -> Backup:
        """The target policy's action; no key is needed."""
        del key
        actions = self.chosen(targets["actor"], params["vae"], batch.next_observations)
        values = self.values(targets["critics"], batch.next_observations, actions)
        return Backup(actions, self.between(values))

    def actor_loss(self, actor: Any, params: dict[str, Any], batch: Batch, key: jax.Array) -> tuple[jax.Array, Info]:
        """Minus Q_1 of the policy; no key is needed."""
        del key
        actions = self.chosen(actor, params["vae"], batch.observations)
        loss = -self.first_values(params["critics"], batch.observations, actions).mean()
        return loss, {"actor/loss": loss}

    def update_vae(self, state: LearnerState, batch: Batch, step: jax.Array) -> tuple[LearnerState, Info]:
        """One gradient step of the VAE."""
        (key,) = step_keys(state, step, 1)
        vae, info = gradient(self.vae_loss, state.params["vae"], batch, key)
        return self.descend(state, {"vae": vae}, step), info

    update = ActorCritic.update  # BCQ's trains the VAE, too

    def policy(self, params: dict[str, Any]) -> dict[str, Any]:
        """VAE and actor."""
        return {name: params[name] for name in ("vae", "actor")}

    def act(self, actor: dict[str, Any], observations: jax.Array) -> jax.Array:
        return self.chosen(actor["actor"], actor["vae"], observations)
