"""A formula gives the answer of its estimator, whatever the customer, and one answer through every door."""

import copy
import csv
import importlib.util
import io
import json
import math
import os
import pickle
import shutil
import subprocess
import sys
import venv
import warnings
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import churn_mlops.formula
from churn_mlops.data import load_csv
from churn_mlops.features import FeatureEngineer
from churn_mlops.formula import evaluator, load, machine_code
from churn_mlops.formula.encoding import date_of, days_and_month
from churn_mlops.formula.evaluator import Compiled, Evaluator
from churn_mlops.formula.many import batch_walk, byte_walk, level_walk, most_leaves
from churn_mlops.formula.one import logistic, logistic_of_one, numpy_walk
from churn_mlops.formula.trees import NodeTable, join_trees, sum_of_leaves
from churn_mlops.models import ChurnModel, ChurnPredictor

ROOT = Path(__file__).resolve().parent.parent

FEW = {
    "blend": {"max_iter": 60},
    "random_forest": {"n_estimators": 40},
    "logistic_regression": {},
    "hist_gradient_boosting": {},
    "lightgbm": {"max_trees": 60},
    "catboost": {"max_trees": 60, "cv": 2},
}
ENGINES = ["numpy", "numba"]


def make_table(n, seed=0):
    """Return n customers with every kind of column, gaps, rare categories, and who of them churned."""
    rng = np.random.default_rng(seed)
    tenure, city = rng.integers(0, 72, n), rng.integers(0, 40, n)
    table = pd.DataFrame(
        {
            "tenure": tenure,
            "charges": np.where(rng.random(n) < 0.1, np.nan, np.exp(rng.normal(4, 1, n))),
            "ratio": rng.normal(0, 1e-6, n),
            "senior": rng.random(n) < 0.3,
            "contract": pd.Series(rng.choice(["month", "year", "two years"], n), dtype=object).where(
                rng.random(n) > 0.1, None
            ),
            "city": [f"city {i}" for i in city],
            "plan": rng.choice(["a", "b"], n),
            "joined": pd.Timestamp("2019-01-01") + pd.to_timedelta(rng.integers(0, 2_000 * 86_400, n), unit="s"),
            "left_at": pd.Series(pd.Timestamp("2024-03-01") + pd.to_timedelta(rng.integers(0, 300, n), unit="D")).where(
                rng.random(n) > 0.5
            ),
        }
    )
    log_odds = 1 - tenure / 20 + (city % 3) - 2 * table["senior"] * (table["plan"] == "a")
    return table, (rng.random(n) < 1 / (1 + np.exp(-log_odds))).astype(int)


@pytest.fixture(scope="module")
def models():
    """Return a fitted model of each type."""
    X, y = make_table(800)
    return {kind: ChurnModel(kind, **params).fit(X, y) for kind, params in FEW.items()}


def strange_customers(n, seed=1):
    """Return n customers as a service may send them: extremes, gaps, blanks, unseen text, dates with zones."""
    rng = np.random.default_rng(seed)
    extremes = [0.0, -0.0, 1e308, -1e308, 5e-324, 1e9, -1e9, 2**53, 1, -7, math.pi]

    def number(usual):
        kind = rng.integers(10)
        if kind == 0:
            return None
        return extremes[rng.integers(len(extremes))] if kind == 1 else float(usual())

    def text(values):
        unusual = [None, "", "  ", "unseen", "nan", "None", "Año", "infrequent", "x" * 500]
        return values[rng.integers(len(values))] if rng.random() < 0.7 else unusual[rng.integers(len(unusual))]

    def date():
        zone = timezone(timedelta(hours=int(rng.integers(-12, 13)))) if rng.random() < 0.3 else None
        day = datetime(1700, 1, 2, tzinfo=zone) + timedelta(days=int(rng.integers(182_000)))
        day += timedelta(microseconds=int(rng.integers(86_400 * 10**6)))
        choices = [None, day, day.isoformat(), day.date().isoformat()]
        return choices[rng.integers(len(choices))]

    return [
        {
            "tenure": number(lambda: rng.integers(72)),
            "charges": number(lambda: np.exp(rng.normal(4, 1))),
            "ratio": number(lambda: rng.normal(0, 1e-6)),
            "senior": [True, False, None][rng.integers(3)],
            "contract": text(["month", "year", "two years"]),
            "city": text([f"city {i}" for i in range(40)]),
            "plan": text(["a", "b"]),
            "joined": date(),
            "left_at": date(),
            "not asked for": object(),
        }
        for _ in range(n)
    ]


@pytest.fixture(scope="module")
def strange():
    """Return 10,000 strange customers."""
    return strange_customers(10_000)


