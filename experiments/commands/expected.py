"""What cells will take, told before they are computed and while they are."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from trajclust_experiments import costs
from trajclust_experiments.cells.cell import Cell
from trajclust_experiments.cells.runner import key
from trajclust_experiments.commands.printing import print_json
from trajclust_experiments.launchers.task import Task


def print_cells(tasks: Sequence[Task], expected: Mapping[Cell, costs.Costs], json: bool) -> None:
    """A line a cell: whether it is stored, or what it will cost; its key, its table and what it is.

    Args:
        tasks: all cells.
        expected: of those that are missing.
        json: print the same as JSON.
    """
    if json:
        return print_json([_told(task, expected.get(task.cell)) for task in tasks])
    for task in tasks:
        state = f"missing  {in_short(expected[task.cell]):26}" if task.cell in expected else f"{'stored':35}"
        print(f"{state}  {key(task.cell)}  {task.table}  {task.cell.title}")
    return None


def _told(task: Task, cost: costs.Costs | None) -> dict[str, Any]:
    """A cell as JSON; what it costs is null where it is stored, or not known."""
    seconds, size = (None, None) if cost is None else (cost.seconds, cost.bytes)
    return {
        "key": key(task.cell),
        "table": task.table,
        "cell": task.cell.title,
        "stored": cost is None,
        "seconds": None if seconds is None else seconds.estimate,
        "bytes": size.estimate if size else None,
    }


def in_short(cost: costs.Costs) -> str:
    """What a cell will cost, in a few words."""
    if cost.seconds is None:
        return "not known"
    size = "" if not (cost.bytes and cost.bytes.estimate) else f", {cost.bytes.estimate / 1e6:,.0f} MB"
    return f"{costs.in_words(cost.seconds.estimate)}{size}"


class Schedule:
    """Cells that are computed one after the other: which it is, of how many, and when all will be done.

    How long cells took, beside what was foretold of them, corrects what is foretold of the others: the machine may be
    faster or slower than those of the records.
    """

    def __init__(
        self,
        expected: Mapping[Cell, costs.Costs],
        tell: Callable[[str], None],
        clock: Callable[[], float] = time.time,
    ):
        self.left, self.count, self.tell, self.clock = dict(expected), len(expected), tell, clock
        self.foretold, self.took, self.began = 0.0, 0.0, clock()
        self.now: float | None = None  # seconds that the cell under way is foretold; None: not known, or there is none

    def begins(self, cell: Cell) -> None:
        """Says so; a cell that another one needs, and that is not asked for itself, has no number."""
        now = self.clock()
        if self.now is not None:  # of the one before
            self.foretold, self.took = self.foretold + self.now, self.took + now - self.began
        cost = self.left.pop(cell, None)
        self.began, self.now = now, None if cost is None or cost.seconds is None else cost.seconds.estimate
        if cost is None:
            return self.tell(f"{cell.title}: another cell needs it")
        place = f"cell {self.count - len(self.left)} of {self.count}: {cell.title}"
        known = [each.seconds.estimate for each in self.left.values() if each.seconds is not None]
        if self.now is None:
            return self.tell(f"{place}; no record tells how long it will take")
        about = self.now + 1.0  # as many seconds more in both: 1, as long as little is known
        slower = (self.took + about) / (self.foretold + about)
        text = costs.in_words(slower * self.now)
        if self.left:
            rest = slower * (self.now + sum(known))
            end = time.strftime("%H:%M" if rest < 12 * 3600 else "%a %H:%M", time.localtime(now + rest))
            unknown = len(self.left) - len(known)
            text += f"; all in {costs.in_words(rest)}, at {end}" + (f", but for {unknown} not known" if unknown else "")
        return self.tell(f"{place}; {text}")
