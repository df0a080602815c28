import json
import signal
import subprocess
import sys
from dataclasses import replace
from io import StringIO
from pathlib import Path

import IPython.display
import numpy as np
import pandas as pd
import pytest
import rich.console
from rich.console import Console
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import get_scorer
from sklearn.model_selection import ParameterSampler, cross_val_score
from sklearn.pipeline import make_pipeline

from churn_mlops.data import generate_sample_data
from churn_mlops.data.splitting import fold_indices
from churn_mlops.features import FeatureEngineer
from churn_mlops.learners.registry import MODEL_TYPES
from churn_mlops.models import ChurnModel, compare, compare_models
from churn_mlops.models.compare import difference_interval
from churn_mlops.models.tune import TuningResult, tune

ROOT = Path(__file__).resolve().parents[1]
LOGISTIC = ChurnModel("logistic_regression")
STRONG_PENALTY = ChurnModel("logistic_regression", C=1e-6)


@pytest.fixture(scope="module")
def customers():
    """Return raw columns and outcome of sample customers."""
    table = generate_sample_data(800)
    return table.drop(columns=["customer_id", "churn"]), table["churn"]


class TestDifferenceInterval:
    def test_without_correction_it_is_the_t_test(self):
        values = [0.01, 0.03, -0.01, 0.02]
        expected = stats.ttest_1samp(values, 0).confidence_interval(0.9)
        assert difference_interval(values, test_ratio=0, confidence=0.9) == pytest.approx(tuple(expected))

    def test_correction_adds_the_test_ratio_to_the_variance(self):
        low, high = difference_interval([0.0, 2.0], test_ratio=0.5)
        assert (low + high) / 2 == 1
        assert high - low == pytest.approx(2 * stats.t.ppf(0.975, 1) * np.sqrt((1 / 2 + 1 / 2) * 2))

    def test_one_difference_is_refused(self):
        with pytest.raises(ValueError, match="2 or more splits, not 1"):
            difference_interval([0.1], test_ratio=0.25)


class TestCompareModels:
    def test_default_is_every_installed_model_type(self, customers, monkeypatch):
        absent = replace(MODEL_TYPES["logistic_regression"], needs="no_such_package")
        types = {"absent": absent, "logistic_regression": MODEL_TYPES["logistic_regression"]}
        monkeypatch.setattr(compare, "MODEL_TYPES", types)
        assert compare_models(*customers, folds=2).index.tolist() == ["logistic_regression"]

    def test_same_model_twice_differs_by_nothing(self, customers):
        table = compare_models(*customers, {"a": LOGISTIC, "b": LOGISTIC}, folds=3)
        assert table[["difference", "low", "high"]].to_numpy().tolist() == [[0, 0, 0], [0, 0, 0]]
        assert table["verdict"].tolist() == ["best", "within chance of the best"]

    def test_clearly_worse_model_is_behind(self, customers):
        guess = make_pipeline(FeatureEngineer(), LogisticRegression(C=1e-9))
        models = {"guess": guess, "logistic": LOGISTIC}
        table = compare_models(*customers, models, metric="log_loss", repeats=2)
        assert table["verdict"].to_dict() == {"logistic": "best", "guess": "behind the best"}
        assert 0 < table.at["guess", "low"] < table.at["guess", "difference"] < table.at["guess", "high"]

    @pytest.mark.parametrize(("metric", "ascending"), [("pr_auc", False), ("brier", True)])
    def test_best_comes_first(self, customers, metric, ascending):
        models = {"weak": STRONG_PENALTY, "logistic": LOGISTIC}
        values = compare_models(*customers, models, metric=metric, folds=2)[metric]
        assert values.tolist() == sorted(values, reverse=not ascending)

    def test_means_are_those_of_scikit_learn(self, customers):
        X, y = customers
        folds = fold_indices(X, y, folds=4, seed=3)
        expected = cross_val_score(LOGISTIC, X, y, cv=folds, scoring="neg_log_loss")
        table = compare_models(X, y, ["logistic_regression"], folds=4, seed=3)
        assert table.at["logistic_regression", "log_loss"] == pytest.approx(-expected.mean())

    def test_repeats_shuffle_anew(self, customers):
        once, twice = (compare_models(*customers, {"a": LOGISTIC}, folds=2, repeats=n).at["a", "brier"] for n in (1, 2))
        assert once != twice

    def test_text_labels(self, customers):
        X, y = customers
        text = y.map({0: "No", 1: "Yes"})
        columns = ["roc_auc", "pr_auc", "log_loss", "brier"]
        tables = [compare_models(X, labels, ["logistic_regression"], folds=2)[columns] for labels in (y, text)]
        pd.testing.assert_frame_equal(*tables)

    def test_folds_by_time_learn_from_the_past(self, customers):
        X, y = customers
        seen = []

        class Recorder(ChurnModel):
            def fit(self, X, y):
                seen.append(X.index.max())
                return super().fit(X, y)

        time = pd.Series(range(len(X)), index=X.index)
        compare_models(X, y, {"a": Recorder("logistic_regression")}, folds=3, time=time)
        assert seen == [199, 399, 599]

    def test_model_given_stays_unfitted(self, customers):
        model = ChurnModel("logistic_regression")
        compare_models(*customers, {"mine": model}, folds=2)
        assert not model._is_fitted

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"model_types": ["xgb"]}, "Unknown model type: 'xgb'"),
            ({"model_types": "random_forest"}, "give a list of names"),
            ({"model_types": []}, "nothing to compare"),
            ({"metric": "auc"}, "Unknown metric: 'auc'"),
            ({"folds": 1}, "at least 2 folds, not 1"),
            ({"folds": 500}, "too few customers to split with 500 folds"),
            ({"repeats": 0}, "repeats=0"),
            ({"repeats": 2, "time": pd.Series(range(800))}, "repeats=2"),
        ],
    )
    def test_wrong_options_are_named(self, customers, options, message):
        with pytest.raises(ValueError, match=message):
            compare_models(*customers, **options)


