"""Export to ONNX: the same answers from onnxruntime for every model type and every kind of column, or no file."""

import sys

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
from sklearn.exceptions import NotFittedError

from churn_mlops.data import generate_sample_data, load_csv
from churn_mlops.export.onnx import OnnxExportError, export_onnx, onnx_inputs
from churn_mlops.features import FeatureEngineer
from churn_mlops.formula import Formula
from churn_mlops.learners.registry import MODEL_TYPES
from churn_mlops.models import ChurnModel

SMALL = {
    "blend": {"max_iter": 30, "cv": 2},
    "random_forest": {"n_estimators": 20},
    "hist_gradient_boosting": {"max_iter": 30},
    "lightgbm": {"max_trees": 30},
    "catboost": {"max_trees": 30, "cv": 2},
}


def run(path, inputs):
    """Return label and probability as onnxruntime gives them."""
    return onnxruntime.InferenceSession(path).run(["label", "probability"], inputs)


def assert_same(model, path, X):
    """Compare a file's answers with the model's."""
    label, probability = run(path, onnx_inputs(model.formula_, X))
    wanted = model.predict_proba(X)[:, 1]
    np.testing.assert_allclose(probability, wanted, rtol=0, atol=1e-12)
    assert (label == (wanted >= model.formula_.threshold)).all()


@pytest.fixture(scope="module")
def customers():
    """Return a table with every kind of column, gaps included, and the outcome."""
    n, rng = 600, np.random.default_rng(0)
    table = generate_sample_data(n)
    gaps = {name: rng.random(n) < 0.1 for name in ("tenure", "contract_type", "paperless", "signed_up")}
    X = table.drop(columns=["customer_id", "churn"]).assign(
        tenure=table["tenure"].astype(float).mask(gaps["tenure"]),
        contract_type=table["contract_type"].mask(gaps["contract_type"]),
        paperless=pd.Series(rng.random(n) < 0.5, dtype=object).mask(gaps["paperless"], None),
        signed_up=(pd.Timestamp("2022-01-31") + pd.to_timedelta(rng.integers(0, 1e8, n), unit="s")).where(
            ~gaps["signed_up"]
        ),
        **{"naïve city, 東京": rng.choice(list("abcdefgh"), n)},
    )
    return X, table["churn"]


@pytest.fixture(scope="module", params=MODEL_TYPES)
def model(request, customers):
    """Return a fitted model of each type, with a rare category, gaps and derived columns."""
    engineer = FeatureEngineer(derive=True, max_categories=5)
    return ChurnModel(request.param, feature_engineer=engineer, **SMALL.get(request.param, {})).fit(*customers)


@pytest.fixture(scope="module")
def logistic(customers):
    return ChurnModel("logistic_regression").fit(*customers)


class TestEveryModelType:
    def test_same_answers_for_all_customers(self, model, customers, tmp_path):
        assert_same(model, model.export_onnx(tmp_path / "m.onnx"), customers[0])

    def test_same_answers_for_strange_values(self, model, customers, tmp_path):
        strange = customers[0].head(6).astype(object)
        strange["contract_type"] = ["Lifetime", None, "", " \t\u00a0", "Two year ", "two year"]
        strange["tenure"] = [np.nan, 1e9, -1e9, 1e300, -1e300, 0]
        strange["total_charges"] = [0, -1, None, 1e300, -1e300, 1e-300]
        strange["signed_up"] = ["1900-03-01", "2000-02-29", "2100-02-28T23:59:59", None, "1970-01-01", "2024-12-31"]
        assert_same(model, model.export_onnx(tmp_path / "m.onnx"), strange)

    def test_every_kind_of_white_space_is_a_gap(self, model, customers, tmp_path):
        spaces = [chr(code) for code in range(0x11000) if chr(code).isspace()]
        strange = customers[0].head(len(spaces) + 2).assign(contract_type=[*spaces, "\u200b", "\x00"])
        assert_same(model, model.export_onnx(tmp_path / "m.onnx"), strange)

    def test_telco(self, model, telco, tmp_path):
        table = load_csv(telco).drop(columns="customerID")
        X, y = table.drop(columns="Churn"), table["Churn"]
        fitted = ChurnModel(model.model_type, **SMALL.get(model.model_type, {})).fit(X, y)
        path = fitted.export_onnx(tmp_path / "m.onnx")
        assert_same(fitted, path, X)
        emptied = X.head(500).astype(object).mask(np.random.default_rng(0).random((500, X.shape[1])) < 0.3)
        assert_same(fitted, path, emptied.assign(Contract="Lifetime"))


