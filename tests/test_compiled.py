"""A compiled model gives the answer of its estimator, whatever the customer; where it cannot, the estimator answers."""

import importlib.util
import math
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from churn_mlops.features import FeatureEngineer
from churn_mlops.learners.trees import Tree
from churn_mlops.models import ChurnModel, ChurnPredictor, compiled, tree_walks
from churn_mlops.models.compiled import Plan
from churn_mlops.models.schema import InputSchema
from churn_mlops.models.tree_walks import Compiled

FEW = {
    "blend": {"max_iter": 60},
    "random_forest": {"n_estimators": 40},
    "logistic_regression": {},
    "hist_gradient_boosting": {},
    "lightgbm": {"max_trees": 60},
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
def strange(models):
    """Return 10,000 strange customers, checked."""
    schema = InputSchema(models["logistic_regression"])
    return [schema.check(customer) for customer in strange_customers(10_000)]


@pytest.fixture(scope="module")
def strange_table(models, strange):
    return InputSchema(models["logistic_regression"]).table(strange)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", FEW)
def test_plan_equals_the_estimator_for_10_000_strange_customers(kind, engine, models, strange, strange_table):
    expected = models[kind].predict_proba(strange_table)[:, 1]
    plan = Plan(models[kind], engine)
    actual = [plan.probability(customer.values()) for customer in strange]
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-9)
    assert plan.compiled.engine == ("python" if kind == "logistic_regression" else engine)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", FEW)
def test_batch_equals_the_estimator_for_10_000_strange_customers(kind, engine, models, strange, strange_table):
    columns = list(zip(*(customer.values() for customer in strange), strict=True))
    expected = models[kind].predict_proba(strange_table)[:, 1]
    actual = Plan(models[kind], engine).probabilities([columns], len(strange))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("cores", ["1", "2", "4"])
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", ["blend", "random_forest", "lightgbm"])
def test_batch_is_the_same_on_any_number_of_cores(kind, engine, cores, models, strange, strange_table, monkeypatch):
    monkeypatch.setenv("CHURN_THREADS", cores)
    columns = list(zip(*(customer.values() for customer in strange), strict=True))
    expected = models[kind].predict_proba(strange_table)[:, 1]
    actual = Plan(models[kind], engine).probabilities([columns, columns], 2 * len(strange))
    np.testing.assert_allclose(actual, np.tile(expected, 2), rtol=0, atol=1e-9)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("leaves", [2, 8, 9, 16, 17, 31, 64, 65, 200])
@pytest.mark.parametrize("kind", ["hist_gradient_boosting", "lightgbm"])
def test_batch_equals_the_estimator_whatever_the_size_of_its_trees(kind, leaves, engine, strange, strange_table):
    X, y = make_table(1_000)
    size = {"max_leaf_nodes": leaves, "max_iter": 9} if kind != "lightgbm" else {"num_leaves": leaves, "max_trees": 9}
    model = ChurnModel(kind, **size, **{"min_samples_leaf" if kind != "lightgbm" else "min_child_samples": 1}).fit(X, y)
    plan = Plan(model, engine)
    assert (plan._batch_walk is None) is (leaves > (16 if engine == "numba" else 64))
    columns = list(zip(*(customer.values() for customer in strange), strict=True))
    expected = model.predict_proba(strange_table)[:, 1]
    np.testing.assert_allclose(plan.probabilities([columns], len(strange)), expected, rtol=0, atol=1e-9)


