"""MLflow: a run is logged to a local store, and MLflow's own loader answers as the model does."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlflow
import pytest

from churn_mlops.data import generate_sample_data
from churn_mlops.models.mlflow import log_run
from churn_mlops.models.training import TrainingResult, run_training
from churn_mlops.settings import load_settings


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Give MLflow a folder."""
    uri = f"file://{tmp_path / 'runs'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    return uri


def train(folder: Path, model_type: str = "logistic_regression", **output: Any) -> TrainingResult:
    paths = {"model_path": folder / "model", **output}
    model = {"type": model_type, "cv_folds": 2}
    return run_training(load_settings(data={"sample_size": 400}, model=model, output=paths))


def test_figures_and_parameters_are_those_of_the_run(tmp_path: Path) -> None:
    result = train(tmp_path)
    run = mlflow.get_run(log_run(result, "churn"))
    metrics = run.data.metrics
    assert {name: metrics[name] for name in result.metrics} == result.metrics
    assert metrics["cv_mean.roc_auc"] == result.cv_mean["roc_auc"]
    assert run.data.params["model_type"] == "logistic_regression"
    assert run.data.tags["churn_mlops.digest"] == result.model.formula_.digest
    assert mlflow.get_experiment(run.info.experiment_id).name == "churn"


@pytest.mark.parametrize("model_type", ["logistic_regression", "random_forest"])
def test_the_loader_of_mlflow_gives_the_same_probabilities_to_the_last_bit(tmp_path: Path, model_type: str) -> None:
    result = train(tmp_path, model_type)
    log_run(result, "churn")
    (logged,) = mlflow.search_logged_models(output_format="list")
    customers = generate_sample_data(400).iloc[::-1]
    answers = mlflow.pyfunc.load_model(logged.model_uri).predict(customers)
    assert answers.index.equals(customers.index)
    assert answers["churn_probability"].tolist() == result.model.predict_proba(customers)[:, 1].tolist()


def test_nothing_is_pickled_and_the_model_file_is_the_one_that_was_saved(tmp_path: Path) -> None:
    result = train(tmp_path)
    log_run(result, "churn")
    written = [path for path in (tmp_path / "runs").rglob("*") if path.is_file()]
    assert not [path for path in written if path.suffix in {".pkl", ".pickle", ".joblib"}]
    files = [path for path in written if path.name == "churn-model.safetensors"]
    assert [path.read_bytes() for path in files] == [result.model_path.read_bytes()] * 2


def test_the_report_is_logged_where_there_is_one(tmp_path: Path, few_draws: None) -> None:
    result = train(tmp_path, report=tmp_path / "report", mlflow_experiment="churn")
    assert result.mlflow_run is not None
    names = {each.path for each in mlflow.MlflowClient().list_artifacts(result.mlflow_run, "report")}
    assert {"report/report.html", "report/metrics.csv"} <= names


def test_a_run_within_a_run_is_below_it(tmp_path: Path) -> None:
    result = train(tmp_path)
    mlflow.set_experiment("churn")
    with mlflow.start_run() as outer:
        inner = mlflow.get_run(log_run(result, "churn"))
    assert inner.data.tags["mlflow.parentRunId"] == outer.info.run_id


def command(folder: Path, *options: str, code: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    code += "from churn_mlops.models.train import main; main()"
    run = [sys.executable, "-c", code, "--model-type", "logistic_regression", "--cv-folds", "0", "--output", "model"]
    env = {**os.environ, **variables}
    return subprocess.run([*run, *options], cwd=folder, env=env, capture_output=True, text=True)


@pytest.mark.slow
def test_churn_train_logs_the_run_and_names_it(tmp_path: Path) -> None:
    done = command(tmp_path, "--mlflow", "churn", CHURN_DATA__SAMPLE_SIZE="400")
    assert done.returncode == 0, done.stderr
    named = next(line for line in done.stdout.splitlines() if line.startswith("MLflow run: "))
    assert mlflow.get_run(named.removeprefix("MLflow run: ")).info.status == "FINISHED"


@pytest.mark.slow
def test_a_store_that_refuses_is_one_line_and_the_model_is_saved(tmp_path: Path) -> None:
    done = command(tmp_path, "--mlflow", "churn", CHURN_DATA__SAMPLE_SIZE="400", MLFLOW_ALLOW_FILE_STORE="false")
    assert done.returncode == 2
    assert "churn-train: error: the model is saved, but MLflow at file://" in done.stderr.splitlines()[-1]
    assert (tmp_path / "model").is_file()


@pytest.mark.slow
def test_without_the_extra_it_is_one_line_before_anything_is_done(tmp_path: Path) -> None:
    hide = "import importlib.util as u; found = u.find_spec\n"
    hide += "u.find_spec = lambda name, *rest: None if name == 'mlflow' else found(name, *rest)\n"
    done = command(tmp_path, "--mlflow", "churn", code=hide)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith('needs mlflow: pip install "churn_mlops[mlflow]"')
    assert not (tmp_path / "model").exists()