class TestProgress:
    def compare(self, customers):
        return compare_models(*customers, {"a": LOGISTIC}, folds=3)

    def test_silent_in_a_pipe(self, customers, capsys):
        self.compare(customers)
        assert capsys.readouterr() == ("", "")

    def test_counts_on_a_terminal(self, customers, monkeypatch):
        screen = StringIO()
        monkeypatch.setattr(rich.console, "Console", lambda stderr: Console(file=screen, force_terminal=True))
        self.compare(customers)
        assert "comparing" in screen.getvalue()
        assert "3/3" in screen.getvalue()

    def test_counts_in_a_notebook_and_leaves_nothing(self, customers, monkeypatch):
        shown = []

        class Handle:
            def update(self, data, raw):
                shown.append(data["text/html"])

        monkeypatch.setattr(rich.console, "Console", lambda stderr: Console(force_jupyter=True))
        monkeypatch.setattr(IPython.display, "display", lambda *data, **options: Handle())
        self.compare(customers)
        assert 'max="3" value="3"' in shown[-2]
        assert shown[-1] == ""


class Interrupting:
    """A scorer that is stopped after a number of fits, as by Ctrl-C."""

    def __init__(self, fits):
        self.left = fits

    def __call__(self, model, X, y):
        if self.left == 0:
            signal.raise_signal(signal.SIGINT)
        self.left -= 1
        return get_scorer("neg_log_loss")(model, X, y)


