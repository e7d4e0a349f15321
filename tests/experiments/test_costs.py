"""What a cell is expected to cost: by records whose law is known, and in a sweep."""

import dataclasses
import math

import measure_costs
import numpy as np

from trajclust_experiments import costs
from trajclust_experiments.cells.learners import LearnerCell
from trajclust_experiments.cells.methods import MethodCell
from trajclust_experiments.costs import CostModel, Costs, mean_lengths, told, work_of
from trajclust_jax.data import REGISTRY


def record(cell, seconds, bytes=1e6, **timing):
    described = {**cell.essential(), "seeds": list(cell.seeds)}
    return {
        "id": "0",
        "cell": described,
        "scores": {},
        "num_steps": 12 * cell.size * REGISTRY[cell.dataset].num_policies,
        "timing": {"cpu_seconds": seconds, "device_bytes": bytes, "resumed": False, **timing},
        "environment": {"device": {"kind": "cpu", "platform": "cpu"}},
    }


def cells():
    """Many sizes, seeds and settings of three methods."""
    for size in (50, 200, 800):
        for seeds in (1, 2, 4):
            for iterations in (5, 20):
                settings = (("iterations", iterations),)
                yield MethodCell("diagonal", size, "pg_kmeans_mlp", tuple(range(seeds)), settings)
                yield MethodCell("takeball", size, "caae", tuple(range(seeds)), settings)
    for updates in (500, 1_000, 4_000):
        yield LearnerCell("hopper-medium-expert", 10, "td3_bc", (0, 1), (("block", 500), ("updates", updates)))


FACTOR = {"pg_kmeans_mlp": 1e-6, "caae": 3e-7, "td3_bc": 2e-5}  # seconds a row


def law(cell):
    described = {**cell.essential(), "seeds": list(cell.seeds)}
    return FACTOR[cell.method] * work_of(described, {cell.dataset: 12.0})


def test_a_law_is_found_and_holds_for_cells_that_were_not_seen():
    seen = list(cells())
    model = CostModel.fitted([record(cell, law(cell)) for cell in seen])
    new = [dataclasses.replace(cell, size=400, seeds=(0, 1, 2)) for cell in seen if cell.dataset == "diagonal"]
    for cell in (*seen, *new):
        cost = model({**cell.essential(), "seeds": list(cell.seeds)})
        assert math.isclose(cost.estimate, law(cell), rel_tol=0.2), cell.title
        assert cost.low < law(cell) < cost.high


def test_compiling_does_not_grow_with_the_work():
    """Small cells take as long as their compilation."""
    seen = list(cells())
    times = [(law(cell), 20.0 + law(cell)) for cell in seen]
    taken = [{"seconds": whole, "run_seconds": run, "compile_seconds": 20.0} for run, whole in times]
    model = CostModel.fitted([record(cell, **each) for cell, each in zip(seen, taken, strict=True)])
    small = [dataclasses.replace(cell, size=5, seeds=(0,)) for cell in seen if cell.dataset == "diagonal"]
    for cell in (*seen, *small):
        cost = model({**cell.essential(), "seeds": list(cell.seeds)})
        assert math.isclose(cost.estimate, 20 + law(cell), rel_tol=0.2), cell.title


def test_what_a_cell_does_beside_its_learner_is_work():
    learner = LearnerCell("hopper-medium-expert", 10, "iql", (0, 1), (("updates", 1_000),))
    own = {**learner.essential(), "seeds": [0, 1]}
    rows = 2 * 3 * 256 * 1_000
    assert work_of(own, {}) == rows
    assert work_of({**own, "skills": 6}, {}) == 6 * rows
    swept = {"settings": {**own["settings"], "sweep": [["expectile", [0.5, 0.7, 0.9]]]}}
    assert work_of({**own, **swept}, {}) == 3 * rows
    clue = {"relabeller": "clue", "relabeller_settings": {"updates": 500, "batch_size": 100}}
    assert work_of({**own, **clue}, {}) == rows + 2 * 3 * 100 * 500
    assert work_of({**own, "relabeller": "otr", "relabeller_settings": {}}, {}) == rows, "it takes no gradient steps"


