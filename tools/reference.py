"""The reference: a page for each package with every public name in it, out of the source by griffe."""

import ast
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import griffe
from chapters import ROOT, sidebar

PACKAGE = "churn_mlops"
TOP = "foundations"  # the page of the modules that are in no folder
HEADS = {"returns": "result", "yields": "result"}  # others are called by their kind: parameter, error, warning
HEADS |= {"raises": "error", "warns": "warning"}


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
    found: dict[str, list[griffe.Module]] = {}
    for chapter in sidebar():
        file = (ROOT / PACKAGE / chapter).with_suffix(".py")
        if file.is_file() and (module := package()[chapter.removesuffix(".ipynb").replace("/", ".")]).exports:
            found.setdefault(part_of(file), []).append(module)
    return found


def public_names(module: griffe.Module) -> list[Any]:
    """List what a module exports, in the order of the source; griffe sees no name of `A, B = 1, 2`."""
    names = [module[name] for name in module.exports or () if name in module.members]
    return sorted(names, key=lambda name: name.lineno or 0)


def anchor(name: Any) -> str:
    """Name the place of a public name on its page; modules share a page, so the module is part of it."""
    return name.path.removeprefix(f"{name.module.parent.path}.")


def link(name: Any, page: str = "") -> str:
    """Link a public name to its entry."""
    return f"[`{name.name}`]({page}#{anchor(name)})"


def summary(name: Any) -> str:
    """Give the first line of a docstring; of a constant or a type, what it is."""
    if name.docstring:
        return str(name.docstring.value).partition("\n")[0]
    value = str(name.annotation if name.is_attribute and name.annotation else getattr(name, "value", ""))
    return f"`{value[:77]}...`" if len(value) > 80 else f"`{value}`"


