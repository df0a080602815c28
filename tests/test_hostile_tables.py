"""`churn-train` on whatever stands in a table: a model, or one line that says what is wrong and nothing written."""

import contextlib
import io
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from churn_mlops.models import ChurnPredictor
from churn_mlops.models.train import main
from churn_mlops.models.training import run_training
from churn_mlops.serving.model_holder import ServedModel
from churn_mlops.settings import load_settings

N = 60
NAMES = st.sampled_from(
    [
        "self",
        "",
        " ",
        "$ref",
        "$defs",
        "churn ",
        "a\nb",
        "=1+1",
        "[red]x[/red]",
        "{}",
        "%s",
        "id",
        "index",
        "0",
        "é\u2028",
    ]
) | st.text(max_size=6)
VALUES = {
    "whole": st.integers(-(2**63), 2**63 - 1),
    "small": st.integers(0, 3),
    "huge": st.integers(10**399, 10**400),
    "float": st.floats(),
    "boolean": st.booleans(),
    "text": st.text(max_size=8)
    | st.sampled_from(["=cmd|' /C calc'!A0", "nan", "1,234", "12%", "31/02/2024", "NULL", "\0"]),
    "day": st.dates(),
    "moment": st.datetimes(timezones=st.sampled_from([None, UTC])),
    "old": st.dates(date(1500, 1, 1), date(1600, 1, 1)),
    "far": st.dates(date(2500, 1, 1), date(2600, 1, 1)),
    "while": st.timedeltas(timedelta(-999), timedelta(999)),
    "money": st.decimals(allow_nan=False, allow_infinity=False, places=2, min_value=-(10**9), max_value=10**9),
    "list": st.lists(st.integers(0, 9), max_size=3),
    "map": st.dictionaries(st.sampled_from("ab"), st.integers(0, 9), max_size=2),
    "bytes": st.binary(max_size=5),
    "mixed": st.none()
    | st.integers(0, 9)
    | st.text(max_size=3)
    | st.just(Decimal("1.5"))
    | st.just(datetime(2024, 1, 1)),
}


@st.composite
def columns(draw: st.DrawFn) -> pd.Series:
    """Draw a column: a few values, spread over the rows, with gaps or without."""
    kind = draw(st.sampled_from(sorted(VALUES)))
    pool = draw(st.lists(VALUES[kind], min_size=1, max_size=8))
    if draw(st.booleans()):
        pool.append(None)
    places = draw(st.lists(st.integers(0, len(pool) - 1), min_size=N, max_size=N))
    return pd.Series([pool[place] for place in places], dtype=object)


LABELS = st.sampled_from(
    [(0, 1), ("No", "Yes"), ("", "x"), (None, 1), (0.5, float("inf")), ("a", "b", "c"), (1,), (True, False)]
)


@st.composite
def tables(draw: st.DrawFn) -> pd.DataFrame:
    """Draw a table with a target called ``churn``."""
    labels = draw(LABELS)
    parts = draw(st.dictionaries(NAMES.filter(lambda name: name != "churn"), columns(), min_size=0, max_size=4))
    target = pd.Series([labels[i % len(labels)] for i in range(N)], dtype=object)
    return pd.DataFrame({**parts, "churn": target})


def write(table: pd.DataFrame, path: Path) -> bool:
    """Write a table to a file, and tell whether its format has room for it."""
    try:
        if path.suffix == ".csv":
            path.write_bytes(table.to_csv(index=False).encode("utf-8", "surrogatepass"))
        else:
            table.infer_objects().to_parquet(path)
    except Exception:  # Arrow has no type for some mixtures
        return False
    return True


def assert_model_or_one_line(path: Path, options: list[str]) -> None:
    """Train on a table; fail with whatever is neither a model that answers nor a refusal."""
    model, told = path.parent / "model", io.StringIO()
    run = [str(path), "--target", "churn", "--cv-folds", "0", "--output", str(model), *options]
    with (
        contextlib.redirect_stderr(told),
        contextlib.redirect_stdout(io.StringIO()),
        pytest.raises(SystemExit) as ended,
    ):
        main([*run, "--model-type", "logistic_regression"])
    if ended.value.code == 0:
        predictor = ChurnPredictor(model)
        assert 0 <= predictor.predict(predictor.formula.example)["churn_probability"] <= 1
    else:
        lines = told.getvalue().splitlines()
        assert (ended.value.code, len(lines), lines[0].startswith("churn-train: error: ")) == (2, 1, True), (
            told.getvalue()
        )
        assert [each.name for each in path.parent.iterdir()] == [path.name]


FUZZ = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
OPTIONS = st.sampled_from(
    [[], ["--id-column", "id"], ["--time-column", "0"], ["--positive", "x"], ["--drop-unlabelled"]]
)


@given(table=tables(), ending=st.sampled_from([".csv", ".parquet"]), options=OPTIONS)
@settings(FUZZ, max_examples=60)
def test_any_table_gives_a_model_or_one_line(
    table: pd.DataFrame, ending: str, options: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("table") / f"table{ending}"
    if write(table, path):
        assert_model_or_one_line(path, options)


@given(table=tables(), ending=st.sampled_from([".csv", ".parquet"]), options=OPTIONS)
@settings(FUZZ, max_examples=1_500)
@pytest.mark.proof
def test_1_500_tables_give_a_model_or_one_line(
    table: pd.DataFrame, ending: str, options: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("table") / f"table{ending}"
    if write(table, path):
        assert_model_or_one_line(path, options)


@pytest.mark.parametrize("year", [1500, 2600])
def test_dates_of_another_age_are_trained_on_reported_and_served(year: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {"churn": rng.integers(0, 2, N), "day": [f"{year}-01-{day:02}" for day in rng.integers(1, 29, N)]}
    )
    assert write(table, tmp_path / "table.csv")
    output = {"model_path": tmp_path / "model", "report": tmp_path / "report"}
    data, model = {"path": tmp_path / "table.csv"}, {"type": "logistic_regression", "cv_folds": 0}
    run_training(load_settings(data=data, model=model, output=output))
    assert (tmp_path / "report" / "report.html").is_file()
    assert ServedModel(tmp_path / "model").predictor.formula.input_columns[0].kind == "date"


@pytest.mark.parametrize("value", ["[" * 5_000 + "]" * 5_000, "abc", "1e999", "-1"])
def test_a_parameter_of_any_text_gives_one_line(value: str, tmp_path: Path) -> None:
    assert write(pd.DataFrame({"churn": [0, 1] * 30, "n": range(N)}), tmp_path / "table.csv")
    assert_model_or_one_line(tmp_path / "table.csv", ["--param", f"C={value}"])


def test_a_table_of_a_thousand_digits_and_of_dates_far_away_trains(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"churn": rng.integers(0, 2, N), "n": ["9" * 1000, "1"] * (N // 2)})
    table["day"] = [f"{year}-01-01" for year in rng.choice([1500, 2600], N)]
    assert write(table, tmp_path / "table.csv")
    assert_model_or_one_line(tmp_path / "table.csv", [])
