"""Ensembles: one leading axis per `ensemblize`, on parameters and results alike."""

from collections.abc import Callable, Sequence
from typing import Any

import jax


def ensemblize(fn: Callable[..., Any], sizes: int, in_axes: int | Sequence[Any] = 0) -> Callable[..., Any]:
    """`fn` of one member as a function of `sizes` nested member axes (2 for `[R, K, ...]`).

    Arguments whose `in_axes` entry is None are shared by all members and never copied.
    """
    for _ in range(sizes):
        fn = jax.vmap(fn, in_axes=in_axes)
    return fn


def member_keys(key: jax.Array, *sizes: int) -> jax.Array:
    """Keys `[*sizes]`, a member's key depending on its index alone; the key is consumed.

    Member (r, k) gets the same key however many others there are, so that a lone run can be compared.
    """
    keys = key[None]
    for size in sizes:
        fold = jax.vmap(jax.vmap(jax.random.fold_in, (None, 0)), (0, None))
        keys = fold(keys.reshape(-1), jax.numpy.arange(size)).reshape(*keys.shape, size)
    return keys[0]
