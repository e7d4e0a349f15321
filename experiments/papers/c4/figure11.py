"""Figure 11 of the C^4 paper: the trace of the cross-covariance over the training.

    trajclust run c4/figure11 --preset cpu --datasets hopper-medium-expert --methods td3_bc

The cells are Table 1's.
"""

from trajclust_experiments.papers import c4
from trajclust_experiments.rendering import columns
from trajclust_experiments.tables import Records, Table


def _trace(record):
    """`[I]` and `[I, S]`: of the first critic's gradients over all transitions (section E.6)."""
    return c4.steps_of(record, "clusters/c"), c4.course(record, "clusters/c")


def _relative(record):
    """In units of the variance of Q."""
    return c4.steps_of(record, "clusters/c"), c4.course(record, "clusters/c") / c4.course(record, "clusters/variance")


def render(records: Records):
    header = [columns.task(), columns.method("learner", lambda line: c4.title_of(line.record)), *c4.measure_columns()]
    figures = {
        "trace": c4.course_figure(records, _trace, "tr C / M", log=True),
        "relative": c4.course_figure(records, _relative, "tr C / M / var Q"),
    }
    return c4.page("C^4 paper, Figure 11: the trace of the cross-covariance", header, records), figures


TABLE = Table(
    name="c4/figure11",
    summary="the trace of the cross-covariance over the training",
    datasets=c4.DATASETS,
    methods=c4.METHODS,
    presets=c4.PRESETS,
    cells=c4.cells,
    render=render,
)
