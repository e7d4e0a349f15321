"""The protocol of clustering algorithms, with defaults for what most of them have in common.

An algorithm is a frozen dataclass of its hyperparameters, `num_clusters` first. It may derive from `Clusterer`, for the
defaults, or define the same members itself.
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
    """What records state about an algorithm, and a check that it suits the data."""

    num_clusters: int
    VERSION: ClassVar[int]  # part of a cell's identity; raise it when results change
    ACTIONS_VERSION: ClassVar[int | None] = None  # of how it scales continuous actions; None: it does not model them

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        documented(cls)

    def check(self, trajectories: Trajectories) -> None:
        """Raises ValueError for data that the algorithm cannot handle; by default there are none."""
        del trajectories


@runtime_checkable
class Clusterer(Algorithm, Method, Protocol):
    """An algorithm that clusters trajectories without their labels; `training.fit` trains it."""

    POLICY: ClassVar[str | None] = None  # the default kind of its clusters' policies; None: there is no choice

    @classmethod
    def default(cls, num_clusters: int, **settings: Any) -> "Clusterer":
        """The settings that work, overridden by those given."""
        return cls(num_clusters, **settings)

    def preprocessing(self, trajectories: Trajectories) -> Preprocessing:
        """How trajectories become its inputs, fitted to these; a saved model needs it beside its parameters."""
        return Preprocessing.of(trajectories)

    def support_policies(self) -> SupportPolicies | None:
        """The Markov policies that test on held-out actions whether the data support its clusters (see `support`).

        None for an algorithm that does not model policies.
        """
        return TransitionPolicy()

    @abc.abstractmethod
    def prepare(
        self, trajectories: Trajectories, num_seeds: int = 1, preprocessing: Preprocessing | None = None
    ) -> Any:
        """The data as `phases` need them, for `num_seeds` seeds at once (host-side, once).

        Transformed by the given `preprocessing`, or by one fitted to these trajectories; `training.fit` gives none.
        """

    @abc.abstractmethod
    def phases(self) -> tuple[Phase, ...]:
        """The phases of training, each written for one seed."""

    @abc.abstractmethod
    def result(self, state: Any, data: Any) -> Clustering:
        """The clustering by the last phase's state, in the dataset's order."""

    def model(self, clustering: Clustering) -> Any:
        """What `assign` needs of one seed's clustering."""
        return clustering.params

    def assign(self, model: Any, data: Any) -> Clustering:
        """The clustering of other trajectories by a trained model; `prepare` made `data` with the model's
        preprocessing.

        Raises:
            NotImplementedError: for an algorithm that cannot.
        """
        raise NotImplementedError(f"{type(self).__name__} cannot assign new trajectories")
