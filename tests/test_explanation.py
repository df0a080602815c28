from itertools import combinations
from math import comb

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.exceptions import NotFittedError

from churn_mlops.data import generate_sample_data
from churn_mlops.evaluation.explanation import (
    Explanation,
    global_importance,
    partial_dependence_table,
)
from churn_mlops.features import FeatureEngineer
from churn_mlops.formula.reasons import shapley_values
from churn_mlops.formula.trees import average_value, cut_trees
from churn_mlops.learners.boosting import boosters_formula
from churn_mlops.learners.forest import forest_formula
from churn_mlops.learners.registry import MODEL_TYPES
from churn_mlops.models import ChurnModel, ChurnPredictor

SMALL = {
    "blend": {"max_iter": 20, "cv": 2},
    "random_forest": {"n_estimators": 20},
    "hist_gradient_boosting": {"max_iter": 30},
    "lightgbm": {"max_trees": 30},
}


def own_log_odds(model, X):
    """Return a model's log-odds as the documentation defines them."""
    p = np.clip(model.predict_proba(X)[:, 1], 1e-6, 1 - 1e-6)
    return np.log(p / (1 - p))


@pytest.fixture(scope="module")
def customers():
    """Return a table with every kind of column, gaps included, and the outcome."""
    table = generate_sample_data(500)
    rng = np.random.default_rng(0)
    X = table.drop(columns=["customer_id", "churn"]).assign(
        paperless=rng.random(500) < 0.5,
        signed_up=pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 700, 500), unit="D"),
        city=rng.choice(list("abcdefgh"), 500),
    )
    X["tenure"] = X["tenure"].astype(float).mask(rng.random(500) < 0.1)
    X["contract_type"] = X["contract_type"].mask(rng.random(500) < 0.1)
    return X, table["churn"]


@pytest.fixture(scope="module", params=MODEL_TYPES)
def model(request, customers):
    """Return a fitted model of each type."""
    engineer = FeatureEngineer(derive=True, max_categories=5)
    return ChurnModel(request.param, feature_engineer=engineer, **SMALL.get(request.param, {})).fit(*customers)


class TestEveryModelType:
    def test_contributions_add_up_to_the_models_log_odds(self, model, customers):
        explanation = model.explain(customers[0])
        np.testing.assert_allclose(explanation.log_odds, own_log_odds(model, customers[0]), atol=1e-6)

    def test_strange_values_add_up(self, model, customers):
        strange = customers[0].head(3).copy()
        strange["contract_type"] = ["Lifetime", None, "Two year"]
        strange["tenure"] = [np.nan, 1e9, -1e9]
        explanation = model.explain(strange)
        assert np.isfinite(explanation.contributions.to_numpy()).all()
        np.testing.assert_allclose(explanation.log_odds, own_log_odds(model, strange), atol=1e-6)

    def test_the_columns_are_the_raw_and_derived_ones(self, model, customers):
        explanation = model.explain(customers[0].tail(4))
        assert list(explanation.contributions) == list(model.feature_engineer_.columns_)
        assert {"contract_type", "log_tenure"} <= set(explanation.contributions)
        assert explanation.contributions.index.equals(customers[0].index[-4:])

    def test_the_average_contribution_is_small(self, model, customers):
        contributions = model.explain(customers[0]).contributions
        assert (contributions.mean().abs() < 0.35 * contributions.abs().mean().max()).all()

    def test_one_customer_gets_the_same_reasons_as_in_a_table(self, model, customers):
        together, alone = model.explain(customers[0].head(230)), model.explain(customers[0].iloc[[229]])
        np.testing.assert_allclose(together.contributions.iloc[[229]], alone.contributions, atol=1e-9)

    def test_a_saved_model_explains_the_same(self, model, customers, tmp_path):
        again = ChurnModel.load(model.save(tmp_path / "model.safetensors"))
        few = customers[0].head(5)
        pd.testing.assert_frame_equal(again.explain(few).contributions, model.explain(few).contributions)

    def test_telco_adds_up(self, model, telco):
        table = pd.read_csv(telco).drop(columns="customerID").head(2_000)
        X, y = table.drop(columns="Churn"), table["Churn"]
        fitted = ChurnModel(model.model_type, **SMALL.get(model.model_type, {})).fit(X, y)
        np.testing.assert_allclose(fitted.explain(X.head(50)).log_odds, own_log_odds(fitted, X.head(50)), atol=1e-6)


def test_unfitted_model_does_not_explain(customers):
    with pytest.raises(NotFittedError, match="fitted before it explains"):
        ChurnModel().explain(customers[0])


