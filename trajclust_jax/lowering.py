"""The programs of a fit, for devices that are not here.

`programs` has every program that `fit` would run, with the shapes of its arguments, found without computing anything;
`lowered_for` translates one for other platforms through `jax.export`. A call back to the host is refused there.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from trajclust_jax.parallel import over_seeds
from trajclust_jax.training import Method, over_runs, step_all

PLATFORMS = ("cuda", "tpu")


class Program(NamedTuple):
    """A function of a fit and the shapes of its arguments."""

    name: str  # phase and part
    function: Callable[..., Any]
    arguments: tuple[Any, ...]


def programs(method: Method, trajectories: Any, num_seeds: int) -> Iterator[Program]:
    """What `fit(method, trajectories, num_seeds)` runs, in order; the data is prepared on the host."""
    prepared = method.prepare(trajectories, num_seeds)
    data = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, prepared))
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), num_seeds))
    state = None
    for phase in method.phases():
        mapped, extra = (True, False, state is not None), ()
        if phase.host is not None:
            ask = over_seeds(phase.host.ask, None, mapped)
            yield Program(f"{phase.name} ask", ask, (keys, data, state))
            asked = jax.eval_shape(ask, keys, data, state)
            extra = (asked, over_runs(phase.host.shapes, asked))
        start = over_seeds(phase.start, None, (*mapped, *(True for _ in extra)))
        yield Program(f"{phase.name} start", start, (keys, data, state, *extra))
        state = jax.eval_shape(start, keys, data, state, *extra)[0]
        if phase.step is not None and phase.budget:
            yield Program(f"{phase.name} step", step_all(phase.step, None), (state, data, np.int32(0)))
    yield Program("result", over_seeds(method.result, None, (True, False)), (state, data))


def lowered_for(program: Program, platforms: Sequence[str] = PLATFORMS) -> jax.export.Exported:
    """The program's translation for all of the platforms; no compiler of theirs is needed."""
    return jax.export.export(jax.jit(program.function), platforms=platforms)(*program.arguments)
