"""Ensembles: one leading axis per `ensemblize`, on parameters and results alike."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from trajclust_jax.devices import on_cpu, spread


def ensemblize(fn: Callable[..., Any], sizes: int, in_axes: int | Sequence[Any] = 0) -> Callable[..., Any]:
    """`fn` of one member as a function of `sizes` nested member axes (2 for `[R, K, ...]`).

    Arguments whose `in_axes` entry is None are shared by all members and never copied.
    """
    for _ in range(sizes):
        fn = jax.vmap(fn, in_axes=in_axes)
    return fn


def ensemblize_wide(fn: Callable[..., Any], sizes: int) -> Callable[..., Any]:
    """`ensemblize` where one member's work is enough for a processor: a seed, a restart's M-step, an E-step.

    On a CPU members run in turn, each in the caches: of 20 members' E-step over chunks of 6,000 steps that takes .7 of
    the time, and one member's memory. What `chosen` in `fn` does not choose is then left out. Members that several
    devices share run side by side.
    """
    if _side_by_side():
        return ensemblize(fn, sizes)
    for _ in range(sizes):
        fn = functools.partial(_in_turn, fn)
    return fn


def chosen(condition: jax.Array, then: Callable[..., Any], otherwise: Callable[..., Any], *operands: Any) -> Any:
    """`lax.cond` in a function of one member, whose `condition` members differ in.

    Members side by side compute both, and select. So does `vmap` of `lax.cond`; but it first makes a copy for each
    member of all that the two functions take, of the data too that members share.
    """
    if not _side_by_side():
        return jax.lax.cond(condition, then, otherwise, *operands)
    select = lambda one, other: jnp.where(condition, one, other)
    return jax.tree.map(select, then(*operands), otherwise(*operands))


def _side_by_side() -> bool:
    return not on_cpu() or spread()


def _in_turn(fn: Callable[..., Any], *args: Any) -> Any:
    return jax.lax.map(lambda args: fn(*args), args)


def member_keys(key: jax.Array, *sizes: int) -> jax.Array:
    """Keys `[*sizes]`, a member's key depending on its index alone; the key is consumed.

    Member (r, k) gets the same key however many others there are, so that a lone run can be compared.
    """
    keys = key[None]
    for size in sizes:
        fold = jax.vmap(jax.vmap(jax.random.fold_in, (None, 0)), (0, None))
        keys = fold(keys.reshape(-1), jnp.arange(size)).reshape(*keys.shape, size)
    return keys[0]
