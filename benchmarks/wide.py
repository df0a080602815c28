"""Tables of a thousand columns: the seconds that the guards, a training and the report take.

    python benchmarks/wide.py                                       100 and 1,000 columns
    python benchmarks/wide.py --columns 5000                        how it goes on
    python benchmarks/wide.py --json benchmarks/results/wide.json

The customers are made up: of ten columns, six are numbers and one of them has gaps, two are text, one says yes or no,
and one in a hundred is a date. Ten numbers decide who leaves.
"""

import time
import warnings
from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer
from options import JsonFileOption
from results import publish

from churn_mlops.data import split_data
from churn_mlops.data.guards import check_table
from churn_mlops.models import ChurnModel
from churn_mlops.report.report import evaluate_report

MODELS = ("logistic_regression", "hist_gradient_boosting")
PLANS = np.array(["basic", "plus", "family", "business", "student", "none"], dtype=object)


def made_column(place: int, n: int, rng: np.random.Generator) -> Any:
    """Make a column, of a kind that its place decides."""
    if place % 100 == 99:
        return np.datetime64("2020-01-01") + rng.integers(0, 1_500, n).astype("timedelta64[D]")
    if place % 10 < 5:
        return rng.normal(size=n).round(3)
    if place % 10 == 5:
        return rng.integers(0, 50, n)
    if place % 10 == 6:
        return np.where(rng.random(n) < 0.2, np.nan, rng.normal(size=n))
    return PLANS[rng.integers(0, 2 + place % 5, n)] if place % 10 < 9 else rng.random(n) < 0.5


def made_table(n: int, n_columns: int) -> tuple[pd.DataFrame, pd.Series]:
    """Make customers and who of them churned."""
    rng = np.random.default_rng(0)
    X = pd.DataFrame({f"column {place}": made_column(place, n, rng) for place in range(n_columns)})
    deciding = [f"column {place}" for place in (*range(5), *range(10, 15))]
    log_odds = 0.5 * X[deciding].sum(axis=1) - 1
    return X, pd.Series(rng.random(n) < 1 / (1 + np.exp(-log_odds)), name="churned").astype(int)


def seconds(work: Callable[[], Any]) -> tuple[Any, str]:
    """Return what a function returns, and how long it took."""
    began = time.perf_counter()
    result = work()
    return result, f"{time.perf_counter() - began:.1f}"


def measure(n_customers: int, n_columns: int) -> list[list[str]]:
    """Return a row for each model."""
    X, y = made_table(n_customers, n_columns)
    parts = split_data(X, y)
    findings, guards = seconds(lambda: check_table(X, y))
    rows = []
    for name in MODELS:
        model, fit = seconds(lambda name=name: ChurnModel(name).fit(parts.X_train, parts.y_train))
        about = {"findings": findings, "X_train": parts.X_train, "y_train": parts.y_train}
        _, report = seconds(
            lambda model=model, about=about: evaluate_report(model, parts.X_test, parts.y_test, **about)
        )
        rows.append([f"{n_columns:,}", name, guards, fit, report])
    return rows


def main(
    columns: Annotated[list[int] | None, typer.Option(help="How many columns; repeatable, at least 15.")] = None,
    customers: Annotated[int, typer.Option(help="How many customers.")] = 5_000,
    json_file: JsonFileOption = None,
) -> None:
    """Make tables, measure each step, and print one table."""
    warnings.simplefilter("ignore")
    measure(200, 15)  # what is loaded at first use is not the table's fault
    header = ["columns", "model", "guards s", "fit s", "report s"]
    rows = [row for number in columns or [100, 1_000] for row in measure(customers, number)]
    about = f"{customers:,} made-up customers. The report fits a plain logistic regression to compare with."
    publish(json_file, title="Wide tables", about=about, columns=header, rows=rows)


if __name__ == "__main__":
    typer.run(main)
