"""Accuracy and speed side by side: our model types and what a user would pick instead, on the same folds.

    make bench                                              the Telco file if it is there, else sample data
    make bench ARGS="telco.csv --target Churn --id-column customerID"
    make bench ARGS="--only logistic --only HistGradient"   some models only

Every model is fitted anew on each training part of a shuffled, stratified 5-fold cross-validation, seed 0. The others
get a table prepared as usual: numbers imputed and standardised, everything else one-hot encoded. A library that is not
installed is left out; `pip install -r benchmarks/requirements.txt` brings them.
"""

import importlib.util
import platform
import sys
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from typing import Annotated, Any, Self

import numpy as np
import pandas as pd
import typer
from options import DataArgument, JsonFileOption, SampleOption, customers
from results import save
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier, VotingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score
from sklearn.model_selection import StratifiedKFold, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, SplineTransformer, StandardScaler
from threadpoolctl import threadpool_limits

from churn_mlops.learners.registry import MODEL_TYPES
from churn_mlops.models import ChurnModel
from churn_mlops.models.train import IdOption, PositiveOption, TargetOption

SEED = 0
LIBRARIES = ("lightgbm", "catboost")
NUMBERS = make_column_selector(dtype_include="number")
OTHERS = make_column_selector(dtype_exclude="number")
LOGGED = ("tenure", "totalcharges")


def prepared(estimator: Any, *special: tuple[Any, Any]) -> Any:
    """Put the usual preparation before an estimator; `special` holds (transformer, columns) for chosen numbers."""
    chosen = [columns for _, columns in special]

    def plain(X: pd.DataFrame) -> list[str]:
        taken = {name for columns in chosen for name in columns(X)}
        return [name for name in NUMBERS(X) if name not in taken]

    encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    numbers = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    return make_pipeline(make_column_transformer((numbers, plain), (encoder, OTHERS), *special), estimator)


def many_values(X: pd.DataFrame) -> list[str]:
    """Choose the numeric columns in which a curve makes sense."""
    return [name for name in NUMBERS(X) if X[name].nunique() > 10]


def logged(X: pd.DataFrame) -> list[str]:
    """Choose tenure and total charges."""
    return [name for name in NUMBERS(X) if str(name).lower().replace("_", "") in LOGGED]


def splines() -> Any:
    """Bend each number at its quantiles."""
    curve = make_pipeline(SimpleImputer(strategy="median"), SplineTransformer(n_knots=5, knots="quantile"))
    return prepared(LogisticRegression(max_iter=2_000), (curve, many_values))


def logs() -> Any:
    """Take logarithms of the two columns that a person with knowledge of the trade would."""
    log = make_pipeline(SimpleImputer(strategy="median"), FunctionTransformer(np.log1p), StandardScaler())
    return prepared(LogisticRegression(max_iter=2_000), (log, logged))


def tuned_boosting(seed: int = SEED) -> HistGradientBoostingClassifier:
    """Make scikit-learn's boosting with good parameters, stopped early."""
    return HistGradientBoostingClassifier(
        learning_rate=0.05,
        max_leaf_nodes=15,
        max_iter=500,
        early_stopping=True,
        validation_fraction=0.2,
        random_state=seed,
    )


class EarlyStoppedLightGBM(ClassifierMixin, BaseEstimator):
    """LightGBM with the number of trees found on a fifth of the rows, then fitted again on all of them."""

    def __init__(self, threads: int = 1) -> None:
        self.threads = threads

    def fit(self, X: Any, y: Any) -> Self:
        """Find the number of trees and fit."""
        from lightgbm import LGBMClassifier, early_stopping

        common = {"learning_rate": 0.03, "num_leaves": 15, "random_state": SEED, "n_jobs": self.threads, "verbose": -1}
        X_fit, X_stop, y_fit, y_stop = train_test_split(X, y, test_size=0.2, stratify=y, random_state=SEED)
        trial = LGBMClassifier(n_estimators=2_000, **common)
        trial.fit(X_fit, y_fit, eval_X=X_stop, eval_y=y_stop, callbacks=[early_stopping(50, verbose=False)])
        self.model_ = LGBMClassifier(n_estimators=trial.best_iteration_, **common).fit(X, y)
        self.classes_ = self.model_.classes_
        return self

    def predict_proba(self, X: Any) -> Any:
        """Predict with the second model."""
        return self.model_.predict_proba(X)


class DefaultCatBoost(ClassifierMixin, BaseEstimator):
    """CatBoost as its manual begins: default parameters, categories handed over as text."""

    def __init__(self, threads: int = 1) -> None:
        self.threads = threads

    def _table(self, X: pd.DataFrame) -> pd.DataFrame:
        return X.assign(**{name: X[name].astype("object").fillna("missing").astype(str) for name in OTHERS(X)})

    def fit(self, X: pd.DataFrame, y: Any) -> Self:
        """Fit on the table as it is."""
        from catboost import CatBoostClassifier

        options = {"verbose": 0, "allow_writing_files": False}
        self.model_ = CatBoostClassifier(
            cat_features=OTHERS(X), random_seed=SEED, thread_count=self.threads, **options
        ).fit(self._table(X), y)
        self.classes_ = self.model_.classes_
        return self

    def predict_proba(self, X: pd.DataFrame) -> Any:
        """Predict."""
        return self.model_.predict_proba(self._table(X))


