"""Measures what cells cost, for the cost model: small cells of many kinds, each computed with nothing compiled before.

    python scripts/measure_costs.py --results costs        # about an hour of one core; goes on where it was
    python scripts/measure_costs.py --results costs --write # and then keeps them in experiments/records/costs.jsonl

Prints, too, how well a model that has not seen a cell foretells it: ten-fold, over these cells and those of the records
that come with the project and say what they took of a core.
"""

import argparse
import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from trajclust_experiments.cells.cell import Cell
from trajclust_experiments.cells.learners import LearnerCell
from trajclust_experiments.cells.methods import MethodCell
from trajclust_experiments.cells.runner import run_cells
from trajclust_experiments.costs import MEASURED, CostModel, told, work_of
from trajclust_experiments.progress import Progress
from trajclust_experiments.rendering.stored import committed
from trajclust_jax.data import REGISTRY
from trajclust_jax.records import Results

GRIDS = ("diagonal", "takeball", "extrafixed-vi")
LONG = ("hopper-medium-expert", "halfcheetah-medium-expert", "walker2d-medium-replay")
CLUSTERERS = {
    "pg_kmeans_tabular": GRIDS,
    "pg_kmeans_mlp": (*GRIDS, *LONG, "pathfollowing"),
    "pg_kmeans_gru": GRIDS[:2],
    "sorl": (*GRIDS, *LONG),
    "caae": (*GRIDS, *LONG, "pathfollowing"),
    "dec": (*GRIDS, *LONG),
    "vae_kmeans": (*GRIDS, *LONG),
    "cloning_mlp": (*GRIDS, *LONG),
    "mean_kmeans": (*GRIDS, *LONG),
}
LEARNERS = ("bc", "bc_10", "td3_bc", "iql", "awac", "cql", "brac_v")
MOST_WORK = 1e9  # rows that networks are trained on or score: what takes about a minute


def design(count: int) -> Iterator[Cell]:
    """Cells drawn at random over methods, datasets, sizes, seeds and settings; always the same ones."""
    rng = np.random.default_rng(0)
    pick = lambda values: values[rng.integers(len(values))]
    while count:
        method = (*CLUSTERERS, *LEARNERS)[count % (len(CLUSTERERS) + len(LEARNERS))]
        cell = _learner(method, pick) if method in LEARNERS else _clusterer(method, pick)
        if work_of({**cell.essential(), "seeds": list(cell.seeds)}, {}) <= MOST_WORK:
            count -= 1
            yield cell


def _clusterer(method: str, pick: Any) -> Cell:
    dataset = pick(CLUSTERERS[method])
    settings: dict[str, Any] = {"num_clusters": REGISTRY[dataset].num_policies + pick([0, 0, 2])}
    if method.startswith("pg_kmeans"):
        settings |= {"restarts": pick([1, 3, 5]), "extra_clusters": pick([0, 2, 6]), "iterations": pick([5, 10, 20])}
    elif method in ("sorl", "cloning_mlp", "caae", "dec", "vae_kmeans"):
        settings |= {"iterations": pick([3, 10])}
    size = pick([10, 30]) if REGISTRY[dataset].long else pick([50, 200, 800])
    return MethodCell(dataset, size, method, tuple(range(pick([1, 2, 4]))), tuple(sorted(settings.items())))


def _learner(method: str, pick: Any) -> Cell:
    dataset, updates = pick((*LONG, "navigation")), pick([1_000, 4_000])
    settings: dict[str, Any] = {"updates": updates, "block": 500}
    if method != "bc" and method != "bc_10":
        settings["features"] = pick([(64, 64), (256, 256)])
    if method == "brac_v":
        settings["behaviour_updates"] = updates
    size = pick([10, 30]) if REGISTRY[dataset].long else pick([1_000, 10_000])
    return LearnerCell(dataset, size, method, tuple(range(pick([1, 2, 4]))), tuple(sorted(settings.items())))


def kept(record: dict[str, Any]) -> dict[str, Any]:
    """What the model asks of a record."""
    return {name: record[name] for name in ("cell", "num_steps", "timing", "environment") if name in record}


def foretold(records: list[dict[str, Any]], of: Callable[[dict[str, Any]], Any] = id) -> tuple[np.ndarray, np.ndarray]:
    """Of each record `[N]` how many times estimate and truth differ, and whether the truth is in the interval.

    Ten models, each fitted without a tenth of the records; those of which `of` says the same are left out together.
    """
    kinds = {kind: number for number, kind in enumerate(dict.fromkeys(map(of, records)))}
    drawn = np.random.default_rng(0).permutation(len(kinds)) % 10
    fold = np.array([drawn[kinds[of(record)]] for record in records])
    times, within = np.zeros(len(records)), np.zeros(len(records), bool)
    for held in (np.flatnonzero(fold == number) for number in range(10)):
        model = CostModel.fitted([records[i] for i in np.setdiff1d(np.arange(len(records)), held)])
        for i in held:
            cost, (took, _) = model(records[i]["cell"]), told(records[i])
            times[i], within[i] = math.exp(abs(math.log(cost.estimate / took))), cost.low <= took <= cost.high
    return times, within


def task_and_method(record: dict[str, Any]) -> tuple[str, ...]:
    """What a table's rows and columns tell apart."""
    cell = record["cell"]
    return cell["dataset"], cell["method"], str(cell.get("kind")), str(cell.get("relabeller")), str(cell.get("plugin"))


def of_cores(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that say what a whole cell took of a core."""
    on_cpu = [record for record in records if record["environment"]["device"]["platform"] == "cpu"]
    return [record for record in on_cpu if record["timing"].get("cpu_seconds") and told(record) is not None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, required=True, help="results folder")
    parser.add_argument("--cells", type=int, default=96, help="their number")
    parser.add_argument("--write", action="store_true", help=f"keep them in {MEASURED.name}, in place of the old ones")
    options = parser.parse_args()
    os.environ["TRAJCLUST_COMPILE_CACHE"] = "off"
    cells = list(dict.fromkeys(design(options.cells)))
    records = run_cells(cells, Results(options.results), preset="costs", progress=Progress())
    known = [kept(record) for record in (*records, *committed().all()) if told(record) is not None]
    seen = of_cores(known)
    for name, of in (("cells", id), ("tasks' methods", task_and_method)):
        times, within = foretold(seen, of)
        near = f"{(times < 1.5).mean():.0%} within a factor of 1.5, {(times < 2).mean():.0%} of 2"
        print(f"{len(seen)} cells, {name} not seen: {near}, {within.mean():.0%} in the interval of nine of ten")
    for i in np.argsort(-times)[:5]:
        cell = seen[i]["cell"]
        print(f"  {times[i]:.2f}: {cell['dataset']} {cell['size']} {cell['method']} {len(cell['seeds'])} seeds")
    if options.write:
        MEASURED.write_text("".join(json.dumps(each, sort_keys=True) + "\n" for each in known))


if __name__ == "__main__":
    main()
