"""The guards: each fires on what it is for, and on nothing else."""

import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import TargetEncoder

from churn_mlops.data import Finding, check_table, encode_target, generate_sample_data, load_csv
from churn_mlops.data.guards import (
    column_aucs,
    find_drift,
    find_duplicates,
    find_ids,
    find_leaks,
    find_order,
    find_same,
    find_spellings,
)


@pytest.fixture(scope="module")
def customers() -> pd.DataFrame:
    """Make honest customers, without the id."""
    return generate_sample_data(5000).drop(columns="customer_id")


@pytest.fixture(scope="module")
def X(customers) -> pd.DataFrame:
    """Make the raw columns."""
    return customers.drop(columns="churn")


@pytest.fixture(scope="module")
def y(customers) -> pd.Series:
    """Make the target."""
    return customers["churn"]


def kinds(findings: list[Finding]) -> list[str]:
    """List the kinds of findings."""
    return [finding.kind for finding in findings]


class TestCheckTable:
    """`check_table` as a whole."""

    @pytest.mark.parametrize("seed", range(5))
    def test_silent_on_honest_customers(self, seed):
        table = generate_sample_data(1000, seed=seed).drop(columns="customer_id")
        assert check_table(table.drop(columns="churn"), table["churn"]) == []

    def test_telco_has_copied_rows_and_nothing_else(self, telco):
        table = load_csv(telco)
        findings = check_table(table.drop(columns=["customerID", "Churn"]), encode_target(table["Churn"]))
        assert [(finding.kind, finding.figure) for finding in findings] == [("duplicates", 40.0)]

    def test_an_id_does_not_hide_copied_rows(self, X, y):
        table = pd.concat([X, X.head(50)], ignore_index=True)
        table["number"] = range(len(table))
        findings = check_table(table, pd.concat([y, y.head(50)]))
        assert kinds(findings) == ["id", "duplicates"]

    def test_a_growing_id_is_not_an_order(self, X, y):
        assert kinds(check_table(X.assign(number=range(len(X))), y)) == ["id"]

    def test_input_is_not_changed(self, X, y):
        before = X.copy()
        check_table(X, y)
        pd.testing.assert_frame_equal(X, before)

    def test_rare_churners_are_not_thinned_away(self):
        rng = np.random.default_rng(0)
        y = pd.Series((rng.random(80_000) < 0.005).astype(int), name="gone")
        X = pd.DataFrame({"leak": y + rng.normal(0, 0.05, len(y)), "usage": rng.random(len(y))})
        findings = check_table(X, y)
        assert [(finding.kind, finding.column) for finding in findings] == [("rare_target", "gone"), ("leak", "leak")]

    def test_messages_hold_no_value_of_a_customer(self, X, y):
        table = X.assign(remark=[f"secret {number}" for number in range(len(X))])
        assert not any("secret" in finding.message for finding in check_table(table, y))

    def test_findings_name_their_column_in_the_message(self, X, y):
        findings = check_table(X.assign(account=range(len(X)), gone_on=y.map({1: "2025-01-01", 0: None})), y)
        assert {finding.column for finding in findings} == {"account", "gone_on"}
        assert all(repr(finding.column) in str(finding) for finding in findings)

    def test_100_000_rows_of_50_columns_in_seconds(self):
        table = generate_sample_data(100_000)
        wide = pd.concat([table.drop(columns=["customer_id", "churn"]).add_suffix(f"_{i}") for i in range(6)], axis=1)
        start = time.process_time()
        check_table(wide, table["churn"])
        assert time.process_time() - start < 15

    @pytest.mark.parametrize("y", [pd.Series(["Yes", "No"]), pd.Series([0, 2]), pd.Series([0, None])])
    def test_a_target_that_is_not_0_and_1_is_refused(self, y):
        with pytest.raises(ValueError, match="encode_target"):
            check_table(pd.DataFrame({"tenure": [1, 2]}), y)

    def test_tables_of_different_length_are_refused(self, X, y):
        with pytest.raises(ValueError, match=r"5,000 rows and y has 4,999"):
            check_table(X, y.iloc[1:])

    def test_an_empty_table_is_refused(self):
        with pytest.raises(ValueError, match="empty"):
            check_table(pd.DataFrame({"tenure": []}), pd.Series([], dtype=int))

    @settings(deadline=None)
    @given(
        st.lists(st.integers(0, 1), min_size=1, max_size=40),
        st.sampled_from(
            [
                lambda n: [None] * n,
                lambda n: [" "] * n,
                lambda n: ["nan", "x"] * n,
                lambda n: [np.inf, -np.inf, 1.5] * n,
                lambda n: [True, None, "yes", 3] * n,
                lambda n: [["a"], ["b"]] * n,
                lambda n: pd.Categorical(["a", None] * n),
                lambda n: pd.array([1, None] * n, dtype="Int64"),
                lambda n: pd.to_datetime(["2025-01-01", None] * n, utc=True),
                lambda n: pd.to_timedelta(range(n), unit="D"),
                lambda n: ["2025-01-01", "2025-13-77"] * n,
            ]
        ),
    )
    def test_no_column_stops_it(self, labels, make):
        n = len(labels)
        table = pd.DataFrame({"odd": pd.Series(make(n)).head(n), 7: range(n)})
        assert all(isinstance(finding, Finding) for finding in check_table(table, pd.Series(labels)))


