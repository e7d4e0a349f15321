"""What callers ask of an algorithm that clusters: one protocol, with defaults for what most have in common.

An algorithm is a frozen dataclass of its hyperparameters, `num_clusters` first. It may derive from `Clusterer`, for the
defaults, or have the same members by itself.
"""

import abc
from typing import Any, ClassVar, Protocol, runtime_checkable

from trajclust_jax.clustering.policies import MarkovMapPolicy, PlanningPolicy, TransitionPolicy
from trajclust_jax.clustering.preprocessing import Preprocessing
from trajclust_jax.clustering.types import Clustering
from trajclust_jax.data import Trajectories
from trajclust_jax.documented import documented
from trajclust_jax.training import Method, Phase

SupportPolicies = TransitionPolicy | MarkovMapPolicy | PlanningPolicy


@runtime_checkable
class Algorithm(Protocol):
    """What a record says of an algorithm, and whether it fits data."""

    num_clusters: int
    VERSION: ClassVar[int]  # part of a cell's identity; raise it when results change
    ACTIONS_VERSION: ClassVar[int | None] = None  # of how it scales continuous actions; None: it does not model them

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        documented(cls)

    def check(self, trajectories: Trajectories) -> None:
        """Raises ValueError for data that it has no answer for; by default there are none."""
        del trajectories


@runtime_checkable
class Clusterer(Algorithm, Method, Protocol):
    """An algorithm that clusters trajectories without their labels; `training.fit` trains it."""

    POLICY: ClassVar[str | None] = None  # the default kind of its clusters' policies; None: they have none to choose

    @classmethod
    def default(cls, num_clusters: int, **settings: Any) -> "Clusterer":
        """The settings that work, with those given in their place."""
        return cls(num_clusters, **settings)

    def preprocessing(self, trajectories: Trajectories) -> Preprocessing:
        """How it sees trajectories, fitted to these; a saved model needs it beside its parameters."""
        return Preprocessing.of(trajectories)

    def support_policies(self) -> SupportPolicies | None:
        """The Markov policies that tell whether held-out actions speak for its clusters (see `support`).

        None for an algorithm that looks at no policy.
        """
        return TransitionPolicy()

    @abc.abstractmethod
    def prepare(
        self, trajectories: Trajectories, num_seeds: int = 1, preprocessing: Preprocessing | None = None
    ) -> Any:
        """The data as `phases` want it, for so many seeds at once (host-side, once).

        Seen by a given `preprocessing`, or by one that is fitted to these trajectories. `training.fit` gives none.
        """

    @abc.abstractmethod
    def phases(self) -> tuple[Phase, ...]:
        """The stretches of training, each written for one seed."""

    @abc.abstractmethod
    def result(self, state: Any, data: Any) -> Clustering:
        """What the last phase's state says of the trajectories, in the dataset's order."""

    def model(self, clustering: Clustering) -> Any:
        """What `assign` wants of one seed's clustering."""
        return clustering.params

    def assign(self, model: Any, data: Any) -> Clustering:
        """What a trained model says of other trajectories, which `prepare` made `data` of by its preprocessing.

        Raises:
            NotImplementedError: for an algorithm that does not say it.
        """
        raise NotImplementedError(f"{type(self).__name__} clusters, and does not assign trajectories that are new")
