"""JupyterLab as `make lab` starts it, used in a browser: chapters run and save clean, an edit reaches the package."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from playwright.sync_api import Locator, Page, expect
from window import launch

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

# The commands are those behind the menus; each of them tells when it is done, which a menu does not.
LATE = """() => new Promise((_, fail) => setTimeout(() => {
    const asked = [...document.querySelectorAll(".jp-Dialog")].map(dialog => dialog.innerText);
    fail(new Error(`not done after 300 s; open dialogs: ${JSON.stringify(asked)}`));
}, 300_000))"""
OPEN = """async path => {
    const opened = await jupyterapp.commands.execute("docmanager:open", {path});
    await opened.context.ready;
    await opened.sessionContext.ready;
    await opened.sessionContext.session.kernel.info;
    await opened.sessionContext.session.kernel.spec;
    window.opened = opened;
}"""
CLOSED = "() => new Promise(done => opened.isDisposed ? done() : opened.disposed.connect(() => done()))"
SHUT_DOWN = "() => opened.sessionContext.shutdown()"
RUN_ALL = """async () => {
    await jupyterapp.commands.execute("notebook:run-all-cells");
    return opened.content.model.toJSON().cells
        .flatMap(cell => cell.outputs ?? [])
        .filter(output => output.output_type === "error")
        .map(output => `${output.ename}: ${output.evalue}`);
}"""
ASK = """async code => {
    let printed = "";
    const asked = opened.sessionContext.session.kernel.requestExecute({code});
    asked.onIOPub = message => { printed += message.content.text ?? ""; };
    await asked.done;
    return printed;
}"""
SELECT = """async ([cell, old]) => {
    const notebook = opened.content;
    const sources = notebook.widgets.map(each => each.model.sharedModel.source);
    const found = sources.flatMap((source, place) => source.includes(cell) && source.includes(old) ? [place] : []);
    if (found.length !== 1) throw new Error(`${found.length} cells hold both ${cell} and ${old}`);
    const [place] = found, start = sources[place].indexOf(old);
    notebook.activeCellIndex = place;
    await notebook.scrollToItem(place);
    await notebook.activeCell.ready;
    notebook.mode = "edit";
    const editor = notebook.activeCell.editor;
    editor.focus();
    editor.setSelection({start: editor.getPositionAt(start), end: editor.getPositionAt(start + old.length)});
    return sources[place];
}"""
SOURCE = "() => opened.content.activeCell.model.sharedModel.source"
RENAME = "name => opened.context.rename(name)"
NOTE_SAVE = """() => {
    window.saved = new Promise((done, fail) => {
        const {commandExecuted} = jupyterapp.commands;
        const note = (_, {id, result}) => {
            if (id !== "docmanager:save") return;
            commandExecuted.disconnect(note);
            result.then(done, fail);
        };
        commandExecuted.connect(note);
    });
}"""
SAVE_AND_CLOSE = """async () => {
    await opened.context.save();
    await opened.sessionContext.shutdown();
    opened.dispose();
}"""


@dataclass
class Server:
    """A running `make lab` on a copy of the repository."""

    root: Path
    url: str
    printed: str = ""
    more: threading.Condition = field(default_factory=threading.Condition)

    def read(self, stream: Iterable[str]) -> None:
        """Keep what the server prints."""
        for line in stream:
            with self.more:
                self.printed += line
                self.more.notify_all()

    def wait_for(self, text: str) -> None:
        """Wait until the server has printed a text."""
        with self.more:
            assert self.more.wait_for(lambda: text in self.printed, timeout=60), self.printed


@dataclass
class Lab:
    """JupyterLab in a browser."""

    page: Page
    server: Server
    requests: list[str]

    def do(self, function: str, argument: str | list[str] = "") -> Any:
        """Call a function in the page and return what it returns; it must be done in five minutes."""
        return self.page.evaluate(f"argument => Promise.race([({function})(argument), ({LATE})()])", argument)

    def open(self, path: str) -> None:
        """Open a notebook and wait for its kernel."""
        self.do(OPEN, path)

    def run_all(self) -> list[str]:
        """Run all cells of the opened notebook and return its errors."""
        return self.do(RUN_ALL)

    def close(self) -> None:
        """Save and close the opened notebook, and end its kernel."""
        self.do(SAVE_AND_CLOSE)

    def press_save(self) -> None:
        """Press Ctrl + S and wait until JupyterLab is done with it; a save before that is passed over."""
        self.do(NOTE_SAVE)
        self.page.keyboard.press("Control+s")
        self.do("() => saved")

    def close_tab(self) -> None:
        """Close the tab of the opened notebook by its cross, as a user does; leave its kernel."""
        self.page.locator("#jp-main-dock-panel .lm-TabBar-tab.jp-mod-current .lm-TabBar-tabCloseIcon").click()
        self.do(CLOSED)

    def replace(self, cell: str, old: str, new: str) -> None:
        """Select a text in the cell whose code holds another one, and type over it."""
        before = self.do(SELECT, [cell, old])
        self.page.keyboard.insert_text(new)
        assert self.do(SOURCE) == before.replace(old, new, 1)

    def messages(self) -> Locator:
        """Find what JupyterLab says in a corner of the page."""
        return self.page.locator(".Toastify__toast")

    def answer(self, code: str) -> str:
        """Let the kernel of the opened notebook run code and return what it prints."""
        return self.do(ASK, code)

    def run(self, command: str) -> str:
        """Run a command in the copy, as in a new terminal, and return what it prints."""
        root = self.server.root
        path = f"{root / '.venv/bin'}{os.pathsep}{os.environ['PATH']}"
        data = str(root / ".venv/jupyter/data")
        env = {**os.environ, "PATH": path, "JUPYTER_DATA_DIR": data, "PIP_NO_INDEX": "1"}  # nothing is installed
        done = subprocess.run(command, shell=True, cwd=root, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def outputs(self, text: str) -> Locator:
        """Find the output of the cell whose code holds a text."""
        cells = self.page.locator(".jp-Notebook:visible .jp-CodeCell")
        return cells.filter(has=self.page.locator(".cm-content", has_text=text)).locator(".jp-Cell-outputArea")


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


def free_port() -> int:
    """Find a port that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def server(clean_copy: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run `make lab` on a copy of the repository, as a user with settings of their own."""
    folder = tmp_path_factory.mktemp("lab")
    root = shutil.copytree(clean_copy, folder / "churn_mlops", symlinks=True)
    make_venv(root)
    port = free_port()
    options = {
        "ServerApp.port_retries": 0,
        "ServerApp.allow_root": True,
        "IdentityProvider.token": "",
        "LabApp.expose_app_in_browser": True,
    }
    arguments = f"--port {port} --no-browser --home .venv/jupyter -- "
    arguments += " ".join(f"--{name}={value}" for name, value in options.items())
    process = subprocess.Popen(
        ["make", "lab", f"ARGS={arguments}"],
        cwd=root,
        env=make_home(folder / "home"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    server = Server(root, f"http://127.0.0.1:{port}")
    reader = threading.Thread(target=server.read, args=(process.stdout,))
    reader.start()
    try:
        server.wait_for("is running at")
        yield server
    finally:
        os.killpg(process.pid, 15)  # make and the server, which ends its kernels
        process.wait(30)
        reader.join(30)


@pytest.fixture(scope="module")
def lab(server: Server) -> Iterator[Lab]:
    """Open what `make lab` opens."""
    with launch() as browser:
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.set_default_timeout(60_000)
        requests: list[str] = []
        page.on("request", lambda request: requests.append(request.url))
        page.goto(server.url)
        page.locator(".jp-NotebookPanel").wait_for()
        yield Lab(page, server, requests)


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
