"""Write the pages that are made from the source, and finish those of notebooks, before the site is rendered.

Quarto and smalldocs both call this script in the folder of the processed notebooks (`pre-render` in _quarto.yml), so
that both render the same pages.
"""

import ast
import importlib
import inspect
import json
import re
import sys
import tomllib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from nbdev.config import get_config
from reference import (
    ROOT,
    Function,
    Name,
    described,
    docstring,
    fields,
    find,
    markdown_table,
    members,
    public_names,
    reference,
    written,
)

PACKAGE = ROOT / "churn_mlops"
# The pages of the reference: their titles, what they are for, and the modules that lead on them.
PARTS = {
    "data": (
        "churn_mlops.data",
        "Sample customers, loading, checking and splitting.",
        ("sample", "loading"),
    ),
    "features": ("churn_mlops.features", "From a raw table to numbers.", ("engineer",)),
    "learners": (
        "churn_mlops.learners",
        "The model types, and what each of them learns.",
        ("registry", "blend"),
    ),
    "evaluation": (
        "churn_mlops.evaluation",
        "How good a model is, and why it says what it says.",
        ("metrics", "cross_validation"),
    ),
    "decisions": ("churn_mlops.decisions", "Whom to contact, and what it is worth.", ()),
    "export": ("churn_mlops.export", "A model for programs without Python.", ()),
    "report": ("churn_mlops.report", "The evaluation page, and panels to try a model out.", ("report", "panels")),
    "models": (
        "churn_mlops.models",
        "ChurnModel and ChurnPredictor, the training run, comparison and tuning.",
        ("churn_model", "inference", "training", "train", "compare", "tune"),
    ),
    "pipelines": ("churn_mlops.pipelines", "One job, one command: training and evaluation.", ()),
    "serving": ("churn_mlops.serving", "The HTTP server.", ("app", "command")),
    "foundations": (
        "churn_mlops: foundations",
        "Settings, threads, commands and files, on which every part rests.",
        ("settings",),
    ),
}
SHOWN = re.compile(r"show_doc\((?P<name>[\w.]+)")


def front(title: str, description: str) -> str:
    """Open a page; it has no source of its own that a reader could edit."""
    return f"---\ntitle: {json.dumps(title)}\ndescription: {json.dumps(description)}\nrepo-actions: false\n---\n\n"


# ---- every public name


def chapter(module: Path) -> str:
    """Name the notebook of a module, from the root of the site."""
    return module.relative_to(PACKAGE).with_suffix(".ipynb").as_posix()


def chapter_title(notebook: Path) -> str:
    """Read the title of a notebook."""
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        found = re.search(r"^(?:# |title: )(.+)", "".join(cell["source"]), re.MULTILINE)
        if found and cell["cell_type"] in {"markdown", "raw"}:
            return found[1].strip("'\"")
    raise SystemExit(f"{notebook}: no title")


def part_of(module: Path) -> str:
    """Name the page of the reference that a module is on: its package."""
    return module.parent.name if module.parent != PACKAGE else "foundations"


def modules() -> dict[str, list[Path]]:
    """List the modules with public names, by page of the reference and in the order of the page."""
    found: dict[str, list[Path]] = {part: [] for part in PARTS}
    for file in sorted(PACKAGE.rglob("*.py")):
        if file.name[0] != "_" and public_names(file):
            found[part_of(file)].append(file)
    for part, (*_, leading) in PARTS.items():
        found[part].sort(key=lambda file: leading.index(file.stem) if file.stem in leading else len(leading))
    return found


def anchor(name: Name) -> str:
    """Name the place of a public name on its page; modules share a page, so the module is part of it."""
    return f"{name.file.stem}.{name.name}"


def source_link(name: Name) -> str:
    """Link the line of the source, where a repository is named."""
    config = get_config()
    if not config.git_url:
        return ""
    path = name.file.relative_to(ROOT).as_posix()
    return f" · [source]({config.git_url}/blob/{config.branch}/{path}#L{name.node.lineno})"


