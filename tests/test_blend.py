import os
from itertools import permutations

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score
from sklearn.model_selection import StratifiedKFold
from sklearn.utils.estimator_checks import parametrize_with_checks
from threadpoolctl import threadpool_info

from churn_mlops.data import generate_sample_data, load_csv
from churn_mlops.features import FeatureEngineer
from churn_mlops.learners.blend import MEMBERS, BlendedClassifier, blend_formula
from churn_mlops.learners.boosting import BaggedBoosting
from churn_mlops.learners.registry import MODEL_TYPES
from churn_mlops.learners.splines import SplineLogistic, learn_functions
from churn_mlops.models import ChurnModel
from churn_mlops.threads import limit_threads, usable_cores

CLASSIFIERS = [SplineLogistic, BaggedBoosting, BlendedClassifier]
# What scikit-learn checks does not hang on the number of folds and trees.
SMALL = {
    SplineLogistic: {"cv": 2},
    BaggedBoosting: {"cv": 2, "max_iter": 20, "max_leaf_nodes": (4,)},
    BlendedClassifier: {"cv": 2, "max_iter": 20},
}


@pytest.fixture(scope="module")
def table():
    """Return 600 customers: a curve, an interaction, a 0/1 column, a skewed one and a constant."""
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.normal(size=(600, 3)), rng.random(600) < 0.3, np.exp(rng.normal(size=600)), np.ones(600)])
    log_odds = X[:, 0] ** 2 + 2 * (X[:, 1] > 0) * (X[:, 2] > 0) + X[:, 3] - np.log(X[:, 4]) - 2
    return X, (rng.random(600) < 1 / (1 + np.exp(-log_odds))).astype(int)


@pytest.mark.usefixtures("array_api")
@parametrize_with_checks([kind(random_state=0, **few) for kind, few in SMALL.items()])
def test_scikit_learn_compatibility(estimator, check):
    check(estimator)


def test_functions_of_a_curve_add_up_to_one_and_stay_flat_outside(table):
    for column in table[0].T:
        functions = learn_functions(0, column, 7)
        if len(functions) > 1:
            np.testing.assert_allclose(sum(each(column) for each in functions), 1)
        ends = np.array([column.min() - 1e9, column.min(), column.max(), column.max() + 1e9])
        for each in functions:
            low, at_low, at_high, high = each(ends)
            assert (low, high) == (at_low, at_high)


def test_curve_over_values_that_repeat_has_a_knot_at_each():
    products = np.repeat([1.0, 2.0, 3.0, 4.0], [50, 46, 3, 1])
    for each in learn_functions(0, products, 7):
        np.testing.assert_array_equal([*each.starts, each.maximum], [1, 2, 3, 4])


def test_curve_over_values_that_almost_coincide_stays_bounded():
    values = np.repeat([0.0, 0.3, 0.1 + 0.2, 1.0], 30)
    grid = np.linspace(0, 1, 500)
    assert max(np.abs(each(grid)).max() for each in learn_functions(0, values, 7)) <= 1 + 1e-9


def test_blend_is_the_weighted_sum_of_its_parts(table):
    X, y = table
    blend = BlendedClassifier(random_state=0).fit(X, y)
    curves, trees = blend.members_
    parts = np.column_stack([curves.decision_function(X), trees.decision_function(X)])
    np.testing.assert_allclose(blend.decision_function(X), blend.intercept_ + parts @ blend.weights_, rtol=1e-12)
    shares = curves.intercept_ + curves.contributions(X).sum(axis=1)
    np.testing.assert_allclose(shares, parts[:, 0], atol=1e-12)
    assert (blend.weights_ >= 0).all()


HERE = [name for name in MEMBERS if name != "catboost" or MODEL_TYPES["catboost"].is_installed]
COMBINATIONS = [names for n in range(1, len(HERE) + 1) for names in permutations(HERE, n)]


@pytest.mark.parametrize("members", COMBINATIONS, ids="+".join)
def test_any_members_make_a_blend_that_equals_its_formula(members, table):
    X, y = table
    blend = BlendedClassifier(members=members, max_iter=40, cv=3, random_state=0).fit(X, y)
    assert len(blend.weights_) == len(members)
    strangers = np.column_stack([np.random.default_rng(1).permutation(column) for column in X.T]) * 1.3
    written = blend_formula(blend, X.mean(axis=0))(strangers)
    np.testing.assert_allclose(written, blend.decision_function(strangers), rtol=0, atol=1e-9)


def test_members_survive_the_model_file(tmp_path):
    customers = generate_sample_data(500)
    X, y = customers.drop(columns=["customer_id", "churn"]), customers["churn"]
    model = ChurnModel("blend", members=("trees", "curves"), cv=2, max_iter=20).fit(X, y)
    again = ChurnModel.load(model.save(tmp_path / "m.safetensors"))
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
    assert clone(again).fit(X, y).predict_proba(X).tolist() == model.predict_proba(X).tolist()


