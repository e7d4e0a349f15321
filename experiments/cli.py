"""The command line: `trajclust list | run | cluster | train | data | report`.

Exit codes: 0 done, 1 failed work (a training that diverged too), 2 bad usage or input, 128 + its number for a signal
that ended the command: 130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP. Errors are one line; with TRAJCLUST_DEBUG=1
they show their traceback.
"""

import contextlib
import dataclasses
import errno
import io
import json
import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from trajclust_jax.interrupts import Ending

_LONGEST = 500  # characters of an unexpected error that are shown

Track = Literal["off", "offline", "online"]


class UsageError(ValueError):
    """A command that cannot be carried out as given."""


@dataclasses.dataclass(frozen=True)
class List:
    """Tables, datasets, methods and learners, with one line each.

    Example: trajclust list
    """

    json: bool = False
    """Print JSON."""

    def run(self) -> None:
        from trajclust_experiments.learners import LEARNERS
        from trajclust_experiments.methods import METHODS
        from trajclust_experiments.tables import get_table, table_names
        from trajclust_jax.data import REGISTRY

        tables = {name: get_table(name) for name in table_names()}
        sections = {
            "tables": {name: table.summary for name, table in tables.items()},
            "presets": {name: preset.summary for name, preset in tables["pgkmeans/table1"].presets.items()},
            "datasets": {name: entry.summary for name, entry in REGISTRY.items()},
            "methods": {name: entry.summary for name, entry in METHODS.items()},
            "learners": {name: entry.summary for name, entry in LEARNERS.items()},
            "settings of learners": {name: _pairs(entry.defaults()) for name, entry in LEARNERS.items()},
        }
        if self.json:
            return _print_json(sections)
        for title, entries in sections.items():
            print(f"{title}:")
            for name, summary in entries.items():
                print(f"  {name:<20} {summary}")
        return None


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
    """smoke (seconds), cpu (minutes) or paper (the paper's scale)."""
    datasets: tuple[str, ...] = ()
    """Only these rows; the beginning of names takes all of them: hopper is every one of Hopper's."""
    methods: tuple[str, ...] = ()
    """Only these columns; the beginning of names takes all of them: pg_kmeans, or caae_ for the variants of caae."""
    seeds: int | None = None
    """Number of seeds; the preset's by default."""
    results: Path | None = None
    """Results folder; $TRAJCLUST_RESULTS or `results` by default."""
    track: Track = "off"
    """W&B: one run a seed."""
    json: bool = False
    """Print JSON: the files, and every record's scores."""

    def run(self) -> None:
        from trajclust_experiments.methods import select
        from trajclust_experiments.progress import Progress
        from trajclust_experiments.report import readable, with_stored, write_table
        from trajclust_experiments.runner import default_results, run_cells
        from trajclust_experiments.tables import get_table
        from trajclust_jax.records import Results

        try:
            table = get_table(self.table)
            datasets = select(self.datasets, table.datasets, "dataset")
            methods = select(self.methods, table.methods, "method")
        except ValueError as error:
            raise UsageError(str(error)) from None
        if self.preset not in table.presets:
            raise UsageError(f"unknown preset {self.preset!r}: choose one of {', '.join(table.presets)}")
        preset = table.presets[self.preset]
        seeds = preset.seeds if self.seeds is None else self.seeds
        if seeds < 1:
            raise UsageError(f"--seeds is {seeds}: at least 1 is needed")
        results = Results(default_results() if self.results is None else self.results)
        cells, progress = table.cells(preset, datasets, methods, tuple(range(seeds))), Progress()
        records = run_cells(
            cells, results, preset=self.preset, track=self.track, tags=[f"table:{table.name}"], progress=progress
        )
        shown = with_stored(table, self.preset, records, readable(results, progress.warn))
        text, files = write_table(table, shown, results.folder / table.name / self.preset)
        if self.json:
            scores = [{"id": r["id"], **r["cell"], "scores": r["scores"], "timing": r["timing"]} for r in records]
            return _print_json({"table": table.name, "files": [str(file) for file in files], "records": scores})
        _print_markdown(text)
        print("Files: " + ", ".join(str(file) for file in files))
        return None


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Clusters your own trajectories by the policies that made them.

    Example: trajclust cluster mine.npz --method pg_kmeans --k 5 --out runs/mine
    """

    dataset: tyro.conf.Positional[str]
    """An .npz or .hdf5 file, a Minari folder or id, or a registered dataset (takeball:size=500,seed=1)."""
    k: int
    """How many clusters to end with."""
    method: str = "pg_kmeans"
    """pg_kmeans, with the policy class of --policy; caae, dec, vae_kmeans, sorl, return_kmeans and what else
    `trajclust list` shows."""
    policy: Literal["tabular", "mlp", "gru", "planner"] | None = None
    """pg_kmeans: a table, an MLP of the observation (default), a GRU over the observations so far, or a planner on the
    observed map. sorl: all but the planner."""
    extra_clusters: int | None = None
    """pg_kmeans: clusters to start with beyond k; they are merged. 2 by default."""
    restarts: int | None = None
    """pg_kmeans: independent restarts, of which the best by J is kept. 5 by default."""
    iterations: int | None = None
    """At most so many iterations (of EM; with codes; of refinement); the method's default otherwise."""
    seed: int = 0
    """Seed of everything random."""
    labels: Path | None = None
    """True policies to score against: a .csv (column label, and trajectory if sorted), .txt, .npy or .npz (labels)."""
    out: Path = Path("runs/cluster")
    """Folder for the results."""
    track: Track = "off"
    """W&B tracking."""
    json: bool = False
    """Print the summary as JSON."""

    def run(self) -> None:
        from trajclust_experiments.cluster import OUTPUTS, cluster_dataset
        from trajclust_experiments.methods import METHODS
        from trajclust_experiments.output import check_out
        from trajclust_experiments.progress import Progress
        from trajclust_experiments.rows import GUESSED
        from trajclust_jax.data import load

        name, policy = self.method, self.policy
        if name == "pg_kmeans":  # one entry a policy class
            name, policy = f"pg_kmeans_{policy or 'mlp'}", None
        if name not in METHODS:
            known = ["pg_kmeans", *(each for each in METHODS if not each.startswith("pg_kmeans"))]
            raise UsageError(f"unknown method {self.method!r}: choose one of {', '.join(known)}")
        settings = {"extra_clusters": self.extra_clusters, "restarts": self.restarts, "iterations": self.iterations}
        settings = {option: value for option, value in {**settings, "policy": policy}.items() if value is not None}
        for option in settings:
            if option not in METHODS[name].settings():
                raise UsageError(f"--{option.replace('_', '-')} is no setting of {self.method}")
        check_out(self.out, OUTPUTS)
        dataset = _labelled(load(self.dataset), self.labels)
        summary = cluster_dataset(dataset, name, self.k, self.seed, self.out, self.track, Progress(), **settings)
        failed = int(summary["objective"] is None)  # diverged: a warning says so
        if self.json:
            return _print_json(summary) or failed
        for cluster in summary["clusters"]:
            print(f"cluster {cluster['cluster']}: {cluster['trajectories']} trajectories")
        if summary["scores"] is not None:
            against = "the labels"
            if summary["labels"].startswith(GUESSED):
                against = f"labels that are {summary['labels']} (--labels FILE brings true ones)"
            print(f"against {against}: " + ", ".join(f"{k} {v:.3f}" for k, v in summary["scores"].items()))
        if summary["oracle"] is not None:
            print("oracle, the ceiling: " + ", ".join(f"{k} {v:.3f}" for k, v in summary["oracle"].items()))
        if summary["ambiguity"] is not None:
            print(summary["ambiguity"]["message"])
        print(f"seen: {summary['inputs']}")
        if summary["suited"]:
            print("settings for such data: " + _pairs(summary["suited"]))
        if summary["support"] is not None:
            gain = "{over_one:+.3f} ± {over_one_error:.3f}".format(**summary["support"])
            print(f"held-out actions, beside one policy for all: {gain} nats a step")
        for warning in summary["warnings"]:
            print(f"warning: {warning}")
        print(f"objective {_number(summary['objective_per_step'], 4)} a step; files in {summary['out']}")
        return failed


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
    clusters: Path | None = None
    """The folder of an earlier `trajclust cluster` on the same dataset: learn from clusters, not from everything."""
    cluster: str | None = None
    """With --clusters: all (a learner for each; the default), best (the highest mean return) or a number, as in
    assignments.csv."""
    seeds: int = 3
    """Number of seeds."""
    environment: str | None = None
    """Where to evaluate, e.g. Hopper-v4; by default where the dataset says it is from."""
    episodes: int = 10
    """Episodes of an evaluation, for each seed and cluster."""
    evaluate_every: int = 10_000
    """Gradient steps between evaluations, in whole blocks (of 1,000 steps, by default)."""
    set: tuple[str, ...] = ()
    """Settings to change, e.g. updates=100000 expectile=0.9 best=0.1; `trajclust list` has all."""
    out: Path = Path("runs/train")
    """Folder for the results."""
    track: Track = "off"
    """W&B: one run a seed."""
    json: bool = False
    """Print the summary as JSON."""

    def run(self) -> None:
        import numpy as np

        from trajclust_experiments.learners import LEARNERS
        from trajclust_experiments.learning import OUTPUTS, chosen_clusters, train_on_dataset
        from trajclust_experiments.output import check_out
        from trajclust_experiments.progress import Progress
        from trajclust_jax.data import load

        if self.learner not in LEARNERS:
            raise UsageError(f"unknown learner {self.learner!r}: choose one of {', '.join(LEARNERS)}")
        for option in ("seeds", "episodes", "evaluate_every"):
            if getattr(self, option) < 1:
                raise UsageError(f"--{option.replace('_', '-')} is {getattr(self, option)}: at least 1 is needed")
        if self.cluster is not None and self.clusters is None:
            raise UsageError(f"--cluster {self.cluster}: of which clustering? Give its folder with --clusters")
        settings = _settings(self.set)
        if "sweep" in settings:
            raise UsageError("--set sweep: sweeps are for Python (Offline); here give each value a run of its own")
        check_out(self.out, OUTPUTS)
        dataset = load(self.dataset)
        clusters = None if self.clusters is None else chosen_clusters(self.clusters, self.cluster or "all", dataset)
        summary = train_on_dataset(
            dataset,
            self.learner,
            range(self.seeds),
            self.out,
            self.track,
            Progress(),
            clusters=clusters,
            environment_name=self.environment,
            episodes=self.episodes,
            evaluate_every=self.evaluate_every,
            **settings,
        )
        failed = int(bool(summary["diverged"]))
        if self.json:
            return _print_json(summary) or failed
        for name, values in summary.get("scores", {}).items():
            print(f"{name.replace('_', ' ')}, by seed: {_by_seed(values, summary['clusters'])}")
        if not np.any(np.array(summary.get("scores", {}).get("best_return", True), float)):
            where = summary["environment"]
            print(f"every return is 0: no reward was met in {where}, or it gives none; losses.csv has what was learnt")
        if summary["diverged"]:
            print(f"diverged: seeds {summary['diverged']} have policies that are not finite; lower the learning rate")
        if "scores" not in summary:
            print("not evaluated: the dataset is of no known environment; give one with --environment")
        print(f"{summary['timing']['run_seconds']:.0f} s of training; files in {summary['out']}")
        return failed


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
    """Trajectories a policy; 1,000 by default, 50 on MuJoCo."""
    seed: int = 0
    """Seed of the rollouts."""
    noise: float | None = None
    """MuJoCo: act by the policies' modes with normal noise of this standard deviation, instead of sampling."""
    json: bool = False
    """Print the dataset's description as JSON."""

    def run(self) -> None:
        from trajclust_experiments.progress import Progress
        from trajclust_jax.data import make

        out = f"trajclust/{self.name}-v0" if self.out is None else self.out
        _check_target(out, self.root)
        options = {} if self.noise is None else {"noise": self.noise}
        with Progress().waiting(f"{self.name}: collecting episodes"):
            dataset = make(self.name, self.size, self.seed, **options)
        _print_description(dataset, self.json, _write(dataset, out, self.root))


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

    def run(self) -> None:
        from trajclust_jax.data import load

        _print_description(_labelled(load(self.dataset), self.labels), self.json, self.dataset)


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

    def run(self) -> None:
        from trajclust_jax.data import load

        _check_target(self.target, self.root)
        dataset = _labelled(load(self.dataset), self.labels)
        _print_description(dataset, self.json, _write(dataset, self.target, self.root))


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

    def run(self) -> None:
        self.command.run()


