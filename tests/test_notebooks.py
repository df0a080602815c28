"""How outputs are compared with what is committed, and kept for as long as nothing has changed."""

import base64
import io
import json
import subprocess
import sys
from pathlib import Path

import notebooks
import pytest
from PIL import Image, ImageDraw

CELL = "aaaaaaaa"
SOURCE = "total = 1 + 1\ntotal"


def text(shown: str, kind: str = "text/plain") -> list[dict]:
    """Give the output of a cell that shows a text."""
    return [{"output_type": "execute_result", "data": {kind: [shown]}, "metadata": {}, "execution_count": None}]


def picture(height: int) -> list[dict]:
    """Give the output of a cell that draws one bar."""
    image, file = Image.new("RGB", (200, 100), "white"), io.BytesIO()
    ImageDraw.Draw(image).rectangle((80, 100 - height, 120, 100), fill="black")
    image.save(file, "png")
    return text(base64.b64encode(file.getvalue()).decode(), "image/png")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a project of one notebook and one module, and let the tools work there."""
    (tmp_path / "nbs").mkdir()
    (tmp_path / "churn_mlops").mkdir()
    (tmp_path / "churn_mlops" / "part.py").write_text("x = 1\n")
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "churn_mlops"\nversion = "1"\n[tool.nbdev]\nnbs_path = "nbs"\nlib_path = "churn_mlops"\n'
    )
    (tmp_path / "settings.ini").write_text("")
    monkeypatch.setattr(notebooks, "ROOT", tmp_path)
    monkeypatch.setattr(notebooks, "EXECUTED", tmp_path / "_executed")
    write(tmp_path / "nbs" / "part.ipynb", text("2"))
    return tmp_path


def write(path: Path, outputs: list[dict], source: str = SOURCE, prose: str = "# Part\n\n> A part.") -> Path:
    """Write a notebook of a text and a cell."""
    code = {"cell_type": "code", "id": CELL, "metadata": {}, "execution_count": None}
    cells = [
        {"cell_type": "markdown", "id": "bbbbbbbb", "metadata": {}, "source": prose.splitlines(True)},
        {**code, "outputs": outputs, "source": source.splitlines(True)},
    ]
    kernel = {"kernelspec": {"display_name": "python3", "language": "python", "name": "python3"}}
    path.write_text(json.dumps({"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}))
    return path


def change(project: Path, old: list[dict], new: list[dict], source: str = SOURCE) -> str:
    """Say how the one cell is stale, if it is."""
    path = write(project / "nbs" / "part.ipynb", old, source)
    return notebooks.stale(path, {CELL: new}).get(CELL, "")


SAME = {
    "a thousandth": ("profit 12,345.6", "profit 12,347.1"),
    "one in the last place": ("auc 0.84", "auc 0.85"),
    "two zeros": ("1.1e-16", "-2.3e-17"),
    "the width of a column": ("a    1.0\nb  100.0", "a   1.0\nb 100.0"),
    "a moment": ("at 2026-01-02T03:04:05.678Z", "at 2027-01-02T03:04:05.1+00:00"),
    "a moment in seconds": ("created 1.7954513477963586e+09", "created 1.912345678e+09"),
    "a random id": ("request 6f2bb0bcb70c1579", "request 180b7568da856798"),
}
STALE = {
    "a count": ("12 customers", "13 customers"),
    "two in the last place": ("auc 0.84", "auc 0.86"),
    "one in a hundred": ("profit 12,345", "profit 12,469"),
    "a sign": ("-0.5", "0.5"),
    "a word": ("will churn", "will stay"),
    "a column": ("a b", "a b c"),
    "a name with a digit": ("C00012", "C00013"),
}


@pytest.mark.parametrize("case", SAME)
def test_outputs_that_may_differ(project: Path, case: str) -> None:
    old, new = map(text, SAME[case])
    assert change(project, old, new) == ""


@pytest.mark.parametrize("case", STALE)
def test_outputs_that_may_not_differ(project: Path, case: str) -> None:
    old, new = map(text, STALE[case])
    assert change(project, old, new) != ""


def test_a_stale_cell_is_named(project: Path) -> None:
    assert change(project, text("3"), text("2")) == (
        "nbs/part.ipynb cell 2 (id aaaaaaaa, first line 'total = 1 + 1') is stale: committed '3', now '2'"
    )


def test_a_cell_may_say_that_its_numbers_vary(project: Path) -> None:
    source = "#| numbers: vary\n" + SOURCE
    assert change(project, text("took 3.1 ms"), text("took 99 ms"), source) == ""
    assert change(project, text("took 3.1 ms"), text("took 3.1 hours"), source) != ""


def test_a_notebook_lacks_data_where_the_variable_it_names_is_not_set(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(project / "nbs" / "part.ipynb", text("2"), "#| data: CHURN_SOME_FILE\n" + SOURCE)
    monkeypatch.setenv("CHURN_SOME_FILE", "here.csv")
    assert not notebooks.lacks_data(path)
    monkeypatch.delenv("CHURN_SOME_FILE")
    assert notebooks.lacks_data(path)


def test_tables_are_compared_by_their_text(project: Path) -> None:
    old = text("<style>td {width: 1px}</style><td id='a1'>churn</td>", "text/html")
    assert change(project, old, text("<td id='b2'>churn</td>", "text/html")) == ""
    assert change(project, old, text("<td id='a1'>stay</td>", "text/html")) != ""


def test_pictures_are_compared_by_what_they_show(project: Path) -> None:
    assert change(project, picture(60), picture(60)) == ""
    assert "its picture has changed" in change(project, picture(60), picture(20))
    assert change(project, picture(60), []) != ""


def test_the_pieces_of_a_stream_are_one(project: Path) -> None:
    pieces = [{"output_type": "stream", "name": "stdout", "text": [piece]} for piece in ("one ", "two")]
    assert change(project, pieces, [{"output_type": "stream", "name": "stdout", "text": "one two"}]) == ""


def test_a_run_gives_what_the_cells_show(project: Path) -> None:
    result = notebooks.run(project / "nbs" / "part.ipynb")
    assert result.failure == ""
    assert result.outputs[CELL][0]["data"] == {"text/plain": ["2"]}


def test_a_run_tells_which_cell_raised(project: Path) -> None:
    path = write(project / "nbs" / "part.ipynb", [], "1 / 0")
    assert "ZeroDivisionError" in notebooks.run(path).failure
    assert notebooks.kept(path) is None


def test_a_run_survives_the_end_of_its_process(project: Path) -> None:
    path = write(project / "nbs" / "part.ipynb", [], "import os\nos._exit(3)")
    assert "exit code 3" in notebooks.run(path).failure


class TestWhatIsKept:
    """The executed copy of a notebook serves for as long as its code, the package and the releases are the same."""

    @pytest.fixture
    def path(self, project: Path) -> Path:
        path = project / "nbs" / "part.ipynb"
        notebooks._keep(path, notebooks.Run({CELL: text("kept")}, content=notebooks.fingerprint(path)))
        return path

    def test_it_serves_when_nothing_has_changed(self, path: Path) -> None:
        kept = notebooks.kept(path)
        assert kept is not None
        assert kept.outputs == {CELL: text("kept")}

    def test_it_serves_in_every_process(self, path: Path) -> None:
        code = f"""
