"""Accuracy side by side: our model types and what a user would pick instead, on the same folds of several tables.

    make bench                                              Telco if the file is there, and three more tables
    make bench ARGS="telco.csv --target Churn --id-column customerID"
    make bench ARGS="--only logistic --only HistGradient"   some models only

Every model is fitted anew on each training part of a shuffled, stratified 5-fold cross-validation, seed 0. The others
get a table prepared as usual: numbers imputed and standardised, everything else one-hot encoded; CatBoost gets its
categories as they are. The differences between the blend and the others are paired by folds. A library that is not
installed is left out; `pip install -r benchmarks/requirements.txt` brings them.
"""

import importlib.util
import platform
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import Annotated, Any, Self

import numpy as np
import pandas as pd
import typer
from options import DataArgument, JsonFileOption, SampleOption, customers
from results import save
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.datasets import load_breast_cancer, make_classification
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier, VotingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score
from sklearn.model_selection import StratifiedKFold, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, SplineTransformer, StandardScaler
from threadpoolctl import threadpool_limits

from churn_mlops.features import FeatureEngineer
from churn_mlops.learners.blend import MEMBERS, BlendedClassifier, Member
from churn_mlops.learners.boosting import BaggedBoosting
from churn_mlops.learners.registry import MODEL_TYPES
from churn_mlops.models import ChurnModel
from churn_mlops.models.compare import difference_interval
from churn_mlops.models.train import IdOption, PositiveOption, TargetOption

SEED = 0
LIBRARIES = ("lightgbm", "catboost")
NUMBERS = make_column_selector(dtype_include="number")
OTHERS = make_column_selector(dtype_exclude="number")
MARGIN = 0.005  # a log-loss that is higher by less than this is no worse in practice
BLEND = "churn_mlops: blend"
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
    ours = {name: lambda name=name: ChurnModel(name) for name, known in MODEL_TYPES.items() if known.is_installed}
    ours["blend, impatient"] = lambda: make_pipeline(
        FeatureEngineer(), BlendedClassifier(members=("curves", "impatient trees"), random_state=42)
    )
    if MODEL_TYPES["catboost"].is_installed:
        ours["blend, with catboost"] = lambda: ChurnModel("blend", members=("curves", "trees", "catboost"))
    return models | {f"churn_mlops: {name}": make for name, make in ours.items()}


# The blend as it was before it waited: it gave up after 15 rounds without progress, and had at most 500.
MEMBERS["impatient trees"] = Member(
    lambda blend, seed: BaggedBoosting(max_iter=500, patience=15, cv=blend.cv, random_state=seed),
    MEMBERS["trees"].to_formula,
)


def groups_table() -> tuple[pd.DataFrame, pd.Series]:
    """Make customers of several kinds, whose numbers matter together; four of the columns are cut into categories."""
    X, y = make_classification(
        5_000, 20, n_informative=8, n_clusters_per_class=4, flip_y=0.1, weights=[0.8], random_state=SEED
    )
    table = pd.DataFrame(X).add_prefix("x")
    for name in ("x0", "x1", "x2", "x3"):
        table[name] = "group " + pd.qcut(table[name], 6, labels=False).astype(str)
    return table, pd.Series(y)


def cities_table() -> tuple[pd.DataFrame, pd.Series]:
    """Make customers of 300 cities, each with a churn of its own."""
    rng = np.random.default_rng(SEED)
    city = rng.integers(0, 300, 4_000)
    tenure, charges = rng.exponential(20, 4_000), rng.normal(60, 20, 4_000)
    log_odds = -1 - tenure / 20 + charges / 40 + rng.normal(0, 1.2, 300)[city]
    table = pd.DataFrame({"tenure": tenure, "charges": charges, "city": [f"city {i}" for i in city]})
    return table, pd.Series((rng.random(4_000) < 1 / (1 + np.exp(-log_odds))).astype(int))


def more_tables() -> Iterator[tuple[pd.DataFrame, pd.Series, str]]:
    """Give tables that scikit-learn ships or makes, and what they are."""
    tumours = load_breast_cancer(as_frame=True)
    named = {
        "breast cancer of scikit-learn": (tumours.data, tumours.target),
        "groups": groups_table(),
        "cities": cities_table(),
    }
    for name, (X, y) in named.items():
        yield X, y, f"{name}: {len(y):,} rows, {X.shape[1]} columns, {y.mean():.1%} positive"


