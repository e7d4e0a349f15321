"""Devices of a fit, on one host or several: who trains what, and how values get there and back.

The devices form a mesh of four axes. Along `seed` each device trains seeds of its own, without communication. Along
`outer` and `inner` lie the networks of one run: restarts and clusters of EM, swept settings and clusters of a learner.
Along `batch` lie the rows of its minibatches and E-steps. The compiler shares the last three out where a program says
so (`shared`, `shared_rows`). Numbers that do not divide are filled up.
"""

import contextlib
import json
import math
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import struct
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

try:
    from jax.experimental.compute_on import compute_on2 as compute_on  # its name before jax 0.11
except ImportError:
    from jax.experimental.compute_on import compute_on

SEED, OUTER, INNER, BATCH = AXES = ("seed", "outer", "inner", "batch")
LEAST_ROWS = 1024  # rows a device for which sharing a minibatch out pays the sum of its gradients


_traced_for: ContextVar[str | None] = ContextVar("traced_for", default=None)


def on_cpu() -> bool:
    """Whether what is traced will run on CPUs, which want some things in another form."""
    return (_traced_for.get() or jax.default_backend()) == "cpu"


@contextlib.contextmanager
def traced_for(platform: str) -> Iterator[None]:
    """What is traced meanwhile is for another platform than this machine's: cuda, tpu."""
    token = _traced_for.set(platform)
    try:
        yield
    finally:
        _traced_for.reset(token)


@struct.dataclass
class OnHost:
    """An array that a device has no room for, in the host's memory: programs fetch from it what they need."""

    values: jax.Array


def fetched(values: jax.Array | OnHost, take: Callable[..., jax.Array] = lambda x: x, *indices: jax.Array) -> jax.Array:
    """`take(values, *indices)`; of values on the host it is taken there, and that alone is moved to the device."""
    if not isinstance(values, OnHost):
        return take(values, *indices)
    host = jax.memory.Space.Host
    given = [jax.device_put(x, host) for x in (values.values, *indices)]
    if indices:
        given = [compute_on(take, compute_type="device_host", out_memory_spaces=host)(*given)]
    return jax.device_put(given[0], jax.memory.Space.Device)


def within(data: Any, device_bytes: float | None) -> Any:
    """Prepared data, its large arrays on the host if all of them exceed so many bytes of a device; None: no limit.

    Raises:
        ValueError: for data that is larger and cannot be fetched in parts.
    """
    size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(data))
    if device_bytes is None or size <= device_bytes:
        return data
    if not hasattr(data, "on_host"):
        taken, allowed = size / 1e9, device_bytes / 1e9
        raise ValueError(
            f"the data takes {taken:.2g} GB of a device, and {allowed:.2g} GB are allowed: raise the limit"
        )
    return data.on_host()


class Layout(NamedTuple):
    """S seeds on a mesh: `slots` of them, so that every device has as many; the last ones repeat the last seed."""

    mesh: Mesh
    seeds: int
    slots: int

    def place(self, tree: Any, mapped: bool) -> Any:
        """`tree` on the mesh: each device with its part of the leading axis of slots if `mapped`, else with all of
        it. Every host gives equal values."""
        spec = PartitionSpec(SEED) if mapped else PartitionSpec()
        is_host = lambda x: isinstance(x, OnHost)
        if self.mesh.size == 1 and not any(map(is_host, jax.tree.leaves(tree, is_leaf=is_host))):
            return jax.device_put(tree)

        def put(x: Any) -> Any:
            place = NamedSharding(self.mesh, spec, memory_kind="pinned_host" if is_host(x) else None)
            put = _placed if jax.process_count() > 1 else jax.device_put
            return jax.tree.map(lambda x: put(x, place), x)

        return jax.tree.map(put, tree, is_leaf=is_host)

    def filled(self, tree: Any) -> Any:
        """Values `[S, ...]` as values `[slots, ...]`."""
        if self.slots == self.seeds:
            return tree
        return jax.tree.map(lambda x: x[np.minimum(np.arange(self.slots), self.seeds - 1)], tree)

    def local(self, tree: Any) -> Any:
        """Values `[slots, ...]` of all devices as values `[S, ...]` that this host can read."""
        if jax.process_count() > 1:
            everywhere = jax.jit(lambda tree: tree, out_shardings=NamedSharding(self.mesh, PartitionSpec()))
            tree = jax.tree.map(lambda x: x.addressable_data(0), everywhere(tree))
        return tree if self.slots == self.seeds else jax.tree.map(lambda x: x[: self.seeds], tree)


