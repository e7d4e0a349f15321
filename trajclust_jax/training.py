"""`fit`: the only training loop. All seeds of a method advance in one jitted step.

A method is a frozen dataclass with three functions, written for ONE run:

    prepare(trajectories, num_seeds) -> data     host-side, once
    phases() -> tuple[Phase, ...]                each with start and step; shapes may change between phases
    result(state, data) -> Clustering | Policy

`fit` runs start, step and result for all seeds in one program (see `parallel`), donates the state, loops on the host
until every run has converged or the phase's budget is spent, and freezes a run that has converged while the others go
on. Random numbers depend on (seed, phase, iteration) alone, so that a resumed fit ends bit for bit like an undisturbed
one.

Several devices share the work, and so do several hosts that all call `fit` (see `devices`). How many independent
networks a run has, to be shared out, a method says by a fourth function, `members(trajectories) -> (outer, inner)`.
"""

import contextlib
import dataclasses
import functools
import logging
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from trajclust_jax.checkpoint import Checkpointer
from trajclust_jax.devices import Layout, anywhere, layout, leads, within
from trajclust_jax.interrupts import Deferred
from trajclust_jax.networks import chosen
from trajclust_jax.parallel import compiled_by_seed, over_seeds
from trajclust_jax.records import plain

Info = dict[str, jax.Array]  # what a step reports; "assignments" is shown to `score` and not recorded

log = logging.getLogger(__name__)


class Host(NamedTuple):
    """What the host computes of ONE run before a phase starts, between programs: no program calls it back."""

    ask: Callable[[jax.Array, Any, Any], Any]  # (key, data, previous phase's state) -> what it is given
    solve: Callable[[Any], Any]  # of that, as NumPy arrays
    shapes: Callable[[Any], Any]  # of what `solve` returns, from those of what it is given


class Phase(NamedTuple):
    """A stretch of training in which shapes do not change. `state.converged` is a bool scalar."""

    name: str
    # (key, data, previous phase's state), and with `host` what it asked and what it solved
    start: Callable[..., tuple[Any, Info]]
    step: Callable[[Any, Any, jax.Array], tuple[Any, Info]] | None  # (state, data, iteration), or None
    budget: int  # at most so many iterations
    light_start: bool = False  # start computes little: compile it quickly rather than well
    host: Host | None = None  # what is computed before `start`


class Method(Protocol):
    """An iterative method; see the module's docstring."""

    def prepare(self, trajectories: Any, num_seeds: int) -> Any: ...
    def phases(self) -> tuple[Phase, ...]: ...
    def result(self, state: Any, data: Any) -> Any: ...


@dataclasses.dataclass
class Event:
    """What a callback is told after every iteration, on the host."""

    phase: str
    iteration: int  # within the phase; 0 is its start
    budget: int
    total: int  # iterations since the beginning, over phases
    metrics: dict[str, np.ndarray]  # [S, ...] each
    converged: np.ndarray  # [S] bool


@dataclasses.dataclass
class Fit:
    """The outcome of `fit`: `result` has a leading seed axis, in the order of `seeds`."""

    result: Any
    seeds: tuple[int, ...]
    history: list[dict[str, Any]]  # one entry an iteration: phase, iteration, metrics as lists (null: not finite)
    compile_seconds: float  # spent waiting for programs; those of later phases are compiled while earlier ones run
    run_seconds: float  # preparation included, compilation and evaluation not; over all attempts of a resumed fit
    evaluate_seconds: float
    resumed: bool
    device_bytes: int  # that a device needs at most: a program's arguments, results and temporaries

    @property
    def timing(self) -> dict[str, Any]:
        """What a record says of it."""
        names = "run_seconds", "compile_seconds", "evaluate_seconds", "resumed", "device_bytes"
        return {name: getattr(self, name) for name in names}


class Evaluate(NamedTuple):
    """What is measured of a result while the training goes on, in its last phase; nothing comes back from it."""

    measure: Callable[[Any, int], dict[str, Any]]  # (result with its seed axis, iteration) -> metrics [S, ...]
    every: int  # iterations; and after the last one


