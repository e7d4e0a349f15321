"""What was measured stays as it is: results of every algorithm on tiny data, bit for bit, and the ids of all records.

    python tests/test_golden.py NAME...    writes golden values anew (without names: those that are missing)

A value is kept for each array of a result: its shape, the sum of its numbers, and a checksum of its bytes. The checksum
counts on the kind of processor that made the values, with the same jaxlib; elsewhere the sums do, less strictly.
"""

if __name__ == "__main__":
    import conftest  # noqa: F401  the flags that tests are compiled with, before jax starts

import contextlib
import dataclasses
import functools
import importlib.metadata
import json
import platform
import re
import sys
import zlib
from pathlib import Path

import jax
import numpy as np
import pytest

import trajclust_envs as envs
from trajclust_experiments.catalogue import CATALOGUE, entries, learner_entry
from trajclust_experiments.cells.cell import record_id
from trajclust_experiments.rendering.stored import committed, stored_cells
from trajclust_experiments.tables import get_table, table_names
from trajclust_jax.clustering import PGKmeans, Sorl
from trajclust_jax.clustering.images import train_inputs
from trajclust_jax.clustering.model_selection import PGKmeansRange
from trajclust_jax.clustering.support import support
from trajclust_jax.data import Trajectories, make
from trajclust_jax.learners import IQL, TD3BC, Clustered, Offline
from trajclust_jax.relabelling import TrainedRelabeller, of_trajectories
from trajclust_jax.training import fit

FOLDER = Path(__file__).parent / "golden"
TOLERANCE = 2e-2  # of sums, relative to the numbers' absolute sum: another processor rounds in another way


