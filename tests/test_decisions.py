"""Economics: payoffs, profit curves, MPC and EMPC against brute force and against empulse, retention lists."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from empulse.metrics import empc_score, mpc_score
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.integrate import trapezoid
from scipy.stats import beta
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from churn_mlops.data import encode_target, load_csv, split_data
from churn_mlops.decisions.economics import (
    Economics,
    best_threshold,
    expected_maximum_profit,
    expected_profit,
    maximum_profit,
    profit_curve,
)
from churn_mlops.decisions.retention import retention_list
from churn_mlops.models.churn_model import ChurnModel

METRICS = [profit_curve, best_threshold, maximum_profit, expected_maximum_profit]
BY_COLUMN = Economics(customer_value="clv")

# A few distinct scores make ties, and scores that rank badly make a ROC curve that is not convex.
OUTCOMES = st.lists(
    st.tuples(st.integers(0, 1), st.sampled_from([0.0, 0.05, 0.2, 0.35, 0.5, 0.7, 0.9, 1.0])), min_size=2, max_size=40
).filter(lambda rows: len({label for label, _ in rows}) == 2)
AMOUNTS = st.floats(0, 60)
MARGINS = st.floats(0, 500)


def unzip(rows: list[tuple[int, float]]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    labels, scores = zip(*rows, strict=True)
    return np.array(labels), np.array(scores)


def campaign(y: npt.NDArray[Any], p: npt.NDArray[Any], cut: float, economics: Economics, rate: Any) -> Any:
    """Pay out contacting everybody from a score on, for one acceptance rate or many."""
    left, stayed = ((p >= cut) & (y == 1)).sum(), ((p >= cut) & (y == 0)).sum()
    accepted = rate * (economics.customer_value - economics.incentive_cost - economics.contact_cost)
    refused = (1 - rate) * -economics.contact_cost
    return (left * (accepted + refused) - stayed * (economics.incentive_cost + economics.contact_cost)) / len(y)


def brute_maximum(y: npt.NDArray[Any], p: npt.NDArray[Any], economics: Economics, rate: Any) -> Any:
    """Try every threshold, contacting nobody included."""
    best = np.zeros_like(rate)
    for cut in np.unique(p):
        best = np.maximum(best, campaign(y, p, cut, economics, rate))
    return best


def brute_expected(y: npt.NDArray[Any], p: npt.NDArray[Any], economics: Economics) -> float:
    """Integrate the best campaign over the acceptance rate, numerically."""
    rates = np.linspace(0, 1, 100_001)
    return float(trapezoid(brute_maximum(y, p, economics, rates) * beta(*economics.acceptance).pdf(rates), rates))


@pytest.fixture(scope="module")
def scored() -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Give 5,000 customers with a score that ranks well, with ties."""
    rng = np.random.default_rng(0)
    proba = rng.beta(1.2, 3, 5000).round(2)
    return (rng.random(5000) < proba).astype(int), proba


class Scores:
    """A model that has its probabilities from a column."""

    def predict_proba(self, X: pd.DataFrame) -> npt.NDArray[Any]:
        proba = X["proba"].to_numpy(dtype=float)
        return np.column_stack([1 - proba, proba])


@pytest.fixture
def table() -> pd.DataFrame:
    return pd.DataFrame(
        {"proba": [0.1, 0.9, 0.5, 0.5, 0.3], "clv": [5000.0, 200.0, 100.0, 400.0, 5.0]},
        index=pd.Index(["a", "b", "c", "d", "e"], name="customer"),
    )


