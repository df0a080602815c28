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
import traceback
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import zip_longest
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
WIDGET = "application/vnd.jupyter.widget-view+json"
STYLE = ROOT / "nbs" / "matplotlibrc"
os.environ["MATPLOTLIBRC"] = str(STYLE)  # before a process that notebooks are forked from imports matplotlib

Outputs = dict[str, list[dict[str, Any]]]  # by cell id

# ---- executing

# A fresh process per notebook, so that none sees what another left behind; it is forked from one that has the heavy
# imports done. Nothing here may start a thread pool of OpenMP, which does not survive a fork.
_processes = get_context("forkserver")
_processes.set_forkserver_preload(
    ["nbdev.test", "pandas", "matplotlib.pyplot", "sklearn.ensemble", "sklearn.pipeline", "sklearn.linear_model"]
)


class Run(NamedTuple):
    """What a notebook's cells showed, or the traceback of the one that raised."""

    outputs: Outputs
    failure: str = ""


def _work(path: Path, answer: Connection) -> None:
    """Execute a notebook in this process."""
    from execnb.shell import CaptureShell
    from fastcore.nbio import nb2dict
    from nbdev.clean import clean_nb
    from nbdev.config import get_config
    from nbdev.process import NBProcessor
    from nbdev.test import nb_test_cells

    os.environ["IN_TEST"] = "1"
    os.chdir(path.parent)
    config = get_config(path.parent)
    sys.path.insert(0, str(config.config_path))
    runs = {cell.id for cell in nb_test_cells(path, str(config.tst_flags).split())}
    notebook = NBProcessor(path, rm_directives=False, process=True).nb
    shell = CaptureShell(path, profile=bool(config.exec_profile))
    try:
        shell.run_all(
            notebook, exc_stop=True, preproc=lambda cell: cell.id not in runs, cell_timeout=config.cell_timeout or None
        )
    except Exception:
        answer.send(Run({}, shell.prettytb(fname=path) or traceback.format_exc()))
        return
    executed = nb2dict(notebook)
    clean_nb(executed)
    for cell in executed["cells"]:
        for output in cell.get("outputs", []):
            output.get("data", {}).pop(WIDGET, None)  # means nothing without its kernel
    answer.send(Run({cell["id"]: cell["outputs"] for cell in executed["cells"] if cell["id"] in runs}))


def run(path: Path) -> Run:
    """Execute a notebook in a process of its own; give what its cells showed when none raised."""
    receiver, sender = _processes.Pipe(duplex=False)
    process = _processes.Process(target=_work, args=(path, sender))
    process.start()
    sender.close()
    try:
        result: Run = receiver.recv()
    except EOFError:
        process.join()
        result = Run({}, f"{path}: the process that ran it ended with exit code {process.exitcode}")
    process.join()
    return result


def read(path: Path) -> dict[str, Any]:
    """Read a notebook."""
    return json.loads(path.read_text(encoding="utf-8"))


