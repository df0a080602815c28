"""How notebooks are executed, and how what they show is compared with what is committed."""

import base64
import io
import json
from pathlib import Path

import chapters
import pytest
from PIL import Image, ImageDraw

from churn_mlops.lab.outputs import lacking, main, problems, project_notebooks, read, run, stale

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
    """Make a project of one notebook and one module, and let the rules of a chapter hold there."""
    (tmp_path / "nbs").mkdir()
    (tmp_path / "churn_mlops").mkdir()
    (tmp_path / "churn_mlops" / "part.py").write_text("x = 1\n")
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "churn_mlops"\nversion = "1"\n[tool.nbdev]\nnbs_path = "nbs"\nlib_path = "churn_mlops"\n'
    )
    (tmp_path / "settings.ini").write_text("")
    monkeypatch.setattr(chapters, "ROOT", tmp_path)
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
    return stale(path, {CELL: new}).get(CELL, "")


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
    assert not lacking(path)
    monkeypatch.delenv("CHURN_SOME_FILE")
    assert lacking(path)


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


@pytest.mark.parametrize(
    ("source", "prose", "sidebar", "told"),
    [
        (SOURCE, "# Part\n\n> A part.", "- part.ipynb", []),
        (SOURCE, "", "- part.ipynb", ["its first text cell must be `# A title` and `> What it is for.`"]),
        (SOURCE, "# Part\n\n> A part.\n\nMore.", "- part.ipynb", ["its first text cell must be"]),
        (SOURCE, "# Part\n\n> A part.", "- apart.ipynb", ["the sidebar in _quarto.yml lists it 0 times"]),
        ("#| export\nx = 1", "# Part\n\n> A part.", "- part.ipynb", ["it exports to no module"]),
        ("#| default_exp old", "# Part\n\n> A part.", "- part.ipynb", ["its path wants `#| default_exp part`"]),
    ],
)
def test_what_was_forgotten_is_said(project: Path, source: str, prose: str, sidebar: str, told: list[str]) -> None:
    path = write(project / "nbs" / "part.ipynb", [], source, prose)
    (project / "_quarto.yml").write_text(f"website:\n  sidebar:\n    contents:\n      {sidebar}\n")
    found = chapters.forgotten(path)
    assert len(found) == len(told)
    assert all(words in each and each.startswith("nbs/part.ipynb: ") for words, each in zip(told, found, strict=True))


def test_a_run_gives_what_the_cells_show(project: Path) -> None:
    result = run(project / "nbs" / "part.ipynb")
    assert result.failure == ""
    assert result.outputs[CELL][0]["data"] == {"text/plain": ["2"]}


def test_a_run_tells_which_cell_raised(project: Path) -> None:
    path = write(project / "nbs" / "part.ipynb", [], "1 / 0")
    assert "ZeroDivisionError" in run(path).failure


def test_a_run_survives_the_end_of_its_process(project: Path) -> None:
    path = write(project / "nbs" / "part.ipynb", [], "import os\nos._exit(3)")
    assert "exit code 3" in run(path).failure


def test_what_is_stale_is_written_into_the_notebook(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(project / "nbs" / "part.ipynb", text("3"))
    with pytest.raises(SystemExit) as ended:
        main([str(path)])
    assert ended.value.code == 0
    assert "is stale: committed '3', now '2'" in capsys.readouterr().out
    assert read(path)["cells"][1]["outputs"][0]["data"] == {"text/plain": ["2"]}


def test_a_cell_that_raises_ends_the_command_and_changes_no_notebook(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(project / "nbs" / "part.ipynb", text("3"), "1 / 0")
    before = path.read_bytes()
    with pytest.raises(SystemExit, match="1"):
        main([str(path)])
    assert "ZeroDivisionError" in capsys.readouterr().err
    assert path.read_bytes() == before


def command(*arguments: str) -> int:
    """Run `churn-notebooks` and return its exit code."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code)


def test_check_names_the_stale_cell_and_writes_nothing(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(project / "nbs" / "part.ipynb", text("3"))
    before = path.read_bytes()
    assert command(str(path), "--check") == 1
    assert "nbs/part.ipynb cell 2 (id aaaaaaaa" in capsys.readouterr().out
    assert path.read_bytes() == before


def test_check_of_what_is_true_says_nothing(
    project: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project / "churn_mlops")
    assert command("--check") == 0
    assert capfd.readouterr() == ("", "")


def test_notebooks_of_another_project_are_found_from_any_of_its_folders(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(project / "nbs" / "_draft.ipynb", text("3"))
    monkeypatch.chdir(project / "churn_mlops")
    assert project_notebooks() == [project / "nbs/part.ipynb"]


def test_figures_have_the_style_of_their_project(project: Path) -> None:
    (project / "nbs/matplotlibrc").write_text("lines.linewidth: 7.5\n")
    source = "import matplotlib\nmatplotlib.rcParams['lines.linewidth']"
    path = write(project / "nbs" / "part.ipynb", text("7.5"), source)
    assert problems(path) == []


def test_what_is_left_because_its_data_is_not_here_is_said(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CHURN_SOME_FILE", raising=False)
    path = write(project / "nbs" / "part.ipynb", text("3"), "#| data: CHURN_SOME_FILE\n" + SOURCE)
    before = path.read_bytes()
    assert command(str(path)) == 0
    assert capsys.readouterr().err == "note: part.ipynb was not compared: set CHURN_SOME_FILE\n"
    assert path.read_bytes() == before


MISTAKES = {
    "no such file": ("gone.ipynb", "No such file or directory"),
    "no notebook": ("nbs/notes.ipynb", "nbs/notes.ipynb is no notebook"),
    "no project": ("../alone/part.ipynb", "is in no nbdev project"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_line(
    project: Path, case: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name, said = MISTAKES[case]
    (project / "nbs/notes.ipynb").write_text("[]")
    alone = project.parent / "alone"
    alone.mkdir(exist_ok=True)
    (alone / "settings.ini").write_text("[model]\n")
    write(alone / "part.ipynb", text("2"))
    monkeypatch.chdir(project)
    assert command(name) == 2
    printed = capsys.readouterr()
    assert said in printed.err
    assert (printed.out, printed.err.count("\n")) == ("", 1)


def test_what_the_rest_shows_is_written_beside_a_notebook_that_raises(project: Path) -> None:
    path = write(project / "nbs" / "part.ipynb", text("3"))
    broken = write(project / "nbs" / "broken.ipynb", [], "1 / 0")
    assert command(str(path), str(broken)) == 1
    assert problems(path) == []


def test_a_cell_without_an_id_is_no_comparison(project: Path) -> None:
    path = project / "nbs" / "part.ipynb"
    path.write_text(path.read_text().replace('"id": "aaaaaaaa", ', ""))
    with pytest.raises(ValueError, match="cell 2 has no id"):
        problems(path)
