"""What a notebook of this repository needs to be a chapter: a title, the module of its path, a line in the sidebar."""

import re
from pathlib import Path

from churn_mlops.lab.outputs import directives, sources

ROOT = Path(__file__).resolve().parent.parent


def sidebar() -> list[str]:
    """List the notebooks that the sidebar of the site leads to."""
    text = (ROOT / "_quarto.yml").read_text(encoding="utf-8").partition("\n  sidebar:")[2]
    return re.findall(r"^ +(?:- |href: )([\w/]+\.ipynb)$", text, re.MULTILINE)


def forgotten(path: Path) -> list[str]:
    """Say what a notebook lacks to be a chapter: title and subtitle, the module of its path, a line in the sidebar."""
    name = path.relative_to(ROOT / "nbs").as_posix()
    module = name.removesuffix(".ipynb").replace("/", ".")
    first = "".join(sources(path, "markdown")[:1])
    modules = directives(path, r"default_exp\s+(\S+)")
    n_lines = sidebar().count(name)
    found = []
    if not re.fullmatch(r"# \S.*\n+> \S.*", first):
        found += [f"its first text cell must be `# A title` and `> What it is for.`, and nothing else; it is {first!r}"]
    if modules != [module] and (modules or directives(path, "export")):
        found += [f"it exports to {', '.join(modules) or 'no module'}; its path wants `#| default_exp {module}`"]
    if n_lines != 1:
        found += [f"the sidebar in _quarto.yml lists it {n_lines} times; it needs the line `- {name}` once"]
    return [f"nbs/{name}: {each}" for each in found]
