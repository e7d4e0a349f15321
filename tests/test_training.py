"""The training loop: resume, interruption, freezing, on a method that counts."""

import dataclasses
import os
import signal
import threading
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from trajclust_jax.clustering import PGKmeans
from trajclust_jax.data import make
from trajclust_jax.training import Phase, fit


@struct.dataclass
class Walk:
    position: jax.Array
    steps: jax.Array
    converged: jax.Array
    key: jax.Array


@dataclasses.dataclass(frozen=True)
class RandomWalk:
    """A walk to a barrier in two phases of different shape; `data` is the step size."""

    barrier: float = 3.0
    budget: int = 12

    def prepare(self, trajectories: Any, num_seeds: int):
        return jnp.float32(trajectories)

    def phases(self):
        first = Phase("one", lambda key, data, _: self._begin(key, 1), self._step, self.budget)
        second = Phase("two", lambda key, data, state: self._begin(key, 2, state.position.sum()), self._step, 3)
        return first, second

    def _begin(self, key, size, at=0.0):
        state = Walk(jnp.zeros(size) + at, jnp.int32(0), jnp.bool_(False), key)
        return state, {"position": state.position.sum()}

    def _step(self, state, data, iteration):
        move = data * jax.random.normal(jax.random.fold_in(state.key, iteration), state.position.shape)
        position = state.position + move
        new = Walk(position, state.steps + 1, jnp.abs(position).max() > self.barrier, state.key)
        return new, {"position": position.sum()}

    def result(self, state, data):
        return {"position": state.position, "steps": state.steps}


class Stop(Exception):
    pass


def stop_at(total):
    def callback(event):
        if event.total == total:
            raise Stop

    return callback


@pytest.mark.parametrize("stop", range(17))
def test_a_stopped_fit_resumes_to_the_same_end(tmp_path, stop):
    walk = RandomWalk(barrier=6.0)  # some arrive, some don't: all iterations are run
    expected = fit(walk, 1.0, 8)
    assert len(expected.history) == 17
    with pytest.raises(Stop):
        fit(walk, 1.0, 8, checkpoint_dir=str(tmp_path), checkpoint_seconds=0, callbacks=[stop_at(stop)])
    resumed = fit(walk, 1.0, 8, checkpoint_dir=str(tmp_path), checkpoint_seconds=0)
    assert resumed.history == expected.history
    for name in expected.result:
        np.testing.assert_array_equal(resumed.result[name], expected.result[name])
    assert resumed.resumed == (stop > 1)  # nothing was kept before the first iteration's end


