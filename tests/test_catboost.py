"""CatBoost: scikit-learn's checks, leaves that nobody came to, and files that are used where it is not installed."""

import json
import subprocess
import sys

import numpy as np
import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from churn_mlops.data import generate_sample_data
from churn_mlops.learners.catboost import CatBoostChurnClassifier, catboost_formula
from churn_mlops.models import ChurnModel

pytest.importorskip("catboost")

WITHOUT = """
import sys, json
sys.modules["catboost"] = None
from churn_mlops.formula import load
formula = load(sys.argv[1])
print(json.dumps([formula.probability(customer) for customer in json.loads(sys.argv[2])]))
"""


@pytest.mark.usefixtures("array_api")
@parametrize_with_checks([CatBoostChurnClassifier(cv=2, max_trees=20, learning_rate=0.2, random_state=0)])
def test_scikit_learn_compatibility(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def customers():
    """Return raw columns and outcome of sample customers."""
    table = generate_sample_data(800)
    return table.drop(columns=["customer_id", "churn"]), table["churn"]


@pytest.fixture(scope="module")
def nested():
    """Return customers whose only column is asked twice, so that many leaves of a symmetric tree stay empty."""
    x = np.linspace(-1, 1, 500)
    return x.reshape(-1, 1), (np.sin(6 * x) + np.random.default_rng(0).normal(size=500) > 0).astype(int)


def test_splits_below_which_nothing_differs_are_left_out(nested):
    model = CatBoostChurnClassifier(cv=2, max_trees=30, random_state=0).fit(*nested)
    terms, n_leaves = catboost_formula(model), len(model.booster_.get_leaf_values())
    assert (model.booster_.get_leaf_weights() == 0).mean() > 0.5
    assert terms.trees[0].is_leaf.sum() < n_leaves / 2
    np.testing.assert_allclose(terms(nested[0]), model.decision_function(nested[0]), rtol=0, atol=1e-9)


def test_covers_add_up_and_stay_above_zero(nested):
    (trees,) = catboost_formula(CatBoostChurnClassifier(cv=2, max_trees=30, random_state=0).fit(*nested)).trees
    inner = np.flatnonzero(trees.right)
    assert (trees.cover > 0).all()
    np.testing.assert_allclose(trees.cover[inner], trees.cover[inner + 1] + trees.cover[inner + trees.right[inner]])
    np.testing.assert_allclose(trees.cover[trees.roots], 500)


def test_contributions_of_a_customer_in_an_empty_leaf_add_up(customers):
    model = ChurnModel("catboost", max_trees=40, cv=2).fit(*customers)
    strange = customers[0].apply(lambda column: column.sample(frac=1, random_state=len(column.name)).to_numpy())
    parts = model.formula_.contributions(strange)
    probability = model.predict_proba(strange)[:, 1]
    np.testing.assert_allclose(1 / (1 + np.exp(-parts.log_odds)), probability, rtol=0, atol=1e-9)


@pytest.mark.parametrize("model_type", ["catboost", "blend"])
def test_file_predicts_where_catboost_is_not_installed(model_type, customers, tmp_path):
    X, y = customers
    params = {"max_trees": 20} if model_type == "catboost" else {"members": ["curves", "catboost"], "max_iter": 20}
    model = ChurnModel(model_type, cv=2, **params).fit(X, y)
    path, rows = model.save(tmp_path / "m.safetensors"), X.iloc[:5]
    asked = json.dumps(rows.to_dict("records"))
    done = subprocess.run([sys.executable, "-c", WITHOUT, path, asked], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(json.loads(done.stdout), model.predict_proba(rows)[:, 1], rtol=0, atol=1e-12)


def test_customers_who_are_all_alike_get_the_churn_rate():
    model = CatBoostChurnClassifier(random_state=0).fit(np.ones((40, 2)), np.arange(40) % 4 == 0)
    assert model.predict_proba(np.zeros((1, 2)))[0, 1] == pytest.approx(0.25)
    assert catboost_formula(model)(np.zeros((1, 2)))[0] == pytest.approx(np.log(1 / 3))


def test_number_of_cores_changes_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(6_000, 4))
    y = (X[:, 0] * X[:, 1] + rng.normal(size=6_000) > 0).astype(int)
    answers = []
    for cores in ("1", "3"):
        monkeypatch.setenv("CHURN_THREADS", cores)
        answers.append(CatBoostChurnClassifier(max_trees=15, cv=3, random_state=0).fit(X, y).decision_function(X))
    np.testing.assert_array_equal(*answers)
