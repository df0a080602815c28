"""What must hold of the site: every page whole by itself, every name found, the same pages from Quarto."""

import ast
import base64
import importlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest
import yaml
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
URLS = '[project.urls]\nRepository = "https://github.com/example/churn"\nDocumentation = "https://example.org/churn"\n'
QUARTO = '''#!{python}
"""Stand in for Quarto: record the calls, find the pages as Quarto does, and write a file for each."""
import json, os, subprocess, sys
from pathlib import Path

import yaml

project = Path.cwd()
with open(project.parent / "quarto-calls.txt", "a") as calls:
    print(json.dumps(sys.argv[1:]), file=calls)
config = yaml.safe_load((project / "_quarto.yml").read_text())
if sys.argv[1] == "inspect":
    print(json.dumps({{"config": config, "files": {{"input": []}}}}))
else:
    subprocess.run([os.environ["QUARTO_PYTHON"], config["project"]["pre-render"]], cwd=project, check=True)
    output = Path(sys.argv[sys.argv.index("--output-dir") + 1])
    for page in project.rglob("*"):
        inside = page.relative_to(project)
        if page.suffix in {{".ipynb", ".md", ".qmd"}} and not any(part[0] in "._" for part in inside.parts):
            target = output / inside.with_suffix(".html")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text("")
'''


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """Run a command with the scripts of this environment in reach; fail with what it printed."""
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])
    env = {**os.environ, "PATH": path, "PYTHONPATH": str(cwd), **environment}
    env.pop("IN_TEST", None)
    done = subprocess.run(command, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, f"{' '.join(map(str, command))} exited with {done.returncode}\n{done.stdout}"
    return done.stdout


@pytest.fixture(scope="module")
def project(clean_copy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a copy of the repository with its site built; repository and site have an address."""
    copy = shutil.copytree(clean_copy, tmp_path_factory.mktemp("site") / "churn_mlops", symlinks=True)
    pyproject = copy / "pyproject.toml"
    text = re.sub(r"^\[project\.urls\]\n(?:.+\n)*", "", pyproject.read_text(encoding="utf-8"), flags=re.MULTILINE)
    pyproject.write_text(text.replace("[project.scripts]", f"{URLS}\n[project.scripts]"), encoding="utf-8")
    said = run(sys.executable, "tools/docs.py", cwd=copy, TTY_COMPATIBLE="1")  # rich then takes a pipe for a terminal
    (copy.parent / "said.txt").write_text(said, encoding="utf-8")
    shutil.copytree(copy / "_docs", copy.parent / "elsewhere" / "docs")  # a test with Quarto writes over the first
    return copy


@pytest.fixture(scope="module")
def addressed(project: Path) -> Path:
    """Give the site that has an address, away from what it was built from."""
    return project.parent / "elsewhere" / "docs"


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch):
    """Import a script of tools/."""
    monkeypatch.syspath_prepend(ROOT / "tools")
    return importlib.import_module


def pages(folder: Path) -> set[str]:
    """List the pages of a site."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*.html")}


def sidebar(items: list) -> list[str]:
    """List what the sidebar leads to, in order."""
    found: list[str] = []
    for item in items:
        found += sidebar(item["contents"]) if "contents" in item else [item["href"] if isinstance(item, dict) else item]
    return found


# ---- the built site


def test_sidebar_leads_to_every_page(site: Path) -> None:
    config = yaml.safe_load((ROOT / "_quarto.yml").read_text(encoding="utf-8"))
    listed = {str(Path(href).with_suffix(".html")) for href in sidebar(config["website"]["sidebar"]["contents"])}
    assert pages(site) == listed | {"404.html"}


def test_every_check_of_the_site_finds_nothing(site: Path, tool) -> None:
    assert tool("check_site").findings(site, ROOT / "churn_mlops") == []


