"""How the tests run: notebooks are tests, and where everything is supposed to run, nothing is skipped in silence."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from chapters import forgotten

from churn_mlops.lab.outputs import lacking, problems, project_notebooks

ROOT = Path(__file__).resolve().parent
IN_CI = os.environ.get("CI") == "true"
NOTEBOOKS = frozenset(project_notebooks(ROOT))


class Notebook(pytest.File):
    """A notebook under nbs/: one test that it is a chapter, one that runs it and compares what it shows."""

    def collect(self) -> Iterator[pytest.Item]:
        yield NotebookTest.from_parent(self, name="is a chapter", find=forgotten)
        yield NotebookTest.from_parent(self, name="run all cells", find=self.run)

    def run(self, path: Path) -> list[str]:
        lacks = "the file that it shows is not here: the variable after `#| data:` must name it"
        return problems(path) or [lacks] * (IN_CI and bool(lacking(path)))


class NotebookTest(pytest.Item):
    """Something that must hold of a notebook."""

    def __init__(self, *, find: Callable[[Path], list[str]], **options: object) -> None:
        super().__init__(**options)
        self.find = find

    def runtest(self) -> None:
        if found := self.find(self.path):
            pytest.fail("\n".join(found), pytrace=False)

    def reportinfo(self) -> tuple[Path, int, str]:
        title = " is a chapter" if self.find is forgotten else ""
        return self.path, 0, f"{self.path.relative_to(ROOT)}{title}"


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> Notebook | None:
    """Collect the notebooks under nbs/."""
    if file_path.suffix == ".ipynb" and file_path in NOTEBOOKS:
        return Notebook.from_parent(parent, path=file_path)
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes long in one piece, the browsers, and end with the notebooks, large ones first.

    Files are handed to the processes in this order, so that none has much left when the others are done.
    """
    order = {path: -path.stat().st_size for path in NOTEBOOKS}
    items.sort(key=lambda item: (item.path in order, "browser" not in item.path.parts, order.get(item.path, 0)))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Iterator[None]:
    """Turn a skip into a failure where everything is supposed to run."""
    report = yield
    if IN_CI and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI=true does not allow: {report.longrepr}"
    return report


pytest_make_collect_report = pytest_runtest_makereport  # also for modules that skip themselves while they are collected
