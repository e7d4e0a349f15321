"""Everything that tables and commands know by name: clusterers, ceilings, learners, and what else makes a cell.

An entry is a line: what it is (`kind`), whom it belongs to (`family`), the algorithm, and the settings that differ from
its defaults. `register` adds one from outside. Algorithms are named, and imported when one is asked for.
"""

import dataclasses
import functools
import itertools
import math
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from trajclust_jax.lazy import Imported, Names, imported, lazy
from trajclust_jax.records import plain

if TYPE_CHECKING:
    from trajclust_jax.data import Trajectories
    from trajclust_jax.learners import Learner, Offline, PlugIn
    from trajclust_jax.relabelling import Relabeller

clustering = Names("trajclust_jax.clustering")
learners = Names("trajclust_jax.learners")
relabelling = Names("trajclust_jax.relabelling")
rule = lazy("trajclust_jax.clustering.suited")

# clusterer: finds clusters; ceiling: with the labels, what a policy class could tell, which no command offers;
# selection: clusterings for several K; grid: for several settings; centres: a clusterer whose clusters' policies act;
# learner: of offline RL; plug-in: changes a learner with critics; relabeller: gives trajectories new rewards.
Kind = Literal["clusterer", "ceiling", "selection", "grid", "centres", "learner", "plug-in", "relabeller"]

BLOCK = 1_000  # gradient steps between two looks at a training


@functools.cache
def _offline() -> frozenset[str]:
    """The settings of `Offline`, which every learner has."""
    return frozenset(field.name for field in dataclasses.fields(imported(learners.Offline))) - {"learner"}


@functools.cache
def class_defaults(algorithm: type) -> Mapping[str, Any]:
    """What a class's settings are where nothing is said of them, as JSON values."""
    fields = dataclasses.fields(algorithm) if dataclasses.is_dataclass(algorithm) else ()
    usual = {field.name: plain(field.default) for field in fields if field.default is not dataclasses.MISSING}
    return MappingProxyType(usual)


