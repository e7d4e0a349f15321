"""Times each hot path beside its reference, in one run on this machine, and prints ratios.

    python scripts/benchmark.py                        on Diagonal, 1,000 trajectories a policy
    python scripts/benchmark.py --json --size 200
    python scripts/benchmark.py --parts learners relabelling

Compile time is reported apart. Every time is the best of `--repeats` runs: the least disturbed one. Ctrl-C prints the
rows so far.
"""

import contextlib
import dataclasses
import functools
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import numpy_references
import tyro
from gymnax.environments.misc.rooms import FourRooms
from rich.console import Console
from rich.progress import track
from rich.table import Table

import trajclust_envs as envs
from trajclust_experiments.papers.own import _files as own_files
from trajclust_experiments.rendering.markdown import device_name
from trajclust_jax.clustering import CAAE
from trajclust_jax.clustering.policies import CountedPolicy, HistoryPolicy, MixtureData, NetworkPolicy, TransitionPolicy
from trajclust_jax.clustering.representation.data import EncoderData
from trajclust_jax.data import DataError, Trajectories, dense, make
from trajclust_jax.devices import on_cpu, traced_for
from trajclust_jax.learners import CQL, IQL, TD3BC, BRACv, LBRACv, Learner, Offline
from trajclust_jax.networks import MIN_STD, ensemblize, ensemblize_wide, member_keys
from trajclust_jax.parallel import over_seeds
from trajclust_jax.records import environment
from trajclust_jax.relabelling import CLUE, OTR, ExpertData, of_trajectories
from trajclust_jax.training import compile_options

CARTPOLE = 50  # episodes of each of two policies, in a file in D4RL's layout
MATMUL = "matmul 2048 x 2048"  # whose rate the peak is
CLUSTERED = {"hopper-medium-expert:size=50": 2, "takeball:size=200": 4, "cartpole": 2}  # by `trajclust cluster`, and K

Part = Literal[
    "commands", "environments", "counted", "histories", "autoencoders", "continuous", "learners", "relabelling"
]


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Times the hot paths beside their references. Example: python scripts/benchmark.py --size 1000"""

    dataset: str = "diagonal"
    """A registered grid-world dataset."""
    size: int = 1000
    """Trajectories a policy."""
    restarts: int = 5
    """R."""
    clusters: int = 7
    """K."""
    num_envs: int = 2048
    """Batch of the environment steps."""
    env_steps: int = 200
    """Steps of each environment in the batch."""
    learners: tuple[str, ...] = ("IQL", "TD3+BC", "CQL")
    """The offline learners."""
    updates: int = 200
    """Gradient steps of a learner that are timed together; of CQL a twentieth."""
    repeats: int = 3
    """Runs of each timing, of which the best counts."""
    parts: tuple[Part, ...] = get_args(Part)
    """What is timed, in this order; `commands` are whole commands, in CPU seconds whatever the device."""
    json: bool = False
    """Print JSON instead of a table."""


@dataclasses.dataclass
class Row:
    """One hot path: time or rate of ours and of the reference, and how many times better ours is."""

    name: str
    ours: float
    reference_name: str
    reference: float
    ratio: float
    unit: str  # "s": less is better; a rate: more is
    compile_seconds: float  # of ours
    memory_bytes: int  # arguments, results and temporaries of our compiled program


class Timing(NamedTuple):
    """A compiled program's best time, what it took to compile, its memory and its result."""

    seconds: float
    compile_seconds: float
    memory_bytes: int
    out: Any


def timed(fn: Callable, *args: Any, repeats: int) -> Timing:
    """Times `repeats` runs after a first one that does not count."""
    return timed_in_turn({"": fn}, *args, repeats=repeats)[""]