def _placed(value: Any, place: NamedSharding) -> jax.Array:
    """A value that every host has, on the devices of all."""
    if isinstance(value, jax.Array) and jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
        data = _placed(jax.random.key_data(value), place)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(value))
    value = np.asarray(value)
    return jax.make_array_from_callback(value.shape, place, lambda index: value[index])


def layout(num_seeds: int, members: tuple[int, int] = (1, 1)) -> Layout:
    """The use of all devices in which the busiest one has the fewest networks, seeds being split first.

    Args:
        num_seeds: S.
        members: a run's independent networks, outer and inner.
    """
    devices, wanted = np.array(jax.devices()), (num_seeds, *members)

    def rank(sizes: tuple[int, ...]) -> tuple[int, ...]:
        in_turn = math.prod(-(-size // share) for size, share in zip(wanted, sizes, strict=True))
        return in_turn, math.prod(sizes), *(-share for share in sizes)

    sizes = min(_splits(wanted, len(devices)), key=rank)
    shape = (*sizes, len(devices) // math.prod(sizes))
    mesh = Mesh(devices[: math.prod(shape)].reshape(shape), AXES)
    return Layout(mesh, num_seeds, -(-num_seeds // sizes[0]) * sizes[0])


def _splits(wanted: tuple[int, ...], devices: int) -> Iterator[tuple[int, ...]]:
    """All ways to split the sizes `wanted` over so many devices."""
    if not wanted:
        yield ()
        return
    for share in range(1, min(wanted[0], devices) + 1):
        for rest in _splits(wanted[1:], devices // share):
            yield share, *rest


def shared(tree: Any, *axes: str) -> Any:
    """`tree`, of whose arrays the leading axes lie along these of the mesh; as it is where a fit has one device.

    For functions that `fit` maps over seeds. The values do not change, nor need the sizes divide.
    """
    sizes = jax.sharding.get_abstract_mesh().shape
    names = [name if sizes.get(name, 1) > 1 else None for name in axes]
    if not any(names):
        return tree
    return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, PartitionSpec(*names[: x.ndim])), tree)


def shared_rows(drawn: jax.Array, each: int = 1) -> jax.Array:
    """`shared` for a minibatch `[B]` that has enough rows for it, `each` of what was drawn."""
    rows = len(drawn) * each
    return shared(drawn, BATCH) if rows >= LEAST_ROWS * jax.sharding.get_abstract_mesh().shape.get(BATCH, 1) else drawn


def spread() -> bool:
    """Whether networks of one run lie on several devices, where this is traced."""
    sizes = jax.sharding.get_abstract_mesh().shape
    return sizes.get(OUTER, 1) > 1 or sizes.get(INNER, 1) > 1


# --- several hosts --------------------------------------------------------------------------------------


def leads() -> bool:
    """Whether this process writes what all of them compute: it is the first, or the only one."""
    return jax.process_index() == 0


def anywhere(*flags: bool) -> tuple[bool, ...]:
    """Each flag, true where any process says so. All processes ask at the same point."""
    if jax.process_count() == 1:
        return flags
    return tuple(multihost_utils.process_allgather(np.array(flags)).any(0).tolist())


def from_lead(value: Any) -> Any:
    """The first process's value, of JSON's types, on all of them."""
    if jax.process_count() == 1:
        return value
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
    given = multihost_utils.broadcast_one_to_all(np.resize(text, size))
    return json.loads(given.tobytes())