@pytest.fixture(scope="module")
def strange_table(strange):
    return pd.DataFrame(strange, dtype=object).drop(columns="not asked for")


def of_estimator(model, table):
    """Return the probabilities that the fitted scikit-learn estimator gives."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "overflow", RuntimeWarning)
        features = model.feature_engineer_.transform(table)
        return model.estimator_.predict_proba(features)[:, 1]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", FEW)
def test_one_customer_equals_the_estimator_for_10_000_strange_ones(kind, engine, models, strange, strange_table):
    walks = Evaluator(models[kind].formula_, engine)
    actual = [walks.probability(customer) for customer in strange]
    np.testing.assert_allclose(actual, of_estimator(models[kind], strange_table), rtol=0, atol=1e-9)
    assert walks.compiled.engine == ("python" if kind == "logistic_regression" else engine)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", FEW)
def test_batch_equals_the_estimator_for_10_000_strange_customers(kind, engine, models, strange_table):
    actual = Evaluator(models[kind].formula_, engine).probabilities(strange_table)
    np.testing.assert_allclose(actual, of_estimator(models[kind], strange_table), rtol=0, atol=1e-9)


@pytest.mark.parametrize("cores", ["1", "2", "4"])
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", ["blend", "random_forest", "lightgbm"])
def test_batch_is_the_same_on_any_number_of_cores(kind, engine, cores, models, strange_table, monkeypatch):
    monkeypatch.setenv("CHURN_THREADS", cores)
    walks = Evaluator(models[kind].formula_, engine)
    once = walks.probabilities(strange_table)
    twice = walks.probabilities(pd.concat([strange_table] * 2))
    np.testing.assert_array_equal(twice, np.tile(once, 2))
    np.testing.assert_allclose(once, of_estimator(models[kind], strange_table), rtol=0, atol=1e-9)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("leaves", [2, 8, 9, 16, 17, 31, 64, 65, 200])
@pytest.mark.parametrize("kind", ["hist_gradient_boosting", "lightgbm"])
def test_batch_equals_the_estimator_whatever_the_size_of_its_trees(kind, leaves, engine, strange_table):
    X, y = make_table(1_000)
    size = {"max_leaf_nodes": leaves, "max_iter": 9} if kind != "lightgbm" else {"num_leaves": leaves, "max_trees": 9}
    model = ChurnModel(kind, **size, **{"min_samples_leaf" if kind != "lightgbm" else "min_child_samples": 1}).fit(X, y)
    assert (most_leaves(model.formula_.trees[0]) > 64) is (leaves > 64)
    actual = Evaluator(model.formula_, engine).probabilities(strange_table)
    np.testing.assert_allclose(actual, of_estimator(model, strange_table), rtol=0, atol=1e-9)


@st.composite
def random_trees(draw, most=64):
    """Draw trees of any shape, whose few thresholds are met exactly by some customers."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))

    def grow(n_leaves, nodes):
        at = len(nodes)
        nodes.append([-1, -1, 0, 0.0, rng.normal()])
        if n_leaves > 1:
            on_left = int(rng.integers(1, n_leaves)) if rng.random() < 0.7 else int(rng.choice([1, n_leaves - 1]))
            sides = grow(on_left, nodes), grow(n_leaves - on_left, nodes)
            nodes[at] = [*sides[:: rng.choice([1, -1])], int(rng.integers(4)), float(rng.integers(-2, 3)), 0.0]
        return at

    tables = []
    for n_leaves in draw(st.lists(st.integers(1, most), min_size=1, max_size=6)):
        grow(n_leaves, nodes := [])
        left, right, feature, threshold, value = map(np.array, zip(*nodes, strict=True))
        tables.append(NodeTable(left, right, feature, threshold, value, np.ones(len(nodes))))
    return tables


def by_hand(table, row, node=0):
    """Walk through one tree as its library has it."""
    while table.left[node] >= 0:
        node = (table.left if row[table.feature[node]] <= table.threshold[node] else table.right)[node]
    return float(table.value[node])


@given(random_trees())
@settings(deadline=None, max_examples=60)
def test_every_walk_finds_the_leaves_that_a_walk_by_hand_finds(tables):
    X = np.asfortranarray(np.random.default_rng(0).integers(-3, 4, (300, 4)).astype(float))
    trees = join_trees(tables)
    expected = np.zeros(len(X))
    for table in tables:
        expected += [by_hand(table, row) for row in X]
    assert [sum_of_leaves(trees, row) for row in X.tolist()] == expected.tolist()
    for walk in (byte_walk(trees), level_walk(trees), batch_walk(trees)):
        totals = np.zeros(len(X))
        walk(X, totals)
        np.testing.assert_array_equal(totals, expected)
    np.testing.assert_array_equal([numpy_walk(trees)(row) for row in X], expected)