@pytest.fixture
def ctrl_c():
    """Let SIGINT raise KeyboardInterrupt, as in a program of its own."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def tune_logistic(customers, **options) -> TuningResult:
    return tune("logistic_regression", *customers, **{"n_candidates": 6, "folds": 2, **options})


class TestTune:
    @pytest.mark.parametrize("model_type", MODEL_TYPES)
    def test_every_model_type_has_a_search_space(self, model_type):
        assert MODEL_TYPES[model_type].search_space

    @pytest.mark.parametrize("model_type", [name for name, known in MODEL_TYPES.items() if known.is_installed])
    def test_every_draw_is_a_model(self, customers, model_type):
        X, y = customers
        known = ChurnModel(model_type).model.get_params()
        quick = {name: 5 for name in ("n_estimators", "max_trees", "max_iter") if name in known and "C" not in known}
        for params in ParameterSampler(MODEL_TYPES[model_type].search_space, 3, random_state=1):
            assert np.isfinite(ChurnModel(model_type, **{**params, **quick}).fit(X, y).predict_proba(X)).all()

    def test_rungs_grow_as_candidates_leave(self, customers):
        table = tune_logistic(customers).table
        assert table.groupby("rung")["candidate"].nunique().tolist() == [6, 2]
        assert table["customers"].unique().tolist() == [266, 798]

    def test_too_few_churners_for_a_smaller_rung(self, customers):
        X, y = customers
        table = tune_logistic((X.iloc[:200], y.iloc[:200])).table
        assert table["customers"].unique().tolist() == [200]
        assert len(table) == 6

    def test_defaults_are_the_first_candidate(self, customers):
        first = tune_logistic(customers).table.iloc[0]
        assert (first["candidate"], first["C"]) == (0, 1.0)

    def test_best_of_the_last_rung_wins(self, customers):
        result = tune_logistic(customers)
        last = result.table[result.table["rung"] == 1].set_index("candidate")
        assert result.score == last["score"].max()
        assert result.params == {"C": last.at[last["score"].idxmax(), "C"]}
        assert result.model.params == result.params
        assert not result.interrupted

    def test_same_seed_same_result(self, customers):
        first, second = (tune_logistic(customers).table.drop(columns="seconds") for _ in range(2))
        pd.testing.assert_frame_equal(first, second)

    def test_groups_stay_on_one_side(self, customers):
        groups = pd.Series(np.arange(800) // 4)
        seen = []

        def scorer(model, X, y):
            seen.append(set(groups[X.index]))
            return get_scorer("neg_log_loss")(model, X, y)

        tune_logistic(customers, groups=groups, scoring=scorer)
        assert seen[-1].isdisjoint(seen[-2])

    def test_values_drawn_twice_are_tried_once(self, customers):
        table = tune_logistic(customers, space={"C": [1.0, 0.1]}, n_candidates=3).table
        assert table["C"].tolist() == [1.0, 0.1]

    def test_tuned_model_can_be_saved(self, customers, tmp_path):
        space = {"max_iter": stats.randint(100, 200), "C": stats.loguniform(0.1, 1)}
        result = tune_logistic(customers, space=space, scoring="roc_auc")
        assert json.loads(json.dumps(result.params)) == result.params
        assert ChurnModel.load(result.model.save(tmp_path / "tuned.safetensors")).params == result.params

    def test_text_labels_become_0_and_1(self, customers):
        X, y = customers
        assert tune_logistic((X, y.map({0: "No", 1: "Yes"}))).model.classes_.tolist() == [0, 1]

    @pytest.mark.usefixtures("ctrl_c")
    def test_ctrl_c_keeps_the_best_of_the_last_complete_rung(self, customers):
        result = tune_logistic(customers, scoring=Interrupting(6 * 2 + 1 * 2 + 1))
        assert result.interrupted
        assert result.table["rung"].tolist() == [0] * 6 + [1]
        first = result.table[result.table["rung"] == 0]
        assert result.score == first["score"].max()
        assert result.params == {"C": first["C"].iloc[first["score"].argmax()]}
        assert np.isfinite(result.model.predict_proba(customers[0])).all()

    @pytest.mark.usefixtures("ctrl_c")
    def test_ctrl_c_in_the_first_rung_keeps_the_best_so_far(self, customers):
        result = tune_logistic(customers, scoring=Interrupting(5))
        assert result.interrupted
        assert result.table["candidate"].tolist() == [0, 1]
        assert result.score == result.table["score"].max()

    @pytest.mark.usefixtures("ctrl_c")
    def test_ctrl_c_before_the_first_candidate_has_nothing_to_keep(self, customers):
        with pytest.raises(KeyboardInterrupt):
            tune_logistic(customers, scoring=Interrupting(1))

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"space": {"c": [1]}}, "Unknown parameter for logistic_regression: 'c'"),
            ({"space": {}}, "no search space for logistic_regression"),
            ({"space": {"solver": ["steepest"]}, "n_candidates": 2}, "'solver' parameter"),
            ({"n_candidates": 1}, "n_candidates=1"),
            ({"folds": 1}, "at least 2 folds, not 1"),
            ({"scoring": "auc"}, "'scoring' parameter"),
        ],
    )
    def test_wrong_options_are_named(self, customers, options, message):
        with pytest.raises(ValueError, match=message):
            tune_logistic(customers, **options)

    def test_unknown_model_type(self, customers):
        with pytest.raises(ValueError, match="Unknown model type: 'xgb'"):
            tune("xgb", *customers)


def test_benchmark_puts_ours_beside_the_others():
    command = [sys.executable, ROOT / "benchmarks" / "accuracy.py", "--sample-size", "400", "--only", "logistic"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    lines = [line for line in done.stdout.splitlines() if "logistic" in line]
    assert any("churn_mlops" in line for line in lines)
    assert any("churn_mlops" not in line for line in lines)
