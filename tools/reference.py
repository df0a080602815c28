"""Turn what nbdev shows of a function into reference: a plain signature, and tables out of a numpydoc docstring."""

import re
import textwrap

FIELDS = {
    "Parameters": "parameter",
    "Other Parameters": "parameter",
    "Attributes": "attribute",
    "Returns": "result",
    "Yields": "result",
    "Raises": "error",
    "Warns": "warning",
}
TITLE = re.compile(r"^(?P<title>[A-Z]\w+(?: [A-Z]\w+)?)\n-{3,}[ \t]*$", re.MULTILINE)
SOURCE = re.compile(r"^\[source\]\(/blob/.*\n+", re.MULTILINE)  # where no repository is named, the link leads nowhere
SIGNATURE = re.compile(r"^```python\n(?P<code>(?:def|class|async def) .*?)^```$", re.MULTILINE | re.DOTALL)


def signature(code: str) -> str:
    """Drop the comments that repeat the docstring, and the modules in front of the names of types."""
    kept = []
    for line in code.splitlines():
        if not line.lstrip().startswith("#"):
            kept.append(re.sub(r"\s+# .*", "", line))
        if line.startswith(")"):
            break
    plain = re.sub(r"\b(?:[a-z_]\w*\.)+(?=[A-Z])|~", "", "\n".join(kept))
    return re.sub(r"\)->", ") -> ", re.sub(r"^(\s+\*{0,2}\w+):(?=\S)", r"\1: ", plain, flags=re.MULTILINE))


def table(kind: str, body: str) -> str:
    """Make a table of the entries `name : type` and their indented descriptions."""
    entries = re.findall(r"^(\S.*)\n((?:(?:[ \t]+.*)?\n)*)", body.strip("\n") + "\n", re.MULTILINE)
    rows = []
    for head, text in entries:
        name, _, types = head.partition(" : ")
        meaning = " ".join(text.split())
        rows.append([name, types, meaning] if kind in {"parameter", "attribute"} else [types or name, meaning])
    heads = [kind, "type", "meaning"] if kind in {"parameter", "attribute"} else [kind, "meaning"]
    if not any(row[-2] for row in rows):
        heads, rows = [kind, "meaning"], [[row[0], row[-1]] for row in rows]
    for row in rows:
        row[:-1] = [f"`{cell}`" if cell and "`" not in cell else cell for cell in row[:-1]]
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines)


def section(title: str, body: str) -> str:
    """Write one section of a docstring as Markdown."""
    if title in FIELDS:
        return f"\n{table(FIELDS[title], body)}\n"
    text = textwrap.dedent(body).strip("\n")
    if ">>>" in text:
        text = re.sub(r"((?:^>>>.*\n?(?:^(?!\n|>>>).+\n?)*)+)", r"```python\n\1\n```\n", text, flags=re.MULTILINE)
    return f"\n**{title}**\n\n{text}\n"


def reference(markdown: str) -> str:
    """Rewrite what `show_doc` displays; leave any other Markdown as it is."""
    found = SIGNATURE.search(markdown)
    if found is None:
        return markdown
    parts = TITLE.split(markdown[found.end() :])
    head = SOURCE.sub("", markdown[: found.start()])
    code = f"```python\n{signature(found['code'])}\n```"
    return head + code + parts[0] + "".join(map(section, parts[1::2], parts[2::2]))