def test_every_public_name_has_its_entry_in_the_reference(site: Path, tool) -> None:
    part_of = tool("reference").part_of
    for file in sorted((ROOT / "churn_mlops").rglob("[!_]*.py")):
        part = part_of(file)
        page = (site / "reference" / f"{part}.html").read_text(encoding="utf-8")
        exported = re.search(r"^__all__ = (\[.*?\])", file.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
        for name in ast.literal_eval(exported[1]) if exported else []:
            assert f'id="{file.stem}.{name}"' in page, f"{part}.html has no {file.stem}.{name}"


def test_every_package_has_a_page_in_the_reference(site: Path) -> None:
    packages = {file.parent.name for file in (ROOT / "churn_mlops").glob("*/__init__.py")}
    assert packages <= {page.stem for page in (site / "reference").glob("*.html")}


def test_reference_lists_what_a_class_has_from_its_bases(site: Path) -> None:
    text = (site / "reference" / "learners.html").read_text(encoding="utf-8")
    assert 'id="blend.BlendedClassifier.predict_proba"' in text


def test_reference_has_every_option_and_setting(site: Path) -> None:
    from churn_mlops.settings import Settings

    commands, settings = (
        (site / "reference" / f"{name}.html").read_text(encoding="utf-8") for name in ("commands", "settings")
    )
    for command in COMMANDS:
        shown = run(sys.executable, "-m", f"churn_mlops.{COMMANDS[command]}", "--help", cwd=ROOT, COLUMNS="200")
        for option in set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", shown)):
            assert re.search(rf"<code>([^<]* / )?{option}[ <]", commands), f"{command} {option}"
    for section, field in Settings.model_fields.items():
        for key in field.annotation.model_fields:
            assert f"<code>{key}</code>" in settings, f"[{section}] {key}"


def test_site_has_the_openapi_document_of_the_server(site: Path) -> None:
    from churn_mlops.serving.app import create_app

    published = json.loads((site / "openapi.json").read_text(encoding="utf-8"))
    assert published == create_app("no-model.safetensors").openapi()  # whatever model lies in the folder
    assert 'href="../openapi.json"' in (site / "reference" / "http.html").read_text(encoding="utf-8")


COMMANDS = {
    "churn-train": "models.train",
    "churn-evaluate": "pipelines.evaluate",
    "churn-promote": "pipelines.promote",
    "churn-package": "pipelines.package",
    "churn-serve": "serving.command",
    "churn-lab": "lab.command",
    "churn-notebooks": "lab.outputs",
    "churn-new": "project.new",
}


def test_overloaded_function_is_named_once(site: Path) -> None:
    text = (site / "data" / "sample.html").read_text(encoding="utf-8")
    assert len(re.findall(r'id="generate_sample_data"', text)) == 1


def test_exported_cell_waits_folded_under_its_names(site: Path) -> None:
    text = (site / "data" / "sample.html").read_text(encoding="utf-8")
    fold = re.search(r"<summary>Source: _draw_tenure, _draw_contract</summary>(.*?)</details>", text, re.DOTALL)
    assert fold is not None
    assert "_draw_contract" in fold[1]


def test_every_exported_cell_is_shown(site: Path) -> None:
    for notebook in (ROOT / "nbs").rglob("*.ipynb"):
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        exported = [
            c for c in cells if re.match(r"#\|\s*export", "".join(c["source"])) and "#| hide" not in c["source"]
        ]
        page = site / notebook.relative_to(ROOT / "nbs").with_suffix(".html")
        assert page.read_text(encoding="utf-8").count("<summary>Source: ") == len(exported), page.name


def test_name_in_the_reference_leads_to_its_source_in_the_chapter(site: Path) -> None:
    text = (site / "reference" / "foundations.html").read_text(encoding="utf-8")
    assert '<a href="../utils.html#timing">source</a>' in text
    assert 'id="timing"' in (site / "utils.html").read_text(encoding="utf-8")


def test_formulas_need_no_script(site: Path) -> None:
    text = (site / "evaluation" / "metrics.html").read_text(encoding="utf-8")
    assert "<math" in text
    assert "katex" not in text.lower()


def test_search_needs_no_request(site: Path, tool) -> None:
    entries = tool("finish_site").entries(site)
    assert {entry["href"] for entry in entries} >= {"index.html", "reference/models.html#churn_model.ChurnModel"}
    assert "fetch(" not in (site / "site_libs" / "smalldocs.js").read_text(encoding="utf-8")


def test_search_lists_nothing_twice(site: Path, tool) -> None:
    entries = [(entry["title"], entry["section"]) for entry in tool("finish_site").entries(site)]
    assert len(entries) == len(set(entries))


def test_search_does_not_look_into_exported_code(site: Path, tool) -> None:
    text = next(e["text"] for e in tool("finish_site").entries(site) if e["href"] == "data/sample.html#who-they-are")
    assert "Tenure is the number of months" in text
    assert "def _draw_tenure" not in text


def test_llms_txt_leads_to_a_copy_of_every_page(site: Path) -> None:
    text = (site / "llms.txt").read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)]+)\)", text)
    assert {target.replace(".llms.md", ".html") for target in targets} == pages(site) - {"404.html"}
    assert [target for target in targets if not (site / target).is_file()] == []


