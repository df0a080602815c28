"""Speed of one answer and of a batch: our predictor and scikit-learn's Pipeline around the same kind of estimator.

    make bench                                                        after the accuracy, the speed
    python benchmarks/prediction.py telco.csv --target Churn --id-column customerID
    python benchmarks/prediction.py --only blend --only random_forest

A customer is a dict and so is the answer. The other side is what one would write without this package: a
ColumnTransformer with SimpleImputer, StandardScaler and OneHotEncoder, fed a DataFrame made of the dict. Both are
fitted on the same customers and asked in turn, in one run, so that what else the machine does meets both.
"""

import gc
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer
from accuracy import prepared
from options import DataArgument, JsonFileOption, SampleOption, customers
from results import save

from churn_mlops.learners.registry import MODEL_TYPES, make_estimator
from churn_mlops.models import ChurnModel, ChurnPredictor
from churn_mlops.models.train import IdOption, PositiveOption, TargetOption


def seconds(ask: Callable[[Any], Any], given: Any) -> float:
    """Time one call."""
    start = time.perf_counter()
    ask(given)
    return time.perf_counter() - start


def as_rows(X: pd.DataFrame) -> list[dict[str, Any]]:
    """Turn a table into customers as a service has them: plain values, None for what is missing."""
    rows = X.astype(object).where(X.notna(), None).to_dict("records")
    return [{name: getattr(value, "item", lambda v=value: v)() for name, value in row.items()} for row in rows]


def one_row(ways: dict[str, Callable[[Any], Any]], rows: list[dict[str, Any]], rounds: int) -> dict[str, float]:
    """Ask each way in turn, and return the median microseconds of each; a quick way is asked more often in its turn."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for i in range(rounds):
        for name, ask in ways.items():
            for j in range(1 if name == "Pipeline" else 20):
                times[name].append(seconds(ask, rows[(20 * i + j) % len(rows)]))
    return {name: 1e6 * statistics.median(each) for name, each in times.items()}


def batch(ways: dict[str, Callable[[Any], Any]], rows: list[dict[str, Any]]) -> dict[str, float]:
    """Return the rows a second of each way, the better of two runs in turn."""
    best: dict[str, float] = {}
    for _ in range(2):
        for name, ask in ways.items():
            best[name] = max(best.get(name, 0.0), len(rows) / seconds(ask, rows))
    return best


def measure(kind: str, X: pd.DataFrame, y: pd.Series, rounds: int, n_batch: int) -> dict[str, Any]:
    """Fit one model type on both sides and time them."""
    pipeline = prepared(make_estimator(kind)).fit(X, y)
    with tempfile.TemporaryDirectory() as folder:
        path = ChurnModel(kind).fit(X, y).save(Path(folder) / "model.zip")
        engines = ["numpy", "numba"] if find_spec("numba") else ["numpy"]
        ours = {engine: ChurnPredictor(path, engine=engine) for engine in engines}
        loading = min(seconds(ChurnPredictor, path) for _ in range(3))
    rows = as_rows(X)
    many = [rows[i % len(rows)] for i in range(n_batch)]
    theirs_one = {"Pipeline": lambda row: float(pipeline.predict_proba(pd.DataFrame([row]).astype(X.dtypes))[0, 1])}
    theirs_all = {"Pipeline": lambda rows: pipeline.predict_proba(pd.DataFrame(rows))[:, 1].tolist()}
    gc.collect()
    one = one_row(theirs_one | {name: each.predict for name, each in ours.items()}, rows, rounds)
    bulk = batch(theirs_all | {name: each.predict_batch for name, each in ours.items()}, many)
    figures: dict[str, Any] = {"Pipeline us": f"{one['Pipeline']:,.0f}"}
    for name in ours:
        figures |= {f"{name} us": f"{one[name]:.1f}", f"{name} x": f"{one['Pipeline'] / one[name]:,.0f}"}
    figures["Pipeline rows/s"] = f"{bulk['Pipeline']:,.0f}"
    for name in ours:
        figures |= {f"{name} rows/s": f"{bulk[name]:,.0f}", f"{name} batch x": f"{bulk[name] / bulk['Pipeline']:.1f}"}
    return figures | {"load s": f"{loading:.2f}"}


def main(
    data: DataArgument = None,
    target: TargetOption = None,
    id_column: IdOption = None,
    positive: PositiveOption = None,
    sample_size: SampleOption = None,
    only: Annotated[
        list[str] | None, typer.Option(help="Only model types with this in their name; repeatable.")
    ] = None,
    rounds: Annotated[int, typer.Option(help="How often the Pipeline is asked for one customer.")] = 100,
    rows: Annotated[int, typer.Option(help="Customers in the batch.")] = 100_000,
    json_file: JsonFileOption = None,
) -> None:
    """Time one answer and a batch for each model type, and print one table."""
    X, y, described = customers(data, sample_size, target=target, id_column=id_column, positive=positive)
    warnings.simplefilter("ignore")
    kinds = [k for k, known in MODEL_TYPES.items() if known.is_installed and (not only or any(o in k for o in only))]
    table = pd.DataFrame({kind: measure(kind, X, y, rounds, rows) for kind in kinds})
    libraries = [
        f"{name} {version(name)}" for name in ("scikit-learn", "numpy", "numba") if find_spec(name) or "-" in name
    ]
    print(f"\n{described}\nPython {platform.python_version()}, {', '.join(libraries)}")
    print(
        f"us: microseconds for one customer, median; rows/s: a batch of {rows:,}; x: times faster than the Pipeline\n"
    )
    print(table.to_string())
    if json_file is not None:
        save(
            json_file,
            title="Speed of predictions",
            about=f"{described}. us: microseconds for one customer, dict in and dict out, median; rows/s: a batch of "
            f"{rows:,} customers; x: times faster than a scikit-learn Pipeline around the same kind of estimator.",
            command="make bench",
            columns=["", *map(str, table.columns)],
            rows=[[str(name), *map(str, row)] for name, row in table.iterrows()],
            libraries=libraries,
        )


if __name__ == "__main__":
    typer.run(main)
