"""EMPO: cluster the behaviours, improve each, and choose among them at every step.

Park, Cho and Sung, "EMPO: A Clustering-Based On-Policy Algorithm for Offline Reinforcement Learning".

    cluster    EM on K policies beta_z: which behaviour made a trajectory, A(tau)   (`clustering.empo`, Algorithm 1)
    critic     Q_z(s, a) -> r + gamma Q'_z(s', a')  along the data, z = A(tau)      (SARSA, Eqs. 11 and 13)
    value      V_z(s) -> the return from s on                                       (Eqs. 10 and 12)
    choose     Q_H(s, z) -> n-step returns and V_H;  V_H(s) -> an expectile of Q'_H(s, A(tau))     (IQL, section 3.3)
    improve    maximise  min(rho A_z, clip(rho, 1 - eps, 1 + eps) A_z)              (PPO, Eq. 14)
                   of actions a' ~ beta_z(. | s),  rho = pi_z(a' | s) / beta_z(a' | s),  A_z = Q_z(s, a') - V_z(s)

The paper improves before it learns to choose; neither needs the other, and in this order every epoch of the improvement
can be evaluated whole (Figure 4).

To act: pi_z of the z with the highest Q_H(s, z) among those that have been at s, q(z | s) >= max q / b.
"""

import dataclasses
import logging
from typing import Any, Literal

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from trajclust_jax.clustering.empo import EmpoEM, kl_loss
from trajclust_jax.clustering.pg_kmeans import PGKmeans
from trajclust_jax.clustering.suited import LONG_CONTINUOUS
from trajclust_jax.clustering.types import Clustering
from trajclust_jax.data import Trajectories
from trajclust_jax.lazy import lazy
from trajclust_jax.learners.learner import Learner, LearnerState, Part, Stage, gradient, step_keys
from trajclust_jax.learners.sampling import Batch, View
from trajclust_jax.networks import Heads, PolicyNetwork, ensemblize, member_keys
from trajclust_jax.training import Info
from trajclust_jax.validation import check_above, check_at_least, check_inner_share, check_one_of, check_share

POLICY_INFO = ("policy/gain", "policy/clipped")
ACTING_STEPS = 1_000  # of PG-Kmeans' polish, where its policies are to act
CHUNK = 4096  # transitions whose gradients are summed at a time

