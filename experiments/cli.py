"""The command line: `trajclust list | run | sweep | status | cluster | assign | train | relabel | data |
report`.

`TRAJCLUST_EXTENSIONS=my_module` imports modules that register methods, learners, datasets and tables of their own.
Compiled programs are kept in ~/.cache/trajclust/compiled, or in the folder TRAJCLUST_COMPILE_CACHE names; off keeps
none.

Exit codes: 0 done, 1 failed work (a training that diverged too), 2 bad usage or input, 128 + its number for a signal
that ended the command: 130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP. Errors are one line; with TRAJCLUST_DEBUG=1
they show their traceback.
"""

import atexit
import contextlib
import dataclasses
import errno
import gc
import io
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from trajclust_experiments import extensions
from trajclust_experiments.starting import ready
from trajclust_experiments.usage import UsageError
from trajclust_jax import __version__
from trajclust_jax.interrupts import Ending

_LONGEST = 500  # characters of an unexpected error that are shown
_NARROWEST = 20  # columns that help is written in

Track = Literal["off", "offline", "online"]
Split = Literal["npz", "minari", "hdf5"]


@dataclasses.dataclass(frozen=True)
class List:
    """Everything that has a name; with a name, what that is, its settings, its paper and its file.

    Example: trajclust list iql
    """

    name: tyro.conf.Positional[str | None] = None
    """A table, dataset, method, ...; or the word itself, such as methods: all of them, with a line each."""
    json: bool = False
    """Print JSON."""

    def run(self) -> int | None:
        from trajclust_experiments.commands.listing import show

        return show(**vars(self))


