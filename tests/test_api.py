"""The HTTP service: what it answers, what it refuses, and that nothing from outside brings it down."""

import importlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx
import numpy as np
import pandas as pd
import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import churn_mlops
from churn_mlops.formula import load
from churn_mlops.models import ChurnModel, ChurnPredictor
from churn_mlops.serving.app import app, create_app
from churn_mlops.serving.command import main
from churn_mlops.serving.model_holder import ModelHolder, ModelUnavailableError, ServedModel

ROOT = Path(__file__).parents[1]
EURO = "Monthly Charges (€)"
CUSTOMER = {
    "tenure": 2,
    EURO: 89.5,
    "contract": "Month-to-month",
    "senior": True,
    "signed-up": "2024-11-03",
    "class": None,
}
KINDS = {
    "tenure": "numeric",
    EURO: "numeric",
    "contract": "categorical",
    "senior": "boolean",
    "signed-up": "date",
    "class": "categorical",
}


def table(n: int = 300) -> pd.DataFrame:
    """Make raw customers of every kind of column, with names that are no Python identifiers among them."""
    rng = np.random.default_rng(42)
    signed = pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 1800, n), unit="D")
    return pd.DataFrame(
        {
            "tenure": rng.integers(0, 72, n),
            EURO: rng.uniform(20, 120, n).round(2),
            "contract": rng.choice(["Month-to-month", "One year", "Two year"], n),
            "senior": rng.random(n) < 0.3,
            "signed-up": signed.strftime("%Y-%m-%d"),
            "class": rng.choice(["A", "B", None], n),
        }
    )


def fitted(model_type: str, labels: tuple[Any, Any] = (0, 1), **params: Any) -> ChurnModel:
    """Fit a model to customers that leave when they are new."""
    customers = table()
    y = np.where(customers["tenure"] < 24, labels[1], labels[0])
    model = ChurnModel(model_type, **params).fit(customers, y)
    model.formula_ = model.formula_.updated(metrics=model.evaluate(customers, y))
    return model


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fitted("logistic_regression", C=0.5).save(tmp_path_factory.mktemp("model") / "churn-model.safetensors")


@pytest.fixture(scope="module")
def forest_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fitted("random_forest", n_estimators=5).save(tmp_path_factory.mktemp("forest") / "churn-model.safetensors")


@pytest.fixture(scope="module")
def client(path: Path) -> TestClient:
    """Return a client of an application that gets no lifespan event."""
    return TestClient(create_app(path))


@pytest.fixture
def no_model(tmp_path: Path) -> TestClient:
    return TestClient(create_app(tmp_path / "none.safetensors"))


def problems(response: httpx.Response) -> list[tuple[list[Any], str]]:
    """Return place and type of all that a 422 complains about."""
    assert response.status_code == 422, response.text
    return [(each["loc"], each["type"]) for each in response.json()["detail"]]


def changed(column: str, raw: str) -> str:
    """Return the customer as JSON text, with raw text in place of one value."""
    parts = {name: json.dumps(value) for name, value in CUSTOMER.items()} | {column: raw}
    return "{" + ", ".join(f"{json.dumps(name)}: {value}" for name, value in parts.items()) + "}"


# --- answers ----------------------------------------------------------------------------------------------------------


def test_the_root_says_what_runs(client: TestClient) -> None:
    assert client.get("/").json() == {"name": "churn_mlops", "version": churn_mlops.__version__, "docs": "/docs"}


def test_health_needs_no_model(no_model: TestClient) -> None:
    health = no_model.get("/health").json()
    assert health.keys() == {"status", "timestamp", "version"}
    assert (health["status"], health["version"]) == ("healthy", churn_mlops.__version__)
    age = datetime.now(UTC) - datetime.fromisoformat(health["timestamp"])
    assert timedelta(0) <= age < timedelta(minutes=1)


def test_predict_answers_what_the_predictor_answers(client: TestClient, path: Path) -> None:
    answer = client.post("/predict", json=CUSTOMER)
    assert answer.status_code == 200
    assert answer.json() == {**ChurnPredictor(path).predict(CUSTOMER), "notes": []}


