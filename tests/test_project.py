"""A project of one's own: what churn-new makes works at once, and holds no customer outside of data/."""

import ast
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
import tomllib
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from churn_mlops.data.sample import generate_sample_data
from churn_mlops.project.explore import part_cell, part_notebook, read_notebook
from churn_mlops.project.new import main, package_of, settings_text, template_files
from churn_mlops.settings import Settings, load_settings

ROOT = Path(__file__).resolve().parent.parent
BIN = sysconfig.get_path("scripts")
COMMAND = [sys.executable, "-m", "churn_mlops.project.new"]
EXPLORATION = [
    "import numpy as np\nimport pandas as pd",
    "%matplotlib inline",
    "table = pd.read_csv('customers.csv')\ntable.head()",
    "def add_features(table: pd.DataFrame) -> pd.DataFrame:\n"
    '    """Add the charge per month."""\n'
    "    return table.assign(per_month=table['TotalCharges'] / np.maximum(table['tenure'], 1))",
    "def late(table):\n    return table[table['tenure'] > 12]\n\nlate(table).head()",
]


def run(*command: str, cwd: Path) -> str:
    """Run a command in a folder; fail with what it printed."""
    path = f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}".rstrip(os.pathsep)
    environment = {**os.environ, "PYTHONPATH": path}
    environment.pop("IN_TEST", None)
    done = subprocess.run(
        command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == 0, f"{' '.join(command)} exited with {done.returncode}\n{done.stdout}"
    return done.stdout


def write_exploration(path: Path, sources: list[str]) -> Path:
    """Write a notebook that shows a customer."""
    shown = [new_output("stream", text="7590-VHVEG Female")]
    cells = [new_markdown_cell("# My exploration"), *(new_code_cell(each, outputs=shown) for each in sources)]
    nbformat.write(new_notebook(cells=cells), path)
    return path


@pytest.fixture(scope="module")
def from_sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a project of sample data."""
    folder = tmp_path_factory.mktemp("sample")
    printed = run(*COMMAND, "our-churn", cwd=folder)
    assert printed.endswith("Next:\n  cd our-churn\n  make test\n  make lab\n")
    return folder / "our-churn"


@pytest.fixture(scope="module")
def from_telco(telco: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Make a project of the Telco customers, with an exploration; give what was printed too."""
    folder = tmp_path_factory.mktemp("telco")
    notebook = write_exploration(folder / "explore.ipynb", EXPLORATION)
    before = notebook.read_bytes()
    asked = ["--data", str(telco), "--target", "Churn", "--id-column", "customerID", "--notebook", "explore.ipynb"]
    printed = run(*COMMAND, "acme-churn", *asked, cwd=folder)
    assert notebook.read_bytes() == before, "the exploration was changed"
    assert sorted(path.name for path in folder.iterdir()) == ["acme-churn", "explore.ipynb"]
    return folder / "acme-churn", printed


def texts(project: Path) -> dict[str, str]:
    """Read every file of a project outside of data/, as text."""
    files = [
        path for path in project.rglob("*") if path.is_file() and "data" not in path.relative_to(project).parts[:1]
    ]
    return {path.relative_to(project).as_posix(): path.read_bytes().decode("latin-1") for path in files}


# --- what is made ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_tests_of_a_new_project_are_green(from_telco: tuple[Path, str]) -> None:
    printed = run("make", "test", f"BIN={BIN}", "ARGS=-p no:cacheprovider", cwd=from_telco[0])
    assert " passed" in printed
    assert "skipped" not in printed


@pytest.mark.slow
def test_no_id_of_a_customer_stands_outside_of_data(from_telco: tuple[Path, str], telco: Path) -> None:
    ids = set(pd.read_csv(telco)["customerID"])
    found = {name: ids & set(re.findall(r"\d{4}-[A-Z]{5}", text)) for name, text in texts(from_telco[0]).items()}
    assert {name: some for name, some in found.items() if some} == {}
    assert (from_telco[0] / "data" / telco.name).read_bytes() == telco.read_bytes()


@pytest.mark.slow
def test_git_keeps_neither_table_nor_model(from_telco: tuple[Path, str], tmp_path: Path) -> None:
    project = shutil.copytree(from_telco[0], tmp_path / "acme-churn", symlinks=True)
    run("git", "init", "--quiet", cwd=project)
    kept = run("git", "ls-files", "--others", "--exclude-standard", cwd=project).split()
    assert {".github/workflows/test.yml", "nbs/customers.ipynb", "acme_churn/explore.py", "settings.ini"} <= set(kept)
    assert [name for name in kept if name.startswith(("data/", "models/", "_docs/"))] == []


@pytest.mark.slow
def test_each_chapter_was_run_and_shows_figures_of_the_table(from_telco: tuple[Path, str]) -> None:
    for name, figure in {
        "customers": "7,043 customers",
        "model": "roc_auc",
        "use": '"tenure"',
        "features": "20 out",
    }.items():
        notebook = read_notebook(from_telco[0] / "nbs" / f"{name}.ipynb")
        shown = json.dumps([cell.get("outputs") for cell in notebook["cells"]])
        assert figure in shown.replace('\\"', '"'), name
        assert '"error"' not in shown


@pytest.mark.slow
def test_the_settings_name_the_copy_of_the_table(from_telco: tuple[Path, str]) -> None:
    data = load_settings(from_telco[0] / "settings.ini").data
    assert (data.path, data.target, data.id_column) == (from_telco[0] / "data" / "telco.csv", "Churn", "customerID")


@pytest.mark.slow
def test_an_exploration_with_add_features_is_named_by_the_chapter_on_features(from_telco: tuple[Path, str]) -> None:
    project = from_telco[0]
    module = (project / "acme_churn" / "explore.py").read_text(encoding="utf-8")
    assert "def add_features" in module
    assert "def late" not in module
    assert not (project / "acme_churn" / "features.py").exists()
    assert "from acme_churn.explore import add_features" in (project / "nbs" / "features.ipynb").read_text("utf-8")
    assert load_settings(project / "settings.ini").features.function == "acme_churn.explore:add_features"


@pytest.mark.slow
def test_a_cell_that_mixes_is_named_with_the_lines_to_cut_at(from_telco: tuple[Path, str]) -> None:
    assert "cell 6 ('def late(table):') mixes late with work (line 4): put lines 1 to 2 into" in from_telco[1]
    assert "cell 3 ('%matplotlib inline') holds a magic" in from_telco[1]
    assert "outputs of the exploration were not taken along" in from_telco[1]


@pytest.mark.slow
def test_a_changed_cell_is_in_the_module_after_an_export(from_sample: Path, tmp_path: Path) -> None:
    project = shutil.copytree(from_sample, tmp_path / "our-churn", symlinks=True)
    notebook = project / "nbs" / "features.ipynb"
    changed = notebook.read_text(encoding="utf-8").replace('return table\\n"', 'return table.assign(one=1)\\n"')
    changed = changed.replace('    return table"', '    return table.assign(one=1)"')
    notebook.write_text(changed, encoding="utf-8")
    run(str(Path(BIN, "nbdev-export")), cwd=project)
    assert "table.assign(one=1)" in (project / "our_churn" / "features.py").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_release_shows_the_figures_of_its_own_model(from_sample: Path, tmp_path: Path) -> None:
    project = shutil.copytree(from_sample, tmp_path / "our-churn", symlinks=True)
    settings = project / "settings.ini"
    text = settings.read_text(encoding="utf-8").replace("\ntype = blend\n", "\ntype = logistic_regression\n")
    settings.write_text(text.replace("\ncv_folds = 5\n", "\ncv_folds = 0\n"), encoding="utf-8")
    chapter = project / "nbs" / "model.ipynb"
    assert "logistic_regression, " not in chapter.read_text(encoding="utf-8")
    asked = [f"BIN={BIN}", f"PYTHONPATH={ROOT}"]  # a path on the command line takes nothing from the project
    printed = run("make", "release", "VERSION=1.0.0", *asked, cwd=project)
    assert " passed" in printed
    assert "logistic_regression, " in chapter.read_text(encoding="utf-8")
    assert (project / "dist" / "our_churn-1.0.0-py3-none-any.whl").is_file()


@pytest.mark.slow
def test_a_project_of_sample_data_has_no_table(from_sample: Path) -> None:
    assert load_settings(from_sample / "settings.ini").data.path is None
    assert list((from_sample / "data").iterdir()) == []
    assert not any("acme" in text for text in texts(from_sample).values())
    assert not any(from_sample.parent.name in text for text in texts(from_sample).values()), "a path of this machine"


@pytest.mark.slow
def test_the_targets_of_a_new_project_are_listed_and_a_release_wants_a_version(from_sample: Path) -> None:
    listed = re.findall(r"^  make (\S+)", run("make", cwd=from_sample), re.MULTILINE)
    assert {"train", "test", "lab", "docs", "build", "release", "fresh", "serve", "help"} <= set(listed)
    done = subprocess.run(["make", "release", f"BIN={BIN}"], cwd=from_sample, capture_output=True, text=True)
    assert done.returncode == 2
    assert "name the version" in done.stderr


@pytest.mark.proof
@pytest.mark.parametrize("kind", ["text only", "numbers with an id, a leak and twins"])
def test_a_table_of_any_kind_becomes_a_project(kind: str, tmp_path: Path) -> None:
    table = generate_sample_data(300).drop(columns="customer_id")
    numbers = table.select_dtypes("number")
    if kind == "text only":
        table = table.drop(columns=numbers.columns).assign(churn=table["churn"].map({1: "gone", 0: "here"}))
    else:
        table = pd.concat([numbers, numbers.tail(20)]).assign(
            left=lambda all_: all_["churn"] * 3 + 1, number=range(320)
        )
    table.to_csv(tmp_path / "customers.csv", index=False)
    positive = ["--positive", "gone"] if kind == "text only" else []
    run(*COMMAND, "our-churn", "--data", "customers.csv", *positive, cwd=tmp_path)
    shown = (tmp_path / "our-churn" / "nbs" / "customers.ipynb").read_text(encoding="utf-8")
    assert ("column 'number'" in shown) == (kind != "text only")


# --- the template ----------------------------------------------------------------------------------------------------


def test_the_notebooks_of_the_template_can_be_opened_and_show_nothing() -> None:
    template = ROOT / "churn_mlops" / "project" / "template"
    notebooks = sorted(template.rglob("*.ipynb"))
    assert len(notebooks) == 5
    for path in notebooks:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
        assert not any(cell.get("outputs") for cell in notebook.cells), path.name


def test_the_template_is_part_of_the_wheel() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["churn_mlops.project"]
    folder = ROOT / "churn_mlops" / "project"
    packed = {path for pattern in patterns for path in folder.glob(pattern)}
    assert {path for path in (folder / "template").rglob("*") if path.is_file()} <= packed


def test_the_template_is_valid_under_another_name() -> None:
    made = template_files("Our.Churn")
    project = tomllib.loads(made["pyproject.toml"])
    assert project["project"]["name"] == "Our.Churn"
    assert project["tool"]["flit"]["module"]["name"] == project["tool"]["nbdev"]["lib_path"] == "our_churn"
    for name in (name for name in made if name.endswith(".py")):
        ast.parse(made[name])


def test_the_extras_that_a_project_asks_for_are_there_or_to_come() -> None:
    asked = tomllib.loads(template_files("acme-churn")["pyproject.toml"])["project"]["optional-dependencies"]["dev"][0]
    assert set(re.findall(r"\w+", asked.partition("[")[2])) == {"api", "lab", "package", "report"}


def test_the_settings_hold_every_key_and_what_was_given(tmp_path: Path) -> None:
    given = {"data": {"target": "left?", "positive": "ja; nein", "path": "data/a#b.csv"}}
    (tmp_path / "settings.ini").write_text(settings_text(given), encoding="utf-8")
    loaded = load_settings(tmp_path / "settings.ini")
    assert (loaded.data.target, loaded.data.positive) == ("left?", "ja; nein")
    assert loaded.data.path == tmp_path / "data" / "a#b.csv"
    assert loaded.economics == Settings().economics
    assert loaded.model == Settings().model


def test_a_column_that_settings_cannot_name_is_refused() -> None:
    with pytest.raises(ValueError, match=r"cannot stand in settings\.ini as target"):
        settings_text({"data": {"target": "two\nlines"}})


# --- an exploration --------------------------------------------------------------------------------------------------

DEFINES = [
    "import math",
    "from pathlib import Path",
    "LIMIT = 12",
    "NAMES: list[str] = ['a', 'b']",
    "LOW, HIGH = -1, 1",
    "def double(x):\n    print(x)\n    return 2 * x",
    "async def wait():\n    return 1",
    "class Customer:\n    tenure: int = 0",
    "@property\ndef decorated(self):\n    return 1",
]
WORKS = [
    "print('x')",
    "total = double(2)",
    "table['x'] = 1",
    "for i in range(3):\n    pass",
    "if True:\n    import os",
    "x += 1",
    "point.x = 1",
    "assert True",
    "limit: int",
    "'a text'",
    "await wait()",
]


@given(st.lists(st.sampled_from([*DEFINES, *WORKS]), max_size=6))
def test_a_cell_is_marked_exactly_if_all_its_statements_define(statements: list[str]) -> None:
    parts = part_cell("\n".join(statements))
    assert parts.defines == (bool(statements) and all(each in DEFINES for each in statements))
    mixed = any(each in DEFINES for each in statements) and any(each in WORKS for each in statements)
    assert bool(parts.problem) == mixed


@given(st.lists(st.sampled_from([*DEFINES, *WORKS]), max_size=6))
def test_a_marked_notebook_has_all_cells_in_their_order(sources: list[str]) -> None:
    notebook = {"cells": [{"cell_type": "code", "source": each} for each in sources]}
    taken = part_notebook(notebook).notebook["cells"][-len(sources) :] if sources else []
    assert ["".join(cell["source"]).removeprefix("#| export\n") for cell in taken] == sources
    assert [cell["source"][0].startswith("#| export") for cell in taken] == [each in DEFINES for each in sources]


@pytest.mark.parametrize("source", ["%time f()", "!ls", "%%bash\nls", "table?", "def f(:", "return 1", "a\0b"])
def test_what_has_no_syntax_tree_is_left_alone_and_named(source: str) -> None:
    parts = part_cell(source)
    assert not parts.defines
    assert parts.problem


def test_a_name_that_only_a_cell_of_work_makes_is_named() -> None:
    sources = ["limit = compute()", "def late(table):\n    return table[table['tenure'] > limit]"]
    found = part_notebook({"cells": [{"cell_type": "code", "source": each} for each in sources]})
    assert any("use limit, which no exported cell makes" in note for note in found.notes)


def test_a_notebook_that_exports_already_keeps_its_marks_and_gets_the_module_explore() -> None:
    sources = ["#| default_exp core", "#| export\nimport math"]
    found = part_notebook({"cells": [{"cell_type": "code", "source": each} for each in sources]})
    text = "\n".join("".join(cell["source"]) for cell in found.notebook["cells"])
    assert re.findall(r"default_exp (\w+)", text) == ["explore"]
    assert text.count("#| export") == 1


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def refuse(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run the command, which must end with exit code 2 and one line, and give that line."""
    before = sorted(Path().rglob("*"))
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    printed = capsys.readouterr()
    assert stopped.value.code == 2
    assert printed.out == ""
    assert len(printed.err.strip().splitlines()) == 1, printed.err
    assert sorted(Path().rglob("*")) == before, "something was left"
    return printed.err


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("acme churn", "no name of a distribution"),
        ("-acme", "no name of a distribution"),
        ("../acme", "no name of a distribution"),
        ("açme", "no name of a distribution"),
        ("1churn", "begin it with a letter"),
        ("class", "a word of Python"),
        ("json", "a module of Python itself"),
        ("churn-mlops", "the package that makes it"),
        ("tests", "another folder of the project"),
    ],
)
def test_a_name_that_cannot_serve_is_refused(name: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        package_of(name)


def test_a_bad_name_is_one_line(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no name of a distribution" in refuse(capsys, "acme churn")


def test_a_folder_that_is_there_is_left_alone(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "acme-churn").mkdir()
    assert "there is a acme-churn here already" in refuse(capsys, "acme-churn")


def test_a_table_that_is_not_there_is_named(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no such file: nowhere.csv" in refuse(capsys, "acme-churn", "--data", "nowhere.csv")


def test_a_table_that_cannot_be_read_is_one_line(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "customers.csv").write_bytes(b"\0\1\2")
    assert "not a text file" in refuse(capsys, "acme-churn", "--data", "customers.csv")


def test_a_table_without_the_target_lists_its_columns(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "customers.csv").write_text("plan,gone\na,1\nb,0\n")
    error = refuse(capsys, "acme-churn", "--data", "customers.csv", "--target", "Churn")
    assert "Missing required columns: Churn (the table has plan, gone)" in error


@pytest.mark.parametrize("content", ["Dear customer", "{}", '{"cells": 3}', '{"cells": [{"source": 1}]}', "[1]"])
def test_a_notebook_that_is_none_is_one_line(here: Path, capsys: pytest.CaptureFixture[str], content: str) -> None:
    (here / "explore.ipynb").write_text(content)
    assert "explore.ipynb is no Jupyter notebook" in refuse(capsys, "acme-churn", "--notebook", "explore.ipynb")


def test_a_notebook_that_is_not_there_is_named(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no such notebook: explore.ipynb" in refuse(capsys, "acme-churn", "--notebook", "explore.ipynb")


def test_a_notebook_of_another_language_is_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = {"cells": [], "metadata": {"kernelspec": {"language": "R"}}, "nbformat": 4}
    (here / "explore.ipynb").write_text(json.dumps(content))
    assert "a notebook of R" in refuse(capsys, "acme-churn", "--notebook", "explore.ipynb")


@pytest.mark.slow
def test_a_table_that_cannot_be_trained_on_leaves_nothing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "customers.csv").write_text("plan,churn\na,1\nb,0\na,0\n")
    refuse(capsys, "acme-churn", "--data", "customers.csv")


@pytest.mark.slow
def test_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [*COMMAND, "acme-churn"], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
    )
    while not list(tmp_path.glob(".acme-churn-*/acme-churn/acme_churn/features.py")):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.communicate()[1] == "churn-new: stopped; nothing was changed\n"
    assert process.returncode == 130
    time.sleep(1)  # what it started would write now
    assert list(tmp_path.iterdir()) == []
