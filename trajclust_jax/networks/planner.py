"""A policy that plans: value iteration on the map in the observation, its reward learned by cloning.

After Tamar et al., "Value Iteration Networks" (2016), with three differences that make it small and quick. Moves have
the frequencies seen in the data instead of learned kernels. Values come in layers, as in a plan of several goals: a
cell may hand over from a layer to the one before it (a goal that is reached once), or end the plan. And gradients
pass through the fixed point, not through the sweeps (implicit differentiation): the backward pass is as cheap as the
forward one, and nothing of it is stored.

Arrays have the cells first and the maps last, `[..., H * W, M]`: on a CPU the maps are the vector lanes.
"""

from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

MOVES = ((-1, 0), (1, 0), (0, -1), (0, 1))  # up, down, left, right; not moving is the fifth displacement


class Terms(NamedTuple):
    """One layer's Bellman equation on M maps: `V = max_a Q(a)` with Q of `action_values`."""

    arrival: jax.Array  # [HW, M] value of arriving on a cell, the layer's own future values apart
    discount: jax.Array  # [HW, M] weight of those
    open: jax.Array  # [4, HW, M] how far the next cell of each move can be entered, 0 to 1; 0 at the edge
    kernel: jax.Array  # [A, 4] probability of each move under each action


def action_values(values: jax.Array, terms: Terms, width: int) -> jax.Array:
    """`[A, HW, M]`: action values of cells under `values [HW, M]`; a move that is blocked stays where it is."""
    here = terms.arrival + terms.discount * values
    cells = here.shape[0]
    # One padded copy whose slices are the four neighbours: shifting by concatenation does not vectorise.
    padded = jax.lax.optimization_barrier(jnp.zeros((cells + 2 * width, *here.shape[1:])).at[width:-width].set(here))
    neighbours = [padded[width + rows * width + columns :][:cells] for rows, columns in MOVES]
    gains = [opened * (there - here) for opened, there in zip(terms.open, neighbours, strict=True)]
    return jnp.stack([here + sum(p * gain for p, gain in zip(row, gains, strict=True)) for row in terms.kernel])


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def fixed_point(start: jax.Array, terms: Terms, width: int, sweeps: int) -> jax.Array:
    """`[HW, M]` values after `sweeps` sweeps of value iteration from `start`, taken for the fixed point.

    The gradient in `terms` is the fixed point's (as many sweeps of the adjoint equation); in `start` it is zero.
    """
    sweep = lambda _, values: action_values(values, terms, width).max(0)
    return jax.lax.fori_loop(0, sweeps, sweep, start)


def _forward(start, terms, width, sweeps):
    values = fixed_point(start, terms, width, sweeps)
    return values, (values, terms)


def _backward(width, sweeps, residuals, cotangent):
    values, terms = residuals
    _, pull_back = jax.vjp(lambda values, terms: action_values(values, terms, width).max(0), values, terms)
    adjoint = jax.lax.fori_loop(0, sweeps, lambda _, adjoint: cotangent + pull_back(adjoint)[0], cotangent)
    return jnp.zeros_like(values), pull_back(adjoint)[1]


fixed_point.defvjp(_forward, _backward)


class Placed(NamedTuple):
    """Observations taken apart: the map that a step of a trajectory is on, and the agent's cell."""

    maps: jax.Array  # [M, P, H, W], planes without the agent's
    columns: jax.Array  # [n, T] int32 rows of `maps`
    cells: jax.Array  # [n, T] int32, row * W + column
    kernel: jax.Array  # [A, 4] float32: how often each action moved up, down, left, right

    def gather(self, fields: jax.Array) -> jax.Array:
        """`[n, T, F]`: the values of fields `[F, H * W, M]` where the agent is."""
        return jnp.moveaxis(fields[:, self.cells, self.columns], 0, -1)


