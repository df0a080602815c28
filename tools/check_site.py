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
STYLE_REQUEST = re.compile(r"@import\s+[^;]*//[^;]+;|url\(\s*['\"]?(?:https?:)?//[^)]*\)")
NO_REQUEST = {"canonical", "license", "edit"}  # what a `<link>` with one of these leads to is not fetched


class Page(HTMLParser):
    """The tags of a page, each with its attributes, and the title."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.title = ""
        self.feed(text)
        self.targets = [each[name] for _, each in self.tags for name in ("href", "src") if each.get(name)]

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Note a tag."""
        self.tags.append((tag, {name: value or "" for name, value in attributes}))

    def handle_endtag(self, tag: str) -> None:
        """Note the end of a tag."""
        self.tags.append((f"/{tag}", {}))

    def handle_data(self, data: str) -> None:
        """Note the title."""
        if self.tags and self.tags[-1][0] == "title":
            self.title += data


@cache
def parsed(file: Path) -> Page:
    """Read a page once for all checks."""
    return Page(file.read_text(encoding="utf-8"))


def pages(site: Path) -> dict[Path, Page]:
    """Read all pages of a site."""
    return {file.relative_to(site): parsed(file) for file in sorted(site.rglob("*.html"))}


def broken_links(site: Path) -> list[str]:
    """List the links of a built site whose page, picture, file or anchor does not exist."""
    ids = {site / name: {each.get("id") for _, each in page.tags} for name, page in pages(site).items()}
    broken = set()
    for name, page in pages(site).items():
        for target in page.targets:
            url = urlsplit(target)
            if url.scheme or url.netloc:
                continue
            path = unquote(url.path)
            folder = site if path.startswith("/") else (site / name).parent
            there = Path(os.path.normpath(folder / path.lstrip("/"))) if path else site / name
            there = there / "index.html" if there.is_dir() else there
            anchor = unquote(url.fragment)
            if not there.exists() or (anchor and there in ids and anchor not in ids[there]):
                broken.add(f"{name}: broken link {target}")
    return sorted(broken)


def absolute_links(site: Path) -> list[str]:
    """List the links that start at the root of a host, which break where the site lies in a folder."""
    return [
        f"{name}: {target} starts at the root of the host; write a relative link"
        for name, page in pages(site).items()
        for target in page.targets
        if re.match("/(?!/)", target)
    ]


def outside_requests(site: Path) -> list[str]:
    """List what a page or a style sheet would fetch from another host."""
    found = []
    for name, page in pages(site).items():
        for tag, each in page.tags:
            linked = each.get("href", "") if tag == "link" and each.get("rel") not in NO_REQUEST else ""
            fetched = [linked, each.get("src", ""), *re.split(r",\s*", each.get("srcset", ""))]
            found += [f"{name}: fetches {address}" for address in fetched if re.match(r"(https?:)?//", address)]
    for file in site.rglob("*.css"):
        requests = STYLE_REQUEST.findall(file.read_text(encoding="utf-8"))
        found += [f"{file.relative_to(site)}: fetches {request}" for request in requests]
    return found


def silent_pictures(site: Path) -> list[str]:
    """List the pictures without alternative text."""
    found = []
    for name, page in pages(site).items():
        for tag, each in page.tags:
            words = each.get("alt") if tag == "img" else each.get("role") == "img" and each.get("aria-label")
            if tag in ("img", "svg") and each.get("aria-hidden") != "true" and not (words or "").strip():
                found.append(
                    f"{name}: <{tag} {each.get('src', '')[:60]}> has no alternative text; give its cell `#| fig-alt:`, "
                    "`![words](...)`, or an <svg> role=img and aria-label"
                )
    return found


def unclear_outlines(site: Path) -> list[str]:
    """List the pages that a search engine or a screen reader cannot tell apart or walk through."""
    found, known = [], {}
    for name, page in pages(site).items():
        if known.setdefault(page.title, name) != name:
            found.append(f"{name}: has the title of {known[page.title]}, {page.title!r}")
        if not any(
            each.get("content") for tag, each in page.tags if tag == "meta" and each.get("name") == "description"
        ):
            found.append(f"{name}: has no description; write one under the title (`>` in a notebook)")
        main = " ".join(tag for tag, _ in page.tags).partition(" main ")[2].partition(" /main")[0]
        levels = [int(level) for level in re.findall(r"(?<!/)\bh([1-6])\b", main)]
        if levels.count(1) != 1:
            found.append(f"{name}: has {levels.count(1)} headings of the first level")
        found += [f"{name}: a heading skips a level (h{a} to h{b})" for a, b in pairwise(levels) if b > a + 1]
    return found


def unfindable_names(site: Path, package: Path) -> list[str]:
    """List the public names that are no heading in the search index."""
    headings = {entry["section"] for entry in json.loads((site / "search.json").read_text(encoding="utf-8"))}
    found = []
    for file in sorted(package.rglob("*.py")):
        exported = re.search(r"^__all__ = (\[.*?\])", file.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
        names = ast.literal_eval(exported[1]) if exported else []
        found += [f"search finds no {n} of {file.relative_to(package.parent)}" for n in names if n not in headings]
    return found


def findings(site: Path, package: Path) -> list[str]:
    """List everything that is wrong with a built site."""
    checks = (broken_links, absolute_links, outside_requests, silent_pictures, unclear_outlines)
    return [finding for check in checks for finding in check(site)] + unfindable_names(site, package)
