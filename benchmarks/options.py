"""What every benchmark of the package is told: which customers it runs on, and where its table is kept."""

import os
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer

from churn_mlops.commands import one_line_errors
from churn_mlops.models.train import load_customers, prepare_customers
from churn_mlops.settings import DataSettings, SplitSettings

ROOT = Path(__file__).resolve().parents[1]

DataArgument = Annotated[Path | None, typer.Argument(help="A file of customers. Without it: Telco or sample data.")]
SampleOption = Annotated[int | None, typer.Option(help="Use sample data of this many customers.")]
JsonFileOption = Annotated[
    Path | None, typer.Option("--json", help="Also write the table to this JSON file, for the site.")
]


def settings_for(path: Path | None, sample_size: int | None, **named: str | None) -> DataSettings:
    """Choose the file that was named, else the Telco file if it is there and no sample is asked for, else a sample."""
    telco = Path(os.environ.get("CHURN_TELCO_CSV", ROOT.parent / "shared" / "data" / "telco.csv"))
    if path is None and sample_size is None and telco.is_file():
        return DataSettings(path=telco, target="Churn", id_column="customerID")
    given = {"path": path, "sample_size": sample_size, **named}
    return DataSettings(**{name: value for name, value in given.items() if value is not None})


def customers(path: Path | None, sample_size: int | None, **named: str | None) -> tuple[pd.DataFrame, pd.Series, str]:
    """Read the columns to learn from and the outcome, and say what they are; end with one line where that fails."""
    with one_line_errors("benchmark"):
        settings = settings_for(path, sample_size, **named)
        table = prepare_customers(load_customers(settings), settings, SplitSettings())
    source = "sample data" if settings.path is None else settings.path.name
    described = f"{source}: {len(table.y):,} customers, {table.X.shape[1]} columns, {table.y.mean():.1%} churned"
    return table.X, table.y, described