def from_here(markdown: str, module: Path) -> str:
    """Let the links of a docstring, which start at its chapter, start at a page of the reference."""
    folder = Path(chapter(module)).parent.as_posix().removesuffix(".")
    return re.sub(r"\]\((?![a-z]+:|#|\.\./)", f"](../{folder}{'/' if folder else ''}", markdown)


def entry(name: Name) -> str:
    """Describe one public name: signature, docstring, fields and methods."""
    node = name.node
    lines = [
        f"### {name.name} {{#{anchor(name)}}}",
        f"`from {name.module} import {name.name}`{source_link(name)}",
        f"```python\n{written(node)}\n```",
        from_here(described(docstring(node)), name.file),
    ]
    if hasattr(node, "bases"):
        known = fields(node)
        if known and not re.search(r"^(Parameters|Attributes)\n---", docstring(node), re.MULTILINE):
            rows = [[f"`{field}`", f"`{kind}`", meaning] for field, kind, meaning in known]
            heads = ["field", "type", "meaning"][: 3 if any(meaning for *_, meaning in rows) else 2]
            lines.append(markdown_table(heads, [row[: len(heads)] for row in rows]))
        lines += [method(f"{anchor(name)}.{each}", body, name.file) for each, body in members(node) if docstring(body)]
    return "\n\n".join(lines)


def method(place: str, node: Function, module: Path) -> str:
    """Describe a method or a property."""
    text = from_here(described(docstring(node)), module)
    return f"#### {node.name} {{#{place}}}\n\n```python\n{written(node)}\n```\n\n{text}"


def reference_pages() -> Iterator[tuple[str, str]]:
    """Write a page for each part of the package, and the list of all names."""
    rows, parts = [], []
    for part, files in modules().items():
        title, about, _ = PARTS[part]
        found = {file: public_names(file) for file in files}
        overview = [[f"[`{names[0].module}`](#{file.stem})", listed(names)] for file, names in found.items()]
        text = [front(title, about), markdown_table(["module", "its public names"], overview)]
        for file, names in found.items():
            chapter_link = f"[its chapter](../{chapter(file)})"
            text.append(f"## {file.stem} {{#{file.stem}}}\n\n{docstring_of(file)} See {chapter_link}.")
            text += [entry(name) for name in names]
            rows += [[f"[`{n.name}`]({part}.md#{anchor(n)})", n.summary, n.module.partition(".")[2]] for n in names]
        parts.append([f"[{title}]({part}.md)", about])
        yield f"reference/{part}.md", "\n\n".join(text) + "\n"
    short = markdown_table(["from", "names"], [[f"`{where}`", names] for where, names in short_places()])
    table = markdown_table(["name", "what it is", "module"], sorted(rows, key=lambda row: row[0].lower()))
    outside = [
        ["[Commands](commands.md)", "What to type in a shell."],
        ["[Settings](settings.md)", "Every key of `settings.ini`."],
        ["[HTTP](http.md)", "Every path of the server."],
    ]
    yield (
        "reference/index.md",
        front("Reference: every public name", "What can be imported, from where, and what it is.")
        + f"Most programs need only these names, which are imported from the packages themselves:\n\n{short}\n\n"
        + f"## By part\n\n{markdown_table(['page', 'what is on it'], [*outside, *parts])}\n\n"
        + f"## From A to Z\n\nAll {len(rows)} public names, with the module that each is imported from:\n\n{table}\n",
    )


def listed(names: list[Name]) -> str:
    """List the names of a module, each with a link to its place on the same page."""
    return ", ".join(f"[`{name.name}`](#{anchor(name)})" for name in names)


def docstring_of(file: Path) -> str:
    """Read what a module says of itself."""
    return ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""


