"""Compiles every method's step for accelerators that are not here, at the papers' scale, and tells their least time.

    python scripts/compile_for_devices.py                     # lowers for CUDA and TPU, counts; some minutes
    python scripts/compile_for_devices.py --compile h100 v5e  # compiles too; about an hour, goes on where it was
    python scripts/compile_for_devices.py --run               # on an accelerator: times the steps there

Compiling needs the compilers, in an environment of their own that sees this one:

    python -m venv --system-site-packages compilers
    compilers/bin/pip install --no-deps jax-cuda12-plugin==0.10.2 jax-cuda12-pjrt==0.10.2 libtpu==0.0.42.1

Results are kept in experiments/records/compiled.json; docs/scale.md shows them.
"""

import argparse
import dataclasses
import functools
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from trajclust_experiments.catalogue import entries
from trajclust_jax.data import Trajectories, make
from trajclust_jax.devices import AXES, SEED, traced_for
from trajclust_jax.lowering import PLATFORMS, Program, counted, lowered_for, programs
from trajclust_jax.training import Phase, fit

KEPT = Path(__file__).parents[1] / "experiments" / "records" / "compiled.json"
SEEDS = 10

# Peak FLOP/s of matrix products as JAX computes them by default (TF32; bf16 on a TPU), of the rest, and bytes/s.
DEVICES = {
    "h100": ("NVIDIA H100 SXM", 495e12, 67e12, 3.35e12, 80e9),
    "h200": ("NVIDIA H200 SXM", 495e12, 67e12, 4.8e12, 141e9),
    "v5e": ("TPU v5e", 197e12, 3e12, 0.82e12, 16e9),
}
H100 = """platform_name: "CUDA" device_description_str: "NVIDIA H100 80GB HBM3"
dnn_version_info { major: 9 minor: 7 } runtime_version { major: 12 minor: 9 }
gpu_device_info { threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152
 shared_memory_per_core: 233472 shared_memory_per_block_optin: 232448 threads_per_core_limit: 2048 core_count: 132
 fpus_per_core: 128 block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
 registers_per_core_limit: 65536 registers_per_block_limit: 65536 memory_bandwidth: 3352320000000
 l2_cache_size: 52428800 clock_rate_ghz: 1.98 device_memory_size: 84929347584 cuda_compute_capability { major: 9 } }"""


@dataclasses.dataclass(frozen=True)
class Row:
    """A method on data of the papers' size; told of is one step of its last phase that has one."""

    name: str
    data: str
    build: Callable[[Trajectories], Any]
    chips: int = 1

    @property
    def title(self) -> str:
        return f"{self.name}, {self.data}" + (f", {self.chips} chips" if self.chips > 1 else "")


@functools.cache
def grid() -> Trajectories:
    """Diagonal, 20,000 trajectories of each of five policies."""
    return make("diagonal", 20_000, 0).trajectories


@functools.cache
def maps() -> Trajectories:
    """Extra, observed as maps, of the same size; its shapes are those of a twentieth."""
    return make("extra-vi", 1_000, 0).trajectories


@functools.cache
def hopper() -> Trajectories:
    """As large as Hopper's medium-expert data: 2,000 trajectories of 1,000 steps. Values do not matter here."""
    rng = np.random.default_rng(0)
    size = (2_000, 1_000)
    normal = lambda *shape: rng.standard_normal(shape, np.float32)
    return Trajectories(
        observations=normal(*size, 11),
        actions=np.tanh(normal(*size, 3)),
        rewards=normal(*size),
        lengths=np.full(size[0], size[1], np.int32),
        terminated=np.zeros(size[0], bool),
        final_observations=normal(size[0], 11),
        num_actions=0,
    )


DATA = {"Diagonal": grid, "Extra": maps, "Hopper": hopper}


def rows() -> list[Row]:
    """Every clusterer on grids or maps and on continuous data, every learner, and autoencoders on several chips."""
    found = []
    for name, entry in entries("clusterer").items():
        if entry.algorithm.__name__ == "SummaryKmeans":  # k-means alone, on the host
            continue
        build = lambda data, entry=entry: entry.build(_POLICIES[id(data)], **entry.suited(data))
        on_maps = name.endswith(("_planner", "_conv"))
        found.append(Row(entry.title, "Extra" if on_maps else "Diagonal", build))
        if not on_maps and entry.policy != "tabular":
            found.append(Row(entry.title, "Hopper", build))
        if name in ("caae", "dec", "vae_kmeans"):
            found.append(Row(entry.title, "Diagonal", build, chips=4))
    for entry in entries("learner").values():
        found.append(Row(entry.title, "Hopper", lambda data, entry=entry: entry.build(data.action_size)))
    return found


_POLICIES: dict[int, int] = {}  # by data


def trajectories(name: str) -> Trajectories:
    """Data by name."""
    data = DATA[name]()
    _POLICIES[id(data)] = {"Diagonal": 5, "Extra": 3, "Hopper": 2}[name]
    return data