def test_logistic_regression_counts_from_the_average_customer(customers):
    model = ChurnModel("logistic_regression").fit(*customers)
    np.testing.assert_allclose(model.explain(customers[0]).contributions.mean(), 0, atol=1e-9)


class TestLimits:
    def test_a_forest_that_is_certain_stays_finite(self, customers):
        model = ChurnModel("random_forest", n_estimators=3, min_samples_leaf=1, bootstrap=False).fit(*customers)
        explanation = model.explain(customers[0])
        assert set(np.unique(model.predict_proba(customers[0]))) == {0.0, 1.0}
        assert np.isfinite(explanation.contributions.to_numpy()).all()
        np.testing.assert_allclose(explanation.log_odds, own_log_odds(model, customers[0]), atol=1e-6)

    @pytest.mark.parametrize("params", [{"C": 1e9}, {"C": 1e9, "fit_intercept": False}])
    def test_log_odds_beyond_the_limit_are_clipped(self, params):
        X, y = pd.DataFrame({"a": np.arange(40.0), "b": np.tile([0.0, 1.0], 20)}), np.arange(40) >= 20
        model = ChurnModel("logistic_regression", **params).fit(X, y)
        explanation = model.explain(X)
        assert explanation.log_odds.abs().max() == pytest.approx(np.log(1e6 - 1))
        np.testing.assert_allclose(explanation.log_odds, own_log_odds(model, X), atol=1e-6)

    @pytest.mark.parametrize("name", ["random_forest", "hist_gradient_boosting"])
    def test_trees_without_a_split_have_no_reasons(self, customers, name):
        model = ChurnModel(name, min_samples_leaf=400).fit(*customers)
        explanation = model.explain(customers[0].head(3))
        assert (explanation.contributions == 0).all(axis=None)
        assert explanation.reasons(0) == []

    def test_a_forest_keeps_the_proportions_of_its_shapley_values(self, customers):
        model = ChurnModel("random_forest", n_estimators=5).fit(*customers)
        engineer, few = model.feature_engineer_, customers[0].head(20)
        features = engineer.transform(few).astype(np.float32)
        players = np.repeat(np.arange(len(engineer.columns_)), [c.n_features for c in engineer.columns_.values()])
        values = shapley_values(forest_formula(model.estimator_, None).trees[0], features, players)
        factors = model.explain(few).contributions.to_numpy() / np.where(values == 0, np.nan, values)
        np.testing.assert_allclose(np.nanmin(factors, axis=1), np.nanmax(factors, axis=1), rtol=1e-9)


def expectation(tree, row, known, players, node=0):
    """Predict with some players known, the others averaged over the training customers: the definition."""
    if not tree.right[node]:
        return tree.value[node]
    ways = (node + 1, node + tree.right[node])
    if players[tree.feature[node]] in known:
        return expectation(tree, row, known, players, ways[int(row[tree.feature[node]] > tree.threshold[node])])
    shares = [tree.cover[way] / tree.cover[node] for way in ways]
    return sum(share * expectation(tree, row, known, players, way) for share, way in zip(shares, ways, strict=True))


def single_trees(trees):
    """Cut trees into single ones."""
    return [cut_trees(trees, i, i + 1) for i in range(len(trees))]


def by_definition(trees, row, players):
    """Work out Shapley values from all subsets of players."""
    n = players.max() + 1
    values = np.zeros(n)
    for player in range(n):
        others = [other for other in range(n) if other != player]
        for size in range(n):
            for subset in combinations(others, size):
                gains = (
                    expectation(tree, row, {*subset, player}, players) - expectation(tree, row, set(subset), players)
                    for tree in single_trees(trees)
                )
                values[player] += sum(gains) / (n * comb(n - 1, size))
    return values


@pytest.mark.parametrize("players", [[0, 1, 2, 3, 4, 5], [0, 0, 1, 1, 2, 3]], ids=["single features", "groups"])
@pytest.mark.parametrize("kind", ["forest", "boosting"])
def test_shapley_values_follow_the_definition(kind, players):
    rng = np.random.default_rng(1)
    X = rng.normal(size=(200, 6)).astype(np.float32)
    y = (X[:, 0] * X[:, 2] + X[:, 4] + rng.normal(size=200) > 0).astype(int)
    if kind == "forest":
        trees = forest_formula(RandomForestClassifier(4, random_state=0).fit(X, y), None).trees[0]
    else:
        trees = boosters_formula([HistGradientBoostingClassifier(max_iter=4, min_samples_leaf=2).fit(X, y)]).trees[0]
    players = np.array(players)
    values = shapley_values(trees, X[:2], players)
    np.testing.assert_allclose(values, [by_definition(trees, row, players) for row in X[:2]], atol=1e-12)


