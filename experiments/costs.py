"""What a cell will cost: seconds and bytes, by a model fitted to the records of cells that have been computed.

Seconds are seconds of one core on a CPU (`cpu_seconds` of a record; the clock's count little, as of a machine that may
have been busy), and of the clock on an accelerator. They are those of compiling, which hardly depend on how much is
computed, and the rest, each foretold by a ridge regression of its logarithm: on effects of the algorithm, the policy
class, the dataset and so on, each drawn from a normal distribution, and, of the rest, on the work that the settings
name (rows that networks are trained on and scored). What no record tells, such as the effect of a new dataset, widens
the interval. Each kind of device has a model of its own, and bytes have one.
"""

import dataclasses
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from trajclust_experiments.catalogue import CATALOGUE, class_defaults
from trajclust_experiments.cells.cell import Cell
from trajclust_experiments.cells.methods import OracleCell
from trajclust_experiments.rendering.stored import record_of
from trajclust_jax.data import REGISTRY
from trajclust_jax.records import plain

MEASURED = Path(__file__).parent / "records" / "costs.jsonl"  # by scripts/measure_costs.py
WIDEST = 30.0  # an interval whose ends are further apart, as their ratio, tells nothing
NOISE = 0.15  # standard deviation of the logarithm of seconds of one cell computed twice
CLOCKS_NOISE = 0.6  # of the clock's, where the processor's are meant
MEAN_LENGTH = 30.0, 1000.0  # steps of a trajectory, short and long, of a dataset that no record has

# Standard deviations of effects and of exponents, before anything has been seen.
_EFFECTS = {"algorithm": 1.5, "method": 0.7, "policy": 1.0, "family": 0.5, "dataset": 0.3, "both": 0.3}
_EFFECTS |= {"kind": 0.5, "plug-in": 0.5, "relabeller": 0.5}
_EXPONENT = 0.3
_COMPILING_EXPONENT = 0.1
_COMPILING_NOISE = 0.3  # a part may have been compiled before
_SHORTEST = 0.3  # seconds of either; one second is twice as noisy as many
_OF_WIDTH = 0.4  # exponent of the layers' weights: small products are no multiple of large ones' speed
_PROCESS_BYTES = 1.5e9  # of Python, JAX and what was compiled


class Cost(NamedTuple):
    """An estimate, and the interval in which nine of ten lie."""

    estimate: float
    low: float
    high: float


class Costs(NamedTuple):
    """Of one cell, or of several; None: nothing has been recorded to tell from."""

    seconds: Cost | None
    bytes: Cost | None


@dataclasses.dataclass(frozen=True)
class _Regression:
    """A ridge regression of a logarithm on what is known of a cell before it is computed."""

    columns: dict[str, int]
    mean: np.ndarray  # of the coefficients
    covariance: np.ndarray
    exponents: dict[str, float]  # where each number is centred
    of_work: bool  # the logarithm beside that of the work

    @classmethod
    def fitted(
        cls, seen: "Sequence[_Features]", values: np.ndarray, noise: np.ndarray, of_work: bool, exponent: float
    ) -> "_Regression":
        """By what was seen of each cell, its value and that value's noise."""
        names = sorted({name for features in seen for name in features.numbers})
        of = {name: [features.numbers[name] for features in seen if name in features.numbers] for name in names}
        exponents = {name: float(np.mean(found)) for name, found in of.items()}
        effects = sorted({effect for features in seen for effect in features.effects})
        columns = {name: i for i, name in enumerate(["constant", *names, *effects])}
        empty = cls(columns, np.zeros(0), np.zeros((0, 0)), exponents, of_work)
        rows = np.stack([empty._row(features)[0] for features in seen])
        target = np.log(values) - np.array([features.work * of_work for features in seen])
        prior = np.array([exponent if name in exponents else _prior(name) for name in columns])
        precisions = 1 / np.square(noise)
        # Errors in a record's own seconds are many and large: each counts by how well the others foretell it.
        weights = np.ones(len(target))
        for _ in range(8):
            precision = (rows.T * (weights * precisions)) @ rows + np.diag(1 / prior**2)
            covariance = np.linalg.inv(precision)
            mean = covariance @ (rows.T @ (weights * precisions * target))
            surprise = np.abs(target - rows @ mean) * np.sqrt(precisions)
            weights = 1 / np.maximum(1, surprise)
        return cls(columns, mean, covariance, exponents, of_work)

    def __call__(self, features: "_Features") -> Cost:
        row, unseen = self._row(features)
        middle = features.work * self.of_work + float(row @ self.mean)
        spread = 1.645 * math.sqrt(float(row @ self.covariance @ row) + unseen + NOISE**2)
        return Cost(*(math.exp(x) for x in (middle, middle - spread, middle + spread)))

    def _row(self, features: "_Features") -> tuple[np.ndarray, float]:
        """The regressors, and the variance of the effects that no record has."""
        row, unseen = np.zeros(len(self.columns)), 0.0
        row[self.columns["constant"]] = 1
        for name, value in features.numbers.items():
            if name in self.columns:
                row[self.columns[name]] = value - self.exponents[name]
        for effect in features.effects:
            if effect in self.columns:
                row[self.columns[effect]] = 1
            else:
                unseen += _prior(effect) ** 2
        return row, unseen


