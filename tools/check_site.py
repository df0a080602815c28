"""What must hold of every page of the built site: links lead somewhere, nothing asks another host, pictures speak."""

import ast
import json
import os
import re
from functools import cache
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote, urlsplit

# A style sheet's licence and an SVG's namespace name addresses that no browser asks.
STYLE_REQUEST = re.compile(r"@import\s+[^;]+;|url\(\s*['\"]?(?:https?:)?//[^)]*\)")


class Page(HTMLParser):
    """The ids, links, resources and pictures of a page."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.targets: list[str] = []
        self.resources: list[str] = []
        self.silent: list[str] = []
        self.levels: list[int] = []
        self.title = self.description = ""
        self._in_main = self._in_title = False
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Note what the checks look at."""
        attrs = dict(attributes)
        if attrs.get("id"):
            self.ids.add(str(attrs["id"]))
        self.targets += [value for name in ("href", "src") if (value := attrs.get(name))]
        self.resources += [value for value in self._loaded(tag, attrs) if value]
        self._in_main = self._in_main or tag == "main"
        self._in_title = tag == "title"
        if self._in_main and re.fullmatch("h[1-6]", tag):
            self.levels.append(int(tag[1]))
        if tag == "meta" and attrs.get("name") == "description":
            self.description = attrs.get("content") or ""
        hidden = attrs.get("aria-hidden") == "true"
        if tag == "img" and not hidden and not (attrs.get("alt") or "").strip():
            self.silent.append(f"<img src={str(attrs.get('src'))[:60]}>")
        if tag == "svg" and not hidden and not (attrs.get("role") == "img" and attrs.get("aria-label")):
            self.silent.append("<svg> without role=img and aria-label")

    def handle_endtag(self, tag: str) -> None:
        """Note where the title and the content end."""
        self._in_title = self._in_title and tag != "title"
        self._in_main = self._in_main and tag != "main"

    def handle_data(self, data: str) -> None:
        """Note the title."""
        if self._in_title:
            self.title += data

    @staticmethod
    def _loaded(tag: str, attrs: dict[str, str | None]) -> list[str | None]:
        """Name what a browser fetches for an element by itself."""
        if tag == "link":
            return [attrs.get("href")] if attrs.get("rel") not in {"canonical", "license", "edit"} else []
        return [attrs.get("src"), *(part.split()[0] for part in (attrs.get("srcset") or "").split(",") if part.strip())]


@cache
def parsed(file: Path) -> Page:
    """Read a page once for all checks."""
    return Page(file)


def broken_links(site: Path) -> list[str]:
    """List the links of a built site whose page, picture, file or anchor does not exist."""
    pages = {file: parsed(file) for file in site.rglob("*.html")}
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


def absolute_links(site: Path) -> list[str]:
    """List the links that start at the root of a host, which break where the site lies in a folder."""
    return sorted(
        f"{file.relative_to(site)}: {target} starts at the root of the host; write a relative link"
        for file in site.rglob("*.html")
        for target in parsed(file).targets
        if target.startswith("/") and not target.startswith("//")
    )


def outside_requests(site: Path) -> list[str]:
    """List what a page or a style sheet would fetch from another host."""
    found = []
    for file in site.rglob("*.html"):
        found += [
            f"{file.relative_to(site)}: fetches {r}" for r in parsed(file).resources if re.match(r"(https?:)?//", r)
        ]
    for file in site.rglob("*.css"):
        requests = STYLE_REQUEST.findall(file.read_text(encoding="utf-8"))
        found += [f"{file.relative_to(site)}: fetches {each}" for each in requests if "//" in each]
    return sorted(found)


def silent_pictures(site: Path) -> list[str]:
    """List the pictures without alternative text."""
    return sorted(
        f"{file.relative_to(site)}: {each} has no alternative text; give its cell `#| fig-alt:`, or `![words](...)`"
        for file in site.rglob("*.html")
        for each in parsed(file).silent
    )


def unclear_outlines(site: Path) -> list[str]:
    """List the pages that a search engine or a screen reader cannot tell apart or walk through."""
    pages = {file: parsed(file) for file in sorted(site.rglob("*.html"))}
    found, known = [], {}
    for file, page in pages.items():
        name = file.relative_to(site)
        if page.title in known:
            found.append(f"{name}: has the title of {known[page.title]}, {page.title!r}")
        known.setdefault(page.title, name)
        if not page.description:
            found.append(f"{name}: has no description; write one under the title (`>` in a notebook)")
        if page.levels.count(1) != 1:
            found.append(f"{name}: has {page.levels.count(1)} headings of the first level")
        skips = [f"h{a} to h{b}" for a, b in pairwise(page.levels) if b > a + 1]
        found += [f"{name}: a heading skips a level ({skip})" for skip in skips]
    return found


def unfindable_names(site: Path, package: Path) -> list[str]:
    """List the public names that are no heading in the search index."""
    headings = {entry["section"] for entry in json.loads((site / "search.json").read_text(encoding="utf-8"))}
    return sorted(
        f"search finds no {name} of {file.relative_to(package.parent)}"
        for file in package.rglob("*.py")
        for name in exported_names(file)
        if name not in headings
    )


def exported_names(file: Path) -> list[str]:
    """Read a module's `__all__`."""
    found = re.search(r"^__all__ = (\[.*?\])", file.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return ast.literal_eval(found[1]) if found else []


def findings(site: Path, package: Path) -> list[str]:
    """List everything that is wrong with a built site."""
    checks = [broken_links(site), absolute_links(site), outside_requests(site), silent_pictures(site)]
    checks.append(unclear_outlines(site))
    return [finding for found in checks for finding in found] + unfindable_names(site, package)