def table(*lines: Iterable[str]) -> str:
    """Write a table in Markdown, from its head and its rows."""
    cells = [[" ".join(cell.split()).replace("|", r"\|") for cell in line] for line in lines]
    cells.insert(1, ["---"] * len(cells[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def code(text: Any) -> str:
    """Write a name or a type as code; a docstring may have done that itself."""
    text = str(text or "").removeprefix("(").removesuffix(", optional)")  # griffe reads `str, optional` as a tuple
    return f"`{text}`" if text and "`" not in text else text


def section(part: Any) -> str:
    """Write one section of a docstring: its text, or a table of the parameters, results or errors that it lists."""
    kind = part.kind.value
    if kind == "examples":
        shown = [f"```python\n{text}\n```" if str(what.value) == "examples" else text for what, text in part.value]
        return "\n\n".join(["**Examples**", *shown])
    if not isinstance(part.value, list):
        return f"**{part.title}**\n\n{part.value.description}" if kind == "admonition" else str(part.value)
    rows = [(code(getattr(each, "name", "")), code(each.annotation), each.description) for each in part.value]
    first = 0 if any(name for name, *_ in rows) else 1  # results and errors have no names
    head = [HEADS.get(kind, kind.split()[-1].removesuffix("s")), "type", "meaning"]
    return table(head if first == 0 else head[::2], *(row[first:] for row in rows))


def described(name: Any) -> str:
    """Write a docstring as Markdown; its links start at the chapter, and the page is in another folder."""
    text = "\n\n".join(map(section, name.docstring.parsed)) if name.docstring else ""
    folder = Path(notebook_of(name.module)).parent.as_posix()
    return re.sub(r"\]\((?![a-z]+:|#|\.\./)", f"](../{folder}/".replace("/./", "/"), text)


def split_arguments(text: str) -> list[str]:
    """Split the arguments of a call at the commas that stand in no bracket or string."""
    places, depth = [0], 0
    for place, letter in enumerate(re.sub(r"'[^']*'|\"[^\"]*\"", lambda found: "_" * len(found[0]), text)):
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0:
            places.append(place + 1)
    return [text[start:end].strip(" ,") for start, end in zip(places, [*places[1:], None], strict=True)]


def public(types: object, module: griffe.Module) -> str:
    """Write out what the private names in a signature stand for, where that is a type."""

    def stands_for(found: re.Match[str]) -> str:
        value = str(getattr(module.members.get(found[0]), "value", None) or found[0])
        if value.startswith("Annotated["):
            return split_arguments(value.removeprefix("Annotated["))[0]
        return found[0] if "(" in value else value

    return re.sub(r"\b_[A-Z][a-z]\w*", stands_for, str(types))


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


def fields(name: Any) -> str:
    """Write the public fields of a class whose docstring does not describe them; a `Field` says what one means."""
    if re.search(r"^(Parameters|Attributes)\n---", getattr(name.docstring, "value", ""), re.MULTILINE):
        return ""
    rows = []
    for field in name.all_members.values():
        if field.is_attribute and field.annotation and field.name[0] != "_" and "property" not in field.labels:
            given = {each.name: each.value for each in getattr(field.value, "arguments", ()) if hasattr(each, "name")}
            meaning = ast.literal_eval(str(given.get("description", "''")))
            rows.append((code(field.name), code(public(field.annotation, name.module)), meaning))
    n_columns = 3 if any(meaning for *_, meaning in rows) else 2
    return table(*(row[:n_columns] for row in [("field", "type", "meaning"), *rows])) if rows else ""


def entry(name: Any, place: str, level: int = 3) -> Iterator[str]:
    """Describe a public name: where it comes from, signature, docstring, fields, and its methods after it."""
    yield f"{'#' * level} {place.partition('.')[2]} {{#{place}}}"
    if level == 3:
        source = f"[source](../{notebook_of(name.module)}#{name.name.lower()})"
        yield f"`from {name.module.path} import {name.name}` · {source}"
    yield f"```python\n{signature(name)}\n```"
    yield described(name)
    if name.is_class:
        yield fields(name)
        for member in name.all_members.values():
            if member.name[0] != "_" and member.docstring and (member.is_function or "property" in member.labels):
                yield from entry(member, f"{place}.{member.name}", level + 1)


def title(part: str) -> str:
    """Name a page."""
    return f"{PACKAGE}: {TOP}" if part == TOP else f"{PACKAGE}.{part}"


def about(part: str) -> str:
    """Say what a package is for, in the words of its `__init__`."""
    return "What every other part rests on." if part == TOP else summary(package()[part])


def front(title: str, description: str) -> str:
    """Open a page; it has no source of its own that a reader could edit."""
    return f'---\ntitle: "{title}"\ndescription: "{description}"\nrepo-actions: false\n---'


def page(part: str, modules: list[griffe.Module]) -> Iterator[str]:
    """Write the page of a package."""
    names = {module: public_names(module) for module in modules}
    yield front(title(part), about(part))
    rows = [(f"[`{module.path}`](#{module.name})", ", ".join(map(link, names[module]))) for module in modules]
    yield table(("module", "its public names"), *rows)
    for module in modules:
        yield f"## {module.path.partition('.')[2]} {{#{module.name}}}"
        yield f"{summary(module)} See [its chapter](../{notebook_of(module)})."
        for name in names[module]:
            yield from entry(name, anchor(name))


def index(found: dict[str, list[griffe.Module]]) -> Iterator[str]:
    """Write the list of all public names, and of what the packages hand on."""
    names = [(name, part) for part, modules in found.items() for module in modules for name in public_names(module)]
    links = {name.name: link(name, f"{part}.md") for name, part in names}
    short = []
    for each in (package(), *(package()[part] for part in found if part != TOP)):
        handed_on = sorted(name for name, member in each.members.items() if member.is_alias and name in links)
        short += [(code(each.path), ", ".join(links[name] for name in handed_on))] if handed_on else []
    rows = [(link(name, f"{part}.md"), summary(name), name.module.path.partition(".")[2]) for name, part in names]
    yield front("Reference: every public name", "What can be imported, from where, and what it is.")
    yield "Most programs need only these names, which are imported from the packages themselves:"
    yield table(("from", "names"), *short)
    yield "## By package"
    yield table(("page", "what is on it"), *((f"[{title(part)}]({part}.md)", about(part)) for part in found))
    yield "## From A to Z"
    yield f"All {len(rows)} public names, with the module that each is imported from:"
    yield table(("name", "what it is", "module"), *sorted(rows, key=lambda row: row[0].lower()))


def pages() -> Iterator[tuple[str, str]]:
    """Write every page of the reference that is made from the source."""
    found = parts()
    for name, text in [("index", index(found)), *((part, page(part, modules)) for part, modules in found.items())]:
        yield f"reference/{name}.md", "\n\n".join(filter(None, text)) + "\n"
