"""Learners over tasks: which are compared, and what the figures show of scores that are known."""

import numpy as np
import pytest

from trajclust_experiments.rendering import figures
from trajclust_experiments.rendering.comparisons import comparison_figures, shared_tasks

LOW, HIGH = np.array([1.0, 2.0, 3.0, 4.0]), np.array([5.0, 6.0, 7.0, 8.0])
SCORES = {
    "low": {"a": LOW, "b": LOW},
    "high": {"a": HIGH, "b": HIGH},
    "one": {"a": HIGH},
    "broken": {"a": np.array([1.0, np.nan]), "b": LOW},
}


@pytest.mark.parametrize(
    ("having", "learners", "tasks"),
    [
        ({"x": "ab", "y": "ab", "z": "a"}, "xy", "ab"),  # 4 scores, not the 3 of task a
        ({"x": "ab", "y": "a", "z": "a", "w": "a", "v": "a"}, "xyzwv", "a"),
        ({"x": "abc", "y": "cab", "z": "c"}, "xy", "abc"),
        ({"x": "abc", "y": "d"}, "x", "abc"),  # nothing in common: one alone
        ({}, "", ""),
    ],
)
def test_as_many_scores_as_can_be_are_compared_on_the_same_tasks(having, learners, tasks):
    found = shared_tasks({learner: dict.fromkeys(each, LOW) for learner, each in having.items()})
    assert found == (list(learners), list(tasks))


@pytest.fixture(scope="module")
def drawn():
    return comparison_figures(SCORES, "return", "low")


def _places(ax):
    """Middle, and both ends of the interval, of each line of a panel."""
    middles = [line.get_xdata()[0] for line in ax.lines if len(line.get_xdata()) == 2 and line.get_ydata()[1] < 1.9]
    return [(m, bar.get_x(), bar.get_x() + bar.get_width()) for m, bar in zip(middles, ax.patches, strict=False)]


def test_aggregates_have_intervals(drawn):
    panels = drawn["intervals"].axes
    assert [ax.get_title() for ax in panels] == ["interquartile mean", "mean", "median of tasks"]
    assert [label.get_text() for label in panels[0].get_yticklabels()] == ["low", "high"], "broken and one have not all"
    for ax in panels:
        for (middle, low, high), expected in zip(_places(ax), (2.5, 6.5), strict=True):
            assert middle == pytest.approx(expected)
            assert expected - 1.5 < low < expected < high < expected + 1.5


def test_profiles_fall_from_all_runs_to_none(drawn):
    (ax,) = drawn["profiles"].axes
    low, high = ax.lines
    for line, values in ((low, LOW), (high, HIGH)):
        levels, shares = line.get_data()
        np.testing.assert_allclose(shares, [(values > level).mean() for level in levels])
    assert (high.get_ydata() >= low.get_ydata()).all()


def test_improvement_is_over_the_reference_where_both_have_runs(drawn):
    (ax,) = drawn["improvement"].axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ["high (2 tasks)", "one (1 task)", "broken (1 task)"]
    places = _places(ax)
    assert places[0] == places[1] == (1, 1, 1)
    assert places[2][0] == 0.5
    assert places[2][1] < 0.5 < places[2][2]


def test_there_is_nothing_to_compare_alone():
    assert comparison_figures({"low": SCORES["low"]}, "return", "low") == {}
    assert comparison_figures({}, "return") == {}
    assert set(comparison_figures({"low": {"a": LOW}, "high": {"a": HIGH}}, "return")) == {"intervals", "profiles"}


def test_saved_figures_hold_their_titles_and_are_sharp(drawn, tmp_path):
    """A title wider than its panel is not clipped: what is beyond the figure's edge makes the picture wider."""
    from PIL import Image

    def width(title, sharp):
        figure = figures.new_figure(1.5, 1.5)
        figure.subplots().set_title(title)
        figures.save_figure(figure, tmp_path / "a.png", sharp)
        with Image.open(tmp_path / "a.png") as image:
            return image.width, image.info["dpi"][0]

    plain, long = width("a", False)[0], width("a title of many words that goes on and on", False)[0]
    assert long > 1.5 * plain
    assert width("a", True) == (pytest.approx(plain * 240 / 150, abs=2), pytest.approx(240, abs=0.1))
    assert figures.caption_of(drawn["profiles"]).endswith(
        "return on a; b, of the 2 that have run on all. Left out, as a run diverged: broken on a."
    )
    assert figures.caption_of(figures.new_figure(1, 1)) == ""
