import contextlib
import datetime as dt
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.utils.estimator_checks import parametrize_with_checks

from churn_mlops.features import FeatureEngineer, create_derived_features, handle_missing_values

CELLS = {
    "number": st.none() | st.floats(-1e12, 1e12),
    "whole": st.integers(-(2**53), 2**53),
    "text": st.none() | st.text(max_size=5),
    "flag": st.none() | st.booleans(),
    "when": st.none() | st.datetimes(min_value=pd.Timestamp("1900-01-01"), max_value=pd.Timestamp("2100-01-01")),
    "number_as_text": st.sampled_from(["", " ", "1", "2.5", "-3e2"]),
}


@st.composite
def tables(draw, min_rows=2, max_rows=15):
    """Draw a table of mixed columns."""
    n = draw(st.integers(min_rows, max_rows))
    chosen = draw(st.lists(st.sampled_from(list(CELLS)), min_size=1, max_size=6))
    return pd.DataFrame(
        {f"{kind}_{i}": draw(st.lists(CELLS[kind], min_size=n, max_size=n)) for i, kind in enumerate(chosen)}
    )


def fit_quietly(table, **params):
    """Fit on a table; None where no column is of use."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        try:
            return FeatureEngineer(**params).fit(table)
        except ValueError as error:
            assert "No column of use" in str(error)  # noqa: PT017
            return None


@pytest.mark.usefixtures("array_api")
@parametrize_with_checks([FeatureEngineer(), FeatureEngineer(derive=True)])
def test_scikit_learn_compatibility(estimator, check):
    check(estimator)


@pytest.mark.parametrize("word", ["NAN", "inf", "-Infinity"])
def test_a_word_that_would_be_read_as_no_finite_number_is_a_category(word):
    table = pd.DataFrame({"n": range(60), "word": [word, ""] * 30})
    column = FeatureEngineer().fit(table, [0, 1] * 30).columns_["word"]
    assert (column.kind, column.categories) == ("categorical", (word,))


class TestAnyTable:
    @given(tables())
    @settings(deadline=None, max_examples=60)
    def test_matrix_is_finite_and_has_the_named_columns(self, table):
        engineer = fit_quietly(table)
        if engineer is not None:
            matrix = engineer.transform(table)
            assert matrix.shape == (len(table), len(engineer.get_feature_names_out()))
            assert np.isfinite(matrix).all()

    @given(tables())
    @settings(deadline=None, max_examples=60)
    def test_a_row_alone_is_encoded_as_in_the_table(self, table):
        engineer = fit_quietly(table)
        if engineer is not None:
            whole = engineer.transform(table)
            rows = [engineer.transform(table.iloc[[i]]) for i in range(len(table))]
            np.testing.assert_array_equal(np.vstack(rows), whole)

    @given(tables(), tables())
    @settings(deadline=None, max_examples=40)
    def test_transform_learns_nothing(self, table, other):
        engineer = fit_quietly(table)
        if engineer is not None:
            before = engineer.transform(table)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                with contextlib.suppress(ValueError):
                    engineer.transform(other)
            np.testing.assert_array_equal(engineer.transform(table), before)

    @given(tables())
    @settings(deadline=None, max_examples=40)
    def test_input_is_not_changed(self, table):
        before = table.copy(deep=True)
        fit_quietly(table, derive=True)
        pd.testing.assert_frame_equal(table, before)


class TestFeatureEngineer:
    table = pd.DataFrame(
        {
            "tenure": [1, 5, None, 60],
            "contract": ["month", "year", "month", None],
            "paperless": [True, False, True, True],
            "since": pd.to_datetime(["2024-01-01", "2023-06-01", None, "2019-02-03"]),
        }
    )

    def test_kinds_are_learned_from_the_columns(self):
        kinds = {name: encoder.kind for name, encoder in FeatureEngineer().fit(self.table).columns_.items()}
        assert kinds == {"tenure": "numeric", "contract": "categorical", "paperless": "boolean", "since": "date"}

    def test_nullable_and_categorical_dtypes_give_the_same_features(self):
        plain = FeatureEngineer().fit_transform(self.table)
        typed = self.table.astype({"tenure": "Int64", "contract": "category", "paperless": "boolean"})
        np.testing.assert_array_equal(FeatureEngineer().fit_transform(typed), plain)

    def test_text_that_is_numbers_with_blanks_is_numeric(self):
        engineer = FeatureEngineer().fit(pd.DataFrame({"charges": ["10", " ", "30.5"]}))
        assert engineer.get_feature_names_out().tolist() == ["charges", "charges_missing"]

    def test_unseen_category_has_no_feature_set(self):
        engineer = FeatureEngineer().set_output(transform="pandas").fit(self.table)
        encoded = engineer.transform(self.table.assign(contract="decade"))
        assert (encoded.filter(like="contract_") == 0).all(axis=None)

    def test_rare_and_unseen_categories_share_one_feature(self):
        engineer = FeatureEngineer(max_categories=1).set_output(transform="pandas")
        engineer.fit(pd.DataFrame({"plan": ["a", "a", "b", "c"]}))
        assert engineer.transform(pd.DataFrame({"plan": ["b", "z"]}))["plan_infrequent"].tolist() == [1.0, 1.0]

    def test_missing_column_is_named(self):
        engineer = FeatureEngineer().fit(self.table)
        with pytest.raises(ValueError, match="now missing:\n- tenure"):
            engineer.transform(self.table.drop(columns="tenure"))

    def test_extra_column_is_ignored(self):
        engineer = FeatureEngineer().fit(self.table)
        extra = self.table.assign(colour="green")
        np.testing.assert_array_equal(engineer.transform(extra), engineer.transform(self.table))

    def test_text_in_a_numeric_column_names_column_row_and_value(self):
        engineer = FeatureEngineer().fit(self.table)
        wrong = self.table.assign(tenure=["1", "n/k", "3", "4"])
        with pytest.raises(ValueError, match=r"column 'tenure' holds text in 1 of 4 rows \(first: row 1, 'n/k'\)"):
            engineer.transform(wrong)

    @pytest.mark.parametrize(
        ("column", "reason"),
        [
            ([None] * 25, "has no values"),
            ([7] * 25, "has the same value in every row"),
            ([f"C-{i}" for i in range(25)], "differs in nearly every row"),
        ],
    )
    def test_useless_column_is_left_out_with_a_warning(self, column, reason):
        table = pd.DataFrame({"tenure": range(25), "useless": column})
        with pytest.warns(UserWarning, match=f"column 'useless' .*{reason}"):
            engineer = FeatureEngineer().fit(table)
        assert list(engineer.columns_) == ["tenure"]

    def test_left_out_column_need_not_be_there_later(self):
        table = pd.DataFrame({"tenure": range(25), "country": "US"})
        with pytest.warns(UserWarning, match="country"):
            engineer = FeatureEngineer().fit(table)
        assert engineer.transform(table[["tenure"]]).shape == (25, 1)

    def test_infinity_is_reported_and_treated_as_missing(self):
        table = pd.DataFrame({"charges": [1.0, np.inf, 3.0]})
        with pytest.warns(UserWarning, match="column 'charges' holds infinity in 1 of 3 rows"):
            engineer = FeatureEngineer().fit(table)
        assert engineer.columns_["charges"].maximum == 3.0

    def test_repeated_column_is_reported_and_the_first_is_used(self):
        table = pd.DataFrame([[1, 9], [2, 9], [3, 8]], columns=["tenure", "tenure"])
        with pytest.warns(UserWarning, match="more than once: 'tenure'"):
            engineer = FeatureEngineer().fit(table)
        assert engineer.columns_["tenure"].maximum == 3

    def test_table_without_a_column_of_use_is_refused(self):
        with pytest.warns(UserWarning, match="country"), pytest.raises(ValueError, match="No column of use"):
            FeatureEngineer().fit(pd.DataFrame({"country": ["US", "US"]}))

    def test_derive_adds_the_derived_features(self):
        table = pd.DataFrame({"tenure": [1, 2, 9], "monthly_charges": [5.0, 6, 7], "total_charges": [5.0, 12, 60]})
        names = set(FeatureEngineer(derive=True).fit(table).get_feature_names_out())
        assert names - set(table) == {
            "log_tenure",
            "log_total_charges",
            "average_monthly_charges",
            "charges_increase",
        }

    def test_set_output_pandas_keeps_the_index(self):
        table = self.table.set_axis([10, 20, 30, 40])
        encoded = FeatureEngineer().set_output(transform="pandas").fit_transform(table)
        assert encoded.index.tolist() == [10, 20, 30, 40]

    def test_clone_keeps_parameters_and_forgets_what_was_learned(self):
        copy = clone(FeatureEngineer(derive=True, max_categories=5).fit(self.table))
        assert copy.get_params() == {"derive": True, "max_categories": 5}
        assert not hasattr(copy, "columns_")

    def test_max_categories_below_one_is_refused(self):
        with pytest.raises(ValueError, match="max_categories must be at least 1, not 0"):
            FeatureEngineer(max_categories=0).fit(self.table)


class TestDerivedFeatures:
    @given(tables())
    @settings(deadline=None, max_examples=30)
    def test_pure_functions_do_not_change_their_input(self, table):
        before = table.copy(deep=True)
        create_derived_features(table)
        handle_missing_values(table)
        pd.testing.assert_frame_equal(table, before)

    @pytest.mark.parametrize("spelling", ["tenure", "Tenure", "TENURE"])
    def test_spelling_of_a_column_does_not_matter(self, spelling):
        assert "log_tenure" in create_derived_features(pd.DataFrame({spelling: [1, 2]}))

    def test_average_of_a_customer_without_tenure_is_the_monthly_charge(self):
        first_bill = pd.DataFrame({"tenure": [0], "MonthlyCharges": [52.5], "TotalCharges": [" "]})
        assert create_derived_features(first_bill)["charges_increase"].tolist() == [0.0]

    @pytest.mark.parametrize(("strategy", "expected"), [("median", 2.0), ("mean", 3.0), ("zero", 0.0)])
    def test_strategy_decides_what_a_gap_becomes(self, strategy, expected):
        table = pd.DataFrame({"tenure": [1.0, 2.0, 6.0, None]})
        assert handle_missing_values(table, strategy)["tenure"].iloc[-1] == expected

    def test_unknown_strategy_is_refused(self):
        with pytest.raises(ValueError, match="Unknown strategy: 'guess'"):
            handle_missing_values(pd.DataFrame({"a": [1]}), "guess")


class TestExtremes:
    @pytest.mark.parametrize("value", [1e300, -1e300, 1e39, 5e-324])
    def test_number_far_out_is_encoded_as_a_finite_32_bit_number(self, value):
        engineer = FeatureEngineer().fit(pd.DataFrame({"charges": [1.0, 2.0, 3.0]}))
        encoded = engineer.transform(pd.DataFrame({"charges": [value]})).astype(np.float32)
        assert np.isfinite(encoded).all()

    @pytest.mark.parametrize("value", [dt.datetime(1, 1, 1), dt.datetime(9999, 12, 31), "0001-01-01"])
    def test_date_far_out_is_encoded_as_finite_numbers(self, value):
        engineer = FeatureEngineer().fit(pd.DataFrame({"since": pd.to_datetime(["2020-01-01", "2021-01-01"])}))
        assert np.isfinite(engineer.transform(pd.DataFrame({"since": [value]}, dtype=object))).all()