Callback = Callable[[Event], None]
Score = Callable[[np.ndarray], dict[str, np.ndarray]]  # assignments [..., N] -> scores [...]


def fit(
    method: Method,
    trajectories: Any,
    seeds: Sequence[int] | int,
    *,
    score: Score | None = None,
    evaluate: Evaluate | None = None,
    callbacks: Sequence[Callback] = (),
    checkpoint_dir: str | None = None,
    checkpoint_seconds: float = 20.0,
    device_bytes: float | None = None,
) -> Fit:
    """Trains `method` for all seeds at once.

    Ctrl-C, SIGTERM and SIGHUP end the fit after the running iteration (or compilation and first iteration), its state
    kept; then they do what they did before. A second signal does so at once.

    Args:
        method: what to train.
        trajectories: its data; labels are not among them.
        seeds: the seeds, or their number.
        score: computes scores of assignments for display and history. It sees what the method found and
            nothing comes back from it, so that labels cannot influence a result.
        evaluate: measures results on the way, for display and history.
        callbacks: called after every iteration.
        checkpoint_dir: where state is kept every `checkpoint_seconds` and at the end of every phase. A fit
            that finds a checkpoint there goes on from it; it is the caller's part to give one folder to one
            cell only. None: nothing is kept.
        device_bytes: what the data may take of a device; of larger data the steps stay in the host's memory, and are
            fetched as they are needed. `$TRAJCLUST_DEVICE_GB` by default; without it there is no limit.
    """
    seeds = tuple(range(seeds)) if isinstance(seeds, int) else tuple(int(seed) for seed in seeds)
    run = _Run(checkpoint_dir, checkpoint_seconds, seeds)
    device_bytes = _allowed() if device_bytes is None else device_bytes
    with Deferred() as signals, contextlib.closing(run):
        return _fit(method, trajectories, seeds, score, evaluate, callbacks, run, signals, device_bytes)


def _allowed() -> float | None:
    """Bytes of a device by `$TRAJCLUST_DEVICE_GB`; None: no limit.

    Raises:
        ValueError: for what is no number above 0.
    """
    given = os.environ.get("TRAJCLUST_DEVICE_GB")
    if not given:
        return None
    with contextlib.suppress(ValueError):
        if float(given) > 0:
            return float(given) * 1e9
    raise ValueError(f"TRAJCLUST_DEVICE_GB is {given!r}: give gigabytes, as in 4 or 0.5, or unset it")


def _fit(method, trajectories, seeds, score, evaluate, callbacks, run, signals, device_bytes) -> Fit:
    members_of = getattr(method, "members", lambda _: (1, 1))
    devices = run.devices = layout(len(seeds), members_of(trajectories))
    data = devices.place(within(method.prepare(trajectories, len(seeds)), device_bytes), mapped=False)
    phases = method.phases()
    state, first, iteration = run.restore(phases, data)
    if state is not None:
        state = devices.place(devices.filled(state), mapped=True)
    keys_of = lambda index: devices.filled(jnp.stack([_key(seed, index) for seed in seeds]))
    keys = [devices.place(keys_of(index), mapped=True) for index in range(len(phases))]
    programs = run.compiling = _Programs(
        method, phases[first:], devices.mesh, keys[0], data, state, begun=iteration is not None
    )
    for index in range(first, len(phases)):
        phase, (ask, start, step) = phases[index], programs.phases[index - first]
        if iteration is None:
            extra = () if ask is None else _solved(phase.host, run.wait(ask)(keys[index], data, state), devices)
            state, info = run.wait(start)(keys[index], data, state, *extra)
            iteration = 0
            converged = run.report(phase, iteration, state, devices.local(info), None, score, callbacks)
        else:
            converged = np.asarray(devices.local(state.converged))
        while phase.step is not None and iteration < phase.budget and not converged.all():
            frozen = converged
            state, info = run.wait(step)(state, data, np.int32(iteration))
            info, iteration = devices.local(info), iteration + 1
            due = evaluate is not None and (iteration % evaluate.every == 0 or iteration == phase.budget)
            if due and index == len(phases) - 1:
                found = devices.local(run.wait(programs.result)(state, data))
                info |= run.evaluate(evaluate, found, iteration)
            converged = run.report(phase, iteration, state, info, frozen, score, callbacks)
            stop, late = anywhere(signals.number is not None, run.late)
            if stop or late:
                run.checkpoint(state, index, iteration)
            if stop:
                raise KeyboardInterrupt
        run.checkpoint(state, index, iteration, complete=True)
        if anywhere(signals.number is not None)[0]:
            raise KeyboardInterrupt
        iteration = None
    result = jax.block_until_ready(devices.local(run.wait(programs.result)(state, data)))
    if anywhere(signals.number is not None)[0]:
        raise KeyboardInterrupt
    seconds = run.compile_seconds, run.run_seconds, run.evaluate_seconds
    return Fit(result, seeds, run.history, *seconds, run.resumed, programs.device_bytes)