class TestFile:
    def test_inputs_are_the_raw_columns_in_use(self, logistic, customers, tmp_path):
        session = onnxruntime.InferenceSession(logistic.export_onnx(tmp_path / "m.onnx"))
        types = {each.name: each.type for each in session.get_inputs()}
        assert list(types) == list(customers[0])
        assert types["contract_type"] == "tensor(string)"
        assert {types[name] for name in ("tenure", "paperless", "signed_up")} == {"tensor(double)"}

    def test_a_column_left_out_is_no_input(self, customers, tmp_path):
        X = customers[0].assign(country="here")
        with pytest.warns(UserWarning, match="country"):
            model = ChurnModel("logistic_regression").fit(X, customers[1])
        path = model.export_onnx(tmp_path / "m.onnx")
        assert "country" not in [each.name for each in onnxruntime.InferenceSession(path).get_inputs()]
        assert_same(model, path, X)

    def test_label_follows_the_models_threshold(self, customers, tmp_path):
        model = ChurnModel("logistic_regression").fit(*customers)
        model.formula_ = model.formula_.updated(threshold=0.2)
        path = model.export_onnx(tmp_path / "m.onnx")
        assert_same(model, path, customers[0])
        assert 0 < run(path, onnx_inputs(model.formula_, customers[0]))[0].mean() < 1

    def test_label_is_1_for_the_second_of_two_text_labels(self, customers, tmp_path):
        model = ChurnModel("logistic_regression").fit(customers[0], customers[1].map({0: "No", 1: "Yes"}))
        path = model.export_onnx(tmp_path / "m.onnx")
        assert_same(model, path, customers[0])
        assert onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map["classes"] == '["No", "Yes"]'

    def test_metadata(self, logistic, tmp_path):
        told = onnxruntime.InferenceSession(logistic.export_onnx(tmp_path / "m.onnx")).get_modelmeta()
        assert told.producer_name == "churn_mlops"
        assert set(told.custom_metadata_map) == {
            *("model_type", "churn_mlops", "threshold", "classes", "n_rows", "created", "digest")
        }
        assert told.custom_metadata_map["threshold"] == "0.5"

    def test_passes_the_full_check_of_onnx(self, model, tmp_path):
        onnx.checker.check_model(model.export_onnx(tmp_path / "m.onnx"), full_check=True)

    def test_an_array_without_names(self, tmp_path):
        rng = np.random.default_rng(0)
        X = rng.normal(size=(200, 3))
        model = ChurnModel("logistic_regression").fit(X, X[:, 0] + rng.normal(size=200) > 0)
        label, probability = run(model.export_onnx(tmp_path / "m.onnx"), {f"x{i}": X[:, i] for i in range(3)})
        np.testing.assert_allclose(probability, model.predict_proba(X)[:, 1], atol=1e-12)
        assert set(label) == {0, 1}

    @pytest.mark.parametrize("model_type", ["hist_gradient_boosting", "lightgbm", "random_forest"])
    def test_trees_that_are_single_leaves(self, model_type, tmp_path):
        X = pd.DataFrame({"a": [1.0, 2.0, 3.0, 4.0]})
        model = ChurnModel(model_type, **SMALL[model_type]).fit(X, [0, 1, 1, 0])
        assert_same(model, model.export_onnx(tmp_path / "m.onnx"), X)


@pytest.fixture
def tampered(monkeypatch):
    """Let formulas answer otherwise than they are written down, for customers with a long tenure."""
    true = Formula.probabilities

    def shifted(formula, columns):
        tenure = np.asarray(columns["tenure"], dtype=float)
        return true(formula, columns) + 2e-5 * (tenure > 80)

    monkeypatch.setattr(Formula, "probabilities", shifted)


class TestRefused:
    def test_answers_that_differ(self, logistic, tampered, tmp_path):
        with pytest.raises(OnnxExportError, match=r"first in row \d+ \('tenure' above its range\).*2.0e-05 apart"):
            export_onnx(tmp_path / "m.onnx", logistic.formula_)
        assert list(tmp_path.iterdir()) == []

    def test_a_refusal_leaves_the_file_before_as_it_was(self, logistic, tmp_path, request):
        before = logistic.export_onnx(tmp_path / "m.onnx").read_bytes()
        request.getfixturevalue("tampered")
        with pytest.raises(OnnxExportError):
            export_onnx(tmp_path / "m.onnx", logistic.formula_)
        assert [each.read_bytes() for each in tmp_path.iterdir()] == [before]

    def test_the_error_shows_no_value_of_a_customer(self, tmp_path, monkeypatch):
        X = pd.DataFrame({"name": ["Ann", "Bob", "Cleo"] * 20, "income": [48_211.0, 51_777.0, 60_123.0] * 20})
        formula = ChurnModel("logistic_regression").fit(X, [0, 1] * 30).formula_
        monkeypatch.setattr(Formula, "probabilities", lambda formula, columns: np.full(len(columns), 0.123))
        with pytest.raises(OnnxExportError) as caught:
            export_onnx(tmp_path / "m.onnx", formula)
        assert not any(word in str(caught.value) for word in ("Ann", "Bob", "Cleo", "48211", "51777", "60123"))

    @pytest.mark.parametrize("name", ["label", "probability", ""])
    def test_a_column_named_like_an_output(self, customers, name, tmp_path):
        X = customers[0].rename(columns={"tenure": name})
        model = ChurnModel("logistic_regression").fit(X, customers[1])
        with pytest.raises(OnnxExportError, match="rename it"):
            model.export_onnx(tmp_path / "m.onnx")

    def test_an_unfitted_model(self, tmp_path):
        with pytest.raises(NotFittedError, match="fitted before it is exported"):
            ChurnModel().export_onnx(tmp_path / "m.onnx")

    def test_a_missing_extra_is_named(self, logistic, tmp_path, monkeypatch):
        for module in ("onnxruntime", "onnx"):
            monkeypatch.setitem(sys.modules, module, None)
            with pytest.raises(ImportError, match=rf'ONNX needs {module}: pip install "churn_mlops\[onnx\]"'):
                logistic.export_onnx(tmp_path / "m.onnx")


class TestPath:
    def test_folders_are_made_and_the_path_is_returned(self, logistic, tmp_path):
        path = logistic.export_onnx(str(tmp_path / "new" / "folder" / "m.onnx"))
        assert path == tmp_path / "new" / "folder" / "m.onnx"
        assert [each.name for each in path.parent.iterdir()] == ["m.onnx"]

    def test_a_folder_in_the_way_is_an_error_that_names_it(self, logistic, tmp_path):
        (tmp_path / "m.onnx").mkdir()
        with pytest.raises(OSError, match=r"ONNX file was not written.*m\.onnx"):
            logistic.export_onnx(tmp_path / "m.onnx")
        assert [each.name for each in tmp_path.iterdir()] == ["m.onnx"]