def timed_in_turn(fns: dict[str, Callable], *args: Any, repeats: int) -> dict[str, Timing]:
    """`timed` of several functions of the same arguments, run in turn: a disturbance of the machine meets them all."""
    compiled, timings = {}, {}
    for name, fn in fns.items():
        began = time.perf_counter()
        compiled[name] = jax.jit(fn).lower(*args).compile(compiler_options=compile_options())
        compile_seconds = time.perf_counter() - began
        memory = compiled[name].memory_analysis()
        parts = ("argument_size_in_bytes", "output_size_in_bytes", "temp_size_in_bytes")
        memory_bytes = sum(int(getattr(memory, part, 0)) for part in parts)
        out = jax.block_until_ready(compiled[name](*args))
        timings[name] = Timing(np.inf, compile_seconds, memory_bytes, out)
    for _ in range(repeats):
        for name, run in compiled.items():
            seconds, out = best_of(lambda run=run: run(*args), 1, warm=True)
            timings[name] = timings[name]._replace(seconds=min(seconds, timings[name].seconds), out=out)
    return timings


def best_of(run: Callable[[], Any], repeats: int, warm: bool = False) -> tuple[float, Any]:
    """Best seconds of `repeats` runs after a first one (unless `warm`), and the result."""
    out = None if warm else jax.block_until_ready(run())
    best = np.inf
    for _ in range(repeats):
        began = time.perf_counter()
        out = jax.block_until_ready(run())
        best = min(best, time.perf_counter() - began)
    return best, out


def row(name: str, ours: Timing, reference_name: str, reference: float, per: float = 1.0) -> Row:
    """A row of seconds, each `per` of what was timed."""
    seconds = ours.seconds / per
    cost = ours.compile_seconds, ours.memory_bytes
    return Row(name, seconds, reference_name, reference, reference / seconds, "s", *cost)


def rate_row(name: str, ours: Timing, amount: float, reference_name: str, reference: float, unit: str) -> Row:
    """A row of rates: `amount` of work in ours."""
    rate = amount / ours.seconds
    return Row(name, rate, reference_name, reference, rate / reference, unit, ours.compile_seconds, ours.memory_bytes)


def environment_rows(config: Benchmark) -> list[Row]:
    """Steps a second, auto-reset and observations included, beside gymnax's FourRooms with visual observations and,
    where it is installed, a grid of navix."""

    def episodes(env) -> Callable:
        params = env.default_params

        def episode(key):
            key, key_reset = jax.random.split(key)
            obs, state = env.reset(key_reset, params)

            def step(carry, key):
                _, state = carry  # the observation is carried so that it is made at every step
                key_action, key_step = jax.random.split(key)
                action = env.action_space(params).sample(key_action)
                obs, state, reward, _, _, info = env.step(key_step, state, action, params)
                return (obs, state), (reward, info["final_observation"].ravel()[0])

            return jax.lax.scan(step, (obs, state), jax.random.split(key, config.env_steps))

        return jax.vmap(episode)

    keys = jax.random.split(jax.random.key(0), config.num_envs)
    names = {"reference": FourRooms(use_visual_obs=True), **{name: gymnax.make(name)[0] for name in envs.ENVIRONMENTS}}
    rollouts = {name: episodes(env) for name, env in names.items()}
    try:
        import navix
    except ImportError:
        pass
    else:
        rollouts["navix"] = navix_episodes(navix.make("Navix-Empty-16x16-v0"), config.env_steps)
    timings = timed_in_turn(rollouts, keys, repeats=config.repeats)
    steps = config.num_envs * config.env_steps
    reference, other = steps / timings.pop("reference").seconds, timings.pop("navix", None)
    rows = [
        rate_row(f"{name} steps", timing, steps, "gymnax FourRooms, visual", reference, "steps/s")
        for name, timing in timings.items()
    ]
    if other is not None:
        name, other = "Diagonal-v0", steps / other.seconds
        rows.append(rate_row(f"{name} steps", timings[name], steps, "navix Empty-16x16", other, "steps/s"))
    return rows


def navix_episodes(env: Any, num_steps: int) -> Callable:
    """Random episodes of an environment of navix, whose time step carries all: `[E]` keys -> last step, rewards."""

    def episode(key):
        key, key_reset = jax.random.split(key)

        def step(timestep, key):
            timestep = env.step(timestep, env.action_space.sample(key))
            return timestep, timestep.reward

        return jax.lax.scan(step, env.reset(key_reset), jax.random.split(key, num_steps))

    return jax.vmap(episode)