def compile_options(light: bool = False) -> dict[str, Any] | None:
    """XLA's, for the programs of a fit; `light` for one that computes little."""
    if jax.default_backend() != "cpu":
        return None
    return {"xla_backend_optimization_level": 0 if light else 1}  # 2 and 3 take half as long again, for no speed


def _solved(host: Host, asked: Any, devices: Layout) -> tuple[Any, Any]:
    """What the host was asked, and what it solved, with the seed axis of both."""
    given = jax.device_get(devices.local(asked))
    runs = range(len(jax.tree.leaves(given)[0]))
    found = [host.solve(jax.tree.map(lambda x, s=s: x[s], given)) for s in runs]
    return asked, devices.place(devices.filled(jax.tree.map(lambda *x: np.stack(x), *found)), mapped=True)


def _key(seed: int, phase: int) -> jax.Array:
    """The key of a run's phase. The constant keeps it apart from keys that others derive from the same seed."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), 0x666974), phase)


def step_all(step: Callable, mesh: Mesh | None) -> Callable:
    """A phase's `step` over seeds; a converged run stays as it is, and where seeds run in turn it costs nothing."""

    def one(state, data, iteration):
        @functools.partial(jax.jit, inline=True)  # traced once, for its shapes and for the program
        def go(state):
            return step(state, data, iteration)

        def stay(state):
            return state, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(go, state)[1])

        return chosen(state.converged, stay, go, state)

    return over_seeds(one, mesh, (True, False, False))