class TestEconomics:
    @pytest.mark.parametrize(
        ("setting", "value"),
        [
            *[(name, -1) for name in ("customer_value", "incentive_cost", "contact_cost")],
            *[(name, float("nan")) for name in ("customer_value", "incentive_cost", "contact_cost", "acceptance")],
            *[(name, float("inf")) for name in ("customer_value", "incentive_cost", "contact_cost", "acceptance")],
            ("incentive_cost", 201),
            ("incentive_cost", "10"),
            ("contact_cost", None),
            ("contact_cost", True),
            ("acceptance", -0.1),
            ("acceptance", 1.1),
            ("acceptance", True),
            ("acceptance", "0.3"),
            ("acceptance", (0, 14)),
            ("acceptance", (6, -1)),
            ("acceptance", (6, float("nan"))),
            ("acceptance", (6, 14, 1)),
        ],
    )
    def test_an_impossible_figure_is_refused_by_the_name_of_its_setting(self, setting: str, value: object) -> None:
        with pytest.raises(ValueError, match=rf"^\[economics\] {setting} = "):
            Economics(**{setting: value})

    def test_numpy_numbers_are_numbers(self) -> None:
        assert Economics(np.int64(200), np.float32(10), np.int8(1), np.float64(0.3)).mean_acceptance == 0.3

    def test_a_list_of_beta_parameters_is_as_good_as_a_tuple(self) -> None:
        assert Economics(acceptance=[6, 14]) == Economics(acceptance=(6, 14))
        assert hash(Economics(acceptance=[6, 14])) == hash(Economics())

    def test_values_are_the_same_amount_for_all_without_a_column(self, table: pd.DataFrame) -> None:
        assert Economics().values(table).tolist() == [200] * 5

    def test_values_come_from_the_column_in_the_order_of_rows(self, table: pd.DataFrame) -> None:
        assert BY_COLUMN.values(table).tolist() == table["clv"].tolist()

    def test_values_may_be_numbers_stored_as_text(self) -> None:
        assert BY_COLUMN.values(pd.DataFrame({"clv": ["12.5", "3"]})).tolist() == [12.5, 3]

    def test_an_absent_value_column_is_named(self) -> None:
        with pytest.raises(ValueError, match="customer_value = 'clv': the table has no such column; it has tenure"):
            BY_COLUMN.values(pd.DataFrame({"tenure": [1]}))

    @pytest.mark.parametrize("wrong", [None, float("nan"), -1.0, float("inf"), "n/a", pd.NA])
    def test_a_wrong_value_is_counted_and_located_but_not_repeated(self, wrong: object) -> None:
        table = pd.DataFrame({"clv": [100, wrong, 300]}, index=[7, 8, 9], dtype=object)
        with pytest.raises(ValueError, match=r"'clv' holds no amount of 0 or more in 1 of 3 rows \(first: row 8"):
            BY_COLUMN.values(table)


class TestExpectedProfit:
    def test_the_four_outcomes_pay_what_the_paper_says(self) -> None:
        accepted = expected_profit([1], Economics(acceptance=1.0))
        refused = expected_profit([1], Economics(acceptance=0.0))
        stayed = expected_profit([0], Economics())
        assert [*accepted, *refused, *stayed] == [200 - 10 - 1, -1, -10 - 1]

    def test_each_customer_counts_with_their_own_value(self) -> None:
        profit = expected_profit([0.5, 0.5], BY_COLUMN, [100, 400])
        assert profit == pytest.approx([0.5 * (0.3 * 90 - 1) - 0.5 * 11, 0.5 * (0.3 * 390 - 1) - 0.5 * 11])

    def test_a_customer_worth_less_than_the_incentive_is_a_loss_and_no_error(self) -> None:
        assert expected_profit([1.0], BY_COLUMN, [5])[0] < 0

    def test_a_column_of_values_must_be_handed_over(self) -> None:
        with pytest.raises(ValueError, match=r"names a column: pass values=economics\.values\(X\)"):
            expected_profit([0.5], BY_COLUMN)

    def test_no_customers_have_no_profits(self) -> None:
        assert expected_profit([], Economics()).shape == (0,)

    @pytest.mark.parametrize("values", [[100], [100, 100, 100], [[100, 100]]])
    def test_values_of_other_customers_are_refused(self, values: object) -> None:
        with pytest.raises(ValueError, match="one amount for each"):
            expected_profit([0.1, 0.2], Economics(), values)

    @pytest.mark.parametrize("value", [-1, float("nan"), float("inf")])
    def test_impossible_values_are_refused(self, value: float) -> None:
        with pytest.raises(ValueError, match="values: every customer's value"):
            expected_profit([0.1, 0.2], Economics(), [100, value])

    @pytest.mark.parametrize("proba", [-0.1, 1.1, float("nan"), float("inf")])
    def test_what_is_no_probability_is_counted_and_located(self, proba: float) -> None:
        with pytest.raises(ValueError, match=r"y_proba: 1 of 2 are no probabilities .*\(first: position 1\)"):
            expected_profit([0.1, proba], Economics())

    def test_both_columns_of_predict_proba_are_refused_with_advice(self) -> None:
        with pytest.raises(ValueError, match=r"shape \(2, 2\).*predict_proba\(X\)\[:, 1\]"):
            expected_profit([[0.9, 0.1], [0.2, 0.8]], Economics())