@st.composite
def random_trees(draw):
    """Draw trees of any shape, whose few thresholds are met exactly by some customers."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))

    def grow(n_leaves, nodes):
        at = len(nodes)
        nodes.append([-1, -1, 0, 0.0, rng.normal()])
        if n_leaves > 1:
            on_left = int(rng.integers(1, n_leaves)) if rng.random() < 0.7 else int(rng.choice([1, n_leaves - 1]))
            sides = grow(on_left, nodes), grow(n_leaves - on_left, nodes)
            nodes[at] = [*sides, int(rng.integers(4)), float(rng.integers(-2, 3)), 0.0]
        return at

    trees = []
    for n_leaves in draw(st.lists(st.integers(1, 64), min_size=1, max_size=6)):
        grow(n_leaves, nodes := [])
        left, right, feature, threshold, value = map(np.array, zip(*nodes, strict=True))
        trees.append(Tree(left, right, feature, threshold, value, np.ones(len(nodes))))
    return trees


@given(random_trees())
@settings(deadline=None, max_examples=60)
def test_bytes_find_the_leaf_that_a_walk_finds(trees):
    X = np.asfortranarray(np.random.default_rng(0).integers(-3, 4, (300, 4)).astype(float))
    flat = tree_walks.flatten(trees)
    step_by_step = tree_walks.numpy_walk(flat)
    expected = [step_by_step(row[None])[0] for row in X]
    np.testing.assert_allclose(tree_walks.byte_walk(flat)(X), expected, rtol=0, atol=1e-12)


def test_more_categories_than_a_byte_has_values():
    names = [f"city {i}" for i in range(300)]
    X, y = pd.DataFrame({"city": names * 2, "n": range(600)}), np.arange(600) % 7 < 3
    engineer = FeatureEngineer(max_categories=290)
    model = ChurnModel("logistic_regression", feature_engineer=engineer).fit(X, y.astype(int))
    asked = [*names, "unseen", None, " "]
    expected = model.predict_proba(pd.DataFrame({"city": asked, "n": 1.0}))[:, 1]
    actual = Plan(model).probabilities([[asked, [1.0] * len(asked)]], len(asked))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-12)


def test_features_of_a_batch_equal_those_of_the_feature_engineer(models, strange, strange_table):
    columns = list(zip(*(customer.values() for customer in strange), strict=True))
    features = Plan(models["blend"]).features([columns], len(strange))
    np.testing.assert_array_equal(features, models["blend"].feature_engineer_.transform(strange_table))


def test_forest_compares_in_single_precision(models):
    model = models["random_forest"]
    column = list(model.feature_engineer_.columns_).index("charges")
    encoder = model.feature_engineer_.columns_["charges"]
    first = Plan(model, "numpy")
    at = first._fillers[column][1].start
    tree = next(t.tree_ for t in model.estimator_.estimators_ if at in t.tree_.feature)
    threshold = tree.threshold[list(tree.feature).index(at)]
    near = threshold + np.array([-1e-9, -1e-12, 0, 1e-12, 1e-9])
    customers = [InputSchema(model).example | {"charges": x * encoder.scale + encoder.mean} for x in near]
    checked = [InputSchema(model).check(customer) for customer in customers]
    expected = model.predict_proba(InputSchema(model).table(checked))[:, 1]
    for engine in ENGINES:
        plan = Plan(model, engine)
        np.testing.assert_allclose([plan.probability(c.values()) for c in checked], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["blend", "hist_gradient_boosting", "lightgbm", "random_forest"])
def test_trees_of_a_single_leaf_are_compiled(kind):
    rng = np.random.default_rng(0)
    X, y = pd.DataFrame({"a": rng.random(40), "b": rng.choice(["u", "v"], 40)}), np.arange(40) % 2
    params = {"random_forest": {"max_depth": 1, "min_samples_leaf": 20}, "lightgbm": {"min_child_samples": 40}}
    params |= {"hist_gradient_boosting": {"min_samples_leaf": 40}}
    model = ChurnModel(kind, **params.get(kind, {})).fit(X, y)
    checked = InputSchema(model).check({"a": 0.5, "b": "u"})
    expected = model.predict_proba(InputSchema(model).table([checked]))[0, 1]
    for engine in ENGINES:
        assert abs(Plan(model, engine).probability(checked.values()) - expected) < 1e-12


@pytest.fixture(scope="module")
def files(models, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {kind: model.save(folder / f"{kind}.zip") for kind, model in models.items()}


@pytest.mark.parametrize("engine", [None, "numpy", "numba", "estimator"])
@pytest.mark.parametrize("kind", FEW)
def test_predictor_gives_one_answer_whatever_the_engine(kind, engine, models, files):
    customers = strange_customers(150, seed=3)
    predictor = ChurnPredictor(files[kind], engine=engine)
    schema = predictor.schema
    checked = [schema.check(customer) for customer in customers]
    expected = models[kind].predict_proba(schema.table(checked))[:, 1]
    for answers in (
        [predictor.predict(customer) for customer in customers],
        predictor.predict_batch(customers),
        predictor.predict_checked(checked),
        predictor.predict_checked(checked[:2]) + predictor.predict_batch(customers[2:]),
    ):
        np.testing.assert_allclose([a["churn_probability"] for a in answers], expected, rtol=0, atol=1e-9)
        assert {type(value) for value in answers[0].values()} == {int, bool, float}
    assert bool(predictor.compiled) is (engine != "estimator")


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


def test_derived_columns_are_left_to_the_estimator(tmp_path):
    X, y = make_table(300)
    X = X.rename(columns={"charges": "total_charges"})
    model = ChurnModel("logistic_regression", feature_engineer=FeatureEngineer(derive=True)).fit(X, y)
    predictor = ChurnPredictor(model.save(tmp_path / "model.zip"))
    assert not predictor.compiled
    assert "derive=True" in predictor.compiled.reason
    assert 0 < predictor.predict(predictor.schema.example)["churn_probability"] < 1
    assert predictor.predict_batch([predictor.schema.example])[0] == predictor.predict(predictor.schema.example)


def test_estimator_of_an_unknown_type_has_no_plan(models):
    class Doubter(type(models["logistic_regression"].estimator_)):
        pass

    X, y = make_table(200)
    model = ChurnModel("logistic_regression").fit(X, y)
    model.estimator_.__class__ = Doubter
    with pytest.raises(ValueError, match="no plan for Doubter"):
        Plan(model)


def test_boosting_that_splits_by_category_has_no_plan():
    X, y = make_table(300)
    model = ChurnModel("hist_gradient_boosting", categorical_features=[0], max_iter=5).fit(X[["senior", "tenure"]], y)
    with pytest.raises(ValueError, match="split by category"):
        Plan(model)


def test_without_numba_the_predictor_says_what_to_install(monkeypatch, files):
    monkeypatch.setattr(tree_walks, "find_spec", lambda name: None)
    predictor = ChurnPredictor(files["blend"])
    assert predictor.compiled == Compiled("numpy", 'numba is not installed: pip install "churn_mlops[fast]"')
    assert "churn_mlops[fast]" in str(predictor.compiled)


def test_broken_numba_is_a_warning_and_not_an_end(monkeypatch, files, caplog):
    monkeypatch.setattr(tree_walks, "_machine_code", lambda: 1 / 0)
    assert ChurnPredictor(files["blend"]).compiled.engine == "numpy"
    assert "numba cannot be used" in caplog.text
    with pytest.raises(ZeroDivisionError):
        ChurnPredictor(files["blend"], engine="numba")


def test_machine_code_is_compiled_once_and_kept_on_disk(files, tmp_path):
    code = (
        "import sys; from churn_mlops.models import ChurnPredictor;"
        "from churn_mlops.models.tree_walks import _machine_code;"
        "print(ChurnPredictor(sys.argv[1]).compiled, sum(_machine_code().stats.cache_hits.values()))"
    )
    env = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    run = [sys.executable, "-c", code, files["blend"]]
    said = [subprocess.run(run, env=env, capture_output=True, text=True, check=True).stdout.split() for _ in range(2)]
    assert said == [["numba", "0"], ["numba", "1"]]


def test_loading_without_trees_does_not_import_numba(files):
    code = (
        "import sys; from churn_mlops.models import ChurnPredictor as P; P(sys.argv[1]); print('numba' in sys.modules)"
    )
    run = [sys.executable, "-c", code, files["logistic_regression"]]
    assert subprocess.run(run, capture_output=True, text=True, check=True).stdout.strip() == "False"


def test_numba_is_there_for_these_tests():
    assert importlib.util.find_spec("numba"), 'pip install -e ".[dev]"'


def test_log_odds_of_any_size_have_a_probability():
    assert [compiled._probability(z) for z in (-1e9, -745.2, 0, 745.2, 1e9)] == [0, pytest.approx(0), 0.5, 1, 1]


def test_date_with_a_zone_is_read_in_utc():
    there = datetime(2024, 1, 1, 1, tzinfo=timezone(timedelta(hours=2)))
    assert compiled._days_and_month(there) == compiled._days_and_month(there.astimezone(UTC))
    assert compiled._days_and_month(there)[1] == 1