import sys, pathlib, fastcore.all
sys.path.insert(0, {str(Path(notebooks.__file__).parent)!r})
import notebooks
notebooks.ROOT = pathlib.Path({str(notebooks.ROOT)!r})
print(notebooks.fingerprint(notebooks.ROOT / "nbs" / "part.ipynb"))
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == notebooks.fingerprint(path)

    def test_it_serves_when_prose_has_changed(self, path: Path) -> None:
        write(path, text("2"), prose="# Part\n\n> Another text.")
        copy = json.loads((notebooks.executed() / "part.ipynb").read_text())
        assert copy["cells"][0]["source"] == ["# Part\n", "\n", "> Another text."]
        assert copy["cells"][1]["outputs"] == text("kept")

    def test_it_does_not_when_code_has_changed(self, path: Path) -> None:
        write(path, text("2"), source="total = 1 + 2\ntotal")
        assert notebooks.kept(path) is None

    def test_it_does_not_when_the_package_has_changed(self, path: Path, project: Path) -> None:
        (project / "churn_mlops" / "part.py").write_text("x = 2\n")
        assert notebooks.kept(path) is None

    def test_it_does_not_when_it_is_half_written(self, path: Path, project: Path) -> None:
        copy = project / "_executed" / "part.ipynb"
        copy.write_bytes(copy.read_bytes()[:-20])
        assert notebooks.kept(path) is None

    def test_it_does_not_when_something_was_edited_while_the_notebook_ran(self, project: Path) -> None:
        source = "from pathlib import Path\nPath('../churn_mlops/part.py').write_text('x = 3')"
        path = write(project / "nbs" / "part.ipynb", [], source)
        assert notebooks.run(path).failure == ""
        assert notebooks.kept(path) is None

    def test_it_goes_with_its_notebook(self, path: Path, project: Path) -> None:
        path.unlink()
        notebooks.executed()
        assert not (project / "_executed" / "part.ipynb").exists()