class TestProfitCurve:
    @given(rows=OUTCOMES)
    def test_every_row_is_the_campaign_at_its_threshold(self, rows: list[tuple[int, float]]) -> None:
        y, p = unzip(rows)
        for row in profit_curve(y, p, Economics()).itertuples():
            assert row.share_contacted == (p >= row.threshold).mean()
            assert row.profit_per_customer == pytest.approx(campaign(y, p, row.threshold, Economics(), 0.3))

    def test_it_runs_from_nobody_to_everybody_with_ties_together(self) -> None:
        curve = profit_curve([1, 0, 1, 0], [0.7, 0.7, 0.7, 0.1], Economics())
        assert curve["share_contacted"].tolist() == [0, 0.75, 1]
        assert curve["profit_per_customer"].iloc[0] == 0
        assert np.isfinite(curve).all(axis=None)

    def test_the_mean_of_a_value_column_counts(self, scored: tuple[Any, Any]) -> None:
        values = np.linspace(0, 400, len(scored[0]))
        pd.testing.assert_frame_equal(profit_curve(*scored, BY_COLUMN, values), profit_curve(*scored, Economics()))

    def test_the_order_of_customers_does_not_matter(self, scored: tuple[Any, Any]) -> None:
        shuffled = np.random.default_rng(1).permutation(len(scored[0]))
        other = profit_curve(scored[0][shuffled], scored[1][shuffled], Economics())
        pd.testing.assert_frame_equal(other, profit_curve(*scored, Economics()))


class TestBestThreshold:
    def test_it_is_the_smallest_score_contacted(self) -> None:
        assert best_threshold([0, 0, 1, 1], [0.1, 0.2, 0.6, 0.9], Economics()) == 0.6

    def test_it_earns_the_maximum_profit(self, scored: tuple[Any, Any]) -> None:
        cut = best_threshold(*scored, Economics())
        assert campaign(*scored, cut, Economics(), 0.3) == pytest.approx(maximum_profit(*scored, Economics()))

    def test_it_lies_at_the_break_even_where_probabilities_mean_what_they_say(self) -> None:
        rng = np.random.default_rng(3)
        p = rng.random(200_000)
        y = rng.random(200_000) < p
        assert best_threshold(y, p, Economics()) == pytest.approx(11 / 67, abs=0.02)

    @pytest.mark.parametrize("top", [0.0, 0.4, 1.0])
    def test_it_is_finite_and_contacts_nobody_where_no_contact_pays(self, top: float) -> None:
        cut = best_threshold([1, 0], [0.0, top], Economics(acceptance=0.0))
        assert top < cut < np.inf
        assert cut == pytest.approx(top)


