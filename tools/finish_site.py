"""Finish what smalldocs renders: formulas without a script, search without a request, names for what is not text."""

import base64
import html
import json
import re
import shutil
import struct
from functools import partial
from pathlib import Path

from latex2mathml.converter import convert
from nbdev.config import get_config

FORMULA = re.compile(r'<span class="math (inline|display)">\\[(\[](.*?)\\[)\]]</span>', re.DOTALL)
KATEX = re.compile(r"<(?:link|script)\b[^>]*cdn\.jsdelivr\.net/npm/katex[^>]*>(?:</script>)?")
TOGGLE = re.compile(r'<a([^>]*data-bs-toggle="collapse"[^>]*) role="navigation"([^>]*)>(.*?)</a>', re.DOTALL)
DATAFRAME = re.compile(r'<table[^>]*class="dataframe".*?</table>', re.DOTALL)
OUTPUT = re.compile(r'(<div class="cell-output[^>]*>\s*<pre)(><code>)(.*?)(</code></pre>)', re.DOTALL)
DESCRIBED = re.compile(
    r'<table class="([^"]*)">(?=\s*<thead>\s*<tr>(?:\s*<th>[^<]*</th>){2}\s*<th>meaning</th>\s*</tr>)'
)
# The head of a table whose index has a name: one row with the columns, another with the name alone.
NAMED_INDEX = re.compile(
    r"(<thead>\s*<tr[^>]*>\s*<th>)(</th>(?:(?!<tr).)*?</tr>)\s*<tr>\s*<th>([^<]+)</th>(?:\s*<th></th>)*\s*</tr>",
    re.DOTALL,
)
PNG = re.compile(r'src="data:image/png;base64,([^"]+)"')
TOC = re.compile(r'<nav [^>]*id="TOC".*?</nav>', re.DOTALL)
NUMBER = re.compile(r"[-+\N{MINUS SIGN}]?[\d.,]+(?:e[-+]?\d+)?[ %]*|NaN|None|-?inf", re.IGNORECASE)
BEHAVIOUR = {  # what smalldocs.js does, and what it should do
    'const r = await fetch(offset + "search.json");\n      index = await r.json();': (
        "index = await window.loadSearchIndex(offset);"
    ),
    # The link beside a heading would be read as a part of its name; the table of contents has the same links.
    'a.setAttribute("aria-label", "Anchor");': 'a.setAttribute("aria-hidden", "true"); a.tabIndex = -1;',
}
NAMED = {  # what has no name for a reader who does not see the page: where, and what is added
    '<nav class="navbar': 'aria-label="Site"',
    '<nav class="quarto-secondary-nav"': 'aria-label="Section"',
    '<nav id="quarto-sidebar"': 'aria-label="Pages"',
    '<nav id="TOC"': 'aria-labelledby="toc-title"',
    '<nav class="quarto-page-breadcrumbs quarto-title': 'aria-label="Where this page is"',
    '<nav class="page-navigation"': 'aria-label="Previous and next page"',
    '<a class="quarto-color-scheme-toggle': 'role="button" aria-label="Dark or light"',
    '<i class="bi': 'aria-hidden="true"',
    '<div class="smalldocs-search-results': 'role="region" aria-label="Search results" aria-live="polite"',
}


def formula(found: re.Match[str]) -> str:
    """Write a formula as MathML, which browsers show by themselves; its source is its name."""
    source = html.unescape(found[2])
    made = convert(source, display="block" if found[1] == "display" else "inline")
    return f'<span class="math {found[1]}">{made}</span>'


def named(tag: re.Match[str], name: str) -> str:
    """Give the start of an element a name, in the place of what names it now."""
    start, rest = tag[0].split(" ", 1)
    for attribute in re.findall(r"([\w-]+)=", name):
        rest = re.sub(rf'\b{attribute}="[^"]*" ?', "", rest)
    return f"{start} {name} {rest}"


def output(found: re.Match[str]) -> str:
    """Let the lines of an output break where they are sentences: one line, or longer than a table is shown."""
    longest = max(map(len, html.unescape(found[3]).splitlines()), default=0)
    if "\n" in found[3].strip() and longest <= 100:
        return found[0]
    return f'{found[1]} class="sentence"{found[2]}{found[3]}{found[4]}'


def dataframe(found: re.Match[str]) -> str:
    """Put a table of pandas into a box of its own, its columns of text at the left and its numbers at the right."""
    one_head = NAMED_INDEX.sub(r"\1\3\2", found[0])
    rows = [re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL) for row in one_head.split("<tr")]
    classes = []
    for column in zip(*(row for row in rows if row), strict=False):
        is_text = any(cell.strip() and not NUMBER.fullmatch(cell.strip()) for cell in column)
        is_long = max(map(len, column)) > 48
        classes.append(' class="text long"' if is_long else ' class="text"' if is_text else "")

    def row(found: re.Match[str]) -> str:
        tag = "td" if "<td" in found[0] else "th"
        n_names = len(re.findall(rf"<{tag}\b", found[0])) - len(classes)
        place = iter([""] * n_names + classes)
        return re.sub(rf"<{tag}(?=[ >])", lambda start: start[0] + next(place, ""), found[0])

    aligned = re.sub(r"<tr\b.*?</tr>", row, one_head, flags=re.DOTALL)
    return f'<div class="sd-table">{aligned}</div>'