def test_tutorial_links_the_glossary(site: Path) -> None:
    text = (site / "tutorials" / "first_model.html").read_text(encoding="utf-8")
    assert text.count('href="../glossary.html#target"') == 1


def test_every_page_lets_a_keyboard_skip_to_its_content(site: Path) -> None:
    for name in pages(site):
        text = (site / name).read_text(encoding="utf-8")
        assert text.index('href="#quarto-document-content"') < text.index("<nav"), name


def test_no_address_means_no_sitemap_card_or_edit_link(site: Path) -> None:
    text = (site / "index.html").read_text(encoding="utf-8")
    assert not (site / "sitemap.xml").exists()
    assert [mark for mark in ('"og:', '"twitter:', "toc-action") if mark in text] == []


def test_build_says_on_a_terminal_what_it_waits_for(project: Path) -> None:
    said = (project.parent / "said.txt").read_text(encoding="utf-8")
    steps = ("reading", "writing the reference", "finishing", "following every link")
    places = [said.index(f"{number} of 4: {step}") for number, step in enumerate(steps, 1)]
    assert places == sorted(places)


def test_build_says_one_line_in_a_pipe(site: Path) -> None:
    assert re.fullmatch(r"\d+ pages in _docs/\n", site.with_suffix(".txt").read_text(encoding="utf-8"))


def test_quarto_renders_the_same_pages(project: Path, site: Path, tmp_path: Path) -> None:
    quarto = tmp_path / "quarto"
    quarto.write_text(QUARTO.format(python=sys.executable), encoding="utf-8")
    quarto.chmod(0o755)
    path = os.pathsep.join([str(tmp_path), sysconfig.get_path("scripts"), os.environ["PATH"]])
    run("nbdev-docs", cwd=project, PATH=path, QUARTO_PYTHON=sys.executable)
    calls = [json.loads(line) for line in (project / "quarto-calls.txt").read_text().splitlines()]
    assert [call[0] for call in calls] == ["inspect", "render"]
    assert pages(project / "_docs") == pages(site)


# ---- what needs the address of a repository or of the site


def test_sitemap_names_every_page(addressed: Path) -> None:
    found = re.findall(r"<loc>(.*?)</loc>", (addressed / "sitemap.xml").read_text(encoding="utf-8"))
    assert set(found) == {f"https://example.org/churn/{name}" for name in pages(addressed) - {"404.html"}}


def test_missing_page_leads_back_from_any_address(addressed: Path) -> None:
    text = (addressed / "404.html").read_text(encoding="utf-8")
    assert text.index('<base href="https://example.org/churn/">') < text.index('href="site_libs/')


def test_card_shows_a_picture_that_is_there(addressed: Path) -> None:
    text = (addressed / "index.html").read_text(encoding="utf-8")
    picture = re.search(r'<meta property="og:image" content="https://example.org/churn/([^"]+)"', text)
    assert picture is not None
    assert (addressed / picture[1]).read_bytes().startswith(b"\x89PNG")


def test_edit_links_lead_to_sources_that_exist(addressed: Path) -> None:
    links = {}
    for name in pages(addressed):
        text = (addressed / name).read_text(encoding="utf-8")
        links[name] = re.findall(r'href="https://github\.com/example/churn/edit/main/([^"]+)"', text)
    assert links["decisions/economics.html"] == ["nbs/decisions/economics.ipynb"]
    assert links["reference/models.html"] == []
    assert [path for paths in links.values() for path in paths if not (ROOT / path).is_file()] == []


# ---- the checks see what they are for


@pytest.fixture
def check_site(tool) -> ModuleType:
    """Import the checks of the site."""
    return tool("check_site")


def test_check_sees_broken_links(tmp_path: Path, check_site: ModuleType) -> None:
    (tmp_path / "here.html").write_text('<p id="top"><a href="here.html#top">fine</a><a href="#gone">x</a></p>')
    (tmp_path / "other.html").write_text('<img src="missing.png"><a href="here.html#nowhere">x</a>')
    assert check_site.broken_links(tmp_path) == [
        "here.html: broken link #gone",
        "other.html: broken link here.html#nowhere",
        "other.html: broken link missing.png",
    ]


def test_check_sees_links_that_break_in_a_folder(tmp_path: Path, check_site: ModuleType) -> None:
    (tmp_path / "here.html").write_text('<a href="/there.html">x</a><a href="there.html">fine</a>')
    assert [finding.split()[1] for finding in check_site.absolute_links(tmp_path)] == ["/there.html"]


