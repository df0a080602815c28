"""LightGBM as a model type: a scikit-learn classifier whose trees are arrays."""

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from churn_mlops.learners.lightgbm import LightGBMClassifier


@pytest.mark.usefixtures("array_api")
@parametrize_with_checks([LightGBMClassifier(min_child_samples=2, learning_rate=0.2, max_trees=100)])
def test_scikit_learn_compatibility(estimator, check):
    check(estimator)
