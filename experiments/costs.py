"""What a cell will cost: seconds and bytes, by a model fitted to the records of cells that have been computed.

Seconds are seconds of one core on a CPU (`cpu_seconds` of a record, where it has them), and of the clock on an
accelerator. Their logarithm is that of the work that the settings name (rows that networks are trained on and scored),
plus effects of the algorithm, the policy class, the dataset, the kind of device and so on, each drawn from a normal
distribution: a ridge regression. What the records do not tell, such as a dataset that none has, widens the interval.
Bytes are modelled likewise.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from trajclust_experiments.catalogue import CATALOGUE
from trajclust_experiments.cells.cell import Cell
from trajclust_jax.data import REGISTRY
from trajclust_jax.records import plain

MEASURED = Path(__file__).parent / "records" / "costs.jsonl"  # by scripts/measure_costs.py
NOISE = 0.15  # standard deviation of the logarithm of seconds of one cell computed twice
MEAN_LENGTH = 30.0, 1000.0  # steps of a trajectory, short and long, of a dataset that no record has

# Standard deviations of effects and of exponents, before anything has been seen.
_EFFECTS = {"algorithm": 1.5, "method": 0.7, "policy": 1.0, "family": 0.5, "dataset": 0.3, "both": 0.3, "device": 1.0}
_EXPONENT = 0.3


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
class CostModel:
    """A ridge regression of logarithms on what is known of a cell before it is computed."""

    columns: dict[str, int]
    mean: np.ndarray  # of the coefficients
    covariance: np.ndarray
    exponents: dict[str, float]  # where each number is centred
    lengths: dict[str, float]  # mean length of a dataset's trajectories, where records know it

    @classmethod
    def fitted(cls, records: Iterable[dict[str, Any]], what: str = "seconds") -> "CostModel | None":
        """By all records that say what a whole cell cost; None if there are fewer than two.

        Args:
            records: as they are stored.
            what: "seconds" or "bytes".
        """
        told = [(record, value) for record in records if (value := told(record, what)) is not None]
        if len(told) < 2:
            return None
        lengths = mean_lengths(record for record, _ in told)
        seen = [_features(record["cell"], _device(record), lengths) for record, _ in told]
        names = sorted({name for _, numbers, _ in seen for name in numbers})
        exponents = {
            name: float(np.mean([numbers[name] for _, numbers, _ in seen if name in numbers])) for name in names
        }
        effects = sorted({effect for _, _, effects in seen for effect in effects})
        columns = {name: i for i, name in enumerate(["constant", *names, *effects])}
        empty = cls(columns, np.zeros(0), np.zeros((0, 0)), exponents, lengths)
        rows = np.stack([empty._row(*features)[0] for features in seen])
        target = np.log([value for _, value in told]) - np.array([offset for offset, _, _ in seen])
        prior = np.array([_prior(name, exponents) for name in columns])
        # Errors in a record's own seconds are many and large: each counts by how well the others foretell it.
        weights = np.ones(len(target))
        for _ in range(5):
            precision = (rows.T * (weights / NOISE**2)) @ rows + np.diag(1 / prior**2)
            covariance = np.linalg.inv(precision)
            mean = covariance @ (rows.T @ (weights / NOISE**2 * target))
            surprise = np.abs(target - rows @ mean) / NOISE
            weights = 1 / np.maximum(1, surprise)
        return cls(columns, mean, covariance, exponents, lengths)

    def __call__(self, described: dict[str, Any], device: str) -> Cost:
        """Of a cell as `Cell.essential` describes it, with its seeds, on a kind of device."""
        offset, numbers, effects = _features(described, device, self.lengths)
        row, unseen = self._row(offset, numbers, effects)
        middle = offset + float(row @ self.mean)
        spread = 1.645 * math.sqrt(float(row @ self.covariance @ row) + unseen + NOISE**2)
        return Cost(*(math.exp(x) for x in (middle, middle - spread, middle + spread)))

    def _row(self, offset: float, numbers: dict[str, float], effects: list[str]) -> tuple[np.ndarray, float]:
        """The regressors, and the variance of the effects that no record has."""
        del offset
        row, unseen = np.zeros(len(self.columns)), 0.0
        row[self.columns["constant"]] = 1
        for name, value in numbers.items():
            if name in self.columns:
                row[self.columns[name]] = value - self.exponents[name]
        for effect in effects:
            if effect in self.columns:
                row[self.columns[effect]] = 1
            else:
                unseen += _prior(effect, {}) ** 2
        return row, unseen


def of_cells(cells: Sequence[Cell], records: Sequence[dict[str, Any]]) -> list[Costs]:
    """What each cell will cost on this machine's devices."""
    models = {what: CostModel.fitted(records, what) for what in ("seconds", "bytes")}
    device = jax.devices()[0].device_kind

    def cost(cell: Cell, model: CostModel | None) -> Cost | None:
        if model is None or cell.method not in CATALOGUE:
            return None
        return model({**cell.essential(), "seeds": list(cell.seeds)}, device)

    return [Costs(*(cost(cell, models[what]) for what in ("seconds", "bytes"))) for cell in cells]


