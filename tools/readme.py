"""Write README.md from nbs/index.ipynb, so that the repository and the site open with the same words."""

import re
import sys
from pathlib import Path

import nbformat
from chapters import ROOT
from nbconvert.exporters import MarkdownExporter

LINK = re.compile(r"(?<=\]\()(?![a-z][a-z0-9+.-]*:|[#/])")  # the start of a relative link or image target


def readme(notebook: Path) -> str:
    """Render a notebook as the README: text, no directives or figures (the site has them), links from the root."""
    nb = nbformat.read(notebook, as_version=4)
    nb.metadata["language_info"] = {"name": "python"}  # the fences of the code say so
    nb.cells = [cell for cell in nb.cells if not re.search(r"^#\|\s*hide\b", cell.source, re.M)]
    nb.cells = [cell for cell in nb.cells if not any("image/png" in o.get("data", {}) for o in cell.get("outputs", []))]
    for cell in nb.cells:
        if cell.cell_type == "code":
            cell.source = re.sub(r"^#\|.*\n?", "", cell.source, flags=re.M)
        else:
            cell.source = LINK.sub("nbs/", cell.source)
    text, _ = MarkdownExporter().from_notebook_node(nb)
    text = re.sub(r"[ \t]+$", "", text, flags=re.M)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "README.md"
    target.write_text(readme(ROOT / "nbs" / "index.ipynb"), encoding="utf-8")
