"""The report: what it says and in which order, what it refuses, and that the page is safe, whole and readable."""

import copy
import importlib.util
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2
from sklearn.inspection import permutation_importance

from churn_mlops.data import generate_sample_data, split_data
from churn_mlops.data.guards import Finding
from churn_mlops.decisions.economics import Economics
from churn_mlops.evaluation.metrics import (
    METRIC_MEANINGS,
    bootstrap_intervals,
    evaluate_predictions,
    expected_calibration_error,
    lift_table,
    population_stability_index,
    reliability_table,
)
from churn_mlops.features.columns import find_gaps
from churn_mlops.features.engineer import FeatureEngineer
from churn_mlops.learners.registry import MODEL_TYPES
from churn_mlops.models.churn_model import ChurnModel
from churn_mlops.report import case as report_case
from churn_mlops.report import columns as report_columns
from churn_mlops.report import money as report_money
from churn_mlops.report import page as pages
from churn_mlops.report import quality as report_quality
from churn_mlops.report import scores as report_scores
from churn_mlops.report import segments as report_segments
from churn_mlops.report.report import EvaluationReport, evaluate_report

HOSTILE = '<script>alert("x")</script>'
OUTCOMES = st.lists(st.tuples(st.integers(0, 1), st.floats(0, 1)), min_size=1, max_size=60)
PIXEL_FREE = {"img", "script", "link", "iframe", "object", "embed", "base", "form", "audio", "video", "source"}

pytestmark = [pytest.mark.filterwarnings("ignore::UserWarning"), pytest.mark.usefixtures("few_draws")]


