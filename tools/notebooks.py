"""Execute notebooks as `nbdev-test` does, and compare what they show with what is committed.

    python tools/notebooks.py [notebook ...]      write the outputs that are stale into the notebooks (`make fresh`)

A cell that shows times or sizes of its own run opens with `#| numbers: vary`: its words are compared, its numbers and
pictures are not. Everywhere else a number may differ by a thousandth, or by one in its last decimal place. A notebook
whose figures come from a file that not everybody has says which variable holds its path, as `#| data: CHURN_TELCO_CSV`:
where that is not set its cells must run, but its outputs stay as they are.
"""

import base64
import html
import io
import json
import math
import os
import re
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import zip_longest
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

ROOT = Path(__file__).resolve().parent.parent
os.environ["MATPLOTLIBRC"] = str(ROOT / "nbs" / "matplotlibrc")  # before anything imports matplotlib

# ---- executing

# A fresh process per notebook, so that none sees what another left behind; it is forked from one that has the heavy
# imports done. Nothing here may start a thread pool of OpenMP, which does not survive a fork.
_processes = get_context("forkserver")
_processes.set_forkserver_preload(
    ["nbdev.test", "pandas", "matplotlib.pyplot", "sklearn.ensemble", "sklearn.pipeline", "sklearn.linear_model"]
)


Outputs = dict[str, list[dict[str, Any]]]  # what the cells show, by their ids


class Run(NamedTuple):
    """What a notebook's cells showed, or the traceback of the one that raised."""

    outputs: Outputs
    failure: str = ""


def clean(notebook: dict[str, Any]) -> None:
    """Leave in a notebook what nbdev commits, and of a widget what it shows where no kernel runs."""
    from nbdev.clean import _nbdev_clean

    notebook["metadata"].pop("widgets", None)
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)
    _nbdev_clean(notebook)


def _work(path: Path, answer: Connection) -> None:
    """Execute a notebook in this process as `nbdev-test` does, and catch what it would write and print."""
    from fastcore.nbio import nb2dict
    from nbdev.config import get_config
    from nbdev.test import test_nb

    os.chdir(path.parent)
    config = get_config()
    flags, timeout = str(config.tst_flags).split(), config.cell_timeout or None
    with mock.patch("nbdev.test.write_nb") as write, mock.patch("sys.__stderr__", io.StringIO()) as said:
        passed, _ = test_nb(path, flags, basepath=config.config_path, save=True, cell_timeout=timeout)
    if not passed:
        answer.send(Run({}, said.getvalue()))
        return
    executed = nb2dict(write.call_args.args[0])
    clean(executed)
    answer.send(Run({cell["id"]: cell["outputs"] for cell in executed["cells"] if cell["cell_type"] == "code"}))


def run(path: Path) -> Run:
    """Execute a notebook in a process of its own; give what its cells showed when none raised."""
    receiver, sender = _processes.Pipe(duplex=False)
    process = _processes.Process(target=_work, args=(path, sender))
    process.start()
    sender.close()
    try:
        result = receiver.recv()
    except EOFError:
        result = None
    process.join()
    return result or Run({}, f"{path}: the process that ran it ended with exit code {process.exitcode}")


def read(path: Path) -> dict[str, Any]:
    """Read a notebook."""
    return json.loads(path.read_text(encoding="utf-8"))


