"""Execute notebooks as `nbdev-test` does, keep what comes out by content, and compare it with what is committed.

    python tools/notebooks.py [notebook ...]      write the outputs that are stale into the notebooks (`make fresh`)

A cell that shows times or sizes of its own run opens with `#| numbers: vary`: its words are compared, its numbers and
pictures are not. Everywhere else a number may differ by a thousandth, or by one in its last decimal place. A notebook
whose figures come from a file that not everybody has says which variable holds its path, as `#| data: CHURN_TELCO_CSV`:
where that is not set its cells must run, but its outputs stay as they are.
"""

import base64
import hashlib
import io
import json
import math
import os
import re
import sys
import tomllib
import traceback
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from html.parser import HTMLParser
from importlib.metadata import distributions
from itertools import zip_longest
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
EXECUTED = ROOT / "_executed"  # no leading dot: nbdev's docs processing passes over hidden folders
WIDGET = "application/vnd.jupyter.widget-view+json"
STYLE = ROOT / "nbs" / "matplotlibrc"
os.environ["MATPLOTLIBRC"] = str(STYLE)  # before a process that notebooks are forked from imports matplotlib
KEY = "executed"  # of a notebook's metadata: the content that its outputs came from

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
    content: str = ""  # the fingerprint of what was executed


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
    """Execute a notebook in a process of its own; keep the outputs when no cell raised."""
    content = fingerprint(path)
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
    result = result._replace(content=content if fingerprint(path) == content else "edited while it ran")
    if not result.failure:
        _keep(path, result)
    return result


# ---- keeping


def read(path: Path) -> dict[str, Any]:
    """Read a notebook."""
    return json.loads(path.read_text(encoding="utf-8"))


def all_notebooks() -> list[Path]:
    """List the notebooks of the project."""
    hidden = (".", "_")
    paths = (ROOT / "nbs").rglob("*.ipynb")
    return sorted(path for path in paths if not any(part.startswith(hidden) for part in path.relative_to(ROOT).parts))


@lru_cache
def _environment() -> str:
    """Name the releases that are installed, the settings that come from outside, and how notebooks are executed."""
    given = sorted(item for item in os.environ.items() if item[0].startswith(("CHURN_", "MODEL_")))
    releases = sorted({f"{part.name} {part.version}" for part in distributions()})
    return repr((sys.version, releases, given, Path(__file__).read_text(encoding="utf-8")))


def shared_content() -> str:
    """Digest what the outputs of every notebook depend on: the package, the settings, nbdev's, the environment."""
    nbdev = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["nbdev"]
    digest = hashlib.sha256(repr((nbdev, _environment())).encode())
    package = [module for module in (ROOT / "churn_mlops").rglob("*.py") if module.name != "_modidx.py"]
    digest.update(STYLE.read_bytes())
    for file in [*sorted(package), ROOT / "settings.ini"]:
        digest.update(f"{file.relative_to(ROOT)} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def fingerprint(path: Path, shared: str = "") -> str:
    """Digest what the outputs of a notebook depend on: its code, not its prose, and what they all share.

    Whoever asks for many notebooks at once makes `shared_content` once and gives it.
    """
    code = [(cell["id"], cell["source"]) for cell in read(path)["cells"] if cell["cell_type"] == "code"]
    content = (path.relative_to(ROOT).as_posix(), code, shared or shared_content())
    return hashlib.sha256(repr(content).encode()).hexdigest()


def _place(path: Path) -> Path:
    """Give the place of the executed copy of a file under nbs/."""
    return EXECUTED / path.relative_to(ROOT / "nbs")


def _put(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, and only where its content differs."""
    if path.is_file() and path.read_bytes() == content:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_bytes(content)
    part.replace(path)


def _keep(path: Path, result: Run) -> None:
    """Write the executed copy of a notebook."""
    notebook = read(path)
    for cell in notebook["cells"]:
        if cell["id"] in result.outputs:
            cell["outputs"] = result.outputs[cell["id"]]
    notebook["metadata"][KEY] = result.content
    _put(_place(path), json.dumps(notebook, ensure_ascii=False).encode())


def kept(path: Path, shared: str = "") -> Run | None:
    """Give what the notebook showed when it last ran, if nothing that it depends on has changed since."""
    try:
        copy = read(_place(path))
    except (OSError, ValueError):
        return None
    content = fingerprint(path, shared)
    if copy.get("metadata", {}).get(KEY) != content:
        return None
    return Run({cell["id"]: cell["outputs"] for cell in copy["cells"] if cell["cell_type"] == "code"}, content=content)


def lacks_data(path: Path) -> bool:
    """Tell whether a notebook's outputs come from a file that is not here."""
    text = "\n".join("".join(cell["source"]) for cell in read(path)["cells"] if cell["cell_type"] == "code")
    return any(not os.environ.get(name) for name in re.findall(r"^#\| data: (\w+)$", text, re.MULTILINE))


def runs(paths: Iterable[Path]) -> dict[Path, Run]:
    """Execute the notebooks that changed, as many at a time as there are processors; end where one fails."""
    shared = shared_content()
    found = {path: kept(path, shared) for path in paths}
    todo = sorted((path for path, result in found.items() if result is None), key=lambda path: -path.stat().st_size)
    with ThreadPoolExecutor(
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    ) as pool:
        found |= dict(zip(todo, pool.map(run, todo), strict=True))
    failures = [result.failure for result in found.values() if result and result.failure]
    if failures:
        sys.exit("\n".join(failures))
    return {path: result for path, result in found.items() if result}


def executed() -> Path:
    """Give a copy of nbs/ whose notebooks hold what they show now; only those that changed are executed."""
    results = runs(path for path in all_notebooks() if not lacks_data(path))
    wanted = set()
    for path in sorted((ROOT / "nbs").rglob("*")):
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(ROOT).parts):
            wanted.add(_place(path))
            if path in results:
                _keep(path, results[path])
            else:
                _put(_place(path), path.read_bytes())
    for path in EXECUTED.rglob("*"):
        if path.is_file() and path not in wanted:
            path.unlink()
    return EXECUTED


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


class _Text(HTMLParser):
    """The text of a piece of HTML, without styles and scripts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.parts: list[str] = []
        self._silent = 0
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._silent += tag in ("style", "script")

    def handle_endtag(self, tag: str) -> None:
        self._silent -= tag in ("style", "script")

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.parts.append(data)


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
            was, now = (" ".join(_Text(part).parts) if "html" in name else part for part in (text, after[name]))
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


def main(names: list[str]) -> None:
    """Write into the notebooks what is stale in them."""
    from fastcore.nbio import write_nb

    paths = [Path(name).resolve() for name in names] or all_notebooks()
    for path, result in runs(path for path in paths if not lacks_data(path)).items():
        cells = stale(path, result.outputs)
        if cells:
            print(*cells.values(), sep="\n")
            notebook = read(path)
            for cell in notebook["cells"]:
                if cell["id"] in cells:
                    cell["outputs"] = result.outputs[cell["id"]]
            write_nb(notebook, path)


if __name__ == "__main__":
    main(sys.argv[1:])
