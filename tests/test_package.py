"""A released package: what a service installs, what it answers, and what `churn-package` refuses."""

import contextlib
import hashlib
import io
import json
import math
import os
import subprocess
import sys
import tomllib
import venv
import zipfile
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from churn_mlops.data import generate_sample_data
from churn_mlops.data.fingerprint import fingerprint
from churn_mlops.features.columns import learn_column
from churn_mlops.formula import Formula, load
from churn_mlops.formula.encoding import Column
from churn_mlops.formula.formula import OwnFeatures
from churn_mlops.formula.golden import check_golden, golden_customers, golden_values, make_golden
from churn_mlops.formula.packaged import read_customers, source_digest
from churn_mlops.formula.predictor import Predictor
from churn_mlops.models import ChurnModel, ChurnPredictor
from churn_mlops.pipelines.dependencies import imported_packages, requirements_of
from churn_mlops.pipelines.package import check_data, main
from churn_mlops.settings import DataSettings

ROOT = Path(__file__).resolve().parent.parent
FEATURES = """
from acme_paid.helpers import per_month


def add_features(table):
    return table.assign(paid_per_month=per_month(table["total_charges"], table["tenure"]))
"""
HELPERS = """
import pandas as pd


def per_month(charges, tenure):
    return charges / tenure.clip(lower=1)
"""


@pytest.fixture(scope="module")
def customers() -> pd.DataFrame:
    """Give the raw columns of some customers, with gaps, booleans and dates among them, and the outcome."""
    table = generate_sample_data(600).drop(columns="customer_id")
    table["since"] = pd.Timestamp("2024-01-01") - pd.to_timedelta(table["tenure"] * 30, unit="D")
    table["paperless"] = table["tenure"] % 3 == 0
    table.loc[::7, "total_charges"] = np.nan
    return table


@pytest.fixture(scope="module")
def formula(customers: pd.DataFrame) -> Formula:
    """Fit the default model, which has curves and trees."""
    return ChurnModel("blend", max_iter=40).fit(customers.drop(columns="churn"), customers["churn"]).formula_


def make_project(folder: Path, formula: Formula, name: str = "acme-churn") -> Path:
    """Make a project folder by hand, as small as can be, with a saved model."""
    package = folder / name.replace("-", "_")
    package.mkdir(parents=True)
    (package / "__init__.py").write_text('"""Who leaves Acme."""\n\n__version__ = "0.0.1"\n')
    (package / "customers.py").write_text("import churn_mlops.data\n")
    (package / "_modidx.py").write_text("d = {}\n")
    (folder / "pyproject.toml").write_text(f'[project]\nname = "{name}"\ndescription = "Who \\"leaves\\" Acme"\n')
    (folder / "settings.ini").write_text("[output]\nmodel_path = models/churn-model.safetensors\n")
    formula.save(folder / "models" / "churn-model.safetensors")
    return folder


@pytest.fixture
def project(tmp_path: Path, formula: Formula) -> Path:
    """Give a project folder with a model."""
    return make_project(tmp_path / "acme", formula)


def churn_package(folder: Path, *arguments: str, **environment: str) -> tuple[int, str, str]:
    """Run the command in a folder; give the exit code and what it printed."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("CHURN_", "MODEL_PATH", "SOURCE"))
    }
    with (
        contextlib.chdir(folder),
        mock.patch.dict(os.environ, {**kept, **environment}, clear=True),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main([*arguments])
        except SystemExit as ended:
            code = ended.code
    return code, out.getvalue(), err.getvalue()


def release(folder: Path, version: str = "1.0.0") -> Path:
    """Release a version, and give the wheel."""
    code, _, err = churn_package(folder, version)
    assert code == 0, err
    return next((folder / "dist").glob(f"*-{version}-py3-none-any.whl"))


def contents(folder: Path) -> dict[str, bytes]:
    """Read every file below a folder."""
    made = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in made}


def unpack(wheel: Path, folder: Path) -> Path:
    """Unpack a wheel as an installation would."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def python(interpreter: Path | str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run Python in a folder, with nothing of this process in its way."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "CHURN", "MODEL"))}
    env["PYTHONDONTWRITEBYTECODE"] = "1"
    return subprocess.run([str(interpreter), *arguments], cwd=cwd, env=env, capture_output=True, text=True, check=False)