@given(random_trees(most=40))
@settings(deadline=None, max_examples=15)
def test_machine_code_finds_the_same_leaves(tables):
    X = np.random.default_rng(0).integers(-3, 4, (300, 4)).astype(float)
    trees = join_trees(tables)
    walk, expected = machine_code.numba_walk(trees), [sum_of_leaves(trees, row) for row in X.tolist()]
    assert walk(X).tolist() == expected
    assert [walk(row[None])[0] for row in X[:40]] == expected[:40]


def test_more_categories_than_a_byte_has_values():
    names = [f"city {i}" for i in range(300)]
    X, y = pd.DataFrame({"city": names * 2, "n": range(600)}), np.arange(600) % 7 < 3
    engineer = FeatureEngineer(max_categories=290)
    model = ChurnModel("logistic_regression", feature_engineer=engineer).fit(X, y.astype(int))
    asked = pd.DataFrame({"city": [*names, "unseen", None, " "], "n": 1.0})
    actual = model.formula_.probabilities({"city": asked["city"].tolist(), "n": asked["n"].tolist()})
    np.testing.assert_allclose(actual, of_estimator(model, asked), rtol=0, atol=1e-12)


def test_features_of_a_batch_equal_those_of_the_feature_engineer(models, strange_table):
    features = Evaluator(models["blend"].formula_).features(strange_table)
    np.testing.assert_array_equal(features, models["blend"].feature_engineer_.transform(strange_table))


def test_forest_compares_in_single_precision(models):
    model = models["random_forest"]
    names = list(model.feature_engineer_.columns_)
    column = model.feature_engineer_.columns_["charges"]
    at = sum(each.n_features for each in model.formula_.columns[: names.index("charges")])
    tree = next(t.tree_ for t in model.estimator_.estimators_ if at in t.tree_.feature)
    threshold = tree.threshold[list(tree.feature).index(at)]
    near = threshold + np.array([-1e-9, -1e-12, 0, 1e-12, 1e-9])
    customers = [model.formula_.example | {"charges": x * column.scale + column.mean} for x in near]
    expected = of_estimator(model, pd.DataFrame(customers))
    for engine in ENGINES:
        walks = Evaluator(model.formula_, engine)
        np.testing.assert_allclose([walks.probability(c) for c in customers], expected, rtol=0, atol=1e-12)
        np.testing.assert_allclose(walks.probabilities(pd.DataFrame(customers)), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["blend", "hist_gradient_boosting", "lightgbm", "random_forest"])
def test_trees_of_a_single_leaf_answer(kind):
    rng = np.random.default_rng(0)
    X, y = pd.DataFrame({"a": rng.random(40), "b": rng.choice(["u", "v"], 40)}), np.arange(40) % 2
    params = {"random_forest": {"max_depth": 1, "min_samples_leaf": 20}, "lightgbm": {"min_child_samples": 40}}
    params |= {"hist_gradient_boosting": {"min_samples_leaf": 40}}
    model = ChurnModel(kind, **params.get(kind, {})).fit(X, y)
    expected = of_estimator(model, pd.DataFrame([{"a": 0.5, "b": "u"}]))[0]
    for engine in ENGINES:
        assert abs(Evaluator(model.formula_, engine).probability({"a": 0.5, "b": "u"}) - expected) < 1e-12


