"""What must hold in the repository itself: notebooks and package in step, checks clean, site and README whole."""

import ast
import fnmatch
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from chapters import forgotten
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted(path for path in (ROOT / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts)
NAMES = [path.relative_to(ROOT / "nbs").as_posix() for path in NOTEBOOKS]


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """Run a command with the scripts of this environment in reach; fail with what it printed."""
    scripts = sysconfig.get_path("scripts")
    env = {**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(cwd), **environment}
    env.pop("IN_TEST", None)
    done = subprocess.run(command, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, f"{' '.join(map(str, command))} exited with {done.returncode}\n{done.stdout}"
    return done.stdout


def contents(folder: Path) -> dict[str, bytes]:
    """Read every file that the project keeps in a folder."""
    made = {"__pycache__", ".last_checked", "nbdev.yml", "_proc", "_docs"}
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and made.isdisjoint(path.parts)
    }


def changed_cells(before: bytes, after: bytes) -> list[str]:
    """List the cells of a notebook whose code is not the same in two versions of a module."""
    cell = re.compile(r"^# %% \S+ #(\S+)\n(.*?)(?=^# %% |\Z)", re.MULTILINE | re.DOTALL)
    one, other = (dict(cell.findall(text.decode())) for text in (before, after))
    return [name for name in one | other if one.get(name) != other.get(name)]


def assert_same(before: dict[str, bytes], after: dict[str, bytes], command: str) -> None:
    """Fail with the names of the files that a command changed, and of the cells that an exported module lacks."""
    changed = []
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name, b""), after.get(name, b"")
        if old != new:
            exported = changed_cells(old, new) if name.endswith(".py") else []
            changed.append(f"{name} (cell {', '.join(exported)})" if exported else name)
    assert not changed, f"{command} changes {', '.join(changed)}: run it, look at the difference and commit it"


def cells(notebook: Path) -> list[dict]:
    """Read the cells of a notebook."""
    return json.loads(notebook.read_text(encoding="utf-8"))["cells"]


def default_exp(notebook: Path) -> str | None:
    """Read the module that a notebook exports to."""
    source = "\n".join("".join(cell["source"]) for cell in cells(notebook) if cell["cell_type"] == "code")
    found = re.findall(r"^#\|\s*default_exp\s+(\S+)", source, re.MULTILINE)
    assert len(found) <= 1, f"{notebook.name} names more than one module: {found}"
    return found[0] if found else None


@pytest.fixture
def copy(clean_copy: Path, tmp_path: Path) -> Path:
    """Give a copy of the repository that a test may change."""
    return shutil.copytree(clean_copy, tmp_path / "churn_mlops", symlinks=True)


@pytest.mark.slow
def test_export_leaves_no_diff(copy: Path) -> None:
    before = contents(copy)
    run("nbdev-export", cwd=copy)
    assert_same(before, contents(copy), "nbdev-export")


@pytest.mark.slow
def test_export_does_not_touch_the_settings_of_the_project(copy: Path) -> None:
    settings = copy / "pyproject.toml"
    before = settings.stat().st_mtime_ns
    run("nbdev-export", "--path", "nbs/lazy.ipynb", cwd=copy)
    assert settings.stat().st_mtime_ns == before, "the next target of `make` would install the package again"


@pytest.mark.slow
def test_clean_leaves_no_diff(copy: Path) -> None:
    before = contents(copy)
    run("nbdev-clean", cwd=copy, JUPYTER_DATA_DIR=str(copy.parent / "jupyter"))
    assert_same(before, contents(copy), "nbdev-clean")


@pytest.mark.parametrize("name", NAMES)
def test_notebook_exports_to_the_module_of_its_path(name: str) -> None:
    module = default_exp(ROOT / "nbs" / name)
    exports_nothing = name in ("index.ipynb", "start_here.ipynb", "benchmarks.ipynb")
    exports_nothing = exports_nothing or name.startswith(("tutorials/", "reference/"))
    assert module == (None if exports_nothing else name.removesuffix(".ipynb").replace("/", "."))


def test_no_two_notebooks_export_to_one_module() -> None:
    modules = Counter(default_exp(notebook) for notebook in NOTEBOOKS)
    assert [module for module, count in modules.items() if module and count > 1] == []