@dataclasses.dataclass(frozen=True)
class Run:
    """Reproduces a table or figure of a paper, ours beside the published numbers.

    Finished cells are kept in the results folder and never computed again; a killed run goes on where it was when the
    same command is given. The table of all that is finished, and its figures, are written to RESULTS/TABLE/PRESET.

    Example: trajclust run pgkmeans/table1 --preset cpu --methods pg_kmeans_mlp
    """

    table: tyro.conf.Positional[str]
    """A table's name; `trajclust list` shows them."""
    preset: str = "cpu"
    """smoke (a cell takes seconds to a minute), cpu (minutes to hours) or paper (days); --dry-run says how long."""
    datasets: tuple[str, ...] = ()
    """Only these rows; the beginning of names takes all of them: hopper is every one of Hopper's."""
    methods: tuple[str, ...] = ()
    """Only these columns; the beginning of names takes all of them: pg_kmeans, or caae_ for the variants of caae."""
    seeds: int | None = None
    """Number of seeds; the preset's by default."""
    dry_run: bool = False
    """List the cells, which are stored, and how long the others will take. Compute nothing."""
    results: Path | None = None
    """Results folder; $TRAJCLUST_RESULTS or `results` by default."""
    track: Track = "off"
    """W&B: a run a seed, and one with all seeds' scores and the record."""
    project: str | None = None
    """W&B project; $WANDB_PROJECT or trajclust by default."""
    hosts: str | None = None
    """Several hosts that compute each cell together, all given this command and one results folder: auto where the
    cluster tells them apart (Slurm, TPU pods), else COORDINATOR:PORT,NUMBER,INDEX, as in node0:9876,2,0."""
    json: bool = False
    """Print JSON: the files, and every record's scores; with --dry-run the cells."""

    def run(self) -> int | None:
        from trajclust_experiments.commands.run import run_table

        return run_table(**_options(self))


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Computes the missing cells of tables, several at a time; the same command goes on where a killed one was.

    Cells are those of `trajclust run`: any number of sweeps and runs, on any machines that see the results folder,
    share them out. One that fails does not end the sweep; the next call tries it again. `trajclust status` shows how
    far it is.

    Example: trajclust sweep pgkmeans/table1 pgkmeans/figure4 --preset smoke --datasets diagonal --jobs 2
    """

    tables: tyro.conf.Positional[tuple[str, ...]]
    """Tables' names; `trajclust list` shows them."""
    preset: str = "cpu"
    """smoke (a cell takes seconds to a minute), cpu (minutes to hours) or paper (days); --dry-run says how long."""
    datasets: tuple[str, ...] = ()
    """Only these rows, as `trajclust run` takes them."""
    methods: tuple[str, ...] = ()
    """Only these columns, as `trajclust run` takes them."""
    seeds: int | None = None
    """Number of seeds; the preset's by default."""
    set: tuple[str, ...] = ()
    """Settings to cross: learning_rate=1e-3,3e-4 restarts=1,5 makes four cells of each that has both settings. Tables
    do not show them; `trajclust report` has their scores."""
    only: tuple[str, ...] = ()
    """Only the cells with these keys, which --dry-run lists."""
    launcher: Literal["local", "ray", "slurm"] = "local"
    """local: processes of this machine. ray: a Ray cluster. slurm: one job array, through submitit; it is submitted and
    not waited for."""
    jobs: int | None = None
    """Cells at a time; local: one a GPU, without GPUs one a core, by default; slurm: of the array; ray places by what
    cells ask for."""
    cpus_per_cell: int = 1
    """ray, slurm: cores of a cell."""
    gpus_per_cell: float | None = None
    """ray, slurm: GPUs of a cell, for ray also a share (.25); ray: one where the cluster has any, by default."""
    memory_gb: int | None = None
    """ray, slurm: memory of a cell."""
    address: str | None = None
    """ray: of a running cluster (auto: this machine's); by default one is started here."""
    minutes: int = 240
    """slurm: the time limit of a cell; one that is not done by then is queued again, and goes on."""
    partition: str | None = None
    """slurm: the partition."""
    dry_run: bool = False
    """List the cells, which are stored, and how long the others will take; slurm: print the sbatch script, too (not
    with --json). Compute nothing."""
    write_wandb: Path | None = None
    """Write a W&B sweep whose agents compute these cells (`wandb sweep FILE`), and compute nothing."""
    results: Path | None = None
    """Results folder; $TRAJCLUST_RESULTS or `results` by default."""
    track: Track = "off"
    """W&B: a run a seed, and one with all seeds' scores and the record."""
    project: str | None = None
    """W&B project; $WANDB_PROJECT or trajclust by default."""
    json: bool = False
    """Print JSON: how many cells, which failed and why, the files; with --dry-run the cells."""

    def run(self) -> int | None:
        from trajclust_experiments.commands.sweep import sweep

        return sweep(**_options(self))


@dataclasses.dataclass(frozen=True)
class Status:
    """Which cells of the sweeps in a results folder are done, running (how far), failed (why), waiting.

    Example: trajclust status --watch
    """

    results: Path | None = None
    """Results folder; $TRAJCLUST_RESULTS or `results` by default."""
    watch: bool = False
    """Go on showing it until nothing runs or waits."""
    json: bool = False
    """Print JSON."""

    def run(self) -> int | None:
        from trajclust_experiments.commands.status import status

        return status(**vars(self))


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Clusters your own trajectories by the policies that made them.

    Example: trajclust cluster mine.npz --method pg_kmeans --k 5 --out runs/mine
    """

    dataset: tyro.conf.Positional[str]
    """An .npz or .hdf5 file, a Minari folder or id, or a registered dataset (takeball:size=500,seed=1)."""
    k: int | Literal["auto"]
    """How many clusters to end with; auto chooses by held-out trajectories, and shows the curve."""
    k_max: int = 10
    """The largest k that auto tries."""
    method: str = "pg_kmeans"
    """pg_kmeans, with the policy class of --policy; caae, dec, vae_kmeans, sorl, return_kmeans and what else
    `trajclust list` shows."""
    policy: Literal["tabular", "mlp", "gru", "planner"] | None = None
    """pg_kmeans: a table, an MLP of the observation (default), a GRU over the observations so far, or a planner on the
    observed map. sorl: all but the planner."""
    extra_clusters: int | None = None
    """pg_kmeans, behaviour_set: clusters beyond k to start with, which are merged. 2 and 0 by default."""
    restarts: int | None = None
    """pg_kmeans: independent restarts, of which the best by J is kept. 5 by default."""
    iterations: int | None = None
    """At most so many iterations (of EM; with codes; of refinement); the method's default otherwise."""
    seed: int = 0
    """Seed of everything random."""
    labels: Path | None = None
    """True policies to score against: a .csv (column label, and trajectory if sorted), .txt, .npy or .npz (labels)."""
    split: Split | None = None
    """Write each cluster as a dataset of its own, too: OUT/clusters/cluster-0.npz and so on."""
    out: Path = Path("runs/cluster")
    """Folder for the results: assignments, posteriors, figures and the model; of empo, the model has the classifier of
    observations, too (docs/data.md says how to read it)."""
    track: Track = "off"
    """W&B: a run with the curves, and one with the scores, the figures and the record."""
    project: str | None = None
    """W&B project; $WANDB_PROJECT or trajclust by default."""
    json: bool = False
    """Print the summary as JSON."""

    def run(self) -> int | None:
        from trajclust_experiments.commands.cluster import cluster

        return cluster(**_options(self))