def test_nine_of_ten_stored_cells_that_it_has_not_seen_are_within_one_and_a_half():
    cells = measure_costs.of_cores(costs.measured())
    assert len(cells) > 150
    times, within = measure_costs.foretold(cells)
    assert np.mean(times < 1.5) > 0.9
    assert np.mean(within) > 0.9
    times, _ = measure_costs.foretold(cells, measure_costs.task_and_method)
    assert np.mean(times < 1.5) > 0.85, "of a method that was not seen on a task"


def test_a_few_cells_that_took_ten_times_as_long_do_not_matter():
    """As on a machine that was busy."""
    seen = list(cells())
    slow = [record(cell, law(cell) * (10 if index % 12 == 5 else 1)) for index, cell in enumerate(seen)]
    model = CostModel.fitted(slow)
    near = [model({**c.essential(), "seeds": list(c.seeds)}).estimate / law(c) for c in seen]
    assert np.mean([1 / 1.5 < ratio < 1.5 for ratio in near]) > 0.9


def test_small_networks_and_minibatches_are_expected_to_cost_less():
    """Before a record has any."""
    model = CostModel.fitted([record(cell, law(cell)) for cell in cells()])
    of = lambda *settings: model(
        {**LearnerCell("hopper-medium-expert", 10, "td3_bc", (0,), settings).essential(), "seeds": [0]}
    )
    default = of(("updates", 1_000)).estimate
    assert of(("features", (64, 64)), ("updates", 1_000)).estimate < 0.9 * default
    assert of(("batch_size", 64), ("updates", 1_000)).estimate < 0.5 * default


def test_what_no_record_knows_has_a_wide_interval():
    model = CostModel.fitted([record(cell, law(cell)) for cell in cells() if cell.dataset == "diagonal"])
    width = lambda cell: np.divide(*model({**cell.essential(), "seeds": list(cell.seeds)})[:0:-1])
    known = MethodCell("diagonal", 200, "pg_kmeans_mlp", (0,))
    other_data, other_method = dataclasses.replace(known, dataset="takeball"), dataclasses.replace(known, method="dec")
    assert 1.4 < width(known) < width(other_data) < width(other_method)


def test_only_whole_cells_of_their_own_tell():
    cell = next(cells())
    assert told(record(cell, 3.0)) == (3.0, costs.NOISE)
    assert told(record(cell, 3.0), "bytes") == (1e6, costs.NOISE)
    assert told(record(cell, 3.0, resumed=True)) is None
    assert told(record(cell, 3.0, beside=4)) is None
    without = record(cell, 3.0)
    del without["timing"]["cpu_seconds"]
    assert told(without) is None
    without["timing"] |= {"run_seconds": 2.0, "compile_seconds": 1.0}
    assert told(without) == (3.0, costs.CLOCKS_NOISE), "the clock of a busy machine"
    without["environment"]["device"]["platform"] = "gpu"
    assert told(without) == (3.0, costs.NOISE)
    assert CostModel.fitted([record(cell, 3.0)]) is None, "one record has no law"


def test_lengths_are_the_records_own():
    cell = MethodCell("diagonal", 200, "pg_kmeans_mlp", (0,))
    assert mean_lengths([record(cell, 1.0)]) == {"diagonal": 12.0}


def test_of_other_devices_nothing_is_told(monkeypatch):
    monkeypatch.setattr(costs, "measured", list)
    records, cell = [record(cell, law(cell)) for cell in cells()], next(cells())
    assert costs.of_cells([cell], records, "cpu")[0].seconds is not None
    assert costs.of_cells([cell], records, "NVIDIA H100 80GB HBM3") == [Costs(None, None)]
    unknown = dataclasses.replace(cell, method="oracle")
    assert costs.together(costs.of_cells([unknown], records, "cpu"), 2) == "no record tells how long they will take"


def test_words():
    assert costs.in_words(40) == "about 40 s"
    assert costs.in_words(150) == "about 2.5 min"
    assert costs.in_words(11_000) == "about 3.1 h"
    assert costs.in_words(3e5) == "about 3.5 days"


def test_a_process_holds_more_than_its_device_does():
    cell = MethodCell("diagonal", 200, "pg_kmeans_mlp", (0, 1))
    cost = costs.of_cells([cell], [record(cell, law(cell)) for cell in cells()], "cpu")[0]
    assert costs.host_bytes(cost) > 1.5e9