class TestMaximumProfit:
    @given(rows=OUTCOMES, margin=MARGINS, incentive=AMOUNTS, contact=AMOUNTS, rate=st.floats(0, 1))
    def test_it_equals_the_best_of_all_campaigns(
        self, rows: list[tuple[int, float]], margin: float, incentive: float, contact: float, rate: float
    ) -> None:
        economics = Economics(incentive + margin, incentive, contact, rate)
        expected = brute_maximum(*unzip(rows), economics, np.float64(rate))
        assert maximum_profit(*unzip(rows), economics) == pytest.approx(expected, abs=1e-9)

    @pytest.mark.parametrize("rate", [0.05, 0.3, 0.9])
    def test_it_equals_empulse(self, scored: tuple[Any, Any], rate: float) -> None:
        expected = mpc_score(*scored, accept_rate=rate, clv=150, incentive_cost=12, contact_cost=2)
        assert maximum_profit(*scored, Economics(150, 12, 2, rate)) == pytest.approx(expected)

    def test_an_uncertain_acceptance_counts_with_its_mean(self, scored: tuple[Any, Any]) -> None:
        assert maximum_profit(*scored, Economics()) == maximum_profit(*scored, Economics(acceptance=0.3))


class TestExpectedMaximumProfit:
    @settings(max_examples=25, deadline=None)
    @given(rows=OUTCOMES, margin=MARGINS, incentive=AMOUNTS, contact=AMOUNTS, first=st.floats(1, 20))
    @example(rows=[(1, 0.9), (0, 0.1)], margin=0, incentive=0, contact=0, first=6)
    @example(rows=[(1, 0.9), (0, 0.1)], margin=0, incentive=10, contact=1, first=6)
    @example(rows=[(1, 0.9), (0, 0.1)], margin=190, incentive=0, contact=0, first=6)
    @example(rows=[(0, 0.9), (1, 0.1)], margin=190, incentive=10, contact=1, first=6)
    @example(rows=[(1, 0.5), (0, 0.5)], margin=190, incentive=10, contact=1, first=6)
    def test_it_equals_the_brute_force_integral(
        self, rows: list[tuple[int, float]], margin: float, incentive: float, contact: float, first: float
    ) -> None:
        economics = Economics(incentive + margin, incentive, contact, (first, 14))
        expected = brute_expected(*unzip(rows), economics)
        assert expected_maximum_profit(*unzip(rows), economics) == pytest.approx(expected, rel=1e-6, abs=1e-6)

    def test_it_equals_the_brute_force_integral_on_many_customers(self, scored: tuple[Any, Any]) -> None:
        assert expected_maximum_profit(*scored, Economics()) == pytest.approx(brute_expected(*scored, Economics()))

    @pytest.mark.parametrize("acceptance", [(6, 14), (1, 1), (2, 40), (0.5, 0.5)])
    def test_it_equals_empulse(self, scored: tuple[Any, Any], acceptance: tuple[float, float]) -> None:
        a, b = acceptance
        expected = empc_score(*scored, alpha=a, beta=b, clv=150, incentive_cost=12, contact_cost=2)
        assert expected_maximum_profit(*scored, Economics(150, 12, 2, acceptance)) == pytest.approx(expected)

    def test_with_a_rate_it_is_the_maximum_profit(self, scored: tuple[Any, Any]) -> None:
        fixed = Economics(acceptance=0.3)
        assert expected_maximum_profit(*scored, fixed) == maximum_profit(*scored, fixed)

    def test_with_a_nearly_certain_rate_it_nears_the_maximum_profit(self, scored: tuple[Any, Any]) -> None:
        narrow = Economics(acceptance=(3e6, 7e6))
        assert expected_maximum_profit(*scored, narrow) == pytest.approx(maximum_profit(*scored, narrow), rel=1e-4)

    @given(rows=OUTCOMES)
    def test_it_is_never_below_the_maximum_profit(self, rows: list[tuple[int, float]]) -> None:
        y, p = unzip(rows)
        assert expected_maximum_profit(y, p, Economics()) >= maximum_profit(y, p, Economics()) - 1e-9

    def test_the_mean_of_a_value_column_counts(self, scored: tuple[Any, Any]) -> None:
        values = np.linspace(0, 400, len(scored[0]))
        expected = expected_maximum_profit(*scored, Economics())
        assert expected_maximum_profit(*scored, BY_COLUMN, values) == pytest.approx(expected)