class TestTarget:
    """Shares and numbers of churners."""

    @pytest.mark.parametrize(
        ("churners", "rows", "expected"),
        [
            (100, 10_000, []),
            (100, 10_001, ["rare_target"]),
            (99, 500, ["few_churners"]),
            (99, 9_901, ["rare_target", "few_churners"]),
            (0, 50, ["rare_target", "few_churners"]),
        ],
    )
    def test_limits_of_one_percent_and_a_hundred(self, churners, rows, expected):
        rng = np.random.default_rng(0)
        y = pd.Series(rng.permutation([1] * churners + [0] * (rows - churners)))
        assert kinds(check_table(pd.DataFrame({"usage": rng.random(rows)}), y)) == expected

    @pytest.mark.parametrize(("churners", "expected"), [(500, []), (501, ["majority"])])
    def test_more_than_half_is_questioned(self, churners, expected):
        y = pd.Series(np.random.default_rng(0).permutation([1] * churners + [0] * (1000 - churners)))
        findings = check_table(pd.DataFrame({"usage": np.random.default_rng(1).random(1000)}), y)
        assert kinds(findings) == expected
        assert all("--positive" in finding.message for finding in findings)


class TestIds:
    """`find_ids`."""

    n = 2000
    rng = np.random.default_rng(1)

    @pytest.mark.parametrize(
        "values",
        [
            range(1, n + 1),
            range(n, 0, -1),
            rng.permutation(n),
            np.cumsum(rng.integers(1, 90, n)),
            rng.choice(900_000, n, replace=False) + 100_000,
            rng.permutation(n).astype(float),
            [f"{number:06d}" for number in rng.permutation(n)],
            [f"C-{number}" for number in range(n)],
            rng.integers(10**17, 10**18, n),
            rng.choice([10**6, 5 * 10**6, 9 * 10**8], n) + np.arange(n)[::-1] * 3,
            10**8 + np.rint(rng.lognormal(15, 2, n)).astype(int) * n + np.arange(n),
            rng.choice([442_079_460_000, 442_079_990_000], n) + rng.choice(9_999, n, replace=False),
        ],
        ids=[
            *("counter", "backwards", "shuffled", "with holes", "six digits", "floats", "as text", "text", "huge"),
            *("clusters", "nine digits and more", "phone numbers"),
        ],
    )
    def test_ids_are_found(self, values):
        findings = find_ids(pd.DataFrame({"number": values}))
        assert [(finding.kind, finding.column) for finding in findings] == [("id", "number")]

    @pytest.mark.parametrize(
        "values",
        [
            rng.lognormal(4, 0.5, n).round(2),
            rng.lognormal(12, 0.6, n).round(),
            rng.uniform(0, 1e6, n),
            rng.integers(0, 200_000, n),
            rng.integers(1, 73, n),
            pd.Timestamp("2020-01-01") + pd.to_timedelta(np.arange(n), unit="h"),
            [str(day.date()) for day in pd.date_range("2020-01-01", periods=n)],
            np.where(np.arange(n) < n / 2, np.arange(n), np.nan),
            [f"plan {number % 40}" for number in range(n)],
        ],
        ids=["charges", "income", "uniform", "drawn", "months", "times", "dates", "half gaps", "plans"],
    )
    def test_quantities_dates_and_categories_are_not(self, values):
        assert find_ids(pd.DataFrame({"column": values})) == []

    @pytest.mark.parametrize(("rows", "found"), [(999, 0), (1000, 1)])
    def test_different_whole_numbers_are_enough_from_a_thousand_rows_on(self, rows, found):
        crowded = np.rint(np.random.default_rng(0).lognormal(12, 2, rows)).astype(int) * rows + np.arange(rows)
        assert len(find_ids(pd.DataFrame({"number": crowded}))) == found