@pytest.mark.parametrize(
    "text",
    [
        '<script src="https://cdn.example.org/x.js"></script>',
        '<link rel="stylesheet" href="//cdn.example.org/x.css">',
        '<img src="http://example.org/x.png" alt="x">',
        '<img srcset="https://example.org/x.png 2x" alt="x">',
    ],
)
def test_check_sees_requests_of_a_page(tmp_path: Path, check_site: ModuleType, text: str) -> None:
    (tmp_path / "here.html").write_text(text)
    assert len(check_site.outside_requests(tmp_path)) == 1


def test_check_sees_requests_of_a_style_sheet(tmp_path: Path, check_site: ModuleType) -> None:
    (tmp_path / "a.css").write_text('@import url("https://fonts.example.org/css"); a { background: url(x.png) }')
    assert len(check_site.outside_requests(tmp_path)) == 1


def test_check_leaves_links_to_other_sites_alone(tmp_path: Path, check_site: ModuleType) -> None:
    (tmp_path / "here.html").write_text('<a href="https://example.org/">a paper</a>')
    assert check_site.outside_requests(tmp_path) == []


@pytest.mark.parametrize("text", ['<img src="x.png">', '<img src="x.png" alt=" ">', "<svg><path/></svg>"])
def test_check_sees_pictures_without_words(tmp_path: Path, check_site: ModuleType, text: str) -> None:
    (tmp_path / "here.html").write_text(text)
    assert len(check_site.silent_pictures(tmp_path)) == 1


@pytest.mark.parametrize(
    ("head", "body", "told"),
    [
        ("<title>A</title>", "<h1>A</h1>", "has no description"),
        ('<title>A</title><meta name="description" content="a">', "<h1>A</h1><h3>b</h3>", "skips a level (h1 to h3)"),
        ('<title>A</title><meta name="description" content="a">', "<h2>b</h2>", "has 0 headings of the first level"),
        ('<title>B</title><meta name="description" content="a">', "<h1>A</h1>", "has the title of a.html, 'B'"),
    ],
)
def test_check_sees_unclear_outlines(tmp_path: Path, check_site: ModuleType, head: str, body: str, told: str) -> None:
    clear = '<title>B</title><meta name="description" content="b"><h4>menu</h4><main><h1>B</h1><h2>b</h2></main>'
    (tmp_path / "a.html").write_text(clear)
    (tmp_path / "b.html").write_text(f"{head}<main>{body}</main>")
    found = check_site.unclear_outlines(tmp_path)
    assert len(found) == 1
    assert found[0].startswith("b.html: ")
    assert told in found[0]


def test_check_sees_names_that_search_does_not_find(tmp_path: Path, check_site: ModuleType) -> None:
    (tmp_path / "search.json").write_text('[{"section": "known"}]')
    package = tmp_path / "package"
    package.mkdir()
    (package / "part.py").write_text('__all__ = ["known", "forgotten"]')
    assert check_site.unfindable_names(tmp_path, package) == ["search finds no forgotten of package/part.py"]


# ---- what pages are made of


@pytest.fixture
def package(tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Give a function that makes a package of one module, and what the reference reads there."""
    griffe = tool("griffe")

    def make(source: str):
        (tmp_path / "shapes").mkdir()
        (tmp_path / "shapes" / "__init__.py").write_text("")
        (tmp_path / "shapes" / "part.py").write_text(source)
        return griffe.load("shapes", search_paths=[tmp_path], docstring_parser="numpy")["part"]

    return make


def test_numpydoc_sections_become_tables(tool, package) -> None:
    docstring = "\n".join(
        [
            '    """Do it.',
            "",
            "    Parameters\n    ----------\n    a : int or None\n        How many\n        of them.",
            "",
            '    Raises\n    ------\n    ValueError\n        If `a` is negative.\n    """',
        ]
    )
    function = package(f"def f(a: int | None) -> None:\n{docstring}\n")["f"]
    lines = "\n\n".join(map(tool("reference").section, function.docstring.parsed)).splitlines()
    assert "Do it." in lines
    assert "| `a` | `int or None` | How many of them. |" in lines
    assert "| `ValueError` | If `a` is negative. |" in lines


def test_private_types_are_written_out(tool, package) -> None:
    source = '_T = TypeVar("_T")\n_Numbers = list[float]\ndef f(x: _Numbers, y: _T) -> _Numbers: ...\n'
    assert tool("reference").signature(package(source)["f"]) == "def f(x: list[float], y: _T) -> list[float]"