def missing() -> list[str]:
    """Name the libraries that are not installed."""
    return [name for name in LIBRARIES if importlib.util.find_spec(name) is None]


def competitors(X: pd.DataFrame, threads: int) -> dict[str, Callable[[], Any]]:
    """Give every model to compare, by name; ours come last."""
    five = [(f"seed {seed}", tuned_boosting(seed)) for seed in range(5)]
    models: dict[str, Callable[[], Any]] = {
        "plain logistic": lambda: prepared(LogisticRegression(max_iter=2_000)),
        "logistic, quantile splines": splines,
        "logistic, logs of tenure and total charges": logs,
        "random forest, default": lambda: prepared(RandomForestClassifier(random_state=SEED)),
        "random forest, 500 trees, leaf 5": lambda: prepared(
            RandomForestClassifier(500, min_samples_leaf=5, random_state=SEED)
        ),
        "HistGradientBoosting, default": lambda: prepared(HistGradientBoostingClassifier(random_state=SEED)),
        "HistGradientBoosting, tuned": lambda: prepared(tuned_boosting()),
        "HistGradientBoosting, tuned, five bagged": lambda: prepared(VotingClassifier(five, voting="soft")),
        "LightGBM, tuned": lambda: prepared(EarlyStoppedLightGBM(threads)),
        "CatBoost, default": lambda: DefaultCatBoost(threads),
    }
    for library in missing():
        print(f"{library} is not installed: left out", file=sys.stderr)
        models = {name: make for name, make in models.items() if not name.lower().startswith(library)}
    if not logged(X):
        del models["logistic, logs of tenure and total charges"]
    ours = [name for name, known in MODEL_TYPES.items() if known.is_installed]
    return models | {f"churn_mlops: {name}": lambda name=name: ChurnModel(name) for name in ours}


def measure(model: Any, X: pd.DataFrame, y: pd.Series) -> dict[str, float]:
    """Cross-validate one model: the mean of each metric, and CPU seconds for one fit with its predictions."""
    rows = []
    for train, test in StratifiedKFold(5, shuffle=True, random_state=SEED).split(X, y):
        start = time.process_time()
        proba = clone(model).fit(X.iloc[train], y.iloc[train]).predict_proba(X.iloc[test])[:, 1]
        seconds = time.process_time() - start
        actual = y.iloc[test]
        rows.append(
            (roc_auc_score(actual, proba), average_precision_score(actual, proba), log_loss(actual, proba), seconds)
        )
    return dict(zip(("AUC", "PR-AUC", "log-loss", "CPU s"), np.mean(rows, axis=0), strict=True))


def main(
    data: DataArgument = None,
    target: TargetOption = None,
    id_column: IdOption = None,
    positive: PositiveOption = None,
    sample_size: SampleOption = None,
    only: Annotated[list[str] | None, typer.Option(help="Only models with this in their name; repeatable.")] = None,
    threads: Annotated[int, typer.Option(help="Threads that each model may use.")] = 1,
    json_file: JsonFileOption = None,
) -> None:
    """Refit every competitor and every model type of ours on the same folds, and print one table."""
    X, y, described = customers(data, sample_size, target=target, id_column=id_column, positive=positive)
    results: dict[str, dict[str, float]] = {}
    warnings.simplefilter("ignore", ConvergenceWarning)
    for name, make in competitors(X, threads).items():
        if only and not any(part in name for part in only):
            continue
        print(f"{name} ...", file=sys.stderr, flush=True)
        try:
            with threadpool_limits(threads):
                results[name] = measure(make(), X, y)
        except Exception as error:  # a competitor that cannot take this table must not end the comparison
            print(f"  failed: {type(error).__name__}: {error}", file=sys.stderr)
    libraries = [f"{name} {version(name)}" for name in ("scikit-learn", *LIBRARIES) if name not in missing()]
    print(f"\n{described}\n5 shuffled folds, seed {SEED}; Python {platform.python_version()}, {', '.join(libraries)}")
    print(f"CPU s: one fit with its predictions, {threads} thread(s)\n")
    table = pd.DataFrame(results).T.sort_values("log-loss")
    print(table.to_string(formatters={"CPU s": "{:.2f}".format}, float_format="{:.4f}".format))
    if json_file is not None:
        texts = [f"{r['AUC']:.4f} {r['PR-AUC']:.4f} {r['log-loss']:.4f} {r['CPU s']:.2f}" for _, r in table.iterrows()]
        save(
            json_file,
            title="Accuracy",
            about=f"{described}. Means over 5 shuffled, stratified folds, seed {SEED}, each model fitted anew on each; "
            "the best log-loss comes first. CPU s is one fit with its predictions.",
            command="make bench",
            columns=["model", *table.columns],
            rows=[[name, *shown.split()] for name, shown in zip(table.index, texts, strict=True)],
            libraries=libraries,
        )


if __name__ == "__main__":
    typer.run(main)
