"""Build the documentation site into _docs/ with nbdev and smalldocs, for machines without Quarto."""

import json
import os
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from nbdev.config import get_config
from nbdev.doclinks import _build_modidx
from nbdev.quarto import nbdev_sidebar, refresh_quarto_yml
from nbdev.serve import proc_nbs
from reference import reference
from smalldocs.site import build

ROOT = Path(__file__).resolve().parent.parent


class _Page(HTMLParser):
    """The ids and the link targets of a page."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.targets: list[str] = []
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id" and value:
                self.ids.add(value)
            elif value and (name == "href" or (name == "src" and tag == "img")):
                self.targets.append(value)


def broken_links(site: Path) -> list[str]:
    """List the links of a built site whose page, picture, file or anchor does not exist."""
    pages = {file: _Page(file) for file in site.rglob("*.html")}
    broken = []
    for file, page in pages.items():
        for target in page.targets:
            url = urlsplit(target)
            if url.scheme or url.netloc:
                continue
            base = site / url.path.lstrip("/") if url.path.startswith("/") else file.parent / url.path
            there = Path(os.path.normpath(base.parent / unquote(base.name))) if url.path else file
            there = there / "index.html" if there.is_dir() else there
            anchor = unquote(url.fragment)
            if not there.exists() or (anchor and there in pages and anchor not in pages[there].ids):
                broken.append(f"{file.relative_to(site)}: broken link {target}")
    return sorted(set(broken))


def write_reference(cache: Path) -> None:
    """Rewrite what nbdev displayed for each function and class in the processed notebooks."""
    for path in cache.rglob("*.ipynb"):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        for cell in notebook["cells"]:
            if "show_doc(" in "".join(cell["source"]):
                for output in cell.get("outputs", []):
                    data = output.get("data", {})
                    if "text/markdown" in data:
                        data["text/markdown"] = reference("".join(data["text/markdown"]))
        path.write_text(json.dumps(notebook), encoding="utf-8")


def main() -> None:
    """Build the site; leave the previous one in place when a link is broken."""
    os.chdir(ROOT)
    refresh_quarto_yml()
    _build_modidx()
    nbdev_sidebar.__wrapped__()
    cache = proc_nbs(force=True)
    write_reference(cache)
    made = build(cache, quiet=True)
    broken = [note for note in made.warnings if "broken link" in note] + broken_links(made.out)
    if broken:
        sys.exit("\n".join(broken))
    site = get_config().doc_path
    shutil.rmtree(site, ignore_errors=True)
    shutil.move(made.out, site)
    print(f"{len(made.pages)} pages in {site.relative_to(ROOT)}/")


if __name__ == "__main__":
    main()