distrax = lazy("distrax")

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class EMPO(Learner):
    """Settings; the defaults are the paper's for D4RL (Table 4), but those that it leaves open."""

    updates: int = 1_000_000
    """N_H: gradient steps of the high level."""
    k: int = 2
    """K: behaviours."""
    clusterer: Literal["empo", "pg_kmeans"] = "empo"
    """What finds them: the paper's EM, or PG-Kmeans on long data, whose policies are then trained on for longer."""
    classifier_updates: int = 20_000
    """Gradient steps of the classifier after PG-Kmeans, which has none beside it."""
    bias_epochs: int = 3
    """N_b of the clustering, as the next five: see `EmpoEM`."""
    pretrain_epochs: int = 20
    """N_p: epochs of every policy on everything, before EM (heuristic II)."""
    em_epochs: int = 100
    """N_E: epochs of EM."""
    momentum: float = 0.9
    """mu, of the responsibilities (heuristic I)."""
    least_steps: int = 1
    """Gradient steps of an epoch of EM at least, where data are few."""
    scored_steps: int = 100
    """Random steps of a trajectory that an E-step looks at; 0: all."""
    critic_updates: int = 1_500_000
    """N_Q."""
    critic_period: int = 2
    """n_Q: gradient steps between two moves of the critic's target."""
    target_rate: float = 0.005
    """tau_Q. What is earned at the end of an episode has reached its beginning after about its length x n_Q / tau_Q
    gradient steps."""
    value_updates: int = 300_000
    """N_V, which the paper counts in epochs: 40 of 2 million transitions."""
    epochs: int = 100
    """N_pi: epochs of the improvement, each ONE gradient step on all transitions."""
    clip: float = 0.2
    """eps, which the paper leaves open: PPO's."""
    full_batch: bool = True
    """An epoch of the improvement is one gradient step on everything; else a pass in minibatches."""
    printed_sign: bool = False
    """Eq. 14 is minimised, as it is printed: it makes every policy worse."""
    high_period: int = 500
    """n_H: gradient steps between two copies of Q_H to its target."""
    expectile: float = 0.7
    """tau, of V_H."""
    n_steps: int = 3
    """Of the high level's returns."""
    restriction: float = 5.0
    """b: a cluster is chosen where q(z | s) is at least the b-th part of the likeliest one's; infinite: anywhere."""
    discount: float = 0.99
    """gamma."""
    features: tuple[int, ...] = (256, 256, 256)
    """Hidden layers of Q, V, Q_H and V_H."""
    actor_features: tuple[int, ...] = (256, 256, 256)
    """Hidden layers of the policies and the classifier."""

    FIXED = ("restriction", "momentum", "discount")  # of acting, of the clustering, of what is prepared once
    BOOTSTRAPS = True
    CRITIC = "critic"
    ASKS = ("next_actions", "n_steps", "returns")

    def check(self) -> None:
        super().check()
        check_one_of("clusterer", self.clusterer, ("empo", "pg_kmeans"))
        check_at_least(self, 1, "k", "em_epochs", "least_steps", "critic_period", "high_period", "n_steps")
        check_at_least(self, 0, "bias_epochs", "pretrain_epochs", "scored_steps")
        check_share(self, "discount", "target_rate", "momentum")
        check_inner_share(self, "expectile")
        check_above(self, 0, "clip")
        check_at_least(self, 1, "restriction")

    def advise(self, trajectories: Trajectories) -> None:
        """Warns where the critic's target is too slow for episodes of this length."""
        longest = int(np.max(np.asarray(trajectories.lengths)))
        backups = self.critic_updates * self.target_rate / self.critic_period
        if backups < longest:
            log.warning(
                "%d critic_updates at target_rate %g back up about %d steps, episodes have up to %d: raise either",
                self.critic_updates,
                self.target_rate,
                backups,
                longest,
            )

    # --- parts ----------------------------------------------------------------------------------------

    def before(self) -> EmpoEM | PGKmeans:
        """The clustering."""
        policy = {
            "features": tuple(self.actor_features),
            "learning_rate": self.learning_rate,
            "batch_size": self.batch_size,
            "scored_steps": self.scored_steps,
        }
        if self.clusterer == "pg_kmeans":
            settings = {**LONG_CONTINUOUS[PGKmeans, "mlp"], "polish_steps": ACTING_STEPS}
            return PGKmeans(self.k, **{**settings, "policy_settings": tuple(policy.items())})
        return EmpoEM(
            self.k,
            bias_epochs=self.bias_epochs,
            pretrain_epochs=self.pretrain_epochs,
            iterations=self.em_epochs,
            patience=self.em_epochs,
            momentum=self.momentum,
            least_steps=self.least_steps,
            policy_settings=tuple(policy.items()),
        )

    @property
    def actor(self) -> PolicyNetwork:
        return PolicyNetwork(self.action_size, discrete=False, features=tuple(self.actor_features))

    @property
    def classifier(self) -> PolicyNetwork:
        return PolicyNetwork(self.k, discrete=True, features=tuple(self.actor_features))

    @property
    def heads(self) -> Heads:
        """Q, V and Q_H: a head for each cluster."""
        return Heads(self.features, self.k)

    @property
    def high_value(self) -> Heads:
        return Heads(self.features, 1)

    def parts(self) -> dict[str, Part]:
        found = {} if self.clusterer == "empo" else {"classifier": self._new_classifier}
        return {
            **found,
            "policies": lambda key, observation, action: ensemblize(self.actor.init, 1, (0, None))(
                member_keys(key, self.k), observation
            ),
            "critic": lambda key, observation, action: self.heads.init(key, observation, action),
            "value": lambda key, observation, action: self.heads.init(key, observation),
            "high_critic": lambda key, observation, action: self.heads.init(key, observation),
            "high_value": lambda key, observation, action: self.high_value.init(key, observation),
        }

    def _new_classifier(self, key: jax.Array, observation: jax.Array, action: jax.Array) -> Any:
        return self.classifier.init(key, observation)

    def lagged(self) -> tuple[str, ...]:
        return "critic", "high_critic"

    def informed(self, state: LearnerState, clustering: Clustering) -> LearnerState:
        """What the clustering found; none of it is trained further but the policies."""
        found = {
            "behaviours": clustering.params,
            "clusters": clustering.assignments,  # [N]
        }
        if clustering.classifier is not None:
            found["classifier"] = clustering.classifier
        policies = jax.tree.map(jnp.copy, clustering.params)
        return state.replace(params={**state.params, **found, "policies": policies})

    def stages(self) -> tuple[Stage, ...]:
        classify = Stage("classify", self.update_classifier, self.classifier_updates, uniform=True)
        return (
            *(() if self.clusterer == "empo" else (classify,)),
            Stage("critic", self.update_critic, self.critic_updates),
            Stage("value", self.update_value, self.value_updates, uniform=True),
            Stage("choose", self.update, self.updates, uniform=True),
            Stage("improve", self.improve, self.epochs, whole=True, uniform=True),
        )

    def _own(self, values: jax.Array, params: dict[str, Any], batch: Batch) -> jax.Array:
        """`[B]`: of `[B, K]` the value of each transition's own cluster."""
        chex.assert_shape(values, (*batch.rewards.shape, self.k))
        return jnp.take_along_axis(values, params["clusters"][batch.trajectory][:, None], axis=1)[:, 0]

    def classifier_loss(self, classifier: Any, params: dict[str, Any], batch: Batch) -> tuple[jax.Array, Info]:
        """KL(Q || q) of section 3.3, where Q knows one cluster."""
        own = jax.nn.one_hot(params["clusters"][batch.trajectory], self.k)
        loss = kl_loss(self.classifier.apply(classifier, batch.observations).logits, own)
        return loss, {"classifier/loss": loss}

    def update_classifier(self, state: LearnerState, batch: Batch, step: jax.Array) -> tuple[LearnerState, Info]:
        """A gradient step of the classifier on each transition's own cluster."""
        found, info = gradient(self.classifier_loss, state.params["classifier"], state.params, batch)
        return self.descend(state, {"classifier": found}, step), info

    # --- values of the behaviours -----------------------------------------------------------------------

    def critic_loss(
        self, critic: Any, params: dict[str, Any], targets: dict[str, Any], batch: Batch
    ) -> tuple[jax.Array, Info]:
        """Eq. 11. Beside it how far Q is from what was earned, in the unit of the scaled rewards."""
        value = self._own(self.heads.apply(critic, batch.observations, batch.actions), params, batch)
        next_values = self.heads.apply(targets["critic"], batch.next_observations, batch.next_actions)
        next_values = jnp.where(batch.terminated, 0, self._own(next_values, params, batch))
        loss = ((value - (batch.rewards + self.discount * next_values)) ** 2).mean()
        return loss, {"critic/loss": loss, "critic/value": value.mean(), "critic/bias": (value - batch.returns).mean()}

    def first_critic(self, critic: Any) -> Any:
        """See `ActorCritic`, as the next two: each transition has one Q, its own cluster's."""
        return critic

    def valued(
        self, critic: Any, params: dict[str, Any], batch: Batch, observations: jax.Array, actions: jax.Array
    ) -> jax.Array:
        return self._own(self.heads.apply(critic, observations, actions), params, batch)[None]

    def valued_gradients(
        self, critic: Any, params: dict[str, Any], batch: Batch, observations: jax.Array, actions: jax.Array
    ) -> jax.Array:
        total = lambda *inputs: self.valued(critic, params, batch, *inputs).sum()
        return jnp.concatenate(jax.grad(total, (0, 1))(observations, actions), axis=-1)[None]

    def update_critic(self, state: LearnerState, batch: Batch, step: jax.Array) -> tuple[LearnerState, Info]:
        """A gradient step of Q along the data (SARSA), and its target's move where one is due."""
        found, info = gradient(self.critic_loss, state.params["critic"], state.params, state.targets, batch)
        state = self.descend(state, {"critic": found}, step)
        return self._lag(state, "critic", step, self.critic_period, self.target_rate), info

    def value_loss(self, value: Any, params: dict[str, Any], batch: Batch) -> tuple[jax.Array, Info]:
        """Eq. 12."""
        loss = ((self._own(self.heads.apply(value, batch.observations), params, batch) - batch.returns) ** 2).mean()
        return loss, {"value/loss": loss}

    def update_value(self, state: LearnerState, batch: Batch, step: jax.Array) -> tuple[LearnerState, Info]:
        """A gradient step of V on the returns."""
        found, info = gradient(self.value_loss, state.params["value"], state.params, batch)
        return self.descend(state, {"value": found}, step), info

    def _lag(self, state: LearnerState, part: str, step: jax.Array, period: int, rate: float) -> LearnerState:
        """Every `period` steps a target moves by `rate` of the way (Eq. 13)."""
        rate = jnp.where((step + 1) % period == 0, rate, 0.0)
        moved = optax.incremental_update(state.params[part], state.targets[part], rate)
        return state.replace(targets={**state.targets, part: moved})

    # --- the high level -----------------------------------------------------------------------------------

    def high_loss(
        self, high: tuple[Any, Any], params: dict[str, Any], targets: dict[str, Any], batch: Batch
    ) -> tuple[jax.Array, Info]:
        """IQL's losses of Q_H and V_H on clusters, in place of actions."""
        critic, value = high
        own = self._own(self.heads.apply(critic, batch.observations), params, batch)
        at = lambda params, observations: self.high_value.apply(params, observations)[:, 0]
        next_values = at(params["high_value"], batch.n_step_observations)
        critic_loss = ((own - (batch.n_step_rewards + batch.n_step_discount * next_values)) ** 2).mean()
        target = self._own(self.heads.apply(targets["high_critic"], batch.observations), params, batch)
        difference = target - at(value, batch.observations)
        value_loss = (jnp.where(difference >= 0, self.expectile, 1 - self.expectile) * difference**2).mean()
        return critic_loss + value_loss, {"high/critic": critic_loss, "high/value": value_loss, "high/mean": own.mean()}

    def update(self, state: LearnerState, batch: Batch, step: jax.Array) -> tuple[LearnerState, Info]:
        """A gradient step of Q_H and V_H, from the same parameters."""
        high = state.params["high_critic"], state.params["high_value"]
        (critic, value), info = gradient(self.high_loss, high, state.params, state.targets, batch)
        state = self.descend(state, {"high_critic": critic, "high_value": value}, step)
        return self._lag(state, "high_critic", step, self.high_period, 1.0), info

    # --- improvement ------------------------------------------------------------------------------------

    def _gaussians(self, policies: Any, observations: jax.Array, cluster: jax.Array) -> "distrax.Independent":
        """Of each of `[B, D]` its own cluster's policy."""
        every = ensemblize(lambda params: self.actor.apply(params, observations), 1)(policies).distribution
        own = lambda x: jnp.take_along_axis(x, cluster[None, :, None], axis=0)[0]
        return distrax.Independent(distrax.Normal(own(every.loc), own(every.scale)), 1)

    def policy_loss(
        self, policies: Any, params: dict[str, Any], batch: Batch, key: jax.Array, weight: jax.Array
    ) -> tuple[jax.Array, Info]:
        """Minus Eq. 14, which is to be maximised, summed with `weight [B]`; the key is consumed.

        The ratio is of the action as it was drawn, Q of the action as it would be taken.
        """
        cluster = params["clusters"][batch.trajectory]
        behaviour = self._gaussians(params["behaviours"], batch.observations, cluster)
        drawn = behaviour.sample(seed=key)
        ratio = jnp.exp(
            self._gaussians(policies, batch.observations, cluster).log_prob(drawn) - behaviour.log_prob(drawn)
        )
        value = self.heads.apply(params["critic"], batch.observations, jnp.clip(drawn, -1, 1))
        advantage = self._own(value - self.heads.apply(params["value"], batch.observations), params, batch)
        chex.assert_equal_shape([ratio, advantage, weight])
        gain = jnp.minimum(ratio * advantage, jnp.clip(ratio, 1 - self.clip, 1 + self.clip) * advantage)
        clipped = (jnp.abs(ratio - 1) > self.clip) * weight
        sign = 1.0 if self.printed_sign else -1.0
        gain = (gain * weight).sum()
        return sign * gain, dict(zip(POLICY_INFO, (gain, clipped.sum()), strict=True))

    def improve(self, state: LearnerState, view: View, step: jax.Array) -> tuple[LearnerState, Info]:
        """An epoch of the improvement: one gradient step on all transitions of `view`, or a pass in minibatches."""
        (key,) = step_keys(state, step, 1)
        size = CHUNK if self.full_batch else self.batch_size
        chunks = -(-len(view.data.batch.rewards) // size)

        def found(state, key, rows, weight):
            return gradient(
                self.policy_loss, state.params["policies"], state.params, view.batch(view.first + rows), key, weight
            )

        def add(totals, i):
            rows = i * size + jnp.arange(size)
            weight = (rows < view.count) / view.count
            each = found(state, jax.random.fold_in(key, i), jnp.minimum(rows, view.count - 1), weight)
            return jax.tree.map(jnp.add, totals, each), None

        def descend(state, i):
            key_rows, key_drawn = jax.random.split(jax.random.fold_in(key, i))
            rows = jax.random.randint(key_rows, (size,), 0, jnp.maximum(view.count, 1))
            each, info = found(state, key_drawn, rows, jnp.full(size, 1 / size))
            return self.descend(state, {"policies": each}, step), info

        if not self.full_batch:
            state, infos = jax.lax.scan(descend, state, jnp.arange(chunks))
            return state, jax.tree.map(jnp.mean, infos)
        zeros = jax.tree.map(jnp.zeros_like, state.params["policies"]), dict.fromkeys(POLICY_INFO, jnp.float32(0))
        (total, info), _ = jax.lax.scan(add, zeros, jnp.arange(chunks))
        return self.descend(state, {"policies": total}, step), info

    # --- acting -------------------------------------------------------------------------------------------

    def policy(self, params: dict[str, Any]) -> dict[str, Any]:
        """What acts, and the clusters `[N]` of the trajectories trained on."""
        return {name: params[name] for name in ("policies", "high_critic", "classifier", "clusters")}

    def assignments(self, actor: dict[str, Any]) -> jax.Array:
        return actor["clusters"]

    def chosen(self, actor: dict[str, Any], observations: jax.Array) -> jax.Array:
        """`[...]` int32: the cluster whose policy acts at `[..., D]`."""
        likely = jax.nn.softmax(self.classifier.apply(actor["classifier"], observations).logits)
        known = likely >= likely.max(-1, keepdims=True) / self.restriction
        value = self.heads.apply(actor["high_critic"], observations)
        return jnp.where(known, value, -jnp.inf).argmax(-1).astype(jnp.int32)

    def act(self, actor: dict[str, Any], observations: jax.Array) -> jax.Array:
        means = ensemblize(lambda params: self.actor.apply(params, observations).distribution.loc, 1)(actor["policies"])
        cluster = self.chosen(actor, observations)
        return jnp.clip(jnp.take_along_axis(means, cluster[None, ..., None], axis=0)[0], -1, 1)