def test_every_module_comes_from_a_notebook() -> None:
    package = ROOT / "churn_mlops"
    modules = {path.relative_to(package).as_posix() for path in package.rglob("*.py") if path.name[0] != "_"}
    assert modules <= {name.replace(".ipynb", ".py") for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_notebook_holds_no_error(name: str) -> None:
    outputs = [out for cell in cells(ROOT / "nbs" / name) for out in cell.get("outputs", [])]
    assert [out["ename"] for out in outputs if out["output_type"] == "error"] == []


@pytest.mark.parametrize("name", NAMES)
def test_nothing_of_a_chapter_is_forgotten(name: str) -> None:
    assert forgotten(ROOT / "nbs" / name) == []


def sidebar() -> list[str]:
    """List the pages that the sidebar leads to."""

    def hrefs(items: list) -> list[str]:
        return [
            href
            for item in items
            for href in (
                [item] if isinstance(item, str) else hrefs(item["contents"]) if "contents" in item else [item["href"]]
            )
        ]

    site = yaml.safe_load((ROOT / "_quarto.yml").read_text(encoding="utf-8"))
    return hrefs(site["website"]["sidebar"]["contents"])


def test_sidebar_lists_every_notebook_once() -> None:
    listed = Counter(href for href in sidebar() if href.endswith(".ipynb"))
    assert set(NAMES) - set(listed) == set(), "add a line for each to the sidebar in _quarto.yml"
    assert set(listed) - set(NAMES) == set(), "the sidebar in _quarto.yml leads to notebooks that do not exist"
    assert [name for name, count in listed.items() if count > 1] == []


def links(name: str) -> list[tuple[str, str]]:
    """List the relative links in the prose of a notebook, each with the cell that it stands in."""
    found = []
    for place, cell in enumerate(cells(ROOT / "nbs" / name), 1):
        if cell["cell_type"] == "markdown":
            prose = re.sub(r"```.*?```|`[^`\n]*`", "code", "".join(cell["source"]), flags=re.DOTALL)
            targets = re.findall(r"\]\((?!\w+:|#)([^)#\s]+)", prose)
            found += [(f"cell {place} (id {cell['id']})", target) for target in targets]
    return found


@pytest.mark.parametrize("name", NAMES)
def test_links_of_a_notebook_lead_somewhere(name: str) -> None:
    broken = []
    for place, target in links(name):
        if not ((ROOT / "nbs" / name).parent / target).exists():  # in JupyterLab there are no other pages
            broken.append(f"{place}: {target} leads nowhere")
    assert not broken


def private_uses(file: Path) -> list[str]:
    """List the private names that a file takes from other modules of the package."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    ours, used = set(), []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").startswith("churn_mlops")):
            ours |= {each.asname or each.name for each in node.names}
            used += [f"line {node.lineno}: {each.name}" for each in node.names if re.match(r"_[^_]", each.name)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ours:
            used += [f"line {node.lineno}: {node.value.id}.{node.attr}"] * bool(re.match(r"_[^_]", node.attr))
    return used


@pytest.mark.parametrize("folder", ["churn_mlops", "tests", "benchmarks", "tools"])
def test_a_private_name_stays_in_its_notebook(folder: str) -> None:
    files = [file for file in sorted((ROOT / folder).rglob("*.py")) if file.name != "_modidx.py"]
    assert {file.relative_to(ROOT).as_posix(): private_uses(file) for file in files if private_uses(file)} == {}


@pytest.mark.slow
def test_readme_is_what_the_index_notebook_makes(tmp_path: Path) -> None:
    run(sys.executable, "tools/readme.py", tmp_path / "README.md", cwd=ROOT)
    made = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert (ROOT / "README.md").read_text(encoding="utf-8") == made, "README.md is out of date: run `make readme`"


@pytest.mark.slow
def test_imports_run_downward_only() -> None:
    run("lint-imports", "--no-cache", cwd=ROOT)


def test_every_subpackage_has_a_layer() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = project["tool"]["importlinter"]["contracts"]
    layers = {
        name for contract in contracts for layer in contract.get("layers", ()) for name in re.split(r"[ |:]+", layer)
    }
    package = ROOT / "churn_mlops"
    parts = {path.relative_to(package).with_suffix("").parts[0] for path in package.rglob("*.py")}
    assert {f"churn_mlops.{part}" for part in parts if part[0] != "_"} <= layers


def test_every_subpackage_goes_into_the_wheel() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["packages"]["find"]["include"]
    folders = {path.parent for path in (ROOT / "churn_mlops").rglob("*.py")}
    names = {folder: ".".join(folder.relative_to(ROOT).parts) for folder in folders}
    found = {folder for folder in folders if (folder / "__init__.py").is_file()}
    found = {folder for folder in found if any(fnmatch.fnmatchcase(names[folder], pattern) for pattern in patterns)}
    assert {names[folder] for folder in folders - found} == set(), "add its __init__.py, and see packages.find"


@pytest.mark.slow
def releases() -> dict[str, str]:
    """Read constraints.txt: the one release of each package."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def wanted() -> list[str]:
    """List what pyproject.toml asks for: to build the package, to run it, and for each extra."""
    told = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = told["project"]["optional-dependencies"].values()
    asked = [*told["build-system"]["requires"], *told["project"]["dependencies"], *(each for e in extras for each in e)]
    return sorted({each for each in asked if not each.startswith("churn_mlops")})


def test_each_release_is_named_once_and_as_pip_spells_it() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    names = [line.split("==")[0] for line in lines if not line.startswith("#")]
    assert names == [canonicalize_name(name) for name in dict.fromkeys(names)]


@pytest.mark.parametrize("asked", wanted())
def test_the_release_in_constraints_satisfies_pyproject(asked: str) -> None:
    requirement, known = Requirement(asked), releases()
    name = canonicalize_name(requirement.name)
    assert name in known, f"constraints.txt holds no release of {name}"
    assert known[name] in requirement.specifier, f"constraints.txt holds {name}=={known[name]}, pyproject.toml {asked}"


def test_ruff_finds_nothing() -> None:
    run("ruff", "check", cwd=ROOT)


@pytest.mark.slow
def test_ruff_would_format_nothing() -> None:
    run("ruff", "format", "--check", cwd=ROOT)


@pytest.mark.slow
def test_types_are_strict() -> None:
    run("mypy", cwd=ROOT)


def test_every_test_that_the_page_on_security_names_is_there() -> None:
    page = (ROOT / "nbs" / "security.md").read_text(encoding="utf-8")
    named = re.findall(r"`(tests/[\w/]+\.py)::(?:\w+::)?(\w+)`", page)
    assert len(named) > 20
    missing = [f"{file}::{test}" for file, test in named if f"def {test}(" not in (ROOT / file).read_text("utf-8")]
    assert missing == []


# --- the rule for cells and classes --------------------------------------------------------------

EXPORTING = [name for name in NAMES if default_exp(ROOT / "nbs" / name)]


@dataclass(frozen=True)
class CodeCell:
    """A code cell of a chapter, as its syntax tree."""

    source: str
    body: list[ast.stmt]

    @property
    def is_exported(self) -> bool:
        return re.search(r"^#\|\s*exporti?\b", self.source, re.MULTILINE) is not None

    @property
    def is_imports(self) -> bool:
        return all(isinstance(node, ast.Import | ast.ImportFrom) for node in self.body)

    @property
    def is_example(self) -> bool:
        return not (self.is_exported or self.is_imports or re.search(r"^#\|\s*hide\b", self.source, re.MULTILINE))

    @property
    def classes(self) -> list[ast.ClassDef]:
        return [node for node in self.body if isinstance(node, ast.ClassDef)]

    def n_lines(self, nodes: Sequence[ast.stmt]) -> int:
        """Count lines of code: no blank ones, no comments, and nothing within texts of several lines."""
        within = {
            line
            for node in nodes
            for text in ast.walk(node)
            if isinstance(text, ast.Constant | ast.JoinedStr)
            for line in range(text.lineno + 1, (text.end_lineno or 0) + 1)
        }
        docstrings = {
            line
            for node in nodes
            for text in ast.walk(node)
            if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
            for line in range(text.lineno, (text.end_lineno or 0) + 1)
        }
        spans = {line for node in nodes for line in range(node.lineno, (node.end_lineno or 0) + 1)}
        lines = self.source.splitlines()
        counted = spans - within - docstrings
        return sum(not re.match(r"\s*(#|$)", lines[line - 1]) for line in counted)


def code_cells(name: str) -> list[CodeCell]:
    """Parse the code cells of a notebook; what is IPython's alone counts as blank."""
    found = []
    for cell in cells(ROOT / "nbs" / name):
        if cell["cell_type"] == "code":
            source = re.sub(r"^[%!].*$", "", "".join(cell["source"]), flags=re.MULTILINE)
            found.append(CodeCell(source, ast.parse(source).body))
    return found


def first_line(node: ast.stmt, source: str) -> str:
    return source.splitlines()[node.lineno - 1].strip()


@pytest.mark.parametrize("name", EXPORTING)
def test_a_class_has_at_most_120_lines_of_code_and_another_exported_cell_30(name: str) -> None:
    lines = {first_line(c.body[0], c.source): (c.n_lines(c.body), 120 if c.classes else 30)
             for c in code_cells(name) if c.is_exported and c.body}  # fmt: skip
    assert {first: n for first, (n, most) in lines.items() if n > most} == {}


@pytest.mark.parametrize("name", EXPORTING)
def test_a_method_has_at_most_12_lines_of_code(name: str) -> None:
    long = {}
    for cell in code_cells(name):
        for node in cell.classes if cell.is_exported else []:
            for method in node.body:
                if isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef) and cell.n_lines(method.body) > 12:
                    long[f"{node.name}.{method.name}"] = cell.n_lines(method.body)
    assert long == {}


@pytest.mark.parametrize("name", EXPORTING)
def test_the_first_example_stands_by_the_sixth_code_cell(name: str) -> None:
    assert any(cell.is_example for cell in code_cells(name)[:6])


@pytest.mark.parametrize("name", EXPORTING)
def test_there_are_at_most_60_lines_of_functions_between_two_examples(name: str) -> None:
    n_lines, far = 0, {}
    for cell in code_cells(name):
        if cell.is_example:
            n_lines = 0
        elif cell.is_exported and not (cell.is_imports or cell.classes):
            n_lines += cell.n_lines(cell.body)
            if n_lines > 60:
                far[first_line(cell.body[0], cell.source)] = n_lines
    assert far == {}
