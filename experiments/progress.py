"""Progress on standard error: a bar a cell on a terminal, a line every half minute elsewhere."""

import contextlib
import time
from collections.abc import Iterator

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Column
from rich.text import Text

from trajclust_jax.training import Callback, Event

LINE_SECONDS = 30.0


class Progress:
    """Shows what runs. `quiet` shows nothing."""

    def __init__(self, quiet: bool = False):
        self.console = Console(stderr=True, quiet=quiet)

    def note(self, text: str, style: str = "dim") -> None:
        """One line, as it stands: names may hold what rich takes for markup."""
        self.console.print(Text(text), style=style, soft_wrap=True)

    def warn(self, text: str) -> None:
        """One line that is not to be overlooked."""
        self.note(f"warning: {text}", style="yellow")

    @contextlib.contextmanager
    def waiting(self, title: str) -> Iterator[None]:
        """Shows that something of unknown length is under way."""
        began = time.monotonic()
        with self.console.status(Text(title)) if self.console.is_terminal else contextlib.nullcontext():
            yield
        if time.monotonic() - began >= 1:
            self.note(f"{title}: done in {time.monotonic() - began:.0f} s")

    @contextlib.contextmanager
    def task(self, title: str) -> Iterator[Callback]:
        """A callback for `fit` that shows phase, iteration, J and, where there are, changed assignments and NMI."""
        # What a narrow terminal has no room for goes on below; by itself rich would cut it.
        columns = (
            TextColumn("{task.description}", markup=False, table_column=Column(ratio=3, overflow="fold")),
            BarColumn(bar_width=10),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[metrics]}", markup=False, table_column=Column(ratio=2, overflow="fold")),
        )
        began, told = time.monotonic(), [time.monotonic()]
        with Bars(*columns, console=self.console, disable=not self.console.is_terminal, expand=True) as bars:
            task = bars.add_task(f"{title}: compiling", total=None, metrics="")
            self.note(f"{title}: compiling") if not self.console.is_terminal else None

            def show(event: Event) -> None:
                text = describe(event)
                name = f"{title}: {event.phase}"
                name += " (compiling)" if event.iteration == 0 else ""
                bars.update(task, description=name, completed=event.iteration, total=event.budget, metrics=text)
                if not self.console.is_terminal and time.monotonic() - told[0] >= LINE_SECONDS:
                    told[0] = time.monotonic()
                    self.note(f"{name} {event.iteration}/{event.budget} {text}")

            yield show
        self.note(f"{title}: done in {time.monotonic() - began:.0f} s")


def describe(event: Event) -> str:
    """J (best restart, mean over seeds), changed assignments, NMI of the best restarts; or score and losses."""
    flat = lambda name: np.asarray(event.metrics[name]).reshape(len(event.converged), -1)  # [S, R]
    if "objective" not in event.metrics:
        names = [name for name in event.metrics if name == "score" or name.endswith("/loss")]
        return "  ".join(f"{name} {np.mean(flat(name)):.4g}" for name in names)
    objective = flat("objective")
    best = np.nan_to_num(objective, nan=-np.inf).argmax(1)[:, None]
    parts = []
    if np.isfinite(objective).any(1).all():
        parts.append(f"J {np.take_along_axis(objective, best, 1).mean():.4f}/step")
    if "changed" in event.metrics:
        parts.append(f"changed {int(np.asarray(event.metrics['changed']).sum())}")
    if "nmi" in event.metrics:
        parts.append(f"NMI {np.take_along_axis(flat('nmi'), best, 1).mean():.3f}")
    return "  ".join(parts)
