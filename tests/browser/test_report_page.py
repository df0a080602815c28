"""The page that `churn-train --report` writes, opened from the disk: quiet, self-contained, readable for everyone."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from window import Mode, Window

from churn_mlops.data import generate_sample_data

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, open_window: Callable[..., Window]) -> Window:
    """Train on a few customers, write the report and open it."""
    folder = tmp_path_factory.mktemp("report")
    generate_sample_data(800).to_csv(folder / "customers.csv", index=False)
    command = [sys.executable, "-m", "churn_mlops.models.train", "customers.csv", "--model-type", "logistic_regression"]
    options = ["--report", "report", "--output", "model.safetensors"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, *options], cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == 0, done.stdout
    window = open_window()
    window.page.goto((folder / "report" / "report.html").as_uri())
    return window


def test_report_opens_without_complaint_or_request(report: Window) -> None:
    assert report.complaints() == []


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_report_is_accessible(report: Window, mode: Mode) -> None:
    report.prefer(mode)
    assert report.violations(mode) == []


def test_report_fits_a_telephone(report: Window) -> None:
    assert report.width(390) <= 390
