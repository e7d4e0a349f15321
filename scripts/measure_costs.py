"""Measures what cells cost, for the cost model: small cells of many kinds, each computed with nothing compiled before.

    python scripts/measure_costs.py --results costs        # about an hour of one core; goes on where it was
    python scripts/measure_costs.py --results costs --write # and then keeps them in experiments/records/costs.jsonl

Prints, too, how well a model that has not seen a cell foretells it (ten-fold).
"""

import argparse
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ["TRAJCLUST_COMPILE_CACHE"] = "off"

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


def foretold(records: list[dict[str, Any]]) -> np.ndarray:
    """`[N]`: the logarithm of estimate over truth, each by a model that was fitted without a tenth of the records."""
    order, errors = np.random.default_rng(0).permutation(len(records)), np.zeros(len(records))
    for fold in range(10):
        held = order[fold::10]
        model = CostModel.fitted([records[i] for i in np.setdiff1d(order, held)])
        for i in held:
            errors[i] = math.log(model(records[i]["cell"]).estimate / told(records[i])[0])
    return errors


def write(measured: list[dict[str, Any]]) -> None:
    """Keeps them, and after them the records that come with the project, whose seconds are mostly the clock's."""
    lines = measured + [kept(record) for record in committed().all() if told(record) is not None]
    MEASURED.write_text("".join(json.dumps(each, sort_keys=True) + "\n" for each in lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, required=True, help="results folder")
    parser.add_argument("--cells", type=int, default=96, help="their number")
    parser.add_argument("--write", action="store_true", help=f"keep them in {MEASURED.name}, in place of the old ones")
    options = parser.parse_args()
    cells = list(dict.fromkeys(design(options.cells)))
    records = run_cells(cells, Results(options.results), preset="costs", progress=Progress())
    measured = [kept(record) for record in records if told(record) is not None]
    ratio = np.exp(np.abs(foretold(measured)))
    print(f"{len(measured)} cells; within a factor 1.5: {(ratio < 1.5).mean():.0%}, within 2: {(ratio < 2).mean():.0%}")
    for i in np.argsort(-ratio)[:5]:
        cell = measured[i]["cell"]
        print(f"  {ratio[i]:.2f}: {cell['dataset']} {cell['size']} {cell['method']} {len(cell['seeds'])} seeds")
    if options.write:
        write(measured)


if __name__ == "__main__":
    main()
