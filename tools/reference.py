"""The reference: a page for each package with every public name in it, out of the source by griffe."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import griffe

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "churn_mlops"
TOP = "foundations"  # the page of the modules that are in no folder
HEADS = {
    "parameters": ("parameter", "type", "meaning"),
    "other parameters": ("parameter", "type", "meaning"),
    "attributes": ("attribute", "type", "meaning"),
    "returns": ("result", "type", "meaning"),
    "yields": ("result", "type", "meaning"),
    "raises": ("error", "type", "meaning"),
    "warns": ("warning", "type", "meaning"),
}


@cache
def package() -> griffe.Module:
    """Read the package without importing it."""
    return griffe.load(PACKAGE, search_paths=[ROOT], docstring_parser="numpy")


def part_of(module: Path) -> str:
    """Name the page that a module is on: its folder."""
    return module.parent.name if module.parent.name != PACKAGE else TOP


def notebook_of(module: griffe.Module) -> str:
    """Name the notebook of a module, from the root of the site."""
    return module.filepath.relative_to(ROOT / PACKAGE).with_suffix(".ipynb").as_posix()


def parts() -> dict[str, list[griffe.Module]]:
    """List the modules that have public names, by page, in the order in which the sidebar lists their chapters."""
    order = re.findall(r"[\w/]+\.ipynb", (ROOT / "_quarto.yml").read_text(encoding="utf-8"))
    found: dict[str, list[griffe.Module]] = {}
    for file in sorted((ROOT / PACKAGE).rglob("[!_]*.py")):
        module = package()[".".join(file.relative_to(ROOT / PACKAGE).with_suffix("").parts)]
        if module.exports:
            found.setdefault(part_of(file), []).append(module)
    for modules in found.values():
        modules.sort(
            key=lambda module: order.index(notebook_of(module)) if notebook_of(module) in order else len(order)
        )
    return found


def public_names(module: griffe.Module) -> list[Any]:
    """List what a module exports, in the order of the source; griffe sees no name of `A, B = 1, 2`."""
    names = [module[name] for name in module.exports or () if name in module.members]
    return sorted(names, key=lambda name: name.lineno or 0)


def anchor(name: Any) -> str:
    """Name the place of a public name on its page; modules share a page, so the module is part of it."""
    return name.path.removeprefix(f"{name.module.parent.path}.")


def summary(name: Any) -> str:
    """Give the first line of a docstring; of a constant or a type, what it is."""
    if name.docstring:
        return str(name.docstring.value).partition("\n")[0]
    value = str(name.annotation if name.is_attribute and name.annotation else getattr(name, "value", ""))
    return f"`{value[:77]}...`" if len(value) > 80 else f"`{value}`"


def table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Write a table in Markdown."""
    lines = [heads, ("---",) * len(heads), *rows]
    return "\n".join(
        "| " + " | ".join(" ".join(cell.split()).replace("|", r"\|") for cell in line) + " |" for line in lines
    )


def code(text: Any) -> str:
    """Write a name or a type as code; a docstring may have done that itself."""
    text = str(text or "").removeprefix("(").removesuffix(", optional)")  # griffe reads `str, optional` as a tuple
    return f"`{text}`" if text and "`" not in text else text


def section(part: Any) -> str:
    """Write one section of a docstring."""
    kind = part.kind.value
    if kind in HEADS:
        heads, rows = (
            HEADS[kind],
            [(getattr(each, "name", ""), each.annotation, each.description) for each in part.value],
        )
        named = any(name for name, *_ in rows)
        rows = [(code(name), code(typed), meaning)[not named :] for name, typed, meaning in rows]
        return table(heads if named else (heads[0], "meaning"), rows)
    if kind == "examples":
        shown = [f"```python\n{text}\n```" if str(what.value) == "examples" else text for what, text in part.value]
        return "\n\n".join(["**Examples**", *shown])
    return f"**{part.title}**\n\n{part.value.description}" if kind == "admonition" else str(part.value)


def described(name: Any) -> str:
    """Write a docstring as Markdown; its links start at the chapter, and the page is in another folder."""
    text = "\n\n".join(map(section, name.docstring.parsed)) if name.docstring else ""
    folder = Path(notebook_of(name.module)).parent
    return re.sub(
        r"\]\((?![a-z]+:|#|\.\./)", lambda link: f"{link[0]}../{folder.as_posix()}/".replace("/./", "/"), text
    )


def split_arguments(text: str) -> list[str]:
    """Split the arguments of a call at the commas that stand in no bracket or string."""
    places, depth = [0], 0
    for place, letter in enumerate(re.sub(r"'[^']*'|\"[^\"]*\"", lambda found: "_" * len(found[0]), text)):
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0:
            places.append(place + 1)
    return [text[start:end].strip(" ,") for start, end in zip(places, [*places[1:], None], strict=True)]


def public(types: str, module: griffe.Module) -> str:
    """Write out what the private names in a signature stand for, where that is a type."""

    def stands_for(found: re.Match[str]) -> str:
        value = str(getattr(module.members.get(found[0]), "value", None) or found[0])
        if value.startswith("Annotated["):
            return split_arguments(value.removeprefix("Annotated["))[0]
        return found[0] if "(" in value else value

    return re.sub(r"\b_[A-Z][a-z]\w*", stands_for, types)


