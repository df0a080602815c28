"""Write the pages that are made from the source, and finish those of notebooks, before the site is rendered.

Quarto and smalldocs both call this script in the folder of the processed notebooks (`pre-render` in _quarto.yml), so
that both render the same pages.
"""

import ast
import json
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import reference
from reference import ROOT, anchor, front, package, part_of, public_names, summary

EXPORTED = re.compile(r"^#\|\s*export", re.MULTILINE)
DRAWS = re.compile(r"\bplt\.|\.plot\b|\.(?:barh?|hist|scatter|axvline|axhline|plot_tree)\(")


def fold(source: str, summary: str) -> str:
    """Let the code of a cell wait behind one line."""
    return f"#| code-fold: true\n#| code-summary: {json.dumps(summary)}\n{source}"


def draws(cell: dict) -> bool:
    """Tell whether a cell is more than a few lines that draw a figure: the figure is what a reader came for."""
    source = "".join(cell["source"])
    lines = [line for line in source.splitlines() if line.strip() and not line.startswith("#|")]
    has_figure = any("image/png" in output.get("data", {}) for output in cell.get("outputs", []))
    return has_figure and len(lines) >= 6 and bool(DRAWS.search(source)) and "code-fold" not in source


def defined(source: str) -> list[str]:
    """List the names that a cell defines."""
    names = []
    for node in ast.parse(source).body:
        targets = getattr(node, "targets", [getattr(node, "target", None)])
        names += [node.name] if hasattr(node, "name") else [each.id for each in targets if isinstance(each, ast.Name)]
    return list(dict.fromkeys(names))


def places(name: str, source: str) -> str:
    """Give the marks that links to a name and to its public methods lead to."""
    found = [node for node in ast.parse(source).body if getattr(node, "name", "") == name][-1:]
    members = [getattr(each, "name", "_") for node in found for each in node.body]
    marks = [name, *(f"{name}.{each}" for each in dict.fromkeys(members) if each[0] != "_")]
    return "".join(f'<span id="{mark.lower()}"></span>' for mark in marks)


def introduction(module: Path, source: str, up: str) -> str:
    """Name what a cell exports: each public name with its first sentence and a link to its entry in the reference."""
    known = {name.name: name for name in public_names(package()[".".join(module.with_suffix("").parts)])}
    page = f"{up}reference/{part_of(ROOT / 'churn_mlops' / module)}.md"
    return "\n\n".join(
        f"{places(name, source)}[`{name}`]({page}#{anchor(known[name])}): {summary(known[name])}"
        for name in defined(source)
        if name in known
    )


def finish_notebook(path: Path, relative: Path) -> None:
    """Show each exported cell folded, under the names that it defines; fold the code of figures."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    original = json.loads((ROOT / "nbs" / relative).read_text(encoding="utf-8"))["cells"]
    exported = {cell["id"] for cell in original if EXPORTED.search("".join(cell["source"]))}
    cells = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "code" and cell["id"] in exported:
            code = re.sub(r"^#\|.*\n?", "", source, flags=re.MULTILINE).strip()
            text = introduction(relative.with_suffix(".py"), code, "../" * (len(relative.parts) - 1))
            if text:
                cells.append({"cell_type": "markdown", "metadata": {}, "source": text})
            cell["source"] = fold(code, f"Source: {', '.join(defined(code)) or 'imports'}") if code else ""
        elif cell["cell_type"] == "code" and draws(cell):
            cell["source"] = fold(source, "The code of this figure")
        if "".join(cell["source"]).strip():
            cells.append(cell)
    path.write_text(json.dumps(notebook | {"cells": cells}), encoding="utf-8")


def changelog() -> str:
    """Show CHANGELOG.md."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").partition("\n")[2].lstrip()
    return front("Changelog", "What changed for the people who use churn_mlops.") + "\n\n" + text


def openapi() -> str:
    """Write the document that describes the server to programs."""
    from churn_mlops.serving.app import create_app

    return json.dumps(create_app("no-model.safetensors").openapi(), indent=2) + "\n"


def main(cache: Path) -> None:
    """Write and finish all pages in the folder of the processed notebooks."""
    if cache != ROOT / "_proc":
        raise SystemExit(f"{cache} is not the folder of the processed notebooks: run `make docs`")
    for path in cache.rglob("*.ipynb"):
        finish_notebook(path, path.relative_to(cache))
    (cache / "reference").mkdir(exist_ok=True)
    for name, text in [*reference.pages(), ("changelog.md", changelog()), ("openapi.json", openapi())]:
        (cache / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path.cwd())