class TestSame:
    """`find_same`."""

    plans = pd.Series(["basic", "plus", None, "pro"] * 50)

    def test_a_code_beside_its_label_is_found_with_its_gaps(self):
        codes = self.plans.map({"basic": 3, "plus": 1, "pro": 2})
        findings = find_same(pd.DataFrame({"plan": self.plans, "code": codes, "usage": range(200)}))
        assert [(finding.column, finding.figure) for finding in findings] == [("code", 3)]
        assert "'plan' and 'code'" in str(findings[0])

    def test_one_row_that_differs_is_enough(self):
        codes = self.plans.map({"basic": 3, "plus": 1, "pro": 2})
        codes.iloc[0] = 1
        assert find_same(pd.DataFrame({"plan": self.plans, "code": codes})) == []

    def test_constants_and_numbers_that_are_all_different_are_not(self):
        rng = np.random.default_rng(0)
        table = pd.DataFrame({"a": rng.random(200), "b": rng.random(200), "c": 1, "d": 2})
        assert find_same(table) == []

    def test_it_is_a_note_and_nothing_is_left_out(self, X, y):
        doubled = X.assign(code=X["contract_type"].map(hash))
        assert kinds(check_table(doubled, y)) == ["same"]


class TestSpellings:
    """`find_spellings`."""

    @pytest.mark.parametrize("dtype", ["object", "str", "category"])
    def test_case_and_blanks_are_counted(self, dtype):
        column = pd.Series(["Basic", "basic", "basic ", "Plus", None, " ", ""] * 20, dtype=dtype)
        findings = find_spellings(pd.DataFrame({"plan": column, "n": range(140)}))
        assert [(finding.column, finding.figure) for finding in findings] == [("plan", 2)]

    def test_other_categories_are_silent(self):
        assert find_spellings(pd.DataFrame({"plan": ["Basic", "Basic+", None, "Plus"], "n": [1, 2, 3, 4]})) == []


class TestDuplicates:
    """`find_duplicates`."""

    def test_counts_the_repeats(self, X):
        assert find_duplicates(pd.concat([X, X.head(7), X.head(3)]))[0].figure == 10

    def test_one_in_a_thousand_is_chance(self, X):
        assert find_duplicates(pd.concat([X, X.head(4)])) == []

    def test_a_coarse_table_has_none(self):
        coarse = pd.DataFrame({"plan": ["a", "b"] * 500, "region": [1, 2, 3, 4] * 250})
        assert find_duplicates(coarse) == []


