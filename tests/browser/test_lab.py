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
from typing import Any

import pytest
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
EDITED, MODULE = "nbs/features/derived.ipynb", "churn_mlops/features/derived.py"
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
    window.opened = opened;
}"""
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
NOTE_SAVE = """() => {
    window.saved = new Promise((done, fail) => opened.context.saveState.connect((_, state) => {
        if (state.startsWith("completed")) done();
        if (state === "failed") fail(new Error("not saved"));
    }));
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

    def do(self, function: str, argument: str = "") -> Any:
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
        """Press Ctrl + S and wait until JupyterLab knows that the file is written; a save before that is a conflict."""
        self.do(NOTE_SAVE)
        self.page.keyboard.press("Control+s")
        self.do("() => saved")

    def answer(self, code: str) -> str:
        """Let the kernel of the opened notebook run code and return what it prints."""
        return self.do(ASK, code)

    def run(self, command: str, *arguments: str) -> str:
        """Run a program of the environment in the copy, as in a new terminal, and return what it prints."""
        env = {
            **os.environ,
            "PYTHONPATH": str(self.server.root),
            "JUPYTER_DATA_DIR": str(self.server.root / ".venv/jupyter/data"),
        }
        path = sys.executable if command == "python" else self.server.root / ".venv/bin" / command
        done = subprocess.run([path, *arguments], cwd=self.server.root, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def outputs(self, text: str) -> Locator:
        """Find the output of the cell whose code holds a text."""
        cells = self.page.locator(".jp-Notebook:visible .jp-CodeCell")
        return cells.filter(has=self.page.locator(".cm-content", has_text=text)).locator(".jp-Cell-outputArea")


def make_venv(root: Path) -> None:
    """Let `make` find the environment that runs the tests, in which the package is that of the copy."""
    (root / ".venv").mkdir()
    (root / ".venv/bin").symlink_to(Path(sys.executable).parent)
    startup = root / ".venv/jupyter/ipython/profile_default/startup"
    startup.mkdir(parents=True)
    package = f"import os, sys\nos.environ['PYTHONPATH'] = {str(root)!r}\nsys.path.insert(0, {str(root)!r})\n"
    (startup / "package.py").write_text(package)
    for stamp in (".made", ".with-lab"):
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
        "ServerApp.port": port,
        "ServerApp.port_retries": 0,
        "ServerApp.open_browser": False,
        "ServerApp.allow_root": True,
        "IdentityProvider.token": "",
        "LabApp.expose_app_in_browser": True,
    }
    arguments = " ".join(f"--{name}={value}" for name, value in options.items())
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
def edited(lab: Lab, clean_copy: Path) -> Iterator[Lab]:
    """Open the chapter that the start page asks the reader to change; undo the change in the end."""
    lab.open(EDITED)
    yield lab
    lab.close()
    for name in (EDITED, MODULE):
        shutil.copy2(clean_copy / name, lab.server.root / name)


def insert(lab: Lab, line: str, text: str) -> None:
    """Put text in front of a line of code, as one who types does."""
    lab.page.locator(".jp-Notebook:visible .cm-line", has_text=line).click()
    lab.page.keyboard.press("Home")
    lab.page.keyboard.insert_text(text)


def test_it_opens_the_start_page_and_asks_nothing(lab: Lab) -> None:
    expect(lab.page.locator(".jp-Notebook h1", has_text="Start here")).to_be_visible()
    lab.open(START)  # the kernel answers: all that opens by itself has opened
    assert lab.page.locator(".jp-Dialog, .Toastify__toast").all_inner_texts() == []


def test_kernel_is_that_of_the_environment(lab: Lab) -> None:
    lab.open(START)
    code = "import sys, churn_mlops; print(sys.prefix, churn_mlops.__file__)"
    assert lab.answer(code).split() == [sys.prefix, str(lab.server.root / "churn_mlops/__init__.py")]


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


def test_an_edited_function_is_in_the_package_after_saving(edited: Lab) -> None:
    insert(edited, "return derived", 'derived["is_new"] = tenure < 3\n    ')
    edited.press_save()
    code = """
from churn_mlops.data import generate_sample_data
from churn_mlops.features import create_derived_features
customers = create_derived_features(generate_sample_data(50))
print(customers["is_new"].equals(customers["tenure"] < 3))
"""
    assert edited.run("python", "-c", code) == "True\n"


def test_code_that_cannot_be_exported_is_saved_and_reported(edited: Lab) -> None:
    module = (edited.server.root / MODULE).read_bytes()
    insert(edited, "return derived", "derived = (\n    ")
    edited.press_save()
    assert "derived = (" in (edited.server.root / EDITED).read_text()
    assert (edited.server.root / MODULE).read_bytes() == module
    edited.server.wait_for("derived.ipynb is saved, but its module is as it was before: SyntaxError")


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