def test_a_batch_is_answered_in_its_order(client: TestClient, path: Path) -> None:
    customers = [{**CUSTOMER, "tenure": tenure} for tenure in (70, 1, 35)]
    answer = client.post("/predict/batch", json={"customers": customers}).json()
    expected = ChurnPredictor(path).predict_batch(customers)
    assert answer == {"predictions": expected, "total_customers": 3, "notes": []}


def test_model_info_describes_the_model(client: TestClient, path: Path) -> None:
    model = ChurnModel.load(path)
    info = client.get("/model/info").json()
    schema = info.pop("input_schema")
    assert schema["required"] == list(KINDS)
    assert info == {
        "model_type": "logistic_regression",
        "params": {"C": 0.5},
        "columns": KINDS,
        "threshold": 0.5,
        "digest": model.formula_.digest,
        "metrics": dict(model.formula_.record.metrics),
        "trained_at": model.formula_.record.trained_at,
        "n_rows": 300,
        "environment": dict(model.formula_.record.versions),
        "version": churn_mlops.__version__,
    }
    assert {"python", "churn_mlops", "scikit-learn"} <= info["environment"].keys()


def test_model_info_tells_the_version_that_wrote_the_model_from_that_of_the_server(path: Path, tmp_path: Path) -> None:
    formula = load(path)
    older = formula.updated(versions={**formula.record.versions, "churn_mlops": "0.0.9"}).save(tmp_path / "older")
    info = TestClient(create_app(older)).get("/model/info").json()
    assert (info["environment"]["churn_mlops"], info["version"]) == ("0.0.9", churn_mlops.__version__)


def test_every_value_may_be_null(client: TestClient) -> None:
    assert client.post("/predict", json=dict.fromkeys(CUSTOMER)).status_code == 200


def test_a_whole_number_is_fine_for_a_fraction(client: TestClient) -> None:
    whole, fraction = (client.post("/predict", content=changed(EURO, raw)).json() for raw in ("90", "90.0"))
    assert whole == fraction


@pytest.mark.parametrize("date", ["2024-11-03", "2024-11-03T10:00:00", "2024-11-03T10:00:00+02:00", "20241103"])
def test_iso_dates_are_taken(client: TestClient, date: str) -> None:
    assert client.post("/predict", json={**CUSTOMER, "signed-up": date}).status_code == 200


def test_naive_and_aware_dates_may_share_a_batch(client: TestClient) -> None:
    dates = ["2024-11-03", "2024-11-03T10:00:00+02:00", None]
    customers = [{**CUSTOMER, "signed-up": date} for date in dates]
    assert client.post("/predict/batch", json={"customers": customers}).status_code == 200


def test_an_unseen_category_is_scored(client: TestClient) -> None:
    assert client.post("/predict", json={**CUSTOMER, "contract": "Lifetime"}).status_code == 200


def test_keys_that_the_model_does_not_know_change_nothing(client: TestClient) -> None:
    plain = client.post("/predict", json=CUSTOMER).json()
    assert client.post("/predict", json={**CUSTOMER, "colour": ["green"]}).json() == plain
    batch = {"customers": [{**CUSTOMER, "colour": {}}], "sent_by": "crm"}
    (of_batch,) = client.post("/predict/batch", json=batch).json()["predictions"]
    assert {**of_batch, "notes": []} == plain


def test_the_content_type_does_not_matter_when_the_body_is_json(client: TestClient) -> None:
    headers = {"content-type": "text/plain"}
    assert client.post("/predict", content=json.dumps(CUSTOMER), headers=headers).status_code == 200


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["/predict", "/predict/batch"])
@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"{", id="cut off"),
        pytest.param(b"{'tenure': 1}", id="Python"),
        pytest.param(b"\xff\xfe", id="not UTF-8"),
        pytest.param(b"[" * 100_000, id="deep lists"),
        pytest.param(b'{"a":' * 100_000, id="deep objects"),
        pytest.param(b'{"tenure": ' + b"1" * 5_000 + b"}", id="endless number"),
    ],
)
def test_malformed_json_is_refused(client: TestClient, url: str, body: bytes) -> None:
    refused = client.post(url, content=body)
    assert problems(refused) == [(["body"], "json_invalid")]
    assert len(refused.content) < 1_000


