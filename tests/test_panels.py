"""The panels: a control that changes changes the answer, and what a notebook keeps of them is the answer alone."""

import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace

import ipywidgets
import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import NotFittedError

from churn_mlops.data import generate_sample_data
from churn_mlops.decisions.economics import Economics, profit_curve
from churn_mlops.features import FeatureEngineer
from churn_mlops.learners.registry import MODEL_TYPES
from churn_mlops.models import ChurnModel
from churn_mlops.report import panels
from churn_mlops.report.panels import Panel, threshold_slider, what_if

NOTEBOOKS = sorted((Path(__file__).resolve().parent.parent / "nbs").rglob("*.ipynb"))
VIEW = "application/vnd.jupyter.widget-view+json"


@pytest.fixture(scope="module")
def customers() -> tuple[pd.DataFrame, pd.Series]:
    """Return a table with every kind of column, gaps included, and the outcome."""
    table = generate_sample_data(400)
    rng = np.random.default_rng(0)
    X = table.drop(columns=["customer_id", "churn"]).assign(
        paperless=rng.random(400) < 0.5,
        insured=pd.Series(rng.random(400) < 0.5, dtype=object).mask(rng.random(400) < 0.1),
        signed_up=pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 700, 400), unit="D"),
        total_charges=table["total_charges"].astype(str).mask(rng.random(400) < 0.1, " "),
    )
    X["contract_type"] = X["contract_type"].mask(rng.random(400) < 0.1)
    return X, table["churn"]


@pytest.fixture(scope="module")
def model(customers) -> ChurnModel:
    return ChurnModel("logistic_regression").fit(*customers)


@pytest.fixture
def complete(customers) -> pd.Series:
    """Return a customer without a gap."""
    X = customers[0]
    return X[X.notna().all(axis=1) & (X["total_charges"] != " ")].iloc[0]


@pytest.fixture
def panel(model, complete) -> Panel:
    return what_if(model, complete)


def shown(model: ChurnModel, customer: pd.Series) -> str:
    """Return the headline that a customer's probability makes."""
    return f"Churn probability {model.predict_proba(customer.to_frame().T)[0, 1]:.0%}<"


def with_(customer: pd.Series, column: str, value: object) -> pd.Series:
    """Return the customer with another value in a column."""
    return pd.Series({**customer, column: value}, dtype=object)


class TestWhatIf:
    def test_starts_with_the_customers_probability(self, panel, model, complete):
        assert shown(model, complete) in panel.html

    @pytest.mark.parametrize(
        ("column", "value"),
        [
            ("tenure", 60),
            ("monthly_charges", 110.5),
            ("contract_type", "Two year"),
            ("contract_type", ""),
            ("paperless", True),
            ("insured", False),
            ("insured", ""),
        ],
    )
    def test_a_changed_control_gives_the_models_probability(self, panel, model, complete, column, value):
        panel.controls[column].value = value
        assert shown(model, with_(complete, column, value)) in panel.html

    def test_a_changed_date_gives_the_models_probability(self, panel, model, complete):
        panel.controls["signed_up"].value = pd.Timestamp("2025-06-01").date()
        assert shown(model, with_(complete, "signed_up", "2025-06-01")) in panel.html

    def test_a_ticked_gap_gives_the_models_probability(self, panel, model, complete):
        panel.controls["total_charges is missing"].value = True
        assert shown(model, with_(complete, "total_charges", None)) in panel.html

    def test_the_reasons_follow(self, panel, model, complete):
        panel.controls["contract_type"].value = "Two year"
        for reason in model.explain(with_(complete, "contract_type", "Two year").to_frame().T).reasons(0, 6):
            assert reason in panel.html

    def test_the_live_view_shows_the_answer(self, panel):
        panel.controls["tenure"].value = 70
        assert panel.widget.children[1].value == panel.html

    def test_controls_are_of_the_columns_kind(self, panel):
        kinds = {name: type(control).__name__ for name, control in panel.controls.items()}
        assert kinds == {
            "tenure": "IntSlider",
            "monthly_charges": "FloatSlider",
            "total_charges": "FloatSlider",
            "total_charges is missing": "Checkbox",
            "contract_type": "Dropdown",
            "payment_method": "Dropdown",
            "internet_service": "Dropdown",
            "tech_support": "Dropdown",
            "online_security": "Dropdown",
            "paperless": "Checkbox",
            "insured": "Dropdown",
            "signed_up": "DatePicker",
        }

    def test_without_a_customer_it_starts_with_a_typical_one(self, model):
        assert what_if(model).controls["tenure"].value == model.feature_engineer_.columns_["tenure"].median

    def test_gaps_of_the_customer_are_where_the_controls_start(self, model, complete):
        gaps = dict.fromkeys(["total_charges", "tenure", "contract_type", "paperless", "signed_up"])
        customer = {**complete, **gaps}
        panel = what_if(model, customer)
        assert panel.controls["tenure is missing"].value is True
        assert panel.controls["contract_type"].value == ""
        assert shown(model, pd.Series(customer)) in panel.html

    def test_values_beyond_those_of_training_can_be_shown(self, model, complete):
        customer = with_(with_(complete, "tenure", 500), "contract_type", "Lifetime")
        panel = what_if(model, customer)
        assert panel.controls["tenure"].max == 500
        assert panel.controls["contract_type"].value == "Lifetime"
        assert shown(model, customer) in panel.html

    def test_every_slider_starts_on_one_of_its_steps(self, panel):
        """Or the browser would move it there, and the answer with it."""
        for name in ("monthly_charges", "total_charges"):
            slider = panel.controls[name]
            steps = (slider.value - slider.min) / slider.step
            assert abs(steps - round(steps)) < 1e-6

    def test_text_from_the_table_is_escaped(self, model, complete):
        panel = what_if(model, with_(complete, "contract_type", "<script>"), top=20)
        assert "<script>" not in panel.html

    def test_picture_has_an_alternative_text(self, panel):
        assert 'role="img" aria-label="Bars of what speaks for and against leaving' in panel.html

    @pytest.mark.parametrize("model_type", MODEL_TYPES)
    def test_every_model_type_can_be_played_with(self, customers, model_type):
        small = {"random_forest": {"n_estimators": 5}, "hist_gradient_boosting": {"max_iter": 5}}
        small["lightgbm"] = {"max_trees": 5}
        small["catboost"] = {"max_trees": 5, "cv": 2}
        engineer = FeatureEngineer(derive=True)
        fitted = ChurnModel(model_type, feature_engineer=engineer, **small.get(model_type, {})).fit(*customers)
        panel = what_if(fitted, customers[0].iloc[0])
        before = panel.html
        panel.controls["tenure"].value = 71 if panel.controls["tenure"].value < 40 else 1
        assert panel.html != before

    def test_missing_columns_are_named(self, model, complete):
        with pytest.raises(ValueError, match="the customer has no column 'tenure', 'paperless'"):
            what_if(model, complete.drop(["tenure", "paperless"]))

    def test_a_value_of_another_kind_is_refused(self, model, complete):
        with pytest.raises(ValueError, match="column 'tenure' holds text"):
            what_if(model, with_(complete, "tenure", "long"))

    def test_an_unfitted_model_is_refused(self):
        with pytest.raises(NotFittedError):
            what_if(ChurnModel())


