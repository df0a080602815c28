"""A scikit-learn Pipeline as a BentoML service."""

import os
from typing import Any

import bentoml
import joblib
import pandas as pd


@bentoml.service(workers=1)
class Churn:
    """The service."""

    def __init__(self) -> None:
        self.saved = joblib.load(os.environ["BENCH_PIPELINE"])

    @bentoml.api
    def predict(self, customer: dict[str, Any]) -> dict[str, float]:
        """Answer for one customer."""
        table = pd.DataFrame([customer]).astype(self.saved["dtypes"])
        return {"churn_probability": float(self.saved["pipeline"].predict_proba(table)[0, 1])}