@dataclasses.dataclass(frozen=True)
class CostModel:
    """What a cell will cost, as the sum of parts that are foretold apart."""

    parts: tuple[_Regression, ...]
    lengths: dict[str, float]  # mean length of a dataset's trajectories, where records know it

    @classmethod
    def fitted(cls, records: Sequence[dict[str, Any]], what: str = "seconds") -> "CostModel | None":
        """By all records, of one kind of device, that say what a whole cell cost; None if there are fewer than two.

        Args:
            records: as they are stored.
            what: "seconds" or "bytes".
        """
        pairs = [(record, *found) for record in records if (found := told(record, what)) is not None]
        if len(pairs) < 2:
            return None
        lengths = mean_lengths(records)
        seen = [_features(record["cell"], lengths) for record, *_ in pairs]
        whole, noise = (np.array(values) for values in zip(*(found for _, *found in pairs), strict=True))
        if what == "bytes":
            return cls((_Regression.fitted(seen, whole, noise, True, _EXPONENT),), lengths)
        share = np.array([_compiling(record["timing"]) for record, *_ in pairs])
        rest, compiling = (np.maximum(whole * part, _SHORTEST) for part in (1 - share, share))
        computing = _Regression.fitted(seen, rest, noise * (1 + 1 / rest), True, _EXPONENT)
        noise = np.maximum(noise, _COMPILING_NOISE)
        return cls((computing, _Regression.fitted(seen, compiling, noise, False, _COMPILING_EXPONENT)), lengths)

    def __call__(self, described: dict[str, Any]) -> Cost:
        """Of a cell as `Cell.essential` describes it, with its seeds."""
        features = _features(described, self.lengths)
        return Cost(*(sum(ends) for ends in zip(*(part(features) for part in self.parts), strict=True)))


def of_cells(cells: Sequence[Cell], records: Sequence[dict[str, Any]], device: str) -> list[Costs]:
    """What each cell will cost on a kind of device, by these records and those that come with the project.

    None where they tell too little.
    """
    known = [record for record in (*records, *measured()) if record["environment"]["device"]["kind"] == device]
    models = {what: CostModel.fitted(known, what) for what in ("seconds", "bytes")}

    def cost(cell: Cell, model: CostModel | None) -> Cost | None:
        if isinstance(cell, OracleCell):
            return Cost(0.0, 0.0, 0.0)
        if model is None or cell.method not in CATALOGUE or cell.dataset not in REGISTRY:
            return None
        found = model({**cell.essential(), "seeds": list(cell.seeds)})
        return found if found.high < WIDEST * found.low else None

    return [Costs(*(cost(cell, models[what]) for what in ("seconds", "bytes"))) for cell in cells]


def in_words(seconds: float) -> str:
    """`about 40 s`, `about 12 min`, `about 3.5 h`."""
    for size, unit in ((86_400, "days"), (3_600, "h"), (60, "min")):
        if seconds >= 1.5 * size:
            return f"about {seconds / size:.{int(seconds < 10 * size)}f} {unit}"
    return f"about {seconds:.0f} s"


def together(costs: Sequence[Costs], at_a_time: int) -> str:
    """What cells will take in all, and with so many of them at a time."""
    known = [cost.seconds.estimate for cost in costs if cost.seconds is not None]
    if not known:
        return "no record tells how long they will take"
    unknown = len(costs) - len(known)
    text = in_words(sum(known))
    if at_a_time > 1 and len(known) > 1:
        text += f", {in_words(max(sum(known) / at_a_time, *known))} with {min(at_a_time, len(costs))} at a time"
    return text + (f"; of {unknown} of them no record tells" if unknown else "")