def all_notebooks() -> list[Path]:
    """List the notebooks of the project."""
    return sorted(path for path in (ROOT / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts)


def forgotten(path: Path) -> list[str]:
    """Say what a notebook lacks to be a chapter: title and subtitle, the module of its path, a line in the sidebar."""
    name = path.relative_to(ROOT / "nbs").as_posix()
    module = name.removesuffix(".ipynb").replace("/", ".")
    texts, code = (
        ["".join(cell["source"]).strip() for cell in read(path)["cells"] if cell["cell_type"] == kind]
        for kind in ("markdown", "code")
    )
    first = texts[0] if texts else ""
    modules = re.findall(r"^#\|\s*default_exp\s+(\S+)", "\n".join(code), re.MULTILINE)
    exports = any(re.search(r"^#\|\s*export", source, re.MULTILINE) for source in code)
    sidebar = (ROOT / "_quarto.yml").read_text(encoding="utf-8").partition("\n  sidebar:")[2]
    lines = re.findall(rf"^ +(?:- |href: ){re.escape(name)}$", sidebar, re.MULTILINE)
    found = []
    if not re.fullmatch(r"# \S.*\n+> \S.*", first):
        found.append(
            f"its first text cell must be `# A title` and `> What it is for.`, and nothing else; it is {first!r}"
        )
    if (modules or exports) and modules != [module]:
        found.append(f"it exports to {', '.join(modules) or 'no module'}; its path wants `#| default_exp {module}`")
    if len(lines) != 1:
        found.append(f"the sidebar in _quarto.yml lists it {len(lines)} times; it needs the line `- {name}` once")
    return [f"nbs/{name}: {each}" for each in found]


def lacks_data(path: Path) -> bool:
    """Tell whether a notebook's outputs come from a file that is not here."""
    text = "\n".join("".join(cell["source"]) for cell in read(path)["cells"] if cell["cell_type"] == "code")
    return any(not os.environ.get(name) for name in re.findall(r"^#\| data: (\w+)$", text, re.MULTILINE))


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


def _text(page: str) -> str:
    """Give the text of a piece of HTML, without styles and scripts."""
    return html.unescape(re.sub(r"<(style|script)\b.*?</\1>|<[^>]*>", " ", page, flags=re.DOTALL))


def _same_number(one: re.Match[str], other: re.Match[str]) -> bool:
    """Compare two numbers as they are shown."""
    a, b = (float(token["number"].replace(",", "").replace("\N{MINUS SIGN}", "-")) for token in (one, other))
    last = 10.0 ** -len(one["decimals"]) if one["decimals"] and "e" not in one["number"].lower() else 0.0
    return math.isclose(a, b, rel_tol=1e-3, abs_tol=max(1.01 * last, 1e-9))


def _difference(old: str, new: str, numbers: bool) -> tuple[str, str] | None:
    """Give the surroundings of the first word or number that differs."""
    old, new = (_PASSING.sub("(passing)", text) for text in (old, new))
    for one, other in zip_longest(_TOKEN.finditer(old), _TOKEN.finditer(new)):
        if one and other:
            if one["number"] and other["number"]:
                if not numbers or _same_number(one, other):
                    continue
            elif one[0] == other[0]:
                continue
        around = [
            " ".join(text[max(0, token.start() - 30) : token.end() + 30].split()) if token else "nothing more"
            for text, token in ((old, one), (new, other))
        ]
        return around[0], around[1]
    return None


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
    """Gather what a cell shows: streams by name, other outputs by position and type."""
    shown: dict[str, str] = {}
    for place, output in enumerate(out for out in outputs if out["output_type"] != "stream"):
        for kind, data in output.get("data", {}).items():
            shown[f"{kind} {place + 1}"] = data if isinstance(data, str) else "".join(data)
    for output in outputs:
        if output["output_type"] == "stream":
            shown[output["name"]] = shown.get(output["name"], "") + "".join(output["text"])
    return shown


def _change(old: list[dict[str, Any]], new: list[dict[str, Any]], numbers: bool) -> str:
    """Say how the outputs of a cell changed, if they did."""
    before, after = _shown(old), _shown(new)
    if before.keys() != after.keys():
        return f"committed {', '.join(before) or 'no output'}; now {', '.join(after) or 'no output'}"
    for name, text in before.items():
        if name.startswith("image/png"):
            if numbers and not _same_picture(text, after[name]):
                return "its picture has changed"
        elif name.startswith("text/") or "/" not in name:
            was, now = map(_text, (text, after[name])) if "html" in name else (text, after[name])
            if found := _difference(was, now, numbers):
                return f"committed '{found[0]}', now '{found[1]}'"
    return ""


def stale(path: Path, outputs: Outputs) -> dict[str, str]:
    """Name the cells of a notebook whose committed outputs are not what they show now, by id."""
    found = {}
    for place, cell in enumerate(read(path)["cells"], 1):
        if cell["cell_type"] == "code" and cell["id"] in outputs:
            source = "".join(cell["source"])
            numbers = not re.search(r"^#\|\s*numbers:\s*vary\s*$", source, re.MULTILINE)
            if change := _change(cell["outputs"], outputs[cell["id"]], numbers):
                code = [line for line in source.splitlines() if line.strip() and not line.startswith("#|")]
                name = f"{path.relative_to(ROOT)} cell {place} (id {cell['id']}, first line '{code[0]}')"
                found[cell["id"]] = f"{name} is stale: {change}"
    return found


def refresh(path: Path) -> str:
    """Write into a notebook what is stale in it, and name it; give the traceback of the cell that raised."""
    from fastcore.nbio import write_nb

    result = run(path)
    cells = stale(path, result.outputs)
    if cells:
        print(*cells.values(), sep="\n")
        notebook = read(path)
        for cell in notebook["cells"]:
            if cell["id"] in cells:
                cell["outputs"] = result.outputs[cell["id"]]
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
