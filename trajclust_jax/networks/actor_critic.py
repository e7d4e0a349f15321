"""Actors and critics of the offline and online learners."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from trajclust_jax.lazy import lazy
from trajclust_jax.networks.dense import Dense, orthogonal
from trajclust_jax.networks.policies import MLP

distrax = lazy("distrax")

ORTHOGONAL = orthogonal(2**0.5)
STANDARD = nn.initializers.lecun_normal()  # flax's
LOG_STD_BOUNDS = (-5.0, 2.0)
MARGIN = 1e-3  # recorded actions are taken as inside their bounds by so much, where the tanh is undone


class TanhGaussianActor(nn.Module):
    """`[..., D] -> ` SAC's policy before the tanh: a diagonal Gaussian, one dense layer for mean and log std.

    `sample_squashed` turns its samples into actions in (-1, 1) with their log-density. With `affine_log_std` the
    layer's log std is multiplied and shifted by two learned numbers, 1 and -1 in the beginning (CQL's code).
    """

    action_size: int
    features: tuple[int, ...] = (256, 256)
    log_std_bounds: tuple[float, float] = LOG_STD_BOUNDS
    affine_log_std: bool = False

    @nn.compact
    def __call__(self, observations: jax.Array) -> "distrax.Independent":
        mean, log_std = jnp.split(Dense(2 * self.action_size)(MLP(self.features)(observations)), 2, axis=-1)
        if self.affine_log_std:
            multiplier = self.param("log_std_multiplier", nn.initializers.ones, ())
            log_std = multiplier * log_std + self.param("log_std_offset", nn.initializers.constant(-1.0), ())
        return distrax.Independent(distrax.Normal(mean, jnp.exp(jnp.clip(log_std, *self.log_std_bounds))), 1)

    @staticmethod
    def layers(params: Any) -> list[tuple[jax.Array, jax.Array]]:
        """Kernel and bias of its dense layers, in order."""
        layers = [*params["params"]["MLP_0"].values(), params["params"]["Dense_0"]]
        return [(layer["kernel"], layer["bias"]) for layer in layers]


def sample_squashed(key: jax.Array, policy: "distrax.Independent") -> tuple[jax.Array, jax.Array]:
    """Actions `[..., A]` and their log-density `[...]` under tanh of the policy; the key is consumed.

    Computed from what came before the tanh, so that it is finite at the bounds (Haarnoja et al. 2018, appendix C).
    """
    drawn, log_prob = policy.sample_and_log_prob(seed=key)
    return jnp.tanh(drawn), log_prob - (2 * (jnp.log(2.0) - drawn - nn.softplus(-2 * drawn))).sum(-1)


def squashed_log_prob(policy: "distrax.Independent", actions: jax.Array) -> jax.Array:
    """`[...]`: the log-density of recorded actions `[..., A]` in [-1, 1] under tanh of the policy."""
    actions = jnp.clip(actions, -1 + MARGIN, 1 - MARGIN)
    of_gaussian = policy.log_prob(jnp.arctanh(actions))
    change = jnp.log1p(-(actions**2)).sum(-1)
    return of_gaussian - change


def _hidden(actor: nn.Module, x: jax.Array) -> jax.Array:
    """An actor's hidden layers, made in its compact `__call__` before its last one: the order numbers them."""
    deterministic = not actor.has_rng("dropout")
    for size in actor.features:
        x = nn.relu(Dense(size, kernel_init=actor.kernel_init)(x))
        x = nn.Dropout(actor.dropout, deterministic=deterministic)(x)
    return x


class GaussianActor(nn.Module):
    """`[..., D] -> ` a diagonal Gaussian over actions whose std does not depend on the observation.

    With `bounded` its mean is a tanh. `dropout` acts after each hidden layer where a "dropout" key is given.
    """

    action_size: int
    features: tuple[int, ...] = (256, 256)
    bounded: bool = True
    dropout: float = 0.0
    kernel_init: nn.initializers.Initializer = STANDARD

    @nn.compact
    def __call__(self, observations: jax.Array) -> "distrax.Independent":
        x = _hidden(self, observations)
        mean = Dense(self.action_size, kernel_init=self.kernel_init)(x)
        log_std = self.param("log_std", nn.initializers.zeros, (self.action_size,))
        std = jnp.broadcast_to(jnp.exp(jnp.clip(log_std, *LOG_STD_BOUNDS)), mean.shape)
        return distrax.Independent(distrax.Normal(jnp.tanh(mean) if self.bounded else mean, std), 1)


class CategoricalActor(nn.Module):
    """`[..., D] -> ` a distribution over discrete actions, whose samples and mode are one-hot `[..., A]`.

    `dropout` as `GaussianActor` has it.
    """

    action_size: int
    features: tuple[int, ...] = (256, 256)
    dropout: float = 0.0
    kernel_init: nn.initializers.Initializer = STANDARD

    @nn.compact
    def __call__(self, observations: jax.Array) -> "distrax.OneHotCategorical":
        x = _hidden(self, observations)
        logits = Dense(self.action_size, kernel_init=self.kernel_init)(x)
        return distrax.OneHotCategorical(logits, dtype=jnp.float32)


class DeterministicActor(nn.Module):
    """`[..., D] -> [..., A]` in (-1, 1)."""

    action_size: int
    features: tuple[int, ...] = (256, 256)

    @nn.compact
    def __call__(self, observations: jax.Array) -> jax.Array:
        return jnp.tanh(Dense(self.action_size)(MLP(self.features)(observations)))


class Heads(nn.Module):
    """`[..., D_1], [..., D_2], ... -> [..., K]`: K values, such as Q of K policies."""

    features: tuple[int, ...]
    heads: int

    @nn.compact
    def __call__(self, *inputs: jax.Array) -> jax.Array:
        return Dense(self.heads)(MLP(self.features)(jnp.concatenate(inputs, axis=-1)))


class Critic(nn.Module):
    """`[..., D_1], [..., D_2], ... -> [...]`: Q of observations and actions, or V of observations alone.

    With `penultimate` what its last layer sees, `[..., H]`.
    """

    features: tuple[int, ...] = (256, 256)
    layer_norm: bool = False
    kernel_init: nn.initializers.Initializer = STANDARD

    @nn.compact
    def __call__(self, *inputs: jax.Array, penultimate: bool = False) -> jax.Array:
        x = jnp.concatenate(inputs, axis=-1)
        for size in self.features:
            x = Dense(size, kernel_init=self.kernel_init)(x)
            x = nn.relu(nn.LayerNorm()(x) if self.layer_norm else x)
        if penultimate:
            return x
        return Dense(1, kernel_init=self.kernel_init)(x)[..., 0]