@pytest.mark.parametrize("url", ["/predict", "/predict/batch"])
@pytest.mark.parametrize("body", [[], [CUSTOMER], 5, "text", None, True])
def test_a_body_that_is_no_object_is_refused(client: TestClient, url: str, body: Any) -> None:
    assert problems(client.post(url, content=json.dumps(body))) == [(["body"], "model_type")]


def test_every_missing_column_is_named(client: TestClient) -> None:
    assert problems(client.post("/predict", json={})) == [(["body", name], "missing") for name in CUSTOMER]


def test_a_problem_in_a_batch_has_its_place(client: TestClient) -> None:
    without = {name: value for name, value in CUSTOMER.items() if name != EURO}
    refused = client.post("/predict/batch", json={"customers": [CUSTOMER, without, 7]})
    assert problems(refused) == [(["body", "customers", 1, EURO], "missing"), (["body", "customers", 2], "model_type")]


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"customers": []}, "too_short"),
        ({"customers": {}}, "list_type"),
        ({"customers": None}, "list_type"),
        ({"customer": [CUSTOMER]}, "missing"),
    ],
)
def test_a_batch_needs_a_list_of_customers(client: TestClient, body: Any, kind: str) -> None:
    assert problems(client.post("/predict/batch", json=body)) == [(["body", "customers"], kind)]


@pytest.mark.parametrize(
    ("column", "raw"),
    [
        *[("tenure", raw) for raw in ('"2"', "true", "[]", "{}", "NaN", "Infinity", "-Infinity", "1e400", "1" * 401)],
        *[("contract", raw) for raw in ("1", "true", "[]")],
        *[("senior", raw) for raw in ("1", '"yes"', '"true"')],
        *[("signed-up", raw) for raw in ('"3 November"', '"2024-13-01"', "20241103", "1e400", '""')],
    ],
)
def test_a_value_of_another_kind_is_refused_with_its_column(client: TestClient, column: str, raw: str) -> None:
    assert [place for place, _ in problems(client.post("/predict", content=changed(column, raw)))] == [["body", column]]


@pytest.mark.parametrize(
    ("raw", "echo"), [('"2"', "2"), ("true", True), ("NaN", "nan"), ("-Infinity", "-inf"), ("1" * 401, int("1" * 401))]
)
def test_the_wrong_value_is_repeated(client: TestClient, raw: str, echo: Any) -> None:
    assert client.post("/predict", content=changed("tenure", raw)).json()["detail"][0]["input"] == echo


def test_customers_are_not_sent_back(client: TestClient) -> None:
    body = {"customers": [{"contract": "a secret"}], "tenure": "a secret"}
    assert "secret" not in client.post("/predict/batch", json=body).text
    assert "secret" not in client.post("/predict", content='{"contract": "a secret",').text


@pytest.mark.parametrize(
    ("column", "raw"),
    [
        *[("tenure", raw) for raw in ("1e39", "1e300", "-1.7e308", "5e-324")],
        *[("signed-up", raw) for raw in ('"0001-01-01"', '"9999-12-31T23:59:59-14:00"', '"0001-01-01T00:00:00+14:00"')],
        *[("contract", raw) for raw in ('""', '"\\u0000"', '"\\ud800"', '"\U0001f600"')],
    ],
)
@pytest.mark.parametrize("model", ["path", "forest_path"])
def test_extreme_values_are_answered_or_refused(
    model: str, column: str, raw: str, request: pytest.FixtureRequest
) -> None:
    answer = TestClient(create_app(request.getfixturevalue(model))).post("/predict", content=changed(column, raw))
    assert answer.status_code in (200, 422)


def test_what_the_algorithm_cannot_take_is_refused_in_its_words(client: TestClient) -> None:
    with patch.object(ChurnPredictor, "predict_values", side_effect=ValueError("too large for float32")):
        refused = client.post("/predict", json=CUSTOMER)
    assert problems(refused) == [(["body"], "value_error")]
    assert refused.json()["detail"][0]["msg"] == "too large for float32"


DATES = st.dates().map(str) | st.datetimes().map(str)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | DATES
NAMES = st.text() | st.sampled_from([*CUSTOMER])
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(NAMES, inner))
CUSTOMERS = st.fixed_dictionaries({name: st.just(value) | JSON for name, value in CUSTOMER.items()})