def machine():
    """What decides how numbers are rounded."""
    model = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
    flags = re.search(r"flags\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
    name = model[1] if model else platform.processor()
    return [name, zlib.crc32(flags[1].encode()) if flags else 0, importlib.metadata.version("jaxlib")]


def digest(tree):
    """`{path: [shape, sum, sum of absolute values, checksum]}` of a tree's arrays; of floats, in full precision."""
    values = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if leaf is None:
            continue
        array = np.asarray(leaf)
        numbers = np.nan_to_num(array.astype(np.float64), posinf=0, neginf=0)
        total, size = float(numbers.sum()), float(np.abs(numbers).sum())
        values[jax.tree_util.keystr(path)] = [list(array.shape), total, size, zlib.crc32(array.tobytes())]
    return values


def observed(entry):
    """A history's entry as arrays."""
    names = (name for name in entry if name not in ("phase", "iteration"))
    return {name: np.array(entry[name], np.float64) for name in sorted(names)}


def of_fit(outcome):
    return digest({"result": dataclasses.asdict(outcome.result), "history": list(map(observed, outcome.history))})


@functools.cache
def grid():
    """Takeball: maps on a codebook, discrete actions; and its labels."""
    dataset = make("takeball", 4)
    return dataset.trajectories, np.asarray(dataset.labels)


@functools.cache
def continuous():
    """Two linear policies, lengths from 1 to 12; and who acted."""
    rng = np.random.default_rng(0)
    labels, t = np.arange(10) % 2, 12
    observations = rng.normal(size=(10, t, 3)).astype(np.float32)
    gains = rng.normal(size=(2, 3, 2))
    actions = np.einsum("ntd,nda->nta", observations, gains[labels]) + 0.3 * rng.normal(size=(10, t, 2))
    trajectories = Trajectories(
        observations=observations,
        actions=np.tanh(actions).astype(np.float32),
        rewards=rng.normal(size=(10, t)).astype(np.float32),
        lengths=np.array([12, 12, 11, 9, 12, 7, 5, 12, 3, 1], np.int32),
        terminated=labels == 0,
        final_observations=rng.normal(size=(10, 3)).astype(np.float32),
    )
    return trajectories, labels


@functools.cache
def images():
    """Frames of bytes, continuous actions."""
    trajectories, labels = continuous()
    rng = np.random.default_rng(1)
    frames = rng.integers(0, 256, (10, 12, 16, 16), np.uint8)
    return trajectories.replace(observations=frames, final_observations=frames[:, 0]), labels


MIXTURE = {"iterations": 2, "restarts": 2, "first_steps": 2, "steps": 2}
PG_KMEANS = MIXTURE | {"polish_iterations": 1, "polish_first_steps": 2, "polish_steps": 2}
ENCODER = {"steps": 2, "batch_size": 4}
SHORTER = {  # by algorithm
    "PGKmeans": PG_KMEANS,
    "Sorl": MIXTURE,
    "EmpoEM": {"restarts": 2, "bias_epochs": 1, "pretrain_epochs": 1, "iterations": 2, "least_steps": 2},
    "CAAE": ENCODER | {"warmup_iterations": 1, "iterations": 2},
    "DEC": ENCODER | {"pretrain_iterations": 1, "iterations": 2},
    "VAEKmeans": ENCODER | {"iterations": 2},
    "Cloning": {"iterations": 2, "steps": 2},
    "SummaryKmeans": {},
    "BehaviourSet": {"steps": 2, "iterations": 2},
}
# What has no answer on the GridWorlds: every return is equal there, and actions are discrete.
NOT_ON_GRIDS = ("return_kmeans", *(name for name in entries("clusterer") if name.startswith("behaviour_set")))
MAPS = ("pg_kmeans_tabular", "pg_kmeans_planner", "caae_conv", "caae_planner", "cloning_conv", "cloning_planner")
RELABELLER = {"updates": 4, "block": 2, "batch_size": 8, "features": (8, 8)}
LEARNER = {"updates": 4, "block": 2, "batch_size": 8}
SIZES = {"features": (8, 8), "actor_features": (8, 8)}


def clustered(name, data):
    """A method's fit, shortened; a ceiling sees the labels."""
    trajectories, labels = data
    entry = CATALOGUE[name]
    fields = {field.name for field in dataclasses.fields(entry.algorithm)}
    shorter = {key: value for key, value in SHORTER[entry.algorithm.__name__].items() if key in fields}
    if name == "caae_plain":
        shorter.pop("warmup_iterations")
    method = entry.build(int(labels.max()) + 1, **shorter)
    if entry.kind != "ceiling":
        return of_fit(fit(method, trajectories, 1))
    outcome = fit(method.labelled(labels), trajectories, 1)
    return digest({"result": as_restarts(outcome.result), "history": list(map(observed, outcome.history))})


def as_restarts(cloned):
    """A ceiling's result as its golden values have it: held-out and in-sample classification are two restarts."""
    fields = dataclasses.asdict(cloned)
    classified = np.stack([fields["assignments"], fields.pop("in_sample")], 1)
    objectives = np.stack([fields["objective"]] * 2, 1)
    return {
        **fields,
        "restart": np.zeros(1, np.int32),
        "restart_assignments": classified,
        "restart_objectives": objectives,
    }


def learned(name, data=continuous, plug_in=None, **settings):
    trajectories, _ = data()
    entry = learner_entry(name, plug_in)
    given = LEARNER | {key: value for key, value in SIZES.items() if key in entry.names()}
    if "behaviour_updates" in entry.names():
        given["behaviour_updates"] = 4
    if name == "empo":
        given |= {"critic_updates": 4, "value_updates": 4, "epochs": 2, **SHORTER["EmpoEM"], "em_epochs": 2}
        given = {key: value for key, value in given.items() if key in entry.names()}
    return of_fit(fit(entry.build(2, **given, **settings), trajectories, 1))


def relabelled(name):
    """A relabeller's training and its rewards, two of the trajectories the expert's."""
    trajectories, _ = continuous()
    found = CATALOGUE[name].build(**RELABELLER).relabel(of_trajectories(trajectories, [0, 2]), (0,))
    history = list(map(observed, found.outcome.history))
    return digest({"model": dataclasses.asdict(found.model), "rewards": found.rewards, "history": history})


def side_by_side():
    """Clusters, swept settings and two seeds in one program."""
    trajectories, labels = continuous()
    learner = TD3BC(2, updates=4, batch_size=8, **SIZES)
    offline = Offline(learner, block=2, sweep=(("alpha", (1.0, 2.5)),))
    return of_fit(fit(offline, Clustered(trajectories, labels, 2), 2))


def best_share_of_images():
    trajectories, _ = images()
    learner = IQL(2, updates=4, batch_size=8, **SIZES)
    return of_fit(fit(Offline(learner, block=2, best=0.5, reward_range=1000.0), trajectories, 1))


def walked(name):
    """Episodes of each expert, their likelihoods among them."""
    env = envs.make(name)
    params = env.default_params.replace(max_steps_in_episode=12)
    keys = jax.random.split(jax.random.key(0), len(env.expert_names))
    return digest([dict(each._asdict()) for each in envs.expert_rollouts(env, keys, 3, params)])


def reconsidered():
    """Continuous actions with all that data may turn on: sampled E-steps, paired polish, competition, pooled starts."""
    more = {"paired_polish": True, "reconsidered": 0.3, "pooled_restarts": 1, "pooled_steps": 2}
    method = PGKmeans.default(2, "mlp", **PG_KMEANS, **more, policy_settings=(("scored_steps", 3),))
    return of_fit(fit(method, continuous()[0], 2))


def chosen():
    method = PGKmeansRange.over((2, 3), "mlp", **PG_KMEANS)
    return digest(dataclasses.asdict(fit(method, continuous()[0], 1).result))


def supported():
    trajectories, labels = continuous()
    found = support(trajectories, labels)
    return digest({name: np.float64(value) for name, value in dataclasses.asdict(found).items()})


CASES = {
    **{
        name: functools.partial(lambda name: clustered(name, grid()), name)
        for name in entries("clusterer", "ceiling")
        if name not in NOT_ON_GRIDS
    },
    **{
        f"{name} continuous": functools.partial(lambda name: clustered(name, continuous()), name)
        for name in entries("clusterer", "ceiling")
        if name not in MAPS
    },
    "gru sorl continuous": lambda: of_fit(fit(Sorl.default(2, "gru", **MIXTURE), continuous()[0], 1)),
    "reconsidered": reconsidered,
    "choose_k": chosen,
    "support": supported,
    "images": lambda: digest(train_inputs(images()[0])),
    **{name: functools.partial(learned, name) for name in entries("learner")},
    **{f"td3_bc {name}": functools.partial(learned, "td3_bc", plug_in=name) for name in entries("plug-in")},
    "iql c4": functools.partial(learned, "iql", plug_in="c4", recluster_every=2),
    **{
        name: functools.partial(relabelled, name)
        for name, entry in entries("relabeller").items()
        if issubclass(entry.algorithm, TrainedRelabeller)
    },
    "side by side": side_by_side,
    "best share of images": best_share_of_images,
    **{name: functools.partial(walked, name) for name in envs.ENVIRONMENTS},
}
FAST = ("pg_kmeans_mlp continuous", "sorl continuous", "caae continuous", "td3_bc", "iql", "Takeball-v0", "Diagonal-v0")


def stored(name):
    return FOLDER / f"{re.sub(r'[^a-zA-Z0-9_.-]', '_', name)}.json"


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in FAST else [pytest.mark.slow]) for n in CASES])
def test_results_are_as_they_were(name):
    golden, found = json.loads(stored(name).read_text()), CASES[name]()
    assert list(found) == list(golden["values"])  # names and layout of parameters among them
    exact = golden["machine"] == machine()
    for path, (shape, total, size, bits) in golden["values"].items():
        now = found[path]
        assert now[0] == shape, path
        if exact:
            assert now[3] == bits, (path, total, now[1])
        else:
            assert now[1] == pytest.approx(total, abs=TOLERANCE * size + 1e-6), path


def ids():
    """The cells of every table at the presets that have records, by the ids of their records."""
    records = committed().all()
    found = {}
    for name in table_names():
        table = get_table(name)
        for preset in table.presets:
            cells = stored_cells(table, preset, records).values()
            known = sorted(record["id"] for record in cells if record is not None)
            if known:
                found[f"{name} {preset}"] = known
    return found


def test_ids_of_records_are_as_they_were():
    """Every stored record has the id that its cell is given now, and is found by the same tables as before."""
    for record in committed().all():
        assert record_id(record["cell"]) == record["id"]
    assert ids() == json.loads((FOLDER / "ids.json").read_text())


def write(names):
    missing = [name for name in (*CASES, "ids") if not stored(name).exists()]
    for name in names or missing:
        if name == "ids":
            (FOLDER / "ids.json").write_text(json.dumps(ids(), indent=1) + "\n")
            continue
        values = CASES[name]()
        lines = (f"{json.dumps(path)}: {json.dumps(value)}" for path, value in values.items())
        stored(name).write_text(
            f'{{"machine": {json.dumps(machine())},\n "values": {{\n  ' + ",\n  ".join(lines) + "\n}}\n"
        )
        print(name, len(values), flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        write(sys.argv[1:])
