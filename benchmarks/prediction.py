"""Speed of one answer and of a batch: our predictor and scikit-learn's Pipeline around the same kind of estimator.

    make bench                                                        after the accuracy, the speed
    python benchmarks/prediction.py telco.csv --target Churn --id-column customerID
    python benchmarks/prediction.py --only blend --only random_forest

One customer is a dict and so is the answer; a batch is a DataFrame of different customers. The other side is what one
would write without this package: a ColumnTransformer with SimpleImputer, StandardScaler and OneHotEncoder, fed a
DataFrame. Beside it stand onnxruntime, which gets our exported model and a batch that is converted already, and
treelite behind the Pipeline's own preparation, where installed. All are asked in turn, on one core, in one run.
"""

import gc
import os
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

import numpy as np
import pandas as pd
import typer
from accuracy import prepared
from options import DataArgument, JsonFileOption, SampleOption, customers
from results import save

from churn_mlops.formula.evaluator import Engine, Evaluator
from churn_mlops.learners.registry import MODEL_TYPES, make_estimator
from churn_mlops.models import ChurnModel, ChurnPredictor
from churn_mlops.models.train import IdOption, PositiveOption, TargetOption
from churn_mlops.threads import limit_threads

RIVALS = {"blend": "hist_gradient_boosting"}  # a blend is compared with one booster


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
            for j in range(20 if name in ("numpy", "numba") else 1):
                times[name].append(seconds(ask, rows[(20 * i + j) % len(rows)]))
    return {name: 1e6 * statistics.median(each) for name, each in times.items()}


def batch(ways: dict[str, Callable[[Any], Any]], given: dict[str, Any], n_rows: int) -> dict[str, float]:
    """Return the rows a second of each way, the best of three runs in turn."""
    best: dict[str, float] = {}
    for _ in range(3):
        for name, ask in ways.items():
            best[name] = max(best.get(name, 0.0), n_rows / seconds(ask, given.get(name, given["table"])))
    return best


def different(X: pd.DataFrame, n_rows: int) -> pd.DataFrame:
    """Make customers of whom no two are alike: drawn again, and every number moved by up to a hundredth."""
    rng = np.random.default_rng(42)
    many = X.iloc[rng.integers(0, len(X), n_rows)].reset_index(drop=True)
    for name in X.select_dtypes("number"):
        many[name] = many[name] * (1 + 0.01 * rng.random(n_rows))
    return many


def onnx_way(model: ChurnModel, folder: Path) -> tuple[Callable[[Any], Any], Callable[[pd.DataFrame], Any]] | None:
    """Return onnxruntime on the exported model, on one core, and what turns a table into its inputs."""
    if not (find_spec("onnx") and find_spec("onnxruntime")):
        return None
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    path = model.export_onnx(folder / "model.onnx")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = {each.name: each.type for each in session.get_inputs()}

    def inputs(table: pd.DataFrame) -> dict[str, Any]:
        return {
            name: table[name].astype(object).where(table[name].notna(), "").astype(str).to_numpy(dtype=object)
            if "string" in kind
            else table[name].to_numpy(dtype=np.float64 if "double" in kind else np.float32)
            for name, kind in names.items()
        }

    return (lambda given: session.run(["probability"], given)[0]), inputs


def treelite_way(pipeline: Any) -> Callable[[Any], Any] | None:
    """Return treelite on the Pipeline's estimator, behind the Pipeline's preparation; None for what it lacks."""
    if not find_spec("treelite"):
        return None
    import treelite

    try:
        trees = treelite.sklearn.import_model(pipeline[-1])
    except Exception:  # a kind of model that treelite has no trees of
        return None
    prepare = pipeline[:-1]
    return lambda table: treelite.gtil.predict(trees, np.asarray(prepare.transform(table), dtype=np.float64), nthread=1)


def measure(kind: str, X: pd.DataFrame, y: pd.Series, rounds: int, n_batch: int) -> dict[str, Any]:
    """Fit one model type on both sides and time them, on one core each."""
    pipeline = prepared(make_estimator(RIVALS.get(kind, kind))).fit(X, y)
    model = ChurnModel(kind).fit(X, y)
    engines: list[Engine] = ["numpy", "numba"] if find_spec("numba") else ["numpy"]
    many, rows = different(X, n_batch), as_rows(X)
    with tempfile.TemporaryDirectory() as name:
        path = model.save(Path(name) / "model.safetensors")
        ours = {engine: ChurnPredictor(path, engine=engine) for engine in engines}
        loading = min(seconds(ChurnPredictor, path) for _ in range(3))
        onnx = onnx_way(model, Path(name))
    one: dict[str, Callable[[Any], Any]] = {
        "Pipeline": lambda row: float(pipeline.predict_proba(pd.DataFrame([row]).astype(X.dtypes))[0, 1])
    }
    all_: dict[str, Callable[[Any], Any]] = {"Pipeline": lambda table: pipeline.predict_proba(table)[:, 1]}
    given: dict[str, Any] = {"table": many}
    for engine, predictor in ours.items():
        one[engine] = predictor.predict
        vars(predictor.formula)["evaluator"] = Evaluator(predictor.formula, engine)
        all_[engine] = predictor.model.predict_proba
    if onnx is not None:
        run, inputs = onnx
        all_["onnxruntime"], given["onnxruntime"] = run, inputs(many)
        dtypes = X.dtypes
        one["onnxruntime"] = lambda row: float(run(inputs(pd.DataFrame([row]).astype(dtypes)))[0])
    if (treelite := treelite_way(pipeline)) is not None:
        all_["treelite"] = treelite
        one["treelite"] = lambda row: treelite(pd.DataFrame([row]).astype(X.dtypes))
    gc.collect()
    singles, bulk = one_row(one, rows, rounds), batch(all_, given, n_batch)
    figures: dict[str, Any] = {}
    for name in all_:
        figures |= {f"{name} us": f"{singles[name]:,.1f}", f"{name} rows/s": f"{bulk[name]:,.0f}"}
        if name != "Pipeline":
            figures |= {
                f"{name} one x": f"{singles['Pipeline'] / singles[name]:,.1f}",
                f"{name} batch x": f"{bulk[name] / bulk['Pipeline']:.1f}",
            }
    return figures | {"load ms": f"{1e3 * loading:.1f}"}


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
    os.environ["CHURN_THREADS"] = "1"  # every way on one core
    kinds = [k for k, known in MODEL_TYPES.items() if known.is_installed and (not only or any(o in k for o in only))]
    with limit_threads(1):
        table = pd.DataFrame({kind: measure(kind, X, y, rounds, rows) for kind in kinds}).fillna("")
    libraries = [
        f"{name} {version(name)}"
        for name in ("scikit-learn", "numpy", "numba", "onnxruntime", "treelite")
        if find_spec(name) or "-" in name
    ]
    print(f"\n{described}\nPython {platform.python_version()}, {', '.join(libraries)}")
    print(f"us: microseconds for one customer, median; rows/s: {rows:,} different customers; x: of the Pipeline\n")
    print(table.to_string())
    if json_file is not None:
        save(
            json_file,
            title="Speed of predictions",
            about=f"{described}. us: microseconds for one customer, dict in and dict out, median; rows/s: a table of "
            f"{rows:,} different customers; x: times faster than a scikit-learn Pipeline around the same kind of "
            "estimator, the blend than one booster. All on one core.",
            command="make bench",
            columns=["", *map(str, table.columns)],
            rows=[[str(name), *map(str, row)] for name, row in table.iterrows()],
            libraries=libraries,
        )


if __name__ == "__main__":
    typer.run(main)
