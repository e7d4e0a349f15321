"""Rankings against scikit-learn and SciPy."""

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from trajclust_jax.metrics import auc, rank_correlation


def test_against_references():
    rng = np.random.default_rng(0)
    scores, others = rng.integers(0, 9, 200), rng.standard_normal(200)  # with ties
    positive = rng.random(200) < 0.3
    assert auc(scores, positive) == pytest.approx(roc_auc_score(positive, scores))
    assert rank_correlation(scores, others) == pytest.approx(spearmanr(scores, others)[0])


def test_by_hand():
    assert auc([1, 2, 3, 4], [False, False, True, True]) == 1
    assert auc([1, 2, 2, 4], [False, True, False, True]) == 0.875
    assert rank_correlation([1, 2, 3], [9, 5, 1]) == -1


def test_what_cannot_be_ordered():
    assert np.isnan(auc([1, 2], [True, True]))
    assert np.isnan(auc([], []))
    assert np.isnan(rank_correlation([1, 1, 1], [1, 2, 3]))