class _Programs:
    """The compiled programs of a fit. One thread compiles them in the order of their use, so that those of later phases
    are ready when the earlier ones have run; what a program returns tells the next one its shapes.

    Args:
        method: whose `result` is the last program.
        phases: that are still to run.
        mesh: the devices.
        key: `[S]` keys, for their shape and place.
        data: the prepared data.
        state: from which the first phase goes on, or what the phase before it left; None: there is none.
        begun: the first phase has been started.
    """

    def __init__(self, method: Method, phases: Sequence[Phase], mesh: Mesh, key, data, state, begun: bool):
        self.mesh, self.key, self.data, self.jit = mesh, key, data, compiled_by_seed(mesh)
        self.state = jax.tree.map(lambda x: _described(x, x.sharding), state)
        self.steps: dict[Any, Callable] = {}  # by function and shapes
        self.thread = ThreadPoolExecutor(1, "compile")
        self.asked: Any = None  # shapes of what the next start's host is asked
        self.device_bytes = 0
        self.phases: list[tuple[Future | None, ...]] = []  # ask, start and step of each, where it has one
        for index, phase in enumerate(phases):
            starts = not (begun and index == 0)
            ask = self.thread.submit(self._ask, phase.host) if starts and phase.host is not None else None
            start = self.thread.submit(self._start, phase) if starts else None
            step = self.thread.submit(self._step, phase.step) if phase.step is not None and phase.budget else None
            self.phases.append((ask, start, step))
        self.result = self.thread.submit(self._result, method.result)

    def _ask(self, host: Host) -> Callable:
        ask = over_seeds(host.ask, self.mesh, (True, False, self.state is not None))
        lowered = self.jit(ask).lower(self.key, self.data, self.state)
        compiled = self._compiled(lowered)
        self.asked = jax.tree.map(_described, lowered.out_info, compiled.output_shardings)
        return compiled

    def _start(self, phase: Phase) -> Callable:
        extra: tuple[Any, ...] = ()
        if phase.host is not None:
            found = over_runs(phase.host.shapes, self.asked)
            extra = self.asked, jax.tree.map(lambda x: _described(x, self.key.sharding), found)
        start = over_seeds(phase.start, self.mesh, (True, False, self.state is not None, *(True for _ in extra)))
        lowered = self.jit(start).lower(self.key, self.data, self.state, *extra)
        compiled = self._compiled(lowered, phase.light_start)
        self.state = jax.tree.map(_described, lowered.out_info[0], compiled.output_shardings[0])
        return compiled

    def _step(self, step: Callable) -> Callable:
        """Phases that share step and shapes share the program."""
        leaves, structure = jax.tree.flatten(self.state)
        key = step, structure, tuple((x.shape, x.dtype) for x in leaves)
        if key not in self.steps:
            program = self.jit(step_all(step, self.mesh), donate_argnums=0)
            lowered = program.lower(self.state, self.data, np.int32(0))
            self.steps[key] = self._compiled(lowered)
        return self.steps[key]

    def _result(self, result: Callable) -> Callable:
        lowered = self.jit(over_seeds(result, self.mesh, (True, False))).lower(self.state, self.data)
        return self._compiled(lowered)

    def _compiled(self, lowered: jax.stages.Lowered, light: bool = False) -> jax.stages.Compiled:
        compiled = lowered.compile(compiler_options=compile_options(light))
        used = compiled.memory_analysis()
        if used is not None:  # a backend need not say
            size = used.argument_size_in_bytes + used.output_size_in_bytes - used.alias_size_in_bytes
            self.device_bytes = max(self.device_bytes, size + used.temp_size_in_bytes)
        return compiled

    def close(self) -> None:
        """What has not been compiled is not."""
        self.thread.shutdown(wait=False, cancel_futures=True)


def over_runs(shapes: Callable[[Any], Any], asked: Any) -> Any:
    """Shapes of what the host solves for all runs."""
    size = jax.tree.leaves(asked)[0].shape[0]
    lone = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), asked)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((size, *x.shape), x.dtype), shapes(lone))


def _described(value: Any, sharding: Any) -> jax.ShapeDtypeStruct:
    """Shape, dtype and place of an array."""
    return jax.ShapeDtypeStruct(value.shape, value.dtype, sharding=sharding)


