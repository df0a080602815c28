"""What tests share: the Telco file, a clean copy of the repository, the built site."""

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
from filelock import FileLock

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def array_api(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let scikit-learn run its array API check, which it skips without this variable."""
    monkeypatch.setenv("SCIPY_ARRAY_API", "1")


@pytest.fixture(scope="module")
def few_draws() -> Iterator[None]:
    """Draw 25 times instead of 200 where a report says how sure its figures are: quick, and as sure as a test needs."""
    from churn_mlops.evaluation.metrics import error_margins

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
def oldest_releases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a constraints file of the oldest releases that pyproject.toml allows in the base install."""
    allowed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    file = tmp_path_factory.mktemp("releases") / "oldest.txt"
    file.write_text("\n".join(allowed).replace(">=", "=="))
    return file


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
            folder.with_suffix(".txt").write_text(done.stdout, encoding="utf-8")
            shutil.move(copy / "_docs", folder)
    return folder
