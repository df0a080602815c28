"""Every model type writes down what its estimator says, whatever its parameters; what has no formula is refused."""

import pickle

import numpy as np
import pandas as pd
import pytest
from scipy.special import logit

from churn_mlops.learners.registry import MODEL_TYPES, make_estimator, refuse_params
from churn_mlops.models import ChurnModel

INSTALLED = [name for name, known in MODEL_TYPES.items() if known.is_installed]
FEWER = {"n_estimators": 12, "max_trees": 30, "max_iter": 30}
# What a parameter is changed to; one that is not here is left alone, for the reason beside it.
CHANGED = {
    "C": 0.02,
    "bootstrap": False,
    "ccp_alpha": 0.002,
    "class_weight": "balanced",
    "criterion": "entropy",
    "cv": 3,
    "depth": 3,
    "dual": True,
    "early_stopping": True,
    "fit_intercept": False,
    "interaction_cst": "no_interactions",
    "intercept_scaling": 3.0,
    "l1_ratio": 1.0,
    "l2_leaf_reg": 20.0,
    "l2_regularization": 5.0,
    "learning_rate": 0.2,
    "loss": "log_loss",
    "max_bins": 17,
    "max_depth": 3,
    "max_features": 0.5,
    "max_leaf_nodes": 5,
    "max_samples": 0.5,
    "members": ("trees",),
    "min_child_samples": 3,
    "min_impurity_decrease": 0.001,
    "min_samples_leaf": 40,
    "min_samples_split": 60,
    "min_weight_fraction_leaf": 0.05,
    "monotonic_cst": [1, 0, 0, 0, 0, 0],
    "n_iter_no_change": 3,
    "num_leaves": 4,
    "oob_score": True,
    "patience": 3,
    "random_state": 7,
    "reg_lambda": 20.0,
    "scoring": "roc_auc",
    "solver": "liblinear",
    "tol": 0.1,
    "validation_fraction": 0.3,
}
LEFT_ALONE = {
    "categorical_features": "refused",
    "n_jobs": "changes the speed alone",
    "penalty": "deprecated by scikit-learn",
    "verbose": "prints",
    "warm_start": "a model is fitted once",
}
TOGETHER = {
    "dual": {"solver": "liblinear"},
    "intercept_scaling": {"solver": "liblinear"},
    "l1_ratio": {"solver": "saga", "max_iter": 2_000},
    "n_iter_no_change": {"early_stopping": True},
    "scoring": {"early_stopping": True},
    "validation_fraction": {"early_stopping": True},
}
CASES = [
    (model_type, name)
    for model_type in INSTALLED
    for name in make_estimator(model_type).get_params()
    if name not in LEFT_ALONE and name not in FEWER
]


@pytest.fixture(scope="module")
def table():
    """Return 600 customers: numbers, a 0/1 column, a skewed one and a constant."""
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.normal(size=(600, 3)), rng.random(600) < 0.3, np.exp(rng.normal(size=600)), np.ones(600)])
    log_odds = X[:, 0] + 2 * (X[:, 1] > 0) * (X[:, 2] > 0) + X[:, 3] - np.log(X[:, 4]) - 2
    return X, (rng.random(600) < 1 / (1 + np.exp(-log_odds))).astype(int)


@pytest.fixture(scope="module")
def strangers(table):
    """Return customers unlike those of training: far out, between the known values, and in no known combination."""
    rng = np.random.default_rng(1)
    return np.column_stack([rng.permutation(column) for column in table[0].T]) * rng.choice([0.5, 1, 30], size=(600, 1))


def assert_formula_is(model_type, estimator, X, averages):
    """Assert that the formula of an estimator gives its probabilities for customers."""
    terms, probability = MODEL_TYPES[model_type].to_formula(estimator, averages), estimator.predict_proba(X)[:, 1]
    written = terms(X)
    np.testing.assert_allclose(1 / (1 + np.exp(-written)) if terms.link == "logit" else written, probability, atol=1e-9)
    if terms.link == "logit":
        inside = (probability > 1e-4) & (probability < 1 - 1e-4)
        np.testing.assert_allclose(written[inside], logit(probability[inside]), atol=1e-9)


@pytest.mark.parametrize(("model_type", "name"), CASES)
def test_formula_is_the_estimator_when_a_parameter_is_changed(model_type, name, table, strangers):
    known = make_estimator(model_type).get_params()
    quick = {few: value for few, value in FEWER.items() if few in known and model_type != "logistic_regression"}
    params = {**quick, **TOGETHER.get(name, {}), name: CHANGED[name]}
    if model_type == "logistic_regression" and name == "solver":
        params["max_iter"] = 500
    estimator = make_estimator(model_type, {each: value for each, value in params.items() if each in known}).fit(*table)
    assert_formula_is(model_type, estimator, strangers, table[0].mean(axis=0))


NUMBERS = [
    (model_type, name)
    for model_type in INSTALLED
    for name, value in make_estimator(model_type).get_params().items()
    if isinstance(value, int | float) and not isinstance(value, bool) and name not in ("random_state", "verbose")
]


@pytest.mark.parametrize(("model_type", "name"), NUMBERS)
@pytest.mark.parametrize("wrong", ["abc", -3, float("nan")])
def test_a_parameter_that_is_no_such_number_is_named(wrong, model_type, name, table):
    with pytest.raises(ValueError, match=f"{name}.*{wrong}"):
        ChurnModel(model_type, **{name: wrong}).fit(pd.DataFrame(table[0][:, :5]), table[1])


def test_a_number_of_threads_that_is_none_is_named(table):
    with pytest.raises(ValueError, match=r"'n_jobs' parameter must be a whole number or None\. Got 'abc' instead"):
        ChurnModel("lightgbm", n_jobs="abc").fit(pd.DataFrame(table[0][:, :5]), table[1])


@pytest.mark.parametrize("model_type", INSTALLED)
def test_curves_of_a_formula_have_the_mean_zero(model_type, table):
    X, y = table
    for curve in MODEL_TYPES[model_type].to_formula(make_estimator(model_type).fit(X, y), X.mean(axis=0)).curves:
        assert abs(curve(X[:, curve.feature]).mean()) < 1e-9


@pytest.mark.parametrize(
    ("model_type", "name"), [(model_type, name) for model_type in INSTALLED for name in MODEL_TYPES[model_type].refused]
)
def test_parameter_without_a_formula_is_refused_by_name(model_type, name):
    with pytest.raises(ValueError, match=f"^{model_type}: parameter '{name}' has no formula: "):
        refuse_params(model_type, {name: [0, 1]})


@pytest.mark.parametrize("model_type", INSTALLED)
def test_defaults_are_not_refused(model_type):
    refuse_params(model_type, make_estimator(model_type).get_params())
    refuse_params(model_type, dict.fromkeys(MODEL_TYPES[model_type].refused))


def test_trees_that_split_by_category_would_have_no_formula(table):
    X, y = table[0].copy(), table[1]
    X[:, 2] = np.digitize(X[:, 2], [-1, 0, 1])
    boosting = make_estimator("hist_gradient_boosting", {"categorical_features": [2]}).fit(X, y)
    with pytest.raises(AssertionError):
        assert_formula_is("hist_gradient_boosting", boosting, X, X.mean(axis=0))


def test_pickled_lightgbm_predicts_the_same(table):
    pytest.importorskip("lightgbm")
    model = make_estimator("lightgbm", {"max_trees": 20}).fit(*table)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(table[0]), model.predict_proba(table[0]))