@pytest.mark.parametrize("metric", METRICS)
class TestBadInput:
    @pytest.mark.parametrize(
        ("y_true", "y_proba", "words"),
        [
            ([0, 0], [0.1, 0.2], "one class only"),
            ([1, 1], [0.1, 0.2], "one class only"),
            ([], [], "one class only"),
            ([0, 1, 1], [0.1, 0.2], r"\(3,\) for 2 probabilities"),
            ([0, 2], [0.1, 0.2], r"neither 0 nor 1 \(first: position 1\)"),
            ([0, float("nan")], [0.1, 0.2], "neither 0 nor 1"),
            ([0, None], [0.1, 0.2], "neither 0 nor 1"),
            (["No", "Yes"], [0.1, 0.2], "encode_target"),
            ([0, 1], [0.1, float("nan")], "no probabilities"),
            ([0, 1], [0.1, 1.2], "no probabilities"),
            ([0, 1], [[0.9, 0.1], [0.2, 0.8]], "predict_proba"),
        ],
    )
    def test_it_is_refused_in_words(self, metric: Any, y_true: object, y_proba: object, words: str) -> None:
        with pytest.raises(ValueError, match=words):
            metric(y_true, y_proba, Economics())

    def test_an_incentive_above_the_mean_of_a_value_column_is_refused(self, metric: Any) -> None:
        with pytest.raises(ValueError, match=r"^\[economics\] incentive_cost = 10: is above the customer_value of 5"):
            metric([0, 1], [0.1, 0.8], BY_COLUMN, [4, 6])

    def test_a_column_of_values_must_be_handed_over(self, metric: Any) -> None:
        with pytest.raises(ValueError, match="names a column"):
            metric([0, 1], [0.1, 0.8], BY_COLUMN)

    def test_labels_may_be_booleans_and_series_with_any_index(self, metric: Any) -> None:
        labels = pd.Series([False, True, True, False], index=[9, 3, 5, 1])
        other = metric([0, 1, 1, 0], [0.2, 0.9, 0.1, 0.3], Economics())
        result = metric(labels, pd.Series([0.2, 0.9, 0.1, 0.3]), Economics())
        assert np.array_equal(np.asarray(result), np.asarray(other))


