"""The command churn-evaluate: a saved model on customers whose outcome is now known."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from churn_mlops.data import generate_sample_data
from churn_mlops.evaluation.metrics import evaluate_predictions
from churn_mlops.models import ChurnModel
from churn_mlops.pipelines.evaluate import main
from churn_mlops.report import evaluate_report

pytestmark = [pytest.mark.filterwarnings("ignore::UserWarning"), pytest.mark.usefixtures("few_draws")]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    table = generate_sample_data(1_000)
    X = table.drop(columns=["customer_id", "churn"])
    return (
        ChurnModel("logistic_regression")
        .fit(X, table["churn"])
        .save(tmp_path_factory.mktemp("model") / "m.safetensors")
    )


@pytest.fixture
def customers() -> pd.DataFrame:
    return generate_sample_data(400, seed=7)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def evaluate(model: Path, table: pd.DataFrame | Path, *options: object) -> int:
    """Run the command on a table and return its exit code."""
    path = table
    if isinstance(table, pd.DataFrame):
        path = Path("new.csv")
        table.to_csv(path, index=False)
    with pytest.raises(SystemExit) as left:
        main([str(model), str(path), *map(str, options)])
    return int(left.value.code or 0)


def test_figures_are_those_of_the_model_on_the_file(model: Path, customers: pd.DataFrame, capsys: Any) -> None:
    assert evaluate(model, customers, "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    proba = ChurnModel.load(model).predict_proba(customers)[:, 1]
    expected = evaluate_predictions(customers["churn"], proba)
    assert {name: answer["metrics"][name] for name in expected} == pytest.approx(expected)
    assert all(low <= answer["metrics"][name] <= high for name, (low, high) in answer["intervals"].items())
    assert answer["n_rows"] == 400


def test_a_person_reads_a_table_with_intervals(model: Path, customers: pd.DataFrame, capsys: Any) -> None:
    assert evaluate(model, customers) == 0
    shown = capsys.readouterr().out
    assert "roc_auc" in shown
    assert "95% interval" in shown


def test_report_folder_holds_page_and_figures(
    model: Path, customers: pd.DataFrame, tmp_path: Path, capsys: Any
) -> None:
    assert evaluate(model, customers, "--report", "a/b") == 0
    assert "Report: a/b/report.html" in capsys.readouterr().out
    figures = pd.read_csv(tmp_path / "a" / "b" / "metrics.csv", index_col="metric")
    fitted = ChurnModel.load(model)
    X = customers.drop(columns=["churn"])
    pd.testing.assert_frame_equal(figures, evaluate_report(fitted, X, customers["churn"]).to_frame())


def test_labels_of_the_file_may_be_words(model: Path, customers: pd.DataFrame, capsys: Any) -> None:
    evaluate(model, customers, "--json")
    numbers = json.loads(capsys.readouterr().out)["metrics"]
    words = customers.assign(churn=customers["churn"].map({0: "running", 1: "ended"}))
    assert evaluate(model, words.rename(columns={"churn": "state"}), "--target", "state", "--json",
                    "--positive", "ended") == 0  # fmt: skip
    assert json.loads(capsys.readouterr().out)["metrics"] == numbers


def test_labels_of_the_model_may_be_words(customers: pd.DataFrame, tmp_path: Path, capsys: Any) -> None:
    words = customers["churn"].map({0: "running", 1: "stopped"})
    X = customers.drop(columns=["customer_id", "churn"])
    path = ChurnModel("logistic_regression").fit(X, words).save(tmp_path / "words.safetensors")
    assert evaluate(path, customers.assign(churn=words), "--json", "--report", "out") == 0
    assert json.loads(capsys.readouterr().out)["churn_rate"] == customers["churn"].mean()


def test_one_label_against_the_rest_and_rows_without_a_label(model: Path, customers: pd.DataFrame, capsys: Any) -> None:
    words = customers["churn"].map({0: "running", 1: "ended"})
    words[::3], words[1::100] = "new", None
    assert evaluate(model, customers.assign(churn=words), "--positive", "ended", "--drop-unlabelled") == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "note: 4 of 400 rows have no label in 'churn' and were dropped" in printed
    assert "(churn = 'ended')" in printed


def test_settings_name_the_target(model: Path, customers: pd.DataFrame, tmp_path: Path) -> None:
    (tmp_path / "mine.ini").write_text("[data]\ntarget = gone\n")
    assert evaluate(model, customers.rename(columns={"churn": "gone"}), "--settings", "mine.ini") == 0


def test_the_report_of_the_training_is_left_alone(model: Path, customers: pd.DataFrame, tmp_path: Path) -> None:
    (tmp_path / "mine.ini").write_text("[output]\nreport = training\n")
    assert evaluate(model, customers, "--settings", "mine.ini") == 0
    assert not (tmp_path / "training").exists()


def test_few_churners_are_pointed_out_and_get_no_interval(model: Path, customers: pd.DataFrame, capsys: Any) -> None:
    few = pd.concat([customers[customers["churn"] == 1].head(4), customers[customers["churn"] == 0]])
    assert evaluate(model, few, "--json") == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["intervals"]["roc_auc"] == [None, None]
    assert "no figure is reliable" in err


class TestMistakes:
    def said(self, model: Path, table: Any, *options: object, capsys: Any) -> str:
        """Return the one line that a mistake is answered with."""
        assert evaluate(model, table, *options) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1
        assert lines[0].startswith("churn-evaluate: error: ")
        return lines[0]

    def test_one_class(self, model: Path, customers: pd.DataFrame, capsys: Any) -> None:
        said = self.said(model, customers.assign(churn=0), capsys=capsys)
        assert "'churn'" in said

    def test_rows_without_a_label(self, model: Path, customers: pd.DataFrame, capsys: Any) -> None:
        gaps = customers["churn"].where(np.arange(400) > 2)
        assert "3 of 400 rows" in self.said(model, customers.assign(churn=gaps), capsys=capsys)

    def test_a_column_that_the_model_needs(self, model: Path, customers: pd.DataFrame, capsys: Any) -> None:
        said = self.said(model, customers.drop(columns=["tenure", "tech_support"]), capsys=capsys)
        assert said.endswith("new.csv: the model needs columns that the file lacks: 'tenure', 'tech_support'")

    def test_the_target(self, model: Path, customers: pd.DataFrame, capsys: Any) -> None:
        said = self.said(model, customers, "--target", "gone", capsys=capsys)
        assert "Missing required columns: gone" in said

    def test_text_where_a_number_belongs(self, model: Path, customers: pd.DataFrame, capsys: Any) -> None:
        table = customers.astype({"tenure": object})
        table.loc[3, "tenure"] = "long"
        assert "'tenure'" in self.said(model, table, capsys=capsys)

    def test_no_such_file_of_customers(self, model: Path, capsys: Any) -> None:
        assert "nowhere.csv" in self.said(model, Path("nowhere.csv"), capsys=capsys)

    def test_no_such_model(self, customers: pd.DataFrame, capsys: Any) -> None:
        assert "nowhere.safetensors" in self.said(Path("nowhere.safetensors"), customers, capsys=capsys)

    def test_a_file_that_is_no_model(self, customers: pd.DataFrame, capsys: Any) -> None:
        customers.to_csv("new.csv", index=False)
        assert "new.csv" in self.said(Path("new.csv"), customers, capsys=capsys)

    def test_a_report_that_names_a_file(self, model: Path, customers: pd.DataFrame, capsys: Any) -> None:
        assert "a report is a folder" in self.said(model, customers, "--report", "r.html", capsys=capsys)

    def test_a_report_in_the_place_of_the_table(self, model: Path, customers: pd.DataFrame, capsys: Any) -> None:
        customers.to_csv("metrics.csv", index=False)
        before = Path("metrics.csv").read_bytes()
        told = self.said(model, Path("metrics.csv"), "--report", ".", capsys=capsys)
        assert "the table of metrics would take the place of the table of customers" in told
        assert Path("metrics.csv").read_bytes() == before
