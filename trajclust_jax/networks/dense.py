"""Dense layers of actors, critics and policies: flax's, with a gradient that copies nothing."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


@jax.custom_vjp
def product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`[..., I] @ [I, O] -> [..., O]`.

    Its gradient in the kernel contracts inputs and gradients as they lie. Of the product that autodiff writes, with
    ensembles vmapped, XLA's CPU backend first transposes the whole batch.
    """
    return x @ kernel


def _forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return product(x, kernel), (x, kernel)


def _backward(residuals: tuple[jax.Array, jax.Array], gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = residuals
    rows, gradients = x.reshape(-1, x.shape[-1]), gradient.reshape(-1, gradient.shape[-1])
    return gradient @ kernel.T, jnp.einsum("ni,no->io", rows, gradients)


product.defvjp(_forward, _backward)


def _dot_general(x: jax.Array, kernel: jax.Array, dimension_numbers: Any, precision: Any = None) -> jax.Array:
    return product(x, kernel)  # a dense layer has no other dimension numbers


class Dense(nn.Dense):
    """`[..., I] -> [..., O]`, parameters and arguments (but precision) of `flax.linen.Dense`; in reverse mode alone."""

    dot_general: Any = _dot_general