@dataclasses.dataclass(frozen=True)
class MethodEntry:
    """A named method of clustering: `build(num_clusters, **settings)` gives the algorithm."""

    title: str
    summary: str
    algorithm: type = Imported()
    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # that differ from the algorithm's
    kind: Kind = "clusterer"
    family: str | None = None  # what its variants and policy classes have in common; papers give numbers by family
    policy: str | None = None  # the policy class of a mixture
    long: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # beside `suited`'s settings for long data
    factory: Callable[..., Any] | None = None  # where it is not `algorithm(num_clusters, **settings)`

    def build(self, num_clusters: int, **settings: Any) -> Any:
        """The algorithm with this entry's settings; `settings` override them."""
        fields = {field.name: field for field in dataclasses.fields(self.algorithm)}
        numbers = {name for name, field in fields.items() if isinstance(field.default, bool | int | float)}
        settings = {name: _typed(fields[name], value) if name in numbers else value for name, value in settings.items()}
        return (self.factory or self.algorithm)(num_clusters, **{**self.defaults, **settings})

    def settings(self) -> set[str]:
        """The names of the algorithm's hyperparameters."""
        return {field.name for field in dataclasses.fields(self.algorithm)}

    def suited(self, trajectories: "Trajectories", policy: str | None = None) -> dict[str, Any]:
        """Settings that differ from the defaults on this data: see `clustering.suited`."""
        if self.kind == "ceiling":
            return {}
        return self._with_own(rule.suited(self.algorithm, trajectories, policy or self.policy))

    def long_settings(self) -> dict[str, Any]:
        """`suited` on long trajectories with continuous actions."""
        return self._with_own(rule.LONG_CONTINUOUS.get((self.algorithm, self.policy), {}))

    def _with_own(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        return {**settings, **self.long} if settings else {}


@dataclasses.dataclass(frozen=True)
class LearnerEntry:
    """A named learner, with what differs from its algorithm's defaults and how its data is prepared."""

    title: str
    summary: str
    algorithm: "type[Learner]" = Imported()
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    in_environments: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)  # by Gymnasium name
    imitates: bool = False  # it learns from a relabeller's rewards alone
    discrete: "type[Learner] | None" = Imported(None)  # the algorithm for discrete actions

    kind: ClassVar[Kind] = "learner"

    def on(self, discrete: bool) -> "LearnerEntry":
        """The entry for data with discrete actions, or with continuous ones.

        Raises:
            ValueError: for a learner that takes no discrete actions.
        """
        if not discrete:
            return self
        if self.discrete is None:
            able = ", ".join(name for name, entry in entries("learner").items() if entry.discrete)
            raise ValueError(f"it learns from continuous actions, and these are discrete: choose one of {able}")
        return dataclasses.replace(self, algorithm=self.discrete, in_environments={})

    def names(self) -> set[str]:
        """The settings that `build` takes."""
        return ({field.name for field in dataclasses.fields(self.algorithm)} | _offline()) - {"action_size"}

    def defaults(self) -> dict[str, Any]:
        """The settings that a command may give, with this learner's values."""
        offline = self.build(1)
        values = {**dataclasses.asdict(offline.learner), **dataclasses.asdict(offline)}
        return {name: value for name, value in values.items() if name not in ("action_size", "learner", "sweep")}

    def suited(self, environment: str | None) -> dict[str, Any]:
        """Settings that differ in an environment (a Gymnasium id), the same for all its versions and mazes."""
        return dict(self.in_environments.get(re.split("[-_{]|Sparse|Dense", environment or "")[0], {}))

    def build(self, action_size: int, **settings: Any) -> "Offline":
        """The learner's training; `settings` of the algorithm or of `Offline` override those of the entry.

        Raises:
            ValueError: for a setting that neither has, or a value they refuse.
        """
        settings = {**self.settings, **settings}
        unknown = sorted(set(settings) - self.names())
        if unknown:
            raise ValueError(f"no setting {unknown[0]!r}: choose from {', '.join(sorted(self.names()))}")
        offline_class = imported(learners.Offline)
        fields = {field.name: field for each in (offline_class, self.algorithm) for field in dataclasses.fields(each)}
        settings = {name: _typed(fields[name], value) for name, value in settings.items()}
        offline = {name: settings.pop(name) for name in list(settings) if name in _offline()}
        learner = self.algorithm(action_size, **settings)
        if "block" not in offline:
            updates = [stage.updates for stage in learner.stages() if not stage.whole]
            offline["block"] = math.gcd(*updates) if max(updates) <= BLOCK else math.gcd(BLOCK, *updates)
            if offline["block"] < min(100, *updates):  # each block comes back to the host
                odd = next((each for each in updates if each % 100), updates[0])
                raise ValueError(f"{odd} updates: give a multiple of 100, or a block that divides all updates")
        return offline_class(learner, **offline)


@dataclasses.dataclass(frozen=True)
class PlugInEntry:
    """A named plug-in of learners."""

    title: str
    summary: str
    plug_in: "type[PlugIn]" = Imported()

    kind: ClassVar[Kind] = "plug-in"

    def own(self) -> dict[str, Any]:
        """Its settings, which join the learner's, with their values."""
        return {field.name: field.default for field in dataclasses.fields(self.plug_in)}


def plug_in_entries(names: str | None) -> list[PlugInEntry]:
    """The entries of plug-ins: `c4`, or several joined by `+`, of which the last wraps the others; none of None.

    Raises:
        ValueError: for one that is not there, or is there twice.
    """
    found = entries("plug-in")
    chosen = [] if names is None else names.split("+")
    for name in chosen:
        if name not in found:
            raise ValueError(f"unknown plug-in {name!r}: choose one of {', '.join(found)}, or join them, dr3+c4")
        if chosen.count(name) > 1:
            raise ValueError(f"{name} is given twice")
    return [found[name] for name in chosen]


def learner_entry(name: str, plug_ins: str | None = None) -> LearnerEntry:
    """A learner's entry, with plug-ins where they are named.

    Raises:
        ValueError: for a plug-in that is not there, and for a learner that has nothing to plug into.
    """
    entry = CATALOGUE[name]
    for plug_in in plug_in_entries(plug_ins):
        if not hasattr(entry.algorithm, "CRITIC"):
            raise ValueError(f"{name} has no critics of its own that a plug-in could change")
        joined = imported(learners.plugged)(plug_in.plug_in, entry.algorithm)
        title = f"{entry.title} + {plug_in.title}"
        entry = dataclasses.replace(entry, title=title, algorithm=joined, discrete=None)
    return entry


def revisions(plug_ins: str | None) -> list[int]:
    """Of named plug-ins."""
    return [entry.plug_in.REVISION for entry in plug_in_entries(plug_ins)]