@dataclasses.dataclass(frozen=True)
class Assign:
    """Assigns new trajectories to the clusters of an earlier `trajclust cluster`; nothing is trained.

    Example: trajclust assign new.npz --model runs/mine --out runs/new
    """

    dataset: tyro.conf.Positional[str]
    """An .npz or .hdf5 file, a Minari folder or id, or a registered dataset (takeball:size=500,seed=1)."""
    model: Path
    """The folder of an earlier `trajclust cluster`, on data with the same observations and actions."""
    labels: Path | None = None
    """True policies to score against, as `trajclust cluster` takes them."""
    split: Split | None = None
    """Write each cluster as a dataset of its own, too: OUT/clusters/cluster-0.npz and so on."""
    out: Path = Path("runs/assign")
    """Folder for the results."""
    json: bool = False
    """Print the summary as JSON."""

    def run(self) -> int | None:
        from trajclust_experiments.commands.assign import assign

        return assign(**vars(self))


@dataclasses.dataclass(frozen=True)
class Train:
    """Trains an offline learner on your own trajectories, or one on each cluster found in them.

    All seeds and clusters train in one program; the same command goes on where a killed one was.

    Example: trajclust train hopper.npz --learner iql --clusters runs/mine --cluster best --set updates=100000
    """

    dataset: tyro.conf.Positional[str]
    """An .npz or .hdf5 file, a Minari folder or id, or a registered dataset (hopper-medium-expert:size=200)."""
    learner: str = "iql"
    """bc, bc_10, td3_bc, iql, awac, cql and what else `trajclust list` shows."""
    plugin: str | None = None
    """c4, dr3 or layer_norm, or several (dr3+c4): what changes the critics; `--set` has their settings, too."""
    clusters: Path | None = None
    """The folder of an earlier `trajclust cluster` on the same trajectories, whatever their rewards: learn from
    clusters, not from everything."""
    cluster: str | None = None
    """With --clusters: all (a learner for each; the default), best (the highest mean return) or a number, as in
    assignments.csv."""
    transitions: int | None = None
    """Learn from so many transitions: whole trajectories, drawn, until there are as many."""
    draw: int = 0
    """Seed of that draw; summary.json has the trajectories drawn."""
    seeds: int = 3
    """Number of seeds."""
    environment: str | None = None
    """Where to evaluate: Hopper-v4, another id that Gymnasium makes, or module:Class; by default where the dataset is
    from."""
    episodes: int = 10
    """Episodes of an evaluation, for each seed and cluster."""
    evaluate_every: int = 10_000
    """Gradient steps between evaluations, in whole blocks (of 1,000 steps, by default)."""
    set: tuple[str, ...] = ()
    """Settings to change, e.g. updates=100000 expectile=0.9 best=0.1; `trajclust list iql` has all."""
    relabel: str | None = None
    """Learn from rewards by an expert: clue, oril, otr and what else `trajclust list` shows."""
    expert: str | None = None
    """With --relabel: as `trajclust relabel` takes it; cluster:all, with --clusters, trains a learner for each cluster
    as its expert, on everything."""
    set_relabel: tuple[str, ...] = ()
    """Settings of the relabeller to change, e.g. temperature=3 calibration=0.8."""
    out: Path = Path("runs/train")
    """Folder for the results."""
    track: Track = "off"
    """W&B: a run a seed, and one with all seeds' scores and the record."""
    project: str | None = None
    """W&B project; $WANDB_PROJECT or trajclust by default."""
    json: bool = False
    """Print the summary as JSON."""

    def run(self) -> int | None:
        from trajclust_experiments.commands.train import train

        return train(**_options(self))