def host_bytes(cost: Costs) -> int | None:
    """What a process that computes a cell on CPUs will hold of memory, at most; None where nothing tells."""
    return None if cost.bytes is None else int(_PROCESS_BYTES + 1.5 * cost.bytes.high)


def compared(expected: Sequence[tuple[Cell, Costs]], records: Sequence[dict[str, Any]]) -> str | None:
    """What cells took, beside what was expected of them; None where nothing can be compared."""
    seconds = []
    for cell, cost in expected:
        record = record_of(cell, records)
        took = None if record is None else told(record)
        if took is not None and cost.seconds is not None:
            seconds.append((cost.seconds.estimate, took[0]))
    if not seconds:
        return None
    foretold, took = (sum(values) for values in zip(*seconds, strict=True))
    near = sum(max(a / b, b / a) < 1.5 for a, b in seconds)
    return (
        f"took {in_words(took)}; {in_words(foretold)} were expected ({near} of {len(seconds)} cells within 1.5 times)"
    )


def measured() -> list[dict[str, Any]]:
    """What `scripts/measure_costs.py` has measured, as records; an installed package has none."""
    return [json.loads(line) for line in MEASURED.read_text().splitlines()] if MEASURED.exists() else []


def told(record: dict[str, Any], what: str = "seconds") -> tuple[float, float] | None:
    """What a record says that its whole cell cost, and how noisy that is; None where it does not say."""
    cell, timing = record.get("cell", {}), record.get("timing", {})
    known = cell.get("method") in CATALOGUE and cell.get("dataset") in REGISTRY and "seeds" in cell
    if not known or timing.get("resumed") or "beside" in timing or "not_applicable" in record:
        return None
    if what == "bytes":
        return (timing["device_bytes"], NOISE) if timing.get("device_bytes") else None
    if timing.get("cpu_seconds") and record["environment"]["device"]["platform"] == "cpu":
        return timing["cpu_seconds"], NOISE
    clock = _clock(timing)
    on_cpu = record["environment"]["device"]["platform"] == "cpu"
    return (clock, CLOCKS_NOISE if on_cpu else NOISE) if clock else None


def _clock(timing: dict[str, Any]) -> float:
    """Seconds of a whole cell without its data's, by the clock."""
    return sum(timing.get(f"{part}_seconds", 0.0) for part in ("run", "compile", "evaluate", "relabelling"))


def _compiling(timing: dict[str, Any]) -> float:
    """The share of a cell's seconds that it compiled."""
    return timing.get("compile_seconds", 0.0) / max(_clock(timing), 1e-9)