def test_a_blend_of_one_member_ranks_as_it_does(table):
    X, y = table
    curves = BlendedClassifier(members=["curves"], random_state=0).fit(X, y)
    order = np.argsort(curves.decision_function(X))
    assert (np.diff(curves.members_[0].decision_function(X)[order]) >= 0).all()


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (["curves", "random_forest"], "'random_forest' is no member of a blend: a forest averages probabilities"),
        (["curves", "crystal_ball"], "'crystal_ball' is no member of a blend; there are curves, trees"),
        (["trees", "trees"], "a blend takes a list of different names"),
        ([], "a blend takes a list of different names"),
    ],
)
def test_what_cannot_be_a_member_is_refused_by_name(members, message, table):
    with pytest.raises(ValueError, match=message):
        BlendedClassifier(members=members).fit(*table)


def test_booster_keeps_the_trees_up_to_its_best_round_and_no_more(table):
    for booster in BaggedBoosting(patience=20, random_state=0).fit(*table).boosters_:
        rounds = booster.validation_score_
        assert rounds[booster.n_iter_] == rounds.max()
        assert len(rounds) == booster.n_iter_ + 21


@pytest.mark.parametrize("churners", [1, 2, 3])
@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_a_handful_of_churners_is_enough_to_fit(kind, churners, table):
    y = np.zeros(40, dtype=int)
    y[:churners] = 1
    probability = kind(random_state=0).fit(table[0][:40], y).predict_proba(table[0])
    assert np.isfinite(probability).all()


def test_order_of_rows_that_follows_the_target_does_no_harm(table):
    X, y = table
    order = np.argsort(y, kind="stable")
    blend = BlendedClassifier(random_state=0).fit(X[order], y[order])
    assert roc_auc_score(y, blend.predict_proba(X)[:, 1]) > 0.8
    assert blend.predict_proba(X)[:, 1].mean() == pytest.approx(y.mean(), abs=0.02)


def test_perfect_separation_gives_finite_weights():
    X = np.linspace(-1, 1, 300).reshape(-1, 1)
    blend = BlendedClassifier(random_state=0).fit(X, (X[:, 0] > 0).astype(int))
    assert np.isfinite(blend.weights_).all()
    assert np.isfinite(blend.predict_proba(np.array([[1e300], [-1e300]]))).all()


def test_one_class_is_refused_in_words(table):
    with pytest.raises(ValueError, match="needs two classes, but y holds one class"):
        BlendedClassifier().fit(table[0], np.zeros(600))


def test_number_of_cores_changes_nothing(table, monkeypatch):
    X, y = np.vstack([table[0]] * 34), np.tile(table[1], 34)
    answers = []
    for cores in ("1", "3"):
        monkeypatch.setenv("CHURN_THREADS", cores)
        answers.append(BaggedBoosting(max_iter=5, random_state=0).fit(X, y).decision_function(X))
    np.testing.assert_array_equal(*answers)


def test_fitting_leaves_the_limits_on_threads_as_they_were(table):
    before = threadpool_info()
    BlendedClassifier(random_state=0).fit(*table).predict_proba(table[0])
    assert threadpool_info() == before


def test_a_limit_holds_inside_its_block_only():
    before = threadpool_info()
    with limit_threads(1):
        assert all(pool["num_threads"] == 1 for pool in threadpool_info())
    assert threadpool_info() == before


def test_usable_cores_follow_the_variable_and_then_the_machine(monkeypatch):
    monkeypatch.setenv("CHURN_THREADS", " 3 ")
    assert usable_cores() == 3
    monkeypatch.delenv("CHURN_THREADS")
    assert 1 <= usable_cores() <= os.cpu_count()


@pytest.mark.parametrize("given", ["0", "-1", "two", "1.5"])
def test_a_bad_number_of_cores_is_refused_by_name(given, monkeypatch):
    monkeypatch.setenv("CHURN_THREADS", given)
    with pytest.raises(ValueError, match="CHURN_THREADS"):
        usable_cores()


def test_telco_out_of_fold(telco):
    customers = load_csv(telco).drop(columns="customerID")
    y = (customers.pop("Churn") == "Yes").to_numpy().astype(int)
    metrics, out_of_fold = [], np.zeros(len(y))
    for train, test in StratifiedKFold(5, shuffle=True, random_state=0).split(customers, y):
        engineer = FeatureEngineer().fit(customers.iloc[train])
        blend = BlendedClassifier(random_state=42).fit(engineer.transform(customers.iloc[train]), y[train])
        p = out_of_fold[test] = blend.predict_proba(engineer.transform(customers.iloc[test]))[:, 1]
        metrics.append([roc_auc_score(y[test], p), average_precision_score(y[test], p), log_loss(y[test], p)])
    auc, precision, loss = np.mean(metrics, axis=0)
    bins = np.minimum((out_of_fold * 10).astype(int), 9)
    calibration_error = np.abs(np.bincount(bins, out_of_fold - y)).sum() / len(y)
    assert auc >= 0.850
    assert precision >= 0.671
    assert loss <= 0.411
    assert calibration_error <= 0.02
