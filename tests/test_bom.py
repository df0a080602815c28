"""The bill of materials: valid, whole, and the same for the same model."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from churn_mlops.data import generate_sample_data
from churn_mlops.formula.file import load
from churn_mlops.formula.formula import Formula
from churn_mlops.models import train_model
from churn_mlops.pipelines.bom import bom_of


@pytest.fixture(scope="module")
def formula() -> Formula:
    table = generate_sample_data(400)
    X, y = table.drop(columns=["customer_id", "churn"]), table["churn"]
    model, _ = train_model(X[:300], y[:300], X[300:], y[300:], "logistic_regression")
    return model.formula_.updated(
        data={"fingerprint": "sha256:0123", "n_rows": 400, "n_columns": 8, "churn_rate": 0.25},
        intervals={"roc_auc": 0.04},
        settings={"split": {"test_size": 0.25, "seed": 42}},
        commit="c0ffee",
    )


def properties(text: str) -> Mapping[str, str]:
    return {each["name"]: each["value"] for each in json.loads(text)["metadata"]["component"]["properties"]}


def test_the_schema_of_cyclonedx_accepts_it(formula: Formula) -> None:
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(bom_of(formula, "acme-churn", "1.0.0")) is None


def test_the_schema_accepts_the_least_that_a_formula_can_be() -> None:
    text = bom_of(Formula(columns=(), intercept=0.0), "acme-churn", "1.0.0")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None


def test_the_hash_is_that_of_the_file(formula: Formula, tmp_path: Path) -> None:
    path = formula.save(tmp_path / "model")
    component: dict[str, Any] = json.loads(bom_of(load(path), "acme-churn", "1.0.0"))["metadata"]["component"]
    assert component["hashes"] == [{"alg": "SHA-256", "content": hashlib.sha256(path.read_bytes()).hexdigest()}]


def test_the_figures_of_the_card_are_properties(formula: Formula) -> None:
    found = properties(bom_of(formula, "acme-churn", "1.0.0"))
    for name, value in formula.record.metrics.items():
        assert float(found[f"churn_mlops:metric:{name}"]) == value
    assert found["churn_mlops:half_interval_95:roc_auc"] == "0.04"
    assert found["churn_mlops:data:fingerprint"] == "sha256:0123"
    assert found["churn_mlops:rows"] == "300"
    assert found["churn_mlops:threshold"] == "0.5"
    assert found["churn_mlops:settings:split:seed"] == "42"
    assert found["churn_mlops:commit"] == "c0ffee"


def test_the_libraries_that_trained_are_components_and_not_shipped(formula: Formula) -> None:
    content = json.loads(bom_of(formula, "acme-churn", "1.0.0"))
    assert {each["name"]: each["version"] for each in content["components"]} == formula.record.versions
    assert {each["scope"] for each in content["components"]} == {"excluded"}


def test_the_card_is_referred_to(formula: Formula) -> None:
    content = json.loads(bom_of(formula, "acme-churn", "1.0.0", card="_model/card.md"))
    assert content["metadata"]["component"]["externalReferences"] == [{"type": "model-card", "url": "_model/card.md"}]


def test_the_same_model_gives_the_same_text_on_another_day(formula: Formula, tmp_path: Path) -> None:
    text = bom_of(formula, "acme-churn", "1.0.0")
    assert text == bom_of(load(formula.save(tmp_path / "model")), "acme-churn", "1.0.0")
    assert json.loads(text)["metadata"]["timestamp"] == formula.record.trained_at.replace("Z", "+00:00")


def test_another_version_has_another_serial_number(formula: Formula) -> None:
    numbers = {json.loads(bom_of(formula, "acme-churn", each))["serialNumber"] for each in ("1.0.0", "1.0.1")}
    assert len(numbers) == 2
