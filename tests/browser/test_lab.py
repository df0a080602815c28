"""JupyterLab as `make lab` starts it, used in a browser: chapters run and save clean, an edit reaches the package."""

import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import nbformat
import pytest
from lab_window import RENAME, SHUT_DOWN, Lab, Server, opened_lab, running_lab
from nbformat.v4 import new_code_cell, new_notebook
from playwright.sync_api import expect

ROOT = Path(__file__).resolve().parents[2]
CHAPTERS = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "nbs").rglob("*.ipynb")
    if ".ipynb_checkpoints" not in path.parts
)
QUICK = [
    "nbs/data/sample.ipynb",
    "nbs/settings.ipynb",
    "nbs/report/panels.ipynb",
]  # figures, none, widgets
START = "nbs/start_here.ipynb"
EDITED, MODULE = "nbs/utils.ipynb", "churn_mlops/utils.py"
RUN = CHAPTERS if os.environ.get("CHAPTERS") == "all" else QUICK  # all of them take minutes: `make browser`


def make_venv(root: Path) -> None:
    """Let `make` find the environment that runs the tests, in which the package is that of the copy."""
    programs = root / ".venv/bin"
    programs.mkdir(parents=True)
    for program in Path(sys.executable).parent.iterdir():
        mine = programs / program.name
        if program.name.startswith(("churn-", "nbdev-", "python")):
            mine.write_text(f'#!/bin/sh\nPYTHONPATH="{root}" exec "{program}" "$@"\n')
            mine.chmod(0o755)
        else:
            mine.symlink_to(program)
    startup = root / ".venv/jupyter/ipython/profile_default/startup"
    startup.mkdir(parents=True)
    package = f"import os, sys\nos.environ['PYTHONPATH'] = {str(root)!r}\nsys.path.insert(0, {str(root)!r})\n"
    (startup / "package.py").write_text(package)
    for stamp in (".made", ".with-base", ".with-docs"):
        (root / ".venv" / stamp).touch()


def make_home(home: Path) -> dict[str, str]:
    """Give a user another kernel of the same name, which must not be taken."""
    kernel = home / "kernels/python3"
    kernel.mkdir(parents=True)
    (kernel / "kernel.json").write_text(json.dumps({"argv": ["false"], "display_name": "wrong", "language": "python"}))
    (home / ".local/share/jupyter").mkdir(parents=True)
    shutil.copytree(home / "kernels", home / ".local/share/jupyter/kernels")
    cache = os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))
    return {**os.environ, "HOME": str(home), "JUPYTER_PATH": str(home), "XDG_CACHE_HOME": cache}


