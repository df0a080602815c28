import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from churn_mlops.features import FeatureEngineer


@pytest.mark.usefixtures("array_api")
@parametrize_with_checks([FeatureEngineer()])
def test_scikit_learn_compatibility(estimator, check):
    check(estimator)