# --- golden customers ------------------------------------------------------------------------------

NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8)
NUMBERS = st.floats(-1e9, 1e9, allow_nan=False)
WORDS = NAMES.filter(str.strip)


@st.composite
def columns(draw: st.DrawFn) -> list[Column]:
    """Draw columns of every kind, with and without gaps, with one value or many."""
    n_rows = 12
    cells = {
        "numeric": NUMBERS,
        "boolean": st.booleans(),
        "categorical": WORDS,
        "date": st.datetimes(pd.Timestamp("1900-01-01"), pd.Timestamp("2200-01-01")),
    }
    learned = []
    for i, kind in enumerate(draw(st.lists(st.sampled_from(sorted(cells)), min_size=1, max_size=5))):
        values = draw(st.lists(cells[kind], min_size=n_rows, max_size=n_rows))
        gap = draw(st.booleans())
        if kind == "categorical":
            values = [f"word {value}" for value in values]
        raw = pd.Series([*values[:-1], None] if gap else values, name=f"{draw(NAMES)}{i}")
        learned.append(learn_column(raw))
    return learned


@settings(max_examples=60, deadline=None)
@given(columns())
def test_every_golden_customer_is_accepted_and_every_value_occurs(learned):
    formula = Formula(tuple(learned), intercept=0.25)
    golden = make_golden(Predictor(formula, engine="numpy"))
    assert json.loads(json.dumps(golden)) == golden
    for column in learned:
        values = [customer[column.name] for customer in golden["customers"]]
        assert set(values) >= {*column.categories, None}
        assert column.kind != "categorical" or set(values) - {*column.categories, None}
    assert check_golden(Predictor(formula, engine="numpy"), golden).is_identical


def test_golden_customers_are_the_same_in_every_version_of_numpy_and_python():
    known = (
        Column("tenure", "numeric", 9, 12.0, (0.0,), mean=12, scale=5, median=12, minimum=1, maximum=72),
        Column("contract", "categorical", 2, "Monthly", (0.5, 0.5), categories=("Monthly", "Yearly")),
        Column("since", "date", 9, "2024-01-01", (0.0, 0.5), median=19_700, minimum=19_000.5, maximum=20_000),
    )
    text = json.dumps(golden_customers(known))
    assert (
        hashlib.sha256(text.encode()).hexdigest() == "49de1083f842df3d2eb35993dc4321470c184be684b2958de62d21eb59016a2a"
    )


def test_golden_values_go_to_the_ends_of_the_range_and_a_little_beyond():
    column = Column("tenure", "numeric", 9, 12.0, (0.0,), median=12, minimum=0, maximum=100)
    numbers = [value for value in golden_values(column) if value is not None]
    assert (min(numbers), max(numbers)) == (-5, 105)
    assert {0, 12, 100} < set(numbers)


def test_golden_dates_stay_within_the_calendar():
    column = Column("since", "date", 2, "9999-12-31", (0.0, 0.5), minimum=-1e9, maximum=1e9)
    assert {value for value in golden_values(column) if value} >= {"0001-01-01", "9999-12-31"}


def test_there_are_more_golden_customers_where_a_column_has_many_categories():
    names = tuple(f"town {i:03}" for i in range(200))
    column = Column("town", "categorical", 200, names[0], (0.005,) * 200, categories=names)
    assert {customer["town"] for customer in golden_customers([column])} >= set(names)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"customers": []}, "there must be customers"),
        ({"probabilities": [0.5]}, "a probability for each"),
        ({"probabilities": ["0.5"] * 64}, "a probability is no number"),
        ({"customers": [1] * 64}, "damaged"),
        ({"digest": "sha256:0"}, "are of the model sha256:0"),
    ],
)
def test_damaged_golden_customers_are_refused(formula, change, problem):
    predictor = Predictor(formula, engine="numpy")
    golden = make_golden(predictor)
    with pytest.raises(ValueError, match=problem):
        check_golden(predictor, {**golden, **change})