@dataclasses.dataclass(frozen=True)
class Report:
    """Writes one HTML page with every table and figure that has records, ours beside the paper's.

    The page needs nothing but itself: open it in a browser, send it, print it. It says what has not been run, too.

    Example: trajclust report --results results --out report
    """

    results: Path | None = None
    """Results folder; $TRAJCLUST_RESULTS or `results` by default."""
    out: Path = Path("report")
    """Folder for report.html, report.md, scores.csv (every seed's scores), and each table with its figures."""
    json: bool = False
    """Print what was written as JSON."""

    def run(self) -> None:
        from trajclust_experiments.output import check_writable
        from trajclust_experiments.progress import Progress
        from trajclust_experiments.report import write_report
        from trajclust_experiments.runner import default_results
        from trajclust_jax.records import Results

        results = Results(default_results() if self.results is None else self.results)
        if not results.ids():
            raise UsageError(
                f"{results.folder} holds no records: run a table first, e.g. trajclust run pgkmeans/table1"
            )
        check_writable(self.out, f"--out {self.out}")
        written = write_report(results, self.out, Progress().warn)
        page = self.out / "report.html"
        if self.json:
            return _print_json({"out": str(self.out), "page": str(page), "tables": written})
        for entry in written:
            print(f"{entry['table']} ({entry['preset']}): {entry['files'][0]}")
        print(f"Report: {page}")
        return None