def setting(policies: NetworkPolicy, trajectories: Trajectories, config: Benchmark):
    """Prepared data, fresh members `[R, K]` and random assignments `[R, N']`."""
    data = jax.device_put(policies.prepare(trajectories, config.restarts * config.clusters))
    members = ensemblize(lambda key: policies.init(key, data), 2)(
        member_keys(jax.random.key(0), config.restarts, config.clusters)
    )
    assignments = jax.random.randint(jax.random.key(1), (config.restarts, data.num_slots), 0, config.clusters)
    return data, members, assignments


def e_step(policies: NetworkPolicy, data: MixtureData) -> Callable:
    """Log-likelihoods `[C, R, K, n]` of all trajectories under all members."""
    return lambda params: jax.lax.map(policies.scorer(params, data), data.chunks)


def m_step(policies: NetworkPolicy, data: MixtureData, num_steps: int) -> Callable:
    """`num_steps` gradient steps of all members."""

    def step(members, assignments):
        keys = member_keys(jax.random.key(2), assignments.shape[0])
        fit = lambda member, assigned, key: policies.fit(member, assigned, data, key, num_steps)
        return ensemblize_wide(fit, 1)(members, assignments, keys)  # as EM does

    return step


def product_rows(policies: CountedPolicy, trajectories: Trajectories, config: Benchmark, runs: int = 50) -> list[Row]:
    """Both halves of EM on counted data as an accelerator computes them, by products, beside a CPU's form there."""
    data, members, assignments = setting(policies, trajectories, dataclasses.replace(config, restarts=runs))
    halves = {
        "E-step": (lambda: e_step(policies, data), members.params, "lookups"),
        "counts": (
            lambda: lambda given: jax.vmap(lambda one: policies.counts(one, config.clusters, data))(given),
            assignments,
            "scattered sums",
        ),
    }
    rows = []
    for name, (half, given, form) in halves.items():
        ours = timed(half(), given, repeats=config.repeats)
        with traced_for("cpu"):
            reference = timed(half(), given, repeats=config.repeats)
        np.testing.assert_allclose(ours.out, reference.out, rtol=1e-4, atol=1e-3)
        rows.append(row(f"{name}, {runs} runs, by products", ours, form, reference.seconds))
    return rows


def dense_m_step(policies: TransitionPolicy, data: MixtureData, config: Benchmark) -> Callable:
    """The same full-batch gradient step from every transition's observation: what the counts replace."""
    network = policies.network(data)
    lengths = data.lengths
    inputs = data.chunks.inputs.reshape(data.num_slots, *data.chunks.inputs.shape[2:])
    actions = data.chunks.actions.reshape(data.num_slots, -1)
    mask = jnp.arange(actions.shape[1]) < lengths[:, None]

    def step(members, assignments):
        def one(member, assigned, k):
            weight = (mask & (assigned == k)[:, None]) / jnp.maximum((lengths * (assigned == k)).sum(), 1)
            loss = lambda params: -(network.apply(params, inputs).log_prob(actions) * weight).sum()
            return policies.update(loss, member, jnp.bool_(True))

        # One member after another: all at once would need the activations of every transition times 35.
        flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), members)
        restart, cluster = jnp.divmod(jnp.arange(config.restarts * config.clusters), config.clusters)
        return jax.lax.map(lambda x: one(x[0], assignments[x[1]], x[2]), (flat, restart, cluster))

    return step


def mlp_flops(rows: int, inputs: int, actions: int, backward: bool) -> float:
    """Floating-point operations of one member's MLP on `rows` observations (FC 128-128 and the head)."""
    layers = [(inputs, 128), (128, 128), (128, actions)]
    passes = [1 + backward * (1 if i == 0 else 2) for i in range(3)]  # no gradient in the inputs
    return float(sum(2 * rows * a * b * n for (a, b), n in zip(layers, passes, strict=True)))