class Reader(HTMLParser):
    """Note the elements of a page, with their attributes, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def all(self, attribute: str) -> list[str]:
        return [attrs[attribute] or "" for _, attrs in self.elements if attribute in attrs]

    @property
    def text(self) -> str:
        return " ".join(self.texts)


def customers(n: int = 1_500) -> tuple[pd.DataFrame, pd.Series]:
    """Make a table with every kind of column, gaps, odd names and a hostile category."""
    table = generate_sample_data(n)
    rng = np.random.default_rng(0)
    X = table.drop(columns=["customer_id", "churn"]).rename(
        columns={"contract_type": HOSTILE, "tenure": "tenure $x_1$"}
    )
    X[HOSTILE] = X[HOSTILE].replace("Two year", "<b onclick='x()'>Two\nyears</b> & more")
    X["joined"] = pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 900, n), unit="D")
    X["paperless"] = rng.random(n) < 0.5
    X["total_charges"] = X["total_charges"].astype(str).where(rng.random(n) < 0.9, " ")
    X["tech_support"] = X["tech_support"].astype(object).where(rng.random(n) < 0.95, None)
    X["constant"] = 1
    return X.set_axis(np.arange(n) + 7_000), table["churn"].set_axis(np.arange(n) + 7_000)


@pytest.fixture(scope="module")
def split() -> Any:
    return split_data(*customers())


@pytest.fixture(scope="module")
def model(split: Any) -> ChurnModel:
    return ChurnModel("logistic_regression").fit(split.X_train, split.y_train)


@pytest.fixture(scope="module")
def case(model: ChurnModel, split: Any) -> Any:
    return report_case.examine(model, split.X_test, split.y_test)


@pytest.fixture(scope="module")
def wide() -> tuple[pd.DataFrame, np.ndarray]:
    """Make a hundred columns of which four matter."""
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(1_500, 100))).add_prefix("c")
    log_odds = X[["c7", "c33", "c51", "c90"]].sum(axis=1) - 1
    return X, (rng.random(1_500) < 1 / (1 + np.exp(-log_odds))).astype(int)


@pytest.fixture(scope="module")
def html(model: ChurnModel, split: Any) -> str:
    folds = pd.DataFrame([evaluate_predictions([0, 1, 1], [0.2, 0.6, 0.4])] * 3)
    findings = [
        Finding("leak", f"column {HOSTILE} alone tells who leaves", HOSTILE, 0.999),
        Finding("duplicates", "some rows repeat", None, float("nan")),
    ]
    return evaluate_report(
        model,
        split.X_test,
        split.y_test,
        cv=folds,
        findings=findings,
        economics=Economics(),
        X_train=split.X_train,
        y_train=split.y_train,
        truth=np.full(len(split.y_test), 0.25),
        segments=[HOSTILE, "joined", "tenure $x_1$", "total_charges"],
        title=HOSTILE,
    ).html


@pytest.fixture(scope="module")
def read(html: str) -> Reader:
    return Reader(html)


class TestPage:
    def test_warnings_come_before_figures_and_limits_come_last(self, html: str) -> None:
        headings = re.findall(r"<h2[^>]*>([^<]*)</h2>", html)
        assert headings == [
            "What was trained",
            "What was noticed",
            "How good it is",
            "Decisions",
            "Ranking",
            "Probabilities",
            "Money",
            "What it looks at",
            "Segments",
            "Training and test",
            "Columns left out",
            "What this report does not know",
        ]

    def test_it_begins_with_whom_to_contact_what_that_brings_and_how_sure_it_is(self, html: str, case: Any) -> None:
        top = html[html.index("<header>") : html.index("<nav")]
        curve = report_money.profit_curve(case.y, case.proba, Economics())
        best = report_money.campaign_points(case, curve)["best threshold"]
        assert f"Contact {best['contacted']} of {len(case.y)} customers" in top
        assert f"that brings {best['profit']:.2f} per customer" in top
        assert re.search(r"roc_auc\) is 0\.\d{3} \(95% interval 0\.\d{3} . [01]\.\d{3}\)", top)
        assert "Read first what was noticed (2)" in top

    def test_without_economics_and_with_few_churners_its_beginning_claims_less(
        self, model: ChurnModel, split: Any
    ) -> None:
        few = np.r_[np.flatnonzero(split.y_test)[:5], np.flatnonzero(split.y_test == 0)[:60]]
        html = evaluate_report(model, split.X_test.iloc[few], split.y_test.iloc[few]).html
        top = html[html.index("<header>") : html.index("<nav")]
        called = int((model.predict_proba(split.X_test.iloc[few])[:, 1] >= 0.5).sum())
        assert f"At its threshold of 0.5, the model would contact {called} of 65 customers." in top
        assert "too few customers to be sure" in top
        assert "brings" not in top
        assert "noticed" not in top

    def test_a_campaign_that_cannot_pay_is_said_at_the_beginning(self, case: Any) -> None:
        assert report_money.money_summary(case, Economics(acceptance=0.0)) == [
            "With the assumed costs and values, no contact pays."
        ]

    def test_the_meaning_of_a_figure_may_wrap(self, html: str) -> None:
        assert '<th scope="col" class="text">meaning</th>' in html

    def test_a_finding_is_shown_with_column_and_figure(self, read: Reader) -> None:
        assert "0.999" in read.texts
        assert f"column {HOSTILE} alone tells who leaves" in read.texts

    def test_names_and_categories_from_a_file_never_become_elements(self, read: Reader) -> None:
        assert {"script", "b"}.isdisjoint(tag for tag, _ in read.elements)

    def test_names_and_categories_from_a_file_are_shown_as_they_are(self, read: Reader) -> None:
        assert HOSTILE in read.texts
        assert "<b onclick='x()'>Two\nyears</b> & more" in read.texts

    def test_it_asks_no_other_host_and_runs_nothing(self, html: str, read: Reader) -> None:
        assert PIXEL_FREE.isdisjoint(tag for tag, _ in read.elements)
        assert all(link.startswith("#") for name in ("href", "xlink:href", "src") for link in read.all(name))
        assert not [name for _, attrs in read.elements for name in attrs if name.startswith("on")]
        assert not re.search(r"://|@import|url\((?!#)", html)

    def test_the_browser_is_told_to_load_nothing(self, read: Reader) -> None:
        assert "default-src 'none'; style-src 'unsafe-inline'" in read.all("content")

    def test_every_picture_has_a_description(self, read: Reader) -> None:
        pictures = [attrs for tag, attrs in read.elements if tag == "svg"]
        assert len(pictures) >= 10
        assert all(attrs["role"] == "img" and len(attrs["aria-label"] or "") > 20 for attrs in pictures)

    def test_text_in_pictures_is_text(self, read: Reader) -> None:
        assert "mean predicted probability" in [text.strip() for text in read.texts]

    def test_ids_are_unique_and_links_lead_somewhere(self, read: Reader) -> None:
        ids = read.all("id")
        assert len(ids) == len(set(ids))
        assert {link[1:] for name in ("href", "xlink:href") for link in read.all(name)} <= set(ids)

    def test_it_has_language_landmarks_and_one_title(self, read: Reader) -> None:
        tags = [tag for tag, _ in read.elements]
        assert ("html", {"lang": "en"}) in read.elements
        assert all(tags.count(tag) == 1 for tag in ("title", "h1", "header", "nav", "main", "footer"))

    def test_it_is_made_for_narrow_screens_dark_mode_and_paper(self, html: str) -> None:
        assert "width=device-width" in html
        assert "prefers-color-scheme: dark" in html
        assert "@media print" in html

    def test_nothing_is_not_a_number(self, read: Reader) -> None:
        shown = read.text + " ".join(read.all("aria-label")) + " ".join(read.all("d"))
        assert not re.search(r"\b(nan|NaN|inf|NaT)\b", shown)

    def test_columns_left_out_are_named_with_the_reason(self, read: Reader) -> None:
        assert "constant" in read.texts
        assert "has the same value in every row" in read.texts

    def test_it_is_the_same_each_time(self, model: ChurnModel, split: Any) -> None:
        few = split.X_test.head(60), split.y_test.head(60)
        assert evaluate_report(model, *few) == evaluate_report(model, *few)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_every_model_type_has_a_report(model_type: str, split: Any) -> None:
    model = ChurnModel(model_type).fit(split.X_train.head(300), split.y_train.head(300))
    assert model_type in evaluate_report(model, split.X_test.head(100), split.y_test.head(100)).html


def test_labels_may_be_words(split: Any) -> None:
    words = split.y_train.map({0: "No", 1: "Yes"}), split.y_test.map({0: "No", 1: "Yes"})
    model = ChurnModel("logistic_regression").fit(split.X_train, words[0])
    case = report_case.examine(model, split.X_test, words[1])
    assert case.churners == split.y_test.sum()


def test_the_callers_table_and_style_stay_as_they_are(model: ChurnModel, split: Any) -> None:
    X, y = split.X_test.head(60), split.y_test.head(60)
    before, style = X.copy(), dict(mpl.rcParams)
    evaluate_report(model, X, y)
    pd.testing.assert_frame_equal(X, before)
    assert dict(mpl.rcParams) == style


class TestRefusals:
    @pytest.mark.parametrize(("label", "words"), [(0, "none of them churned"), (1, "all of them churned")])
    def test_one_class_is_said_in_words(self, model: ChurnModel, split: Any, label: int, words: str) -> None:
        with pytest.raises(ValueError, match=f"of 300 customers {words}"):
            evaluate_report(model, split.X_test, [label] * len(split.X_test))

    @pytest.mark.parametrize("strange", [2, float("nan"), None, "Yes"])
    def test_labels_other_than_the_models_are_counted_but_not_repeated(
        self, model: ChurnModel, split: Any, strange: object
    ) -> None:
        labels = split.y_test.astype(object).to_numpy().copy()
        labels[:2] = strange
        with pytest.raises(ValueError, match=r"^2 of 300 labels are missing or other than the model's own, 0 and 1$"):
            evaluate_report(model, split.X_test, labels)

    def test_lengths_that_differ(self, model: ChurnModel, split: Any) -> None:
        with pytest.raises(ValueError, match="X has 300 customers and y has 299 labels"):
            evaluate_report(model, split.X_test, split.y_test[1:])

    def test_a_model_that_is_not_fitted(self, split: Any) -> None:
        with pytest.raises(ValueError, match="must be fitted"):
            evaluate_report(ChurnModel(), split.X_test, split.y_test)

    def test_an_absent_column_of_customer_values(self, model: ChurnModel, split: Any) -> None:
        with pytest.raises(ValueError, match="customer_value = 'clv': the table has no such column"):
            evaluate_report(model, split.X_test, split.y_test, economics=Economics(customer_value="clv"))

    def test_without_matplotlib_it_says_what_to_install(
        self, model: ChurnModel, split: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        with pytest.raises(ImportError, match=re.escape('pip install "churn_mlops[report]"')):
            evaluate_report(model, split.X_test, split.y_test)

    def test_the_module_is_imported_without_matplotlib(self) -> None:
        code = "import sys, churn_mlops.report.report; sys.exit('matplotlib' in sys.modules)"
        assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1]).returncode == 0


def figures(case: Any, folds: pd.DataFrame | None = None) -> str:
    """Give the section of figures, compared with nobody."""
    return "".join(report_quality.figures_section(case, report_quality.figures_frame(case, folds, {}), folds))


class TestFigures:
    def test_too_few_churners_get_no_interval_but_words(self, model: ChurnModel, split: Any) -> None:
        rows = np.r_[np.flatnonzero(split.y_test == 1)[:4], np.flatnonzero(split.y_test == 0)[:50]]
        few = report_case.examine(model, split.X_test.iloc[rows], split.y_test.iloc[rows])
        shown = figures(few)
        assert "no figure of this page is reliable, and no interval is given" in shown
        assert "95% interval" not in shown

    def test_a_cross_validation_outside_of_the_interval_is_pointed_out(self, case: Any) -> None:
        folds = pd.DataFrame({"roc_auc": [0.55, 0.56]})
        assert "outside of that interval" in "".join(
            report_quality.figures_section(case, report_quality.figures_frame(case, folds, {}), folds)
        )

    @pytest.mark.parametrize("folds", [pd.DataFrame(), pd.DataFrame([{"roc_auc": 0.8}])])
    def test_no_fold_or_one_has_no_spread(self, case: Any, folds: pd.DataFrame) -> None:
        shown = figures(case, folds)
        assert "nan" not in shown
        assert "±" not in re.sub(r"<th.*?</th>", "", shown)

    def test_figures_are_those_at_the_models_threshold(self, model: ChurnModel, split: Any) -> None:
        careful = copy.copy(model)
        careful.formula_ = careful.formula_.updated(threshold=0.2)
        case = report_case.examine(careful, split.X_test, split.y_test)
        shown = figures(case)
        expected = evaluate_predictions(case.y, case.proba, threshold=0.2)["recall"]
        assert "at a threshold of 0.2" in shown
        assert f">{expected:.3f}</td>" in shown.split("recall</th>")[1].split("</tr>")[0]

    def test_probabilities_that_are_wrong_are_called_wrong(self, case: Any) -> None:
        doubled = report_case.Case(case.model, case.X, case.y, np.minimum(1, 2 * case.proba))
        shown = "".join(report_scores.probabilities_section(doubled))
        assert "points higher than the share that churned" in shown

    def test_the_error_that_chance_explains_is_exceeded_in_one_case_of_twenty(self) -> None:
        rng = np.random.default_rng(1)
        proba = rng.beta(1.2, 3, 1_000)
        limit = report_scores.chance_error(proba)
        errors = [expected_calibration_error(rng.random(1_000) < proba, proba) for _ in range(400)]
        assert 0.01 < np.mean(np.array(errors) > limit) < 0.12


class TestMoney:
    def test_without_economics_nothing_is_invented(self, case: Any) -> None:
        shown = "".join(report_money.money_section(case, None))
        assert shown == "<p>No costs and values were given, so nothing can be said about money.</p>"

    def test_a_campaign_that_cannot_pay_is_said_in_words(self, case: Any) -> None:
        assert "no contact pays" in "".join(report_money.money_section(case, Economics(acceptance=0.0)))

    def test_the_models_own_threshold_is_a_campaign(self, model: ChurnModel, split: Any) -> None:
        careful = copy.copy(model)
        careful.formula_ = careful.formula_.updated(threshold=0.2)
        case = report_case.examine(careful, split.X_test, split.y_test)
        assert "the model's threshold" in Reader("".join(report_money.money_section(case, Economics()))).texts

    def test_a_column_of_values_counts_with_its_mean(self, case: Any) -> None:
        valued = report_case.Case(case.model, case.X.assign(clv=200), case.y, case.proba)
        shown = [report_money.money_section(each, economics)[0] for each, economics in
                 [(valued, Economics(customer_value="clv")), (case, Economics())]]  # fmt: skip
        assert shown[0] == shown[1]

    def test_the_profit_at_one_half_is_that_of_calling_those_from_one_half_on(self, case: Any) -> None:
        curve = report_money.profit_curve(case.y, case.proba, Economics(acceptance=0.3))
        called = case.proba >= 0.5
        expected = (case.y[called].sum() * (0.3 * 190 - 1) - (1 - case.y[called]).sum() * 11) / len(case.y)
        assert report_money.campaign_points(case, curve)["threshold 0.5"]["profit"] == pytest.approx(expected)


class TestColumns:
    def test_importance_is_that_of_scikit_learn_but_for_the_draws(self, case: Any) -> None:
        ours = report_columns.column_importance(case, repeats=20)
        names = list(ours.index)
        theirs = permutation_importance(
            case.model, case.X[case.model.feature_names], case.y, scoring="roc_auc", n_repeats=20, random_state=0
        )
        expected = pd.Series(theirs.importances_mean, index=case.model.feature_names)[names]
        assert ours["drop"].to_numpy() == pytest.approx(expected.to_numpy(), abs=0.012)

    @pytest.mark.parametrize("kind", ["logistic_regression", "hist_gradient_boosting", "random_forest", "blend"])
    def test_one_changed_column_is_predicted_as_the_whole_table_is(self, split: Any, kind: str) -> None:
        few = {"random_forest": {"n_estimators": 20}, "hist_gradient_boosting": {"max_iter": 20}}.get(kind, {})
        renamed = [part.rename(columns={"tenure $x_1$": "tenure"}) for part in (split.X_train, split.X_test)]
        model = ChurnModel(kind, feature_engineer=FeatureEngineer(derive=True), **few).fit(renamed[0], split.y_train)
        X = report_case.tidy(renamed[1])
        variations, order = report_columns.Variations(model.formula_, X), np.random.default_rng(0).permutation(len(X))
        assert model.formula_.derived
        for name in [*model.formula_.inputs, "tenure"]:  # the second time, nothing of the first is left
            shuffled = X.assign(**{name: X[name].iloc[order].reset_index(drop=True)})
            expected = model.predict_proba(shuffled)[:, 1]
            assert variations.probabilities(name, X[name].iloc[order]) == pytest.approx(expected, abs=1e-12)

    def test_importance_is_exactly_that_of_scikit_learn_on_the_same_draws(self, case: Any) -> None:
        names = case.model.formula_.inputs
        theirs = permutation_importance(
            case.model, case.X[names], case.y, scoring="roc_auc", n_repeats=3, random_state=0
        )
        ours = report_columns.column_importance(case, repeats=3).loc[names]
        assert ours["drop"].to_numpy() == pytest.approx(theirs.importances_mean, abs=1e-9)

    def test_columns_that_are_left_out_have_no_importance(self, case: Any) -> None:
        assert "constant" not in report_columns.column_importance(case, repeats=1).index

    def test_large_tables_are_sampled_with_their_churn_rate(self, case: Any) -> None:
        rows = report_columns.sample_rows(case, 100)
        assert len(rows) == pytest.approx(100, abs=1)
        assert case.y[rows].mean() == pytest.approx(case.rate, abs=0.01)

    @pytest.mark.parametrize("name", ["joined", "paperless", "total_charges", "tenure $x_1$", HOSTILE, "tech_support"])
    def test_partial_dependence_is_the_mean_over_all_customers(self, case: Any, name: str) -> None:
        tried, mean = report_columns.partial_dependence(case, name)
        value = case.X[name].iloc[[tried[0]] * len(case.X)].to_numpy()
        same = case.X.assign(**{name: pd.Series(value, dtype=case.X[name].dtype)})
        assert mean[0] == pytest.approx(case.model.predict_proba(same)[:, 1].mean())

    def test_a_column_without_values_in_the_test_has_no_picture(self, case: Any) -> None:
        empty = report_case.Case(case.model, case.X.assign(tech_support=None), case.y, case.proba)
        assert report_columns.dependence_picture(empty, "tech_support") == []

    def test_a_model_that_cannot_rank_has_no_important_column(self, case: Any) -> None:
        importance = pd.DataFrame({"drop": [0.0, -0.01], "spread": [0.0, 0.0]}, index=["a", "b"])
        assert "no column matters on its own" in "".join(report_columns.columns_section(case, importance))

    @pytest.mark.parametrize("kind", ["logistic_regression", "hist_gradient_boosting"])
    def test_of_a_wide_table_the_strongest_columns_are_shuffled(self, wide: Any, kind: str) -> None:
        X, y = wide
        case = report_case.examine(ChurnModel(kind).fit(X[:1_000], y[:1_000]), X[1_000:], y[1_000:])
        importance = report_columns.column_importance(case, repeats=2)
        assert len(importance) == 30
        assert set(importance.index[:4]) == {"c7", "c33", "c51", "c90"}

    def test_the_page_says_how_many_columns_of_a_wide_table_it_does_not_show(self, wide: Any) -> None:
        X, y = wide
        report = evaluate_report(ChurnModel("logistic_regression").fit(X[:1_000], y[:1_000]), X[1_000:], y[1_000:])
        assert "Of 100 columns, the 30 with the largest" in report.html
        assert "the other 88 are not" in report.html

    def test_a_derived_column_speaks_for_those_it_is_made_of(self, wide: Any) -> None:
        X, _ = wide
        rng = np.random.default_rng(1)
        money = {"monthly_charges": rng.uniform(20, 100, len(X)), "tenure": rng.integers(1, 60, len(X))}
        X = X.assign(**money, total_charges=money["monthly_charges"] * money["tenure"] * rng.uniform(0.5, 1.5, len(X)))
        ratio = X["total_charges"] / money["tenure"] / money["monthly_charges"]
        y = (rng.random(len(X)) < np.where(ratio > 1, 0.9, 0.1)).astype(int)
        model = ChurnModel("hist_gradient_boosting", feature_engineer=FeatureEngineer(derive=True)).fit(X, y)
        assert {"monthly_charges", "tenure", "total_charges"} <= set(
            report_columns.strongest_columns(report_case.examine(model, X, y), most=5)
        )


class TestSegments:
    def test_fewer_than_30_customers_are_too_few(self) -> None:
        row = report_segments.segment_row("a", np.array([0, 1] * 14 + [1]), np.full(29, 0.5))
        assert row[1:] == ["29", "–", "–", "–", "too few customers to say"]  # noqa: RUF001

    @pytest.mark.parametrize("label", [0, 1])
    def test_fewer_than_5_of_a_kind_have_no_auc(self, label: int) -> None:
        y = np.array([label] * 4 + [1 - label] * 60)
        row = report_segments.segment_row("a", y, np.full(64, y.mean()))
        assert row[4:] == ["–", "too few customers to say how well they are ranked"]  # noqa: RUF001

    def test_predictions_beyond_chance_are_pointed_out(self) -> None:
        y = np.array([1] * 20 + [0] * 180)
        assert "predicted too high" in report_segments.segment_row("a", y, np.full(200, 0.4))[-1]

    def test_a_ranking_that_could_be_chance_is_pointed_out(self) -> None:
        y, proba = np.array([1] * 20 + [0] * 180), np.tile([0.08, 0.12], 100)
        assert report_segments.segment_row("a", y, proba)[-1] == "ranking could be chance"

    def test_gaps_are_a_segment(self, case: Any) -> None:
        segments = report_segments.segments_of(case.X["tech_support"])
        assert segments is not None
        assert "(missing)" in set(segments)

    def test_a_column_of_many_values_makes_no_segments(self, case: Any) -> None:
        assert report_segments.segments_of(case.X["monthly_charges"]) is None


class TestComparison:
    def test_a_plain_logistic_regression_is_the_models_own_equal(self, model: ChurnModel, split: Any) -> None:
        frame = evaluate_report(
            model, split.X_test, split.y_test, X_train=split.X_train, y_train=split.y_train
        ).to_frame()
        assert frame["logistic_regression"].to_numpy() == pytest.approx(frame["value"].to_numpy())

    def test_what_is_not_given_is_no_column(self, model: ChurnModel, split: Any) -> None:
        frame = evaluate_report(model, split.X_test, split.y_test).to_frame()
        assert list(frame) == ["value", "low", "high", "always_no"]

    def test_a_difference_that_chance_explains_is_said_to_be_one(self, case: Any) -> None:
        rng = np.random.default_rng(0)
        same = np.clip(case.proba + rng.normal(0, 0.01, len(case.proba)), 0, 1)
        assert "which chance explains" in report_quality.ranking_difference(case, "logistic_regression", same)
        assert "more than chance explains" in report_quality.ranking_difference(
            case, "always_no", rng.random(len(case.proba))
        )

    def test_truth_of_another_length_is_refused(self, model: ChurnModel, split: Any) -> None:
        with pytest.raises(ValueError, match="truth has 3 probabilities, but there are 300 customers"):
            evaluate_report(model, split.X_test, split.y_test, truth=[0.1, 0.2, 0.3])

    def test_the_confusion_matrix_counts_every_customer_once(self, case: Any) -> None:
        cells = [
            text
            for text in Reader(report_quality.confusion_counts(case, 0.5)).texts
            if re.fullmatch(r"\d+ \(.*%\)", text)
        ]
        assert sum(int(cell.split()[0]) for cell in cells) == len(case.y)

    def test_two_thresholds_have_two_matrices(self, model: ChurnModel, split: Any) -> None:
        careful = copy.copy(model)
        careful.formula_ = careful.formula_.updated(threshold=0.2)
        both = report_quality.decisions_section(report_case.examine(careful, split.X_test, split.y_test))
        assert len(both) == 3
        assert len(report_quality.decisions_section(report_case.examine(model, split.X_test, split.y_test))) == 2


class TestDrift:
    def test_without_training_customers_nothing_is_invented(self, case: Any) -> None:
        assert "nothing can be said" in "".join(report_segments.drift_section(case, None, None))

    def test_the_same_kind_of_customers_has_not_drifted(self, case: Any, split: Any) -> None:
        assert "no more than chance explains" in "".join(
            report_segments.drift_section(case, split.X_train, split.y_train)
        )

    def test_another_kind_of_customers_has(self, case: Any, split: Any) -> None:
        loyal = split.X_train[split.X_train["tenure $x_1$"] > 50]
        assert "more than chance explains: a large change" in "".join(report_segments.drift_section(case, loyal, None))

    def test_index_follows_the_formula(self) -> None:
        before, now = np.repeat([0.1, 0.9], [80, 20]), np.repeat([0.1, 0.9], [50, 50])
        expected = (0.5 - 0.8) * np.log(0.5 / 0.8) + (0.5 - 0.2) * np.log(0.5 / 0.2)
        assert population_stability_index(before, now) == pytest.approx(expected)

    def test_what_chance_explains_is_exceeded_in_one_case_of_twenty(self) -> None:
        rng = np.random.default_rng(0)
        found = [population_stability_index(rng.random(2_000), rng.random(500)) for _ in range(400)]
        assert np.mean(np.array(found) > chi2.ppf(0.95, 9) * (1 / 2_000 + 1 / 500)) == pytest.approx(0.05, abs=0.03)

    @pytest.mark.parametrize("bad", [[], [float("nan")], [float("inf")]])
    def test_scores_that_are_none_are_refused(self, bad: list[float]) -> None:
        with pytest.raises(ValueError, match="needs scores on both sides"):
            population_stability_index([0.1, 0.2], bad)


class TestChosenSegments:
    @pytest.mark.parametrize("name", ["monthly_charges", "joined", "total_charges"])
    def test_numbers_and_dates_are_cut_into_quarters(self, case: Any, name: str) -> None:
        sizes = report_segments.cut_segments(case, name).drop(case.X.index[find_gaps(case.X[name])]).value_counts()
        assert len(sizes) == 4
        assert sizes.max() - sizes.min() < 0.1 * len(case.y)

    def test_texts_of_many_values_keep_the_most_frequent(self, case: Any) -> None:
        X = case.X.assign(city=[f"c{i % 40}" for i in range(len(case.X))])
        many = report_case.Case(case.model, X, case.y, case.proba)
        segments = report_segments.cut_segments(many, "city")
        assert segments.nunique() == 10
        assert "(others)" in set(segments)

    def test_a_column_that_is_not_there_is_named(self, model: ChurnModel, split: Any) -> None:
        with pytest.raises(ValueError, match="segments: the table has no column 'city'"):
            evaluate_report(model, split.X_test, split.y_test, segments=["city"])

    def test_the_interval_of_a_rate_is_wilsons(self) -> None:
        assert report_segments.rate_interval(10, 100) == pytest.approx((0.0552, 0.1744), abs=1e-4)
        assert report_segments.rate_interval(0, 50)[0] == pytest.approx(0)


def made(html: str) -> EvaluationReport:
    """Make a report of a given page."""
    return EvaluationReport("<t>", html, pd.DataFrame({"value": [0.5]}, index=pd.Index(["recall"], name="metric")))


class TestObject:
    def test_a_notebook_shows_the_page_in_a_frame_that_runs_nothing(self, html: str) -> None:
        elements = Reader(made(html)._repr_html_()).elements
        assert [tag for tag, _ in elements] == ["iframe"]
        assert elements[0][1]["sandbox"] == ""
        assert elements[0][1]["srcdoc"] == html

    def test_changing_the_table_leaves_the_report_as_it_is(self) -> None:
        report = made("")
        frame = report.to_frame()
        frame.loc["recall", "value"] = 1
        assert report.to_frame().loc["recall", "value"] == 0.5

    def test_a_folder_gets_the_page_and_the_figures(self, tmp_path: Path) -> None:
        assert made("page").save_folder(tmp_path / "a" / "b") == tmp_path / "a" / "b" / "report.html"
        assert (tmp_path / "a" / "b" / "report.html").read_text() == "page"
        assert (tmp_path / "a" / "b" / "metrics.csv").read_text() == "metric,value\nrecall,0.5\n"


class TestWriting:
    def test_folders_are_made_and_the_path_is_returned(self, tmp_path: Path) -> None:
        path = made("<p>é</p>").save(str(tmp_path / "a" / "b.html"))
        assert path == tmp_path / "a" / "b.html"
        assert path.read_bytes() == "<p>é</p>".encode()

    def test_a_letter_that_is_none_is_still_written(self, tmp_path: Path) -> None:
        assert made("\ud83d").save(tmp_path / "a.html").read_text() == "&#55357;"

    def test_a_write_that_fails_leaves_the_old_report_and_nothing_else(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full_disk(_: int) -> None:
            raise OSError(28, "No space left on device")

        path = made("old").save(tmp_path / "a.html")
        monkeypatch.setattr(os, "fsync", full_disk)
        with pytest.raises(OSError, match="The report was not written: No space left on device"):
            made("new").save(path)
        assert [file.read_text() for file in tmp_path.iterdir()] == ["old"]

    def test_a_folder_in_the_way_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(OSError, match="The report was not written") as caught:
            made("x").save(tmp_path)
        assert caught.value.filename == str(tmp_path)


class TestMetrics:
    @given(rows=OUTCOMES)
    def test_calibration_error_lies_between_0_and_1(self, rows: list[tuple[int, float]]) -> None:
        labels, proba = zip(*rows, strict=True)
        assert 0 <= expected_calibration_error(labels, proba) <= 1

    @given(rows=OUTCOMES, bins=st.integers(1, 20))
    def test_reliability_table_holds_every_customer_once(self, rows: list[tuple[int, float]], bins: int) -> None:
        labels, proba = zip(*rows, strict=True)
        table = reliability_table(labels, proba, bins)
        assert table["customers"].sum() == len(rows)
        assert (table["customers"] * table["churned"]).sum() == pytest.approx(sum(labels))
        assert (table["customers"] * table["predicted"]).sum() == pytest.approx(sum(proba))

    def test_calibration_error_of_the_opposite_of_the_truth_is_1(self) -> None:
        assert expected_calibration_error([0, 1, 1], [1, 0, 0]) == 1

    @pytest.mark.parametrize("wrong", [-0.1, 1.1, float("nan"), float("inf")])
    @pytest.mark.parametrize("metric", [expected_calibration_error, evaluate_predictions, lift_table])
    def test_what_is_no_probability_is_located(self, metric: Any, wrong: float) -> None:
        with pytest.raises(ValueError, match=r"y_proba: 1 of 3 are not in \[0, 1\] \(first: position 2\)"):
            metric([0, 1, 0], [0.1, 0.2, wrong])

    def test_calibration_error_of_nobody_is_an_error(self) -> None:
        with pytest.raises(ValueError, match="there are no customers"):
            expected_calibration_error([], [])

    def test_every_metric_has_a_meaning(self) -> None:
        assert list(evaluate_predictions([0, 1], [0.2, 0.7])) == list(METRIC_MEANINGS)

    def test_lift_does_not_depend_on_the_order_of_customers(self) -> None:
        rng = np.random.default_rng(0)
        y, proba, order = rng.integers(0, 2, 200), rng.random(200).round(1), rng.permutation(200)
        pd.testing.assert_frame_equal(lift_table(y, proba), lift_table(y[order], proba[order]))

    def test_lift_of_a_perfect_list_is_as_high_as_can_be(self) -> None:
        table = lift_table([1] * 10 + [0] * 90, np.linspace(1, 0, 100))
        assert table["lift"].iloc[0] == pytest.approx(10)
        assert table["found"].tolist() == pytest.approx([1] * 10)

    def test_intervals_hold_the_figure_and_stay_in_0_to_1(self) -> None:
        rng = np.random.default_rng(0)
        proba = rng.random(300)
        y = rng.random(300) < proba
        intervals, figures = bootstrap_intervals(y, proba, draws=50), pd.Series(evaluate_predictions(y, proba))
        assert figures.between(intervals["low"], intervals["high"]).all()
        assert ((intervals >= 0) & (intervals <= 1)).all(axis=None)

    def test_intervals_narrow_with_the_root_of_the_customers(self) -> None:
        rng = np.random.default_rng(0)
        proba = rng.random(80_000)
        y = rng.random(80_000) < proba
        wide, narrow = (
            bootstrap_intervals(y[:n], proba[:n], draws=30).loc["roc_auc"].diff().iloc[1] for n in (20_000, 80_000)
        )
        assert wide / narrow == pytest.approx(2, rel=0.4)


def test_numbers_stand_right_and_row_names_left() -> None:
    shown = pages.table(["n", "share", "word"], [["1", "2.5%", "a"], ["2", "–", "b"]], "t")  # noqa: RUF001
    assert '<th scope="col">n</th><th scope="col" class="number">share</th><th scope="col">word</th>' in shown
    assert '<td class="number">2.5%</td><td>a</td>' in shown


@pytest.mark.slow
def test_the_benchmark_of_wide_tables_measures_each_step(tmp_path: Path) -> None:
    root, written = Path(__file__).resolve().parent.parent, tmp_path / "wide.json"
    command = [sys.executable, root / "benchmarks" / "wide.py", "--columns", "15", "--customers", "300"]
    subprocess.run([*command, "--json", written], cwd=root, check=True, capture_output=True)
    told = json.loads(written.read_text())
    assert told["columns"] == ["columns", "model", "guards s", "fit s", "report s"]
    assert [row[:2] for row in told["rows"]] == [["15", "logistic_regression"], ["15", "hist_gradient_boosting"]]
