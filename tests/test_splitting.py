"""Splits: what stays together, what goes by time, and nothing else changed."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedKFold, train_test_split

from churn_mlops.data import encode_target, fold_indices, generate_sample_data, load_csv, split_data
from churn_mlops.data.splitting import first_alike


@pytest.fixture(scope="module")
def X() -> pd.DataFrame:
    """Make customers without repeated rows, with an index of their own."""
    table = generate_sample_data(600)
    return table.set_index("customer_id").drop(columns="churn")


@pytest.fixture(scope="module")
def y(X) -> pd.Series:
    """Make their target."""
    return generate_sample_data(600).set_index("customer_id")["churn"]


def days(X: pd.DataFrame, number: int = 100) -> pd.Series:
    """Give the customers dates, in no order of the table, several a day."""
    drawn = np.random.default_rng(0).integers(0, number, len(X))
    return pd.Series(pd.Timestamp("2025-01-01") + pd.to_timedelta(drawn, unit="D"), index=X.index, name="seen")


class TestWithoutCopies:
    """A table without repeated rows is split as scikit-learn splits it."""

    @pytest.mark.parametrize(("seed", "test_size"), [(42, 0.2), (1, 0.2), (7, 0.35)])
    def test_split_is_train_test_split(self, X, y, seed, test_size):
        expected = train_test_split(X, y, test_size=test_size, random_state=seed, stratify=y)
        split = split_data(X, y, seed=seed, test_size=test_size)
        pd.testing.assert_frame_equal(split.X_train, expected[0])
        pd.testing.assert_frame_equal(split.X_test, expected[1])
        pd.testing.assert_series_equal(split.y_train, expected[2])
        pd.testing.assert_series_equal(split.y_test, expected[3])

    def test_folds_are_shuffled_stratified_folds(self, X, y):
        expected = StratifiedKFold(5, shuffle=True, random_state=3).split(X, y)
        for ours, theirs in zip(fold_indices(X, y, seed=3), expected, strict=True):
            np.testing.assert_array_equal(ours[0], theirs[0])
            np.testing.assert_array_equal(ours[1], theirs[1])

    def test_on_telco_only_copies_change_sides(self, telco):
        table = load_csv(telco)
        X, y = table.drop(columns=["customerID", "Churn"]), encode_target(table["Churn"])
        before = train_test_split(X, test_size=0.2, random_state=42, stratify=y)[1].index
        moved = before.symmetric_difference(split_data(X, y).X_test.index)
        assert len(moved) == 13
        assert X.duplicated(keep=False)[moved].all()


class TestCopies:
    """Equal rows stay together."""

    @given(
        st.lists(st.integers(0, 59), min_size=1, max_size=120),
        st.integers(0, 2**16),
        st.sampled_from([0.2, 0.5]),
    )
    def test_no_row_is_on_both_sides(self, copied, seed, test_size):
        table = generate_sample_data(60).drop(columns="customer_id")
        table = pd.concat([table, table.iloc[copied]], ignore_index=True)
        split = split_data(table.drop(columns="churn"), table["churn"], test_size=test_size, seed=seed)
        assert split.X_train.merge(split.X_test, how="inner").empty
        assert len(split.X_train) + len(split.X_test) == len(table)

    def test_a_table_exported_three_times(self, X, y):
        tables, targets = pd.concat([X] * 3), pd.concat([y] * 3)
        split = split_data(tables, targets)
        assert set(split.X_train.index).isdisjoint(split.X_test.index)
        assert len(split.X_test) / len(tables) == pytest.approx(0.2, abs=0.05)
        assert split.y_test.mean() == pytest.approx(y.mean(), abs=0.06)

    def test_copies_with_another_outcome_stay_together_too(self, X, y):
        split = split_data(pd.concat([X, X]), pd.concat([y, 1 - y]))
        assert set(split.X_train.index).isdisjoint(split.X_test.index)

    def test_gaps_are_equal(self):
        table = pd.DataFrame({"a": [*range(30), np.nan, np.nan], "b": [*map(str, range(30)), None, np.nan]})
        assert first_alike(table)[-1] == 30

    def test_folds_keep_copies_together_and_test_each_row_once(self, X, y):
        tables, targets = pd.concat([X, X]), pd.concat([y, y])
        folds = fold_indices(tables, targets)
        assert sorted(row for _, test in folds for row in test) == list(range(len(tables)))
        for train, test in folds:
            assert set(tables.index[train]).isdisjoint(tables.index[test])

    @pytest.mark.parametrize("n", [60, 5000])
    def test_a_coarse_table_is_split_row_by_row(self, n):
        rng = np.random.default_rng(0)
        X = pd.DataFrame({"plan": rng.integers(0, 3, n), "region": rng.integers(0, 5, n)})
        y = pd.Series(rng.integers(0, 2, n))
        expected = train_test_split(X, test_size=0.2, random_state=42, stratify=y)[1]
        pd.testing.assert_frame_equal(split_data(X, y).X_test, expected)

    def test_where_copies_leave_a_part_without_a_class(self):
        X = pd.DataFrame({"a": [*range(40), *[99] * 10]})
        y = pd.Series([0] * 40 + [1] * 10)
        with pytest.raises(ValueError, match="rows that must stay together count as one"):
            split_data(X, y)


class TestGroups:
    """One customer's rows stay together."""

    @pytest.fixture
    def snapshots(self, X, y) -> tuple[pd.DataFrame, pd.Series, pd.Series]:
        """Make three monthly rows a customer; who leaves does so in the last."""
        table = pd.concat([X.assign(tenure=X["tenure"] + month, month=month) for month in range(3)])
        target = pd.concat([y * 0, y * 0, y])
        customer = pd.Series(table.index, name="customer")
        return table.reset_index(drop=True), target.reset_index(drop=True), customer

    def test_split_keeps_customers_whole_and_stratified(self, snapshots):
        X, y, customer = snapshots
        split = split_data(X, y, groups=customer)
        assert set(customer[split.X_train.index]).isdisjoint(customer[split.X_test.index])
        assert len(split.X_test) == 360
        assert split.y_test.mean() == pytest.approx(y.mean(), abs=0.002)

    def test_folds_keep_customers_whole(self, snapshots):
        X, y, customer = snapshots
        folds = fold_indices(X, y, groups=customer)
        assert sorted(row for _, test in folds for row in test) == list(range(len(X)))
        for train, test in folds:
            assert set(customer[train]).isdisjoint(customer[test])
            assert y[test].mean() == pytest.approx(y.mean(), abs=0.005)

    def test_groups_of_one_row_change_nothing(self, X, y):
        plain, grouped = split_data(X, y), split_data(X, y, groups=pd.Series(X.index, index=X.index))
        assert set(plain.X_test.index) == set(grouped.X_test.index)

    def test_missing_groups_are_counted(self, X, y):
        groups = pd.Series(X.index, index=X.index, name="account").mask(np.arange(len(X)) < 3)
        with pytest.raises(ValueError, match=r"group 'account' is missing in 3 of 600 rows \(first: row 0\)"):
            split_data(X, y, groups=groups)

    @pytest.mark.parametrize("cut", [split_data, fold_indices])
    def test_too_few_customers_who_left(self, cut):
        X = pd.DataFrame({"a": range(60)})
        y = pd.Series([0] * 50 + [1] * 10)
        groups = pd.Series([*range(50), *[99] * 10])
        with pytest.raises(ValueError, match="too few customers"):
            cut(X, y, groups=groups)


