"""How the tests run: notebooks are tests, and where everything is supposed to run, nothing is skipped in silence."""

import os
from collections.abc import Iterator
from pathlib import Path

import notebooks
import pytest

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
