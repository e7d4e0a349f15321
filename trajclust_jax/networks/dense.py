"""Dense layers of actors, critics and policies: flax's, with a gradient that copies nothing; their initialisers."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from trajclust_jax.devices import on_cpu

_WIDE, _MINIBATCH = 256, 1024  # units of both layers, rows; measured at 256 x 256 with 256 and 7,936 rows


@jax.custom_vjp
def product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`[..., I] @ [I, O] -> [..., O]`.

    Its gradient in the kernel contracts inputs and gradients as they lie. Of the product that autodiff writes, with
    ensembles vmapped, XLA's CPU backend first transposes the whole batch: that is faster for minibatches through wide
    layers, and slower for many rows or for many members of narrow ones.
    """
    return x @ kernel


def _forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return product(x, kernel), (x, kernel)


def _backward(residuals: tuple[jax.Array, jax.Array], gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = residuals
    rows, gradients = x.reshape(-1, x.shape[-1]), gradient.reshape(-1, gradient.shape[-1])
    if min(kernel.shape) >= _WIDE and len(rows) <= _MINIBATCH and on_cpu():
        in_kernel = jax.lax.optimization_barrier(rows.T) @ gradients
    else:
        in_kernel = jnp.einsum("ni,no->io", rows, gradients)
    return gradient @ kernel.T, in_kernel


product.defvjp(_forward, _backward)


def _dot_general(x: jax.Array, kernel: jax.Array, dimension_numbers: Any, precision: Any = None) -> jax.Array:
    return product(x, kernel)  # a dense layer has no other dimension numbers


class Dense(nn.Dense):
    """`[..., I] -> [..., O]`, parameters and arguments (but precision) of `flax.linen.Dense`; in reverse mode alone."""

    dot_general: Any = _dot_general


def orthogonal(scale: float = 1.0) -> Callable[..., jax.Array]:
    """Flax's orthogonal initialiser, whose values it gives to the bit, one matrix at a time under `vmap`.

    Its QR decompositions of a whole ensemble, batched, run inside XLA's own threads on a CPU: in jaxlib 0.10 two such
    on two cores wait for each other for ever.
    """
    init = nn.initializers.orthogonal(scale)

    def one_at_a_time(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
        return jax.custom_batching.sequential_vmap(lambda key: init(key, shape, dtype))(key)

    return one_at_a_time