def test_a_golden_probability_that_is_no_number_is_a_difference(formula):
    predictor = Predictor(formula, engine="numpy")
    golden = make_golden(predictor)
    golden["probabilities"][5] = math.nan
    result = check_golden(predictor, golden)
    assert result.different == (5,)
    assert result.largest_difference == math.inf


def test_a_golden_customer_that_the_own_function_refuses_is_left_out(formula):
    own = OwnFeatures("acme_churn.features:add", "sha256:0", formula.input_columns)

    def features(columns):
        if any(value is None for values in columns.values() for value in np.asarray(values).tolist()):
            raise ValueError("no gaps, please")
        return columns

    predictor = Predictor(formula.updated(own=own), features=features)
    golden = make_golden(predictor)
    assert 0 < len(golden["customers"]) < 64
    assert check_golden(predictor, golden).is_equal


# --- the command of a package ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory, formula: Formula) -> Path:
    """Release a package, and unpack its wheel; no test changes it."""
    folder = tmp_path_factory.mktemp("released")
    return unpack(release(make_project(folder / "acme", formula)), folder / "site")


def acme(unpacked: Path, *arguments: str, stdin: str = "") -> tuple[int, str, str]:
    """Run the command of the unpacked package."""
    command = [sys.executable, "-m", "acme_churn", *arguments]
    done = subprocess.run(command, cwd=unpacked, input=stdin, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def test_json_lines_on_standard_input_give_a_line_each(unpacked, formula):
    lines = "\n".join(json.dumps(formula.example | {"tenure": months}) for months in (3, 60))
    code, out, _ = acme(unpacked, "predict", stdin=lines)
    assert code == 0
    answers = [json.loads(line)["churn_probability"] for line in out.splitlines()]
    assert answers == pytest.approx([formula.probability(formula.example | {"tenure": m}) for m in (3, 60)], abs=1e-12)


def test_a_list_gives_a_list(unpacked, formula):
    code, out, _ = acme(unpacked, "predict", json.dumps([formula.example] * 2))
    assert (code, len(json.loads(out))) == (0, 2)


def test_a_csv_file_gives_a_line_for_each_row(unpacked, formula, tmp_path):
    pd.DataFrame([formula.example] * 3).to_csv(tmp_path / "customers.csv", index=False)
    code, out, _ = acme(unpacked, "predict", "--csv", str(tmp_path / "customers.csv"))
    assert (code, len(out.splitlines())) == (0, 3)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["predict", "{"], "no JSON"),
        (["predict", "3"], "a customer is a mapping"),
        (["predict", "{}"], "column 'tenure' is missing"),
        (["predict"], "there are no customers"),
        (["predict", "--csv", "nowhere.csv"], "nowhere.csv"),
        (["predict", "--cvs"], "unrecognized arguments: --cvs"),
        ([], "required"),
    ],
)
def test_a_mistake_on_the_command_line_of_a_package_is_named_with_exit_code_2(unpacked, arguments, problem):
    code, out, err = acme(unpacked, *arguments)
    assert (code, out) == (2, "")
    assert problem in err
    assert "Traceback" not in err


def test_a_row_with_too_few_cells_is_named(unpacked, tmp_path):
    (tmp_path / "customers.csv").write_text("tenure,contract_type\n3,One year\n4\n")
    code, _, err = acme(unpacked, "predict", "--csv", str(tmp_path / "customers.csv"))
    assert code == 2
    assert "line 3: not as many cells as the header has" in err


def test_customers_that_are_nested_too_deep_are_no_json():
    with pytest.raises(ValueError, match="no JSON"):
        read_customers("[" * 100_000)


def test_the_version_of_a_package_is_the_released_one(unpacked):
    assert acme(unpacked, "--version")[1] == "acme-churn 1.0.0\n"


