"""Seeds shared out over devices: with more than one, each trains its part of the seeds, without communication."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

_SEED = PartitionSpec("seed")


def seed_mesh(num_seeds: int) -> Mesh:
    """As many of this host's devices as share `num_seeds` out evenly: 10 seeds take 5 of 8 devices."""
    devices = jax.local_devices()
    count = max(count for count in range(1, len(devices) + 1) if num_seeds % count == 0)
    return Mesh(np.array(devices[:count]), ("seed",))


def over_seeds(fn: Callable, mesh: Mesh, mapped: tuple[bool, ...]) -> Callable:
    """`fn`, written for one seed, for all of them. Arguments that are `mapped` have a leading seed axis, and so have
    all outputs; the others are common to the seeds."""
    every = jax.vmap(fn, tuple(0 if each else None for each in mapped))
    if mesh.size == 1:
        return every
    specs = tuple(_SEED if each else PartitionSpec() for each in mapped)
    return jax.shard_map(every, mesh=mesh, in_specs=specs, out_specs=_SEED, check_vma=False)


def place(tree: Any, mesh: Mesh, mapped: bool) -> Any:
    """`tree` on the mesh: each device with its part of the leading seed axis if `mapped`, else with all of it."""
    if mesh.size == 1:
        return jax.device_put(tree)
    return jax.device_put(tree, NamedSharding(mesh, _SEED if mapped else PartitionSpec()))