@hypothesis_settings(deadline=None, max_examples=200)
@given(url=st.sampled_from(["/predict", "/predict/batch"]), body=JSON | CUSTOMERS)
def test_no_json_brings_the_server_down(client: TestClient, url: str, body: Any) -> None:
    sent = body if url == "/predict" else {"customers": [CUSTOMER, body]}
    assert client.post(url, content=json.dumps(sent)).status_code in (200, 422)


@hypothesis_settings(deadline=None)
@given(body=st.binary())
def test_no_bytes_bring_the_server_down(client: TestClient, body: bytes) -> None:
    assert client.post("/predict", content=body).status_code == 422


# --- no model ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", [("GET", "/model/info"), ("POST", "/predict"), ("POST", "/predict/batch")])
def test_without_a_model_it_says_how_to_give_one(no_model: TestClient, call: tuple[str, str]) -> None:
    refused = no_model.request(*call, content=b"{")
    assert refused.status_code == 503
    detail = refused.json()["detail"]
    assert all(way in detail for way in ["none.safetensors", "MODEL_PATH", "churn-serve MODEL", "churn-train"])


def test_a_file_that_is_no_model_is_503_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "churn-model.safetensors").write_text("tenure,churn\n")
    refused = TestClient(create_app(tmp_path / "churn-model.safetensors")).post("/predict", json=CUSTOMER)
    assert refused.status_code == 503
    detail = refused.json()["detail"]
    assert "churn-model.safetensors is not a churn_mlops model file" in detail
    assert "Traceback" not in detail


def test_a_folder_is_503_with_the_reason(tmp_path: Path) -> None:
    refused = TestClient(create_app(tmp_path)).post("/predict", json=CUSTOMER)
    assert refused.status_code == 503
    assert str(tmp_path) in refused.json()["detail"]


def test_a_model_of_other_labels_is_503_with_the_labels(tmp_path: Path) -> None:
    yes_no = fitted("logistic_regression", labels=("No", "Yes")).save(tmp_path / "yes-no.safetensors")
    refused = TestClient(create_app(yes_no)).post("/predict", json=CUSTOMER)
    assert refused.status_code == 503
    assert "labels ['No', 'Yes']; a predictor needs 0 and 1" in refused.json()["detail"]


def test_settings_that_cannot_be_used_are_503_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHURN_SERVING__PORT", "http")
    refused = TestClient(create_app()).post("/predict", json=CUSTOMER)
    assert refused.status_code == 503
    assert "CHURN_SERVING__PORT" in refused.json()["detail"]


# --- loading ----------------------------------------------------------------------------------------------------------


def test_the_model_path_is_read_when_the_model_is_loaded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_before = TestClient(create_app())
    monkeypatch.setenv("MODEL_PATH", str(path))
    assert made_before.post("/predict", json=CUSTOMER).status_code == 200


def test_the_module_has_an_application() -> None:
    assert TestClient(app).get("/health").status_code == 200


def test_a_model_that_comes_later_is_found(tmp_path: Path, path: Path) -> None:
    later = TestClient(create_app(tmp_path / "later.safetensors"))
    before = later.post("/predict", json=CUSTOMER).status_code
    (tmp_path / "later.safetensors").write_bytes(path.read_bytes())
    assert (before, later.post("/predict", json=CUSTOMER).status_code) == (503, 200)


def test_the_lifespan_loads_the_model(tmp_path: Path, path: Path) -> None:
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(path.read_bytes())
    with TestClient(create_app(copy)) as started:
        copy.unlink()
        assert started.post("/predict", json=CUSTOMER).status_code == 200


def test_the_lifespan_starts_without_a_model(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with TestClient(create_app(tmp_path / "none.safetensors")) as started:
        assert started.get("/health").status_code == 200
    assert "no predictions yet: there is no model file" in caplog.text


def test_threads_that_come_at_once_share_one_load(path: Path) -> None:
    holder, together = ModelHolder(path), threading.Barrier(8)
    loaded = []

    def load(at: Path, max_rows: int, **_: Any) -> ServedModel:
        loaded.append(at)
        return ServedModel(at, max_rows)

    def ask(_: int) -> ServedModel:
        together.wait()
        return holder.get()

    with patch("churn_mlops.serving.model_holder.ServedModel", load), ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(ask, range(8)))
    assert len(loaded) == 1
    assert all(answer is answers[0] for answer in answers)