def short_places() -> Iterator[tuple[str, str]]:
    """List what the packages hand on from their modules."""
    places = {name.name: f"{part_of(name.file)}.md#{anchor(name)}" for each in modules().values() for file in each
              for name in public_names(file)}  # fmt: skip
    for package in ("churn_mlops", *(f"churn_mlops.{part}" for part in PARTS if (PACKAGE / part).is_dir())):
        handed_on = [name for name in getattr(importlib.import_module(package), "__all__", ()) if name in places]
        if handed_on:
            yield package, ", ".join(f"[`{name}`]({places[name]})" for name in sorted(handed_on))


# ---- commands, settings and HTTP


def commands_page() -> str:
    """Describe every command with its arguments and options, as the command itself knows them."""
    import typer

    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    text = [front("Reference: commands", "What to type in a shell, with every argument and option.")]
    for command, target in scripts.items():
        module = importlib.import_module(target.partition(":")[0])
        made = typer.Typer(add_completion=False)
        function = getattr(module, f"{command.removeprefix('churn-')}_command")
        made.command()(function)
        types = inspect.signature(function).parameters
        known = typer.main.get_command(made)
        arguments = [each for each in known.params if each.param_type_name == "argument"]
        options = [each for each in known.params if each.param_type_name == "option"]
        places = [a.name.upper() if a.required else f"[{a.name.upper()}]" for a in arguments]
        usage = " ".join([command, *places, "[OPTIONS]"])
        text.append(f"## {command}\n\n```bash\n{usage}\n```\n\n{known.help}")
        text.append(markdown_table(["argument", "meaning"], [[f"`{a.name.upper()}`", a.help or ""] for a in arguments]))
        text.append(
            markdown_table(
                ["option", "value", "meaning"],
                [option_row(o, types[o.name].annotation) for o in options if o.name in types],
            )
        )
        text.append(f"Explained in [its chapter](../{chapter(Path(module.__file__))}).")
    text.append("An option that is not given comes from the [settings](settings.md).")
    text.append("Every command also has `--help` and `--version`.")
    return "\n\n".join(text) + "\n"


def option_row(option: Any, annotation: Any) -> list[str]:
    """Describe one option: its name, what it takes, what it does."""
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    kinds = {str: "text", int: "whole number", float: "number", Path: "path", list[str]: "text"}
    annotated = get_args(annotation)[0]
    taken = next((words for kind, words in kinds.items() if kind in (annotated, *get_args(annotated))), "")
    return [names, taken, option.help or ""]


def settings_page() -> str:
    """Describe every key of settings.ini, from the fields of the settings themselves."""
    from churn_mlops.settings import Settings

    text = [
        front(
            "Reference: settings",
            "Every key of settings.ini, its default, and the environment variable that stands for it.",
        ),
        "An option on the command line comes before an environment variable, the variable before `settings.ini`, and "
        "the file before the default. [The chapter](../settings.ipynb) says how the file is found and what is checked.",
    ]
    for section, field in Settings.model_fields.items():
        about = (field.annotation.__doc__ or "").partition(": ")[2]
        keys = field.annotation.model_fields
        rows = [[f"`{key}`", default(each.default), each.description or ""] for key, each in keys.items()]
        text.append(
            f"## {section} {{#{section}}}\n\n{about[:1].upper()}{about[1:]} "
            f"As environment variables: `CHURN_{section.upper()}__{next(iter(keys)).upper()}` and so on."
        )
        text.append(markdown_table(["key", "default", "meaning"], rows))
    text.append(
        "## Variables without a key {#variables}\n\n`MODEL_PATH` is a short name for `CHURN_SERVING__MODEL_PATH`. "
        "`CHURN_API_KEY` is the key that [the server asks for](../serving/limits.ipynb); a secret has no place in a "
        "file. `CHURN_THREADS` is how many cores [may be used](../threads.ipynb). `NUMBA_CACHE_DIR` is where "
        "[machine code](../models/tree_walks.ipynb) is kept."
    )
    return "\n\n".join(text) + "\n"


