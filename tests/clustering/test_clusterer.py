"""Every algorithm has what callers ask of it."""

import dataclasses
import inspect

import pytest

from trajclust_experiments.catalogue import entries
from trajclust_jax.clustering.clusterer import Algorithm, Clusterer
from trajclust_jax.training import Method, Phase

CLUSTERERS, CEILINGS = entries("clusterer", "selection", "centres"), entries("ceiling")


def _members(protocol):
    """The names that a protocol and those it extends declare."""
    classes = [each for each in protocol.__mro__ if getattr(each, "_is_protocol", False)]
    names = {name for each in classes for name in (*vars(each), *each.__annotations__)}
    return {name for name in names if not name.startswith("_")}


def test_the_protocol_names_what_callers_use():
    assert _members(Algorithm) == {"num_clusters", "VERSION", "ACTIONS_VERSION", "check"}
    further = {"POLICY", "default", "support_policies", "phases", "result"}
    further |= {"preprocessing", "prepare", "model", "assign"}
    assert _members(Clusterer) == _members(Algorithm) | further


@pytest.mark.parametrize("name", CLUSTERERS)
def test_a_clusterer_follows_the_protocol(name):
    method = CLUSTERERS[name].build(3, **({"counts": (2, 3)} if CLUSTERERS[name].kind == "selection" else {}))
    assert isinstance(method, Clusterer)
    _check_algorithm(method)
    phases = method.phases()
    assert phases
    assert all(isinstance(phase, Phase) for phase in phases)
    for function in ("check", "prepare", "phases", "result", "preprocessing", "support_policies", "model", "assign"):
        given, asked = (inspect.signature(getattr(each, function)).parameters for each in (type(method), Clusterer))
        assert len(given) == len(asked), function
    assert (method.support_policies() is None) == (CLUSTERERS[name].algorithm.__name__ == "SummaryKmeans")
    default = type(method).default(3, **({"counts": (2, 3)} if CLUSTERERS[name].kind == "selection" else {}))
    assert type(default) is type(method)


@pytest.mark.parametrize("name", CEILINGS)
def test_a_ceiling_is_an_algorithm_and_a_method_with_its_labels(name):
    method = CEILINGS[name].build(3)
    assert isinstance(method, Algorithm)
    assert not isinstance(method, Clusterer)
    _check_algorithm(method)
    assert all(hasattr(method.labelled([0, 1, 2]), member) for member in _members(Method))


def _check_algorithm(method):
    assert dataclasses.is_dataclass(method)
    assert dataclasses.fields(method)[0].name == "num_clusters"
    assert method.num_clusters == 3
    assert isinstance(type(method).VERSION, int)
    assert type(method).ACTIONS_VERSION is None or isinstance(type(method).ACTIONS_VERSION, int)
