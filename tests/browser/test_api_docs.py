"""The page `/docs` of a running server, in a browser: it works without another host, and sends a prediction."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from window import Window

from churn_mlops.data import generate_sample_data
from churn_mlops.models import ChurnModel

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run `churn-serve` with a small model; give its address."""
    table = generate_sample_data(400)
    model = ChurnModel("logistic_regression").fit(table.drop(columns=["customer_id", "churn"]), table["churn"])
    path = model.save(tmp_path_factory.mktemp("model") / "churn-model.safetensors")
    command = [sys.executable, "-m", "churn_mlops.serving.command", str(path), "--port", "0"]
    environment = {**os.environ, "CHURN_THREADS": "1"}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True) as server:
        try:
            said = ""
            for line in server.stderr or ():
                said += line
                if found := re.search(r"churn-serve: .+ at (http://\S+)", line):
                    yield found[1]
                    break
            else:
                pytest.fail(f"churn-serve did not start:\n{said}")
        finally:
            server.terminate()
            server.communicate(timeout=60)


@pytest.fixture(scope="module")
def docs(address: str, open_window: Callable[..., Window]) -> Window:
    """Open the page and wait until it shows the operations."""
    window = open_window()
    window.page.goto(f"{address}/docs")
    window.page.locator(".opblock").first.wait_for()
    return window


def test_page_opens_without_complaint_or_other_host(docs: Window) -> None:
    assert docs.complaints() == []


def test_page_lists_every_operation(docs: Window) -> None:
    paths = docs.page.locator(".opblock-summary-path").all_text_contents()
    shown = {path.replace("\u200b", "") for path in paths}
    assert shown == {"/", "/health", "/ready", "/metrics", "/model/info", "/predict", "/predict/batch", "/explain"}


def test_page_sends_a_prediction(docs: Window) -> None:
    page = docs.page
    block = page.locator(".opblock-post", has=page.locator('[data-path="/predict"]'))
    block.locator(".opblock-summary-control").click()
    block.get_by_role("button", name="Try it out").click()
    block.get_by_role("button", name="Execute").click()
    answered = block.locator(".live-responses-table")
    answered.wait_for()
    assert answered.locator("tbody td.response-col_status").first.inner_text().startswith("200")
    answer = json.loads(answered.locator("code.language-json").first.inner_text())
    assert 0 <= answer["churn_probability"] <= 1
    assert docs.complaints() == []


def test_page_fits_a_telephone(docs: Window) -> None:
    assert docs.width(390) <= 390
