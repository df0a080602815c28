"""A project's own features, and what a model file says of where it comes from."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fastapi.testclient import TestClient

from churn_mlops.data import generate_sample_data
from churn_mlops.data.fingerprint import fingerprint
from churn_mlops.features.function import FeaturesError, apply_own_features
from churn_mlops.formula.file import load
from churn_mlops.models import ChurnModel, ChurnPredictor
from churn_mlops.models.train import main as train
from churn_mlops.models.training import run_training
from churn_mlops.pipelines.evaluate import main as evaluate
from churn_mlops.report.card import card_of, card_page
from churn_mlops.serving.app import create_app
from churn_mlops.settings import load_settings

FUNCTION = "own_churn.features:add_features"
CODE = """
def add_features(table):
    paid = table["total_charges"] / table["tenure"].clip(lower=1)
    return table.assign(paid_per_month=paid, bound=table["contract_type"] != "Month-to-month")
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Make a folder with a package, a table and settings, and stand in it."""
    for name in [name for name in os.environ if name.upper().startswith("CHURN_") and name != "CHURN_TELCO_CSV"]:
        monkeypatch.delenv(name)
    (tmp_path / "own_churn").mkdir()
    (tmp_path / "own_churn" / "__init__.py").write_text("")
    (tmp_path / "own_churn" / "features.py").write_text(CODE)
    (tmp_path / "pyproject.toml").write_text("")
    generate_sample_data(1_500).to_csv(tmp_path / "customers.csv", index=False)
    (tmp_path / "settings.ini").write_text(
        "[data]\npath = customers.csv\nid_column = customer_id\n"
        f"[features]\nfunction = {FUNCTION}\n[model]\ntype = logistic_regression\ncv_folds = 0\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "own_churn"]:
        del sys.modules[name]


def raw(n: int = 20) -> pd.DataFrame:
    return generate_sample_data(1_500).drop(columns=["customer_id", "churn"]).head(n)


def change_code(project: Path, code: str) -> None:
    """Write another module of the same name, and forget the old one."""
    (project / "own_churn" / "features.py").write_text(code)
    for name in [name for name in sys.modules if name.partition(".")[0] == "own_churn"]:
        del sys.modules[name]


# --- the same answer through every door -----------------------------------------------------------------------------


def test_dict_row_of_csv_batch_table_and_http_give_the_same_answer(project: Path) -> None:
    path = run_training(load_settings()).model_path
    predictor, X = ChurnPredictor(path), raw()
    batch = [each["churn_probability"] for each in predictor.predict_batch(X)]
    assert [predictor.predict(row)["churn_probability"] for row in X.to_dict("records")] == batch
    texts = X.astype(str).to_dict("records")
    assert [predictor.predict(row)["churn_probability"] for row in texts] == batch
    rows = json.loads(X.to_json(orient="records"))
    with TestClient(create_app(load_settings())) as client:
        answers = client.post("/predict/batch", json={"customers": rows}).json()["predictions"]
        assert [each["churn_probability"] for each in answers] == batch
        assert client.post("/predict", json=rows[0]).json()["churn_probability"] == batch[0]
        reasons = client.post("/explain?top=20", json=rows[0]).json()["reasons"]
        assert any("paid_per_month" in reason for reason in reasons)
        assert "paid_per_month" not in client.get("/model/info").json()["columns"]


def test_a_customer_need_not_have_what_neither_function_nor_model_uses(project: Path) -> None:
    change_code(project, CODE.replace("return table.assign", 'return table[["tenure", "monthly_charges"]].assign'))
    inputs = set(ChurnPredictor(run_training(load_settings()).model_path).inputs)
    assert inputs == {"tenure", "monthly_charges", "total_charges", "contract_type"}


def test_a_predictor_without_the_function_refuses_to_answer(project: Path) -> None:
    path = run_training(load_settings()).model_path
    (project / "settings.ini").unlink()
    with pytest.raises(ValueError, match=f"needs the function {FUNCTION} of its project"):
        ChurnPredictor(path)
    assert ChurnPredictor(path, features=FUNCTION).predict(raw(1).iloc[0].to_dict())["prediction"] in (0, 1)


def test_a_function_that_has_changed_since_is_refused(project: Path) -> None:
    path = run_training(load_settings()).model_path
    change_code(project, CODE.replace("lower=1", "lower=2"))
    with pytest.raises(ValueError, match="has changed since the model was trained"):
        ChurnPredictor(path)


def test_a_comment_in_the_source_changes_nothing(project: Path) -> None:
    path = run_training(load_settings()).model_path
    change_code(project, f"# why it is so\n\n{CODE}")
    assert ChurnPredictor(path).predict(raw(1).iloc[0].to_dict())["prediction"] in (0, 1)


def test_the_name_in_a_model_file_is_never_imported(project: Path) -> None:
    formula = run_training(load_settings()).model.formula_
    own = formula.record.own
    assert own is not None
    evil = type(own)("os:abort", own.digest, own.columns)
    path = formula.updated(own=evil).save(project / "evil.safetensors")
    assert ChurnPredictor(path).predict(raw(1).iloc[0].to_dict())["prediction"] in (0, 1)


def test_a_saved_model_is_evaluated_with_the_function(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = run_training(load_settings())
    with pytest.raises(SystemExit) as ended:
        evaluate([str(result.model_path), "customers.csv", "--json"])
    assert ended.value.code == 0
    assert json.loads(capsys.readouterr().out)["metrics"]["roc_auc"] > 0.7


def test_a_function_that_returns_the_table_as_it_is_leaves_no_trace(project: Path) -> None:
    change_code(project, "def add_features(table):\n    return table\n")
    result = run_training(load_settings())
    assert result.model.formula_.record.own is None
    assert f"{FUNCTION} returns the table as it is: the model does without it" in result.warnings


# --- what it must keep ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("table[table['tenure'] > 3]", "must keep all rows"),
        ("table.sort_values('tenure')", "must keep the rows in their order"),
        ("table.sort_values('tenure').reset_index(drop=True)", "must keep the rows in their order"),
        ("table.assign(x=table['churn'] == 1)", "looks at the outcome"),
        ("table.assign(churn=0)", "adds a column 'churn', which is the outcome"),
        ("table.assign(x=table['tenure'] / table['tenure'].mean())", "depends on the other customers"),
        ("__import__('pandas').get_dummies(table)", "other columns for one customer than for many"),
        ("table.assign(x=1 / 0)", "raised ZeroDivisionError"),
        ("None", "must return a table, not NoneType"),
    ],
)
def test_a_function_that_breaks_a_promise_ends_the_training_with_one_line(
    project: Path, capsys: pytest.CaptureFixture[str], body: str, problem: str
) -> None:
    change_code(project, f"def add_features(table):\n    return {body}\n")
    with pytest.raises(SystemExit) as ended:
        train([])
    assert ended.value.code == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert [problem in line for line in said] == [True]
    assert not (project / "models").exists()


@pytest.mark.parametrize("name", ["own_churn.features:add_feature", "own_churn.no:add", "no_such_package:add"])
def test_a_function_that_is_not_there_is_named(project: Path, name: str) -> None:
    with pytest.raises(FeaturesError, match=f"function = {name}"):
        apply_own_features(name, raw(), "churn")


def test_what_a_customer_wrote_is_not_kept(project: Path) -> None:
    X = raw(1_500)
    X["remark"] = [f"please call {i}@example.com" for i in range(len(X))]
    change_code(project, "def add_features(table):\n    return table.assign(length=table['remark'].str.len())\n")
    _, own = apply_own_features(FUNCTION, X, "churn")
    assert own is not None
    assert "@example.com" not in repr(own)
    assert "remark" in [column.name for column in own.columns]


# --- where a model comes from ---------------------------------------------------------------------------------------


def test_the_record_tells_data_settings_figures_and_histograms_and_no_path(project: Path) -> None:
    record = load(run_training(load_settings()).model_path).record
    table = pd.read_csv(project / "customers.csv")
    assert record.data["fingerprint"] == fingerprint(table.sample(frac=1, random_state=3))
    assert (record.data["n_rows"], record.data["n_columns"]) == table.shape
    assert record.settings["model"]["type"] == "logistic_regression"
    assert record.intervals.keys() == record.metrics.keys()
    assert all(abs(sum(each.shares) + each.missing - 1) < 1e-9 for each in record.histograms.values())
    assert str(project) not in repr(record)
    assert not any(identity in repr(record) for identity in table["customer_id"])


def test_the_card_has_the_usual_parts_and_escapes_what_a_column_is_called(project: Path) -> None:
    X = generate_sample_data(600).rename(columns={"tenure": "<script>alert(1)</script>|"})
    model = ChurnModel("logistic_regression").fit(X.drop(columns=["customer_id", "churn"]), X["churn"])
    for title in ("Details", "Intended use", "Data", "Metrics", "Segments", "Decision and economics", "Limits"):
        assert f"## {title}\n" in model.card()
    assert "<script>alert" not in card_page(model.formula_)
    assert card_of(model.formula_) == model.card()


def verify(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        train(["--verify", *arguments])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_the_same_data_and_settings_verify_as_identical(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(run_training(load_settings(model={"seed": 7})).model_path)
    assert verify(path) == 0
    said = capsys.readouterr().out
    assert "identical" in said
    assert "[model] seed was 7 and is 42" in said


def test_one_changed_row_is_named_as_the_data(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(run_training(load_settings()).model_path)
    table = pd.read_csv("customers.csv")
    table.loc[3, "monthly_charges"] += 1
    table.to_csv("customers.csv", index=False)
    assert verify(path) == 1
    assert "data: the table has another content than in training" in capsys.readouterr().out


def test_a_changed_function_is_named(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(run_training(load_settings()).model_path)
    change_code(project, CODE.replace("lower=1", "lower=2"))
    assert verify(path) == 1
    assert f"features: the source of {FUNCTION} has changed" in capsys.readouterr().out


@pytest.mark.slow
def test_the_bytes_of_a_model_do_not_depend_on_folder_or_cores(project: Path, tmp_path_factory: Any) -> None:
    found = []
    for cores in ([0], [*os.sched_getaffinity(0)]):
        folder = tmp_path_factory.mktemp("elsewhere")
        code = (
            f"import os; os.sched_setaffinity(0, {cores!r}); from churn_mlops.models.train import main; "
            "main(['--output', 'm.safetensors', '--cv-folds', '0', '--param', 'max_iter=40', '--model-type', 'blend'])"
        )
        environment = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000", "CHURN_DATA__SAMPLE_SIZE": "3000"}
        subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, check=True, capture_output=True)
        found.append((folder / "m.safetensors").read_bytes())
    assert found[0] == found[1]


def test_a_fingerprint_knows_numbers_from_text() -> None:
    number, text = pd.DataFrame({"a": [1, 2]}), pd.DataFrame({"a": ["1", "2"]})
    assert fingerprint(number) != fingerprint(text)
    assert fingerprint(pd.DataFrame({"a": [None, "x"]})) == fingerprint(pd.DataFrame({"a": ["x", None]}))
    assert fingerprint(pd.DataFrame({"a": [np.nan, 1.0]})) != fingerprint(pd.DataFrame({"a": [0.0, 1.0]}))