def autoencoder_flops(data: EncoderData, batch_size: int, latent_size: int, numbers: range) -> float:
    """Floating-point operations of CAAE's gradient steps `numbers` of one seed on a codebook (B.5's layers).

    A product of [m, a] and [a, b] counts 2 m a b, once forward and twice backward; once where no gradient in its input
    is needed.
    """
    rows, inputs = data.data.table.shape
    actions, total = data.data.action_size, 0
    drawn = jax.vmap(data.draw_bucket)(jnp.asarray(numbers))
    for bucket in np.asarray(drawn):
        steps = batch_size * data.buckets[bucket].horizon
        first = 2 * rows * inputs * 128  # encoder's and decoder's, of the codebook's observations
        features = min(rows * actions, steps) * (128 * 128 + 128 * 192)
        encoder = steps * (64 * 192 + 64 * 128 + 128 * 32 + 2 * 16) + batch_size * 16 * latent_size
        decoder = steps * (128 * 32 + 32 * 32 + 32 * actions) + batch_size * latent_size * 128
        total += 2 * first + 3 * (features + encoder + decoder)
    return 2.0 * total


def autoencoder_rows(trajectories: Trajectories, config: Benchmark, peak: float) -> list[Row]:
    """CAAE's gradient steps of one seed beside a matmul's rate, and of ten seeds beside ten lone runs."""
    method, num_seeds = CAAE(config.clusters, steps=20), 10
    data = jax.device_put(method.prepare(trajectories, num_seeds))
    warmup = method.phases()[0]
    seeds = jax.vmap(jax.random.key)(jnp.arange(num_seeds))
    states, _ = jax.jit(jax.vmap(lambda key: warmup.start(key, data, None)))(seeds)
    one = lambda state: warmup.step(state, data, jnp.int32(0))
    lone = [jax.tree.map(lambda x, s=s: x[s], states) for s in range(num_seeds)]
    ours = timed(one, lone[0], repeats=config.repeats)
    flops = autoencoder_flops(data, method.batch_size, method.latent_size, range(method.steps))
    rows = [rate_row("CAAE, a seed's gradient steps, FLOP/s", ours, flops, MATMUL, peak, "FLOP/s")]

    single = jax.jit(one).lower(lone[0]).compile(compiler_options=compile_options())
    ours = timed(over_seeds(one, None, (True,)), states, repeats=config.repeats)
    seconds, _ = best_of(lambda: [single(state) for state in lone], config.repeats)
    name = f"CAAE, a gradient step of {num_seeds} seeds"
    return [*rows, row(name, ours, "Python loop over seeds", seconds / method.steps, per=method.steps)]


CONTINUOUS = {"trajectories": 100, "steps": 1000, "observations": 17, "actions": 6, "clusters": 4, "restarts": 5}


def random_walks() -> Trajectories:
    """Continuous trajectories of HalfCheetah's sizes; what they hold does not change what they cost."""
    n, t, d, a = (CONTINUOUS[name] for name in ("trajectories", "steps", "observations", "actions"))
    rng = np.random.default_rng(0)
    return Trajectories(
        observations=rng.standard_normal((n, t, d), np.float32),
        actions=np.tanh(rng.standard_normal((n, t, a), np.float32)),
        rewards=rng.standard_normal((n, t), np.float32),
        lengths=np.full(n, t, np.int32),
        terminated=np.zeros(n, bool),
        final_observations=np.zeros((n, d), np.float32),
    )


def continuous_rows(config: Benchmark, peak: float) -> list[Row]:
    """Both steps of EM on continuous data, beside a matmul's rate and loops in NumPy and, if installed, in PyTorch."""
    policies, trajectories = TransitionPolicy(scored_steps=100), random_walks()
    sizes = dataclasses.replace(config, clusters=CONTINUOUS["clusters"], restarts=CONTINUOUS["restarts"])
    num_members = sizes.clusters * sizes.restarts
    data, members, assignments = setting(policies, trajectories, sizes)
    heads, steps = 2 * data.action_size, 50

    improve = timed(m_step(policies, data, steps), members, assignments, repeats=config.repeats)
    flops = num_members * steps * mlp_flops(policies.batch_size, data.chunks.inputs.shape[-1], heads, backward=True)
    name = f"continuous M-step, {num_members} members of batch {policies.batch_size}"
    rows = [rate_row(f"{name}, FLOP/s", improve, flops, MATMUL, peak, "FLOP/s")]
    sampled = data.sampled(jax.random.key(3), policies.scored_steps)
    score = timed(e_step(policies, sampled), members.params, repeats=config.repeats)
    seen = data.num_trajectories * policies.scored_steps
    flops = num_members * mlp_flops(seen, data.chunks.inputs.shape[-1], heads, backward=False)
    rows.append(rate_row(f"continuous E-step, {seen:,} steps, FLOP/s", score, flops, MATMUL, peak, "FLOP/s"))
    for library, references in (("NumPy", numpy_references), ("PyTorch", torch_references())):
        if references is not None:
            step, scoring = lone_em(references, data, policies, num_members, steps, config.repeats)
            loop = f"{library}, a loop" + references.WHERE
            rows.append(row(f"{name}, a gradient step", improve, loop, step, per=steps))
            rows.append(row(f"continuous E-step, {seen:,} steps", score, loop, scoring))
    return rows