def sized(found: re.Match[str]) -> str:
    """Show a figure in the size that it was drawn for: 100 dots to the inch, so that the letters of all are alike."""
    head = base64.b64decode(found[1][:800])
    width, height = struct.unpack(">II", head[16:24])
    place = head.find(b"pHYs")
    scale = 100 * 39.37 / struct.unpack(">I", head[place + 4 : place + 8])[0] if place > 0 else 1
    return f'width="{width * scale:.0f}" height="{height * scale:.0f}" {found[0]}'


def finish_page(text: str, script: str) -> str:
    """Finish one page."""
    text = FORMULA.sub(formula, KATEX.sub("", text))
    text = TOGGLE.sub(r'<button type="button"\1\2>\3</button>', text)
    text = OUTPUT.sub(output, text)
    text = DESCRIBED.sub(r'<table class="\1 described">', text).replace('<table border="1" ', "<table ")
    text = PNG.sub(sized, DATAFRAME.sub(dataframe, text))
    text = TOC.sub(
        lambda toc: re.sub(r"_(?=[^<>]*</a>)", "_<wbr>", toc[0]), text
    )  # a long name breaks at its underscores
    for start, name in NAMED.items():
        tag, _, mark = start.partition(" ")
        text = re.sub(rf"{tag} [^>]*{re.escape(mark)}[^>]*>", partial(named, name=name), text)
    return text.replace("</head>", f'<script src="{script}"></script></head>', 1)


def prose(notebook: dict) -> dict[str, str]:
    """Give the words of a notebook under each of its headings, without code and outputs."""
    found, section = {"": ""}, ""
    for cell in notebook["cells"]:
        for line in "".join(cell["source"]).splitlines() if cell["cell_type"] == "markdown" else ():
            section = line.lstrip("# ") if line.startswith("##") else section
            found[section] = found.get(section, "") + " " + (line if line[:1] not in "#>" else "")
    plain = {heading: re.sub(r"!?\[([^\]]*)\]\([^)]*\)|```\w*|[*`|]", r"\1", text) for heading, text in found.items()}
    return {re.sub(r"\W", "", heading): " ".join(text.split()) for heading, text in plain.items()}


def search_index(site: Path, sources: Path) -> list[dict[str, str]]:
    """Make the search index: no entry twice, and other words for what a page is about."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    for entry in json.loads((site / "search.json").read_text(encoding="utf-8")):
        page, _, place = entry["href"].partition("#")
        if (sources / page).with_suffix(".ipynb").is_file():
            notebook = json.loads((sources / page).with_suffix(".ipynb").read_text(encoding="utf-8"))
            entry["text"] = prose(notebook).get(re.sub(r"\W", "", entry["section"]), entry["text"])
            if not entry["section"]:
                entry["keywords"] = notebook["metadata"].get("nbdev", {}).get("keywords", "")
        elif page.startswith("reference/") and "." in place:
            entry["title"] += f".{place.partition('.')[0]}"  # the module, since several may have the same name
        found.setdefault((entry["title"], entry["section"]), entry)
    return list(found.values())


def finish_site(site: Path, sources: Path) -> None:
    """Finish every page, and make search work where a browser fetches no file."""
    libs = site / "site_libs"
    shutil.copy(Path(__file__).with_name("site.js"), libs / "site.js")
    index = json.dumps(search_index(site, sources), ensure_ascii=False)
    (libs / "search-index.js").write_text(f"window.siteSearchIndex = {index};\n", encoding="utf-8")
    behaviour = (libs / "smalldocs.js").read_text(encoding="utf-8")
    for known, instead in BEHAVIOUR.items():
        if known not in behaviour:
            raise SystemExit(f"smalldocs.js has no `{known}` any more: adapt tools/finish_site.py")
        behaviour = behaviour.replace(known, instead)
    (libs / "smalldocs.js").write_text(behaviour, encoding="utf-8")
    for style in (libs / "themes").rglob("*.css"):  # their fonts come from another host
        style.write_text(re.sub(r"@import\s+url\([^)]*\);?", "", style.read_text(encoding="utf-8")), encoding="utf-8")
    for page in site.rglob("*.html"):
        source = sources / page.relative_to(site)
        script = "../" * (len(page.relative_to(site).parts) - 1) + "site_libs/site.js"
        done = finish_page(page.read_text(encoding="utf-8"), script)
        text = source.with_suffix(".md")
        if not source.with_suffix(".ipynb").is_file() and (text.is_symlink() or not text.is_file()):
            done = re.sub(r'<div class="toc-actions">.*?</div></div>', "", done, flags=re.DOTALL)  # nothing to edit
        page.write_text(done, encoding="utf-8")
    missing = site / "404.html"  # a host shows it under any address, so its links must not start there
    config = get_config()
    if config.doc_host:
        base = f'<head><base href="{config.doc_host}{config.doc_baseurl.rstrip("/")}/">'
        missing.write_text(missing.read_text(encoding="utf-8").replace("<head>", base, 1), encoding="utf-8")
        pages = (site / "sitemap.xml").read_text(encoding="utf-8")
        listed = re.sub(r"\s*<url>\s*<loc>[^<]*/404\.html</loc>.*?</url>", "", pages, flags=re.DOTALL)
        (site / "sitemap.xml").write_text(listed, encoding="utf-8")


def entries(site: Path) -> list[dict[str, str]]:
    """Read the search index that the pages use."""
    text = (site / "site_libs" / "search-index.js").read_text(encoding="utf-8")
    return json.loads(text.removeprefix("window.siteSearchIndex = ").removesuffix(";\n"))
