"""A new project in JupyterLab: a feature that is changed in a chapter is in the next release, which says what it is."""

import os
import re
import sysconfig
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab_window import Lab, opened_lab, running_lab

from churn_mlops.data.sample import generate_sample_data
from churn_mlops.formula.file import load
from churn_mlops.project.new import plan_project, write_project
from churn_mlops.settings import DataSettings

ROOT = Path(__file__).resolve().parents[2]
MAKE = f"make BIN={sysconfig.get_path('scripts')}"
CHAPTERS = ["customers", "features", "model", "use"]
QUICK = {"type = blend": "type = logistic_regression", "cv_folds = 5": "cv_folds = 0"}
FILES = ".jp-FileBrowser"  # `make lab` without a notebook shows the folder
OLD = "return table"
NEW = 'return table.assign(paid_per_month=table["total_charges"] / table["tenure"].clip(lower=1))'


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Make a project of few customers and open `make lab` in it; no setting comes from outside."""
    folder = tmp_path_factory.mktemp("project")
    outside = ("CHURN_", "MODEL_PATH", "IN_TEST", "JUPYTER_", "PYTHONPATH")
    mine = {name: value for name, value in os.environ.items() if not name.startswith(outside)}
    mine |= {"PYTHONPATH": str(ROOT), "PIP_NO_INDEX": "1"}  # nothing is installed
    generate_sample_data(600).to_csv(folder / "customers.csv", index=False)
    project = folder / "acme-churn"
    write_project(plan_project(project, DataSettings(path=folder / "customers.csv", id_column="customer_id")), project)
    settings = project / "settings.ini"
    text = settings.read_text(encoding="utf-8")
    assert all(f"\n{slow}\n" in text for slow in QUICK)
    for slow, quick in QUICK.items():
        text = text.replace(f"\n{slow}\n", f"\n{quick}\n")
    settings.write_text(text, encoding="utf-8")
    with running_lab(project, str(folder / "jupyter"), mine, mine, MAKE) as server, opened_lab(server, FILES) as lab:
        lab.run(f"{sysconfig.get_path('scripts')}/nbdev-export && {MAKE} train")
        yield lab


@pytest.fixture(scope="module")
def root(lab: Lab) -> Path:
    """Give the folder of the project."""
    return lab.server.root


@pytest.mark.parametrize("name", CHAPTERS)
def test_chapter_runs_without_an_error(lab: Lab, name: str) -> None:
    lab.open(f"nbs/{name}.ipynb")
    errors = lab.run_all()
    lab.close()
    assert errors == []


@pytest.fixture(scope="module")
def released(lab: Lab, root: Path) -> str:
    """Release 1.0.0, change the feature in the editor and save, train and release 1.1.0; give what that printed."""
    lab.run(f"{MAKE} build VERSION=1.0.0")
    assert OLD in (root / "acme_churn/features.py").read_text(encoding="utf-8")
    lab.open("nbs/features.ipynb")
    lab.replace("The same rows in the same order", OLD, NEW)
    lab.press_save()
    lab.close()
    lab.run(f"{MAKE} train")
    return lab.run(f"{MAKE} build VERSION=1.1.0 ARGS='--compare dist/acme_churn-1.0.0-py3-none-any.whl'")


def needed(root: Path, version: str) -> set[str]:
    """Read which distributions a released wheel brings with it, without extras."""
    with zipfile.ZipFile(root / f"dist/acme_churn-{version}-py3-none-any.whl") as wheel:
        about = wheel.read(f"acme_churn-{version}.dist-info/METADATA").decode()
    return set(re.findall(r"^Requires-Dist: ([\w-]+)(?!.*extra)", about, re.MULTILINE))


def test_saved_feature_is_in_the_module(released: str, root: Path) -> None:
    assert NEW in (root / "acme_churn/features.py").read_text(encoding="utf-8")


def test_model_is_trained_with_the_feature(released: str, root: Path) -> None:
    own = load(root / "models/churn-model.safetensors").record.own
    assert own is not None
    assert own.function == "acme_churn.features:add_features"


def test_wheel_with_the_feature_needs_pandas_and_the_one_before_does_not(released: str, root: Path) -> None:
    assert needed(root, "1.0.0") == {"numpy", "safetensors"}
    assert needed(root, "1.1.0") == {"numpy", "safetensors", "pandas"}


def test_comparison_proposes_a_minor_version_and_names_the_feature_as_reason(released: str) -> None:
    (sentence,) = [line for line in released.splitlines() if line.startswith("since 1.0.0, ")]
    assert sentence.startswith("since 1.0.0, a minor version (1.1.0) is proposed: The answers differ, by up to 0.")
    assert "add_features" in sentence