def test_the_server_of_a_package_is_given_its_model_and_its_function(unpacked):
    code = """
import os, sys, types
from pathlib import Path
import acme_churn
from acme_churn._formula.packaged import PackagedModel, main
import churn_mlops.serving.command as command
command.main = lambda argv: print(*argv, os.environ["CHURN_FEATURES__FUNCTION"])
main(PackagedModel(Path("acme_churn"), "acme-churn", "1.0.0", "acme_churn.features:add"), ["serve", "--port", "9000"])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=unpacked, capture_output=True, text=True, check=False)
    model = Path("acme_churn") / "_model" / "model.safetensors"
    assert done.stdout.split() == [str(model), "--port", "9000", "acme_churn.features:add"], done.stderr


@pytest.mark.parametrize("name", ["golden.json", "model.safetensors"])
def test_a_changed_file_of_a_package_is_noticed_by_its_check(unpacked, tmp_path, name):
    for path, data in contents(unpacked).items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(data)
    file = tmp_path / "acme_churn" / "_model" / name
    if name == "golden.json":
        golden = json.loads(file.read_text())
        golden["probabilities"][0] += 1e-6
        file.write_text(json.dumps(golden))
    else:
        formula = load(file)
        replace(formula, intercept=formula.intercept + 1e-6).save(file)
    code, out, err = acme(tmp_path, "check")
    assert (code, err) == (1, "")
    assert "different" in out


# --- what is in the archives -----------------------------------------------------------------------


def test_the_wheel_holds_model_answers_and_exported_modules_and_nothing_of_the_notebooks(unpacked):
    names = set(contents(unpacked))
    assert {
        "acme_churn/__init__.py", "acme_churn/__main__.py", "acme_churn/customers.py", "acme_churn/py.typed",
        "acme_churn/_formula/predictor.py", "acme_churn/_formula/LICENSE", "acme_churn/_model/model.safetensors",
        "acme_churn/_model/golden.json", "acme_churn/_model/card.md", "acme_churn/_model/card.html",
    } <= names  # fmt: skip
    assert "acme_churn/_modidx.py" not in names


def test_no_golden_customer_in_a_wheel_is_a_row_of_the_table(unpacked, customers):
    numbers = ["tenure", "monthly_charges", "total_charges"]
    golden = json.loads((unpacked / "acme_churn" / "_model" / "golden.json").read_text())["customers"]
    rows = set(customers[numbers].dropna().itertuples(index=False, name=None))
    assert rows.isdisjoint(tuple(customer[name] for name in numbers) for customer in golden)


def test_the_model_in_the_wheel_is_the_one_that_was_saved(unpacked, formula):
    assert load(unpacked / "acme_churn" / "_model" / "model.safetensors").digest == formula.digest


def test_the_wheel_fits_every_python_and_system(unpacked):
    told = (unpacked / "acme_churn-1.0.0.dist-info" / "WHEEL").read_text()
    assert "Tag: py3-none-any" in told
    assert "Root-Is-Purelib: true" in told


def test_the_extra_serve_brings_the_server(unpacked):
    told = (unpacked / "acme_churn-1.0.0.dist-info" / "METADATA").read_text()
    needed = [line for line in told.splitlines() if line.startswith("Requires-Dist:") and "extra" in line]
    assert [line.split(";")[0].strip() for line in needed] == ["Requires-Dist: churn_mlops[api]>=0.1.0"]


def test_same_model_and_code_give_the_same_bytes_in_another_folder(tmp_path, formula):
    made = []
    for name in ("one", "another"):
        folder = make_project(tmp_path / name / "deep", formula)
        release(folder)
        made.append(contents(folder / "dist"))
    assert made[0] == made[1]
    assert len(made[0]) == 2


def test_source_date_epoch_is_the_time_in_the_wheel(project):
    assert churn_package(project, "1.0.0", SOURCE_DATE_EPOCH="1700000000")[0] == 0
    with zipfile.ZipFile(next((project / "dist").glob("*.whl"))) as archive:
        assert {info.date_time for info in archive.infolist()} == {(2023, 11, 14, 22, 13, 20)}


def test_the_new_version_is_written_into_the_project(project):
    release(project, "1.2.0")
    assert '__version__ = "1.2.0"\n' in (project / "acme_churn" / "__init__.py").read_text()


@pytest.mark.slow
def test_a_consumer_of_the_package_is_typed(unpacked, tmp_path):
    code = """
