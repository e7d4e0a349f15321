"""LBRAC-v: BRAC-v whose policy is held to the behaviour that made its sample, one of a set that is learned with it.

Zhang and Kashima, "Behavior Estimation from Multi-Source Data for Offline Reinforcement Learning", AAAI 2023.

first, for `behaviour_updates` gradient steps, of transitions of trajectories m with codes z = z_m
    behaviours  minimise  L_rec + alpha L_com                                  (`clustering.behaviour_set`, Eqs. 4, 5)
    critics     Q_z(s, a) -> r + gamma min_j Q'_z(s', a'),  a' ~ b_z(. | s')   (fitted Q evaluation, Eq. 6)
then, with pi <- b_z and Q <- Q_z of the code z whose trajectories have the best returns, for each gradient step
    behaviours and their critics as before                                     (Eq. 7)
    critics     Q(s, a) -> r + gamma (min_j Q'_j(s', a') - beta KL(pi || b_z)(s')),  a' ~ pi(. | s')     (Eq. 8)
    actor       minimise  beta KL(pi || b_z)(s) - min_j Q_j(s, a''),  a'' ~ pi(. | s)
    targets     Q' <- Q' + tau (Q - Q')

pi and all b_z are one network, and so are their Q: an embedding tells which of them is meant, e_pi and h_pi for pi.
Eq. 6 is printed with Q'(s, a'): s' is meant.
"""

import dataclasses
from typing import TYPE_CHECKING, Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from trajclust_jax.clustering.behaviour_set import BehaviourModel
from trajclust_jax.data import Trajectories
from trajclust_jax.learners.brac_v import BRACv
from trajclust_jax.learners.learner import CRITICS, LearnerState, Part, PlugIn, Stage, gradient, step_keys
from trajclust_jax.learners.sampling import Batch, View
from trajclust_jax.networks import EmbeddedCritic, ensemblize, sample_squashed
from trajclust_jax.training import Info
from trajclust_jax.validation import check_above, check_at_least

if TYPE_CHECKING:
    import distrax


