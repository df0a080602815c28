"""The command `churn-lab` in a project that is not this repository."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from nbformat.v4 import new_code_cell, new_notebook

from churn_mlops.lab.command import main

ROOT = Path(__file__).resolve().parent.parent
TOKEN = "of-this-test"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a project without a notebook."""
    root = tmp_path_factory.mktemp("acme")
    for folder in ("nbs", "acme"):
        (root / folder).mkdir()
    (root / "pyproject.toml").write_text('[project]\nname = "acme"\n[tool.nbdev]\nupdate_pyproject = false\n')
    return root


def wait_for(url: str) -> None:
    """Wait until the server listens, which it does a moment after it has printed its address."""
    end = time.monotonic() + 30
    while True:
        try:
            ask(f"{url}/api")
            return
        except OSError:
            assert time.monotonic() < end
            time.sleep(0.05)


@pytest.fixture(scope="module")
def url(project: Path) -> Iterator[str]:
    """Run `churn-lab` from a folder of the project; give its address."""
    command = [sys.executable, "-m", "churn_mlops.lab.command", "--no-browser", "--home", str(project / "home"), "--"]
    command += ["--ServerApp.port=0", "--ServerApp.allow_root=True", f"--IdentityProvider.token={TOKEN}"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    env.pop("IN_TEST", None)
    process = subprocess.Popen(command, cwd=project / "nbs", env=env, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if found := re.search(r"(http://127\.0\.0\.1:\d+)/lab/tree/nbs\?", line):
            break
    try:
        assert found, "".join(lines)
        wait_for(found[1])
        yield found[1]
    finally:
        process.terminate()
        process.stderr.close()
        process.wait(30)


def ask(address: str, content: dict[str, Any] | None = None) -> str:
    """Ask the server, or let it save a file."""
    data = json.dumps(content).encode() if content else None
    request = Request(address, data, {"Authorization": f"token {TOKEN}"}, method="PUT" if data else "GET")
    with urlopen(request, timeout=30) as answer:
        return answer.read().decode()


def save(url: str, *sources: str) -> dict[str, Any]:
    """Save a notebook as JupyterLab does."""
    content = new_notebook(cells=[new_code_cell(source, execution_count=3) for source in sources])
    return json.loads(ask(f"{url}/api/contents/nbs/part.ipynb", {"type": "notebook", "content": content}))


@pytest.mark.slow
def test_a_save_cleans_the_notebook_and_writes_the_module(url: str, project: Path) -> None:
    assert "message" not in save(url, "#| default_exp part", "#| export\nx = 1")
    assert "\nx = 1" in (project / "acme/part.py").read_text()
    assert {cell["execution_count"] for cell in json.loads((project / "nbs/part.ipynb").read_text())["cells"]} == {None}


@pytest.mark.slow
def test_the_reason_is_answered_where_a_module_cannot_be_written(url: str) -> None:
    assert "SyntaxError" in save(url, "#| default_exp part", "#| export\nx = (")["message"]


@pytest.mark.slow
def test_jupyterlab_loads_the_extension_that_shows_the_reason(url: str) -> None:
    assert '"name": "save-message"' in ask(f"{url}/lab")


@pytest.mark.slow
def test_jupyterlab_asks_for_no_news_and_no_update(url: str) -> None:
    settings = json.loads(ask(f"{url}/lab/api/settings/@jupyterlab/apputils-extension:notification"))
    properties = settings["schema"]["properties"]
    assert (properties["fetchNews"]["default"], properties["checkForUpdates"]["default"]) == ("false", False)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["gone.ipynb"], "no such notebook: gone.ipynb"),
        (["../outside.ipynb"], "is not in the project"),
        (["--home", "pyproject.toml/home"], "name a folder with --home"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str],
    said: str,
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (project.parent / "outside.ipynb").write_text("{}")
    monkeypatch.chdir(project)
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    told = capsys.readouterr().err
    assert (ended.value.code, told.count("\n")) == (2, 1)
    assert said in told


def test_a_folder_that_is_no_project_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        main([])
    assert capsys.readouterr().err.startswith(f"churn-lab: error: {tmp_path} is in no nbdev project: ")