@dataclasses.dataclass(frozen=True)
class RelabellerEntry:
    """A named relabeller, with what differs from its algorithm's defaults."""

    title: str
    summary: str
    algorithm: "type[Relabeller]" = Imported()
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    kind: ClassVar[Kind] = "relabeller"

    def names(self) -> set[str]:
        """The settings that `build` takes."""
        return {field.name for field in dataclasses.fields(self.algorithm)}

    def build(self, **settings: Any) -> "Relabeller":
        """The relabeller; `settings` override those of the entry.

        Raises:
            ValueError: for a setting that it does not have, or a value it refuses.
        """
        fields = {field.name: field for field in dataclasses.fields(self.algorithm)}
        given = {**self.settings, **settings}
        unknown = sorted(set(given) - set(fields))
        if unknown:
            raise ValueError(f"no setting {unknown[0]!r}: choose from {', '.join(sorted(fields))}")
        given = {name: _typed(fields[name], value) for name, value in given.items()}
        if "updates" in given and "block" not in given:
            given["block"] = math.gcd(BLOCK, given["updates"])
        return self.algorithm(**given)


def _typed(field: dataclasses.Field, value: Any) -> Any:
    """A setting's value in its field's type: 1e5 is a whole number, too.

    Raises:
        ValueError: for a value of another type.
    """
    default, wanted = field.default, None
    if isinstance(default, bool):
        wanted = "true or false" if not isinstance(value, bool) else None
    elif isinstance(default, int):
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        wanted = "a whole number" if isinstance(value, bool) or not isinstance(value, int) else None
    elif value is None and (default is None or field.type == float | None):
        pass
    elif isinstance(default, float) or field.type == float | None:
        kind = "a number" if field.type != float | None else "a number, or null"
        wanted = kind if isinstance(value, bool) or not isinstance(value, (int, float)) else None
        wanted = "a finite number" if wanted is None and not math.isfinite(value) else wanted
        value = float(value) if wanted is None else value
    elif isinstance(default, tuple) and field.name != "sweep":
        kind, least, like = int, 1, "a list of sizes [256,256]"
        if field.type == tuple[float, ...]:
            kind, least, like = (int, float), -math.inf, "a list of numbers [1,0.5]"
        elif not default:
            least, like = 0, "a list of whole numbers [0,1]"
        each = lambda item: isinstance(item, kind) and not isinstance(item, bool) and math.isfinite(item)
        listed = isinstance(value, (tuple, list)) and all(each(item) and item >= least for item in value)
        wanted = None if listed else like
    if wanted is not None:
        raise ValueError(f"{field.name} is {value!r}: give {wanted}")
    return value


Entry = MethodEntry | LearnerEntry | PlugInEntry | RelabellerEntry
CATALOGUE: dict[str, Entry] = {}


def register(name: str, entry: Entry) -> None:
    """Gives an entry its name.

    Raises:
        ValueError: for a name that something else has.
    """
    if name in CATALOGUE and CATALOGUE[name] != entry:
        raise ValueError(f"{name} is the name of another {CATALOGUE[name].kind}: give a new one")
    CATALOGUE[name] = entry


def entries(*kinds: Kind) -> dict[str, Any]:
    """The entries of these kinds by name, in order."""
    return {name: entry for name, entry in CATALOGUE.items() if entry.kind in kinds}


def title(name: str) -> str:
    """An entry's title; other names as they are."""
    return CATALOGUE[name].title if name in CATALOGUE else name


def _mixture(algorithm: str, family: str, policy: str, **fields: Any) -> MethodEntry:
    def factory(num_clusters: int, **settings: Any) -> Any:
        return imported(algorithm).default(num_clusters, policy, **settings)

    return MethodEntry(algorithm=algorithm, policy=policy, family=family, factory=factory, **fields)


_pg_kmeans = functools.partial(_mixture, clustering.PGKmeans, "pg_kmeans")
_empo = functools.partial(_mixture, clustering.EmpoEM, "empo")


def _cloning(title: str, policy: str, **defaults: Any) -> MethodEntry:
    summary = "a ceiling, not a method: policies cloned from the TRUE labels"
    return MethodEntry(title, summary, clustering.Cloning, {"policy": policy, **defaults}, kind="ceiling")


