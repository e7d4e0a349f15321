"""`trajclust cluster --k auto`: K from the data alone, by held-out trajectories (`clustering.model_selection`)."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trajclust_experiments.catalogue import CHOICE_OF_K
from trajclust_experiments.cells.cell import checkpoint_seconds
from trajclust_experiments.progress import Progress
from trajclust_experiments.rendering.figures import new_figure
from trajclust_jax.clustering import suited as rule
from trajclust_jax.clustering.model_selection import PGKmeansRange, Selection, select_num_clusters
from trajclust_jax.clustering.pg_kmeans import PGKmeans
from trajclust_jax.clustering.policies import is_countable
from trajclust_jax.data import Trajectories
from trajclust_jax.lazy import lazy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

plotting = lazy("trajclust_envs.plotting")

FEW = 50  # trajectories a cluster: with 20 a policy the choice is wrong as often as not (table pgkmeans/choosing-k)


@dataclasses.dataclass(frozen=True)
class ChoiceOfK:
    """The K chosen, the curve that it was read off, and what makes it doubtful."""

    num_clusters: int
    selection: Selection  # of one seed
    policy: str
    warnings: list[str]

    @property
    def message(self) -> str:
        """One line for people."""
        curve = zip(self.selection.counts, self.selection.held_out[0], strict=True)
        held_out = ", ".join(f"{k}: {value:.3f}" for k, value in curve)
        return f"k {self.num_clusters}, by held-out trajectories under {self.policy} policies (nats a step, {held_out})"

    def to_dict(self) -> dict[str, Any]:
        """For summary.json."""
        described = {"num_clusters": self.num_clusters, "criterion": "held_out", "policy": self.policy}
        return {**described, "message": self.message, **self.selection.to_dict()}


def choose_k(
    trajectories: Trajectories, k_max: int, seed: int, policy: str | None, folder: Path, progress: Progress, name: str
) -> ChoiceOfK:
    """Runs PG-Kmeans for every K from 1 to `k_max` in one program, a fifth of the trajectories held out.

    Whatever method clusters afterwards. Policies are tables where observations repeat and actions are discrete, else
    of the class `policy`, by default MLPs.
    """
    kind = "tabular" if is_countable(trajectories) and policy != "planner" else policy or "mlp"
    settings = {**rule.suited(PGKmeans, trajectories, kind), **CHOICE_OF_K}
    method = PGKmeansRange.over(range(1, k_max + 1), kind, **settings)
    with progress.task(f"{name}, choice of k") as show:
        selection = select_num_clusters(
            method,
            trajectories,
            [seed],
            callbacks=[show],
            checkpoint_dir=folder,
            checkpoint_seconds=checkpoint_seconds(),
        )
    chosen = int(selection.chosen("held_out")[0])
    warnings = []
    if chosen == k_max > 1:
        warnings.append(f"k {chosen} is the largest that was tried: give a larger --k-max")
    if kind != "tabular":
        warnings.append(
            f"k {chosen} rests on {kind} policies: networks may explain held-out trajectories better with more "
            "clusters than there were policies; look at the curve"
        )
    if trajectories.num_trajectories < FEW * chosen:
        warnings.append(
            f"k {chosen} is of {trajectories.num_trajectories} trajectories: with fewer than {FEW} a cluster "
            "the choice is often wrong"
        )
    if selection.integrated is not None and (other := int(selection.chosen("integrated")[0])) != chosen:
        warnings.append(
            f"k {chosen} by held-out trajectories, {other} by the integrated likelihood: policies may be alike, or two "
            "clusterings equally good"
        )
    return ChoiceOfK(chosen, selection, kind, warnings)


def choice_figure(choice: ChoiceOfK) -> "Figure":
    """The criteria against K, and the K chosen."""
    figure = new_figure(4.6, 3.0)
    ax = figure.subplots()
    selection = choice.selection
    error = selection.held_out_error[0]
    style = {"marker": "o", "markersize": 3}
    ax.errorbar(selection.counts, selection.held_out[0], error, color=plotting.PALETTE[0], label="held-out", **style)
    if selection.integrated is not None:
        ax.plot(selection.counts, selection.integrated[0], color=plotting.PALETTE[1], label="integrated", **style)
    ax.axvline(choice.num_clusters, color="black", linewidth=1, linestyle=":", label=f"chosen: {choice.num_clusters}")
    ax.set(xlabel="k", ylabel="nats a step", title="choice of k", xticks=selection.counts)
    ax.legend(fontsize=7)
    ax.spines[["top", "right"]].set_visible(False)
    return figure