@dataclasses.dataclass(frozen=True)
class Relabel:
    """Writes a dataset with new rewards: how like an expert's each step is. The data's own rewards are not read.

    The same command goes on where a killed one was. The model and what it is like go to a folder beside the dataset.

    Example: trajclust relabel hopper.npz --expert demonstration.npz --out new.hdf5
    """

    dataset: tyro.conf.Positional[str]
    """An .npz or .hdf5 file, a Minari folder or id, or a registered dataset (hopper-medium-expert:size=200)."""
    expert: str | None = None
    """A dataset whose trajectories are all an expert's; best:K, the K trajectories with the highest returns; success:K,
    those K that meet a sparse reward soonest (success: all); cluster:K, with --clusters."""
    method: str = "clue"
    """clue, oril, otr, and what else `trajclust list` shows."""
    clusters: Path | None = None
    """The folder of an earlier `trajclust cluster` on the same trajectories, one of whose clusters is the expert."""
    seed: int = 0
    """Seed of everything random."""
    set: tuple[str, ...] = ()
    """Settings to change, e.g. updates=100000 temperature=3 returns_range=null."""
    out: Path = Path("relabelled.hdf5")
    """A file name ending in .hdf5 or .npz; the model is in OUT-relabeller beside it."""
    json: bool = False
    """Print the summary as JSON."""

    def run(self) -> int | None:
        from trajclust_experiments.commands.relabel import relabel

        return relabel(**vars(self))


@dataclasses.dataclass(frozen=True)
class Make:
    """Builds a registered dataset.

    Example: trajclust data make halfcheetah-medium-expert --size 50 --noise 0.1 --out cheetah.npz
    """

    name: tyro.conf.Positional[str]
    """A registered dataset; `trajclust list` shows them."""
    out: str | None = None
    """A file name ending in .npz, or a Minari id; trajclust/NAME-v0 by default."""
    root: Path | None = None
    """Minari's folder; $MINARI_DATASETS_PATH or Minari's own default otherwise."""
    size: int | None = None
    """Trajectories a policy; 1,000 by default, 50 on MuJoCo. Of navigation, steps a policy; 100,000 by default."""
    seed: int = 0
    """Seed of the rollouts."""
    noise: float | None = None
    """MuJoCo: act by the policies' modes with normal noise of this standard deviation, instead of sampling."""
    json: bool = False
    """Print the dataset's description as JSON."""

    def run(self) -> int | None:
        from trajclust_experiments.commands.data import make_dataset

        return make_dataset(**vars(self))


@dataclasses.dataclass(frozen=True)
class Info:
    """Describes a dataset: shapes, lengths, labels, where it is from.

    Example: trajclust data info takeball.npz
    """

    dataset: tyro.conf.Positional[str]
    """A file, a Minari folder or id, or a registered dataset."""
    labels: Path | None = None
    """True policies, as `trajclust cluster` takes them."""
    json: bool = False
    """Print JSON."""

    def run(self) -> int | None:
        from trajclust_experiments.commands.data import info

        return info(**vars(self))


