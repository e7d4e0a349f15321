"""Policy networks of the PG-Kmeans paper (B.6 and Table 2), in flax.

A policy is a feature extractor (MLP, or MLP + GRU over the observations so far) and a head (categorical
or diagonal Gaussian). Both extractors have the same two parts, so that whatever depends on one observation
alone is computed once for each distinct observation (`data.apply`):

    embed(observations [..., *shape]) -> [..., E]     one observation at a time
    policy(embeddings [T, E]) -> distribution          along one trajectory

For a Markov policy `embed` gives the head's inputs, and the T axis is only a batch.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from trajclust_jax.lazy import lazy
from trajclust_jax.networks.dense import Dense, orthogonal, product
from trajclust_jax.networks.planner import EXTRACTORS, Placed

distrax = lazy("distrax")

MIN_STD = 0.1  # soft floor of the Gaussian head: deterministic behaviour must not send likelihoods to infinity


class MLP(nn.Module):
    """Dense layers with ReLU after each; `[..., D] -> [..., features[-1]]`."""

    features: tuple[int, ...] = (128, 128)

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for size in self.features:
            x = nn.relu(Dense(size)(x))
        return x


class GRU(nn.Module):
    """A gated recurrent unit whose input gates are given: they depend on one observation only.

    `gates [T, ..., 3H] -> outputs [T, ..., H]`, from a zero state; equations as in Cho et al. (2014) with the reset
    gate applied after the recurrent product, so that one matmul a step serves all three gates.
    """

    hidden_size: int = 64

    @nn.compact
    def __call__(self, gates: jax.Array) -> jax.Array:
        hidden_size = self.hidden_size
        kernel = self.param("recurrent_kernel", orthogonal(), (hidden_size, 3 * hidden_size))
        bias = self.param("recurrent_bias", nn.initializers.zeros, (hidden_size,))

        def scan(hidden, gate):
            # Kept apart from the cell: a lookup fused into it stops XLA's CPU backend from vectorising.
            gate = jax.lax.optimization_barrier(gate)
            hidden = gru_step(kernel, bias, hidden, gate)
            return hidden, hidden

        return jax.lax.scan(scan, jnp.zeros((*gates.shape[1:-1], hidden_size), gates.dtype), gates)[1]


def gru_step(kernel: jax.Array, bias: jax.Array, hidden: jax.Array, gate: jax.Array) -> jax.Array:
    """One step: hidden `[..., H]`, input gates `[..., 3H]` (reset, update, candidate) -> `[..., H]`."""
    reset_in, update_in, candidate_in = jnp.split(gate, 3, axis=-1)
    reset_h, update_h, candidate_h = jnp.split(hidden @ kernel, 3, axis=-1)
    reset = nn.sigmoid(reset_in + reset_h)
    update = nn.sigmoid(update_in + update_h)
    candidate = jnp.tanh(candidate_in + reset * (candidate_h + bias))
    return (1 - update) * candidate + update * hidden


class CategoricalHead(nn.Module):
    """`[..., F] -> distrax.Categorical` over the actions (one dense layer, B.6).

    Of actions that are combinations (`Trajectories.action_parts`), the dense layer gives a logit for each value of each
    part; an action's logit is the sum of its parts', normalised over the combinations that the data have. A single part
    has a value for each action.
    """

    action_size: int
    action_parts: tuple[tuple[int, ...], ...] = ()

    @nn.compact
    def __call__(self, x: jax.Array) -> "distrax.Categorical":
        if not self.action_parts or len(self.action_parts[0]) == 1:
            return distrax.Categorical(logits=nn.log_softmax(nn.Dense(self.action_size)(x)))
        # [V, A] of 0 and 1: the values of the parts, one part after another, that each action has.
        members = np.concatenate([np.unique(part)[:, None] == part for part in np.transpose(self.action_parts)])
        logits = nn.Dense(len(members))(x) @ members.astype(np.float32)
        return distrax.Categorical(logits=nn.log_softmax(logits))


class _Layer(nn.Module):
    """Kernel and bias of a dense layer, for a product that several layers share."""

    features: int

    @nn.compact
    def __call__(self, num_inputs: int) -> tuple[jax.Array, jax.Array]:
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (num_inputs, self.features))
        return kernel, self.param("bias", nn.initializers.zeros, (self.features,))


class GaussianHead(nn.Module):
    """`[..., F] -> ` diagonal Gaussian, mean and std by a dense layer each (B.6), std above `MIN_STD`.

    One product serves both layers: alone, each is too narrow to keep a processor busy.
    """

    action_size: int

    @nn.compact
    def __call__(self, x: jax.Array) -> "distrax.Independent":
        layers = [_Layer(self.action_size, name=name)(x.shape[-1]) for name in ("mean", "std")]
        kernel, bias = (jnp.concatenate(parts, axis=-1) for parts in zip(*layers, strict=True))
        mean, std = jnp.split(product(x, kernel) + bias, 2, axis=-1)
        # Independent, not MultivariateNormalDiag: the latter must not be returned from jit or vmap.
        return distrax.Independent(distrax.Normal(mean, MIN_STD + nn.softplus(std)), 1)


def policy_head(discrete: bool, action_size: int, action_parts: tuple[tuple[int, ...], ...] = ()) -> nn.Module:
    """The head for a kind of actions."""
    return CategoricalHead(action_size, action_parts) if discrete else GaussianHead(action_size)


class PolicyNetwork(nn.Module):
    """A Markov (`recurrent=False`) or history policy.

    Markov: FC 128-128 and the head. History: FC 128-128, GRU 64, FC 128, the head (Table 2). Inputs are flat float32,
    or `Placed` maps for an `extractor` of the features that FC 128-128 sees.
    """

    action_size: int
    discrete: bool
    recurrent: bool = False
    features: tuple[int, ...] = (128, 128)
    hidden_size: int = 64
    output_size: int = 128
    extractor: str | None = None  # a name in EXTRACTORS
    action_parts: tuple[tuple[int, ...], ...] = ()  # of discrete actions that are combinations

    def setup(self) -> None:
        self.extract = EXTRACTORS[self.extractor]() if self.extractor else None
        self.mlp = MLP(self.features)
        if self.recurrent:
            self.input_gates = nn.Dense(3 * self.hidden_size)
            self.gru = GRU(self.hidden_size)
            self.output = MLP((self.output_size,))
        self.head = policy_head(self.discrete, self.action_size, self.action_parts)

    def embed(self, inputs: jax.Array | Placed) -> jax.Array:
        """`[..., D]` flat float inputs, or `[n, T]` placed ones, to what one observation contributes: `[..., E]`."""
        x = self.mlp(self.extract(inputs) if self.extract else inputs)
        return self.input_gates(x) if self.recurrent else x

    def read_out(self, x: jax.Array) -> Any:
        """Distribution from features `[..., F]`: GRU states for a history policy, `embed`'s result otherwise."""
        return self.head(self.output(x) if self.recurrent else x)

    @staticmethod
    def recurrence(params: Any) -> tuple[jax.Array, jax.Array]:
        """Kernel `[H, 3H]` and bias `[H]` of a history policy, for `gru_step`."""
        return params["params"]["gru"]["recurrent_kernel"], params["params"]["gru"]["recurrent_bias"]

    def along(self, embeddings: jax.Array) -> Any:
        """Distribution at every step of one trajectory, from its embeddings `[T, E]`."""
        return self.read_out(self.gru(embeddings) if self.recurrent else embeddings)

    def __call__(self, inputs: jax.Array) -> Any:
        """Distribution at every step of one trajectory of flat inputs `[T, D]` (batch, for a Markov policy)."""
        return self.along(self.embed(inputs))