def measure(model: Any, X: pd.DataFrame, y: pd.Series) -> pd.DataFrame:
    """Cross-validate one model: a row of metrics for each fold, and CPU seconds for one fit with its predictions."""
    rows = []
    for train, test in StratifiedKFold(5, shuffle=True, random_state=SEED).split(X, y):
        start = time.process_time()
        proba = clone(model).fit(X.iloc[train], y.iloc[train]).predict_proba(X.iloc[test])[:, 1]
        seconds = time.process_time() - start
        actual = y.iloc[test]
        rows.append(
            (roc_auc_score(actual, proba), average_precision_score(actual, proba), log_loss(actual, proba), seconds)
        )
    return pd.DataFrame(rows, columns=["AUC", "PR-AUC", "log-loss", "CPU s"])


def run(X: pd.DataFrame, y: pd.Series, threads: int, only: list[str] | None) -> dict[str, pd.DataFrame]:
    """Measure every model on one table."""
    results: dict[str, pd.DataFrame] = {}
    for name, make in competitors(X, threads).items():
        if only and not any(part in name for part in only):
            continue
        print(f"{name} ...", file=sys.stderr, flush=True)
        try:
            with threadpool_limits(threads):
                results[name] = measure(make(), X, y)
        except Exception as error:  # a competitor that cannot take this table must not end the comparison
            print(f"  failed: {type(error).__name__}: {error}", file=sys.stderr)
    return results


def summary(results: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Give the means of each model, best log-loss first, and how far the blend is from it: mean, interval, verdict."""
    rows = {name: folds.mean().map("{:.4f}".format) for name, folds in results.items()}
    table = pd.DataFrame(rows).T.sort_values("log-loss")
    table["CPU s"] = [f"{results[name]['CPU s'].mean():.2f}" for name in table.index]
    if BLEND not in results:
        return table
    for name in table.index.drop(BLEND):
        apart = (results[BLEND]["log-loss"] - results[name]["log-loss"]).tolist()
        low, high = difference_interval(apart, test_ratio=0.25)
        table.loc[name, "blend minus this"] = f"{np.mean(apart):+.4f}"
        table.loc[name, "95 % interval"] = f"{low:+.4f} to {high:+.4f}"
        better, behind = high < 0, low > 0
        table.loc[name, "the blend is"] = (
            "better" if better else "no worse" if high < MARGIN else "behind" if behind else "not decided"
        )
    return table.fillna("")


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
    """Refit every competitor and every model type of ours on the same folds, and print a table for each data set."""
    warnings.simplefilter("ignore", ConvergenceWarning)
    tables = [customers(data, sample_size, target=target, id_column=id_column, positive=positive)]
    if data is None and sample_size is None:
        tables += more_tables()
    libraries = [f"{name} {version(name)}" for name in ("scikit-learn", *LIBRARIES) if name not in missing()]
    print(f"5 shuffled folds, seed {SEED}; Python {platform.python_version()}, {', '.join(libraries)}")
    print(f"CPU s: one fit with its predictions, {threads} thread(s). No worse: the interval ends below +{MARGIN}\n")
    rows: list[list[str]] = []
    for X, y, described in tables:
        table = summary(run(X, y, threads, only))
        print(f"{described}\n{table.to_string()}\n", flush=True)
        rows += [[described.partition(":")[0], name, *row] for name, row in zip(table.index, table.values, strict=True)]
    if json_file is not None:
        save(
            json_file,
            title="Accuracy",
            about=f"{'; '.join(described for _, _, described in tables)}. Means over 5 shuffled, stratified folds, "
            f"seed {SEED}, each model fitted anew on each; the best log-loss comes first. The difference in log-loss "
            "of the blend and a model is paired by folds; its 95 % interval is corrected for training parts that "
            f"overlap (Nadeau and Bengio 2003). The blend is called no worse where the interval ends below the "
            f"margin of {MARGIN}. CPU s is one fit with its predictions.",
            command="make bench",
            columns=["table", "model", *table.columns],
            rows=rows,
            libraries=libraries,
        )


if __name__ == "__main__":
    typer.run(main)