def told(record: dict[str, Any], what: str = "seconds") -> float | None:
    """What a record says that its whole cell cost, None where it does not."""
    cell, timing = record.get("cell", {}), record.get("timing", {})
    known = cell.get("method") in CATALOGUE and cell.get("dataset") in REGISTRY and "seeds" in cell
    if not known or timing.get("resumed") or "not_applicable" in record:
        return None
    if what == "bytes":
        return timing.get("device_bytes") or None
    if record["environment"]["device"]["platform"] == "cpu":
        return timing.get("cpu_seconds") or None
    return sum(timing.get(f"{part}_seconds", 0.0) for part in ("run", "compile", "evaluate")) or None


def _device(record: dict[str, Any]) -> str:
    return record["environment"]["device"]["kind"]


def mean_lengths(records: Iterable[dict[str, Any]]) -> dict[str, float]:
    """Steps a trajectory of each dataset whose size is in trajectories."""
    found = {}
    for record in records:
        name = record["cell"]["dataset"]
        if "num_steps" in record and name in REGISTRY and REGISTRY[name].unit == "trajectories":
            found[name] = record["num_steps"] / (record["cell"]["size"] * REGISTRY[name].num_policies)
    return found


def _features(
    described: dict[str, Any], device: str, lengths: dict[str, float]
) -> tuple[float, dict[str, float], list[str]]:
    """The logarithm of the work, logarithms of the numbers it may depend on in another way, and the effects."""
    settings, trajectories, length = _settings(described), *_size(described, lengths)
    work = _work(settings, trajectories, length)
    algorithm, actions = CATALOGUE[described["method"]].algorithm.__name__, _actions(described["dataset"])
    policy = f"{algorithm} {settings.get('policy') or ''} {actions}"
    numbers = {
        "seeds": math.log(len(described["seeds"])),
        f"{policy} steps": math.log(trajectories * length),
        f"{policy} work": math.log(work),
    }
    family = described["dataset"].partition("-")[0]
    effects = {
        "algorithm": algorithm,
        "method": described["method"],
        "policy": policy,
        "family": family,
        "dataset": described["dataset"],
        "both": f"{policy} {family}",
        "device": device,
    }
    return (
        math.log(len(described["seeds"])) + math.log(work),
        numbers,
        [f"{kind}: {name}" for kind, name in effects.items()],
    )


def _actions(dataset: str) -> str:
    return "continuous" if REGISTRY[dataset].continuous else "discrete"


def work_of(described: dict[str, Any], lengths: dict[str, float]) -> float:
    """Rows that a cell's networks are trained on, three times, and rows that they score."""
    settings, trajectories, length = _settings(described), *_size(described, lengths)
    return len(described["seeds"]) * _work(settings, trajectories, length)


def _settings(described: dict[str, Any]) -> dict[str, Any]:
    """All hyperparameters, the defaults too."""
    fields = dataclasses.fields(CATALOGUE[described["method"]].algorithm)
    defaults = {field.name: plain(field.default) for field in fields if field.default is not dataclasses.MISSING}
    return {**defaults, **described.get("hyperparameters", {}), **described.get("settings", {})}


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
        updates = number("updates", "value_updates", "critic_updates", "behaviour_updates")
        return 3 * 256 * max(updates, 1) + number("epochs", "em_epochs", "pretrain_epochs") * rows
    return rows


def _prior(name: str, exponents: dict[str, float]) -> float:
    if name == "constant":
        return 10.0
    return _EXPONENT if name in exponents else _EFFECTS[name.partition(":")[0]]
