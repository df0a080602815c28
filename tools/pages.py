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
from chapters import ROOT

from churn_mlops.lab.outputs import read

EXPORTED = re.compile(r"^#\|\s*export", re.MULTILINE)


def fold(source: str, summary: str) -> str:
    """Let the code of a cell wait behind one line."""
    return f"#| code-fold: true\n#| code-summary: {json.dumps(summary)}\n{source}"


def draws(cell: dict) -> bool:
    """Tell whether a cell is more than a few lines and shows a figure: that is what a reader came for."""
    source = "".join(cell["source"])
    lines = [line for line in source.splitlines() if line.strip() and not line.startswith("#|")]
    has_figure = any("image/png" in output.get("data", {}) for output in cell.get("outputs", []))
    return has_figure and len(lines) >= 6 and "code-fold" not in source


def defined(source: str) -> list[str]:
    """List the names that a cell defines."""
    names = []
    for node in ast.parse(source).body:
        targets = getattr(node, "targets", [getattr(node, "target", None)])
        names += [node.name] if hasattr(node, "name") else [each.id for each in targets if isinstance(each, ast.Name)]
    return list(dict.fromkeys(names))


def introduction(chapter: str, names: list[str]) -> str:
    """Say in a sentence what each public name is; links to it and to its methods lead here, and on to the reference."""
    module = reference.package()[chapter.replace("/", ".")]
    page = "../" * chapter.count("/") + f"reference/{reference.part_of(module.filepath)}.md"
    lines = []
    for name in reference.public_names(module):
        if name.name in names:
            members = [f"{name.name}.{member}" for member in name.members if member[0] != "_"] if name.is_class else []
            places = "".join(f'<span id="{place.lower()}"></span>' for place in (name.name, *members))
            lines.append(f"{places}{reference.link(name, page)}: {reference.summary(name)}")
    return "\n\n".join(lines)


def finish_notebook(path: Path, relative: Path) -> None:
    """Show each exported cell folded, under the names that it defines; fold the code of figures."""
    notebook = read(path)
    exported = {
        cell["id"] for cell in read(ROOT / "nbs" / relative)["cells"] if EXPORTED.search("".join(cell["source"]))
    }
    cells = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "code" and cell["id"] in exported:
            code = re.sub(r"^#\|.*\n?", "", source, flags=re.MULTILINE).strip()
            names = defined(code)
            if text := introduction(relative.with_suffix("").as_posix(), names):
                cells.append({"cell_type": "markdown", "metadata": {}, "source": text})
            cell["source"] = fold(code, f"Source: {', '.join(names) or 'imports'}") if code else ""
        elif cell["cell_type"] == "code" and draws(cell):
            cell["source"] = fold(source, "The code of this figure")
        if "".join(cell["source"]).strip():
            cells.append(cell)
    path.write_text(json.dumps(notebook | {"cells": cells}), encoding="utf-8")


def changelog() -> str:
    """Show CHANGELOG.md."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").partition("\n")[2].lstrip()
    return reference.front("Changelog", "What changed for the people who use churn_mlops.") + "\n\n" + text


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