_RANGE = "trajclust_jax.clustering.model_selection:PGKmeansRange"
# `trajclust cluster --k auto`: two restarts of every K, nothing reconsidered, which a comparison of K has no use for.
CHOICE_OF_K = {"restarts": 2, "reconsidered": 0.0}
_GRID = "trajclust_jax.clustering.empo_grid:EmpoGrid"


def _released(num_clusters: int, **settings: Any) -> Any:
    return imported(clustering.BehaviourSet).released(num_clusters, **settings)


def _range(num_clusters: int, counts: tuple[int, ...] = tuple(range(2, 10)), **settings: Any) -> Any:
    del num_clusters
    return imported(_RANGE).over(counts, **settings)


# N_b, N_p and mu: EMPO's heuristics, each without and with.
HEURISTICS = tuple(itertools.product((0, 3), (0, 20), (0.0, 0.9)))


def _grid(num_clusters: int, settings: tuple[tuple[int, int, float], ...] = HEURISTICS, **others: Any) -> Any:
    return imported(_GRID).over(num_clusters, settings, **others)


# CAAE as printed: its warm-up stays off on long data too, where `suited` would turn it on.
_PRINTED = {"alpha": 1.0, "warmup_iterations": 0, "iterations": 11}
# IQL's authors' settings, by environment; they scale the rewards of locomotion alone.
_IQL = {
    **{name: {"reward_range": 1000.0} for name in ("HalfCheetah", "Hopper", "Walker2d")},
    "AntMaze": {"expectile": 0.9, "temperature": 10.0, "reward_shift": -1.0},
    **{
        name: {"temperature": 0.5, "dropout": 0.1}
        for name in (*(f"AdroitHand{task}" for task in ("Pen", "Hammer", "Door", "Relocate")), "FrankaKitchen")
    },
}
# EMPO's paper, Table 4, didactic; N_V is 10 epochs of two million transitions. Rewards are scaled so that values of
# episodes of 750 steps, each of which costs 1, are of the size of 1.
_DIDACTIC = {
    **dict.fromkeys(("features", "actor_features"), (64, 64, 64)),
    **{"em_epochs": 60, "critic_updates": 200_000, "value_updates": 80_000, "epochs": 10},
    **{"expectile": 0.9, "discount": 0.999, "reward_scale": 0.01},
}
# Small networks, for one dimension. The behaviours' actions have a std of .01, so that policies between two of them are
# tens of nats from both: the penalty is small beside that.
_GATES_NETWORKS = {"features": (64, 64, 64), "actor_features": (64, 64, 64)}
_GATES = {"Gates": {**_GATES_NETWORKS, "updates": 5_000}}
_GATES_TWO_STAGES = {"Gates": {**_GATES["Gates"], "behaviour_updates": 5_000}}
_GATES_PENALTY = {"Gates": {**_GATES_TWO_STAGES["Gates"], "penalty": 0.01}}
_GATES_SET = {"Gates": {**_GATES_PENALTY["Gates"], "scale": 0.005, "behaviour_rate": 5e-4}}
_CORL_CQL = {
    "conservatism": 10.0,
    "actor_rate": 3e-5,
    "features": (256, 256, 256),
    "actor_features": (256, 256, 256),
}

