"""Seeds in one program, shared out over devices (see `devices`)."""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from trajclust_jax.devices import SEED
from trajclust_jax.networks import ensemblize_wide


def over_seeds(fn: Callable, mesh: Mesh | None, mapped: tuple[bool, ...]) -> Callable:
    """`fn`, written for one seed, for all of them. Arguments that are `mapped` have a leading seed axis, and so have
    all outputs; the others are common to the seeds. Without a mesh, on one device.

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

    if mesh is None or mesh.size == 1:
        return every
    specs = tuple(PartitionSpec(SEED) if each else PartitionSpec() for each in mapped)
    return jax.shard_map(
        every, mesh=mesh, in_specs=specs, out_specs=PartitionSpec(SEED), axis_names={SEED}, check_vma=False
    )


def compiled_by_seed(mesh: Mesh, **options: Any) -> Callable[[Callable], Any]:
    """`jax.jit` whose outputs lie as the arguments of the next program do."""
    if mesh.size > 1:
        options["out_shardings"] = NamedSharding(mesh, PartitionSpec(SEED))
    return functools.partial(jax.jit, **options)
