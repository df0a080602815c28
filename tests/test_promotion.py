"""Which version comes next, and whether a candidate takes the place of the current model."""

import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from churn_mlops.data import generate_sample_data
from churn_mlops.decisions.economics import Economics
from churn_mlops.evaluation.metrics import evaluate_predictions
from churn_mlops.formula.file import ModelFileError, to_bytes
from churn_mlops.formula.formula import Formula, Histogram, OwnFeatures
from churn_mlops.models.training import run_training, train_model
from churn_mlops.pipelines.paired import (
    CannotAskError,
    Paired,
    beyond_chance,
    difference_table,
    figures_by_draw,
    held_out,
    pair_models,
)
from churn_mlops.pipelines.promote import Opened, main, newest_wheel, promote, segment_differences
from churn_mlops.pipelines.versions import (
    VersionComparison,
    column_drift,
    compare_versions,
    find_flips,
    next_version,
    read_wheel,
)
from churn_mlops.settings import DataSettings, SplitSettings, load_settings

pytestmark = [pytest.mark.filterwarnings("ignore::UserWarning"), pytest.mark.usefixtures("few_draws")]

DATA, SPLIT = DataSettings(id_column="customer_id"), SplitSettings()
ECONOMICS = Economics(customer_value=200, incentive_cost=10, contact_cost=1, acceptance=0.3)
TABLE = generate_sample_data(1_500)


def train(
    table: pd.DataFrame = TABLE, *, shuffled: bool = False, without: tuple[str, ...] = (), **params: Any
) -> Formula:
    """Fit on what the split leaves, and record how that was done, as churn-train does."""
    parts = held_out(table, DATA, SPLIT)
    y = parts.y_train
    if shuffled:
        y = y.sample(frac=1, random_state=0).set_axis(y.index)
    X_train, X_test = (X.drop(columns=[*without]) for X in (parts.X_train, parts.X_test))
    model, _ = train_model(X_train, y, X_test, parts.y_test, "logistic_regression", **params)
    known = {
        "data": {"target": "churn", "id_column": "customer_id"},
        "split": SPLIT.model_dump(),
        "model": {"params": params},
    }
    lineage = {"fingerprint": f"{table.shape}", "n_rows": len(table), "churn_rate": float(table["churn"].mean())}
    return model.formula_.updated(settings=known, data=lineage, threshold=0.3)


@pytest.fixture(scope="module")
def current() -> Formula:
    return train()


@pytest.fixture(scope="module")
def worse() -> Formula:
    return train(shuffled=True)


def pair(old: Formula, new: Formula, table: pd.DataFrame = TABLE, **more: Any) -> Paired:
    return pair_models(old, new, table, (DATA, SPLIT), **more)


def compare(old: Formula, new: Formula, table: pd.DataFrame = TABLE) -> VersionComparison:
    return compare_versions(old, new, ECONOMICS, pair(old, new, table))


def write_wheel(folder: Path, formula: Formula | bytes, version: str = "1.0.0", *packages: str) -> Path:
    """Write a wheel that holds a model for each package."""
    path = folder / f"acme_churn-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("acme_churn/__init__.py", "raise SystemExit('this was run')")
        for package in packages or ("acme_churn",):
            content = formula if isinstance(formula, bytes) else to_bytes(formula)
            archive.writestr(f"{package}/_model/model.safetensors", content)
    return path


