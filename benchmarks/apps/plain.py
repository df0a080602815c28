"""What one writes first: a FastAPI endpoint around a scikit-learn Pipeline."""

import os
from typing import Any

import joblib
import pandas as pd
from fastapi import FastAPI

saved = joblib.load(os.environ["BENCH_PIPELINE"])
app = FastAPI()


@app.post("/predict")
async def predict(customer: dict[str, Any]) -> dict[str, float]:
    """Answer for one customer."""
    table = pd.DataFrame([customer]).astype(saved["dtypes"])
    return {"churn_probability": float(saved["pipeline"].predict_proba(table)[0, 1])}
