"""What the report's words mean: tasks, methods, scores."""

from collections.abc import Collection, Sequence
from typing import Any

from trajclust_experiments.catalogue import CATALOGUE
from trajclust_experiments.cells.methods import ORACLE
from trajclust_experiments.rendering.markdown import markdown_table, plain_text
from trajclust_jax.data import REGISTRY

# What tables' headers mean; of those that begin alike, the first.
SCORES = {
    "NMI": "Normalised mutual information of the clusters and the true policies: 1 for the same partition, 0 for "
    "independent ones.",
    "adjusted Rand": "Share of pairs of trajectories on which the two partitions agree, corrected for chance: 1 for "
    "the same partition, 0 on average for random ones.",
    "accuracy": "Share of trajectories whose cluster is that of their policy, under the best one-to-one naming.",
    "behavioural KL": "Divergence of the true policies from the found ones that match them, in nats a step: 0 for the "
    "same behaviour.",
    "Rand index": "Share of pairs of trajectories on which the two partitions agree.",
    "homogeneity": "1 where every cluster holds one policy's trajectories alone, however many clusters there are.",
    "difference": "Ours minus the paper's.",
    "oracle": "What Bayes assignment under the true policies, which it is given, reaches; of returns the best that the "
    "data hold.",
    "return": "Sum of an episode's rewards, mean over episodes and seeds.",
    "score": "Return on D4RL's scale: 0 for a random policy, 100 for D4RL's expert.",
    "interquartile mean": "The mean of the middle half of all runs: outliers do not move it as they move a mean.",
    "best evaluation": "The highest of a seed's evaluations, mean over seeds; it flatters, as it looks at the answer.",
    "95% interval": "Percentile bootstrap interval of the mean over seeds.",
    "relative return": "Return over the mean return of the policies in the data.",
    "bias of Q": "Estimated value minus the return that was then got.",
    "AUC": "Probability that an expert's step (or trajectory) is rewarded more than another's: .5 by chance.",
    "rank correlation": "Spearman's, of the two orders: 1 for the same, 0 for unrelated ones.",
    "tr C / M": "Trace of the cross-covariance of the gradients of Q at a step and of the target at the next one, "
    "divided by their number.",
    "within clusters": "The same within clusters of gradients, mean over them by their shares.",
    "var Q": "Variance of Q over the data.",
    "effective clusters": "Clusters of gradients that hold a hundredth of the transitions or more.",
    "used codes": "Codes, of those offered, that any trajectory is assigned to.",
    "calibration error": "Mean gap between a clustering's confidence and the share of it that is right.",
    "mean NMI between restarts": "How far restarts agree with each other, without labels.",
    "seeds": "Independent trainings on the same data; those that say themselves that they went wrong are warned of.",
}
_ORACLE = ("Oracle", "Bayes assignment under the true policies: a ceiling, not a method")


def glossary(records: Sequence[dict[str, Any]], headers: Collection[str]) -> str:
    """Markdown of the tasks and methods that records are of, and of the scores that tables' headers name."""
    names = dict.fromkeys(record["cell"]["dataset"] for record in records)
    tasks = [
        [REGISTRY[name].title, name, REGISTRY[name].summary, str(REGISTRY[name].num_policies)]
        for name in REGISTRY
        if name in names
    ]
    used = {record["cell"]["method"] for record in records}
    for record in records:
        used |= set(record["cell"].get("plugin", {}).get("name", "").split("+"))
    methods = [[entry.title, name, entry.kind, entry.summary] for name, entry in CATALOGUE.items() if name in used]
    methods += [[_ORACLE[0], ORACLE, "ceiling", _ORACLE[1]]] if ORACLE in used else []
    scores = [[name, text] for name, text in SCORES.items() if any(header.startswith(name) for header in headers)]
    parts = ["## Glossary\n"]
    for heading, header, rows in (
        ("Tasks", ["task", "name", "what it is", "policies"], tasks),
        ("Methods", ["method", "name", "kind", "what it does"], methods),
        ("Scores", ["score", "what it says"], scores),
    ):
        if rows:
            parts.append(f"### {heading}\n\n{markdown_table(header, [list(map(plain_text, row)) for row in rows])}\n")
    return "\n".join(parts)