class TestBump:
    def test_the_same_model_is_a_patch(self, current: Formula) -> None:
        assert compare(current, current).bump == "patch"

    def test_a_changed_parameter_is_a_minor_version_and_is_named(self, current: Formula) -> None:
        comparison = compare(current, train(C=0.01))
        assert comparison.bump == "minor"
        assert "[model] params: {'C': 0.01}, not {}" in comparison.reason

    def test_another_threshold_is_a_minor_version(self, current: Formula) -> None:
        comparison = compare(current, current.updated(threshold=0.6, metrics={}))
        assert comparison.bump == "minor"
        assert "The threshold is 0.6, not 0.3" in comparison.reason

    def test_a_column_less_is_a_major_version(self, current: Formula) -> None:
        comparison = compare(current, train(without=("tech_support",)))
        assert comparison.bump == "major"
        assert "went: 'tech_support'" in comparison.reason

    def test_a_column_more_is_a_major_version(self, current: Formula) -> None:
        assert "came: 'tech_support'" in compare(train(without=("tech_support",)), current).reason

    def test_a_column_of_another_kind_is_a_major_version(self, current: Formula) -> None:
        words = TABLE.assign(tenure="m" + (TABLE["tenure"] // 12).astype(str))
        new = train(words)
        assert "'tenure' is categorical, not numeric" in compare_versions(current, new, ECONOMICS).reason

    def test_the_entry_holds_version_reason_figures_and_flips(self, current: Formula, worse: Formula) -> None:
        text = compare(current, worse).to_markdown("1.3.0")
        assert text.startswith("## 1.4.0\n\nA minor version. The answers differ")
        assert "| roc auc |" in text
        assert "get another decision" in text

    def test_a_model_that_cannot_be_asked_is_compared_by_its_record(self, current: Formula) -> None:
        own = OwnFeatures("acme_churn.features:add_features", "sha256:" + "0" * 64, current.input_columns)
        old = current.updated(own=own, intervals={"roc_auc": 0.02})
        with pytest.raises(CannotAskError, match="needs the function acme_churn") as caught:
            pair(old, current)
        comparison = compare_versions(
            old, current.updated(intervals={"roc_auc": 0.02}), ECONOMICS, why_not=str(caught.value)
        )
        assert comparison.bump == "minor"
        assert comparison.figures.loc["roc_auc", "high"] == pytest.approx(np.hypot(0.02, 0.02))
        assert "install the old release in an environment of its own" in comparison.to_markdown("1.0.0")

    def test_odd_words_about_the_data_do_no_harm(self, current: Formula) -> None:
        odd = current.updated(data={"n_rows": ["many"], "fingerprint": 1, "churn_rate": "high"})
        assert compare(odd, current).data.startswith("1,500 of whom")

    @pytest.mark.parametrize(
        ("old", "bump", "new"),
        [
            ("1.2.3", "major", "2.0.0"),
            ("1.2.3", "minor", "1.3.0"),
            ("1.2.3", "patch", "1.2.4"),
            ("1.2", "patch", "1.2.1"),
            ("2.0.0rc1", "patch", "2.0.0"),
            ("1.4.0.dev2", "minor", "1.4.0"),
            ("1.4.1rc1", "minor", "1.5.0"),
            ("1!1.2.3+local", "patch", "1!1.2.4"),
        ],
    )
    def test_the_next_version(self, old: str, bump: Any, new: str) -> None:
        assert next_version(old, bump) == new


class TestDifferences:
    def test_a_model_differs_from_itself_by_exactly_0(self, current: Formula) -> None:
        figures = difference_table(pair(current, current), ECONOMICS)
        assert not figures[["difference", "low", "high"]].to_numpy().any()
        assert beyond_chance(figures) == ([], [])

    @given(st.integers(0, 2**32 - 1), st.integers(20, 200))
    @examples(max_examples=25, deadline=None)
    def test_figures_of_a_draw_are_those_of_scikit_learn(self, seed: int, n: int) -> None:
        rng = np.random.default_rng(seed)
        proba = rng.integers(0, 11, n) / 10  # with ties, and with certainty
        y = np.append([0, 1], rng.integers(0, 2, n - 2))
        rows = np.append([0, 1], rng.integers(0, n, n))
        wanted = evaluate_predictions(y[rows], proba[rows])
        found = figures_by_draw(y, proba)(rows)
        assert all(found[name] == pytest.approx(wanted[name], abs=1e-12) for name in found if name in wanted)

    def test_swapped_models_swap_the_sign(self, current: Formula, worse: Formula) -> None:
        there, back = pair(current, worse), pair(worse, current)
        one, other = (difference_table(each, ECONOMICS)["difference"] for each in (there, back))
        np.testing.assert_allclose(one, -other)

    def test_each_customer_counts_with_her_own_value(self, current: Formula) -> None:
        economics = Economics(customer_value="total_charges", incentive_cost=0, contact_cost=1, acceptance=0.5)
        paired = pair(current, current.updated(threshold=0.5, metrics={}))
        dropped = paired.called[0] & ~paired.called[1]
        brought = np.where(paired.y == 1, 0.5 * paired.X["total_charges"], 0) - 1
        assert find_flips(paired, economics).worth == pytest.approx(-brought[dropped].sum())

    def test_with_few_churners_chance_explains_anything(self, current: Formula, worse: Formula) -> None:
        paired = pair(current, worse)
        few = np.append(np.flatnonzero(paired.y == 1)[:9], np.flatnonzero(paired.y == 0))
        cut = Paired(paired.X.iloc[few], paired.y[few], paired.old[few], paired.new[few], 0.3, 0.3, True)
        decision = promote(Opened(current, worse, cut), ECONOMICS)
        assert decision.promoted
        assert "chance explains any difference" in decision.customers

    def test_answers_of_the_old_model_may_be_given(self, current: Formula, worse: Formula) -> None:
        given = pair(current, worse, old_answers=current.probabilities(TABLE))
        np.testing.assert_array_equal(given.old, pair(current, worse).old)

    def test_a_model_of_other_customers_may_have_seen_them(self, current: Formula) -> None:
        assert pair(current, train(C=0.1)).unseen
        assert not pair(train(TABLE.head(1_200)), current).unseen

    def test_a_table_in_another_order_is_noticed(self, current: Formula) -> None:
        with pytest.raises(ValueError, match="its rows are in another order"):
            pair(current, current, TABLE.sort_values("tenure"))

    def test_segments_of_fewer_than_30_customers_are_left_out(self, current: Formula, worse: Formula) -> None:
        paired = pair(current, worse)
        rare = paired.X.assign(tech_support=np.where(np.arange(len(paired.y)) < 29, "rare", "usual"))
        cut = Paired(rare, paired.y, paired.old, paired.new, 0.3, 0.3, True)
        assert segment_differences(cut, ["tech_support"], ECONOMICS)["segment"].tolist() == ["usual"]

    def test_intervals_of_many_segments_are_wider(self, current: Formula, worse: Formula) -> None:
        paired = pair(current, worse)
        one, many = (segment_differences(paired, names, ECONOMICS).query("column == 'contract_type'") for names in
                     (["contract_type"], ["contract_type", "payment_method"]))  # fmt: skip
        assert (many["high"] - many["low"]).sum() > (one["high"] - one["low"]).sum()


class TestDrift:
    def moved(self, current: Formula, before: Histogram, after: Histogram) -> pd.DataFrame:
        return column_drift(
            current.updated(histograms={"tenure": before}), current.updated(histograms={"tenure": after})
        )

    @given(st.lists(st.integers(1, 50), min_size=2, max_size=8))
    @examples(max_examples=25, deadline=None)
    def test_equal_histograms_have_an_index_of_0(self, counts: list[int]) -> None:
        shares = tuple(count / sum(counts) for count in counts)
        histogram = Histogram(shares, edges=tuple(float(i) for i in range(len(counts) - 1)))
        table = self.moved(_CURRENT, histogram, histogram)
        assert table["psi"].tolist() == pytest.approx([0], abs=1e-9)

    def test_a_moved_column_is_named(self, current: Formula) -> None:
        table = self.moved(current, Histogram((0.5, 0.5), edges=(12.0,)), Histogram((0.9, 0.1), edges=(12.0,)))
        assert table.loc["tenure", "moved"]

    def test_gaps_that_come_count_as_drift(self, current: Formula) -> None:
        before, after = Histogram((0.5, 0.5), edges=(12.0,)), Histogram((0.3, 0.3), 0.4, edges=(12.0,))
        assert self.moved(current, before, after).loc["tenure", "moved"]

    def test_a_file_without_histograms_is_said_to_have_none(self, current: Formula) -> None:
        assert "file holds no histograms" in compare(current, current).moved


_CURRENT = train()


class TestWheel:
    def test_the_model_is_read_and_nothing_is_run(self, current: Formula, tmp_path: Path) -> None:
        released = read_wheel(write_wheel(tmp_path, current, "1.4.0"))
        assert (released.name, released.version) == ("acme-churn", "1.4.0")
        assert released.formula.digest == current.digest

    @pytest.mark.parametrize(
        ("make", "problem"),
        [
            (lambda f, m: write_wheel(f, m, "1.0.0", "a", "b"), "holds 2 models"),
            (lambda f, m: write_wheel(f, m, "1.0.0", "a/b"), "holds no model"),
            (lambda f, m: write_wheel(f, b"no model"), "the model in it is not a churn_mlops model file"),
            (lambda f, m: write_wheel(f, to_bytes(m)[:-9]), "the model in it is damaged"),
        ],
    )
    def test_a_wheel_that_is_not_ours_is_one_line(
        self, current: Formula, tmp_path: Path, make: Any, problem: str
    ) -> None:
        with pytest.raises(ModelFileError, match=problem) as caught:
            read_wheel(make(tmp_path, current))
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 cut off"])
    def test_what_is_no_zip_is_one_line(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "acme_churn-1.0.0-py3-none-any.whl"
        path.write_bytes(content)
        with pytest.raises(ModelFileError, match="is no wheel, or a damaged one"):
            read_wheel(path)

    def test_a_wheel_of_another_name_is_one_line(self, current: Formula, tmp_path: Path) -> None:
        path = write_wheel(tmp_path, current).rename(tmp_path / "old.whl")
        with pytest.raises(ModelFileError, match="is not named as a wheel is"):
            read_wheel(path)

    def test_the_newest_wheel_is_that_of_the_highest_version(self, current: Formula, tmp_path: Path) -> None:
        assert newest_wheel(tmp_path) is None
        for version in ("1.10.0", "1.9.0", "1.10.0rc1"):
            write_wheel(tmp_path, current, version)
        assert str(newest_wheel(tmp_path)).endswith("acme_churn-1.10.0-py3-none-any.whl")


@pytest.fixture
def project(current: Formula, worse: Formula, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Lay out a project that has released once."""
    monkeypatch.chdir(tmp_path)
    TABLE.to_csv("customers.csv", index=False)
    Path("settings.ini").write_text("[data]\npath = customers.csv\n[economics]\nincentive_cost = 20\n")
    Path("dist").mkdir()
    write_wheel(Path("dist"), current)
    for name, formula in {"same": current, "worse": worse, "better": train(C=0.5)}.items():
        formula.save(f"{name}.safetensors")
    return tmp_path


def run(*arguments: object) -> int:
    """Run the command and return its exit code."""
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    return int(left.value.code or 0)


class TestCommand:
    def test_a_worse_model_is_refused_with_the_money(self, project: Path, capsys: Any) -> None:
        assert run("worse.safetensors", "dist", "--json") == 3
        out, err = capsys.readouterr()
        answer = json.loads(out)
        lost = -answer["figures"]["profit"]["difference"]
        assert lost > 0
        assert f"refused: The candidate is worse beyond chance: it earns {lost:,.2f} less than the current model" in err
        assert f"it earns {lost:,.2f} less" in Path("promotion.md").read_text()

    def test_a_model_without_its_best_columns_is_refused(self, project: Path) -> None:
        train(without=("tenure", "contract_type", "internet_service", "total_charges", "tech_support")).save(
            "few.safetensors"
        )
        assert run("few.safetensors", "dist") == 3

    def test_an_equal_model_is_promoted_with_a_difference_of_0(
        self, project: Path, current: Formula, capsys: Any
    ) -> None:
        assert run("same.safetensors", "dist/acme_churn-1.0.0-py3-none-any.whl", "--json") == 0
        answer = json.loads(capsys.readouterr().out)
        assert {figure["difference"] for figure in answer["figures"].values()} == {0.0}
        assert answer["current"]["digest"] == current.digest

    def test_a_retrained_model_is_promoted(self, project: Path) -> None:
        assert run("better.safetensors", "same.safetensors") == 0

    @pytest.mark.parametrize("arguments", [(), ("empty",)])
    def test_the_first_model_is_promoted_as_such(self, project: Path, capsys: Any, arguments: Any) -> None:
        Path("empty").mkdir()
        assert run("worse.safetensors", *arguments) == 0
        assert "promoted as the first" in " ".join(capsys.readouterr().out.split())
        assert "promoted as the first" in Path("promotion.md").read_text()

    def test_the_decision_is_the_same_file_each_time(self, project: Path, current: Formula) -> None:
        pages = []
        for name in ("one.md", "two.md"):
            assert run("worse.safetensors", "dist", "--output", name) == 3
            pages.append(Path(name).read_bytes())
        assert pages[0] == pages[1]
        assert current.digest.encode() in pages[0]

    def test_answers_of_the_current_model_may_come_from_a_file(
        self, project: Path, current: Formula, capsys: Any
    ) -> None:
        pd.DataFrame({"churn_probability": current.probabilities(TABLE)}).to_csv("answers.csv")
        pages = []
        for more in ((), ("--current-answers", "answers.csv")):
            assert run("worse.safetensors", "dist", *more) == 3
            pages.append(Path("promotion.md").read_text())
        assert pages[0] == pages[1]

    def test_a_current_model_with_other_features_is_compared_by_its_record(
        self, project: Path, current: Formula
    ) -> None:
        own = OwnFeatures("gone.features:add_features", "sha256:" + "0" * 64, current.input_columns)
        current.updated(own=own).save("own.safetensors")
        assert run("better.safetensors", "own.safetensors") == 0
        assert "the money was not compared" in Path("promotion.md").read_text()

    def test_own_features_are_worked_out_for_both_models_and_a_changed_function_is_said(
        self, project: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        module = Path("acme_promoted.py")
        code = (
            "def add_features(table):\n    return table.assign(paid=table['total_charges'] / (table['tenure'] + {}))\n"
        )
        module.write_text(code.format(1))
        monkeypatch.syspath_prepend(project)
        monkeypatch.setenv("CHURN_FEATURES__FUNCTION", "acme_promoted:add_features")
        given = {"path": "customers.csv", "id_column": "customer_id"}
        run_of = load_settings(data=given, model={"type": "logistic_regression", "cv_folds": 0})
        formula = run_training(run_of).model.formula_
        known = {"data": {"target": "churn", "id_column": "customer_id"}, "split": run_of.split.model_dump()}
        formula = formula.updated(settings=known, data={"fingerprint": "a"})
        formula.save("own.safetensors")
        write_wheel(Path("dist"), formula, "1.1.0")
        assert run("own.safetensors", "dist") == 0
        assert "| profit | " in Path("promotion.md").read_text()
        own = replace(cast("OwnFeatures", formula.record.own), digest="sha256:" + "1" * 64)
        write_wheel(Path("dist"), formula.updated(own=own), "1.2.0")
        assert run("own.safetensors", "dist") == 0
        assert "acme_promoted:add_features has changed since" in Path("promotion.md").read_text()
        formula.updated(own=own).save("changed.safetensors")
        assert run("changed.safetensors", "dist") == 2

    @pytest.mark.parametrize(
        ("arguments", "problem"),
        [
            (("gone.safetensors", "dist"), "no model file gone.safetensors"),
            (("same.safetensors", "gone.whl"), "no wheel gone.whl"),
            (("same.safetensors", "settings.ini"), "settings.ini is not a churn_mlops model file"),
            (("customers.csv", "dist"), "customers.csv is not a churn_mlops model file"),
            (("same.safetensors", "dist", "--data", "gone.csv"), "gone.csv"),
            (("same.safetensors", "dist", "--data", "fewer.csv"), "the table has changed since"),
            (("same.safetensors", "dist", "--output", "customers.csv"), "take the place of the table"),
            (("same.safetensors", "dist", "--output", "same.safetensors"), "the place of a file that is read"),
            (("same.safetensors", "dist", "--output", "dist"), "cannot be written"),
            (("same.safetensors", "dist", "--current-answers", "customers.csv"), "has no column churn_probability"),
            (("same.safetensors", "dist", "--current-answers", "few.csv"), "2 answers were given for the 1,500"),
            (("same.safetensors", "two"), "holds wheels of several projects"),
            (("unknown.safetensors", "dist"), "does not say which customers it held out"),
        ],
    )
    def test_a_mistake_is_one_line_and_writes_nothing(
        self, project: Path, current: Formula, capsys: Any, arguments: Any, problem: str
    ) -> None:
        TABLE.head(1_400).to_csv("fewer.csv", index=False)
        pd.DataFrame({"churn_probability": [0.1, 0.2]}).to_csv("few.csv")
        current.updated(settings={}).save("unknown.safetensors")
        Path("two").mkdir()
        write_wheel(Path("two"), current)
        (Path("two") / "other-1.0-py3-none-any.whl").write_bytes(b"")
        before = {path: path.read_bytes() for path in project.rglob("*") if path.is_file()}
        assert run(*arguments) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1
        assert lines[0].startswith("churn-promote: error: ")
        assert problem in lines[0]
        assert before == {path: path.read_bytes() for path in project.rglob("*") if path.is_file()}
