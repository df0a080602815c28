"""What every test shares: notebooks as tests, no silent skips, the Telco file, a clean copy of the repository."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import notebooks
import pytest
from filelock import FileLock

ROOT = Path(__file__).resolve().parent
IN_CI = os.environ.get("CI") == "true"


class Notebook(pytest.File):
    """A notebook under nbs/: one test that it is a chapter, one that runs it in a process of its own."""

    def collect(self) -> Iterator[pytest.Item]:
        yield NotebookIsChapter.from_parent(self, name="is a chapter")
        yield NotebookRun.from_parent(self, name="run all cells")


class NotebookIsChapter(pytest.Item):
    """Say what was forgotten when the notebook was made or moved."""

    def runtest(self) -> None:
        if found := notebooks.forgotten(self.path):
            pytest.fail("\n".join(found), pytrace=False)

    def reportinfo(self) -> tuple[Path, int, str]:
        return self.path, 0, f"{self.path.relative_to(ROOT)} is a chapter"


class NotebookRun(pytest.Item):
    """Run the cells as `nbdev-test` does, and compare what they show with what is committed."""

    def runtest(self) -> None:
        result = notebooks.run(self.path)
        lacks_data = notebooks.lacks_data(self.path)
        if lacks_data and IN_CI:
            pytest.fail("the file that it shows is not here: the variable after `#| data:` must name it", pytrace=False)
        stale = {} if lacks_data else notebooks.stale(self.path, result.outputs)
        if result.failure or stale:
            pytest.fail(result.failure or "\n".join([*stale.values(), "`make fresh` writes them anew"]), pytrace=False)

    def reportinfo(self) -> tuple[Path, int, str]:
        return self.path, 0, str(self.path.relative_to(ROOT))


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> Notebook | None:
    """Collect the notebooks under nbs/."""
    hidden = any(part.startswith((".", "_")) for part in file_path.relative_to(ROOT).parts)
    if file_path.suffix == ".ipynb" and (ROOT / "nbs") in file_path.parents and not hidden:
        return Notebook.from_parent(parent, path=file_path)
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes long in one piece, the browsers, and end with the notebooks, large ones first.

    Files are handed to the processes in this order, so that none has much left when the others are done.
    """

    def turn(item: pytest.Item) -> tuple[bool, bool, int]:
        notebook = isinstance(item, NotebookRun)
        return notebook, "browser" not in item.path.parts, -item.path.stat().st_size if notebook else 0

    items.sort(key=turn)


def _no_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Turn a skip into a failure where everything is supposed to run."""
    if IN_CI and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI=true does not allow: {report.longrepr}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Iterator[None]:
    """Apply the rule to tests."""
    report = yield
    _no_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Iterator[None]:
    """Apply the rule to modules that skip themselves while they are collected."""
    report = yield
    _no_skip(report)
    return report


@pytest.fixture
def array_api(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let scikit-learn run its array API check, which it skips without this variable."""
    monkeypatch.setenv("SCIPY_ARRAY_API", "1")


@pytest.fixture(scope="module")
def few_draws() -> Iterator[None]:
    """Draw 25 times instead of 200 where a report says how sure its figures are: quick, and as sure as a test needs."""
    from churn_mlops.models.evaluation import error_margins

    with mock.patch.object(error_margins, "__defaults__", (25, 0)):
        yield


@pytest.fixture(scope="session")
def telco() -> Path:
    """Give the path of the Telco customer file: 7,043 real-looking customers of a telephone company."""
    path = Path(os.environ.get("CHURN_TELCO_CSV") or ROOT.parent / "shared" / "data" / "telco.csv")
    if not path.is_file():
        pytest.skip(f"no Telco file at {path}; CHURN_TELCO_CSV names another place")
    return path


@pytest.fixture(scope="session")
def clean_copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy what git would commit to a folder of its own, so that a test may build there."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    copy = tmp_path_factory.mktemp("clean") / "churn_mlops"
    for name in filter(None, names):
        source = ROOT / name
        if source.is_symlink() or source.is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, copy / name, follow_symlinks=False)
    return copy


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """Build the documentation once for all processes that run tests, and give its folder."""
    mine = tmp_path_factory.getbasetemp()
    folder = (mine.parent if "PYTEST_XDIST_WORKER" in os.environ else mine) / "site"
    with FileLock(folder.with_suffix(".lock")):
        if not folder.is_dir():
            clean = request.getfixturevalue("clean_copy")
            copy = shutil.copytree(clean, tmp_path_factory.mktemp("built") / "churn_mlops", symlinks=True)
            environment = {**os.environ, "PYTHONPATH": str(copy)}
            environment.pop("IN_TEST", None)
            command = [sys.executable, "tools/docs.py"]
            done = subprocess.run(
                command, cwd=copy, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
            assert done.returncode == 0, f"tools/docs.py exited with {done.returncode}\n{done.stdout}"
            shutil.move(copy / "_docs", folder)
    return folder