@pytest.fixture(scope="module")
def server(clean_copy: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run `make lab` on a copy of the repository, as a user with settings of their own."""
    folder = tmp_path_factory.mktemp("lab")
    root = shutil.copytree(clean_copy, folder / "churn_mlops", symlinks=True)
    make_venv(root)
    path = f"{root / '.venv/bin'}{os.pathsep}{os.environ['PATH']}"
    data = str(root / ".venv/jupyter/data")
    environment = {**os.environ, "PATH": path, "JUPYTER_DATA_DIR": data, "PIP_NO_INDEX": "1"}  # nothing is installed
    with running_lab(root, ".venv/jupyter", make_home(folder / "home"), environment) as server:
        yield server


@pytest.fixture(scope="module")
def lab(server: Server) -> Iterator[Lab]:
    """Open what `make lab` opens."""
    with opened_lab(server, ".jp-NotebookPanel") as lab:
        yield lab


@pytest.fixture
def kept(lab: Lab) -> Iterator[Path]:
    """Give the folder of the copy; undo in the end what a test changes in its notebooks and its package."""
    root = lab.server.root
    before = {path: path.read_bytes() for path in sources(root)}
    yield root
    for path in sources(root) - before.keys():
        path.unlink()
    for path, content in before.items():
        if not path.is_file() or path.read_bytes() != content:
            path.write_bytes(content)


def sources(root: Path) -> set[Path]:
    """List the notebooks and the modules of a copy."""
    found = {*(root / "nbs").rglob("*.ipynb"), *(root / "churn_mlops").rglob("*.py")}
    return {path for path in found if ".ipynb_checkpoints" not in path.parts}


def code(notebook: Path) -> list[str]:
    """Read what the cells of a notebook say."""
    return ["".join(cell["source"]) for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]]


@pytest.fixture
def edited(lab: Lab, kept: Path) -> Iterator[Lab]:
    """Open a chapter that a test changes."""
    lab.open(EDITED)
    yield lab
    lab.close()


def test_it_opens_the_start_page_and_asks_nothing(lab: Lab) -> None:
    expect(lab.page.locator(".jp-Notebook h1", has_text="Start here")).to_be_visible()
    lab.open(START)  # the kernel answers: all that opens by itself has opened
    assert lab.page.locator(".jp-Dialog, .Toastify__toast").all_inner_texts() == []


def test_kernel_is_that_of_the_environment(lab: Lab) -> None:
    lab.open(START)
    code = "import sys, churn_mlops; print(sys.prefix, churn_mlops.__file__)"
    assert lab.answer(code).split() == [sys.prefix, str(lab.server.root / "churn_mlops/__init__.py")]


@pytest.mark.parametrize("path", RUN)
def test_chapter_opens_as_saved_and_closes_without_a_question(lab: Lab, path: str) -> None:
    file = lab.server.root / path
    before = file.read_bytes(), file.stat().st_mtime_ns
    lab.open(path)
    assert lab.page.locator("#jp-main-dock-panel .lm-TabBar-tab.jp-mod-dirty").all_inner_texts() == []
    lab.close_tab()
    lab.do(SHUT_DOWN)
    assert lab.page.locator(".jp-Dialog").all_inner_texts() == []
    assert (file.read_bytes(), file.stat().st_mtime_ns) == before


@pytest.mark.parametrize("path", RUN)
def test_chapter_runs_without_an_error(lab: Lab, path: str) -> None:
    lab.open(path)
    errors = lab.run_all()
    lab.close()
    assert errors == []


def test_saved_notebooks_are_as_nbdev_clean_leaves_them(lab: Lab) -> None:
    """All that was run and saved up to here, and one that has widgets."""
    lab.open(START)
    lab.run_all()
    lab.close()
    before = {path: (lab.server.root / path).read_bytes() for path in CHAPTERS}
    lab.run("nbdev-clean")
    assert [path for path in CHAPTERS if (lab.server.root / path).read_bytes() != before[path]] == []


def test_saving_what_has_not_changed_leaves_the_package_as_it_was(lab: Lab, clean_copy: Path) -> None:
    """All that was saved up to here, and one chapter."""
    lab.open(EDITED)
    lab.close()
    modules = [path.relative_to(clean_copy) for path in (clean_copy / "churn_mlops").rglob("*.py")]
    changed = [name for name in modules if (lab.server.root / name).read_bytes() != (clean_copy / name).read_bytes()]
    assert changed == []


class Exercise(NamedTuple):
    """Something to try, to the letter: what to change in a notebook, what to run then, and what that prints."""

    notebook: str
    cell: str  # a text that tells the cell from the others that hold the old text
    old: str
    new: str
    command: str
    expected: str


EXERCISES = [
    Exercise(
        notebook="nbs/data/sample.ipynb",
        cell="def _churn_probability",
        old="log_odds = 0.42",
        new="log_odds = 1.42",
        command='make train ARGS="--model-type logistic_regression --cv-folds 0"',
        expected="5,000 customers, 40.9% churned",
    ),
    Exercise(  # that of start_here, to the letter
        notebook="nbs/features/derived.ipynb",
        cell="DERIVED_COLUMNS = (",
        old='"average_monthly_charges")),\n)',
        new='"average_monthly_charges")),\n    Derived("is_new", "below", ("tenure",), 3.0),\n)',
        command="""python -c '
from churn_mlops.data import generate_sample_data
from churn_mlops.models.training import make_model
from churn_mlops.settings import ModelSettings
customers = generate_sample_data(500)
model = make_model(ModelSettings(type="logistic_regression", derive=True))
print(model.fit(customers.drop(columns=["customer_id", "churn"]), customers["churn"]).formula_)'""",
        expected="is_new: 0 to 1",
    ),
]


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.notebook)
def test_exercise_does_what_it_promises(lab: Lab, kept: Path, exercise: Exercise) -> None:
    assert exercise.expected not in lab.run(exercise.command)
    lab.open(exercise.notebook)
    lab.replace(exercise.cell, exercise.old, exercise.new)
    lab.press_save()
    lab.close()
    assert exercise.expected in lab.run(exercise.command)


def test_saving_leaves_the_environment_up_to_date(edited: Lab) -> None:
    """No `make` target installs anew: the settings of the project are not written."""
    settings = edited.server.root / "pyproject.toml"
    before = settings.stat().st_mtime_ns
    edited.replace("def timing", "%.3f s", "%.1f s")
    edited.press_save()
    assert "%.1f s" in (edited.server.root / MODULE).read_text()
    assert settings.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("line", "error"),
    [("texts = (\n", "'(' was never closed: texts = ("), ("return\n", "'return' outside function: return")],
    ids=["an open bracket", "a stray return"],
)
def test_code_that_cannot_be_exported_is_saved_and_reported(edited: Lab, line: str, error: str) -> None:
    module, begin = edited.server.root / MODULE, "@contextmanager\n"
    before = module.read_bytes()
    edited.replace("def collect_warnings", begin, line + begin)
    edited.press_save()
    message = f"utils.ipynb is saved, but its module is as it was before: SyntaxError: {error}"
    assert line in "".join(code(edited.server.root / EDITED))
    assert module.read_bytes() == before
    expect(edited.messages()).to_have_text([message])
    edited.server.wait_for(message)
    edited.replace("def collect_warnings", line + begin, begin)
    edited.press_save()
    expect(edited.messages()).to_have_count(0)