class TestRetentionList:
    def test_it_holds_the_profitable_customers_best_first(self, table: pd.DataFrame) -> None:
        calls = retention_list(Scores(), table, BY_COLUMN)
        assert calls.index.tolist() == ["a", "d", "b", "c"]
        assert calls.index.name == "customer"
        assert calls.columns.tolist() == [
            "churn_probability",
            "customer_value",
            "expected_profit",
            "cumulative_cost",
            "cumulative_profit",
        ]

    def test_its_rows_say_what_the_formulas_say(self, table: pd.DataFrame) -> None:
        calls = retention_list(Scores(), table, BY_COLUMN)
        b = calls.loc["b"]
        assert (b["churn_probability"], b["customer_value"]) == (0.9, 200)
        assert b["expected_profit"] == pytest.approx(expected_profit([0.9], Economics())[0])
        costs = [1 + 10 * (p * 0.3 + 1 - p) for p in (0.1, 0.5, 0.9, 0.5)]
        assert calls["cumulative_cost"].tolist() == pytest.approx(np.cumsum(costs))
        assert calls["cumulative_profit"].tolist() == pytest.approx(calls["expected_profit"].cumsum())

    def test_customers_equally_profitable_keep_their_order(self) -> None:
        table = pd.DataFrame({"proba": [0.5, 0.9, 0.5, 0.9]})
        assert retention_list(Scores(), table, Economics()).index.tolist() == [1, 3, 0, 2]

    def test_the_budget_cuts_before_the_first_customer_who_exceeds_it(self, table: pd.DataFrame) -> None:
        costs = retention_list(Scores(), table, BY_COLUMN)["cumulative_cost"].tolist()
        lengths = [len(retention_list(Scores(), table, BY_COLUMN, budget)) for budget in (costs[1] - 0.01, costs[1])]
        assert lengths == [1, 2]

    def test_a_budget_that_fits_to_the_cent_is_not_lost_to_rounding(self) -> None:
        table = pd.DataFrame({"proba": [1.0] * 30})
        calls = retention_list(Scores(), table, Economics(200, 0, 0.1), budget=3.0)
        assert len(calls) == 30

    def test_a_budget_of_nothing_calls_nobody(self, table: pd.DataFrame) -> None:
        empty = retention_list(Scores(), table, BY_COLUMN, 0)
        assert empty.empty
        assert "cumulative_profit" in empty

    @pytest.mark.parametrize("budget", [-1, float("nan"), float("inf"), "100"])
    def test_an_impossible_budget_is_refused(self, table: pd.DataFrame, budget: Any) -> None:
        with pytest.raises(ValueError, match="budget = "):
            retention_list(Scores(), table, BY_COLUMN, budget)

    def test_nobody_worth_a_call_makes_an_empty_list(self, table: pd.DataFrame) -> None:
        assert retention_list(Scores(), table, Economics(acceptance=0.0)).empty

    def test_ids_become_the_index_with_their_name(self, table: pd.DataFrame) -> None:
        ids = pd.Series([11, 12, 13, 14, 15], index=table.index, name="customerID")
        calls = retention_list(Scores(), table, BY_COLUMN, ids=ids)
        assert calls.index.tolist() == [11, 14, 12, 13]
        assert calls.index.name == "customerID"

    def test_ids_in_another_order_are_refused(self, table: pd.DataFrame) -> None:
        ids = pd.Series([11, 12, 13, 14, 15], index=table.index)[::-1]
        with pytest.raises(ValueError, match="do not have the same index"):
            retention_list(Scores(), table, BY_COLUMN, ids=ids)

    def test_too_few_ids_are_refused(self, table: pd.DataFrame) -> None:
        with pytest.raises(ValueError, match="4 ids for 5 customers"):
            retention_list(Scores(), table, BY_COLUMN, ids=[1, 2, 3, 4])

    def test_a_model_that_gives_no_probability_is_refused(self, table: pd.DataFrame) -> None:
        with pytest.raises(ValueError, match="1 of 5 are no probabilities"):
            retention_list(Scores(), table.assign(proba=table["proba"].mask(table["proba"] == 0.9)), BY_COLUMN)

    def test_the_table_is_not_changed(self, table: pd.DataFrame) -> None:
        before = table.copy()
        retention_list(Scores(), table, BY_COLUMN, 100)
        pd.testing.assert_frame_equal(table, before)


def test_on_telco_the_profit_threshold_beats_one_half_and_the_figures_are_the_known_ones(telco: Path) -> None:
    table = load_csv(telco)
    split = split_data(table.drop(columns=["Churn", "customerID"]), encode_target(table["Churn"]))
    model = ChurnModel("logistic_regression")
    folds = StratifiedKFold(5, shuffle=True, random_state=42)
    out_of_fold = cross_val_predict(model, split.X_train, split.y_train, cv=folds, method="predict_proba")[:, 1]
    cut = best_threshold(split.y_train, out_of_fold, Economics())
    p, y = model.fit(split.X_train, split.y_train).predict_proba(split.X_test)[:, 1], split.y_test.to_numpy()
    assert campaign(y, p, cut, Economics(), 0.3) > 1.2 * campaign(y, p, 0.5, Economics(), 0.3)
    assert expected_maximum_profit(y, p, Economics()) == pytest.approx(10.33, abs=0.05)
    assert maximum_profit(y, p, Economics()) == pytest.approx(10.25, abs=0.05)