def test_pg_kmeans_resumes_bit_for_bit_in_every_phase(tmp_path):
    trajectories = make("diagonal", 8, 0).trajectories
    method = PGKmeans.default(
        5, "mlp", restarts=2, iterations=3, steps=2, polish_iterations=2, polish_first_steps=3, polish_steps=2
    )
    expected = fit(method, trajectories, 2)
    for stop in (2, 4, 6):  # in EM, at the merge, in the polish
        folder = str(tmp_path / str(stop))
        with pytest.raises(Stop):
            fit(method, trajectories, 2, checkpoint_dir=folder, checkpoint_seconds=0, callbacks=[stop_at(stop)])
        resumed = fit(method, trajectories, 2, checkpoint_dir=folder)
        assert resumed.resumed
        assert resumed.history == expected.history
        for a, b in zip(jax.tree.leaves(resumed.result), jax.tree.leaves(expected.result), strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_converged_run_is_frozen_while_others_go_on():
    outcome = fit(RandomWalk(barrier=1.5), 1.0, 6)
    entries = [np.array(entry["position"]) for entry in outcome.history if entry["phase"] == "one"]
    stopped = [np.flatnonzero(np.abs([e[s] for e in entries]) > 1.5) for s in range(6)]
    assert len({int(s[0]) for s in stopped if len(s)}) > 1, "runs converge at different iterations"
    for seed in range(6):
        lone = fit(RandomWalk(barrier=1.5), 1.0, [seed])
        np.testing.assert_allclose(outcome.result["position"][seed], lone.result["position"][0], rtol=1e-5)
        assert outcome.result["steps"][seed] == lone.result["steps"][0]
        own = [entry["position"][0] for entry in lone.history if entry["phase"] == "one"]
        together = [entry["position"][seed] for entry in outcome.history if entry["phase"] == "one"]
        np.testing.assert_allclose(together[: len(own)], own, rtol=1e-5)
        assert set(together[len(own) :]) <= {together[len(own) - 1]}, "a frozen run reports its last real step"


@pytest.mark.parametrize("total", [0, 1, 5, 12, 13, 14, 16])
def test_ctrl_c_keeps_the_state_wherever_it_comes(tmp_path, total):
    """At a phase's start, within it, at its last iteration, at the very last one of all: never swallowed."""
    walk = RandomWalk(barrier=1e9)  # nobody arrives: 13 reports in phase one, 4 in phase two
    expected = fit(walk, 1.0, 2)
    assert len(expected.history) == 17

    def interrupt(event):
        if event.total == total:
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        fit(walk, 1.0, 2, checkpoint_dir=str(tmp_path), checkpoint_seconds=1e9, callbacks=[interrupt])
    assert signal.getsignal(signal.SIGINT) is before
    seen = []
    resumed = fit(walk, 1.0, 2, checkpoint_dir=str(tmp_path), callbacks=[lambda e: seen.append(e.total)])
    assert seen == list(range(total + (2 if total in (0, 13) else 1), 17))  # a start is kept with its first iteration
    assert resumed.history == expected.history
    np.testing.assert_array_equal(resumed.result["position"], expected.result["position"])


def test_later_phases_compile_while_earlier_ones_run():
    traced = threading.Event()

    class Watched(RandomWalk):
        def _begin(self, key, size, at=0.0):
            if size == 2:
                traced.set()
            return super()._begin(key, size, at)

    def wait(event):
        if event.total == 1:  # phase one is running and does not go on before
            assert traced.wait(60)

    watched = fit(Watched(barrier=1e9), 1.0, 2, callbacks=[wait])
    assert watched.history == fit(RandomWalk(barrier=1e9), 1.0, 2).history


def test_what_fails_to_compile_is_raised_where_it_is_needed():
    class Failing(RandomWalk):
        def result(self, state, data):
            raise ValueError("no result")

    seen = []
    with pytest.raises(ValueError, match="no result"):
        fit(Failing(), 1.0, 1, callbacks=[lambda event: seen.append(event.phase)])
    assert seen[-1] == "two"


def test_fit_runs_in_a_thread():
    results = []
    thread = threading.Thread(target=lambda: results.append(fit(RandomWalk(), 1.0, 1)))
    thread.start()
    thread.join()
    assert results[0].history == fit(RandomWalk(), 1.0, 1).history


def test_a_checkpoint_of_other_seeds_is_refused(tmp_path):
    with pytest.raises(Stop):
        fit(RandomWalk(), 1.0, 2, checkpoint_dir=str(tmp_path), checkpoint_seconds=0, callbacks=[stop_at(4)])
    with pytest.raises(ValueError, match="seeds"):
        fit(RandomWalk(), 1.0, 3, checkpoint_dir=str(tmp_path))


def test_seeds_may_be_named():
    all_seeds = fit(RandomWalk(), 1.0, 5).result["position"]
    np.testing.assert_array_equal(fit(RandomWalk(), 1.0, [4, 1]).result["position"], all_seeds[np.array([4, 1])])


def test_compile_and_run_seconds_are_apart():
    """A slow callback is run time, not compile time."""
    outcome = fit(RandomWalk(budget=2), 1.0, 1, callbacks=[lambda event: time.sleep(0.5)])
    assert outcome.run_seconds > 0.5 * len(outcome.history)
    assert outcome.compile_seconds > 0
    slower = fit(RandomWalk(budget=2), 1.0, 1, callbacks=[lambda event: time.sleep(1.0)])
    assert slower.run_seconds - outcome.run_seconds > 0.3 * len(outcome.history)