class Planner(nn.Module):
    """`maps [M, P, H, W]` and `kernel [A, 4]` to `[A, H * W, M]` logits: the policy in every cell of every map."""

    layers: int = 3
    sweeps: int = 20  # of each layer, which starts from the values of the layer before it
    hidden: int = 16  # units of the reward's network, applied to each cell's planes and position

    @nn.compact
    def __call__(self, maps: jax.Array, kernel: jax.Array) -> jax.Array:
        _, num_planes, height, width = maps.shape
        planes = maps.reshape(*maps.shape[:2], -1).transpose(1, 2, 0).astype(jnp.float32)  # [P, HW, M]
        weight = lambda name, *shape, scale=0.1: self.param(name, nn.initializers.normal(scale), shape)
        constant = lambda name, *values: self.param(name, lambda _: jnp.array(values, jnp.float32))

        position = jnp.asarray(np.indices((height, width)).reshape(2, -1) / (max(height, width) - 1) - 0.5, jnp.float32)
        at_position = weight("position_kernel", self.hidden, 2, scale=0.5) @ position  # [h, HW]
        at_position = (at_position + weight("position_bias", self.hidden, 1))[..., None]
        hidden = nn.relu(_mix(weight("plane_kernel", self.hidden, num_planes, scale=0.5), planes) + at_position)
        reward = _mix(weight("reward_kernel", 1, self.hidden), hidden)[0]
        enter = nn.sigmoid(4 * (_mix(weight("enter_kernel", 1, num_planes), planes)[0] + constant("enter_bias", 0.0)))
        onward = _mix(4 * weight("onward_kernel", 3, num_planes), planes)
        stay, previous, _ = nn.softmax(onward + constant("onward_bias", 2.0, 0.0, 0.0)[:, None, None], axis=0)
        discount = nn.sigmoid(constant("discount_logit", 3.0))

        grid = jnp.pad(enter.reshape(height, width, -1), ((1, 1), (1, 1), (0, 0)))
        opened = jnp.stack([grid[1 + r : height + 1 + r, 1 + c : width + 1 + c] for r, c in MOVES])
        opened = opened.reshape(len(MOVES), *reward.shape)

        def layer(values, _):
            terms = Terms(reward + discount * previous * values, discount * stay, opened, kernel)
            return fixed_point(values, terms, width, self.sweeps), terms.arrival

        values, arrivals = jax.lax.scan(layer, jnp.zeros_like(reward), length=self.layers)
        advantages = action_values(values, Terms(arrivals[-1], discount * stay, opened, kernel), width)
        advantages -= advantages.mean(0)
        return nn.log_softmax(jnp.exp(constant("sharpness", 0.0)) * advantages, axis=0)


def _mix(kernel: jax.Array, planes: jax.Array) -> jax.Array:
    """`[O, I]` and `[I, HW, M]` to `[O, HW, M]`."""
    return jnp.tensordot(kernel, planes, 1)


class PlannedFeatures(nn.Module):
    """Placed observations to features `[n, T, plans * A + P]`: the log-policies of several plans, and what is here.

    Each plan is a `Planner` with its own reward. One is a policy; together they are what policies may want, to be
    recognised by an encoder, chosen from by a decoder, followed or not by a GRU.
    """

    plans: int = 4
    sweeps: int = 20

    @nn.compact
    def __call__(self, placed: Placed) -> jax.Array:
        several = nn.vmap(
            Planner,
            in_axes=None,
            axis_size=self.plans,
            variable_axes={"params": 0},
            split_rngs={"params": True},
        )
        logits = several(sweeps=self.sweeps, name="plans")(placed.maps, placed.kernel)  # [plans, A, HW, M]
        planes = placed.maps.reshape(*placed.maps.shape[:2], -1).transpose(1, 2, 0)
        return placed.gather(jnp.concatenate([logits.reshape(-1, *logits.shape[2:]), planes]))


class ConvolvedFeatures(nn.Module):
    """Placed observations to features `[n, T, 2 * channels + P]`: 3 x 3 convolutions, read where the agent is.

    Half of the features are their mean over the map. A convolution is a matrix product of shifted copies: mapped over
    an ensemble it stays one, while XLA's convolution would become a grouped one, which is slow on a CPU.
    """

    layers: int = 5
    channels: int = 16

    @nn.compact
    def __call__(self, placed: Placed) -> jax.Array:
        num_maps, _, height, width = placed.maps.shape
        planes = placed.maps.transpose(1, 2, 3, 0).astype(jnp.float32)  # [P, H, W, M]
        x = planes
        for layer in range(self.layers):
            grid = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
            shifted = [grid[:, r : height + r, c : width + c] for r in range(3) for c in range(3)]
            patches = jnp.concatenate(shifted).reshape(9 * len(x), -1)
            init = nn.initializers.variance_scaling(2.0, "fan_in", "truncated_normal", in_axis=1, out_axis=0)
            kernel = self.param(f"kernel_{layer}", init, (self.channels, len(patches)))
            bias = self.param(f"bias_{layer}", nn.initializers.zeros, (self.channels, 1))
            y = nn.relu(kernel @ patches + bias).reshape(self.channels, height, width, num_maps)
            x = x + y if layer else y
        mean = jnp.broadcast_to(x.mean((1, 2), keepdims=True), x.shape)
        fields = jnp.concatenate([x, mean, planes])
        return placed.gather(fields.reshape(len(fields), -1, num_maps))


EXTRACTORS = {"planner": PlannedFeatures, "conv": ConvolvedFeatures}