CATALOGUE.update(
    # clusterers
    pg_kmeans_tabular=_pg_kmeans(
        "tabular", title="PG-Kmeans, tabular", summary="hard EM, one probability for each (observation, action)"
    ),
    pg_kmeans_mlp=_pg_kmeans("mlp", title="PG-Kmeans, MLP", summary="hard EM, Markov policies (FC 128-128)"),
    pg_kmeans_gru=_pg_kmeans("gru", title="PG-Kmeans, GRU", summary="hard EM, policies of the observations so far"),
    pg_kmeans_planner=_pg_kmeans(
        "planner", title="PG-Kmeans, planner", summary="hard EM, policies that plan on the observed map"
    ),
    caae=MethodEntry("CAAE", "an autoencoder whose latents are attracted to codes", clustering.CAAE, family="caae"),
    caae_plain=MethodEntry(
        "CAAE, plain",
        "as printed: no warm-up, random codes; collapses",
        clustering.CAAE,
        {"warmup_iterations": 0},
        family="caae",
        long=_PRINTED,
    ),
    caae_unregularised=MethodEntry(
        "CAAE, unregularised",
        "codes do not repel each other",
        clustering.CAAE,
        {"regularisation": False},
        family="caae",
    ),
    caae_conv=MethodEntry(
        "CAAE, convolutions",
        "encoder and decoder see convolved maps",
        clustering.CAAE,
        {"extractor": "conv"},
        family="caae",
    ),
    caae_planner=MethodEntry(
        "CAAE, planner",
        "encoder and decoder see plans on the observed map",
        clustering.CAAE,
        {"extractor": "planner"},
        family="caae",
    ),
    dec=MethodEntry("DEC", "an autoencoder, then soft assignments sharpened", clustering.DEC, family="dec"),
    vae_kmeans=MethodEntry(
        "VAE + k-means", "a variational autoencoder, k-means on its latents", clustering.VAEKmeans, family="vae"
    ),
    sorl=MethodEntry(
        "SORL",
        "soft EM; the E-step multiplies probabilities, as in SORL's paper",
        clustering.Sorl,
        family="sorl",
        policy="mlp",
    ),
    sorl_sum=MethodEntry(
        "SORL, release",
        "soft EM; the E-step adds probabilities, as in SORL's code",
        clustering.Sorl,
        {"posterior": "sum"},
        family="sorl",
        policy="mlp",
    ),
    empo_mlp=_empo("mlp", title="EMPO's EM", summary="soft EM, posteriors with momentum; Markov policies (FC 128-128)"),
    empo_gru=_empo(
        "gru", title="EMPO's EM, GRU", summary="soft EM, posteriors with momentum; policies of the observations so far"
    ),
    behaviour_set=MethodEntry(
        "Behaviour set",
        "LBRAC-v's: trajectories matched to codes of policies",
        clustering.BehaviourSet,
        family="lbrac_v",
    ),
    behaviour_set_merged=MethodEntry(
        "Behaviour set, merged",
        "15 codes more than policies, merged as PG-Kmeans' clusters are",
        clustering.BehaviourSet,
        {"extra_clusters": 15},
        family="lbrac_v",
    ),
    behaviour_set_released=MethodEntry(
        "Behaviour set, release",
        "embeddings' scale and learning rate as in LBRAC-v's code",
        clustering.BehaviourSet,
        family="lbrac_v",
        factory=_released,
    ),
    behaviour_set_printed=MethodEntry(
        "Behaviour set, printed",
        "as its release, embeddings compared by the products that are printed",
        clustering.BehaviourSet,
        {"cosine": False},
        family="lbrac_v",
        factory=_released,
    ),
    return_kmeans=MethodEntry(
        "Return + k-means", "k-means on sums of rewards", clustering.SummaryKmeans, family="return"
    ),
    length_kmeans=MethodEntry(
        "Length + k-means", "k-means on numbers of steps", clustering.SummaryKmeans, {"of": "length"}
    ),
    mean_kmeans=MethodEntry(
        "Mean step + k-means", "k-means on mean observation and action", clustering.SummaryKmeans, {"of": "mean"}
    ),
    # ceilings
    cloning_mlp=_cloning("Cloning from true labels, MLP", "mlp"),
    cloning_conv=_cloning("Cloning from true labels, convolutions", "mlp", policy_settings=(("extractor", "conv"),)),
    cloning_planner=_cloning("Cloning from true labels, planner", "planner"),
    # a range of K, and policies of clusters that act
    choose_k=MethodEntry(
        "Choice of K",
        "PG-Kmeans for a range of K, scored without labels",
        _RANGE,
        kind="selection",
        factory=_range,
    ),
    empo_grid=MethodEntry(
        "EMPO's EM with and without its heuristics",
        "momentum, pre-training and biasing, all eight at once",
        _GRID,
        kind="grid",
        family="empo",
        factory=_grid,
    ),
    centres_single=_pg_kmeans(
        "mlp",
        title="PG-Kmeans' policies, single run",
        summary="the policies of one run's clusters",
        kind="centres",
    ),
    centres=_pg_kmeans(
        "mlp",
        title="PG-Kmeans' policies, best of 5",
        summary="the policies of the best restart's clusters",
        kind="centres",
    ),
    # learners
    bc=LearnerEntry("BC", "behaviour cloning by least squares", learners.BC, discrete=learners.DiscreteBC),
    bc_gaussian=LearnerEntry(
        "BC, Gaussian", "behaviour cloning by maximum likelihood", learners.BC, {"stochastic": True}
    ),
    bc_10=LearnerEntry(
        "10% BC",
        "behaviour cloning of the tenth with the highest returns",
        learners.BC,
        {"best": 0.1},
        discrete=learners.DiscreteBC,
    ),
    td3_bc=LearnerEntry("TD3+BC", "a deterministic actor by Q, held near the data", learners.TD3BC),
    iql=LearnerEntry(
        "IQL",
        "expectiles of Q, then advantage-weighted cloning (the authors' settings)",
        learners.IQL,
        {"normalise": False, "orthogonal": True},
        in_environments=_IQL,
        discrete=learners.DiscreteIQL,
    ),
    iql_corl=LearnerEntry(
        "IQL, CORL", "as iql, observations normalised, rewards as they are: CORL's settings but on Hopper", learners.IQL
    ),
    awac=LearnerEntry("AWAC", "advantage-weighted cloning with a critic of the policy", learners.AWAC),
    cql=LearnerEntry(
        "CQL",
        "SAC with Q pushed down off the data (young-geng's settings)",
        learners.CQL,
        {"normalise": False},
        in_environments=_GATES,
        discrete=learners.DiscreteCQL,
    ),
    cql_corl=LearnerEntry("CQL, CORL", "as cql, with CORL's settings for locomotion", learners.CQL, _CORL_CQL),
    empo=LearnerEntry(
        "EMPO",
        "each behaviour found and improved, and the best of them chosen at every step",
        learners.EMPO,
        in_environments={"Navigation": _DIDACTIC},
    ),
    brac_v=LearnerEntry(
        "BRAC-v",
        "values with a KL penalty to a cloned behaviour",
        learners.BRACv,
        {"normalise": False},
        in_environments=_GATES_PENALTY,
    ),
    lbrac_v=LearnerEntry(
        "LBRAC-v",
        "BRAC-v held to one of several behaviours, which it finds",
        learners.LBRACv,
        {"normalise": False},
        in_environments=_GATES_SET,
    ),
    bcq=LearnerEntry(
        "BCQ",
        "the best of actions that a VAE of the data gives",
        learners.BCQ,
        {"normalise": False},
        in_environments=_GATES,
    ),
    plas=LearnerEntry(
        "PLAS",
        "a policy in the latents of a VAE of the data's actions",
        learners.PLAS,
        {"normalise": False},
        in_environments=_GATES_TWO_STAGES,
    ),
    sqil=LearnerEntry(
        "SQIL", "TD3+BC, half of each minibatch an expert's, which has a reward", learners.SQIL, imitates=True
    ),
    # plug-ins
    c4=PlugInEntry(
        "C^4", "minibatches of one cluster of gradients each, and a penalty on their cross-covariance", learners.C4
    ),
    dr3=PlugInEntry("DR3", "a penalty on inner products of the features of consecutive states", learners.DR3),
    layer_norm=PlugInEntry("LN", "layer normalisation in the critics", learners.LayerNorm),
    # relabellers
    clue=RelabellerEntry("CLUE", "distances to an expert in a calibrated latent space", relabelling.CLUE),
    clue_uncalibrated=RelabellerEntry(
        "CLUE, not calibrated",
        "as clue, latents of a plain CVAE: the paper's ablation",
        relabelling.CLUE,
        {"calibration": 0.0},
    ),
    clue_mean=RelabellerEntry(
        "CLUE, means", "as clue, latents' means instead of draws", relabelling.CLUE, {"sampled": False}
    ),
    clue_spread=RelabellerEntry(
        "CLUE, c by the spread",
        "as clue, with the temperature whose rewards spread trajectories most",
        relabelling.CLUE,
        {"temperature": None},
    ),
    clue_expected=RelabellerEntry(
        "CLUE, expected",
        "as clue, the expectation over latents instead of draws, c = 1",
        relabelling.CLUE,
        {"expected": True, "temperature": 1.0},
    ),
    otr=RelabellerEntry("OTR", "optimal transport to an expert's episode (needs ott-jax)", relabelling.OTR),
    oril=RelabellerEntry("ORIL", "a discriminator of an expert's steps from all", relabelling.ORIL),
    indicator=RelabellerEntry("1 on the expert", "1 on an expert's steps, 0 on others", relabelling.Indicator),
    constant=RelabellerEntry("1 everywhere", "1 on every step: what living on is worth", relabelling.Constant),
)