@dataclasses.dataclass(frozen=True)
class LBRACv(BRACv):
    """Settings; the defaults are the release's, but for the behaviour set's scale and rate (see `behaviour_set`)."""

    k: int = 5
    """K: behaviours."""
    room: int = 0
    """Codes that there is room for, so that `k` may be swept in one program; 0: k."""
    embedding_size: int = 8
    """d."""
    scale: float = 0.002
    """Of the embeddings at first; .05 in the release."""
    behaviour_rate: float = 2e-4
    """Of the behaviours until the policy begins; then it is `actor_rate`. The release has 5e-5 in both. Divided by the
    scale it is as `BehaviourSet` has it; layers of 200 need both smaller."""
    commitment: float = 0.1
    """alpha, of L_com."""
    cosine: bool = True
    """Embeddings are compared by direction; else by the products that are printed."""
    moves_behaviours: bool = False
    """The penalty's gradient moves the behaviours towards the policy, too, as in the release."""
    nearest: bool = False
    """The policy is held to the behaviour that it is nearest to, in place of its sample's own (not in the paper). Where
    behaviours meet, the mean divergence from the samples' own has its minimum between them, as that from one clone.
    Behaviours are the codes that have trajectories when the policy begins."""
    given: tuple[int, ...] = ()
    """The cluster of each trajectory, found elsewhere, in place of the codes' own; k of them."""

    SWEPT = ("k",)

    def check(self) -> None:
        super().check()
        check_at_least(self, 1, "k", "embedding_size")
        check_at_least(self, 0, "room", "commitment")
        check_above(self, 0, "scale", "behaviour_rate")
        if self.room and self.room < self.k:
            raise ValueError(f"room is {self.room}: it must be at least k, {self.k}")
        if self.layer_norm or isinstance(self, PlugIn):
            raise ValueError("its critics are one network, which layer_norm and plug-ins of a learner do not change")
        if self.given and not 0 <= min(self.given) <= max(self.given) < self.k:
            raise ValueError(f"given has clusters {min(self.given)} to {max(self.given)}: k is {self.k}")

    def advise(self, trajectories: Trajectories) -> None:
        """See `Learner`: raises ValueError where the clusters given are not of these trajectories."""
        if self.given and len(self.given) != len(np.asarray(trajectories.lengths)):
            raise ValueError(f"given has {len(self.given)} clusters, the data {len(trajectories.lengths)} trajectories")

    # --- parts --------------------------------------------------------------------------------------

    @property
    def model(self) -> BehaviourModel:
        """The behaviour set."""
        shared = {name: getattr(self, name) for name in ("embedding_size", "scale", "commitment", "cosine")}
        if not self.room and not isinstance(self.k, int):
            raise ValueError("room is 0: to sweep k, give the largest")
        return BehaviourModel(self.action_size, tuple(self.actor_features), self.room or self.k, **shared)

    @property
    def embedded_critic(self) -> EmbeddedCritic:
        return EmbeddedCritic(tuple(self.features))

    def parts(self) -> dict[str, Part]:
        return self.parts_for(1)

    def parts_for(self, num_trajectories: int) -> dict[str, Part]:
        """`actor` has all policies, those of the codes and its own; `critics` all their Q."""
        return {
            "actor": lambda key, observation, action: self._new_policies(key, observation, num_trajectories),
            "critics": self._new_critics,
        }

    def _new_policies(self, key: jax.Array, observation: jax.Array, num_trajectories: int) -> dict[str, Any]:
        params = self.model.init(key, observation, num_trajectories)
        return {**params, "own": params["codes"][0]}

    def _new_critics(self, key: jax.Array, observation: jax.Array, action: jax.Array) -> dict[str, Any]:
        def init(key):
            key_network, key_codes = jax.random.split(key)
            codes = self.model.embeddings(key_codes, self.model.codes)
            network = self.embedded_critic.init(key_network, observation, action, codes[:1])
            return {"network": network, "codes": codes, "own": codes[0]}

        return jax.vmap(init)(jax.random.split(key, CRITICS))

    def stages(self) -> tuple[Stage, ...]:
        _, *others = super().stages()
        return (
            Stage("behaviours", self.update_behaviours, self.behaviour_updates, uniform=True),
            Stage("begin", self.begin_at_best, 1, whole=True),
            *others,
        )

    # --- policies and values --------------------------------------------------------------------------

    def code(self, actor: dict[str, Any], trajectory: jax.Array) -> jax.Array:
        """`[B]` int32: of trajectories `[B]` the behaviour that made each."""
        if self.given:
            return jnp.array(self.given, jnp.int32)[trajectory]
        return self.model.matched(actor["codes"], actor["trajectories"][trajectory])

    def pi(self, actor: dict[str, Any], observations: jax.Array) -> "distrax.Independent":
        own = jnp.broadcast_to(actor["own"], (*observations.shape[:-1], self.embedding_size))
        return self.model.policy(actor, observations, own)

    def behaviour(
        self, params: dict[str, Any], observations: jax.Array, trajectory: jax.Array
    ) -> "distrax.Independent":
        """b_z at observations `[B, D]` of trajectories `[B]`, before its tanh."""
        actor = params["actor"]
        return self.model.policy(actor, observations, actor["codes"][self.code(actor, trajectory)])

    def divergence(
        self, policy: "distrax.Independent", params: dict[str, Any], observations: jax.Array, trajectory: jax.Array
    ) -> jax.Array:
        if not self.nearest:
            return policy.kl_divergence(self.behaviour(params, observations, trajectory))
        codes = params["actor"]["codes"]
        each = jnp.broadcast_to(codes[:, None], (len(codes), len(observations), self.embedding_size))
        found = policy.kl_divergence(self.model.policy(params["actor"], observations, each))  # [K, B]
        return jnp.where((codes != 0).any(-1)[:, None], found, jnp.inf).min(0)

    def values(self, critics: dict[str, Any], observations: jax.Array, actions: jax.Array) -> jax.Array:
        """`[2, B]`: each critic's Q of pi."""
        own = jnp.broadcast_to(critics["own"][:, None], (CRITICS, len(actions), self.embedding_size))
        return self._valued(critics, observations, actions, own)

    def behaviour_values(
        self, critics: dict[str, Any], observations: jax.Array, actions: jax.Array, code: jax.Array
    ) -> jax.Array:
        """`[2, B]`: each critic's Q of the codes `[B]`."""
        return self._valued(critics, observations, actions, critics["codes"][:, code])

    def _valued(self, critics, observations, actions, embeddings):
        rows = (jnp.broadcast_to(x, (CRITICS, *x.shape)) for x in (observations, actions))
        return ensemblize(self.embedded_critic.apply, 1)(critics["network"], *rows, embeddings)

    # --- losses -------------------------------------------------------------------------------------

    def behaviour_loss(self, actor: dict[str, Any], batch: Batch) -> tuple[jax.Array, Info]:
        """L_rec + alpha L_com; of clusters that are given, their policies' part of L_rec."""
        loss = self.model.loss_of_codes if self.given else self.model.loss
        return loss(actor, batch, self.code(actor, batch.trajectory))

    def behaviour_critic_loss(
        self, critics: dict[str, Any], params: dict[str, Any], targets: dict[str, Any], batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, Info]:
        """L_Q (Eq. 6); the key is consumed."""
        code = self.code(params["actor"], batch.trajectory)
        actions, _ = sample_squashed(key, self.behaviour(params, batch.next_observations, batch.trajectory))
        next_values = self.behaviour_values(targets["critics"], batch.next_observations, actions, code).min(0)
        td_target = batch.rewards + self.discount * jnp.where(batch.terminated, 0, next_values)
        values = self.behaviour_values(critics, batch.observations, batch.actions, code)
        chex.assert_shape([values, td_target[None]], (None, *batch.rewards.shape))
        loss = ((values - jax.lax.stop_gradient(td_target)) ** 2).mean(-1).sum()
        return loss, {"behaviour/critic": loss, "behaviour/value": values.mean()}

    def actor_and_behaviour_loss(
        self, actor: dict[str, Any], params: dict[str, Any], batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, Info]:
        """Eqs. 7 and 8 together; the key is consumed."""
        held_to = {**params, "actor": actor} if self.moves_behaviours else params
        loss, info = self.actor_loss(actor, held_to, batch, key)
        others, behaviour_info = self.behaviour_loss(actor, batch)
        return loss + others, info | behaviour_info

    def both_critic_losses(
        self, critics: dict[str, Any], params: dict[str, Any], targets: dict[str, Any], batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, Info]:
        """Eqs. 6 and 8 together; the key is consumed."""
        key_own, key_others = jax.random.split(key)
        loss, info = self.critic_loss(critics, params, targets, batch, key_own)
        others, behaviour_info = self.behaviour_critic_loss(critics, params, targets, batch, key_others)
        return loss + others, info | behaviour_info

    # --- training -----------------------------------------------------------------------------------

    def update_behaviours(self, state: LearnerState, batch: Batch, step: jax.Array) -> tuple[LearnerState, Info]:
        """One gradient step of behaviours and their critics, from the same parameters."""
        (key,) = step_keys(state, step, 1)
        params = {**state.params, "actor": self.model.trimmed(state.params["actor"], self.k)}
        state = state.replace(params=params)
        actor, info = gradient(self.behaviour_loss, params["actor"], batch)
        critics, critic_info = gradient(
            self.behaviour_critic_loss, params["critics"], params, state.targets, batch, key
        )
        faster = dataclasses.replace(self, actor_rate=self.behaviour_rate)
        return self.lag(faster.descend(state, {"critics": critics, "actor": actor}, step)), info | critic_info

    def begin_at_best(self, state: LearnerState, view: View, step: jax.Array) -> tuple[LearnerState, Info]:
        """pi and its Q are those of the code whose trajectories' returns have the highest mean percentile.

        A code without trajectories has none: no behaviour that pi may be held to as the nearest, either.
        """
        del step
        flat, count = view.data.batch, view.data.num_trajectories
        rows = jnp.arange(len(flat.rewards))
        mine = (rows >= view.first) & (rows < view.first + view.count)
        returns = jnp.zeros(count).at[flat.trajectory].add(jnp.where(mine, flat.rewards, 0))
        there = jnp.zeros(count, bool).at[flat.trajectory].max(mine)
        ordered = jnp.sort(jnp.where(there, returns, jnp.inf))
        percentile = jnp.searchsorted(ordered, returns) / there.sum()  # the share of returns below it
        actor, critics, targets = state.params["actor"], state.params["critics"], state.targets["critics"]
        members = jax.nn.one_hot(self.code(actor, jnp.arange(count)), self.model.codes) * there[:, None]
        sizes = members.sum(0)
        means = jnp.where(sizes > 0, (percentile @ members) / jnp.maximum(sizes, 1), -jnp.inf)
        best = means.argmax()
        codes = jnp.where((sizes > 0)[:, None], actor["codes"], 0) if self.nearest else actor["codes"]
        params = {
            **state.params,
            "actor": {**actor, "codes": codes, "own": codes[best]},
            "critics": {**critics, "own": critics["codes"][:, best]},
        }
        targets = {**state.targets, "critics": {**targets, "own": targets["codes"][:, best]}}
        info = {"begin/code": best.astype(jnp.int32), "begin/used_codes": (sizes > 0).sum()}
        return state.replace(params=params, targets=targets), info

    def begin_as_behaviour(self, state: LearnerState) -> LearnerState:
        """`begin_at_best` has begun."""
        return state

    def update(self, state: LearnerState, batch: Batch, step: jax.Array) -> tuple[LearnerState, Info]:
        """One gradient step of everything, from the same parameters."""
        key_critic, key_actor = step_keys(state, step, 2)
        params = state.params
        critics, critic_info = gradient(
            self.both_critic_losses, params["critics"], params, state.targets, batch, key_critic
        )
        actor, actor_info = gradient(self.actor_and_behaviour_loss, params["actor"], params, batch, key_actor)
        state = self.descend(state, {"critics": critics, "actor": actor}, step)
        codes = self.model.unused_kept(params["actor"]["codes"], state.params["actor"]["codes"])
        state = state.replace(params={**state.params, "actor": {**state.params["actor"], "codes": codes}})
        return self.lag(state), critic_info | actor_info

    def assignments(self, actor: dict[str, Any]) -> jax.Array:
        if self.given:
            return jnp.broadcast_to(jnp.array(self.given, jnp.int32), actor["trajectories"].shape[:-1])
        return self.model.matched(actor["codes"], actor["trajectories"])