Command = (
    Annotated[List, tyro.conf.subcommand("list")]
    | Annotated[Run, tyro.conf.subcommand("run")]
    | Annotated[Cluster, tyro.conf.subcommand("cluster")]
    | Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[Data, tyro.conf.subcommand("data")]
    | Annotated[Report, tyro.conf.subcommand("report")]
)


def main(argv: list[str] | None = None) -> None:
    """Entry point of `trajclust`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names may hold what the terminal's encoding has not
            stream.reconfigure(errors="backslashreplace")
    command = tyro.cli(
        Command,
        prog="trajclust",
        description="Find which policy made which trajectory. Start with: trajclust run pgkmeans/table1 --preset smoke",
        args=argv,
        config=(tyro.conf.OmitSubcommandPrefixes,),
    )
    sys.exit(_carry_out(_at_home(command)))


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
        return command.run() or 0
    ending = Ending()
    try:
        with ending:
            _check_devices()
            return command.run() or 0
    except BrokenPipeError:  # e.g. `trajclust list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (KeyboardInterrupt, Exception) as error:
        number = signal.SIGINT if isinstance(error, KeyboardInterrupt) else None
        number = ending.number or number  # a terminal that is gone makes other things fail on the way out
        if number is not None:
            return _fail("interrupted: give the same command again to go on", 128 + number)
        return _fail(*_told(error))


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
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:_LONGEST]} (TRAJCLUST_DEBUG=1 shows where)", 1


def _fail(text: str, code: int) -> int:
    with contextlib.suppress(OSError):  # a terminal that is gone
        print(f"trajclust: {' '.join(text.split())}", file=sys.stderr)
    return code


def _settings(pairs: tuple[str, ...]) -> dict[str, Any]:
    """`name=value` pairs; values are JSON (numbers, true, null, lists)."""
    settings = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        try:
            value = json.loads(text)
        except ValueError:
            value, equals = None, ""
        if not equals:
            raise UsageError(f"--set {pair}: give name=value with a number, true, false, null or a list [256,256]")
        settings[name] = tuple(value) if isinstance(value, list) else value
    return settings


def _by_seed(values: list, clusters: list[int] | None) -> str:
    """Numbers `[S]`, or `[S, K]` with their clusters, for people."""
    if clusters is None:
        return ", ".join(_number(value, 1) for value in values)
    named = lambda row: ", ".join(f"{_number(value, 1)} (cluster {k})" for k, value in zip(clusters, row, strict=True))
    return "; ".join(map(named, values))


def _number(value: float | None, digits: int) -> str:
    """JSON's null is what was not finite."""
    return "not finite" if value is None else f"{value:.{digits}f}"