def default(value: Any) -> str:
    """Show a default in a table."""
    return f"`{plain(value)}`" if plain(value) else "empty"


def plain(value: Any) -> str:
    """Write a default as it would stand in the file."""
    if isinstance(value, tuple):
        return ", ".join(map(plain, value))
    if isinstance(value, float) and value == int(value):
        return str(int(value))
    return "" if value is None else json.dumps(value) if isinstance(value, bool | dict) else str(value)


def http_page() -> str:
    """Describe the HTTP interface from its OpenAPI document, with answers that a server really gave."""
    import tempfile

    from fastapi.testclient import TestClient

    from churn_mlops.data import generate_sample_data
    from churn_mlops.models import ChurnModel
    from churn_mlops.serving.app import create_app

    table = generate_sample_data(2_000).drop(columns="customer_id")
    row = json.loads(table.drop(columns="churn").iloc[0].to_json())
    bodies = {"/predict": row, "/explain": row, "/predict/batch": {"customers": [row, row]}}
    text = [
        front("Reference: HTTP", "Every path of the server, what it takes and what it answers."),
        "`churn-serve models/churn-model.zip` starts [the server](../serving/app.ipynb). The columns of a customer are "
        "those of the model that it serves: the examples below come from a model of the sample customers. The server "
        "shows its own at `/docs`, and the document that this page is made from at `/openapi.json`.",
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = (
            ChurnModel("logistic_regression").fit(table.drop(columns="churn"), table["churn"]).save(f"{folder}/m.zip")
        )
        with TestClient(create_app(path)) as client:
            document = client.get("/openapi.json").json()
            for route, operations in document["paths"].items():
                for verb, operation in operations.items():
                    answer = client.request(verb, route, json=bodies.get(route))
                    text.append(operation_text(verb, route, operation, document, bodies.get(route), answer))
    return "\n\n".join(text) + "\n"


FILES = {  # where a body is in a file, what the file holds
    "/explain": "`customer.json` holds one customer, the object that `/predict` takes.",
    "/predict/batch": 'The file holds `{"customers": [...]}`, a list of objects of the kind that `/predict` takes.',
}
REFUSED = {
    "401": "The server needs a key, and the request has none or a wrong one.",
    "408": "The body did not arrive in time.",
    "413": "The body is too large, or holds too many customers.",
    "422": "Something in the body does not fit. The answer lists each place and what was expected there.",
    "503": "There is no model that can answer. The answer says why.",
}


def asked(route: str, body: Any) -> str:
    """Write the request as one would type it: a short body in the line, others in a file."""
    url = f"http://127.0.0.1:8000{route}"
    if not body:
        return f"curl {url}"
    posted = f"curl {url} -H 'Content-Type: application/json' -d"
    if route == "/predict":
        return f"{posted} '{json.dumps(body, indent=2)}'"
    return f"{posted} @{'customers' if 'customers' in body else 'customer'}.json"


def operation_text(verb: str, route: str, operation: dict, document: dict, body: Any, answer: Any) -> str:
    """Describe one path: what it is for, its parameters, its body, an example, and what else it may answer."""
    text = [f"## {verb.upper()} {route}", operation.get("description") or operation["summary"]]
    if operation.get("parameters"):
        rows = [
            [f"`{p['name']}`", kind_of(p["schema"], document), p.get("description", "")]
            for p in operation["parameters"]
        ]
        text.append(markdown_table(["query", "type", "meaning"], rows))
    if "requestBody" in operation:
        schema = resolved(operation["requestBody"]["content"]["application/json"]["schema"], document)
        rows = [[f"`{name}`", kind_of(each, document)] for name, each in schema["properties"].items()]
        text.append(markdown_table(["in the body", "type"], rows))
    text.append(f"```bash\n{asked(route, body)}\n```")
    if body and route != "/predict":
        text.append(FILES[route])
    is_json = answer.headers["content-type"].startswith("application/json")
    shown = (
        json.dumps(shortened(answer.json()), indent=2) if is_json else "\n".join(answer.text.splitlines()[:8]) + "\n..."
    )
    text.append(f"It answers:\n\n```{'json' if is_json else 'text'}\n{shown}\n```")
    success = operation["responses"].get("200", {}).get("content", {}).get("application/json", {}).get("schema", {})
    properties = resolved(success, document).get("properties", {})
    if properties:
        rows = [[f"`{n}`", kind_of(s, document), s.get("description", "")] for n, s in properties.items()]
        heads = ["in the answer", "type", "meaning"][: 3 if any(row[2] for row in rows) else 2]
        text.append(markdown_table(heads, [row[: len(heads)] for row in rows]))
    refusals = [
        [status, REFUSED.get(status, each["description"])]
        for status, each in sorted(operation["responses"].items())
        if status != "200"
    ]
    if refusals:
        text.append(markdown_table(["other status", "when"], refusals))
    return "\n\n".join(text)


def resolved(schema: dict, document: dict) -> dict:
    """Follow a reference in an OpenAPI document."""
    name = schema.get("$ref", "").rpartition("/")[2]
    return document["components"]["schemas"][name] if name else schema


def kind_of(schema: dict, document: dict) -> str:
    """Name the type of a value in words."""
    if "anyOf" in schema:
        return " or ".join(kind_of(each, document) for each in schema["anyOf"])
    if "$ref" in schema:
        return kind_of(resolved(schema, document), document)
    if "enum" in schema:
        return ", ".join(f"`{json.dumps(each)}`" for each in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {kind_of(schema.get('items', {}), document)}"
    return {"null": "null", "": "any"}.get(schema.get("type", ""), schema.get("type", ""))


def shortened(value: Any, depth: int = 0) -> Any:
    """Leave out what an example does not need: the inner parts of large objects."""
    if isinstance(value, dict):
        if depth and len(value) > 10:
            value = dict([*list(value.items())[:3], ("...", f"{len(value) - 3} more")])
        return {name: shortened(each, depth + 1) for name, each in value.items()}
    if isinstance(value, list):
        return [shortened(each, depth + 1) for each in value]
    return round(value, 4) if isinstance(value, float) else value


# ---- benchmarks and changelog


READ = {  # how to read each table: what is asked, and what the columns are
    "accuracy": "**Which model knows best who leaves?** Every model is fitted and tested on the same folds of the same "
    "customers. AUC and PR-AUC say how well it ranks them (higher is better), log-loss how right its probabilities "
    "are (lower is better). Rows that begin with *churn_mlops* are the model types of this package as they come; the "
    "others are what one would write with scikit-learn, LightGBM or CatBoost, some of them with parameters that were "
    "searched for. A difference of one or two thousandths is no more than other folds would bring.",
    "prediction": "**How long does a service wait for an answer?** For each model type: a *Pipeline* of scikit-learn, "
    "which one would write without this package, and `ChurnPredictor`, with *NumPy* alone and with *numba* "
    '(`pip install "churn_mlops[fast]"`). A service asks for one customer, a nightly job for a batch of them.',
    "servers": "**How many requests can one process answer?** `churn-serve` beside other ways to put a model behind "
    "HTTP, and beside an endpoint that does nothing, which no server can beat. Of 100 requests, 50 were answered "
    "within the time *p50* and 99 within *p99*. The last columns divide requests a second by those of another row.",
}
TURNED = {  # tables with a row for each measure are shown with a row for each model: what to call the measures
    "One customer": {
        "Pipeline us": "Pipeline, µs",
        "numpy us": "NumPy, µs",
        "numpy x": "times faster",
        "numba us": "numba, µs",
        "numba x": "times faster",
        "load s": "loading, s",
    },
    "A batch of customers": {
        "Pipeline rows/s": "Pipeline, customers/s",
        "numpy rows/s": "NumPy, customers/s",
        "numpy batch x": "times faster",
        "numba rows/s": "numba, customers/s",
        "numba batch x": "times faster",
    },
}


def numbers_table(heads: list[str], rows: list[list[str]]) -> str:
    """Write a table whose first column is text and whose others are numbers."""
    head, line, *body = markdown_table(heads, rows).splitlines()
    return "\n".join([head, line.replace("---", "---:").replace("---:", "---", 1), *body])


def measured(result: dict) -> Iterator[str]:
    """Write the tables of one benchmark."""
    measures = {str(row[0]): [str(cell) for cell in row[1:]] for row in result["rows"]}
    known = {label for words in TURNED.values() for label in words}
    if not measures.keys() <= known:
        yield numbers_table(result["columns"], [[str(cell) for cell in row] for row in result["rows"]])
        return
    for title, words in TURNED.items():
        there = {label: word for label, word in words.items() if label in measures}
        models = zip(result["columns"][1:], *(measures[label] for label in there), strict=True)
        yield f"### {title}"
        yield numbers_table(["", *there.values()], [list(model) for model in models])


def benchmarks_page() -> str:
    """Show the figures that `make bench` left in benchmarks/results/."""
    text = [
        front(
            "Benchmarks",
            "Accuracy and speed beside what you would pick instead, measured by a command that you can run.",
        ),
        "`make bench` measures all tables of this page; under each stands the machine that it was measured on. "
        'For your own customers: `make bench ARGS="customers.csv --target Churn"`.',
    ]
    for file in sorted((ROOT / "benchmarks" / "results").glob("*.json")):
        result = json.loads(file.read_text(encoding="utf-8"))
        about = result["about"].replace(" us: ", " µs: ").replace(" rows/s: ", " customers/s: ").replace(" x: ", " ")
        text += [f"## {result['title']}", *([READ[file.stem]] if file.stem in READ else []), about]
        text += [*measured(result), *result.get("notes", [])]
        text.append(f"Measured by `{result['command']}` on {result['date']}: {result['machine']}.")
    return "\n\n".join(text) + "\n"


def changelog_page() -> str:
    """Show CHANGELOG.md."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    return front("Changelog", "What changed for the people who use churn_mlops.") + text.partition("\n")[2].lstrip()


# ---- the pages of notebooks


def glossary_terms(page: Path) -> dict[str, str]:
    """Read the terms of the glossary, longest first: each word for it, and its anchor."""
    terms = {}
    for heading, place in re.findall(r"^## (.+?) \{#([\w-]+)\}$", page.read_text(encoding="utf-8"), re.MULTILINE):
        for word in re.split(r" \(|\)|, ", heading):
            if word:
                terms[word] = place
    return dict(sorted(terms.items(), key=lambda item: -len(item[0])))


# Code, links, pictures, formulas, tags, headings and table rows stay as they are; so do words in another sense.
UNTOUCHED = re.compile(
    r"```.*?```|~~~.*?~~~|`[^`]*`|!?\[[^\]]*\]\([^)]*\)|\$\$.*?\$\$|\$[^$\n]+\$|<[^>]+>|^#.*?$|^\|.*?$|^---.*?^---"
    r"|\bdrifts? apart\b|\bcannot drift\b|\b(?:double|single) precision\b|\bthey guard\b",
    re.M | re.S | re.I,
)


def linked(markdown: str, terms: dict[str, str], to_glossary: str, done: set[str]) -> str:
    """Link each term of the glossary where a page first uses it."""
    done |= {place for place in terms.values() if f"glossary.md#{place})" in markdown}
    for word, place in terms.items():
        if place in done:
            continue
        flags = 0 if word.isupper() else re.IGNORECASE
        found = next(
            (m for m in re.finditer(rf"(?<![\w-]){re.escape(word)}(?:e?s)?(?![\w-])", markdown, flags)
             if not any(u.start() <= m.start() < u.end() for u in UNTOUCHED.finditer(markdown))), None
        )  # fmt: skip
        if found:
            done.add(place)
            link = f"[{found[0]}]({to_glossary}#{place})"
            markdown = markdown[: found.start()] + link + markdown[found.end() :]
    return markdown


def shown_once(cells: list[dict]) -> list[dict]:
    """Leave out what nbdev displays of the overloads of a function: its definition follows."""
    kept = []
    for cell, following in pairwise([*cells, {"source": ""}]):
        shown = SHOWN.search("".join(cell["source"]))
        if shown is None or "".join(following["source"]) != "".join(cell["source"]):
            kept.append(cell)
    return kept


DRAWS = re.compile(r"\bplt\.|\.plot\b|\.(?:barh?|hist|scatter|axvline|axhline|plot_tree)\(")


def folded(cell: dict) -> str:
    """Fold the code that draws a figure, where it is longer than a few lines: the figure is what a reader came for."""
    source = "".join(cell["source"])
    draws = any("image/png" in output.get("data", {}) for output in cell.get("outputs", []))
    lines = [line for line in source.splitlines() if line.strip() and not line.startswith("#|")]
    if not draws or len(lines) < 6 or not DRAWS.search(source) or "code-fold" in source:
        return source
    return f"#| code-fold: true\n#| code-summary: The code of this figure\n{source}"


def finish_notebooks(cache: Path) -> None:
    """Rewrite what nbdev displayed of functions and classes, and link the glossary."""
    terms = glossary_terms(cache / "glossary.md")
    for path in cache.rglob("*.ipynb"):
        relative = path.relative_to(cache)
        module = PACKAGE / relative.with_suffix(".py")
        notebook, done = json.loads(path.read_text(encoding="utf-8")), set()
        to_glossary = "../" * (len(relative.parts) - 1) + "glossary.md"
        notebook["cells"] = shown_once(notebook["cells"])
        in_section = False
        for cell in notebook["cells"]:
            source = "".join(cell["source"])
            shown = SHOWN.search(source)
            if cell["cell_type"] == "markdown":
                cell["source"] = linked(source, terms, to_glossary, done)
                in_section = in_section or re.search(r"^## ", source, re.M) is not None
            elif shown:
                for data in (output.get("data", {}) for output in cell.get("outputs", [])):
                    if "text/markdown" in data:
                        told = reference("".join(data["text/markdown"]), find(module, shown["name"]))
                        data["text/markdown"] = told if in_section else re.sub(r"^#(?=#)", "", told, flags=re.M)
            else:
                cell["source"] = folded(cell)
        path.write_text(json.dumps(notebook), encoding="utf-8")


def social_card(path: Path) -> None:
    """Draw the picture that other sites show beside a link to this one."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    config = get_config()
    figure = plt.figure(figsize=(12, 6.3), dpi=100, facecolor="#2c3e50")
    figure.text(0.07, 0.58, config.title, color="white", fontsize=64, fontweight="bold")
    first, _, rest = config.description.partition(": ")
    figure.text(0.07, 0.44, first, color="#cfe3f5", fontsize=24)
    figure.text(0.07, 0.35, rest, color="#cfe3f5", fontsize=24)
    figure.savefig(path)
    plt.close(figure)


def main(cache: Path) -> None:
    """Write and finish all pages in the folder of the processed notebooks."""
    if cache != ROOT / "_proc":
        raise SystemExit(f"{cache} is not the folder of the processed notebooks: run `make docs`")
    finish_notebooks(cache)
    pages = dict(reference_pages()) | {
        "reference/commands.md": commands_page(),
        "reference/settings.md": settings_page(),
        "reference/http.md": http_page(),
        "benchmarks.md": benchmarks_page(),
        "changelog.md": changelog_page(),
    }
    for name, text in pages.items():
        (cache / name).parent.mkdir(exist_ok=True)
        (cache / name).write_text(text, encoding="utf-8")
    if get_config().doc_host:
        social_card(cache / "social-card.png")


if __name__ == "__main__":
    main(Path.cwd())