@dataclasses.dataclass(frozen=True)
class Convert:
    """Converts a dataset to .npz or to Minari.

    Example: trajclust data convert takeball.npz gridworld/takeball-v0 --root minari
    """

    dataset: tyro.conf.Positional[str]
    """A file, a Minari folder or id, or a registered dataset."""
    target: tyro.conf.Positional[str]
    """A file name ending in .npz, or a Minari id such as gridworld/takeball-v0."""
    labels: Path | None = None
    """True policies to store with it, as `trajclust cluster` takes them."""
    root: Path | None = None
    """Minari's folder; $MINARI_DATASETS_PATH or Minari's own default otherwise."""
    json: bool = False
    """Print the dataset's description as JSON."""

    def run(self) -> int | None:
        from trajclust_experiments.commands.data import convert

        return convert(**vars(self))


@dataclasses.dataclass(frozen=True)
class Data:
    """Builds, inspects and converts datasets.

    Example: trajclust data make diagonal --size 500 --out diagonal.npz
    """

    command: (
        Annotated[Make, tyro.conf.subcommand("make")]
        | Annotated[Info, tyro.conf.subcommand("info")]
        | Annotated[Convert, tyro.conf.subcommand("convert")]
    )

    def run(self) -> int | None:
        return self.command.run()


@dataclasses.dataclass(frozen=True)
class Report:
    """Writes one HTML page with every table and figure that has records, ours beside the paper's.

    The page needs nothing but itself: open it in a browser, send it, print it. It says what has not been run, too.

    Example: trajclust report --results results --out report
    """

    results: Path | None = None
    """Results folder; $TRAJCLUST_RESULTS or `results` by default."""
    out: Path = Path("report")
    """Folder for report.html (the first of its pages), report.md, scores.csv (every seed's scores), and each table with
    its figures."""
    json: bool = False
    """Print what was written as JSON."""

    def run(self) -> int | None:
        from trajclust_experiments.commands.report import report

        return report(**vars(self))


Command = (
    Annotated[List, tyro.conf.subcommand("list")]
    | Annotated[Run, tyro.conf.subcommand("run")]
    | Annotated[Sweep, tyro.conf.subcommand("sweep")]
    | Annotated[Status, tyro.conf.subcommand("status")]
    | Annotated[Cluster, tyro.conf.subcommand("cluster")]
    | Annotated[Assign, tyro.conf.subcommand("assign")]
    | Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[Relabel, tyro.conf.subcommand("relabel")]
    | Annotated[Data, tyro.conf.subcommand("data")]
    | Annotated[Report, tyro.conf.subcommand("report")]
)


# tyro joins the lines of a paragraph, and wraps none: each is to be read at 80 columns.
DESCRIPTION = """Find which policy made which trajectory. A first result, in about a minute:

trajclust run pgkmeans/table1 --preset smoke --datasets diagonal --methods pg_kmeans_tabular pg_kmeans_mlp

Your own trajectories: trajclust cluster FILE --k 4

All that has a name: trajclust list. The version: trajclust --version."""


def main(argv: list[str] | None = None) -> None:
    """Entry point of `trajclust`."""
    gc.set_threshold(50_000, 20, 20)  # tracing makes objects that stay; going through them took a tenth of the CPU time
    atexit.register(gc.freeze)  # the interpreter would look through all of jax for cycles: a quarter of a second
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names may hold what the terminal's encoding has not
            stream.reconfigure(errors="backslashreplace")
    # No window is opened, and a user's settings (LaTeX, fonts, sizes) change no figure, nor end a command on its way.
    os.environ |= {"MPLBACKEND": "agg", "MATPLOTLIBRC": os.devnull}
    argv = sys.argv[1:] if argv is None else argv
    if argv == ["--version"]:
        print(f"trajclust {__version__}")
        sys.exit(0)
    _refuse_repeated(argv)
    if os.environ.get("COLUMNS", "").isdecimal():  # in fewer columns tyro does not end, and takes all memory
        os.environ["COLUMNS"] = str(max(_NARROWEST, int(os.environ["COLUMNS"])))
    try:
        command = tyro.cli(
            Command,
            prog="trajclust",
            description=DESCRIPTION,
            args=argv,
            config=(tyro.conf.OmitSubcommandPrefixes,),
        )
    except BrokenPipeError:
        sys.exit(_unheard())
    sys.exit(_carry_out(_at_home(command)))