class TestTime:
    """The newest customers are tested."""

    def test_every_test_row_is_newer(self, X, y):
        time = days(X)
        split = split_data(X, y, time=time)
        assert time[split.X_train.index].max() < time[split.X_test.index].min()
        assert len(split.X_test) == pytest.approx(120, abs=5)

    @pytest.mark.parametrize(
        "spell",
        [
            lambda time: time.dt.strftime("%Y-%m-%d"),
            lambda time: time.dt.strftime("%Y-%m-%dT%H:%M:%S+02:00"),
            lambda time: time.dt.date,
            lambda time: time.dt.tz_localize("UTC"),
            lambda time: time.dt.to_period("D"),
            lambda time: time.dt.day_of_year,
        ],
        ids=["text", "text with zone", "date objects", "zone", "period", "number"],
    )
    def test_spellings_of_time_give_the_same_split(self, X, y, spell):
        expected = split_data(X, y, time=days(X))
        pd.testing.assert_frame_equal(split_data(X, y, time=spell(days(X))).X_test, expected.X_test)

    def test_ties_stay_together_and_the_nearest_share_is_taken(self):
        y = pd.Series([0, 1] * 50)
        time = pd.Series([1] * 50 + [2] * 35 + [3] * 15)
        assert len(split_data(y.to_frame("a"), y, time=time).y_test) == 15
        assert len(split_data(y.to_frame("a"), y, time=time, test_size=0.4).y_test) == 50

    def test_the_order_of_the_table_is_kept(self, X, y):
        split = split_data(X, y, time=days(X))
        assert list(split.X_test.index) == [name for name in X.index if name in set(split.X_test.index)]

    def test_folds_learn_from_the_past_only(self, X, y):
        time = days(X)
        folds = fold_indices(X, y, time=time, folds=4)
        assert all(time.iloc[train].max() < time.iloc[test].min() for train, test in folds)
        assert [len(test) for _, test in folds] == pytest.approx([120] * 4, abs=10)
        assert all(set(a[0]) < set(b[0]) for a, b in pairwise(folds))

    def test_one_time_cannot_be_split(self, X, y):
        with pytest.raises(ValueError, match="time 'seen' has one value in all 600 rows"):
            split_data(X, y, time=days(X, 1))

    def test_fewer_times_than_folds(self, X, y):
        with pytest.raises(ValueError, match=r"5 folds by time.*fewer folds"):
            fold_indices(X, y, time=days(X, 3))

    def test_a_part_without_churners(self):
        y = pd.Series([1] * 50 + [0] * 50, name="churn")
        with pytest.raises(ValueError, match=r"by time 'day' at 80 .*20 of class 0 from it on"):
            split_data(y.to_frame("a"), y, time=pd.Series(range(100), name="day"))

    def test_dates_that_could_mean_two_days_are_refused(self, X, y):
        time = days(X).dt.strftime("%d/%m/%Y")
        with pytest.raises(ValueError, match=r"time 'seen' holds something other than an ISO 8601 date.*600 of 600"):
            split_data(X, y, time=time)


class TestRefusals:
    """What cannot be split."""

    @pytest.mark.parametrize("cut", [split_data, fold_indices])
    def test_time_and_groups_together(self, cut, X, y):
        with pytest.raises(ValueError, match="by time or by groups, not both"):
            cut(X, y, time=days(X), groups=days(X))

    @pytest.mark.parametrize("cut", [split_data, fold_indices])
    def test_a_time_of_another_table(self, cut, X, y):
        with pytest.raises(ValueError, match="same index"):
            cut(X, y, time=days(X).reset_index(drop=True))

    def test_one_fold(self, X, y):
        with pytest.raises(ValueError, match="at least 2 folds, not 1"):
            fold_indices(X, y, folds=1)

    @pytest.mark.parametrize("labels", [[0] * 30, [1, *[0] * 29], [1] * 4 + [0] * 26])
    def test_too_few_customers_for_the_folds(self, labels):
        with pytest.raises(ValueError, match="too few customers to split with 5 folds"):
            fold_indices(pd.DataFrame({"a": range(30)}), pd.Series(labels))