class _Run:
    """The host's side of a fit: clock, history, checkpoints."""

    def __init__(self, checkpoint_dir: str | None, checkpoint_seconds: float, seeds: tuple[int, ...]):
        self.seeds, self.every = seeds, checkpoint_seconds
        self.history: list[dict[str, Any]] = []
        self.compile_seconds = self.earlier_seconds = self.evaluate_seconds = 0.0
        self.not_running = 0.0  # of this attempt: compilation and evaluation
        self.resumed = False
        self.last: dict[str, np.ndarray] = {}  # metrics of the latest report
        self.compiling: _Programs | None = None
        self.devices: Layout | None = None
        self.begun = self.saved_at = time.perf_counter()
        self.checkpointer = None
        if checkpoint_dir is not None:
            self.checkpointer = Checkpointer(checkpoint_dir, read_only=not leads())

    @property
    def run_seconds(self) -> float:
        return self.earlier_seconds + time.perf_counter() - self.begun - self.not_running

    def wait(self, program: Future) -> Callable:
        """A program once it is compiled, the time until then counted apart."""
        began = time.perf_counter()
        compiled = program.result()
        self.not_running += time.perf_counter() - began
        self.compile_seconds += time.perf_counter() - began
        return compiled

    def evaluate(self, evaluate: Evaluate, result: Any, iteration: int) -> dict[str, Any]:
        """Measures a result, the time counted apart."""
        result = jax.block_until_ready(result)  # what came before it is training
        began = time.perf_counter()
        metrics = evaluate.measure(result, iteration)
        self.not_running += time.perf_counter() - began
        self.evaluate_seconds += time.perf_counter() - began
        return metrics

    def report(self, phase: Phase, iteration: int, state: Any, info: Info, frozen, score, callbacks) -> np.ndarray:
        """Records an iteration, and says which runs have converged, `[S]`. A run that was frozen before it keeps the
        metrics of its last real step."""
        assignments = info.pop("assignments", None)
        metrics = {name: np.array(value) for name, value in jax.device_get(info).items()}
        if score is not None and assignments is not None:
            metrics |= {name: np.array(value) for name, value in score(np.asarray(assignments)).items()}
        if frozen is not None and frozen.any():
            for name, value in metrics.items():
                value[frozen] = self.last[name][frozen]
        self.last = metrics
        self.history.append(plain({"phase": phase.name, "iteration": iteration, **metrics}))
        converged = np.asarray(self.devices.local(state.converged))
        event = Event(phase.name, iteration, phase.budget, len(self.history) - 1, metrics, converged)
        for callback in callbacks:
            callback(event)
        return converged

    @property
    def late(self) -> bool:
        """A checkpoint is due."""
        return self.checkpointer is not None and time.perf_counter() - self.saved_at >= self.every

    def checkpoint(self, state: Any, index: int, iteration: int, complete: bool = False) -> None:
        """Keeps the state; of several hosts' the first one does."""
        if self.checkpointer is None:
            return
        began = time.perf_counter()
        state = self.devices.local(state)
        meta = {
            "seeds": list(self.seeds),
            "phase": index,
            "iteration": iteration,
            "complete": complete,  # the phase is over
            "history": self.history,
            "run_seconds": self.run_seconds,
            "compile_seconds": self.compile_seconds,
            "evaluate_seconds": self.evaluate_seconds,
        }
        if leads():
            self.checkpointer.save(len(self.history), state, meta)
        self.saved_at = time.perf_counter()
        self.every = max(self.every, 20 * (self.saved_at - began))  # at most a twentieth of the time goes into saving

    def restore(self, phases: tuple[Phase, ...], data: Any) -> tuple[Any, int, int | None]:
        """State, phase and iteration to go on from; a phase that is complete is not repeated."""
        found = None
        if self.checkpointer is not None:
            found = self.checkpointer.restore_latest(lambda meta: _state_like(phases, meta, self.seeds, data))
        if found is None:
            return None, 0, None
        state, meta = found
        self.history, self.resumed = list(meta["history"]), True
        latest = {name: value for name, value in self.history[-1].items() if name not in ("phase", "iteration")}
        self.last = {name: np.array(value, float) for name, value in latest.items()}  # null, not finite, reads as NaN
        self.earlier_seconds, self.compile_seconds = meta["run_seconds"], meta["compile_seconds"]
        self.evaluate_seconds = meta["evaluate_seconds"]
        log.info("resumed at phase %s, iteration %d", phases[meta["phase"]].name, meta["iteration"])
        if meta["complete"]:
            return state, meta["phase"] + 1, None
        return state, meta["phase"], meta["iteration"]

    def close(self) -> None:
        if self.compiling is not None:
            self.compiling.close()
        if self.checkpointer is not None:
            self.checkpointer.close()


def _state_like(phases: tuple[Phase, ...], meta: dict[str, Any], seeds: tuple[int, ...], data: Any) -> Any:
    """Shapes and dtypes of the state of the phase that `meta` names, found without computing anything."""
    if tuple(meta["seeds"]) != seeds:
        raise ValueError(f"the checkpoint is of seeds {meta['seeds']}, not of {list(seeds)}")
    keys = jax.eval_shape(lambda: jnp.stack([jax.random.key(seed) for seed in seeds]))
    state = None
    for phase in phases[: meta["phase"] + 1]:
        axes = (0, None, None if state is None else 0)
        extra: tuple[Any, ...] = ()
        if phase.host is not None:
            asked = jax.eval_shape(jax.vmap(phase.host.ask, axes), keys, data, state)
            extra = asked, over_runs(phase.host.shapes, asked)
        start = jax.vmap(phase.start, (*axes, *(0 for _ in extra)))
        state = jax.eval_shape(start, keys, data, state, *extra)[0]
    return state