def test_code_of_a_long_drawing_is_folded(tool) -> None:
    drawn = [{"data": {"image/png": "..."}}]
    long = "figure, axis = plt.subplots()\n" + "axis.plot([1], [1])\n" * 5
    draws = tool("pages").draws
    assert draws({"source": long, "outputs": drawn})
    assert not draws({"source": long, "outputs": []})
    assert not draws({"source": "plt.show()", "outputs": drawn})


def test_figures_have_the_size_that_they_were_drawn_for(tool) -> None:
    drawn = io.BytesIO()
    Image.new("RGB", (1400, 700)).save(drawn, "PNG", dpi=(200, 200))
    found = tool("finish_site").PNG.sub(
        tool("finish_site").sized, f'<img src="data:image/png;base64,{base64.b64encode(drawn.getvalue()).decode()}">'
    )
    assert found.startswith('<img width="700" height="350" src=')


def test_tables_of_customers_have_text_at_the_left(tool) -> None:
    table = pd.DataFrame({"plan": ["basic", None], "charges": [29.85, -1.5], "share": ["3 %", "NaN"]}).to_html()
    made = tool("finish_site").DATAFRAME.sub(tool("finish_site").dataframe, table)
    assert re.findall(r'<t[hd] class="text">(.*?)<', made) == ["plan", "basic", "NaN"]


def test_tables_of_customers_have_one_row_of_names(tool) -> None:
    table = pd.DataFrame({"remark": ["a long remark " * 5], "x": [1]}).rename_axis("customer").to_html()
    made = tool("finish_site").DATAFRAME.sub(tool("finish_site").dataframe, table)
    assert re.findall(r"<th[^>]*>(.*?)</th>", made) == ["customer", "remark", "x", "0"]
    assert len(re.findall(r'class="text long"', made)) == 2


def test_tables_with_two_names_of_rows_have_one_row_of_names(tool) -> None:
    table = pd.DataFrame({"section": ["a"], "key": ["b"], "x": [1]}).set_index(["section", "key"]).to_html()
    made = tool("finish_site").DATAFRAME.sub(tool("finish_site").dataframe, table)
    assert re.findall(r"<th[^>]*>(.*?)</th>", made) == ["section", "key", "x", "a", "b"]


def test_columns_that_share_a_head_keep_it(tool) -> None:
    columns = pd.MultiIndex.from_product([["test"], ["AUC", "model"]])
    made = tool("finish_site").DATAFRAME.sub(
        tool("finish_site").dataframe, pd.DataFrame([[0.8, "blend"]], columns=columns).to_html()
    )
    assert made.count("<tr>") == 3
    assert re.findall(r'<t[hd] class="text">(.*?)<', made) == ["model", "blend"]


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("def f(x: npt.ArrayLike, *, n: int = 3) -> None: ...", "def f(x: npt.ArrayLike, *, n: int = 3) -> None"),
        ("def f(a, /, b=1, *args, **kw): ...", "def f(a, /, b=1, *args, **kw)"),
        ("async def f() -> int: ...", "async def f() -> int"),
        ("class f(Base):\n    def __init__(self, x: int): ...", "class f(x: int)"),
        ("from dataclasses import dataclass\n@dataclass\nclass f:\n    x: int = 1", "class f(x: int = 1)"),
        ("f = 3", "f = 3"),
    ],
)
def test_signature_is_the_one_of_the_source(tool, package, source: str, shown: str) -> None:
    assert tool("reference").signature(package(source)["f"]) == shown


def test_long_signature_has_a_line_for_each_parameter(tool, package) -> None:
    source = f'def f(a: dict[str, int], b: str = "x, y", *, {"c" * 60}: int = 3) -> int: ...'
    lines = tool("reference").signature(package(source)["f"]).splitlines()
    assert lines[1:3] == ["    a: dict[str, int],", "    b: str = 'x, y',"]
    assert lines[-1] == ") -> int"


def test_fields_have_public_types_and_meanings(tool, package) -> None:
    source = (
        "_Text = Annotated[str | None, BeforeValidator(clean)]\n"
        'class Shape(BaseModel):\n    """For one."""\n    x: _Text\n'
        '    y: int = Field(default=1, description="How many.")\n'
    )
    assert tool("reference").fields(package(source)["Shape"]).splitlines()[2:] == [
        r"| `x` | `str \| None` |  |",
        "| `y` | `int` | How many. |",
    ]
