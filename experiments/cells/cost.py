"""Cells that measure what a plug-in costs: the seconds of gradient steps and of clusterings, in one run."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from trajclust_experiments.cells.cell import Job
from trajclust_experiments.cells.learners import LearnerCell
from trajclust_jax.data import Dataset
from trajclust_jax.learners import Offline
from trajclust_jax.learners.sampling import View
from trajclust_jax.training import compile_options

REPEATS = 20  # of each measurement, in turn
STEPS = 6  # gradient steps of a measurement, one after the other: an actor may take part in every second one only


@dataclasses.dataclass(frozen=True)
class CostCell(LearnerCell):
    """The learner with its plug-in and without: seconds of a gradient step of both, and of a clustering.

    The least of several measurements, taken in turn, so that what else the machine does weighs on both alike. Nothing
    is trained: `seeds` has one seed.
    """

    def essential(self) -> dict[str, Any]:
        return {**super().essential(), "measures": "cost"}

    def compute(self, dataset: Dataset, job: Job) -> dict[str, Any]:
        began = time.perf_counter()
        offline = self.build(dataset.trajectories.action_size)
        base = dataclasses.replace(self, plugin=None, settings=self._without_plug_in())
        programs = {
            "base": _program(base.build(dataset.trajectories.action_size), dataset, _step),
            "update": _program(offline, dataset, _step),
            "clustering": _program(offline, dataset, _renew),
        }
        compiled = time.perf_counter()
        found: dict[str, list[float]] = {name: [] for name in programs}
        steps = [jnp.int32(step) for step in range(STEPS)]
        for _ in range(REPEATS):
            job.guard()
            for name, run in programs.items():
                count = 1 if name == "clustering" else STEPS
                start = time.perf_counter()
                for step in steps[:count]:
                    out = run(step)
                jax.block_until_ready(out)
                found[name].append((time.perf_counter() - start) / count)
        least = {name: min(values) for name, values in found.items()}
        training = least["update"] * offline.learner.recluster_every + least["clustering"]
        return {
            "config": dataclasses.asdict(offline),
            "transitions": int(np.asarray(dataset.trajectories.lengths).sum()),
            "scores": {
                **{f"{name}_seconds": [value] for name, value in least.items()},
                "share": [least["clustering"] / training],
                "times_base": [least["update"] / least["base"]],
            },
            "timing": {
                "compile_seconds": compiled - began,
                "run_seconds": time.perf_counter() - compiled,
                "resumed": False,
            },
        }

    def _without_plug_in(self) -> tuple[tuple[str, Any], ...]:
        names = dataclasses.replace(self, plugin=None).hyperparameters()
        return tuple((name, value) for name, value in self.settings if name in names)


def _program(offline: Offline, dataset: Dataset, make: Callable) -> Callable[[jax.Array], Any]:
    """A compiled program of one run, with its arguments: of the step's number alone."""
    data = jax.tree.map(jnp.asarray, offline.prepare(dataset.trajectories, 1))
    learner, view = offline.learner, View(data, data.first, data.count, data.scaling)
    state = learner.init(jax.random.key(0), data.scaling.mean.shape[-1])
    state = state.replace(sampler=learner.sampler.init(view))
    renew = jax.jit(lambda state: _renew(learner, view)(state, 0))
    state = renew(state)
    compiled = jax.jit(make(learner, view)).lower(state, jnp.int32(1)).compile(compiler_options=compile_options())
    return lambda step: compiled(state, step)


def _step(learner: Any, view: View) -> Callable:
    """A gradient step, its minibatch's draw among it."""

    def run(state, step):
        rows = learner.sampler.rows(state.sampler, jax.random.fold_in(state.key, step), learner.batch_size, view)
        return learner.update(state, view.batch(rows)._replace(sampler=state.sampler), step)

    return run


def _renew(learner: Any, view: View) -> Callable:
    """A clustering, from the last one."""
    return lambda state, step: state.replace(sampler=learner.sampler.renew(state.sampler, learner, state, view, step))