def _labelled(dataset: Any, labels: Path | None) -> Any:
    """The dataset with the labels of a file, where one is given."""
    from trajclust_experiments.rows import with_labels

    return dataset if labels is None else with_labels(dataset, labels)


def _pairs(settings: dict[str, Any]) -> str:
    """As `--set` takes them."""
    return " ".join(f"{name}={json.dumps(value, separators=(',', ':'))}" for name, value in settings.items())


def _check_target(target: str, root: Path | None) -> None:
    """Refuses what `_write` would, before long work."""
    from trajclust_experiments.output import check_writable
    from trajclust_jax.data import check_minari_target

    if target.endswith(".npz"):
        if Path(target).is_dir():
            raise UsageError(f"{target} is a folder: give a file name")
        check_writable(Path(target).parent, str(Path(target).parent))
    else:
        check_minari_target(target, root)


def _write(dataset: Any, target: str, root: Path | None) -> str:
    """Writes an .npz or a Minari dataset, and says where."""
    from trajclust_jax.data import save_minari, save_npz

    if target.endswith(".npz"):
        save_npz(dataset, target)
        return target
    return str(save_minari(dataset, target, root))


def _print_json(value: Any) -> None:
    from trajclust_jax.records import plain

    print(json.dumps(plain(value), indent=1))