class TestThresholdSlider:
    ECONOMICS = Economics(customer_value=100, incentive_cost=10, contact_cost=1, acceptance=0.5)
    Y = np.array([1, 1, 0, 1, 0, 0, 0, 0])
    P = np.array([0.9, 0.8, 0.8, 0.4, 0.3, 0.2, 0.2, 0.1])

    @pytest.mark.parametrize(
        ("threshold", "contacted", "profit", "precision", "recall"),
        [
            (0.0, "8 of 8 (100%)", "77", "38%", "100%"),
            (0.35, "4 of 8 (50%)", "121", "75%", "100%"),
            (0.8, "3 of 8 (38%)", "77", "67%", "67%"),
            (0.85, "1 of 8 (12%)", "44", "100%", "33%"),
            (1.0, "0 of 8 (0%)", "0", "no calls", "0%"),
        ],
    )
    def test_figures_at_a_threshold(self, threshold, contacted, profit, precision, recall):
        panel = threshold_slider(self.Y, self.P, self.ECONOMICS)
        panel.controls["threshold"].value = threshold
        for text in (f">{contacted}<", f">{profit} (", f">{precision}: ", f">{recall}: "):
            assert text in panel.html

    def test_starts_at_the_most_profitable_threshold(self):
        panel = threshold_slider(self.Y, self.P, self.ECONOMICS)
        assert panel.controls["threshold"].value == 0.4
        assert f">{8 * profit_curve(self.Y, self.P, self.ECONOMICS)['profit_per_customer'].max():.0f} (" in panel.html

    def test_starts_where_it_is_told(self):
        assert threshold_slider(self.Y, self.P, self.ECONOMICS, threshold=0.7).controls["threshold"].value == 0.7

    def test_picture_has_an_alternative_text(self):
        html = threshold_slider(self.Y, self.P, self.ECONOMICS).html
        assert "highest with 121 at a threshold of 0.400, and 121 at the chosen threshold of 0.400" in html

    def test_values_of_customers_count(self):
        panel = threshold_slider(
            self.Y, self.P, Economics(customer_value="v"), values=np.full(8, 1000.0), threshold=0.0
        )
        assert ">833 (" in panel.html

    def test_an_impossible_threshold_is_refused(self):
        with pytest.raises(ValueError, match=r"threshold = 1\.5: should be a probability"):
            threshold_slider(self.Y, self.P, self.ECONOMICS, threshold=1.5)


class TestWhatANotebookKeeps:
    def test_without_a_kernel_there_is_the_answer_alone(self, panel):
        bundle = panel._repr_mimebundle_()
        assert bundle == {"text/plain": repr(panel), "text/html": panel.html}

    def test_in_a_kernel_there_are_controls_beside_the_answer(self, panel, monkeypatch):
        monkeypatch.setattr("IPython.get_ipython", lambda: SimpleNamespace(kernel=object()))
        bundle = panel._repr_mimebundle_()
        assert bundle[VIEW]["model_id"] == panel.widget.model_id
        assert bundle["text/html"] == panel.html

    def test_the_answer_is_the_same_in_every_run(self, model, complete):
        assert what_if(model, complete).html == what_if(model, complete).html

    @pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
    def test_no_notebook_holds_a_widgets_state(self, notebook):
        content = json.loads(notebook.read_text(encoding="utf-8"))
        outputs = [output for cell in content["cells"] for output in cell.get("outputs", [])]
        assert "widgets" not in content["metadata"]
        assert [output for output in outputs if VIEW in output.get("data", {})] == []


def test_controls_need_ipywidgets_and_say_so(monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ipywidgets" else find_spec(name))
    with pytest.raises(ImportError, match=r'pip install "churn_mlops\[lab\]"'):
        Panel({}, lambda values: panels.paragraph(""))


def test_a_panel_can_be_made_of_any_control():
    panel = Panel({"n": ipywidgets.IntSlider(value=2)}, lambda values: panels.paragraph(str(values["n"] + 1)))
    panel.controls["n"].value = 4
    assert "<p>5</p>" in panel.html