@pytest.fixture(scope="module")
def files(models, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {kind: model.save(folder / f"{kind}.safetensors") for kind, model in models.items()}


@pytest.mark.parametrize("engine", [None, "numpy", "numba"])
@pytest.mark.parametrize("kind", FEW)
def test_predictor_gives_the_estimators_answer_whatever_the_engine(kind, engine, models, files, strange_table):
    customers = strange_customers(150, seed=3)
    predictor = ChurnPredictor(files[kind], engine=engine)
    table = pd.DataFrame(customers, dtype=object).drop(columns="not asked for")
    expected = of_estimator(models[kind], table)
    for answers in (
        [predictor.predict(customer) for customer in customers],
        predictor.predict_batch(customers),
        predictor.predict_batch(table),
        [predictor.predict_values([customer[name] for name in predictor.formula.inputs]) for customer in customers],
        predictor.predict_batch(customers[:2]) + predictor.predict_batch(customers[2:]),
    ):
        np.testing.assert_allclose([a["churn_probability"] for a in answers], expected, rtol=0, atol=1e-9)
        assert {type(value) for value in answers[0].values()} == {int, bool, float}
    assert predictor.compiled.engine == ("python" if kind == "logistic_regression" else engine or "numba")


def test_order_of_the_keys_does_not_matter(files):
    predictor = ChurnPredictor(files["blend"])
    for customer in strange_customers(50, seed=4):
        assert predictor.predict(dict(reversed(customer.items()))) == predictor.predict(customer)


def test_empty_batch_has_no_answers(files):
    assert ChurnPredictor(files["blend"]).predict_batch([]) == []


@pytest.mark.parametrize("engine", ENGINES)
def test_many_threads_share_one_predictor(engine, files):
    predictor = ChurnPredictor(files["random_forest"], engine=engine)
    customers = strange_customers(400, seed=5)
    expected = [predictor.predict(customer) for customer in customers]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            assert list(pool.map(predictor.predict, customers)) == expected


# --- one answer through every door ---------------------------------------------------------------


def usual_customers(n, seed=7):
    """Return customers whose columns have the types that a database gives."""
    return make_table(n, seed)[0].assign(contract=lambda X: X["contract"].astype("str"), city=lambda X: X["city"] + "")


def doors(formula, table, engine):
    """Yield the name of each way to ask for a table, and its answers."""
    walks = Evaluator(formula, engine)
    rows, arrow = table.to_dict("records"), pa.Table.from_pandas(table)
    texts = {name: "category" for name in ("contract", "city", "plan")}
    yield "one by one", [walks.probability(row) for row in rows]
    yield "one row of a table", [walks.probability(table.iloc[i].to_dict()) for i in range(len(table))]
    yield "lists", walks.probabilities({name: table[name].tolist() for name in table})
    yield "arrays of objects", walks.probabilities({name: table[name].to_numpy(dtype=object) for name in table})
    yield "DataFrame", walks.probabilities(table)
    yield "categorical columns", walks.probabilities(table.astype(texts))
    yield "objects", walks.probabilities(table.astype(object))
    yield "pyarrow types", walks.probabilities(table.convert_dtypes(dtype_backend="pyarrow"))
    yield "Arrow table", walks.probabilities(arrow)
    yield "Arrow table of several chunks", walks.probabilities(pa.concat_tables([arrow[:7], arrow[7:]]))
    yield "record batch", walks.probabilities(arrow.to_batches()[0])
    yield "backwards", walks.probabilities(table[::-1])[::-1]
    yield "a block at a time", np.concatenate([walks.probabilities(table[i : i + 9]) for i in range(0, len(table), 9)])


@pytest.mark.parametrize("kind", FEW)
def test_all_doors_and_engines_agree_to_the_last_bit(kind, models, files):
    table = usual_customers(300)
    expected = models[kind].predict_proba(table)[:, 1]
    for engine in ENGINES:
        for door, answers in doors(models[kind].formula_, table, engine):
            np.testing.assert_array_equal(answers, expected, err_msg=f"{door}, {engine}")
    predictor = ChurnPredictor(files[kind])
    rows = table.to_dict("records")
    for answers in ([*map(predictor.predict, rows)], predictor.predict_batch(rows), predictor.predict_batch(table)):
        assert [answer["churn_probability"] for answer in answers] == expected.tolist()
    np.testing.assert_array_equal(ChurnModel.load(files[kind]).predict_proba(table)[:, 1], expected)


@pytest.fixture(scope="module")
def derived():
    """Return a blend with derived columns, and customers without a first month, without charges, without tenure."""
    X, y = make_table(500)
    X = X.rename(columns={"charges": "total_charges"}).assign(monthly_charges=X["charges"].fillna(20.0) / 10)
    model = ChurnModel("blend", feature_engineer=FeatureEngineer(derive=True), max_iter=40).fit(X, y)
    asked = X.head(60).astype(object)
    asked.loc[:9, "tenure"] = 0
    asked.loc[10:19, "tenure"] = None
    asked.loc[20:24, "total_charges"] = "12.5"
    asked.loc[25:29, "total_charges"] = -3.0
    asked.loc[30:34, "monthly_charges"] = 1e308
    return model, asked


@pytest.mark.parametrize("engine", ENGINES)
def test_derived_columns_work_in_every_engine(engine, derived):
    model, asked = derived
    assert model.formula_.derived
    assert set(model.formula_.inputs) == set(asked)
    walks, expected = Evaluator(model.formula_, engine), of_estimator(model, asked)
    np.testing.assert_allclose(walks.probabilities(asked), expected, rtol=0, atol=1e-9)
    assert [walks.probability(row) for row in asked.to_dict("records")] == walks.probabilities(asked).tolist()


def test_input_that_only_a_derived_column_needs_is_checked(derived):
    model, asked = derived
    row = asked.iloc[0].to_dict()
    with pytest.raises(ValueError, match="column 'monthly_charges' takes a number"):
        model.formula_.probability(row | {"monthly_charges": "a lot"})
    with pytest.raises(ValueError, match="column 'monthly_charges' is missing"):
        model.formula_.probability({name: value for name, value in row.items() if name != "monthly_charges"})


# --- what went in comes in again -----------------------------------------------------------------

GAPS = {"float": st.just(math.nan), "object": st.sampled_from([None, math.nan, pd.NA, pd.NaT, "", " "])}
WORDS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=4)
NUMBERS = st.floats(-1e12, 1e12) | st.integers(-(2**60), 2**60).map(float)
MOMENTS = st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1)).map(lambda t: t.replace(microsecond=0))
COLUMNS = {
    "float": (NUMBERS | GAPS["float"], "float64"),
    "single": (st.floats(-1e6, 1e6, width=32) | GAPS["float"], "float32"),
    "whole": (st.integers(-(2**60), 2**60), "int64"),
    "nullable": (st.integers(-(2**40), 2**40) | st.none(), "Int64"),
    "number as text": (st.sampled_from(["", " ", "1", "2.5", " -3e2", "1e4"]), "object"),
    "mixed numbers": (NUMBERS | st.integers(0, 9) | st.sampled_from(["7", "8.5"]) | GAPS["object"], "object"),
    "decimal": (st.decimals(-1000, 1000, places=2) | st.none(), "object"),
    "duration": (st.timedeltas(timedelta(0), timedelta(days=9999)) | st.just(pd.NaT), "timedelta64[us]"),
    "flag": (st.booleans(), "bool"),
    "nullable flag": (st.booleans() | st.none(), "boolean"),
    "flag or gap": (st.booleans() | GAPS["object"], "object"),
    "text": (WORDS | GAPS["object"], "object"),
    "string": (WORDS | st.none(), "string"),
    "category": (st.sampled_from(["a", "b", "c"]) | st.none(), "category"),
    "words and numbers": (st.sampled_from(["a", "b", 1, 2.5, True]) | GAPS["object"], "object"),
    "moment": (MOMENTS | st.just(pd.NaT), "datetime64[us]"),
    "date as text": (MOMENTS.map(lambda t: t.date().isoformat()) | GAPS["object"], "object"),
    "moment with a zone": (MOMENTS.map(lambda t: pd.Timestamp(t, tz="Asia/Tokyo")) | st.just(pd.NaT), None),
}
NOT_IN_CSV = {"single", "duration", "words and numbers"}  # text says other numbers than 32 bits, or says "2.5" for 2.5