def _refuse_repeated(argv: Sequence[str]) -> None:
    """Exits where an option is given twice: the second would silently replace the first."""
    given = [argument.partition("=")[0] for argument in argv if argument.startswith("--")]
    for option in given:
        if given.count(option) > 1:
            print(f"trajclust: {option} is given twice: give all its values after one, {option} A B", file=sys.stderr)
            sys.exit(2)


def _options(command: Any) -> dict[str, Any]:
    """A command's options, for its function; the W&B project goes to wandb's own variable, which workers inherit."""
    options = dict(vars(command))
    project = options.pop("project")
    if project:
        os.environ["WANDB_PROJECT"] = project
    return options


def _at_home(command: Any) -> Any:
    """The command with `~` in its paths and sources replaced, which a shell leaves as it is in `--out=~/runs`."""
    fields = {field.name: getattr(command, field.name) for field in dataclasses.fields(command)}
    for name, value in fields.items():
        if dataclasses.is_dataclass(value):
            fields[name] = _at_home(value)
        elif isinstance(value, str | Path):
            fields[name] = type(value)(os.path.expanduser(value))
    return type(command)(**fields)


def _carry_out(command: Any) -> int:
    """Runs a command and turns what goes wrong into one line and an exit code."""
    if os.environ.get("TRAJCLUST_DEBUG") == "1":
        return _work(command)
    ending = Ending()
    try:
        with ending:
            if getattr(command, "hosts", None) is None:  # several hosts meet before anyone asks for devices
                _check_devices()
            return _work(command)
    except BrokenPipeError:
        return _unheard()
    except (KeyboardInterrupt, Exception) as error:
        number = signal.SIGINT if isinstance(error, KeyboardInterrupt) else None
        number = ending.number or number  # a terminal that is gone makes other things fail on the way out
        if number is not None:
            return _fail("interrupted: give the same command again to go on", 128 + number)
        code = _fail(*_told(error))
        if getattr(command, "hosts", None) is not None:  # without waiting for the others, who wait for this one
            os._exit(code)
        return code


def _work(command: Any) -> int:
    """Runs a command, with users' modules; one that computes with JAX readied for it, too."""
    if isinstance(command, List | Report | Status):
        extensions.load()
    else:
        ready()
    return command.run() or 0


def _check_devices() -> None:
    """Raises UsageError where JAX_PLATFORMS names what jax does not find, which it tells in many ways, and late."""
    platforms = os.environ.get("JAX_PLATFORMS")
    if platforms:
        import jax

        try:
            jax.devices()
        except Exception:
            raise UsageError(
                f"JAX_PLATFORMS={platforms}: jax finds no such device here; unset it, give cpu, or install jax for it"
            ) from None


def _told(error: BaseException) -> tuple[str, int]:
    """What went wrong, for people, and the exit code."""
    if isinstance(error, UsageError):
        return str(error), 2
    from trajclust_jax.data import DataError
    from trajclust_jax.records import RecordError
    from trajclust_jax.tracking import TrackingError

    if isinstance(error, DataError | RecordError | TrackingError):
        return str(error), 2
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f" ({error.filename})" if error.filename else ""
        return f"no space left on the disk{where}: make room and give the same command again to go on", 1
    if isinstance(error, FileNotFoundError) and error.filename is None:  # of the system's calls only getcwd names none
        return "the current folder was deleted: go to one that is there", 2
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:_LONGEST]} (TRAJCLUST_DEBUG=1 shows where)", 1


def _unheard() -> int:
    """Ends a command whose reader has seen enough, as in `trajclust list | head`."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _fail(text: str, code: int) -> int:
    with contextlib.suppress(OSError):  # a terminal that is gone
        print(f"trajclust: {' '.join(text.split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
