"""The programs of a fit, for devices that are not here.

`programs` has every program that `fit` would run on an accelerator, with the shapes of its arguments, found without
computing anything; `lowered_for` translates one for other platforms through `jax.export`, which refuses a call back to
the host; `counted` tells its least work.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from jax.extend import core
from jax.sharding import Mesh

from trajclust_jax.devices import traced_for
from trajclust_jax.parallel import over_seeds
from trajclust_jax.training import Method, over_runs, step_all

PLATFORMS = ("cuda", "tpu")
_STREAMS = {"dot_general", "gather", "scatter", "scatter-add", "sort", "conv_general_dilated", "cumsum", "argmax"}


class Program(NamedTuple):
    """A function of a fit and the shapes of its arguments."""

    name: str  # phase and part
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    mapped: tuple[bool, ...] = ()  # which arguments have the axis of seeds


class Work(NamedTuple):
    """What a program has to do at least, each loop as often as it runs."""

    multiplied: float  # FLOPs of matrix products
    elementwise: float  # other FLOPs, one an element
    bytes: float  # read and written by products, lookups, sums and sorts; what lies between is fused into them


def programs(method: Method, trajectories: Any, num_seeds: int, mesh: Mesh | None = None) -> Iterator[Program]:
    """What `fit(method, trajectories, num_seeds)` runs, in order; the data is prepared on the host.

    With a mesh as `devices.layout` makes them, for all of its devices.
    """
    prepared = method.prepare(trajectories, num_seeds)
    data = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, prepared))
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), num_seeds))
    state = None

    def program(name: str, function: Callable, *arguments: Any, mapped: tuple[bool, ...]) -> Program:
        return Program(name, over_seeds(function, mesh, mapped), arguments, mapped)

    for phase in method.phases():
        mapped, extra = (True, False, state is not None), ()
        if phase.host is not None:
            yield (ask := program(f"{phase.name} ask", phase.host.ask, keys, data, state, mapped=mapped))
            asked = shapes_of(ask)
            extra = (asked, over_runs(phase.host.shapes, asked))
        mapped = (*mapped, *(True for _ in extra))
        yield (start := program(f"{phase.name} start", phase.start, keys, data, state, *extra, mapped=mapped))
        state = shapes_of(start)[0]
        if phase.step is not None and phase.budget:
            given = state, data, np.int32(0)
            yield Program(f"{phase.name} step", step_all(phase.step, mesh), given, (True, False, False))
    yield program("result", method.result, state, data, mapped=(True, False))


def shapes_of(program: Program) -> Any:
    """Of what a program returns."""
    with traced_for(PLATFORMS[0]):
        return jax.eval_shape(program.function, *program.arguments)


def lowered_for(program: Program, platforms: Sequence[str] = PLATFORMS) -> jax.export.Exported:
    """The program's translation for all of the platforms; no compiler of theirs is needed."""
    with traced_for(platforms[0]):
        return jax.export.export(jax.jit(program.function), platforms=platforms)(*program.arguments)


def counted(program: Program, trips: Sequence[int] = ()) -> Work:
    """The program's work.

    Args:
        program: what is counted.
        trips: of the loops whose number of rounds is computed, in the order in which they begin.

    Raises:
        ValueError: for another number of such loops.
    """
    with traced_for(PLATFORMS[0]):
        jaxpr = jax.make_jaxpr(program.function)(*program.arguments).jaxpr
    left = list(trips)
    work = _counted(jaxpr, left)
    if left:
        raise ValueError(f"{program.name}: {len(left)} of {len(trips)} loops are not there")
    return work


def _counted(jaxpr: core.Jaxpr, trips: list[int]) -> Work:
    total = np.zeros(3)
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        if name == "cond":  # the longer branch
            total += max((_counted(branch.jaxpr, trips) for branch in params["branches"]), key=sum)
        elif name == "while":
            if not trips:
                raise ValueError("a loop's number of rounds is computed: it has to be given")
            total += trips.pop(0) * np.array(_counted(params["body_jaxpr"].jaxpr, trips))
        elif name == "scan":
            total += params["length"] * np.array(_counted(params["jaxpr"].jaxpr, trips))
        elif inner := [value for value in params.values() if isinstance(value, core.Jaxpr | core.ClosedJaxpr)]:
            total += _counted(getattr(inner[0], "jaxpr", inner[0]), trips)
        else:
            total += _of_equation(equation)
    return Work(*total.tolist())


def _of_equation(equation: core.JaxprEqn) -> Work:
    name, out = equation.primitive.name, sum(math.prod(x.aval.shape) for x in equation.outvars)
    moved = 0.0
    if name in _STREAMS or name.startswith("reduce"):
        arrays = [x.aval for x in (*equation.invars, *equation.outvars)]
        if name == "gather":  # of the table what is taken
            arrays = [equation.invars[1].aval, equation.outvars[0].aval, equation.outvars[0].aval]
        moved = float(sum(math.prod(x.shape) * _item_size(x.dtype) for x in arrays))
    if name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        depth = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
        return Work(2.0 * out * depth, 0.0, moved)
    return Work(0.0, float(out), moved)


def _item_size(dtype: Any) -> int:
    return 8 if jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key) else np.dtype(dtype).itemsize
