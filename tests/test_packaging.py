"""What leaves the repository: a wheel with the whole package and nothing else, which works without the repository."""

import json
import os
import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from churn_mlops.data import generate_sample_data
from churn_mlops.models import ChurnPredictor

ROOT = Path(__file__).resolve().parent.parent
API_HINT = 'pip install "churn_mlops[api]"'
LAB_HINT = 'pip install "churn_mlops[lab]"'
LAB_DATA = "churn_mlops/lab/jupyter/"
TEMPLATE = "churn_mlops/project/template/"


@dataclass
class Installed:
    """A virtual environment with the wheel in it, and an empty folder outside the repository to work in."""

    scripts: Path
    folder: Path

    def run(self, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run one of the environment's programs, away from the repository."""
        env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "CHURN", "MODEL"))}
        return subprocess.run(
            [self.scripts / command, *arguments], cwd=self.folder, env=env, capture_output=True, text=True
        )

    def python(self, code: str) -> str:
        """Run code; fail with its traceback."""
        done = self.run("python", "-c", code)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def dist(clean_copy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the sdist, and the wheel from the sdist, as `make build` does."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--outdir", str(folder), str(clean_copy)]
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    return folder


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    """Give the path of the wheel."""
    return next(dist.glob("*.whl"))


@pytest.fixture(scope="module")
def wheel_names(wheel: Path) -> set[str]:
    """List the files in the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def install(wheel: Path, home: Path, constraints: Path) -> Installed:
    """Install the wheel with its base dependencies, and none of the extras, into a new virtual environment."""
    venv.create(home / "venv", with_pip=False)  # the pip of this environment installs into it
    scripts = home / "venv" / ("Scripts" if os.name == "nt" else "bin")
    (home / "work").mkdir()
    pip = [sys.executable, "-m", "pip", "--python", str(scripts / "python"), "install", "--quiet", "--no-compile"]
    command = [*pip, "--disable-pip-version-check", "-c", str(constraints), str(wheel)]
    done = subprocess.run(command, cwd=home, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return Installed(scripts, home / "work")


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Install the wheel with the releases that CI tests."""
    return install(wheel, tmp_path_factory.mktemp("installed"), ROOT / "constraints.txt")


def test_wheel_holds_every_module(wheel_names: set[str]) -> None:
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "churn_mlops").rglob("*.py")}
    assert modules <= wheel_names


def test_wheel_holds_the_type_marker(wheel_names: set[str]) -> None:
    assert "churn_mlops/py.typed" in wheel_names


def test_wheel_holds_nothing_but_the_package(wheel_names: set[str]) -> None:
    others = {name for name in wheel_names if not name.startswith("churn_mlops/") and ".dist-info/" not in name}
    assert not others
    data = (LAB_DATA, TEMPLATE)
    package = {name for name in wheel_names if name.startswith("churn_mlops/") and not name.startswith(data)}
    assert {Path(name).suffix for name in package} <= {".py", ".typed"}


def test_wheel_holds_what_jupyterlab_reads(wheel_names: set[str]) -> None:
    files = {path.relative_to(ROOT).as_posix() for path in (ROOT / LAB_DATA).rglob("*") if path.is_file()}
    assert len(files) == 5
    assert {name for name in wheel_names if name.startswith(LAB_DATA)} == files


def test_wheel_holds_the_template_of_a_project(wheel_names: set[str]) -> None:
    files = {path.relative_to(ROOT).as_posix() for path in (ROOT / TEMPLATE).rglob("*") if path.is_file()}
    assert f"{TEMPLATE}acme-churn/.github/workflows/test.yml" in files
    assert {name for name in wheel_names if name.startswith(TEMPLATE)} == files