def all_notebooks() -> list[Path]:
    """List the notebooks of the project."""
    return sorted(path for path in (ROOT / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts)


def sidebar() -> list[str]:
    """List the notebooks that the sidebar of the site leads to."""
    text = (ROOT / "_quarto.yml").read_text(encoding="utf-8").partition("\n  sidebar:")[2]
    return re.findall(r"^ +(?:- |href: )([\w/]+\.ipynb)$", text, re.MULTILINE)


def texts(path: Path, kind: str) -> list[str]:
    """Give the sources of the cells of a kind."""
    return ["".join(cell["source"]).strip() for cell in read(path)["cells"] if cell["cell_type"] == kind]


def directives(path: Path, pattern: str) -> list[str]:
    """Give what the directives `#| ...` of a notebook say."""
    return re.findall(rf"^#\|\s*{pattern}", "\n".join(texts(path, "code")), re.MULTILINE)


def forgotten(path: Path) -> list[str]:
    """Say what a notebook lacks to be a chapter: title and subtitle, the module of its path, a line in the sidebar."""
    name = path.relative_to(ROOT / "nbs").as_posix()
    module = name.removesuffix(".ipynb").replace("/", ".")
    first = "".join(texts(path, "markdown")[:1])
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


def lacks_data(path: Path) -> bool:
    """Tell whether a notebook's outputs come from a file that is not here."""
    return not all(map(os.environ.get, directives(path, r"data: (\w+)$")))


# ---- comparing

# What no two runs share: moments, and the random or derived ids of requests, runs and models.
_PASSING = re.compile(
    r"\d{4}-\d\d-\d\dT[\d:.]*(?:Z|\+00:00)?|\b1\.\d{6,}e\+09\b|(?<![.\w])(?=\d*[a-f])(?=[a-f]*\d)[0-9a-f]{12,}\b"
)
_TOKEN = re.compile(
    r"""(?P<number> (?<![\w.]) [-+\N{MINUS SIGN}]?
            (?: \d{1,3}(?:,\d{3})+(?![\d,]) | \d+ ) (?: \.(?P<decimals>\d*) )? (?: e[-+]?\d+ )? )
        | \w+ | \S""",
    re.IGNORECASE | re.VERBOSE,
)


def _same_number(one: re.Match[str], other: re.Match[str]) -> bool:
    """Compare two numbers as they are shown."""
    a, b = (float(token["number"].replace(",", "").replace("\N{MINUS SIGN}", "-")) for token in (one, other))
    last = 10.0 ** -len(one["decimals"]) if one["decimals"] and "e" not in one["number"].lower() else 0.0
    return math.isclose(a, b, rel_tol=1e-3, abs_tol=max(1.01 * last, 1e-9))


def _difference(old: str, new: str, numbers: bool) -> str:
    """Show the first word or number that differs, with what is around it."""
    old, new = (_PASSING.sub("(passing)", text) for text in (old, new))
    for one, other in zip_longest(_TOKEN.finditer(old), _TOKEN.finditer(new)):
        if one and other and one["number"] and other["number"]:
            same = not numbers or _same_number(one, other)
        else:
            same = bool(one and other) and one[0] == other[0]
        if not same:
            was, now = (
                " ".join(text[max(0, token.start() - 30) : token.end() + 30].split()) if token else "nothing more"
                for text, token in ((old, one), (new, other))
            )
            return f"committed '{was}', now '{now}'"
    return ""


def _same_picture(old: str, new: str) -> bool:
    """Compare two pictures roughly: their sizes, and what is left of them at 32 by 32 dots."""
    from PIL import Image, ImageChops

    one, other = (Image.open(io.BytesIO(base64.b64decode(data))).convert("L") for data in (old, new))
    if any(abs(a - b) > 0.02 * a + 2 for a, b in zip(one.size, other.size, strict=True)):
        return False
    box = Image.Resampling.BOX
    difference = ImageChops.difference(one.resize((32, 32), box), other.resize((32, 32), box))
    return max(difference.tobytes()) <= 24


def _shown(outputs: list[dict[str, Any]]) -> dict[str, str]:
    """Gather what a cell shows: streams by name, after other outputs by type and position; HTML is its text."""
    shown: dict[str, str] = {}
    for place, output in enumerate(sorted(outputs, key=lambda each: each["output_type"] == "stream"), 1):
        for kind, data in output.get("data", {}).items():
            shown[f"{kind} {place}"] = "".join(data) if re.match("text/|image/png", kind) else ""
            if kind == "text/html":
                page = re.sub(r"<(style|script)\b.*?</\1>|<[^>]*>", " ", "".join(data), flags=re.DOTALL)
                shown[f"{kind} {place}"] = html.unescape(page)
        if output["output_type"] == "stream":
            shown[output["name"]] = shown.get(output["name"], "") + "".join(output["text"])
    return shown


def _change(old: list[dict[str, Any]], new: list[dict[str, Any]], numbers: bool) -> str:
    """Say how the outputs of a cell changed, if they did."""
    before, after = _shown(old), _shown(new)
    if before.keys() != after.keys():
        return f"committed {', '.join(before) or 'no output'}; now {', '.join(after) or 'no output'}"
    for name, was in before.items():
        if name.startswith("image/png"):
            if numbers and not _same_picture(was, after[name]):
                return "its picture has changed"
        elif found := _difference(was, after[name], numbers):
            return found
    return ""


def stale(path: Path, outputs: Outputs) -> dict[str, str]:
    """Name the cells of a notebook whose committed outputs are not what they show now, by id."""
    found = {}
    for place, cell in enumerate(read(path)["cells"], 1):
        if cell["id"] in outputs:
            source = "".join(cell["source"])
            numbers = not re.search(r"^#\|\s*numbers:\s*vary\s*$", source, re.MULTILINE)
            if change := _change(cell["outputs"], outputs[cell["id"]], numbers):
                first = next(line for line in source.splitlines() if line.strip() and not line.startswith("#|"))
                name = f"{path.relative_to(ROOT)} cell {place} (id {cell['id']}, first line '{first}')"
                found[cell["id"]] = f"{name} is stale: {change}"
    return found


def problems(path: Path) -> list[str]:
    """Run a notebook, and say which cell raised, or which are stale."""
    result = run(path)
    if result.failure or lacks_data(path):
        return [result.failure] if result.failure else []
    return list(stale(path, result.outputs).values())


def refresh(path: Path) -> str:
    """Write into a notebook what is stale in it, and name it; give the traceback of the cell that raised."""
    from fastcore.nbio import write_nb

    result, notebook = run(path), read(path)
    cells = stale(path, result.outputs)
    for cell in notebook["cells"]:
        if cell["id"] in cells:
            print(cells[cell["id"]])
            cell["outputs"] = result.outputs[cell["id"]]
    if cells:
        write_nb(notebook, path)
    return result.failure


def main(names: list[str]) -> None:
    """Refresh notebooks, large ones first and as many at a time as there are processors."""
    from rich.console import Console
    from rich.progress import Progress

    paths = [path for path in [Path(name).resolve() for name in names] or all_notebooks() if not lacks_data(path)]
    paths.sort(key=lambda path: -path.stat().st_size)
    console = Console(stderr=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool, Progress(console=console, disable=not console.is_terminal) as bar:
        runs = as_completed([pool.submit(refresh, path) for path in paths])
        failures = [each.result() for each in bar.track(runs, len(paths), description="executing notebooks")]
    sys.exit("\n".join(filter(None, failures)) or None)


if __name__ == "__main__":
    main(sys.argv[1:])