def test_requests_that_come_at_once_are_all_answered(path: Path) -> None:
    fresh = TestClient(create_app(path))
    with ThreadPoolExecutor(8) as threads:
        statuses = list(threads.map(lambda _: fresh.post("/predict", json=CUSTOMER).status_code, range(16)))
    assert statuses == [200] * 16


def test_the_holder_raises_an_error_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailableError, match="there is no model file"):
        ModelHolder(tmp_path / "none.safetensors").get()


def test_the_module_loads_on_first_use_after_a_reload_without_a_lifespan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = pd.DataFrame({"tenure": np.arange(100.0), "charges": np.arange(100.0) % 7})
    model = ChurnModel("logistic_regression").fit(numbers, (numbers["tenure"] < 40).astype(int))
    monkeypatch.setenv("MODEL_PATH", str(model.save(tmp_path / "numbers.safetensors")))
    app_module = importlib.import_module("churn_mlops.serving.app")
    app_module._predictor = None  # type: ignore[attr-defined]
    importlib.reload(app_module)
    answer = TestClient(app_module.app).post("/predict", json={"tenure": 3, "charges": 5.5})
    assert answer.status_code == 200
    assert (
        answer.json()["churn_probability"]
        == ChurnPredictor(tmp_path / "numbers.safetensors").predict({"tenure": 3, "charges": 5.5})["churn_probability"]
    )
    assert not hasattr(importlib.import_module("churn_mlops.serving"), "FastAPI")
    assert isinstance(importlib.import_module("churn_mlops.serving").app, type(importlib))  # the module, not an object


# --- numbers that were text in training -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def text_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a model whose ``TotalCharges`` were text in training, with blanks, as Telco's are."""
    customers = table().assign(TotalCharges=lambda t: [*t["tenure"].mul(70.5).map(str)[:-3], " ", " ", ""])
    model = ChurnModel("logistic_regression").fit(customers, (customers["tenure"] < 24).astype(int))
    return model.save(tmp_path_factory.mktemp("text") / "churn-model.safetensors")


@pytest.fixture(scope="module")
def text_client(text_path: Path) -> TestClient:
    return TestClient(create_app(text_path))


@pytest.mark.parametrize("same", [108.5, "108.5", " 108.5 ", "+1.085e2", "108.50"])
def test_a_column_learned_from_text_takes_numbers_and_numeric_text(text_client: TestClient, same: Any) -> None:
    expected = text_client.post("/predict", json={**CUSTOMER, "TotalCharges": 108.5}).json()
    assert text_client.post("/predict", json={**CUSTOMER, "TotalCharges": same}).json() == expected
    batch = text_client.post("/predict/batch", json={"customers": [{**CUSTOMER, "TotalCharges": same}]}).json()
    assert batch["predictions"][0]["churn_probability"] == pytest.approx(expected["churn_probability"], abs=1e-12)


@pytest.mark.parametrize("blank", ["", " ", "\t", None])
def test_blank_text_is_missing_where_numbers_were_text(text_client: TestClient, blank: Any) -> None:
    expected = text_client.post("/predict", json={**CUSTOMER, "TotalCharges": None}).json()
    assert text_client.post("/predict", json={**CUSTOMER, "TotalCharges": blank}).json() == expected


@pytest.mark.parametrize(
    "raw", ['"a lot"', '"1_0"', '"nan"', '"inf"', '"1e400"', '"1,5"', "true", "[]", "NaN", "1e400", f'"{"1" * 101}"']
)
def test_what_is_no_number_is_refused_once_where_numbers_were_text(text_client: TestClient, raw: str) -> None:
    refused = text_client.post("/predict", content=changed("TotalCharges", raw))
    assert [place for place, _ in problems(refused)] == [["body", "TotalCharges"]]


def test_other_numbers_stay_strict_beside_one_that_was_text(text_client: TestClient) -> None:
    refused = text_client.post("/predict", json={**CUSTOMER, "TotalCharges": "1", "tenure": "2"})
    assert problems(refused) == [(["body", "tenure"], "float_type")]