def test_sdist_holds_the_notebooks(dist: Path) -> None:
    with tarfile.open(next(dist.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    notebooks = [path for path in (ROOT / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts]
    assert {path.relative_to(ROOT).as_posix() for path in notebooks} - names == set()


def test_base_install_brings_no_server_and_no_notebook_tools(installed: Installed) -> None:
    code = "from importlib.metadata import distributions; print(*[d.metadata['Name'].lower() for d in distributions()])"
    names = set(installed.python(code).split())
    assert names & {"fastapi", "uvicorn", "nbdev", "jupyterlab", "ipython", "matplotlib", "pyarrow"} == set()


def test_extra_lab_brings_nothing_of_the_site(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        metadata = archive.read(next(name for name in archive.namelist() if name.endswith("/METADATA"))).decode()
    wanted = re.findall(r"^Requires-Dist: ([\w-]+).*extra == [\"']lab[\"']$", metadata, re.MULTILINE)
    assert {"nbdev", "jupyterlab", "ipykernel"} <= set(wanted)
    assert set(wanted) & {"smalldocs", "griffelib", "nbconvert", "churn_mlops", "churn-mlops"} == set()


def test_version_is_the_same_everywhere(installed: Installed, wheel: Path) -> None:
    code = "import churn_mlops, importlib.metadata as m; print(churn_mlops.__version__, m.version('churn_mlops'))"
    assert installed.python(code).split() == [wheel.name.split("-")[1]] * 2


def test_installed_modules_import_or_name_the_extra(installed: Installed) -> None:
    code = """
import importlib, json, pkgutil, churn_mlops
answers = {}
for module in pkgutil.walk_packages(churn_mlops.__path__, "churn_mlops."):
    try:
        importlib.import_module(module.name)
    except ImportError as error:
        answers[module.name] = str(error)
    else:
        answers[module.name] = "imported"
print(json.dumps(answers))
"""
    answers = json.loads(installed.python(code))
    lab = answers.pop("churn_mlops.lab.hooks")  # the one other module that says what it needs when it is imported
    base = {name: answer for name, answer in answers.items() if not name.startswith("churn_mlops.serving.")}
    assert {name: answer for name, answer in base.items() if answer != "imported"} == {}
    assert LAB_HINT in lab
    serving = {name: answer for name, answer in answers.items() if name.startswith("churn_mlops.serving.")}
    assert {name: answer for name, answer in serving.items() if answer != "imported" and API_HINT not in answer} == {}
    assert API_HINT in serving["churn_mlops.serving.app"]


def test_churn_serve_without_the_extra_says_what_to_install(installed: Installed) -> None:
    done = installed.run("churn-serve", "model.safetensors")
    assert done.returncode != 0
    assert API_HINT in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["churn-lab", "churn-notebooks"])
def test_a_command_on_notebooks_without_the_extra_says_what_to_install(installed: Installed, command: str) -> None:
    done = installed.run(command)
    assert done.returncode == 2
    assert LAB_HINT in done.stderr
    assert done.stderr.count("\n") == 1


def test_churn_train_works_after_a_plain_install(installed: Installed) -> None:
    done = installed.run("churn-train", "--json", "--cv-folds", "0", "--output", "out/model.safetensors")
    assert done.returncode == 0, done.stderr
    assert isinstance(json.loads(done.stdout), dict)
    assert (installed.folder / "out" / "model.safetensors").is_file()


def test_the_oldest_releases_that_are_allowed_train_and_predict(
    wheel: Path, oldest_releases: Path, tmp_path: Path
) -> None:
    oldest = install(wheel, tmp_path, oldest_releases)
    assert oldest.run("churn-train", "--help").returncode == 0
    done = oldest.run("churn-train", "--json", "--cv-folds", "0", "--output", "model")
    assert done.returncode == 0, done.stderr
    code = """
from churn_mlops.data import generate_sample_data
from churn_mlops.models import ChurnPredictor
print(ChurnPredictor("model").predict(generate_sample_data().iloc[0].to_dict())["churn_probability"])
"""
    customer = generate_sample_data().iloc[0].to_dict()
    expected = ChurnPredictor(oldest.folder / "model").predict(customer)["churn_probability"]
    assert float(oldest.python(code)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("module", ["churn_mlops", "churn_mlops.commands"])
def test_import_loads_nothing_heavy(module: str) -> None:
    heavy = {"numpy", "pandas", "scipy", "sklearn", "skops", "pydantic", "typer", "rich", "fastapi"}
    code = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert heavy.isdisjoint(done.stdout.split())