from acme_churn import __version__, card, explain, predict, predict_batch

answer: float = predict({"tenure": 3})["churn_probability"]
both: list[float] = [each["confidence"] for each in predict_batch([{"tenure": 3}])]
reasons: list[str] = explain({"tenure": 3}, top=2)
text: str = card(html=True) + __version__
wrong: int = card()
"""
    (tmp_path / "service.py").write_text(code)
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--cache-dir", str(tmp_path / "cache")]
    env = {**os.environ, "MYPYPATH": str(unpacked)}
    done = subprocess.run([*command, "service.py"], cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert [line for line in done.stdout.splitlines() if line.startswith("service.py")] == [
        'service.py:8: error: Incompatible types in assignment (expression has type "str", variable has type "int")'
        "  [assignment]"
    ], done.stdout


# --- what is refused -------------------------------------------------------------------------------


def edit(file: str, text: str):
    def change(project: Path) -> None:
        (project / file).parent.mkdir(exist_ok=True)
        (project / file).write_text(text)

    return change


@pytest.mark.parametrize(
    ("arguments", "change", "problem"),
    [
        (["one"], None, "'one' is no version"),
        (["0.9.0"], edit("CHANGELOG.md", "# Changelog\n\n## [0.9.0] - 2026-01-01\n"), "not above 0.9.0"),
        (["0.9"], edit("dist/acme_churn-1.0-py3-none-any.whl", ""), "not above 1.0"),
        (["1.0", "--model", "nowhere.safetensors"], None, "nowhere.safetensors"),
        (["1.0"], edit("models/churn-model.safetensors", "no model"), "is not a churn_mlops model file"),
        (["1.0"], lambda project: (project / "pyproject.toml").unlink(), "holds no pyproject.toml"),
        (["1.0"], edit("pyproject.toml", "[project"), "pyproject.toml"),
        (["1.0"], edit("pyproject.toml", '[project]\nname = "-acme"\n'), "needs a name"),
        (["1.0"], edit("pyproject.toml", '[project]\nname = "other"\n'), "is no package"),
        (["1.0"], edit("acme_churn/predict.py", ""), "needs this name for itself"),
        (["1.0"], edit("acme_churn/__init__.py", '"""No version."""\n'), "names no version"),
        (["1.0"], edit("pyproject.toml", '[project]\nname = "acme-churn"\nreadme = "nowhere.md"\n'), "nowhere.md"),
        (
            ["1.0"],
            edit("pyproject.toml", '[project]\nname = "acme-churn"\nrequires-python = "three"\n'),
            "requires-python",
        ),
    ],
)
def test_what_cannot_be_released_is_one_line_and_leaves_everything_as_it_was(project, arguments, change, problem):
    if change is not None:
        change(project)
    before = contents(project)
    code, out, err = churn_package(project, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("churn-package: error: ")
    assert len(err.splitlines()) == 1
    assert problem in err
    assert contents(project) == before


def test_a_released_version_is_written_again_only_when_asked(project):
    release(project)
    assert churn_package(project, "1.0.0")[0] == 2
    assert churn_package(project, "1.0.0", "--overwrite")[0] == 0


def test_a_heading_that_says_unreleased_is_no_version(project):
    (project / "CHANGELOG.md").write_text("# Changelog\n\n## 1.0.0 (unreleased)\n")
    assert release(project).is_file()


def test_a_missing_extra_is_one_line_with_what_to_install(project):
    with mock.patch("churn_mlops.utils.importlib.util.find_spec", return_value=None):
        code, _, err = churn_package(project, "1.0.0")
    assert code == 2
    assert 'pip install "churn_mlops[package]"' in err


def test_customers_that_changed_since_the_training_are_refused(formula):
    known = formula.updated(data={"fingerprint": "sha256:" + "0" * 64})
    with pytest.raises(ValueError, match="have changed since the model was trained; train again"):
        check_data(known, DataSettings())


def test_customers_that_are_the_same_are_taken(formula):
    known = formula.updated(data={"fingerprint": fingerprint(generate_sample_data(5_000))})
    assert check_data(known, DataSettings(sample_size=5_000)) == []


# --- what the code of own features needs -----------------------------------------------------------


def test_imports_are_followed_through_modules_and_folders_of_the_package(tmp_path):
    package = tmp_path / "acme_churn"
    for name, text in {
        "__init__": "import matplotlib",
        "features": "from .parts.months import per_month\nimport acme_churn.words",
        "words": "import yaml",
        "parts/__init__": "from . import days",
        "parts/days": "import scipy.stats",
        "parts/months": "def f():\n    from ..words import w\n    import sklearn",
        "unused": "import torch",
    }.items():
        (package / f"{name}.py").parent.mkdir(parents=True, exist_ok=True)
        (package / f"{name}.py").write_text(text)
    assert imported_packages(package, "acme_churn.features") == ["scipy", "sklearn", "yaml"]


def test_code_that_is_no_python_is_named_with_its_line(tmp_path):
    (tmp_path / "acme_churn").mkdir()
    (tmp_path / "acme_churn" / "features.py").write_text("x = 1\nimport\n")
    with pytest.raises(ValueError, match="line 2"):
        imported_packages(tmp_path / "acme_churn", "acme_churn.features")


def test_a_dependency_that_is_no_requirement_is_named():
    with pytest.raises(ValueError, match=r"dependencies in pyproject\.toml"):
        requirements_of(["numpy"], ["numpy ?? 2"])


# --- installed -------------------------------------------------------------------------------------


def install(home: Path, constraints: Path, *wheels: Path) -> Path:
    """Install wheels into a new environment; give its Python."""
    venv.create(home, with_pip=False)  # the pip of this environment installs into it
    interpreter = home / ("Scripts" if os.name == "nt" else "bin") / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(interpreter), "install", "--quiet", "--no-compile"]
    command = [*pip, "--disable-pip-version-check", "-c", str(constraints), *map(str, wheels)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return interpreter


def installed(interpreter: Path, cwd: Path) -> set[str]:
    """Name the distributions of an environment."""
    code = "from importlib.metadata import distributions as d; print(*[each.name.lower() for each in d()])"
    return set(python(interpreter, "-c", code, cwd=cwd).stdout.split())


@pytest.fixture(scope="module")
def two_wheels(tmp_path_factory: pytest.TempPathFactory, formula: Formula, customers: pd.DataFrame) -> list[Path]:
    """Release two packages with different models."""
    folder = tmp_path_factory.mktemp("two")
    other = ChurnModel("random_forest", n_estimators=20).fit(customers.drop(columns="churn"), customers["churn"])
    first = release(make_project(folder / "one", formula))
    return [first, release(make_project(folder / "two", other.formula_, "beta-churn"), "2.0.0")]


@pytest.mark.slow
@pytest.mark.parametrize("releases", ["oldest", "newest"])
def test_two_models_live_side_by_side_with_numpy_and_safetensors_alone(
    releases, two_wheels, oldest_releases, customers, tmp_path
):
    constraints = oldest_releases if releases == "oldest" else ROOT / "constraints.txt"
    interpreter = install(tmp_path / "venv", constraints, *two_wheels)
    assert installed(interpreter, tmp_path) - {"pip"} == {"acme-churn", "beta-churn", "numpy", "safetensors"}
    rows = json.loads(customers.drop(columns="churn").head(70).to_json(orient="records", date_format="iso"))
    code = """
