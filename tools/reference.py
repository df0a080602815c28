"""Reference out of the source: signatures as they are written, and tables out of numpydoc docstrings."""

import ast
import re
import textwrap
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
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
WIDTH = 88

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Name:
    """A public name of a module: what it is called there, its syntax, and its place."""

    name: str
    node: ast.stmt
    file: Path

    @property
    def module(self) -> str:
        """The dotted name of its module."""
        return ".".join(self.file.relative_to(ROOT).with_suffix("").parts)

    @property
    def summary(self) -> str:
        """The first line of its docstring; of a constant its type or its value, of a type what it stands for."""
        node = self.node
        if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
            return docstring(node).partition("\n")[0]
        if isinstance(node, ast.AnnAssign) and text(node.annotation) != "TypeAlias":
            return f"`{text(node.annotation)}`"
        return "`dict`" if isinstance(node.value, ast.Dict) else f"`{textwrap.shorten(text(node.value), 80)}`"


def text(node: ast.expr) -> str:
    """Write an expression as the source has it, with double quotes, and a quoted type without quotes."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isidentifier():
        return f'"{node.value}"'
    return ast.unparse(node) if '"' in ast.unparse(node) else ast.unparse(node).replace("'", '"')


def annotation(node: ast.expr) -> str:
    """Write a type."""
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else text(node)


def docstring(node: ast.stmt) -> str:
    """Read a docstring, or nothing."""
    return (ast.get_docstring(node) or "") if isinstance(node, Function | ast.ClassDef) else ""


def definitions(body: list[ast.stmt]) -> Iterator[tuple[str, ast.stmt]]:
    """Find what a module or a class defines, by name; what comes later wins, as in Python."""
    for node in body:
        if isinstance(node, Function | ast.ClassDef):
            yield node.name, node
        elif isinstance(node, ast.Assign):
            targets = node.targets[0].elts if isinstance(node.targets[0], ast.Tuple) else node.targets
            yield from ((target.id, node) for target in targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id, node


def public_names(file: Path) -> list[Name]:
    """List the names in a module's `__all__`, in the order of the source."""
    found = module(file)
    exported = found.get("__all__")
    wanted = ast.literal_eval(exported.value) if isinstance(exported, ast.Assign) else []
    return sorted((Name(name, found[name], file) for name in wanted if name in found), key=lambda n: n.node.lineno)


def class_body(node: ast.ClassDef, module: dict[str, ast.stmt]) -> list[ast.stmt]:
    """Read what a class defines: its docstring, what it has from the private bases of its module, and the rest."""
    bases = [module.get(base.id) for base in node.bases if isinstance(base, ast.Name) and base.id.startswith("_")]
    inherited = [class_body(base, module) for base in bases if isinstance(base, ast.ClassDef)]
    own = 1 if docstring(node) else 0
    return [*node.body[:own], *(each for body in inherited for each in body), *node.body[own:]]


def public_type(node: ast.expr, module: dict[str, ast.stmt]) -> ast.expr:
    """Write out what a private name of the module stands for in a type, without the checks of `Annotated`."""

    class WriteOut(ast.NodeTransformer):
        def visit_Name(self, name: ast.Name) -> ast.AST:
            stands_for = module.get(name.id) if name.id.startswith("_") else None
            is_type = isinstance(stands_for, ast.Assign) and not isinstance(stands_for.value, ast.Call)
            return self.visit(deepcopy(stands_for.value)) if is_type else name

        def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
            is_checked = text(node.value) == "Annotated" and isinstance(node.slice, ast.Tuple)
            return self.visit(node.slice.elts[0]) if is_checked else self.generic_visit(node)

    return WriteOut().visit(node)


def write_out_types(node: Function, module: dict[str, ast.stmt]) -> None:
    """Write out the private names in the types of a function."""
    for each in ast.walk(node.args):
        if isinstance(each, ast.arg) and each.annotation is not None:
            each.annotation = public_type(deepcopy(each.annotation), module)
    if node.returns is not None:
        node.returns = public_type(deepcopy(node.returns), module)


def members(node: ast.ClassDef) -> list[tuple[str, Function]]:
    """List the public methods and properties of a class."""
    found = dict(definitions(node.body))
    return [(name, each) for name, each in found.items() if isinstance(each, Function) and name[0] != "_"]


def fields(node: ast.ClassDef) -> list[tuple[str, str, str]]:
    """List the public fields of a class: name, type, and the meaning that a `Field` gives it."""
    found = []
    for each in node.body:
        if (
            isinstance(each, ast.AnnAssign)
            and isinstance(each.target, ast.Name)
            and not each.target.id.startswith(("_", "model_config"))
        ):
            keywords = each.value.keywords if isinstance(each.value, ast.Call) else []
            meaning = next((k.value for k in keywords if k.arg == "description"), None)
            found.append((each.target.id, annotation(each.annotation), ast.literal_eval(meaning) if meaning else ""))
    return found


@cache
def module(file: Path) -> dict[str, ast.stmt]:
    """Read what a module defines; a class has what it gets from the private bases of its module."""
    found = dict(definitions(ast.parse(file.read_text(encoding="utf-8")).body))
    for node in found.values():
        if isinstance(node, Function):
            write_out_types(node, found)
        if isinstance(node, ast.ClassDef):
            node.body = class_body(node, found)
            node.bases = [base for base in node.bases if not text(base).startswith("_")]
            for each in node.body:
                if isinstance(each, ast.AnnAssign):
                    each.annotation = public_type(deepcopy(each.annotation), found)
                elif isinstance(each, Function):
                    write_out_types(each, found)
    return found


