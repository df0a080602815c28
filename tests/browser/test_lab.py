"""JupyterLab as `make lab` starts it, used in a browser: chapters run and save clean, an edit reaches the package."""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
CHAPTERS = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "nbs").rglob("*.ipynb")
    if ".ipynb_checkpoints" not in path.parts
)
QUICK = CHAPTERS
RUN = CHAPTERS if os.environ.get("CHAPTERS") == "all" else QUICK

# The commands are those behind the menus; each of them tells when it is done, which a menu does not.
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
    log: list[str] = field(default_factory=list)

    def read(self, stream: object, ready: threading.Event) -> None:
        """Keep what the server prints."""
        for line in stream:  # type: ignore[attr-defined]
            self.log.append(line)
            if "is running at" in line:
                ready.set()


@dataclass
class Lab:
    """JupyterLab in a browser."""

    page: Page
    server: Server
    requests: list[str]

    def open(self, path: str) -> None:
        """Open a notebook and wait for its kernel."""
        self.page.evaluate(OPEN, path)

    def run_all(self) -> list[str]:
        """Run all cells of the opened notebook and return its errors."""
        return self.page.evaluate(RUN_ALL)

    def close(self) -> None:
        """Save and close the opened notebook, and end its kernel."""
        self.page.evaluate(SAVE_AND_CLOSE)

    def press_save(self, path: str) -> None:
        """Press Ctrl + S and wait until the file is written."""
        with self.page.expect_response(lambda r: r.request.method == "PUT" and f"/api/contents/{path}" in r.url) as put:
            self.page.keyboard.press("Control+s")
        assert put.value.ok

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
    (startup / "package.py").write_text(f"import sys\nsys.path.insert(0, {str(root)!r})\n")
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
    server, ready = Server(root, f"http://127.0.0.1:{port}"), threading.Event()
    reader = threading.Thread(target=server.read, args=(process.stdout, ready))
    reader.start()
    try:
        assert ready.wait(60), "".join(server.log)
        yield server
    finally:
        os.killpg(process.pid, 15)  # make and the server, which ends its kernels
        process.wait(30)
        reader.join(30)


@pytest.fixture(scope="module")
def lab(server: Server) -> Iterator[Lab]:
    """Open what `make lab` opens."""
    flags = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=flags)
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.set_default_timeout(60_000)
        requests: list[str] = []
        page.on("request", lambda request: requests.append(request.url))
        page.goto(server.url)
        page.locator(".jp-NotebookPanel").wait_for()
        yield Lab(page, server, requests)
        browser.close()


@pytest.mark.parametrize("path", RUN)
def test_chapter_runs_and_is_saved_clean(lab: Lab, path: str) -> None:
    package = {file: file.read_bytes() for file in (lab.server.root / "churn_mlops").rglob("*.py")}
    lab.open(path)
    errors = lab.run_all()
    lab.close()
    assert errors == []
    saved = (lab.server.root / path).read_bytes()
    command = [Path(sys.executable).parent / "nbdev-clean", "--fname", path]
    subprocess.run(command, cwd=lab.server.root, check=True)
    assert (lab.server.root / path).read_bytes() == saved
