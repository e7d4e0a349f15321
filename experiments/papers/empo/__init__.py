"""What the EMPO paper's tables share: settings of the navigation task, its cells and pictures, published numbers.

Park, Cho and Sung, "EMPO: A Clustering-Based On-Policy Algorithm for Offline Reinforcement Learning".
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trajclust_experiments.catalogue import CATALOGUE, title
from trajclust_experiments.cells.cell import Cell
from trajclust_experiments.cells.navigation import ENVIRONMENT, NavigationCell
from trajclust_experiments.tables import Preset, Records
from trajclust_jax.lazy import lazy

envs = lazy("trajclust_envs")

TITLE = "EMPO"
METHODS = ("bc", "td3_bc", "empo_1", "empo")  # of Table 1; empo_1 has K = 1
TITLES = {"empo_1": "EMPO, K = 1", "empo": "EMPO, K = 2"}

PRINTED = CATALOGUE["empo"].suited(ENVIRONMENT)  # Table 4, didactic
# Networks, discount and scale of rewards are EMPO's for all.
_NETWORK = {"actor_features": PRINTED["actor_features"]}
_TASK = {name: PRINTED[name] for name in ("features", "actor_features", "discount", "reward_scale")}
# For a tenth of the data: fewer steps, of which the critic's target and the high level's move further each.
SHORT = {
    **PRINTED,
    "critic_updates": 50_000,
    "target_rate": 0.05,
    "value_updates": 8_000,
    "high_period": 100,
    "updates": 50_000,
}
_TINY = {
    **SHORT,
    **dict.fromkeys(("critic_updates", "value_updates", "updates"), 200),
    **{"bias_epochs": 1, "pretrain_epochs": 1, "em_epochs": 2, "epochs": 2, "block": 100},
}


def _preset(summary: str, size: int, seeds: int, empo: Mapping[str, Any], updates: int) -> Preset:
    """`size` in steps a behaviour."""
    cloned = {**_NETWORK, "updates": updates}
    others = {**_TASK, "updates": updates}
    settings = {"bc": cloned, "td3_bc": others, "iql": others, "empo": empo}
    return Preset(summary, size=size, long_size=size, seeds=seeds, settings=settings)


PRESETS = {
    "smoke": _preset("seconds: does everything run? The numbers mean nothing", 2_000, 2, _TINY, 200),
    "cpu": _preset(
        "40 minutes on one core: a tenth of the data, 50,000 gradient steps, 10 seeds", 100_000, 10, SHORT, 50_000
    ),
    "paper": _preset("the paper's scale: 1,000,000 steps a behaviour, 10 seeds", 1_000_000, 10, PRINTED, 1_000_000),
}


def navigation_cell(
    preset: Preset, method: str, seeds: Sequence[int], dataset: str = "navigation", data_seed: int = 0, **settings: Any
) -> NavigationCell:
    """A learner on the navigation task at a preset's scale, but for `settings`."""
    if method == "empo_1":
        method, settings = "empo", {"k": 1, **settings}
    merged = tuple(sorted({**preset.settings[method], **settings}.items()))
    return NavigationCell(dataset, preset.long_size, method, tuple(seeds), merged, data_seed)


def navigation_cells(
    preset: Preset, datasets: Sequence[str], methods: Sequence[str], seeds: Sequence[int]
) -> list[Cell]:
    """A cell a learner of Table 1, Figure 3 and Figure 5."""
    return [navigation_cell(preset, method, seeds, dataset) for dataset in datasets for method in methods]


def name_of(record: Mapping[str, Any]) -> str:
    """One of `METHODS`, or another learner's name."""
    return "empo_1" if record["cell"]["settings"].get("k") == 1 else record["cell"]["method"]


def title_of(record: Mapping[str, Any]) -> str:
    """A learner's title."""
    name = name_of(record)
    return TITLES.get(name, title(name))


def in_order(records: Records) -> list[dict[str, Any]]:
    """Records of `METHODS` in their order, others after them."""
    place = {name: index for index, name in enumerate(METHODS)}
    return sorted(records, key=lambda record: place.get(name_of(record), len(place)))


def plane() -> Any:
    """Where navigation is drawn."""
    return envs.make(ENVIRONMENT).plane


def route_counts(record: Mapping[str, Any]) -> dict[str, int]:
    """How many episodes of all seeds took each route."""
    names, counts = np.unique(record["routes"], return_counts=True)
    found = dict(zip(names.tolist(), counts.tolist(), strict=True))
    return {name: found.get(name, 0) for name in ("short", "penalty", "detour", "lost")}