@pytest.fixture
def untitled(lab: Lab, kept: Path) -> Iterator[Lab]:
    """Open and save a new notebook that nobody has named yet, whose module has a name."""
    cells = ["#| default_exp uplift", "#| export\ndef uplift(treated: float, control: float) -> float: ..."]
    kernel = {"name": "python3", "display_name": "python3", "language": "python"}
    notebook = new_notebook(cells=[new_code_cell(source) for source in cells], metadata={"kernelspec": kernel})
    nbformat.write(notebook, kept / "nbs/Untitled.ipynb")
    lab.open("nbs/Untitled.ipynb")
    lab.press_save()
    assert "Untitled.ipynb" in (kept / "churn_mlops/uplift.py").read_text()
    yield lab
    lab.close()


def test_module_of_a_renamed_notebook_names_it_anew(untitled: Lab, kept: Path) -> None:
    untitled.do(RENAME, "uplift.ipynb")
    module = (kept / "churn_mlops/uplift.py").read_text()
    assert ("nbs/uplift.ipynb" in module, "Untitled" in module) == (True, False)


def test_module_that_a_notebook_no_longer_exports_to_is_removed(untitled: Lab, kept: Path) -> None:
    untitled.replace("default_exp", "default_exp uplift", "default_exp campaign")
    untitled.press_save()
    index = (kept / "churn_mlops/_modidx.py").read_text()
    assert (kept / "churn_mlops/campaign.py").is_file()
    assert not (kept / "churn_mlops/uplift.py").exists()
    assert ("churn_mlops.campaign" in index, "churn_mlops.uplift" in index) == (True, False)


@pytest.fixture(scope="class")
def opened(lab: Lab) -> Iterator[Lab]:
    """Open the start page and run it."""
    lab.open(START)
    assert lab.run_all() == []
    yield lab
    lab.close()


class TestWidgets:
    """The panels of the start page."""

    def test_slider_moved_by_keyboard_changes_probability_and_reasons(self, opened: Lab) -> None:
        panel = opened.outputs("what_if(model")
        probability, reasons = panel.locator(".lead"), panel.get_by_role("img")
        before, reasons_before = probability.inner_text(), reasons.get_attribute("aria-label")
        panel.get_by_role("slider").first.press("End")
        expect(probability).not_to_have_text(before)
        expect(reasons).not_to_have_attribute("aria-label", str(reasons_before))
        expect(reasons).to_have_attribute("aria-label", re.compile("tenure 72: -"))

    def test_a_chosen_category_changes_the_reasons(self, opened: Lab) -> None:
        panel = opened.outputs("what_if(model")
        panel.get_by_role("combobox", name="contract_type").select_option("Two year")
        expect(panel.get_by_role("img")).to_have_attribute("aria-label", re.compile("contract_type Two year: -"))

    def test_threshold_moved_by_keyboard_changes_the_campaign(self, opened: Lab) -> None:
        panel = opened.outputs("threshold_slider(")
        contacted = panel.get_by_role("row", name="Customers contacted")
        expect(contacted).to_be_visible()
        panel.get_by_role("slider").press("Home")
        expect(contacted).to_contain_text("1,000 of 1,000 (100%)")
        panel.get_by_role("slider").press("End")
        expect(contacted).to_contain_text("0 of 1,000 (0%)")

    def test_after_saving_and_opening_again_the_answer_is_shown_without_controls(self, opened: Lab) -> None:
        opened.outputs("threshold_slider(").get_by_role("slider").press("Home")
        expect(opened.outputs("threshold_slider(")).to_contain_text("(100%)")
        opened.close()
        opened.open(START)
        panel = opened.outputs("threshold_slider(")
        expect(panel.get_by_role("img")).to_be_visible()
        expect(panel.get_by_role("slider")).to_have_count(0)


def test_nothing_is_fetched_from_another_host(lab: Lab) -> None:
    """All that was done up to here, and the start page."""
    lab.open(START)
    strange = [url for url in lab.requests if not url.startswith((lab.server.url, "data:", "blob:"))]
    assert strange == []
