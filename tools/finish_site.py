"""Finish what smalldocs renders: formulas without a script, tables that align, search without a request."""

import base64
import html
import io
import json
import re
from pathlib import Path

from bs4 import BeautifulSoup
from latex2mathml.converter import convert
from nbdev.config import get_config
from PIL import Image

from churn_mlops.lab.outputs import read, sources

FORMULA = re.compile(r'(<span class="math (inline|display)">)\\[(\[](.*?)\\[)\]](?=</span>)', re.DOTALL)
KATEX = re.compile(r"<(?:link|script)\b[^>]*cdn\.jsdelivr\.net/npm/katex[^>]*>(?:</script>)?")
TOGGLE = re.compile(r'<a([^>]*data-bs-toggle="collapse"[^>]*) role="navigation"([^>]*)>(.*?)</a>', re.DOTALL)
DATAFRAME = re.compile(r'<table[^>]*class="dataframe".*?</table>', re.DOTALL)
PNG = re.compile(r'src="data:image/png;base64,([^"]+)"')
EDIT = re.compile(r'<div class="toc-actions">.*?</div></div>', re.DOTALL)
FONT = re.compile(r"@import\s+url\([^)]*\);?")
NUMBER = re.compile(r"[-+\N{MINUS SIGN}]?[\d.,]+(?:e[-+]?\d+)?[ %]*|NaN|None|-?inf", re.IGNORECASE)
FETCH = 'const r = await fetch(offset + "search.json");\n      index = await r.json();'


def formula(found: re.Match[str]) -> str:
    """Write a formula as MathML, which browsers show by themselves."""
    return found[1] + convert(html.unescape(found[3]), display="block" if found[2] == "display" else "inline")


def dataframe(found: re.Match[str]) -> str:
    """Put a table of pandas into a box of its own, its columns of text at the left and its numbers at the right."""
    table = BeautifulSoup(found[0], "html.parser").table
    del table["border"]
    heads = [row("th") for row in table.select("thead tr")]
    if len(heads) == 2 and not any(above.text and below.text for above, below in zip(*heads, strict=False)):
        for above, below in zip(*heads, strict=False):
            above.string = above.text or below.text
        heads[1][0].parent.decompose()  # it held the names of the index alone
    columns = list(zip(*([cell.text.strip() for cell in row("td")] for row in table.select("tbody tr")), strict=False))
    for place, column in enumerate(columns, -len(columns)):
        if any(cell and not NUMBER.fullmatch(cell) for cell in column):
            for cells in (row(["td", "th"]) for row in table("tr")):
                if len(cells) >= len(columns):
                    cells[place]["class"] = "text long" if max(map(len, column)) > 48 else "text"
    return f'<div class="sd-table">{table}</div>'


def sized(found: re.Match[str]) -> str:
    """Show a figure in the size that it was drawn for: 100 dots to the inch, so that the letters of all are alike."""
    picture = Image.open(io.BytesIO(base64.b64decode(found[1])))
    dots = picture.info.get("dpi", (100, 100))[0]
    width, height = (round(side * 100 / dots) for side in picture.size)
    return f'width="{width}" height="{height}" {found[0]}'


def prose(notebook: Path) -> dict[str, str]:
    """Give the words of a notebook under each of its headings, without code and outputs."""
    found, section = {"": ""}, ""
    for line in "\n".join(sources(notebook, "markdown")).splitlines():
        section = re.sub(r"\W", "", line) if line.startswith("##") else section
        found[section] = found.get(section, "") + " " + (line if line[:1] not in "#>" else "")
    words = re.compile(r"!?\[([^\]]*)\]\([^)]*\)|```\w*|[*`|]")  # a link is its text
    return {heading: " ".join(words.sub(r"\1", text).split()) for heading, text in found.items()}


def search_index(site: Path, sources: Path) -> list[dict[str, str]]:
    """Make the search index: no entry twice, and other words for what a page is about."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    for entry in json.loads((site / "search.json").read_text(encoding="utf-8")):
        page, _, place = entry["href"].partition("#")
        source = (sources / page).with_suffix(".ipynb")
        if source.is_file():
            entry["text"] = prose(source).get(re.sub(r"\W", "", entry["section"]), entry["text"])
            if not entry["section"]:
                entry["keywords"] = read(source)["metadata"].get("nbdev", {}).get("keywords", "")
        elif page.startswith("reference/") and "." in place:
            entry["title"] += f".{place.partition('.')[0]}"  # the module, since several may have the same name
        found.setdefault((entry["title"], entry["section"]), entry)
    return list(found.values())


def finish_site(site: Path, sources: Path) -> None:
    """Finish every page, and make search work where a browser fetches no file."""
    libs, host = site / "site_libs", get_config().doc_host
    index = json.dumps(search_index(site, sources), ensure_ascii=False)
    (libs / "search-index.js").write_text(f"window.siteSearchIndex = {index};\n", encoding="utf-8")
    script = (libs / "smalldocs.js").read_text(encoding="utf-8")
    if FETCH not in script:
        raise SystemExit(f"smalldocs.js has no `{FETCH}` any more: adapt tools/finish_site.py")
    ours = Path(__file__).with_name("site.js").read_text(encoding="utf-8")
    script = ours + script.replace(FETCH, "index = await window.loadSearchIndex(offset);")
    (libs / "smalldocs.js").write_text(script, encoding="utf-8")
    for style in (libs / "themes").rglob("*.css"):  # their fonts come from another host
        style.write_text(FONT.sub("", style.read_text(encoding="utf-8")), encoding="utf-8")
    for page in site.rglob("*.html"):
        text = FORMULA.sub(formula, KATEX.sub("", page.read_text(encoding="utf-8")))
        text = TOGGLE.sub(r'<button type="button"\1\2>\3</button>', text)
        text = PNG.sub(sized, DATAFRAME.sub(dataframe, text))
        source = sources / page.relative_to(site)
        written = [file for suffix in (".ipynb", ".md") if (file := source.with_suffix(suffix)).is_file()]
        if not written or written[0].is_symlink():
            text = EDIT.sub("", text)
        if page == site / "404.html" and host:  # shown under any address, so its links must not start there
            text = text.replace("<head>", f'<head><base href="{host}{get_config().doc_baseurl.rstrip("/")}/">', 1)
        page.write_text(text, encoding="utf-8")
    if host:
        pages = (site / "sitemap.xml").read_text(encoding="utf-8")
        listed = re.sub(r"\s*<url>\s*<loc>[^<]*/404\.html</loc>.*?</url>", "", pages, flags=re.DOTALL)
        (site / "sitemap.xml").write_text(listed, encoding="utf-8")


def entries(site: Path) -> list[dict[str, str]]:
    """Read the search index that the pages use."""
    text = (site / "site_libs" / "search-index.js").read_text(encoding="utf-8")
    return json.loads(text.removeprefix("window.siteSearchIndex = ").removesuffix(";\n"))