def test_average_value_is_the_prediction_with_nothing_known():
    X, y = np.random.default_rng(2).normal(size=(100, 3)), np.arange(100) % 2
    trees = forest_formula(RandomForestClassifier(3, random_state=0).fit(X, y), None).trees[0]
    nothing = sum(expectation(tree, X[0], set(), np.arange(3)) for tree in single_trees(trees))
    assert average_value(trees) == pytest.approx(nothing)


def test_trees_that_split_by_category_are_refused():
    X = pd.DataFrame({"a": np.random.default_rng(3).integers(0, 4, 300)})
    with pytest.raises(ValueError, match=r"categorical_features.*split by category"):
        ChurnModel("hist_gradient_boosting", categorical_features=[0]).fit(X, X["a"] % 2)


class TestReasons:
    @pytest.fixture
    def explanation(self):
        values = [3, None, True, " ", 99.5, pd.Timestamp("2024-05-01")]
        names = ["tenure", "plan", "paperless", "city", "charges", "since"]
        table = pd.DataFrame([values], columns=names, dtype=object)
        return Explanation(-1.0, pd.DataFrame([[0.714, -0.2, 0.1, 0.05, 0.0, -0.9]], columns=names), table)

    def test_strongest_first_with_sign_and_value(self, explanation):
        assert explanation.reasons(0, top=2) == ["since 2024-05-01: -0.90", "tenure 3: +0.71"]

    def test_gaps_and_booleans_in_words_and_no_reason_without_contribution(self, explanation):
        shown = explanation.reasons(0, top=10)
        assert shown[2:] == ["plan missing: -0.20", "paperless yes: +0.10", "city missing: +0.05"]

    def test_no_such_row(self, explanation):
        with pytest.raises(IndexError, match="no row 1 in an explanation of 1 customers"):
            explanation.reasons(1)

    def test_importance_is_the_mean_size(self, explanation):
        assert global_importance(explanation).index.tolist()[:2] == ["since", "tenure"]

    def test_arrays_are_explained_too(self, customers):
        X = customers[0][["monthly_charges", "total_charges"]].to_numpy()
        model = ChurnModel("logistic_regression").fit(X, customers[1])
        assert list(model.explain(X[:2]).contributions) == ["x0", "x1"]

    def test_predictor_gives_reasons_for_a_dict(self, customers, tmp_path):
        X = customers[0].drop(columns="signed_up")
        predictor = ChurnPredictor(
            ChurnModel("logistic_regression").fit(X, customers[1]).save(tmp_path / "m.safetensors")
        )
        customer = {**predictor.formula.example, "tenure": 2.0, "contract_type": "Month-to-month", "city": None}
        reasons = predictor.explain(customer, top=20)
        assert len(reasons) == X.shape[1]
        assert any(reason.startswith("tenure 2: +") for reason in reasons)
        assert len(predictor.explain(customer)) == 3
        with pytest.raises(ValueError, match="column 'tenure' is missing"):
            predictor.explain({name: value for name, value in customer.items() if name != "tenure"})


def test_the_averages_of_columns_are_the_means_of_their_features(customers):
    engineer = FeatureEngineer(derive=True, max_categories=5).fit(customers[0])
    means = engineer.transform(customers[0]).mean(axis=0)
    averages = [average for column in engineer.columns_.values() for average in column.averages]
    np.testing.assert_allclose(averages, means, atol=1e-12)


@pytest.fixture(scope="module")
def numbers_as_text(customers):
    """Return a fitted model and its table, in which total charges are text with blanks."""
    total = customers[0]["total_charges"].astype(str)
    X = customers[0].assign(total_charges=total.mask(total.str.len() < 6, " "))
    return ChurnModel("logistic_regression").fit(X, customers[1]), X


class TestPartialDependence:
    @pytest.mark.parametrize("column", ["tenure", "total_charges", "contract_type", "paperless", "signed_up"])
    def test_each_row_is_the_mean_with_the_column_set(self, numbers_as_text, column):
        model, X = numbers_as_text
        table = partial_dependence_table(model, X, column, n_points=5)
        assert 1 < len(table) <= 5
        assert table[column].is_monotonic_increasing
        last = X.assign(**{column: table[column].iloc[-1]})
        assert table["churn_probability"].iloc[-1] == pytest.approx(model.predict_proba(last)[:, 1].mean())

    def test_own_grid(self, numbers_as_text):
        assert partial_dependence_table(*numbers_as_text, "tenure", grid=[1, 70])["tenure"].tolist() == [1, 70]

    def test_unknown_column(self, numbers_as_text):
        with pytest.raises(ValueError, match="no column 'age'; the table has tenure"):
            partial_dependence_table(*numbers_as_text, "age")