def find(file: Path, dotted: str) -> ast.stmt | None:
    """Find a function, a class or a method of a module by its name."""
    if not file.is_file():
        return None
    first, *rest = dotted.split(".")
    node = module(file).get(first)
    for part in rest:
        node = dict(definitions(node.body)).get(part) if isinstance(node, ast.ClassDef) else None
    return node


def _parameters(args: ast.arguments) -> list[str]:
    """Write each parameter as it stands in the source, with the marks `/` and `*` between them."""
    positional = [*args.posonlyargs, *args.args]
    values: list[ast.expr | None] = [*[None] * (len(positional) - len(args.defaults)), *args.defaults]

    def one(arg: ast.arg, value: ast.expr | None, stars: str = "") -> str:
        typed = f": {annotation(arg.annotation)}" if arg.annotation else ""
        return f"{stars}{arg.arg}{typed}" + (f"{' = ' if typed else '='}{text(value)}" if value else "")

    parts = [one(arg, value) for arg, value in zip(positional, values, strict=True)]
    if args.posonlyargs:
        parts.insert(len(args.posonlyargs), "/")
    if args.vararg:
        parts.append(one(args.vararg, None, "*"))
    elif args.kwonlyargs:
        parts.append("*")
    parts += [one(arg, value) for arg, value in zip(args.kwonlyargs, args.kw_defaults, strict=True)]
    if args.kwarg:
        parts.append(one(args.kwarg, None, "**"))
    return [part for part in parts if part not in {"self", "cls"}]


def _joined(head: str, parts: list[str], tail: str) -> str:
    """Write a signature on one line, or with a line for each parameter."""
    line = f"{head}({', '.join(parts)}){tail}"
    if len(line) <= WIDTH:
        return line
    return "\n".join([f"{head}(", *(f"    {part}," for part in parts), f"){tail}"])


def _class_signature(node: ast.ClassDef) -> str:
    """Write how an object of a class is made: its `__init__`, or the fields that make one."""
    init = dict(definitions(node.body)).get("__init__")
    if isinstance(init, Function):
        return _joined(f"class {node.name}", _parameters(init.args), "")
    decorators = " ".join(ast.unparse(each) for each in node.decorator_list)
    bases = [ast.unparse(base) for base in node.bases]
    if "dataclass" in decorators or {"NamedTuple", "TypedDict"} & set(bases):
        made = [each for each in node.body if isinstance(each, ast.AnnAssign)]
        public = [ast.unparse(each) for each in made if not ast.unparse(each.target).startswith("_")]
        return _joined(f"class {node.name}", public, "")
    return f"class {node.name}" + (f"({', '.join(bases)})" if bases else "")


def written(node: ast.stmt) -> str:
    """Write the signature of a function, a class or a constant as its source has it."""
    if isinstance(node, ast.ClassDef):
        return _class_signature(node)
    if isinstance(node, Function):
        returned = f" -> {annotation(node.returns)}" if node.returns else ""
        if any(ast.unparse(each).endswith("property") for each in node.decorator_list):
            return f"{node.name}{returned.replace(' ->', ':')}"
        start = "async def" if isinstance(node, ast.AsyncFunctionDef) else "def"
        return _joined(f"{start} {node.name}", _parameters(node.args), returned)
    return textwrap.shorten(ast.unparse(node), 200, placeholder=" ...")


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


def markdown_table(heads: list[str], rows: list[list[str]]) -> str:
    """Write a table in Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines)


def table(kind: str, body: str) -> str:
    """Make a table of the entries `name : type` and their indented descriptions."""
    entries = re.findall(r"^(\S.*)\n((?:(?:[ \t]+.*)?\n)*)", body.strip("\n") + "\n", re.MULTILINE)
    rows = []
    for head, indented in entries:
        name, _, types = head.partition(" : ")
        meaning = " ".join(indented.split())
        rows.append([name, types, meaning] if kind in {"parameter", "attribute"} else [types or name, meaning])
    heads = [kind, "type", "meaning"] if kind in {"parameter", "attribute"} else [kind, "meaning"]
    if not any(row[-2] for row in rows):
        heads, rows = [kind, "meaning"], [[row[0], row[-1]] for row in rows]
    for row in rows:
        row[:-1] = [f"`{cell}`" if cell and "`" not in cell else cell for cell in row[:-1]]
    return markdown_table(heads, rows)


def section(title: str, body: str) -> str:
    """Write one section of a docstring as Markdown."""
    if title in FIELDS:
        return f"\n{table(FIELDS[title], body)}\n"
    plain = textwrap.dedent(body).strip("\n")
    if ">>>" in plain:
        plain = re.sub(r"((?:^>>>.*\n?(?:^(?!\n|>>>).+\n?)*)+)", r"```python\n\1\n```\n", plain, flags=re.MULTILINE)
    return f"\n**{title}**\n\n{plain}\n"


def described(doc: str, *, folded: bool = False) -> str:
    """Write a numpydoc docstring as Markdown; `folded` puts its sections behind one line, for pages of prose."""
    first, *parts = TITLE.split(doc)
    titles, sections = parts[::2], "".join(map(section, parts[::2], parts[1::2]))
    if folded and titles:
        summary = " · ".join(titles)
        sections = f'\n<details class="details">\n<summary>{summary}</summary>\n{sections}\n</details>\n'
    return first.rstrip() + "\n" + sections


def reference(markdown: str, node: ast.stmt | None = None) -> str:
    """Rewrite what `show_doc` displays of a definition; leave any other Markdown as it is."""
    found = SIGNATURE.search(markdown)
    if found is None:
        return markdown
    head = SOURCE.sub("", markdown[: found.start()])
    code = signature(found["code"]) if node is None else written(node)
    return f"{head}```python\n{code}\n```{described(markdown[found.end() :], folded=True)}"
