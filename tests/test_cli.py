"""The command churn-train: what it prints, what it writes, how it ends."""

import contextlib
import importlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pandas as pd
import pytest

from churn_mlops import __version__
from churn_mlops.data import generate_sample_data
from churn_mlops.models import ChurnModel, ChurnPredictor
from churn_mlops.models.train import Customers, compare_with_time, main
from churn_mlops.pipelines.training import TrainingPipeline
from churn_mlops.settings import load_settings

QUICK = ("--model-type", "logistic_regression", "--cv-folds", "0")


def surroundings(more: dict[str, str]) -> dict[str, str]:
    """Give the environment without settings of whoever runs the tests."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CHURN_", "MODEL_PATH"))}
    return {**kept, **more}


def real_churn_train(*arguments: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does, and return what it printed and its exit code."""
    command = [sys.executable, "-m", "churn_mlops.models.train", *map(str, arguments)]
    env = surroundings({"PYTHONPATH": str(Path(__file__).resolve().parent.parent), **environment})
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)


def churn_train(*arguments: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Do the same in this process, which has the libraries loaded."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with (
        contextlib.chdir(cwd),
        mock.patch.dict(os.environ, surroundings(environment), clear=True),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as ended:
            code = ended.code
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


@pytest.fixture
def customers(tmp_path: Path) -> Path:
    """Write a file of sample customers whose outcome is Yes or No."""
    table = generate_sample_data(400)
    path = tmp_path / "customers.csv"
    table.assign(churn=table["churn"].map({0: "No", 1: "Yes"})).to_csv(path, index=False)
    return path


class TestTelco:
    @pytest.mark.parametrize(
        ("model_type", "floors", "folds"),
        [("logistic_regression", {"roc_auc": 0.835, "accuracy": 0.79}, 5), ("random_forest", {"roc_auc": 0.815}, 0)],
    )
    def test_figures_on_the_test_split(self, telco, tmp_path, model_type, floors, folds):
        done = churn_train(
            *(telco, "--target", "Churn", "--id-column", "customerID", "--json", "--output", "model.safetensors"),
            *("--model-type", model_type, "--cv-folds", folds),
            cwd=tmp_path,
        )
        result = json.loads(done.stdout)
        assert result["n_test"] == 1_406  # a fifth, but for a few copied rows that change sides
        assert all(result["metrics"][name] >= floor for name, floor in floors.items())
        if folds:
            assert result["cv_mean"]["roc_auc"] == pytest.approx(result["metrics"]["roc_auc"], abs=0.02)

    def test_model_answers_for_a_customer_without_total_charges(self, telco, tmp_path):
        done = churn_train(telco, "--target", "Churn", "--id-column", "customerID", *QUICK, cwd=tmp_path)
        assert done.returncode == 0
        predictor = ChurnPredictor(tmp_path / "models" / "churn-model.safetensors")
        assert "customerID" not in predictor.formula.inputs
        assert predictor.formula.named_columns["TotalCharges"].kind == "numeric"
        assert 0 < predictor.predict({**predictor.formula.example, "TotalCharges": None})["churn_probability"] < 1


class TestOutput:
    def test_sample_data_without_any_argument(self, tmp_path):
        done = real_churn_train("--cv-folds", "0", cwd=tmp_path)
        assert done.returncode == 0
        assert ChurnModel.load(tmp_path / "models" / "churn-model.safetensors").formula_.record.n_rows == 4_000
        assert "roc_auc" in done.stdout
        assert f"churn-serve {Path('models', 'churn-model.safetensors')}" in done.stdout

    def test_json_stands_alone_on_standard_output(self, customers, tmp_path):
        done = real_churn_train(customers, *QUICK, "--json", cwd=tmp_path)
        result = json.loads(done.stdout)
        assert result["model_path"] == str(Path("models", "churn-model.safetensors"))
        assert "Saved to" in done.stderr

    def test_pipe_gets_no_progress(self, customers, tmp_path):
        done = real_churn_train(customers, *QUICK, "--id-column", "customer_id", cwd=tmp_path)
        assert done.stderr == ""
        assert "\x1b" not in done.stdout

    def test_what_was_noticed_in_the_data_is_said_once(self, customers, tmp_path):
        done = churn_train(customers, "--model-type", "logistic_regression", cwd=tmp_path)
        assert done.stdout.count("column 'customer_id'") == 1

    def test_running_the_module_gives_no_runtime_warning(self, tmp_path):
        assert "RuntimeWarning" not in real_churn_train("--help", cwd=tmp_path).stderr


@pytest.mark.parametrize(
    "module",
    [
        "models.train",
        "pipelines.evaluate",
        "pipelines.promote",
        "pipelines.package",
        "serving.command",
        "lab.command",
        "lab.outputs",
    ],
)
def test_every_command_tells_its_version(module, capsys):
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(f"churn_mlops.{module}").main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.split()[1:] == [__version__]


class TestOptions:
    def test_param_reaches_the_estimator_as_a_python_value(self, customers, tmp_path):
        done = churn_train(
            customers, *QUICK, "--param", "C=0.5", "--param", "solver=liblinear", "--output", "m.model", cwd=tmp_path
        )
        assert done.returncode == 0
        params = ChurnModel.load(tmp_path / "m.model").params
        assert params == {"C": 0.5, "solver": "liblinear", "random_state": 42}

    def test_seed_changes_the_split(self, customers, tmp_path):
        metrics = [
            json.loads(churn_train(customers, *QUICK, "--json", "--seed", seed, cwd=tmp_path).stdout)["metrics"]
            for seed in (1, 1, 2)
        ]
        assert metrics[0] == metrics[1] != metrics[2]

    def test_positive_turns_two_other_labels_into_an_outcome(self, customers, tmp_path):
        table = pd.read_csv(customers)
        table.assign(churn=table["churn"].map({"Yes": "ended", "No": "running"})).to_csv(customers, index=False)
        assert "--positive" in churn_train(customers, *QUICK, cwd=tmp_path).stderr
        done = churn_train(customers, *QUICK, "--positive", "ended", "--json", cwd=tmp_path)
        assert json.loads(done.stdout)["churn_rate"] == (table["churn"] == "Yes").mean()

    def test_the_label_that_counts_as_churn_is_printed(self, customers, tmp_path):
        assert "churned (churn = 'Yes')\n" in churn_train(customers, *QUICK, cwd=tmp_path).stdout

    def test_a_target_read_the_wrong_way_round_is_questioned_and_turned(self, customers, tmp_path):
        table = pd.read_csv(customers)
        kept = table["churn"].map({"Yes": 0, "No": 1}).rename("kept")
        table.drop(columns="churn").join(kept).to_csv(customers, index=False)
        asked = churn_train(customers, *QUICK, "--target", "kept", cwd=tmp_path).stdout
        assert "more than half" in asked
        assert "churned (kept = 1)" in asked
        turned = churn_train(customers, *QUICK, "--target", "kept", "--positive", "0", cwd=tmp_path).stdout
        assert "more than half" not in turned
        assert "churned (kept = 0)" in turned

    def test_positive_makes_one_label_against_the_rest(self, customers, tmp_path):
        table = pd.read_csv(customers)
        table.loc[::3, "churn"] = "Joined"
        table.to_csv(customers, index=False)
        assert "--positive" in churn_train(customers, *QUICK, cwd=tmp_path).stderr
        done = churn_train(customers, *QUICK, "--positive", "Yes", "--json", cwd=tmp_path)
        result = json.loads(done.stdout)
        assert (result["churn"], result["churn_rate"]) == ("churn = 'Yes'", (table["churn"] == "Yes").mean())

    def test_drop_unlabelled_leaves_customers_without_a_label_out_and_says_so(self, customers, tmp_path):
        table = pd.read_csv(customers)
        table.loc[[7, 9], "churn"] = None
        table.to_csv(customers, index=False)
        refused = churn_train(customers, *QUICK, cwd=tmp_path).stderr
        assert "in 2 of 400 rows (first: row 7; labels found: No, Yes); drop these rows (--drop-unlabelled)" in refused
        done = churn_train(customers, *QUICK, "--drop-unlabelled", cwd=tmp_path).stdout
        assert "note: 2 of 400 rows have no label in 'churn' and were dropped" in done
        assert "398 customers" in done

    def test_dates_and_money_of_a_file_are_numbers_and_dates_for_the_model(self, customers, tmp_path):
        table = pd.read_csv(customers)
        days = pd.Timestamp("2025-06-30") - pd.to_timedelta(table["tenure"] * 30, unit="D")
        table["monthly_charges"] = table["monthly_charges"].map("${:,.2f}".format)
        table.assign(joined=days.dt.strftime("%d/%m/%Y")).to_csv(customers, index=False)
        done = churn_train(customers, *QUICK, "--id-column", "customer_id", cwd=tmp_path)
        assert "'monthly_charges' (amounts of money), 'joined' (dates, day/month/year)" in done.stdout
        asked = {**table.iloc[0].to_dict(), "monthly_charges": 91.54, "joined": days.iloc[0].date().isoformat()}
        predictor = ChurnPredictor(tmp_path / "models" / "churn-model.safetensors")
        assert 0 < predictor.predict(asked)["churn_probability"] < 1

    def test_settings_are_loaded_once(self, customers, tmp_path):
        with mock.patch("churn_mlops.models.train.load_settings", wraps=load_settings) as loading:
            churn_train(customers, *QUICK, "--param", "C=2.0", cwd=tmp_path)
        assert loading.call_count == 1

    def test_settings_file_is_used_and_an_option_comes_first(self, customers, tmp_path):
        file = tmp_path / "mine.ini"
        file.write_text('[model]\ntype = logistic_regression\nparams = {"C": 0.1}\ncv_folds = 0\n')
        done = churn_train(customers, "--settings", file, "--param", "tol=0.01", "--json", cwd=tmp_path)
        assert json.loads(done.stdout)["params"] == {"C": 0.1, "tol": 0.01, "random_state": 42}

    def test_params_of_the_file_go_with_its_model_type(self, customers, tmp_path):
        (tmp_path / "settings.ini").write_text('[model]\ntype = random_forest\nparams = {"n_estimators": 5}\n')
        assert churn_train(customers, *QUICK, cwd=tmp_path).returncode == 0


class TestDecisions:
    def test_profit_threshold_is_stored_and_earns_more_than_one_half(self, tmp_path):
        def metrics_and_model(*options: str) -> tuple[dict, ChurnModel]:
            done = churn_train(*QUICK, *options, "--json", "--output", "m.safetensors", cwd=tmp_path)
            return json.loads(done.stdout), ChurnModel.load(tmp_path / "m.safetensors")

        result, model = metrics_and_model("--threshold", "profit")
        assert model.formula_.threshold == result["threshold"] < 0.3
        plain, half = metrics_and_model()
        assert (plain["threshold"], half.formula_.threshold) == (0.5, 0.5)
        assert result["metrics"]["recall"] > plain["metrics"]["recall"]
        assert result["metrics"]["roc_auc"] == plain["metrics"]["roc_auc"]

    @pytest.mark.parametrize(("name", "read"), [("list.csv", pd.read_csv), ("list.parquet", pd.read_parquet)])
    def test_retention_list_holds_customers_who_are_still_there(self, customers, tmp_path, name, read):
        done = churn_train(
            customers, *QUICK, "--id-column", "customer_id", "--retention-list", tmp_path / "new" / name, cwd=tmp_path
        )
        assert "Customers worth contacting" in done.stdout
        listed, table = read(tmp_path / "new" / name), pd.read_csv(customers).set_index("customer_id")
        assert set(table.loc[listed["customer_id"], "churn"]) == {"No"}
        assert listed["expected_profit"].is_monotonic_decreasing
        assert (listed["expected_profit"] > 0).all()

    def test_an_id_that_is_a_formula_is_none_in_the_retention_list(self, customers, tmp_path):
        table = pd.read_csv(customers)
        table["customer_id"] = "=cmd|' /C calc'!A0"
        table.to_csv(customers, index=False)
        churn_train(customers, *QUICK, "--id-column", "customer_id", "--retention-list", "list.csv", cwd=tmp_path)
        assert set(pd.read_csv(tmp_path / "list.csv")["customer_id"]) == {"'=cmd|' /C calc'!A0"}

    def test_report_is_a_page_with_what_was_noticed(self, customers, tmp_path):
        done = churn_train(customers, *QUICK, "--report", "out", cwd=tmp_path)
        page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
        figures = pd.read_csv(tmp_path / "out" / "metrics.csv", index_col="metric")
        assert "Report: out/report.html" in done.stdout.replace(str(tmp_path) + "/", "")
        assert page.startswith("<!DOCTYPE html>")
        assert "customer_id" in page
        assert 0 < figures.at["roc_auc", "low"] < figures.at["roc_auc", "value"] < figures.at["roc_auc", "high"] <= 1
        assert {"always_no", "logistic_regression"} < set(figures)

    def test_report_on_sample_data_knows_the_best_possible(self, tmp_path):
        churn_train(*QUICK, "--report", "out", cwd=tmp_path)
        figures = pd.read_csv(tmp_path / "out" / "metrics.csv", index_col="metric")
        assert figures.at["log_loss", "best_possible"] < figures.at["log_loss", "value"]

    def test_report_that_names_a_file_is_refused_before_anything_is_read(self, customers, tmp_path):
        done = churn_train(customers, *QUICK, "--report", "report.html", cwd=tmp_path)
        assert done.returncode == 2
        assert done.stderr.endswith("a report is a folder, for report.html and metrics.csv; name one\n")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["customers.csv"]

    def test_budget_cuts_the_list(self, customers, tmp_path):
        churn_train(customers, *QUICK, "--retention-list", "list.csv", "--budget", "40", cwd=tmp_path)
        assert 0 < pd.read_csv(tmp_path / "list.csv")["cumulative_cost"].max() <= 40

    def test_impossible_economics_name_the_setting(self, tmp_path):
        done = churn_train(cwd=tmp_path, CHURN_ECONOMICS__INCENTIVE_COST="500")
        assert done.returncode == 2
        assert "[economics] incentive_cost = 500" in done.stderr


class TestSplits:
    @pytest.fixture
    def settings(self, tmp_path):
        """Return a function that makes settings for a table with a month and a household."""
        table = generate_sample_data(600)
        table["month"] = [f"2024-{1 + i // 100:02d}-01" for i in range(600)]
        table["household"] = [i // 2 for i in range(600)]
        table.to_csv(tmp_path / "table.csv", index=False)

        def make(**split: str):
            return load_settings(
                data={"path": tmp_path / "table.csv", "id_column": "customer_id"},
                split=split,
                model={"type": "logistic_regression", "cv_folds": 3},
                output={"model_path": tmp_path / "model.safetensors"},
            )

        return make

    def test_time_column_makes_the_newest_customers_the_test_and_is_no_feature(self, settings):
        result = TrainingPipeline(settings(time_column="month")).run()
        assert result.n_test == 100
        assert "month" not in result.model.feature_names

    def test_dates_and_a_random_split_are_told_with_both_figures(self, settings):
        result = TrainingPipeline(settings()).run()
        [finding] = [finding for finding in result.findings if finding.kind == "time"]
        assert finding.column == "month"
        assert f"an AUC of {result.metrics['roc_auc']:.3f} at random and of {finding.figure:.3f} on" in str(finding)
        assert finding.figure == pytest.approx(
            TrainingPipeline(settings(time_column="month")).run().metrics["roc_auc"], abs=1e-9
        )
        assert "--time-column month" in str(finding)

    @pytest.mark.parametrize("split", [{"time_column": "month"}, {"group_column": "household"}])
    def test_a_split_that_is_not_random_is_not_questioned(self, settings, split):
        assert "time" not in [finding.kind for finding in TrainingPipeline(settings(**split)).run().findings]

    def test_of_a_large_table_20000_customers_are_compared(self, settings):
        table = generate_sample_data(20_500)
        table["joined"] = pd.date_range("2001-01-01", periods=len(table), freq="h")
        customers = Customers(table.drop(columns=["customer_id", "churn"]), table["churn"])
        [finding] = compare_with_time(ChurnModel("logistic_regression"), customers, settings().split)
        assert "fitted on 20,000 customers" in str(finding)

    @pytest.mark.parametrize("days", [["2024-01-01"] * 600, [None] * 599 + ["2024-01-01"], list("ab") * 300])
    def test_dates_that_split_nothing_give_no_note(self, settings, days):
        table = generate_sample_data(600).assign(day=days)
        customers = Customers(table.drop(columns=["customer_id", "churn"]), table["churn"])
        assert compare_with_time(ChurnModel("logistic_regression"), customers, settings().split) == []

    def test_the_option_names_the_column_of_the_time(self, settings, tmp_path):
        settings()
        done = churn_train("table.csv", *QUICK, "--time-column", "month", "--json", cwd=tmp_path)
        assert json.loads(done.stdout)["n_test"] == 100

    def test_group_column_is_no_feature(self, settings):
        result = TrainingPipeline(settings(group_column="household")).run()
        assert "household" not in result.model.feature_names
        assert result.n_test == 120

    def test_both_at_once_are_refused(self, settings):
        with pytest.raises(ValueError, match="time"):
            TrainingPipeline(settings(time_column="month", group_column="household")).run()


class TestGuards:
    def test_findings_are_told_and_an_id_is_left_out(self, tmp_path):
        table = generate_sample_data(600)
        table["account"] = range(100_000, 100_600)
        table["final_bill"] = table["churn"] * 50.0
        table.to_csv(tmp_path / "table.csv", index=False)
        done = churn_train("table.csv", *QUICK, "--id-column", "customer_id", "--json", cwd=tmp_path)
        result = json.loads(done.stdout)
        assert {finding["kind"]: finding["column"] for finding in result["findings"]} == {
            "id": "account",
            "leak": "final_bill",
        }
        assert "final_bill" in done.stderr
        assert "account" not in ChurnModel.load(tmp_path / "models" / "churn-model.safetensors").feature_names

    def test_a_table_of_nothing_but_ids_ends_with_each_column_and_why(self, tmp_path):
        table = generate_sample_data(1200)[["customer_id", "churn"]]
        table["account"], table["phone"] = range(1200), [442_079_460_000 + i * i for i in range(1200)]
        table.to_csv(tmp_path / "table.csv", index=False)
        done = churn_train("table.csv", *QUICK, "--id-column", "customer_id", cwd=tmp_path)
        assert "no column is left to learn from: column 'account' differs in 100% of the rows and holds" in done.stderr
        assert "column 'phone'" in done.stderr
        assert "Add columns that customers share" in done.stderr

    def test_sample_data_gives_no_note(self, tmp_path):
        assert "note:" not in churn_train(*QUICK, cwd=tmp_path).stdout


class TestMistakes:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["nowhere.csv"], "no such file: nowhere.csv"),
            (["."], "folder"),
            (["customers.csv", "--target", "left"], "Missing required columns: left"),
            (["customers.csv", "--model-type", "oracle"], "Unknown model type: 'oracle'"),
            (["customers.csv", "--param", "depth"], "give name=value"),
            (["customers.csv", "--param", "depth=3"], "Unknown parameter for blend: 'depth'"),
            (["customers.csv", "--param", "learning_rate=-3"], "'learning_rate' parameter"),
            (["customers.csv", "--test-size", "1.5"], "test_size"),
            (["customers.csv", "--settings", "nowhere.ini"], "nowhere.ini"),
            (["customers.csv", "--target", "contract_type"], "contract_type"),
        ],
    )
    @pytest.mark.usefixtures("customers")
    def test_mistake_is_one_line_and_exit_code_2(self, tmp_path, monkeypatch, capsys, arguments, message):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        printed = capsys.readouterr()
        assert (ended.value.code, printed.out) == (2, "")
        assert printed.err.count("\n") == 1
        assert message in printed.err

    def test_mistake_gives_no_traceback_in_a_real_process(self, tmp_path):
        done = real_churn_train("nowhere.csv", cwd=tmp_path)
        assert (done.returncode, done.stderr) == (2, "churn-train: error: no such file: nowhere.csv\n")

    def test_parameter_mistake_is_found_before_the_file_is_read(self, tmp_path):
        done = churn_train("nowhere.csv", "--param", "depth=3", cwd=tmp_path)
        assert "Unknown parameter" in done.stderr

    def test_failed_run_leaves_the_previous_model_as_it_was(self, customers, tmp_path):
        model = tmp_path / "models" / "churn-model.safetensors"
        assert churn_train(customers, *QUICK, cwd=tmp_path).returncode == 0
        before = model.read_bytes()
        assert churn_train(customers, "--target", "contract_type", cwd=tmp_path).returncode == 2
        assert model.read_bytes() == before

    def test_interrupt_is_one_line_and_leaves_no_file(self, tmp_path, monkeypatch, capsys):
        def interrupted(*_: object) -> None:
            raise KeyboardInterrupt  # what Ctrl-C becomes

        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("churn_mlops.models.training.load_customers", interrupted)
        with pytest.raises(SystemExit, match="130"):
            main([])
        assert capsys.readouterr().err == "churn-train: stopped; nothing was changed\n"
        assert list(tmp_path.iterdir()) == []


