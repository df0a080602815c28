"""JupyterLab as `make lab` starts it, in a browser: what the tests of it do there."""

import os
import socket
import subprocess
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.sync_api import Locator, Page
from window import launch

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
    """A running `make lab` in a folder, and the environment of the commands that are run beside it."""

    root: Path
    url: str
    environment: Mapping[str, str]
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
        """Run a command in the folder, as in a new terminal, and return what it prints."""
        root, environment = self.server.root, self.server.environment
        done = subprocess.run(command, shell=True, cwd=root, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def outputs(self, text: str) -> Locator:
        """Find the output of the cell whose code holds a text."""
        cells = self.page.locator(".jp-Notebook:visible .jp-CodeCell")
        return cells.filter(has=self.page.locator(".cm-content", has_text=text)).locator(".jp-Cell-outputArea")


def free_port() -> int:
    """Find a port that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running_lab(
    root: Path, home: str, started: Mapping[str, str], environment: Mapping[str, str], make: str = "make"
) -> Iterator[Server]:
    """Run `make lab` in a folder until the block ends.

    `home` is where Jupyter keeps its settings, `started` the environment of the server, `environment` that of the
    commands beside it, and `make` how make is called.
    """
    port = free_port()
    options = {
        "ServerApp.port_retries": 0,
        "ServerApp.allow_root": True,
        "IdentityProvider.token": "",
        "LabApp.expose_app_in_browser": True,
    }
    arguments = f"--port {port} --no-browser --home {home} -- "
    arguments += " ".join(f"--{name}={value}" for name, value in options.items())
    process = subprocess.Popen(
        [*make.split(), "lab", f"ARGS={arguments}"],
        cwd=root,
        env=started,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    server = Server(root, f"http://127.0.0.1:{port}", environment)
    reader = threading.Thread(target=server.read, args=(process.stdout,))
    reader.start()
    try:
        server.wait_for("is running at")
        yield server
    finally:
        os.killpg(process.pid, 15)  # make and the server, which ends its kernels
        process.wait(30)
        reader.join(30)


@contextmanager
def opened_lab(server: Server, shown: str) -> Iterator[Lab]:
    """Open what `make lab` opens, in a browser of its own, and wait until it shows something."""
    with launch() as browser:
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.set_default_timeout(60_000)
        requests: list[str] = []
        page.on("request", lambda request: requests.append(request.url))
        page.goto(server.url)
        page.locator(shown).first.wait_for()
        yield Lab(page, server, requests)
