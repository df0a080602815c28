"""A small request costs little, however bad its body is: neither a long answer nor much processor time."""

import importlib.util
import json
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest
from fastapi.testclient import TestClient

from churn_mlops.models import ChurnModel
from churn_mlops.serving.app import create_app
from churn_mlops.settings import load_settings

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "bad_bodies.py"


def _script() -> ModuleType:
    """Import the benchmark that sends the same bodies to a real server."""
    spec = importlib.util.spec_from_file_location("bad_bodies", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


BAD = _script()
SHAPES = list(BAD.bodies({"any": 0}))
WIDTHS = ["8 columns", "5,000 columns"]


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TestClient]:
    """Serve a model of usual width and a wide one, whose requests may be of 50 MB."""
    paths = BAD.save_models(tmp_path_factory.mktemp("models"))
    return {
        name: TestClient(create_app(load_settings(serving={"model_path": path, "max_body_bytes": 50_000_000})))
        for name, path in paths.items()
    }


@pytest.fixture(scope="module")
def customers(clients: dict[str, TestClient]) -> dict[str, dict[str, Any]]:
    """Return a good customer of each model."""
    found = {}
    for name, client in clients.items():
        example = client.app.state.model.get().predictor.formula.example  # type: ignore[attr-defined]
        found[name] = {column: 0 if value is None else value for column, value in example.items()}
    return found


def cpu(ask: Callable[[], Any], times: int = 5) -> float:
    """Return the least processor time that a request took, in seconds."""
    taken = []
    for _ in range(times):
        began = time.process_time()
        ask()
        taken.append(time.process_time() - began)
    return min(taken)


def good_batch(customer: dict[str, Any], size: int) -> bytes:
    """Write a good batch of at least so many bytes, with blanks where customers would be too many."""
    one = json.dumps(customer).encode()
    batch = b'{"customers": [' + b", ".join([one] * min(10_000, size // len(one) + 1)) + b"]}"
    return batch.ljust(size)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("width", WIDTHS)
def test_a_bad_body_is_refused_in_few_bytes(
    clients: dict[str, TestClient], customers: dict[str, Any], width: str, shape: str
) -> None:
    path, body = BAD.bodies(customers[width])[shape]
    answer = clients[width].post(path, content=body)
    assert answer.status_code in (413, 422)
    assert len(answer.content) < 20_000
    assert answer.json()["detail"]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("width", WIDTHS)
def test_a_bad_body_costs_in_proportion_to_a_good_one_of_its_size(
    clients: dict[str, TestClient], customers: dict[str, Any], width: str, shape: str
) -> None:
    path, body = BAD.bodies(customers[width])[shape]
    client, good = clients[width], good_batch(customers[width], len(body))
    assert client.post("/predict/batch", content=good).status_code == 200
    expected = cpu(lambda: client.post("/predict/batch", content=good), times=3)
    assert cpu(lambda: client.post(path, content=body)) < 10 * expected


def test_there_are_twenty_shapes() -> None:
    assert len(SHAPES) == 20


def test_what_is_not_looked_at_any_more_is_counted(clients: dict[str, TestClient]) -> None:
    told = clients["5,000 columns"].post("/predict/batch", json={"customers": [{}] * 1_000}).json()
    looked_at = (20 + told["more"]) // 5_000
    assert 0 < looked_at < 1_000
    assert told["unchecked"] == 1_000 - looked_at
    assert {each["loc"][2] for each in told["detail"]} == {0}


def test_the_first_problems_are_found_behind_good_customers(
    clients: dict[str, TestClient], customers: dict[str, Any]
) -> None:
    good = customers["8 columns"]
    told = clients["8 columns"].post("/predict/batch", json={"customers": [*[good] * 5_000, {}, good]}).json()
    assert [each["loc"][2] for each in told["detail"]] == [5_000] * 8
    assert (told["more"], told["unchecked"]) == (0, 0)


def test_keys_in_another_order_cost_about_the_same(clients: dict[str, TestClient], customers: dict[str, Any]) -> None:
    client, customer = clients["5,000 columns"], customers["5,000 columns"]
    turned = dict(reversed(customer.items()))
    answers = [client.post("/predict", json=each) for each in (customer, turned)]
    assert answers[0].json() == answers[1].json()
    in_order, out_of_order = (cpu(lambda each=each: client.post("/predict", json=each)) for each in (customer, turned))
    assert out_of_order < 3 * in_order


def test_a_long_value_is_not_sent_back(clients: dict[str, TestClient], customers: dict[str, Any]) -> None:
    good, client = customers["8 columns"], clients["8 columns"]
    short, long = (client.post("/predict", json={**good, "tenure": "x" * n}).json()["detail"][0] for n in (500, 501))
    assert short["input"] == "x" * 500
    assert "input" not in long


def test_a_date_that_is_none_is_not_quoted(tmp_path: Path) -> None:
    table = pd.DataFrame({"joined": pd.date_range("2020-01-01", periods=200), "x": range(200)})
    path = ChurnModel("logistic_regression").fit(table, [0, 1] * 100).save(tmp_path / "dates.safetensors")
    refused = TestClient(create_app(path)).post("/predict", json={"joined": "yesterday" * 10_000, "x": 1})
    assert (refused.status_code, len(refused.content) < 500) == (422, True)
    assert "ISO 8601" in refused.json()["detail"][0]["msg"]
