import json
import pickle
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.utils.estimator_checks import parametrize_with_checks

from churn_mlops.data import generate_sample_data
from churn_mlops.features import FeatureEngineer
from churn_mlops.formula.file import ModelFileError
from churn_mlops.learners.registry import MODEL_TYPES
from churn_mlops.models import ChurnModel, ChurnPredictor, train_model
from churn_mlops.settings import ModelSettings

EXPECTED_FAILURES = {
    "check_no_attributes_set_in_init": "the algorithm's parameters are flat attributes, so that clone keeps them",
    "check_do_not_raise_errors_in_init_or_set_params": "a wrong model type or parameter is refused at once, "
    "since training may be an hour away",
}


@pytest.mark.usefixtures("array_api")
@parametrize_with_checks(
    [
        ChurnModel("random_forest", n_estimators=20, min_samples_leaf=1),
        ChurnModel("logistic_regression", C=1.0),
        ChurnModel("hist_gradient_boosting", min_samples_leaf=5, max_iter=20, learning_rate=0.2),
    ],
    expected_failed_checks=lambda estimator: EXPECTED_FAILURES,
)
def test_scikit_learn_compatibility(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def customers():
    """Return raw columns and outcome of sample customers."""
    table = generate_sample_data(600)
    return table.drop(columns=["customer_id", "churn"]), table["churn"]


@pytest.fixture(scope="module")
def fitted(customers):
    """Return a fitted forest."""
    return ChurnModel("random_forest", n_estimators=20).fit(*customers)


@pytest.fixture(scope="module")
def predictor(fitted, tmp_path_factory):
    """Return a predictor for the fitted forest."""
    return ChurnPredictor(fitted.save(tmp_path_factory.mktemp("models") / "model.safetensors"))


class TestChurnModel:
    def test_init_random_forest(self):
        model = ChurnModel(model_type="random_forest", n_estimators=50)
        assert model.model_type == "random_forest"
        assert model.params == {"n_estimators": 50}
        assert isinstance(model.model, RandomForestClassifier)
        assert not model._is_fitted

    def test_init_unknown_type(self):
        with pytest.raises(ValueError, match="Unknown model type: 'xgb'; use one of blend, random_forest"):
            ChurnModel("xgb")

    def test_init_unknown_parameter(self):
        with pytest.raises(ValueError, match="Unknown parameter for random_forest: 'n_trees'"):
            ChurnModel(n_trees=5)

    def test_fit(self, customers):
        model = ChurnModel("logistic_regression")
        assert model.fit(*customers) is model
        assert model._is_fitted
        assert model.feature_names == list(customers[0].columns)

    def test_predict(self, fitted, customers):
        predictions = fitted.predict(customers[0])
        assert predictions.shape == (600,)
        assert set(predictions) == {0, 1}

    def test_predict_follows_the_probability(self, fitted, customers):
        churns = fitted.predict_proba(customers[0])[:, 1] >= 0.5
        np.testing.assert_array_equal(fitted.predict(customers[0]), churns.astype(int))

    def test_predict_before_fit(self, customers):
        with pytest.raises(NotFittedError, match=r"^ChurnModel must be fitted before prediction$"):
            ChurnModel().predict(customers[0])

    def test_not_fitted_error_is_a_value_error(self):
        with pytest.raises(ValueError, match="must be fitted"):
            ChurnModel().predict_proba(pd.DataFrame({"tenure": [1]}))

    def test_evaluate(self, fitted, customers):
        metrics = fitted.evaluate(*customers)
        assert {"accuracy", "precision", "recall", "f1", "roc_auc"} <= set(metrics)
        assert all(0 <= value <= 1 for value in metrics.values())

    def test_evaluate_labels_that_were_not_in_fit(self, fitted, customers):
        with pytest.raises(ValueError, match=r"labels \['No', 'Yes'\] were not in fit, which saw \[0, 1\]"):
            fitted.evaluate(customers[0], customers[1].map({0: "No", 1: "Yes"}))

    @pytest.mark.parametrize("model_type", list(MODEL_TYPES))
    def test_save_and_load(self, model_type, customers, tmp_path):
        model = ChurnModel(model_type).fit(*customers)
        path = model.save(tmp_path / "new" / "folder" / "model.pkl")
        again = ChurnModel.load(path)
        np.testing.assert_array_equal(again.predict_proba(customers[0]), model.predict_proba(customers[0]))
        assert (again.model_type, again.params, again.feature_names) == (model_type, {}, model.feature_names)

    def test_save_before_fit(self, tmp_path):
        with pytest.raises(NotFittedError, match="must be fitted before it is saved"):
            ChurnModel().save(tmp_path / "model.safetensors")

    def test_load_keeps_text_labels(self, customers, tmp_path):
        labels = customers[1].map({0: "No", 1: "Yes"})
        model = ChurnModel("logistic_regression").fit(customers[0], labels)
        again = ChurnModel.load(model.save(tmp_path / "model.safetensors"))
        np.testing.assert_array_equal(again.predict(customers[0]), model.predict(customers[0]))

    def test_loaded_model_can_be_fitted_again(self, fitted, customers, tmp_path):
        again = ChurnModel.load(fitted.save(tmp_path / "model.safetensors")).fit(*customers)
        np.testing.assert_array_equal(again.predict_proba(customers[0]), fitted.predict_proba(customers[0]))

    def test_load_missing_file(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="nowhere"):
            ChurnModel.load(tmp_path / "nowhere.safetensors")

    def test_pickle_keeps_the_model(self, fitted, customers):
        again = pickle.loads(pickle.dumps(fitted))
        np.testing.assert_array_equal(again.predict_proba(customers[0]), fitted.predict_proba(customers[0]))

    def test_repr_shows_type_and_state(self, fitted):
        assert repr(ChurnModel("logistic_regression")) == "ChurnModel('logistic_regression') [not fitted]"
        assert repr(fitted) == "ChurnModel('random_forest', n_estimators=20) [fitted]"

    @pytest.mark.parametrize("name", ["params", "model", "_is_fitted"])
    def test_state_is_read_only(self, fitted, name):
        with pytest.raises(AttributeError):
            setattr(fitted, name, None)

    def test_clone_keeps_parameters(self):
        model = ChurnModel("random_forest", n_estimators=7, feature_engineer=FeatureEngineer(derive=True))
        copy = clone(model)
        assert copy.params == {"n_estimators": 7}
        assert copy.feature_engineer.derive

    def test_set_params_refuses_an_unknown_name_and_changes_nothing(self):
        model = ChurnModel(n_estimators=7)
        with pytest.raises(ValueError, match="Unknown parameter for random_forest: 'depth'"):
            model.set_params(n_estimators=8, depth=3)
        assert model.params == {"n_estimators": 7}

    def test_grid_search_over_a_parameter_that_was_not_given(self, customers):
        search = GridSearchCV(ChurnModel("logistic_regression"), {"C": [1e-4, 1.0]}, scoring="roc_auc", cv=3)
        assert search.fit(*customers).best_params_ == {"C": 1.0}

    def test_cross_val_score(self, customers):
        scores = cross_val_score(ChurnModel("logistic_regression"), *customers, cv=3, scoring="roc_auc")
        assert scores.mean() > 0.7

    def test_default_model_is_the_same_each_time(self, customers):
        first, second = (ChurnModel(n_estimators=5).fit(*customers).predict_proba(customers[0]) for _ in range(2))
        np.testing.assert_array_equal(first, second)

    @pytest.mark.parametrize(
        ("labels", "message"),
        [
            ([0] * 600, "ChurnModel needs two classes, but y holds one class: 0"),
            ([0, 1, 2] * 200, "Only binary classification is supported"),
            ([0.0, 1.0, np.nan] * 200, "the target y has 200 missing values"),
        ],
    )
    def test_fit_refuses_a_target_without_two_classes(self, customers, labels, message):
        with pytest.raises(ValueError, match=message):
            ChurnModel().fit(customers[0], labels)

    @pytest.mark.parametrize(
        "change", [{"model_type": "logistic_regression"}, {"model_type": "xgb"}, {"params": {"fit": 1}}, {"n_rows": -1}]
    )
    def test_load_refuses_a_file_whose_record_does_not_fit(self, fitted, tmp_path, change):
        formula = replace(fitted.formula_, record=replace(fitted.formula_.record, **change))
        path = formula.save(tmp_path / "model.safetensors")
        with pytest.raises(ModelFileError, match=re.escape(str(path))):
            ChurnModel.load(path)

    def test_after_load_the_formula_stands_for_the_estimator(self, fitted, customers, tmp_path):
        again = ChurnModel.load(fitted.save(tmp_path / "model.safetensors"))
        assert again.model is again.formula_
        with pytest.raises(AttributeError, match="n_iter_ is known only in the process that fitted"):
            again.n_iter_  # noqa: B018
        refitted = clone(again).fit(*customers)
        np.testing.assert_array_equal(refitted.predict_proba(customers[0]), fitted.predict_proba(customers[0]))


def test_train_model_returns_the_model_and_its_metrics(customers):
    X, y = customers
    model, metrics = train_model(X[:400], y[:400], X[400:], y[400:], "logistic_regression", C=0.5)
    assert model.params == {"C": 0.5}
    assert metrics == model.formula_.record.metrics == model.evaluate(X[400:], y[400:])


def test_impossible_thread_count_names_the_variable(customers, monkeypatch):
    monkeypatch.setenv("CHURN_THREADS", "many")
    table = pd.concat([customers[0]] * 40)
    with pytest.raises(ValueError, match="CHURN_THREADS is 'many'"):
        ChurnModel("logistic_regression").fit(table, [*customers[1]] * 40)


def test_every_model_type_is_named_where_the_setting_is_described():
    description = ModelSettings.model_fields["type"].description
    assert all(name in description for name in MODEL_TYPES)


class TestChurnPredictor:
    @pytest.fixture
    def customer(self, customers):
        """Return one customer as JSON would bring it."""
        return json.loads(customers[0].iloc[0].to_json())

    def test_answer_is_that_of_the_model(self, predictor, fitted, customers, customer):
        probability = pytest.approx(fitted.predict_proba(customers[0].head(1))[0, 1], abs=1e-9)
        answer = predictor.predict(customer)
        churns = answer["churn_probability"] >= 0.5
        assert answer["churn_probability"] == probability
        assert (answer["will_churn"], answer["prediction"]) == (churns, int(churns))
        assert answer["confidence"] == max(answer["churn_probability"], 1 - answer["churn_probability"])

    def test_batch_equals_one_by_one(self, predictor, customers):
        batch = json.loads(customers[0].head(20).to_json(orient="records"))
        one_by_one = [predictor.predict(each)["churn_probability"] for each in batch]
        assert [each["churn_probability"] for each in predictor.predict_batch(batch)] == pytest.approx(
            one_by_one, abs=1e-9
        )

    def test_empty_batch(self, predictor):
        assert predictor.predict_batch([]) == []

    def test_answer_is_json(self, predictor, customer):
        assert json.loads(json.dumps(predictor.predict(customer))) == predictor.predict(customer)

    def test_none_means_missing(self, predictor, customer):
        assert 0 <= predictor.predict(dict.fromkeys(customer))["churn_probability"] <= 1

    def test_whole_number_is_fine_for_a_float(self, predictor, customer):
        whole = predictor.predict(customer | {"monthly_charges": 50})
        assert whole == predictor.predict(customer | {"monthly_charges": 50.0})

    def test_extra_column_is_ignored(self, predictor, customer):
        assert predictor.predict(customer | {"colour": "green"}) == predictor.predict(customer)

    def test_missing_column_is_named(self, predictor, customer):
        del customer["tenure"]
        with pytest.raises(ValueError, match="column 'tenure' is missing"):
            predictor.predict(customer)

    @pytest.mark.parametrize("value", ["twelve", "1_2", True, float("inf"), [1], 10**400])
    def test_what_is_no_number_is_refused_with_column_and_value(self, predictor, customer, value):
        with pytest.raises(ValueError, match="column 'tenure'"):
            predictor.predict(customer | {"tenure": value})

    @pytest.mark.parametrize("value", [3, 1.5, True])
    def test_what_is_no_text_is_refused(self, predictor, customer, value):
        with pytest.raises(ValueError, match="column 'contract_type'"):
            predictor.predict(customer | {"contract_type": value})

    @pytest.mark.parametrize("value", ["12", " 12.0 ", np.int64(12), np.float32(12)])
    def test_a_number_may_come_as_text_or_from_numpy(self, predictor, customer, value):
        assert predictor.predict(customer | {"tenure": value}) == predictor.predict(customer | {"tenure": 12})

    @pytest.mark.parametrize("value", [float("nan"), "", " ", pd.NA, pd.NaT, np.nan])
    def test_every_kind_of_gap_is_missing(self, predictor, customer, value):
        for column in ("tenure", "contract_type"):
            assert predictor.predict(customer | {column: value}) == predictor.predict(customer | {column: None})

    def test_a_batch_may_be_a_table(self, predictor, fitted, customers):
        answers = predictor.predict_batch(customers[0].head(30))
        assert [each["churn_probability"] for each in answers] == fitted.predict_proba(customers[0].head(30))[
            :, 1
        ].tolist()

    @pytest.mark.parametrize("model_type", ["logistic_regression", "random_forest"])
    def test_loading_and_predicting_imports_no_pandas_scikit_learn_or_scipy(self, model_type, customers, tmp_path):
        path = ChurnModel(model_type).fit(*customers).save(tmp_path / "model.safetensors")
        code = (
            "import json, sys, churn_mlops; p = churn_mlops.ChurnPredictor(sys.argv[1], engine='numpy');"
            "p.predict(p.formula.example); p.explain(p.formula.example); p.predict_batch([p.formula.example] * 100);"
            "print(json.dumps([*sys.modules]))"
        )
        done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
        assert {"pandas", "sklearn", "scipy", "joblib", "threadpoolctl"} & {*json.loads(done.stdout)} == set()

    def test_batch_error_says_which_customer(self, predictor, customer):
        with pytest.raises(ValueError, match="customer 1: column 'tenure'"):
            predictor.predict_batch([customer, customer | {"tenure": "new"}])

    def test_missing_model_file(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="nowhere"):
            ChurnPredictor(tmp_path / "nowhere.safetensors")

    def test_labels_other_than_0_and_1_are_refused(self, customers, tmp_path):
        model = ChurnModel("logistic_regression").fit(customers[0], customers[1].map({0: "No", 1: "Yes"}))
        path = model.save(tmp_path / "model.safetensors")
        with pytest.raises(ValueError, match=r"labels \['No', 'Yes'\]; a predictor needs 0 and 1"):
            ChurnPredictor(path)

    def test_dates_booleans_and_odd_column_names(self, tmp_path):
        n = 40
        table = pd.DataFrame(
            {
                "Signed up": pd.date_range("2020-01-01", periods=n, freq="7D"),
                "paperless?": [True, False] * (n // 2),
                "class": range(n),
            }
        )
        model = ChurnModel("logistic_regression").fit(table, [0, 1] * (n // 2))
        predictor = ChurnPredictor(model.save(tmp_path / "model.safetensors"))
        answer = predictor.predict({"Signed up": "2020-01-08", "paperless?": False, "class": 1})
        assert answer["churn_probability"] == pytest.approx(model.predict_proba(table.iloc[[1]])[0, 1], abs=1e-9)


def test_parameter_without_a_formula_is_refused_when_fit_begins(customers):
    model = ChurnModel("hist_gradient_boosting", categorical_features=[0])
    with pytest.raises(ValueError, match="hist_gradient_boosting: parameter 'categorical_features' has no formula"):
        model.fit(*customers)


def test_formula_of_an_unknown_type_is_no_churn_model(fitted):
    strange = fitted.formula_.updated(model_type="oracle")
    with pytest.raises(ValueError, match="of the type 'oracle', and this churn_mlops knows blend"):
        ChurnModel.from_formula(strange)


def test_formula_that_differs_from_its_estimator_is_refused_in_fit(customers, monkeypatch):
    monkeypatch.setattr(
        "sklearn.linear_model.LogisticRegression.predict_proba", lambda self, X: np.full((len(X), 2), 0.5)
    )
    with pytest.raises(RuntimeError, match="does not give its probabilities: 600 of 600"):
        ChurnModel("logistic_regression").fit(*customers)


@pytest.mark.parametrize(
    ("model_type", "params"),
    [
        ("logistic_regression", {}),
        ("hist_gradient_boosting", {"max_iter": 5}),
        ("lightgbm", {"max_trees": 5}),
        ("catboost", {"max_trees": 5, "cv": 2}),
        ("random_forest", {"n_estimators": 2}),
        ("blend", {"max_iter": 3, "cv": 2}),
    ],
)
def test_model_is_the_same_on_any_number_of_cores(model_type, params, monkeypatch):
    table = generate_sample_data(20_000)
    X, y = table[["tenure", "monthly_charges", "contract_type"]], table["churn"]
    digests = set()
    for cores in ("1", "2", "3"):
        monkeypatch.setenv("CHURN_THREADS", cores)
        digests.add(ChurnModel(model_type, **params).fit(X, y).formula_.digest)
    assert len(digests) == 1