def trips(method: Any, data: Trajectories, phase: str) -> tuple[int, ...]:
    """How often the loops of a step run whose rounds are computed, in their order."""
    settings = {field.name: getattr(method, field.name) for field in dataclasses.fields(method)}
    kind, length = settings.get("policy"), int(np.asarray(data.lengths).max())
    if kind is None:
        return ()
    steps = settings.get("polish_steps" if phase == "polish" else "steps")
    soft = steps is None  # EMPO: an epoch, or so many steps
    if soft:
        batches = 1 if data.discrete and kind == "mlp" else -(-int(np.asarray(data.lengths).sum()) // 256)
        steps = max(batches, settings["least_steps"])
    counted = data.discrete and kind in ("mlp", "tabular") and not dict(method.policy_settings).get("extractor")
    training = [length] if counted else []  # counts
    training += [steps] * (1 + soft) if kind != "tabular" else []  # the classifier's, too
    scoring = [length] * (1 + (settings.get("posterior") == "sum")) if counted or kind == "gru" else []
    return (*training, *scoring)


def step_of(method: Any, data: Trajectories, mesh: Mesh | None = None, seeds: int = SEEDS) -> Program:
    """The last step among the method's programs."""
    return [program for program in programs(method, data, seeds, mesh) if program.name.endswith("step")][-1]


def least_seconds(work: Any, device: str) -> float:
    """By the roofline."""
    _, products, rest, bandwidth, _ = DEVICES[device]
    return max(work.multiplied / products, work.elementwise / rest, work.bytes / bandwidth)


@functools.cache
def topology(kind: str) -> Any:
    """The devices of a kind; those of two topologies do not mix."""
    from jax.experimental.topologies import get_topology_desc

    if kind == "h100":
        return get_topology_desc(platform="cuda", target_config=H100, topology="1x1x1").devices
    return get_topology_desc(f"{kind}:2x2", "tpu").devices


def compiled(kind: str, row: Row, data: Trajectories) -> dict[str, Any]:
    """What a compiler makes of the step: seconds, bytes of a device; or why it does not."""
    devices = np.array(topology(kind)[: row.chips])
    mesh = Mesh(devices.reshape(row.chips, 1, 1, 1), AXES)
    seeds = -(-SEEDS // row.chips) * row.chips
    program = step_of(row.build(data), data, mesh if row.chips > 1 else None, seeds)

    def placed(tree: Any, mapped: bool) -> Any:
        place = NamedSharding(mesh, PartitionSpec(SEED) if mapped else PartitionSpec())
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), x.dtype, sharding=place), tree)

    arguments = [placed(each, mapped) for each, mapped in zip(program.arguments, program.mapped, strict=True)]
    began = time.monotonic()
    try:
        with traced_for("cuda" if kind == "h100" else "tpu"):
            memory = jax.jit(program.function, donate_argnums=0).lower(*arguments).compile().memory_analysis()
    except Exception as error:
        return {"refused": f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"}
    used = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    return {"compile_seconds": time.monotonic() - began, "bytes": used + memory.temp_size_in_bytes}


def told(row: Row, kinds: Sequence[str], known: dict[str, Any]) -> dict[str, Any]:
    """What is known of a row, and what is asked for beside."""
    data = trajectories(row.data)
    method = row.build(data)
    if "work" not in known:
        program = step_of(method, data)
        lowered_for(program, PLATFORMS)
        work = counted(program, trips(method, data, program.name.split()[0]))
        known |= {"step": program.name.removesuffix(" step"), "lowered": list(PLATFORMS), "work": work._asdict()}
        known["least_seconds"] = {device: least_seconds(work, device) for device in DEVICES}
    for kind in kinds:
        if kind not in known.setdefault("compiled", {}) and (row.chips == 1 or kind == "v5e"):
            known["compiled"][kind] = compiled(kind, row, data)
    return known


@dataclasses.dataclass(frozen=True)
class _Short:
    """A method with one iteration of each phase, and six of the last one."""

    method: Any

    def __getattr__(self, name: str) -> Any:
        return getattr(self.method, name)

    def phases(self) -> tuple[Phase, ...]:
        whole = self.method.phases()
        last = max(i for i, phase in enumerate(whole) if phase.step is not None and phase.budget)
        return tuple(phase._replace(budget=min(phase.budget, 6 if i == last else 1)) for i, phase in enumerate(whole))


def timed(row: Row) -> dict[str, Any]:
    """Seconds of a step on this machine's devices, the median of the last five of six."""
    data, times = trajectories(row.data), []
    fit(_Short(row.build(data)), data, SEEDS, callbacks=[lambda event: times.append((event.phase, time.monotonic()))])
    last = times[-1][0]
    seconds = np.diff([at for phase, at in times if phase == last])[1:]
    return {"jax": jax.__version__, "seconds": float(np.median(seconds))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compile", nargs="*", default=(), choices=("h100", "v5e"), help="for these devices")
    parser.add_argument("--run", action="store_true", help="time the steps on this machine's accelerator")
    parser.add_argument("--only", default="", help="rows whose title begins so")
    options = parser.parse_args()
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    for row in rows():
        if not row.title.startswith(options.only):
            continue
        began = time.monotonic()
        known = kept.get(row.title, {})
        try:
            known = told(row, options.compile, known)
            if options.run and row.chips == 1:
                known.setdefault("ran", {})[jax.devices()[0].device_kind] = timed(row)
        except ValueError as error:  # the method has no answer for this data
            known = {"refused": str(error)}
        kept[row.title] = known
        KEPT.write_text(json.dumps(kept, indent=1) + "\n")
        print(f"{row.title}: {time.monotonic() - began:.0f} s; {json.dumps(known)[:160]}", flush=True)


if __name__ == "__main__":
    main()
