"""What a save in JupyterLab does to the package: the module follows its notebook, and no other one is overwritten."""

import asyncio
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from churn_mlops.lab.hooks import Notebooks, complete, export
from churn_mlops.lab.outputs import clean

PROJECT = '[project]\nname = "acme"\nversion = "1"\n[tool.nbdev]\nnbs_path = "nbs"\nlib_path = "acme"\n'


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a project of one notebook that was exported, and work there."""
    for folder in ("nbs", "acme"):
        (tmp_path / folder).mkdir()
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("IN_TEST", raising=False)
    export(write(tmp_path / "nbs/part.ipynb", "#| default_exp part", "#| export\nx = 1"))
    assert modules(tmp_path) == ["part.py"]
    return tmp_path


def write(path: Path, *cells: str) -> Path:
    """Write a notebook of these cells."""
    path.parent.mkdir(exist_ok=True)
    nbformat.write(new_notebook(cells=[new_code_cell(source) for source in cells]), path)
    return path


def modules(project: Path) -> list[str]:
    """List the modules of a project."""
    return sorted(path.name for path in (project / "acme").glob("[!_]*.py"))


def test_copy_of_a_notebook_does_not_overwrite_its_module(project: Path) -> None:
    before = (project / "acme/part.py").read_bytes()
    copy = write(project / "nbs/part-Copy1.ipynb", "#| default_exp part", "#| export\nx = 2")
    with pytest.raises(ValueError, match=r"part\.ipynb exports to the same module"):
        export(copy)
    assert (project / "acme/part.py").read_bytes() == before


def test_copy_that_gets_a_module_of_its_own_leaves_the_first_one(project: Path) -> None:
    export(write(project / "nbs/part-Copy1.ipynb", "#| default_exp other", "#| export\nx = 2"))
    assert modules(project) == ["other.py", "part.py"]


def test_module_stays_when_its_notebook_forgets_to_name_it(project: Path) -> None:
    with pytest.raises(ValueError, match="default_exp"):
        export(write(project / "nbs/part.ipynb", "#| export\nx = 1"))
    assert modules(project) == ["part.py"]


def test_module_goes_with_the_last_exported_cell_and_its_name(project: Path) -> None:
    export(write(project / "nbs/part.ipynb", "x = 1"))
    assert modules(project) == []


def test_module_stays_when_a_cell_is_no_python(project: Path) -> None:
    with pytest.raises(SyntaxError, match="outside function: return x"):
        export(write(project / "nbs/part.ipynb", "#| default_exp other", "#| export\nx = 1\nreturn x"))
    assert modules(project) == ["part.py"]


def test_modules_of_a_renamed_folder_name_it_anew(project: Path) -> None:
    export(write(project / "nbs/old/in_it.ipynb", "#| default_exp in_it", "#| export\nx = 1"))
    asyncio.run(Notebooks(root_dir=str(project)).rename("nbs/old", "nbs/new"))
    assert "nbs/new/in_it.ipynb" in (project / "acme/in_it.py").read_text()


def test_opening_and_saving_a_notebook_leaves_its_file(project: Path) -> None:
    """What is said of the kernel to JupyterLab does not reach the disk."""
    kernel = {"name": "python3", "display_name": "python3", "language": "python"}
    content = new_notebook(cells=[new_code_cell("x = 1")], metadata={"kernelspec": dict(kernel)})
    before = nbformat.from_dict(content)
    complete(content, SimpleNamespace(display_name="Python 3 (ipykernel)", language="python"))
    assert content != before
    clean(content)
    assert content == before


def test_saved_notebook_stays_trusted(project: Path) -> None:
    """Jupyter signs what was trusted when it was opened, after it has been cleaned."""
    content = new_notebook(cells=[new_code_cell("x = 1", metadata={"trusted": True, "collapsed": False})])
    clean(content, project)
    assert content.cells[0].metadata == {"trusted": True}
