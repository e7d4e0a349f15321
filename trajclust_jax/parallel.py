"""Seeds in one program, shared out over devices: with more than one, each trains its part, without communication."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from trajclust_jax.networks import ensemblize_wide

_SEED = PartitionSpec("seed")


def seed_mesh(num_seeds: int) -> Mesh:
    """As many of this host's devices as share `num_seeds` out evenly: 10 seeds take 5 of 8 devices."""
    devices = jax.local_devices()
    count = max(count for count in range(1, len(devices) + 1) if num_seeds % count == 0)
    return Mesh(np.array(devices[:count]), ("seed",))


def over_seeds(fn: Callable, mesh: Mesh, mapped: tuple[bool, ...]) -> Callable:
    """`fn`, written for one seed, for all of them. Arguments that are `mapped` have a leading seed axis, and so have
    all outputs; the others are common to the seeds.

    An accelerator runs its seeds side by side, a CPU in turn: it is busy with one, whose arrays fit its caches. One
    seed alone has no seed axis inside. Results are a lone run's up to rounding.
    """

    @functools.wraps(fn)
    def every(*args):
        given = [arg for arg, each in zip(args, mapped, strict=True) if each]

        def one(values):
            values = iter(values)
            return fn(*(next(values) if each else arg for arg, each in zip(args, mapped, strict=True)))

        if jax.tree.leaves(given)[0].shape[0] == 1:
            return jax.tree.map(lambda x: x[None], one(jax.tree.map(lambda x: x[0], given)))
        return ensemblize_wide(one, 1)(given)

    if mesh.size == 1:
        return every
    specs = tuple(_SEED if each else PartitionSpec() for each in mapped)
    return jax.shard_map(every, mesh=mesh, in_specs=specs, out_specs=_SEED, check_vma=False)


def place(tree: Any, mesh: Mesh, mapped: bool) -> Any:
    """`tree` on the mesh: each device with its part of the leading seed axis if `mapped`, else with all of it."""
    if mesh.size == 1:
        return jax.device_put(tree)
    return jax.device_put(tree, NamedSharding(mesh, _SEED if mapped else PartitionSpec()))