def signature(name: Any) -> str:
    """Write how a name is called, on as many lines as it needs, or what a constant is."""
    if name.is_attribute:
        typed = f": {name.annotation}" if name.annotation else ""
        return public(f"{name.name}{typed}" + (f" = {name.value}" if name.value else ""), name.module)
    start = "class" if name.is_class else "async def" if "async" in name.labels else "def"
    called = public(name.signature(return_type=False) or name.name, name.module)
    returned = public(f" -> {name.annotation}" if name.is_function and name.annotation else "", name.module)
    if len(start + called + returned) < 88 or "(" not in called:
        return f"{start} {called}{returned}"
    head, _, arguments = called.removesuffix(")").partition("(")
    lines = "".join(f"    {argument},\n" for argument in split_arguments(arguments))
    return f"{start} {head}(\n{lines}){returned}"


def members(name: Any) -> dict[str, Any]:
    """List what a class defines, with what it has from private bases, which have no entry of their own."""
    bases = [base for base in reversed(name.mro()) if base.name.startswith("_")]
    return {key: member for each in [*bases, name] for key, member in each.members.items()}


def fields(name: Any) -> str:
    """Write the public fields of a class whose docstring does not describe them; a `Field` says what one means."""
    if re.search(r"^(Parameters|Attributes)\n---", getattr(name.docstring, "value", ""), re.MULTILINE):
        return ""
    rows = []
    for field in members(name).values():
        if field.is_attribute and field.annotation and field.name[0] != "_" and "property" not in field.labels:
            said = [
                each.value
                for each in getattr(field.value, "arguments", ())
                if getattr(each, "name", "") == "description"
            ]
            rows.append(
                (
                    code(field.name),
                    code(public(str(field.annotation), name.module)),
                    ast.literal_eval(str(said[0])) if said else "",
                )
            )
    n_columns = 3 if any(row[2] for row in rows) else 2
    return table(("field", "type", "meaning")[:n_columns], [row[:n_columns] for row in rows]) if rows else ""


def entry(name: Any, place: str, level: int = 3) -> Iterator[str]:
    """Describe a public name: where it comes from, signature, docstring, fields, and its methods after it."""
    title = place.partition(".")[2]
    yield f"{'#' * level} {title} {{#{place}}}"
    if level == 3:
        source = f"[source](../{notebook_of(name.module)}#{name.name.lower()})"
        yield f"`from {name.module.path} import {name.name}` · {source}"
    yield f"```python\n{signature(name)}\n```"
    yield described(name)
    if name.is_class:
        yield fields(name)
        for member in members(name).values():
            if member.name[0] != "_" and member.docstring and (member.is_function or "property" in member.labels):
                yield from entry(member, f"{place}.{member.name}", level + 1)


def front(title: str, description: str) -> str:
    """Open a page; it has no source of its own that a reader could edit."""
    return f'---\ntitle: "{title}"\ndescription: "{description}"\nrepo-actions: false\n---'


def page(part: str, modules: list[griffe.Module]) -> str:
    """Write the page of a package."""
    names = {module: public_names(module) for module in modules}
    overview = [
        (f"[`{module.path}`](#{module.name})", ", ".join(f"[`{name.name}`](#{anchor(name)})" for name in names[module]))
        for module in modules
    ]
    text = [front(title_of(part), about(part)), table(("module", "its public names"), overview)]
    for module in modules:
        chapter = f"See [its chapter](../{notebook_of(module)})."
        text += [f"## {module.path.partition('.')[2]} {{#{module.name}}}", f"{summary(module)} {chapter}"]
        text += [line for name in names[module] for line in entry(name, anchor(name))]
    return "\n\n".join(filter(None, text)) + "\n"


def title_of(part: str) -> str:
    """Name a page."""
    return f"{PACKAGE}: {TOP}" if part == TOP else f"{PACKAGE}.{part}"


def about(part: str) -> str:
    """Say what a package is for, in the words of its `__init__`."""
    return "What every other part rests on." if part == TOP else summary(package()[part])


def index(found: dict[str, list[griffe.Module]]) -> str:
    """Write the list of all public names, and of what the packages hand on."""
    names = [(part, name) for part, modules in found.items() for module in modules for name in public_names(module)]
    links = {name.name: f"[`{name.name}`]({part}.md#{anchor(name)})" for part, name in names}
    short = []
    for each in (package(), *(package()[part] for part in found if part != TOP)):
        handed_on = sorted(name for name, member in each.members.items() if member.is_alias and name in links)
        short.append((code(each.path), ", ".join(links[name] for name in handed_on)))
    rows = [
        (f"[`{name.name}`]({part}.md#{anchor(name)})", summary(name), name.module.path.partition(".")[2])
        for part, name in names
    ]
    rows.sort(key=lambda row: row[0].lower())
    pages = [(f"[{title_of(part)}]({part}.md)", about(part)) for part in found]
    return (
        "\n\n".join(
            [
                front("Reference: every public name", "What can be imported, from where, and what it is."),
                "Most programs need only these names, which are imported from the packages themselves:",
                table(("from", "names"), [row for row in short if row[1]]),
                "## By package",
                table(("page", "what is on it"), pages),
                "## From A to Z",
                f"All {len(rows)} public names, with the module that each is imported from:",
                table(("name", "what it is", "module"), rows),
            ]
        )
        + "\n"
    )


def pages() -> Iterator[tuple[str, str]]:
    """Write every page of the reference that is made from the source."""
    found = parts()
    yield "reference/index.md", index(found)
    for part, modules in found.items():
        yield f"reference/{part}.md", page(part, modules)
