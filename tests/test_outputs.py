"""What a training run writes appears whole and together, or not at all, whenever the run is killed."""

import os
import random
import threading
import time
from collections.abc import Iterator
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from churn_mlops.formula.file import from_bytes
from churn_mlops.models.train import main
from churn_mlops.models.training import run_training
from churn_mlops.settings import load_settings

OUTPUTS = ["list/call-these.csv", "report/report.html", "report/metrics.csv", "model"]
QUICK = ["--cv-folds", "0", "--model-type", "logistic_regression"]
processes = get_context("forkserver")
processes.set_forkserver_preload(["churn_mlops.models.training", "matplotlib.pyplot"])


def train(folder: Path, seed: int) -> None:
    """Train on sample customers, with everything that a run can write below a folder."""
    os.environ["SOURCE_DATE_EPOCH"] = "1767225600"  # equal runs write equal bytes
    run_training(
        load_settings(
            data={"sample_size": 300},
            split={"seed": seed},
            model={"type": "logistic_regression", "cv_folds": 0},
            output={
                "model_path": folder / "model",
                "report": folder / "report",
                "retention_list": folder / "list" / "call-these.csv",
            },
        )
    )


def start(folder: Path, seed: int) -> BaseProcess:
    """Begin to train in a process of its own."""
    process = processes.Process(target=train, args=(folder, seed))
    process.start()
    return process


def state(folder: Path) -> dict[str, bytes]:
    """Read everything that a run wrote; hidden files, which nobody reads, are not looked at."""
    return {name: (folder / name).read_bytes() for name in OUTPUTS if (folder / name).exists()}


class Runs:
    """Two finished runs, and how long one takes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.states: list[dict[str, bytes]] = []
        for seed in (1, 2):
            began = time.perf_counter()
            start(folder, seed).join()
            self.seconds = time.perf_counter() - began
            self.states.append(state(folder))

    def assert_whole(self) -> None:
        """Fail unless all files are of one of the two runs, once the process that renames them has ended as well."""
        deadline = time.monotonic() + 5
        while (found := state(self.folder)) not in self.states and time.monotonic() < deadline:
            pass
        mixed = {name: [found.get(name) == each[name] for each in self.states] for name in OUTPUTS}
        assert found in self.states, mixed

    def kill_after(self, seconds: float) -> None:
        """Train with the seed that the files are not of, and kill the run after a while."""
        process = start(self.folder, 1 + (state(self.folder) == self.states[0]))
        process.join(seconds)
        process.kill()
        process.join()

    def kill_at(self, name: str) -> None:
        """Train with the other seed, and kill the run as soon as a file is another one."""
        path = self.folder / name
        before = path.stat().st_ino
        process = start(self.folder, 1 + (state(self.folder) == self.states[0]))
        while path.stat().st_ino == before and process.is_alive():
            pass
        process.kill()
        process.join()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    """Train twice."""
    return Runs(tmp_path_factory.mktemp("outputs"))


def test_two_runs_write_all_files_and_differ_in_each(runs: Runs) -> None:
    one, other = runs.states
    assert list(one) == list(other) == OUTPUTS
    assert [name for name in OUTPUTS if one[name] == other[name]] == []


@pytest.mark.parametrize("share", [0.2, 0.6, 0.9])
def test_a_run_killed_at_any_moment_leaves_the_files_of_one_run(share: float, runs: Runs) -> None:
    runs.kill_after(share * runs.seconds)
    runs.assert_whole()


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_run_killed_when_a_file_appears_leaves_the_files_of_one_run(name: str, runs: Runs) -> None:
    runs.kill_at(name)
    runs.assert_whole()


@pytest.mark.proof
def test_30_kills_at_random_and_10_at_each_file_leave_the_files_of_one_run(runs: Runs) -> None:
    moments = random.Random(0)
    for _ in range(30):
        runs.kill_after(moments.uniform(0.1, 1.1) * runs.seconds)
        runs.assert_whole()
    for name in OUTPUTS * 10:
        runs.kill_at(name)
        runs.assert_whole()


# --- refused before anything is read -------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--retention-list", "call.xls"], "ends in .csv or .parquet"),
        (["--retention-list", "customers.csv"], "would take the place of the table of customers"),
        (["--output", "customers.csv"], "would take the place of the table of customers"),
        (["--output", "m.csv", "--retention-list", "./m.csv"], "would take the place of the model file"),
        (["--output", "customers.csv/model"], "model file cannot be written below a file"),
        (["--output", "folder"], "The model file cannot be written"),
        (["--report", "folder/report.html"], "a report is a folder"),
    ],
)
def test_what_cannot_be_written_is_refused_before_the_table_is_read(
    options: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("customers.csv").write_text("this,is,no\ntable")
    with pytest.raises(SystemExit) as ended:
        main(["customers.csv", *QUICK, *options])
    told = capsys.readouterr().err
    assert ended.value.code == 2
    assert message in told
    assert len(told.splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["customers.csv", "folder"]


def test_the_end_of_a_list_may_be_in_capitals(tmp_path: Path) -> None:
    output = {"model_path": tmp_path / "model", "retention_list": tmp_path / "L.CSV"}
    model = {"type": "logistic_regression", "cv_folds": 0}
    run_training(load_settings(data={"sample_size": 300}, model=model, output=output))
    assert (tmp_path / "L.CSV").read_text().startswith("customer_id,")


def test_a_pipe_takes_a_model_and_stays_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # a device of its own: a real one would be lost with the test
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    model = {"type": "logistic_regression", "cv_folds": 0}
    run_training(load_settings(data={"sample_size": 300}, model=model, output={"model_path": tmp_path / "pipe"}))
    reader.join()
    assert from_bytes(got[0]).record.model_type == "logistic_regression"
    assert (tmp_path / "pipe").is_fifo()