import json, sys, importlib.util
import acme_churn, beta_churn
assert importlib.util.find_spec("churn_mlops") is None
rows = json.load(sys.stdin)
print(json.dumps([[one.predict_batch(rows), [one.predict(row) for row in rows]] for one in (acme_churn, beta_churn)]))
"""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [interpreter, "-c", code], input=json.dumps(rows), cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    for wheel, answers in zip(two_wheels, json.loads(done.stdout), strict=True):
        model = wheel.parent.parent / "models" / "churn-model.safetensors"
        predictor = ChurnPredictor(model, engine="numpy")
        expected = [predictor.predict_batch(rows), [predictor.predict(row) for row in rows]]
        if releases == "newest":  # to the last bit: the same numpy
            assert answers == expected
        flat = [[each["churn_probability"] for each in part] for part in answers]
        want = [[each["churn_probability"] for each in part] for part in expected]
        np.testing.assert_allclose(flat, want, rtol=0, atol=1e-12)
    for command in ("acme-churn", "beta-churn"):
        done = subprocess.run(
            [interpreter.parent / command, "check"], cwd=tmp_path, env=env, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "equal: 64 golden customers" in done.stdout
    done = subprocess.run(
        [interpreter.parent / "acme-churn", "serve"], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr == 'acme-churn: error: a server needs more than is installed: pip install "acme-churn[serve]"\n'


@pytest.mark.slow
def test_a_wheel_with_own_features_answers_as_the_project_does(customers, tmp_path):
    X, y = customers.drop(columns=["churn", "since", "paperless"]).fillna({"total_charges": 0.0}), customers["churn"]
    folder = tmp_path / "project"
    package = folder / "acme_paid"
    package.mkdir(parents=True)
    (package / "features.py").write_text(FEATURES)
    (package / "helpers.py").write_text(HELPERS)
    (package / "__init__.py").write_text('__version__ = "0.0.1"\n')
    with mock.patch.object(sys, "path", [str(folder), *sys.path]):
        from acme_paid.features import add_features

    after = add_features(X)
    formula = ChurnModel("logistic_regression").fit(after, y).formula_
    raw = tuple(learn_column(X[name]) for name in X)
    own = OwnFeatures("acme_paid.features:add_features", source_digest(add_features), raw)
    formula = formula.updated(own=own)
    formula.save(folder / "models" / "churn-model.safetensors")
    (folder / "pyproject.toml").write_text('[project]\nname = "acme-paid"\ndependencies = ["pandas>=2.3,<9"]\n')
    from churn_mlops.pipelines.package import make_release
    from churn_mlops.pipelines.wheel import read_project

    named = mock.Mock(data=DataSettings(), features=mock.Mock(function=own.function))
    model = folder / "models" / "churn-model.safetensors"
    made = make_release(read_project(folder), "1.0.0", named, model, folder / "dist")
    assert made.requirements == ["numpy>=2.0", "safetensors>=0.4.5", "pandas>=2.3,<9"]
    wheel = tmp_path / "acme_paid-1.0.0-py3-none-any.whl"
    wheel.write_bytes(made.archives[wheel.name])
    interpreter = install(tmp_path / "venv", ROOT / "constraints.txt", wheel)
    assert "churn-mlops" not in {name.replace("_", "-") for name in installed(interpreter, tmp_path)}
    rows = X.head(5).to_dict("records")
    code = f"import acme_paid; print([acme_paid.predict(row)['churn_probability'] for row in {rows!r}])"
    done = python(interpreter, "-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    expected = formula.probabilities(after.head(5)).tolist()
    assert json.loads(done.stdout) == pytest.approx(expected, abs=1e-12)
    assert python(interpreter, "-m", "acme_paid", "check", cwd=tmp_path).returncode == 0
    features = next((tmp_path / "venv").rglob("acme_paid/features.py"))
    features.write_text(FEATURES.replace("paid_per_month=", "paid_per_month=2 * "))
    done = python(interpreter, "-m", "acme_paid", "check", cwd=tmp_path)
    assert done.returncode == 1
    assert "is not as it was when the model was trained" in done.stdout


def test_own_features_that_no_setting_names_are_refused(project, formula):
    own = OwnFeatures("acme_churn.features:add_features", "sha256:" + "0" * 64, formula.input_columns)
    formula.updated(own=own).save(project / "models" / "churn-model.safetensors")
    code, _, err = churn_package(project, "1.0.0")
    assert code == 2
    assert "name it as function in [features] of settings.ini" in err


def test_the_extra_package_brings_what_builds():
    told = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {"build", "flit_core"} <= {each.split(">")[0] for each in told["optional-dependencies"]["package"]}
