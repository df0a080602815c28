"""What the checks are for: each mistake, made on purpose in a copy of the repository, is caught and named."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

HYGIENE = "tests/test_hygiene.py"
CHECKS = (
    "nbs/threads.ipynb",
    "nbs/uplift/score.ipynb",
    f"{HYGIENE}::test_export_leaves_no_diff",
    f"{HYGIENE}::test_links_of_a_notebook_lead_somewhere",
    f"{HYGIENE}::test_sidebar_lists_every_notebook_once",
    f"{HYGIENE}::test_every_subpackage_has_a_layer",
    f"{HYGIENE}::test_every_subpackage_goes_into_the_wheel",
)


def edit(notebook: Path, change: Callable[[list[dict]], None]) -> None:
    """Change the cells of a notebook."""
    content = json.loads(notebook.read_text(encoding="utf-8"))
    change(content["cells"])
    notebook.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def make_stale(cells: list[dict]) -> None:
    """Change what a cell shows."""
    cell = next(cell for cell in cells if cell.get("outputs") and "cores = usable_cores()" in "".join(cell["source"]))
    cell["id"], cell["outputs"][0]["data"]["text/plain"] = "5ta1e000", ["64"]


def edit_code(cells: list[dict]) -> None:
    """Change a function and do not export it."""
    cell = next(cell for cell in cells if "".join(cell["source"]).startswith("#| export\ndef timing"))
    cell["source"].append("    # edited")


def break_link(cells: list[dict]) -> None:
    """Lead a reader to a page that does not exist."""
    cell = next(cell for cell in cells[1:] if cell["cell_type"] == "markdown")
    cell["id"], cell["source"] = "11nk0000", ["See [the chapter on uplift](models/uplift.ipynb)."]


def forget_subpackage(root: Path) -> None:
    """Add a sub-package with a notebook, and nothing of what else that takes."""
    folder = root / "churn_mlops" / "uplift"
    folder.mkdir()
    shutil.copy(root / "churn_mlops" / "threads.py", folder / "score.py")
    (root / "nbs" / "uplift").mkdir()
    text = {"cell_type": "markdown", "id": "t17le000", "metadata": {}, "source": ["Whom does a call move?"]}
    notebook = {"cells": [text], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    (root / "nbs" / "uplift" / "score.ipynb").write_text(json.dumps(notebook), encoding="utf-8")


@pytest.fixture(scope="module")
def said(clean_copy: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Make every mistake in a copy of the repository, run the checks there, and give what each one said."""
    copy = shutil.copytree(clean_copy, tmp_path_factory.mktemp("spoilt") / "churn_mlops", symlinks=True)
    subprocess.run(["git", "init", "--quiet", str(copy)], check=True)
    edit(copy / "nbs" / "threads.ipynb", make_stale)
    edit(copy / "nbs" / "utils.ipynb", edit_code)
    edit(copy / "nbs" / "index.ipynb", break_link)
    forget_subpackage(copy)
    command = [sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider", "-p", "no:xdist", *CHECKS]
    done = subprocess.run(command, cwd=copy, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    parts = re.split(r"^_{3,} (.+?) _{3,}$", done.stdout.partition("short test summary")[0], flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True)) or {"nothing failed": done.stdout}


def test_a_stale_output_is_caught(said: dict[str, str]) -> None:
    report = said["nbs/threads.ipynb"]
    assert re.search(
        r"nbs/threads\.ipynb cell \d+ \(id 5ta1e000, first line '.+'\) is stale: committed '64', now '2'", report
    )


def test_an_edit_that_is_not_exported_is_caught(said: dict[str, str]) -> None:
    report = said["test_export_leaves_no_diff"]
    assert re.search(r"nbdev-export changes .*churn_mlops/utils\.py \(cell \w+\)", report)


def test_a_broken_link_is_caught(said: dict[str, str]) -> None:
    report = said["test_links_of_a_notebook_lead_somewhere[index.ipynb]"]
    assert re.search(r"cell \d+ \(id 11nk0000\): models/uplift\.ipynb leads nowhere", report)


def test_a_page_forgotten_in_the_sidebar_is_caught(said: dict[str, str]) -> None:
    assert "uplift/score.ipynb" in said["test_sidebar_lists_every_notebook_once"]


def test_the_test_of_one_notebook_says_what_was_forgotten(said: dict[str, str]) -> None:
    report = said["nbs/uplift/score.ipynb is a chapter"]
    assert "nbs/uplift/score.ipynb: its first text cell must be `# A title` and `> What it is for.`" in report
    assert "nbs/uplift/score.ipynb: the sidebar in _quarto.yml lists it 0 times" in report


def test_a_subpackage_forgotten_in_the_layers_is_caught(said: dict[str, str]) -> None:
    assert "churn_mlops.uplift" in said["test_every_subpackage_has_a_layer"]


def test_a_subpackage_forgotten_in_the_wheel_is_caught(said: dict[str, str]) -> None:
    assert "churn_mlops.uplift" in said["test_every_subpackage_goes_into_the_wheel"]


def test_nothing_else_is_found(said: dict[str, str]) -> None:
    assert len(said) == len(CHECKS)
