"""Every program of every method can be translated for CUDA and TPU; none calls the host back."""

import dataclasses
import functools
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import test_golden as golden
from jax.extend import core

import trajclust_envs as envs
from trajclust_experiments.catalogue import CATALOGUE, entries, learner_entry
from trajclust_jax.clustering.empo_grid import EmpoGrid
from trajclust_jax.devices import traced_for
from trajclust_jax.lowering import PLATFORMS, Program, counted, lowered_for, programs
from trajclust_jax.parallel import over_seeds
from trajclust_jax.relabelling import of_trajectories

FAST = ("caae", "pg_kmeans_mlp continuous", "iql")


def _clusterer(name, data):
    trajectories, labels = data()
    entry = CATALOGUE[name]
    fields = {field.name for field in dataclasses.fields(entry.algorithm)}
    shorter = golden.SHORTER[entry.algorithm.__name__]
    if name == "caae_plain":
        shorter = {key: value for key, value in shorter.items() if key != "warmup_iterations"}
    method = entry.build(int(labels.max()) + 1, **{key: value for key, value in shorter.items() if key in fields})
    return (method.labelled(labels) if entry.kind == "ceiling" else method), trajectories


def _learner(name, plug_in=None, **settings):
    entry = learner_entry(name, plug_in)
    given = golden.LEARNER | golden.SIZES | dict.fromkeys(("behaviour_updates", "critic_updates", "value_updates"), 4)
    given |= {**golden.SHORTER["EmpoEM"], "em_epochs": 2, "epochs": 2}
    given = {key: value for key, value in given.items() if key in entry.names()}
    return entry.build(2, **given, **settings), golden.continuous()[0]


CASES = {
    **{
        name: functools.partial(_clusterer, name, golden.grid)
        for name in entries("clusterer", "ceiling")
        if name not in golden.NOT_ON_GRIDS
    },
    **{
        f"{name} continuous": functools.partial(_clusterer, name, golden.continuous)
        for name in entries("clusterer", "ceiling")
        if name not in golden.MAPS
    },
    "empo_grid": lambda: (
        EmpoGrid.over(2, ((0, 1, 0.0), (1, 1, 0.9)), iterations=1, least_steps=2),
        golden.continuous()[0],
    ),
    **{name: functools.partial(_learner, name) for name in entries("learner")},
    "td3_bc c4": functools.partial(_learner, "td3_bc", "c4", kl_weight=0.1),
    "clue": lambda: (
        CATALOGUE["clue"].build(**golden.RELABELLER),
        of_trajectories(golden.continuous()[0], [0, 2]),
    ),
}


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in FAST else [pytest.mark.slow]) for n in CASES])
def test_every_program_of_a_method_is_translated(name):
    method, trajectories = CASES[name]()
    found = list(programs(method, trajectories, 2))
    assert found[-1].name == "result"
    for program in found:
        assert lowered_for(program).platforms == PLATFORMS, f"{name}, {program.name}"


@pytest.mark.slow
@pytest.mark.parametrize("name", list(envs.ENVIRONMENTS))
def test_rollouts_are_translated(name):
    env = envs.make(name)
    params = env.default_params
    module = importlib.import_module("trajclust_envs.rollout")
    collect, none = module._collect.__wrapped__, jax.tree_util.Partial(module._no_scores)
    policy = envs.expert_policy(env, 0)
    run = lambda key: collect(env, 4, int(params.max_steps_in_episode), policy, none, None, key, params)
    exported = lowered_for(Program("rollout", run, (jax.eval_shape(lambda: jax.random.key(0)),)))
    assert exported.platforms == PLATFORMS


def test_work_is_counted_as_often_as_loops_run():
    """Products [8, 16] x [16, 16]: 4,096 FLOPs each, and a tanh of 128 elements; bytes: in, weights and out."""

    def body(i, x):
        return jnp.tanh(x @ weights)

    weights = np.ones((16, 16), np.float32)
    x, n = jax.ShapeDtypeStruct((8, 16), "float32"), jax.ShapeDtypeStruct((), "int32")
    loop = Program("loop", lambda x, n: jax.lax.fori_loop(0, n, body, x), (x, n))
    found = counted(loop, [10])
    assert found.multiplied == 10 * 4_096
    assert found.bytes == 10 * 4 * (128 + 256 + 128)
    assert 10 * 128 <= found.elementwise < 10 * 140
    static = Program("scan", lambda x: jax.lax.fori_loop(0, 10, body, x), (x,))
    assert counted(static).multiplied == 10 * 4_096
    either = lambda x: jax.lax.cond(x.sum() > 0, lambda x: body(0, body(0, x)), lambda x: body(0, x), x)
    assert counted(Program("cond", either, (x,))).multiplied == 2 * 4_096, "the longer branch"
    with pytest.raises(ValueError, match="has to be given"):
        counted(loop)
    with pytest.raises(ValueError, match="1 of 2 loops"):
        counted(loop, [10, 3])


def test_an_accelerators_form_is_traced_for_it():
    """Seeds run in turn on a CPU, and side by side there."""
    given = jax.ShapeDtypeStruct((3, 4), "float32")
    traced = lambda: str(jax.make_jaxpr(over_seeds(lambda x: jnp.sin(x), None, (True,)))(given))
    assert "scan" in traced()
    with traced_for("tpu"):
        assert "scan" not in traced()


def _shapes(jaxpr):
    """Of everything that is computed in a program."""
    for equation in jaxpr.eqns:
        yield from (out.aval.shape for out in equation.outvars)
        for inner in core.jaxprs_in_params(equation.params):
            yield from _shapes(inner)


@pytest.mark.parametrize("name", ["pg_kmeans_mlp", "pg_kmeans_mlp continuous", "td3_bc"])
def test_seeds_side_by_side_share_their_data(name):
    """`vmap` of `lax.cond` would copy them for each seed: a step chooses what a converged seed does by `chosen`."""
    method, trajectories = CASES[name]()
    seeds = 7
    step = next(program for program in programs(method, trajectories, seeds) if program.name.endswith("step"))
    largest = max((leaf.shape for leaf in jax.tree.leaves(step.arguments[1])), key=np.prod)
    assert np.prod(largest) > 200
    with traced_for("cuda"):
        found = set(_shapes(jax.make_jaxpr(step.function)(*step.arguments).jaxpr))
    assert any(shape[:1] == (seeds,) for shape in found), "side by side"
    assert (seeds, *largest) not in found


def test_what_calls_the_host_back_is_found():
    """The check itself."""
    calls = lambda x: jax.pure_callback(lambda y: y, jax.ShapeDtypeStruct((), x.dtype), x)
    program = Program("callback", calls, (jax.ShapeDtypeStruct((), "float32"),))
    with pytest.raises(NotImplementedError, match="callback"):
        lowered_for(program)