class TestLeaks:
    """`find_leaks` and `column_aucs`."""

    def test_numbers_in_the_middle_leak_too(self, X, y):
        usage = np.random.default_rng(0).normal(0, 1, len(y))
        leak = pd.Series(np.where(y == 1, usage * 0.01, np.sign(usage) + usage))
        assert [finding.column for finding in find_leaks(X.assign(usage=leak), y)] == ["usage"]

    @pytest.mark.parametrize("gap", [None, np.nan, " "])
    def test_a_gap_leaks(self, X, y, gap):
        reason = pd.Series(np.arange(len(y)).astype(str), dtype=object).radd("note ").where(y == 1, gap)
        assert [finding.column for finding in find_leaks(X.assign(reason=reason), y)] == ["reason"]

    def test_categories_leak(self, X, y):
        status = y.map({0: "active", 1: "closed"}).where(np.arange(len(y)) % 100 != 0, "unknown")
        assert [finding.column for finding in find_leaks(X.assign(status=status), y)] == ["status"]

    def test_unique_text_and_noise_are_chance(self, y):
        rng = np.random.default_rng(0)
        noise = pd.DataFrame({"text": [f"t{i}" for i in range(len(y))], "number": rng.random(len(y))})
        assert column_aucs(noise, y).between(0.45, 0.55).all()

    def test_the_figure_is_the_auc(self, y):
        flipped = y.where(np.arange(len(y)) % 50 != 0, 1 - y)
        finding = find_leaks(pd.DataFrame({"flag": flipped}), y)[0]
        assert finding.figure == pytest.approx(0.98, abs=0.005)

    def test_repeated_names_are_each_looked_at(self, y):
        rng = np.random.default_rng(0)
        table = pd.DataFrame(np.column_stack([rng.random(len(y)), y]), columns=["same", "same"])
        assert len(find_leaks(table, y)) == 1


class TestOrder:
    """`find_order` and `find_drift`."""

    def test_a_file_sorted_by_a_column_names_it(self, X):
        assert find_order(X.sort_values("tenure"))[0].column == "tenure"

    def test_a_new_plan_in_the_last_half(self, X):
        newer = X.assign(plan=np.where(np.arange(len(X)) > 3000, "new", "old"))
        assert find_order(newer)[0].column == "plan"

    def test_shuffled_rows_are_silent(self, X):
        assert all(find_order(X.sample(frac=1, random_state=seed)) == [] for seed in range(5))

    def test_a_small_file_needs_more_evidence(self, X):
        assert find_order(X.head(40)) == []

    def test_drift_is_last_half_minus_first(self):
        y = pd.Series([1, 0, 0, 0] * 500 + [1, 0] * 1000)
        assert find_drift(y)[0].figure == pytest.approx(0.25)

    def test_a_small_change_of_the_churn_rate_is_silent(self):
        y = pd.Series([1, *[0] * 9] * 5000 + [1, *[0] * 8] * 5000)
        assert find_drift(y) == []


def made_table(n: int, seed: int) -> tuple[pd.DataFrame, pd.Series]:
    """Make one column of each shape, with an outcome that depends on some of them."""
    rng = np.random.default_rng(seed)
    few = rng.integers(0, 4, n)
    table = pd.DataFrame(
        {
            "normal": rng.normal(size=n),
            "skewed": rng.lognormal(0, 2, n).round(1),
            "mostly_zero": np.where(rng.random(n) < 0.95, 0, rng.random(n)),
            "gaps": np.where(rng.random(n) < 0.3, np.nan, rng.normal(size=n)),
            "infinite": np.where(rng.random(n) < 0.1, np.inf, rng.normal(size=n)),
            "empty": np.nan,
            "constant": 1,
            "few": few,
            "yes": rng.random(n) < 0.5,
            "plan": pd.Series(few).map({0: "a", 1: "b", 2: "c", 3: None}),
            "city": [f"city {number}" for number in rng.geometric(0.03, n)],
            "day": pd.Timestamp("2025-01-01") + pd.to_timedelta(rng.integers(0, 400, n), unit="D"),
            "length": pd.to_timedelta(rng.integers(0, 9, n), unit="D"),
        }
    )
    leaves = rng.random(n) < 1 / (1 + np.exp(-2 * table["normal"] - few + 2))
    return table.assign(leak=np.where(leaves, rng.normal(9, 1, n), rng.normal(0, 1, n))), pd.Series(leaves.astype(int))