def mean_lengths(records: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Steps a trajectory of each dataset whose size is in trajectories."""
    found = {}
    for record in records:
        name = record["cell"].get("dataset")
        if "num_steps" in record and name in REGISTRY and REGISTRY[name].unit == "trajectories":
            found[name] = record["num_steps"] / (record["cell"]["size"] * REGISTRY[name].num_policies)
    return found


class _Features(NamedTuple):
    """What is known of a cell before it is computed."""

    work: float  # its logarithm
    numbers: dict[str, float]  # logarithms of what it may depend on in another way
    effects: list[str]


def _features(described: dict[str, Any], lengths: dict[str, float]) -> _Features:
    settings = _settings(described)
    algorithm, actions = CATALOGUE[described["method"]].algorithm.__name__, _actions(described["dataset"])
    policy = f"{algorithm} {settings.get('policy') or ''} {actions}"
    work, width = math.log(work_of(described, lengths)), math.log(_weights(settings) / _weights(_defaults(described)))
    seeds, (trajectories, length) = math.log(len(described["seeds"])), _size(described, lengths)
    numbers = {
        "seeds": seeds,
        f"{policy} steps": math.log(trajectories * length),
        f"{policy} work": work - seeds,
        "width": width,
    }
    family = described["dataset"].partition("-")[0]
    effects = {
        "algorithm": algorithm,
        "method": described["method"],
        "policy": policy,
        "family": family,
        "dataset": described["dataset"],
        "both": f"{policy} {family}",
        "kind": described.get("measures") or described.get("kind"),
        "plug-in": described.get("plugin") and f"{described['plugin']['name']} {settings.get('weight') != 0}",
        "relabeller": described.get("relabeller"),
    }
    found = [f"{kind}: {name}" for kind, name in effects.items() if name]
    return _Features(work + _OF_WIDTH * width, numbers, found)


def _actions(dataset: str) -> str:
    return "continuous" if REGISTRY[dataset].continuous else "discrete"


def work_of(described: dict[str, Any], lengths: dict[str, float]) -> float:
    """Rows that a cell's networks are trained on, three times, and rows that they score."""
    rows = _work(_settings(described), *_size(described, lengths)) * described.get("skills", 1)
    if described.get("relabeller"):
        algorithm = CATALOGUE[described["relabeller"]].algorithm
        rows += _learning({**class_defaults(algorithm), **described["relabeller_settings"]})
    return len(described["seeds"]) * rows


def _settings(described: dict[str, Any]) -> dict[str, Any]:
    """All hyperparameters, the defaults too."""
    return {**_defaults(described), **described.get("hyperparameters", {}), **described.get("settings", {})}


def _defaults(described: dict[str, Any]) -> Mapping[str, Any]:
    return class_defaults(CATALOGUE[described["method"]].algorithm)


def _weights(settings: dict[str, Any]) -> float:
    """Of a learner's layers on an observation of 20 numbers; 1 where the settings name no layers."""
    layers = [(20, *(settings.get(name) or ())) for name in ("features", "actor_features")]
    return sum(a * b for sizes in layers for a, b in itertools.pairwise(sizes)) or 1


def _size(described: dict[str, Any], lengths: dict[str, float]) -> tuple[float, float]:
    """Trajectories, and steps of each."""
    entry = REGISTRY[described["dataset"]]
    length = lengths.get(described["dataset"], MEAN_LENGTH[entry.long])
    count = described["size"] * entry.num_policies
    return (count / length if entry.unit == "steps" else count), length


def _work(settings: dict[str, Any], trajectories: float, length: float) -> float:
    """Rows that networks are trained on, three times, and rows that they score: of one seed."""
    number = lambda *names: sum(settings.get(name) or 0 for name in names)
    extra = dict(plain(settings.get("policy_settings", ())))
    rows = trajectories * length
    if "counts" in settings:  # one clustering for each K
        clusters = sum(settings["counts"]) + len(settings["counts"]) * number("extra_clusters")
    else:
        clusters = number("num_clusters", "extra_clusters")
    if "policy" in settings and clusters:  # EM on policies
        scored = min(rows, trajectories * (extra.get("scored_steps") or length))
        epochs = number("iterations", "polish_iterations", "bias_epochs", "pretrain_epochs")
        again = max(number("polish_iterations") - 1, 0) * number("polish_steps")
        steps = number("first_steps", "pooled_steps") + max(number("iterations") - 1, 0) * number("steps")
        steps += number("polish_first_steps") + again if number("polish_iterations") else 0
        steps = max(steps, number("least_steps") * epochs)
        members = clusters * len(settings["settings"]) if "settings" in settings else clusters * number("restarts")
        return max(members, clusters) * (3 * 256 * steps + epochs * scored)
    if "latent_size" in settings:  # autoencoders
        iterations = number("warmup_iterations", "pretrain_iterations", "iterations")
        seen = min(settings.get("window") or length, length)
        trained = 3 * iterations * number("steps") * number("batch_size") * seen
        return trained + number("iterations") * trajectories * min(seen * number("windows") or length, length)
    if "updates" in settings:  # learners
        swept = [len(values) for _, values in settings.get("sweep") or ()]  # side by side
        return max(swept, default=1) * (_learning(settings) + number("epochs", "em_epochs", "pretrain_epochs") * rows)
    return rows


def _learning(settings: dict[str, Any]) -> float:
    """Three times the rows of minibatches of gradient steps; 0 of what takes none."""
    steps = (settings.get(name) or 0 for name in ("updates", "value_updates", "critic_updates", "behaviour_updates"))
    return 3 * (settings.get("batch_size") or 256) * max(sum(steps), "updates" in settings)


def _prior(effect: str) -> float:
    return 10.0 if effect == "constant" else _EFFECTS[effect.partition(":")[0]]