def _print_markdown(text: str) -> None:
    """Rendered on a terminal, as it is elsewhere."""
    if not sys.stdout.isatty():
        print(text)
        return
    from rich.console import Console
    from rich.markdown import Markdown

    Console().print(Markdown(text))


def _print_description(dataset: Any, as_json: bool, place: str) -> None:
    import numpy as np

    from trajclust_experiments.rows import label_source
    from trajclust_jax.data import Codebook, suspicious

    trajectories = dataset.trajectories
    lengths = np.asarray(trajectories.lengths)
    observations = trajectories.observations
    description = {
        "place": place,
        "name": dataset.spec.name,
        "source": dataset.provenance.source,
        "parameters": dataset.provenance.parameters,
        "seed": dataset.provenance.seed,
        "fingerprint": dataset.provenance.fingerprint,
        "trajectories": trajectories.num_trajectories,
        "steps": int(lengths.sum()),
        "lengths": {"min": int(lengths.min()), "mean": float(lengths.mean()), "max": int(lengths.max())},
        "terminated": int(np.asarray(trajectories.terminated).sum()),
        "observation_shape": list(trajectories.observation_shape),
        "distinct_observations": len(observations.table) if isinstance(observations, Codebook) else None,
        "actions": f"{trajectories.num_actions} discrete" if trajectories.discrete else f"{trajectories.action_size}-d",
        "labels": label_source(dataset),
        "policies": None if dataset.labels is None else np.bincount(dataset.labels).tolist(),
        "policy_names": list(dataset.spec.policy_names),
        "warnings": suspicious(trajectories),
    }
    if as_json:
        return _print_json(description)
    for name, value in description.items():
        print(f"{name.replace('_', ' '):<22} {value}")
    return None


if __name__ == "__main__":
    main()