@st.composite
def tables(draw, kinds=tuple(COLUMNS)):
    """Draw a table as pandas may hold it."""
    n = draw(st.integers(4, 12))
    chosen = draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=5))
    made = {}
    for i, kind in enumerate(chosen):
        cells, dtype = COLUMNS[kind]
        made[f"{kind} {i}"] = pd.Series(draw(st.lists(cells, min_size=n, max_size=n)), dtype=dtype)
    return pd.DataFrame(made)


def fit_or_none(table, model_type="logistic_regression"):
    """Fit on a table and alternating labels; None where no column is of use."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ChurnModel(model_type).fit(table, np.arange(len(table)) % 2)
        except ValueError as error:
            assert "o column" in str(error)  # noqa: PT017
            return None


@given(tables())
@settings(deadline=None, max_examples=150)
def test_a_row_of_the_table_in_fit_comes_in_again(table):
    if (model := fit_or_none(table)) is not None:
        expected = model.predict_proba(table)[:, 1].tolist()
        assert [model.formula_.probability(table.iloc[i].to_dict()) for i in range(len(table))] == expected
        assert [model.formula_.probability(row) for row in table.to_dict("records")] == expected


@given(tables(tuple(sorted(set(COLUMNS) - NOT_IN_CSV))))
@settings(deadline=None, max_examples=150)
def test_a_row_of_a_csv_file_comes_in_again(table):
    if (model := fit_or_none(table)) is not None:
        rows = csv.DictReader(io.StringIO(table.to_csv(index=False), newline=""))
        expected = model.predict_proba(table)[:, 1]
        np.testing.assert_allclose([model.formula_.probability(row) for row in rows], expected, rtol=0, atol=1e-12)


@given(tables(("float", "whole", "nullable", "flag", "text", "category", "moment", "number as text")))
@settings(deadline=None, max_examples=60)
def test_an_arrow_table_gives_the_answers_of_the_frame(table):
    if (model := fit_or_none(table)) is not None:
        arrow = pa.Table.from_pandas(table)
        assert model.formula_.probabilities(arrow).tolist() == model.predict_proba(table)[:, 1].tolist()


def test_telco_comes_in_again(telco):
    raw, table = pd.read_csv(telco), load_csv(telco)
    for frame in (raw, table):
        X = frame.drop(columns=["customerID", "Churn"])
        model = ChurnModel("hist_gradient_boosting", max_iter=20).fit(X, frame["Churn"])
        expected = model.predict_proba(X)[:, 1].tolist()
        assert [model.formula_.probability(row) for row in X.to_dict("records")] == expected
        assert model.formula_.probability(X.iloc[488].to_dict()) == expected[488]
        with telco.open(newline="", encoding="utf-8") as file:
            assert [model.formula_.probability(row) for row in csv.DictReader(file)] == expected


@pytest.mark.parametrize("value", [None, math.nan, np.nan, np.float32("nan"), pd.NA, pd.NaT, np.datetime64("NaT"),
                                   np.timedelta64("NaT"), Decimal("NaN"), "", " \t"])  # fmt: skip
@pytest.mark.parametrize("column", ["tenure", "senior", "contract", "joined"])
def test_every_name_of_a_gap_is_a_gap(column, value, models):
    formula, table = models["blend"].formula_, usual_customers(1)
    expected = formula.probability(table.iloc[0].to_dict() | {column: None})
    assert formula.probability(table.iloc[0].to_dict() | {column: value}) == expected
    columns = {name: table[name].tolist() for name in table} | {column: [value]}
    assert formula.probabilities(columns).tolist() == [expected]


@pytest.mark.parametrize(
    ("column", "value", "same"),
    [
        ("tenure", np.int64(7), 7),
        ("tenure", np.float32(7), 7),
        ("tenure", np.uint8(7), 7),
        ("tenure", Decimal(7), 7),
        ("tenure", " 7.0 ", 7),
        ("senior", np.True_, True),
        ("senior", "TRUE", True),
        ("senior", 1, True),
        ("senior", "0", False),
        ("contract", np.str_("year"), "year"),
        ("joined", "2020-05-03", pd.Timestamp("2020-05-03")),
        ("joined", np.datetime64("2020-05-03"), pd.Timestamp("2020-05-03")),
        ("joined", "2020-05-03T02:00+02:00", pd.Timestamp("2020-05-03")),
    ],
)
def test_one_value_has_many_types(column, value, same, models):
    formula, row = models["blend"].formula_, usual_customers(1).iloc[0].to_dict()
    assert formula.probability(row | {column: value}) == formula.probability(row | {column: same})


WRONG = [
    *(("tenure", value) for value in (math.inf, -math.inf, "inf", "1e999", "a lot", "1_000", True, [1], 10**400, b"1")),
    *(("senior", value) for value in ("maybe", 2, math.inf, [True])),
    *(("joined", value) for value in ("03/11/2024", "yesterday", 20_030, "9999-99-99", True)),
    *(("contract", value) for value in (3, True, ["month"])),
]


@pytest.mark.parametrize(("column", "value"), WRONG)
@pytest.mark.parametrize("kind", ["blend", "logistic_regression"])
def test_a_value_of_another_kind_is_an_error_that_names_the_column(kind, column, value, models, files):
    row = usual_customers(1).iloc[0].to_dict() | {column: value}
    with pytest.raises(ValueError, match=f"^column '{column}' takes "):
        models[kind].formula_.probability(row)
    with pytest.raises(ValueError, match=f"^customer 1: column '{column}' takes "):
        ChurnPredictor(files[kind]).predict_batch([usual_customers(1).iloc[0].to_dict(), row])


def test_every_wrong_column_is_named(models):
    row = usual_customers(1).iloc[0].to_dict() | {"tenure": "a lot", "joined": "soon"}
    del row["plan"], row["city"]
    with pytest.raises(ValueError, match="tenure") as caught:
        models["blend"].formula_.probability(row)
    assert all(f"column '{name}'" in str(caught.value) for name in ("tenure", "joined", "plan", "city"))


def test_an_absent_column_of_a_table_is_named(models):
    table = usual_customers(3).drop(columns=["plan"])
    for columns in (table, pa.Table.from_pandas(table), {name: table[name].tolist() for name in table}):
        with pytest.raises(ValueError, match="plan"):
            models["blend"].formula_.probabilities(columns)


def test_a_word_in_a_number_column_of_a_table_names_column_row_and_value(models):
    table = usual_customers(5).astype(object)
    table.loc[3, "tenure"] = "a lot"
    with pytest.raises(ValueError, match=r"column 'tenure' holds text in 1 of 5 rows \(first: row 3, 'a lot'\)"):
        models["blend"].formula_.probabilities(table)


def test_infinity_in_a_table_is_a_gap_with_a_warning(models):
    table = usual_customers(5)
    table.loc[3, "charges"] = np.inf
    with pytest.warns(UserWarning, match="column 'charges' holds infinity in 1 of 5 rows"):
        actual = models["blend"].formula_.probabilities(table)
    table.loc[3, "charges"] = np.nan
    np.testing.assert_array_equal(actual, models["blend"].formula_.probabilities(table))


def test_what_is_no_mapping_is_refused(models):
    for nothing in (None, 3, "tenure", ["tenure"]):
        with pytest.raises(ValueError, match="a customer is a mapping"):
            models["blend"].formula_.probability(nothing)


# --- numba: broken, missing, cached --------------------------------------------------------------


def test_without_numba_the_predictor_says_what_to_install(monkeypatch, files):
    monkeypatch.setattr(evaluator, "find_spec", lambda name: None)
    predictor = ChurnPredictor(files["blend"])
    assert predictor.compiled == Compiled("numpy", 'numba is not installed: pip install "churn_mlops[fast]"')
    assert "churn_mlops[fast]" in str(predictor.compiled)


def test_broken_numba_is_a_warning_and_not_an_end(monkeypatch, files, caplog):
    monkeypatch.setattr(machine_code, "machine_code", lambda: 1 / 0)
    assert ChurnPredictor(files["blend"]).compiled.engine == "numpy"
    assert "numba cannot be used" in caplog.text
    with pytest.raises(ZeroDivisionError):
        ChurnPredictor(files["blend"], engine="numba")


def test_machine_code_is_compiled_once_and_kept_on_disk(files, tmp_path):
    code = (
        "import sys; from churn_mlops.models import ChurnPredictor;"
        "from churn_mlops.formula.machine_code import machine_code;"
        "print(ChurnPredictor(sys.argv[1]).compiled, *(sum(loop.stats.cache_hits.values()) for loop in machine_code()))"
    )
    env = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    run = [sys.executable, "-c", code, files["blend"]]
    said = [subprocess.run(run, env=env, capture_output=True, text=True, check=True).stdout.split() for _ in range(2)]
    assert said == [["numba", "0", "0"], ["numba", "1", "1"]]


def test_machine_code_without_a_folder_to_write_to_is_compiled_all_the_same(monkeypatch, caplog, models):
    import numba

    whole = numba.njit

    def refuse(cache=False, **options):
        if cache:
            raise RuntimeError("no locator available")
        return whole(**options)

    monkeypatch.setattr(numba, "njit", refuse)
    machine_code.machine_code.cache_clear()
    try:
        walks = Evaluator(models["lightgbm"].formula_, "numba")
    finally:
        machine_code.machine_code.cache_clear()
    assert "NUMBA_CACHE_DIR" in caplog.text
    assert walks.compiled == Compiled("numba")


def test_loading_without_trees_does_not_import_numba(files):
    code = (
        "import sys; from churn_mlops.models import ChurnPredictor as P; P(sys.argv[1]); print('numba' in sys.modules)"
    )
    run = [sys.executable, "-c", code, files["logistic_regression"]]
    assert subprocess.run(run, capture_output=True, text=True, check=True).stdout.strip() == "False"


def test_numba_is_there_for_these_tests():
    assert importlib.util.find_spec("numba"), 'pip install -e ".[dev]"'


# --- what a formula keeps ------------------------------------------------------------------------


@pytest.mark.parametrize("copied", [lambda it: pickle.loads(pickle.dumps(it)), copy.deepcopy, copy.copy])
def test_a_copy_keeps_no_compiled_walk(copied, models):
    table = usual_customers(20)
    for kept in (models["blend"], models["blend"].formula_):
        formula = kept.formula_ if isinstance(kept, ChurnModel) else kept
        expected = formula.probabilities(table)
        assert "evaluator" in vars(formula)
        again = copied(kept)
        again = again.formula_ if isinstance(again, ChurnModel) else again
        assert again is formula or "evaluator" not in vars(again)
        np.testing.assert_array_equal(again.probabilities(table), expected)


def test_a_pickled_formula_is_as_small_as_before_it_answered(models):
    fresh = models["random_forest"].formula_.updated()
    before = len(pickle.dumps(fresh))
    fresh.probabilities(usual_customers(20))
    assert len(pickle.dumps(fresh)) == before


def test_another_threshold_leaves_the_formula_as_it_was(models):
    formula = models["blend"].formula_
    other = formula.updated(threshold=0.2, metrics={"roc_auc": 0.8})
    assert (formula.threshold, dict(formula.record.metrics)) == (0.5, {})
    assert (other.threshold, other.record.metrics, other.trees) == (0.2, {"roc_auc": 0.8}, formula.trees)
    assert other.digest != formula.digest


@pytest.mark.parametrize("kind", FEW)
def test_a_formula_can_be_read_by_a_person(kind, models):
    formula, text = models[kind].formula_, str(models[kind].formula_)
    assert text.startswith(f"{kind}, trained on 800 customers")
    assert all(f"  {column.name}: " in text for column in formula.columns)
    assert ("<svg" in formula._repr_html_()) is bool(formula.curves)


def test_a_hostile_name_is_escaped_in_a_notebook():
    X = pd.DataFrame({"<b onload=x()>": np.arange(40.0), "plan": ["<script>", "b"] * 20})
    shown = ChurnModel("logistic_regression").fit(X, np.arange(40) % 2).formula_._repr_html_()
    assert "<script" not in shown
    assert "<b " not in shown


def test_log_odds_of_any_size_have_a_probability():
    z = [-1e9, -745.2, 0.0, 745.2, 1e9]
    assert logistic(np.array(z)).tolist() == [0, pytest.approx(0), 0.5, 1, 1]
    assert [*map(logistic_of_one, z)] == logistic(np.array(z)).tolist()


def test_date_with_a_zone_is_read_in_utc():
    there = datetime(2024, 1, 1, 1, tzinfo=timezone(timedelta(hours=2)))
    assert days_and_month(date_of(there)) == days_and_month(date_of(there.astimezone(UTC)))
    assert days_and_month(date_of(there))[1] == 1


# --- numpy and safetensors alone -----------------------------------------------------------------

ANSWER = """
import importlib, json, sys
room = importlib.import_module(sys.argv[1])
customers, answers = json.loads(sys.argv[2]), {}
for path in sys.argv[3:]:
    formula = room.load(path)
    columns = {name: [customer[name] for customer in customers] for name in customers[0]}
    one, many = [formula.probability(customer) for customer in customers], formula.probabilities(columns).tolist()
    contributions = formula.contributions(columns).log_odds.tolist()
    answers[path] = {"one": one, "many": many, "log_odds": contributions, "digest": formula.digest}
    assert room.load(formula.save(path + ".again")).digest == formula.digest
