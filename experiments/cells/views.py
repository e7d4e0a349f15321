"""Cells that look at C^4's clusters while a learner trains: gradient pairs in the plane, and whose they are."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from trajclust_experiments.cells.cell import Job
from trajclust_experiments.cells.learners import LearnerCell
from trajclust_jax.data import Dataset
from trajclust_jax.learners import Offline
from trajclust_jax.learners.c4 import FEWEST
from trajclust_jax.learners.sampling import View
from trajclust_jax.metrics import scores
from trajclust_jax.training import Evaluate

SNAPSHOTS = 5  # over the training, equally far apart
SHOWN = 300  # transitions of the first seed in the plane
_OF_VIEW = ("x", "y", "cluster", "policy")


@dataclasses.dataclass(frozen=True)
class _Looking(Offline):
    """A training whose result is the clustering of the same transitions at any time."""

    def result(self, state: Any, data: Any) -> dict[str, jax.Array]:
        view, learner = View(data, data.first, data.count, data.scaling), self.learner
        seen = learner.sampler.seen(state.learner.sampler, learner, state.learner, view, jnp.int32(0))
        return {
            "points": seen.points,
            "soft": seen.soft,
            "valid": seen.valid,
            "trajectory": seen.batch.trajectory,
        }


@dataclasses.dataclass(frozen=True)
class ViewCell(LearnerCell):
    """The clusters of gradient pairs over a training: how many there are, how well they agree with the policies whose
    transitions they are, and the pairs of the first seed in the plane by t-SNE. The policies are evaluated nowhere."""

    def essential(self) -> dict[str, Any]:
        return {**super().essential(), "measures": "clusters"}

    def compute(self, dataset: Dataset, job: Job) -> dict[str, Any]:
        offline = self.build(dataset.trajectories.action_size)
        looking = _Looking(**{field.name: getattr(offline, field.name) for field in dataclasses.fields(offline)})
        labels = np.asarray(dataset.labels)

        def measure(found: dict[str, np.ndarray], iteration: int) -> dict[str, np.ndarray]:
            lone = lambda seed: {name: np.asarray(values)[seed] for name, values in found.items()}
            numbers = [_agreement(lone(seed), labels) for seed in range(len(self.seeds))]
            view = {f"view/{name}": values[None] for name, values in _view(lone(0), labels).items()}
            everywhere = {name: np.repeat(values, len(self.seeds), axis=0) for name, values in view.items()}
            return {name: np.array([each[name] for each in numbers]) for name in numbers[0]} | everywhere

        every = max(1, offline.learner.stages()[-1].updates // offline.block // SNAPSHOTS)
        with job.fitted(self, looking, dataset.trajectories, evaluate=Evaluate(measure, every)) as (outcome, _):
            snapshots = [entry for entry in outcome.history if "view/x" in entry]
            steps = [offline.gradient_steps(entry["phase"], entry["iteration"]) for entry in snapshots]
            measured = ("clusters/nmi", "clusters/used", "clusters/largest")
            return {
                "config": dataclasses.asdict(offline),
                "scores": {
                    name.removeprefix("clusters/"): np.array([entry[name] for entry in snapshots], float).T.tolist()
                    for name in measured
                },
                "views": [
                    {"gradient_steps": step, **{name: entry[f"view/{name}"][0] for name in _OF_VIEW}}
                    for step, entry in zip(steps, snapshots, strict=True)
                ],
                "timing": outcome.timing,
            }


def _agreement(found: dict[str, np.ndarray], labels: np.ndarray) -> dict[str, float]:
    """Of one seed's clustering: agreement with the policies, clusters in use, and the largest one's share."""
    valid = found["valid"]
    soft = found["soft"][valid]
    shares = soft.sum(0) / max(soft.sum(), 1e-6)
    return {
        "clusters/nmi": scores(labels[found["trajectory"][valid]], soft.argmax(1))["nmi"],
        "clusters/used": float((shares >= FEWEST).sum()),
        "clusters/largest": float(shares.max()),
    }


def _view(found: dict[str, np.ndarray], labels: np.ndarray) -> dict[str, np.ndarray]:
    """Of one seed's clustering some transitions in the plane, by t-SNE from their points' principal components; NaN
    where the training diverged."""
    from sklearn.manifold import TSNE

    valid = np.flatnonzero(found["valid"])
    rows = np.random.default_rng(0).permutation(valid)[:SHOWN]
    points, plane = found["points"][rows], np.full((len(rows), 2), np.nan)
    if np.isfinite(points).all():
        perplexity = min(30, (len(rows) - 1) / 3)
        plane = TSNE(init="pca", perplexity=perplexity, random_state=0).fit_transform(points).astype(float).round(2)
    cluster, policy = found["soft"][rows].argmax(1), labels[found["trajectory"][rows]]
    return {"x": plane[:, 0], "y": plane[:, 1], "cluster": cluster, "policy": policy}