class TestTrainingPipeline:
    @pytest.fixture
    def settings(self, customers, tmp_path):
        """Return settings for a quick run on the file of customers."""
        return load_settings(
            data={"path": customers, "id_column": "customer_id"},
            model={"type": "logistic_regression", "cv_folds": 0},
            output={"model_path": tmp_path / "model.safetensors"},
        )

    def test_steps_are_in_the_log_in_order(self, settings, caplog):
        caplog.set_level("INFO", logger="churn_mlops.pipelines.training")
        TrainingPipeline(settings).run()
        done = [record.getMessage().split(":")[0] for record in caplog.records if ": done in" in record.getMessage()]
        assert done == ["load", "validate", "check", "split", "fit", "evaluate", "save"]

    def test_result_is_that_of_the_command(self, settings, customers, tmp_path):
        result = TrainingPipeline(settings).run().to_dict()
        command = churn_train(customers, *QUICK, "--id-column", "customer_id", "--json", cwd=tmp_path)
        same = ("metrics", "n_rows", "n_train", "n_test", "churn_rate", "params", "warnings")
        assert {name: json.loads(command.stdout)[name] for name in same} == {name: result[name] for name in same}

    def test_two_runs_have_two_names(self, settings):
        pipeline = TrainingPipeline(settings)
        assert pipeline.run().run_id != pipeline.run().run_id

    def test_no_customer_value_is_logged(self, settings, caplog):
        caplog.set_level("DEBUG")
        TrainingPipeline(settings).run()
        assert "C0000" not in caplog.text


def test_the_run_and_its_steps_can_be_imported_beside_the_command():
    from churn_mlops.data import customers
    from churn_mlops.models import train, training

    run = {
        *("TrainingResult", "run_training", "train_model"),
        *("choose_threshold", "compare_with_time", "make_economics", "make_model", "retention_file"),
    }
    steps = {"Customers", "check_customers", "load_customers", "prepare_customers"}
    assert {name for name in run if getattr(train, name) is getattr(training, name)} == run
    assert {name for name in steps if getattr(train, name) is getattr(customers, name)} == steps