heavy = {name.partition(".")[0] for name in sys.modules} - set(sys.stdlib_module_names)
print(json.dumps({"answers": answers, "modules": sorted(heavy)}))
"""


def answers_of(python, room, folder, files, **environment):
    """Ask a process, which has only a copy of the room, for the answers of the model files."""
    customers = json.loads(usual_customers(12).astype(object).where(lambda X: X.notna(), None)
                           .to_json(orient="records", date_format="iso", double_precision=15))  # fmt: skip
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "CHURN"))}
    run = [python, "-c", ANSWER, room, json.dumps(customers), *map(str, files.values())]
    done = subprocess.run(run, cwd=folder, env={**env, **environment}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    for path in files.values():
        formula, told = load(path), said["answers"][str(path)]
        expected = [formula.probability(customer) for customer in customers]
        np.testing.assert_allclose(told["one"], expected, rtol=0, atol=1e-12)
        np.testing.assert_allclose(told["many"], expected, rtol=0, atol=1e-12)
        assert told["digest"] == formula.digest
    return said["modules"]


@pytest.mark.slow
@pytest.mark.parametrize("releases", ["oldest", "newest"])
def test_numpy_and_safetensors_are_enough(releases, files, oldest_releases, tmp_path):
    constraints = oldest_releases if releases == "oldest" else ROOT / "constraints.txt"
    package, room = Path(churn_mlops.formula.__file__).parents[1], "churn_mlops.formula"
    shutil.copytree(package, tmp_path / "work" / "churn_mlops", ignore=shutil.ignore_patterns("__pycache__"))
    venv.create(tmp_path / "venv", with_pip=False)  # the pip of this environment installs into it
    python = tmp_path / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run([*pip, "-c", str(constraints), "numpy", "safetensors"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    modules = answers_of(python, room, tmp_path / "work", files)
    assert {name for name in modules if not name.startswith("_")} == {"churn_mlops", "numpy", "safetensors"}


def test_a_copy_of_the_room_under_another_name_answers(files, tmp_path):
    room = Path(churn_mlops.formula.__file__).parent
    shutil.copytree(room, tmp_path / "acme_churn" / "engine", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "acme_churn" / "__init__.py").write_text("")
    (tmp_path / "churn_mlops.py").write_text("raise RuntimeError('the copy must not import the original')")
    modules = answers_of(sys.executable, "acme_churn.engine", tmp_path, files, NUMBA_DISABLE_JIT="1")
    assert "churn_mlops" not in modules