def simple_levels(column: pd.Series) -> np.ndarray:
    """Cut a column as pandas does, one at a time: what the guards did before they were made for wide tables."""
    if column.dtype.kind == "m":
        column = column.dt.total_seconds()
    if column.dtype.kind == "M":
        column = (column - column.min()).dt.total_seconds()
    if pd.api.types.is_numeric_dtype(column.dtype):
        column = column.astype(float).where(np.isfinite(column.astype(float)))
        if column.nunique() > 50:
            codes = pd.qcut(column, 50, labels=False, duplicates="drop").to_numpy(dtype=float)
            return np.nan_to_num(codes, nan=-1).astype(int) + 1
    codes, values = pd.factorize(column)
    common = np.bincount(codes + 1, minlength=len(values) + 1) >= max(5, len(column) // 1000)
    return np.where(codes < 0, 0, np.where(common[codes + 1], codes + 2, 1))


def simple_rates(table: pd.DataFrame, target: np.ndarray) -> np.ndarray:
    """Replace the levels by rates with scikit-learn's encoder."""
    levels = np.column_stack([simple_levels(column) for _, column in table.items()])
    rates = np.empty(levels.shape)
    for train, test in StratifiedKFold(5, shuffle=True, random_state=42).split(levels, target):
        encoder = TargetEncoder(target_type="binary").fit(levels[train], target[train])
        rates[test] = encoder.transform(levels[test])
    return rates


class TestEqualToTheSimpleWay:
    """What the guards count for all columns at once is what one column after the other gives."""

    @pytest.mark.parametrize(("n", "seed"), [(60, 0), (700, 1), (6_000, 2)])
    def test_the_auc_of_each_column_is_that_of_scikit_learn(self, n, seed):
        table, y = made_table(n, seed)
        rates = simple_rates(table, y.to_numpy()).round(12)  # the encoder adds up in the order of the rows
        expected = [roc_auc_score(y, rate) for rate in rates.T]
        assert column_aucs(table, y).to_numpy() == pytest.approx(np.array(expected), abs=1e-9)

    def test_many_columns_are_looked_at_block_by_block(self):
        table, y = made_table(200, 3)
        many = pd.concat([table.add_suffix(f" {number}") for number in range(20)], axis=1)
        assert column_aucs(many, y).to_numpy() == pytest.approx(np.tile(column_aucs(table, y), 20))

    @pytest.mark.parametrize("trend", [0.0, 1.0])
    def test_the_order_has_the_auc_of_the_summed_log_odds(self, trend):
        table, _ = made_table(2_000, 4)
        table = table.assign(normal=table["normal"] + trend * (np.arange(2_000) >= 1_000))
        half = (np.arange(2_000) >= 1_000).astype(int)
        share = np.clip(simple_rates(table, half), 1e-3, 1 - 1e-3)
        auc = roc_auc_score(half, np.log(share / (1 - share)).sum(axis=1))
        assert [finding.figure for finding in find_order(table)] == ([pytest.approx(auc, abs=1e-3)] if trend else [])

    def test_the_whole_check_finds_what_the_guards_find_alone(self):
        table, y = made_table(2_000, 5)
        table = table.assign(number=range(2_000), same=table["few"].map({0: "w", 1: "x", 2: "y", 3: "z"}))
        rest = table.drop(columns="number")
        alone = [*find_ids(table), *find_same(rest), *find_spellings(rest), *find_leaks(rest, y), *find_order(rest)]
        assert check_table(table, y) == alone
        assert {"id", "same", "leak"} <= {finding.kind for finding in alone}

    def test_categories_of_any_dtype_are_compared_by_spelling(self):
        values = ["Gold", "gold ", "silver", None, "Gold"] * 10
        typed = [pd.Series(values, dtype=dtype) for dtype in (object, "str", "category")]
        mixed = pd.Series([*values, 1, 2.5, ("a",)], dtype=object)
        assert [find_spellings(pd.DataFrame({"plan": each}))[0].figure for each in [*typed, mixed]] == [1.0] * 4