def torch_references() -> Any:
    """The references in PyTorch; None where it is not installed."""
    try:
        import torch_references
    except ImportError:
        return None
    return torch_references


def lone_em(references: Any, data: MixtureData, policies: TransitionPolicy, num_members: int, steps: int, repeats: int):
    """Seconds of a gradient step of all members, and of an E-step, one member after another in another library."""
    flat = [np.array(x).reshape(-1, x.shape[-1]) for x in (data.chunks.inputs, data.chunks.actions)]
    clusters, rate = CONTINUOUS["clusters"], policies.learning_rate
    mixture = references.Mixture(*flat, num_members, clusters, policies.batch_size, rate, MIN_STD)
    score = lambda: mixture.score(data.num_trajectories, policies.scored_steps)
    return best_of(lambda: mixture.improve(steps), repeats)[0] / steps, best_of(score, repeats)[0]


def network_flops(rows: int, sizes: tuple[int, ...]) -> tuple[float, float, float]:
    """Of dense layers: floating-point operations of a forward pass, of training (no gradient in the inputs), and of a
    gradient in the inputs alone (forward included)."""
    products = [2.0 * rows * a * b for a, b in itertools.pairwise(sizes)]
    forward = sum(products)
    return forward, 3 * forward - products[0], 2 * forward


def learner_flops(name: str, batch: int, observations: int, actions: int) -> float:
    """Floating-point operations of a gradient step's matrix products, each different one counted once."""
    q_forward, q_train, q_inputs = network_flops(batch, (observations + actions, 256, 256, 1))
    v_forward, v_train, _ = network_flops(batch, (observations, 256, 256, 1))
    heads = 2 * actions if name == "CQL" else actions
    a_forward, a_train, _ = network_flops(batch, (observations, 256, 256, heads))
    if name == "IQL":
        return 2 * q_train + 2 * q_forward + v_train + v_forward + a_train
    if name == "TD3+BC":  # actor every second time
        return 2 * q_train + 2 * q_forward + a_forward + (a_train + q_inputs) / 2
    # CQL: 30 more actions for each observation
    return 31 * 2 * q_train + 2 * q_forward + a_forward + a_train + 2 * q_inputs


def updates(learner: Learner, block: int, trajectories: Trajectories, num_seeds: int, repeats: int) -> Timing:
    """`block` gradient steps of the last phase of so many seeds in one program, after the phases before it."""
    method = Offline(learner, block=block)
    data, state = jax.device_put(method.prepare(trajectories, num_seeds)), None
    keys = jax.vmap(jax.random.key)(jnp.arange(num_seeds))
    for phase in method.phases():
        start = jax.jit(jax.vmap(lambda key, before: phase.start(key, data, before)[0]))  # noqa: B023
        state = start(keys, state)
    return timed(over_seeds(lambda state: phase.step(state, data, jnp.int32(0)), None, (True,)), state, repeats=repeats)