def test_the_document_says_that_a_number_may_be_text(text_client: TestClient) -> None:
    kinds = {
        name: [each.get("type") for each in schema["anyOf"]]
        for name, schema in body_schema(text_client, "/predict")["properties"].items()
    }
    assert kinds["TotalCharges"] == ["number", "string", "null"]
    assert kinds["tenure"] == ["number", "null"]


# --- documentation ----------------------------------------------------------------------------------------------------


def body_schema(client: TestClient, url: str) -> dict[str, Any]:
    """Return the schema of the body of a request from the OpenAPI document."""
    document = client.get("/openapi.json").json()
    reference = document["paths"][url]["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    schema: dict[str, Any] = document["components"]["schemas"][reference.rpartition("/")[2]]
    return schema


def test_the_document_shows_the_columns_of_the_model(client: TestClient) -> None:
    schema = body_schema(client, "/predict")
    assert list(schema["properties"]) == schema["required"] == list(CUSTOMER)


def test_the_example_in_the_document_is_a_good_request(client: TestClient) -> None:
    example = body_schema(client, "/predict")["example"]
    assert client.post("/predict", json=example).status_code == 200


def test_a_batch_in_the_document_is_a_list_of_customers(client: TestClient) -> None:
    customers = body_schema(client, "/predict/batch")["properties"]["customers"]
    assert (customers["items"]["$ref"], customers["minItems"]) == ("#/components/schemas/Customer", 1)


def test_without_a_model_the_document_has_a_plain_object_and_a_note(no_model: TestClient) -> None:
    schema = body_schema(no_model, "/predict")
    assert schema["type"] == "object"
    assert "properties" not in schema
    assert "churn-serve MODEL" in schema["description"]
    assert body_schema(no_model, "/predict/batch")["properties"]["customers"]["type"] == "array"


def test_the_document_follows_the_model(tmp_path: Path, path: Path) -> None:
    later = TestClient(create_app(tmp_path / "later.safetensors"))
    assert "properties" not in body_schema(later, "/predict")
    (tmp_path / "later.safetensors").write_bytes(path.read_bytes())
    assert "properties" in body_schema(later, "/predict")


def test_the_document_is_made_once_for_a_model(path: Path) -> None:
    application = create_app(path)
    assert application.openapi() is application.openapi()


@pytest.mark.parametrize("fixture", ["client", "no_model"])
def test_every_reference_in_the_document_has_a_target(fixture: str, request: pytest.FixtureRequest) -> None:
    text = request.getfixturevalue(fixture).get("/openapi.json").text
    named = set(re.findall(r'"#/components/schemas/([^"]+)"', text))
    assert named <= json.loads(text)["components"]["schemas"].keys()


@pytest.mark.parametrize("names", [("$ref", "$defs"), ("self", "model_config"), ("", " "), ("a/b~c", "\u2028")])
def test_columns_may_have_names_that_mean_something_elsewhere(names: tuple[str, str], tmp_path: Path) -> None:
    table = pd.DataFrame({names[0]: range(100), names[1]: ["x", "y"] * 50})
    fitted = ChurnModel("logistic_regression").fit(table, [0, 0, 1, 1] * 25)
    odd = TestClient(create_app(fitted.save(tmp_path / "odd")))
    assert list(odd.get("/model/info").json()["input_schema"]["properties"]) == list(names)
    assert odd.post("/predict", json=body_schema(odd, "/predict")["example"]).status_code == 200


def test_refusals_are_documented(client: TestClient) -> None:
    responses = client.get("/openapi.json").json()["paths"]["/predict"]["post"]["responses"]
    assert responses.keys() == {"200", "408", "413", "422", "503"}


def test_the_documentation_page_is_there_without_a_model(no_model: TestClient) -> None:
    assert no_model.get("/docs").status_code == 200


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(path: Path) -> Iterator[str]:
    """Start a real server on a free port, wait until it says that it is ready, and return its address."""
    command = [sys.executable, "-m", "churn_mlops.serving.command", str(path), "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield ready(process)
        finally:
            process.terminate()
            process.communicate()


def ready(process: "subprocess.Popen[str]") -> str:
    """Read what a server says up to the line with its address, which it listens on by then; return the address."""
    seen = []
    for line in process.stderr or []:
        seen.append(line)
        if found := re.search(r"churn-serve: .+ at (http://\S+)", line):
            return found[1]
    raise AssertionError("".join(seen))


def test_a_real_server_predicts(server: str, path: Path) -> None:
    answer = httpx.post(f"{server}/predict", json=CUSTOMER)
    assert answer.json() == {**ChurnPredictor(path).predict(CUSTOMER), "notes": []}


def test_a_real_server_refuses(server: str) -> None:
    assert problems(httpx.post(f"{server}/predict", content=b"{")) == [(["body"], "json_invalid")]


def test_ctrl_c_ends_the_command_cleanly(path: Path) -> None:
    command = [sys.executable, "-m", "churn_mlops.serving.command", str(path), "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        httpx.get(f"{ready(process)}/health")
        process.send_signal(signal.SIGINT)
        _, log = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "Traceback" not in log


def failure(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """Run the command, which must end with exit code 2 and one line; return the line."""
    with pytest.raises(SystemExit) as ended:
        main(argv)
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("churn-serve: error: ")
    return line


def test_a_missing_model_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert f"no model file {tmp_path / 'none.safetensors'}" in failure(capsys, str(tmp_path / "none.safetensors"))


def test_a_file_that_is_no_model_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_text("tenure,churn\n")
    assert "is not a churn_mlops model file" in failure(capsys, str(tmp_path / "model.safetensors"))


def test_a_port_in_use_is_one_line(capsys: pytest.CaptureFixture[str], path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = failure(capsys, str(path), "--port", str(port))
    assert line.endswith(f"127.0.0.1:{port}: Address already in use; choose another --host or --port")


def test_an_address_of_another_machine_is_one_line(capsys: pytest.CaptureFixture[str], path: Path) -> None:
    line = failure(capsys, str(path), "--host", "192.0.2.1", "--port", "0")
    assert "cannot listen on 192.0.2.1:0: Cannot assign requested address" in line


def test_a_port_that_is_no_port_is_one_line(capsys: pytest.CaptureFixture[str], path: Path) -> None:
    assert "option port" in failure(capsys, str(path), "--port", "70000")


def test_the_model_comes_from_the_settings_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "run.ini").write_text("[serving]\nmodel_path = chosen.safetensors\n")
    with patch.dict(os.environ):
        os.environ.pop("MODEL_PATH", None)
        assert str(tmp_path / "chosen.safetensors") in failure(capsys, "--settings", str(tmp_path / "run.ini"))


@pytest.mark.slow
def test_the_command_answers_without_pandas_scikit_learn_or_scipy(path: Path) -> None:
    code = """
import json, sys
import churn_mlops.serving.command, churn_mlops.serving.protocol
from fastapi.testclient import TestClient
from churn_mlops.formula import load
from churn_mlops.serving.app import create_app
client, example = TestClient(create_app(sys.argv[1])), load(sys.argv[1]).example
for path, body in (("/predict", example), ("/explain", example), ("/predict/batch", {"customers": [example] * 100})):
    assert client.post(path, json=body).status_code == 200
print(json.dumps([*sys.modules]))
"""
    done = subprocess.run([sys.executable, "-c", code, path], cwd=ROOT, capture_output=True, text=True, check=True)
    assert {"pandas", "sklearn", "scipy", "joblib", "threadpoolctl", "skops"} & {*json.loads(done.stdout)} == set()


# --- the extra --------------------------------------------------------------------------------------------------------


def without(module: str, code: str) -> "subprocess.CompletedProcess[str]":
    """Run Python code in a process that lacks a module."""
    code = f"import sys; sys.modules[{module!r}] = None; {code}"
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_app_without_fastapi_says_how_to_install_it() -> None:
    last = without("fastapi", "import churn_mlops.serving.app").stderr.splitlines()[-1]
    assert last == 'ImportError: serving over HTTP needs fastapi: pip install "churn_mlops[api]"'


@pytest.mark.parametrize("module", ["fastapi", "uvicorn"])
def test_the_command_without_the_extra_says_so_in_one_line(module: str, path: Path) -> None:
    ended = without(module, f"from churn_mlops.serving.command import main; main([{str(path)!r}])")
    told = f'churn-serve: error: serving over HTTP needs {module}: pip install "churn_mlops[api]"\n'
    assert (ended.returncode, ended.stderr) == (2, told)