def learner_rows(config: Benchmark, peak: float) -> list[Row]:
    """Gradient steps of the offline learners beside PyTorch, beside the time that their matrix products take at a large
    one's rate, of ten seeds beside ten times one seed, and of LBRAC-v beside BRAC-v: what a set of behaviours costs."""
    trajectories, rows, torch = random_walks(), [], torch_references()
    d, a, few = CONTINUOUS["observations"], CONTINUOUS["actions"], max(2, config.updates // 20)
    for name in config.learners:
        learner = {"IQL": IQL, "TD3+BC": TD3BC, "CQL": CQL}[name](a)
        block = few if name == "CQL" else config.updates
        one, ten = (updates(learner, block, trajectories, seeds, config.repeats) for seeds in (1, 10))
        amount, products = block / one.seconds, learner_flops(name, learner.batch_size, d, a)
        a_seed = f"{name}, updates of a seed"
        rows.append(rate_row(a_seed, one, block, f"its products at the {MATMUL}'s rate", peak / products, "updates/s"))
        if torch is not None:
            batch = Offline(learner).prepare(trajectories, 1).batch
            reference = torch.LEARNERS[name]([*batch[:4], batch.terminated.astype(np.float32)])
            seconds, _ = best_of(lambda: reference.improve(block), config.repeats)  # noqa: B023
            rows.append(rate_row(a_seed, one, block, "PyTorch, eager" + torch.WHERE, block / seconds, "updates/s"))
        rows.append(rate_row(f"{name}, updates of ten seeds", ten, 10 * block, "one seed", amount, "updates/s"))
    lone, several = (updates(learner(a), few, trajectories, 10, config.repeats) for learner in (BRACv, LBRACv))
    reference = 10 * few / lone.seconds
    rows.append(rate_row("LBRAC-v, updates of ten seeds", several, 10 * few, "BRAC-v", reference, "updates/s"))
    return rows


def relabelling_rows(config: Benchmark) -> list[Row]:
    """CLUE's gradient steps of 100 experts in one program beside lone experts', and its rewards of a million steps
    beside OTR's where ott-jax is installed."""
    trajectories, block = random_walks(), max(2, config.updates // 20)
    count, length = trajectories.mask.shape
    method = CLUE(updates=block, block=block)

    def training(experts: int) -> Timing:
        """A block of gradient steps, each expert a trajectory."""
        whole = tuple(number * length + np.arange(length) for number in range(experts))
        steps = jax.device_put(method.prepare(ExpertData(trajectories, whole), 1))
        state, _ = jax.jit(lambda key: method.start(key, steps, None))(jax.random.key(0))
        return timed(lambda state: method.step(state, steps, jnp.int32(0)), state, repeats=config.repeats)

    lone, ours = training(1), training(count)
    name = f"CLUE, a gradient step of {count} experts"
    loop = f"one expert, {lone.memory_bytes / 1e6:,.0f} MB, {count} times"
    rows = [row(name, ours, loop, count * lone.seconds / block, per=block)]

    few = of_trajectories(jax.tree.map(lambda x: x[:10], trajectories), np.arange(1))
    try:
        reference, _ = best_of(lambda: OTR().relabel(few, (0,)), config.repeats)
    except DataError:  # ott-jax is not installed
        return rows
    million = jax.tree.map(lambda x: np.concatenate([x] * (1_000_000 // (count * length))), trajectories)
    data = of_trajectories(million, np.arange(1))
    model = jax.device_get(CLUE(updates=1, block=1).relabel(data, (0,)).model)
    seconds, _ = best_of(lambda: method.rewards(model, data), config.repeats)
    rate, reference = data.num_steps / seconds, few.num_steps / reference
    rows.append(Row("CLUE, rewards of a million steps", rate, "OTR", reference, rate / reference, "steps/s", 0, 0))
    return rows


def command_rows(config: Benchmark) -> list[Row]:
    """CPU seconds of whole commands: of those that only start, and of clusterings whose programs were kept."""
    bare, rows = cpu_seconds([sys.executable, "-c", "import jax"]), []
    command = [sys.executable, "-m", "trajclust_experiments.cli"]
    with tempfile.TemporaryDirectory() as folder:
        npz = str(Path(folder, "takeball.npz"))
        cpu_seconds([*command, "data", "make", "takeball", "--size", "200", "--out", npz])
        for name, arguments in (("list", ["list"]), ("data info", ["data", "info", npz])):
            ours = min(cpu_seconds([*command, *arguments]) for _ in range(config.repeats))
            rows.append(Row(f"{name}, CPU seconds", ours, "import jax", bare, bare / ours, "s", 0, 0))
        for dataset, k in CLUSTERED.items():
            kept = str(Path(folder, dataset.partition(":")[0]))
            source = own_files.cartpole(Path(folder), CARTPOLE, 0) if dataset == "cartpole" else dataset
            arguments = ["cluster", source, "--k", str(k), "--out", str(Path(folder, "out"))]
            first, again = (cpu_seconds([*command, *arguments], kept) for _ in range(2))
            compiling = json.loads(Path(folder, "out", "summary.json").read_text())["timing"]["compile_seconds"]
            name = f"cluster {dataset} --k {k}, CPU seconds"
            rows.append(Row(name, again, "the first time", first, first / again, "s", compiling, 0))
    return rows


def cpu_seconds(command: list[str], kept: str = "off") -> float:
    """Of a command and all its threads, its compiled programs kept in a folder."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    variables = {**os.environ, "TRAJCLUST_COMPILE_CACHE": kept}
    subprocess.run(command, env=variables, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def counted_rows(
    coded: Trajectories, raw: Trajectories, config: Benchmark, peak: float, facts: dict[str, float]
) -> Iterator[list[Row]]:
    """E-step and M-step of Markov policies by counts against the dense path; how far apart both are is a fact."""
    repeats, num_members = config.repeats, config.restarts * config.clusters
    measure = functools.partial(timed, repeats=repeats)
    counted, transition = CountedPolicy(), TransitionPolicy()
    data, members, assignments = setting(counted, coded, config)
    dense_data, _, _ = setting(transition, raw, config)

    ours = measure(e_step(counted, data), members.params)
    reference = measure(e_step(transition, dense_data), members.params)
    flat = lambda x, d: np.moveaxis(np.asarray(x), 0, 2).reshape(num_members, -1)[:, np.asarray(d.rank)]
    facts["e_step_largest_difference"] = float(np.abs(flat(ours.out, data) - flat(reference.out, dense_data)).max())
    yield [row("E-step, MLP, counts", ours, "dense path", reference.seconds)]

    # Both hold the trajectories in order of length, so that slot n is the same one in each.
    slots = jnp.zeros((config.restarts, dense_data.num_slots), jnp.int32)
    slots = slots.at[:, : coded.num_trajectories].set(assignments[:, : coded.num_trajectories])
    reference = measure(dense_m_step(transition, dense_data, config), members, slots)
    one = measure(m_step(counted, data, 1), members, assignments)
    params = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), one.out.params)
    difference = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), params, reference.out.params)
    facts["m_step_largest_difference"] = max(jax.tree.leaves(difference))
    steps = 50  # the counts are taken once an M-step; so many gradient steps make them a small part
    ours = measure(m_step(counted, data, steps), members, assignments)
    yield [row("M-step, MLP, counts, a gradient step", ours, "dense path, full batch", reference.seconds, per=steps)]

    flops = num_members * mlp_flops(*data.table.shape, data.action_size, backward=True) * steps
    yield [rate_row("M-step, MLP, counts, FLOP/s", ours, flops, MATMUL, peak, "FLOP/s")]

    everyone = assignments[:1] * 0
    lone = [
        jax.tree.map(lambda x, r=r, k=k: x[r : r + 1, k : k + 1], members)
        for r in range(config.restarts)
        for k in range(config.clusters)
    ]
    single = jax.jit(m_step(counted, data, steps)).lower(lone[0], everyone).compile()
    seconds, _ = best_of(lambda: [single(member, everyone) for member in lone], repeats)
    yield [row(f"M-step, MLP, {num_members} members in one program", ours, "Python loop over members", seconds)]

    if not on_cpu():
        yield product_rows(counted, coded, config)


def history_rows(coded: Trajectories, raw: Trajectories, config: Benchmark, peak: float) -> Iterator[list[Row]]:
    """E-step and M-step of GRUs over the observations so far, features on the codebook against those of every step."""
    measure, num_members = functools.partial(timed, repeats=config.repeats), config.restarts * config.clusters
    history, reference_name = HistoryPolicy(), "features of every step"
    data, members, assignments = setting(history, coded, config)
    raw_data, _, raw_assignments = setting(history, raw, config)  # in other chunks, with other fillers
    ours = measure(e_step(history, data), members.params)
    steps_run = float((np.asarray(data.chunks.max_length) * data.chunks.lengths.shape[1]).sum())
    flops = num_members * steps_run * 2 * (64 * 192 + 64 * 128 + 128 * data.action_size)
    yield [rate_row("E-step, GRU, FLOP/s", ours, flops, MATMUL, peak, "FLOP/s")]
    reference = measure(e_step(history, raw_data), members.params).seconds
    yield [row("E-step, GRU, features on the codebook", ours, reference_name, reference)]
    ours = measure(m_step(history, data, 2), members, assignments)
    reference = measure(m_step(history, raw_data, 2), members, raw_assignments).seconds / 2
    yield [row("M-step, GRU, a gradient step", ours, reference_name, reference, per=2)]


def run(config: Benchmark) -> tuple[list[Row], dict[str, float]]:
    """All rows, and facts of the run."""
    rows, facts = [], {}
    coded = make(config.dataset, config.size, 0).trajectories
    raw = coded.replace(observations=np.asarray(dense(coded.observations)))
    raw = raw.replace(final_observations=np.asarray(dense(coded.final_observations)))
    facts |= {"trajectories": coded.num_trajectories, "transitions": int(np.asarray(coded.lengths).sum())}
    facts |= {"distinct_observations": len(coded.observations.table), "members": config.restarts * config.clusters}

    square = jax.random.normal(jax.random.key(0), (2048, 2048))
    peak = 2 * 2048**3 / timed(lambda a: a @ a, square, repeats=config.repeats).seconds
    facts["matmul_flops"] = peak
    parts: dict[Part, Callable[[], Iterable[list[Row]]]] = {
        "commands": lambda: [command_rows(config)],
        "environments": lambda: [environment_rows(config)],
        "counted": lambda: counted_rows(coded, raw, config, peak, facts),
        "histories": lambda: history_rows(coded, raw, config, peak),
        "autoencoders": lambda: [autoencoder_rows(coded, config, peak)],
        "continuous": lambda: [continuous_rows(config, peak)],
        "learners": lambda: [learner_rows(config, peak)],
        "relabelling": lambda: [relabelling_rows(config)],
    }

    console = Console(stderr=True)
    chosen = [part for part in parts if part in config.parts]
    with contextlib.suppress(KeyboardInterrupt):  # the rows so far are worth having
        for part in track(chosen, description="timing", console=console, disable=not console.is_terminal):
            for more in parts[part]():
                rows += more
    facts["peak_memory_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )
    statistics = jax.devices()[0].memory_stats()
    if statistics:
        facts["peak_device_bytes"] = statistics.get("peak_bytes_in_use", 0)
    return rows, facts


def readable(value: float, unit: str) -> str:
    """A rate or a time with a fitting unit."""
    if unit == "s":
        return f"{value * 1e3:.3g} ms" if value < 1 else f"{value:.3g} s"
    if unit == "updates/s":
        return f"{value:.3g} {unit}"
    return f"{value / 1e9:.3g} G{unit}" if unit == "FLOP/s" else f"{value / 1e6:.3g} M{unit}"


def main(arguments: list[str] | None = None) -> None:
    """Entry point."""
    config = tyro.cli(Benchmark, args=arguments, description=__doc__)
    rows, facts = run(config)
    machine = environment()
    if config.json:
        described = {"config": dataclasses.asdict(config), "rows": [dataclasses.asdict(entry) for entry in rows]}
        print(json.dumps({**described, "facts": facts, "environment": machine}, indent=1))
        return
    table = Table("hot path", "ours", "reference", "", "times better", "compile s", "MB")
    for entry in rows:
        ours, reference = readable(entry.ours, entry.unit), readable(entry.reference, entry.unit)
        table.add_row(
            entry.name,
            ours,
            entry.reference_name,
            reference,
            f"{entry.ratio:.2f}",
            f"{entry.compile_seconds:.1f}",
            f"{entry.memory_bytes / 1e6:.0f}",
        )
    console = Console(width=None if sys.stdout.isatty() else 150)
    console.print(table)
    for name, value in facts.items():
        console.print(f"{name.replace('_', ' ')}: {value:.4g}")
    console.print(f"device: {device_name(machine)}, jax {machine['versions']['jax']}")


if __name__ == "__main__":
    main()
